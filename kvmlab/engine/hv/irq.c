/* Interrupts and injected events: the queue of 256 bits, the window, and deliveries that were cut short (facts 1.7). */
#include "hv.h"

void irq_queue(struct hv *hv, unsigned vector)
{
    hv_come_out(hv);
    hv->vcpu.irq_pending[vector >> 6 & 3] |= 1ull << (vector & 63);
    silicon_emit(hv->cpu, EVENT_IRQ_QUEUED, vector, 0, 0, 0, 0);
}

bool irq_any(const struct hv *hv)
{
    const uint64_t *p = hv->vcpu.irq_pending;
    return (p[0] | p[1] | p[2] | p[3]) != 0;
}

/* The lowest vector first: there is no priority in the kernel. */
static unsigned take(struct hv *hv)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t *word = &hv->vcpu.irq_pending[vector >> 6], bit = 1ull << (vector & 63);
        if (*word & bit) {
            *word &= ~bit;
            return vector;
        }
    }
    return 0;
}

static bool window_open(struct hv *hv)
{
    if (hv->vcpu.nr_log || hv->vcpu.stale_mmio_valid) /* a read from a device is half done: the same instruction must come first */
        return false;
    return (hv->vendor->rflags(hv) & FLAG_IF) && !(hv->vendor->shadow(hv) & (BLOCK_STI | BLOCK_MOV_SS));
}

/* Real mode under vm86 has no VM-entry injection: the event goes through the vector table by hand. */
static bool put_in(struct hv *hv, uint32_t event, uint32_t error, uint32_t length)
{
    silicon_emit(hv->cpu, EVENT_INJECT, event, event & EVENT_HAS_ERROR ? error : 0,
                 EVENT_VECTOR(event) == VEC_PF ? hv->vcpu.cr2 : 0, 0, 0);
    if (hv->vcpu.vm86)
        return emulate_event(hv, event, error, length);
    hv->vendor->inject(hv, event, error, length);
    return true;
}

static void want_window(struct hv *hv, bool wanted)
{
    if (hv->vcpu.window == wanted)
        return;
    hv->vcpu.window = wanted;
    hv->vendor->set_window(hv, wanted);
    if (wanted)
        silicon_emit(hv->cpu, EVENT_WINDOW, 1, 0, 0, 0, 0);
}

bool irq_before_entry(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    bool ok = true, busy = false;
    if (v->event) {
        uint32_t event = v->event;
        v->event = 0;
        ok = put_in(hv, event, v->event_error, v->event_length);
        busy = !v->vm86;
    } else if (v->step_trap) {
        v->dr6 |= DR6_BS;
        ok = put_in(hv, VEC_DB | TYPE_HARDWARE_EXCEPTION << 8 | EVENT_VALID, 0, 0);
        busy = !v->vm86;
    }
    v->step_trap = 0;
    if (ok && !busy && irq_any(hv) && window_open(hv)) {
        unsigned vector = take(hv);
        ok = put_in(hv, vector | TYPE_EXTERNAL << 8 | EVENT_VALID, 0, 0);
    }
    want_window(hv, irq_any(hv));
    return ok;
}

enum { OPCODE_INT1 = 0xf1 };

/* SVM tells INT1 as a debug exception; only the instruction shows which it was. */
static bool is_int1(struct hv *hv, uint32_t event)
{
    struct hv_decoded d;
    return !hv->intel && EVENT_TYPE(event) == TYPE_HARDWARE_EXCEPTION && EVENT_VECTOR(event) == VEC_DB && emulate_decode(hv, &d) &&
           d.opcode == OPCODE_INT1;
}

/* The exit came while an event was being delivered: an interrupt goes back to the queue, an instruction (INT n, INT1, INT3, INTO) is executed
 * again, for RIP stands on it; exceptions and NMIs are delivered again. */
void irq_after_exit(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint32_t event = v->exit.vectoring;
    v->event = 0;
    if (!(event & EVENT_VALID))
        return;
    if (EVENT_TYPE(event) == TYPE_EXTERNAL) {
        v->irq_pending[EVENT_VECTOR(event) >> 6] |= 1ull << (EVENT_VECTOR(event) & 63);
        return;
    }
    if (EVENT_TYPE(event) >= TYPE_SOFTWARE_INTERRUPT || is_int1(hv, event))
        return;
    v->event = event & (EVENT_VALID | EVENT_HAS_ERROR | 0x7ff);
    v->event_error = v->exit.vectoring_error;
    v->event_length = v->exit.length;
}
