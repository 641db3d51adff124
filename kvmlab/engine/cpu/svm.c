/* SVM: the life of a guest on AMD's processors, and the instructions that lead it.
 *
 * APM vol. 2 ch. 15, "Secure Virtual Machine", and appendix B (the VMCB). svm_enter goes through the steps of 15.5.1 in
 * their order, svm_exit is the one way out; the rules of VMRUN stand in the middle, one per row of svm_check.def. The
 * VMCB is ordinary memory: both work on its page. What exits is decided in intercept.c. */
#include <string.h>

#include "access.h"
#include "flags.h"
#include "virt.h"

/* ---- the VMCB as bytes ----------------------------------------------------------------------- */

#define IS_CONTROL 0
#define IS_SAVE 1
#define BY_VMRUN 0
#define BY_VMLOAD 1
const struct vmcb_row vmcb_rows[NR_VMCB_FIELDS] = {
#define VMCB_FIELD(offset, size, name, area, moved_by, since, meaning) \
    { #name, meaning, offset, size, IS_##area, BY_##moved_by, since },
#include "vmcb.def"
};

#define VMCB_BYTES 0x6e8u /* up to the last field */
struct vmcb_image {
    uint64_t pa;
    frame_t frame;
    bool asked;               /* the door knows that the page is being written */
    uint8_t *byte;            /* the page itself, or `none` where no RAM is */
    uint8_t none[VMCB_BYTES];
};

static void image_open(const struct cpu *cpu, uint64_t pa, struct vmcb_image *image)
{
    image->pa = pa;
    image->asked = false;
    image->frame = space_frame(cpu->space, pa, true);
    if (LIKELY(image->frame != NO_FRAME)) {
        image->byte = memory_host(cpu->space->memory, image->frame) + (pa & (PAGE_SIZE - 1));
        return;
    }
    image->byte = image->none;
    space_read(cpu->space, pa, image->none, sizeof image->none);
}

ALWAYS_INLINE unsigned field_bytes(enum vmcb_slot row) { return vmcb_rows[row].bytes > 8 ? 8 : vmcb_rows[row].bytes; }

ALWAYS_INLINE uint64_t get(const struct vmcb_image *image, enum vmcb_slot row)
{
    uint64_t value = 0;
    memcpy(&value, image->byte + vmcb_rows[row].offset, field_bytes(row));
    return value;
}

static NOINLINE void change(struct cpu *cpu, struct vmcb_image *image, enum vmcb_slot row, uint64_t old, uint64_t value)
{
    if (!image->asked && image->frame != NO_FRAME)
        page_will_write(cpu->space->memory, image->frame, 0, VMCB_BYTES);
    image->asked = true;
    memcpy(image->byte + vmcb_rows[row].offset, &value, field_bytes(row));
    emit(cpu, EVENT_FIELD_WRITE, vmcb_rows[row].offset, old, value, image->pa, 0);
}

ALWAYS_INLINE void set(struct cpu *cpu, struct vmcb_image *image, enum vmcb_slot row, uint64_t value)
{
    uint64_t old = get(image, row);
    if (field_bytes(row) < 8)
        value &= (1ull << field_bytes(row) * 8) - 1;
    if (old != value)
        change(cpu, image, row, old, value);
}
#define GET(image, name) get(image, VMCB_ROW_##name)
#define SET(image, name, value) set(cpu, image, VMCB_ROW_##name, value)

uint64_t vmcb_read(const struct cpu *cpu, uint64_t vmcb, unsigned row)
{
    uint64_t value = 0;
    space_read(cpu->space, vmcb + vmcb_rows[row].offset, &value, vmcb_rows[row].bytes > 8 ? 8 : vmcb_rows[row].bytes);
    return value;
}

void vmcb_write(struct cpu *cpu, uint64_t vmcb, unsigned row, uint64_t value)
{
    unsigned bytes = vmcb_rows[row].bytes > 8 ? 8 : vmcb_rows[row].bytes;
    uint64_t old = vmcb_read(cpu, vmcb, row);
    if (bytes < 8)
        value &= (1ull << bytes * 8) - 1;
    if (old == value)
        return;
    space_write(cpu->space, vmcb + vmcb_rows[row].offset, &value, bytes);
    emit(cpu, EVENT_FIELD_WRITE, vmcb_rows[row].offset, old, value, vmcb, 0);
}

/* ---- segments: the VMCB packs the flags nibble behind the rights byte ------------------------ */

/* First row of a segment: selector, attrib, limit, base; the VMCB's order has GDTR and IDTR in between. */
static unsigned segment_row(enum seg seg)
{
    static const uint8_t place[NR_SEGS] = {
        [ES] = 0, [CS] = 1, [SS] = 2, [DS] = 3, [FS] = 4, [GS] = 5, [LDTR] = 7, [TR] = 9
    };
    return VMCB_ROW_es_selector + 4u * place[seg];
}

static uint64_t sign_extended(const struct cpu *cpu, uint64_t linear)
{
    unsigned unused = 64u - cpu->profile->linear_bits;
    return (uint64_t)((int64_t)(linear << unused) >> unused);
}

struct vmcb_segment { uint16_t selector, attrib; uint32_t limit; uint64_t base; };
static struct vmcb_segment segment_at(const struct vmcb_image *image, enum seg seg)
{
    struct vmcb_segment s;
    memcpy(&s, image->byte + vmcb_rows[segment_row(seg)].offset, sizeof s);
    return s;
}

static void load_from(struct cpu *cpu, const struct vmcb_image *image, enum seg seg)
{
    struct vmcb_segment s = segment_at(image, seg);
    uint32_t attr = (s.attrib & 0xffu) | (s.attrib & 0xf00u) << 4;
    if (seg != CS && !(attr & SEG_P))
        attr |= SEG_UNUSABLE;
    cpu->seg[seg] = (struct segment){
        .selector = s.selector, .attr = attr, .limit = s.limit, .base = sign_extended(cpu, s.base)
    };
}

static void save_to(struct cpu *cpu, struct vmcb_image *image, enum seg seg)
{
    const struct segment *s = &cpu->seg[seg];
    uint32_t rights = s->attr & SEG_UNUSABLE ? s->attr & 0xffu & ~(uint32_t)SEG_P : s->attr & 0xff;
    struct vmcb_segment was = segment_at(image, seg),
                        now = { s->selector, (uint16_t)(rights | (s->attr >> 4 & 0xf00)), s->limit, s->base };
    unsigned row = segment_row(seg);
    if (memcmp(&was, &now, sizeof was) == 0)
        return;
    set(cpu, image, (enum vmcb_slot)row, now.selector);
    set(cpu, image, (enum vmcb_slot)(row + 1), now.attrib);
    set(cpu, image, (enum vmcb_slot)(row + 2), now.limit);
    set(cpu, image, (enum vmcb_slot)(row + 3), now.base);
}

/* ---- the rules of VMRUN: APM vol. 2, 15.5.1 "Canonicalization and Consistency Checks" -------- */

struct checker {
    struct cpu *cpu;
    const struct vmcb_image *vmcb;
};
#define V(name) GET(c->vmcb, name)
#define RULE(name, applies, holds)                                                             \
    static enum verdict rule_##name(const struct checker *c)                                   \
    {                                                                                          \
        return !(applies) ? VERDICT_NOT_APPLICABLE : (holds) ? VERDICT_HOLDS : VERDICT_FAILS;  \
    }
#define ALWAYS (void)c, true

static bool intercepts(const struct checker *c, unsigned bit) { return c->vmcb->byte[bit / 8] >> bit % 8 & 1; }
static bool in_physical_space(const struct checker *c, uint64_t address, uint64_t bytes)
{
    uint64_t last = (address & PAGE_MASK) + bytes - 1;
    return last >= bytes - 1 && !(last >> c->cpu->profile->physical_bits);
}
static bool nested(const struct checker *c) { return cpu_has(c->cpu, FEATURE_NPT) && (V(nested_ctl) & VMCB_NP_ENABLE); }
static bool long_guest(const struct checker *c) { return (V(efer) & EFER_LME) && (V(cr0) & CR0_PG); }
static bool pae_guest(const struct checker *c) { return (V(cr0) & CR0_PG) && (V(cr4) & CR4_PAE) && !long_guest(c); }
static bool pdptes_ok(const struct checker *c)
{
    uint64_t pdpte[4], reserved = 0x1e6 | ~((1ull << c->cpu->profile->physical_bits) - 1);
    space_read(c->cpu->space, V(cr3) & 0xffffffe0u, pdpte, sizeof pdpte);
    for (unsigned n = 0; n < 4; n++)
        if ((pdpte[n] & 1) && (pdpte[n] & reserved))
            return false;
    return true;
}
static bool tlb_control_ok(const struct checker *c)
{
    uint64_t control = V(tlb_control);
    return control <= 1 || (cpu_has(c->cpu, FEATURE_FLUSH_ASID) && (control == 3 || control == 7));
}
static bool memory_types_ok(uint64_t pat)
{
    for (unsigned byte = 0; byte < 8; byte++)
        if ((pat >> byte * 8 & 0xff) > 7 || (pat >> byte * 8 & 0xfe) == 2)
            return false;
    return true;
}
static bool injecting(const struct checker *c) { return (V(event_inj) & EVENT_VALID) != 0; }
static bool injecting_exception(const struct checker *c)
{
    return injecting(c) && EVENT_TYPE(V(event_inj)) == TYPE_HARDWARE_EXCEPTION;
}
static bool injection_type_ok(const struct checker *c)
{
    unsigned type = EVENT_TYPE(V(event_inj));
    return type == TYPE_EXTERNAL || (type >= TYPE_NMI && type <= TYPE_SOFTWARE_INTERRUPT);
}
#define ATTRIB_L (1u << 9)
#define ATTRIB_DB (1u << 10)

RULE(SVM_CTL_01, ALWAYS, intercepts(c, SVM_EXIT_VMRUN))
RULE(SVM_CTL_02, ALWAYS, V(guest_asid) != 0)
RULE(SVM_CTL_03, ALWAYS, V(guest_asid) < SVM_NR_ASIDS)
RULE(SVM_CTL_04, intercepts(c, SVM_EXIT_IO), in_physical_space(c, V(iopm_base_pa), 0x3000))
RULE(SVM_CTL_05, intercepts(c, SVM_EXIT_MSR), in_physical_space(c, V(msrpm_base_pa), 0x2000))
RULE(SVM_CTL_06, nested(c), !(V(nested_cr3) >> c->cpu->profile->physical_bits))
RULE(SVM_CTL_07, nested(c), memory_types_ok(V(g_pat)))
RULE(SVM_CTL_08, nested(c), c->cpu->cr0 & CR0_PG)
RULE(SVM_CTL_09, ALWAYS, tlb_control_ok(c))
RULE(SVM_STATE_01, ALWAYS, V(efer) & EFER_SVME)
RULE(SVM_STATE_02, ALWAYS, !(V(efer) & ~(efer_defined(c->cpu) | EFER_SVME)))
RULE(SVM_STATE_03, V(efer) & (EFER_LMA | EFER_LME), cpu_has(c->cpu, FEATURE_LM))
RULE(SVM_STATE_05, ALWAYS, (V(cr0) & CR0_CD) || !(V(cr0) & CR0_NW))
RULE(SVM_STATE_06, ALWAYS, !(V(cr0) >> 32))
RULE(SVM_STATE_07, long_guest(c), !(V(cr3) >> c->cpu->profile->physical_bits))
RULE(SVM_STATE_08, ALWAYS, !(V(cr4) & ~cr4_defined(c->cpu)))
RULE(SVM_STATE_09, ALWAYS, !(V(dr6) >> 32))
RULE(SVM_STATE_10, ALWAYS, !(V(dr7) >> 32))
RULE(SVM_STATE_11, long_guest(c), V(cr4) & CR4_PAE)
RULE(SVM_STATE_12, long_guest(c), V(cr0) & CR0_PE)
RULE(SVM_STATE_13, long_guest(c) && (V(cr4) & CR4_PAE),
     (V(cs_attrib) & (ATTRIB_L | ATTRIB_DB)) != (ATTRIB_L | ATTRIB_DB))
RULE(SVM_STATE_16, pae_guest(c) && !nested(c), pdptes_ok(c))
RULE(SVM_EVT_01, injecting(c), injection_type_ok(c))
RULE(SVM_EVT_02, injecting_exception(c), EVENT_VECTOR(V(event_inj)) < 32 && EVENT_VECTOR(V(event_inj)) != VEC_NMI)
RULE(SVM_EVT_03, injecting_exception(c) && long_guest(c) && (V(cs_attrib) & ATTRIB_L),
     EVENT_VECTOR(V(event_inj)) != VEC_OF && EVENT_VECTOR(V(event_inj)) != VEC_BR)
RULE(SVM_EVT_04, injecting(c), !(V(event_inj) & 0x7ffff000))

typedef enum verdict rule_function(const struct checker *c);
#define RULE_OF_SVM_V1(failure, name) RULE_OF_##failure(name)
#define RULE_OF_SVM_V2(failure, name) RULE_OF_##failure(name)
#define RULE_OF_SVM_NONE(failure, name) NULL
#define RULE_OF_SVM_NOTE(failure, name) NULL
#define RULE_OF_INSTRUCTION(name) NULL /* in the handlers below */
#define RULE_OF_INVALID(name) rule_##name
static const struct rule { rule_function *rule; uint8_t since; uint16_t field; } rules[] = {
#define SVM_CHECK(name, id, area, since, failure, field, applies, rule)                                                \
    { RULE_OF_##since(failure, name), since, VMCB_ROW_##field },
#include "svm_check.def"
};
#define NR_RULES (sizeof rules / sizeof rules[0])

static unsigned svm_generation(const struct cpu *cpu) { return cpu_has(cpu, FEATURE_NPT) ? SVM_V2 : SVM_V1; }
static bool is_here(const struct cpu *cpu, const struct rule *rule)
{
    return rule->rule && rule->since <= svm_generation(cpu);
}

static unsigned first_failing(struct cpu *cpu, const struct vmcb_image *vmcb)
{
    const struct checker c = { cpu, vmcb };
    for (unsigned n = 0; n < NR_RULES; n++)
        if (is_here(cpu, &rules[n]) && rules[n].rule(&c) == VERDICT_FAILS)
            return n + 1;
    return CHECK_NO_SVM_RULE;
}

void svm_check_all(struct cpu *cpu, uint64_t pa, struct check_verdict *verdict)
{
    struct vmcb_image vmcb;
    image_open(cpu, pa, &vmcb);
    const struct checker c = { cpu, &vmcb };
    for (unsigned n = 0; n < NR_RULES; n++) {
        memset(&verdict[n], 0, sizeof verdict[n]);
        verdict[n].verdict = (uint8_t)(is_here(cpu, &rules[n]) ? rules[n].rule(&c) : VERDICT_NOT_HERE);
        verdict[n].field = rules[n].field;
        verdict[n].value = rules[n].field < NR_VMCB_FIELDS ? get(&vmcb, (enum vmcb_slot)rules[n].field) : 0;
    }
}

/* ---- the host's state, in the page that VM_HSAVE_PA names: laid out like a save area --------- */

static void save_host(struct cpu *cpu, uint64_t rip)
{
    struct vmcb_image host;
    image_open(cpu, cpu->svm.hsave, &host);
    for (enum seg seg = ES; seg <= DS; seg++)
        save_to(cpu, &host, seg);
    SET(&host, gdtr_base, cpu->gdtr.base);
    SET(&host, gdtr_limit, cpu->gdtr.limit);
    SET(&host, idtr_base, cpu->idtr.base);
    SET(&host, idtr_limit, cpu->idtr.limit);
    SET(&host, efer, cpu->msr[MSR_EFER]);
    SET(&host, cr0, cpu->cr0);
    SET(&host, cr3, cpu->cr3);
    SET(&host, cr4, cpu->cr4);
    SET(&host, rflags, get_rflags(cpu));
    SET(&host, rip, rip);
    SET(&host, rsp, cpu->r[RSP]);
    SET(&host, rax, cpu->r[RAX]);
}

static bool load_host(struct cpu *cpu)
{
    struct vmcb_image host;
    image_open(cpu, cpu->svm.hsave, &host);
    for (enum seg seg = ES; seg <= DS; seg++)
        load_from(cpu, &host, seg);
    cpu->gdtr = (struct table_register){ .base = GET(&host, gdtr_base), .limit = (uint16_t)GET(&host, gdtr_limit) };
    cpu->idtr = (struct table_register){ .base = GET(&host, idtr_base), .limit = (uint16_t)GET(&host, idtr_limit) };
    cpu->msr[MSR_EFER] = GET(&host, efer);
    cpu->cr0 = GET(&host, cr0) | CR0_PE;
    cpu->cr3 = GET(&host, cr3);
    cpu->cr4 = GET(&host, cr4);
    cpu->dr[7] = DR7_FIXED1;
    cpu->r[REG_RIP] = GET(&host, rip);
    cpu->r[RSP] = GET(&host, rsp);
    cpu->r[RAX] = GET(&host, rax);
    cpu->cpl = 0;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->interruptibility &= BLOCK_NMI;
    cpu->pending_db = 0;
    cpu->delivering = 0;
    cpu->world = WORLD_PLAIN;
    cpu->asid = 0;
    cpu->svm.gif = 0;
    set_rflags(cpu, GET(&host, rflags) & ~(uint64_t)FLAG_VM);
    bool pae = (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !is_long_active(cpu);
    return !pae || load_pdptes(cpu, cpu->cr3);
}

/* ---- #VMEXIT: APM vol. 2, 15.6 --------------------------------------------------------------- */

static bool to_host(struct cpu *cpu)
{
    bool ok = load_host(cpu);
    cpu_mode_changed(cpu);
    cpu->work++;
    if (!ok) { /* illegal host state found while leaving the guest: shutdown */
        cpu->leave = LEAVE_NONE;
        enter_shutdown(cpu);
        return false;
    }
    cpu->leave = LEAVE_EXIT;
    return false;
}

#define DR6_DEFINED 0xffffffffu
static void save_guest(struct cpu *cpu, struct vmcb_image *vmcb, uint64_t rip)
{
    for (enum seg seg = ES; seg <= DS; seg++)
        save_to(cpu, vmcb, seg);
    SET(vmcb, gdtr_base, cpu->gdtr.base);
    SET(vmcb, gdtr_limit, cpu->gdtr.limit);
    SET(vmcb, idtr_base, cpu->idtr.base);
    SET(vmcb, idtr_limit, cpu->idtr.limit);
    SET(vmcb, cpl, cpu->cpl);
    SET(vmcb, efer, cpu->msr[MSR_EFER]);
    SET(vmcb, cr0, cpu->cr0);
    SET(vmcb, cr2, cpu->cr2);
    SET(vmcb, cr3, cpu->cr3);
    SET(vmcb, cr4, cpu->cr4);
    SET(vmcb, dr6, cpu->dr[6] & DR6_DEFINED);
    SET(vmcb, dr7, cpu->dr[7]);
    SET(vmcb, rflags, get_rflags(cpu) | (cpu->rep_partial ? FLAG_RF : 0));
    SET(vmcb, rip, rip);
    SET(vmcb, rsp, cpu->r[RSP]);
    SET(vmcb, rax, cpu->r[RAX]);
    SET(vmcb, int_state, cpu->interruptibility & (BLOCK_STI | BLOCK_MOV_SS) ? VMCB_INT_SHADOW : 0);
    uint32_t int_ctl = (uint32_t)GET(vmcb, int_ctl) & ~(uint32_t)(VMCB_V_IRQ | 0xff);
    SET(vmcb, int_ctl, int_ctl | (cpu->svm.v_irq ? VMCB_V_IRQ : 0u) | cpu->svm.v_tpr);
}

bool svm_exit(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2)
{
    struct vmcb_image vmcb;
    bool by_instruction = cpu->current != NULL && !cpu->delivering;
    uint64_t rip = cpu->current ? insn_rip(cpu, cpu->current) : cpu->r[REG_RIP];
    if (!is_64bit(cpu))
        rip &= 0xffffffffu;
    image_open(cpu, cpu->svm.vmcb, &vmcb);

    /* 1. why */
    const struct fault *event = &cpu->event;
    bool during = cpu->delivering && code != SVM_EXIT_SHUTDOWN;
    uint32_t vectoring = !during ? 0 : event->vector | EVENT_VALID | (event->has_error ? EVENT_HAS_ERROR : 0u) |
                         (uint32_t)(event->type > TYPE_SOFTWARE_INTERRUPT ? TYPE_HARDWARE_EXCEPTION : event->type) << 8;
    emit(cpu, EVENT_EXIT, (uint32_t)code, info1, info2, 0, vectoring);
    SET(&vmcb, exit_code, code);
    SET(&vmcb, exit_info_1, info1);
    SET(&vmcb, exit_info_2, info2);
    SET(&vmcb, exit_int_info, vectoring);
    if (vectoring & EVENT_HAS_ERROR)
        SET(&vmcb, exit_int_info_error, event->error);
    SET(&vmcb, event_inj, GET(&vmcb, event_inj) & ~(uint64_t)EVENT_VALID);
    if (cpu_has(cpu, FEATURE_NRIPS))
        SET(&vmcb, next_rip, by_instruction ? rip + cpu->current->len : 0);

    /* 2. the guest's state */
    save_guest(cpu, &vmcb, rip);

    /* 3. the host's */
    return to_host(cpu);
}

/* VMRUN refused the VMCB: no guest state is saved. */
static bool invalid_exit(struct cpu *cpu, unsigned failed)
{
    struct vmcb_image vmcb;
    image_open(cpu, cpu->svm.vmcb, &vmcb);
    cpu->svm.entry_failed = failed;
    emit(cpu, EVENT_ENTRY, failed, GET(&vmcb, rip), GET(&vmcb, event_inj), cpu->svm.vmcb, 0);
    emit(cpu, EVENT_EXIT, UINT32_MAX, 0, 0, 0, 0);
    SET(&vmcb, exit_code, SVM_EXIT_INVALID);
    SET(&vmcb, exit_info_1, 0);
    SET(&vmcb, exit_info_2, 0);
    SET(&vmcb, exit_int_info, 0);
    return to_host(cpu);
}

/* ---- VMRUN: APM vol. 2, 15.5 ----------------------------------------------------------------- */

static void load_controls(struct cpu *cpu, const struct vmcb_image *vmcb)
{
    struct svm_state *svm = &cpu->svm;
    memcpy(svm->intercepts, vmcb->byte, sizeof svm->intercepts);
    svm->iopm = GET(vmcb, iopm_base_pa) & PAGE_MASK;
    svm->msrpm = GET(vmcb, msrpm_base_pa) & PAGE_MASK;
    svm->tsc_offset = GET(vmcb, tsc_offset);
    svm->nested_cr3 = cpu_has(cpu, FEATURE_NPT) && (GET(vmcb, nested_ctl) & VMCB_NP_ENABLE) ? GET(vmcb, nested_cr3) : 0;
    svm->asid = (uint32_t)GET(vmcb, guest_asid);
    svm->int_ctl = (uint32_t)GET(vmcb, int_ctl);
    svm->v_tpr = svm->int_ctl & 0xff;
    svm->v_irq = (svm->int_ctl & VMCB_V_IRQ) != 0;
    svm->v_prio = svm->int_ctl >> 16 & 15;
    svm->v_ign_tpr = (svm->int_ctl & VMCB_V_IGN_TPR) != 0;
    svm->v_intr_masking = (svm->int_ctl & VMCB_V_INTR_MASKING) != 0;
    svm->v_vector = (uint8_t)GET(vmcb, int_vector);
}

static void load_guest(struct cpu *cpu, const struct vmcb_image *vmcb)
{
    for (enum seg seg = ES; seg <= DS; seg++)
        load_from(cpu, vmcb, seg);
    cpu->gdtr = (struct table_register){ .base = sign_extended(cpu, GET(vmcb, gdtr_base)),
                                         .limit = (uint16_t)GET(vmcb, gdtr_limit) };
    cpu->idtr = (struct table_register){ .base = sign_extended(cpu, GET(vmcb, idtr_base)),
                                         .limit = (uint16_t)GET(vmcb, idtr_limit) };
    cpu->cr0 = GET(vmcb, cr0) | CR0_ET;
    cpu->cr2 = GET(vmcb, cr2);
    cpu->cr3 = GET(vmcb, cr3);
    cpu->cr4 = GET(vmcb, cr4);
    uint64_t efer = GET(vmcb, efer) & ~(uint64_t)EFER_LMA;
    cpu->msr[MSR_EFER] = efer | ((efer & EFER_LME) && (cpu->cr0 & CR0_PG) ? EFER_LMA : 0);
    cpu->dr[6] = GET(vmcb, dr6) | DR6_FIXED1;
    cpu->dr[7] = (GET(vmcb, dr7) & 0xffff2fffu) | DR7_FIXED1;
    cpu->r[REG_RIP] = GET(vmcb, rip);
    cpu->r[RSP] = GET(vmcb, rsp);
    cpu->r[RAX] = GET(vmcb, rax);
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->interruptibility = (uint8_t)((cpu->interruptibility & BLOCK_NMI) |
                                      (GET(vmcb, int_state) & VMCB_INT_SHADOW ? BLOCK_STI : 0));
    cpu->pending_db = 0;
    set_rflags(cpu, (GET(vmcb, rflags) & 0x3f7fd7u) | FLAG_1);
    cpu->cpl = (uint8_t)(GET(vmcb, cpl) & 3);
    if (is_real(cpu))
        cpu->cpl = 0;
    else if (is_vm86(cpu))
        cpu->cpl = 3;
    if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !is_long_active(cpu) && !load_pdptes(cpu, cpu->cr3))
        memset(cpu->pdpte, 0, sizeof cpu->pdpte); /* cannot be: SVM-STATE-16 has looked at them */
}

static void phase(struct cpu *cpu, enum entry_phase phase, unsigned failed)
{
    emit(cpu, EVENT_ENTRY_PHASE, phase, failed, 0, 0, 0);
}

/* False: its delivery ended in a #VMEXIT. */
static bool inject(struct cpu *cpu, const struct vmcb_image *vmcb)
{
    uint32_t info = (uint32_t)GET(vmcb, event_inj);
    if (!(info & EVENT_VALID))
        return true;
    struct fault event = { .vector = (uint8_t)EVENT_VECTOR(info), .type = (uint8_t)EVENT_TYPE(info),
                           .has_error = (info & EVENT_HAS_ERROR) != 0, .error = (uint32_t)GET(vmcb, event_inj_error) };
    /* A software interrupt returns to the RIP of the VMCB, or to next_rip: RIP stands there already for us
     * (SVM-EVT-07). */
    if (event.type == TYPE_SOFTWARE_INTERRUPT && cpu_has(cpu, FEATURE_NRIPS))
        cpu->r[REG_RIP] = GET(vmcb, next_rip);
    if (event.type == TYPE_NMI)
        cpu->interruptibility |= BLOCK_NMI;
    cpu->interruptibility &= (uint8_t)~(BLOCK_STI | BLOCK_MOV_SS);
    emit(cpu, EVENT_ENTRY_PHASE, PHASE_INJECT, 0, info, 0, 0);
    cpu->work++;
    return deliver_event(cpu, &event);
}

/* host_rip: where the host goes on. False: a #VMEXIT has happened. */
static bool svm_enter(struct cpu *cpu, uint64_t pa, uint64_t host_rip)
{
    struct vmcb_image vmcb;
    cpu->svm.entry_failed = CHECK_NO_SVM_RULE;
    cpu->svm.vmcb = pa;
    cpu->svm.hsave = cpu->msr[MSR_VM_HSAVE_PA];
    phase(cpu, PHASE_BASIC, 0);

    /* 1. the host's state to its save area, before anything of the guest is looked at */
    cpu->svm.host_if = (cpu->rflags & FLAG_IF) != 0;
    save_host(cpu, host_rip);
    phase(cpu, PHASE_SAVE_HOST, 0);

    /* 2. consistency checks */
    image_open(cpu, pa, &vmcb);
    unsigned failed = first_failing(cpu, &vmcb);
    phase(cpu, PHASE_CONTROLS, failed < CHECK_SVM_STATE_01 ? failed : 0);
    if (!failed || failed >= CHECK_SVM_STATE_01)
        phase(cpu, PHASE_GUEST, failed);
    if (failed)
        return invalid_exit(cpu, failed);

    /* 3. controls and guest state; GIF = 1 */
    load_controls(cpu, &vmcb);
    load_guest(cpu, &vmcb);
    cpu->world = WORLD_SVM_GUEST;
    cpu->svm.gif = 1;
    cpu->asid = (uint16_t)cpu->svm.asid;
    phase(cpu, PHASE_LOAD, 0);
    if (GET(&vmcb, tlb_control))
        tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
    phase(cpu, PHASE_TLB, 0);
    emit(cpu, EVENT_ENTRY, 0, cpu->r[REG_RIP], GET(&vmcb, event_inj), pa, 0);

    /* 4. event injection */
    const struct insn *entering = cpu->current;
    cpu->current = NULL;
    bool in_guest = inject(cpu, &vmcb);
    cpu->current = entering;
    cpu_update_attention(cpu);
    return in_guest;
}

/* ---- the instructions as functions ----------------------------------------------------------- */

static bool is_vmcb_address(const struct cpu *cpu, uint64_t pa)
{
    return !(pa & (PAGE_SIZE - 1)) && !(pa >> cpu->profile->physical_bits);
}

/* #UD and #GP of every SVM instruction. */
static bool svm_permitted(struct cpu *cpu)
{
    if (!(cpu->msr[MSR_EFER] & EFER_SVME) || !is_protected(cpu))
        return raise_exception(cpu, VEC_UD);
    return cpu->cpl == 0 || raise_error(cpu, VEC_GP, 0);
}
static bool vmcb_permitted(struct cpu *cpu, uint64_t pa)
{
    return svm_permitted(cpu) && (is_vmcb_address(cpu, pa) || raise_error(cpu, VEC_GP, 0));
}

enum svm_result svm_vmrun(struct cpu *cpu, uint64_t pa, const struct guest_gprs *gprs)
{
    if (!vmcb_permitted(cpu, pa))
        return SVM_FAULT;
    if (gprs)
        load_guest_gprs(cpu, gprs);
    if (svm_enter(cpu, pa, cpu->r[REG_RIP]))
        return SVM_ENTERED;
    cpu->leave = LEAVE_NONE; /* the caller hears of it right here */
    return SVM_EXITED;
}

static const struct { uint16_t row, msr;
} vmload_msrs[] = {
    { VMCB_ROW_star, MSR_STAR },
    { VMCB_ROW_lstar, MSR_LSTAR },
    { VMCB_ROW_cstar, MSR_CSTAR },
    { VMCB_ROW_sfmask, MSR_FMASK },
    { VMCB_ROW_kernel_gs_base, MSR_KERNEL_GS_BASE },
    { VMCB_ROW_sysenter_cs, MSR_SYSENTER_CS },
    { VMCB_ROW_sysenter_esp, MSR_SYSENTER_ESP },
    { VMCB_ROW_sysenter_eip, MSR_SYSENTER_EIP },
};
#define NR_VMLOAD_MSRS (sizeof vmload_msrs / sizeof vmload_msrs[0])
static const enum seg vmload_segments[] = { FS, GS, TR, LDTR };

enum svm_result svm_vmload(struct cpu *cpu, uint64_t pa)
{
    struct vmcb_image vmcb;
    if (!vmcb_permitted(cpu, pa))
        return SVM_FAULT;
    image_open(cpu, pa, &vmcb);
    for (unsigned n = 0; n < 4; n++)
        load_from(cpu, &vmcb, vmload_segments[n]);
    cpu_update_view(cpu, FS);
    cpu_update_view(cpu, GS);
    for (unsigned n = 0; n < NR_VMLOAD_MSRS; n++)
        cpu->msr[vmload_msrs[n].msr] = get(&vmcb, (enum vmcb_slot)vmload_msrs[n].row);
    return SVM_DONE;
}

enum svm_result svm_vmsave(struct cpu *cpu, uint64_t pa)
{
    struct vmcb_image vmcb;
    if (!vmcb_permitted(cpu, pa))
        return SVM_FAULT;
    image_open(cpu, pa, &vmcb);
    for (unsigned n = 0; n < 4; n++)
        save_to(cpu, &vmcb, vmload_segments[n]);
    for (unsigned n = 0; n < NR_VMLOAD_MSRS; n++)
        set(cpu, &vmcb, (enum vmcb_slot)vmload_msrs[n].row, cpu->msr[vmload_msrs[n].msr]);
    return SVM_DONE;
}

static enum svm_result set_gif(struct cpu *cpu, bool gif)
{
    if (!svm_permitted(cpu))
        return SVM_FAULT;
    cpu->svm.gif = gif;
    cpu_update_attention(cpu);
    return SVM_DONE;
}
enum svm_result svm_stgi(struct cpu *cpu) { return set_gif(cpu, true); }
enum svm_result svm_clgi(struct cpu *cpu) { return set_gif(cpu, false); }

enum svm_result svm_invlpga(struct cpu *cpu, uint64_t linear, uint32_t asid)
{
    if (!svm_permitted(cpu))
        return SVM_FAULT;
    uint16_t own = cpu->asid;
    cpu->asid = (uint16_t)asid;
    tlb_flush_page(cpu, linear);
    cpu->asid = own;
    return SVM_DONE;
}

/* ---- the instructions ------------------------------------------------------------------------ */

/* Exceptions that need no operand come first, then the intercept, then the rest. */
static bool ready(struct cpu *cpu, const struct insn *i)
{
    return svm_permitted(cpu) && (cpu->world == WORLD_PLAIN || intercept_insn(cpu, i));
}
static uint64_t rax_address(const struct cpu *cpu, const struct insn *i)
{
    return cpu->r[RAX] << i->ashift >> i->ashift;
}

OP(op_vmrun)
{
    uint64_t pa = rax_address(cpu, i);
    if (!ready(cpu, i) || !vmcb_permitted(cpu, pa))
        return false;
    if (svm_enter(cpu, pa, insn_next_rip(cpu, i)))
        cpu->leave = LEAVE_JUMP;
    return false;
}
OP(op_vmload) { return ready(cpu, i) && svm_vmload(cpu, rax_address(cpu, i)) == SVM_DONE; }
OP(op_vmsave) { return ready(cpu, i) && svm_vmsave(cpu, rax_address(cpu, i)) == SVM_DONE; }
OP(op_stgi) { return ready(cpu, i) && svm_stgi(cpu) == SVM_DONE; }
OP(op_clgi) { return ready(cpu, i) && svm_clgi(cpu) == SVM_DONE; }
OP(op_invlpga) { return ready(cpu, i) && svm_invlpga(cpu, rax_address(cpu, i), (uint32_t)cpu->r[RCX]) == SVM_DONE; }
/* Without the feature there is nothing to start, but a guest's attempt can be intercepted. */
OP(op_skinit) { return ready(cpu, i) && raise_exception(cpu, VEC_UD); }
/* VMMCALL is there to be intercepted, at any CPL; without the intercept there is nobody to call. */
OP(op_vmmcall)
{
    if (cpu->world == WORLD_SVM_GUEST && !intercept_insn(cpu, i))
        return false;
    return raise_exception(cpu, VEC_UD);
}
