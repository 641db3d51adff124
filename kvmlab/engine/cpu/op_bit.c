/* Bit tests, scans and counts (SDM vol. 1 7.3.7; vol. 2A BT BTC BTR BTS BSF BSR, LZCNT POPCNT TZCNT).
 *
 * With a register as bit number and an operand in memory, the operand is a bit string: the number is
 * signed and selects a word around the address. */
#include "access.h"
#include "flags.h"

/* ---- BT BTS BTR BTC: the bit goes to CF, the other flags stay ---------------------------------- */

#define CHANGED_bts(v, bit) ((v) | (bit))
#define CHANGED_btr(v, bit) ((v) & ~(bit))
#define CHANGED_btc(v, bit) ((v) ^ (bit))

#define DEFINE_BIT_ADDRESS(BITS)                                                                             \
    ALWAYS_INLINE uint##BITS##_t bit##BITS(uint64_t number) { return (uint##BITS##_t)1 << (number & (BITS - 1)); } \
    /* address of the word that holds bit `number` of the string at the operand */                            \
    static uint64_t bit_string_ea##BITS(const struct cpu *cpu, const struct insn *i)                         \
    {                                                                                                        \
        int64_t number = (int##BITS##_t)reg##BITS(cpu, i->reg), word = number >> (BITS == 64 ? 6 : BITS == 32 ? 5 : 4); \
        return (ea(cpu, i) + (uint64_t)word * (BITS / 8)) << i->ashift >> i->ashift;                         \
    }                                                                                                        \
    ALWAYS_INLINE bool test_memory##BITS(struct cpu *cpu, const struct insn *i, uint64_t offset, uint64_t number) \
    {                                                                                                        \
        uint##BITS##_t v;                                                                                    \
        if (!read##BITS(cpu, (enum seg)i->seg, offset, &v))                                                  \
            return false;                                                                                    \
        set_cf(cpu, v & bit##BITS(number));                                                                  \
        return true;                                                                                         \
    }                                                                                                        \
    OP(op_bt_Ev_Gv_##BITS##r)                                                                                \
    {                                                                                                        \
        set_cf(cpu, reg##BITS(cpu, i->rm) & bit##BITS(cpu->r[i->reg]));                                      \
        return true;                                                                                         \
    }                                                                                                        \
    OP(op_bt_Ev_Gv_##BITS##m) { return test_memory##BITS(cpu, i, bit_string_ea##BITS(cpu, i), cpu->r[i->reg]); } \
    OP(op_bt_Ev_Ib_##BITS##r)                                                                                \
    {                                                                                                        \
        set_cf(cpu, reg##BITS(cpu, i->rm) & bit##BITS(i->imm));                                              \
        return true;                                                                                         \
    }                                                                                                        \
    OP(op_bt_Ev_Ib_##BITS##m) { return test_memory##BITS(cpu, i, ea(cpu, i), i->imm); }
DEFINE_BIT_ADDRESS(16)
DEFINE_BIT_ADDRESS(32)
DEFINE_BIT_ADDRESS(64)
#undef DEFINE_BIT_ADDRESS

#define DEFINE_BIT_CHANGE(NAME, BITS)                                                                        \
    static bool NAME##_register##BITS(struct cpu *cpu, const struct insn *i, uint64_t number)                \
    {                                                                                                        \
        uint##BITS##_t v = reg##BITS(cpu, i->rm);                                                            \
        set_reg##BITS(cpu, i->rm, (uint##BITS##_t)CHANGED_##NAME(v, bit##BITS(number)));                     \
        set_cf(cpu, v & bit##BITS(number));                                                                  \
        return true;                                                                                         \
    }                                                                                                        \
    static bool NAME##_memory##BITS(struct cpu *cpu, const struct insn *i, uint64_t offset, uint64_t number) \
    {                                                                                                        \
        uint##BITS##_t v;                                                                                    \
        if (!rmw_begin##BITS(cpu, (enum seg)i->seg, offset, &v) ||                                           \
            !rmw_end##BITS(cpu, (uint##BITS##_t)CHANGED_##NAME(v, bit##BITS(number))))                       \
            return false;                                                                                    \
        set_cf(cpu, v & bit##BITS(number));                                                                  \
        return true;                                                                                         \
    }                                                                                                        \
    OP(op_##NAME##_Ev_Gv_##BITS##r) { return NAME##_register##BITS(cpu, i, cpu->r[i->reg]); }                \
    OP(op_##NAME##_Ev_Gv_##BITS##m)                                                                          \
    {                                                                                                        \
        return NAME##_memory##BITS(cpu, i, bit_string_ea##BITS(cpu, i), cpu->r[i->reg]);                     \
    }                                                                                                        \
    OP(op_##NAME##_Ev_Ib_##BITS##r) { return NAME##_register##BITS(cpu, i, i->imm); }                        \
    OP(op_##NAME##_Ev_Ib_##BITS##m) { return NAME##_memory##BITS(cpu, i, ea(cpu, i), i->imm); }
#define DEFINE_BIT_CHANGES(NAME) DEFINE_BIT_CHANGE(NAME, 16) DEFINE_BIT_CHANGE(NAME, 32) DEFINE_BIT_CHANGE(NAME, 64)
DEFINE_BIT_CHANGES(bts)
DEFINE_BIT_CHANGES(btr)
DEFINE_BIT_CHANGES(btc)

/* ---- scans and counts --------------------------------------------------------------------------- */

static unsigned count_ones(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555ull;
    v = (v & 0x3333333333333333ull) + (v >> 2 & 0x3333333333333333ull);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
    return (unsigned)(v * 0x0101010101010101ull >> 56);
}
static unsigned lowest_bit(uint64_t v) { return count_ones((v & -v) - 1); } /* 64 for 0 */
static unsigned highest_bit(uint64_t v) /* ~0 for 0 */
{
    for (unsigned shift = 1; shift < 64; shift *= 2)
        v |= v >> shift;
    return count_ones(v) - 1;
}

/* BSF and BSR of zero set ZF and leave the destination as it was, also its upper half. */
#define DEFINE_SCANS(BITS)                                                                   \
    static bool bsf##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t v)           \
    {                                                                                        \
        if (v)                                                                               \
            set_reg##BITS(cpu, i->reg, (uint##BITS##_t)lowest_bit(v));                       \
        change_status_flags(cpu, FLAG_ZF, v ? 0 : FLAG_ZF);                                  \
        return true;                                                                         \
    }                                                                                        \
    static bool bsr##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t v)           \
    {                                                                                        \
        if (v)                                                                               \
            set_reg##BITS(cpu, i->reg, (uint##BITS##_t)highest_bit(v));                      \
        change_status_flags(cpu, FLAG_ZF, v ? 0 : FLAG_ZF);                                  \
        return true;                                                                         \
    }                                                                                        \
    static bool count_zeros##BITS(struct cpu *cpu, const struct insn *i, unsigned zeros)     \
    {                                                                                        \
        set_reg##BITS(cpu, i->reg, (uint##BITS##_t)zeros);                                   \
        uint32_t cleared = cpu_behaves(cpu, BEHAVIOUR_COUNT_CLEARS_SAP) ? FLAG_SF | FLAG_AF | FLAG_PF : 0; \
        change_status_flags(cpu, FLAG_CF | FLAG_ZF | cleared,                                \
                            (zeros == BITS ? FLAG_CF : 0u) | (zeros == 0 ? FLAG_ZF : 0u));   \
        return true;                                                                         \
    }                                                                                        \
    static bool tzcnt##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t v)         \
    {                                                                                        \
        return count_zeros##BITS(cpu, i, v ? lowest_bit(v) : BITS);                          \
    }                                                                                        \
    static bool lzcnt##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t v)         \
    {                                                                                        \
        return count_zeros##BITS(cpu, i, BITS - 1 - highest_bit(v));                         \
    }                                                                                        \
    static bool popcnt##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t v)        \
    {                                                                                        \
        set_reg##BITS(cpu, i->reg, (uint##BITS##_t)count_ones(v));                           \
        set_status_flags(cpu, v ? 0 : FLAG_ZF);                                              \
        return true;                                                                         \
    }
DEFINE_SCANS(16)
DEFINE_SCANS(32)
DEFINE_SCANS(64)
#undef DEFINE_SCANS

#define DEFINE_FORMS(NAME, BITS)                                                             \
    OP(op_##NAME##_##BITS##r) { return NAME##BITS(cpu, i, reg##BITS(cpu, i->rm)); }          \
    OP(op_##NAME##_##BITS##m)                                                                \
    {                                                                                        \
        uint##BITS##_t v;                                                                    \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v) && NAME##BITS(cpu, i, v);   \
    }
#define DEFINE_SIZES(NAME) DEFINE_FORMS(NAME, 16) DEFINE_FORMS(NAME, 32) DEFINE_FORMS(NAME, 64)
DEFINE_SIZES(bsf)
DEFINE_SIZES(bsr)
DEFINE_SIZES(tzcnt)
DEFINE_SIZES(lzcnt)
DEFINE_SIZES(popcnt)
