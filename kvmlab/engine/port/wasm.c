/* The eight functions of libc that the core may call, and one that compilers do, for a WebAssembly module without libc and without imports.
 *
 * Memory is taken from the module's own linear memory, which grows. Small blocks come in powers of two, each size with
 * its list of free blocks; large ones (guest RAM, above all) are whole 64 KiB pages, first fit, and merge with a free
 * neighbour. Page-sized requests are not aligned to pages: the core asks for nothing that needs it. */
#include <stddef.h>
#include <stdint.h>

#define WASM_PAGE 65536u
#define MIN_CLASS 5u  /* 32 bytes */
#define MAX_CLASS 15u /* 32 KiB: above, whole pages */

/* In front of every block; 16 bytes, so that what malloc returns is aligned as any type needs. */
struct header {
    uint32_t size;       /* bytes with this header; a power of two up to 1 << MAX_CLASS, else whole pages */
    uint32_t unused;
    struct header *next; /* in a list of free blocks */
    uint32_t padding;
};

_Static_assert(sizeof(struct header) == 16, "wasm32");

/* The linear memory after the data and the stack, where wasm-ld says. One module, one heap: this is libc's state, not
 * the core's, which has none. */
extern unsigned char __heap_base;
static struct {
    struct header *small[MAX_CLASS + 1];
    struct header *large; /* ascending addresses */
    uintptr_t next, end;  /* never used yet */
} heap;

static void *never_used(uint32_t size, uint32_t alignment)
{
    if (!heap.next) {
        heap.next = (uintptr_t)&__heap_base;
        heap.end = (uintptr_t)__builtin_wasm_memory_size(0) * WASM_PAGE;
    }
    uintptr_t start = (heap.next + alignment - 1) & ~(uintptr_t)(alignment - 1);
    if (start < heap.next || start + size < start)
        return NULL;
    if (start + size > heap.end) {
        size_t pages = (start + size - heap.end + WASM_PAGE - 1) / WASM_PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1)
            return NULL;
        heap.end += pages * WASM_PAGE;
    }
    heap.next = start + size;
    return (void *)start;
}

static unsigned class_of(uint32_t size)
{
    unsigned class = MIN_CLASS;
    while ((1u << class) < size)
        class++;
    return class;
}

static struct header *take_small(unsigned class)
{
    struct header *block = heap.small[class];
    if (block)
        heap.small[class] = block->next;
    else if ((block = never_used(1u << class, 16)))
        block->size = 1u << class;
    return block;
}

static struct header *take_large(uint32_t size)
{
    for (struct header **link = &heap.large; *link; link = &(*link)->next) {
        struct header *block = *link;
        if (block->size < size)
            continue;
        if (block->size == size) {
            *link = block->next;
        } else {
            struct header *rest = (struct header *)((uintptr_t)block + size);
            rest->size = block->size - size;
            rest->next = block->next;
            *link = rest;
            block->size = size;
        }
        return block;
    }
    struct header *block = never_used(size, 16);
    if (block)
        block->size = size;
    return block;
}

static void give_large(struct header *block)
{
    struct header **link = &heap.large, *before = NULL;
    while (*link && *link < block) {
        before = *link;
        link = &(*link)->next;
    }
    block->next = *link;
    *link = block;
    if (block->next && (uintptr_t)block + block->size == (uintptr_t)block->next) {
        block->size += block->next->size;
        block->next = block->next->next;
    }
    if (before && (uintptr_t)before + before->size == (uintptr_t)block) {
        before->size += block->size;
        before->next = block->next;
    }
}

void *malloc(size_t len)
{
    if (len > UINT32_MAX - WASM_PAGE - sizeof(struct header))
        return NULL;
    uint32_t size = (uint32_t)(len + sizeof(struct header));
    struct header *block = size <= 1u << MAX_CLASS
                               ? take_small(class_of(size))
                               : take_large((size + WASM_PAGE - 1) & ~(WASM_PAGE - 1));
    return block ? block + 1 : NULL;
}

void free(void *memory)
{
    if (!memory)
        return;
    struct header *block = (struct header *)memory - 1;
    if (block->size > 1u << MAX_CLASS) {
        give_large(block);
    } else {
        unsigned class = class_of(block->size);
        block->next = heap.small[class];
        heap.small[class] = block;
    }
}

void *calloc(size_t count, size_t len)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, len, &bytes))
        return NULL;
    void *memory = malloc(bytes);
    return memory ? __builtin_memset(memory, 0, bytes) : NULL;
}

void *realloc(void *old, size_t len)
{
    if (!old)
        return malloc(len);
    size_t had = ((struct header *)old - 1)->size - sizeof(struct header);
    if (len <= had)
        return old;
    void *memory = malloc(len);
    if (memory) {
        __builtin_memcpy(memory, old, had);
        free(old);
    }
    return memory;
}

/* -mbulk-memory: each of these is one instruction of WebAssembly. */
void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
    return __builtin_memcpy(to, from, len);
}

void *memmove(void *to, const void *from, size_t len)
{
    return __builtin_memmove(to, from, len);
}

void *memset(void *to, int value, size_t len)
{
    return __builtin_memset(to, value, len);
}

int memcmp(const void *a, const void *b, size_t len)
{
    const unsigned char *x = a, *y = b;
    for (; len; len--, x++, y++)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}

/* The core has no 128-bit type, but newer LLVMs recognise the long multiplication of cpu/wide.h and call the
 * compiler's helper for one. The barriers keep this from being recognised in turn. */
static uint64_t barrier(uint64_t value)
{
    __asm__("" : "+r"(value));
    return value;
}

__int128 __multi3(__int128 a, __int128 b);
__int128 __multi3(__int128 a, __int128 b)
{
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    uint64_t x0 = (uint32_t)x, x1 = x >> 32, y0 = (uint32_t)y, y1 = y >> 32;
    uint64_t low = barrier(x0 * y0), a_mid = barrier(x1 * y0), b_mid = barrier(x0 * y1), top = barrier(x1 * y1);
    uint64_t mid = (low >> 32) + (uint32_t)a_mid + (uint32_t)b_mid;
    uint64_t high = top + (a_mid >> 32) + (b_mid >> 32) + (mid >> 32);
    high += x * (uint64_t)(b >> 64) + y * (uint64_t)(a >> 64);
    return (__int128)((unsigned __int128)high << 64 | mid << 32 | (uint32_t)low);
}
