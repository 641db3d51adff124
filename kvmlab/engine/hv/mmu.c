/* Translation as the hypervisor does it: the walk of the guest's own tables, page faults, roots.
 *
 * SDM vol. 3A ch. 4 for the guest's formats; facts of KVM 2.6.20 for what becomes of them. Hardware walks the shadow tables only;
 * nothing here translates for the guest, it fills what hardware will find. */
#include "hv.h"

#include <string.h>

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (1ull << 63)
#define ADDRESS_52 0x000ffffffffff000ull

static bool paging(const struct hv *hv) { return (hv->vcpu.cr0 & CR0_PG) != 0; }
static unsigned guest_levels(const struct hv *hv)
{
    if (!paging(hv))
        return 0;
    if (hv->vcpu.efer & EFER_LMA)
        return 4;
    return hv->vcpu.cr4 & CR4_PAE ? 3 : 2;
}

/* ---- the guest's tables ------------------------------------------------------------------------------------------- */

static uint64_t reserved_bits(const struct hv *hv, unsigned levels, unsigned level, bool large)
{
    unsigned physical_bits = silicon_physical_bits(hv->cpu);
    if (levels == 2) {
        unsigned high = physical_bits > 40 ? 40 : physical_bits;
        return large ? 0x3fe000u & ~((1ull << (high - 32 + 13)) - (1u << 13)) : 0; /* PSE-36 */
    }
    uint64_t reserved = ADDRESS_52 & ~((1ull << physical_bits) - 1);
    if (!(hv->vcpu.efer & EFER_NXE))
        reserved |= PTE_NX;
    if (large)
        reserved |= ((1ull << (12 + 9 * (level - 1))) - 1) & ~0x1fffull;
    else if (level >= 3 && levels == 4)
        reserved |= PTE_PS; /* no pages of 1 GB for guests */
    return reserved;
}

static bool walk_fails(const struct hv *hv, struct guest_walk *walk, uint32_t access, uint32_t present, uint32_t reserved)
{
    bool nx_on = (hv->vcpu.efer & EFER_NXE) && walk->levels >= 3;
    walk->error = present | reserved | (access & (PF_W | PF_U)) | (nx_on ? access & PF_I : 0);
    if (!hv->silent)
        silicon_emit(hv->cpu, EVENT_GUEST_WALK, walk->error | 1u << 31, walk->gva, 0, walk->levels, 0);
    return false;
}

static void set_guest_bits(struct hv *hv, struct guest_walk *walk, unsigned level, uint64_t bits, unsigned bytes)
{
    if ((walk->entry[level] & bits) == bits)
        return;
    walk->entry[level] |= bits;
    hv->quiet++;
    space_write(hv->guest, walk->entry_gpa[level], &walk->entry[level], bytes);
    hv->quiet--;
}

bool mmu_walk(struct hv *hv, uint64_t gva, uint32_t access, bool commit, struct guest_walk *walk)
{
    unsigned levels = guest_levels(hv), bytes = levels == 2 ? 4 : 8, index_bits = levels == 2 ? 10 : 9;
    *walk = (struct guest_walk){ .gva = gva, .levels = (uint8_t)levels, .writable = 1, .user = 1, .dirty = 1 };
    if (!levels) {
        walk->gpa = gva & 0xffffffffu;
        return true;
    }
    if (levels != 4)
        gva &= 0xffffffffu;
    uint64_t table = levels == 2 ? hv->vcpu.cr3 & 0xfffff000u : hv->vcpu.cr3 & ADDRESS_52, entry = 0;
    unsigned level = levels;
    bool large;
    for (;; level--) {
        unsigned shift = PAGE_SHIFT + index_bits * (level - 1);
        uint64_t index = gva >> shift & ((1u << index_bits) - 1);
        bool from_register = levels == 3 && level == 3;
        walk->upper_writable[level] = walk->writable;
        walk->upper_user[level] = walk->user;
        walk->upper_no_exec[level] = walk->no_exec;
        walk->table_gfn[level] = table >> PAGE_SHIFT;
        walk->entry_gpa[level] = table + index * bytes;
        entry = 0;
        if (from_register)
            entry = hv->vcpu.pdpte[index & 3];
        else
            space_read(hv->guest, walk->entry_gpa[level], &entry, bytes);
        walk->entry[level] = entry;
        if (!(entry & PTE_P))
            return walk_fails(hv, walk, access, 0, 0);
        large = level == 2 && (entry & PTE_PS) && (bytes == 8 || (hv->vcpu.cr4 & CR4_PSE));
        if (!from_register) {
            if (entry & reserved_bits(hv, levels, level, large))
                return walk_fails(hv, walk, access, PF_P, PF_RSVD);
            walk->writable &= (entry & PTE_W) != 0;
            walk->user &= (entry & PTE_U) != 0;
            walk->no_exec |= bytes == 8 && (entry & PTE_NX) != 0;
        }
        if (level == 1 || large)
            break;
        table = bytes == 4 ? entry & 0xfffff000u : entry & ADDRESS_52;
    }
    walk->leaf_level = (uint8_t)level;
    bool user = access & PF_U, write = access & PF_W;
    if ((user && !walk->user) || ((access & PF_I) && walk->no_exec) || (write && !walk->writable && (user || (hv->vcpu.cr0 & CR0_WP))))
        return walk_fails(hv, walk, access, PF_P, 0);
    if (commit) {
        for (unsigned k = levels; k >= level; k--)
            if (!(levels == 3 && k == 3))
                set_guest_bits(hv, walk, k, PTE_A | (k == level && write ? PTE_D : 0u), bytes);
        entry = walk->entry[level];
    }
    walk->dirty = (entry & PTE_D) != 0;
    walk->global = (entry & PTE_G) && (hv->vcpu.cr4 & CR4_PGE);
    if (!large)
        walk->gpa = (bytes == 4 ? entry & 0xfffff000u : entry & ADDRESS_52) | (gva & 0xfff);
    else if (bytes == 4)
        walk->gpa = (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32 | (gva & 0x3fffff);
    else
        walk->gpa = (entry & ADDRESS_52 & ~0x1fffffull) | (gva & 0x1fffff);
    if (!hv->silent)
        silicon_emit(hv->cpu, EVENT_GUEST_WALK, 0, walk->gva, walk->gpa, levels, 0);
    return true;
}

bool mmu_read_linear(struct hv *hv, uint64_t gva, void *to, unsigned len, uint32_t access)
{
    uint8_t *out = to;
    for (unsigned n; len; len -= n, gva += n, out += n) {
        struct guest_walk walk;
        unsigned left = (unsigned)(PAGE_SIZE - (gva & (PAGE_SIZE - 1)));
        n = len < left ? len : left;
        if (!mmu_walk(hv, gva, access, false, &walk))
            return false;
        space_read(hv->guest, walk.gpa, out, n);
    }
    return true;
}

bool mmu_write_linear(struct hv *hv, uint64_t gva, const void *from, unsigned len)
{
    const uint8_t *in = from;
    for (unsigned n; len; len -= n, gva += n, in += n) {
        struct guest_walk walk;
        unsigned left = (unsigned)(PAGE_SIZE - (gva & (PAGE_SIZE - 1)));
        n = len < left ? len : left;
        if (!mmu_walk(hv, gva, PF_W, true, &walk))
            return false;
        space_write(hv->guest, walk.gpa, in, n);
    }
    return true;
}

bool mmu_load_pdptes(struct hv *hv, uint64_t cr3)
{
    uint64_t pdpte[4], reserved = 0x1e6ull | (ADDRESS_52 & ~((1ull << silicon_physical_bits(hv->cpu)) - 1)) | 0xfff0000000000000ull;
    space_read(hv->guest, cr3 & 0xffffffe0u, pdpte, sizeof pdpte);
    for (unsigned k = 0; k < 4; k++)
        if ((pdpte[k] & PTE_P) && (pdpte[k] & reserved))
            return false;
    memcpy(hv->vcpu.pdpte, pdpte, sizeof pdpte);
    return true;
}

/* ---- roots --------------------------------------------------------------------------------------------------------------- */

static uint32_t context_role(const struct hv *hv, unsigned glevels)
{
    uint32_t role = glevels;
    if (glevels == 0)
        return role;
    if (!(hv->vcpu.cr0 & CR0_WP))
        role |= ROLE_WP0;
    if (glevels >= 3 && (hv->vcpu.efer & EFER_NXE))
        role |= ROLE_NXE;
    if (glevels == 2 && (hv->vcpu.cr4 & CR4_PSE))
        role |= ROLE_PSE;
    return role;
}

void mmu_reset_context(struct hv *hv)
{
    if (!hv->vcpu.created)
        return;
    shadow_drop_roots(hv);
    hv->vcpu.needs_flush = 1;
}

static unsigned take_root(struct hv *hv, uint64_t gfn, uint32_t role, bool *found)
{
    unsigned root = shadow_get(hv, gfn, role, found);
    if (root != NO_SHADOW)
        hv->mmu.page[root].root_count++;
    return root;
}

void mmu_load_roots(struct hv *hv)
{
    struct shadow_mmu *m = &hv->mmu;
    bool found = false, all_found = true;
    if (m->root_valid)
        return;
    shadow_drop_roots(hv);
    shadow_reserve(hv);
    m->glevels = (uint8_t)guest_levels(hv);
    m->role_bits = context_role(hv, m->glevels);
    uint64_t root_gfn = (hv->vcpu.cr3 & ADDRESS_52) >> PAGE_SHIFT;
    if (m->glevels == 4) {
        m->root = (uint16_t)take_root(hv, root_gfn, m->role_bits | 4 << ROLE_LEVEL_SHIFT, &all_found);
        m->root_hpa = shadow_hpa(m->root);
    } else {
        for (unsigned k = 0; k < 4; k++) {
            uint32_t role = m->role_bits | 2 << ROLE_LEVEL_SHIFT;
            uint64_t gfn = 0, entry_hpa = pool_hpa(POOL_PAE_ROOT) + 8 * k, old = physical_read64(hv->cpu, entry_hpa), entry = 0;
            if (m->glevels == 3)
                gfn = (hv->vcpu.pdpte[k] & ADDRESS_52) >> PAGE_SHIFT;
            else if (m->glevels == 2)
                gfn = (hv->vcpu.cr3 & 0xfffff000u) >> PAGE_SHIFT, role |= k << ROLE_QUADRANT_SHIFT;
            else
                role |= ROLE_METAPHYSICAL | k << ROLE_QUADRANT_SHIFT;
            if (m->glevels != 3 || (hv->vcpu.pdpte[k] & PTE_P)) {
                m->pae_root[k] = (uint16_t)take_root(hv, gfn, role, &found);
                all_found &= found;
                entry = shadow_hpa(m->pae_root[k]) | PTE_P;
            }
            if (entry != old) {
                physical_write64(hv->cpu, entry_hpa, entry);
                silicon_emit(hv->cpu, EVENT_FILL, 3, (uint64_t)k << 30, entry_hpa, old, entry);
            }
        }
        m->root_hpa = pool_hpa(POOL_PAE_ROOT);
    }
    m->root_valid = 1;
    hv->vendor->set_root(hv, m->root_hpa);
    silicon_emit(hv->cpu, EVENT_ROOT_SWITCH, all_found, hv->vcpu.cr3, m->root_hpa, m->glevels, 0);
}

/* ---- page faults: facts 2.4 -------------------------------------------------------------------------------------------------- */

static uint32_t restrictions(bool writable, bool user, bool no_exec)
{
    return (writable ? 0 : ROLE_READONLY) | (user ? 0 : ROLE_SUPERVISOR) | (no_exec ? ROLE_NO_EXEC : 0u);
}

/* The page below the entry of this level on the way to gva: what it shadows. */
static void child_of(const struct hv *hv, const struct guest_walk *walk, unsigned level, uint64_t *gfn, uint32_t *role, bool *large)
{
    const struct shadow_mmu *m = &hv->mmu;
    unsigned below = level - 1;
    *role = m->role_bits | below << ROLE_LEVEL_SHIFT;
    *large = false;
    if (m->glevels == 0) {
        unsigned shift = PAGE_SHIFT + 9 * below;
        *role |= ROLE_METAPHYSICAL;
        *gfn = (walk->gpa >> shift << shift) >> PAGE_SHIFT;
    } else if (walk->leaf_level == level) { /* a large page: a table that no guest has */
        *large = true;
        *role |= ROLE_METAPHYSICAL | restrictions(walk->writable, walk->user, walk->no_exec);
        *gfn = walk->gpa >> 21 << 9;
    } else {
        *role |= restrictions(walk->upper_writable[below], walk->upper_user[below], walk->upper_no_exec[below]);
        if (m->glevels == 2)
            *role |= (uint32_t)(walk->gva >> 21 & 1) << ROLE_QUADRANT_SHIFT;
        *gfn = walk->table_gfn[below];
    }
}

static unsigned descend(struct hv *hv, const struct guest_walk *walk)
{
    struct shadow_mmu *m = &hv->mmu;
    unsigned level = m->glevels == 4 ? 4 : 2;
    unsigned page = m->glevels == 4 ? m->root : m->pae_root[walk->gva >> 30 & 3];
    for (; page != NO_SHADOW && level > 1; level--) {
        unsigned index = walk->gva >> (PAGE_SHIFT + 9 * (level - 1)) & 511;
        uint64_t gfn, spte = shadow_read(hv, page, index);
        uint32_t role;
        bool large, found;
        child_of(hv, walk, level, &gfn, &role, &large);
        if (spte & SPTE_P) {
            unsigned child = shadow_page_of(spte & SPTE_ADDRESS);
            if (child != NO_SHADOW && m->page[child].gfn == gfn && m->page[child].role == role) {
                page = child;
                continue;
            }
            shadow_drop(hv, page, index, ZAP_REPLACED);
        }
        unsigned child = shadow_get(hv, gfn, role, &found);
        if (child != NO_SHADOW)
            shadow_set_child(hv, page, index, child, large, walk->gva);
        page = child;
    }
    return page;
}

enum mmu_verdict mmu_page_fault(struct hv *hv, uint64_t gva, uint32_t error, struct guest_walk *walk)
{
    bool write = error & PF_W, user = error & PF_U;
    shadow_reserve(hv);
    if (!mmu_walk(hv, gva, error & (PF_W | PF_U | PF_I), true, walk)) {
        hv->mmu.pf_guest++;
        return MMU_GUEST_FAULT;
    }
    uint64_t gfn = walk->gpa >> PAGE_SHIFT;
    const struct hv_slot *slot = hv_slot_at(hv, walk->gpa);
    if (write && user && slot && shadow_is_table(hv, gfn))
        shadow_zap_gfn(hv, gfn, ZAP_USER_WRITE); /* a page that user mode writes is no table any more */
    unsigned page = descend(hv, walk), index = gva >> PAGE_SHIFT & 511;
    if (page == NO_SHADOW)
        return MMU_EMULATE;
    if (!slot) {
        shadow_set_leaf(hv, page, index, SPTE_SOFT, gva);
        return MMU_EMULATE;
    }
    bool table = shadow_is_table(hv, gfn);
    uint64_t spte = (slot->hpa + ((gfn << PAGE_SHIFT) - slot->gpa)) | SPTE_P | SPTE_A | (walk->dirty ? SPTE_D : 0u) |
                    (walk->global ? SPTE_G : 0u) | (walk->no_exec ? SPTE_NX : 0) | (walk->writable ? SPTE_GUEST_W : 0u) |
                    (walk->user ? SPTE_GUEST_U : 0u);
    if (walk->user)
        spte |= SPTE_U;
    if (walk->writable && walk->dirty && !table)
        spte |= SPTE_W;
    if (write && !user && !walk->writable && !table) /* CR0.WP = 0: write without user, until user mode reads again */
        spte = (spte | SPTE_W) & ~(uint64_t)SPTE_U;
    if (spte & SPTE_W)
        dirty_mark(hv, gfn);
    shadow_set_leaf(hv, page, index, spte, gva);
    if (write && table)
        return MMU_EMULATE;
    hv->mmu.pf_fixed++;
    return MMU_FIXED;
}
