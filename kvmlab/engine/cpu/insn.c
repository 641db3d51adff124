/* The instruction table as data: insn.def turned into rows, and its encodings parsed once into
 * opcode maps. Nothing here knows an instruction; a row that cannot be told from another one is
 * an error of engine_init() with the row's text. */
#include "insn.h"

#include <string.h>

/* Prototypes of all handlers. */
#define PROTO_ONE(h) op_fn op_##h;
#define PROTO_RM(h) op_fn op_##h##_r, op_##h##_m;
#define PROTO_SZ(h) op_fn op_##h##_16, op_##h##_32, op_##h##_64;
#define PROTO_SZRM(h) op_fn op_##h##_16r, op_##h##_16m, op_##h##_32r, op_##h##_32m, op_##h##_64r, op_##h##_64m;
#define INSN(mnemonic, forms, handler, ...) PROTO_##forms(handler)
#include "insn.def"
#undef INSN

#define FN_ONE(h) { op_##h }
#define FN_RM(h) { op_##h##_r, op_##h##_m }
#define FN_SZ(h) { op_##h##_16, op_##h##_32, op_##h##_64 }
#define FN_SZRM(h) { op_##h##_16r, op_##h##_16m, op_##h##_32r, op_##h##_32m, op_##h##_64r, op_##h##_64m }
const struct insn_row insn_rows[] = {
#define INSN(mn, form, handler, enc, ops, feat, at, vm, sv, fl, text)                                          \
    { .mnemonic = mn, .encoding = enc, .operands = ops, .summary = text, .fn = FN_##form(handler), .attr = at, \
      .forms = FORM_##form, .feature = FEATURE_##feat, .vmx = INTERCEPT_##vm, .svm = INTERCEPT_##sv, .flags = fl },
#include "insn.def"
#undef INSN
};
#define NR_ROWS (sizeof insn_rows / sizeof *insn_rows)
const unsigned nr_insn_rows = NR_ROWS;

/* ---- the opcode maps: built once by engine_init(), read-only afterwards ---------------------- */

static struct encoding encodings[NR_ROWS];
static uint16_t first_node[NR_MAPS * 256]; /* index + 1 into nodes, 0: no instruction */
static struct opcode_node nodes[NR_ROWS * 3];
static unsigned nr_nodes;

const struct encoding *insn_encoding(unsigned row) { return &encodings[row]; }
const struct opcode_node *opcode_first(unsigned map, uint8_t opcode)
{
    uint16_t n = first_node[map * 256 + opcode];
    return n ? &nodes[n - 1] : NULL;
}
const struct opcode_node *opcode_next(const struct opcode_node *node) { return node->next ? &nodes[node->next - 1] : NULL; }

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool token_is(const char *token, size_t len, const char *word)
{
    size_t n = 0;
    while (n < len && word[n] && word[n] == token[n])
        n++;
    return n == len && !word[n];
}

static bool parse_byte(struct encoding *e, const char *t, size_t len, unsigned *nr_bytes, int *bytes)
{
    if (len < 2 || hex_digit(t[0]) < 0 || hex_digit(t[1]) < 0 || *nr_bytes == 4)
        return false;
    if (len != 2 && !(len == 4 && t[2] == '+' && t[3] == 'r'))
        return false;
    bytes[(*nr_bytes)++] = hex_digit(t[0]) * 16 + hex_digit(t[1]);
    e->plus_reg = len == 4;
    return true;
}

static bool parse_token(struct encoding *e, const char *t, size_t len, unsigned *nr_bytes, int *bytes)
{
    static const struct { const char *word; uint8_t imm; } immediates[] = {
        { "ib", IMM_IB }, { "iw", IMM_IW }, { "iz", IMM_IZ }, { "iv", IMM_IV }, { "cb", IMM_CB },
        { "cz", IMM_CZ }, { "cp", IMM_CP }, { "mo", IMM_MO },
    };
    if (*nr_bytes == 0 && token_is(t, len, "NP"))
        return e->prefix = PREFIX_NONE, true;
    if (*nr_bytes == 0 && token_is(t, len, "REX.W"))
        return e->rex_w = true;
    if (token_is(t, len, "+"))
        return true;
    if (token_is(t, len, "/r"))
        return e->modrm = true;
    if (len == 2 && t[0] == '/' && t[1] >= '0' && t[1] <= '7')
        return e->digit = (int8_t)(t[1] - '0'), e->modrm = true;
    for (unsigned k = 0; k < sizeof immediates / sizeof *immediates; k++)
        if (token_is(t, len, immediates[k].word)) {
            if (e->imm[0] && e->imm[1])
                return false;
            e->imm[e->imm[0] ? 1 : 0] = immediates[k].imm;
            return true;
        }
    return parse_byte(e, t, len, nr_bytes, bytes);
}

static bool parse_encoding(const struct insn_row *row, struct encoding *e)
{
    int bytes[4];
    unsigned nr = 0, at = 0;
    *e = (struct encoding){ .digit = -1, .fixed_modrm = -1, .prefix = PREFIX_ANY };
    for (const char *t = row->encoding; *t;) {
        size_t len = 0;
        while (t[len] && t[len] != ' ')
            len++;
        if (!parse_token(e, t, len, &nr, bytes))
            return false;
        t += len;
        while (*t == ' ')
            t++;
    }
    if (at < nr && nr > 1 && (bytes[0] == 0x66 || bytes[0] == 0xf2 || bytes[0] == 0xf3))
        e->prefix = bytes[at++] == 0x66 ? PREFIX_66 : bytes[0] == 0xf2 ? PREFIX_F2 : PREFIX_F3;
    if (at < nr && bytes[at] == 0x0f && nr - at > 1) {
        at++;
        e->map = MAP_0F;
        if (nr - at > 1 && (bytes[at] == 0x38 || bytes[at] == 0x3a))
            e->map = bytes[at++] == 0x38 ? MAP_0F38 : MAP_0F3A;
    }
    if (at == nr)
        return false;
    e->opcode = (uint8_t)bytes[at++];
    if (at < nr) {
        e->fixed_modrm = (int16_t)bytes[at++];
        e->modrm = true;
    }
    for (const char *o = row->operands; *o; o++) {
        bool starts = o == row->operands || o[-1] == ',';
        if (starts && o[0] == 'M' && (o[1] == 0 || o[1] == ',' || (o[1] >= 'a' && o[1] <= 'z')))
            e->kind = KIND_MEM;
        if (starts && o[0] == 'R' && o[1] >= 'a' && o[1] <= 'z')
            e->kind = KIND_MOD_IGNORED;
        if (starts && o[0] == 'U' && o[1] >= 'a' && o[1] <= 'z')
            e->kind = KIND_REG;
        e->byte_rm |= starts && (o[0] == 'E' || o[0] == 'Z' || o[0] == 'M' || o[0] == 'U') && o[1] == 'b';
        e->byte_reg |= starts && o[0] == 'G' && o[1] == 'b';
    }
    return at == nr;
}

/* Rows with the same opcode are tried from the special to the general. */
static unsigned specificity(const struct encoding *e)
{
    return !e->plus_reg * 16 + (e->fixed_modrm >= 0) * 8 + (e->prefix != PREFIX_ANY) * 4 + (e->rex_w ? 2 : 0) + (e->digit >= 0);
}

static bool same_encoding(unsigned a, unsigned b)
{
    const struct encoding *x = &encodings[a], *y = &encodings[b];
    uint32_t ma = insn_rows[a].attr & (A_NO64 | A_ONLY64), mb = insn_rows[b].attr & (A_NO64 | A_ONLY64);
    return x->prefix == y->prefix && x->digit == y->digit && x->fixed_modrm == y->fixed_modrm &&
           x->rex_w == y->rex_w && x->kind == y->kind && x->plus_reg == y->plus_reg && ma == mb &&
           insn_rows[a].feature == insn_rows[b].feature;
}

static bool add_node(unsigned row, uint8_t opcode)
{
    uint16_t *link = &first_node[encodings[row].map * 256 + opcode];
    if (nr_nodes == sizeof nodes / sizeof *nodes)
        return false;
    for (; *link; link = &nodes[*link - 1].next) {
        const struct opcode_node *other = &nodes[*link - 1];
        if (same_encoding(row, other->row))
            return false;
        if (specificity(&encodings[row]) > specificity(&encodings[other->row]))
            break;
    }
    nodes[nr_nodes] = (struct opcode_node){ .row = (uint16_t)row, .next = *link };
    *link = (uint16_t)++nr_nodes;
    return true;
}

bool engine_init(const char **error)
{
    *error = NULL;
    if (nr_nodes)
        return true;
    for (unsigned row = 0; row < NR_ROWS; row++) {
        if (!parse_encoding(&insn_rows[row], &encodings[row])) {
            *error = insn_rows[row].encoding;
            return false;
        }
        for (unsigned k = 0; k < (encodings[row].plus_reg ? 8u : 1u); k++)
            if (!add_node(row, (uint8_t)(encodings[row].opcode + k))) {
                *error = insn_rows[row].encoding;
                return false;
            }
    }
    return true;
}
