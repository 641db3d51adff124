/* What VMX offers on this processor: which controls may and must be set, which values CR0 and CR4 may hold.
 *
 * SDM vol. 3D appendix A, "VMX Capability Reporting Facility". Everything is computed from vmx_control.def and the
 * profile's generation; there is no second table. */
#include "virt.h"

unsigned vmx_generation(const struct cpu *cpu)
{
    if (!cpu_has(cpu, FEATURE_VMX))
        return 0;
    return cpu_behaves(cpu, BEHAVIOUR_VMX_SECOND_GENERATION) ? VMX_V2 : VMX_V1;
}

static const struct control_row { uint8_t group, bit, since, default1; } control_rows[NR_VMX_CONTROLS] = {
#define VMX_CONTROL(group, bit, name, since, default1, printed, effect) { VMX_GROUP_##group, bit, since, default1 },
#include "vmx_control.def"
};
static const struct group_row { uint32_t msr, true_msr, default1; } group_rows[NR_VMX_GROUPS] = {
#define VMX_CONTROL_GROUP(group, field, msr, true_msr, default1) [VMX_GROUP_##group] = { msr, true_msr, default1 },
#include "vmx_control.def"
};

bool vmx_control_allowed(const struct cpu *cpu, enum vmx_control_row row)
{
    return row == CONTROL_ALWAYS || (row != CONTROL_NEVER && control_rows[row].since <= vmx_generation(cpu));
}

/* The named default1 controls: a processor with TRUE MSRs can clear these. */
static uint64_t clearable(enum vmx_control_group group)
{
    uint64_t bits = 0;
    for (unsigned row = 0; row < NR_VMX_CONTROLS; row++)
        if (control_rows[row].group == group && control_rows[row].default1)
            bits |= 1ull << control_rows[row].bit;
    return bits;
}

uint64_t vmx_allowed0(const struct cpu *cpu, enum vmx_control_group group)
{
    uint64_t fixed = group_rows[group].default1;
    return vmx_generation(cpu) >= VMX_V2 && group_rows[group].true_msr ? fixed & ~clearable(group) : fixed;
}

uint64_t vmx_allowed1(const struct cpu *cpu, enum vmx_control_group group)
{
    uint64_t bits = group_rows[group].default1;
    for (unsigned row = 0; row < NR_VMX_CONTROLS; row++)
        if (control_rows[row].group == group && vmx_control_allowed(cpu, (enum vmx_control_row)row))
            bits |= 1ull << control_rows[row].bit;
    return bits;
}

#define CR0_FIXED0 (CR0_PE | CR0_NE | (uint64_t)CR0_PG)
#define CR0_FIXED1 0xffffffffull
#define CR4_FIXED0 CR4_VMXE

static bool control_msr(const struct cpu *cpu, uint32_t index, uint64_t *value)
{
    for (unsigned n = 0; n < NR_VMX_GROUPS; n++) {
        enum vmx_control_group group = (enum vmx_control_group)n;
        uint64_t may = vmx_allowed1(cpu, group);
        if (!may || (index != group_rows[n].msr && (index != group_rows[n].true_msr || vmx_generation(cpu) < VMX_V2)))
            continue;
        uint64_t must = index == group_rows[n].true_msr ? vmx_allowed0(cpu, group) : group_rows[n].default1;
        *value = must | may << 32;
        return true;
    }
    return false;
}

bool vmx_capability_msr(const struct cpu *cpu, uint32_t index, uint64_t *value)
{
    bool second = vmx_generation(cpu) >= VMX_V2;
    if (!vmx_generation(cpu))
        return false;
    switch (index) {
    case 0x480: /* IA32_VMX_BASIC: revision, region size, write-back, INS/OUTS information, TRUE MSRs */
        *value = VMCS_REVISION | (uint64_t)PAGE_SIZE << 32 | 6ull << 50 | 1ull << 54 | (uint64_t)second << 55;
        return true;
    case 0x485: /* IA32_VMX_MISC: HLT, shutdown, wait-for-SIPI; four CR3 targets; with unrestricted guest exits store
                   EFER.LMA */
        *value = 7 << 6 | 4 << 16 | (uint64_t)second << 5;
        return true;
    case 0x486: *value = CR0_FIXED0; return true;
    case 0x487: *value = CR0_FIXED1; return true;
    case 0x488: *value = CR4_FIXED0; return true;
    case 0x489: *value = cr4_defined(cpu); return true;
    case 0x48a: /* IA32_VMX_VMCS_ENUM: the highest index */
        *value = 0x2e;
        return true;
    case 0x48c: /* IA32_VMX_EPT_VPID_CAP: four levels, UC and WB, 2 MB pages, INVEPT, INVVPID */
        *value = 1 << 6 | 1 << 8 | 1 << 14 | 1 << 16 | 1 << 20 | 3 << 25 | 1ull << 32 | 0xfull << 40;
        return second;
    default:
        return control_msr(cpu, index, value);
    }
}

bool vmx_cr_fixed(const struct cpu *cpu, unsigned cr, uint64_t value)
{
    if (cr == 0)
        return (value & CR0_FIXED0) == CR0_FIXED0 && !(value & ~CR0_FIXED1);
    return (value & CR4_FIXED0) == CR4_FIXED0 && !(value & ~cr4_defined(cpu));
}
