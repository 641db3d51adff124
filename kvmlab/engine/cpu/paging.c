/* Linear to physical: the page walk of every format, and the TLB (SDM vol. 3A ch. 4, APM vol. 2 ch. 5).
 *
 * One walk, driven by a row that describes the format, sits behind the TLB; it can return every
 * entry it visited. The architectural TLB (cpu->tlb) is state and replaces first in, first out, so
 * that nothing rebuildable leaves a trace in it; the fronts of access.h are derived from it. */
#include "access.h"

#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u
#define PTE_A 0x20u
#define PTE_D 0x40u
#define PTE_PS 0x80u
#define PTE_G 0x100u
#define PTE_NX (1ull << 63)
#define ADDRESS_52 0x000ffffffffff000ull

/* The formats of SDM 3A 4.3 to 4.5. Levels count from 1, the page table. */
static const struct paging_format {
    uint8_t levels;        /* 0: no paging */
    uint8_t entry_bytes;
    uint8_t index_bits;
    uint8_t large_levels;  /* bit n: an entry of level n may map a page (PS) */
    bool has_nx;           /* bit 63 is XD when EFER.NXE, else reserved */
    bool pdpt_registers;   /* the top level lives in registers, without A and rights */
} formats[] = {
    [PAGING_NONE] = { 0 },
    [PAGING_32] = { .levels = 2, .entry_bytes = 4, .index_bits = 10, .large_levels = 1 << 2 },
    [PAGING_PAE] = { .levels = 3, .entry_bytes = 8, .index_bits = 9, .large_levels = 1 << 2, .has_nx = true,
                     .pdpt_registers = true },
    [PAGING_4LEVEL] = { .levels = 4, .entry_bytes = 8, .index_bits = 9, .large_levels = 1 << 2 | 1 << 3, .has_nx = true },
    [PAGING_5LEVEL] = { .levels = 5, .entry_bytes = 8, .index_bits = 9, .large_levels = 1 << 2 | 1 << 3, .has_nx = true },
};

static uint64_t a20(const struct cpu *cpu, uint64_t pa) { return cpu->a20 ? pa : pa & ~(1ull << 20); }

/* ---- entries ------------------------------------------------------------------------------- */

/* The host page of a table; NULL: no RAM there. Remembered while the space stays as it is. */
static const uint8_t *table_host(struct cpu *cpu, uint64_t page)
{
    if (UNLIKELY(cpu->table_generation != cpu->space->generation)) {
        memset(cpu->table_page, 0, sizeof cpu->table_page);
        cpu->table_generation = cpu->space->generation;
    }
    unsigned n = page % TABLE_PAGES;
    if (UNLIKELY(!cpu->table_page[n].host || cpu->table_page[n].page != page)) {
        frame_t frame = space_frame(cpu->space, page << PAGE_SHIFT, false);
        cpu->table_page[n].page = page;
        cpu->table_page[n].host = frame == NO_FRAME ? NULL : memory_host(cpu->space->memory, frame);
    }
    return cpu->table_page[n].host;
}

/* A table that is not in RAM reads as ones. */
static uint64_t read_entry(struct cpu *cpu, uint64_t pa, unsigned bytes)
{
    const uint8_t *host = table_host(cpu, pa >> PAGE_SHIFT);
    uint64_t entry = bytes == 4 ? 0xffffffff : ~0ull;
    if (host)
        memcpy(&entry, host + (pa & (PAGE_SIZE - 1)), bytes);
    return entry;
}

static void set_entry_bits(struct cpu *cpu, uint64_t pa, uint32_t bits)
{
    uint32_t low;
    space_read(cpu->space, pa, &low, 4);
    low |= bits;
    space_write(cpu->space, pa, &low, 4);
}

static bool may_be_large(const struct cpu *cpu, const struct paging_format *f, unsigned level)
{
    if (!(f->large_levels >> level & 1))
        return false;
    if (level == 3)
        return cpu_has(cpu, FEATURE_PAGE1GB);
    return f->entry_bytes == 8 || (cpu->cr4 & CR4_PSE);
}

/* Bits that must be 0 in a present entry (SDM 3A 4.4.2, 4.5.4 and the figures). */
static uint64_t reserved_bits(const struct cpu *cpu, const struct paging_format *f, unsigned level, bool large)
{
    unsigned physical_bits = cpu->profile->physical_bits;
    if (f->entry_bytes == 4) {
        if (!large)
            return 0;
        unsigned high = !cpu_has(cpu, FEATURE_PSE36) ? 32 : physical_bits > 40 ? 40 : physical_bits;
        return 0x3fe000u & ~((1ull << (high - 32 + 13)) - (1u << 13)); /* bits 21:13 hold address bits 40:32 */
    }
    uint64_t reserved = ADDRESS_52 & ~((1ull << physical_bits) - 1);
    if (!(cpu->msr[MSR_EFER] & EFER_NXE))
        reserved |= PTE_NX;
    if (large)
        reserved |= ((1ull << (12 + 9 * (level - 1))) - 1) & ~0x1fffull;
    else if (level >= 4 || (level == 3 && !f->pdpt_registers && !may_be_large(cpu, f, 3)))
        reserved |= PTE_PS;
    return reserved;
}

static uint64_t large_page_base(const struct paging_format *f, uint64_t entry, unsigned level)
{
    if (f->entry_bytes == 4)
        return (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32;
    return entry & ADDRESS_52 & ~((1ull << (12 + 9 * (level - 1))) - 1);
}

/* ---- rights ---------------------------------------------------------------------------------- */

static enum walk_check check_rights(const struct cpu *cpu, uint32_t flags, enum access access, bool user)
{
    bool page_user = flags & TLB_U;
    if (user && !page_user)
        return WALK_USER;
    if (access == ACCESS_FETCH) {
        if (flags & TLB_NX)
            return WALK_NX;
        return !user && page_user && (cpu->cr4 & CR4_SMEP) ? WALK_SMEP : WALK_OK;
    }
    if (!user && page_user && (cpu->cr4 & CR4_SMAP) && (cpu->cpl == 3 || !(cpu->rflags & FLAG_AC))) /* at CPL 3: implicit */
        return WALK_SMAP;
    if (access == ACCESS_WRITE && !(flags & TLB_W) && (user || (cpu->cr0 & CR0_WP)))
        return WALK_WRITE;
    return WALK_OK;
}

/* ---- the walk --------------------------------------------------------------------------------- */

static bool walk_fails(struct cpu *cpu, struct walk *walk, enum walk_check check, enum access access, bool user)
{
    bool nx_on = (cpu->msr[MSR_EFER] & EFER_NXE) && cpu->paging != PAGING_32;
    walk->failed = check;
    if (walk->nr_steps) {
        walk->step[walk->nr_steps - 1].ok = 0;
        walk->step[walk->nr_steps - 1].failed = check;
    }
    walk->error = (check != WALK_NOT_PRESENT ? PF_P : 0u) | (access == ACCESS_WRITE ? PF_W : 0u) | (user ? PF_U : 0u) |
                  (check == WALK_RESERVED ? PF_RSVD : 0u) |
                  (access == ACCESS_FETCH && (nx_on || (cpu->cr4 & CR4_SMEP)) ? PF_I : 0u);
    return false;
}

/* Rights of an entry, ANDed into what the levels above allow. */
static void narrow_rights(struct walk *walk, uint64_t entry)
{
    if (!(entry & PTE_W))
        walk->flags &= ~(uint32_t)TLB_W;
    if (!(entry & PTE_U))
        walk->flags &= ~(uint32_t)TLB_U;
    if (entry & PTE_NX)
        walk->flags |= TLB_NX;
}

static void set_accessed_and_dirty(struct cpu *cpu, const struct paging_format *f, struct walk *walk, bool write)
{
    for (unsigned k = 0; k < walk->nr_steps; k++) {
        struct walk_step *step = &walk->step[k];
        bool leaf = k + 1 == walk->nr_steps;
        uint32_t bits = PTE_A | (leaf && write ? PTE_D : 0u);
        if (f->pdpt_registers && step->level == 3)
            continue;
        if ((step->entry & bits) == bits)
            continue;
        step->set_bits = (uint8_t)((step->entry & PTE_A ? 0 : 1) | (leaf && write && !(step->entry & PTE_D) ? 2 : 0));
        set_entry_bits(cpu, step->table + step->index * f->entry_bytes, bits);
    }
}

bool page_walk(struct cpu *cpu, uint64_t linear, enum access access, bool user, bool commit, struct walk *walk)
{
    const struct paging_format *f = &formats[cpu->paging];
    walk->linear = linear;
    walk->page_size = PAGE_SIZE;
    walk->flags = TLB_W | TLB_U | TLB_D;
    walk->error = walk->failed = walk->nr_steps = 0;
    if (!f->levels) {
        walk->physical = a20(cpu, linear);
        return true;
    }
    uint64_t table = f->entry_bytes == 4 ? cpu->cr3 & 0xfffff000u : cpu->cr3 & ADDRESS_52;
    for (unsigned level = f->levels;; level--) {
        unsigned shift = PAGE_SHIFT + f->index_bits * (level - 1);
        struct walk_step *step = &walk->step[walk->nr_steps++];
        bool from_register = f->pdpt_registers && level == f->levels;
        uint64_t index = linear >> shift & ((1u << f->index_bits) - 1);
        *step = (struct walk_step){ .table = table, .index = index, .level = (uint8_t)level, .ok = 1 };
        if (from_register) {
            step->index = index & 3;
            step->table = cpu->cr3 & 0xffffffe0u;
            step->entry = cpu->pdpte[index & 3];
        } else {
            step->entry = read_entry(cpu, a20(cpu, table) + index * f->entry_bytes, f->entry_bytes);
        }
        uint64_t entry = step->entry;
        if (!(entry & PTE_P))
            return walk_fails(cpu, walk, WALK_NOT_PRESENT, access, user);
        bool large = level == 1 || ((entry & PTE_PS) && may_be_large(cpu, f, level));
        if (!from_register) {
            if (entry & reserved_bits(cpu, f, level, large && level > 1))
                return walk_fails(cpu, walk, WALK_RESERVED, access, user);
            narrow_rights(walk, entry);
        }
        if (!large) {
            table = f->entry_bytes == 4 ? entry & 0xfffff000u : entry & ADDRESS_52;
            continue;
        }
        walk->page_size = 1ull << shift;
        uint64_t base = level == 1 ? entry & (f->entry_bytes == 4 ? 0xfffff000u : ADDRESS_52) : large_page_base(f, entry, level);
        walk->physical = a20(cpu, base | (linear & (walk->page_size - 1)));
        if ((entry & PTE_G) && (cpu->cr4 & CR4_PGE))
            walk->flags |= TLB_G;
        if (!(entry & PTE_D) && access != ACCESS_WRITE)
            walk->flags &= ~(uint32_t)TLB_D;
        break;
    }
    enum walk_check check = check_rights(cpu, walk->flags, access, user);
    if (check)
        return walk_fails(cpu, walk, check, access, user);
    if (commit)
        set_accessed_and_dirty(cpu, f, walk, access == ACCESS_WRITE);
    return true;
}

bool load_pdptes(struct cpu *cpu, uint64_t cr3)
{
    uint64_t pdpte[4], reserved = 0x1e6ull | (ADDRESS_52 & ~((1ull << cpu->profile->physical_bits) - 1)) | 0xfff0000000000000ull;
    space_read(cpu->space, cr3 & 0xffffffe0u, pdpte, sizeof pdpte);
    for (unsigned k = 0; k < 4; k++)
        if ((pdpte[k] & PTE_P) && (pdpte[k] & reserved))
            return false;
    memcpy(cpu->pdpte, pdpte, sizeof pdpte);
    return true;
}

/* ---- the TLB -------------------------------------------------------------------------------------- */

static bool tlb_valid(const struct cpu *cpu, const struct tlb_entry *e)
{
    return (e->flags & TLB_VALID) && e->epoch == (e->flags & TLB_G ? cpu->tlb.global_epoch : cpu->tlb.epoch);
}

static struct tlb_entry *tlb_find(struct cpu *cpu, uint64_t page)
{
    struct tlb_entry *set = cpu->tlb.way[page % TLB_SETS];
    for (unsigned w = 0; w < TLB_WAYS; w++)
        if (set[w].page == page && set[w].asid == cpu->asid && tlb_valid(cpu, &set[w]))
            return &set[w];
    return NULL;
}

static void front_forget(struct cpu *cpu, uint64_t page)
{
    for (unsigned k = 0; k < 2; k++) {
        struct tlb_front *f = &cpu->front_of[k][page % FRONT_SIZE];
        if (f->read >> PAGE_SHIFT == page || f->write >> PAGE_SHIFT == page)
            f->read = f->write = 1;
    }
    if (cpu->fetch.page == page)
        cpu->fetch.valid = 0;
}

static void tlb_insert(struct cpu *cpu, uint64_t page, const struct walk *walk)
{
    struct tlb_entry *set = cpu->tlb.way[page % TLB_SETS], *e = tlb_find(cpu, page);
    if (!e) {
        uint8_t *next = &cpu->tlb.next[page % TLB_SETS];
        e = &set[*next];
        *next = (uint8_t)((*next + 1) % TLB_WAYS);
        if (tlb_valid(cpu, e))
            front_forget(cpu, e->page);
    }
    *e = (struct tlb_entry){ .page = page, .frame = walk->physical >> PAGE_SHIFT, .asid = cpu->asid,
                             .flags = (uint8_t)(walk->flags | TLB_VALID),
                             .epoch = walk->flags & TLB_G ? cpu->tlb.global_epoch : cpu->tlb.epoch };
}

void front_flush(struct cpu *cpu)
{
    bool listed = cpu->nr_filled <= FRONT_LIST;
    unsigned count = listed ? cpu->nr_filled : 2 * FRONT_SIZE;
    for (unsigned k = 0; k < count; k++) {
        unsigned n = listed ? cpu->filled[k] : k;
        struct tlb_front *f = &cpu->front_of[n / FRONT_SIZE][n % FRONT_SIZE];
        f->read = f->write = 1;
    }
    cpu->nr_filled = 0;
    cpu->fetch_host = NULL;
}

/* An epoch that comes round again would revive old entries: then really clear them. */
static void next_epoch(struct cpu *cpu, uint32_t *epoch)
{
    if (++*epoch == 0) {
        memset(cpu->tlb.way, 0, sizeof cpu->tlb.way);
        cpu->tlb.epoch = cpu->tlb.global_epoch = 1;
    }
}

void tlb_flush(struct cpu *cpu, bool global_too)
{
    next_epoch(cpu, &cpu->tlb.epoch);
    if (global_too)
        next_epoch(cpu, &cpu->tlb.global_epoch);
    cpu->fetch.valid = 0;
    front_flush(cpu);
    emit(cpu, EVENT_TLB_FLUSH, global_too ? 0 : 1, 0, cpu->asid, 0, 0);
}

void tlb_flush_page(struct cpu *cpu, uint64_t linear)
{
    uint64_t page = (linear & cpu->linear_mask) >> PAGE_SHIFT;
    struct tlb_entry *e = tlb_find(cpu, page);
    if (e)
        e->flags = 0;
    front_forget(cpu, page);
    emit(cpu, EVENT_TLB_FLUSH, 2, linear, cpu->asid, 0, 0);
}

void tlb_flush_asid(struct cpu *cpu, uint16_t asid)
{
    for (unsigned set = 0; set < TLB_SETS; set++)
        for (unsigned w = 0; w < TLB_WAYS; w++)
            if (cpu->tlb.way[set][w].asid == asid)
                cpu->tlb.way[set][w].flags = 0;
    cpu->fetch.valid = 0;
    front_flush(cpu);
    emit(cpu, EVENT_TLB_FLUSH, 0, 0, asid, 0, 0);
}

/* ---- what the others call ------------------------------------------------------------------------------ */

static bool walk_and_insert(struct cpu *cpu, uint64_t linear, enum access access, bool user, struct walk *walk)
{
    bool ok = page_walk(cpu, linear, access, user, true, walk);
    cpu->work++;
    emit(cpu, EVENT_PAGE_WALK, ok ? 0 : walk->error | 1u << 31, linear, ok ? walk->physical : 0, 0, 0);
    if (!ok)
        return raise_page_fault(cpu, linear, walk->error);
    tlb_insert(cpu, linear >> PAGE_SHIFT, walk);
    return true;
}

bool translate(struct cpu *cpu, uint64_t linear, enum access access, bool user, uint64_t *physical)
{
    if (cpu->paging == PAGING_NONE) {
        *physical = a20(cpu, linear);
        return true;
    }
    const struct tlb_entry *e = tlb_find(cpu, linear >> PAGE_SHIFT);
    if (e && !check_rights(cpu, e->flags, access, user) && (access != ACCESS_WRITE || (e->flags & TLB_D))) {
        *physical = e->frame << PAGE_SHIFT | (linear & (PAGE_SIZE - 1));
        return true;
    }
    struct walk walk;
    if (!walk_and_insert(cpu, linear, access, user, &walk))
        return false;
    *physical = walk.physical;
    return true;
}

bool fetch_translate(struct cpu *cpu, uint64_t linear)
{
    uint64_t physical;
    bool user = cpu->cpl == 3;
    if (is_64bit(cpu) && !is_canonical(cpu, linear))
        return raise_error(cpu, VEC_GP, 0);
    if (!translate(cpu, linear, ACCESS_FETCH, user, &physical))
        return false;
    cpu->fetch = (struct fetch_page){ .page = linear >> PAGE_SHIFT, .frame = physical >> PAGE_SHIFT, .valid = 1, .user = user };
    cpu->fetch_host = NULL;
    return true;
}
