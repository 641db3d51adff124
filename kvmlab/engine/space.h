/* Physical memory: frames of RAM, spaces that map addresses to them, and the one door
 * through which every store goes.
 *
 * A machine owns one `struct memory`: all its RAM, cut into frames of 4 KiB. A `struct space`
 * maps physical addresses to extents of frames, devices or holes; a processor points at one
 * space. Several spaces may show the same frames (guest-physical and host-physical).
 *
 * Freestanding: part of the core. */
#ifndef KVMLAB_SPACE_H
#define KVMLAB_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_MASK (~(uint64_t)(PAGE_SIZE - 1))

#if defined(__GNUC__) || defined(__clang__)
#define MUST_CHECK __attribute__((warn_unused_result))
#define MAYBE_UNUSED __attribute__((unused))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define MUST_CHECK
#define MAYBE_UNUSED
#define LIKELY(x) (x)
#define UNLIKELY(x) (x)
#define NOINLINE
#define ALWAYS_INLINE static inline
#endif

/* The core has no libc but memory functions (port/wasm.c). */
static inline bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

typedef uint32_t frame_t; /* number of a RAM frame inside its memory */
#define NO_FRAME UINT32_MAX

/* Why a store to a page must ask first. Zero: a TLB entry may store without asking. */
enum page_attr {
    PAGE_CODE = 1,    /* holds decoded instructions */
    PAGE_SHARED = 2,  /* a snapshot still needs this content */
    PAGE_WATCHED = 4, /* somebody wants to be told of each store */
    PAGE_LOGGED = 16, /* the dirty log wants the first store */
    PAGE_TABLE = 32,  /* a guest page table that the hypervisor shadows */
};

/* Told before bytes [offset, offset+len) of a frame change. `attr`: the bits that made it ask.
 * An observer clears the bits it no longer needs (memory_clear_attr). */
typedef void page_observer(void *context, frame_t frame, uint32_t offset, uint32_t len, unsigned attr);

/* One block of RAM. Counted: spaces, views and mappings each hold a reference. */
struct ram {
    uint8_t *host;     /* nr_pages * PAGE_SIZE bytes */
    uint8_t *attr;     /* one enum page_attr byte per page */
    frame_t first;     /* its frames are first .. first + nr_pages - 1 */
    uint32_t nr_pages;
    uint32_t refs;
    struct memory *memory; /* whose it is; NULL: the memory is gone, a view keeps the pages */
    void (*give_back)(void *context, uint8_t *host, uint64_t size, void *cookie);
    void *context, *cookie; /* for give_back */
};

/* Where RAM comes from: calloc by default, a memfd for mappings of user space. */
struct ram_source {
    uint8_t *(*take)(void *context, uint64_t size, void **cookie); /* zeroed, page aligned; NULL: cannot be had */
    void (*give_back)(void *context, uint8_t *host, uint64_t size, void *cookie);
    void *context;
};

#define MAX_OBSERVERS 4

struct memory {
    struct ram **ram;  /* by age; frame numbers ascend; freed ones are NULL */
    unsigned nr_ram;
    frame_t nr_frames; /* all frames ever handed out; numbers are never used again */
    struct {
        page_observer *told;
        void *context;
        unsigned attr; /* the attribute bits it cares for */
    } observer[MAX_OBSERVERS];
    unsigned nr_observers;
    struct ram_source source;
};

void memory_init(struct memory *memory, const struct ram_source *source); /* source NULL: calloc */
void memory_release(struct memory *memory);
struct ram *memory_add_ram(struct memory *memory, uint64_t size) MUST_CHECK; /* NULL: cannot be had; one reference */
void ram_get(struct ram *ram);
void ram_put(struct ram *ram); /* frees the pages with the last reference */
/* Gives back the reference of memory_add_ram(), which memory_release() gives back else: from now on only views hold the pages. */
void ram_disown(struct ram *ram);
bool memory_observe(struct memory *memory, page_observer *told, void *context, unsigned attr) MUST_CHECK;
void memory_unobserve(struct memory *memory, page_observer *told, void *context);

struct ram *memory_ram_of(const struct memory *memory, frame_t frame); /* NULL: freed or never there */
uint8_t *memory_host(const struct memory *memory, frame_t frame);      /* rebuildable: never keep in state */
uint8_t *memory_attr(const struct memory *memory, frame_t frame);
static inline void memory_set_attr(const struct memory *memory, frame_t frame, unsigned attr)
{
    *memory_attr(memory, frame) |= (uint8_t)attr;
}
static inline void memory_clear_attr(const struct memory *memory, frame_t frame, unsigned attr)
{
    *memory_attr(memory, frame) &= (uint8_t)~attr;
}

/* The door. Every writer that is not a TLB entry over a page whose attribute byte is zero
 * calls this before it changes the bytes. */
void page_will_write_slow(struct memory *memory, frame_t frame, uint32_t offset, uint32_t len);
/* Only those who care for one of these bits are told: going back in time is no store of the machine. */
void page_tell(struct memory *memory, frame_t frame, uint32_t offset, uint32_t len, unsigned bits);
static inline void page_will_write(struct memory *memory, frame_t frame, uint32_t offset, uint32_t len)
{
    if (UNLIKELY(*memory_attr(memory, frame)))
        page_will_write_slow(memory, frame, offset, len);
}

enum extent_kind { EXTENT_HOLE, EXTENT_RAM, EXTENT_ROM, EXTENT_DEVICE };

struct extent {
    uint64_t start, size; /* bytes, page aligned */
    enum extent_kind kind;
    frame_t first;        /* RAM and ROM: frame of `start` */
    struct ram *ram;      /* counted */
};

struct space {
    struct memory *memory;
    struct extent *extent; /* sorted by start, no overlap */
    unsigned nr_extents;
    uint32_t generation;   /* counts changes: whoever caches a lookup compares it */
};

void space_init(struct space *space, struct memory *memory);
void space_release(struct space *space);
/* False: overlap, wrap-around, not page aligned, or no memory for the table. */
bool space_map_ram(struct space *space, uint64_t start, struct ram *ram, uint32_t first_page, uint32_t nr_pages,
                   enum extent_kind kind) MUST_CHECK;
bool space_map_device(struct space *space, uint64_t start, uint64_t size) MUST_CHECK;
bool space_unmap(struct space *space, uint64_t start); /* the extent that starts there */
const struct extent *space_find(const struct space *space, uint64_t pa); /* NULL: hole */
/* The frame at pa: RAM, or ROM when `writing` is false; NO_FRAME for devices and holes. */
frame_t space_frame(const struct space *space, uint64_t pa, bool writing);

/* Copy through the door. Holes and devices read as ones and drop writes; the result is the
 * number of bytes that RAM (or ROM, reading) answered. */
uint64_t space_read(const struct space *space, uint64_t pa, void *to, uint64_t len);
uint64_t space_write(struct space *space, uint64_t pa, const void *from, uint64_t len);

#endif
