/* Shifts, rotates and double shifts (SDM vol. 2B: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).
 *
 * Each operation is two functions by size: the value, and the flags from operand and count. The
 * count is masked to 5 bits (6 for 64-bit operands); a masked count of zero changes no flag but
 * still writes the destination. What happens where the manual says "undefined" stands in
 * flags_undefined.def. */
#include "access.h"
#include "flags.h"

#define COUNT_MASK(BITS) ((BITS) == 64 ? 63u : 31u)
#define SIGN(BITS, v) ((v) >> ((BITS) - 1) & 1)
#define NEXT_TO_SIGN(BITS, v) ((v) >> ((BITS) - 2) & 1)

/* ---- values and flags -------------------------------------------------------------------- */

#define VALUE(NAME, BITS) \
    ALWAYS_INLINE uint##BITS##_t NAME##_value##BITS(MAYBE_UNUSED const struct cpu *cpu, uint##BITS##_t a, unsigned count)
#define FLAGS(NAME, BITS)                                                                             \
    ALWAYS_INLINE void NAME##_flags##BITS(struct cpu *cpu, MAYBE_UNUSED uint##BITS##_t a, MAYBE_UNUSED unsigned count, \
                                          uint##BITS##_t result)

/* Rotates through CF have BITS + 1 places. */
#define CARRY_COUNT(BITS, count) ((count) % ((BITS) + 1))

#define DEFINE_SEMANTICS(BITS)                                                                          \
    VALUE(shl, BITS)                                                                                    \
    {                                                                                                   \
        return (uint##BITS##_t)((uint64_t)a << count);                                                  \
    }                                                                                                   \
    FLAGS(shl, BITS)                                                                                    \
    {                                                                                                   \
        bool cf = ((uint64_t)a << (count - 1)) >> (BITS - 1) & 1;                                       \
        flags_result##BITS(cpu, result, cf, cf ^ SIGN(BITS, result));                                   \
        cpu->lazy.aux = cpu->shift_aux;                                                                 \
    }                                                                                                   \
    VALUE(shr, BITS)                                                                                    \
    {                                                                                                   \
        return (uint##BITS##_t)((uint64_t)a >> count);                                                  \
    }                                                                                                   \
    FLAGS(shr, BITS)                                                                                    \
    {                                                                                                   \
        bool cf = (uint64_t)a >> (count - 1) & 1;                                                       \
        flags_result##BITS(cpu, result, cf, NEXT_TO_SIGN(BITS, result));                                \
        cpu->lazy.aux = cpu->shift_aux;                                                                 \
    }                                                                                                   \
    VALUE(sar, BITS)                                                                                    \
    {                                                                                                   \
        return (uint##BITS##_t)((int64_t)(int##BITS##_t)a >> count);                                    \
    }                                                                                                   \
    FLAGS(sar, BITS)                                                                                    \
    {                                                                                                   \
        bool cf = (int64_t)(int##BITS##_t)a >> (count - 1) & 1;                                         \
        flags_result##BITS(cpu, result, cf, false);                                                     \
        cpu->lazy.aux = cpu->shift_aux;                                                                 \
    }                                                                                                   \
    VALUE(rol, BITS)                                                                                    \
    {                                                                                                   \
        return (uint##BITS##_t)(a << (count & (BITS - 1)) | a >> (-count & (BITS - 1)));                \
    }                                                                                                   \
    FLAGS(rol, BITS)                                                                                    \
    {                                                                                                   \
        set_cf_of(cpu, result & 1, (result & 1) ^ SIGN(BITS, result));                                  \
    }                                                                                                   \
    VALUE(ror, BITS)                                                                                    \
    {                                                                                                   \
        return (uint##BITS##_t)(a >> (count & (BITS - 1)) | a << (-count & (BITS - 1)));                \
    }                                                                                                   \
    FLAGS(ror, BITS)                                                                                    \
    {                                                                                                   \
        set_cf_of(cpu, SIGN(BITS, result), SIGN(BITS, result) ^ NEXT_TO_SIGN(BITS, result));            \
    }                                                                                                   \
    VALUE(rcl, BITS)                                                                                    \
    {                                                                                                   \
        unsigned c = CARRY_COUNT(BITS, count);                                                          \
        if (c == 0)                                                                                     \
            return a;                                                                                   \
        uint64_t from_top = c == 1 ? 0 : (uint64_t)a >> (BITS + 1 - c);                                 \
        return (uint##BITS##_t)((uint64_t)a << c | (uint64_t)flag_cf(cpu) << (c - 1) | from_top);       \
    }                                                                                                   \
    FLAGS(rcl, BITS)                                                                                    \
    {                                                                                                   \
        unsigned c = CARRY_COUNT(BITS, count);                                                          \
        bool cf = c ? a >> (BITS - c) & 1 : flag_cf(cpu);                                               \
        set_cf_of(cpu, cf, cf ^ SIGN(BITS, result));                                                    \
    }                                                                                                   \
    VALUE(rcr, BITS)                                                                                    \
    {                                                                                                   \
        unsigned c = CARRY_COUNT(BITS, count);                                                          \
        if (c == 0)                                                                                     \
            return a;                                                                                   \
        uint64_t from_bottom = c == 1 ? 0 : (uint64_t)a << (BITS + 1 - c);                              \
        return (uint##BITS##_t)((uint64_t)a >> c | (uint64_t)flag_cf(cpu) << (BITS - c) | from_bottom); \
    }                                                                                                   \
    FLAGS(rcr, BITS)                                                                                    \
    {                                                                                                   \
        unsigned c = CARRY_COUNT(BITS, count);                                                          \
        bool cf = c ? a >> (c - 1) & 1 : flag_cf(cpu);                                                  \
        set_cf_of(cpu, cf, SIGN(BITS, result) ^ NEXT_TO_SIGN(BITS, result));                            \
    }
DEFINE_SEMANTICS(8)
DEFINE_SEMANTICS(16)
DEFINE_SEMANTICS(32)
DEFINE_SEMANTICS(64)
#undef DEFINE_SEMANTICS

/* ---- forms: by one, by CL, by immediate; register and memory -------------------------------- */

#define DEFINE_BODY(NAME, BITS)                                                                        \
    ALWAYS_INLINE bool NAME##_register##BITS(struct cpu *cpu, const struct insn *i, unsigned count)    \
    {                                                                                                  \
        uint##BITS##_t a = reg##BITS(cpu, i->rm), result = NAME##_value##BITS(cpu, a, count);          \
        set_reg##BITS(cpu, i->rm, result);                                                             \
        if (count)                                                                                     \
            NAME##_flags##BITS(cpu, a, count, result);                                                 \
        return true;                                                                                   \
    }                                                                                                  \
    ALWAYS_INLINE bool NAME##_memory##BITS(struct cpu *cpu, const struct insn *i, unsigned count)      \
    {                                                                                                  \
        uint##BITS##_t a;                                                                              \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a))                                   \
            return false;                                                                              \
        uint##BITS##_t result = NAME##_value##BITS(cpu, a, count);                                     \
        if (!rmw_end##BITS(cpu, result))                                                               \
            return false;                                                                              \
        if (count)                                                                                     \
            NAME##_flags##BITS(cpu, a, count, result);                                                 \
        return true;                                                                                   \
    }
#define DEFINE_FORMS(NAME, BITS, OPERAND, R, M)                                                        \
    DEFINE_BODY(NAME, BITS)                                                                            \
    OP(op_##NAME##_##OPERAND##_1_##R) { return NAME##_register##BITS(cpu, i, 1); }                     \
    OP(op_##NAME##_##OPERAND##_1_##M) { return NAME##_memory##BITS(cpu, i, 1); }                       \
    OP(op_##NAME##_##OPERAND##_CL_##R) { return NAME##_register##BITS(cpu, i, cpu->r[RCX] & COUNT_MASK(BITS)); } \
    OP(op_##NAME##_##OPERAND##_CL_##M) { return NAME##_memory##BITS(cpu, i, cpu->r[RCX] & COUNT_MASK(BITS)); }   \
    OP(op_##NAME##_##OPERAND##_Ib_##R) { return NAME##_register##BITS(cpu, i, i->imm & COUNT_MASK(BITS)); }      \
    OP(op_##NAME##_##OPERAND##_Ib_##M) { return NAME##_memory##BITS(cpu, i, i->imm & COUNT_MASK(BITS)); }
#define DEFINE_SHIFT(NAME)               \
    DEFINE_FORMS(NAME, 8, Eb, r, m)      \
    DEFINE_FORMS(NAME, 16, Ev, 16r, 16m) \
    DEFINE_FORMS(NAME, 32, Ev, 32r, 32m) \
    DEFINE_FORMS(NAME, 64, Ev, 64r, 64m)
DEFINE_SHIFT(rol)
DEFINE_SHIFT(ror)
DEFINE_SHIFT(rcl)
DEFINE_SHIFT(rcr)
DEFINE_SHIFT(shl)
DEFINE_SHIFT(shr)
DEFINE_SHIFT(sar)

/* ---- double shifts --------------------------------------------------------------------------- */

/* 16-bit operands may be shifted by more than 16: then the bits of `beyond` follow those of the source. */
static uint64_t three_words(uint16_t first, uint16_t second, uint16_t third)
{
    return (uint64_t)first << 32 | (uint64_t)second << 16 | third;
}
static uint16_t shld_value16(uint16_t a, uint16_t b, uint16_t beyond, unsigned count)
{
    return (uint16_t)(three_words(a, b, beyond) << count >> 32);
}
static bool shld_carry16(uint16_t a, uint16_t b, uint16_t beyond, unsigned count)
{
    return three_words(a, b, beyond) << count >> 48 & 1;
}
static uint16_t shrd_value16(uint16_t a, uint16_t b, uint16_t beyond, unsigned count)
{
    return (uint16_t)(three_words(beyond, b, a) >> count);
}
static bool shrd_carry16(uint16_t a, uint16_t b, uint16_t beyond, unsigned count)
{
    return three_words(beyond, b, a) >> (count - 1) & 1;
}

#define DOUBLE(TYPE, NAME, BITS)                                                                           \
    static TYPE NAME##BITS(uint##BITS##_t a, MAYBE_UNUSED uint##BITS##_t b, MAYBE_UNUSED uint##BITS##_t beyond, unsigned count)
#define DEFINE_DOUBLE_VALUES(BITS)                                                                         \
    DOUBLE(uint##BITS##_t, shld_value, BITS) { return count ? a << count | b >> (BITS - count) : a; }      \
    DOUBLE(bool, shld_carry, BITS) { return a >> (BITS - count) & 1; }                                     \
    DOUBLE(uint##BITS##_t, shrd_value, BITS) { return count ? a >> count | b << (BITS - count) : a; }      \
    DOUBLE(bool, shrd_carry, BITS) { return a >> (count - 1) & 1; }
DEFINE_DOUBLE_VALUES(32)
DEFINE_DOUBLE_VALUES(64)

/* OF: the sign changed by the last place shifted. */
#define OVERFLOW_shld(BITS, result, cf) ((cf) ^ SIGN(BITS, result))
#define OVERFLOW_shrd(BITS, result, cf) (SIGN(BITS, result) ^ NEXT_TO_SIGN(BITS, result))

#define DEFINE_DOUBLE_BODY(NAME, BITS)                                                                 \
    ALWAYS_INLINE void NAME##_flags##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b,         \
                                          uint##BITS##_t beyond, unsigned count, uint##BITS##_t result) \
    {                                                                                                  \
        bool none = count > BITS && cpu_behaves(cpu, BEHAVIOUR_DOUBLE_SHIFT_16_SOURCE);                \
        bool cf = !none && NAME##_carry##BITS(a, b, beyond, count);                                    \
        flags_result##BITS(cpu, result, cf, !none && OVERFLOW_##NAME(BITS, result, cf));                        \
        cpu->lazy.aux = cpu->shift_aux;                                                                \
    }                                                                                                  \
    static bool NAME##_register##BITS(struct cpu *cpu, const struct insn *i, unsigned count)           \
    {                                                                                                  \
        uint##BITS##_t a = reg##BITS(cpu, i->rm), b = reg##BITS(cpu, i->reg);                          \
        uint##BITS##_t beyond = cpu_behaves(cpu, BEHAVIOUR_DOUBLE_SHIFT_16_SOURCE) ? b : a;            \
        uint##BITS##_t result = NAME##_value##BITS(a, b, beyond, count);                               \
        set_reg##BITS(cpu, i->rm, result);                                                             \
        if (count)                                                                                     \
            NAME##_flags##BITS(cpu, a, b, beyond, count, result);                                      \
        return true;                                                                                   \
    }                                                                                                  \
    static bool NAME##_memory##BITS(struct cpu *cpu, const struct insn *i, unsigned count)             \
    {                                                                                                  \
        uint##BITS##_t a, b = reg##BITS(cpu, i->reg);                                                  \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a))                                   \
            return false;                                                                              \
        uint##BITS##_t beyond = cpu_behaves(cpu, BEHAVIOUR_DOUBLE_SHIFT_16_SOURCE) ? b : a;            \
        uint##BITS##_t result = NAME##_value##BITS(a, b, beyond, count);                               \
        if (!rmw_end##BITS(cpu, result))                                                               \
            return false;                                                                              \
        if (count)                                                                                     \
            NAME##_flags##BITS(cpu, a, b, beyond, count, result);                                      \
        return true;                                                                                   \
    }                                                                                                  \
    OP(op_##NAME##_Ib_##BITS##r) { return NAME##_register##BITS(cpu, i, i->imm & COUNT_MASK(BITS)); }  \
    OP(op_##NAME##_Ib_##BITS##m) { return NAME##_memory##BITS(cpu, i, i->imm & COUNT_MASK(BITS)); }    \
    OP(op_##NAME##_CL_##BITS##r) { return NAME##_register##BITS(cpu, i, cpu->r[RCX] & COUNT_MASK(BITS)); } \
    OP(op_##NAME##_CL_##BITS##m) { return NAME##_memory##BITS(cpu, i, cpu->r[RCX] & COUNT_MASK(BITS)); }
DEFINE_DOUBLE_BODY(shld, 16)
DEFINE_DOUBLE_BODY(shld, 32)
DEFINE_DOUBLE_BODY(shld, 64)
DEFINE_DOUBLE_BODY(shrd, 16)
DEFINE_DOUBLE_BODY(shrd, 32)
DEFINE_DOUBLE_BODY(shrd, 64)
