/* Decoding: prefixes, opcode, ModRM, SIB, displacement, immediates (SDM vol. 2A ch. 2).
 *
 * What an instruction is stands in insn.def; here is only how bytes are read. The result is bound
 * to its handler and does not depend on anything but the mode (cpu.h, enum mode) and the profile. */
#include "insn.h"

#include <string.h>

#define MAX_INSN_BYTES 15

struct reader {
    const uint8_t *bytes;
    unsigned at, available;
    bool short_of_bytes, too_long;
};

static uint8_t next_byte(struct reader *r)
{
    if (r->at == MAX_INSN_BYTES)
        r->too_long = true;
    else if (r->at < r->available)
        return r->bytes[r->at++];
    else
        r->short_of_bytes = true;
    return 0;
}

static uint64_t next_bytes(struct reader *r, unsigned n)
{
    uint64_t v = 0;
    for (unsigned k = 0; k < n; k++)
        v |= (uint64_t)next_byte(r) << 8 * k;
    return v;
}

static uint64_t next_signed(struct reader *r, unsigned n)
{
    uint64_t v = next_bytes(r, n);
    return n == 8 ? v : (v ^ 1ull << (8 * n - 1)) - (1ull << (8 * n - 1));
}

struct prefixes {
    uint8_t rex; /* 0x40..0x4f, or 0 */
    uint8_t rep; /* the last of F2 and F3 */
    int8_t seg;  /* enum seg, or -1 */
    bool op66, addr67, lock;
};

static uint8_t read_prefixes(struct reader *r, enum mode mode, struct prefixes *p)
{
    for (;;) {
        uint8_t b = next_byte(r);
        if (r->short_of_bytes || r->too_long)
            return 0;
        if (mode == MODE_LONG64 && (b & 0xf0) == 0x40) {
            p->rex = b;
            continue;
        }
        switch (b) {
        case 0x26: case 0x2e: case 0x36: case 0x3e:
            if (mode != MODE_LONG64) /* there they are ignored, and do not cancel FS or GS */
                p->seg = (int8_t)(b >> 3 & 3);
            break;
        case 0x64: p->seg = FS; break;
        case 0x65: p->seg = GS; break;
        case 0x66: p->op66 = true; break;
        case 0x67: p->addr67 = true; break;
        case 0xf0: p->lock = true; break;
        case 0xf2: case 0xf3: p->rep = b; break;
        default: return b;
        }
        p->rex = 0; /* REX counts only directly before the opcode */
    }
}

static unsigned read_opcode(struct reader *r, uint8_t *opcode)
{
    if (*opcode != 0x0f)
        return MAP_ONE;
    *opcode = next_byte(r);
    if (*opcode != 0x38 && *opcode != 0x3a)
        return MAP_0F;
    unsigned map = *opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
    *opcode = next_byte(r);
    return map;
}

static bool prefix_matches(const struct encoding *e, const struct prefixes *p)
{
    switch (e->prefix) {
    case PREFIX_ANY: return true;
    case PREFIX_NONE: return !p->op66 && !p->rep;
    case PREFIX_66: return p->op66 && !p->rep;
    case PREFIX_F3: return p->rep == 0xf3;
    default: return p->rep == 0xf2;
    }
}

static bool row_matches(const struct cpu *cpu, unsigned row, enum mode mode, const struct prefixes *p, uint8_t modrm)
{
    const struct insn_row *insn = &insn_rows[row];
    const struct encoding *e = insn_encoding(row);
    bool is_memory = modrm < 0xc0 && e->kind != KIND_MOD_IGNORED;
    if (!cpu_has(cpu, (enum feature)insn->feature) || !prefix_matches(e, p))
        return false;
    if (insn->attr & (mode == MODE_LONG64 ? A_NO64 : A_ONLY64))
        return false;
    if ((insn->attr & A_PROT) && (mode == MODE_REAL16 || mode == MODE_REAL32 || mode == MODE_VM86))
        return false;
    if (e->rex_w && !(p->rex & 8))
        return false;
    if (!e->modrm)
        return true;
    if (e->fixed_modrm >= 0)
        return modrm == e->fixed_modrm;
    if (e->digit >= 0 && (modrm >> 3 & 7) != e->digit)
        return false;
    return !(e->kind == KIND_MEM && !is_memory) && !(e->kind == KIND_REG && is_memory);
}

static int find_row(const struct cpu *cpu, unsigned map, uint8_t opcode, enum mode mode, const struct prefixes *p,
                    uint8_t modrm)
{
    for (const struct opcode_node *n = opcode_first(map, opcode); n; n = opcode_next(n))
        if (row_matches(cpu, n->row, mode, p, modrm))
            return n->row;
    return -1;
}

/* ---- memory operands ---------------------------------------------------------------------- */

static void read_memory_16(struct reader *r, uint8_t modrm, struct insn *i)
{
    static const uint8_t base[8] = { RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX };
    static const uint8_t index[8] = { RSI, RDI, RSI, RDI, REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO };
    unsigned mod = modrm >> 6, rm = modrm & 7;
    i->base = base[rm];
    i->index = index[rm];
    if (mod == 0 && rm == 6) {
        i->base = REG_ZERO;
        i->disp = (int64_t)next_signed(r, 2);
    } else if (mod) {
        i->disp = (int64_t)next_signed(r, mod);
    }
    i->seg = i->base == RBP ? SS : DS;
}

static void read_memory_32(struct reader *r, enum mode mode, uint8_t rex, uint8_t modrm, struct insn *i, bool *relative)
{
    unsigned mod = modrm >> 6, rm = modrm & 7, disp_bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    i->index = REG_ZERO;
    i->seg = DS;
    if (rm == 4) {
        uint8_t sib = next_byte(r);
        i->index = (uint8_t)((sib >> 3 & 7) | (rex & 2) << 2);
        i->scale = sib >> 6;
        if (i->index == RSP) {
            i->index = REG_ZERO;
            i->scale = 0;
        }
        i->base = (uint8_t)((sib & 7) | (rex & 1) << 3);
        if ((sib & 7) == 5 && mod == 0) {
            i->base = REG_ZERO;
            disp_bytes = 4;
        }
    } else if (rm == 5 && mod == 0) {
        disp_bytes = 4;
        *relative = mode == MODE_LONG64;
        i->base = *relative ? REG_RIP : REG_ZERO;
    } else {
        i->base = (uint8_t)(rm | (rex & 1) << 3);
    }
    if (i->base == RSP || i->base == RBP)
        i->seg = SS;
    if (disp_bytes)
        i->disp = (int64_t)next_signed(r, disp_bytes);
}

static unsigned address_bytes(enum mode mode, bool addr67)
{
    if (mode == MODE_LONG64)
        return addr67 ? 4 : 8;
    return (mode == MODE_PROT32 || mode == MODE_REAL32) != addr67 ? 4 : 2;
}

static unsigned operand_bytes(const struct cpu *cpu, enum mode mode, uint32_t attr, const struct prefixes *p)
{
    if (attr & A_BYTE)
        return 1;
    if (attr & A_W16)
        return 2;
    if (mode == MODE_LONG64) {
        if (attr & A_F64)
            return p->op66 && !(p->rex & 8) && !cpu_behaves(cpu, BEHAVIOUR_NEAR_BRANCH_66_IGNORED) ? 2 : 8;
        if (p->rex & 8)
            return attr & A_IO ? 4 : 8; /* ports have at most four bytes */
        return p->op66 ? 2 : attr & A_D64 ? 8 : 4;
    }
    return (mode == MODE_PROT32 || mode == MODE_REAL32) != p->op66 ? 4 : 2;
}

static uint64_t read_immediate(struct reader *r, enum immediate kind, unsigned size, unsigned asize)
{
    unsigned z = size == 2 ? 2 : 4;
    switch (kind) {
    case IMM_IB: case IMM_CB: return next_signed(r, 1);
    case IMM_IW: return next_bytes(r, 2);
    case IMM_IZ: case IMM_CZ: return next_signed(r, z);
    case IMM_IV: return next_signed(r, size);
    case IMM_MO: return next_bytes(r, asize);
    case IMM_CP: {
        uint64_t offset = next_bytes(r, z);
        return offset | next_bytes(r, 2) << 32;
    }
    default: return 0;
    }
}

static uint8_t byte_register(uint8_t n, uint8_t rex)
{
    return (uint8_t)(!rex && n >= 4 && n < 8 ? (n - 4) * 8 + 1 : n * 8);
}

static void read_registers(const struct encoding *e, const struct prefixes *p, uint8_t opcode, uint8_t modrm, struct insn *i)
{
    i->reg = (uint8_t)((modrm >> 3 & 7) | (p->rex & 4) << 1);
    i->rm = (uint8_t)(((e->plus_reg ? opcode : modrm) & 7) | (p->rex & 1) << 3);
    if (e->byte_reg)
        i->reg = byte_register(i->reg, p->rex);
    if (e->byte_rm)
        i->rm = byte_register(i->rm, p->rex);
}

static uint8_t form_of(const struct insn_row *row, const struct insn *i)
{
    unsigned memory = (i->flags & INSN_MEM) != 0, size = i->size == 2 ? 0 : i->size == 4 ? 1 : 2;
    switch (row->forms) {
    case FORM_RM: return (uint8_t)memory;
    case FORM_SZ: return (uint8_t)size;
    case FORM_SZRM: return (uint8_t)(size * 2 + memory);
    default: return 0;
    }
}

enum decode_result decode(const struct cpu *cpu, enum mode mode, const uint8_t *bytes, unsigned available, struct insn *i)
{
    struct reader r = { .bytes = bytes, .available = available };
    struct prefixes p = { .seg = -1 };
    uint8_t opcode = read_prefixes(&r, mode, &p);
    unsigned map = read_opcode(&r, &opcode);
    if (r.short_of_bytes || r.too_long)
        return r.too_long ? DECODE_LONG : DECODE_SHORT;
    const struct opcode_node *first = opcode_first(map, opcode);
    if (!first)
        return DECODE_UD;
    bool has_modrm = insn_encoding(first->row)->modrm;
    uint8_t modrm = has_modrm && r.at < r.available ? r.bytes[r.at] : 0;
    if (has_modrm && r.at >= r.available)
        return r.at == MAX_INSN_BYTES ? DECODE_LONG : DECODE_SHORT;
    int row = find_row(cpu, map, opcode, mode, &p, modrm);
    if (row < 0)
        return DECODE_UD;

    const struct insn_row *insn = &insn_rows[row];
    const struct encoding *e = insn_encoding((unsigned)row);
    unsigned asize = address_bytes(mode, p.addr67);
    bool relative = false;
    *i = (struct insn){ .row = (uint16_t)row, .base = REG_ZERO, .index = REG_ZERO, .seg = DS, .rep = p.rep };
    i->ashift = (uint8_t)(64 - 8 * asize);
    i->flags = (uint8_t)(p.lock * INSN_LOCK | (p.rex != 0) * INSN_REX | (p.seg >= 0) * INSN_SEG | p.op66 * INSN_OP66 |
                         p.addr67 * INSN_ADDR67);
    i->size = (uint8_t)operand_bytes(cpu, mode, insn->attr, &p);
    if (e->modrm) {
        next_byte(&r);
        if (modrm < 0xc0 && e->kind != KIND_MOD_IGNORED && e->fixed_modrm < 0) {
            i->flags |= INSN_MEM;
            if (asize == 2)
                read_memory_16(&r, modrm, i);
            else
                read_memory_32(&r, mode, p.rex, modrm, i, &relative);
        }
    }
    read_registers(e, &p, opcode, modrm, i);
    i->imm = read_immediate(&r, (enum immediate)e->imm[0], i->size, asize);
    if (e->imm[1])
        i->imm = (i->imm & 0xffff) | next_bytes(&r, 1) << 32; /* ENTER */
    if (r.short_of_bytes || r.too_long)
        return r.too_long ? DECODE_LONG : DECODE_SHORT;
    if (e->imm[0] == IMM_MO) {
        i->flags |= INSN_MEM;
        i->disp = (int64_t)i->imm;
    }
    if (p.seg >= 0)
        i->seg = (uint8_t)p.seg;
    if (p.lock && !((insn->attr & A_LOCK) && (i->flags & INSN_MEM || e->kind == KIND_MOD_IGNORED)))
        return DECODE_UD;
    i->len = (uint8_t)r.at;
    i->next = i->len;
    if (relative)
        i->disp += i->len;
    i->form = form_of(insn, i);
    bool gated = (insn->attr & A_CPL0) || (!(insn->attr & A_CHECKED) && (insn->vmx || insn->svm));
    i->exec = gated ? op_gate : insn->fn[i->form];
    return DECODE_OK;
}
