/* VMX's half of the hypervisor: the VMCS, entry and exit, and what each exit reason means (SDM vol. 3C; facts 1.4 and 1.5).
 *
 * The first parts have no EPT, no VPID, no MSR bitmaps and no EFER in the VMCS: every MSR access exits, and the MSRs that hardware
 * does not switch travel in the lists of VM entry and exit. */
#include "hv.h"

#include <string.h>

enum { MSR_LIST_GUEST = 0, MSR_LIST_HOST = 0x800 }; /* offsets in their page */
enum listed_msr { LIST_EFER, LIST_STAR, LIST_LSTAR, LIST_CSTAR, LIST_FMASK, LIST_KERNEL_GS, NR_LISTED };
static const uint32_t listed_index[NR_LISTED] = { 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102 };
static uint64_t listed_hpa(unsigned list, unsigned n) { return pool_hpa(POOL_MSR_LISTS) + list + 16 * n; }

static uint64_t vmread(struct hv *hv, uint32_t field)
{
    uint64_t value = 0;
    (void)vmx_vmread(hv->cpu, field, &value);
    return value;
}
static void vmwrite(struct hv *hv, uint32_t field, uint64_t value) { (void)vmx_vmwrite(hv->cpu, field, value); }

/* ---- the host, the VMCS ------------------------------------------------------------------------------------------- */

static void write_revision(struct hv *hv, unsigned page)
{
    uint64_t basic = 0;
    uint32_t revision;
    (void)x86_rdmsr(hv->cpu, 0x480, &basic);
    revision = (uint32_t)basic & 0x7fffffff;
    physical_write(hv->cpu, pool_hpa(page), &revision, sizeof revision);
}

static bool host_init(struct hv *hv)
{
    if (!x86_mov_cr(hv->cpu, 4, CR4_PAE | CR4_VMXE))
        return false;
    write_revision(hv, POOL_VMXON);
    return vmx_vmxon(hv->cpu, pool_hpa(POOL_VMXON)) == VMX_SUCCEED;
}

/* What is wanted, within what the capability MSR allows. */
static uint64_t adjusted(struct hv *hv, uint32_t msr, uint32_t wanted)
{
    uint64_t capability = 0;
    (void)x86_rdmsr(hv->cpu, msr, &capability);
    return (wanted | (uint32_t)capability) & (uint32_t)(capability >> 32);
}

static void write_host_state(struct hv *hv)
{
    struct silicon_state s;
    uint64_t value = 0;
    silicon_state(hv->cpu, &s);
    vmwrite(hv, VMCS_host_cr0, s.cr0);
    vmwrite(hv, VMCS_host_cr3, s.cr3);
    vmwrite(hv, VMCS_host_cr4, s.cr4);
    vmwrite(hv, VMCS_host_cs_selector, s.seg[CS].selector);
    vmwrite(hv, VMCS_host_ss_selector, s.seg[SS].selector);
    vmwrite(hv, VMCS_host_ds_selector, s.seg[DS].selector);
    vmwrite(hv, VMCS_host_es_selector, s.seg[ES].selector);
    vmwrite(hv, VMCS_host_fs_selector, 0);
    vmwrite(hv, VMCS_host_gs_selector, 0);
    vmwrite(hv, VMCS_host_tr_selector, s.seg[TR].selector);
    vmwrite(hv, VMCS_host_tr_base, s.seg[TR].base);
    vmwrite(hv, VMCS_host_gdtr_base, s.gdt_base);
    vmwrite(hv, VMCS_host_idtr_base, s.idt_base);
    vmwrite(hv, VMCS_host_rsp, pool_hpa(POOL_HOST_TABLES) + PAGE_SIZE);
    vmwrite(hv, VMCS_host_rip, pool_hpa(POOL_HOST_TABLES));
    for (unsigned n = 0; n < NR_LISTED; n++) {
        (void)x86_rdmsr(hv->cpu, listed_index[n], &value);
        for (unsigned list = MSR_LIST_GUEST; list <= MSR_LIST_HOST; list += MSR_LIST_HOST) {
            physical_write64(hv->cpu, listed_hpa(list, n), listed_index[n]);
            physical_write64(hv->cpu, listed_hpa(list, n) + 8, list == MSR_LIST_HOST ? value : 0);
        }
    }
}

static const uint64_t cr0_mask = CR0_PG | CR0_PE | CR0_WP | CR0_NE | CR0_NW | CR0_CD;
static const uint64_t cr4_mask = CR4_PSE | CR4_PAE | CR4_PGE | CR4_VMXE | CR4_VME;

static bool vcpu_setup(struct hv *hv)
{
    write_revision(hv, POOL_VMCS);
    if (vmx_vmclear(hv->cpu, pool_hpa(POOL_VMCS)) != VMX_SUCCEED || vmx_vmptrld(hv->cpu, pool_hpa(POOL_VMCS)) != VMX_SUCCEED)
        return false;
    write_host_state(hv);
    vmwrite(hv, VMCS_pin_based_controls, adjusted(hv, 0x481, VMX_PIN_EXTERNAL_INTERRUPT_EXITING | VMX_PIN_NMI_EXITING));
    vmwrite(hv, VMCS_primary_proc_based_controls,
            adjusted(hv, 0x482, VMX_PRI_HLT_EXITING | VMX_PRI_CR8_LOAD_EXITING | VMX_PRI_CR8_STORE_EXITING |
                                VMX_PRI_UNCONDITIONAL_IO_EXITING | VMX_PRI_MOV_DR_EXITING | VMX_PRI_USE_TSC_OFFSETTING |
                                VMX_PRI_MONITOR_EXITING | VMX_PRI_MWAIT_EXITING)); /* the last two are hidden from guests */
    vmwrite(hv, VMCS_vm_exit_controls, adjusted(hv, 0x483, VMX_EXIT_HOST_ADDRESS_SPACE_SIZE));
    vmwrite(hv, VMCS_vm_entry_controls, adjusted(hv, 0x484, 0));
    vmwrite(hv, VMCS_exception_bitmap, 1u << VEC_PF);
    vmwrite(hv, VMCS_page_fault_error_code_mask, 0);
    vmwrite(hv, VMCS_page_fault_error_code_match, 0);
    vmwrite(hv, VMCS_cr3_target_count, 0);
    vmwrite(hv, VMCS_vmcs_link_pointer, ~0ull);
    vmwrite(hv, VMCS_exit_msr_store_address, listed_hpa(MSR_LIST_GUEST, 0));
    vmwrite(hv, VMCS_exit_msr_store_count, NR_LISTED);
    vmwrite(hv, VMCS_exit_msr_load_address, listed_hpa(MSR_LIST_HOST, 0));
    vmwrite(hv, VMCS_exit_msr_load_count, NR_LISTED);
    vmwrite(hv, VMCS_entry_msr_load_address, listed_hpa(MSR_LIST_GUEST, 0));
    vmwrite(hv, VMCS_entry_msr_load_count, NR_LISTED);
    vmwrite(hv, VMCS_cr0_guest_host_mask, cr0_mask);
    vmwrite(hv, VMCS_cr4_guest_host_mask, cr4_mask | (silicon_cr4_defined(hv->cpu) & ~silicon_guest_cr4(hv->cpu))); /* hidden bits exit */
    vmwrite(hv, VMCS_guest_dr7, DR7_FIXED1);
    return true;
}

/* ---- state ------------------------------------------------------------------------------------------------------------ */

static const struct { uint32_t selector, base, limit, rights; } segment_fields[8] = {
    [ES] = { VMCS_guest_es_selector, VMCS_guest_es_base, VMCS_guest_es_limit, VMCS_guest_es_access_rights },
    [CS] = { VMCS_guest_cs_selector, VMCS_guest_cs_base, VMCS_guest_cs_limit, VMCS_guest_cs_access_rights },
    [SS] = { VMCS_guest_ss_selector, VMCS_guest_ss_base, VMCS_guest_ss_limit, VMCS_guest_ss_access_rights },
    [DS] = { VMCS_guest_ds_selector, VMCS_guest_ds_base, VMCS_guest_ds_limit, VMCS_guest_ds_access_rights },
    [FS] = { VMCS_guest_fs_selector, VMCS_guest_fs_base, VMCS_guest_fs_limit, VMCS_guest_fs_access_rights },
    [GS] = { VMCS_guest_gs_selector, VMCS_guest_gs_base, VMCS_guest_gs_limit, VMCS_guest_gs_access_rights },
    [LDTR] = { VMCS_guest_ldtr_selector, VMCS_guest_ldtr_base, VMCS_guest_ldtr_limit, VMCS_guest_ldtr_access_rights },
    [TR] = { VMCS_guest_tr_selector, VMCS_guest_tr_base, VMCS_guest_tr_limit, VMCS_guest_tr_access_rights },
};

static void get(struct hv *hv, struct silicon_state *s)
{
    s->rip = vmread(hv, VMCS_guest_rip);
    s->gpr[RSP] = vmread(hv, VMCS_guest_rsp);
    s->rflags = vmread(hv, VMCS_guest_rflags);
    for (unsigned k = 0; k < 8; k++)
        s->seg[k] = (struct silicon_segment){ .base = vmread(hv, segment_fields[k].base), .limit = (uint32_t)vmread(hv, segment_fields[k].limit),
                                              .attr = (uint32_t)vmread(hv, segment_fields[k].rights),
                                              .selector = (uint16_t)vmread(hv, segment_fields[k].selector) };
    s->gdt_base = vmread(hv, VMCS_guest_gdtr_base), s->gdt_limit = (uint32_t)vmread(hv, VMCS_guest_gdtr_limit);
    s->idt_base = vmread(hv, VMCS_guest_idtr_base), s->idt_limit = (uint32_t)vmread(hv, VMCS_guest_idtr_limit);
    s->cr0 = vmread(hv, VMCS_guest_cr0), s->cr3 = vmread(hv, VMCS_guest_cr3), s->cr4 = vmread(hv, VMCS_guest_cr4);
    s->dr7 = vmread(hv, VMCS_guest_dr7);
    s->interruptibility = (uint32_t)vmread(hv, VMCS_guest_interruptibility_state);
    s->activity = (uint32_t)vmread(hv, VMCS_guest_activity_state);
}

static void put(struct hv *hv, const struct silicon_state *s)
{
    uint64_t controls = vmread(hv, VMCS_vm_entry_controls);
    vmwrite(hv, VMCS_guest_rip, s->rip);
    vmwrite(hv, VMCS_guest_rsp, s->gpr[RSP]);
    vmwrite(hv, VMCS_guest_rflags, s->rflags);
    for (unsigned k = 0; k < 8; k++) {
        uint32_t attr = s->seg[k].attr;
        if (!(attr & 0xffff))
            attr = SEG_UNUSABLE; /* rights that are all zero stand for an unusable segment */
        vmwrite(hv, segment_fields[k].selector, s->seg[k].selector);
        vmwrite(hv, segment_fields[k].base, s->seg[k].base);
        vmwrite(hv, segment_fields[k].limit, s->seg[k].limit);
        vmwrite(hv, segment_fields[k].rights, attr);
    }
    vmwrite(hv, VMCS_guest_gdtr_base, s->gdt_base), vmwrite(hv, VMCS_guest_gdtr_limit, s->gdt_limit);
    vmwrite(hv, VMCS_guest_idtr_base, s->idt_base), vmwrite(hv, VMCS_guest_idtr_limit, s->idt_limit);
    vmwrite(hv, VMCS_guest_cr0, s->cr0);
    vmwrite(hv, VMCS_guest_cr4, s->cr4);
    vmwrite(hv, VMCS_cr0_read_shadow, hv->vcpu.cr0);
    vmwrite(hv, VMCS_cr4_read_shadow, hv->vcpu.cr4);
    vmwrite(hv, VMCS_guest_interruptibility_state, s->interruptibility & (BLOCK_STI | BLOCK_MOV_SS | BLOCK_NMI));
    vmwrite(hv, VMCS_guest_activity_state, ACTIVITY_ACTIVE);
    controls = s->efer & EFER_LMA ? controls | VMX_ENTRY_IA_32E_MODE_GUEST : controls & ~(uint64_t)VMX_ENTRY_IA_32E_MODE_GUEST;
    vmwrite(hv, VMCS_vm_entry_controls, controls);
    physical_write64(hv->cpu, listed_hpa(MSR_LIST_GUEST, LIST_EFER) + 8, s->efer);
}

static uint64_t rip(struct hv *hv) { return vmread(hv, VMCS_guest_rip); }
static void set_rip(struct hv *hv, uint64_t value) { vmwrite(hv, VMCS_guest_rip, value); }
static uint64_t rsp(struct hv *hv) { return vmread(hv, VMCS_guest_rsp); }
static uint64_t rflags(struct hv *hv) { return vmread(hv, VMCS_guest_rflags); }
static void set_rflags(struct hv *hv, uint64_t value) { vmwrite(hv, VMCS_guest_rflags, value); }
static uint32_t shadow(struct hv *hv) { return (uint32_t)vmread(hv, VMCS_guest_interruptibility_state); }
static void set_shadow(struct hv *hv, uint32_t value) { vmwrite(hv, VMCS_guest_interruptibility_state, value); }
static void set_root(struct hv *hv, uint64_t hpa) { vmwrite(hv, VMCS_guest_cr3, hpa); }
static void set_exceptions(struct hv *hv, uint32_t bitmap) { vmwrite(hv, VMCS_exception_bitmap, bitmap); }
static void set_dr7(struct hv *hv, uint64_t value) { vmwrite(hv, VMCS_guest_dr7, value); }

static void inject(struct hv *hv, uint32_t event, uint32_t error, uint32_t length)
{
    vmwrite(hv, VMCS_vm_entry_interruption_info, event);
    if (event & EVENT_HAS_ERROR)
        vmwrite(hv, VMCS_vm_entry_exception_error_code, error);
    if (EVENT_TYPE(event) >= TYPE_SOFTWARE_INTERRUPT)
        vmwrite(hv, VMCS_vm_entry_instruction_length, length);
}

static void set_window(struct hv *hv, bool wanted)
{
    uint64_t controls = vmread(hv, VMCS_primary_proc_based_controls);
    controls = wanted ? controls | VMX_PRI_INTERRUPT_WINDOW_EXITING : controls & ~(uint64_t)VMX_PRI_INTERRUPT_WINDOW_EXITING;
    vmwrite(hv, VMCS_primary_proc_based_controls, controls);
}

static bool msr_place(struct hv *hv, uint32_t index, uint32_t *field, uint64_t *hpa)
{
    *hpa = 0;
    for (unsigned n = LIST_STAR; n < NR_LISTED; n++)
        if (listed_index[n] == index)
            *hpa = listed_hpa(MSR_LIST_GUEST, n) + 8;
    (void)hv;
    switch (index) {
    case 0x174: *field = VMCS_guest_ia32_sysenter_cs; return true;
    case 0x175: *field = VMCS_guest_ia32_sysenter_esp; return true;
    case 0x176: *field = VMCS_guest_ia32_sysenter_eip; return true;
    case 0xc0000100: *field = VMCS_guest_fs_base; return true;
    case 0xc0000101: *field = VMCS_guest_gs_base; return true;
    default: return *hpa != 0;
    }
}

static bool get_msr(struct hv *hv, uint32_t index, uint64_t *value)
{
    uint32_t field = 0;
    uint64_t hpa;
    if (!msr_place(hv, index, &field, &hpa))
        return false;
    *value = hpa ? physical_read64(hv->cpu, hpa) : vmread(hv, field);
    return true;
}

static bool set_msr(struct hv *hv, uint32_t index, uint64_t value)
{
    uint32_t field = 0;
    uint64_t hpa, before;
    if (!msr_place(hv, index, &field, &hpa))
        return false;
    /* the processor judges the value, then gets its own back */
    if (!x86_rdmsr(hv->cpu, index, &before) || !x86_wrmsr(hv->cpu, index, value))
        return false;
    (void)x86_rdmsr(hv->cpu, index, &value);
    (void)x86_wrmsr(hv->cpu, index, before);
    if (hpa)
        physical_write64(hv->cpu, hpa, value);
    else
        vmwrite(hv, field, value);
    return true;
}

/* ---- entry and exit -------------------------------------------------------------------------------------------------------- */

static enum hv_entered enter(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    enum vmx_result result = (v->launched ? vmx_vmresume : vmx_vmlaunch)(hv->cpu, &v->gprs);
    if (result == VMX_SUCCEED || result == VMX_EXITED) {
        if (result == VMX_SUCCEED || !(vmread(hv, VMCS_exit_reason) & EXIT_REASON_ENTRY_FAILED) || (hv->history & HISTORY_LAUNCHED))
            v->launched = 1;
        return result == VMX_SUCCEED ? HV_ENTERED : HV_EXITED;
    }
    v->exit = (struct hv_exit){ .reason = (uint32_t)vmread(hv, VMCS_vm_instruction_error) };
    return HV_REFUSED;
}

static void read_exit(struct hv *hv)
{
    hv->vcpu.exit = (struct hv_exit){
        .reason = (uint32_t)vmread(hv, VMCS_exit_reason), .length = (uint32_t)vmread(hv, VMCS_exit_instruction_length),
        .qualification = vmread(hv, VMCS_exit_qualification), .rip = vmread(hv, VMCS_guest_rip),
        .interruption = (uint32_t)vmread(hv, VMCS_exit_interruption_info),
        .interruption_error = (uint32_t)vmread(hv, VMCS_exit_interruption_error_code),
        .vectoring = (uint32_t)vmread(hv, VMCS_idt_vectoring_info),
        .vectoring_error = (uint32_t)vmread(hv, VMCS_idt_vectoring_error_code),
    };
}

/* ---- one handler for each exit reason ------------------------------------------------------------------------------------------ */

static enum hv_verdict exception(struct hv *hv, kl_exit *exit)
{
    const struct hv_exit *e = &hv->vcpu.exit;
    if (EVENT_TYPE(e->interruption) == TYPE_NMI)
        return HV_RESUME; /* the host's own */
    if (EVENT_VECTOR(e->interruption) == VEC_PF)
        return hv_handle_page_fault(hv, e->qualification, e->interruption_error, exit);
    return hv_handle_exception(hv, EVENT_VECTOR(e->interruption), exit);
}

static enum hv_verdict external_interrupt(struct hv *hv, kl_exit *exit)
{
    (void)exit; /* the host took it as it left the guest */
    hv_decide(hv, DECIDE_INTERRUPT, 0, 0);
    return HV_RESUME;
}

static enum hv_verdict cr_access(struct hv *hv, kl_exit *exit)
{
    uint64_t q = hv->vcpu.exit.qualification;
    unsigned cr = q & 15, type = q >> 4 & 3, gpr = q >> 8 & 15;
    uint64_t *r = &hv->vcpu.gprs.r[gpr], value = *r;
    struct silicon_state s;
    bool ok = true;
    hv_decide(hv, DECIDE_CR, cr | type << 4, value);
    hv_get_state(hv, &s);
    bool is_64 = (s.efer & EFER_LMA) && (s.seg[CS].attr & SEG_L);
    if (gpr == RSP)
        value = s.gpr[RSP];
    if (!is_64)
        value &= 0xffffffffu;
    switch (type) {
    case 0:
        ok = cr == 0 ? hv_set_cr0(hv, value) : cr == 3 ? hv_set_cr3(hv, value) : cr == 4 ? hv_set_cr4(hv, value) : hv_set_cr8(hv, value);
        break;
    case 1:
        value = cr == 3 ? hv->vcpu.cr3 : hv->vcpu.cr8;
        if (gpr == RSP)
            vmwrite(hv, VMCS_guest_rsp, value);
        *r = value;
        break;
    case 2: /* CLTS: TS is the guest's own, so this does not happen */
        return hv_unknown(hv, exit);
    case 3: { /* LMSW: bits 3:0, and PE cannot be cleared */
        uint64_t source = q >> 16 & 15;
        ok = hv_set_cr0(hv, (s.cr0 & ~14ull) | source);
        break;
    }
    }
    if (!ok)
        hv_inject(hv, VEC_GP, true, 0);
    else
        hv_skip(hv, hv->vcpu.exit.length);
    return HV_RESUME;
}

static enum hv_verdict dr_access(struct hv *hv, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t q = v->exit.qualification;
    unsigned dr = q & 7, gpr = q >> 8 & 15;
    uint64_t *r = &v->gprs.r[gpr], value = *r;
    struct silicon_state s;
    (void)exit;
    hv_get_state(hv, &s);
    if (dr == 4 || dr == 5) {
        if (s.cr4 & CR4_DE) {
            hv_inject(hv, VEC_UD, false, 0);
            return HV_RESUME;
        }
        dr += 2;
    }
    if (q & 16) {
        if (v->debug_enabled) /* they belong to user space's debugger */
            value = dr == 6 ? 0xffff0ff0 : dr == 7 ? 0x400 : 0;
        else
            value = dr < 4 ? v->dr[dr] : dr == 6 ? v->dr6 : v->dr7;
        if (gpr == RSP)
            vmwrite(hv, VMCS_guest_rsp, value);
        *r = value;
    } else if (!v->debug_enabled) {
        if (gpr == RSP)
            value = s.gpr[RSP];
        if (!((s.efer & EFER_LMA) && (s.seg[CS].attr & SEG_L)))
            value &= 0xffffffffu;
        if (dr >= 6 && value >> 32) {
            hv_inject(hv, VEC_GP, true, 0);
            return HV_RESUME;
        }
        if (dr < 4)
            v->dr[dr] = value;
        else if (dr == 6)
            v->dr6 = (value & 0xe00f) | 0xffff0ff0;
        else
            v->dr7 = (value & 0xffff2bff) | 0x400;
    }
    hv_decide(hv, DECIDE_DR, dr, value);
    hv_skip(hv, v->exit.length);
    return HV_RESUME;
}

static enum hv_verdict undefined(struct hv *hv, kl_exit *exit)
{
    (void)exit; /* VMX, MONITOR and MWAIT are hidden from guests */
    hv_decide(hv, DECIDE_UNDEFINED, hv->vcpu.exit.rip, hv->vcpu.exit.reason);
    hv_inject(hv, VEC_UD, false, 0);
    return HV_RESUME;
}

/* Cache control without caches. */
static enum hv_verdict invd(struct hv *hv, kl_exit *exit)
{
    (void)exit;
    hv_skip(hv, hv->vcpu.exit.length);
    return HV_RESUME;
}

typedef enum hv_verdict handler(struct hv *hv, kl_exit *exit);
static handler *const handlers[] = {
    [EXIT_REASON_EXCEPTION_OR_NMI] = exception,
    [EXIT_REASON_EXTERNAL_INTERRUPT] = external_interrupt,
    [EXIT_REASON_TRIPLE_FAULT] = hv_shutdown,
    [EXIT_REASON_INTERRUPT_WINDOW] = hv_handle_window,
    [EXIT_REASON_CPUID] = hv_handle_cpuid,
    [EXIT_REASON_HLT] = hv_handle_hlt,
    [EXIT_REASON_INVD] = invd,
    [EXIT_REASON_CR_ACCESS] = cr_access,
    [EXIT_REASON_DR_ACCESS] = dr_access,
    [EXIT_REASON_IO_INSTRUCTION] = hv_handle_io,
    [EXIT_REASON_RDMSR] = hv_handle_rdmsr,
    [EXIT_REASON_WRMSR] = hv_handle_wrmsr,
    [EXIT_REASON_VMCALL] = undefined,
    [EXIT_REASON_VMCLEAR] = undefined,
    [EXIT_REASON_VMLAUNCH] = undefined,
    [EXIT_REASON_VMPTRLD] = undefined,
    [EXIT_REASON_VMPTRST] = undefined,
    [EXIT_REASON_VMREAD] = undefined,
    [EXIT_REASON_VMRESUME] = undefined,
    [EXIT_REASON_VMWRITE] = undefined,
    [EXIT_REASON_VMXOFF] = undefined,
    [EXIT_REASON_VMXON] = undefined,
    [EXIT_REASON_MONITOR] = undefined,
    [EXIT_REASON_MWAIT] = undefined,
};

static enum hv_verdict handle(struct hv *hv, kl_exit *exit)
{
    uint32_t reason = hv->vcpu.exit.reason;
    if (reason & EXIT_REASON_ENTRY_FAILED) {
        exit->failed_check = silicon_entry_check(hv->cpu);
        return hv_unknown(hv, exit);
    }
    if (reason >= sizeof handlers / sizeof handlers[0] || !handlers[reason])
        return hv_unknown(hv, exit);
    return handlers[reason](hv, exit);
}

const struct hv_vendor hv_intel = {
    .host_init = host_init, .vcpu_setup = vcpu_setup, .get = get, .put = put, .rip = rip, .set_rip = set_rip, .rsp = rsp, .rflags = rflags,
    .set_rflags = set_rflags, .shadow = shadow, .set_shadow = set_shadow, .set_root = set_root, .inject = inject, .set_window = set_window,
    .set_exceptions = set_exceptions, .set_dr7 = set_dr7, .get_msr = get_msr, .set_msr = set_msr, .enter = enter, .read_exit = read_exit,
    .handle = handle,
    .cr0_guest_owned = ~(uint64_t)(CR0_PG | CR0_PE | CR0_WP | CR0_NE | CR0_NW | CR0_CD),
    .cr4_guest_owned = ~(uint64_t)(CR4_PSE | CR4_PAE | CR4_PGE | CR4_VMXE | CR4_VME),
    .shutdown_reason = EXIT_REASON_TRIPLE_FAULT,
};
