/* Does this exit? The one place that answers, for every class of instruction and event, on both vendors.
 *
 * SDM vol. 3C, "VMX Non-Root Operation"; APM vol. 2, 15.7 to 15.13. Each function returns true when the guest goes on,
 * false when it has taken the exit. The instructions' rows name a class (intercept.def); those whose exit depends on an
 * operand ask for themselves. By then #UD and privilege have been checked, and nothing is committed. */
#include "access.h"
#include "virt.h"

#define PRIMARY(cpu) ((uint32_t)VMCS(cpu, primary_proc_based_controls))
#define PIN(cpu) ((uint32_t)VMCS(cpu, pin_based_controls))

static bool in_vmx_guest(const struct cpu *cpu) { return cpu->world == WORLD_VMX_GUEST; }
static bool in_svm_guest(const struct cpu *cpu) { return cpu->world == WORLD_SVM_GUEST; }
static uint32_t secondary(const struct cpu *cpu)
{
    return PRIMARY(cpu) & VMX_PRI_ACTIVATE_SECONDARY_CONTROLS ? (uint32_t)VMCS(cpu, secondary_proc_based_controls) : 0;
}

bool svm_intercepted(const struct cpu *cpu, unsigned bit) { return cpu->svm.intercepts[bit / 64] >> bit % 64 & 1; }

static bool svm_may_exit(struct cpu *cpu, unsigned code, uint64_t info1, uint64_t info2)
{
    return !svm_intercepted(cpu, code) || svm_exit(cpu, code, info1, info2);
}

/* Where no memory is, a map reads as ones: everything exits. */
static bool map_bit(const struct cpu *cpu, uint64_t map, uint32_t bit)
{
    uint8_t byte = 0xff;
    space_read(cpu->space, map + bit / 8, &byte, 1);
    return byte >> bit % 8 & 1;
}

/* ---- classes without an operand -------------------------------------------------------------- */

enum condition { NEVER, ALWAYS, PRIMARY_BIT, SECONDARY_BIT };
static const struct vmx_class { uint8_t when, reason; uint32_t bit; } vmx_classes[NR_INTERCEPTS] = {
    [INTERCEPT_HLT] = { PRIMARY_BIT, EXIT_REASON_HLT, VMX_PRI_HLT_EXITING },
    [INTERCEPT_CPUID] = { ALWAYS, EXIT_REASON_CPUID, 0 },
    [INTERCEPT_INVD] = { ALWAYS, EXIT_REASON_INVD, 0 },
    [INTERCEPT_WBINVD] = { SECONDARY_BIT, EXIT_REASON_WBINVD, VMX_SEC_WBINVD_EXITING },
    [INTERCEPT_RDTSC] = { PRIMARY_BIT, EXIT_REASON_RDTSC, VMX_PRI_RDTSC_EXITING },
    [INTERCEPT_RDTSCP] = { PRIMARY_BIT, EXIT_REASON_RDTSCP, VMX_PRI_RDTSC_EXITING },
    [INTERCEPT_RDPMC] = { PRIMARY_BIT, EXIT_REASON_RDPMC, VMX_PRI_RDPMC_EXITING },
    [INTERCEPT_MONITOR] = { PRIMARY_BIT, EXIT_REASON_MONITOR, VMX_PRI_MONITOR_EXITING },
    [INTERCEPT_MWAIT] = { PRIMARY_BIT, EXIT_REASON_MWAIT, VMX_PRI_MWAIT_EXITING },
    [INTERCEPT_PAUSE] = { PRIMARY_BIT, EXIT_REASON_PAUSE, VMX_PRI_PAUSE_EXITING },
    [INTERCEPT_RSM] = { ALWAYS, EXIT_REASON_RSM, 0 },
    [INTERCEPT_GETSEC] = { ALWAYS, EXIT_REASON_GETSEC, 0 },
    [INTERCEPT_XSETBV] = { ALWAYS, EXIT_REASON_XSETBV, 0 },
    [INTERCEPT_GDTR_IDTR] = { SECONDARY_BIT, EXIT_REASON_GDTR_IDTR_ACCESS, VMX_SEC_DESCRIPTOR_TABLE_EXITING },
    [INTERCEPT_LDTR_TR] = { SECONDARY_BIT, EXIT_REASON_LDTR_TR_ACCESS, VMX_SEC_DESCRIPTOR_TABLE_EXITING },
};

static bool vmx_intercept_insn(struct cpu *cpu, const struct insn *i)
{
    unsigned class = insn_rows[i->row].vmx;
    const struct vmx_class *c = &vmx_classes[class];
    if (class == INTERCEPT_RDTSCP && !(secondary(cpu) & VMX_SEC_ENABLE_RDTSCP))
        return raise_exception(cpu, VEC_UD); /* SDM vol. 3C, "RDTSCP" under "Changes to instruction behavior" */
    bool exits = c->when == ALWAYS || (c->when == PRIMARY_BIT && (PRIMARY(cpu) & c->bit)) ||
                 (c->when == SECONDARY_BIT && (secondary(cpu) & c->bit));
    if (!exits)
        return true;
    if (class != INTERCEPT_GDTR_IDTR && class != INTERCEPT_LDTR_TR)
        return vmx_exit(cpu, c->reason, 0);
    vmcs_set(cpu, FIELD_exit_instruction_info, vmx_instruction_info(i));
    return vmx_exit(cpu, c->reason, (uint64_t)i->disp + (i->base == REG_RIP ? cpu->r[REG_RIP] : 0));
}

static const uint8_t svm_classes[NR_INTERCEPTS] = {
    /* exit code; 0: no class of its own */
    [INTERCEPT_HLT] = SVM_EXIT_HLT,         [INTERCEPT_CPUID] = SVM_EXIT_CPUID,
    [INTERCEPT_INVLPGA] = SVM_EXIT_INVLPGA, [INTERCEPT_INVD] = SVM_EXIT_INVD,
    [INTERCEPT_WBINVD] = SVM_EXIT_WBINVD,   [INTERCEPT_RDTSC] = SVM_EXIT_RDTSC,
    [INTERCEPT_RDTSCP] = SVM_EXIT_RDTSCP,   [INTERCEPT_RDPMC] = SVM_EXIT_RDPMC,
    [INTERCEPT_MONITOR] = SVM_EXIT_MONITOR, [INTERCEPT_MWAIT] = SVM_EXIT_MWAIT,
    [INTERCEPT_PAUSE] = SVM_EXIT_PAUSE,     [INTERCEPT_RSM] = SVM_EXIT_RSM,
    [INTERCEPT_PUSHF] = SVM_EXIT_PUSHF,     [INTERCEPT_POPF] = SVM_EXIT_POPF,
    [INTERCEPT_IRET] = SVM_EXIT_IRET,       [INTERCEPT_SWINT] = SVM_EXIT_SOFTINT,
    [INTERCEPT_ICEBP] = SVM_EXIT_ICEBP,     [INTERCEPT_VMRUN] = SVM_EXIT_VMRUN,
    [INTERCEPT_VMMCALL] = SVM_EXIT_VMMCALL, [INTERCEPT_VMLOAD] = SVM_EXIT_VMLOAD,
    [INTERCEPT_VMSAVE] = SVM_EXIT_VMSAVE,   [INTERCEPT_STGI] = SVM_EXIT_STGI,
    [INTERCEPT_CLGI] = SVM_EXIT_CLGI,       [INTERCEPT_SKINIT] = SVM_EXIT_SKINIT,
    [INTERCEPT_XSETBV] = SVM_EXIT_XSETBV,
};

/* SGDT SIDT SLDT STR and LGDT LIDT LLDT LTR have a bit each: the mnemonic says which. */
static unsigned descriptor_table_code(const char *mnemonic)
{
    unsigned table = mnemonic[1] == 'i' ? 0 : mnemonic[1] == 'g' ? 1 : mnemonic[1] == 'l' ? 2 : 3;
    return (mnemonic[0] == 's' ? SVM_EXIT_IDTR_READ : SVM_EXIT_IDTR_WRITE) + table;
}

static bool svm_intercept_insn(struct cpu *cpu, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    switch (row->svm) {
    case INTERCEPT_CR: /* SMSW; the others ask with their operand */
        return svm_may_exit(cpu, SVM_EXIT_CR0_READ, 0, 0);
    case INTERCEPT_GDTR_IDTR:
    case INTERCEPT_LDTR_TR:
        return svm_may_exit(cpu, descriptor_table_code(row->mnemonic), 0, 0);
    default:
        return !svm_classes[row->svm] || svm_may_exit(cpu, svm_classes[row->svm], 0, 0);
    }
}

bool intercept_insn(struct cpu *cpu, const struct insn *i)
{
    if (in_vmx_guest(cpu))
        return vmx_intercept_insn(cpu, i);
    return !in_svm_guest(cpu) || svm_intercept_insn(cpu, i);
}

/* ---- I/O ------------------------------------------------------------------------------------- */

static bool has_immediate(const struct insn *i)
{
    for (const char *c = insn_rows[i->row].encoding; *c; c++)
        if (c[0] == 'i' && c[1] == 'b')
            return true;
    return false;
}
static unsigned address_bytes(const struct insn *i) { return i->ashift == 0 ? 8 : i->ashift == 32 ? 4 : 2; }

static bool vmx_io_exits(const struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!(PRIMARY(cpu) & VMX_PRI_USE_IO_BITMAPS))
        return PRIMARY(cpu) & VMX_PRI_UNCONDITIONAL_IO_EXITING;
    for (unsigned n = 0; n < size; n++) {
        uint32_t p = port + n;
        if (p > 0xffff || map_bit(cpu, p < 0x8000 ? VMCS(cpu, io_bitmap_a) : VMCS(cpu, io_bitmap_b), p & 0x7fff))
            return true;
    }
    return false;
}

static bool vmx_intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string,
                             uint64_t linear)
{
    if (!vmx_io_exits(cpu, port, size))
        return true;
    if (string) {
        unsigned address_size = address_bytes(i) == 8 ? 2 : address_bytes(i) == 4 ? 1 : 0;
        vmcs_set(cpu, FIELD_guest_linear_address, linear);
        vmcs_set(cpu, FIELD_exit_instruction_info, address_size << 7 | (in ? ES : (uint32_t)i->seg) << 15);
    }
    return vmx_exit(cpu, EXIT_REASON_IO_INSTRUCTION,
                    (size - 1) | (uint64_t)in << 3 | (uint64_t)string << 4 | (uint64_t)(string && i->rep) << 5 |
                        (uint64_t)has_immediate(i) << 6 | (uint64_t)port << 16);
}

static bool svm_intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string)
{
    bool exits = false;
    if (!svm_intercepted(cpu, SVM_EXIT_IO))
        return true;
    for (unsigned n = 0; n < size; n++)
        exits |= map_bit(cpu, cpu->svm.iopm, port + n); /* the map goes on three bits behind port FFFFh */
    if (!exits)
        return true;
    uint32_t segment = cpu_has(cpu, FEATURE_DECODE_ASSISTS) && string ? (in ? ES : (uint32_t)i->seg) << 10 : 0;
    uint32_t info = in | (uint32_t)string << 2 | (uint32_t)(string && i->rep) << 3 | size << 4 |
                    (address_bytes(i) / 2) << 7 | segment | (uint32_t)port << 16;
    uint64_t next = cpu->current ? insn_next_rip(cpu, i) : cpu->r[REG_RIP] + i->len;
    return svm_exit(cpu, SVM_EXIT_IO, info, is_64bit(cpu) ? next : next & 0xffffffffu);
}

bool intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string,
                  uint64_t linear)
{
    if (in_vmx_guest(cpu))
        return vmx_intercept_io(cpu, i, port, size, in, string, linear);
    return !in_svm_guest(cpu) || svm_intercept_io(cpu, i, port, size, in, string);
}

/* ---- MSRs ------------------------------------------------------------------------------------ */

static bool vmx_msr_exits(const struct cpu *cpu, uint32_t index, bool is_write)
{
    uint32_t quarter = is_write ? 0x800 : 0;
    if (!(PRIMARY(cpu) & VMX_PRI_USE_MSR_BITMAPS))
        return true;
    if (index >= 0xc0000000)
        quarter += 0x400;
    uint32_t bit = index & 0x1fff;
    if ((index & ~0x1fffu) != 0 && (index & ~0x1fffu) != 0xc0000000)
        return true;
    return map_bit(cpu, VMCS(cpu, msr_bitmaps) + quarter, bit);
}

static bool svm_msr_exits(const struct cpu *cpu, uint32_t index, bool is_write)
{
    static const uint32_t base[] = { 0, 0xc0000000, 0xc0010000 };
    for (unsigned range = 0; range < 3; range++)
        if ((index & ~0x1fffu) == base[range])
            return map_bit(cpu, cpu->svm.msrpm + range * 0x800, (index & 0x1fff) * 2 + is_write);
    return true;
}

bool intercept_msr(struct cpu *cpu, const struct insn *i, uint32_t index, bool is_write)
{
    (void)i;
    if (in_vmx_guest(cpu))
        return !vmx_msr_exits(cpu, index, is_write) ||
               vmx_exit(cpu, is_write ? EXIT_REASON_WRMSR : EXIT_REASON_RDMSR, 0);
    if (!in_svm_guest(cpu) || !svm_intercepted(cpu, SVM_EXIT_MSR) || !svm_msr_exits(cpu, index, is_write))
        return true;
    return svm_exit(cpu, SVM_EXIT_MSR, is_write, 0);
}

/* ---- control registers ----------------------------------------------------------------------- */

enum cr_access { CR_WRITE, CR_READ, CR_CLTS, CR_LMSW };

static bool vmx_cr_exit(struct cpu *cpu, enum cr_access access, unsigned cr, unsigned gpr, uint64_t more)
{
    return vmx_exit(cpu, EXIT_REASON_CR_ACCESS, cr | (uint64_t)access << 4 | (uint64_t)gpr << 8 | more);
}

static uint64_t decode_assist(const struct cpu *cpu, unsigned gpr, bool is_mov)
{
    return cpu_has(cpu, FEATURE_DECODE_ASSISTS) ? gpr | (uint64_t)is_mov << 63 : 0;
}

static bool is_cr3_target(const struct cpu *cpu, uint64_t value)
{
    for (unsigned n = 0; n < VMCS(cpu, cr3_target_count); n++)
        if (cpu->vmx.field[FIELD_cr3_target0 + n] == value)
            return true;
    return false;
}

static bool vmx_cr_write_exits(const struct cpu *cpu, unsigned cr, uint64_t value)
{
    switch (cr) {
    case 0: return (value ^ VMCS(cpu, cr0_read_shadow)) & VMCS(cpu, cr0_guest_host_mask);
    case 4: return (value ^ VMCS(cpu, cr4_read_shadow)) & VMCS(cpu, cr4_guest_host_mask);
    case 3: return (PRIMARY(cpu) & VMX_PRI_CR3_LOAD_EXITING) && !is_cr3_target(cpu, value);
    case 8: return PRIMARY(cpu) & VMX_PRI_CR8_LOAD_EXITING;
    default: return false;
    }
}

/* A write of CR0 that changes more than TS and MP. */
static bool is_selective(const struct cpu *cpu, uint64_t value)
{
    return (value ^ cpu->cr0) & ~(uint64_t)(CR0_TS | CR0_MP);
}

bool intercept_cr_write(struct cpu *cpu, const struct insn *i, unsigned cr, uint64_t value, unsigned gpr)
{
    (void)i;
    if (in_vmx_guest(cpu))
        return !vmx_cr_write_exits(cpu, cr, value) || vmx_cr_exit(cpu, CR_WRITE, cr, gpr, 0);
    if (!in_svm_guest(cpu))
        return true;
    if (svm_intercepted(cpu, SVM_EXIT_CR0_WRITE + cr))
        return svm_exit(cpu, SVM_EXIT_CR0_WRITE + cr, decode_assist(cpu, gpr, true), 0);
    if (cr == 0 && is_selective(cpu, value) && svm_intercepted(cpu, SVM_EXIT_CR0_SEL_WRITE))
        return svm_exit(cpu, SVM_EXIT_CR0_SEL_WRITE, decode_assist(cpu, gpr, true), 0);
    if (cr == 8 && cpu->svm.v_intr_masking) {
        cpu->svm.v_tpr = value & 15;
        cpu_update_attention(cpu);
    }
    return true;
}

bool intercept_cr_read(struct cpu *cpu, const struct insn *i, unsigned cr, unsigned gpr)
{
    (void)i;
    if (in_vmx_guest(cpu)) {
        bool exits = (cr == 3 && (PRIMARY(cpu) & VMX_PRI_CR3_STORE_EXITING)) ||
                     (cr == 8 && (PRIMARY(cpu) & VMX_PRI_CR8_STORE_EXITING));
        return !exits || vmx_cr_exit(cpu, CR_READ, cr, gpr, 0);
    }
    return !in_svm_guest(cpu) || svm_may_exit(cpu, SVM_EXIT_CR0_READ + cr, decode_assist(cpu, gpr, true), 0);
}

bool intercept_clts(struct cpu *cpu, const struct insn *i)
{
    (void)i;
    if (in_vmx_guest(cpu)) {
        bool exits = VMCS(cpu, cr0_guest_host_mask) & VMCS(cpu, cr0_read_shadow) & CR0_TS;
        return !exits || vmx_cr_exit(cpu, CR_CLTS, 0, 0, 0);
    }
    return !in_svm_guest(cpu) || svm_may_exit(cpu, SVM_EXIT_CR0_WRITE, 0, 0);
}

/* LMSW writes PE, MP, EM, TS, and cannot clear PE. */
static bool vmx_lmsw_exits(const struct cpu *cpu, uint16_t value)
{
    uint64_t mask = VMCS(cpu, cr0_guest_host_mask), shadow = VMCS(cpu, cr0_read_shadow);
    return (mask & value & ~shadow & CR0_PE) || ((value ^ shadow) & mask & (CR0_MP | CR0_EM | CR0_TS));
}

bool intercept_lmsw(struct cpu *cpu, const struct insn *i, uint16_t value, bool memory, uint64_t linear)
{
    (void)i;
    if (in_vmx_guest(cpu)) {
        if (!vmx_lmsw_exits(cpu, value))
            return true;
        if (memory)
            vmcs_set(cpu, FIELD_guest_linear_address, linear);
        return vmx_cr_exit(cpu, CR_LMSW, 0, 0, (uint64_t)memory << 6 | (uint64_t)value << 16);
    }
    if (!in_svm_guest(cpu))
        return true;
    uint64_t cr0 = (cpu->cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (value & (CR0_PE | CR0_MP | CR0_EM | CR0_TS));
    if (svm_intercepted(cpu, SVM_EXIT_CR0_WRITE))
        return svm_exit(cpu, SVM_EXIT_CR0_WRITE, 0, 0);
    return !is_selective(cpu, cr0) || svm_may_exit(cpu, SVM_EXIT_CR0_SEL_WRITE, 0, 0);
}

/* VMX operation holds these bits of CR0 at 1 (SDM vol. 3C 23.8); an unrestricted guest may clear PE and PG. */
uint64_t vmx_cr0_required(const struct cpu *cpu)
{
    if (!cpu->vmx.on)
        return 0;
    bool unrestricted = in_vmx_guest(cpu) && (secondary(cpu) & VMX_SEC_UNRESTRICTED_GUEST);
    return unrestricted ? CR0_NE : CR0_PE | CR0_NE | CR0_PG;
}

uint64_t guest_cr_read(const struct cpu *cpu, unsigned cr)
{
    switch (cr) {
    case 0:
        if (in_vmx_guest(cpu))
            return (cpu->cr0 & ~VMCS(cpu, cr0_guest_host_mask)) |
                   (VMCS(cpu, cr0_read_shadow) & VMCS(cpu, cr0_guest_host_mask));
        return cpu->cr0;
    case 2: return cpu->cr2;
    case 3: return cpu->cr3;
    case 4:
        if (in_vmx_guest(cpu))
            return (cpu->cr4 & ~VMCS(cpu, cr4_guest_host_mask)) |
                   (VMCS(cpu, cr4_read_shadow) & VMCS(cpu, cr4_guest_host_mask));
        return cpu->cr4;
    default: return in_svm_guest(cpu) && cpu->svm.v_intr_masking ? cpu->svm.v_tpr & 15u : cpu->cr8;
    }
}

uint64_t guest_cr_write(const struct cpu *cpu, unsigned cr, uint64_t value)
{
    if (in_svm_guest(cpu) && cr == 8 && cpu->svm.v_intr_masking)
        return cpu->cr8; /* the guest has its V_TPR */
    if (!in_vmx_guest(cpu) || (cr != 0 && cr != 4))
        return value;
    uint64_t mask = cr == 0 ? VMCS(cpu, cr0_guest_host_mask) : VMCS(cpu, cr4_guest_host_mask);
    return (value & ~mask) | ((cr == 0 ? cpu->cr0 : cpu->cr4) & mask);
}

/* ---- debug registers, INVLPG ----------------------------------------------------------------- */

bool intercept_dr(struct cpu *cpu, const struct insn *i, unsigned dr, bool read, unsigned gpr)
{
    (void)i;
    if (in_vmx_guest(cpu)) {
        if (!(PRIMARY(cpu) & VMX_PRI_MOV_DR_EXITING))
            return true;
        return vmx_exit(cpu, EXIT_REASON_DR_ACCESS, dr | (uint64_t)read << 4 | (uint64_t)gpr << 8);
    }
    return !in_svm_guest(cpu) ||
           svm_may_exit(cpu, (read ? SVM_EXIT_DR0_READ : SVM_EXIT_DR0_WRITE) + dr, decode_assist(cpu, gpr, false), 0);
}

bool intercept_invlpg(struct cpu *cpu, const struct insn *i, uint64_t linear)
{
    (void)i;
    if (in_vmx_guest(cpu))
        return !(PRIMARY(cpu) & VMX_PRI_INVLPG_EXITING) || vmx_exit(cpu, EXIT_REASON_INVLPG, linear);
    return !in_svm_guest(cpu) ||
           svm_may_exit(cpu, SVM_EXIT_INVLPG, cpu_has(cpu, FEATURE_DECODE_ASSISTS) ? linear : 0, 0);
}

/* ---- exceptions, triple fault, task switch --------------------------------------------------- */

static bool is_exception(const struct fault *fault)
{
    return fault->type == TYPE_HARDWARE_EXCEPTION || fault->type == TYPE_SOFTWARE_EXCEPTION ||
           fault->type == TYPE_PRIVILEGED_SOFTWARE_EXCEPTION;
}

/* For #PF bit 14 says exit or do not when (error & mask) == match, and the contrary otherwise. */
static bool vmx_exception_exits(const struct cpu *cpu, const struct fault *fault)
{
    bool selected = VMCS(cpu, exception_bitmap) >> fault->vector & 1;
    if (fault->vector != VEC_PF)
        return selected;
    bool matches = (fault->error & VMCS(cpu, page_fault_error_code_mask)) == VMCS(cpu, page_fault_error_code_match);
    return matches == selected;
}

bool intercept_exception(struct cpu *cpu, const struct fault *fault)
{
    bool has_address = fault->vector == VEC_PF || fault->vector == VEC_DB;
    if (cpu->world == WORLD_PLAIN || !is_exception(fault) || fault->vector > 31)
        return true;
    if (in_vmx_guest(cpu)) {
        const struct vmx_event event = { .info = fault->vector | (uint32_t)fault->type << 8 | EVENT_VALID |
                                                 (fault->has_error ? EVENT_HAS_ERROR : 0u),
                                         .error = fault->error, .length = fault->length };
        return !vmx_exception_exits(cpu, fault) ||
               vmx_exit_event(cpu, EXIT_REASON_EXCEPTION_OR_NMI, has_address ? fault->address : 0, &event);
    }
    if (!svm_intercepted(cpu, SVM_EXIT_EXCEPTION + fault->vector))
        return true;
    if (fault->vector == VEC_DB) { /* unlike VMX, which leaves both: APM vol. 2, 15.12.2 */
        cpu->dr[6] = (cpu->dr[6] & ~15ull) | (uint32_t)fault->address;
        cpu->dr[7] &= ~(uint64_t)DR7_GD;
    }
    return svm_exit(cpu, SVM_EXIT_EXCEPTION + fault->vector, fault->has_error ? fault->error : 0,
                    fault->vector == VEC_PF ? fault->address : 0);
}

bool intercept_triple_fault(struct cpu *cpu)
{
    if (in_vmx_guest(cpu))
        return vmx_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0);
    return !in_svm_guest(cpu) || svm_may_exit(cpu, SVM_EXIT_SHUTDOWN, 0, 0);
}

bool intercept_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, bool has_error, uint32_t error)
{
    if (in_vmx_guest(cpu))
        return vmx_exit(cpu, EXIT_REASON_TASK_SWITCH, selector | (uint64_t)source << 30);
    if (!in_svm_guest(cpu))
        return true;
    uint64_t info2 = (uint64_t)(source == TASK_IRET) << 36 | (uint64_t)(source == TASK_JMP) << 38 |
                     (uint64_t)has_error << 44 | (has_error ? error : 0);
    return svm_may_exit(cpu, SVM_EXIT_TASK_SWITCH, selector, info2);
}

/* ---- instruction borders --------------------------------------------------------------------- */

static bool shadowed(const struct cpu *cpu) { return cpu->interruptibility & (BLOCK_STI | BLOCK_MOV_SS); }

bool interrupts_unmasked(const struct cpu *cpu)
{
    bool flag = in_svm_guest(cpu) && cpu->svm.v_intr_masking ? cpu->svm.host_if : (cpu->rflags & FLAG_IF) != 0;
    return flag && !shadowed(cpu) && cpu->svm.gif;
}
bool nmi_unmasked(const struct cpu *cpu)
{
    return !(cpu->interruptibility & (BLOCK_NMI | BLOCK_MOV_SS)) && cpu->svm.gif;
}

static bool vmx_window_open(const struct cpu *cpu)
{
    return (PRIMARY(cpu) & VMX_PRI_INTERRUPT_WINDOW_EXITING) && (cpu->rflags & FLAG_IF) && !shadowed(cpu);
}
static bool vmx_nmi_window_open(const struct cpu *cpu)
{
    return (PRIMARY(cpu) & VMX_PRI_NMI_WINDOW_EXITING) &&
           !(cpu->interruptibility & (BLOCK_NMI | BLOCK_MOV_SS | BLOCK_STI));
}
static bool vmx_nmi_exits(const struct cpu *cpu)
{
    uint8_t blocking = PIN(cpu) & VMX_PIN_VIRTUAL_NMIS ? 0 : BLOCK_NMI;
    return cpu->nmi && (PIN(cpu) & VMX_PIN_NMI_EXITING) && !(cpu->interruptibility & (blocking | BLOCK_MOV_SS));
}
/* The guest's IF has no say. */
static bool vmx_interrupt_exits(const struct cpu *cpu)
{
    return cpu->intr && (PIN(cpu) & VMX_PIN_EXTERNAL_INTERRUPT_EXITING) && !shadowed(cpu);
}
/* Taken when IF = 1, there is no shadow and its priority is above the TPR. */
static bool svm_virtual_interrupt(const struct cpu *cpu)
{
    const struct svm_state *svm = &cpu->svm;
    return svm->v_irq && (cpu->rflags & FLAG_IF) && !shadowed(cpu) && svm->gif &&
           (svm->v_ign_tpr || svm->v_prio > (svm->v_tpr & 15));
}

bool intercept_attention(const struct cpu *cpu)
{
    if (in_vmx_guest(cpu))
        return vmx_window_open(cpu) || vmx_nmi_window_open(cpu) || vmx_nmi_exits(cpu) || vmx_interrupt_exits(cpu);
    return in_svm_guest(cpu) && (svm_virtual_interrupt(cpu) || (cpu->intr && interrupts_unmasked(cpu)));
}

/* What INTA yields; without an interrupt controller the pin falls with it. */
uint8_t acknowledge_interrupt(struct cpu *cpu)
{
    if (cpu->acknowledge)
        return cpu->acknowledge(cpu->acknowledge_context);
    cpu->intr = 0;
    return cpu->intr_vector;
}

/* SDM vol. 3C, "Priority Among Concurrent Events": windows stand before the event they wait for. */
static bool vmx_intercept_event(struct cpu *cpu)
{
    if (cpu->init) {
        cpu->init = 0;
        return vmx_exit(cpu, EXIT_REASON_INIT_SIGNAL, 0);
    }
    if (vmx_nmi_window_open(cpu))
        return vmx_exit(cpu, EXIT_REASON_NMI_WINDOW, 0);
    if (vmx_nmi_exits(cpu)) {
        const struct vmx_event nmi = { .info = VEC_NMI | TYPE_NMI << 8 | EVENT_VALID };
        cpu->nmi = 0;
        return vmx_exit_event(cpu, EXIT_REASON_EXCEPTION_OR_NMI, 0, &nmi);
    }
    if (vmx_window_open(cpu))
        return vmx_exit(cpu, EXIT_REASON_INTERRUPT_WINDOW, 0);
    if (!vmx_interrupt_exits(cpu))
        return true;
    struct vmx_event interrupt = { 0 };
    if (VMCS(cpu, vm_exit_controls) & VMX_EXIT_ACKNOWLEDGE_INTERRUPT_ON_EXIT)
        interrupt.info = acknowledge_interrupt(cpu) | TYPE_EXTERNAL << 8 | EVENT_VALID;
    return vmx_exit_event(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, 0, &interrupt);
}

/* Intercepted pins stay pending: the host takes them after STGI. */
static bool svm_intercept_event(struct cpu *cpu)
{
    if (cpu->init && svm_intercepted(cpu, SVM_EXIT_INIT))
        return svm_exit(cpu, SVM_EXIT_INIT, 0, 0);
    if (cpu->nmi && nmi_unmasked(cpu) && svm_intercepted(cpu, SVM_EXIT_NMI))
        return svm_exit(cpu, SVM_EXIT_NMI, 0, 0);
    if (cpu->intr && interrupts_unmasked(cpu) && svm_intercepted(cpu, SVM_EXIT_INTR))
        return svm_exit(cpu, SVM_EXIT_INTR, 0, 0);
    if (!svm_virtual_interrupt(cpu))
        return true;
    if (svm_intercepted(cpu, SVM_EXIT_VINTR))
        return svm_exit(cpu, SVM_EXIT_VINTR, 0, 0);
    const struct fault event = { .vector = cpu->svm.v_vector, .type = TYPE_EXTERNAL };
    cpu->svm.v_irq = 0;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->work++;
    return deliver_event(cpu, &event);
}

bool intercept_event(struct cpu *cpu)
{
    return in_vmx_guest(cpu) ? vmx_intercept_event(cpu) : !in_svm_guest(cpu) || svm_intercept_event(cpu);
}

uint64_t guest_tsc_offset(const struct cpu *cpu)
{
    if (in_vmx_guest(cpu))
        return PRIMARY(cpu) & VMX_PRI_USE_TSC_OFFSETTING ? VMCS(cpu, tsc_offset) : 0;
    return in_svm_guest(cpu) ? cpu->svm.tsc_offset : 0;
}
