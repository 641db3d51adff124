/* Far control flow, interrupts as instructions, and segment registers as operands.
 *
 * SDM vol. 2: CALL, JMP, RET, IRET, INT n, LDS, MOV, PUSH, POP. What these do to segments and stacks
 * is in segment.c and exception.c. */
#include "access.h"
#include "flags.h"

/* ---- far JMP, CALL, RET ------------------------------------------------------------------ */

/* A far pointer has 4 bytes of offset at most, unless REX.W counts there. */
static unsigned pointer_bytes(const struct cpu *cpu, const struct insn *i)
{
    return i->size == 8 && cpu_behaves(cpu, BEHAVIOUR_FAR_BRANCH_64_REXW_IGNORED) ? 4 : i->size;
}

static uint64_t ea_plus(const struct cpu *cpu, const struct insn *i, unsigned bytes)
{
    return (ea(cpu, i) + bytes) << i->ashift >> i->ashift;
}

static MUST_CHECK bool read_pointer(struct cpu *cpu, const struct insn *i, unsigned size, uint16_t *selector, uint64_t *offset)
{
    return read_by_size(cpu, (enum seg)i->seg, ea(cpu, i), size, offset) &&
           read16(cpu, (enum seg)i->seg, ea_plus(cpu, i, size), selector);
}

static uint64_t return_rip(const struct cpu *cpu, const struct insn *i)
{
    return insn_next_rip(cpu, i) & (is_64bit(cpu) ? ~0ull : 0xffffffff);
}

OP(op_jmp_Ap) { return far_jump(cpu, (uint16_t)(i->imm >> 32), (uint32_t)i->imm, i->size); }

OP(op_jmp_Mp)
{
    uint16_t selector;
    uint64_t offset;
    unsigned size = pointer_bytes(cpu, i);
    return read_pointer(cpu, i, size, &selector, &offset) && far_jump(cpu, selector, offset, size);
}

OP(op_call_Ap)
{
    return far_call(cpu, (uint16_t)(i->imm >> 32), (uint32_t)i->imm, i->size, return_rip(cpu, i));
}

OP(op_call_Mp)
{
    uint16_t selector;
    uint64_t offset;
    unsigned size = pointer_bytes(cpu, i);
    return read_pointer(cpu, i, size, &selector, &offset) &&
           far_call(cpu, selector, offset, size, return_rip(cpu, i));
}

OP(op_retf) { return far_return(cpu, i->size, 0); }
OP(op_retf_Iw) { return far_return(cpu, i->size, (uint16_t)i->imm); }

/* ---- interrupts ---------------------------------------------------------------------------- */

OP(op_iret) { return interrupt_return(cpu, i->size); }
OP(op_int_Ib) { return software_interrupt(cpu, (uint8_t)i->imm, TYPE_SOFTWARE_INTERRUPT, i->len); }
OP(op_int3) { return software_interrupt(cpu, VEC_BP, TYPE_SOFTWARE_EXCEPTION, i->len); }
OP(op_int1) { return software_interrupt(cpu, VEC_DB, TYPE_PRIVILEGED_SOFTWARE_EXCEPTION, i->len); }
OP(op_into)
{
    if (!flag_of(cpu))
        return jump_to(cpu, return_rip(cpu, i));
    return software_interrupt(cpu, VEC_OF, TYPE_SOFTWARE_EXCEPTION, i->len);
}

/* ---- segment registers ------------------------------------------------------------------------ */

/* Until the next instruction is done nothing interrupts; a second shadow in a row does not count. */
static void block_after_ss(struct cpu *cpu)
{
    if (!(cpu->interruptibility & (BLOCK_STI | BLOCK_MOV_SS)))
        cpu->interruptibility |= BLOCK_MOV_SS;
    cpu_update_attention(cpu);
}

static unsigned segment_number(const struct insn *i) { return i->reg & 7; } /* REX.R does not count */

OP(op_mov_Ev_Sw)
{
    unsigned seg = segment_number(i);
    if (seg > GS)
        return raise_exception(cpu, VEC_UD);
    uint64_t selector = cpu->seg[seg].selector;
    return write_rm(cpu, i, i->flags & INSN_MEM ? 2 : i->size, selector);
}

OP(op_mov_Sw_Ew)
{
    unsigned seg = segment_number(i);
    uint64_t selector;
    if (seg > GS || seg == CS)
        return raise_exception(cpu, VEC_UD);
    if (!read_rm(cpu, i, 2, &selector) || !load_segment(cpu, (enum seg)seg, (uint16_t)selector))
        return false;
    if (seg == SS)
        block_after_ss(cpu);
    return true;
}

static MUST_CHECK bool push_segment(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    uint64_t rsp = (cpu->r[RSP] - i->size) & cpu->stack_mask;
    unsigned written = i->size == 4 && cpu_behaves(cpu, BEHAVIOUR_PUSH_SEG_16_WRITES_16) ? 2 : i->size;
    if (!write_by_size(cpu, SS, rsp, written, cpu->seg[seg].selector))
        return false;
    set_stack_pointer(cpu, rsp);
    return true;
}

static MUST_CHECK bool pop_segment(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    uint64_t selector, rsp = cpu->r[RSP] + i->size, mask = cpu->stack_mask;
    if (!read_by_size(cpu, SS, stack_pointer(cpu), i->size, &selector) || !load_segment(cpu, seg, (uint16_t)selector))
        return false;
    cpu->r[RSP] = (cpu->r[RSP] & ~mask) | (rsp & mask); /* POP SS counts with the old stack size */
    return true;
}

#define DEFINE_PUSH_SEG(SEG) \
    OP(op_push_##SEG) { return push_segment(cpu, i, SEG); }
#define DEFINE_POP_SEG(SEG) \
    OP(op_pop_##SEG) { return pop_segment(cpu, i, SEG); }
DEFINE_PUSH_SEG(ES)
DEFINE_PUSH_SEG(CS)
DEFINE_PUSH_SEG(SS)
DEFINE_PUSH_SEG(DS)
DEFINE_PUSH_SEG(FS)
DEFINE_PUSH_SEG(GS)
DEFINE_POP_SEG(ES)
DEFINE_POP_SEG(DS)
DEFINE_POP_SEG(FS)
DEFINE_POP_SEG(GS)
OP(op_pop_SS)
{
    if (!pop_segment(cpu, i, SS))
        return false;
    block_after_ss(cpu);
    return true;
}

/* LDS, LES, LSS, LFS, LGS: offset to a register, selector to a segment register. */
static MUST_CHECK bool load_pointer(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    uint16_t selector;
    uint64_t offset;
    unsigned size = i->size == 8 && !cpu_behaves(cpu, BEHAVIOUR_LSS_FAMILY_REXW) ? 4 : i->size;
    if (!read_pointer(cpu, i, size, &selector, &offset) || !load_segment(cpu, seg, selector))
        return false;
    set_reg_by_size(cpu, i->reg, size, offset);
    return true;
}

OP(op_les) { return load_pointer(cpu, i, ES); }
OP(op_lds) { return load_pointer(cpu, i, DS); }
OP(op_lss) { return load_pointer(cpu, i, SS); }
OP(op_lfs) { return load_pointer(cpu, i, FS); }
OP(op_lgs) { return load_pointer(cpu, i, GS); }
