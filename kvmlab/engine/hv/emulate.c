/* The instruction emulator: a second processor on the guest-physical space.
 *
 * It runs the guest's own instruction with the guest's own registers, tables and segment caches and no intercepts, so it knows every
 * instruction that the processor knows. KVM needed it for stores to devices and to shadowed tables and for the privileged
 * instructions of real mode; here also for what virtual-8086 mode cannot express. This is the one file of hv/ that looks into the
 * processor's own header. It keeps no translation across calls; its stores go through the door like all others. */
#include <string.h>

#include "../cpu/access.h"
#include "../cpu/flags.h"
#include "hv.h"

/* ---- the guest's state in and out -------------------------------------------------------------------------------- */

static bool answer(void *context, struct device_access *access)
{
    struct hv *hv = context;
    struct hv_vcpu *v = &hv->vcpu;
    if (access->kind == DEVICE_PORT || v->device_write)
        return false; /* one access to a device for each exit */
    if (!access->is_write && v->stale_mmio_valid) {
        access->value = v->stale_mmio;
        v->stale_mmio_valid = 0;
        return true;
    }
    if (!access->is_write)
        return false;
    v->device = (struct hv_access){ .address = access->address, .value = access->value, .size = access->size, .is_write = 1 };
    v->device_write = 1; /* a store is told when the instruction is done */
    return true;
}

static void load(struct hv *hv, const struct silicon_state *s)
{
    struct cpu *e = hv->emulator;
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t tsc = 0;
    memcpy(e->r, s->gpr, sizeof s->gpr);
    e->r[REG_RIP] = s->rip;
    e->r[REG_ZERO] = 0;
    for (unsigned k = 0; k < 8; k++)
        e->seg[k] = (struct segment){ .base = s->seg[k].base, .limit = s->seg[k].limit, .attr = s->seg[k].attr, .selector = s->seg[k].selector };
    e->gdtr = (struct table_register){ .base = s->gdt_base, .limit = s->gdt_limit };
    e->idtr = (struct table_register){ .base = s->idt_base, .limit = s->idt_limit };
    e->cr0 = s->cr0, e->cr2 = s->cr2, e->cr3 = s->cr3, e->cr4 = s->cr4, e->cr8 = v->cr8;
    e->msr[MSR_EFER] = s->efer;
    e->msr[MSR_APIC_BASE] = v->apic_base;
    memcpy(e->pdpte, v->pdpte, sizeof e->pdpte);
    memset(e->dr, 0, sizeof e->dr);
    e->dr[6] = DR6_FIXED1;
    e->dr[7] = DR7_FIXED1;
    if (!v->debug_enabled) { /* else they belong to user space's debugger */
        memcpy(e->dr, v->dr, sizeof v->dr);
        e->dr[6] = v->dr6;
        e->dr[7] = v->dr7;
    }
    e->retired = silicon_time(hv->cpu);
    (void)x86_rdmsr(hv->cpu, 0x10, &tsc);
    e->tsc_base = tsc - e->retired;
    e->rflags = s->rflags & FLAG_VM;
    set_rflags(e, s->rflags);
    e->cpl = (s->rflags & FLAG_VM) ? 3 : !(s->cr0 & CR0_PE) ? 0 : (s->seg[SS].attr & SEG_DPL) >> SEG_DPL_SHIFT;
    e->activity = ACTIVITY_ACTIVE;
    e->interruptibility = (uint8_t)s->interruptibility;
    e->pending_db = e->delivering = e->rep_partial = e->intr = e->nmi = e->init = 0;
    e->leave = LEAVE_NONE;
    e->device.size = 0;
    e->log.at = e->retired;
    e->log.cursor = 0;
    e->log.count = v->nr_log;
    for (unsigned k = 0; k < v->nr_log; k++)
        e->log.done[k] = (struct device_access){ .address = v->log[k].address, .value = v->log[k].value, .kind = v->log[k].kind,
                                                 .size = v->log[k].size, .is_write = v->log[k].is_write };
    e->device_hook = answer;
    e->device_context = hv;
    e->current = e->block_start = NULL;
    hv->emulator_trace.stops = 1ull << EVENT_DELIVERY; /* the handler's instructions are not ours to run */
    cpu_mode_changed(e);
    tlb_flush(e, true);
    hv->emulator_epoch = e->tlb.epoch;
}

static void unload(struct hv *hv, struct silicon_state *s)
{
    struct cpu *e = hv->emulator;
    memcpy(s->gpr, e->r, sizeof s->gpr);
    s->rip = e->r[REG_RIP];
    s->rflags = get_rflags(e);
    for (unsigned k = 0; k < 8; k++)
        s->seg[k] = (struct silicon_segment){ .base = e->seg[k].base, .limit = e->seg[k].limit, .attr = e->seg[k].attr, .selector = e->seg[k].selector };
    s->gdt_base = e->gdtr.base, s->gdt_limit = e->gdtr.limit;
    s->idt_base = e->idtr.base, s->idt_limit = e->idtr.limit;
    s->cr0 = e->cr0, s->cr2 = e->cr2, s->cr3 = e->cr3, s->cr4 = e->cr4;
    s->efer = e->msr[MSR_EFER];
    s->interruptibility = e->interruptibility;
    s->activity = ACTIVITY_ACTIVE;
}

/* The guest may not have what the emulator's processor has: the hidden bits raise #GP. */
static bool permitted(struct hv *hv, const struct silicon_state *old, const struct silicon_state *s)
{
    if (((old->cr4 ^ s->cr4) & s->cr4 & ~silicon_guest_cr4(hv->cpu)) || ((old->efer ^ s->efer) & s->efer & ~silicon_guest_efer(hv->cpu)))
        return false;
    return !(s->cr0 & CR0_PG) || s->cr3 == old->cr3 || hv_slot_at(hv, s->cr3 & SPTE_ADDRESS);
}

static void tell_control_registers(struct hv *hv, const struct silicon_state *old, const struct silicon_state *s)
{
    if (old->cr0 != s->cr0)
        silicon_emit(hv->cpu, EVENT_CR_WRITE, 0, old->cr0, s->cr0, 0, 0);
    if (old->cr3 != s->cr3)
        silicon_emit(hv->cpu, EVENT_CR_WRITE, 3, old->cr3, s->cr3, 0, 0);
    if (old->cr4 != s->cr4)
        silicon_emit(hv->cpu, EVENT_CR_WRITE, 4, old->cr4, s->cr4, 0, 0);
}

/* Scratch registers become the guest's. False: the hypervisor does not allow what the instruction did. */
static bool commit(struct hv *hv, const struct silicon_state *old)
{
    struct cpu *e = hv->emulator;
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s = *old;
    unload(hv, &s);
    if (!permitted(hv, old, &s))
        return false;
    if (!(old->cr0 & CR0_PE) && (s.cr0 & CR0_PE))
        real_mode_leave(hv, &s);
    if ((s.efer & ~old->efer & EFER_LMA) && (s.seg[TR].attr & 15) != 11)
        s.seg[TR].attr = SEG_P | 11;
    v->cr8 = e->cr8;
    if (!v->debug_enabled) {
        memcpy(v->dr, e->dr, sizeof v->dr);
        v->dr6 = e->dr[6];
        v->dr7 = e->dr[7];
    }
    bool new_roots = memcmp(v->pdpte, e->pdpte, sizeof v->pdpte) != 0; /* also when CR3 is loaded with the value it has */
    memcpy(v->pdpte, e->pdpte, sizeof v->pdpte);
    if (e->pending_db & PENDING_BS)
        v->step_trap = 1;
    if (e->tlb.epoch != hv->emulator_epoch)
        v->needs_flush = 1;
    hv_put_state(hv, &s);
    if (new_roots)
        mmu_reset_context(hv);
    tell_control_registers(hv, old, &s);
    return true;
}

/* ---- decoding -------------------------------------------------------------------------------------------------------- */

static unsigned fetch_part(struct hv *hv, uint64_t rip, uint8_t *to, unsigned most)
{
    const struct cpu *e = hv->emulator;
    uint64_t linear = (e->view[CS].base + rip) & e->linear_mask;
    unsigned left = (unsigned)(PAGE_SIZE - (linear & (PAGE_SIZE - 1))), n = most < left ? most : left;
    return mmu_read_linear(hv, linear, to, n, PF_I | (e->cpl == 3 ? PF_U : 0u)) ? n : 0;
}

/* Up to 15 bytes at RIP; fewer where the next page cannot be read. */
static unsigned fetch(struct hv *hv, uint8_t bytes[16])
{
    const struct cpu *e = hv->emulator;
    uint64_t rip = e->r[REG_RIP], room = rip_mask(e) - (rip & rip_mask(e));
    unsigned most = room < 14 ? (unsigned)room + 1 : 15, n;
    hv->silent++;
    n = fetch_part(hv, rip, bytes, most);
    if (n && n < most)
        n += fetch_part(hv, rip + n, bytes + n, most - n);
    hv->silent--;
    return n;
}

static bool is_prefix(const struct cpu *e, uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3: return true;
    default: return e->code_size == 8 && (byte & 0xf0) == 0x40;
    }
}

static enum insn_class class_of(uint8_t intercept)
{
    switch (intercept) {
    case INTERCEPT_HLT: return CLASS_HLT;
    case INTERCEPT_CPUID: return CLASS_CPUID;
    case INTERCEPT_IO: return CLASS_IO;
    case INTERCEPT_MSR: return CLASS_MSR;
    case INTERCEPT_CR: case INTERCEPT_DR: case INTERCEPT_INVLPG: case INTERCEPT_INVD: case INTERCEPT_WBINVD: case INTERCEPT_GDTR_IDTR:
        return CLASS_PRIVILEGED;
    default: return CLASS_OTHER;
    }
}

static bool decode_here(struct hv *hv, struct hv_decoded *d)
{
    const struct cpu *e = hv->emulator;
    uint8_t bytes[16] = { 0 };
    unsigned n = fetch(hv, bytes), at = 0;
    struct insn i;
    *d = (struct hv_decoded){ 0 };
    if (decode(e, (enum mode)e->mode, bytes, n, &i) != DECODE_OK)
        return false;
    const struct insn_row *row = &insn_rows[i.row];
    d->length = i.len;
    d->class = (uint8_t)class_of(row->vmx);
    d->ends_block = (row->attr & (A_JUMP | A_END)) != 0;
    d->rep = i.rep;
    d->address_size = i.ashift == 0 ? 8 : i.ashift == 32 ? 4 : 2;
    d->seg = i.seg;
    while (at < i.len && is_prefix(e, bytes[at]))
        at++;
    uint8_t opcode = d->opcode = bytes[at];
    if (d->class == CLASS_MSR)
        d->is_write_msr = bytes[at + 1] == 0x30;
    if (d->class != CLASS_IO)
        return true;
    d->size = !(opcode & 1) ? 1 : i.size == 2 ? 2 : 4;
    d->string = opcode < 0x70;
    d->is_in = d->string ? opcode < 0x6e : !(opcode & 2);
    d->immediate = (opcode & 0xf8) == 0xe0;
    d->port = bytes[at + 1];
    if (d->string && (d->seg > GS || i.base == REG_ZERO))
        d->seg = d->seg > GS ? DS : d->seg;
    return true;
}

bool emulate_decode(struct hv *hv, struct hv_decoded *d)
{
    struct silicon_state s;
    hv_get_state(hv, &s);
    load(hv, &s);
    return decode_here(hv, d);
}

/* ---- running ----------------------------------------------------------------------------------------------------------- */

static void describe_device(struct hv *hv, kl_exit *exit)
{
    const struct hv_access *a = &hv->vcpu.device;
    exit->reason = KL_EXIT_MMIO;
    exit->is_write = a->is_write;
    exit->size = a->size;
    exit->address = a->address;
    exit->value = a->is_write ? a->value : ~0ull >> (64 - 8 * a->size);
    exit->count = 1;
}

static void save_log(struct hv *hv, bool keep)
{
    const struct cpu *e = hv->emulator;
    struct hv_vcpu *v = &hv->vcpu;
    v->nr_log = keep ? e->log.count : 0;
    for (unsigned k = 0; k < v->nr_log; k++)
        v->log[k] = (struct hv_access){ .address = e->log.done[k].address, .value = e->log.done[k].value, .kind = e->log.done[k].kind,
                                        .size = e->log.done[k].size, .is_write = e->log.done[k].is_write };
}

/* One instruction, or the delivery of the exception that it raised. */
static enum cpu_stop run_one(struct hv *hv)
{
    struct cpu *e = hv->emulator;
    uint64_t before = e->retired;
    hv->emulator_trace.stopped_by = 0;
    cpu_update_attention(e);
    hv->in_emulator = 1;
    hv->written_len = 0;
    hv->vcpu.device_write = 0;
    enum cpu_stop stop = cpu_run(e, 1);
    hv->in_emulator = 0;
    silicon_retire(hv->cpu, e->retired - before);
    if (hv->written_len) {
        uint64_t now = 0;
        space_read(hv->guest, hv->written_gpa, &now, hv->written_len);
        silicon_emit(hv->cpu, EVENT_TABLE_WRITE, hv->written_len, hv->written_gpa, hv->written_old, now, 0);
    }
    return stop;
}

/* What the stop asks of user space. */
static enum emulated finish(struct hv *hv, enum cpu_stop stop, const struct silicon_state *old, kl_exit *exit)
{
    const struct cpu *e = hv->emulator;
    struct hv_vcpu *v = &hv->vcpu;
    bool waits = stop == STOP_DEVICE;
    if (stop == STOP_SHUTDOWN)
        return EMULATED_SHUTDOWN;
    save_log(hv, waits);
    if (!commit(hv, old))
        return EMULATED_INJECT;
    if (v->device_write) {
        describe_device(hv, exit);
        silicon_emit(hv->cpu, EVENT_MMIO, v->device.size | 1u << 8, v->device.address, v->device.value, 0, 0);
        v->device_write = 0;
        v->device.size = 0;
        return EMULATED_USER;
    }
    if (!waits)
        return EMULATED_OK;
    v->device = (struct hv_access){ .address = e->device.address, .kind = e->device.kind, .size = e->device.size };
    v->pending = PENDING_MMIO_READ;
    v->answered = 0;
    describe_device(hv, exit);
    return EMULATED_USER;
}

/* Instructions that the hypervisor has a handler for are not run: they are handled as if they had exited. */
static enum hv_verdict as_an_exit(struct hv *hv, const struct hv_decoded *d, kl_exit *exit)
{
    hv->vcpu.exit.length = d->length;
    switch (d->class) {
    case CLASS_HLT: return hv_handle_hlt(hv, exit);
    case CLASS_CPUID: return hv_handle_cpuid(hv, exit);
    case CLASS_IO: return hv_handle_io(hv, exit);
    default: return d->is_write_msr ? hv_handle_wrmsr(hv, exit) : hv_handle_rdmsr(hv, exit);
    }
}

static bool has_handler(const struct hv_decoded *d) { return d->class != CLASS_OTHER && d->class != CLASS_PRIVILEGED; }

enum emulated emulate_instruction(struct hv *hv, uint32_t why, kl_exit *exit)
{
    struct silicon_state s;
    struct hv_decoded d;
    hv_get_state(hv, &s);
    load(hv, &s);
    if (decode_here(hv, &d) && has_handler(&d) && (hv->emulator->cpl == 0 || d.class == CLASS_CPUID || d.class == CLASS_IO))
        return as_an_exit(hv, &d, exit) == HV_TO_USER ? EMULATED_USER : EMULATED_OK;
    enum cpu_stop stop = run_one(hv);
    silicon_emit(hv->cpu, EVENT_EMULATED, 1, why, s.rip, 0, 0);
    return finish(hv, stop, &s, exit);
}

static bool at_breakpoint(const struct hv *hv)
{
    const struct hv_vcpu *v = &hv->vcpu;
    const struct cpu *e = hv->emulator;
    uint64_t linear = (e->view[CS].base + e->r[REG_RIP]) & e->linear_mask;
    for (unsigned k = 0; k < 4; k++)
        if (v->debug_enabled && (v->debug_bits >> k & 1) && v->debug_address[k] == linear)
            return true;
    return false;
}

enum { BLOCK_MOST = 32 };

/* The state in which the block began: the VMCS still holds it. */
static unsigned take_up_block(struct hv *hv, struct silicon_state *began)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state now;
    unsigned done = v->block_done;
    hv_get_state(hv, &now);
    v->block_done = 0;
    v->block_why = 0;
    memset(&v->block, 0, sizeof v->block); /* nothing is left of the cut */
    hv_get_state(hv, began);
    load(hv, &now);
    return done;
}

void emulate_end_block(struct hv *hv)
{
    struct silicon_state began;
    kl_exit ignored;
    uint32_t why = hv->vcpu.block_why;
    unsigned done = take_up_block(hv, &began);
    silicon_emit(hv->cpu, EVENT_EMULATED, done, why, began.rip, 0, 0);
    (void)finish(hv, STOP_BUDGET, &began, &ignored);
}

/* A stop may cut a block anywhere; it goes on later, and leaves the same events as if nobody had looked. */
enum hv_verdict emulate_block(struct hv *hv, uint64_t budget, kl_exit *exit, uint32_t why)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state began;
    struct hv_decoded d = { 0 };
    enum cpu_stop stop = STOP_BUDGET;
    unsigned most = v->debug_step ? 1 : BLOCK_MOST, n = take_up_block(hv, &began);
    uint64_t end = silicon_time(hv->cpu) + budget < budget ? ~0ull : silicon_time(hv->cpu) + budget;
    bool handler = false, debug = v->debug_step;
    for (; n < most; n++) {
        if (n && silicon_time(hv->cpu) >= end) {
            unload(hv, &began);
            v->block = began;
            v->block_done = (uint8_t)n;
            v->block_why = why;
            return HV_RESUME;
        }
        if (at_breakpoint(hv) && (n || !v->resume_over)) {
            debug = true;
            break;
        }
        bool known = decode_here(hv, &d);
        handler = known && has_handler(&d);
        if (handler)
            break;
        stop = run_one(hv);
        v->nr_log = 0;
        if (stop != STOP_BUDGET || v->device_write || !known || d.ends_block || hv->emulator->pending_db) {
            n++;
            break;
        }
    }
    v->resume_over = 0;
    if (n) {
        silicon_emit(hv->cpu, EVENT_EMULATED, n, why, began.rip, 0, 0);
        switch (finish(hv, stop, &began, exit)) {
        case EMULATED_USER: return HV_TO_USER;
        case EMULATED_SHUTDOWN: return hv_shutdown(hv, exit);
        case EMULATED_INJECT: hv_inject(hv, VEC_GP, true, 0); return HV_RESUME;
        case EMULATED_OK: break;
        }
    } else if (handler) {
        return as_an_exit(hv, &d, exit);
    }
    return debug ? hv_debug_stop(hv, exit) : HV_RESUME;
}

bool emulate_event(struct hv *hv, uint32_t info, uint32_t error, uint32_t length)
{
    struct silicon_state s;
    struct cpu *e = hv->emulator;
    struct fault event = { .vector = (uint8_t)EVENT_VECTOR(info), .type = (uint8_t)EVENT_TYPE(info),
                           .has_error = (info & EVENT_HAS_ERROR) != 0, .error = error, .length = length };
    hv_get_state(hv, &s);
    load(hv, &s);
    e->interruptibility &= (uint8_t)~(BLOCK_STI | BLOCK_MOV_SS);
    hv->in_emulator = 1;
    hv->vcpu.device_write = 0;
    (void)deliver_event(e, &event);
    hv->in_emulator = 0;
    bool faulted = e->leave == LEAVE_FAULT;
    if (faulted && !deliver_fault(e))
        faulted = e->leave == LEAVE_FAULT;
    e->leave = LEAVE_NONE;
    hv->vcpu.device_write = 0;
    if (e->activity == ACTIVITY_SHUTDOWN)
        return false;
    return commit(hv, &s);
}

/* The guest's tables as its processor would walk them, nothing set. */
void emulate_walk(struct hv *hv, uint64_t gva, int access, int user, kl_walk *walk)
{
    struct silicon_state s;
    struct walk w;
    _Static_assert(sizeof w == sizeof *walk, "a walk leaves the engine as it is");
    memset(&w, 0, sizeof w);
    hv_get_state(hv, &s);
    load(hv, &s);
    page_walk(hv->emulator, gva & hv->emulator->linear_mask, (enum access)access, user != 0, false, &w);
    memcpy(walk, &w, sizeof w);
}
