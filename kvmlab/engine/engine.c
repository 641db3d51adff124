/* The C API of kvmlab.h: checks the arguments once for all engines and calls the engine (engine.h). */
#include "history.h"

#include <string.h>

#include "cpu/cpu.h"

#define NOT_HERE "not visible here: this engine cannot look inside; continue the guest on the soft engine"

const char *kl_version(void) { return KVMLAB_VERSION; }

int kl_init(const char **error)
{
    return engine_init(error) ? 0 : -(int)KL_EINVAL;
}

/* ---- making one ----------------------------------------------------------------------------- */

static bool is(const char *text, const char *word) { return text && text_equal(text, word); }

int kl_create(const kl_config *config, kl_vm **vm, char *message, size_t message_bytes)
{
    const char *error = NULL, *wrong = NULL;
    int result;
    *vm = NULL;
    if (!engine_init(&wrong)) {
        result = -(int)KL_EINVAL;
        error = "insn.def has a row that cannot be told from another";
    } else if (is(config->engine, "soft")) {
        result = soft_create(config, vm, &error);
    } else if (is(config->engine, "kvm") && !is(config->kind, "vm")) {
        result = -(int)KL_EINVAL;
        error = "a bare machine runs on the soft engine only";
    } else if (is(config->engine, "kvm")) {
        result = devkvm_create(config, vm, &error);
    } else {
        result = -(int)KL_EINVAL;
        error = "no such engine; there are \"soft\" and \"kvm\"";
    }
    if (message && message_bytes) {
        size_t n = 0;
        for (; error && error[n] && n + 1 < message_bytes; n++)
            message[n] = error[n];
        message[n] = 0;
    }
    return result;
}

void kl_destroy(kl_vm *vm)
{
    if (vm)
        vm->ops->destroy(vm);
}

const char *kl_error(const kl_vm *vm) { return vm->error ? vm->error : ""; }

#define NEED(op)         \
    if (!vm->ops->op)    \
        return refuse(vm, KL_ENOTSUP, NOT_HERE)
#define NEED_VCPU()      \
    if (vcpu != 0)       \
        return refuse(vm, KL_EINVAL, "no such vcpu: there is one, number 0")

int kl_create_vcpu(kl_vm *vm, uint32_t vcpu)
{
    NEED_VCPU();
    return vm->ops->create_vcpu ? vm->ops->create_vcpu(vm, vcpu) : 0; /* without: it is there from the start */
}
int kl_reset(kl_vm *vm)
{
    NEED(reset);
    history_log(vm, INPUT_RESET, 0, 0, NULL, 0);
    return vm->ops->reset(vm);
}

/* ---- memory ------------------------------------------------------------------------------------ */

int kl_set_memory_region(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags)
{
    if ((gpa | size) & (PAGE_SIZE - 1))
        return refuse(vm, KL_EINVAL, "address and size of a memory slot are multiples of 4096 bytes");
    if (gpa + size < gpa || gpa + size > 1ull << 52)
        return refuse(vm, KL_EINVAL, "the memory slot ends above the last physical address");
    if (slot >= 4)
        return refuse(vm, KL_EINVAL, "no such slot: there are four, numbers 0 to 3");
    return vm->ops->set_memory_region(vm, slot, gpa, size, flags);
}
int64_t kl_read(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len)
{
    return vm->ops->read(vm, space, address, to, len);
}
int64_t kl_write(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len)
{
    history_log(vm, INPUT_WRITE, (uint32_t)space, address, from, len);
    return vm->ops->write(vm, space, address, from, len);
}
int kl_view_get(kl_vm *vm, uint32_t slot, kl_view *view)
{
    NEED(view_get);
    return vm->ops->view_get(vm, slot, view);
}
void kl_view_release(kl_view *view)
{
    if (view->handle)
        ram_put(view->handle);
    *view = (kl_view){ 0 };
}
int kl_dirty_log(kl_vm *vm, uint32_t slot, uint8_t *bitmap, uint64_t bytes)
{
    NEED(dirty_log);
    return vm->ops->dirty_log(vm, slot, bitmap, bytes);
}

/* ---- state ---------------------------------------------------------------------------------------- */

#define FORWARD(name, type)                                     \
    int kl_##name(kl_vm *vm, uint32_t vcpu, type *value)        \
    {                                                           \
        NEED(name);                                             \
        NEED_VCPU();                                            \
        return vm->ops->name(vm, value);                        \
    }
FORWARD(get_regs, kl_regs)
FORWARD(get_sregs, kl_sregs)
FORWARD(get_events, kl_events)
#undef FORWARD

#define FORWARD_INPUT(name, type, KIND)                         \
    int kl_##name(kl_vm *vm, uint32_t vcpu, const type *value)  \
    {                                                           \
        NEED(name);                                             \
        NEED_VCPU();                                            \
        history_log(vm, KIND, 0, 0, value, sizeof *value);      \
        return vm->ops->name(vm, value);                        \
    }
FORWARD_INPUT(set_regs, kl_regs, INPUT_REGS)
FORWARD_INPUT(set_sregs, kl_sregs, INPUT_SREGS)
FORWARD_INPUT(set_events, kl_events, INPUT_EVENTS)
#undef FORWARD_INPUT

/* Breakpoints belong to the one who looks, not to the machine's history. */
int kl_debug(kl_vm *vm, uint32_t vcpu, const kl_guest_debug *debug)
{
    NEED(debug);
    NEED_VCPU();
    return vm->ops->debug(vm, debug);
}

int kl_get_msr(kl_vm *vm, uint32_t vcpu, uint32_t index, uint64_t *value)
{
    NEED_VCPU();
    return vm->ops->get_msr(vm, index, value);
}
int kl_set_msr(kl_vm *vm, uint32_t vcpu, uint32_t index, uint64_t value)
{
    NEED_VCPU();
    history_log(vm, INPUT_MSR, index, 0, &value, sizeof value);
    return vm->ops->set_msr(vm, index, value);
}
int kl_interrupt(kl_vm *vm, uint32_t vcpu, uint32_t vector)
{
    NEED_VCPU();
    if (vector > 255)
        return refuse(vm, KL_EINVAL, "an interrupt vector is a number from 0 to 255");
    history_log(vm, INPUT_INTERRUPT, vector, 0, NULL, 0);
    return vm->ops->interrupt(vm, vector);
}
int kl_nmi(kl_vm *vm, uint32_t vcpu)
{
    NEED(nmi);
    NEED_VCPU();
    history_log(vm, INPUT_NMI, 0, 0, NULL, 0);
    return vm->ops->nmi(vm);
}
int kl_translate(kl_vm *vm, uint32_t vcpu, uint64_t gva, kl_translation *translation)
{
    NEED_VCPU();
    return vm->ops->translate(vm, gva, translation);
}

/* ---- running ------------------------------------------------------------------------------------------- */

int kl_run(kl_vm *vm, uint32_t vcpu, const kl_run_args *args, kl_exit *exit)
{
    NEED_VCPU();
    memset(exit, 0, sizeof *exit);
    exit->hardware_reason = ~0u;
    return vm->history && vm->history->logging ? history_run(vm, args, exit) : vm->ops->run(vm, args, exit);
}
int kl_complete(kl_vm *vm, uint32_t vcpu, uint64_t value)
{
    NEED_VCPU();
    history_log(vm, INPUT_ANSWER, 0, 0, &value, sizeof value);
    if (vm->history)
        vm->history->asked = false;
    return vm->ops->complete(vm, value);
}
int64_t kl_string_read(kl_vm *vm, uint32_t vcpu, void *to, uint64_t bytes)
{
    if (!vm->ops->string_read)
        return refuse(vm, KL_EINVAL, "the last stop was no string output: here a string is one access after the other");
    NEED_VCPU();
    return vm->ops->string_read(vm, to, bytes);
}
int kl_string_answer(kl_vm *vm, uint32_t vcpu, const void *from, uint64_t bytes)
{
    if (!vm->ops->string_answer)
        return refuse(vm, KL_EINVAL, "the last stop was no string input: here a string is one access after the other");
    NEED_VCPU();
    history_log(vm, INPUT_STRING, 0, 0, from, bytes);
    if (vm->history)
        vm->history->asked = false;
    return vm->ops->string_answer(vm, from, bytes);
}
int kl_complete_cpuid(kl_vm *vm, uint32_t vcpu, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    NEED(complete_cpuid);
    NEED_VCPU();
    const uint32_t out[4] = { eax, ebx, ecx, edx };
    history_log(vm, INPUT_CPUID, 0, 0, out, sizeof out);
    if (vm->history)
        vm->history->asked = false;
    return vm->ops->complete_cpuid(vm, out);
}
int kl_cpuid(kl_vm *vm, uint32_t vcpu, uint32_t leaf, uint32_t subleaf, uint32_t *out)
{
    NEED(cpuid);
    NEED_VCPU();
    return vm->ops->cpuid(vm, leaf, subleaf, out);
}
void kl_kick(kl_vm *vm) { vm->ops->kick(vm); }

int kl_step(kl_vm *vm, uint32_t vcpu, kl_exit *exit, kl_regs *regs)
{
    const kl_run_args one = { .max_instructions = 1 };
    int result = kl_run(vm, vcpu, &one, exit);
    if (result < 0)
        return result;
    if (exit->reason != KL_EXIT_LIMIT || exit->no_progress)
        return 0;
    result = vm->ops->get_regs(vm, regs);
    return result < 0 ? result : 1;
}

int64_t kl_step_record(kl_vm *vm, uint32_t vcpu, uint64_t n, kl_regs *regs)
{
    const kl_run_args one = { .max_instructions = 1 };
    NEED_VCPU();
    for (uint64_t k = 0; k < n; k++) {
        kl_exit exit;
        int result = kl_run(vm, vcpu, &one, &exit);
        if (result < 0)
            return result;
        vm->ops->get_regs(vm, &regs[k]);
        if (exit.reason != KL_EXIT_LIMIT)
            return (int64_t)k + 1;
    }
    return (int64_t)n;
}

/* ---- events ------------------------------------------------------------------------------------------------ */

int kl_get_position(kl_vm *vm, kl_position *position)
{
    NEED(get_position);
    return vm->ops->get_position(vm, position);
}

/* ---- time ---------------------------------------------------------------------------------------------------- */

static int need_history(kl_vm *vm)
{
    NEED(regions);
    if (!vm->history)
        vm->history = history_new(vm);
    return vm->history ? 0 : refuse(vm, KL_ENOMEM, "no memory for snapshots");
}

int kl_state_hash(kl_vm *vm, uint64_t *hash)
{
    struct region regions[MAX_REGIONS];
    NEED(regions);
    unsigned nr = vm->ops->regions(vm, regions);
    *hash = hash_machine(vm->ops->memory(vm), regions, nr);
    return 0;
}

#define NEED_UNMAPPED()  \
    if (vm->mapped)      \
        return refuse(vm, KL_ENOTSUP, "not visible: the guest's memory is mapped by user space, which changes it unseen")

int64_t kl_snapshot_save(kl_vm *vm)
{
    NEED_UNMAPPED();
    int result = need_history(vm);
    return result ? result : history_save(vm);
}

int kl_snapshot_restore(kl_vm *vm, int64_t number)
{
    int result = need_history(vm);
    if (result)
        return result;
    if (number < 0 || number > UINT32_MAX)
        return refuse(vm, KL_ENOENT, "no such snapshot");
    return history_restore(vm, (uint32_t)number);
}

int kl_snapshot_drop(kl_vm *vm, int64_t number)
{
    if (!vm->history || number < 0 || number >= vm->history->snapshots.nr)
        return refuse(vm, KL_ENOENT, "no such snapshot");
    snapshot_drop(&vm->history->snapshots, (uint32_t)number);
    return 0;
}

int kl_history_start(kl_vm *vm, uint64_t interval)
{
    NEED_UNMAPPED();
    int result = need_history(vm);
    if (result)
        return result;
    struct history *h = vm->history;
    h->interval = interval;
    h->logging = true;
    int64_t first = history_save(vm);
    if (first < 0)
        return (int)first;
    h->next_snapshot = h->snapshots.list[first].instructions + interval;
    return 0;
}

int kl_goto(kl_vm *vm, const kl_position *position)
{
    if (!vm->history || !vm->history->logging)
        return refuse(vm, KL_ENOENT, "no history is kept: kl_history_start() begins one");
    return history_goto(vm, position);
}

int kl_history_info(kl_vm *vm, kl_history *info)
{
    const struct history *h = vm->history;
    *info = (kl_history){ 0 };
    if (h)
        *info = (kl_history){ h->snapshots.nr, h->nr_inputs, h->nr_inputs - h->cursor, h->snapshots.stored_bytes };
    return 0;
}

int kl_trace_enable(kl_vm *vm, uint64_t kinds, uint32_t capacity)
{
    NEED(trace);
    struct trace *trace = vm->ops->trace(vm);
    uint64_t sequence = trace->sequence;
    uint32_t size = 1;
    while (size < capacity && size < 1u << 24)
        size *= 2;
    if (capacity && size != trace->capacity) {
        trace_release(trace);
        if (!trace_init(trace, size))
            return refuse(vm, KL_ENOMEM, "no memory for so many events");
        trace->sequence = sequence;
    }
    if (kinds & ~trace->enabled)
        trace_cut(trace, sequence); /* what was seen already is to be seen again, with the new kinds */
    trace->enabled = kinds;
    if (vm->ops->attention)
        vm->ops->attention(vm);
    return 0;
}

_Static_assert(sizeof(kl_event) == sizeof(struct event), "an event leaves the engine as it is");

int64_t kl_trace_read(kl_vm *vm, uint64_t from, kl_event *to, uint64_t n, uint64_t *first, uint64_t *next)
{
    NEED(trace);
    const struct trace *trace = vm->ops->trace(vm);
    uint64_t done = 0;
    *first = trace->first;
    *next = trace->next;
    if (from < trace->first)
        from = trace->first;
    for (; done < n && from < trace->next; done++, from++)
        memcpy(&to[done], trace_at(trace, from), sizeof *to);
    return (int64_t)done;
}

int kl_walk_tables(kl_vm *vm, uint32_t vcpu, int which, uint64_t gva, int access, int user, kl_walk *walk)
{
    NEED(walk_tables);
    NEED_VCPU();
    if (access < 0 || access > 2)
        return refuse(vm, KL_EINVAL, "an access is 0 (read), 1 (write) or 2 (fetch)");
    return vm->ops->walk_tables(vm, which, gva, access, user, walk);
}

/* ---- the tables ------------------------------------------------------------------------------------------------ */

static const char *const feature_names[] = {
#define GENERATION(NAME, summary) #NAME,
#define FEATURE(NAME, leaf, subleaf, reg, bit, virtualised, summary) #NAME,
#include "cpu/cpuid.def"
};
static const char *const intercept_names[] = {
#define INTERCEPT(NAME, summary) #NAME,
#include "cpu/intercept.def"
#undef INTERCEPT
};

int64_t kl_table_insn(uint64_t number, kl_insn_row *row)
{
    if (number < nr_insn_rows) {
        const struct insn_row *r = &insn_rows[number];
        *row = (kl_insn_row){ r->mnemonic, r->encoding, r->operands, r->summary, r->flags, feature_names[r->feature],
                              intercept_names[r->vmx], intercept_names[r->svm], r->attr };
    }
    return nr_insn_rows;
}

int64_t kl_table_event(uint64_t number, kl_event_row *row)
{
    static const kl_event_row rows[] = {
#define EVENT(NAME, name, side, a, b, c, d, e, summary) { name, #side, a, b, c, d, e, summary },
#include "trace.def"
#undef EVENT
    };
    if (number < NR_EVENT_KINDS)
        *row = rows[number];
    return NR_EVENT_KINDS;
}

const char *kl_profile_name(uint32_t number)
{
    return number < nr_profiles() ? profile_at(number)->name : NULL;
}

int kl_insn_length(const char *name, int mode, const uint8_t *bytes, uint32_t available)
{
    struct cpu cpu = { .profile = profile_find(name) };
    struct insn insn;
    if (!cpu.profile)
        return -(int)KL_EINVAL;
    switch (decode(&cpu, (enum mode)mode, bytes, available, &insn)) {
    case DECODE_OK: return insn.len;
    case DECODE_UD: return -1;
    case DECODE_SHORT: return -2;
    default: return -3;
    }
}
