/* Shadow pages: the tables that hardware walks, who points to whom, and which of them may be written.
 *
 * As in KVM of 2.6.20: a pool of 256 pages found by (guest frame, role) in a hash of 256 buckets; each page knows its parent
 * entries; each guest frame knows the writable entries that map it (the reverse map). Lists are links of 8 bytes, one beside each
 * entry, so that nothing has to be allocated when a fault is handled. All of it lies in host-physical memory. */
#include "hv.h"

#include <string.h>

#define ENTRIES 512u

uint64_t shadow_hpa(unsigned page) { return pool_hpa(POOL_SHADOW + page); }

unsigned shadow_page_of(uint64_t hpa)
{
    uint64_t first = shadow_hpa(0);
    return hpa >= first && hpa < first + SHADOW_PAGES * PAGE_SIZE ? (unsigned)((hpa - first) >> PAGE_SHIFT) : NO_SHADOW;
}

static unsigned level_of(const struct shadow_page *p) { return (p->role & ROLE_LEVEL) >> ROLE_LEVEL_SHIFT; }
static uint64_t entry_hpa(unsigned page, unsigned index) { return shadow_hpa(page) + 8u * index; }
uint64_t shadow_read(struct hv *hv, unsigned page, unsigned index) { return physical_read64(hv->cpu, entry_hpa(page, index)); }

/* ---- links: a list of sptes, each known by its number + 1 --------------------------------------------------------- */

struct link { uint32_t next, prev; };

static uint64_t link_hpa(uint32_t id) { return pool_hpa(POOL_LINKS) + 8ull * (id - 1); } /* page n's links: page n of the area */
static struct link link_read(struct hv *hv, uint32_t id)
{
    struct link link;
    physical_read(hv->cpu, link_hpa(id), &link, sizeof link);
    return link;
}
static void link_write(struct hv *hv, uint32_t id, struct link link) { physical_write(hv->cpu, link_hpa(id), &link, sizeof link); }

static void list_add(struct hv *hv, uint32_t *head, uint32_t id)
{
    if (*head) {
        struct link first = link_read(hv, *head);
        first.prev = id;
        link_write(hv, *head, first);
    }
    link_write(hv, id, (struct link){ .next = *head });
    *head = id;
}

static void list_remove(struct hv *hv, uint32_t *head, uint32_t id)
{
    struct link gone = link_read(hv, id), other;
    if (gone.prev) {
        other = link_read(hv, gone.prev);
        other.next = gone.next;
        link_write(hv, gone.prev, other);
    } else {
        *head = gone.next;
    }
    if (gone.next) {
        other = link_read(hv, gone.next);
        other.prev = gone.prev;
        link_write(hv, gone.next, other);
    }
    link_write(hv, id, (struct link){ 0 });
}

static uint32_t id_of(unsigned page, unsigned index) { return page * ENTRIES + index + 1; }

/* ---- the reverse map ------------------------------------------------------------------------------------------------ */

static const struct hv_slot *slot_of_hpa(const struct hv *hv, uint64_t hpa)
{
    for (unsigned k = 0; k < HV_SLOTS; k++)
        if (hpa - hv->slot[k].hpa < hv->slot[k].size)
            return &hv->slot[k];
    return NULL;
}

static uint64_t rmap_head_hpa(const struct hv_slot *slot, uint64_t gpa) { return slot->aux + 4 * ((gpa - slot->gpa) >> PAGE_SHIFT); }

static uint32_t rmap_head(struct hv *hv, const struct hv_slot *slot, uint64_t gpa)
{
    uint32_t head;
    physical_read(hv->cpu, rmap_head_hpa(slot, gpa), &head, sizeof head);
    return head;
}

static void rmap_change(struct hv *hv, unsigned page, unsigned index, uint64_t spte, bool add)
{
    uint64_t hpa = spte & SPTE_ADDRESS;
    const struct hv_slot *slot = slot_of_hpa(hv, hpa);
    if (!slot)
        return;
    uint64_t gpa = slot->gpa + (hpa - slot->hpa);
    uint32_t head = rmap_head(hv, slot, gpa), before = head;
    if (add)
        list_add(hv, &head, id_of(page, index));
    else
        list_remove(hv, &head, id_of(page, index));
    if (head != before)
        physical_write(hv->cpu, rmap_head_hpa(slot, gpa), &head, sizeof head);
    silicon_emit(hv->cpu, EVENT_RMAP, add, gpa >> PAGE_SHIFT, entry_hpa(page, index), spte, 0);
}

unsigned shadow_rmap(struct hv *hv, uint64_t gfn, uint64_t *spte_hpa, unsigned most)
{
    const struct hv_slot *slot = hv_slot_at(hv, gfn << PAGE_SHIFT);
    unsigned n = 0;
    if (!slot || !hv->vcpu.created)
        return 0;
    for (uint32_t id = rmap_head(hv, slot, gfn << PAGE_SHIFT); id && n < SHADOW_PAGES * ENTRIES; id = link_read(hv, id).next, n++)
        if (n < most)
            spte_hpa[n] = shadow_hpa(0) + 8ull * (id - 1);
    return n;
}

unsigned shadow_parents(struct hv *hv, unsigned page, uint64_t *spte_hpa, unsigned most)
{
    unsigned n = 0;
    for (uint32_t id = hv->mmu.page[page].parents; id && n < SHADOW_PAGES * ENTRIES; id = link_read(hv, id).next, n++)
        if (n < most)
            spte_hpa[n] = shadow_hpa(0) + 8ull * (id - 1);
    return n;
}

/* ---- entries: every store to a shadow page is here ------------------------------------------------------------------------ */

static bool is_leaf(const struct hv *hv, unsigned page) { return level_of(&hv->mmu.page[page]) == 1; }
static bool is_mapped_writable(uint64_t spte) { return (spte & (SPTE_P | SPTE_W)) == (SPTE_P | SPTE_W); }

/* Takes the entry out of the list it is in. */
static void unlink_entry(struct hv *hv, unsigned page, unsigned index, uint64_t spte)
{
    if (!(spte & SPTE_P))
        return;
    if (is_leaf(hv, page)) {
        if (spte & SPTE_W)
            rmap_change(hv, page, index, spte, false);
        return;
    }
    unsigned child = shadow_page_of(spte & SPTE_ADDRESS);
    if (child != NO_SHADOW)
        list_remove(hv, &hv->mmu.page[child].parents, id_of(page, index));
}

static void store_entry(struct hv *hv, unsigned page, unsigned index, uint64_t old, uint64_t spte)
{
    struct shadow_page *p = &hv->mmu.page[page];
    physical_write64(hv->cpu, entry_hpa(page, index), spte);
    p->nr_present = (uint16_t)(p->nr_present + (spte & SPTE_P ? 1 : 0) - (old & SPTE_P ? 1 : 0));
    if (old & SPTE_P)
        hv->vcpu.needs_flush = 1;
}

void shadow_drop(struct hv *hv, unsigned page, unsigned index, uint32_t reason)
{
    uint64_t old = shadow_read(hv, page, index);
    if (!old)
        return;
    unlink_entry(hv, page, index, old);
    store_entry(hv, page, index, old, 0);
    silicon_emit(hv->cpu, EVENT_SPTE_CLEAR, level_of(&hv->mmu.page[page]), entry_hpa(page, index), old, 0, reason);
}

void shadow_set_leaf(struct hv *hv, unsigned page, unsigned index, uint64_t spte, uint64_t gva)
{
    uint64_t old = shadow_read(hv, page, index);
    if (old == spte)
        return;
    bool same_page = is_mapped_writable(old) && is_mapped_writable(spte) && !((old ^ spte) & SPTE_ADDRESS);
    if (!same_page)
        unlink_entry(hv, page, index, old);
    store_entry(hv, page, index, old, spte);
    silicon_emit(hv->cpu, EVENT_FILL, 1, gva, entry_hpa(page, index), old, spte);
    if (is_mapped_writable(spte) && !same_page)
        rmap_change(hv, page, index, spte, true);
    const struct hv_slot *slot = spte & SPTE_P ? slot_of_hpa(hv, spte & SPTE_ADDRESS) : NULL;
    if (slot)
        hv->mmu.page[page].slots |= (uint8_t)(1u << (slot - hv->slot));
}

void shadow_set_child(struct hv *hv, unsigned page, unsigned index, unsigned child, bool large, uint64_t gva)
{
    uint64_t old = shadow_read(hv, page, index);
    uint64_t spte = shadow_hpa(child) | SPTE_P | SPTE_W | SPTE_U | SPTE_A | (large ? SPTE_SOFT : 0);
    unlink_entry(hv, page, index, old);
    store_entry(hv, page, index, old, spte);
    list_add(hv, &hv->mmu.page[child].parents, id_of(page, index));
    silicon_emit(hv->cpu, EVENT_FILL, level_of(&hv->mmu.page[page]), gva, entry_hpa(page, index), old, spte);
}

/* No entry may write this frame any more. slot < 0: because it is a table now; else for the dirty log. */
void shadow_remove_write(struct hv *hv, uint64_t gfn, int slot_number)
{
    const struct hv_slot *slot = hv_slot_at(hv, gfn << PAGE_SHIFT);
    if (!slot)
        return;
    for (uint32_t id; (id = rmap_head(hv, slot, gfn << PAGE_SHIFT)) != 0;) {
        unsigned page = (id - 1) / ENTRIES, index = (id - 1) % ENTRIES;
        uint64_t old = shadow_read(hv, page, index), spte = old & ~(uint64_t)SPTE_W;
        rmap_change(hv, page, index, old, false);
        store_entry(hv, page, index, old, spte);
        silicon_emit(hv->cpu, EVENT_SPTE_CLEAR, 1, entry_hpa(page, index), old, spte, slot_number < 0 ? 0 : 1);
    }
}

/* ---- the pool, the hash, the list by age -------------------------------------------------------------------------------- */

static void list_unlink(struct shadow_mmu *m, unsigned page)
{
    struct shadow_page *p = &m->page[page];
    if (p->newer != NO_SHADOW)
        m->page[p->newer].older = p->older;
    else
        m->newest = p->older;
    if (p->older != NO_SHADOW)
        m->page[p->older].newer = p->newer;
    else
        m->oldest = p->newer;
}

static void list_link(struct shadow_mmu *m, unsigned page)
{
    struct shadow_page *p = &m->page[page];
    p->newer = NO_SHADOW;
    p->older = m->newest;
    if (m->newest != NO_SHADOW)
        m->page[m->newest].newer = (uint16_t)page;
    else
        m->oldest = (uint16_t)page;
    m->newest = (uint16_t)page;
}

void shadow_init(struct hv *hv)
{
    struct shadow_mmu *m = &hv->mmu;
    memset(m, 0, sizeof *m);
    for (unsigned k = 0; k < SHADOW_BUCKETS; k++)
        m->bucket[k] = NO_SHADOW;
    for (unsigned k = 0; k < SHADOW_PAGES; k++) {
        m->page[k].hash_next = k + 1 < SHADOW_PAGES ? (uint16_t)(k + 1) : NO_SHADOW;
        m->page[k].newer = m->page[k].older = NO_SHADOW;
    }
    m->free = 0;
    m->nr_free = SHADOW_PAGES;
    m->newest = m->oldest = m->root = NO_SHADOW;
    for (unsigned k = 0; k < 4; k++)
        m->pae_root[k] = NO_SHADOW;
    m->last_written_gfn = ~0ull;
}

static void hash_unlink(struct shadow_mmu *m, unsigned page)
{
    uint16_t *at = &m->bucket[m->page[page].gfn % SHADOW_BUCKETS];
    while (*at != page && *at != NO_SHADOW)
        at = &m->page[*at].hash_next;
    if (*at == page)
        *at = m->page[page].hash_next;
}

bool shadow_is_table(const struct hv *hv, uint64_t gfn)
{
    const struct shadow_mmu *m = &hv->mmu;
    for (unsigned k = m->bucket[gfn % SHADOW_BUCKETS]; k != NO_SHADOW; k = m->page[k].hash_next)
        if (m->page[k].gfn == gfn && !(m->page[k].role & ROLE_METAPHYSICAL))
            return true;
    return false;
}

/* Stores to a shadowed guest table that do not come from the guest (user space, the emulator) are told to us. */
static void watch_table(struct hv *hv, uint64_t gfn, bool on)
{
    frame_t frame = space_frame(hv->guest, gfn << PAGE_SHIFT, true);
    if (frame == NO_FRAME)
        return;
    if (on)
        memory_set_attr(hv->memory, frame, PAGE_TABLE);
    else
        memory_clear_attr(hv->memory, frame, PAGE_TABLE);
}

unsigned shadow_get(struct hv *hv, uint64_t gfn, uint32_t role, bool *found)
{
    struct shadow_mmu *m = &hv->mmu;
    uint16_t *bucket = &m->bucket[gfn % SHADOW_BUCKETS];
    for (unsigned k = *bucket; k != NO_SHADOW; k = m->page[k].hash_next)
        if (m->page[k].gfn == gfn && m->page[k].role == role) {
            *found = true;
            return k;
        }
    *found = false;
    unsigned page = m->free;
    if (page == NO_SHADOW)
        return NO_SHADOW; /* shadow_reserve() sees to it that this cannot be */
    bool first = !(role & ROLE_METAPHYSICAL) && !shadow_is_table(hv, gfn);
    struct shadow_page *p = &m->page[page];
    m->free = p->hash_next;
    m->nr_free--;
    *p = (struct shadow_page){ .gfn = gfn, .role = role, .hash_next = *bucket, .in_use = 1 };
    *bucket = (uint16_t)page;
    list_link(m, page);
    if (first) {
        shadow_remove_write(hv, gfn, -1);
        watch_table(hv, gfn, true);
        silicon_emit(hv->cpu, EVENT_PROTECT, 1, gfn, role, shadow_hpa(page), 0);
    }
    return page;
}

static void zap_page(struct hv *hv, unsigned page, uint32_t reason)
{
    struct shadow_mmu *m = &hv->mmu;
    struct shadow_page *p = &m->page[page];
    uint64_t gfn = p->gfn;
    uint32_t role = p->role;
    silicon_emit(hv->cpu, EVENT_ZAP, level_of(p), gfn, shadow_hpa(page), reason, role);
    m->zapped++;
    while (p->parents) {
        uint32_t id = p->parents;
        shadow_drop(hv, (id - 1) / ENTRIES, (id - 1) % ENTRIES, ZAP_PARENT);
    }
    for (unsigned index = 0; index < ENTRIES; index++)
        shadow_drop(hv, page, index, reason);
    p->slots = 0;
    list_unlink(m, page);
    if (p->root_count) { /* a root in use stays, empty */
        list_link(m, page);
        return;
    }
    hash_unlink(m, page);
    *p = (struct shadow_page){ .hash_next = m->free, .newer = NO_SHADOW, .older = NO_SHADOW };
    m->free = (uint16_t)page;
    m->nr_free++;
    if (!(role & ROLE_METAPHYSICAL) && !shadow_is_table(hv, gfn)) {
        watch_table(hv, gfn, false);
        silicon_emit(hv->cpu, EVENT_PROTECT, 0, gfn, role, shadow_hpa(page), 0);
    }
}

enum { FREE_LOW = 5, FREE_REFILLED = 25 };

void shadow_reserve(struct hv *hv)
{
    struct shadow_mmu *m = &hv->mmu;
    if (m->nr_free >= FREE_LOW)
        return;
    unsigned next;
    for (unsigned page = m->oldest; page != NO_SHADOW && m->nr_free < FREE_REFILLED; page = next) {
        next = m->page[page].newer;
        if (m->page[page].root_count)
            continue;
        zap_page(hv, page, ZAP_RECYCLED);
        m->recycled++;
    }
}

void shadow_zap_gfn(struct hv *hv, uint64_t gfn, uint32_t reason)
{
    struct shadow_mmu *m = &hv->mmu;
    unsigned next;
    for (unsigned k = m->bucket[gfn % SHADOW_BUCKETS]; k != NO_SHADOW; k = next) {
        next = m->page[k].hash_next;
        if (m->page[k].gfn == gfn && !(m->page[k].role & ROLE_METAPHYSICAL))
            zap_page(hv, k, reason);
    }
}

void shadow_zap_all(struct hv *hv, uint32_t reason)
{
    shadow_drop_roots(hv);
    for (unsigned page = 0; page < SHADOW_PAGES; page++)
        if (hv->mmu.page[page].in_use)
            zap_page(hv, page, reason);
    hv->mmu.flushes++;
}

void shadow_drop_roots(struct hv *hv)
{
    struct shadow_mmu *m = &hv->mmu;
    if (m->root != NO_SHADOW)
        m->page[m->root].root_count--;
    m->root = NO_SHADOW;
    for (unsigned k = 0; k < 4; k++) {
        if (m->pae_root[k] != NO_SHADOW)
            m->page[m->pae_root[k]].root_count--;
        m->pae_root[k] = NO_SHADOW;
    }
    m->root_valid = 0;
}

/* ---- stores to guest tables ------------------------------------------------------------------------------------------------ */

/* Which entries of a shadow page the bytes [offset, offset + len) of its guest table stand for. */
static void drop_written(struct hv *hv, unsigned page, uint32_t offset, uint32_t len)
{
    const struct shadow_page *p = &hv->mmu.page[page];
    unsigned level = level_of(p), quadrant = (p->role & ROLE_QUADRANT) >> ROLE_QUADRANT_SHIFT;
    if ((p->role & ROLE_GLEVELS) != 2) {
        for (unsigned k = offset / 8; k <= (offset + len - 1) / 8 && k < ENTRIES; k++)
            shadow_drop(hv, page, k, ZAP_STORE);
        return;
    }
    /* 1024 entries of 4 bytes: a table is halved; an entry of the directory covers two of ours, which is quartered */
    for (unsigned k = offset / 4; k <= (offset + len - 1) / 4 && k < 1024; k++) {
        unsigned first = level == 1 ? k : 2 * k;
        if (first / ENTRIES != quadrant)
            continue;
        shadow_drop(hv, page, first % ENTRIES, ZAP_STORE);
        if (level == 2)
            shadow_drop(hv, page, first % ENTRIES + 1, ZAP_STORE);
    }
}

enum { FLOOD = 3 };

void shadow_page_written(struct hv *hv, uint64_t gpa, unsigned len)
{
    struct shadow_mmu *m = &hv->mmu;
    uint64_t gfn = gpa >> PAGE_SHIFT;
    uint32_t offset = (uint32_t)(gpa & (PAGE_SIZE - 1));
    bool flooded = false;
    if (hv->in_emulator) { /* the guest's own stores, not those of user space */
        m->nr_written = gfn == m->last_written_gfn ? m->nr_written + 1 : 1;
        m->last_written_gfn = gfn;
        flooded = m->nr_written >= FLOOD;
        m->table_writes++;
    }
    unsigned next;
    for (unsigned k = m->bucket[gfn % SHADOW_BUCKETS]; k != NO_SHADOW; k = next) {
        struct shadow_page *p = &m->page[k];
        next = p->hash_next;
        if (p->gfn != gfn || (p->role & ROLE_METAPHYSICAL))
            continue;
        unsigned entry = (p->role & ROLE_GLEVELS) == 2 ? 4 : 8;
        bool misaligned = ((offset ^ (offset + len - 1)) & ~(entry - 1)) || len < 4;
        if (hv->in_emulator && (misaligned || flooded))
            zap_page(hv, k, flooded ? ZAP_FLOOD : ZAP_MISALIGNED);
        else
            drop_written(hv, k, offset, len);
    }
}

/* ---- the invariants of facts 2.7 ------------------------------------------------------------------------------------------- */

static bool audit_page(struct hv *hv, unsigned page, uint64_t *writable, const char **what, uint64_t *where)
{
    const struct shadow_page *p = &hv->mmu.page[page];
    unsigned present = 0;
    for (unsigned index = 0; index < ENTRIES; index++) {
        uint64_t spte = shadow_read(hv, page, index);
        *where = entry_hpa(page, index);
        if (!(spte & SPTE_P))
            continue;
        present++;
        if (level_of(p) == 1) {
            const struct hv_slot *slot = slot_of_hpa(hv, spte & SPTE_ADDRESS);
            if (!slot)
                return *what = "C: a leaf maps memory of no slot", false;
            uint64_t gfn = (slot->gpa + (spte & SPTE_ADDRESS) - slot->hpa) >> PAGE_SHIFT;
            *writable += (spte & SPTE_W) != 0;
            if ((spte & SPTE_W) && shadow_is_table(hv, gfn))
                return *what = "B: a shadowed guest table can be written", false;
            continue;
        }
        unsigned child = shadow_page_of(spte & SPTE_ADDRESS), found = 0;
        if (child == NO_SHADOW || !hv->mmu.page[child].in_use)
            return *what = "D: an entry points to no shadow page", false;
        unsigned n = 0;
        for (uint32_t id = hv->mmu.page[child].parents; id && n < SHADOW_PAGES * ENTRIES; id = link_read(hv, id).next, n++)
            found += id == id_of(page, index);
        if (found != 1)
            return *what = "D: an entry is not exactly once in its child's parent list", false;
    }
    *where = shadow_hpa(page);
    if (present != p->nr_present)
        return *what = "A: the count of present entries is wrong", false;
    return true;
}

/* C: each present leaf leads where the guest's own entry leads. */
static bool audit_leaves(struct hv *hv, unsigned page, const char **what, uint64_t *where)
{
    const struct shadow_page *p = &hv->mmu.page[page];
    unsigned glevels = p->role & ROLE_GLEVELS, quadrant = (p->role & ROLE_QUADRANT) >> ROLE_QUADRANT_SHIFT;
    if (level_of(p) != 1 || (p->role & ROLE_METAPHYSICAL) || glevels == 0)
        return true;
    for (unsigned index = 0; index < ENTRIES; index++) {
        uint64_t spte = shadow_read(hv, page, index), gpte = 0;
        if (!(spte & SPTE_P))
            continue;
        unsigned bytes = glevels == 2 ? 4 : 8, at = glevels == 2 ? quadrant * ENTRIES + index : index;
        hv_guest_read(hv, (p->gfn << PAGE_SHIFT) + (uint64_t)at * bytes, &gpte, bytes);
        uint64_t gpa = gpte & (glevels == 2 ? 0xfffff000u : SPTE_ADDRESS);
        const struct hv_slot *slot = hv_slot_at(hv, gpa);
        *where = entry_hpa(page, index);
        if (!(gpte & SPTE_P) || !slot || slot->hpa + (gpa - slot->gpa) != (spte & SPTE_ADDRESS))
            return *what = "C: a leaf leads elsewhere than the guest's entry", false;
        if ((spte & SPTE_W) && !(gpte & SPTE_D))
            return *what = "C: a writable leaf stands for a clean guest entry", false;
    }
    return true;
}

int shadow_audit(struct hv *hv, const char **what, uint64_t *where)
{
    uint64_t writable = 0, listed = 0;
    unsigned in_use = 0;
    const struct shadow_mmu *m = &hv->mmu;
    *what = NULL;
    *where = 0;
    for (unsigned page = 0; page < SHADOW_PAGES; page++) {
        if (!m->page[page].in_use)
            continue;
        in_use++;
        if (!audit_page(hv, page, &writable, what, where) || !audit_leaves(hv, page, what, where))
            return **what;
    }
    for (unsigned k = 0; k < HV_SLOTS; k++)
        for (uint64_t gpa = hv->slot[k].gpa; gpa - hv->slot[k].gpa < hv->slot[k].size; gpa += PAGE_SIZE)
            listed += shadow_rmap(hv, gpa >> PAGE_SHIFT, NULL, 0);
    if (listed != writable)
        return *what = "A: reverse-map entries and writable leaves differ in number", *where = listed, 'A';
    if (in_use + m->nr_free != SHADOW_PAGES)
        return *what = "E: a page of the pool is neither free nor in use", *where = m->nr_free, 'E';
    for (unsigned k = 0; k < 5; k++) {
        unsigned root = k < 4 ? m->pae_root[k] : m->root;
        if (root != NO_SHADOW && (!m->page[root].in_use || !m->page[root].root_count))
            return *what = "E: a root in use was freed", *where = shadow_hpa(root), 'E';
    }
    return 0;
}
