/* Control registers, EFER, debug registers, model-specific registers and CPUID: what a value may be,
 * and what changes with it.
 *
 * SDM vol. 3A 2.5 (control registers), 9.8.5 (entering long mode), vol. 3B 17.2, vol. 4, vol. 2A CPUID;
 * APM vol. 2 ch. 3. Which bits exist stands in cpuid.def and msr.def. */
#include "access.h"
#include "flags.h"
#include "virt.h"

static bool refuse(struct cpu *cpu) { return raise_error(cpu, VEC_GP, 0); }

/* ---- control registers ---------------------------------------------------------------------------- */

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR4_RELOADS_PDPTES (CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP)
#define CR4_FLUSHES (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_LA57)

/* Turning paging on with EFER.LME enters long mode: SDM vol. 3A 9.8.5. */
static bool may_enter_long_mode(const struct cpu *cpu)
{
    unsigned tr_type = cpu->seg[TR].attr & SEG_TYPE;
    return (cpu->cr4 & CR4_PAE) && !(cpu->seg[CS].attr & SEG_L) && tr_type != 1 && tr_type != 3;
}

bool write_cr0(struct cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->cr0, efer = cpu->msr[MSR_EFER];
    if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return refuse(cpu);
    if (cpu->vmx.on && !vmx_cr_fixed(cpu, 0, value))
        return refuse(cpu);
    value = (value & CR0_DEFINED) | CR0_ET;
    uint64_t changed = old ^ value;
    if (changed & value & CR0_PG) {
        if (efer & EFER_LME ? !may_enter_long_mode(cpu) : (cpu->cr4 & CR4_PAE) && !load_pdptes(cpu, cpu->cr3))
            return refuse(cpu);
    } else if ((changed & CR0_PG) && (is_64bit(cpu) || (cpu->cr4 & CR4_PCIDE))) {
        return refuse(cpu);
    }
    cpu->cr0 = value;
    if (changed & CR0_PG)
        cpu->msr[MSR_EFER] = (efer & ~(uint64_t)EFER_LMA) | (efer & EFER_LME && value & CR0_PG ? EFER_LMA : 0u);
    emit(cpu, EVENT_CR_WRITE, 0, old, value, 0, 0);
    if (changed & (CR0_PG | CR0_PE))
        tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
    return true;
}

bool write_cr3(struct cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->cr3;
    if (is_long_active(cpu)) {
        if (value >> cpu->profile->physical_bits)
            return refuse(cpu);
    } else {
        value &= 0xffffffff;
        if ((cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !load_pdptes(cpu, value))
            return refuse(cpu);
    }
    cpu->cr3 = value;
    emit(cpu, EVENT_CR_WRITE, 3, old, value, 0, 0);
    tlb_flush(cpu, false);
    return true;
}

uint64_t cr4_defined(const struct cpu *cpu)
{
    static const struct { uint32_t bits; uint16_t feature; } known[] = {
        { CR4_VME | CR4_PVI, FEATURE_VME }, { CR4_TSD, FEATURE_TSC }, { CR4_DE, FEATURE_DE }, { CR4_PSE, FEATURE_PSE },
        { CR4_PAE, FEATURE_PAE }, { CR4_MCE, FEATURE_MCE }, { CR4_PGE, FEATURE_PGE }, { CR4_PCE, FEATURE_P6 },
        { CR4_OSFXSR, FEATURE_FXSR }, { CR4_OSXMMEXCPT, FEATURE_SSE }, { CR4_UMIP, FEATURE_UMIP },
        { CR4_LA57, FEATURE_LA57 }, { CR4_VMXE, FEATURE_VMX }, { CR4_FSGSBASE, FEATURE_FSGSBASE },
        { CR4_PCIDE, FEATURE_PCID }, { CR4_OSXSAVE, FEATURE_XSAVE }, { CR4_SMEP, FEATURE_SMEP },
        { CR4_SMAP, FEATURE_SMAP }, { CR4_PKE, FEATURE_PKU },
    };
    uint64_t defined = 0;
    for (unsigned k = 0; k < sizeof known / sizeof *known; k++)
        if (cpu_has(cpu, (enum feature)known[k].feature))
            defined |= known[k].bits;
    return defined;
}

bool write_cr4(struct cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->cr4, changed = old ^ value;
    bool is_long = is_long_active(cpu);
    if (value & ~cr4_defined(cpu))
        return refuse(cpu);
    if (is_long && (!(value & CR4_PAE) || (changed & CR4_LA57)))
        return refuse(cpu);
    if ((changed & value & CR4_PCIDE) && (!is_long || (cpu->cr3 & 0xfff)))
        return refuse(cpu);
    if (cpu->vmx.on && !vmx_cr_fixed(cpu, 4, value))
        return refuse(cpu);
    if ((cpu->cr0 & CR0_PG) && !is_long && (value & CR4_PAE) && (changed & CR4_RELOADS_PDPTES) &&
        !load_pdptes(cpu, cpu->cr3))
        return refuse(cpu);
    cpu->cr4 = value;
    emit(cpu, EVENT_CR_WRITE, 4, old, value, 0, 0);
    if (changed & CR4_FLUSHES)
        tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
    return true;
}

bool write_cr8(struct cpu *cpu, uint64_t value)
{
    if (value & ~15ull)
        return refuse(cpu);
    emit(cpu, EVENT_CR_WRITE, 8, cpu->cr8, value, 0, 0);
    cpu->cr8 = value;
    cpu_update_attention(cpu);
    return true;
}

uint64_t efer_defined(const struct cpu *cpu)
{
    uint64_t defined = EFER_SCE;
    defined |= cpu_has(cpu, FEATURE_LM) ? EFER_LME | EFER_LMA : 0u;
    defined |= cpu_has(cpu, FEATURE_NX) ? EFER_NXE : 0u;
    defined |= cpu_has(cpu, FEATURE_SVM) && !(cpu->msr[MSR_VM_CR] & VM_CR_SVMDIS) ? EFER_SVME : 0u;
    defined |= cpu_has(cpu, FEATURE_FFXSR) ? EFER_FFXSR : 0u;
    return defined;
}

bool write_efer(struct cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->msr[MSR_EFER];
    if ((value & ~efer_defined(cpu)) || (((value ^ old) & EFER_LME) && (cpu->cr0 & CR0_PG)))
        return refuse(cpu);
    value = (value & ~(uint64_t)EFER_LMA) | (old & EFER_LMA); /* LMA is the processor's */
    cpu->msr[MSR_EFER] = value;
    if ((value ^ old) & EFER_NXE)
        tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
    return true;
}

/* ---- flags ------------------------------------------------------------------------------------------ */

#define FLAGS_DEFINED (FLAGS_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | \
                       FLAG_VIF | FLAG_VIP | FLAG_ID)

uint64_t get_rflags(const struct cpu *cpu)
{
    return (cpu->rflags & ~(uint64_t)FLAGS_STATUS) | status_flags(cpu);
}

void set_rflags(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = cpu->rflags ^ value;
    cpu->rflags = (value & FLAGS_DEFINED & ~(uint64_t)FLAGS_STATUS) | FLAG_1;
    set_status_flags(cpu, (uint32_t)value);
    if (changed & FLAG_VM)
        cpu_segments_changed(cpu);
    if (changed & FLAG_AC) /* SMAP and alignment checks look at it */
        front_flush(cpu);
    cpu_update_attention(cpu);
}

/* ---- debug registers ----------------------------------------------------------------------------------- */

bool write_dr(struct cpu *cpu, unsigned number, uint64_t value)
{
    if (number >= 6 && value >> 32)
        return refuse(cpu);
    if (number == 6)
        value = (value & (DR6_B0 * 15u | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED1;
    else if (number == 7)
        value = (value & 0xffff23ff) | DR7_FIXED1;
    cpu->dr[number] = value;
    front_flush(cpu); /* a page with a data breakpoint may not stay in it */
    cpu_update_attention(cpu);
    return true;
}

/* ---- model-specific registers ------------------------------------------------------------------------------ */

enum msr_storage { MSR_STORED, MSR_IS_EFER, MSR_IS_FS_BASE, MSR_IS_GS_BASE, MSR_IS_TSC };
#define STORAGE_STORED MSR_STORED
#define STORAGE_EFER MSR_IS_EFER
#define STORAGE_FS_BASE MSR_IS_FS_BASE
#define STORAGE_GS_BASE MSR_IS_GS_BASE
#define STORAGE_TSC MSR_IS_TSC
enum msr_kind { KIND_GP, KIND_IGNORE, KIND_RO, KIND_CANONICAL, KIND_TYPES, KIND_TYPE, KIND_SPECIAL };

static const struct msr_row {
    uint64_t writable;
    uint32_t index;
    uint16_t feature;
    uint8_t storage, kind;
} msr_rows[] = {
#define MSR(index_, NAME, storage_, feature_, reset, writable_, kind_, summary)                         \
    [MSR_##NAME] = { .index = index_, .storage = STORAGE_##storage_, .feature = FEATURE_##feature_,     \
                     .writable = writable_, .kind = KIND_##kind_ },
#include "msr.def"
#undef MSR
};

/* The row of an MSR that this processor has; NR_MSRS: none. */
static unsigned find_msr(const struct cpu *cpu, uint32_t index)
{
    for (unsigned slot = 0; slot < NR_MSRS; slot++)
        if (msr_rows[slot].index == index && cpu_has(cpu, (enum feature)msr_rows[slot].feature))
            return slot;
    return NR_MSRS;
}

static uint64_t time_now(const struct cpu *cpu)
{
    return cpu->current ? insn_time(cpu, cpu->current) : cpu->retired;
}

/* Time is the count of retired instructions. */
uint64_t read_tsc(const struct cpu *cpu)
{
    return cpu->tsc_base + time_now(cpu) + (cpu->world == WORLD_PLAIN ? 0 : guest_tsc_offset(cpu));
}

bool read_msr(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    unsigned slot = find_msr(cpu, index);
    if (slot == NR_MSRS) /* not in the table: computed from the table of VMX controls */
        return vmx_capability_msr(cpu, index, value) || refuse(cpu);
    switch ((enum msr_storage)msr_rows[slot].storage) {
    case MSR_IS_FS_BASE: *value = cpu->seg[FS].base; break;
    case MSR_IS_GS_BASE: *value = cpu->seg[GS].base; break;
    case MSR_IS_TSC: *value = read_tsc(cpu); break;
    default: *value = cpu->msr[slot];
    }
    return true;
}

/* UC, WC, WT, WP, WB are 0, 1, 4, 5, 6; the PAT has UC- as 7 besides: SDM vol. 3A 11.11, 11.12. */
static bool is_memory_type(unsigned type, bool in_pat) { return type < 2 || (type >= 4 && type <= (in_pat ? 7u : 6u)); }

static bool are_memory_types(uint64_t value, bool in_pat)
{
    for (unsigned k = 0; k < 64; k += 8)
        if (!is_memory_type(value >> k & 0xff, in_pat))
            return false;
    return true;
}

/* VM_CR: with LOCK set, LOCK and SVMDIS keep their values: APM vol. 2, 15.30.1. */
static uint64_t vm_cr_written(uint64_t old, uint64_t value)
{
    uint64_t kept = old & VM_CR_LOCK ? VM_CR_LOCK | VM_CR_SVMDIS : 0u;
    return (old & kept) | (value & ~kept);
}

static bool check_msr(const struct cpu *cpu, unsigned slot, uint64_t value)
{
    const struct msr_row *row = &msr_rows[slot];
    switch ((enum msr_kind)row->kind) {
    case KIND_RO: return false;
    case KIND_IGNORE: return true;
    case KIND_CANONICAL: return is_canonical(cpu, value);
    case KIND_TYPES: return are_memory_types(value, false);
    case KIND_TYPE: return is_memory_type(value & 0xff, false) && !(value & ~row->writable);
    case KIND_SPECIAL: return slot == MSR_PAT ? are_memory_types(value, true) : !(value & ~row->writable);
    default: return !(value & ~row->writable);
    }
}

static void set_base(struct cpu *cpu, enum seg seg, uint64_t base)
{
    cpu->seg[seg].base = base;
    cpu_update_view(cpu, seg);
}

bool write_msr(struct cpu *cpu, uint32_t index, uint64_t value)
{
    unsigned slot = find_msr(cpu, index);
    if (slot == NR_MSRS || !check_msr(cpu, slot, value))
        return refuse(cpu);
    switch ((enum msr_storage)msr_rows[slot].storage) {
    case MSR_IS_EFER: return write_efer(cpu, value);
    case MSR_IS_FS_BASE: set_base(cpu, FS, value); break;
    case MSR_IS_GS_BASE: set_base(cpu, GS, value); break;
    case MSR_IS_TSC: cpu->tsc_base = value - time_now(cpu); break;
    default: cpu->msr[slot] = slot == MSR_VM_CR ? vm_cr_written(cpu->msr[slot], value) : value & msr_rows[slot].writable;
    }
    return true;
}

/* ---- CPUID ----------------------------------------------------------------------------------------------- */

enum { EAX, EBX, ECX, EDX };

static const struct feature_bit { uint32_t leaf; uint16_t feature; uint8_t reg, bit; } feature_bits[] = {
#define FEATURE(NAME, leaf_, subleaf, reg_, bit_, virtualised, summary) \
    { .leaf = leaf_, .reg = reg_, .bit = bit_, .feature = FEATURE_##NAME },
#include "cpuid.def"
};
#define NR_FEATURE_BITS (sizeof feature_bits / sizeof *feature_bits)

static bool leaf_has_features(const struct cpu *cpu, uint32_t leaf)
{
    for (unsigned k = 0; k < NR_FEATURE_BITS; k++)
        if (feature_bits[k].leaf == leaf && cpu_has(cpu, (enum feature)feature_bits[k].feature))
            return true;
    return false;
}

static void put_features(const struct cpu *cpu, uint32_t leaf, uint32_t out[4])
{
    for (unsigned k = 0; k < NR_FEATURE_BITS; k++)
        if (feature_bits[k].leaf == leaf && cpu_has(cpu, (enum feature)feature_bits[k].feature))
            out[feature_bits[k].reg] |= 1u << feature_bits[k].bit;
}

static void put_vendor(const struct cpu *cpu, uint32_t out[4])
{
    const char *vendor = cpu->profile->vendor == VENDOR_INTEL ? "GenuineIntel" : "AuthenticAMD";
    memcpy(&out[EBX], vendor, 4);
    memcpy(&out[EDX], vendor + 4, 4);
    memcpy(&out[ECX], vendor + 8, 4);
}

/* The brand string: 48 bytes, padded with zeros, in three leaves. */
static void put_brand(const struct cpu *cpu, unsigned part, uint32_t out[4])
{
    char text[48] = { 0 };
    for (unsigned k = 0; k < sizeof text - 1 && cpu->profile->brand[k]; k++)
        text[k] = cpu->profile->brand[k];
    memcpy(out, text + 16 * part, 16);
}

static uint32_t max_basic_leaf(const struct cpu *cpu)
{
    return leaf_has_features(cpu, 7) ? 7 : cpu_has(cpu, FEATURE_MONITOR) ? 5 : cpu_behaves(cpu, BEHAVIOUR_CPUID_LEAF2) ? 2 : 1;
}

static uint32_t max_extended_leaf(const struct cpu *cpu)
{
    return cpu_has(cpu, FEATURE_SVM) ? 0x8000000a : 0x80000008;
}

#define AMD_ALIASES 0x0183f3ffu /* bits of leaf 1 EDX that AMD repeats in leaf 80000001 */
#define CLFLUSH_BYTES 64u

static void put_leaf_1(const struct cpu *cpu, uint32_t out[4])
{
    out[EAX] = cpu->profile->signature;
    out[EBX] = cpu_has(cpu, FEATURE_CLFLUSH) ? CLFLUSH_BYTES / 8 << 8 : 0;
    put_features(cpu, 1, out);
    if (cpu->cr4 & CR4_OSXSAVE)
        out[ECX] |= 1u << 27;
    if (!(cpu->msr[MSR_APIC_BASE] & APIC_BASE_ENABLE))
        out[EDX] &= ~(1u << 9);
}

static void put_leaf_80000001(const struct cpu *cpu, uint32_t out[4])
{
    uint32_t basic[4] = { 0 };
    put_features(cpu, 0x80000001, out);
    if (cpu_behaves(cpu, BEHAVIOUR_CPUID_AMD_ALIASES)) {
        out[EAX] = cpu->profile->signature;
        put_leaf_1(cpu, basic);
        out[EDX] |= basic[EDX] & AMD_ALIASES;
    }
    if (cpu_behaves(cpu, BEHAVIOUR_SYSCALL_LONG_ONLY) && !is_64bit(cpu))
        out[EDX] &= ~(1u << 11);
}

/* Leaves that this model has no story for (caches, power) are zero: it has no caches and saves no power. */
void cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    bool is_basic = !(leaf >> 31);
    memset(out, 0, 4 * sizeof *out);
    if (is_basic ? leaf > max_basic_leaf(cpu) : leaf > max_extended_leaf(cpu)) {
        if (!cpu_behaves(cpu, BEHAVIOUR_CPUID_HIGHEST_BASIC))
            return;
        leaf = max_basic_leaf(cpu);
    }
    switch (leaf) {
    case 0:
        out[EAX] = max_basic_leaf(cpu);
        put_vendor(cpu, out);
        break;
    case 1: put_leaf_1(cpu, out); break;
    case 2: out[EAX] = cpu_behaves(cpu, BEHAVIOUR_CPUID_LEAF2) ? 1 : 0; break; /* read once; no descriptor */
    case 5:
        if (cpu_has(cpu, FEATURE_MONITOR))
            out[EAX] = out[EBX] = CLFLUSH_BYTES; /* the monitored line */
        break;
    case 7:
        if (subleaf == 0)
            put_features(cpu, 7, out);
        break;
    case 0x80000000:
        out[EAX] = max_extended_leaf(cpu);
        if (cpu_behaves(cpu, BEHAVIOUR_CPUID_AMD_ALIASES))
            put_vendor(cpu, out);
        break;
    case 0x80000001: put_leaf_80000001(cpu, out); break;
    case 0x80000002: case 0x80000003: case 0x80000004: put_brand(cpu, leaf - 0x80000002, out); break;
    case 0x80000008: out[EAX] = cpu->profile->physical_bits | (uint32_t)cpu->profile->linear_bits << 8; break;
    case 0x8000000a:
        out[EAX] = 1; /* revision */
        out[EBX] = SVM_NR_ASIDS;
        put_features(cpu, leaf, out);
        break;
    default: break;
    }
}
