/* Snapshots of a whole machine: state regions copied, memory by page generations.
 *
 * Every frame has a generation, the name of its present content. A snapshot is a copy of the state
 * regions and of all generations; pages are copied only when they are first written after it (the
 * one door tells us, PAGE_SHARED). So a snapshot costs its tables, and any snapshot can be restored from any
 * moment, forwards and backwards.
 *
 * Freestanding: part of the core. */
#ifndef KVMLAB_SNAPSHOT_H
#define KVMLAB_SNAPSHOT_H

#include "space.h"

struct region { void *bytes; size_t size; }; /* a piece of pointer-free state */
#define MAX_REGIONS 8

struct snapshot {
    uint8_t *state;         /* all regions, one after the other; NULL: dropped */
    uint32_t *generation;   /* by frame */
    frame_t nr_frames;
    uint32_t space_generation;
    uint64_t instructions, sequence, input; /* position, and the number of inputs before it */
    bool asked;             /* taken at a stop that waits for an answer */
};

struct page_version;        /* snapshot.c */
struct snapshots {
    struct memory *memory;
    uint32_t *generation;   /* by frame, of the present content */
    frame_t nr_frames;
    uint32_t next_generation;
    struct page_version *version; /* stored contents, in a hash by (frame, generation) */
    uint32_t nr_versions, max_versions;
    uint32_t *bucket;
    uint32_t nr_buckets;
    struct snapshot *list;  /* by number, growing; positions ascend */
    uint32_t nr, max;
    uint64_t stored_bytes;
};

bool snapshots_init(struct snapshots *s, struct memory *memory) MUST_CHECK;
void snapshots_release(struct snapshots *s);
/* The number of the new snapshot, or -1: no memory (nothing has changed). The caller fills in its position. */
int64_t snapshot_save(struct snapshots *s, const struct region *regions, unsigned nr_regions);
bool snapshot_restore(struct snapshots *s, uint32_t number, const struct region *regions, unsigned nr_regions) MUST_CHECK;
void snapshot_drop(struct snapshots *s, uint32_t number);
/* Drops the snapshots from `number` on. */
void snapshots_cut(struct snapshots *s, uint32_t number);

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size);
/* All regions and all of memory. */
uint64_t hash_machine(const struct memory *memory, const struct region *regions, unsigned nr_regions);

#endif
