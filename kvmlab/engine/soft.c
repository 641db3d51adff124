/* The software engine: the processor of cpu/ behind the model of engine.h.
 *
 * A bare machine is memory, one processor and nothing under it: every access that no RAM answers
 * is an exit, HLT is an exit, a triple fault is a shutdown. */
#include "soft.h"

#include "history.h"

#include <stdlib.h>
#include <string.h>

static struct soft *soft_of(kl_vm *vm) { return (struct soft *)vm; }

/* ---- life ------------------------------------------------------------------------------------ */

void soft_release(struct soft *soft)
{
    history_free(soft->vm.history);
    cpu_free(soft->cpu);
    space_release(&soft->space);
    memory_release(&soft->memory);
    trace_release(&soft->trace);
    free(soft);
}

static void machine_destroy(kl_vm *vm) { soft_release(soft_of(vm)); }

static bool answer_later(void *context, struct device_access *access)
{
    (void)context, (void)access;
    return false; /* user space answers every access */
}

struct soft *soft_new(const struct profile *profile, const struct engine_ops *ops, size_t bytes)
{
    struct soft *soft = calloc(1, bytes);
    if (!soft)
        return NULL;
    soft->vm.ops = ops;
    memory_init(&soft->memory, NULL);
    space_init(&soft->space, &soft->memory);
    if (trace_init(&soft->trace, 0))
        soft->cpu = cpu_new(profile, &soft->space, &soft->trace);
    if (!soft->cpu) {
        soft_release(soft);
        return NULL;
    }
    soft->cpu->device_hook = answer_later;
    return soft;
}

static int machine_reset(kl_vm *vm)
{
    struct soft *soft = soft_of(vm);
    uint64_t retired = soft->cpu->retired;
    cpu_reset(soft->cpu);
    soft->cpu->retired = retired; /* time goes on */
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------ */

static int machine_set_memory_region(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags)
{
    struct soft *soft = soft_of(vm);
    struct soft_slot *s = &soft->slot[slot];
    if (flags)
        return refuse(vm, KL_EINVAL, "a bare machine has no dirty log: flags must be 0");
    if (size == 0) {
        if (!s->size)
            return refuse(vm, KL_ENOENT, "there is no memory in this slot");
        space_unmap(&soft->space, s->start);
        ram_disown(s->ram);
        *s = (struct soft_slot){ 0 };
        tlb_flush(soft->cpu, true);
        return 0;
    }
    if (s->size)
        return refuse(vm, KL_EINVAL, "a memory slot cannot be resized: remove it first (size 0)");
    struct ram *ram = memory_add_ram(&soft->memory, size);
    if (!ram)
        return refuse(vm, KL_ENOMEM, "so much memory cannot be had");
    if (!space_map_ram(&soft->space, gpa, ram, 0, ram->nr_pages, EXTENT_RAM)) {
        ram_disown(ram);
        return refuse(vm, KL_EEXIST, "the memory slot overlaps another one");
    }
    *s = (struct soft_slot){ .start = gpa, .size = size, .ram = ram };
    tlb_flush(soft->cpu, true);
    return 0;
}

static int64_t machine_read(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len)
{
    (void)space;
    return (int64_t)space_read(&soft_of(vm)->space, address, to, len);
}

static int64_t machine_write(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len)
{
    (void)space;
    return (int64_t)space_write(&soft_of(vm)->space, address, from, len);
}

/* A view must outlive the machine: it keeps the memory block, not the machine. */
static int machine_view_get(kl_vm *vm, uint32_t slot, kl_view *view)
{
    struct soft *soft = soft_of(vm);
    if (slot >= 4 || !soft->slot[slot].size)
        return refuse(vm, KL_ENOENT, "there is no memory in this slot");
    struct ram *ram = soft->slot[slot].ram;
    *view = (kl_view){ .bytes = ram->host, .size = soft->slot[slot].size, .handle = ram };
    ram_get(ram);
    return 0;
}

/* ---- state --------------------------------------------------------------------------------------- */

void cpu_get_regs(struct cpu *cpu, kl_regs *regs)
{
    memcpy(regs->gpr, cpu->r, sizeof regs->gpr);
    regs->rip = cpu->r[REG_RIP];
    regs->rflags = get_rflags(cpu);
}

void cpu_set_regs(struct cpu *cpu, const kl_regs *regs)
{
    memcpy(cpu->r, regs->gpr, sizeof regs->gpr);
    cpu->r[REG_RIP] = regs->rip;
    if ((regs->rflags ^ cpu->rflags) & FLAG_VM) {
        set_rflags(cpu, regs->rflags);
        cpu_mode_changed(cpu);
    } else {
        set_rflags(cpu, regs->rflags);
    }
    cpu_drop_log(cpu);
}

static int machine_get_regs(kl_vm *vm, kl_regs *regs)
{
    cpu_get_regs(soft_of(vm)->cpu, regs);
    return 0;
}

static int machine_set_regs(kl_vm *vm, const kl_regs *regs)
{
    cpu_set_regs(soft_of(vm)->cpu, regs);
    return 0;
}

_Static_assert(sizeof(kl_segment) == sizeof(struct segment), "a segment leaves the engine as it is");

void cpu_get_sregs(const struct cpu *cpu, kl_sregs *s)
{
    memcpy(s->seg, cpu->seg, sizeof s->seg);
    s->gdt_base = cpu->gdtr.base, s->gdt_limit = cpu->gdtr.limit;
    s->idt_base = cpu->idtr.base, s->idt_limit = cpu->idtr.limit;
    s->cr0 = cpu->cr0, s->cr2 = cpu->cr2, s->cr3 = cpu->cr3, s->cr4 = cpu->cr4, s->cr8 = cpu->cr8;
    s->efer = cpu->msr[MSR_EFER];
    s->apic_base = cpu->msr[MSR_APIC_BASE];
}

/* As given, without the checks that instructions make: the caller owns the state. */
void cpu_set_sregs(struct cpu *cpu, const kl_sregs *s)
{
    memcpy(cpu->seg, s->seg, sizeof cpu->seg);
    cpu->gdtr = (struct table_register){ .base = s->gdt_base, .limit = s->gdt_limit };
    cpu->idtr = (struct table_register){ .base = s->idt_base, .limit = s->idt_limit };
    cpu->cr0 = s->cr0, cpu->cr2 = s->cr2, cpu->cr3 = s->cr3, cpu->cr4 = s->cr4, cpu->cr8 = s->cr8;
    cpu->msr[MSR_EFER] = s->efer;
    cpu->msr[MSR_APIC_BASE] = s->apic_base;
    cpu->cpl = is_vm86(cpu) ? 3 : is_real(cpu) ? 0 : (s->seg[SS].attr & SEG_DPL) >> SEG_DPL_SHIFT;
    cpu_drop_log(cpu);
    cpu_mode_changed(cpu);
    tlb_flush(cpu, true);
    if (cpu->paging == PAGING_PAE && !load_pdptes(cpu, cpu->cr3))
        memset(cpu->pdpte, 0, sizeof cpu->pdpte); /* what no processor would have loaded maps nothing */
}

static int machine_get_sregs(kl_vm *vm, kl_sregs *sregs)
{
    cpu_get_sregs(soft_of(vm)->cpu, sregs);
    return 0;
}

static int machine_set_sregs(kl_vm *vm, const kl_sregs *sregs)
{
    cpu_set_sregs(soft_of(vm)->cpu, sregs);
    return 0;
}

static int machine_get_events(kl_vm *vm, kl_events *e)
{
    const struct cpu *cpu = soft_of(vm)->cpu;
    memset(e, 0, sizeof *e);
    memcpy(e->dr, cpu->dr, sizeof e->dr);
    memcpy(e->pdpte, cpu->pdpte, sizeof e->pdpte);
    e->xcr0 = cpu->xcr0;
    e->tsc = cpu->tsc_base + cpu->retired;
    e->activity = cpu->activity;
    e->interruptibility = cpu->interruptibility;
    e->interrupt_pending = cpu->intr, e->interrupt_vector = cpu->intr_vector;
    e->nmi_pending = cpu->nmi;
    e->pending_db = cpu->pending_db;
    return 0;
}

static int machine_set_events(kl_vm *vm, const kl_events *e)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    if (e->activity > ACTIVITY_WAIT_SIPI)
        return refuse(vm, KL_EINVAL, "activity is 0 (active), 1 (halted), 2 (shut down) or 3 (waits for SIPI)");
    memcpy(cpu->dr, e->dr, sizeof e->dr);
    memcpy(cpu->pdpte, e->pdpte, sizeof e->pdpte);
    cpu->xcr0 = e->xcr0;
    cpu->tsc_base = e->tsc - cpu->retired;
    cpu->activity = (uint8_t)e->activity;
    cpu->interruptibility = (uint8_t)e->interruptibility;
    cpu->intr = e->interrupt_pending != 0, cpu->intr_vector = (uint8_t)e->interrupt_vector;
    cpu->nmi = e->nmi_pending != 0;
    cpu->pending_db = (uint8_t)e->pending_db;
    front_flush(cpu); /* pages with data breakpoints are not in the front */
    cpu_update_attention(cpu);
    return 0;
}

/* An MSR from outside: the fault that the instruction would raise is the answer, not an event. */
static int machine_get_msr(kl_vm *vm, uint32_t index, uint64_t *value)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    const struct fault kept = cpu->fault; /* looking leaves no trace */
    bool ok = read_msr(cpu, index, value);
    cpu->leave = LEAVE_NONE;
    cpu->fault = kept;
    return ok ? 0 : refuse(vm, KL_EINVAL, "this processor has no such MSR (RDMSR would raise #GP)");
}

static int machine_set_msr(kl_vm *vm, uint32_t index, uint64_t value)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    bool ok = write_msr(cpu, index, value);
    cpu->leave = LEAVE_NONE;
    return ok ? 0 : refuse(vm, KL_EINVAL, "no such MSR, or a value it does not take (WRMSR would raise #GP)");
}

static int machine_interrupt(kl_vm *vm, uint32_t vector)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    if (cpu->intr)
        return refuse(vm, KL_EBUSY, "an interrupt is pending already: a bare machine has one INTR pin and no controller");
    cpu->intr = 1;
    cpu->intr_vector = (uint8_t)vector;
    emit(cpu, EVENT_IRQ_QUEUED, vector, 0, 0, 0, 0);
    cpu_update_attention(cpu);
    return 0;
}

static int machine_nmi(kl_vm *vm)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    cpu->nmi = 1;
    cpu_update_attention(cpu);
    return 0;
}

static int machine_translate(kl_vm *vm, uint64_t gva, kl_translation *t)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    struct walk walk;
    *t = (kl_translation){ .gpa = ~0ull };
    if (page_walk(cpu, gva & cpu->linear_mask, ACCESS_READ, false, false, &walk))
        *t = (kl_translation){ .gpa = walk.physical, .valid = 1, .writeable = (walk.flags & TLB_W) != 0,
                               .usermode = (walk.flags & TLB_U) != 0 };
    return 0;
}

static int machine_debug(kl_vm *vm, const kl_guest_debug *debug)
{
    struct soft *soft = soft_of(vm);
    struct cpu *cpu = soft->cpu;
    cpu->nr_stop_at = 0;
    for (unsigned k = 0; k < 4; k++)
        if (debug->enabled && debug->breakpoint[k].enabled)
            cpu->stop_at[cpu->nr_stop_at++] = debug->breakpoint[k].address;
    soft->single_step = debug->enabled && debug->single_step;
    cpu_update_attention(cpu);
    return 0;
}

/* ---- running ------------------------------------------------------------------------------------------ */

static void describe_access(const struct device_access *access, kl_exit *exit)
{
    exit->reason = access->kind == DEVICE_PORT ? KL_EXIT_IO : KL_EXIT_MMIO;
    exit->is_write = access->is_write;
    exit->size = access->size;
    exit->value = access->value;
    exit->count = 1;
    if (access->kind == DEVICE_PORT)
        exit->port = (uint16_t)access->address;
    else
        exit->address = access->address;
}

static void describe_stop(struct soft *soft, enum cpu_stop stop, uint64_t started, const kl_run_args *args, kl_exit *exit)
{
    struct cpu *cpu = soft->cpu;
    switch (stop) {
    case STOP_DEVICE: describe_access(&cpu->device, exit); break;
    case STOP_HLT: exit->reason = KL_EXIT_HLT; break;
    case STOP_SHUTDOWN: exit->reason = KL_EXIT_SHUTDOWN; break;
    case STOP_BREAK: exit->reason = KL_EXIT_DEBUG; break;
    case STOP_REQUEST:
        exit->reason = soft->trace.stopped_by ? KL_EXIT_EVENT : KL_EXIT_STOPPED;
        exit->event_kind = soft->trace.stopped_by ? soft->trace.stopped_by - 1 : 0;
        break;
    default:
        if (cpu->activity == ACTIVITY_HLT && cpu->retired != started && !cpu->intr && !cpu->nmi) {
            exit->reason = KL_EXIT_HLT; /* the last instruction of the budget was HLT */
            break;
        }
        exit->reason = soft->single_step && cpu->retired == started + 1 ? KL_EXIT_DEBUG : KL_EXIT_LIMIT;
        exit->no_progress = cpu->retired == started && args->max_instructions != 0;
        break;
    }
    exit->rip = cpu->r[REG_RIP];
    exit->instructions = cpu->retired;
    exit->sequence = soft->trace.sequence;
}

static int machine_run(kl_vm *vm, const kl_run_args *args, kl_exit *exit)
{
    struct soft *soft = soft_of(vm);
    struct cpu *cpu = soft->cpu;
    uint64_t started = cpu->retired, budget = soft->single_step ? 1 : args->max_instructions;
    uint64_t end = started + budget < started ? ~0ull : started + budget;
    enum cpu_stop stop;
    if (cpu->device.size)
        cpu_answer(cpu, ~0ull); /* nobody answered: the bus reads all ones */
    soft->trace.stops = args->stop_events;
    soft->trace.stopped_by = 0;
    cpu->skip_stop_at = soft->stopped_at == cpu->retired + 1;
    cpu_update_attention(cpu);
    do {
        uint64_t before = cpu->retired, count = cpu->r[RCX];
        stop = cpu_run(cpu, end - before);
        /* A long REP whose every element walks the tables retires nothing for a while, but it counts down. */
        if (stop == STOP_WORK && cpu->retired == before && cpu->r[RCX] == count)
            break;
    } while (stop == STOP_WORK && cpu->retired < end);
    soft->trace.stops = 0;
    soft->stopped_at = stop == STOP_BREAK ? cpu->retired + 1 : 0;
    describe_stop(soft, stop, started, args, exit);
    soft->trace.stopped_by = 0;
    cpu_update_attention(cpu);
    return 0;
}

static int machine_complete(kl_vm *vm, uint64_t value)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    if (!cpu->device.size)
        return refuse(vm, KL_EINVAL, "there is no access to answer: the last stop was none, or the state was edited since");
    cpu_answer(cpu, value);
    return 0;
}

static int machine_cpuid(kl_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    cpuid(soft_of(vm)->cpu, leaf, subleaf, out);
    return 0;
}

static void machine_kick(kl_vm *vm) { cpu_request_stop(soft_of(vm)->cpu); }

static int machine_get_position(kl_vm *vm, kl_position *position)
{
    struct soft *soft = soft_of(vm);
    *position = (kl_position){ soft->cpu->retired, soft->trace.sequence };
    return 0;
}

/* ---- looking inside ---------------------------------------------------------------------------------------- */

_Static_assert(sizeof(kl_walk) == sizeof(struct walk), "a walk leaves the engine as it is");

static int machine_walk_tables(kl_vm *vm, int which, uint64_t gva, int access, int user, kl_walk *walk)
{
    struct cpu *cpu = soft_of(vm)->cpu;
    struct walk w;
    (void)which; /* a bare machine has one set of tables */
    memset(&w, 0, sizeof w);
    page_walk(cpu, gva & cpu->linear_mask, (enum access)access, user != 0, false, &w);
    memcpy(walk, &w, sizeof w);
    return 0;
}

static struct memory *machine_memory(kl_vm *vm) { return &soft_of(vm)->memory; }

static unsigned machine_regions(kl_vm *vm, struct region *regions)
{
    struct soft *soft = soft_of(vm);
    vmcs_flush(soft->cpu);
    regions[0] = (struct region){ soft->cpu, CPU_STATE_BYTES };
    return 1;
}

static void machine_restored(kl_vm *vm)
{
    struct soft *soft = soft_of(vm);
    cpu_rebuild(soft->cpu);
    soft->stopped_at = 0;
}

static struct trace *machine_trace(kl_vm *vm) { return &soft_of(vm)->trace; }
static void machine_attention(kl_vm *vm) { cpu_update_attention(soft_of(vm)->cpu); }

static const struct engine_ops machine_ops = {
    .destroy = machine_destroy,
    .reset = machine_reset,
    .set_memory_region = machine_set_memory_region,
    .read = machine_read,
    .write = machine_write,
    .view_get = machine_view_get,
    .get_regs = machine_get_regs,
    .set_regs = machine_set_regs,
    .get_sregs = machine_get_sregs,
    .set_sregs = machine_set_sregs,
    .get_events = machine_get_events,
    .set_events = machine_set_events,
    .get_msr = machine_get_msr,
    .set_msr = machine_set_msr,
    .interrupt = machine_interrupt,
    .nmi = machine_nmi,
    .translate = machine_translate,
    .debug = machine_debug,
    .run = machine_run,
    .complete = machine_complete,
    .cpuid = machine_cpuid,
    .kick = machine_kick,
    .get_position = machine_get_position,
    .walk_tables = machine_walk_tables,
    .trace = machine_trace,
    .memory = machine_memory,
    .regions = machine_regions,
    .restored = machine_restored,
    .attention = machine_attention,
};

bool soft_is_machine(const kl_vm *vm) { return vm->ops == &machine_ops; }

int soft_create(const kl_config *config, kl_vm **vm, const char **error)
{
    const struct profile *profile = config->cpu ? profile_find(config->cpu) : NULL;
    if (!profile) {
        *error = "no such processor; kl_profile_name() lists them";
        return -(int)KL_EINVAL;
    }
    if (config->kind && text_equal(config->kind, "vm"))
        return soft_create_vm(config, profile, vm, error);
    if (!config->kind || !text_equal(config->kind, "machine")) {
        *error = "no such kind; there are \"vm\" and \"machine\"";
        return -(int)KL_EINVAL;
    }
    struct soft *soft = soft_new(profile, &machine_ops, sizeof *soft);
    if (!soft) {
        *error = "no memory for a machine";
        return -(int)KL_ENOMEM;
    }
    *vm = &soft->vm;
    return 0;
}
