/* Physical memory: RAM, spaces and the one door (space.h). */
#include "space.h"

#include <stdlib.h>
#include <string.h>

/* ---- RAM ---------------------------------------------------------------------------------- */

static uint8_t *take_from_calloc(void *context, uint64_t size, void **cookie)
{
    (void)context;
    if (size > SIZE_MAX - PAGE_SIZE)
        return NULL;
    *cookie = calloc(1, (size_t)size + PAGE_SIZE);
    return *cookie ? (uint8_t *)(((uintptr_t)*cookie + PAGE_SIZE - 1) & ~(uintptr_t)(PAGE_SIZE - 1)) : NULL;
}

static void give_back_to_free(void *context, uint8_t *host, uint64_t size, void *cookie)
{
    (void)context, (void)host, (void)size;
    free(cookie);
}

void memory_init(struct memory *memory, const struct ram_source *source)
{
    static const struct ram_source heap = { take_from_calloc, give_back_to_free, NULL };
    *memory = (struct memory){ .source = source ? *source : heap };
}

static void ram_free(struct ram *ram)
{
    ram->give_back(ram->context, ram->host, (uint64_t)ram->nr_pages * PAGE_SIZE, ram->cookie);
    free(ram->attr);
    free(ram);
}

/* Gives up the reference of memory_add_ram(); pages that a view still holds live on without us. */
void memory_release(struct memory *memory)
{
    for (unsigned k = 0; k < memory->nr_ram; k++) {
        struct ram *ram = memory->ram[k];
        if (ram && --ram->refs)
            ram->memory = NULL;
        else if (ram)
            ram_free(ram);
    }
    free(memory->ram);
    *memory = (struct memory){ 0 };
}

struct ram *memory_add_ram(struct memory *memory, uint64_t size)
{
    uint64_t nr_pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT;
    if (nr_pages == 0 || nr_pages > (uint64_t)NO_FRAME - memory->nr_frames)
        return NULL;
    struct ram **table = realloc(memory->ram, (memory->nr_ram + 1) * sizeof *table);
    if (!table)
        return NULL;
    memory->ram = table;
    struct ram *ram = calloc(1, sizeof *ram);
    uint8_t *attr = calloc(1, (size_t)nr_pages);
    if (ram && attr)
        ram->host = memory->source.take(memory->source.context, nr_pages << PAGE_SHIFT, &ram->cookie);
    if (!ram || !attr || !ram->host) {
        free(attr);
        free(ram);
        return NULL;
    }
    ram->attr = attr;
    ram->first = memory->nr_frames;
    ram->nr_pages = (uint32_t)nr_pages;
    ram->refs = 1;
    ram->memory = memory;
    ram->give_back = memory->source.give_back;
    ram->context = memory->source.context;
    memory->nr_frames += ram->nr_pages;
    memory->ram[memory->nr_ram++] = ram;
    return ram;
}

void ram_get(struct ram *ram) { ram->refs++; }

void ram_put(struct ram *ram)
{
    if (--ram->refs)
        return;
    for (unsigned k = 0; ram->memory && k < ram->memory->nr_ram; k++)
        if (ram->memory->ram[k] == ram)
            ram->memory->ram[k] = NULL;
    ram_free(ram);
}

void ram_disown(struct ram *ram)
{
    for (unsigned k = 0; ram->memory && k < ram->memory->nr_ram; k++)
        if (ram->memory->ram[k] == ram)
            ram->memory->ram[k] = NULL;
    ram->memory = NULL;
    ram_put(ram);
}

struct ram *memory_ram_of(const struct memory *memory, frame_t frame)
{
    for (unsigned k = memory->nr_ram; k-- > 0;) { /* the newest is the smallest chance, but few blocks exist */
        struct ram *ram = memory->ram[k];
        if (ram && frame - ram->first < ram->nr_pages && frame >= ram->first)
            return ram;
    }
    return NULL;
}

uint8_t *memory_host(const struct memory *memory, frame_t frame)
{
    struct ram *ram = memory_ram_of(memory, frame);
    return ram ? ram->host + ((uint64_t)(frame - ram->first) << PAGE_SHIFT) : NULL;
}

uint8_t *memory_attr(const struct memory *memory, frame_t frame)
{
    struct ram *ram = memory_ram_of(memory, frame);
    return ram ? &ram->attr[frame - ram->first] : NULL;
}

/* ---- the door -------------------------------------------------------------------------------- */

bool memory_observe(struct memory *memory, page_observer *told, void *context, unsigned attr)
{
    if (memory->nr_observers == MAX_OBSERVERS)
        return false;
    memory->observer[memory->nr_observers].told = told;
    memory->observer[memory->nr_observers].context = context;
    memory->observer[memory->nr_observers++].attr = attr;
    return true;
}

void memory_unobserve(struct memory *memory, page_observer *told, void *context)
{
    for (unsigned k = 0; k < memory->nr_observers; k++)
        if (memory->observer[k].told == told && memory->observer[k].context == context) {
            memory->observer[k] = memory->observer[--memory->nr_observers];
            return;
        }
}

void page_tell(struct memory *memory, frame_t frame, uint32_t offset, uint32_t len, unsigned bits)
{
    for (unsigned k = 0; k < memory->nr_observers; k++) {
        unsigned attr = *memory_attr(memory, frame) & memory->observer[k].attr & bits;
        if (attr)
            memory->observer[k].told(memory->observer[k].context, frame, offset, len, attr);
    }
}

void page_will_write_slow(struct memory *memory, frame_t frame, uint32_t offset, uint32_t len)
{
    page_tell(memory, frame, offset, len, ~0u);
}

/* ---- spaces ------------------------------------------------------------------------------------ */

void space_init(struct space *space, struct memory *memory) { *space = (struct space){ .memory = memory }; }

void space_release(struct space *space)
{
    for (unsigned k = 0; k < space->nr_extents; k++)
        if (space->extent[k].ram)
            ram_put(space->extent[k].ram);
    free(space->extent);
    space->extent = NULL;
    space->nr_extents = 0;
}

static bool space_insert(struct space *space, struct extent extent)
{
    unsigned at = 0;
    if (extent.size == 0 || (extent.start | extent.size) & (PAGE_SIZE - 1) || extent.start + extent.size - 1 < extent.start)
        return false;
    while (at < space->nr_extents && space->extent[at].start < extent.start)
        at++;
    if (at > 0 && extent.start - space->extent[at - 1].start < space->extent[at - 1].size)
        return false;
    if (at < space->nr_extents && space->extent[at].start - extent.start < extent.size)
        return false;
    struct extent *table = realloc(space->extent, (space->nr_extents + 1) * sizeof *table);
    if (!table)
        return false;
    memmove(table + at + 1, table + at, (space->nr_extents - at) * sizeof *table);
    table[at] = extent;
    space->extent = table;
    space->nr_extents++;
    space->generation++;
    return true;
}

bool space_map_ram(struct space *space, uint64_t start, struct ram *ram, uint32_t first_page, uint32_t nr_pages,
                   enum extent_kind kind)
{
    if (first_page > ram->nr_pages || nr_pages > ram->nr_pages - first_page)
        return false;
    if (!space_insert(space, (struct extent){ .start = start, .size = (uint64_t)nr_pages << PAGE_SHIFT, .kind = kind,
                                              .first = ram->first + first_page, .ram = ram }))
        return false;
    ram_get(ram);
    return true;
}

bool space_map_device(struct space *space, uint64_t start, uint64_t size)
{
    return space_insert(space, (struct extent){ .start = start, .size = size, .kind = EXTENT_DEVICE, .first = NO_FRAME });
}

bool space_unmap(struct space *space, uint64_t start)
{
    for (unsigned k = 0; k < space->nr_extents; k++) {
        if (space->extent[k].start != start)
            continue;
        struct ram *ram = space->extent[k].ram;
        memmove(space->extent + k, space->extent + k + 1, (space->nr_extents - k - 1) * sizeof *space->extent);
        space->nr_extents--;
        space->generation++;
        if (ram)
            ram_put(ram);
        return true;
    }
    return false;
}

const struct extent *space_find(const struct space *space, uint64_t pa)
{
    unsigned low = 0, high = space->nr_extents;
    while (low < high) { /* the last extent that starts at or below pa */
        unsigned middle = (low + high) / 2;
        if (space->extent[middle].start <= pa)
            low = middle + 1;
        else
            high = middle;
    }
    const struct extent *extent = low ? &space->extent[low - 1] : NULL;
    return extent && pa - extent->start < extent->size ? extent : NULL;
}

frame_t space_frame(const struct space *space, uint64_t pa, bool writing)
{
    const struct extent *extent = space_find(space, pa);
    if (!extent || !(extent->kind == EXTENT_RAM || (extent->kind == EXTENT_ROM && !writing)))
        return NO_FRAME;
    return extent->first + (frame_t)((pa - extent->start) >> PAGE_SHIFT);
}

static uint64_t bytes_in_page(uint64_t pa, uint64_t len)
{
    uint64_t left = PAGE_SIZE - (pa & (PAGE_SIZE - 1));
    return len < left ? len : left;
}

uint64_t space_read(const struct space *space, uint64_t pa, void *to, uint64_t len)
{
    uint64_t answered = 0;
    for (uint64_t n; len; len -= n, pa += n, to = (uint8_t *)to + n) {
        frame_t frame = space_frame(space, pa, false);
        n = bytes_in_page(pa, len);
        if (frame == NO_FRAME) {
            memset(to, 0xff, n);
            continue;
        }
        memcpy(to, memory_host(space->memory, frame) + (pa & (PAGE_SIZE - 1)), n);
        answered += n;
    }
    return answered;
}

uint64_t space_write(struct space *space, uint64_t pa, const void *from, uint64_t len)
{
    uint64_t answered = 0;
    for (uint64_t n; len; len -= n, pa += n, from = (const uint8_t *)from + n) {
        frame_t frame = space_frame(space, pa, true);
        n = bytes_in_page(pa, len);
        if (frame == NO_FRAME)
            continue;
        page_will_write(space->memory, frame, (uint32_t)(pa & (PAGE_SIZE - 1)), (uint32_t)n);
        memcpy(memory_host(space->memory, frame) + (pa & (PAGE_SIZE - 1)), from, n);
        answered += n;
    }
    return answered;
}
