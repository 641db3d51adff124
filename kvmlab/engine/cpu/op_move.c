/* Data moves: MOV, LEA, MOVZX MOVSX, CMOVcc SETcc, XCHG XADD CMPXCHG, BSWAP MOVBE, CBW and its family, XLAT
 * (SDM vol. 1 7.3.1), and the instructions that only check something: NOP, UD, BOUND. */
#include "access.h"
#include "flags.h"

/* ---- MOV and LEA -------------------------------------------------------------------------------- */

#define DEFINE_MOVES(BITS, EG, GE, EI)                                              \
    OP(EG##r)                                                                       \
    {                                                                               \
        set_reg##BITS(cpu, i->rm, reg##BITS(cpu, i->reg));                          \
        return true;                                                                \
    }                                                                               \
    OP(EG##m) { return write##BITS(cpu, (enum seg)i->seg, ea(cpu, i), reg##BITS(cpu, i->reg)); } \
    OP(GE##r)                                                                       \
    {                                                                               \
        set_reg##BITS(cpu, i->reg, reg##BITS(cpu, i->rm));                          \
        return true;                                                                \
    }                                                                               \
    OP(GE##m)                                                                       \
    {                                                                               \
        uint##BITS##_t v;                                                           \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v))                     \
            return false;                                                           \
        set_reg##BITS(cpu, i->reg, v);                                              \
        return true;                                                                \
    }                                                                               \
    OP(EI##r)                                                                       \
    {                                                                               \
        set_reg##BITS(cpu, i->rm, (uint##BITS##_t)i->imm);                          \
        return true;                                                                \
    }                                                                               \
    OP(EI##m) { return write##BITS(cpu, (enum seg)i->seg, ea(cpu, i), (uint##BITS##_t)i->imm); }
DEFINE_MOVES(8, op_mov_Eb_Gb_, op_mov_Gb_Eb_, op_mov_Eb_Ib_)
DEFINE_MOVES(16, op_mov_Ev_Gv_16, op_mov_Gv_Ev_16, op_mov_Ev_Iz_16)
DEFINE_MOVES(32, op_mov_Ev_Gv_32, op_mov_Gv_Ev_32, op_mov_Ev_Iz_32)
DEFINE_MOVES(64, op_mov_Ev_Gv_64, op_mov_Gv_Ev_64, op_mov_Ev_Iz_64)

OP(op_mov_Zb_Ib)
{
    set_reg8(cpu, i->rm, (uint8_t)i->imm);
    return true;
}

#define DEFINE_BY_SIZE(BITS)                                \
    OP(op_mov_Zv_Iv_##BITS)                                 \
    {                                                       \
        set_reg##BITS(cpu, i->rm, (uint##BITS##_t)i->imm);  \
        return true;                                        \
    }                                                       \
    OP(op_lea_##BITS)                                       \
    {                                                       \
        set_reg##BITS(cpu, i->reg, (uint##BITS##_t)ea(cpu, i)); \
        return true;                                        \
    }
DEFINE_BY_SIZE(16)
DEFINE_BY_SIZE(32)
DEFINE_BY_SIZE(64)

OP(op_mov_AL_Ob)
{
    uint8_t v;
    if (!read8(cpu, (enum seg)i->seg, ea(cpu, i), &v))
        return false;
    set_reg8(cpu, 0, v);
    return true;
}
OP(op_mov_Ob_AL) { return write8(cpu, (enum seg)i->seg, ea(cpu, i), reg8(cpu, 0)); }

#define DEFINE_MOFFS(BITS)                                                                    \
    OP(op_mov_rAX_Ov_##BITS)                                                                  \
    {                                                                                         \
        uint##BITS##_t v;                                                                     \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v))                               \
            return false;                                                                     \
        set_reg##BITS(cpu, RAX, v);                                                           \
        return true;                                                                          \
    }                                                                                         \
    OP(op_mov_Ov_rAX_##BITS) { return write##BITS(cpu, (enum seg)i->seg, ea(cpu, i), reg##BITS(cpu, RAX)); }
DEFINE_MOFFS(16)
DEFINE_MOFFS(32)
DEFINE_MOFFS(64)

OP(op_xlat)
{
    uint8_t v;
    uint64_t offset = (cpu->r[RBX] + (uint8_t)cpu->r[RAX]) << i->ashift >> i->ashift;
    if (!read8(cpu, (enum seg)i->seg, offset, &v))
        return false;
    set_reg8(cpu, 0, v);
    return true;
}

/* ---- wider: MOVZX, MOVSX, MOVSXD, CBW CWDE CDQE, CWD CDQ CQO -------------------------------------- */

#define DEFINE_EXTENSION(name, FROM, BITS, TYPE)                                              \
    OP(op_##name##_##BITS##r)                                                                 \
    {                                                                                         \
        set_reg##BITS(cpu, i->reg, (uint##BITS##_t)(TYPE)reg##FROM(cpu, i->rm));              \
        return true;                                                                          \
    }                                                                                         \
    OP(op_##name##_##BITS##m)                                                                 \
    {                                                                                         \
        uint##FROM##_t v;                                                                     \
        if (!read##FROM(cpu, (enum seg)i->seg, ea(cpu, i), &v))                               \
            return false;                                                                     \
        set_reg##BITS(cpu, i->reg, (uint##BITS##_t)(TYPE)v);                                  \
        return true;                                                                          \
    }
#define DEFINE_EXTENSIONS(name, FROM, TYPE) \
    DEFINE_EXTENSION(name, FROM, 16, TYPE) DEFINE_EXTENSION(name, FROM, 32, TYPE) DEFINE_EXTENSION(name, FROM, 64, TYPE)
DEFINE_EXTENSIONS(movzx_Gv_Eb, 8, uint8_t)
DEFINE_EXTENSIONS(movzx_Gv_Ew, 16, uint16_t)
DEFINE_EXTENSIONS(movsx_Gv_Eb, 8, int8_t)
DEFINE_EXTENSIONS(movsx_Gv_Ew, 16, int16_t)
OP(op_movsxd_Gv_Ed_16r) { return op_mov_Gv_Ev_16r(cpu, i); }
OP(op_movsxd_Gv_Ed_16m)
{
    uint32_t v;
    if (!cpu_behaves(cpu, BEHAVIOUR_MOVSXD_16_READS_32))
        return op_mov_Gv_Ev_16m(cpu, i);
    if (!read32(cpu, (enum seg)i->seg, ea(cpu, i), &v))
        return false;
    set_reg16(cpu, i->reg, (uint16_t)v);
    return true;
}
DEFINE_EXTENSION(movsxd_Gv_Ed, 32, 32, int32_t)
DEFINE_EXTENSION(movsxd_Gv_Ed, 32, 64, int32_t)

#define DEFINE_SIGN_EXTENSION(BITS, HALF)                                                     \
    OP(op_cbw_##BITS)                                                                         \
    {                                                                                         \
        set_reg##BITS(cpu, RAX, (uint##BITS##_t)(int##HALF##_t)cpu->r[RAX]);                  \
        return true;                                                                          \
    }                                                                                         \
    OP(op_cwd_##BITS)                                                                         \
    {                                                                                         \
        set_reg##BITS(cpu, RDX, cpu->r[RAX] >> (BITS - 1) & 1 ? (uint##BITS##_t)~0ull : 0);   \
        return true;                                                                          \
    }
DEFINE_SIGN_EXTENSION(16, 8)
DEFINE_SIGN_EXTENSION(32, 16)
DEFINE_SIGN_EXTENSION(64, 32)

/* ---- by condition: CMOVcc, SETcc ------------------------------------------------------------------ */

/* Memory is read, and a 32-bit destination zero-extended, whatever the condition. */
#define DEFINE_CMOV(name, cc, BITS)                                                           \
    OP(op_cmov##name##_##BITS##r)                                                             \
    {                                                                                         \
        set_reg##BITS(cpu, i->reg, reg##BITS(cpu, condition(cpu, cc) ? i->rm : i->reg));      \
        return true;                                                                          \
    }                                                                                         \
    OP(op_cmov##name##_##BITS##m)                                                             \
    {                                                                                         \
        uint##BITS##_t v;                                                                     \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v))                               \
            return false;                                                                     \
        set_reg##BITS(cpu, i->reg, condition(cpu, cc) ? v : reg##BITS(cpu, i->reg));          \
        return true;                                                                          \
    }
#define DEFINE_CONDITIONAL(name, cc)                                                          \
    DEFINE_CMOV(name, cc, 16)                                                                 \
    DEFINE_CMOV(name, cc, 32)                                                                 \
    DEFINE_CMOV(name, cc, 64)                                                                 \
    OP(op_set##name##_r)                                                                      \
    {                                                                                         \
        set_reg8(cpu, i->rm, condition(cpu, cc));                                             \
        return true;                                                                          \
    }                                                                                         \
    OP(op_set##name##_m) { return write8(cpu, (enum seg)i->seg, ea(cpu, i), condition(cpu, cc)); }
DEFINE_CONDITIONAL(o, 0)
DEFINE_CONDITIONAL(no, 1)
DEFINE_CONDITIONAL(b, 2)
DEFINE_CONDITIONAL(nb, 3)
DEFINE_CONDITIONAL(z, 4)
DEFINE_CONDITIONAL(nz, 5)
DEFINE_CONDITIONAL(be, 6)
DEFINE_CONDITIONAL(nbe, 7)
DEFINE_CONDITIONAL(s, 8)
DEFINE_CONDITIONAL(ns, 9)
DEFINE_CONDITIONAL(p, 10)
DEFINE_CONDITIONAL(np, 11)
DEFINE_CONDITIONAL(l, 12)
DEFINE_CONDITIONAL(nl, 13)
DEFINE_CONDITIONAL(le, 14)
DEFINE_CONDITIONAL(nle, 15)

/* ---- byte order: BSWAP, MOVBE ---------------------------------------------------------------------- */

static uint16_t swap16(uint16_t v) { return (uint16_t)(v << 8 | v >> 8); }
static uint32_t swap32(uint32_t v) { return (uint32_t)swap16((uint16_t)v) << 16 | swap16((uint16_t)(v >> 16)); }
static uint64_t swap64(uint64_t v) { return (uint64_t)swap32((uint32_t)v) << 32 | swap32((uint32_t)(v >> 32)); }

#define DEFINE_BYTE_ORDER(BITS)                                                               \
    OP(op_movbe_Gv_Mv_##BITS)                                                                 \
    {                                                                                         \
        uint##BITS##_t v;                                                                     \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v))                               \
            return false;                                                                     \
        set_reg##BITS(cpu, i->reg, swap##BITS(v));                                            \
        return true;                                                                          \
    }                                                                                         \
    OP(op_movbe_Mv_Gv_##BITS) { return write##BITS(cpu, (enum seg)i->seg, ea(cpu, i), swap##BITS(reg##BITS(cpu, i->reg))); }
DEFINE_BYTE_ORDER(16)
DEFINE_BYTE_ORDER(32)
DEFINE_BYTE_ORDER(64)

OP(op_bswap_16) /* undefined in the manual; processors clear the register */
{
    set_reg16(cpu, i->rm, 0);
    return true;
}
OP(op_bswap_32)
{
    set_reg32(cpu, i->rm, swap32(reg32(cpu, i->rm)));
    return true;
}
OP(op_bswap_64)
{
    set_reg64(cpu, i->rm, swap64(reg64(cpu, i->rm)));
    return true;
}

/* ---- exchange: XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B ------------------------------------------ */

#define DEFINE_EXCHANGE(BITS, XCHG, XADD, CMPXCHG)                                            \
    OP(XCHG##r)                                                                               \
    {                                                                                         \
        uint##BITS##_t a = reg##BITS(cpu, i->rm);                                             \
        set_reg##BITS(cpu, i->rm, reg##BITS(cpu, i->reg));                                    \
        set_reg##BITS(cpu, i->reg, a);                                                        \
        return true;                                                                          \
    }                                                                                         \
    OP(XCHG##m)                                                                               \
    {                                                                                         \
        uint##BITS##_t a;                                                                     \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a) ||                        \
            !rmw_end##BITS(cpu, reg##BITS(cpu, i->reg)))                                      \
            return false;                                                                     \
        set_reg##BITS(cpu, i->reg, a);                                                        \
        return true;                                                                          \
    }                                                                                         \
    OP(XADD##r)                                                                               \
    {                                                                                         \
        uint##BITS##_t a = reg##BITS(cpu, i->rm), b = reg##BITS(cpu, i->reg);                 \
        set_reg##BITS(cpu, i->reg, a);                                                        \
        set_reg##BITS(cpu, i->rm, (uint##BITS##_t)(a + b));                                   \
        flags_add##BITS(cpu, a, b, (uint##BITS##_t)(a + b));                                  \
        return true;                                                                          \
    }                                                                                         \
    OP(XADD##m)                                                                               \
    {                                                                                         \
        uint##BITS##_t a, b = reg##BITS(cpu, i->reg);                                         \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a) ||                        \
            !rmw_end##BITS(cpu, (uint##BITS##_t)(a + b)))                                     \
            return false;                                                                     \
        set_reg##BITS(cpu, i->reg, a);                                                        \
        flags_add##BITS(cpu, a, b, (uint##BITS##_t)(a + b));                                  \
        return true;                                                                          \
    }                                                                                         \
    static void compared##BITS(struct cpu *cpu, uint##BITS##_t accumulator, uint##BITS##_t a) \
    {                                                                                         \
        if (accumulator != a)                                                                 \
            set_reg##BITS(cpu, RAX, a);                                                       \
        flags_sub##BITS(cpu, accumulator, a, (uint##BITS##_t)(accumulator - a));              \
    }                                                                                         \
    OP(CMPXCHG##r)                                                                            \
    {                                                                                         \
        uint##BITS##_t a = reg##BITS(cpu, i->rm), accumulator = reg##BITS(cpu, RAX);          \
        if (accumulator == a) /* else the destination keeps its upper half too */             \
            set_reg##BITS(cpu, i->rm, reg##BITS(cpu, i->reg));                                \
        compared##BITS(cpu, accumulator, a);                                                  \
        return true;                                                                          \
    }                                                                                         \
    /* the store happens in either case */                                                    \
    OP(CMPXCHG##m)                                                                            \
    {                                                                                         \
        uint##BITS##_t a, accumulator = reg##BITS(cpu, RAX);                                  \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a) ||                        \
            !rmw_end##BITS(cpu, accumulator == a ? reg##BITS(cpu, i->reg) : a))               \
            return false;                                                                     \
        compared##BITS(cpu, accumulator, a);                                                  \
        return true;                                                                          \
    }
DEFINE_EXCHANGE(8, op_xchg_Eb_Gb_, op_xadd_Eb_Gb_, op_cmpxchg_Eb_Gb_)
DEFINE_EXCHANGE(16, op_xchg_Ev_Gv_16, op_xadd_Ev_Gv_16, op_cmpxchg_Ev_Gv_16)
DEFINE_EXCHANGE(32, op_xchg_Ev_Gv_32, op_xadd_Ev_Gv_32, op_cmpxchg_Ev_Gv_32)
DEFINE_EXCHANGE(64, op_xchg_Ev_Gv_64, op_xadd_Ev_Gv_64, op_cmpxchg_Ev_Gv_64)

#define DEFINE_XCHG_ACCUMULATOR(BITS)                                                         \
    OP(op_xchg_Zv_rAX_##BITS)                                                                 \
    {                                                                                         \
        uint##BITS##_t a = reg##BITS(cpu, RAX);                                               \
        set_reg##BITS(cpu, RAX, reg##BITS(cpu, i->rm));                                       \
        set_reg##BITS(cpu, i->rm, a);                                                         \
        return true;                                                                          \
    }
DEFINE_XCHG_ACCUMULATOR(16)
DEFINE_XCHG_ACCUMULATOR(32)
DEFINE_XCHG_ACCUMULATOR(64)

/* rDX:rAX against a double word in memory; rCX:rBX replaces it. Only ZF changes. */
static bool compare_exchange_pair(struct cpu *cpu, const struct insn *i, unsigned half)
{
    uint8_t old[16], new[16];
    uint64_t low = 0, high = 0;
    if (!rmw_begin_slow(cpu, (enum seg)i->seg, ea(cpu, i), old, 2 * half))
        return false;
    memcpy(&low, old, half);
    memcpy(&high, old + half, half);
    bool equal = low == reg_by_size(cpu, RAX, half) && high == reg_by_size(cpu, RDX, half);
    memcpy(new, equal ? (const void *)&cpu->r[RBX] : old, half);
    memcpy(new + half, equal ? (const void *)&cpu->r[RCX] : old + half, half);
    if (!rmw_end_slow(cpu, new, 2 * half))
        return false;
    if (!equal) {
        set_reg_by_size(cpu, RAX, half, low);
        set_reg_by_size(cpu, RDX, half, high);
    }
    change_status_flags(cpu, FLAG_ZF, equal ? FLAG_ZF : 0);
    return true;
}
OP(op_cmpxchg8b) { return compare_exchange_pair(cpu, i, 4); }
OP(op_cmpxchg16b)
{
    if ((cpu->view[i->seg].base + ea(cpu, i)) & 15)
        return raise_error(cpu, VEC_GP, 0);
    return compare_exchange_pair(cpu, i, 8);
}

/* ---- nothing but checks -------------------------------------------------------------------------------- */

/* 90 is not XCHG eax,eax: it must not clear the upper half of RAX. With REX.B it exchanges R8. */
OP(op_nop)
{
    if (i->rm != R8)
        return true;
    return i->size == 8   ? op_xchg_Zv_rAX_64(cpu, i)
           : i->size == 4 ? op_xchg_Zv_rAX_32(cpu, i)
                          : op_xchg_Zv_rAX_16(cpu, i);
}
OP(op_nop_Ev) { return true; } /* an operand in memory is not touched */

OP(op_ud) { return raise_exception(cpu, VEC_UD); }

#define DEFINE_BOUND(BITS)                                                                    \
    OP(op_bound_##BITS)                                                                       \
    {                                                                                         \
        int##BITS##_t index = (int##BITS##_t)reg##BITS(cpu, i->reg);                          \
        uint##BITS##_t lower, upper;                                                          \
        uint64_t offset = ea(cpu, i), second = (offset + BITS / 8) << i->ashift >> i->ashift; \
        if (!read##BITS(cpu, (enum seg)i->seg, offset, &lower) ||                             \
            !read##BITS(cpu, (enum seg)i->seg, second, &upper))                               \
            return false;                                                                     \
        if (index < (int##BITS##_t)lower || index > (int##BITS##_t)upper)                     \
            return raise_exception(cpu, VEC_BR);                                              \
        return true;                                                                          \
    }
DEFINE_BOUND(16)
DEFINE_BOUND(32)
OP(op_bound_64) { return raise_exception(cpu, VEC_UD); } /* not in 64-bit mode */
