/* Lazy status flags: CF PF AF ZF SF OF from the last result (SDM vol. 1, 3.4.3.1).
 *
 * An instruction stores its result, the vector of carries and what AF needs; whoever wants a
 * flag computes it. This is the only file that knows how.
 *   result   sign-extended from the operand size: ZF, SF and PF derive from it
 *   carries  bit 63: carry (borrow) out of the operand, bit 62: carry into its sign bit
 *   aux      bit 4: AF; bits 15:8 are XORed into PF's byte; bit 63 flips SF
 * so that any combination of flags that POPF may load has a representation. */
#ifndef KVMLAB_FLAGS_H
#define KVMLAB_FLAGS_H

#include "cpu.h"

/* ---- reading ---------------------------------------------------------------------------- */

ALWAYS_INLINE bool flag_cf(const struct cpu *cpu) { return cpu->lazy.carries >> 63; }
ALWAYS_INLINE bool flag_zf(const struct cpu *cpu) { return cpu->lazy.result == 0; }
ALWAYS_INLINE bool flag_sf(const struct cpu *cpu) { return ((uint64_t)cpu->lazy.result ^ cpu->lazy.aux) >> 63; }
ALWAYS_INLINE bool flag_of(const struct cpu *cpu)
{
    return (cpu->lazy.carries ^ cpu->lazy.carries << 1) >> 63;
}
ALWAYS_INLINE bool flag_af(const struct cpu *cpu) { return cpu->lazy.aux >> 4 & 1; }
ALWAYS_INLINE bool flag_pf(const struct cpu *cpu)
{
    unsigned byte = (unsigned)(uint8_t)(cpu->lazy.result ^ (int64_t)(cpu->lazy.aux >> 8));
    byte ^= byte >> 4;
    return 0x9669u >> (byte & 15) & 1; /* even parity of each nibble */
}

/* The sixteen conditions of Jcc, SETcc, CMOVcc: SDM vol. 1 appendix B. */
ALWAYS_INLINE bool condition(const struct cpu *cpu, unsigned cc)
{
    bool value;
    switch (cc >> 1) {
    case 0: value = flag_of(cpu); break;
    case 1: value = flag_cf(cpu); break;
    case 2: value = flag_zf(cpu); break;
    case 3: value = flag_cf(cpu) || flag_zf(cpu); break;
    case 4: value = flag_sf(cpu); break;
    case 5: value = flag_pf(cpu); break;
    case 6: value = flag_sf(cpu) != flag_of(cpu); break;
    default: value = flag_zf(cpu) || flag_sf(cpu) != flag_of(cpu); break;
    }
    return value != (cc & 1);
}

static inline uint32_t status_flags(const struct cpu *cpu)
{
    return (uint32_t)(flag_cf(cpu) * FLAG_CF | flag_pf(cpu) * FLAG_PF | flag_af(cpu) * FLAG_AF |
                      flag_zf(cpu) * FLAG_ZF | flag_sf(cpu) * FLAG_SF | flag_of(cpu) * FLAG_OF);
}

/* ---- writing ---------------------------------------------------------------------------- */

/* All six at once, as POPF, SAHF and IRET do. */
static inline void set_status_flags(struct cpu *cpu, uint32_t f)
{
    uint64_t cf = (f & FLAG_CF) != 0, of = (f & FLAG_OF) != 0, sf = (f & FLAG_SF) != 0;
    /* result 0 or 1: its byte has even parity as 0, odd as 1; flips bring PF and SF about */
    uint64_t result = !(f & FLAG_ZF);
    uint64_t flip_pf = ((f & FLAG_PF) != 0) == result;
    cpu->lazy.result = (int64_t)result;
    cpu->lazy.carries = cf << 63 | (cf ^ of) << 62;
    cpu->lazy.aux = (f & FLAG_AF) | flip_pf << 8 | sf << 63;
}
/* Only those in `mask`, the others keep their value. */
static inline void change_status_flags(struct cpu *cpu, uint32_t mask, uint32_t f)
{
    set_status_flags(cpu, (status_flags(cpu) & ~mask) | (f & mask));
}
ALWAYS_INLINE void set_cf(struct cpu *cpu, bool cf)
{
    uint64_t of = flag_of(cpu);
    cpu->lazy.carries = (uint64_t)cf << 63 | ((uint64_t)cf ^ of) << 62;
}
ALWAYS_INLINE void set_cf_of(struct cpu *cpu, bool cf, bool of)
{
    cpu->lazy.carries = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;
}

/* flags_addN(cpu, a, b, result): ADD and ADC. flags_subN: SUB, SBB, CMP, NEG (a = 0).
 * flags_logicN: AND OR XOR TEST, CF = OF = AF = 0. flags_incN and decN keep CF. */
#define DEFINE_FLAGS(BITS)                                                                                       \
    ALWAYS_INLINE void flags_add##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b, uint##BITS##_t result) \
    {                                                                                                            \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries = (uint64_t)((a & b) | ((a | b) & (uint##BITS##_t)~result)) << (64 - BITS);            \
        cpu->lazy.aux = (a ^ b ^ result) & FLAG_AF;                                                              \
    }                                                                                                            \
    ALWAYS_INLINE void flags_sub##BITS(struct cpu *cpu, uint##BITS##_t a, uint##BITS##_t b, uint##BITS##_t result) \
    {                                                                                                            \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries =                                                                                      \
            (uint64_t)(((uint##BITS##_t)~a & b) | ((uint##BITS##_t)~(a ^ b) & result)) << (64 - BITS);           \
        cpu->lazy.aux = (a ^ b ^ result) & FLAG_AF;                                                              \
    }                                                                                                            \
    ALWAYS_INLINE void flags_logic##BITS(struct cpu *cpu, uint##BITS##_t result)                                 \
    {                                                                                                            \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries = 0;                                                                                   \
        cpu->lazy.aux = 0;                                                                                       \
    }                                                                                                            \
    ALWAYS_INLINE void flags_inc##BITS(struct cpu *cpu, uint##BITS##_t result)                                   \
    {                                                                                                            \
        uint64_t cf = cpu->lazy.carries >> 63, of = result == (uint##BITS##_t)1 << (BITS - 1);                   \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries = cf << 63 | (cf ^ of) << 62;                                                          \
        cpu->lazy.aux = (uint64_t)((result & 15) == 0) << 4;                                                     \
    }                                                                                                            \
    ALWAYS_INLINE void flags_dec##BITS(struct cpu *cpu, uint##BITS##_t result)                                   \
    {                                                                                                            \
        uint64_t cf = cpu->lazy.carries >> 63, of = result == (uint##BITS##_t)((1ull << (BITS - 1)) - 1);        \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries = cf << 63 | (cf ^ of) << 62;                                                          \
        cpu->lazy.aux = (uint64_t)((result & 15) == 15) << 4;                                                    \
    }                                                                                                            \
    /* ZF SF PF from the result; CF and OF as given; AF = 0 where undefined */                                   \
    ALWAYS_INLINE void flags_result##BITS(struct cpu *cpu, uint##BITS##_t result, bool cf, bool of)              \
    {                                                                                                            \
        cpu->lazy.result = (int##BITS##_t)result;                                                                \
        cpu->lazy.carries = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;                                      \
        cpu->lazy.aux = 0;                                                                                       \
    }
DEFINE_FLAGS(8)
DEFINE_FLAGS(16)
DEFINE_FLAGS(32)
DEFINE_FLAGS(64)
#undef DEFINE_FLAGS

#endif
