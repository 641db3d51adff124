/* The log of inputs, replay, and going to a position (history.h). */
#include "history.h"

#include <stdlib.h>
#include <string.h>

static uint64_t now_instructions(kl_vm *vm)
{
    kl_position position;
    vm->ops->get_position(vm, &position);
    return position.instructions;
}

static unsigned regions_of(kl_vm *vm, struct region regions[MAX_REGIONS]) { return vm->ops->regions(vm, regions); }

/* ---- life --------------------------------------------------------------------------------- */

struct history *history_new(kl_vm *vm)
{
    struct history *h = calloc(1, sizeof *h);
    if (h && !snapshots_init(&h->snapshots, vm->ops->memory(vm))) {
        history_free(h);
        return NULL;
    }
    return h;
}

static void drop_inputs(struct history *h, uint64_t from)
{
    for (uint64_t n = from; n < h->nr_inputs; n++)
        free(h->input[n].payload);
    if (from < h->nr_inputs)
        h->nr_inputs = from;
}

void history_free(struct history *h)
{
    if (!h)
        return;
    drop_inputs(h, 0);
    free(h->input);
    snapshots_release(&h->snapshots);
    free(h);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

int64_t history_save(kl_vm *vm)
{
    struct history *h = vm->history;
    struct region regions[MAX_REGIONS];
    kl_position position;
    unsigned nr = regions_of(vm, regions);
    int64_t number = snapshot_save(&h->snapshots, regions, nr);
    if (number < 0)
        return refuse(vm, KL_ENOMEM, "no memory for another snapshot: drop some");
    vm->ops->get_position(vm, &position);
    struct snapshot *snapshot = &h->snapshots.list[number];
    snapshot->instructions = position.instructions;
    snapshot->sequence = position.sequence;
    snapshot->input = h->cursor;
    snapshot->asked = h->asked;
    return number;
}

int history_restore(kl_vm *vm, uint32_t number)
{
    struct history *h = vm->history;
    struct region regions[MAX_REGIONS];
    unsigned nr = regions_of(vm, regions);
    if (!snapshot_restore(&h->snapshots, number, regions, nr))
        return refuse(vm, KL_ENOENT, "no such snapshot, or the memory slots have changed since it was taken");
    struct trace *trace = vm->ops->trace(vm);
    trace->sequence = h->snapshots.list[number].sequence;
    if (!h->logging)
        trace_cut(trace, trace->sequence); /* what comes may be another story */
    h->cursor = h->snapshots.list[number].input;
    h->asked = h->snapshots.list[number].asked;
    h->next_snapshot = h->snapshots.list[number].instructions + h->interval;
    vm->ops->restored(vm);
    return 0;
}

/* The last snapshot at or before a position; -1: there is none. */
static int64_t nearest(const struct history *h, const kl_position *target)
{
    int64_t best = -1;
    for (uint32_t n = 0; n < h->snapshots.nr; n++) {
        const struct snapshot *s = &h->snapshots.list[n];
        bool before = s->instructions < target->instructions ||
                      (s->instructions == target->instructions && s->sequence <= target->sequence);
        if (s->state && before && (best < 0 || s->instructions >= h->snapshots.list[best].instructions))
            best = n;
    }
    return best;
}

/* ---- inputs -------------------------------------------------------------------------------------- */

static bool room_for_input(struct history *h)
{
    if (h->nr_inputs < h->max_inputs)
        return true;
    uint64_t more = h->max_inputs ? h->max_inputs * 2 : 64;
    struct input *input = realloc(h->input, more * sizeof *input);
    if (!input)
        return false;
    h->input = input;
    h->max_inputs = more;
    return true;
}

/* Something else than before is done at a moment in the past: what lay ahead is another story. */
static void branch(kl_vm *vm, const kl_position *now)
{
    struct history *h = vm->history;
    uint32_t keep = 0;
    drop_inputs(h, h->cursor);
    while (keep < h->snapshots.nr && h->snapshots.list[keep].instructions <= now->instructions &&
           h->snapshots.list[keep].input <= h->cursor)
        keep++;
    snapshots_cut(&h->snapshots, keep);
    trace_cut(vm->ops->trace(vm), now->sequence);
}

static bool same_input(const struct input *a, enum input_kind kind, uint32_t number, uint64_t address, const void *payload,
                       uint64_t size)
{
    return a->kind == kind && a->number == number && a->address == address && a->size == size &&
           (size == 0 || memcmp(a->payload, payload, size) == 0);
}

void history_log(kl_vm *vm, enum input_kind kind, uint32_t number, uint64_t address, const void *payload, uint64_t size)
{
    struct history *h = vm->history;
    kl_position position;
    if (!h || !h->logging)
        return;
    vm->ops->get_position(vm, &position);
    if (h->cursor < h->nr_inputs) {
        const struct input *next = &h->input[h->cursor];
        if (next->instructions == position.instructions && same_input(next, kind, number, address, payload, size)) {
            h->cursor++; /* the same again: the future stays */
            return;
        }
    }
    branch(vm, &position);
    uint8_t *copy = size ? malloc(size) : NULL;
    if (!room_for_input(h) || (size && !copy)) {
        free(copy);
        h->logging = false; /* history ends here; going back beyond is refused, going on is not */
        return;
    }
    if (size)
        memcpy(copy, payload, size);
    h->input[h->nr_inputs++] = (struct input){ .instructions = position.instructions, .sequence = position.sequence,
                                               .kind = kind, .number = number, .address = address, .size = size,
                                               .payload = copy };
    h->cursor = h->nr_inputs;
}

static void apply(kl_vm *vm, const struct input *input)
{
    const struct engine_ops *ops = vm->ops;
    uint64_t value;
    switch (input->kind) {
    case INPUT_REGS: ops->set_regs(vm, (const kl_regs *)input->payload); break;
    case INPUT_SREGS: ops->set_sregs(vm, (const kl_sregs *)input->payload); break;
    case INPUT_EVENTS: ops->set_events(vm, (const kl_events *)input->payload); break;
    case INPUT_MSR:
        memcpy(&value, input->payload, sizeof value);
        ops->set_msr(vm, input->number, value);
        break;
    case INPUT_WRITE: ops->write(vm, (int)input->number, input->address, input->payload, input->size); break;
    case INPUT_INTERRUPT: ops->interrupt(vm, input->number); break;
    case INPUT_NMI: ops->nmi(vm); break;
    case INPUT_ANSWER:
        memcpy(&value, input->payload, sizeof value);
        ops->complete(vm, value);
        break;
    case INPUT_STRING: ops->string_answer(vm, input->payload, input->size); break;
    case INPUT_CPUID: ops->complete_cpuid(vm, (const uint32_t *)input->payload); break;
    case INPUT_RESET: ops->reset(vm); break;
    }
}

static bool is_answer(const struct input *input) 
{
    return input->kind == INPUT_ANSWER || input->kind == INPUT_STRING || input->kind == INPUT_CPUID;
}

bool history_answers(kl_vm *vm)
{
    const struct history *h = vm->history;
    return h && h->cursor < h->nr_inputs && is_answer(&h->input[h->cursor]) &&
           h->input[h->cursor].instructions == now_instructions(vm);
}

/* ---- running ------------------------------------------------------------------------------------------ */

/* The next input, if it came at the present moment. An answer waits for its question. */
static bool apply_input_here(kl_vm *vm)
{
    struct history *h = vm->history;
    kl_position now;
    vm->ops->get_position(vm, &now);
    if (h->cursor == h->nr_inputs)
        return false;
    const struct input *input = &h->input[h->cursor];
    if (input->instructions != now.instructions || input->sequence > now.sequence || (is_answer(input) && !h->asked))
        return false;
    h->cursor++;
    h->asked = h->asked && !is_answer(input);
    apply(vm, input);
    return true;
}

static void apply_inputs_here(kl_vm *vm)
{
    while (apply_input_here(vm))
        ;
}

static bool waits_for_answer(uint32_t reason)
{
    return reason == KL_EXIT_IO || reason == KL_EXIT_MMIO || reason == KL_EXIT_CPUID;
}

/* Up to the next input, the next snapshot or the end of the budget, whichever is first. */
static int run_piece(kl_vm *vm, const kl_run_args *args, uint64_t end, kl_exit *exit)
{
    struct history *h = vm->history;
    uint64_t now = now_instructions(vm), goal = end;
    kl_run_args piece = *args;
    if (h->cursor < h->nr_inputs && h->input[h->cursor].instructions > now && h->input[h->cursor].instructions < goal)
        goal = h->input[h->cursor].instructions;
    if (h->interval && h->next_snapshot > now && h->next_snapshot < goal)
        goal = h->next_snapshot;
    piece.max_instructions = goal - now;
    memset(exit, 0, sizeof *exit);
    exit->hardware_reason = ~0u;
    return vm->ops->run(vm, &piece, exit);
}

static void snapshot_if_due(kl_vm *vm)
{
    struct history *h = vm->history;
    uint64_t now = now_instructions(vm);
    if (!h->interval || now < h->next_snapshot)
        return;
    h->next_snapshot = now + h->interval;
    for (uint32_t n = 0; n < h->snapshots.nr; n++)
        if (h->snapshots.list[n].state && h->snapshots.list[n].instructions == now)
            return; /* running through known country */
    history_save(vm);
}

int history_run(kl_vm *vm, const kl_run_args *args, kl_exit *exit)
{
    struct history *h = vm->history;
    uint64_t start = now_instructions(vm), end = start + args->max_instructions;
    if (end < start)
        end = ~0ull;
    apply_inputs_here(vm);
    h->asked = false;
    for (;;) {
        int result = run_piece(vm, args, end, exit);
        if (result < 0)
            return result;
        h->asked = waits_for_answer(exit->reason);
        snapshot_if_due(vm);
        uint64_t now = now_instructions(vm);
        if (exit->reason == KL_EXIT_LIMIT && !exit->no_progress && now < end) {
            apply_inputs_here(vm);
            continue;
        }
        exit->replayed = h->cursor < h->nr_inputs;
        return 0;
    }
}

/* ---- going to a position ---------------------------------------------------------------------------------- */

/* Runs forward as before until the target; stops on the way are passed, with the answers they had. */
static int replay(kl_vm *vm, const kl_position *target)
{
    struct history *h = vm->history;
    struct trace *trace = vm->ops->trace(vm);
    kl_exit exit;
    for (;;) {
        kl_position now;
        vm->ops->get_position(vm, &now);
        bool inside = now.instructions >= target->instructions;
        if (now.instructions > target->instructions || (inside && now.sequence >= target->sequence))
            return 0;
        if (inside && apply_input_here(vm))
            continue;
        /* the last instruction's events: stop at the sequence asked for */
        kl_run_args args = { .max_instructions = inside ? 1 : target->instructions - now.instructions,
                             .stop_events = inside ? ~0ull : 0, .step_phase = inside };
        trace->stop_sequence = inside ? target->sequence : 0;
        int result = history_run(vm, &args, &exit);
        trace->stop_sequence = 0;
        if (result < 0)
            return result;
        if (inside && exit.reason != KL_EXIT_EVENT && !(waits_for_answer(exit.reason) && history_answers(vm)))
            return 0; /* an event or a phase before the target is passed */
        kl_position after;
        vm->ops->get_position(vm, &after);
        bool stuck = after.instructions == now.instructions && after.sequence == now.sequence;
        if (stuck && !history_answers(vm) && !(h->cursor < h->nr_inputs && h->input[h->cursor].instructions == now.instructions))
            return 0; /* the end of what is known */
    }
}

int history_goto(kl_vm *vm, const kl_position *target)
{
    struct history *h = vm->history;
    int64_t number = nearest(h, target);
    if (number < 0)
        return refuse(vm, KL_ENOENT, "this position lies before the history that is kept");
    struct trace *trace = vm->ops->trace(vm);
    uint64_t enabled = trace->enabled;
    trace->enabled = 0; /* what happens again was recorded when it happened */
    int result = history_restore(vm, (uint32_t)number);
    if (result == 0)
        result = replay(vm, target);
    trace->enabled = enabled;
    if (vm->ops->attention)
        vm->ops->attention(vm);
    return result;
}
