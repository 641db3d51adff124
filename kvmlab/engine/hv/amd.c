/* SVM's half of the hypervisor: the VMCB, entry and exit, and what each exit code means (APM vol. 2 ch. 15; facts 1.4 and 1.5).
 *
 * The VMCB is plain memory. Real mode needs no trick: VMRUN takes CR0.PE = 0 with paging on underneath. The first parts tell no
 * instruction length and no operands, so control and debug registers go through the emulator. Interrupts are injected as events;
 * the virtual interrupt serves to notice the window only, for its intercept needs a pending one. */
#include "hv.h"

#include <string.h>

/* ---- the VMCB ---------------------------------------------------------------------------------------------------- */

static uint64_t field(struct hv *hv, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    physical_read(hv->cpu, pool_hpa(POOL_VMCS) + offset, &value, size);
    return value;
}

static void set_field(struct hv *hv, unsigned offset, unsigned size, uint64_t value)
{
    uint64_t old = field(hv, offset, size);
    if (size < 8)
        value &= (1ull << 8 * size) - 1;
    if (old == value)
        return;
    physical_write(hv->cpu, pool_hpa(POOL_VMCS) + offset, &value, size);
    silicon_emit(hv->cpu, EVENT_FIELD_WRITE, offset, old, value, pool_hpa(POOL_VMCS), 0);
}

#define GET(name) field(hv, VMCB_##name, VMCB_SIZE_##name)
#define SET(name, value) set_field(hv, VMCB_##name, VMCB_SIZE_##name, value)

static bool host_init(struct hv *hv)
{
    uint64_t efer;
    return x86_rdmsr(hv->cpu, 0xc0000080, &efer) && x86_wrmsr(hv->cpu, 0xc0000080, efer | EFER_SVME) &&
           x86_wrmsr(hv->cpu, 0xc0010117, pool_hpa(POOL_VMXON));
}

static void let_msr_through(struct hv *hv, uint32_t index)
{
    uint64_t at = pool_hpa(POOL_MSR_BITMAP) + (index >= 0xc0000000 ? 0x800 : 0) + (index & 0x1fff) / 4;
    uint8_t byte;
    physical_read(hv->cpu, at, &byte, 1);
    byte &= (uint8_t)~(3u << 2 * (index & 3));
    physical_write(hv->cpu, at, &byte, 1);
}

static void intercept(struct hv *hv, unsigned bit, bool on)
{
    uint64_t at = pool_hpa(POOL_VMCS) + bit / 8;
    uint8_t byte, old;
    physical_read(hv->cpu, at, &old, 1);
    byte = (uint8_t)(on ? old | 1u << (bit & 7) : old & ~(1u << (bit & 7)));
    if (byte == old)
        return;
    physical_write(hv->cpu, at, &byte, 1);
    silicon_emit(hv->cpu, EVENT_FIELD_WRITE, bit / 8, old, byte, pool_hpa(POOL_VMCS), 0);
}

static bool vcpu_setup(struct hv *hv)
{
    static const uint32_t through[] = { 0x174, 0x175, 0x176, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101,
                                        0xc0000102 };
    static const uint8_t wanted[] = { SVM_EXIT_INTR, SVM_EXIT_NMI, SVM_EXIT_SMI, SVM_EXIT_CPUID, SVM_EXIT_HLT, SVM_EXIT_INVLPGA,
                                      SVM_EXIT_IO, SVM_EXIT_MSR, SVM_EXIT_TASK_SWITCH, SVM_EXIT_SHUTDOWN, SVM_EXIT_VMRUN,
                                      SVM_EXIT_VMMCALL, SVM_EXIT_VMLOAD, SVM_EXIT_VMSAVE, SVM_EXIT_STGI, SVM_EXIT_CLGI,
                                      SVM_EXIT_SKINIT, SVM_EXIT_RDTSCP };
    uint8_t ones[64];
    memset(ones, 0xff, sizeof ones);
    for (unsigned at = 0; at < PAGE_SIZE; at += 8)
        physical_write64(hv->cpu, pool_hpa(POOL_VMCS) + at, 0);
    for (unsigned at = 0; at < 5 * PAGE_SIZE; at += sizeof ones) /* both maps: everything exits */
        physical_write(hv->cpu, pool_hpa(POOL_IO_BITMAPS) + at, ones, sizeof ones);
    for (unsigned k = 0; k < sizeof through / sizeof through[0]; k++)
        let_msr_through(hv, through[k]);
    for (unsigned k = 0; k < sizeof wanted; k++)
        intercept(hv, wanted[k], true);
    SET(intercept_cr_read, 1u << 0 | 1u << 3 | 1u << 4);
    SET(intercept_cr_write, 1u << 0 | 1u << 3 | 1u << 4);
    SET(intercept_dr_read, 0xff);
    SET(intercept_dr_write, 0xff);
    SET(intercept_exceptions, 1u << VEC_PF);
    SET(iopm_base_pa, pool_hpa(POOL_IO_BITMAPS));
    SET(msrpm_base_pa, pool_hpa(POOL_MSR_BITMAP));
    SET(guest_asid, 1);
    SET(int_ctl, VMCB_V_INTR_MASKING);
    SET(dr6, DR6_FIXED1);
    SET(dr7, DR7_FIXED1);
    return svm_vmsave(hv->cpu, pool_hpa(POOL_HOST_VMCB)) == SVM_DONE;
}

/* ---- state -------------------------------------------------------------------------------------------------------------- */

static const uint16_t segment_offset[8] = {
    [ES] = VMCB_es_selector, [CS] = VMCB_cs_selector, [SS] = VMCB_ss_selector, [DS] = VMCB_ds_selector,
    [FS] = VMCB_fs_selector, [GS] = VMCB_gs_selector, [LDTR] = VMCB_ldtr_selector, [TR] = VMCB_tr_selector,
};
enum { SEGMENT_ATTRIB = 2, SEGMENT_LIMIT = 4, SEGMENT_BASE = 8 };

static void get(struct hv *hv, struct silicon_state *s)
{
    s->rip = GET(rip);
    s->gpr[RSP] = GET(rsp);
    s->rflags = GET(rflags);
    for (unsigned k = 0; k < 8; k++) {
        unsigned at = segment_offset[k];
        uint32_t attr = (uint32_t)field(hv, at + SEGMENT_ATTRIB, 2);
        s->seg[k] = (struct silicon_segment){ .base = field(hv, at + SEGMENT_BASE, 8), .limit = (uint32_t)field(hv, at + SEGMENT_LIMIT, 4),
                                              .attr = attr ? (attr & 0xff) | (attr & 0xf00) << 4 : SEG_UNUSABLE,
                                              .selector = (uint16_t)field(hv, at, 2) };
    }
    s->gdt_base = GET(gdtr_base), s->gdt_limit = (uint32_t)GET(gdtr_limit);
    s->idt_base = GET(idtr_base), s->idt_limit = (uint32_t)GET(idtr_limit);
    s->cr0 = GET(cr0), s->cr3 = GET(cr3), s->cr4 = GET(cr4);
    s->dr7 = GET(dr7);
    s->interruptibility = GET(int_state) & VMCB_INT_SHADOW ? BLOCK_STI : 0;
    s->activity = ACTIVITY_ACTIVE;
}

static void put(struct hv *hv, const struct silicon_state *s)
{
    bool real = !(s->cr0 & CR0_PE);
    SET(rip, s->rip);
    SET(rsp, s->gpr[RSP]);
    SET(rflags, s->rflags);
    for (unsigned k = 0; k < 8; k++) {
        unsigned at = segment_offset[k];
        uint32_t attr = s->seg[k].attr;
        attr = attr & SEG_UNUSABLE ? 0 : (attr & 0xff) | (attr >> 4 & 0xf00);
        set_field(hv, at, 2, s->seg[k].selector);
        set_field(hv, at + SEGMENT_ATTRIB, 2, attr);
        set_field(hv, at + SEGMENT_LIMIT, 4, s->seg[k].limit);
        set_field(hv, at + SEGMENT_BASE, 8, s->seg[k].base);
    }
    SET(cpl, real ? 0 : s->rflags & FLAG_VM ? 3 : (s->seg[SS].attr & SEG_DPL) >> SEG_DPL_SHIFT);
    SET(gdtr_base, s->gdt_base), SET(gdtr_limit, s->gdt_limit);
    SET(idtr_base, s->idt_base), SET(idtr_limit, s->idt_limit);
    SET(cr0, s->cr0);
    SET(cr4, s->cr4);
    SET(efer, s->efer | EFER_SVME);
    SET(int_state, s->interruptibility & (BLOCK_STI | BLOCK_MOV_SS) ? VMCB_INT_SHADOW : 0);
}

static uint64_t rip(struct hv *hv) { return GET(rip); }
static void set_rip(struct hv *hv, uint64_t value) { SET(rip, value); }
static uint64_t rsp(struct hv *hv) { return GET(rsp); }
static uint64_t rflags(struct hv *hv) { return GET(rflags); }
static void set_rflags(struct hv *hv, uint64_t value) { SET(rflags, value); }
static uint32_t shadow(struct hv *hv) { return GET(int_state) & VMCB_INT_SHADOW ? BLOCK_STI : 0; }
static void set_shadow(struct hv *hv, uint32_t value) { SET(int_state, value & (BLOCK_STI | BLOCK_MOV_SS) ? VMCB_INT_SHADOW : 0); }
static void set_root(struct hv *hv, uint64_t hpa) { SET(cr3, hpa); }
static void set_exceptions(struct hv *hv, uint32_t bitmap) { SET(intercept_exceptions, bitmap); }
static void set_dr7(struct hv *hv, uint64_t value) { SET(dr7, value); }

static void inject(struct hv *hv, uint32_t event, uint32_t error, uint32_t length)
{
    (void)length;
    SET(event_inj, event);
    SET(event_inj_error, error);
}

static void set_window(struct hv *hv, bool wanted)
{
    uint64_t int_ctl = GET(int_ctl) & ~(uint64_t)(VMCB_V_IRQ | VMCB_V_IGN_TPR | 0xf0000);
    intercept(hv, SVM_EXIT_VINTR, wanted);
    SET(int_ctl, wanted ? int_ctl | VMCB_V_IRQ | VMCB_V_IGN_TPR | 0xf0000 : int_ctl);
}

static unsigned msr_offset(uint32_t index)
{
    switch (index) {
    case 0x174: return VMCB_sysenter_cs;
    case 0x175: return VMCB_sysenter_esp;
    case 0x176: return VMCB_sysenter_eip;
    case 0xc0000081: return VMCB_star;
    case 0xc0000082: return VMCB_lstar;
    case 0xc0000083: return VMCB_cstar;
    case 0xc0000084: return VMCB_sfmask;
    case 0xc0000100: return VMCB_fs_base;
    case 0xc0000101: return VMCB_gs_base;
    case 0xc0000102: return VMCB_kernel_gs_base;
    default: return 0;
    }
}

static bool get_msr(struct hv *hv, uint32_t index, uint64_t *value)
{
    unsigned offset = msr_offset(index);
    if (offset)
        *value = field(hv, offset, 8);
    return offset != 0;
}

static bool set_msr(struct hv *hv, uint32_t index, uint64_t value)
{
    unsigned offset = msr_offset(index);
    uint64_t before;
    /* the processor judges the value, then gets its own back */
    if (!offset || !x86_rdmsr(hv->cpu, index, &before) || !x86_wrmsr(hv->cpu, index, value))
        return false;
    (void)x86_rdmsr(hv->cpu, index, &value);
    (void)x86_wrmsr(hv->cpu, index, before);
    set_field(hv, offset, 8, value);
    return true;
}

/* ---- entry and exit --------------------------------------------------------------------------------------------------------- */

enum { ASIDS = 64 };

static enum hv_entered enter(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t asid = GET(guest_asid);
    bool wrapped = false;
    if (v->needs_flush && asid != 0 && ++asid == ASIDS) /* a new tag finds nothing in the TLB */
        asid = 1, wrapped = true;
    SET(guest_asid, asid);
    SET(tlb_control, wrapped);
    SET(rax, v->gprs.r[RAX]);
    SET(cr2, v->cr2);
    SET(dr6, v->debug_enabled ? DR6_FIXED1 : v->dr6);
    SET(int_ctl, (GET(int_ctl) & ~0xffull) | (v->cr8 & 15));
    (void)svm_clgi(hv->cpu);
    (void)svm_vmload(hv->cpu, pool_hpa(POOL_VMCS));
    enum svm_result result = svm_vmrun(hv->cpu, pool_hpa(POOL_VMCS), &v->gprs);
    v->needs_flush = 0;
    if (result == SVM_ENTERED)
        return HV_ENTERED;
    if (result == SVM_EXITED && GET(exit_code) != SVM_EXIT_INVALID)
        return HV_EXITED;
    (void)svm_vmload(hv->cpu, pool_hpa(POOL_HOST_VMCB));
    (void)svm_stgi(hv->cpu);
    SET(event_inj, 0);
    v->exit = (struct hv_exit){ .reason = (uint32_t)SVM_EXIT_INVALID };
    return HV_REFUSED;
}

static bool vector_has_error(unsigned vector) { return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC; }

static void read_exit(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    (void)svm_vmsave(hv->cpu, pool_hpa(POOL_VMCS));
    (void)svm_vmload(hv->cpu, pool_hpa(POOL_HOST_VMCB));
    (void)svm_stgi(hv->cpu);
    v->gprs.r[RAX] = GET(rax);
    v->cr2 = GET(cr2);
    v->cr8 = GET(int_ctl) & 15;
    if (!v->debug_enabled)
        v->dr6 = GET(dr6);
    SET(event_inj, 0);
    v->exit = (struct hv_exit){ .reason = (uint32_t)GET(exit_code), .qualification = GET(exit_info_1), .info2 = GET(exit_info_2),
                                .rip = GET(rip), .vectoring = (uint32_t)GET(exit_int_info),
                                .vectoring_error = (uint32_t)GET(exit_int_info_error) };
    unsigned vector = v->exit.reason - SVM_EXIT_EXCEPTION;
    if (vector < 32) {
        v->exit.interruption = vector | TYPE_HARDWARE_EXCEPTION << 8 | (vector_has_error(vector) ? EVENT_HAS_ERROR : 0u) | EVENT_VALID;
        v->exit.interruption_error = (uint32_t)v->exit.qualification;
    }
    uint32_t cut = v->exit.vectoring;
    if (EVENT_TYPE(cut) == TYPE_HARDWARE_EXCEPTION && (EVENT_VECTOR(cut) == VEC_BP || EVENT_VECTOR(cut) == VEC_OF))
        v->exit.vectoring = (cut & ~0x700u) | TYPE_SOFTWARE_EXCEPTION << 8; /* INT3 and INTO have no type of their own here */
}

/* ---- one handler for each exit code --------------------------------------------------------------------------------------------- */

static enum hv_verdict exception(struct hv *hv, kl_exit *exit)
{
    const struct hv_exit *e = &hv->vcpu.exit;
    unsigned vector = e->reason - SVM_EXIT_EXCEPTION;
    if (vector == VEC_PF)
        return hv_handle_page_fault(hv, e->info2, (uint32_t)e->qualification, exit);
    return hv_handle_exception(hv, vector, exit);
}

static enum hv_verdict host_event(struct hv *hv, kl_exit *exit)
{
    (void)exit; /* the host takes it when GIF is set again */
    hv_decide(hv, DECIDE_INTERRUPT, 0, 0);
    return HV_RESUME;
}

static enum hv_verdict msr(struct hv *hv, kl_exit *exit)
{
    return hv->vcpu.exit.qualification & 1 ? hv_handle_wrmsr(hv, exit) : hv_handle_rdmsr(hv, exit);
}

static enum hv_verdict by_emulator(struct hv *hv, kl_exit *exit)
{
    hv_decide(hv, hv->vcpu.exit.reason < SVM_EXIT_DR0_READ ? DECIDE_CR : DECIDE_DR, hv->vcpu.exit.reason, 0);
    return hv_emulate(hv, WHY_REGISTER, exit);
}

static enum hv_verdict undefined(struct hv *hv, kl_exit *exit)
{
    (void)exit; /* SVM and RDTSCP are hidden from guests */
    hv_decide(hv, DECIDE_UNDEFINED, hv->vcpu.exit.rip, hv->vcpu.exit.reason);
    hv_inject(hv, VEC_UD, false, 0);
    return HV_RESUME;
}

typedef enum hv_verdict handler(struct hv *hv, kl_exit *exit);
static handler *const handlers[] = {
    [SVM_EXIT_CR0_READ] = by_emulator, [SVM_EXIT_CR0_READ + 3] = by_emulator, [SVM_EXIT_CR0_READ + 4] = by_emulator,
    [SVM_EXIT_CR0_WRITE] = by_emulator, [SVM_EXIT_CR0_WRITE + 3] = by_emulator, [SVM_EXIT_CR0_WRITE + 4] = by_emulator,
    [SVM_EXIT_DR0_READ] = by_emulator, [SVM_EXIT_DR0_READ + 1] = by_emulator, [SVM_EXIT_DR0_READ + 2] = by_emulator,
    [SVM_EXIT_DR0_READ + 3] = by_emulator, [SVM_EXIT_DR0_READ + 4] = by_emulator, [SVM_EXIT_DR0_READ + 5] = by_emulator,
    [SVM_EXIT_DR0_READ + 6] = by_emulator, [SVM_EXIT_DR0_READ + 7] = by_emulator,
    [SVM_EXIT_DR0_WRITE] = by_emulator, [SVM_EXIT_DR0_WRITE + 1] = by_emulator, [SVM_EXIT_DR0_WRITE + 2] = by_emulator,
    [SVM_EXIT_DR0_WRITE + 3] = by_emulator, [SVM_EXIT_DR0_WRITE + 4] = by_emulator, [SVM_EXIT_DR0_WRITE + 5] = by_emulator,
    [SVM_EXIT_DR0_WRITE + 6] = by_emulator, [SVM_EXIT_DR0_WRITE + 7] = by_emulator,
    [SVM_EXIT_EXCEPTION + VEC_DB] = exception, [SVM_EXIT_EXCEPTION + VEC_PF] = exception,
    [SVM_EXIT_INTR] = host_event, [SVM_EXIT_NMI] = host_event, [SVM_EXIT_SMI] = host_event,
    [SVM_EXIT_VINTR] = hv_handle_window,
    [SVM_EXIT_CPUID] = hv_handle_cpuid,
    [SVM_EXIT_HLT] = hv_handle_hlt,
    [SVM_EXIT_IO] = hv_handle_io,
    [SVM_EXIT_MSR] = msr,
    [SVM_EXIT_SHUTDOWN] = hv_shutdown,
    [SVM_EXIT_INVLPGA] = undefined, [SVM_EXIT_VMRUN] = undefined, [SVM_EXIT_VMMCALL] = undefined, [SVM_EXIT_VMLOAD] = undefined,
    [SVM_EXIT_VMSAVE] = undefined, [SVM_EXIT_STGI] = undefined, [SVM_EXIT_CLGI] = undefined, [SVM_EXIT_SKINIT] = undefined,
    [SVM_EXIT_RDTSCP] = undefined,
};

static enum hv_verdict handle(struct hv *hv, kl_exit *exit)
{
    uint32_t code = hv->vcpu.exit.reason;
    if (code >= sizeof handlers / sizeof handlers[0] || !handlers[code])
        return hv_unknown(hv, exit);
    return handlers[code](hv, exit);
}

const struct hv_vendor hv_amd = {
    .host_init = host_init, .vcpu_setup = vcpu_setup, .get = get, .put = put, .rip = rip, .set_rip = set_rip, .rsp = rsp, .rflags = rflags,
    .set_rflags = set_rflags, .shadow = shadow, .set_shadow = set_shadow, .set_root = set_root, .inject = inject, .set_window = set_window,
    .set_exceptions = set_exceptions, .set_dr7 = set_dr7, .get_msr = get_msr, .set_msr = set_msr, .enter = enter, .read_exit = read_exit,
    .handle = handle,
    .shutdown_reason = SVM_EXIT_SHUTDOWN,
};
