/* Flag control: CLC STC CMC CLD STD LAHF SAHF (SDM vol. 1 7.3.13), and SALC. */
#include "access.h"
#include "flags.h"

OP(op_clc)
{
    set_cf(cpu, false);
    return true;
}
OP(op_stc)
{
    set_cf(cpu, true);
    return true;
}
OP(op_cmc)
{
    set_cf(cpu, !flag_cf(cpu));
    return true;
}
OP(op_cld)
{
    cpu->rflags &= ~(uint64_t)FLAG_DF;
    return true;
}
OP(op_std)
{
    cpu->rflags |= FLAG_DF;
    return true;
}

#define FLAGS_OF_AH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF)
OP(op_lahf)
{
    set_reg8(cpu, 1, (uint8_t)((status_flags(cpu) & FLAGS_OF_AH) | FLAG_1));
    return true;
}
OP(op_sahf)
{
    change_status_flags(cpu, FLAGS_OF_AH, reg8(cpu, 1));
    return true;
}

OP(op_salc)
{
    set_reg8(cpu, 0, flag_cf(cpu) ? 0xff : 0);
    return true;
}
