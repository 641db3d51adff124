/* The ring of recorded events (trace.h). */
#include "trace.h"

#include <stdlib.h>

bool trace_init(struct trace *trace, uint32_t capacity)
{
    *trace = (struct trace){ .capacity = capacity };
    if (capacity == 0)
        return true;
    trace->ring = calloc(capacity, sizeof *trace->ring);
    return trace->ring != NULL;
}

void trace_release(struct trace *trace)
{
    free(trace->ring);
    *trace = (struct trace){ 0 };
}

void trace_event(struct trace *trace, const struct event *event)
{
    if (trace->stops >> event->kind & 1 && !trace->stopped_by && event->sequence + 1 >= trace->stop_sequence)
        trace->stopped_by = event->kind + 1u;
    if (trace->capacity == 0 || !(trace->enabled >> event->kind & 1) || event->sequence < trace->seen)
        return;
    trace->seen = event->sequence + 1;
    trace->ring[trace->next++ & (trace->capacity - 1)] = *event;
    if (trace->next - trace->first > trace->capacity)
        trace->first = trace->next - trace->capacity;
}

const struct event *trace_at(const struct trace *trace, uint64_t number)
{
    if (number < trace->first || number >= trace->next)
        return NULL;
    return &trace->ring[number & (trace->capacity - 1)];
}

void trace_cut(struct trace *trace, uint64_t sequence)
{
    while (trace->next > trace->first && trace->ring[(trace->next - 1) & (trace->capacity - 1)].sequence >= sequence)
        trace->next--;
    if (trace->seen > sequence)
        trace->seen = sequence;
}
