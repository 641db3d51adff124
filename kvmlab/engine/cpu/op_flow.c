/* Near control flow: Jcc, JMP, CALL, RET, LOOP, JCXZ (SDM vol. 1 7.3.8).
 *
 * A target outside the code segment, or not canonical, faults before anything is changed. */
#include "access.h"
#include "flags.h"

ALWAYS_INLINE bool target_inside(const struct cpu *cpu, uint64_t target)
{
    return is_64bit(cpu) ? is_canonical(cpu, target) : target <= cpu->seg[CS].limit;
}

ALWAYS_INLINE MUST_CHECK bool branch_to(struct cpu *cpu, uint64_t target, unsigned size)
{
    if (size == 2)
        target &= 0xffff;
    else if (size == 4)
        target &= 0xffffffff;
    if (UNLIKELY(!target_inside(cpu, target)))
        return raise_error(cpu, VEC_GP, 0);
    return jump_to(cpu, target);
}

#define DEFINE_JCC(name, cc)                                                        \
    OP(op_j##name)                                                                  \
    {                                                                               \
        uint64_t next = insn_next_rip(cpu, i);                                      \
        if (condition(cpu, cc))                                                     \
            return branch_to(cpu, next + i->imm, i->size);                          \
        return jump_to(cpu, next & cpu->linear_mask);                               \
    }
DEFINE_JCC(o, 0)
DEFINE_JCC(no, 1)
DEFINE_JCC(b, 2)
DEFINE_JCC(nb, 3)
DEFINE_JCC(z, 4)
DEFINE_JCC(nz, 5)
DEFINE_JCC(be, 6)
DEFINE_JCC(nbe, 7)
DEFINE_JCC(s, 8)
DEFINE_JCC(ns, 9)
DEFINE_JCC(p, 10)
DEFINE_JCC(np, 11)
DEFINE_JCC(l, 12)
DEFINE_JCC(nl, 13)
DEFINE_JCC(le, 14)
DEFINE_JCC(nle, 15)

OP(op_jmp_J) { return branch_to(cpu, insn_next_rip(cpu, i) + i->imm, i->size); }

#define DEFINE_INDIRECT(BITS)                                                       \
    OP(op_jmp_Ev_##BITS##r) { return branch_to(cpu, reg##BITS(cpu, i->rm), BITS / 8); } \
    OP(op_jmp_Ev_##BITS##m)                                                         \
    {                                                                               \
        uint##BITS##_t target;                                                      \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &target) && branch_to(cpu, target, BITS / 8); \
    }                                                                               \
    static bool call##BITS(struct cpu *cpu, const struct insn *i, uint##BITS##_t target) \
    {                                                                               \
        uint64_t top = (cpu->r[RSP] - BITS / 8) & cpu->stack_mask;                  \
        if (UNLIKELY(!target_inside(cpu, target))) /* a fault of the stack comes first */ \
            return mem_check_write(cpu, SS, top, BITS / 8) && raise_error(cpu, VEC_GP, 0); \
        return push##BITS(cpu, (uint##BITS##_t)insn_next_rip(cpu, i)) && jump_to(cpu, target); \
    }                                                                               \
    OP(op_call_J_##BITS) { return call##BITS(cpu, i, (uint##BITS##_t)(insn_next_rip(cpu, i) + i->imm)); } \
    OP(op_call_Ev_##BITS##r) { return call##BITS(cpu, i, reg##BITS(cpu, i->rm)); }  \
    OP(op_call_Ev_##BITS##m)                                                        \
    {                                                                               \
        uint##BITS##_t target;                                                      \
        return read##BITS(cpu, (enum seg)i->seg, ea(cpu, i), &target) && call##BITS(cpu, i, target); \
    }                                                                               \
    static bool return##BITS(struct cpu *cpu, uint16_t pop_bytes)                   \
    {                                                                               \
        uint##BITS##_t target;                                                      \
        if (!read##BITS(cpu, SS, stack_pointer(cpu), &target) || !branch_to(cpu, target, BITS / 8)) \
            return false;                                                           \
        set_stack_pointer(cpu, cpu->r[RSP] + BITS / 8 + pop_bytes);                 \
        return true;                                                                \
    }                                                                               \
    OP(op_ret_##BITS)                                                               \
    {                                                                               \
        (void)i;                                                                    \
        return return##BITS(cpu, 0);                                                \
    }                                                                               \
    OP(op_ret_Iw_##BITS) { return return##BITS(cpu, (uint16_t)i->imm); }
DEFINE_INDIRECT(16)
DEFINE_INDIRECT(32)
DEFINE_INDIRECT(64)

/* ---- LOOP and JCXZ: the counter has the address size ---------------------------------------------- */

static uint64_t counter(const struct cpu *cpu, const struct insn *i) { return cpu->r[RCX] << i->ashift >> i->ashift; }

/* The counter changes only when the branch does not fault. */
static bool loop_if(struct cpu *cpu, const struct insn *i, bool also)
{
    uint64_t next = insn_next_rip(cpu, i), rcx = (counter(cpu, i) - 1) << i->ashift >> i->ashift;
    if (rcx && also) {
        if (!branch_to(cpu, next + i->imm, i->size))
            return false;
    } else {
        jump_to(cpu, next & cpu->linear_mask);
    }
    set_reg_by_size(cpu, RCX, 8 - i->ashift / 8, rcx);
    return true;
}
static bool loop_while(struct cpu *cpu, const struct insn *i, bool zf)
{
    if (i->rep && cpu_behaves(cpu, BEHAVIOUR_LOOP_REP_PREFIX))
        zf = i->rep == 0xf3;
    return loop_if(cpu, i, flag_zf(cpu) == zf);
}
OP(op_loop) { return loop_if(cpu, i, true); }
OP(op_loope) { return loop_while(cpu, i, true); }
OP(op_loopne) { return loop_while(cpu, i, false); }
OP(op_jcxz)
{
    uint64_t next = insn_next_rip(cpu, i);
    return counter(cpu, i) == 0 ? branch_to(cpu, next + i->imm, i->size) : jump_to(cpu, next & cpu->linear_mask);
}
