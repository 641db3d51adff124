/* Events: everything worth seeing, as records of 64 bytes without pointers, and the ring that
 * keeps them. A position is (retired instructions, sequence); the sequence numbers every event,
 * recorded or not, so positions do not depend on what is traced.
 *
 * Freestanding: part of the core. */
#ifndef KVMLAB_TRACE_H
#define KVMLAB_TRACE_H

#include <stdbool.h>
#include <stdint.h>

/* Kinds, sides and the meaning of a..e by kind: trace.def. */
enum event_kind {
#define EVENT(NAME, name, side, a, b, c, d, e, summary) EVENT_##NAME,
#include "trace.def"
#undef EVENT
    NR_EVENT_KINDS
};

enum event_side { SIDE_GUEST, SIDE_HARDWARE, SIDE_HYPERVISOR, SIDE_USER };

struct event {
    uint64_t instructions; /* retired when it happened */
    uint64_t sequence;
    uint16_t kind;         /* enum event_kind */
    uint8_t side;          /* enum event_side */
    uint8_t vcpu;
    uint32_t a;            /* the rest by kind */
    uint64_t b, c, d;
    uint64_t e;
    uint64_t rip;          /* guest's RIP where that means something */
};

struct trace {
    uint64_t sequence;      /* state: number of the next event */
    /* rebuildable from here on: what is kept for looking */
    uint64_t enabled;       /* bit per kind: record it */
    uint64_t stops;         /* bit per kind: the run is to stop after it */
    uint64_t stop_sequence; /* … but not an event before this one */
    uint32_t stopped_by;    /* kind + 1 of the event that did, or 0 */
    struct event *ring;     /* capacity records */
    uint64_t seen;          /* what is enabled has been recorded up to this sequence number: going there again adds nothing */
    uint32_t capacity;      /* a power of two, or 0: nothing is kept */
    uint64_t first, next;   /* record numbers kept: first .. next - 1 */
};

bool trace_init(struct trace *trace, uint32_t capacity);
void trace_release(struct trace *trace);
/* Records the event if its kind is enabled, and notes it if its kind stops the run. */
void trace_event(struct trace *trace, const struct event *event);
const struct event *trace_at(const struct trace *trace, uint64_t number); /* NULL: not kept any more */
/* Forget what lies at or after this sequence number (going back in time). */
void trace_cut(struct trace *trace, uint64_t sequence);

#endif
