/* A random instruction of a given row and a state in which it has something to do.
 *
 * Prefixes, ModRM and immediates are drawn freely; then base registers are moved so that most
 * memory operands lie in the data window. */
#include "oracle.h"

#include "cpu/access.h"
#include "cpu/insn.h"

static uint64_t random_state;

void random_seed(uint64_t seed) { random_state = seed; }
uint64_t random64(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static unsigned below(unsigned n) { return (unsigned)(random64() >> 32) % n; }
static bool chance(unsigned percent) { return below(100) < percent; }

/* ---- values ---------------------------------------------------------------------------------- */

static bool flat(unsigned bits) { return bits == BITS_64 || bits == BITS_FLAT32; }
static uint64_t pointer(unsigned bits)
{
    uint64_t offset = below(DATA_SIZE - 0x40) & ~(chance(60) ? 7u : 0u);
    return flat(bits) ? DATA_BASE + offset : offset;
}

static uint64_t value(unsigned bits)
{
    static const uint64_t edges[] = { 0, 1, 2, 7, 8, 9, 15, 16, 31, 32, 63, 64, 0x7f, 0x80, 0x99, 0x9a, 0xff, 0x7fff, 0x8000,
                                      0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~0ull };
    switch (below(8)) {
    case 0: case 1: return edges[below(sizeof edges / sizeof *edges)];
    case 2: return -(uint64_t)below(300);
    case 3: return below(300);
    case 4: case 5: return pointer(bits);
    case 6: return random64() >> below(64);
    default: return random64();
    }
}

/* ---- bytes ----------------------------------------------------------------------------------------- */

struct writer { uint8_t *bytes; unsigned at; };
static void put(struct writer *w, unsigned byte)
{
    if (w->at < 15)
        w->bytes[w->at++] = (uint8_t)byte;
}
static void put_value(struct writer *w, uint64_t v, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        put(w, (uint8_t)(v >> 8 * k));
}

static unsigned put_prefixes(struct writer *w, const struct encoding *e, uint32_t attr, unsigned bits, bool *addr67)
{
    static const uint8_t overrides[] = { 0x26, 0x2e, 0x36, 0x3e, 0x65 }; /* FS belongs to the host */
    unsigned rex = 0;
    *addr67 = chance(15);
    if (*addr67)
        put(w, 0x67);
    if (e->prefix == PREFIX_66 || (e->prefix != PREFIX_NONE && chance(25)))
        put(w, 0x66);
    if (chance(15))
        put(w, overrides[below(sizeof overrides)]);
    if (e->prefix == PREFIX_F3 || e->prefix == PREFIX_F2)
        put(w, e->prefix == PREFIX_F3 ? 0xf3 : 0xf2);
    else if (e->prefix == PREFIX_ANY && chance(attr & A_REP ? 60 : 4))
        put(w, 0xf2 + below(2));
    if (chance(attr & A_LOCK ? 20 : 2))
        put(w, 0xf0);
    if (bits == BITS_64 && (e->rex_w || chance(60))) {
        rex = 0x40 | below(16) | (e->rex_w ? 8 : 0);
        put(w, rex);
    }
    return rex;
}

static void put_memory(struct writer *w, unsigned bits, bool addr67, unsigned modrm, uint64_t rip)
{
    unsigned mod = modrm >> 6, rm = modrm & 7;
    bool address16 = bits == BITS_16 || bits == BITS_REAL ? !addr67 : bits != BITS_64 && addr67;
    uint64_t absolute = pointer(bits);
    if (address16) {
        if (mod == 0 && rm == 6)
            put_value(w, absolute, 2);
        else
            put_value(w, value(bits), mod);
        return;
    }
    bool no_base = mod == 0 && rm == 5;
    if (no_base && bits == BITS_64)
        absolute -= rip + 12; /* about there: the instruction's end is not known yet */
    if (rm == 4) {
        unsigned sib = (unsigned)random64() & 0xff;
        put(w, sib);
        no_base = mod == 0 && (sib & 7) == 5;
    }
    if (no_base)
        put_value(w, absolute, 4);
    else
        put_value(w, chance(50) ? below(256) : value(bits), mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

static void put_immediates(struct writer *w, unsigned bits)
{
    uint64_t v = chance(50) ? below(64) : value(bits);
    put_value(w, v, 4);
    put_value(w, chance(50) ? random64() : 0, 6);
}

/* ---- the case ------------------------------------------------------------------------------------------ */

/* Moves registers so that the memory operand lies in the window. */
static void aim(struct oracle_case *c, const struct insn *i)
{
    uint64_t *r = c->before.r, target = pointer(c->bits);
    if (c->bits == BITS_64 && i->seg == GS)
        target -= oracle_segments[GS].base;
    else if ((c->bits == BITS_32 || c->bits == BITS_16) && i->seg == GS)
        target = 0x1300 + below(0xc00);
    uint64_t scaled = i->index == REG_ZERO ? 0 : r[i->index] << i->scale;
    uint64_t base = i->base < 16 ? r[i->base] : i->base == REG_RIP ? c->before.rip : 0;
    uint64_t delta = target - (base + scaled + (uint64_t)i->disp);
    if (i->base < 16)
        r[i->base] += delta;
    else if (i->index < 16 && i->scale == 0)
        r[i->index] += delta;
    if (c->bits != BITS_64 && i->base < 16)
        r[i->base] &= 0xffffffff;
}

static bool same_family(const char *mnemonic, const char *start) { return strncmp(mnemonic, start, strlen(start)) == 0; }

static void shape_registers(struct oracle_case *c, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[c->row];
    uint64_t *r = c->before.r;
    if ((i->flags & INSN_MEM) && same_family(row->mnemonic, "bt") && i->reg < 16 && chance(85))
        r[i->reg] = (uint64_t)(int64_t)((int)below(4000) - 2000);
    if ((i->flags & INSN_MEM) && chance(92))
        aim(c, i);
    if (row->attr & A_REP) {
        uint64_t from = pointer(c->bits), to = chance(40) ? from + below(32) : pointer(c->bits);
        if (chance(92))
            r[RSI] = from - (c->bits == BITS_64 && i->seg == GS ? oracle_segments[GS].base : 0);
        if (chance(92))
            r[RDI] = to;
        if (chance(95))
            r[RCX] = chance(80) ? below(24) : below(2500);
    }
    if (same_family(row->mnemonic, "xlat"))
        r[RBX] = pointer(c->bits);
    if (same_family(row->mnemonic, "cmpxchg") && chance(50))
        r[RAX] = chance(50) ? r[i->rm & 15] : value(c->bits);
    if (same_family(row->mnemonic, "loop") || same_family(row->mnemonic, "jcxz"))
        r[RCX] = chance(60) ? below(3) : value(c->bits);
}

/* 0F 01 and 0F C7 with a register are other instructions, which the host may have and the profile not. */
static bool shares_group(const struct encoding *e) { return e->map == MAP_0F && (e->opcode == 0x01 || e->opcode == 0xc7); }

bool generate(struct oracle_case *c, unsigned row, unsigned bits)
{
    const struct encoding *e = insn_encoding(row);
    uint32_t attr = insn_rows[row].attr;
    struct writer w = { c->bytes, 0 };
    bool addr67;
    if (attr & (bits == BITS_64 ? A_NO64 : A_ONLY64))
        return false;
    memset(c, 0, sizeof *c);
    c->bits = bits;
    c->row = row;
    uint64_t rip = flat(bits) ? CODE_BASE : 0;
    c->before.rip = rip + 0x200 + below(0x800);
    put_prefixes(&w, e, attr, bits, &addr67);
    if (e->map != MAP_ONE)
        put(&w, 0x0f);
    if (e->map == MAP_0F38 || e->map == MAP_0F3A)
        put(&w, e->map == MAP_0F38 ? 0x38 : 0x3a);
    put(&w, e->opcode + (e->plus_reg ? below(8) : 0));
    if (e->modrm) {
        unsigned modrm = (unsigned)random64() & 0xff;
        if (e->digit >= 0)
            modrm = (modrm & 0xc7) | (unsigned)e->digit << 3;
        if (chance(e->kind == KIND_REG ? 95 : e->kind == KIND_MEM ? (shares_group(e) ? 0 : 3) : 40))
            modrm |= 0xc0;
        else if (modrm >= 0xc0)
            modrm &= chance(50) ? 0x3f : 0x7f;
        if (e->fixed_modrm >= 0)
            modrm = (unsigned)e->fixed_modrm;
        put(&w, modrm);
        if (modrm < 0xc0)
            put_memory(&w, bits, addr67, modrm, c->before.rip);
    }
    if (e->imm[0] == IMM_MO)
        put_value(&w, pointer(bits), bits == BITS_64 ? (addr67 ? 4 : 8) : (bits == BITS_32 || bits == BITS_FLAT32) != addr67 ? 4 : 2);
    put_immediates(&w, bits);

    for (unsigned n = 0; n < 16; n++)
        c->before.r[n] = value(bits) & (bits == BITS_64 ? ~0ull : 0xffffffff);
    if (chance(92))
        c->before.r[RSP] = pointer(bits);
    if (chance(80))
        c->before.r[RBP] = pointer(bits);
    c->before.rflags = 2 | FLAG_IF | (random64() & FLAGS_STATUS) | (chance(25) ? FLAG_DF : 0) | (chance(8) ? FLAG_AC : 0);
    c->step = 1;
    struct insn i;
    if (bare_decode(c, &i)) {
        shape_registers(c, &i);
        c->step = (insn_rows[c->row].attr & A_REP) && i.rep ? chance(30) : 1;
    }
    for (unsigned n = 0; bits != BITS_64 && n < 16; n++)
        c->before.r[n] &= 0xffffffff;
    if (c->step)
        c->before.rflags |= FLAG_TF;
    return true;
}
