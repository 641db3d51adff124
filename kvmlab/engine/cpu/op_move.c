/* Data moves: MOV, LEA (SDM vol. 1 7.3.1). */
#include "access.h"

OP(op_nop)
{
    (void)cpu, (void)i;
    return true;
}

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
