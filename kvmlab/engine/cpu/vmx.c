/* VMX: the life of a guest on Intel's processors, and the instructions that lead it.
 *
 * SDM vol. 3C: "Introduction to VMX", "VM Entries", "VM Exits", "VMX Instruction Reference". vmx_enter goes
 * through the steps of the chapter in its order and tells each as an event; vmx_check.c has the rules, vmcs.c the
 * fields, vmx_control.c what may be asked for, intercept.c what exits. vmx_exit is the one way out. */
#include <string.h>

#include "access.h"
#include "flags.h"
#include "virt.h"

/* ---- how an instruction ends: SDM vol. 3C, "Conventions" ------------------------------------- */

static enum vmx_result vm_succeed(struct cpu *cpu)
{
    set_status_flags(cpu, 0);
    return VMX_SUCCEED;
}

static enum vmx_result vm_fail_invalid(struct cpu *cpu)
{
    set_status_flags(cpu, FLAG_CF);
    return VMX_FAIL_INVALID;
}

static enum vmx_result vm_fail(struct cpu *cpu, enum vmx_error error)
{
    if (!cpu->vmx.current_valid)
        return vm_fail_invalid(cpu);
    vmcs_set(cpu, FIELD_vm_instruction_error, error);
    set_status_flags(cpu, FLAG_ZF);
    return VMX_FAIL_VALID;
}

/* #UD and #GP of every VMX instruction in root operation but VMXON. */
static bool in_root(struct cpu *cpu)
{
    bool compatibility = is_long_active(cpu) && !is_64bit(cpu);
    if (!cpu->vmx.on || !is_protected(cpu) || compatibility)
        return raise_exception(cpu, VEC_UD);
    return cpu->cpl == 0 || raise_error(cpu, VEC_GP, 0);
}

static bool is_region_address(const struct cpu *cpu, uint64_t pa)
{
    return !(pa & (PAGE_SIZE - 1)) && !(pa >> cpu->profile->physical_bits);
}

static uint32_t revision_of(const struct cpu *cpu, uint64_t pa)
{
    uint32_t revision = 0;
    space_read(cpu->space, pa, &revision, sizeof revision);
    return revision;
}

/* ---- VMXON to VMWRITE ------------------------------------------------------------------------ */

/* IA32_FEATURE_CONTROL: bit 0 lock, bit 2 VMX outside SMX. */
#define FEATURE_CONTROL_ON 5u

static bool vmxon_permitted(struct cpu *cpu)
{
    bool compatibility = is_long_active(cpu) && !is_64bit(cpu);
    if (!is_protected(cpu) || !(cpu->cr4 & CR4_VMXE) || compatibility)
        return raise_exception(cpu, VEC_UD);
    if (cpu->vmx.on)
        return cpu->cpl == 0 || raise_error(cpu, VEC_GP, 0);
    bool enabled = (cpu->msr[MSR_FEATURE_CONTROL] & FEATURE_CONTROL_ON) == FEATURE_CONTROL_ON;
    if (cpu->cpl || !cpu->a20 || !enabled || !vmx_cr_fixed(cpu, 0, cpu->cr0) || !vmx_cr_fixed(cpu, 4, cpu->cr4))
        return raise_error(cpu, VEC_GP, 0);
    return true;
}

enum vmx_result vmx_vmxon(struct cpu *cpu, uint64_t pa)
{
    if (!vmxon_permitted(cpu))
        return VMX_FAULT;
    if (cpu->vmx.on)
        return vm_fail(cpu, VMX_ERROR_VMXON_IN_ROOT);
    if (!is_region_address(cpu, pa) || revision_of(cpu, pa) != VMCS_REVISION)
        return vm_fail_invalid(cpu);
    memset(&cpu->vmx, 0, sizeof cpu->vmx);
    cpu->vmx.on = 1;
    cpu->vmx.vmxon = pa;
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmxoff(struct cpu *cpu)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    vmcs_flush(cpu);
    memset(&cpu->vmx, 0, sizeof cpu->vmx);
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmclear(struct cpu *cpu, uint64_t pa)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    if (!is_region_address(cpu, pa))
        return vm_fail(cpu, VMX_ERROR_VMCLEAR_BAD_ADDRESS);
    if (pa == cpu->vmx.vmxon)
        return vm_fail(cpu, VMX_ERROR_VMCLEAR_VMXON_POINTER);
    if (cpu->vmx.current_valid && cpu->vmx.current == pa)
        vmcs_unload(cpu);
    vmcs_mark_clear(cpu, pa);
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmptrld(struct cpu *cpu, uint64_t pa)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    if (!is_region_address(cpu, pa))
        return vm_fail(cpu, VMX_ERROR_VMPTRLD_BAD_ADDRESS);
    if (pa == cpu->vmx.vmxon)
        return vm_fail(cpu, VMX_ERROR_VMPTRLD_VMXON_POINTER);
    if (revision_of(cpu, pa) != VMCS_REVISION)
        return vm_fail(cpu, VMX_ERROR_VMPTRLD_BAD_REVISION);
    if (!cpu->vmx.current_valid || cpu->vmx.current != pa) {
        vmcs_unload(cpu);
        vmcs_load(cpu, pa);
    }
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmptrst(struct cpu *cpu, uint64_t *pa)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    *pa = cpu->vmx.current_valid ? cpu->vmx.current : UINT64_MAX;
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmread(struct cpu *cpu, uint32_t encoding, uint64_t *value)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    if (!cpu->vmx.current_valid)
        return vm_fail_invalid(cpu);
    int slot = vmcs_slot(cpu, encoding);
    if (slot < 0)
        return vm_fail(cpu, VMX_ERROR_UNSUPPORTED_COMPONENT);
    *value = encoding & 1 ? cpu->vmx.field[slot] >> 32 : cpu->vmx.field[slot];
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmwrite(struct cpu *cpu, uint32_t encoding, uint64_t value)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    if (!cpu->vmx.current_valid)
        return vm_fail_invalid(cpu);
    int slot = vmcs_slot(cpu, encoding);
    if (slot < 0)
        return vm_fail(cpu, VMX_ERROR_UNSUPPORTED_COMPONENT);
    if (vmcs_rows[slot].group == VMCS_EXIT_INFO)
        return vm_fail(cpu, VMX_ERROR_VMWRITE_READ_ONLY);
    if (encoding & 1)
        value = (cpu->vmx.field[slot] & 0xffffffffu) | value << 32;
    vmcs_set(cpu, (enum vmcs_slot)slot, value);
    return vm_succeed(cpu);
}

enum vmx_result vmx_vmcall(struct cpu *cpu)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    return vm_fail(cpu, VMX_ERROR_VMCALL_IN_ROOT); /* there is no SMM monitor to call */
}

/* ---- state to and from the VMCS -------------------------------------------------------------- */

/* CR0 bits that entries and exits leave as they are: ET, CD, NW, 28:19, 17, 15:6. */
#define CR0_KEPT 0x7ffaffd0ull
#define PENDING_DB_BS 64u
#define DEBUG_ENABLED_BREAKPOINT (1u << 12)

static bool entry_control(const struct cpu *cpu, uint32_t bits) { return (VMCS(cpu, vm_entry_controls) & bits) != 0; }
static bool exit_control(const struct cpu *cpu, uint32_t bits) { return (VMCS(cpu, vm_exit_controls) & bits) != 0; }
static bool secondary_control(const struct cpu *cpu, uint32_t bits)
{
    return (VMCS(cpu, primary_proc_based_controls) & VMX_PRI_ACTIVATE_SECONDARY_CONTROLS) &&
           (VMCS(cpu, secondary_proc_based_controls) & bits);
}

static void load_guest_segments(struct cpu *cpu)
{
    const uint64_t *field = cpu->vmx.field;
    for (unsigned seg = 0; seg < NR_SEGS; seg++)
        cpu->seg[seg] = (struct segment){ .base = field[FIELD_guest_es_base + seg],
                                          .limit = (uint32_t)field[FIELD_guest_es_limit + seg],
                                          .attr = (uint32_t)field[FIELD_guest_es_access_rights + seg],
                                          .selector = (uint16_t)field[FIELD_guest_es_selector + seg] };
    cpu->gdtr = (struct table_register){ .base = VMCS(cpu, guest_gdtr_base),
                                         .limit = (uint32_t)VMCS(cpu, guest_gdtr_limit) };
    cpu->idtr = (struct table_register){ .base = VMCS(cpu, guest_idtr_base),
                                         .limit = (uint32_t)VMCS(cpu, guest_idtr_limit) };
    cpu->cpl = (uint8_t)((cpu->seg[SS].attr & SEG_DPL) >> SEG_DPL_SHIFT);
}

static void save_guest_segments(struct cpu *cpu)
{
    for (unsigned seg = 0; seg < NR_SEGS; seg++) {
        const struct segment *s = &cpu->seg[seg];
        uint32_t attr = s->attr;
        if (seg == SS) /* SS.DPL is the CPL, also when a null selector makes SS unusable */
            attr = (attr & ~(uint32_t)SEG_DPL) | (uint32_t)cpu->cpl << SEG_DPL_SHIFT;
        vmcs_set(cpu, (enum vmcs_slot)(FIELD_guest_es_selector + seg), s->selector);
        vmcs_set(cpu, (enum vmcs_slot)(FIELD_guest_es_base + seg), s->base);
        vmcs_set(cpu, (enum vmcs_slot)(FIELD_guest_es_limit + seg), s->limit);
        vmcs_set(cpu, (enum vmcs_slot)(FIELD_guest_es_access_rights + seg), attr);
    }
    vmcs_set(cpu, FIELD_guest_gdtr_base, cpu->gdtr.base);
    vmcs_set(cpu, FIELD_guest_gdtr_limit, cpu->gdtr.limit);
    vmcs_set(cpu, FIELD_guest_idtr_base, cpu->idtr.base);
    vmcs_set(cpu, FIELD_guest_idtr_limit, cpu->idtr.limit);
}

static void load_efer(struct cpu *cpu, bool long_mode, bool has_field, uint64_t field)
{
    uint64_t efer = has_field ? field : cpu->msr[MSR_EFER];
    bool paging = cpu->cr0 & CR0_PG;
    efer &= ~(uint64_t)(EFER_LMA | (paging ? EFER_LME : 0));
    cpu->msr[MSR_EFER] = efer | (long_mode ? EFER_LMA | EFER_LME : 0);
}

static void load_guest_state(struct cpu *cpu)
{
    cpu->cr0 = (cpu->cr0 & CR0_KEPT) | (VMCS(cpu, guest_cr0) & ~CR0_KEPT);
    cpu->cr3 = VMCS(cpu, guest_cr3);
    cpu->cr4 = VMCS(cpu, guest_cr4);
    if (entry_control(cpu, VMX_ENTRY_LOAD_DEBUG_CONTROLS))
        cpu->dr[7] = (VMCS(cpu, guest_dr7) & 0xffff2fffu) | DR7_FIXED1;
    cpu->msr[MSR_SYSENTER_CS] = VMCS(cpu, guest_ia32_sysenter_cs);
    cpu->msr[MSR_SYSENTER_ESP] = VMCS(cpu, guest_ia32_sysenter_esp);
    cpu->msr[MSR_SYSENTER_EIP] = VMCS(cpu, guest_ia32_sysenter_eip);
    load_efer(cpu, entry_control(cpu, VMX_ENTRY_IA_32E_MODE_GUEST), entry_control(cpu, VMX_ENTRY_LOAD_IA32_EFER),
              VMCS(cpu, guest_ia32_efer));
    if (entry_control(cpu, VMX_ENTRY_LOAD_IA32_PAT))
        cpu->msr[MSR_PAT] = VMCS(cpu, guest_ia32_pat);
    load_guest_segments(cpu);
    cpu->r[RSP] = VMCS(cpu, guest_rsp);
    cpu->r[REG_RIP] = VMCS(cpu, guest_rip);
    cpu->activity = (uint8_t)VMCS(cpu, guest_activity_state);
    cpu->interruptibility = (uint8_t)VMCS(cpu, guest_interruptibility_state);
    uint64_t debug = VMCS(cpu, guest_pending_dbg_exceptions);
    cpu->pending_db = (uint8_t)((debug & 15) | (debug & DR6_BS ? PENDING_DB_BS : 0));
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !is_long_active(cpu) && !load_pdptes(cpu, cpu->cr3))
        memset(cpu->pdpte, 0, sizeof cpu->pdpte); /* cannot be: GUEST-PDP-01 has looked at them */
    set_rflags(cpu, VMCS(cpu, guest_rflags));
}

static void save_guest_state(struct cpu *cpu, uint64_t rip, uint64_t rflags)
{
    vmcs_set(cpu, FIELD_guest_cr0, cpu->cr0);
    vmcs_set(cpu, FIELD_guest_cr3, cpu->cr3);
    vmcs_set(cpu, FIELD_guest_cr4, cpu->cr4);
    if (exit_control(cpu, VMX_EXIT_SAVE_DEBUG_CONTROLS))
        vmcs_set(cpu, FIELD_guest_dr7, cpu->dr[7]);
    vmcs_set(cpu, FIELD_guest_ia32_sysenter_cs, cpu->msr[MSR_SYSENTER_CS]);
    vmcs_set(cpu, FIELD_guest_ia32_sysenter_esp, cpu->msr[MSR_SYSENTER_ESP]);
    vmcs_set(cpu, FIELD_guest_ia32_sysenter_eip, cpu->msr[MSR_SYSENTER_EIP]);
    if (exit_control(cpu, VMX_EXIT_SAVE_IA32_EFER))
        vmcs_set(cpu, FIELD_guest_ia32_efer, cpu->msr[MSR_EFER]);
    if (exit_control(cpu, VMX_EXIT_SAVE_IA32_PAT))
        vmcs_set(cpu, FIELD_guest_ia32_pat, cpu->msr[MSR_PAT]);
    if (vmx_generation(cpu) >= VMX_V2) { /* IA32_VMX_MISC[5] */
        uint64_t controls = VMCS(cpu, vm_entry_controls) & ~(uint64_t)VMX_ENTRY_IA_32E_MODE_GUEST;
        vmcs_set(cpu, FIELD_vm_entry_controls, controls | (is_long_active(cpu) ? VMX_ENTRY_IA_32E_MODE_GUEST : 0));
    }
    save_guest_segments(cpu);
    vmcs_set(cpu, FIELD_guest_rsp, cpu->r[RSP]);
    vmcs_set(cpu, FIELD_guest_rip, rip);
    vmcs_set(cpu, FIELD_guest_rflags, rflags);
    vmcs_set(cpu, FIELD_guest_activity_state, cpu->activity);
    vmcs_set(cpu, FIELD_guest_interruptibility_state, cpu->interruptibility);
    uint64_t debug = (cpu->pending_db & 15u) | (cpu->pending_db & PENDING_DB_BS ? DR6_BS : 0u);
    vmcs_set(cpu, FIELD_guest_pending_dbg_exceptions, debug | (debug & 15 ? DEBUG_ENABLED_BREAKPOINT : 0));
}

static struct segment host_segment(uint64_t selector, uint64_t base, uint32_t attr)
{
    bool unusable = selector == 0 && !(attr & TYPE_CODE);
    return (struct segment){ .selector = (uint16_t)selector, .base = base, .limit = 0xffffffff,
                             .attr = attr | (unusable ? SEG_UNUSABLE : 0u) };
}

static void load_host_segments(struct cpu *cpu, bool long_host)
{
    const uint32_t data = SEG_P | SEG_S | SEG_G | SEG_DB | TYPE_WRITABLE | TYPE_ACCESSED;
    const uint32_t code = SEG_P | SEG_S | SEG_G | TYPE_CODE | TYPE_READABLE | TYPE_ACCESSED |
                          (long_host ? SEG_L : SEG_DB);
    cpu->seg[CS] = host_segment(VMCS(cpu, host_cs_selector), 0, code);
    cpu->seg[SS] = host_segment(VMCS(cpu, host_ss_selector), 0, data);
    cpu->seg[DS] = host_segment(VMCS(cpu, host_ds_selector), 0, data);
    cpu->seg[ES] = host_segment(VMCS(cpu, host_es_selector), 0, data);
    cpu->seg[FS] = host_segment(VMCS(cpu, host_fs_selector), VMCS(cpu, host_fs_base), data);
    cpu->seg[GS] = host_segment(VMCS(cpu, host_gs_selector), VMCS(cpu, host_gs_base), data);
    cpu->seg[TR] = (struct segment){ .selector = (uint16_t)VMCS(cpu, host_tr_selector), .base = VMCS(cpu, host_tr_base),
                                     .limit = 0x67, .attr = SEG_P | 11 };
    cpu->seg[LDTR] = (struct segment){ .attr = SEG_UNUSABLE };
    cpu->gdtr = (struct table_register){ .base = VMCS(cpu, host_gdtr_base), .limit = 0xffff };
    cpu->idtr = (struct table_register){ .base = VMCS(cpu, host_idtr_base), .limit = 0xffff };
    cpu->cpl = 0;
}

static bool load_host_state(struct cpu *cpu)
{
    bool long_host = exit_control(cpu, VMX_EXIT_HOST_ADDRESS_SPACE_SIZE);
    cpu->cr0 = (cpu->cr0 & CR0_KEPT) | (VMCS(cpu, host_cr0) & ~CR0_KEPT);
    cpu->cr3 = VMCS(cpu, host_cr3);
    cpu->cr4 = long_host ? VMCS(cpu, host_cr4) | CR4_PAE : VMCS(cpu, host_cr4) & ~(uint64_t)CR4_PCIDE;
    cpu->dr[7] = DR7_FIXED1;
    cpu->msr[MSR_SYSENTER_CS] = VMCS(cpu, host_ia32_sysenter_cs);
    cpu->msr[MSR_SYSENTER_ESP] = VMCS(cpu, host_ia32_sysenter_esp);
    cpu->msr[MSR_SYSENTER_EIP] = VMCS(cpu, host_ia32_sysenter_eip);
    load_efer(cpu, long_host, exit_control(cpu, VMX_EXIT_LOAD_IA32_EFER), VMCS(cpu, host_ia32_efer));
    if (exit_control(cpu, VMX_EXIT_LOAD_IA32_PAT))
        cpu->msr[MSR_PAT] = VMCS(cpu, host_ia32_pat);
    load_host_segments(cpu, long_host);
    cpu->r[RSP] = VMCS(cpu, host_rsp);
    cpu->r[REG_RIP] = VMCS(cpu, host_rip);
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->interruptibility &= BLOCK_NMI;
    cpu->pending_db = 0;
    cpu->delivering = 0;
    cpu->world = WORLD_PLAIN;
    cpu->asid = 0;
    set_rflags(cpu, FLAG_1);
    return long_host || !(cpu->cr4 & CR4_PAE) || load_pdptes(cpu, cpu->cr3);
}

/* Without VPIDs a world switch drops every translation; with them only what is derived from the tags in use. */
static void switch_translations(struct cpu *cpu)
{
    if (!secondary_control(cpu, VMX_SEC_ENABLE_VPID))
        tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
}

/* ---- MSR lists: 16 bytes for each entry, index, reserved, value ------------------------------ */

struct msr_entry { uint32_t index, reserved; uint64_t value; };
#define MSR_LIST_MOST                                                                                                  \
    512u /* IA32_VMX_MISC[27:25] = 0 recommends no more; a longer list is the end of the work it may cost */

#define MSR_ENTRIES_AT_ONCE 16u
struct msr_entries {
    uint64_t address;
    uint32_t count;
    struct msr_entry entry[MSR_ENTRIES_AT_ONCE];
};
/* The next entries of a list from number `first`, from 0. */
static void read_msr_entries(const struct cpu *cpu, uint64_t list, uint64_t count, uint32_t first,
                             struct msr_entries *some)
{
    some->address = list + first * sizeof some->entry[0];
    some->count = count - first < MSR_ENTRIES_AT_ONCE ? (uint32_t)(count - first) : MSR_ENTRIES_AT_ONCE;
    space_read(cpu->space, some->address, some->entry, some->count * sizeof some->entry[0]);
}

/* The rule that keeps an entry from being loaded, or 0. */
static unsigned load_msr_entry(struct cpu *cpu, const struct msr_entry *entry)
{
    unsigned row = vmx_check_msr_load(entry->index, entry->reserved);
    if (row || write_msr(cpu, entry->index, entry->value))
        return row;
    cpu->leave = LEAVE_NONE;
    return CHECK_MSRLOAD_05;
}

/* 0: all loaded; else the number of the entry that cannot be, from 1, and the rule in *row. */
static uint32_t load_msr_list(struct cpu *cpu, uint64_t list, uint64_t count, unsigned *row)
{
    struct msr_entries some;
    for (uint32_t n = 0; n < count; n++) {
        if (n % MSR_ENTRIES_AT_ONCE == 0)
            read_msr_entries(cpu, list, count, n, &some);
        cpu->work++;
        *row = n >= MSR_LIST_MOST ? CHECK_MSRLOAD_05 : load_msr_entry(cpu, &some.entry[n % MSR_ENTRIES_AT_ONCE]);
        if (*row)
            return n + 1;
    }
    return 0;
}

static bool store_msr_entries(struct cpu *cpu, struct msr_entries *some)
{
    bool changed = false;
    for (uint32_t n = 0; n < some->count; n++) {
        struct msr_entry *entry = &some->entry[n];
        uint64_t old = entry->value;
        cpu->work++;
        if (entry->reserved || !read_msr(cpu, entry->index, &entry->value)) {
            cpu->leave = LEAVE_NONE;
            return false;
        }
        changed |= entry->value != old;
    }
    if (changed)
        space_write(cpu->space, some->address, some->entry, some->count * sizeof some->entry[0]);
    return true;
}

static bool store_msr_list(struct cpu *cpu, uint64_t list, uint64_t count)
{
    struct msr_entries some;
    if (count > MSR_LIST_MOST)
        return false;
    for (uint32_t n = 0; n < count; n += MSR_ENTRIES_AT_ONCE) {
        read_msr_entries(cpu, list, count, n, &some);
        if (!store_msr_entries(cpu, &some))
            return false;
    }
    return true;
}

/* ---- VM exit: SDM vol. 3C, "VM Exits" -------------------------------------------------------- */

enum vmx_abort { ABORT_MSR_STORE = 1, ABORT_HOST_PDPTE = 2, ABORT_MSR_LOAD = 4 };

/* The exit itself fails: there is nowhere to go. */
static bool vmx_abort(struct cpu *cpu, enum vmx_abort indicator)
{
    uint32_t value = indicator;
    space_write(cpu->space, cpu->vmx.current + 4, &value, sizeof value);
    cpu->world = WORLD_PLAIN;
    cpu->asid = 0;
    cpu->leave = LEAVE_NONE;
    enter_shutdown(cpu);
    return false;
}

/* Host state and the exit's MSR list: the second half of every exit, and of an entry that failed. */
static bool to_host(struct cpu *cpu)
{
    unsigned row;
    bool host_ok = load_host_state(cpu);
    switch_translations(cpu);
    if (!host_ok)
        return vmx_abort(cpu, ABORT_HOST_PDPTE);
    if (load_msr_list(cpu, VMCS(cpu, exit_msr_load_address), VMCS(cpu, exit_msr_load_count), &row))
        return vmx_abort(cpu, ABORT_MSR_LOAD);
    cpu->work++;
    cpu->leave = LEAVE_EXIT;
    return false;
}

static bool is_software_event(unsigned type)
{
    return type >= TYPE_SOFTWARE_INTERRUPT && type <= TYPE_SOFTWARE_EXCEPTION;
}

/* An exit is not "during delivery" when the event itself, the double fault it led to or a triple fault exits. */
static bool interrupts_delivery(const struct cpu *cpu, uint32_t reason, uint32_t info)
{
    return cpu->delivering && reason != EXIT_REASON_TRIPLE_FAULT &&
           !((info & EVENT_VALID) && EVENT_VECTOR(info) == VEC_DF);
}

static void record_vectoring(struct cpu *cpu, uint32_t reason, uint32_t info)
{
    const struct fault *event = &cpu->event;
    if (!interrupts_delivery(cpu, reason, info)) {
        vmcs_set(cpu, FIELD_idt_vectoring_info, 0);
        return;
    }
    vmcs_set(cpu, FIELD_idt_vectoring_info,
             event->vector | (uint32_t)event->type << 8 | (event->has_error ? EVENT_HAS_ERROR : 0u) | EVENT_VALID);
    if (event->has_error)
        vmcs_set(cpu, FIELD_idt_vectoring_error_code, event->error);
}

static uint32_t exit_length(const struct cpu *cpu, const struct vmx_event *event)
{
    if (event && is_software_event(EVENT_TYPE(event->info)))
        return event->length;
    if (cpu->delivering)
        return is_software_event(cpu->event.type) ? cpu->event.length : 0;
    return cpu->current ? cpu->current->len : 0;
}

/* RFLAGS as delivery of the event would have pushed it: faults set RF. */
static uint64_t saved_rflags(const struct cpu *cpu, const struct vmx_event *event)
{
    bool fault = event && EVENT_TYPE(event->info) == TYPE_HARDWARE_EXCEPTION && EVENT_VECTOR(event->info) != VEC_DB;
    return get_rflags(cpu) | (fault || cpu->rep_partial ? FLAG_RF : 0);
}

bool vmx_exit_event(struct cpu *cpu, uint32_t reason, uint64_t qualification, const struct vmx_event *event)
{
    uint32_t info = event ? event->info : 0, length = exit_length(cpu, event);
    uint64_t rip = cpu->current ? insn_rip(cpu, cpu->current) : cpu->r[REG_RIP];
    if (!is_64bit(cpu))
        rip &= 0xffffffffu;

    /* 1. why */
    vmcs_set(cpu, FIELD_exit_reason, reason);
    vmcs_set(cpu, FIELD_exit_qualification, qualification);
    vmcs_set(cpu, FIELD_exit_interruption_info, info);
    if (info & EVENT_HAS_ERROR)
        vmcs_set(cpu, FIELD_exit_interruption_error_code, event->error);
    record_vectoring(cpu, reason, info);
    vmcs_set(cpu, FIELD_exit_instruction_length, length);
    vmcs_set(cpu, FIELD_vm_entry_interruption_info, VMCS(cpu, vm_entry_interruption_info) & ~(uint64_t)EVENT_VALID);
    emit(cpu, EVENT_EXIT, reason, qualification, length | (uint64_t)(info & EVENT_HAS_ERROR ? event->error : 0) << 32,
         info, VMCS(cpu, idt_vectoring_info));

    /* 2. the guest's state, and its MSRs */
    save_guest_state(cpu, rip, saved_rflags(cpu, event));
    if (!store_msr_list(cpu, VMCS(cpu, exit_msr_store_address), VMCS(cpu, exit_msr_store_count)))
        return vmx_abort(cpu, ABORT_MSR_STORE);

    /* 3. the host's */
    if (reason == EXIT_REASON_EXCEPTION_OR_NMI && EVENT_TYPE(info) == TYPE_NMI)
        cpu->interruptibility |= BLOCK_NMI;
    return to_host(cpu);
}

bool vmx_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification)
{
    return vmx_exit_event(cpu, reason, qualification, NULL);
}

/* ---- VM entry: SDM vol. 3C, "VM Entries" ----------------------------------------------------- */

static void phase(struct cpu *cpu, enum entry_phase phase, unsigned failed)
{
    emit(cpu, EVENT_ENTRY_PHASE, phase, failed, 0, 0, 0);
    if (!failed)
        return;
    cpu->vmx.entry_failed = failed;
    emit(cpu, EVENT_ENTRY, failed, VMCS(cpu, guest_rip), VMCS(cpu, vm_entry_interruption_info), cpu->vmx.current, 0);
}

/* An entry that failed after the checks on controls and host state is an exit that saves nothing. */
static enum vmx_result entry_failure(struct cpu *cpu, enum exit_reason reason, uint64_t qualification)
{
    vmcs_set(cpu, FIELD_exit_reason, reason | EXIT_REASON_ENTRY_FAILED);
    vmcs_set(cpu, FIELD_exit_qualification, qualification);
    emit(cpu, EVENT_EXIT, reason | EXIT_REASON_ENTRY_FAILED, qualification, 0, 0, 0);
    to_host(cpu);
    return VMX_EXITED;
}

static uint64_t guest_state_qualification(unsigned row)
{
    switch (vmx_check_failure(row)) {
    case FAILURE_EXIT_33_PDPTE: return 2;
    case FAILURE_EXIT_33_NMI: return 3;
    case FAILURE_EXIT_33_LINK: return 4;
    default: return 0;
    }
}

/* Step 6: the event that the hypervisor asks for. False: its delivery ended in a VM exit. */
static bool inject(struct cpu *cpu)
{
    uint32_t info = (uint32_t)VMCS(cpu, vm_entry_interruption_info);
    struct fault event = { .vector = (uint8_t)EVENT_VECTOR(info), .type = (uint8_t)EVENT_TYPE(info),
                           .has_error = (info & EVENT_HAS_ERROR) != 0,
                           .error = (uint32_t)VMCS(cpu, vm_entry_exception_error_code) };
    if (!(info & EVENT_VALID))
        return true;
    if (is_software_event(event.type))
        event.length = (uint32_t)VMCS(cpu, vm_entry_instruction_length);
    if (event.type == TYPE_NMI)
        cpu->interruptibility |= BLOCK_NMI;
    cpu->interruptibility &= (uint8_t)~(BLOCK_STI | BLOCK_MOV_SS);
    cpu->activity = ACTIVITY_ACTIVE;
    emit(cpu, EVENT_ENTRY_PHASE, PHASE_INJECT, 0, info, 0, 0);
    cpu->work++;
    if (!deliver_event(cpu, &event))
        return false;
    if (is_software_event(event.type))
        cpu->retired++; /* the INT that caused it is done with its delivery, and was not counted before */
    return true;
}

static enum vmx_result vmx_enter(struct cpu *cpu, bool resume)
{
    unsigned failed;
    uint16_t field;
    cpu->vmx.entry_failed = CHECK_NO_VMX_RULE;

    /* 1. basic checks */
    if (!cpu->vmx.current_valid)
        return vm_fail_invalid(cpu);
    if (cpu->interruptibility & BLOCK_MOV_SS) {
        phase(cpu, PHASE_BASIC, CHECK_INS_06);
        return vm_fail(cpu, VMX_ERROR_ENTRY_MOV_SS_BLOCKING);
    }
    if (cpu->vmx.launched != resume) {
        phase(cpu, PHASE_BASIC, resume ? CHECK_INS_08 : CHECK_INS_07);
        return vm_fail(cpu, resume ? VMX_ERROR_VMRESUME_NOT_LAUNCHED : VMX_ERROR_VMLAUNCH_NOT_CLEAR);
    }
    phase(cpu, PHASE_BASIC, 0);

    /* 2. checks on controls, then on the host-state area */
    failed = vmx_check_controls(cpu, &field);
    phase(cpu, PHASE_CONTROLS, failed);
    if (failed)
        return vm_fail(cpu, VMX_ERROR_ENTRY_BAD_CONTROLS);
    failed = vmx_check_host_state(cpu, &field);
    phase(cpu, PHASE_HOST, failed);
    if (failed)
        return vm_fail(cpu, VMX_ERROR_ENTRY_BAD_HOST_STATE);

    /* 3. checks on the guest-state area */
    failed = vmx_check_guest_state(cpu, &field);
    phase(cpu, PHASE_GUEST, failed);
    if (failed)
        return entry_failure(cpu, EXIT_REASON_ENTRY_FAIL_GUEST_STATE, guest_state_qualification(failed));

    /* 4. the guest-state area, then the MSR list */
    load_guest_state(cpu);
    phase(cpu, PHASE_LOAD, 0);
    uint32_t entry = load_msr_list(cpu, VMCS(cpu, entry_msr_load_address), VMCS(cpu, entry_msr_load_count), &failed);
    phase(cpu, PHASE_MSRS, entry ? failed : 0);
    if (entry)
        return entry_failure(cpu, EXIT_REASON_ENTRY_FAIL_MSR_LOAD, entry);

    /* 5. from here on this is the guest */
    cpu->vmx.launched = 1;
    cpu->world = WORLD_VMX_GUEST;
    cpu->asid = secondary_control(cpu, VMX_SEC_ENABLE_VPID) ? (uint16_t)VMCS(cpu, vpid) : 0;
    switch_translations(cpu);
    phase(cpu, PHASE_TLB, 0);
    emit(cpu, EVENT_ENTRY, 0, cpu->r[REG_RIP], VMCS(cpu, vm_entry_interruption_info), cpu->vmx.current, 0);

    /* 6. event injection; the guest's RIP is the one that delivery pushes */
    const struct insn *entering = cpu->current;
    cpu->current = NULL;
    bool in_guest = inject(cpu);
    cpu->current = entering;
    cpu_update_attention(cpu);
    return in_guest ? VMX_SUCCEED : VMX_EXITED;
}

void load_guest_gprs(struct cpu *cpu, const struct guest_gprs *gprs)
{
    for (unsigned n = 0; n < 16; n++)
        if (n != RSP)
            cpu->r[n] = gprs->r[n];
}

void store_guest_gprs(const struct cpu *cpu, struct guest_gprs *gprs)
{
    for (unsigned n = 0; n < 16; n++)
        if (n != RSP)
            gprs->r[n] = cpu->r[n];
}

static enum vmx_result enter_from_c(struct cpu *cpu, const struct guest_gprs *gprs, bool resume)
{
    if (!in_root(cpu))
        return VMX_FAULT;
    if (gprs)
        load_guest_gprs(cpu, gprs);
    enum vmx_result result = vmx_enter(cpu, resume);
    if (result == VMX_EXITED)
        cpu->leave = LEAVE_NONE; /* the caller hears of it right here */
    return result;
}
enum vmx_result vmx_vmlaunch(struct cpu *cpu, const struct guest_gprs *gprs) { return enter_from_c(cpu, gprs, false); }
enum vmx_result vmx_vmresume(struct cpu *cpu, const struct guest_gprs *gprs) { return enter_from_c(cpu, gprs, true); }

/* ---- the instructions ------------------------------------------------------------------------ */

/* VM-exit instruction information, memory and register form: SDM vol. 3C, table "Format of the VM-Exit
 * Instruction-Information Field". */
uint32_t vmx_instruction_info(const struct insn *i)
{
    uint32_t address_size = i->ashift == 0 ? 2 : i->ashift == 32 ? 1 : 0, info = (uint32_t)(i->reg & 15) << 28;
    if (!(i->flags & INSN_MEM))
        return info | 1u << 10 | (uint32_t)(i->rm & 15) << 3;
    info |= i->scale | address_size << 7 | (uint32_t)i->seg << 15;
    info |= i->index < 16 ? (uint32_t)i->index << 18 : 1u << 22;
    info |= i->base < 16 ? (uint32_t)i->base << 23 : 1u << 27;
    return info;
}

static uint64_t displacement(const struct cpu *cpu, const struct insn *i)
{
    if (!(i->flags & INSN_MEM))
        return 0;
    return (uint64_t)i->disp + (i->base == REG_RIP ? cpu->r[REG_RIP] : 0);
}

/* In a guest every VMX instruction exits, at any CPL; only where it does not exist does #UD come first. */
static bool exits_in_guest(struct cpu *cpu, const struct insn *i, uint32_t reason, bool has_operand)
{
    if (cpu->world != WORLD_VMX_GUEST)
        return true;
    if (!is_protected(cpu) || (is_long_active(cpu) && !is_64bit(cpu)))
        return raise_exception(cpu, VEC_UD);
    if (has_operand)
        vmcs_set(cpu, FIELD_exit_instruction_info, vmx_instruction_info(i));
    return vmx_exit(cpu, reason, has_operand ? displacement(cpu, i) : 0);
}

static bool done(enum vmx_result result) { return result != VMX_FAULT; }

/* The pointer operand of VMXON, VMCLEAR, VMPTRLD. */
static bool read_pointer(struct cpu *cpu, const struct insn *i, uint64_t *pa)
{
    return read64(cpu, (enum seg)i->seg, ea(cpu, i), pa);
}

OP(op_vmxon)
{
    uint64_t pa;
    return exits_in_guest(cpu, i, EXIT_REASON_VMXON, true) && vmxon_permitted(cpu) && read_pointer(cpu, i, &pa) &&
           done(vmx_vmxon(cpu, pa));
}
OP(op_vmxoff) { return exits_in_guest(cpu, i, EXIT_REASON_VMXOFF, false) && done(vmx_vmxoff(cpu)); }
OP(op_vmclear)
{
    uint64_t pa;
    return exits_in_guest(cpu, i, EXIT_REASON_VMCLEAR, true) && in_root(cpu) && read_pointer(cpu, i, &pa) &&
           done(vmx_vmclear(cpu, pa));
}
OP(op_vmptrld)
{
    uint64_t pa;
    return exits_in_guest(cpu, i, EXIT_REASON_VMPTRLD, true) && in_root(cpu) && read_pointer(cpu, i, &pa) &&
           done(vmx_vmptrld(cpu, pa));
}
OP(op_vmptrst)
{
    if (!exits_in_guest(cpu, i, EXIT_REASON_VMPTRST, true) || !in_root(cpu))
        return false;
    uint64_t pa = cpu->vmx.current_valid ? cpu->vmx.current : UINT64_MAX;
    return write64(cpu, (enum seg)i->seg, ea(cpu, i), pa) && done(vmx_vmptrst(cpu, &pa));
}

static unsigned operand_bytes(const struct cpu *cpu) { return is_64bit(cpu) ? 8 : 4; }
/* An encoding beyond 32 bits names nothing. */
static uint32_t encoding_of(uint64_t value) { return value >> 32 ? UINT32_MAX : (uint32_t)value; }

OP(op_vmread)
{
    uint64_t value = 0;
    unsigned size = operand_bytes(cpu);
    if (!exits_in_guest(cpu, i, EXIT_REASON_VMREAD, true) || !in_root(cpu))
        return false;
    struct lazy_flags before = cpu->lazy;
    enum vmx_result result = vmx_vmread(cpu, encoding_of(reg_by_size(cpu, i->reg, size)), &value);
    if (!done(result) || result != VMX_SUCCEED || write_rm(cpu, i, size, value))
        return done(result);
    cpu->lazy = before; /* the store faulted: nothing happened */
    return false;
}
OP(op_vmwrite)
{
    uint64_t value;
    unsigned size = operand_bytes(cpu);
    if (!exits_in_guest(cpu, i, EXIT_REASON_VMWRITE, true) || !in_root(cpu))
        return false;
    if (!cpu->vmx.current_valid)
        return done(vm_fail_invalid(cpu));
    return read_rm(cpu, i, size, &value) && done(vmx_vmwrite(cpu, encoding_of(reg_by_size(cpu, i->reg, size)), value));
}
OP(op_vmcall) { return exits_in_guest(cpu, i, EXIT_REASON_VMCALL, false) && done(vmx_vmcall(cpu)); }

static bool enter_from_code(struct cpu *cpu, const struct insn *i, uint32_t reason, bool resume)
{
    if (!exits_in_guest(cpu, i, reason, false) || !in_root(cpu))
        return false;
    switch (vmx_enter(cpu, resume)) {
    case VMX_SUCCEED:
        cpu->leave = LEAVE_JUMP;
        return false;
    case VMX_EXITED:
        return false;
    default:
        return true; /* VMfail: the next instruction tests the flags */
    }
}
OP(op_vmlaunch) { return enter_from_code(cpu, i, EXIT_REASON_VMLAUNCH, false); }
OP(op_vmresume) { return enter_from_code(cpu, i, EXIT_REASON_VMRESUME, true); }
