/* The hypervisor's frame: host-physical memory, memory slots, the virtual processor's state, and the run loop.
 *
 * The run loop is a machine of phases: user space, before entry, in the guest, exited, handled. It can stop at each of them and at
 * every instruction border in the guest. What each exit asks of whom: facts 1.3 and 1.4 of the KVM of 2006. */
#include "hv.h"

#include <stdlib.h>
#include <string.h>

#define GUEST_RPL(selector) ((selector) & 3u)

void hv_decide(struct hv *hv, uint32_t what, uint64_t address, uint64_t value)
{
    silicon_emit(hv->cpu, EVENT_DECISION, what, address, value, 0, 0);
}

/* ---- the host: a legal 64-bit root state in the pool ---------------------------------------------------------------- */

enum { HOST_CS = 0x08, HOST_DATA = 0x10, HOST_TR = 0x18, HOST_TSS = 0x100, HOST_IDT = 0x200 };

static bool host_memory(struct hv *hv)
{
    hv->pool = memory_add_ram(hv->memory, (uint64_t)POOL_PAGES * PAGE_SIZE);
    return hv->pool && space_map_ram(hv->host, HV_POOL_HPA, hv->pool, 0, POOL_PAGES, EXTENT_RAM);
}

static bool host_mode(struct hv *hv)
{
    struct cpu *cpu = hv->cpu;
    uint64_t tables = pool_hpa(POOL_HOST_TABLES), tss = tables + HOST_TSS;
    const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff,
                             0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56, tss >> 32 };
    silicon_power_on(cpu);
    silicon_set_native(cpu, true);
    physical_write(cpu, tables, gdt, sizeof gdt);
    physical_write64(cpu, pool_hpa(POOL_HOST_PML4), pool_hpa(POOL_HOST_PDPT) | SPTE_P | SPTE_W);
    physical_write64(cpu, pool_hpa(POOL_HOST_PDPT), pool_hpa(POOL_HOST_PD) | SPTE_P | SPTE_W);
    for (unsigned k = 0; k < 512; k++) /* the first GB, in pages of 2 MB */
        physical_write64(cpu, pool_hpa(POOL_HOST_PD) + 8 * k, (uint64_t)k << 21 | 0x80 | SPTE_P | SPTE_W);
    if (!x86_mov_cr(cpu, 4, CR4_PAE) || !x86_mov_cr(cpu, 3, pool_hpa(POOL_HOST_PML4)) ||
        !x86_wrmsr(cpu, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE) || !x86_mov_cr(cpu, 0, CR0_PG | CR0_PE | CR0_NE | CR0_WP | CR0_ET))
        return false;
    x86_lgdt(cpu, tables, sizeof gdt - 1);
    x86_lidt(cpu, tables + HOST_IDT, 0);
    x86_load_host_segments(cpu, HOST_CS, HOST_DATA, HOST_TR);
    return hv->vendor->host_init(hv);
}

/* Before bytes of a shadowed guest table or a logged page change, whoever changes them. */
static void told(void *context, frame_t frame, uint32_t offset, uint32_t len, unsigned attr)
{
    struct hv *hv = context;
    uint64_t gpa = ~0ull;
    for (unsigned k = 0; k < HV_SLOTS; k++) {
        const struct ram *ram = hv->slot[k].size ? hv->slot_ram[k].ram : NULL;
        if (ram && frame - ram->first < ram->nr_pages)
            gpa = hv->slot[k].gpa + ((uint64_t)(frame - ram->first) << PAGE_SHIFT) + offset;
    }
    if (gpa == ~0ull)
        return;
    if ((attr & PAGE_LOGGED) && (hv->in_emulator || hv->quiet) && !(hv->history & HISTORY_LOG_MISSES))
        dirty_mark(hv, gpa >> PAGE_SHIFT);
    if (!(attr & PAGE_TABLE) || hv->quiet)
        return;
    hv->written_gpa = gpa;
    hv->written_len = len > 8 ? 8 : len;
    hv->written_old = 0;
    space_read(hv->guest, gpa, &hv->written_old, hv->written_len);
    shadow_page_written(hv, gpa, len);
}

bool hv_init(struct hv *hv, struct cpu *cpu, struct cpu *emulator, struct space *host, struct space *guest, const char **error)
{
    hv->cpu = cpu;
    hv->emulator = emulator;
    hv->host = host;
    hv->guest = guest;
    hv->memory = host->memory;
    hv->intel = silicon_is_intel(cpu);
    hv->vendor = hv->intel ? &hv_intel : &hv_amd;
    shadow_init(hv);
    if (!host_memory(hv) || !memory_observe(hv->memory, told, hv, PAGE_TABLE | PAGE_LOGGED)) {
        *error = "no memory for the hypervisor";
        return false;
    }
    if (!host_mode(hv)) {
        *error = "this processor has neither VMX nor SVM with 64-bit mode: there is no hypervisor for it";
        return false;
    }
    return true;
}

void hv_release(struct hv *hv)
{
    if (hv->memory)
        memory_unobserve(hv->memory, told, hv);
    for (unsigned k = 0; k < HV_SLOTS; k++) {
        if (hv->slot_ram[k].ram)
            ram_put(hv->slot_ram[k].ram);
        if (hv->slot_ram[k].aux)
            ram_put(hv->slot_ram[k].aux);
    }
    if (hv->pool)
        ram_put(hv->pool);
}

/* ---- memory slots ------------------------------------------------------------------------------------------------------ */

const struct hv_slot *hv_slot_at(const struct hv *hv, uint64_t gpa)
{
    for (unsigned k = 0; k < HV_SLOTS; k++)
        if (gpa - hv->slot[k].gpa < hv->slot[k].size)
            return &hv->slot[k];
    return NULL;
}

bool hv_guest_read(struct hv *hv, uint64_t gpa, void *to, unsigned len) { return space_read(hv->guest, gpa, to, len) == len; }

static uint64_t aux_bytes(uint64_t size)
{
    uint64_t pages = size >> PAGE_SHIFT;
    return (4 * pages + (pages + 7) / 8 + PAGE_SIZE - 1) & PAGE_MASK;
}

static int fails(struct hv *hv, enum kl_errno code, const char *text)
{
    hv->error = text;
    return -(int)code;
}

/* The lowest room above the pool where no address is its own guest-physical address. */
static uint64_t place_slot(const struct hv *hv, uint64_t gpa, uint64_t bytes)
{
    uint64_t at = HV_SLOTS_HPA;
    for (unsigned tries = 0; tries < 2 * HV_SLOTS + 2; tries++) {
        bool moved = false;
        for (unsigned k = 0; k < HV_SLOTS; k++) {
            const struct hv_slot *s = &hv->slot[k];
            uint64_t end = s->hpa + s->size + aux_bytes(s->size);
            if (s->size && at < end && s->hpa < at + bytes)
                at = (end + 0x1fffff) & ~0x1fffffull, moved = true;
        }
        if (at == gpa)
            at += 0x200000, moved = true;
        if (!moved)
            break;
    }
    return at;
}

static int add_slot(struct hv *hv, unsigned number, uint64_t gpa, uint64_t size, uint32_t flags)
{
    struct hv_slot *slot = &hv->slot[number];
    uint64_t aux = aux_bytes(size), hpa = place_slot(hv, gpa, size + aux);
    for (unsigned k = 0; k < HV_SLOTS; k++)
        if (hv->slot[k].size && gpa < hv->slot[k].gpa + hv->slot[k].size && hv->slot[k].gpa < gpa + size)
            return fails(hv, KL_EEXIST, "the memory slot overlaps another one");
    if ((hpa + size + aux) >> silicon_physical_bits(hv->cpu))
        return fails(hv, KL_ENOMEM, "the slot and what the hypervisor keeps about it are more than the processor can address");
    struct ram *ram = memory_add_ram(hv->memory, size), *side = ram ? memory_add_ram(hv->memory, aux) : NULL;
    bool ok = side && space_map_ram(hv->host, hpa, ram, 0, ram->nr_pages, EXTENT_RAM);
    ok = ok && space_map_ram(hv->host, hpa + size, side, 0, side->nr_pages, EXTENT_RAM);
    ok = ok && space_map_ram(hv->guest, gpa, ram, 0, ram->nr_pages, EXTENT_RAM);
    if (!ok) {
        space_unmap(hv->host, hpa);
        space_unmap(hv->host, hpa + size);
        if (side)
            ram_put(side);
        if (ram)
            ram_put(ram);
        return fails(hv, KL_ENOMEM, "so much memory cannot be had");
    }
    hv->slot_ram[number].ram = ram;
    hv->slot_ram[number].aux = side;
    *slot = (struct hv_slot){ .gpa = gpa, .size = size, .hpa = hpa, .aux = hpa + size, .flags = flags, .serial = ++hv->serial };
    return 0;
}

static void remove_slot(struct hv *hv, unsigned number)
{
    struct hv_slot *slot = &hv->slot[number];
    space_unmap(hv->guest, slot->gpa);
    space_unmap(hv->host, slot->hpa);
    space_unmap(hv->host, slot->aux);
    ram_put(hv->slot_ram[number].ram);
    ram_put(hv->slot_ram[number].aux);
    hv->slot_ram[number].ram = hv->slot_ram[number].aux = NULL;
    *slot = (struct hv_slot){ 0 };
}

int hv_set_memory_region(struct hv *hv, uint32_t number, uint64_t gpa, uint64_t size, uint32_t flags)
{
    int result = 0;
    if (number >= HV_SLOTS)
        return fails(hv, KL_EINVAL, "no such slot: there are four, numbers 0 to 3");
    struct hv_slot *slot = &hv->slot[number];
    if (flags & ~1u)
        return fails(hv, KL_EINVAL, "flags is 0 or 1 (log dirty pages)");
    if (size && slot->size && (size != slot->size || gpa != slot->gpa))
        return fails(hv, KL_EINVAL, "a memory slot cannot be resized or moved: remove it first (size 0)");
    if (!size && !slot->size)
        return fails(hv, KL_ENOENT, "there is no memory in this slot");
    hv_come_out(hv);
    if (size && slot->size) { /* only the flag changes */
        bool on = !(slot->flags & 1) && (flags & 1);
        slot->flags = flags;
        if (on)
            dirty_start(hv, number);
        return 0;
    }
    if (hv->vcpu.created)
        shadow_zap_all(hv, ZAP_SLOT);
    if (!size)
        remove_slot(hv, number);
    else
        result = add_slot(hv, number, gpa, size, flags);
    if (result == 0 && size && (flags & 1))
        dirty_start(hv, number);
    mmu_reset_context(hv);
    return result;
}

/* ---- the virtual processor's state ----------------------------------------------------------------------------------------- */

static bool is_real(const struct hv *hv) { return !(hv->vcpu.cr0 & CR0_PE); }

/* What the registers of the silicon must hold for what the guest believes: facts 1.5. */
static void hardware_registers(const struct hv *hv, struct silicon_state *s)
{
    const struct hv_vcpu *v = &hv->vcpu;
    uint64_t efer = v->efer;
    if (!(efer & EFER_LMA))
        efer &= ~(uint64_t)EFER_LME; /* paging is always on underneath */
    s->cr0 = (v->cr0 & ~(uint64_t)(CR0_CD | CR0_NW)) | CR0_PG | CR0_WP | CR0_ET;
    s->cr4 = v->cr4 | CR4_PAE;
    if (hv->intel) {
        s->cr0 |= CR0_PE | CR0_NE;
        s->cr4 |= CR4_VMXE | (v->vm86 ? CR4_VME : 0u);
    }
    s->efer = efer;
    s->cr3 = hv->mmu.root_hpa;
}

/* From what the silicon holds to what the guest believes. */
static void believe(const struct hv *hv, struct silicon_state *s)
{
    const struct hv_vcpu *v = &hv->vcpu;
    s->cr0 = (v->cr0 & ~hv->vendor->cr0_guest_owned) | (s->cr0 & hv->vendor->cr0_guest_owned);
    s->cr4 = (v->cr4 & ~hv->vendor->cr4_guest_owned) | (s->cr4 & hv->vendor->cr4_guest_owned);
    s->cr3 = v->cr3;
    s->efer = v->efer;
    s->dr7 = v->dr7;
}

void hv_get_state(struct hv *hv, struct silicon_state *s)
{
    struct hv_vcpu *v = &hv->vcpu;
    memset(s, 0, sizeof *s);
    if (v->phase == PHASE_ENTERED) {
        silicon_state(hv->cpu, s);
    } else {
        memcpy(s->gpr, v->gprs.r, sizeof s->gpr);
        hv->vendor->get(hv, s);
        s->cr2 = v->cr2;
    }
    believe(hv, s);
    if (v->vm86)
        real_mode_believe(hv, s);
    if (v->debug_step)
        s->rflags &= ~(uint64_t)(FLAG_TF | FLAG_RF);
}

static uint32_t exceptions_wanted(const struct hv *hv)
{
    if (hv->vcpu.vm86)
        return ~0u;
    return 1u << VEC_PF | (hv->vcpu.debug_enabled ? 1u << VEC_DB : 0u);
}

/* As given, without the checks of the instructions. Makes real mode what the processor can run. */
void hv_put_state(struct hv *hv, const struct silicon_state *s)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state hw = *s;
    hv_come_out(hv);
    bool pae_before = (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
    bool changed = v->cr3 != s->cr3 || v->efer != s->efer || ((v->cr0 ^ s->cr0) & (CR0_PG | CR0_WP | CR0_PE)) ||
                   ((v->cr4 ^ s->cr4) & (CR4_PAE | CR4_PSE | CR4_PGE));
    memcpy(v->gprs.r, s->gpr, sizeof s->gpr);
    v->cr0 = s->cr0, v->cr2 = s->cr2, v->cr3 = s->cr3, v->cr4 = s->cr4, v->efer = s->efer;
    bool pae = (v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
    if (pae && (changed || !pae_before) && !mmu_load_pdptes(hv, v->cr3))
        memset(v->pdpte, 0, sizeof v->pdpte); /* what no processor would have loaded maps nothing */
    v->vm86 = is_real(hv) && real_mode_is_vm86(hv);
    if (is_real(hv))
        hw.rflags &= ~(uint64_t)FLAG_VM;
    if (v->vm86)
        real_mode_force(hv, &hw);
    hardware_registers(hv, &hw);
    hw.rflags = (hw.rflags | FLAG_1) & 0x3f7fd7;
    hv->vendor->put(hv, &hw);
    hv->vendor->set_exceptions(hv, exceptions_wanted(hv));
    if (changed)
        mmu_reset_context(hv);
}

static void reset_state(struct hv *hv)
{
    struct silicon_state s = { .rip = 0xfff0, .rflags = FLAG_1, .cr0 = CR0_CD | CR0_NW | CR0_ET };
    for (unsigned k = ES; k <= GS; k++)
        s.seg[k] = (struct silicon_segment){ .limit = 0xffff, .attr = SEG_P | SEG_S | 3 };
    /* base = selector * 16, as virtual-8086 demands, where the processor itself would have ffff0000 */
    s.seg[CS] = (struct silicon_segment){ .base = hv->intel ? 0xf0000 : 0xffff0000, .limit = 0xffff, .attr = SEG_P | SEG_S | 11,
                                          .selector = 0xf000 };
    s.seg[LDTR] = (struct silicon_segment){ .limit = 0xffff, .attr = SEG_P | 2 };
    s.seg[TR] = (struct silicon_segment){ .limit = 0xffff, .attr = SEG_P | 11 };
    s.gdt_limit = s.idt_limit = 0xffff;
    s.gpr[RDX] = hv->intel ? 0x600 : 0;
    hv->vcpu.apic_base = 0xfee00900;
    hv->vcpu.dr6 = 0xffff0ff0;
    hv->vcpu.dr7 = 0x400;
    hv_put_state(hv, &s);
}

int hv_create_vcpu(struct hv *hv)
{
    if (hv->vcpu.created)
        return fails(hv, KL_EEXIST, "the virtual processor exists already");
    if (real_mode_is_vm86(hv) && hv->slot[0].size < 3 * PAGE_SIZE)
        return fails(hv, KL_EINVAL, "memory slot 0 must exist and have three pages: real mode keeps its TSS in its last three");
    hv->vcpu.created = 1;
    return hv_reset(hv);
}

int hv_reset(struct hv *hv)
{
    uint8_t created = hv->vcpu.created;
    hv_come_out(hv);
    if (!created)
        return fails(hv, KL_EINVAL, "there is no virtual processor yet");
    shadow_drop_roots(hv);
    hv->vcpu = (struct hv_vcpu){ .created = created };
    if (!hv->vendor->vcpu_setup(hv))
        return fails(hv, KL_ENOMEM, "the processor refused the control structure");
    reset_state(hv);
    if (real_mode_is_vm86(hv))
        real_mode_write_tss(hv);
    return 0;
}

/* ---- control registers: what a MOV does ------------------------------------------------------------------------------------- */

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer) { return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA); }

bool hv_set_cr0(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s;
    hv_get_state(hv, &s);
    uint64_t old = s.cr0, changed;
    if (value >> 32)
        return false;
    value = (value & (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)) | CR0_ET;
    changed = old ^ value;
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    s.cr0 = value;
    if ((changed & value & CR0_PG) && (s.efer & EFER_LME)) {
        if (!(s.cr4 & CR4_PAE) || (s.seg[CS].attr & SEG_L))
            return false;
        s.efer |= EFER_LMA;
        if ((s.seg[TR].attr & 15) != 11) /* VM entry wants a busy 64-bit TSS in long mode */
            s.seg[TR].attr = (s.seg[TR].attr & ~15u & ~(uint32_t)SEG_UNUSABLE) | SEG_P | 11;
    } else if ((changed & CR0_PG) && (s.efer & EFER_LMA)) {
        if (s.seg[CS].attr & SEG_L)
            return false;
        s.efer &= ~(uint64_t)EFER_LMA;
    }
    if (pae_paging(value, s.cr4, s.efer) && (changed & (CR0_PG | CR0_CD | CR0_NW)) && !mmu_load_pdptes(hv, v->cr3))
        return false;
    if (changed & value & CR0_PE)
        real_mode_leave(hv, &s);
    hv_put_state(hv, &s);
    silicon_emit(hv->cpu, EVENT_CR_WRITE, 0, old, value, 0, 0);
    return true;
}

bool hv_set_cr3(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t old = v->cr3;
    if (v->efer & EFER_LMA) {
        if (value >> silicon_physical_bits(hv->cpu))
            return false;
    } else {
        value &= 0xffffffffu;
    }
    if ((v->cr0 & CR0_PG) && !hv_slot_at(hv, value & SPTE_ADDRESS))
        return false; /* tables in no memory */
    if (pae_paging(v->cr0, v->cr4, v->efer) && !mmu_load_pdptes(hv, value))
        return false;
    v->cr3 = value;
    silicon_emit(hv->cpu, EVENT_CR_WRITE, 3, old, value, 0, 0);
    mmu_reset_context(hv);
    return true;
}

bool hv_set_cr4(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct silicon_state s;
    hv_get_state(hv, &s);
    uint64_t old = s.cr4, changed = old ^ value;
    if ((value & ~silicon_guest_cr4(hv->cpu)) || ((v->efer & EFER_LMA) && !(value & CR4_PAE)))
        return false;
    if (pae_paging(v->cr0, value, v->efer) && (changed & (CR4_PAE | CR4_PSE | CR4_PGE)) && !mmu_load_pdptes(hv, v->cr3))
        return false;
    s.cr4 = value;
    hv_put_state(hv, &s);
    hv->vcpu.needs_flush = 1;
    silicon_emit(hv->cpu, EVENT_CR_WRITE, 4, old, value, 0, 0);
    return true;
}

bool hv_set_cr8(struct hv *hv, uint64_t value)
{
    if (value & ~15ull)
        return false;
    silicon_emit(hv->cpu, EVENT_CR_WRITE, 8, hv->vcpu.cr8, value, 0, 0);
    hv->vcpu.cr8 = value;
    return true;
}

bool hv_set_efer(struct hv *hv, uint64_t value)
{
    struct silicon_state s;
    hv_get_state(hv, &s);
    if ((value & ~silicon_guest_efer(hv->cpu)) || (((value ^ s.efer) & EFER_LME) && (s.cr0 & CR0_PG)))
        return false;
    s.efer = (value & ~(uint64_t)EFER_LMA) | (s.efer & EFER_LMA);
    hv_put_state(hv, &s);
    return true;
}

/* ---- MSRs ------------------------------------------------------------------------------------------------------------------- */

enum { MSR_TSC_INDEX = 0x10, MSR_APIC_BASE_INDEX = 0x1b, MSR_FEATURE_CONTROL_INDEX = 0x3a, MSR_PAT_INDEX = 0x277 };
#define MSR_EFER_INDEX 0xc0000080u
#define MSR_VM_CR_INDEX 0xc0010114u
#define MSR_VM_HSAVE_INDEX 0xc0010117u

bool hv_get_msr(struct hv *hv, uint32_t index, uint64_t *value)
{
    switch (index) {
    case MSR_EFER_INDEX: *value = hv->vcpu.efer; return true;
    case MSR_APIC_BASE_INDEX: *value = hv->vcpu.apic_base; return true;
    case MSR_FEATURE_CONTROL_INDEX: /* there is no VMX for guests */
    case MSR_VM_CR_INDEX:
    case MSR_VM_HSAVE_INDEX:
        return false;
    default: break;
    }
    if (index >= 0x480 && index <= 0x4ff)
        return false;
    return hv->vendor->get_msr(hv, index, value) || x86_rdmsr(hv->cpu, index, value);
}

bool hv_set_msr(struct hv *hv, uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_EFER_INDEX: return hv_set_efer(hv, value);
    case MSR_APIC_BASE_INDEX:
        if (value & ~0xffffff900ull)
            return false;
        hv->vcpu.apic_base = value;
        return true;
    case MSR_FEATURE_CONTROL_INDEX:
    case MSR_VM_CR_INDEX:
    case MSR_VM_HSAVE_INDEX:
        return false;
    default: break;
    }
    if (index >= 0x480 && index <= 0x4ff)
        return false;
    return hv->vendor->set_msr(hv, index, value) || x86_wrmsr(hv->cpu, index, value);
}

enum hv_verdict hv_handle_rdmsr(struct hv *hv, kl_exit *exit)
{
    uint64_t value;
    uint32_t index = (uint32_t)hv->vcpu.gprs.r[RCX];
    (void)exit;
    if (!hv_get_msr(hv, index, &value)) {
        hv_inject(hv, VEC_GP, true, 0);
        return HV_RESUME;
    }
    hv_decide(hv, DECIDE_MSR, index, value);
    hv->vcpu.gprs.r[RAX] = value & 0xffffffffu;
    hv->vcpu.gprs.r[RDX] = value >> 32;
    hv_skip(hv, hv->vcpu.exit.length);
    return HV_RESUME;
}

enum hv_verdict hv_handle_wrmsr(struct hv *hv, kl_exit *exit)
{
    uint32_t index = (uint32_t)hv->vcpu.gprs.r[RCX];
    uint64_t value = (hv->vcpu.gprs.r[RAX] & 0xffffffffu) | hv->vcpu.gprs.r[RDX] << 32;
    (void)exit;
    if (!hv_set_msr(hv, index, value)) {
        hv_inject(hv, VEC_GP, true, 0);
        return HV_RESUME;
    }
    hv_decide(hv, DECIDE_MSR, index, value);
    hv_skip(hv, hv->vcpu.exit.length);
    return HV_RESUME;
}

/* ---- small things handlers do --------------------------------------------------------------------------------------------------- */

static uint64_t rip_mask(struct hv *hv)
{
    struct silicon_state s;
    if (!(hv->vcpu.efer & EFER_LMA))
        return 0xffffffffu;
    hv->vendor->get(hv, &s);
    return s.seg[CS].attr & SEG_L ? ~0ull : 0xffffffffu;
}

void hv_skip(struct hv *hv, unsigned length)
{
    if (length == 0) {
        struct hv_decoded d;
        length = emulate_decode(hv, &d) ? d.length : 0;
    }
    hv->vendor->set_rip(hv, (hv->vendor->rip(hv) + length) & rip_mask(hv));
    hv->vendor->set_shadow(hv, hv->vendor->shadow(hv) & ~(uint32_t)(BLOCK_STI | BLOCK_MOV_SS));
    uint64_t flags = hv->vendor->rflags(hv);
    if (flags & FLAG_RF) /* it covers one instruction, and this was it */
        hv->vendor->set_rflags(hv, flags & ~(uint64_t)FLAG_RF);
    hv->vcpu.step_trap = (flags & FLAG_TF) && !hv->vcpu.debug_step;
    silicon_retire(hv->cpu, 1);
}

void hv_inject(struct hv *hv, unsigned vector, bool has_error, uint32_t error)
{
    hv->vcpu.event = vector | TYPE_HARDWARE_EXCEPTION << 8 | (has_error && !is_real(hv) ? EVENT_HAS_ERROR : 0u) | EVENT_VALID;
    hv->vcpu.event_error = error;
    hv->vcpu.event_length = 0;
}

void hv_inject_page_fault(struct hv *hv, uint64_t gva, uint32_t error)
{
    hv->vcpu.cr2 = gva;
    hv_inject(hv, VEC_PF, true, error);
}

enum hv_verdict hv_unknown(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_UNKNOWN;
    hv_decide(hv, DECIDE_UNKNOWN, hv->vcpu.exit.reason, 0);
    return HV_TO_USER;
}

enum hv_verdict hv_shutdown(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_SHUTDOWN;
    hv_decide(hv, DECIDE_SHUTDOWN, 0, 0);
    silicon_emit(hv->cpu, EVENT_SHUTDOWN, 0, 0, 0, 0, 0);
    return HV_TO_USER;
}

enum hv_verdict hv_debug_stop(struct hv *hv, kl_exit *exit)
{
    hv->vcpu.resume_over = 1;
    exit->reason = KL_EXIT_DEBUG;
    hv_decide(hv, DECIDE_DEBUG, hv->vendor->rip(hv), 0);
    return HV_TO_USER;
}

/* ---- ports ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t address_mask(unsigned bytes) { return bytes == 8 ? ~0ull : bytes == 4 ? 0xffffffffu : 0xffffu; }
static uint64_t sized(uint64_t value, unsigned bytes) { return bytes == 8 ? value : value & ((1ull << 8 * bytes) - 1); }

enum { STRING_PAGES = 16 }; /* a longer string is several exits */

/* How many elements user space can have, all of their pages present. 0: the guest got its #PF or #GP. */
static uint64_t string_reach(struct hv *hv, const struct silicon_state *s, struct hv_io *io, unsigned seg, uint64_t offset)
{
    uint64_t reach = 0, mask = address_mask(io->address_size), checked = ~0ull;
    bool is_64 = (s->efer & EFER_LMA) && (s->seg[CS].attr & SEG_L);
    uint32_t access = (io->is_in ? PF_W : 0u) | ((s->cr0 & CR0_PE) && (s->seg[SS].attr & SEG_DPL) == SEG_DPL ? PF_U : 0u);
    unsigned pages = 0;
    for (; reach < io->count; reach++, offset = (io->down ? offset - io->size : offset + io->size) & mask) {
        uint64_t linear = (is_64 && seg < FS ? 0 : s->seg[seg].base) + offset;
        if (!is_64)
            linear &= 0xffffffffu;
        if (reach == 0)
            io->address = linear;
        if (!is_64 && offset + io->size - 1 > s->seg[seg].limit) {
            if (reach == 0)
                hv_inject(hv, seg == SS ? VEC_SS : VEC_GP, true, 0);
            break;
        }
        if (reach && io->address + (io->down ? -(uint64_t)io->size : io->size) * reach != linear)
            break; /* wrapped: what follows is another exit */
        for (unsigned edge = 0; edge < 2; edge++) {
            uint64_t at = linear + (edge ? io->size - 1u : 0);
            struct guest_walk walk;
            if (at >> PAGE_SHIFT == checked)
                continue;
            if (++pages > STRING_PAGES && reach)
                return reach;
            if (!mmu_walk(hv, at, access, true, &walk)) {
                if (reach == 0)
                    hv_inject_page_fault(hv, at, walk.error);
                return reach;
            }
            checked = at >> PAGE_SHIFT;
        }
    }
    return reach;
}

static enum hv_verdict string_io(struct hv *hv, const struct hv_decoded *d, kl_exit *exit)
{
    struct hv_io *io = &hv->vcpu.io;
    struct silicon_state s;
    hv_get_state(hv, &s);
    io->string = 1;
    io->down = (s.rflags & FLAG_DF) != 0;
    io->rep = d->rep != 0;
    io->count = io->rep ? s.gpr[RCX] & address_mask(io->address_size) : 1;
    if (io->count == 0) {
        hv_skip(hv, io->length);
        return HV_RESUME;
    }
    io->count = string_reach(hv, &s, io, io->is_in ? ES : d->seg, s.gpr[io->is_in ? RDI : RSI] & address_mask(io->address_size));
    if (io->count == 0)
        return HV_RESUME;
    hv->vcpu.pending = io->is_in ? PENDING_STRING_IN : PENDING_STRING_OUT;
    exit->string = 1;
    exit->down = io->down;
    exit->rep = io->rep;
    exit->count = io->count;
    exit->address = io->address;
    exit->value = io->is_in ? ~0ull : 0;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_io(struct hv *hv, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct hv_decoded d;
    if (!emulate_decode(hv, &d) || d.class != CLASS_IO)
        return hv_unknown(hv, exit); /* the code changed under the exit */
    v->io = (struct hv_io){ .count = 1, .port = d.immediate ? d.port : (uint16_t)v->gprs.r[RDX], .size = d.size, .is_in = d.is_in,
                            .length = d.length, .address_size = d.address_size };
    hv_decide(hv, DECIDE_IO, v->io.port, v->io.size);
    exit->reason = KL_EXIT_IO;
    exit->port = v->io.port;
    exit->size = v->io.size;
    exit->is_write = !d.is_in;
    exit->count = 1;
    exit->instruction_length = d.length;
    v->answered = 0;
    if (d.string)
        return string_io(hv, &d, exit);
    v->pending = d.is_in ? PENDING_IN : PENDING_OUT;
    exit->value = sized(d.is_in ? ~0ull : v->gprs.r[RAX], d.size);
    if (!d.is_in)
        silicon_emit(hv->cpu, EVENT_PORT, d.size | 1u << 8, v->io.port, exit->value, 0, 0);
    return HV_TO_USER;
}

/* Moves the string registers over what was transferred; RIP stays while elements are left. */
static void advance_string(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    const struct hv_io *io = &v->io;
    uint64_t mask = address_mask(io->address_size), *index = &v->gprs.r[io->is_in ? RDI : RSI], *count = &v->gprs.r[RCX];
    uint64_t keep = io->address_size == 2 ? ~mask : 0, distance = io->count * io->size;
    *index = (*index & keep) | ((io->down ? *index - distance : *index + distance) & mask);
    if (io->rep) {
        *count = (*count & keep) | ((*count - io->count) & mask);
        if (*count & mask)
            return;
    }
    hv_skip(hv, io->length);
}

static void fill_with_ones(struct hv *hv)
{
    const struct hv_io *io = &hv->vcpu.io;
    const uint64_t ones = ~0ull;
    for (uint64_t k = 0; k < io->count; k++)
        if (!mmu_write_linear(hv, io->address + (io->down ? -(k * io->size) : k * io->size), &ones, io->size))
            return;
}

static void complete_pending(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    enum hv_pending pending = (enum hv_pending)v->pending;
    uint64_t value = v->answered ? v->answer : ~0ull, *rax = &v->gprs.r[RAX];
    v->pending = PENDING_NONE;
    switch (pending) {
    case PENDING_IN:
        value = sized(value, v->io.size);
        *rax = v->io.size == 4 ? value : (*rax & ~((1ull << 8 * v->io.size) - 1)) | value;
        silicon_emit(hv->cpu, EVENT_PORT, v->io.size, v->io.port, value, 0, 0);
        hv_skip(hv, v->io.length);
        break;
    case PENDING_OUT:
        hv_skip(hv, v->io.length);
        break;
    case PENDING_STRING_IN:
        if (!v->answered)
            fill_with_ones(hv);
        advance_string(hv);
        break;
    case PENDING_STRING_OUT:
        advance_string(hv);
        break;
    case PENDING_CPUID: {
        uint32_t out[4];
        memcpy(out, v->answer_regs, sizeof out);
        if (!v->answered)
            silicon_guest_cpuid(hv->cpu, (uint32_t)*rax, (uint32_t)v->gprs.r[RCX], out);
        v->gprs.r[RAX] = out[0], v->gprs.r[RBX] = out[1], v->gprs.r[RCX] = out[2], v->gprs.r[RDX] = out[3];
        hv_skip(hv, v->io.length);
        break;
    }
    case PENDING_MMIO_READ:
        if (!v->answered)
            hv_complete_device(hv, ~0ull);
        break;
    case PENDING_BLOCK:
    case PENDING_NONE:
        break;
    }
}

void hv_complete_device(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (v->nr_log == HV_LOG || !v->device.size)
        return;
    v->device.value = sized(value, v->device.size);
    v->log[v->nr_log++] = v->device;
    silicon_emit(hv->cpu, EVENT_MMIO, v->device.size | (uint32_t)v->device.is_write << 8, v->device.address, v->device.value, 0, 0);
    v->device.size = 0;
}

int hv_complete(struct hv *hv, uint64_t value)
{
    struct hv_vcpu *v = &hv->vcpu;
    switch (v->pending) {
    case PENDING_STRING_IN: /* one value for all elements */
        for (uint64_t k = 0; k < v->io.count; k++)
            if (!mmu_write_linear(hv, v->io.address + (v->io.down ? -(k * v->io.size) : k * v->io.size), &value, v->io.size))
                break;
        v->answered = 1;
        return 0;
    case PENDING_IN:
    case PENDING_OUT:
    case PENDING_STRING_OUT:
        v->answer = value;
        v->answered = 1;
        return 0;
    case PENDING_MMIO_READ:
        if (!v->answered)
            hv_complete_device(hv, value);
        else
            v->log[v->nr_log - 1].value = sized(value, v->log[v->nr_log - 1].size);
        v->answered = 1;
        return 0;
    default:
        return fails(hv, KL_EINVAL, "there is no access to answer: the last stop was none, or the state was edited since");
    }
}

int hv_complete_cpuid(struct hv *hv, const uint32_t out[4])
{
    if (hv->vcpu.pending != PENDING_CPUID)
        return fails(hv, KL_EINVAL, "there is no CPUID to answer: the last stop was none, or the state was edited since");
    memcpy(hv->vcpu.answer_regs, out, sizeof hv->vcpu.answer_regs);
    hv->vcpu.answered = 1;
    return 0;
}

void hv_abandon(struct hv *hv, bool skip)
{
    bool has_instruction = hv->vcpu.pending != PENDING_NONE && hv->vcpu.pending != PENDING_MMIO_READ;
    hv->vcpu.pending = PENDING_NONE;
    hv->vcpu.device.size = 0;
    hv->vcpu.nr_log = 0;
    if (skip)
        hv_skip(hv, has_instruction ? hv->vcpu.io.length : hv->vcpu.exit.length);
}

/* The bytes of a string exit in the order of its elements. */
int64_t hv_string(struct hv *hv, void *bytes, uint64_t len, bool answer)
{
    struct hv_vcpu *v = &hv->vcpu;
    const struct hv_io *io = &v->io;
    uint8_t *at = bytes;
    if (v->pending != (answer ? PENDING_STRING_IN : PENDING_STRING_OUT))
        return -1;
    for (uint64_t k = 0; k < io->count && len >= io->size; k++, at += io->size, len -= io->size) {
        uint64_t linear = io->address + (io->down ? -(k * io->size) : k * io->size);
        if (answer ? !mmu_write_linear(hv, linear, at, io->size) : !mmu_read_linear(hv, linear, at, io->size, 0))
            break;
    }
    v->answered |= answer;
    return at - (uint8_t *)bytes;
}

/* ---- exits that both vendors have ---------------------------------------------------------------------------------------------- */

enum hv_verdict hv_handle_cpuid(struct hv *hv, kl_exit *exit)
{
    struct hv_decoded d;
    hv->vcpu.io.length = (uint8_t)hv->vcpu.exit.length;
    if (!hv->vcpu.exit.length)
        hv->vcpu.io.length = emulate_decode(hv, &d) ? d.length : 2;
    hv_decide(hv, DECIDE_CPUID, hv->vcpu.gprs.r[RAX], hv->vcpu.gprs.r[RCX]);
    hv->vcpu.pending = PENDING_CPUID;
    hv->vcpu.answered = 0;
    exit->reason = KL_EXIT_CPUID;
    exit->instruction_length = hv->vcpu.io.length;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_hlt(struct hv *hv, kl_exit *exit)
{
    hv_skip(hv, hv->vcpu.exit.length);
    silicon_emit(hv->cpu, EVENT_HALT, 0, 0, 0, 0, 0);
    hv_decide(hv, DECIDE_HLT, 0, irq_any(hv));
    if (irq_any(hv) && (hv->vendor->rflags(hv) & FLAG_IF))
        return HV_RESUME;
    exit->reason = KL_EXIT_HLT;
    return HV_TO_USER;
}

enum hv_verdict hv_handle_window(struct hv *hv, kl_exit *exit)
{
    (void)exit;
    hv->vcpu.window = 0;
    hv->vendor->set_window(hv, false);
    silicon_emit(hv->cpu, EVENT_WINDOW, 0, 0, 0, 0, 0);
    return HV_RESUME;
}

static enum hv_verdict after_emulation(struct hv *hv, enum emulated result, kl_exit *exit)
{
    switch (result) {
    case EMULATED_USER: return HV_TO_USER;
    case EMULATED_SHUTDOWN: return hv_shutdown(hv, exit);
    case EMULATED_INJECT: hv_inject(hv, VEC_GP, true, 0); return HV_RESUME;
    case EMULATED_OK: break;
    }
    return HV_RESUME;
}

enum hv_verdict hv_emulate(struct hv *hv, kl_exit *exit) { return after_emulation(hv, emulate_instruction(hv, exit), exit); }

enum hv_verdict hv_handle_page_fault(struct hv *hv, uint64_t gva, uint32_t error, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct guest_walk walk;
    bool delivering = (v->exit.vectoring & EVENT_VALID) != 0;
    switch (mmu_page_fault(hv, gva, error, &walk)) {
    case MMU_FIXED:
        return HV_RESUME;
    case MMU_GUEST_FAULT:
        v->cr2 = gva;
        hv_decide(hv, DECIDE_GUEST_FAULT, gva, walk.error);
        if (delivering && EVENT_TYPE(v->exit.vectoring) == TYPE_HARDWARE_EXCEPTION) {
            if (EVENT_VECTOR(v->exit.vectoring) == VEC_DF)
                return hv_shutdown(hv, exit);
            if (EVENT_VECTOR(v->exit.vectoring) == VEC_PF) {
                hv_inject(hv, VEC_DF, true, 0);
                return HV_RESUME;
            }
        }
        hv_inject(hv, VEC_PF, true, walk.error);
        return HV_RESUME;
    case MMU_EMULATE:
        break;
    }
    uint64_t gfn = walk.gpa >> PAGE_SHIFT;
    if (delivering) { /* no instruction stores here: an event is being delivered */
        hv_decide(hv, DECIDE_RETRY_DELIVERY, walk.gpa, v->exit.vectoring);
        if (hv_slot_at(hv, walk.gpa)) {
            shadow_zap_gfn(hv, gfn, ZAP_DELIVERY);
            return HV_RESUME;
        }
        uint32_t event = v->event;
        v->event = 0;
        return emulate_event(hv, event, v->event_error, v->event_length) ? HV_RESUME : hv_shutdown(hv, exit);
    }
    hv_decide(hv, hv_slot_at(hv, walk.gpa) ? DECIDE_TABLE_WRITE : DECIDE_MMIO, walk.gpa, error);
    return hv_emulate(hv, exit);
}

/* An exception other than #PF. Under vm86 the guest believes to be in real mode: the instruction is done, or its exception delivered,
 * by the rules of real mode. */
enum hv_verdict hv_handle_exception(struct hv *hv, unsigned vector, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (vector == VEC_DB && v->debug_enabled)
        return hv_debug_stop(hv, exit);
    if (v->vm86) {
        struct hv_decoded d = { 0 };
        bool privileged = emulate_decode(hv, &d) && d.class != CLASS_OTHER;
        struct silicon_state s;
        uint32_t why;
        hv_get_state(hv, &s);
        bool cut = !real_mode_expressible(&s, &why);
        bool to_guest = !(hv->history & HISTORY_REAL_EXCEPTIONS) && !(cut && hv->real_mode == REAL_VM86);
        if ((vector == VEC_GP && privileged) || to_guest) {
            hv_decide(hv, DECIDE_REAL_MODE, v->exit.rip, vector);
            v->event = 0;
            return hv_emulate(hv, exit);
        }
    }
    exit->reason = KL_EXIT_EXCEPTION;
    exit->exception = vector;
    exit->error_code = v->exit.interruption & EVENT_HAS_ERROR ? v->exit.interruption_error : 0;
    return HV_TO_USER;
}

/* ---- the run loop: facts 1.6 ----------------------------------------------------------------------------------------------------- */

static void set_phase(struct hv *hv, enum hv_phase phase)
{
    hv->vcpu.phase = (uint8_t)phase;
    silicon_emit(hv->cpu, EVENT_PHASE, phase, 0, 0, 0, 0);
}

static void take_over(struct hv *hv) /* the guest's registers are still in the silicon */
{
    struct hv_vcpu *v = &hv->vcpu;
    silicon_store_gprs(hv->cpu, &v->gprs);
    v->cr2 = silicon_cr2(hv->cpu);
    if (!v->debug_enabled)
        v->dr6 = x86_read_dr(hv->cpu, 6);
    hv->vendor->read_exit(hv);
    v->gprs.r[RSP] = hv->vendor->rsp(hv);
    v->hardware_reason = v->exit.reason;
}

/* While the guest is in the processor, what it may have changed without an exit is there. */
void hv_sync(struct hv *hv)
{
    struct silicon_state s;
    if (hv->vcpu.phase != PHASE_ENTERED)
        return;
    hv_get_state(hv, &s);
    hv->vcpu.cr0 = s.cr0;
    hv->vcpu.cr4 = s.cr4;
    hv->vcpu.cr2 = s.cr2;
}

/* Attributes of pages are not part of a snapshot: they follow from the state. */
void hv_restored(struct hv *hv)
{
    for (unsigned k = 0; k < HV_SLOTS; k++) {
        const struct hv_slot *slot = &hv->slot[k];
        for (uint64_t gpa = slot->gpa; gpa - slot->gpa < slot->size; gpa += PAGE_SIZE) {
            frame_t frame = space_frame(hv->guest, gpa, true);
            if (frame == NO_FRAME)
                continue;
            memory_clear_attr(hv->memory, frame, PAGE_TABLE | PAGE_LOGGED);
            if (slot->flags & 1)
                memory_set_attr(hv->memory, frame, PAGE_LOGGED);
        }
    }
    for (unsigned k = 0; k < SHADOW_PAGES; k++) {
        const struct shadow_page *p = &hv->mmu.page[k];
        frame_t frame = p->in_use && !(p->role & ROLE_METAPHYSICAL) ? space_frame(hv->guest, p->gfn << PAGE_SHIFT, true) : NO_FRAME;
        if (frame != NO_FRAME)
            memory_set_attr(hv->memory, frame, PAGE_TABLE);
    }
}

void hv_come_out(struct hv *hv)
{
    if (hv->vcpu.phase != PHASE_ENTERED)
        return;
    silicon_kick(hv->cpu);
    take_over(hv);
    set_phase(hv, PHASE_HANDLED);
}

static void load_debug_registers(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t dr7 = v->dr7;
    for (unsigned k = 0; k < 4; k++)
        x86_mov_dr(hv->cpu, k, v->debug_enabled ? v->debug_address[k] : v->dr[k]);
    if (v->debug_enabled) {
        dr7 = 0x600;
        for (unsigned k = 0; k < 4; k++)
            if (v->debug_bits >> k & 1)
                dr7 |= 2u << 2 * k; /* execution, global */
    } else {
        x86_mov_dr(hv->cpu, 6, v->dr6);
    }
    hv->vendor->set_dr7(hv, dr7);
    if (v->debug_step)
        hv->vendor->set_rflags(hv, hv->vendor->rflags(hv) | FLAG_TF | FLAG_RF);
    else if (v->resume_over)
        hv->vendor->set_rflags(hv, hv->vendor->rflags(hv) | FLAG_RF);
    v->resume_over = 0;
}

/* True: the guest was emulated instead, *verdict says what next. */
static bool emulate_instead(struct hv *hv, uint64_t budget, kl_exit *exit, enum hv_verdict *verdict)
{
    struct silicon_state s;
    uint32_t why;
    if (!hv->vcpu.vm86 || hv->real_mode == REAL_VM86)
        return false;
    hv_get_state(hv, &s);
    if (real_mode_expressible(&s, &why)) {
        if (hv->real_mode != REAL_EMULATE)
            return false;
        why = WHY_ALWAYS;
    }
    if (hv->real_mode == REAL_USER) {
        exit->reason = KL_EXIT_REAL_MODE;
        hv->vcpu.pending = PENDING_BLOCK;
        *verdict = HV_TO_USER;
        return true;
    }
    *verdict = emulate_block(hv, budget, exit, why);
    return true;
}

static enum hv_entered enter(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    mmu_load_roots(hv);
    load_debug_registers(hv);
    silicon_set_cr2(hv->cpu, v->cr2);
    v->gprs.r[RSP] = hv->vendor->rsp(hv);
    return hv->vendor->enter(hv);
}

static void describe(struct hv *hv, kl_exit *exit)
{
    struct silicon_state s;
    hv_get_state(hv, &s);
    exit->rip = s.rip;
    exit->instructions = silicon_time(hv->cpu);
    exit->sequence = silicon_trace(hv->cpu)->sequence;
}

static int returns(struct hv *hv, kl_exit *exit, uint32_t reason)
{
    exit->reason = reason;
    describe(hv, exit);
    return 0;
}

static int to_user(struct hv *hv, kl_exit *exit)
{
    const struct hv_exit *e = &hv->vcpu.exit;
    set_phase(hv, PHASE_USER);
    exit->hardware_reason = hv->vcpu.hardware_reason;
    exit->qualification = e->qualification;
    exit->info2 = e->info2;
    if (!exit->instruction_length)
        exit->instruction_length = e->length;
    silicon_emit(hv->cpu, EVENT_USER_EXIT, exit->reason, 0, 0, 0, 0);
    describe(hv, exit);
    return 0;
}

static int refused(struct hv *hv, kl_exit *exit)
{
    exit->reason = KL_EXIT_FAIL_ENTRY;
    exit->entry_error = hv->vcpu.exit.reason;
    exit->failed_check = silicon_entry_check(hv->cpu);
    hv->vcpu.hardware_reason = hv->vcpu.exit.reason;
    return to_user(hv, exit);
}

enum { CYCLES_WITHOUT_PROGRESS = 1 << 16 };

static bool no_progress(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    uint64_t now = silicon_time(hv->cpu);
    v->bad_cycles = now == v->last_time ? v->bad_cycles + 1 : 0;
    v->last_time = now;
    if (v->bad_cycles < CYCLES_WITHOUT_PROGRESS)
        return false;
    v->bad_cycles = 0;
    return true;
}

static void begin(struct hv *hv)
{
    struct hv_vcpu *v = &hv->vcpu;
    if (v->phase != PHASE_USER)
        return;
    silicon_emit(hv->cpu, EVENT_USER_ENTER, 0, 0, 0, 0, 0);
    complete_pending(hv);
    set_phase(hv, PHASE_PRE_ENTRY);
}

int hv_run(struct hv *hv, const kl_run_args *args, kl_exit *exit)
{
    struct hv_vcpu *v = &hv->vcpu;
    struct trace *trace = silicon_trace(hv->cpu);
    if (!v->created)
        return fails(hv, KL_EINVAL, "there is no virtual processor yet: create it after memory slot 0");
    uint64_t started = silicon_time(hv->cpu);
    uint64_t end = started + args->max_instructions < started ? ~0ull : started + args->max_instructions;
    begin(hv);
    for (bool first = true;; first = false) {
        if (trace->stopped_by) {
            exit->event_kind = trace->stopped_by - 1;
            exit->phase = v->phase;
            return returns(hv, exit, KL_EXIT_EVENT);
        }
        if (args->step_phase && !first) {
            exit->event_kind = EVENT_PHASE;
            exit->phase = v->phase;
            return returns(hv, exit, KL_EXIT_EVENT);
        }
        uint64_t now = silicon_time(hv->cpu);
        if (now >= end)
            return returns(hv, exit, KL_EXIT_LIMIT);
        switch (v->phase) {
        case PHASE_USER:
        case PHASE_PRE_ENTRY: {
            enum hv_verdict verdict;
            if (silicon_requested(hv->cpu)) {
                silicon_take_request(hv->cpu);
                return returns(hv, exit, KL_EXIT_STOPPED);
            }
            if (no_progress(hv)) {
                exit->no_progress = 1;
                return returns(hv, exit, KL_EXIT_LIMIT);
            }
            if (!irq_before_entry(hv)) {
                v->hardware_reason = ~0u;
                (void)hv_shutdown(hv, exit);
                return to_user(hv, exit);
            }
            if (emulate_instead(hv, end - now, exit, &verdict)) {
                v->hardware_reason = ~0u;
                v->exit = (struct hv_exit){ 0 };
                if (verdict == HV_TO_USER)
                    return to_user(hv, exit);
                break;
            }
            switch (enter(hv)) {
            case HV_ENTERED: set_phase(hv, PHASE_ENTERED); break;
            case HV_EXITED: take_over(hv); set_phase(hv, PHASE_EXITED); break;
            case HV_REFUSED: return refused(hv, exit);
            }
            break;
        }
        case PHASE_ENTERED:
            switch (silicon_run(hv->cpu, end - now)) {
            case SILICON_EXIT: take_over(hv); set_phase(hv, PHASE_EXITED); break;
            case SILICON_REQUEST:
                if (trace->stopped_by)
                    break;
                return returns(hv, exit, KL_EXIT_STOPPED);
            case SILICON_WORK:
                if (silicon_time(hv->cpu) != now)
                    break;
                exit->no_progress = 1;
                return returns(hv, exit, KL_EXIT_LIMIT);
            case SILICON_SHUTDOWN: /* a VMX abort: the machine is gone */
                return returns(hv, exit, KL_EXIT_SHUTDOWN);
            default: break;
            }
            break;
        case PHASE_EXITED: {
            uint64_t before = silicon_time(hv->cpu);
            irq_after_exit(hv);
            enum hv_verdict verdict = hv->vendor->handle(hv, exit);
            if (verdict == HV_RESUME && v->debug_step && silicon_time(hv->cpu) != before)
                verdict = hv_debug_stop(hv, exit);
            if (verdict == HV_TO_USER)
                return to_user(hv, exit);
            set_phase(hv, PHASE_HANDLED);
            break;
        }
        case PHASE_HANDLED:
            set_phase(hv, PHASE_PRE_ENTRY);
            break;
        }
    }
}
