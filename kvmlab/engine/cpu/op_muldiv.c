/* Multiplication and division (SDM vol. 2A: MUL, IMUL, DIV, IDIV).
 *
 * The double-width operand is AX for bytes and rDX:rAX otherwise. A quotient that does not fit,
 * and a divisor of zero, are #DE with nothing written. The flags that the manual leaves undefined
 * differ by vendor (flags_undefined.def). */
#include "access.h"
#include "flags.h"
#include "wide.h"

/* `low`: the lower half, sign-extended. */
static void product_flags(struct cpu *cpu, int64_t low, bool overflow)
{
    if (cpu_behaves(cpu, BEHAVIOUR_MUL_KEEPS_SZAP))
        set_cf_of(cpu, overflow, overflow);
    else
        flags_result64(cpu, (uint64_t)low, overflow, overflow);
}

static bool divided(struct cpu *cpu)
{
    if (cpu_behaves(cpu, BEHAVIOUR_DIV_WRITES_SZAP))
        change_status_flags(cpu, FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF, FLAG_AF);
    return true;
}

/* ---- MUL and IMUL with one operand --------------------------------------------------------- */

static bool mul_Eb(struct cpu *cpu, uint8_t b)
{
    uint16_t product = (uint16_t)((uint8_t)cpu->r[RAX] * b);
    set_reg16(cpu, RAX, product);
    product_flags(cpu, (int8_t)product, product >> 8);
    return true;
}
static bool imul_Eb(struct cpu *cpu, uint8_t b)
{
    int16_t product = (int16_t)((int8_t)cpu->r[RAX] * (int8_t)b);
    bool overflow = product != (int8_t)product;
    set_reg16(cpu, RAX, (uint16_t)product);
    product_flags(cpu, (int8_t)product, overflow);
    return true;
}

#define DEFINE_MUL(BITS, DOUBLE)                                                             \
    static bool mul_Ev##BITS(struct cpu *cpu, uint##BITS##_t b)                              \
    {                                                                                        \
        uint##DOUBLE##_t product = (uint##DOUBLE##_t)reg##BITS(cpu, RAX) * b;                \
        uint##BITS##_t high = (uint##BITS##_t)(product >> BITS);                             \
        set_reg##BITS(cpu, RAX, (uint##BITS##_t)product);                                    \
        set_reg##BITS(cpu, RDX, high);                                                       \
        product_flags(cpu, (int##BITS##_t)(uint##BITS##_t)product, high);                        \
        return true;                                                                         \
    }                                                                                        \
    static bool imul_Ev##BITS(struct cpu *cpu, uint##BITS##_t b)                             \
    {                                                                                        \
        int##DOUBLE##_t product = (int##DOUBLE##_t)(int##BITS##_t)reg##BITS(cpu, RAX) * (int##BITS##_t)b; \
        bool overflow = product != (int##BITS##_t)product;                                   \
        set_reg##BITS(cpu, RAX, (uint##BITS##_t)product);                                    \
        set_reg##BITS(cpu, RDX, (uint##BITS##_t)(product >> BITS));                          \
        product_flags(cpu, (int##BITS##_t)(uint##BITS##_t)product, overflow);                \
        return true;                                                                         \
    }                                                                                        \
    ALWAYS_INLINE uint##BITS##_t imul_low##BITS(uint##BITS##_t a, uint##BITS##_t b, bool *overflow) \
    {                                                                                        \
        int##DOUBLE##_t product = (int##DOUBLE##_t)(int##BITS##_t)a * (int##BITS##_t)b;      \
        *overflow = product != (int##BITS##_t)product;                                       \
        return (uint##BITS##_t)product;                                                      \
    }
DEFINE_MUL(16, 32)
DEFINE_MUL(32, 64)
#undef DEFINE_MUL

static bool mul_Ev64(struct cpu *cpu, uint64_t b)
{
    struct wide product = wide_mul(cpu->r[RAX], b);
    cpu->r[RAX] = product.low;
    cpu->r[RDX] = product.high;
    product_flags(cpu, (int64_t)product.low, product.high);
    return true;
}
static bool imul_Ev64(struct cpu *cpu, uint64_t b)
{
    struct wide product = wide_mul_signed((int64_t)cpu->r[RAX], (int64_t)b);
    bool overflow = product.high != (uint64_t)((int64_t)product.low >> 63);
    cpu->r[RAX] = product.low;
    cpu->r[RDX] = product.high;
    product_flags(cpu, (int64_t)product.low, overflow);
    return true;
}
ALWAYS_INLINE uint64_t imul_low64(uint64_t a, uint64_t b, bool *overflow)
{
    struct wide product = wide_mul_signed((int64_t)a, (int64_t)b);
    *overflow = product.high != (uint64_t)((int64_t)product.low >> 63);
    return product.low;
}

/* ---- IMUL with two and three operands -------------------------------------------------------- */

#define DEFINE_IMUL_LOW(BITS)                                                                        \
    static bool imul_to_reg##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t a, uint##BITS##_t b) \
    {                                                                                                \
        bool overflow;                                                                               \
        uint##BITS##_t product = imul_low##BITS(a, b, &overflow);                                    \
        set_reg##BITS(cpu, i->reg, product);                                                         \
        product_flags(cpu, (int##BITS##_t)product, overflow);                                        \
        return true;                                                                                 \
    }                                                                                                \
    OP(op_imul_Gv_Ev_##BITS##r)                                                                      \
    {                                                                                                \
        return imul_to_reg##BITS(cpu, i, reg##BITS(cpu, i->reg), reg##BITS(cpu, i->rm));             \
    }                                                                                                \
    OP(op_imul_Gv_Ev_##BITS##m)                                                                      \
    {                                                                                                \
        uint##BITS##_t b;                                                                            \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &b) &&                                  \
               imul_to_reg##BITS(cpu, i, reg##BITS(cpu, i->reg), b);                                 \
    }                                                                                                \
    OP(op_imul_Gv_Ev_Iz_##BITS##r)                                                                   \
    {                                                                                                \
        return imul_to_reg##BITS(cpu, i, reg##BITS(cpu, i->rm), (uint##BITS##_t)i->imm);             \
    }                                                                                                \
    OP(op_imul_Gv_Ev_Iz_##BITS##m)                                                                   \
    {                                                                                                \
        uint##BITS##_t a;                                                                            \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &a) &&                                  \
               imul_to_reg##BITS(cpu, i, a, (uint##BITS##_t)i->imm);                                 \
    }
DEFINE_IMUL_LOW(16)
DEFINE_IMUL_LOW(32)
DEFINE_IMUL_LOW(64)
#undef DEFINE_IMUL_LOW

/* ---- DIV and IDIV ------------------------------------------------------------------------------ */

static bool div_Eb(struct cpu *cpu, uint8_t d)
{
    uint16_t n = reg16(cpu, RAX);
    if (d == 0 || n / d > UINT8_MAX)
        return raise_exception(cpu, VEC_DE);
    set_reg16(cpu, RAX, (uint16_t)(n / d | n % d << 8));
    return divided(cpu);
}
static bool idiv_Eb(struct cpu *cpu, uint8_t divisor)
{
    int n = (int16_t)reg16(cpu, RAX), d = (int8_t)divisor;
    if (d == 0 || n / d != (int8_t)(n / d))
        return raise_exception(cpu, VEC_DE);
    set_reg16(cpu, RAX, (uint16_t)((uint8_t)(n / d) | (unsigned)(uint8_t)(n % d) << 8));
    return divided(cpu);
}

/* The most negative dividend cannot be negated, but its quotients by -1 never fit either. */
#define DEFINE_DIV(BITS, DOUBLE)                                                                      \
    static bool div_Ev##BITS(struct cpu *cpu, uint##BITS##_t d)                                       \
    {                                                                                                 \
        uint##DOUBLE##_t n = (uint##DOUBLE##_t)reg##BITS(cpu, RDX) << BITS | reg##BITS(cpu, RAX);     \
        if (d == 0 || n / d > UINT##BITS##_MAX)                                                       \
            return raise_exception(cpu, VEC_DE);                                                      \
        set_reg##BITS(cpu, RAX, (uint##BITS##_t)(n / d));                                             \
        set_reg##BITS(cpu, RDX, (uint##BITS##_t)(n % d));                                             \
        return divided(cpu);                                                                          \
    }                                                                                                 \
    static bool idiv_Ev##BITS(struct cpu *cpu, uint##BITS##_t divisor)                                \
    {                                                                                                 \
        int##DOUBLE##_t d = (int##BITS##_t)divisor;                                                   \
        int##DOUBLE##_t n = (int##DOUBLE##_t)((uint##DOUBLE##_t)reg##BITS(cpu, RDX) << BITS | reg##BITS(cpu, RAX)); \
        if (d == 0 || (d == -1 && n == INT##DOUBLE##_MIN) || n / d != (int##BITS##_t)(n / d))         \
            return raise_exception(cpu, VEC_DE);                                                      \
        set_reg##BITS(cpu, RAX, (uint##BITS##_t)(n / d));                                             \
        set_reg##BITS(cpu, RDX, (uint##BITS##_t)(n % d));                                             \
        return divided(cpu);                                                                          \
    }
DEFINE_DIV(16, 32)
DEFINE_DIV(32, 64)
#undef DEFINE_DIV

static bool div_Ev64(struct cpu *cpu, uint64_t d)
{
    struct wide n = { cpu->r[RAX], cpu->r[RDX] };
    uint64_t quotient, remainder;
    if (!wide_div(n, d, &quotient, &remainder))
        return raise_exception(cpu, VEC_DE);
    cpu->r[RAX] = quotient;
    cpu->r[RDX] = remainder;
    return divided(cpu);
}
static bool idiv_Ev64(struct cpu *cpu, uint64_t d)
{
    struct wide n = { cpu->r[RAX], cpu->r[RDX] };
    int64_t quotient, remainder;
    if (!wide_div_signed(n, (int64_t)d, &quotient, &remainder))
        return raise_exception(cpu, VEC_DE);
    cpu->r[RAX] = (uint64_t)quotient;
    cpu->r[RDX] = (uint64_t)remainder;
    return divided(cpu);
}

/* ---- forms ----------------------------------------------------------------------------------------- */

#define DEFINE_FORMS(NAME, BITS, BODY, R, M)                                           \
    OP(op_##NAME##_##R) { return BODY(cpu, reg##BITS(cpu, i->rm)); }                   \
    OP(op_##NAME##_##M)                                                                \
    {                                                                                  \
        uint##BITS##_t v;                                                              \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v) && BODY(cpu, v);      \
    }
#define DEFINE_SIZES(NAME)                                 \
    DEFINE_FORMS(NAME##_Eb, 8, NAME##_Eb, r, m)            \
    DEFINE_FORMS(NAME##_Ev, 16, NAME##_Ev16, 16r, 16m)     \
    DEFINE_FORMS(NAME##_Ev, 32, NAME##_Ev32, 32r, 32m)     \
    DEFINE_FORMS(NAME##_Ev, 64, NAME##_Ev64, 64r, 64m)
DEFINE_SIZES(mul)
DEFINE_SIZES(imul)
DEFINE_SIZES(div)
DEFINE_SIZES(idiv)
