/* Decimal arithmetic (SDM vol. 1, 7.3.3; vol. 2A: AAA AAD AAM AAS DAA DAS). All #UD in 64-bit mode.
 *
 * The flags that the manual calls undefined are what flags_undefined.def says. */
#include "access.h"
#include "flags.h"

static uint8_t al(const struct cpu *cpu) { return (uint8_t)cpu->r[RAX]; }
static uint8_t ah(const struct cpu *cpu) { return (uint8_t)(cpu->r[RAX] >> 8); }

/* 286 and later add or subtract 106h as a whole: the carry out of AL reaches AH, and the undefined
 * flags are those of the 16-bit operation. */
static bool ascii_adjust(struct cpu *cpu, bool subtract)
{
    bool correct = (al(cpu) & 15) > 9 || flag_af(cpu);
    uint16_t before = reg16(cpu, RAX), by = correct ? 0x106 : 0;
    uint16_t after = (uint16_t)(subtract ? before - by : before + by);
    if (subtract)
        flags_sub16(cpu, before, by, after);
    else
        flags_add16(cpu, before, by, after);
    set_cf(cpu, correct);
    cpu->lazy.aux = correct ? FLAG_AF : 0;
    set_reg16(cpu, RAX, after & 0xff0f);
    return true;
}
OP(op_aaa) { return ascii_adjust(cpu, false); }
OP(op_aas) { return ascii_adjust(cpu, true); }

OP(op_aam)
{
    uint8_t base = (uint8_t)i->imm;
    if (base == 0)
        return raise_exception(cpu, VEC_DE);
    uint8_t high = al(cpu) / base, low = al(cpu) % base;
    set_reg16(cpu, RAX, (uint16_t)(high << 8 | low));
    flags_logic8(cpu, low);
    return true;
}

OP(op_aad)
{
    uint8_t product = (uint8_t)(ah(cpu) * (uint8_t)i->imm), before = al(cpu);
    uint8_t sum = (uint8_t)(before + product);
    set_reg16(cpu, RAX, sum);
    flags_add8(cpu, before, product, sum);
    return true;
}

/* Both digits of AL after an addition (sign = 1) or a subtraction (-1). */
static bool decimal_adjust(struct cpu *cpu, int sign)
{
    uint8_t before = al(cpu), after = before;
    bool low = (before & 15) > 9 || flag_af(cpu), high = before > 0x99 || flag_cf(cpu);
    bool carry = high || (low && sign < 0 && before < 6);
    if (low)
        after = (uint8_t)(after + sign * 0x06);
    if (high)
        after = (uint8_t)(after + sign * 0x60);
    bool overflow = (sign > 0 ? ~before & after : before & ~after) >> 7 & 1;
    set_reg8(cpu, 0, after);
    flags_result8(cpu, after, carry, overflow);
    cpu->lazy.aux |= low ? FLAG_AF : 0;
    return true;
}
OP(op_daa) { return decimal_adjust(cpu, 1); }
OP(op_das) { return decimal_adjust(cpu, -1); }
