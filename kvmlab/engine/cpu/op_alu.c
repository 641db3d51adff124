/* Integer arithmetic and logic: ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT
 * (SDM vol. 1 7.3.2 to 7.3.4).
 *
 * Each operation is a function of two operands that sets the flags; the forms around it (register,
 * memory, immediate, by size) are the same for all of them. */
#include "access.h"
#include "flags.h"

/* ---- the operations ------------------------------------------------------------------------ */

#define DEFINE_OPERATIONS(BITS)                                                                              \
    ALWAYS_INLINE uint##BITS##_t add##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        uint##BITS##_t result = (uint##BITS##_t)(a + b);                                                     \
        flags_add##BITS(cpu, a, b, result);                                                                  \
        return result;                                                                                       \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t adc##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        uint##BITS##_t result = (uint##BITS##_t)(a + b + flag_cf(cpu));                                      \
        flags_add##BITS(cpu, a, b, result);                                                                  \
        return result;                                                                                       \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t sub##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        uint##BITS##_t result = (uint##BITS##_t)(a - b);                                                     \
        flags_sub##BITS(cpu, a, b, result);                                                                  \
        return result;                                                                                       \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t sbb##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        uint##BITS##_t result = (uint##BITS##_t)(a - b - flag_cf(cpu));                                      \
        flags_sub##BITS(cpu, a, b, result);                                                                  \
        return result;                                                                                       \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t and##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        flags_logic##BITS(cpu, a & b);                                                                       \
        return a & b;                                                                                        \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t or##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)                \
    {                                                                                                        \
        flags_logic##BITS(cpu, a | b);                                                                       \
        return a | b;                                                                                        \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t xor##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b)               \
    {                                                                                                        \
        flags_logic##BITS(cpu, a ^ b);                                                                       \
        return a ^ b;                                                                                        \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t inc##BITS(struct cpu *cpu, uint##BITS##_t a)                                 \
    {                                                                                                        \
        flags_inc##BITS(cpu, (uint##BITS##_t)(a + 1));                                                       \
        return (uint##BITS##_t)(a + 1);                                                                      \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t dec##BITS(struct cpu *cpu, uint##BITS##_t a)                                 \
    {                                                                                                        \
        flags_dec##BITS(cpu, (uint##BITS##_t)(a - 1));                                                       \
        return (uint##BITS##_t)(a - 1);                                                                      \
    }                                                                                                        \
    ALWAYS_INLINE uint##BITS##_t neg##BITS(struct cpu *cpu, uint##BITS##_t a) { return sub##BITS(cpu, 0, a); } \
    ALWAYS_INLINE uint##BITS##_t not##BITS(struct cpu *cpu, uint##BITS##_t a)                                 \
    {                                                                                                        \
        (void)cpu;                                                                                           \
        return (uint##BITS##_t)~a;                                                                           \
    }
DEFINE_OPERATIONS(8)
DEFINE_OPERATIONS(16)
DEFINE_OPERATIONS(32)
DEFINE_OPERATIONS(64)

/* ---- the forms -------------------------------------------------------------------------------
 * A store comes last, and a device may answer it later: then the flags must be as before. */

#define RMW(BITS, expression)                                  \
    uint##BITS##_t a;                                          \
    struct lazy_flags before = cpu->lazy;                      \
    if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a)) \
        return false;                                          \
    if (rmw_end##BITS(cpu, (expression)))                      \
        return true;                                           \
    cpu->lazy = before;                                        \
    return false;

#define DEFINE_TWO_OPERANDS(f, BITS, EG, GE, EI, AI)                                                           \
    OP(EG##r)                                                                                                  \
    {                                                                                                          \
        set_reg##BITS(cpu, i->rm, f##BITS(cpu, reg##BITS(cpu, i->rm), reg##BITS(cpu, i->reg)));                \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EG##m) { RMW(BITS, f##BITS(cpu, a, reg##BITS(cpu, i->reg))) }                                           \
    OP(GE##r)                                                                                                  \
    {                                                                                                          \
        set_reg##BITS(cpu, i->reg, f##BITS(cpu, reg##BITS(cpu, i->reg), reg##BITS(cpu, i->rm)));               \
        return true;                                                                                           \
    }                                                                                                          \
    OP(GE##m)                                                                                                  \
    {                                                                                                          \
        uint##BITS##_t b;                                                                                      \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &b))                                                \
            return false;                                                                                      \
        set_reg##BITS(cpu, i->reg, f##BITS(cpu, reg##BITS(cpu, i->reg), b));                                   \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EI##r)                                                                                                  \
    {                                                                                                          \
        set_reg##BITS(cpu, i->rm, f##BITS(cpu, reg##BITS(cpu, i->rm), (uint##BITS##_t)i->imm));                \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EI##m) { RMW(BITS, f##BITS(cpu, a, (uint##BITS##_t)i->imm)) }                                           \
    OP(AI)                                                                                                     \
    {                                                                                                          \
        set_reg##BITS(cpu, RAX, f##BITS(cpu, reg##BITS(cpu, RAX), (uint##BITS##_t)i->imm));                    \
        return true;                                                                                           \
    }
#define DEFINE_ALU(f)                                                                                          \
    DEFINE_TWO_OPERANDS(f, 8, op_##f##_Eb_Gb_, op_##f##_Gb_Eb_, op_##f##_Eb_Ib_, op_##f##_AL_Ib)               \
    DEFINE_TWO_OPERANDS(f, 16, op_##f##_Ev_Gv_16, op_##f##_Gv_Ev_16, op_##f##_Ev_Iz_16, op_##f##_rAX_Iz_16)    \
    DEFINE_TWO_OPERANDS(f, 32, op_##f##_Ev_Gv_32, op_##f##_Gv_Ev_32, op_##f##_Ev_Iz_32, op_##f##_rAX_Iz_32)    \
    DEFINE_TWO_OPERANDS(f, 64, op_##f##_Ev_Gv_64, op_##f##_Gv_Ev_64, op_##f##_Ev_Iz_64, op_##f##_rAX_Iz_64)
DEFINE_ALU(add)
DEFINE_ALU(or)
DEFINE_ALU(adc)
DEFINE_ALU(sbb)
DEFINE_ALU(and)
DEFINE_ALU(sub)
DEFINE_ALU(xor)

/* CMP and TEST: an operation whose result is thrown away; memory is only read. */
#define DEFINE_COMPARE_FORMS(f, BITS, EG, EI, AI)                                               \
    OP(EG##r)                                                                                                  \
    {                                                                                                          \
        f##BITS(cpu, reg##BITS(cpu, i->rm), reg##BITS(cpu, i->reg));                                           \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EG##m)                                                                                                  \
    {                                                                                                          \
        uint##BITS##_t a;                                                                                      \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a))                                                \
            return false;                                                                                      \
        f##BITS(cpu, a, reg##BITS(cpu, i->reg));                                                               \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EI##r)                                                                                                  \
    {                                                                                                          \
        f##BITS(cpu, reg##BITS(cpu, i->rm), (uint##BITS##_t)i->imm);                                           \
        return true;                                                                                           \
    }                                                                                                          \
    OP(EI##m)                                                                                                  \
    {                                                                                                          \
        uint##BITS##_t a;                                                                                      \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a))                                                \
            return false;                                                                                      \
        f##BITS(cpu, a, (uint##BITS##_t)i->imm);                                                               \
        return true;                                                                                           \
    }                                                                                                          \
    OP(AI)                                                                                                     \
    {                                                                                                          \
        f##BITS(cpu, reg##BITS(cpu, RAX), (uint##BITS##_t)i->imm);                                             \
        return true;                                                                                           \
    }
#define DEFINE_COMPARE(name, f)                                                                                \
    DEFINE_COMPARE_FORMS(f, 8, op_##name##_Eb_Gb_, op_##name##_Eb_Ib_, op_##name##_AL_Ib)                \
    DEFINE_COMPARE_FORMS(f, 16, op_##name##_Ev_Gv_16, op_##name##_Ev_Iz_16, op_##name##_rAX_Iz_16)       \
    DEFINE_COMPARE_FORMS(f, 32, op_##name##_Ev_Gv_32, op_##name##_Ev_Iz_32, op_##name##_rAX_Iz_32)       \
    DEFINE_COMPARE_FORMS(f, 64, op_##name##_Ev_Gv_64, op_##name##_Ev_Iz_64, op_##name##_rAX_Iz_64)
DEFINE_COMPARE(cmp, sub)
DEFINE_COMPARE(test, and)

#define DEFINE_CMP_G_E(BITS, GE)                                         \
    OP(GE##r)                                                            \
    {                                                                    \
        sub##BITS(cpu, reg##BITS(cpu, i->reg), reg##BITS(cpu, i->rm));   \
        return true;                                                     \
    }                                                                    \
    OP(GE##m)                                                            \
    {                                                                    \
        uint##BITS##_t b;                                                \
        if (!read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &b))          \
            return false;                                                \
        sub##BITS(cpu, reg##BITS(cpu, i->reg), b);                       \
        return true;                                                     \
    }
DEFINE_CMP_G_E(8, op_cmp_Gb_Eb_)
DEFINE_CMP_G_E(16, op_cmp_Gv_Ev_16)
DEFINE_CMP_G_E(32, op_cmp_Gv_Ev_32)
DEFINE_CMP_G_E(64, op_cmp_Gv_Ev_64)

#define DEFINE_ONE_OPERAND(f, BITS, E)                                          \
    OP(E##r)                                                                    \
    {                                                                           \
        set_reg##BITS(cpu, i->rm, f##BITS(cpu, reg##BITS(cpu, i->rm)));         \
        return true;                                                            \
    }                                                                           \
    OP(E##m) { RMW(BITS, f##BITS(cpu, a)) }
#define DEFINE_UNARY(f)                            \
    DEFINE_ONE_OPERAND(f, 8, op_##f##_Eb_)         \
    DEFINE_ONE_OPERAND(f, 16, op_##f##_Ev_16)      \
    DEFINE_ONE_OPERAND(f, 32, op_##f##_Ev_32)      \
    DEFINE_ONE_OPERAND(f, 64, op_##f##_Ev_64)
DEFINE_UNARY(inc)
DEFINE_UNARY(dec)
DEFINE_UNARY(neg)
DEFINE_UNARY(not)

#define DEFINE_INC_DEC_REGISTER(f, BITS)                                \
    OP(op_##f##_Zv_##BITS)                                              \
    {                                                                   \
        set_reg##BITS(cpu, i->rm, f##BITS(cpu, reg##BITS(cpu, i->rm))); \
        return true;                                                    \
    }
#define DEFINE_INC_DEC(f) DEFINE_INC_DEC_REGISTER(f, 16) DEFINE_INC_DEC_REGISTER(f, 32) DEFINE_INC_DEC_REGISTER(f, 64)
DEFINE_INC_DEC(inc)
DEFINE_INC_DEC(dec)
