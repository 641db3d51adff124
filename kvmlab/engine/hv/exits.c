/* Handlers of exits that both vendors have: skip, inject, CPUID, HLT, page faults, exceptions of real mode (facts 1.4). */
#include "hv.h"

void hv_decide(struct hv *hv, uint32_t what, uint64_t address, uint64_t value)
{
    silicon_emit(hv->cpu, EVENT_DECISION, what, address, value, 0, 0);
}

static uint64_t rip_mask(struct hv *hv)
{
    struct silicon_state s;
    if (!(hv->vcpu.efer & EFER_LMA))
        return 0xffffffffu;
    hv->vendor->get(hv, &s);
    return s.seg[CS].attr & SEG_L ? ~0ull : 0xffffffffu;
}

void hv_skip(struct hv *hv, unsigned length)
{
    if (length == 0) {
        struct hv_decoded d;
        length = emulate_decode(hv, &d) ? d.length : 0;
    }
    hv->vendor->set_rip(hv, (hv->vendor->rip(hv) + length) & rip_mask(hv));
    hv->vendor->set_shadow(hv, hv->vendor->shadow(hv) & ~(uint32_t)(BLOCK_STI | BLOCK_MOV_SS));
    uint64_t flags = hv->vendor->rflags(hv);
    if (flags & FLAG_RF) /* it covers one instruction, and this was it */
        hv->vendor->set_rflags(hv, flags & ~(uint64_t)FLAG_RF);
    hv->vcpu.step_trap = (flags & FLAG_TF) && !hv->vcpu.debug_step;
    silicon_retire(hv->cpu, 1);
}

void hv_inject(struct hv *hv, unsigned vector, bool has_error, uint32_t error)
{
    hv->vcpu.event = vector | TYPE_HARDWARE_EXCEPTION << 8 | (has_error && (hv->vcpu.cr0 & CR0_PE) ? EVENT_HAS_ERROR : 0u) | EVENT_VALID;
    hv->vcpu.event_error = error;
    hv->vcpu.event_length = 0;
}

void hv_inject_page_fault(struct hv *hv, uint64_t gva, uint32_t error)
{
    hv->vcpu.cr2 = gva;
    hv_inject(hv, VEC_PF, true, error);
}

enum hv_verdict hv_unknown(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_UNKNOWN;
    hv_decide(hv, DECIDE_UNKNOWN, hv->vcpu.exit.reason, 0);
    return HV_TO_USER;
}

enum hv_verdict hv_shutdown(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_SHUTDOWN;
    hv_decide(hv, DECIDE_SHUTDOWN, 0, 0);
    silicon_emit(hv->cpu, EVENT_SHUTDOWN, 0, 0, 0, 0, 0);
    return HV_TO_USER;
}

enum hv_verdict hv_debug_stop(struct hv *hv, kl_exit *exit)
{
    hv->vcpu.resume_over = 1;
    exit->reason = KL_EXIT_DEBUG;
    hv_decide(hv, DECIDE_DEBUG, hv->vendor->rip(hv), 0);
    return HV_TO_USER;
}

enum hv_verdict hv_handle_cpuid(struct hv *hv, kl_exit *exit)
{
    struct hv_decoded d;
    hv->vcpu.io.length = (uint8_t)hv->vcpu.exit.length;
    if (!hv->vcpu.exit.length)
        hv->vcpu.io.length = emulate_decode(hv, &d) ? d.length : 2;
    hv_decide(hv, DECIDE_CPUID, hv->vcpu.gprs.r[RAX], hv->vcpu.gprs.r[RCX]);
    hv->vcpu.pending = PENDING_CPUID;
    hv->vcpu.answered = 0;
    exit->reason = KL_EXIT_CPUID;
    exit->instruction_length = hv->vcpu.io.length;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_hlt(struct hv *hv, kl_exit *exit)
{
    hv_skip(hv, hv->vcpu.exit.length);
    silicon_emit(hv->cpu, EVENT_HALT, 0, 0, 0, 0, 0);
    hv_decide(hv, DECIDE_HLT, 0, irq_any(hv));
    if (irq_any(hv) && (hv->vendor->rflags(hv) & FLAG_IF))
        return HV_RESUME;
    exit->reason = KL_EXIT_HLT;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_window(struct hv *hv, kl_exit *exit)
{
    (void)exit;
    hv->vcpu.window = 0;
    hv->vendor->set_window(hv, false);
    silicon_emit(hv->cpu, EVENT_WINDOW, 0, 0, 0, 0, 0);
    return HV_RESUME;
}

static enum hv_verdict after_emulation(struct hv *hv, enum emulated result, kl_exit *exit)
{
    switch (result) {
    case EMULATED_USER: return HV_TO_USER;
    case EMULATED_SHUTDOWN: return hv_shutdown(hv, exit);
    case EMULATED_INJECT: hv_inject(hv, VEC_GP, true, 0); return HV_RESUME;
    case EMULATED_OK: break;
    }
    return HV_RESUME;
}

enum hv_verdict hv_emulate(struct hv *hv, uint32_t why, kl_exit *exit)
{
    return after_emulation(hv, emulate_instruction(hv, why, exit), exit);
}

enum hv_verdict hv_handle_page_fault(struct hv *hv, uint64_t gva, uint32_t error, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct guest_walk walk;
    bool delivering = (v->exit.vectoring & EVENT_VALID) != 0;
    switch (mmu_page_fault(hv, gva, error, &walk)) {
    case MMU_FIXED:
        return HV_RESUME;
    case MMU_GUEST_FAULT:
        v->cr2 = gva;
        hv_decide(hv, DECIDE_GUEST_FAULT, gva, walk.error);
        if (delivering && EVENT_TYPE(v->exit.vectoring) == TYPE_HARDWARE_EXCEPTION) {
            if (EVENT_VECTOR(v->exit.vectoring) == VEC_DF)
                return hv_shutdown(hv, exit);
            if (EVENT_VECTOR(v->exit.vectoring) == VEC_PF) {
                hv_inject(hv, VEC_DF, true, 0);
                return HV_RESUME;
            }
        }
        hv_inject(hv, VEC_PF, true, walk.error);
        return HV_RESUME;
    case MMU_EMULATE:
        break;
    }
    uint64_t gfn = walk.gpa >> PAGE_SHIFT;
    if (delivering) { /* no instruction stores here: an event is being delivered */
        hv_decide(hv, DECIDE_RETRY_DELIVERY, walk.gpa, v->exit.vectoring);
        if (hv_slot_at(hv, walk.gpa)) {
            shadow_zap_gfn(hv, gfn, ZAP_DELIVERY);
            return HV_RESUME;
        }
        uint32_t event = v->event;
        v->event = 0;
        return emulate_event(hv, event, v->event_error, v->event_length) ? HV_RESUME : hv_shutdown(hv, exit);
    }
    bool table = hv_slot_at(hv, walk.gpa) != NULL;
    hv_decide(hv, table ? DECIDE_TABLE_WRITE : DECIDE_MMIO, walk.gpa, error);
    return hv_emulate(hv, table ? WHY_TABLE : WHY_DEVICE, exit);
}

/* An exception other than #PF. Under vm86 the guest believes to be in real mode: the instruction is done, or its exception delivered,
 * by the rules of real mode. */
enum hv_verdict hv_handle_exception(struct hv *hv, unsigned vector, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (vector == VEC_DB && v->debug_enabled)
        return hv_debug_stop(hv, exit);
    if (v->vm86) {
        struct hv_decoded d = { 0 };
        bool privileged = emulate_decode(hv, &d) && d.class != CLASS_OTHER;
        struct silicon_state s;
        uint32_t why;
        hv_get_state(hv, &s);
        bool cut = !real_mode_expressible(&s, &why);
        bool to_guest = !(hv->history & HISTORY_REAL_EXCEPTIONS) && !(cut && hv->real_mode == REAL_VM86);
        if ((vector == VEC_GP && privileged) || to_guest) {
            hv_decide(hv, DECIDE_REAL_MODE, v->exit.rip, vector);
            v->event = 0;
            return hv_emulate(hv, WHY_INSTRUCTION, exit);
        }
    }
    exit->reason = KL_EXIT_EXCEPTION;
    exit->exception = vector;
    exit->error_code = v->exit.interruption & EVENT_HAS_ERROR ? v->exit.interruption_error : 0;
    return HV_TO_USER;
}
