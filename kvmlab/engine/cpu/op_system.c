/* System instructions: control and debug registers, descriptor tables, MSRs, system calls, flags, ports.
 *
 * SDM vol. 2 by name, vol. 3A 2.8 for the list. Rows marked A_CHECKED ask intercept.c here, because
 * the exit depends on an operand or comes after a check of the instruction's own. */
#include "access.h"
#include "flags.h"

static bool in_guest(const struct cpu *cpu) { return cpu->world != WORLD_PLAIN; }
static bool refuse(struct cpu *cpu) { return raise_error(cpu, VEC_GP, 0); }

static uint64_t operand_linear(const struct cpu *cpu, const struct insn *i)
{
    return (cpu->view[i->seg].base + ea(cpu, i)) & cpu->linear_mask;
}

static uint64_t ea_plus(const struct cpu *cpu, const struct insn *i, unsigned bytes)
{
    return (ea(cpu, i) + bytes) << i->ashift >> i->ashift;
}

/* ---- control registers ---------------------------------------------------------------------- */

static bool is_control_register(unsigned n) { return n == 0 || n == 2 || n == 3 || n == 4 || n == 8; }

/* LOCK MOV CR0 is how AMD reaches CR8 outside 64-bit mode; LOCK with another register names none. */
static unsigned control_register(const struct insn *i)
{
    if (i->flags & INSN_LOCK)
        return i->reg == 0 ? 8 : ~0u;
    return i->reg;
}

OP(op_mov_Rd_Cd)
{
    unsigned cr = control_register(i);
    if (!is_control_register(cr))
        return raise_exception(cpu, VEC_UD);
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_cr_read(cpu, i, cr, i->rm))
        return false;
    set_reg_by_size(cpu, i->rm, is_64bit(cpu) ? 8 : 4, guest_cr_read(cpu, cr));
    return true;
}

static MUST_CHECK bool write_cr(struct cpu *cpu, unsigned cr, uint64_t value)
{
    switch (cr) {
    case 0: return write_cr0(cpu, value);
    case 3: return write_cr3(cpu, value);
    case 4: return write_cr4(cpu, value);
    case 8: return write_cr8(cpu, value);
    default: cpu->cr2 = value; return true;
    }
}

OP(op_mov_Cd_Rd)
{
    unsigned cr = control_register(i);
    uint64_t value = reg_by_size(cpu, i->rm, is_64bit(cpu) ? 8 : 4);
    if (!is_control_register(cr))
        return raise_exception(cpu, VEC_UD);
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu)) {
        if (!intercept_cr_write(cpu, i, cr, value, i->rm))
            return false;
        value = guest_cr_write(cpu, cr, value);
    }
    return write_cr(cpu, cr, value);
}

OP(op_clts)
{
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_clts(cpu, i))
        return false;
    uint64_t cr0 = cpu->cr0 & ~(uint64_t)CR0_TS;
    return write_cr0(cpu, in_guest(cpu) ? guest_cr_write(cpu, 0, guest_cr_read(cpu, 0) & ~(uint64_t)CR0_TS) : cr0);
}

/* Bits 3:0 of CR0; PE can be set, not cleared. */
OP(op_lmsw)
{
    uint64_t source;
    if (cpu->cpl)
        return refuse(cpu);
    if (!read_rm(cpu, i, 2, &source))
        return false;
    bool memory = i->flags & INSN_MEM;
    if (in_guest(cpu) && !intercept_lmsw(cpu, i, (uint16_t)source, memory, memory ? operand_linear(cpu, i) : 0))
        return false;
    uint64_t cr0 = in_guest(cpu) ? guest_cr_read(cpu, 0) : cpu->cr0;
    cr0 = (cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (source & (CR0_PE | CR0_MP | CR0_EM | CR0_TS));
    return write_cr0(cpu, in_guest(cpu) ? guest_cr_write(cpu, 0, cr0) : cr0);
}

static bool umip_refuses(const struct cpu *cpu) { return cpu->cpl && (cpu->cr4 & CR4_UMIP); }

OP(op_smsw)
{
    if (umip_refuses(cpu))
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_cr_read(cpu, i, 0, i->rm))
        return false;
    return write_rm(cpu, i, i->flags & INSN_MEM ? 2 : i->size, in_guest(cpu) ? guest_cr_read(cpu, 0) : cpu->cr0);
}

/* ---- debug registers --------------------------------------------------------------------------- */

/* DR4 and DR5 are other names of DR6 and DR7 until CR4.DE is set. Yields 0 after a fault or exit. */
static MUST_CHECK bool debug_register(struct cpu *cpu, const struct insn *i, bool is_read, unsigned *number)
{
    *number = i->reg;
    if (i->reg >= 8 || ((i->reg == 4 || i->reg == 5) && (cpu->cr4 & CR4_DE)))
        return raise_exception(cpu, VEC_UD);
    if (cpu->cpl)
        return refuse(cpu);
    if (i->reg == 4 || i->reg == 5)
        *number += 2;
    if (in_guest(cpu) && !intercept_dr(cpu, i, *number, is_read, i->rm))
        return false;
    if (cpu->dr[7] & DR7_GD)
        return raise_debug(cpu, DR6_BD);
    return true;
}

OP(op_mov_Rd_Dd)
{
    unsigned number;
    if (!debug_register(cpu, i, true, &number))
        return false;
    set_reg_by_size(cpu, i->rm, is_64bit(cpu) ? 8 : 4, cpu->dr[number]);
    return true;
}

OP(op_mov_Dd_Rd)
{
    unsigned number;
    return debug_register(cpu, i, false, &number) &&
           write_dr(cpu, number, reg_by_size(cpu, i->rm, is_64bit(cpu) ? 8 : 4));
}

/* ---- descriptor tables -------------------------------------------------------------------------- */

static MUST_CHECK bool load_table(struct cpu *cpu, const struct insn *i, struct table_register *table)
{
    uint16_t limit;
    uint64_t base;
    if (!read16(cpu, (enum seg)i->seg, ea(cpu, i), &limit) ||
        !read_by_size(cpu, (enum seg)i->seg, ea_plus(cpu, i, 2), is_64bit(cpu) ? 8 : 4, &base))
        return false;
    if (is_64bit(cpu) ? !is_canonical(cpu, base) : false)
        return refuse(cpu);
    table->base = i->size == 2 && !is_64bit(cpu) ? base & 0xffffff : base;
    table->limit = limit;
    return true;
}

/* All of the base is stored whatever the operand size: what processors do, SDM vol. 2B SGDT's pseudocode too. */
static MUST_CHECK bool store_table(struct cpu *cpu, const struct insn *i, const struct table_register *table)
{
    if (umip_refuses(cpu))
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_insn(cpu, i))
        return false;
    return write16(cpu, (enum seg)i->seg, ea(cpu, i), (uint16_t)table->limit) &&
           write_by_size(cpu, (enum seg)i->seg, ea_plus(cpu, i, 2), is_64bit(cpu) ? 8 : 4, table->base);
}

OP(op_lgdt) { return load_table(cpu, i, &cpu->gdtr); }
OP(op_lidt) { return load_table(cpu, i, &cpu->idtr); }
OP(op_sgdt) { return store_table(cpu, i, &cpu->gdtr); }
OP(op_sidt) { return store_table(cpu, i, &cpu->idtr); }

OP(op_lldt)
{
    uint64_t selector;
    return read_rm(cpu, i, 2, &selector) && load_ldtr(cpu, (uint16_t)selector);
}

OP(op_ltr)
{
    uint64_t selector;
    return read_rm(cpu, i, 2, &selector) && load_tr(cpu, (uint16_t)selector);
}

static MUST_CHECK bool store_selector(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    if (umip_refuses(cpu))
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_insn(cpu, i))
        return false;
    return write_rm(cpu, i, i->flags & INSN_MEM ? 2 : i->size, cpu->seg[seg].selector);
}

OP(op_sldt) { return store_selector(cpu, i, LDTR); }
OP(op_str) { return store_selector(cpu, i, TR); }

/* ---- asking about selectors ------------------------------------------------------------------------ */

static void set_zf(struct cpu *cpu, bool zf) { change_status_flags(cpu, FLAG_ZF, zf ? FLAG_ZF : 0); }

/* Which system descriptors LAR and LSL speak about: a bit per type. SDM vol. 2A LAR, LSL. */
#define LAR_TYPES_LEGACY 0x1a3eu /* TSS, LDT, call and task gates */
#define LAR_TYPES_LONG 0x1a04u
#define LSL_TYPES_LEGACY 0x0a0eu
#define LSL_TYPES_LONG 0x0a04u

/* Is the descriptor there, of a type in `system_types` or a segment, and visible from here? False: fault. */
static MUST_CHECK bool look_up(struct cpu *cpu, uint16_t selector, unsigned system_types, struct descriptor *d, bool *visible)
{
    *visible = false;
    if (!(selector & SELECTOR_MASK))
        return true;
    enum lookup lookup = find_descriptor(cpu, selector, d);
    if (lookup != LOOKUP_FOUND)
        return lookup == LOOKUP_OUTSIDE;
    unsigned dpl = d->attr >> SEG_DPL_SHIFT & 3, rpl = selector & SELECTOR_RPL;
    unsigned conforming = SEG_S | TYPE_CODE | TYPE_CONFORMING;
    if (!(d->attr & SEG_S) && !(system_types >> (d->attr & SEG_TYPE) & 1))
        return true;
    *visible = (d->attr & conforming) == conforming || (cpu->cpl <= dpl && rpl <= dpl);
    return true;
}

OP(op_lar)
{
    struct descriptor d;
    uint64_t selector;
    bool visible;
    if (!read_rm(cpu, i, 2, &selector) ||
        !look_up(cpu, (uint16_t)selector, is_long_active(cpu) ? LAR_TYPES_LONG : LAR_TYPES_LEGACY, &d, &visible))
        return false;
    if (visible)
        set_reg_by_size(cpu, i->reg, i->size, d.low >> 32 & 0x00f0ff00);
    set_zf(cpu, visible);
    return true;
}

OP(op_lsl)
{
    struct descriptor d;
    uint64_t selector;
    bool visible;
    if (!read_rm(cpu, i, 2, &selector) ||
        !look_up(cpu, (uint16_t)selector, is_long_active(cpu) ? LSL_TYPES_LONG : LSL_TYPES_LEGACY, &d, &visible))
        return false;
    if (visible)
        set_reg_by_size(cpu, i->reg, i->size, d.limit);
    set_zf(cpu, visible);
    return true;
}

static MUST_CHECK bool verify(struct cpu *cpu, const struct insn *i, bool for_write)
{
    struct descriptor d;
    uint64_t selector;
    bool visible;
    if (!read_rm(cpu, i, 2, &selector) || !look_up(cpu, (uint16_t)selector, 0, &d, &visible))
        return false;
    if (visible) {
        bool code = d.attr & TYPE_CODE;
        visible = for_write ? !code && (d.attr & TYPE_WRITABLE) : !code || (d.attr & TYPE_READABLE);
    }
    set_zf(cpu, visible);
    return true;
}

OP(op_verr) { return verify(cpu, i, false); }
OP(op_verw) { return verify(cpu, i, true); }

OP(op_arpl)
{
    uint64_t selector, rpl = cpu->r[i->reg] & SELECTOR_RPL;
    if (!read_rm(cpu, i, 2, &selector))
        return false;
    bool lower = (selector & SELECTOR_RPL) < rpl;
    if (lower && !write_rm(cpu, i, 2, (selector & SELECTOR_MASK) | rpl))
        return false;
    set_zf(cpu, lower);
    return true;
}

/* ---- system calls: SDM vol. 2B SYSCALL, SYSENTER; APM vol. 3 ------------------------------------------- */

#define FLAT_CODE (SEG_G | SEG_P | SEG_S | TYPE_CODE | TYPE_READABLE | TYPE_ACCESSED)
#define FLAT_DATA (SEG_G | SEG_DB | SEG_P | SEG_S | TYPE_WRITABLE | TYPE_ACCESSED)

/* These instructions do not read descriptors: they load fixed flat segments. */
static void set_flat(struct cpu *cpu, enum seg seg, uint64_t selector, unsigned level, uint32_t attr)
{
    cpu->seg[seg] = (struct segment){ .selector = (uint16_t)((selector & SELECTOR_MASK) | level), .limit = 0xffffffff,
                                      .attr = attr | level << SEG_DPL_SHIFT };
    if (seg == CS)
        cpu->cpl = (uint8_t)level;
}

static bool syscall_exists(const struct cpu *cpu)
{
    return (cpu->msr[MSR_EFER] & EFER_SCE) && (is_64bit(cpu) || !cpu_behaves(cpu, BEHAVIOUR_SYSCALL_LONG_ONLY));
}

OP(op_syscall)
{
    uint64_t star = cpu->msr[MSR_STAR], flags = get_rflags(cpu) & ~(uint64_t)FLAG_RF, rip;
    bool is_long = is_long_active(cpu), stepping = cpu->rflags & FLAG_TF;
    if (!syscall_exists(cpu))
        return raise_exception(cpu, VEC_UD);
    if (is_long) {
        rip = cpu->msr[is_64bit(cpu) ? MSR_LSTAR : MSR_CSTAR];
        cpu->r[RCX] = insn_next_rip(cpu, i) & (is_64bit(cpu) ? ~0ull : 0xffffffff);
        cpu->r[R11] = flags;
        flags &= ~cpu->msr[MSR_FMASK];
    } else {
        rip = (uint32_t)star;
        cpu->r[RCX] = (uint32_t)insn_next_rip(cpu, i);
        flags &= ~(uint64_t)(FLAG_IF | FLAG_VM);
    }
    set_flat(cpu, CS, star >> 32, 0, FLAT_CODE | (is_long ? SEG_L : SEG_DB));
    set_flat(cpu, SS, (star >> 32) + 8, 0, FLAT_DATA);
    set_rflags(cpu, flags);
    cpu_segments_changed(cpu);
    if (stepping && !(flags & FLAG_TF))
        cpu->pending_db |= PENDING_NO_STEP;
    cpu->r[REG_RIP] = rip;
    return true;
}

OP(op_sysret)
{
    uint64_t base = cpu->msr[MSR_STAR] >> 48, rip = cpu->r[RCX];
    bool to_64 = i->size == 8, is_long = is_long_active(cpu);
    if (!syscall_exists(cpu))
        return raise_exception(cpu, VEC_UD);
    if (cpu->cpl || is_real(cpu))
        return refuse(cpu);
    if (!to_64)
        rip = (uint32_t)rip;
    else if (cpu_behaves(cpu, BEHAVIOUR_SYSRET_CHECKS_RCX) && !is_canonical(cpu, rip))
        return refuse(cpu);
    set_flat(cpu, CS, to_64 ? base + 16 : base, 3, FLAT_CODE | (to_64 ? SEG_L : SEG_DB));
    if (cpu_behaves(cpu, BEHAVIOUR_SYSRET_KEEPS_SS_CACHE))
        cpu->seg[SS].selector = (uint16_t)(((base + 8) & SELECTOR_MASK) | 3);
    else
        set_flat(cpu, SS, base + 8, 3, FLAT_DATA);
    if (is_long)
        set_rflags(cpu, cpu->r[R11] & ~(uint64_t)(FLAG_RF | FLAG_VM));
    else
        set_rflags(cpu, get_rflags(cpu) | FLAG_IF);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = rip;
    return true;
}

static MUST_CHECK bool sysenter_exists(struct cpu *cpu)
{
    if (is_long_active(cpu) && cpu_behaves(cpu, BEHAVIOUR_SYSENTER_LEGACY_ONLY))
        return raise_exception(cpu, VEC_UD);
    return (!is_real(cpu) && (cpu->msr[MSR_SYSENTER_CS] & SELECTOR_MASK)) || refuse(cpu);
}

OP(op_sysenter)
{
    uint64_t cs = cpu->msr[MSR_SYSENTER_CS];
    bool is_long = is_long_active(cpu);
    (void)i;
    if (!sysenter_exists(cpu))
        return false;
    set_rflags(cpu, get_rflags(cpu) & ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF));
    set_flat(cpu, CS, cs, 0, FLAT_CODE | (is_long ? SEG_L : SEG_DB));
    set_flat(cpu, SS, cs + 8, 0, FLAT_DATA);
    cpu_segments_changed(cpu);
    cpu->r[RSP] = is_long ? cpu->msr[MSR_SYSENTER_ESP] : (uint32_t)cpu->msr[MSR_SYSENTER_ESP];
    cpu->r[REG_RIP] = is_long ? cpu->msr[MSR_SYSENTER_EIP] : (uint32_t)cpu->msr[MSR_SYSENTER_EIP];
    return true;
}

OP(op_sysexit)
{
    uint64_t cs = cpu->msr[MSR_SYSENTER_CS], rip = cpu->r[RDX], rsp = cpu->r[RCX];
    bool to_64 = i->size == 8;
    if (!sysenter_exists(cpu))
        return false;
    if (cpu->cpl)
        return refuse(cpu);
    if (!to_64) {
        rip = (uint32_t)rip;
        rsp = (uint32_t)rsp;
    } else if (!is_canonical(cpu, rip) || !is_canonical(cpu, rsp)) {
        return refuse(cpu);
    }
    set_flat(cpu, CS, cs + (to_64 ? 32 : 16), 3, FLAT_CODE | (to_64 ? SEG_L : SEG_DB));
    set_flat(cpu, SS, cs + (to_64 ? 40 : 24), 3, FLAT_DATA);
    cpu_segments_changed(cpu);
    cpu->r[RSP] = rsp;
    cpu->r[REG_RIP] = rip;
    return true;
}

OP(op_swapgs)
{
    uint64_t base = cpu->seg[GS].base;
    (void)i;
    cpu->seg[GS].base = cpu->msr[MSR_KERNEL_GS_BASE];
    cpu->msr[MSR_KERNEL_GS_BASE] = base;
    cpu_update_view(cpu, GS);
    return true;
}

/* ---- FS and GS base in 64-bit mode ------------------------------------------------------------------------- */

static MUST_CHECK bool read_base(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    if (!(cpu->cr4 & CR4_FSGSBASE))
        return raise_exception(cpu, VEC_UD);
    set_reg_by_size(cpu, i->rm, i->size == 8 ? 8 : 4, cpu->seg[seg].base);
    return true;
}

static MUST_CHECK bool write_base(struct cpu *cpu, const struct insn *i, enum seg seg)
{
    uint64_t base = reg_by_size(cpu, i->rm, i->size == 8 ? 8 : 4);
    if (!(cpu->cr4 & CR4_FSGSBASE))
        return raise_exception(cpu, VEC_UD);
    if (!is_canonical(cpu, base))
        return refuse(cpu);
    cpu->seg[seg].base = base;
    cpu_update_view(cpu, seg);
    return true;
}

OP(op_rdfsbase) { return read_base(cpu, i, FS); }
OP(op_rdgsbase) { return read_base(cpu, i, GS); }
OP(op_wrfsbase) { return write_base(cpu, i, FS); }
OP(op_wrgsbase) { return write_base(cpu, i, GS); }

/* ---- MSRs, time, identity ------------------------------------------------------------------------------------ */

static void set_edx_eax(struct cpu *cpu, uint64_t value)
{
    cpu->r[RAX] = (uint32_t)value;
    cpu->r[RDX] = value >> 32;
}

OP(op_rdmsr)
{
    uint32_t index = (uint32_t)cpu->r[RCX];
    uint64_t value;
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_msr(cpu, i, index, false))
        return false;
    if (!read_msr(cpu, index, &value))
        return false;
    set_edx_eax(cpu, value);
    return true;
}

OP(op_wrmsr)
{
    uint32_t index = (uint32_t)cpu->r[RCX];
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_msr(cpu, i, index, true))
        return false;
    return write_msr(cpu, index, (uint32_t)cpu->r[RAX] | cpu->r[RDX] << 32);
}

static MUST_CHECK bool may_read_tsc(struct cpu *cpu, const struct insn *i)
{
    if (cpu->cpl && (cpu->cr4 & CR4_TSD))
        return refuse(cpu);
    return !in_guest(cpu) || intercept_insn(cpu, i);
}

OP(op_rdtsc)
{
    if (!may_read_tsc(cpu, i))
        return false;
    set_edx_eax(cpu, read_tsc(cpu));
    return true;
}

OP(op_rdtscp)
{
    if (!may_read_tsc(cpu, i))
        return false;
    set_edx_eax(cpu, read_tsc(cpu));
    cpu->r[RCX] = (uint32_t)cpu->msr[MSR_TSC_AUX];
    return true;
}

/* There are no performance counters: whatever index ECX names does not exist. */
OP(op_rdpmc)
{
    if (cpu->cpl && !(cpu->cr4 & CR4_PCE))
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_insn(cpu, i))
        return false;
    return refuse(cpu);
}

OP(op_cpuid)
{
    uint32_t out[4];
    (void)i;
    cpuid(cpu, (uint32_t)cpu->r[RAX], (uint32_t)cpu->r[RCX], out);
    cpu->r[RAX] = out[0];
    cpu->r[RBX] = out[1];
    cpu->r[RCX] = out[2];
    cpu->r[RDX] = out[3];
    return true;
}

/* ---- caches, TLB, waiting -------------------------------------------------------------------------------------- */

OP(op_hlt)
{
    (void)i;
    cpu->activity = ACTIVITY_HLT;
    emit(cpu, EVENT_HALT, 0, 0, 0, 0, 0);
    cpu_update_attention(cpu);
    return true;
}

OP(op_invlpg)
{
    uint64_t linear = operand_linear(cpu, i);
    if (cpu->cpl)
        return refuse(cpu);
    if (in_guest(cpu) && !intercept_invlpg(cpu, i, linear))
        return false;
    if (!is_64bit(cpu) || is_canonical(cpu, linear))
        tlb_flush_page(cpu, linear);
    return true;
}

/* There are no caches: nothing to write back or to lose. */
OP(op_invd)
{
    (void)cpu, (void)i;
    return true;
}

OP(op_wbinvd)
{
    (void)cpu, (void)i;
    return true;
}

OP(op_monitor)
{
    uint8_t byte;
    if (cpu->cpl)
        return raise_exception(cpu, VEC_UD);
    if (in_guest(cpu) && !intercept_insn(cpu, i))
        return false;
    if ((uint32_t)cpu->r[RCX])
        return refuse(cpu);
    uint64_t address = cpu->r[RAX] << i->ashift >> i->ashift;
    return read8(cpu, (enum seg)i->seg, address, &byte);
}

/* The wait may end at any time (SDM vol. 2B MWAIT): here it ends at once. */
OP(op_mwait)
{
    if (cpu->cpl)
        return raise_exception(cpu, VEC_UD);
    if (in_guest(cpu) && !intercept_insn(cpu, i))
        return false;
    return !(uint32_t)cpu->r[RCX] || refuse(cpu);
}

/* ---- flags: SDM vol. 2A CLI table, STI, POPF; vol. 3A 20.2.8 for VME and PVI --------------------------------------- */

enum if_access { IF_ALLOWED, IF_VIRTUAL /* VIF stands for IF */, IF_REFUSED };

static enum if_access interrupt_flag_access(const struct cpu *cpu)
{
    if (is_real(cpu) || cpu->cpl <= iopl(cpu))
        return IF_ALLOWED;
    bool is_virtual = is_vm86(cpu) ? cpu->cr4 & CR4_VME : cpu->cpl == 3 && (cpu->cr4 & CR4_PVI);
    return is_virtual ? IF_VIRTUAL : IF_REFUSED;
}

OP(op_cli)
{
    (void)i;
    enum if_access access = interrupt_flag_access(cpu);
    if (access == IF_REFUSED)
        return refuse(cpu);
    cpu->rflags &= ~(uint64_t)(access == IF_ALLOWED ? FLAG_IF : FLAG_VIF);
    cpu_update_attention(cpu);
    return true;
}

OP(op_sti)
{
    (void)i;
    enum if_access access = interrupt_flag_access(cpu);
    if (access == IF_REFUSED || (access == IF_VIRTUAL && (cpu->rflags & FLAG_VIP)))
        return refuse(cpu);
    if (access == IF_ALLOWED && !(cpu->rflags & FLAG_IF) && !(cpu->interruptibility & (BLOCK_STI | BLOCK_MOV_SS)))
        cpu->interruptibility |= BLOCK_STI;
    cpu->rflags |= access == IF_ALLOWED ? FLAG_IF : FLAG_VIF;
    cpu_update_attention(cpu);
    return true;
}

/* PUSHF and POPF in vm86 below IOPL 3: 16 bits go on with VME, anything else is for the monitor. */
static bool vm86_flags_refused(const struct cpu *cpu, const struct insn *i)
{
    return is_vm86(cpu) && iopl(cpu) < 3 && !((cpu->cr4 & CR4_VME) && i->size == 2);
}

OP(op_pushf)
{
    uint64_t image = get_rflags(cpu) & ~(uint64_t)(FLAG_VM | FLAG_RF), rsp = (cpu->r[RSP] - i->size) & cpu->stack_mask;
    if (vm86_flags_refused(cpu, i))
        return refuse(cpu);
    if (is_vm86(cpu) && iopl(cpu) < 3)
        image = (image & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (image & FLAG_VIF ? FLAG_IF : 0);
    if (!write_by_size(cpu, SS, rsp, i->size, image))
        return false;
    set_stack_pointer(cpu, rsp);
    return true;
}

OP(op_popf)
{
    uint64_t image, mask = flags_writable(cpu, i->size) & ~(uint64_t)FLAG_RF;
    if (vm86_flags_refused(cpu, i))
        return refuse(cpu);
    if (!read_by_size(cpu, SS, stack_pointer(cpu), i->size, &image))
        return false;
    if (is_vm86(cpu) && iopl(cpu) < 3) {
        if ((image & FLAG_TF) || ((image & FLAG_IF) && (cpu->rflags & FLAG_VIP)))
            return refuse(cpu);
        mask |= FLAG_VIF;
        image = (image & 0xffff) | (image & FLAG_IF ? FLAG_VIF : 0);
    }
    set_stack_pointer(cpu, cpu->r[RSP] + i->size);
    set_rflags(cpu, (get_rflags(cpu) & ~(mask | FLAG_RF)) | (image & mask));
    return true;
}

static MUST_CHECK bool set_ac(struct cpu *cpu, uint64_t ac)
{
    if (cpu->cpl)
        return raise_exception(cpu, VEC_UD);
    set_rflags(cpu, (get_rflags(cpu) & ~(uint64_t)FLAG_AC) | ac);
    return true;
}

OP(op_clac)
{
    (void)i;
    return set_ac(cpu, 0);
}

OP(op_stac)
{
    (void)i;
    return set_ac(cpu, FLAG_AC);
}

/* ---- ports: SDM vol. 1 ch. 19 ---------------------------------------------------------------------------------------- */

static MUST_CHECK bool port_operand(struct cpu *cpu, const struct insn *i, uint16_t port, bool is_in)
{
    unsigned size = i->size == 8 ? 4 : i->size;
    uint64_t value = reg_by_size(cpu, RAX, size);
    if (!io_allowed(cpu, port, size))
        return false;
    if (in_guest(cpu) && !intercept_io(cpu, i, port, size, is_in, false, 0))
        return false;
    if (!port_access(cpu, port, size, !is_in, &value))
        return false;
    debug_port_access(cpu, port, size);
    if (is_in)
        set_reg_by_size(cpu, RAX, size, value);
    return true;
}

OP(op_in_Ib) { return port_operand(cpu, i, (uint8_t)i->imm, true); }
OP(op_in_DX) { return port_operand(cpu, i, (uint16_t)cpu->r[RDX], true); }
OP(op_out_Ib) { return port_operand(cpu, i, (uint8_t)i->imm, false); }
OP(op_out_DX) { return port_operand(cpu, i, (uint16_t)cpu->r[RDX], false); }

/* ---- the coprocessor that is not there -------------------------------------------------------------------------------- */

/* An escape to the x87: #NM lets an emulator take over when CR0.EM or TS asks for it. */
OP(op_escape)
{
    (void)i;
    return raise_exception(cpu, cpu->cr0 & (CR0_EM | CR0_TS) ? VEC_NM : VEC_UD);
}

OP(op_wait)
{
    (void)i;
    uint64_t both = CR0_MP | CR0_TS;
    return (cpu->cr0 & both) != both || raise_exception(cpu, VEC_NM);
}
