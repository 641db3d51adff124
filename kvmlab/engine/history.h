/* Going back: the log of inputs from outside, and replay from the nearest snapshot.
 *
 * A machine is deterministic between its inputs, and its inputs are the calls of the model. Each is
 * logged with the position at which it came; going to a position is restoring the nearest snapshot
 * before it and running forward, the logged inputs in their places. Running on from a moment in the
 * past goes the same way as before until somebody does something else: then what lay ahead is dropped. */
#ifndef KVMLAB_HISTORY_H
#define KVMLAB_HISTORY_H

#include "engine.h"
#include "snapshot.h"
#include "trace.h"

enum input_kind { INPUT_REGS, INPUT_SREGS, INPUT_EVENTS, INPUT_MSR, INPUT_WRITE, INPUT_INTERRUPT, INPUT_NMI,
                  INPUT_ANSWER, INPUT_STRING, INPUT_CPUID, INPUT_RESET };

struct input {
    uint64_t instructions, sequence;
    uint32_t kind, number;  /* number: vector, MSR index, space */
    uint64_t address;       /* where a write went */
    uint64_t size;          /* of the payload */
    uint8_t *payload;
};

struct history {
    struct snapshots snapshots;
    struct input *input;
    uint64_t nr_inputs, max_inputs;
    uint64_t cursor;        /* the next input to replay; nr_inputs: nothing lies ahead */
    uint64_t interval;      /* instructions between snapshots; 0: none are taken by themselves */
    uint64_t next_snapshot; /* time of the next one */
    bool logging;
    bool asked;             /* the last stop waits for an answer */
};

struct history *history_new(kl_vm *vm);
void history_free(struct history *history);
/* Called before the engine does what the call asks. Drops what lay ahead. */
void history_log(kl_vm *vm, enum input_kind kind, uint32_t number, uint64_t address, const void *payload, uint64_t size);
/* The answer that was given when the run stopped here before, if what lies ahead begins with one. */
bool history_answers(kl_vm *vm);
int history_run(kl_vm *vm, const kl_run_args *args, kl_exit *exit);
int history_goto(kl_vm *vm, const kl_position *target);
int64_t history_save(kl_vm *vm);
int history_restore(kl_vm *vm, uint32_t number);

#endif
