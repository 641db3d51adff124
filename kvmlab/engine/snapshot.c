/* Snapshots by page generations (snapshot.h). */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

/* A content that some snapshot needs and memory no longer has. */
struct page_version {
    frame_t frame;
    uint32_t generation;
    uint32_t chain;   /* number + 1 */
    uint8_t *bytes;   /* PAGE_SIZE; NULL: all zero */
};

static uint32_t bucket_of(const struct snapshots *s, frame_t frame, uint32_t generation)
{
    return (frame * 2654435761u ^ generation * 40503u) & (s->nr_buckets - 1);
}

static struct page_version *version_find(const struct snapshots *s, frame_t frame, uint32_t generation)
{
    for (uint32_t n = s->bucket[bucket_of(s, frame, generation)]; n; n = s->version[n - 1].chain)
        if (s->version[n - 1].frame == frame && s->version[n - 1].generation == generation)
            return &s->version[n - 1];
    return NULL;
}

static void rehash(struct snapshots *s)
{
    memset(s->bucket, 0, s->nr_buckets * sizeof *s->bucket);
    for (uint32_t n = 0; n < s->nr_versions; n++) {
        uint32_t *bucket = &s->bucket[bucket_of(s, s->version[n].frame, s->version[n].generation)];
        s->version[n].chain = *bucket;
        *bucket = n + 1;
    }
}

static bool version_room(struct snapshots *s)
{
    if (s->nr_versions < s->max_versions)
        return true;
    uint32_t more = s->max_versions ? s->max_versions * 2 : 1024;
    struct page_version *version = realloc(s->version, more * sizeof *version);
    if (!version)
        return false;
    s->version = version;
    uint32_t *bucket = realloc(s->bucket, more * sizeof *bucket);
    if (!bucket)
        return false;
    s->bucket = bucket;
    s->max_versions = s->nr_buckets = more;
    rehash(s);
    return true;
}

static bool all_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* Keeps the present content of a frame. Out of memory: the snapshots that need it are lost, and said so
 * by a failing restore; the guest goes on. */
static void version_store(struct snapshots *s, frame_t frame)
{
    const uint8_t *page = memory_host(s->memory, frame);
    uint32_t generation = s->generation[frame];
    if (version_find(s, frame, generation) || !version_room(s))
        return;
    uint8_t *bytes = NULL;
    if (!all_zero(page)) {
        bytes = malloc(PAGE_SIZE);
        if (!bytes)
            return;
        memcpy(bytes, page, PAGE_SIZE);
        s->stored_bytes += PAGE_SIZE;
    }
    uint32_t *bucket = &s->bucket[bucket_of(s, frame, generation)];
    s->version[s->nr_versions] = (struct page_version){ frame, generation, *bucket, bytes };
    *bucket = ++s->nr_versions;
}

/* The door: a page that a snapshot shares is about to change. */
static void page_changes(void *context, frame_t frame, uint32_t offset, uint32_t len, unsigned attr)
{
    struct snapshots *s = context;
    (void)offset, (void)len, (void)attr;
    if (frame < s->nr_frames) {
        version_store(s, frame);
        s->generation[frame] = ++s->next_generation;
    }
    memory_clear_attr(s->memory, frame, PAGE_SHARED);
}

/* ---- life ------------------------------------------------------------------------------------- */

static bool follow_memory(struct snapshots *s)
{
    frame_t nr = s->memory->nr_frames;
    if (nr == s->nr_frames)
        return true;
    uint32_t *generation = realloc(s->generation, nr * sizeof *generation);
    if (!generation)
        return false;
    memset(generation + s->nr_frames, 0, (nr - s->nr_frames) * sizeof *generation);
    s->generation = generation;
    s->nr_frames = nr;
    return true;
}

bool snapshots_init(struct snapshots *s, struct memory *memory)
{
    *s = (struct snapshots){ .memory = memory };
    return version_room(s) && memory_observe(memory, page_changes, s, PAGE_SHARED);
}

void snapshots_release(struct snapshots *s)
{
    snapshots_cut(s, 0);
    if (s->memory)
        memory_unobserve(s->memory, page_changes, s);
    free(s->list);
    free(s->generation);
    free(s->version);
    free(s->bucket);
    *s = (struct snapshots){ 0 };
}

/* ---- saving and restoring ------------------------------------------------------------------------ */

static size_t total_size(const struct region *regions, unsigned nr)
{
    size_t size = 0;
    for (unsigned k = 0; k < nr; k++)
        size += regions[k].size;
    return size;
}

int64_t snapshot_save(struct snapshots *s, const struct region *regions, unsigned nr_regions)
{
    if (!follow_memory(s))
        return -1;
    if (s->nr == s->max) {
        uint32_t more = s->max ? s->max * 2 : 16;
        struct snapshot *list = realloc(s->list, more * sizeof *list);
        if (!list)
            return -1;
        s->list = list;
        s->max = more;
    }
    struct snapshot snapshot = { .state = malloc(total_size(regions, nr_regions) + 1),
                                 .generation = malloc((s->nr_frames + 1) * sizeof(uint32_t)), .nr_frames = s->nr_frames };
    if (!snapshot.state || !snapshot.generation) {
        free(snapshot.state);
        free(snapshot.generation);
        return -1;
    }
    uint8_t *to = snapshot.state;
    for (unsigned k = 0; k < nr_regions; to += regions[k++].size)
        memcpy(to, regions[k].bytes, regions[k].size);
    memcpy(snapshot.generation, s->generation, s->nr_frames * sizeof(uint32_t));
    for (unsigned k = 0; k < s->memory->nr_ram; k++) {
        struct ram *ram = s->memory->ram[k];
        for (uint32_t page = 0; ram && page < ram->nr_pages; page++)
            ram->attr[page] |= PAGE_SHARED;
    }
    s->list[s->nr] = snapshot;
    return s->nr++;
}

/* Every content that the snapshot needs is at hand: nothing is changed before that is known. */
static bool restorable(const struct snapshots *s, const struct snapshot *snapshot)
{
    if (snapshot->nr_frames != s->memory->nr_frames)
        return false;
    for (frame_t frame = 0; frame < snapshot->nr_frames; frame++)
        if (snapshot->generation[frame] != s->generation[frame] && memory_ram_of(s->memory, frame) &&
            !version_find(s, frame, snapshot->generation[frame]))
            return false;
    return true;
}

static void restore_page(struct snapshots *s, frame_t frame, uint32_t generation)
{
    uint8_t *page = memory_host(s->memory, frame);
    /* the present content is kept if a snapshot needs it, decoded code is dropped; everyone else's state is restored too */
    page_tell(s->memory, frame, 0, PAGE_SIZE, PAGE_SHARED | PAGE_CODE);
    const struct page_version *version = version_find(s, frame, generation);
    if (version->bytes)
        memcpy(page, version->bytes, PAGE_SIZE);
    else
        memset(page, 0, PAGE_SIZE);
    s->generation[frame] = generation;
    memory_set_attr(s->memory, frame, PAGE_SHARED);
}

bool snapshot_restore(struct snapshots *s, uint32_t number, const struct region *regions, unsigned nr_regions)
{
    if (number >= s->nr || !s->list[number].state || !restorable(s, &s->list[number]))
        return false;
    const struct snapshot *snapshot = &s->list[number];
    for (frame_t frame = 0; frame < snapshot->nr_frames; frame++)
        if (snapshot->generation[frame] != s->generation[frame] && memory_ram_of(s->memory, frame))
            restore_page(s, frame, snapshot->generation[frame]);
    const uint8_t *from = snapshot->state;
    for (unsigned k = 0; k < nr_regions; from += regions[k++].size)
        memcpy(regions[k].bytes, from, regions[k].size);
    return true;
}

/* ---- dropping ------------------------------------------------------------------------------------------ */

static bool needed(const struct snapshots *s, const struct page_version *version)
{
    for (uint32_t n = 0; n < s->nr; n++) {
        const struct snapshot *snapshot = &s->list[n];
        if (snapshot->state && version->frame < snapshot->nr_frames &&
            snapshot->generation[version->frame] == version->generation)
            return true;
    }
    return false;
}

static void forget_unneeded(struct snapshots *s)
{
    uint32_t kept = 0;
    for (uint32_t n = 0; n < s->nr_versions; n++) {
        if (needed(s, &s->version[n])) {
            s->version[kept++] = s->version[n];
        } else if (s->version[n].bytes) {
            free(s->version[n].bytes);
            s->stored_bytes -= PAGE_SIZE;
        }
    }
    s->nr_versions = kept;
    rehash(s);
}

static void snapshot_free(struct snapshot *snapshot)
{
    free(snapshot->state);
    free(snapshot->generation);
    *snapshot = (struct snapshot){ 0 };
}

void snapshot_drop(struct snapshots *s, uint32_t number)
{
    if (number >= s->nr)
        return;
    snapshot_free(&s->list[number]);
    forget_unneeded(s);
}

void snapshots_cut(struct snapshots *s, uint32_t number)
{
    for (uint32_t n = number; n < s->nr; n++)
        snapshot_free(&s->list[n]);
    if (number < s->nr)
        s->nr = number;
    if (s->bucket)
        forget_unneeded(s);
}

/* ---- hashing ----------------------------------------------------------------------------------------------- */

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 32;
    }
    for (; size; p++, size--)
        hash = (hash ^ *p) * 0x100000001b3ull;
    return hash;
}

uint64_t hash_machine(const struct memory *memory, const struct region *regions, unsigned nr_regions)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (unsigned k = 0; k < nr_regions; k++)
        hash = hash_bytes(hash, regions[k].bytes, regions[k].size);
    for (unsigned k = 0; k < memory->nr_ram; k++)
        if (memory->ram[k])
            hash = hash_bytes(hash, memory->ram[k]->host, (size_t)memory->ram[k]->nr_pages * PAGE_SIZE);
    return hash;
}
