/* The code cache: decoded blocks per physical page, and their end when the page is written.
 *
 * A block is up to BLOCK_INSNS instructions in one page, keyed by frame, offset and mode. Blocks are
 * rebuildable: dropping one changes nothing but speed. Each page with code keeps a bit per 64 bytes,
 * so that data beside code costs a look and not a decode. */
#include "code.h"

#include <stdlib.h>
#include <string.h>

#define NR_BUCKETS 4096u
#define NR_PAGE_BUCKETS 256u
#define MAX_CODE_PAGES 2048u
#define GRANULE_SHIFT 6

struct code_page {
    frame_t frame;
    uint32_t first_block;  /* number + 1 */
    uint32_t chain;        /* number + 1, next page in the bucket */
    uint64_t granules;     /* bit n: bytes 64n .. 64n+63 hold decoded code */
};

struct code_cache {
    struct insn *insn;
    uint32_t nr_insns, max_insns;
    struct block *block;
    uint32_t nr_blocks, max_blocks;
    struct code_page *page;
    uint32_t nr_pages;
    uint32_t bucket[NR_BUCKETS], page_bucket[NR_PAGE_BUCKETS];
};

static uint32_t hash(uint64_t key) { return (uint32_t)((key ^ key >> 16) >> 4 ^ key) % NR_BUCKETS; }

/* ---- pages with code ------------------------------------------------------------------------ */

static struct code_page *page_find(const struct code_cache *cc, frame_t frame)
{
    for (uint32_t n = cc->page_bucket[frame % NR_PAGE_BUCKETS]; n; n = cc->page[n - 1].chain)
        if (cc->page[n - 1].frame == frame)
            return &cc->page[n - 1];
    return NULL;
}

static struct code_page *page_add(struct code_cache *cc, frame_t frame)
{
    struct code_page *page = &cc->page[cc->nr_pages++];
    uint32_t *bucket = &cc->page_bucket[frame % NR_PAGE_BUCKETS];
    *page = (struct code_page){ .frame = frame, .chain = *bucket };
    *bucket = cc->nr_pages;
    return page;
}

static uint64_t granules(uint32_t offset, uint32_t len)
{
    unsigned first = offset >> GRANULE_SHIFT, last = (offset + len - 1) >> GRANULE_SHIFT;
    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

static uint32_t block_offset(const struct block *block) { return block->key >> 4 & (PAGE_SIZE - 1); }

/* ---- dropping --------------------------------------------------------------------------------- */

static void block_drop(struct cpu *cpu, uint32_t number)
{
    struct code_cache *cc = cpu->code;
    struct block *block = &cc->block[number];
    uint32_t *link = &cc->bucket[hash(block->key)];
    while (*link != number + 1)
        link = &cc->block[*link - 1].chain;
    *link = block->chain;
    /* the block may be running: what is left of it must not be executed */
    for (unsigned k = 0; k < block->nr; k++)
        cc->insn[block->first_insn + k].exec = op_stale;
    struct recent *recent = code_recent(cpu, block->key);
    if (recent->block == block)
        recent->key = ~0ull;
    block->key = ~0ull;
}

static page_observer code_written;

/* No code of this processor is left in the page. The bit may fall when no other processor on this memory has some. */
static void release_page(struct cpu *cpu, frame_t frame)
{
    const struct memory *memory = cpu->space->memory;
    for (unsigned n = 0; n < memory->nr_observers; n++) {
        const struct cpu *other = memory->observer[n].context;
        if (memory->observer[n].told != code_written || other == cpu)
            continue;
        const struct code_page *page = page_find(other->code, frame);
        if (page && page->granules)
            return;
    }
    memory_clear_attr(memory, frame, PAGE_CODE);
}

static void code_written(void *context, frame_t frame, uint32_t offset, uint32_t len, unsigned attr)
{
    struct cpu *cpu = context;
    struct code_cache *cc = cpu->code;
    struct code_page *page = page_find(cc, frame);
    (void)attr;
    if (!page) {
        release_page(cpu, frame);
        return;
    }
    uint64_t touched = granules(offset, len), left = 0;
    if (!(page->granules & touched))
        return;
    for (uint32_t *link = &page->first_block; *link;) {
        struct block *block = &cc->block[*link - 1];
        uint64_t own = granules(block_offset(block), block->bytes);
        if (own & touched) {
            uint32_t number = *link - 1;
            *link = block->next;
            block_drop(cpu, number);
        } else {
            left |= own;
            link = &block->next;
        }
    }
    page->granules = left;
    if (!left)
        release_page(cpu, frame);
}

void code_drop_all(struct cpu *cpu)
{
    struct code_cache *cc = cpu->code;
    for (uint32_t n = 0; n < cc->nr_pages; n++)
        if (memory_ram_of(cpu->space->memory, cc->page[n].frame))
            release_page(cpu, cc->page[n].frame);
    memset(cc->bucket, 0, sizeof cc->bucket);
    memset(cc->page_bucket, 0, sizeof cc->page_bucket);
    cc->nr_insns = cc->nr_blocks = cc->nr_pages = 0;
    for (unsigned n = 0; n < NR_RECENT; n++)
        cpu->recent[n].key = ~0ull;
}

/* ---- building ------------------------------------------------------------------------------------ */

/* Bytes that are no instruction become a pseudo instruction that raises what is due. */
static struct insn refusal(enum decode_result result)
{
    struct insn i = { .exec = result == DECODE_LONG ? op_too_long : op_undefined };
    return i;
}

static bool ends_block(const struct insn *i)
{
    return i->exec == op_undefined || i->exec == op_too_long || (insn_rows[i->row].attr & (A_END | A_JUMP));
}

struct block *code_build(struct cpu *cpu, frame_t frame, const uint8_t *page_bytes, uint32_t offset)
{
    struct code_cache *cc = cpu->code;
    if (cc->nr_insns + BLOCK_INSNS > cc->max_insns || cc->nr_blocks == cc->max_blocks || cc->nr_pages + 1 >= MAX_CODE_PAGES)
        code_drop_all(cpu);
    struct insn *first = &cc->insn[cc->nr_insns];
    unsigned nr = 0;
    uint32_t at = offset;
    while (nr < BLOCK_INSNS && at < PAGE_SIZE) {
        struct insn *i = &first[nr];
        enum decode_result result = decode(cpu, (enum mode)cpu->mode, page_bytes + at, PAGE_SIZE - at, i);
        if (result == DECODE_SHORT)
            break;
        if (result != DECODE_OK)
            *i = refusal(result);
        at += i->len;
        i->next = (uint16_t)(at - offset);
        if (i->base == REG_RIP)
            i->disp += i->next - i->len;
        nr++;
        if (ends_block(i))
            break;
    }
    if (!nr)
        return NULL; /* the first instruction crosses into the next page */
    uint32_t bytes = at > offset ? at - offset : 1;
    struct block *block = &cc->block[cc->nr_blocks++];
    *block = (struct block){ .key = code_key(frame, offset, cpu->mode), .first_insn = cc->nr_insns, .bytes = (uint16_t)bytes,
                             .nr = (uint8_t)nr };
    block->jumps = insn_rows[first[nr - 1].row].attr & A_JUMP && first[nr - 1].len;
    cc->nr_insns += nr;
    struct code_page *page = page_find(cc, frame);
    if (!page)
        page = page_add(cc, frame);
    page->granules |= granules(offset, bytes);
    block->next = page->first_block;
    page->first_block = cc->nr_blocks;
    uint32_t *bucket = &cc->bucket[hash(block->key)];
    block->chain = *bucket;
    *bucket = cc->nr_blocks;
    memory_set_attr(cpu->space->memory, frame, PAGE_CODE);
    return block;
}

struct block *code_find(const struct cpu *cpu, uint64_t key)
{
    const struct code_cache *cc = cpu->code;
    for (uint32_t n = cc->bucket[hash(key)]; n; n = cc->block[n - 1].chain)
        if (cc->block[n - 1].key == key)
            return &cc->block[n - 1];
    return NULL;
}

const struct insn *code_insns(const struct cpu *cpu, const struct block *block) { return &cpu->code->insn[block->first_insn]; }

/* ---- life ------------------------------------------------------------------------------------------- */

bool code_init(struct cpu *cpu)
{
    struct code_cache *cc = calloc(1, sizeof *cc);
    cpu->code = cc;
    if (!cc)
        return false;
    cc->max_insns = 1 << 15;
    cc->max_blocks = 1 << 13;
    cc->insn = calloc(cc->max_insns, sizeof *cc->insn);
    cc->block = calloc(cc->max_blocks, sizeof *cc->block);
    cc->page = calloc(MAX_CODE_PAGES, sizeof *cc->page);
    cpu->recent = calloc(NR_RECENT, sizeof *cpu->recent);
    if (!cc->insn || !cc->block || !cc->page || !cpu->recent)
        return false;
    code_drop_all(cpu);
    return memory_observe(cpu->space->memory, code_written, cpu, PAGE_CODE);
}

void code_release(struct cpu *cpu)
{
    if (!cpu->code)
        return;
    memory_unobserve(cpu->space->memory, code_written, cpu);
    free(cpu->code->insn);
    free(cpu->code->block);
    free(cpu->code->page);
    free(cpu->recent);
    free(cpu->code);
    cpu->code = NULL;
}
