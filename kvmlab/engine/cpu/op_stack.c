/* The stack: PUSH and POP of registers (SDM vol. 1 6.2). */
#include "access.h"

#define DEFINE_PUSH_POP(BITS)                                            \
    OP(op_push_Zv_##BITS) { return push##BITS(cpu, reg##BITS(cpu, i->rm)); } \
    OP(op_pop_Zv_##BITS)                                                 \
    {                                                                    \
        uint##BITS##_t v;                                                \
        if (!pop##BITS(cpu, &v))                                         \
            return false;                                                \
        set_reg##BITS(cpu, i->rm, v);                                    \
        return true;                                                     \
    }
DEFINE_PUSH_POP(16)
DEFINE_PUSH_POP(32)
DEFINE_PUSH_POP(64)
