/* The virtual processor: what the guest believes, what the silicon must hold for it, control registers and MSRs (facts 1.5). */
#include "hv.h"

#include <string.h>

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
    uint64_t hidden = silicon_cr4_defined(hv->cpu) & ~silicon_guest_cr4(hv->cpu), own4 = hv->vendor->cr4_guest_owned & ~hidden;
    s->cr4 = (v->cr4 & ~own4) | (s->cr4 & own4);
    s->cr3 = v->cr3;
    s->efer = v->efer;
    s->dr7 = v->dr7;
}

void hv_get_state(struct hv *hv, struct silicon_state *s)
{
    struct hv_vcpu *v = &hv->vcpu;
    memset(s, 0, sizeof *s);
    if (v->block_done) {
        *s = v->block;
        return;
    }
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
        return hv_fails(hv, KL_EEXIST, "the virtual processor exists already");
    if (real_mode_is_vm86(hv) && hv->slot[0].size < 3 * PAGE_SIZE)
        return hv_fails(hv, KL_EINVAL, "memory slot 0 must exist and have three pages: real mode keeps its TSS in its last three");
    hv->vcpu.created = 1;
    return hv_reset(hv);
}

int hv_reset(struct hv *hv)
{
    uint8_t created = hv->vcpu.created;
    hv_come_out(hv);
    if (!created)
        return hv_fails(hv, KL_EINVAL, "there is no virtual processor yet");
    shadow_drop_roots(hv);
    hv->vcpu = (struct hv_vcpu){ .created = created };
    if (!hv->vendor->vcpu_setup(hv))
        return hv_fails(hv, KL_ENOMEM, "the processor refused the control structure");
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
    if (hv->vcpu.phase == PHASE_ENTERED) /* the guest's own are in the silicon */
        return x86_rdmsr(hv->cpu, index, value);
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
