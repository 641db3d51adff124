/* The run loop (facts 1.6): a machine of phases, from user space through entry, guest and exit back to user space.
 *
 * It can stop at each phase and at every instruction border in the guest. host.c sets up the host, slots.c the memory, vcpu.c the
 * virtual processor; exits.c, io.c and the vendors' files handle what comes out of the guest. */
#include "hv.h"

static void set_phase(struct hv *hv, enum hv_phase phase)
{
    hv->vcpu.phase = (uint8_t)phase;
    silicon_emit(hv->cpu, EVENT_PHASE, phase, 0, 0, 0, 0);
}

static void take_over(struct hv *hv) /* the guest's registers are still in the silicon */
{
    struct hv_vcpu *v = &hv->vcpu;
    silicon_store_gprs(hv->cpu, &v->gprs);
    v->cr2 = silicon_cr2(hv->cpu);
    if (!v->debug_enabled)
        v->dr6 = x86_read_dr(hv->cpu, 6);
    hv->vendor->read_exit(hv);
    v->gprs.r[RSP] = hv->vendor->rsp(hv);
    v->hardware_reason = v->exit.reason;
}

void hv_come_out(struct hv *hv)
{
    if (hv->vcpu.block_done)
        emulate_end_block(hv);
    if (hv->vcpu.phase != PHASE_ENTERED)
        return;
    silicon_kick(hv->cpu);
    take_over(hv);
    set_phase(hv, PHASE_HANDLED);
}

static void load_debug_registers(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t dr7 = v->dr7;
    for (unsigned k = 0; k < 4; k++)
        x86_mov_dr(hv->cpu, k, v->debug_enabled ? v->debug_address[k] : v->dr[k]);
    if (v->debug_enabled) {
        dr7 = 0x600;
        for (unsigned k = 0; k < 4; k++)
            if (v->debug_bits >> k & 1)
                dr7 |= 2u << 2 * k; /* execution, global */
    } else {
        x86_mov_dr(hv->cpu, 6, v->dr6);
    }
    hv->vendor->set_dr7(hv, dr7);
    if (v->debug_step)
        hv->vendor->set_rflags(hv, hv->vendor->rflags(hv) | FLAG_TF | FLAG_RF);
    else if (v->resume_over)
        hv->vendor->set_rflags(hv, hv->vendor->rflags(hv) | FLAG_RF);
    v->resume_over = 0;
}

/* True: the guest was emulated instead, *verdict says what next. */
static bool emulate_instead(struct hv *hv, uint64_t budget, kl_exit *exit, enum hv_verdict *verdict)
{
    struct silicon_state s;
    uint32_t why;
    if (!hv->vcpu.vm86 || hv->real_mode == REAL_VM86)
        return false;
    hv_get_state(hv, &s);
    if (real_mode_expressible(&s, &why)) {
        if (hv->real_mode != REAL_EMULATE)
            return false;
        why = WHY_ALWAYS;
    }
    if (hv->real_mode == REAL_USER) {
        hv->vcpu.hardware_reason = ~0u;
        hv->vcpu.exit = (struct hv_exit){ 0 };
        exit->reason = KL_EXIT_REAL_MODE;
        hv->vcpu.pending = PENDING_BLOCK;
        *verdict = HV_TO_USER;
        return true;
    }
    hv->vcpu.hardware_reason = ~0u;
    hv->vcpu.exit = (struct hv_exit){ 0 };
    *verdict = emulate_block(hv, budget, exit, why);
    return true;
}

static enum hv_entered enter(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    mmu_load_roots(hv);
    load_debug_registers(hv);
    silicon_set_cr2(hv->cpu, v->cr2);
    v->gprs.r[RSP] = hv->vendor->rsp(hv);
    return hv->vendor->enter(hv);
}

static void describe(struct hv *hv, kl_exit *exit)
{
    struct silicon_state s;
    hv_get_state(hv, &s);
    exit->rip = s.rip;
    exit->instructions = silicon_time(hv->cpu);
    exit->sequence = silicon_trace(hv->cpu)->sequence;
}

static int returns(struct hv *hv, kl_exit *exit, uint32_t reason)
{
    exit->reason = reason;
    describe(hv, exit);
    return 0;
}

static int to_user(struct hv *hv, kl_exit *exit)
{
    const struct hv_exit *e = &hv->vcpu.exit;
    set_phase(hv, PHASE_USER);
    exit->hardware_reason = hv->vcpu.hardware_reason;
    exit->qualification = e->qualification;
    exit->info2 = e->info2;
    if (!exit->instruction_length)
        exit->instruction_length = e->length;
    silicon_emit(hv->cpu, EVENT_USER_EXIT, exit->reason, 0, 0, 0, 0);
    describe(hv, exit);
    return 0;
}

static int refused(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_FAIL_ENTRY;
    exit->entry_error = hv->vcpu.exit.reason;
    exit->failed_check = silicon_entry_check(hv->cpu);
    hv->vcpu.hardware_reason = hv->vcpu.exit.reason;
    return to_user(hv, exit);
}

enum { CYCLES_WITHOUT_PROGRESS = 1 << 16 };

static bool no_progress(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t now = silicon_time(hv->cpu);
    v->bad_cycles = now == v->last_time ? v->bad_cycles + 1 : 0;
    v->last_time = now;
    if (v->bad_cycles < CYCLES_WITHOUT_PROGRESS)
        return false;
    v->bad_cycles = 0;
    return true;
}

static void begin(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (v->phase != PHASE_USER)
        return;
    silicon_emit(hv->cpu, EVENT_USER_ENTER, 0, 0, 0, 0, 0);
    hv_complete_pending(hv);
    set_phase(hv, PHASE_PRE_ENTRY);
}

int hv_run(struct hv *hv, const kl_run_args *args, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct trace *trace = silicon_trace(hv->cpu);
    if (!v->created)
        return hv_fails(hv, KL_EINVAL, "there is no virtual processor yet: create it after memory slot 0");
    uint64_t started = silicon_time(hv->cpu);
    uint64_t end = started + args->max_instructions < started ? ~0ull : started + args->max_instructions;
    begin(hv);
    for (bool first = true;; first = false) {
        if (trace->stopped_by) {
            exit->event_kind = trace->stopped_by - 1;
            exit->phase = v->phase;
            return returns(hv, exit, KL_EXIT_EVENT);
        }
        if (args->step_phase && !first) {
            exit->event_kind = EVENT_PHASE;
            exit->phase = v->phase;
            return returns(hv, exit, KL_EXIT_EVENT);
        }
        uint64_t now = silicon_time(hv->cpu);
        if (now >= end)
            return returns(hv, exit, KL_EXIT_LIMIT);
        switch (v->phase) {
        case PHASE_USER:
        case PHASE_PRE_ENTRY: {
            enum hv_verdict verdict;
            if (v->block_done) {
                if (emulate_block(hv, end - now, exit, v->block_why) == HV_TO_USER)
                    return to_user(hv, exit);
                break;
            }
            if (silicon_requested(hv->cpu)) {
                silicon_take_request(hv->cpu);
                return returns(hv, exit, KL_EXIT_STOPPED);
            }
            if (no_progress(hv)) {
                exit->no_progress = 1;
                return returns(hv, exit, KL_EXIT_LIMIT);
            }
            if (!irq_before_entry(hv)) {
                v->hardware_reason = ~0u;
                (void)hv_shutdown(hv, exit);
                return to_user(hv, exit);
            }
            if (emulate_instead(hv, end - now, exit, &verdict)) {
                if (verdict == HV_TO_USER)
                    return to_user(hv, exit);
                break;
            }
            switch (enter(hv)) {
            case HV_ENTERED: set_phase(hv, PHASE_ENTERED); break;
            case HV_EXITED: take_over(hv); set_phase(hv, PHASE_EXITED); break;
            case HV_REFUSED: return refused(hv, exit);
            }
            break;
        }
        case PHASE_ENTERED:
            switch (silicon_run(hv->cpu, end - now)) {
            case SILICON_EXIT: take_over(hv); set_phase(hv, PHASE_EXITED); break;
            case SILICON_REQUEST:
                if (trace->stopped_by)
                    break;
                return returns(hv, exit, KL_EXIT_STOPPED);
            case SILICON_WORK:
                if (silicon_time(hv->cpu) != now)
                    break;
                exit->no_progress = 1;
                return returns(hv, exit, KL_EXIT_LIMIT);
            case SILICON_SHUTDOWN: /* a VMX abort: the machine is gone */
                return returns(hv, exit, KL_EXIT_SHUTDOWN);
            default: break;
            }
            break;
        case PHASE_EXITED: {
            uint64_t before = silicon_time(hv->cpu);
            irq_after_exit(hv);
            enum hv_verdict verdict = hv->vendor->handle(hv, exit);
            if (verdict == HV_RESUME && v->debug_step && silicon_time(hv->cpu) != before)
                verdict = hv_debug_stop(hv, exit);
            if (verdict == HV_TO_USER)
                return to_user(hv, exit);
            set_phase(hv, PHASE_HANDLED);
            break;
        }
        case PHASE_HANDLED:
            set_phase(hv, PHASE_PRE_ENTRY);
            break;
        }
    }
}
