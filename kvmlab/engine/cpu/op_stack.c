/* The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM vol. 1 6.2 and 6.5).
 *
 * RSP changes only when every access of the instruction has succeeded. */
#include "access.h"

/* ---- PUSH and POP ------------------------------------------------------------------------------ */

/* POP to memory addresses its operand with the RSP behind the pop. */
#define DEFINE_PUSH_POP(BITS)                                                                        \
    OP(op_push_Zv_##BITS) { return push##BITS(cpu, reg##BITS(cpu, i->rm)); }                         \
    OP(op_push_Ev_##BITS##r) { return push##BITS(cpu, reg##BITS(cpu, i->rm)); }                      \
    OP(op_push_Ev_##BITS##m)                                                                         \
    {                                                                                                \
        uint##BITS##_t v;                                                                            \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &v) && push##BITS(cpu, v);              \
    }                                                                                                \
    OP(op_push_Iz_##BITS) { return push##BITS(cpu, (uint##BITS##_t)i->imm); }                        \
    OP(op_pop_Zv_##BITS)                                                                             \
    {                                                                                                \
        uint##BITS##_t v;                                                                            \
        if (!pop##BITS(cpu, &v))                                                                     \
            return false;                                                                            \
        set_reg##BITS(cpu, i->rm, v);                                                                \
        return true;                                                                                 \
    }                                                                                                \
    OP(op_pop_Ev_##BITS##r) { return op_pop_Zv_##BITS(cpu, i); }                                     \
    OP(op_pop_Ev_##BITS##m)                                                                          \
    {                                                                                                \
        uint64_t rsp = cpu->r[RSP];                                                                  \
        uint##BITS##_t v;                                                                            \
        if (!pop##BITS(cpu, &v))                                                                     \
            return false;                                                                            \
        if (write##BITS(cpu, (enum seg)i->seg, ea(cpu, i), v))                                       \
            return true;                                                                             \
        cpu->r[RSP] = rsp;                                                                           \
        return false;                                                                                \
    }
DEFINE_PUSH_POP(16)
DEFINE_PUSH_POP(32)
DEFINE_PUSH_POP(64)
#undef DEFINE_PUSH_POP

/* ---- PUSHA and POPA: eight words, RAX highest; POPA throws RSP's away --------------------------- */

#define DEFINE_ALL(BITS)                                                                             \
    OP(op_pusha_##BITS)                                                                              \
    {                                                                                                \
        uint64_t rsp = cpu->r[RSP];                                                                  \
        for (unsigned n = RAX; n <= RDI; n++) {                                                      \
            rsp -= BITS / 8;                                                                         \
            if (!write##BITS(cpu, SS, rsp & cpu->stack_mask, reg##BITS(cpu, n)))                     \
                return false;                                                                        \
        }                                                                                            \
        set_stack_pointer(cpu, rsp);                                                                 \
        return true;                                                                                 \
    }                                                                                                \
    OP(op_popa_##BITS)                                                                               \
    {                                                                                                \
        uint##BITS##_t v[8];                                                                         \
        for (unsigned n = 0; n < 8; n++)                                                             \
            if (!read##BITS(cpu, SS, (cpu->r[RSP] + n * (BITS / 8)) & cpu->stack_mask, &v[7 - n]))   \
                return false;                                                                        \
        for (unsigned n = RAX; n <= RDI; n++)                                                        \
            if (n != RSP)                                                                            \
                set_reg##BITS(cpu, n, v[n]);                                                         \
        set_stack_pointer(cpu, cpu->r[RSP] + 8 * (BITS / 8));                                        \
        return true;                                                                                 \
    }
DEFINE_ALL(16)
DEFINE_ALL(32)
#undef DEFINE_ALL
OP(op_pusha_64) { return raise_exception(cpu, VEC_UD); }
OP(op_popa_64) { return raise_exception(cpu, VEC_UD); }

/* ---- ENTER and LEAVE ----------------------------------------------------------------------------- */

/* The frame pointers of the outer levels are copied below the saved RBP, then the new one is pushed.
 * The last step of the manual is a check that the new stack top could be written. */
#define DEFINE_ENTER_LEAVE(BITS)                                                                     \
    OP(op_enter_##BITS)                                                                              \
    {                                                                                                \
        unsigned level = i->imm >> 32 & 31, locals = i->imm & 0xffff;                                \
        uint64_t rbp = cpu->r[RBP], rsp = cpu->r[RSP] - BITS / 8;                                    \
        uint64_t frame = (cpu->r[RSP] & ~cpu->stack_mask) | (rsp & cpu->stack_mask);                 \
        if (!write##BITS(cpu, SS, rsp & cpu->stack_mask, (uint##BITS##_t)rbp))                       \
            return false;                                                                            \
        for (unsigned n = 1; n < level; n++) {                                                       \
            uint##BITS##_t outer;                                                                    \
            rsp -= BITS / 8;                                                                         \
            rbp -= BITS / 8;                                                                         \
            if (!read##BITS(cpu, SS, rbp & cpu->stack_mask, &outer) ||                               \
                !write##BITS(cpu, SS, rsp & cpu->stack_mask, outer))                                 \
                return false;                                                                        \
        }                                                                                            \
        if (level) {                                                                                 \
            rsp -= BITS / 8;                                                                         \
            if (!write##BITS(cpu, SS, rsp & cpu->stack_mask, (uint##BITS##_t)frame))                 \
                return false;                                                                        \
        }                                                                                            \
        rsp -= locals;                                                                               \
        if (!mem_check_write(cpu, SS, rsp & cpu->stack_mask, BITS / 8))                              \
            return false;                                                                            \
        set_reg##BITS(cpu, RBP, (uint##BITS##_t)frame);                                              \
        set_stack_pointer(cpu, rsp);                                                                 \
        return true;                                                                                 \
    }                                                                                                \
    OP(op_leave_##BITS)                                                                              \
    {                                                                                                \
        uint##BITS##_t v;                                                                            \
        uint64_t frame = cpu->r[RBP] & cpu->stack_mask;                                              \
        if (!read##BITS(cpu, SS, frame, &v))                                                         \
            return false;                                                                            \
        set_stack_pointer(cpu, frame + BITS / 8);                                                    \
        set_reg##BITS(cpu, RBP, v);                                                                  \
        return true;                                                                                 \
    }
DEFINE_ENTER_LEAVE(16)
DEFINE_ENTER_LEAVE(32)
DEFINE_ENTER_LEAVE(64)
