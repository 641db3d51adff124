/* Looking into the hypervisor from outside: memory slots, shadow pages, reverse maps, the fields of VMCS and VMCB, and every entry rule
 * applied to them as they are. Only the soft engine can be looked into; a bare machine shows the VMCS or VMCB that code on it has made. */
#include "soft_vm.h"

#include <string.h>

#define NEED_VM()                        \
    if (vm->ops != &soft_vm_ops)         \
        return refuse(vm, KL_ENOTSUP, "not visible here: only a virtual machine on the soft engine has a hypervisor of ours under it")
#define NEED_VCPU_MADE()                       \
    NEED_VM();                                 \
    if (!soft_vm_of(vm)->hv.vcpu.created)      \
        return refuse(vm, KL_EINVAL, "there is no virtual processor yet: create it after memory slot 0")

int kl_slot_info(kl_vm *vm, uint32_t slot, kl_slot *info)
{
    NEED_VM();
    if (slot >= HV_SLOTS)
        return refuse(vm, KL_EINVAL, "no such slot: there are four, numbers 0 to 3");
    const struct hv_slot *s = &soft_vm_of(vm)->hv.slot[slot];
    *info = (kl_slot){ .gpa = s->gpa, .size = s->size, .hpa = s->hpa, .flags = s->flags, .present = s->size != 0 };
    return 0;
}

/* ---- shadow pages ------------------------------------------------------------------------------------------------- */

static void describe_page(struct hv *hv, unsigned number, kl_shadow_page *to)
{
    const struct shadow_page *p = &hv->mmu.page[number];
    *to = (kl_shadow_page){ .gfn = p->gfn, .hpa = shadow_hpa(number), .role = p->role, .number = (uint16_t)number,
                            .present = p->nr_present, .root_count = p->root_count,
                            .parents = (uint16_t)shadow_parents(hv, number, NULL, 0),
                            .level = (p->role & ROLE_LEVEL) >> ROLE_LEVEL_SHIFT, .guest_levels = p->role & ROLE_GLEVELS,
                            .quadrant = (p->role & ROLE_QUADRANT) >> ROLE_QUADRANT_SHIFT,
                            .metaphysical = (p->role & ROLE_METAPHYSICAL) != 0, .slots = p->slots };
}

int64_t kl_shadow_pages(kl_vm *vm, kl_shadow_page *to, uint64_t n)
{
    NEED_VM();
    struct hv *hv = &soft_vm_of(vm)->hv;
    uint64_t count = 0;
    for (unsigned k = hv->mmu.newest; k != NO_SHADOW; k = hv->mmu.page[k].older, count++)
        if (count < n)
            describe_page(hv, k, &to[count]);
    return (int64_t)count;
}

static bool is_page(const struct hv *hv, uint32_t number) { return number < SHADOW_PAGES && hv->mmu.page[number].in_use; }

int kl_shadow_entries(kl_vm *vm, uint32_t number, uint64_t *sptes)
{
    NEED_VM();
    struct hv *hv = &soft_vm_of(vm)->hv;
    if (!is_page(hv, number))
        return refuse(vm, KL_ENOENT, "this page of the pool shadows nothing now");
    space_read(hv->host, shadow_hpa(number), sptes, PAGE_SIZE);
    return 0;
}

int64_t kl_shadow_parents(kl_vm *vm, uint32_t number, uint64_t *spte_hpa, uint64_t n)
{
    NEED_VM();
    struct hv *hv = &soft_vm_of(vm)->hv;
    if (!is_page(hv, number))
        return refuse(vm, KL_ENOENT, "this page of the pool shadows nothing now");
    return shadow_parents(hv, number, spte_hpa, n > SHADOW_PAGES * 512u ? SHADOW_PAGES * 512u : (unsigned)n);
}

int64_t kl_shadow_rmap(kl_vm *vm, uint64_t gfn, uint64_t *spte_hpa, uint64_t n)
{
    NEED_VM();
    return shadow_rmap(&soft_vm_of(vm)->hv, gfn, spte_hpa, n > SHADOW_PAGES * 512u ? SHADOW_PAGES * 512u : (unsigned)n);
}

int kl_shadow_get_state(kl_vm *vm, kl_shadow_state *state)
{
    NEED_VM();
    const struct shadow_mmu *m = &soft_vm_of(vm)->hv.mmu;
    *state = (kl_shadow_state){ .root = m->root_hpa, .fixed = m->pf_fixed, .guest_faults = m->pf_guest, .table_writes = m->table_writes,
                                .zapped = m->zapped, .recycled = m->recycled, .flushes = m->flushes,
                                .last_written_gfn = m->last_written_gfn, .written = m->nr_written, .free = m->nr_free,
                                .total = SHADOW_PAGES, .guest_levels = m->glevels, .role = m->role_bits, .valid = m->root_valid };
    for (unsigned k = 0; k < 4; k++)
        state->pae_root[k] = m->pae_root[k] == NO_SHADOW ? 0 : shadow_hpa(m->pae_root[k]);
    return 0;
}

int kl_shadow_audit(kl_vm *vm, const char **what, uint64_t *where)
{
    NEED_VM();
    return shadow_audit(&soft_vm_of(vm)->hv, what, where);
}

/* The walk that hardware would make now: PAE or four levels, entries of 8 bytes. */
void inspect_shadow_walk(struct soft_vm *self, uint64_t gva, int access, int user, kl_walk *walk)
{
    struct hv *hv = &self->hv;
    if (!hv->mmu.root_valid) { /* nothing is mapped until the next entry; looking makes no roots */
        walk->linear = gva;
        walk->failed = WALK_NOT_PRESENT;
        return;
    }
    bool four = hv->mmu.glevels == 4, writable = true, user_ok = true, no_exec = false;
    uint64_t table = hv->mmu.root_hpa;
    walk->linear = gva;
    walk->page_size = PAGE_SIZE;
    walk->failed = WALK_NOT_PRESENT;
    for (unsigned level = four ? 4 : 3; level > 0; level--) {
        kl_walk_step *step = &walk->step[walk->nr_steps++];
        unsigned shift = PAGE_SHIFT + 9 * (level - 1);
        step->table = table;
        step->level = (uint8_t)level;
        step->index = gva >> shift & (level == 3 && !four ? 3 : 511);
        space_read(hv->host, table + 8 * step->index, &step->entry, 8);
        if (!(step->entry & SPTE_P)) {
            step->failed = WALK_NOT_PRESENT;
            return;
        }
        step->ok = 1;
        if (level != 3 || four) {
            writable &= (step->entry & SPTE_W) != 0;
            user_ok &= (step->entry & SPTE_U) != 0;
            no_exec |= (step->entry & SPTE_NX) != 0;
        }
        table = step->entry & SPTE_ADDRESS;
    }
    kl_walk_step *last = &walk->step[walk->nr_steps - 1];
    walk->physical = table | (gva & (PAGE_SIZE - 1));
    walk->flags = (writable ? TLB_W : 0u) | (user_ok ? TLB_U : 0u) | (no_exec ? TLB_NX : 0u) | (last->entry & SPTE_D ? TLB_D : 0u);
    walk->failed = user && !user_ok ? WALK_USER : access == 2 && no_exec ? WALK_NX : access == 1 && !writable ? WALK_WRITE : WALK_OK;
    last->ok = walk->failed == WALK_OK;
    last->failed = walk->failed;
    walk->error = walk->failed ? PF_P | (access == 1 ? PF_W : 0u) | (user ? PF_U : 0u) : 0;
}

/* ---- fields and rules ----------------------------------------------------------------------------------------------------- */

static const char *const vmcs_groups[] = { [VMCS_CONTROL] = "control", [VMCS_EXIT_INFO] = "exit_info", [VMCS_GUEST] = "guest", [VMCS_HOST] = "host" };

/* The processor, and where its VMCB lies: on a bare machine the one that VMRUN saw last. */
static int find_block(kl_vm *vm, struct cpu **cpu, uint64_t *vmcb)
{
    if (!soft_is_machine(vm)) {
        NEED_VCPU_MADE();
        *cpu = soft_vm_of(vm)->soft.cpu;
        *vmcb = pool_hpa(POOL_VMCS);
        return 0;
    }
    *cpu = ((struct soft *)vm)->cpu;
    *vmcb = (*cpu)->svm.vmcb;
    if (silicon_is_intel(*cpu) ? !(*cpu)->vmx.current_valid : !*vmcb)
        return refuse(vm, KL_ENOTSUP, "not visible yet: no VMCS is current in this machine, or no VMCB has been entered");
    return 0;
}

int64_t kl_field_get(kl_vm *vm, uint32_t row, kl_field *field)
{
    struct cpu *cpu;
    uint64_t vmcb;
    int error = find_block(vm, &cpu, &vmcb);
    if (error)
        return error;
    if (silicon_is_intel(cpu)) {
        if (row >= NR_VMCS_FIELDS)
            return NR_VMCS_FIELDS;
        const struct vmcs_row *r = &vmcs_rows[row];
        *field = (kl_field){ .name = r->name, .meaning = r->meaning, .group = vmcs_groups[r->group], .place = r->encoding, .bytes = r->bytes,
                             .exists = vmcs_slot(cpu, r->encoding) >= 0, .writable = r->group != VMCS_EXIT_INFO,
                             .value = cpu->vmx.field[row] };
        return NR_VMCS_FIELDS;
    }
    if (row >= NR_VMCB_FIELDS)
        return NR_VMCB_FIELDS;
    const struct vmcb_row *r = &vmcb_rows[row];
    *field = (kl_field){ .name = r->name, .meaning = r->meaning, .group = r->is_save ? "save" : "control", .place = r->offset, .bytes = r->bytes,
                         .exists = r->since <= (cpu_has(cpu, FEATURE_NPT) ? SVM_V2 : SVM_V1), .writable = 1, .value = vmcb_read(cpu, vmcb, row) };
    return NR_VMCB_FIELDS;
}

int kl_field_set(kl_vm *vm, uint32_t row, uint64_t value)
{
    struct cpu *cpu;
    uint64_t vmcb;
    int error = find_block(vm, &cpu, &vmcb);
    if (error)
        return error;
    if (!soft_is_machine(vm))
        hv_come_out(&soft_vm_of(vm)->hv);
    if (!silicon_is_intel(cpu)) {
        if (row >= NR_VMCB_FIELDS)
            return refuse(vm, KL_EINVAL, "no such field of the VMCB");
        vmcb_write(cpu, vmcb, row, value);
        return 0;
    }
    if (row >= NR_VMCS_FIELDS || vmcs_slot(cpu, vmcs_rows[row].encoding) < 0)
        return refuse(vm, KL_EINVAL, "this processor's VMCS has no such field");
    if (vmcs_rows[row].group == VMCS_EXIT_INFO)
        return refuse(vm, KL_EINVAL, "exit information is read-only: VMWRITE fails with error 13");
    vmcs_set(cpu, (enum vmcs_slot)row, value);
    return 0;
}

struct rule_text { const char *id, *area, *rule; };
static const struct rule_text vmx_rules[] = {
#define VMX_CHECK(name, id, area, since, failure, field, applies, rule) { id, area, rule },
#include "cpu/vmx_check.def"
};
static const struct rule_text svm_rules[] = {
#define SVM_CHECK(name, id, area, since, failure, field, applies, rule) { id, area, rule },
#include "cpu/svm_check.def"
};

int64_t kl_check_all(kl_vm *vm, kl_check *to, uint64_t n)
{
    struct cpu *cpu;
    uint64_t vmcb;
    int error = find_block(vm, &cpu, &vmcb);
    if (error)
        return error;
    bool intel = silicon_is_intel(cpu);
    struct check_verdict verdict[(int)NR_VMX_CHECKS_PLUS_1 + (int)NR_SVM_CHECKS_PLUS_1];
    unsigned rows = intel ? NR_VMX_CHECKS_PLUS_1 - 1 : NR_SVM_CHECKS_PLUS_1 - 1;
    memset(verdict, 0, sizeof verdict);
    if (intel)
        vmx_check_all(cpu, verdict);
    else
        svm_check_all(cpu, vmcb, verdict);
    for (unsigned k = 0; k < rows && k < n; k++) {
        const struct rule_text *rule = intel ? &vmx_rules[k] : &svm_rules[k];
        unsigned field = verdict[k].field;
        const char *name = "";
        if (intel && field < NR_VMCS_FIELDS)
            name = vmcs_rows[field].name;
        else if (!intel && field < NR_VMCB_FIELDS)
            name = vmcb_rows[field].name;
        to[k] = (kl_check){ .id = rule->id, .area = rule->area, .rule = rule->rule, .field = name, .verdict = verdict[k].verdict,
                            .value = verdict[k].value };
    }
    return rows;
}
