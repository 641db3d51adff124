/* Ports, strings and the answers of user space: what an exit asked and how the next run completes it (facts 1.3). */
#include "hv.h"

#include <string.h>

static uint64_t address_mask(unsigned bytes) { return bytes == 8 ? ~0ull : bytes == 4 ? 0xffffffffu : 0xffffu; }
static uint64_t sized(uint64_t value, unsigned bytes) { return bytes == 8 ? value : value & ((1ull << 8 * bytes) - 1); }

enum { STRING_PAGES = 16 }; /* a longer string is several exits */

/* How many elements user space can have, all of their pages present. 0: the guest got its #PF or #GP. */
static uint64_t string_reach(struct hv *hv, const struct silicon_state *s, struct hv_io *io, unsigned seg, uint64_t offset)
{
    uint64_t reach = 0, mask = address_mask(io->address_size), checked = ~0ull;
    bool is_64 = (s->efer & EFER_LMA) && (s->seg[CS].attr & SEG_L);
    uint32_t access = (io->is_in ? PF_W : 0u) | ((s->cr0 & CR0_PE) && (s->seg[SS].attr & SEG_DPL) == SEG_DPL ? PF_U : 0u);
    unsigned pages = 0;
    for (; reach < io->count; reach++, offset = (io->down ? offset - io->size : offset + io->size) & mask) {
        uint64_t linear = (is_64 && seg < FS ? 0 : s->seg[seg].base) + offset;
        if (!is_64)
            linear &= 0xffffffffu;
        if (reach == 0)
            io->address = linear;
        if (!is_64 && offset + io->size - 1 > s->seg[seg].limit) {
            if (reach == 0)
                hv_inject(hv, seg == SS ? VEC_SS : VEC_GP, true, 0);
            break;
        }
        if (reach && io->address + (io->down ? -(uint64_t)io->size : io->size) * reach != linear)
            break; /* wrapped: what follows is another exit */
        for (unsigned edge = 0; edge < 2; edge++) {
            uint64_t at = linear + (edge ? io->size - 1u : 0);
            struct guest_walk walk;
            if (at >> PAGE_SHIFT == checked)
                continue;
            if (++pages > STRING_PAGES && reach)
                return reach;
            if (!mmu_walk(hv, at, access, true, &walk)) {
                if (reach == 0)
                    hv_inject_page_fault(hv, at, walk.error);
                return reach;
            }
            checked = at >> PAGE_SHIFT;
        }
    }
    return reach;
}

static enum hv_verdict string_io(struct hv *hv, const struct hv_decoded *d, kl_exit *exit)
{
    struct hv_io *io = &hv->vcpu.io;
    struct silicon_state s;
    hv_get_state(hv, &s);
    io->string = 1;
    io->down = (s.rflags & FLAG_DF) != 0;
    io->rep = d->rep != 0;
    io->count = io->rep ? s.gpr[RCX] & address_mask(io->address_size) : 1;
    if (io->count == 0) {
        hv_skip(hv, io->length);
        return HV_RESUME;
    }
    io->count = string_reach(hv, &s, io, io->is_in ? ES : d->seg, s.gpr[io->is_in ? RDI : RSI] & address_mask(io->address_size));
    if (io->count == 0)
        return HV_RESUME;
    hv->vcpu.pending = io->is_in ? PENDING_STRING_IN : PENDING_STRING_OUT;
    exit->string = 1;
    exit->down = io->down;
    exit->rep = io->rep;
    exit->count = io->count;
    exit->address = io->address;
    exit->value = io->is_in ? ~0ull : 0;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_io(struct hv *hv, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct hv_decoded d;
    if (!emulate_decode(hv, &d) || d.class != CLASS_IO)
        return hv_unknown(hv, exit); /* the code changed under the exit */
    v->io = (struct hv_io){ .count = 1, .port = d.immediate ? d.port : (uint16_t)v->gprs.r[RDX], .size = d.size, .is_in = d.is_in,
                            .length = d.length, .address_size = d.address_size };
    hv_decide(hv, DECIDE_IO, v->io.port, v->io.size);
    exit->reason = KL_EXIT_IO;
    exit->port = v->io.port;
    exit->size = v->io.size;
    exit->is_write = !d.is_in;
    exit->count = 1;
    exit->instruction_length = d.length;
    v->answered = 0;
    if (d.string)
        return string_io(hv, &d, exit);
    v->pending = d.is_in ? PENDING_IN : PENDING_OUT;
    exit->value = sized(d.is_in ? ~0ull : v->gprs.r[RAX], d.size);
    if (!d.is_in)
        silicon_emit(hv->cpu, EVENT_PORT, d.size | 1u << 8, v->io.port, exit->value, 0, 0);
    return HV_TO_USER;
}

/* Moves the string registers over what was transferred; RIP stays while elements are left. */
static void advance_string(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    const struct hv_io *io = &v->io;
    uint64_t mask = address_mask(io->address_size), *index = &v->gprs.r[io->is_in ? RDI : RSI], *count = &v->gprs.r[RCX];
    uint64_t keep = io->address_size == 2 ? ~mask : 0, distance = io->count * io->size;
    *index = (*index & keep) | ((io->down ? *index - distance : *index + distance) & mask);
    if (io->rep) {
        *count = (*count & keep) | ((*count - io->count) & mask);
        if (*count & mask)
            return;
    }
    hv_skip(hv, io->length);
}

static void fill_with_ones(struct hv *hv)
{
    const struct hv_io *io = &hv->vcpu.io;
    const uint64_t ones = ~0ull;
    for (uint64_t k = 0; k < io->count; k++)
        if (!mmu_write_linear(hv, io->address + (io->down ? -(k * io->size) : k * io->size), &ones, io->size))
            return;
}

/* At the next run: what user space answered, or what an unanswered access gives. */
void hv_complete_pending(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    enum hv_pending pending = (enum hv_pending)v->pending;
    uint64_t value = v->answered ? v->answer : ~0ull, *rax = &v->gprs.r[RAX];
    v->pending = PENDING_NONE;
    switch (pending) {
    case PENDING_IN:
        value = sized(value, v->io.size);
        *rax = v->io.size == 4 ? value : (*rax & ~((1ull << 8 * v->io.size) - 1)) | value;
        silicon_emit(hv->cpu, EVENT_PORT, v->io.size, v->io.port, value, 0, 0);
        hv_skip(hv, v->io.length);
        break;
    case PENDING_OUT:
        hv_skip(hv, v->io.length);
        break;
    case PENDING_STRING_IN:
        if (!v->answered)
            fill_with_ones(hv);
        advance_string(hv);
        break;
    case PENDING_STRING_OUT:
        advance_string(hv);
        break;
    case PENDING_CPUID: {
        uint32_t out[4];
        memcpy(out, v->answer_regs, sizeof out);
        if (!v->answered)
            silicon_guest_cpuid(hv->cpu, (uint32_t)*rax, (uint32_t)v->gprs.r[RCX], out);
        v->gprs.r[RAX] = out[0], v->gprs.r[RBX] = out[1], v->gprs.r[RCX] = out[2], v->gprs.r[RDX] = out[3];
        hv_skip(hv, v->io.length);
        break;
    }
    case PENDING_MMIO_READ:
        if (!v->answered)
            hv_complete_device(hv, ~0ull);
        break;
    case PENDING_BLOCK:
    case PENDING_NONE:
        break;
    }
}

void hv_complete_device(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (v->nr_log == HV_LOG || !v->device.size)
        return;
    v->device.value = sized(value, v->device.size);
    v->log[v->nr_log++] = v->device;
    silicon_emit(hv->cpu, EVENT_MMIO, v->device.size | (uint32_t)v->device.is_write << 8, v->device.address, v->device.value, 0, 0);
    v->device.size = 0;
}

int hv_complete(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    switch (v->pending) {
    case PENDING_STRING_IN: /* one value for all elements */
        for (uint64_t k = 0; k < v->io.count; k++)
            if (!mmu_write_linear(hv, v->io.address + (v->io.down ? -(k * v->io.size) : k * v->io.size), &value, v->io.size))
                break;
        v->answered = 1;
        return 0;
    case PENDING_IN:
    case PENDING_OUT:
    case PENDING_STRING_OUT:
        v->answer = value;
        v->answered = 1;
        return 0;
    case PENDING_MMIO_READ:
        if (!v->answered)
            hv_complete_device(hv, value);
        else
            v->log[v->nr_log - 1].value = sized(value, v->log[v->nr_log - 1].size);
        v->answered = 1;
        return 0;
    default:
        return hv_fails(hv, KL_EINVAL, "there is no access to answer: the last stop was none, or the state was edited since");
    }
}

int hv_complete_cpuid(struct hv *hv, const uint32_t out[4])
{
    if (hv->vcpu.pending != PENDING_CPUID)
        return hv_fails(hv, KL_EINVAL, "there is no CPUID to answer: the last stop was none, or the state was edited since");
    memcpy(hv->vcpu.answer_regs, out, sizeof hv->vcpu.answer_regs);
    hv->vcpu.answered = 1;
    return 0;
}

void hv_abandon(struct hv *hv, bool skip)
{
    bool has_instruction = hv->vcpu.pending != PENDING_NONE && hv->vcpu.pending != PENDING_MMIO_READ;
    hv->vcpu.pending = PENDING_NONE;
    hv->vcpu.device.size = 0;
    hv->vcpu.nr_log = 0;
    if (skip)
        hv_skip(hv, has_instruction ? hv->vcpu.io.length : hv->vcpu.exit.length);
}

/* The bytes of a string exit in the order of its elements. */
int64_t hv_string(struct hv *hv, void *bytes, uint64_t len, bool answer)
{
    struct hv_vcpu *v = &hv->vcpu;
    const struct hv_io *io = &v->io;
    uint8_t *at = bytes;
    if (v->pending != (answer ? PENDING_STRING_IN : PENDING_STRING_OUT))
        return -1;
    hv->silent += !answer;
    for (uint64_t k = 0; k < io->count && len >= io->size; k++, at += io->size, len -= io->size) {
        uint64_t linear = io->address + (io->down ? -(k * io->size) : k * io->size);
        if (answer ? !mmu_write_linear(hv, linear, at, io->size) : !mmu_read_linear(hv, linear, at, io->size, 0))
            break;
    }
    hv->silent -= !answer;
    v->answered |= answer;
    return at - (uint8_t *)bytes;
}
