/* The software engine's virtual machine: a guest under the hypervisor of hv/, behind the model of engine.h.
 *
 * The handle owns two spaces over the same memory: host-physical, where the processor lives, and guest-physical, which the slots show
 * and the emulator uses. What can be looked at from outside (shadow pages, fields, checks) is inspect.c. */
#include "soft_vm.h"

#include <string.h>

struct soft_vm *soft_vm_of(kl_vm *vm) { return (struct soft_vm *)vm; }
static struct hv *hv_of(kl_vm *vm) { return &soft_vm_of(vm)->hv; }

/* What hv/ found wrong becomes the handle's error. */
static int outcome(kl_vm *vm, int result)
{
    if (result < 0)
        vm->error = hv_of(vm)->error;
    return result;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void vm_destroy(kl_vm *vm)
{
    struct soft_vm *self = soft_vm_of(vm);
    hv_release(&self->hv);
    cpu_free(self->hv.emulator);
    trace_release(&self->hv.emulator_trace);
    space_release(&self->guest);
    soft_release(&self->soft);
}

static int vm_create_vcpu(kl_vm *vm, uint32_t vcpu)
{
    (void)vcpu;
    return outcome(vm, hv_create_vcpu(hv_of(vm)));
}
static int vm_reset(kl_vm *vm) { return outcome(vm, hv_reset(hv_of(vm))); }

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int vm_set_memory_region(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags)
{
    struct soft_vm *self = soft_vm_of(vm);
    int result = outcome(vm, hv_set_memory_region(&self->hv, slot, gpa, size, flags));
    cpu_rebuild(self->soft.cpu); /* host pointers of memory that may be gone */
    cpu_rebuild(self->hv.emulator);
    return result;
}

static int64_t vm_read(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len)
{
    struct soft_vm *self = soft_vm_of(vm);
    if (space)
        vmcs_flush(self->soft.cpu);
    return (int64_t)space_read(space ? &self->soft.space : &self->guest, address, to, len);
}

static int64_t vm_write(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len)
{
    struct soft_vm *self = soft_vm_of(vm);
    hv_come_out(&self->hv); /* shadow entries for what is written may go, and the TLB with them */
    self->hv.vcpu.nr_log = 0;
    return (int64_t)space_write(space ? &self->soft.space : &self->guest, address, from, len);
}

static int vm_view_get(kl_vm *vm, uint32_t slot, kl_view *view)
{
    struct hv *hv = hv_of(vm);
    if (slot >= HV_SLOTS || !hv->slot[slot].size)
        return refuse(vm, KL_ENOENT, "there is no memory in this slot");
    struct ram *ram = hv->slot_ram[slot].ram;
    *view = (kl_view){ .bytes = ram->host, .size = hv->slot[slot].size, .handle = ram };
    ram_get(ram);
    return 0;
}

static int vm_dirty_log(kl_vm *vm, uint32_t slot, uint8_t *bitmap, uint64_t bytes)
{
    return outcome(vm, dirty_get(hv_of(vm), slot, bitmap, bytes));
}

/* ---- state --------------------------------------------------------------------------------------------------------- */

#define NEED_CREATED()                \
    if (!hv_of(vm)->vcpu.created)     \
        return refuse(vm, KL_EINVAL, "there is no virtual processor yet: create it after memory slot 0")

static int vm_get_regs(kl_vm *vm, kl_regs *regs)
{
    struct silicon_state s;
    NEED_CREATED();
    hv_get_state(hv_of(vm), &s);
    memcpy(regs->gpr, s.gpr, sizeof regs->gpr);
    regs->rip = s.rip;
    regs->rflags = s.rflags;
    return 0;
}

static int vm_set_regs(kl_vm *vm, const kl_regs *regs)
{
    struct hv *hv = hv_of(vm);
    struct silicon_state s, old;
    NEED_CREATED();
    hv_get_state(hv, &old);
    s = old;
    memcpy(s.gpr, regs->gpr, sizeof s.gpr);
    s.rip = regs->rip;
    s.rflags = regs->rflags;
    if (s.rip != old.rip)
        hv_abandon(hv, false); /* what the last exit asked belongs to another instruction */
    else if (memcmp(&s, &old, sizeof s) && (hv->vcpu.nr_log || hv->vcpu.pending == PENDING_MMIO_READ))
        hv_abandon(hv, false);
    hv_put_state(hv, &s);
    return 0;
}

static int vm_get_sregs(kl_vm *vm, kl_sregs *r)
{
    struct hv *hv = hv_of(vm);
    struct silicon_state s;
    NEED_CREATED();
    hv_get_state(hv, &s);
    memset(r, 0, sizeof *r);
    for (unsigned k = 0; k < 8; k++)
        r->seg[k] = (kl_segment){ .base = s.seg[k].base, .limit = s.seg[k].limit, .attr = s.seg[k].attr, .selector = s.seg[k].selector };
    r->gdt_base = s.gdt_base, r->gdt_limit = s.gdt_limit;
    r->idt_base = s.idt_base, r->idt_limit = s.idt_limit;
    r->cr0 = s.cr0, r->cr2 = s.cr2, r->cr3 = s.cr3, r->cr4 = s.cr4, r->efer = s.efer;
    r->cr8 = hv->vcpu.cr8;
    r->apic_base = hv->vcpu.apic_base;
    return 0;
}

static int vm_set_sregs(kl_vm *vm, const kl_sregs *r)
{
    struct hv *hv = hv_of(vm);
    struct silicon_state s;
    NEED_CREATED();
    hv_get_state(hv, &s);
    for (unsigned k = 0; k < 8; k++)
        s.seg[k] = (struct silicon_segment){ .base = r->seg[k].base, .limit = r->seg[k].limit, .attr = r->seg[k].attr, .selector = r->seg[k].selector };
    s.gdt_base = r->gdt_base, s.gdt_limit = r->gdt_limit;
    s.idt_base = r->idt_base, s.idt_limit = r->idt_limit;
    s.cr0 = r->cr0, s.cr2 = r->cr2, s.cr3 = r->cr3, s.cr4 = r->cr4, s.efer = r->efer;
    hv->vcpu.cr8 = r->cr8;
    hv->vcpu.apic_base = r->apic_base;
    hv->vcpu.nr_log = 0;
    hv_put_state(hv, &s);
    return 0;
}

static int vm_get_events(kl_vm *vm, kl_events *e)
{
    struct hv *hv = hv_of(vm);
    const struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s;
    NEED_CREATED();
    hv_get_state(hv, &s);
    memset(e, 0, sizeof *e);
    memcpy(e->dr, v->dr, sizeof v->dr);
    e->dr[6] = v->dr6;
    e->dr[7] = v->dr7;
    e->xcr0 = 1;
    (void)x86_rdmsr(hv->cpu, 0x10, &e->tsc);
    e->activity = ACTIVITY_ACTIVE;
    e->interruptibility = s.interruptibility;
    e->interrupt_pending = irq_any(hv);
    for (unsigned n = 256; n-- > 0;)
        if (v->irq_pending[n >> 6] >> (n & 63) & 1)
            e->interrupt_vector = n;
    e->pending_db = v->step_trap ? PENDING_BS : 0;
    memcpy(e->pdpte, v->pdpte, sizeof e->pdpte);
    memcpy(e->interrupt_bitmap, v->irq_pending, sizeof e->interrupt_bitmap);
    return 0;
}

static int vm_set_events(kl_vm *vm, const kl_events *e)
{
    struct hv *hv = hv_of(vm);
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s;
    NEED_CREATED();
    if (e->activity > ACTIVITY_WAIT_SIPI)
        return refuse(vm, KL_EINVAL, "activity is 0 (active), 1 (halted), 2 (shut down) or 3 (waits for SIPI)");
    hv_get_state(hv, &s);
    s.interruptibility = e->interruptibility;
    hv_put_state(hv, &s);
    memcpy(v->dr, e->dr, sizeof v->dr);
    v->dr6 = (e->dr[6] & 0xe00f) | DR6_FIXED1;
    v->dr7 = (e->dr[7] & 0xffff2bff) | DR7_FIXED1;
    memcpy(v->pdpte, e->pdpte, sizeof v->pdpte);
    mmu_reset_context(hv);
    memcpy(v->irq_pending, e->interrupt_bitmap, sizeof v->irq_pending);
    if (e->interrupt_pending)
        v->irq_pending[e->interrupt_vector >> 6 & 3] |= 1ull << (e->interrupt_vector & 63);
    v->step_trap = (e->pending_db & PENDING_BS) != 0;
    hv->cpu->tsc_base = e->tsc - hv->cpu->retired;
    return 0;
}

static int vm_get_msr(kl_vm *vm, uint32_t index, uint64_t *value)
{
    NEED_CREATED();
    return hv_get_msr(hv_of(vm), index, value) ? 0 : refuse(vm, KL_EINVAL, "this guest has no such MSR (RDMSR would raise #GP)");
}

static int vm_set_msr(kl_vm *vm, uint32_t index, uint64_t value)
{
    struct hv *hv = hv_of(vm);
    NEED_CREATED();
    hv_come_out(hv);
    if (index == 0xc0000080 && !(value & ~silicon_guest_efer(hv->cpu))) { /* as SET_SREGS does: the mode is the caller's */
        struct silicon_state s;
        hv_get_state(hv, &s);
        s.efer = value;
        hv_put_state(hv, &s);
        return 0;
    }
    return hv_set_msr(hv, index, value) ? 0 : refuse(vm, KL_EINVAL, "no such MSR, or a value it does not take (WRMSR would raise #GP)");
}

static int vm_interrupt(kl_vm *vm, uint32_t vector)
{
    NEED_CREATED();
    irq_queue(hv_of(vm), vector);
    return 0;
}

static int vm_translate(kl_vm *vm, uint64_t gva, kl_translation *t)
{
    kl_walk walk;
    NEED_CREATED();
    emulate_walk(hv_of(vm), gva, 0, 0, &walk);
    *t = (kl_translation){ .gpa = ~0ull };
    if (!walk.failed)
        *t = (kl_translation){ .gpa = walk.physical, .valid = 1, .writeable = (walk.flags & TLB_W) != 0, .usermode = (walk.flags & TLB_U) != 0 };
    return 0;
}

static int vm_debug(kl_vm *vm, const kl_guest_debug *debug)
{
    struct hv *hv = hv_of(vm);
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s;
    NEED_CREATED();
    hv_get_state(hv, &s);
    v->debug_enabled = debug->enabled != 0;
    v->debug_step = debug->enabled && debug->single_step;
    v->debug_bits = 0;
    for (unsigned k = 0; k < 4; k++) {
        v->debug_address[k] = debug->breakpoint[k].address;
        if (debug->enabled && debug->breakpoint[k].enabled)
            v->debug_bits |= (uint8_t)(1u << k);
    }
    hv_put_state(hv, &s); /* the exception bitmap */
    return 0;
}

/* ---- running ----------------------------------------------------------------------------------------------------------- */

static int vm_run(kl_vm *vm, const kl_run_args *args, kl_exit *exit)
{
    struct soft_vm *self = soft_vm_of(vm);
    if (vm->mapped) { /* code may have changed unseen */
        code_drop_all(self->soft.cpu);
        code_drop_all(self->hv.emulator);
    }
    self->soft.trace.stops = args->stop_events;
    self->soft.trace.stopped_by = 0;
    cpu_update_attention(self->soft.cpu);
    int result = outcome(vm, hv_run(&self->hv, args, exit));
    self->soft.trace.stops = 0;
    self->soft.trace.stopped_by = 0;
    cpu_update_attention(self->soft.cpu);
    return result;
}

static int vm_complete(kl_vm *vm, uint64_t value) { return outcome(vm, hv_complete(hv_of(vm), value)); }
static int vm_complete_cpuid(kl_vm *vm, const uint32_t out[4]) { return outcome(vm, hv_complete_cpuid(hv_of(vm), out)); }

static int64_t vm_string_read(kl_vm *vm, void *to, uint64_t bytes)
{
    int64_t n = hv_string(hv_of(vm), to, bytes, false);
    return n < 0 ? refuse(vm, KL_EINVAL, "the last stop was no string output") : n;
}

static int vm_string_answer(kl_vm *vm, const void *from, uint64_t bytes)
{
    int64_t n = hv_string(hv_of(vm), (void *)(uintptr_t)from, bytes, true);
    return n < 0 ? refuse(vm, KL_EINVAL, "the last stop was no string input") : 0;
}

static int vm_cpuid(kl_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    silicon_guest_cpuid(soft_vm_of(vm)->soft.cpu, leaf, subleaf, out);
    return 0;
}

static int vm_legacy(kl_vm *vm, unsigned what, uint64_t value)
{
    struct hv *hv = hv_of(vm);
    NEED_CREATED();
    if (what != LEGACY_STALE_MMIO) {
        hv_come_out(hv);
        hv_abandon(hv, what == LEGACY_SKIP);
        return 0;
    }
    hv->vcpu.stale_mmio = value;
    hv->vcpu.stale_mmio_valid = 1;
    return 0;
}

static void vm_kick(kl_vm *vm) { cpu_request_stop(soft_vm_of(vm)->soft.cpu); }

static int vm_get_position(kl_vm *vm, kl_position *position)
{
    struct soft *soft = &soft_vm_of(vm)->soft;
    *position = (kl_position){ soft->cpu->retired, soft->trace.sequence };
    return 0;
}

/* ---- looking inside -------------------------------------------------------------------------------------------------------- */

static int vm_walk_tables(kl_vm *vm, int which, uint64_t gva, int access, int user, kl_walk *walk)
{
    struct soft_vm *self = soft_vm_of(vm);
    NEED_CREATED();
    memset(walk, 0, sizeof *walk);
    if (which)
        inspect_shadow_walk(self, gva, access, user, walk);
    else
        emulate_walk(&self->hv, gva, access, user, walk);
    return 0;
}

static struct trace *vm_trace(kl_vm *vm) { return &soft_vm_of(vm)->soft.trace; }
static struct memory *vm_memory(kl_vm *vm) { return &soft_vm_of(vm)->soft.memory; }
static void vm_attention(kl_vm *vm) { cpu_update_attention(soft_vm_of(vm)->soft.cpu); }

static unsigned vm_regions(kl_vm *vm, struct region *regions)
{
    struct soft_vm *self = soft_vm_of(vm);
    vmcs_flush(self->soft.cpu);
    regions[0] = (struct region){ self->soft.cpu, CPU_STATE_BYTES };
    regions[1] = (struct region){ &self->hv, HV_STATE_BYTES };
    return 2;
}

static void vm_restored(kl_vm *vm)
{
    struct soft_vm *self = soft_vm_of(vm);
    cpu_rebuild(self->soft.cpu);
    cpu_rebuild(self->hv.emulator);
    hv_restored(&self->hv);
}

const struct engine_ops soft_vm_ops = {
    .destroy = vm_destroy,
    .create_vcpu = vm_create_vcpu,
    .reset = vm_reset,
    .set_memory_region = vm_set_memory_region,
    .read = vm_read,
    .write = vm_write,
    .view_get = vm_view_get,
    .dirty_log = vm_dirty_log,
    .get_regs = vm_get_regs,
    .set_regs = vm_set_regs,
    .get_sregs = vm_get_sregs,
    .set_sregs = vm_set_sregs,
    .get_events = vm_get_events,
    .set_events = vm_set_events,
    .get_msr = vm_get_msr,
    .set_msr = vm_set_msr,
    .interrupt = vm_interrupt,
    .translate = vm_translate,
    .debug = vm_debug,
    .run = vm_run,
    .complete = vm_complete,
    .string_read = vm_string_read,
    .string_answer = vm_string_answer,
    .complete_cpuid = vm_complete_cpuid,
    .cpuid = vm_cpuid,
    .kick = vm_kick,
    .get_position = vm_get_position,
    .walk_tables = vm_walk_tables,
    .trace = vm_trace,
    .memory = vm_memory,
    .regions = vm_regions,
    .restored = vm_restored,
    .attention = vm_attention,
    .legacy = vm_legacy,
};

/* ---- making one ---------------------------------------------------------------------------------------------------------------- */

static bool real_mode_of(const char *name, uint8_t *mode)
{
    static const char *const names[] = { [REAL_AUTO] = "auto", [REAL_USER] = "user", [REAL_VM86] = "vm86", [REAL_EMULATE] = "emulate" };
    *mode = REAL_AUTO;
    if (!name || !name[0])
        return true;
    for (unsigned k = 0; k < sizeof names / sizeof names[0]; k++)
        if (text_equal(name, names[k]))
            return *mode = (uint8_t)k, true;
    return false;
}

int soft_create_vm(const kl_config *config, const struct profile *profile, kl_vm **vm, const char **error)
{
    uint8_t real_mode;
    if (config->mmu && config->mmu[0] && !text_equal(config->mmu, "shadow")) {
        *error = "this MMU is not built yet; there is \"shadow\"";
        return -(int)KL_EINVAL;
    }
    if (!real_mode_of(config->real_mode, &real_mode)) {
        *error = "no such real mode; there are \"auto\", \"user\", \"vm86\" and \"emulate\"";
        return -(int)KL_EINVAL;
    }
    struct soft *soft = soft_new(profile, &soft_vm_ops, sizeof(struct soft_vm));
    if (!soft) {
        *error = "no memory for a machine";
        return -(int)KL_ENOMEM;
    }
    struct soft_vm *self = (struct soft_vm *)soft;
    space_init(&self->guest, &soft->memory);
    (void)trace_init(&self->hv.emulator_trace, 0);
    self->hv.emulator = cpu_new(profile, &self->guest, &self->hv.emulator_trace);
    self->hv.real_mode = real_mode;
    self->hv.history = config->history;
    if (!self->hv.emulator || !hv_init(&self->hv, soft->cpu, self->hv.emulator, &soft->space, &self->guest, error)) {
        if (!self->hv.emulator)
            *error = "no memory for the hypervisor";
        vm_destroy(&soft->vm);
        return -(int)KL_EINVAL;
    }
    *vm = &soft->vm;
    return 0;
}
