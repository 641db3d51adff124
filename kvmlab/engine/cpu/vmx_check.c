/* The rules of VM entry, one definition per row of vmx_check.def.
 *
 * SDM vol. 3C, "VM Entries": "Checks on VMX Controls and Host-State Area", "Checks on the Guest State Area". A rule is
 * RULE(name, applies, holds): where `applies` is false the rule says nothing. Both speak about the current VMCS,
 * V(field), and the processor, c->cpu. The rows' order is the order of checking; vmx_enter stops at the first that
 * fails, vmx_check_all evaluates every one. Rules that only processors with other features have are in the table but
 * have no definition. */
#include <string.h>

#include "virt.h"

struct checker {
    struct cpu *cpu;
    uint16_t field; /* the field found wrong: a rule about several sets it, else the row's own */
};

#define V(name) (c->cpu->vmx.field[FIELD_##name])
#define RULE(name, applies, holds)                                                                             \
    static enum verdict rule_##name(struct checker *c)                                                         \
    {                                                                                                          \
        return !(applies) ? VERDICT_NOT_APPLICABLE : (holds) ? VERDICT_HOLDS : VERDICT_FAILS;                  \
    }
#define ALWAYS (void)c, true

/* ---- words of the rules ---------------------------------------------------------------------- */

static bool allowed(struct checker *c, enum vmx_control_group group, uint64_t value)
{
    return !(vmx_allowed0(c->cpu, group) & ~value) && !(value & ~vmx_allowed1(c->cpu, group));
}
static bool pin(const struct checker *c, uint32_t bits) { return (V(pin_based_controls) & bits) != 0; }
static bool primary(const struct checker *c, uint32_t bits) { return (V(primary_proc_based_controls) & bits) != 0; }
static bool secondary(const struct checker *c, uint32_t bits)
{
    return primary(c, VMX_PRI_ACTIVATE_SECONDARY_CONTROLS) && (V(secondary_proc_based_controls) & bits) != 0;
}
static bool on_exit(const struct checker *c, uint32_t bits) { return (V(vm_exit_controls) & bits) != 0; }
static bool on_entry(const struct checker *c, uint32_t bits) { return (V(vm_entry_controls) & bits) != 0; }

static bool physical(const struct checker *c, uint64_t address, uint64_t alignment)
{
    return !(address & (alignment - 1)) && !(address >> c->cpu->profile->physical_bits);
}
static bool canonical(const struct checker *c, uint64_t linear)
{
    unsigned unused = 64u - c->cpu->profile->linear_bits;
    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}
/* Bits 63:N identical, where N is the linear-address width: one bit less than canonical. */
static bool upper_bits_identical(const struct checker *c, uint64_t linear)
{
    uint64_t upper = linear >> c->cpu->profile->linear_bits;
    return !upper || upper == UINT64_MAX >> c->cpu->profile->linear_bits;
}
static bool last_byte_physical(const struct checker *c, uint64_t address, uint64_t count)
{
    uint64_t last = address + count * 16 - 1;
    return last >= address && !(last >> c->cpu->profile->physical_bits);
}
static bool memory_types(uint64_t pat)
{
    for (unsigned byte = 0; byte < 8; byte++) {
        unsigned type = pat >> byte * 8 & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}
static bool long_host(const struct checker *c) { return on_exit(c, VMX_EXIT_HOST_ADDRESS_SPACE_SIZE); }
static bool long_guest(const struct checker *c) { return on_entry(c, VMX_ENTRY_IA_32E_MODE_GUEST); }
static bool unrestricted(const struct checker *c) { return secondary(c, VMX_SEC_UNRESTRICTED_GUEST); }
static bool vm86(const struct checker *c) { return (V(guest_rflags) & FLAG_VM) != 0; }
static bool in_ia32e_mode(const struct checker *c) { return (c->cpu->msr[MSR_EFER] & EFER_LMA) != 0; }

/* The event to inject. */
static uint32_t injection(const struct checker *c) { return (uint32_t)V(vm_entry_interruption_info); }
static bool injecting(const struct checker *c) { return (injection(c) & EVENT_VALID) != 0; }
static bool injecting_type(const struct checker *c, unsigned type)
{
    return injecting(c) && EVENT_TYPE(injection(c)) == type;
}
#define TYPE_RESERVED 1
#define TYPE_OTHER_EVENT 7
static bool vector_has_error(unsigned vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}
static bool error_code_flag_right(const struct checker *c)
{
    bool has = (injection(c) & EVENT_HAS_ERROR) != 0;
    bool wants = EVENT_TYPE(injection(c)) == TYPE_HARDWARE_EXCEPTION && vector_has_error(EVENT_VECTOR(injection(c))) &&
                 (!unrestricted(c) || (V(guest_cr0) & CR0_PE));
    return has == wants;
}

/* Segments: the fields of one kind stand in the order of enum seg. */
struct guest_segment {
    uint64_t base;
    uint32_t limit, rights, type, dpl, rpl;
    bool usable;
};
static struct guest_segment segment(const struct checker *c, enum seg seg)
{
    const uint64_t *field = c->cpu->vmx.field;
    uint32_t rights = (uint32_t)field[FIELD_guest_es_access_rights + seg];
    return (struct guest_segment){ .base = field[FIELD_guest_es_base + seg],
                                   .limit = (uint32_t)field[FIELD_guest_es_limit + seg],
                                   .rights = rights,
                                   .type = rights & SEG_TYPE,
                                   .dpl = (rights & SEG_DPL) >> SEG_DPL_SHIFT,
                                   .rpl = field[FIELD_guest_es_selector + seg] & 3,
                                   .usable = !(rights & SEG_UNUSABLE) };
}
#define SEGMENT(which) segment(c, which)
static bool table_indicator(const struct checker *c, enum seg seg)
{
    return (c->cpu->vmx.field[FIELD_guest_es_selector + seg] & 4) != 0;
}

typedef bool segment_rule(const struct checker *c, enum seg seg, const struct guest_segment *s);
enum { SET_ALL = 0x3f, SET_DATA = 1 << DS | 1 << ES | 1 << FS | 1 << GS, SET_STACK_DATA = SET_DATA | 1 << SS };
/* True if the rule holds for each segment of the set; else c->field is the field of the one that breaks it. */
static bool segments(struct checker *c, unsigned set, enum vmcs_slot es_field, segment_rule *holds)
{
    for (unsigned seg = 0; seg < NR_SEGS; seg++) {
        if (!(set >> seg & 1))
            continue;
        struct guest_segment s = segment(c, (enum seg)seg);
        if (holds(c, (enum seg)seg, &s))
            continue;
        c->field = (uint16_t)(es_field + seg);
        return false;
    }
    return true;
}
#define SEGMENT_RULE(name) static bool name(const struct checker *c, enum seg seg, const struct guest_segment *s)
SEGMENT_RULE(base_is_selector_times_16)
{
    return s->base == c->cpu->vmx.field[FIELD_guest_es_selector + seg] << 4;
}
SEGMENT_RULE(limit_is_64k) { (void)c, (void)seg; return s->limit == 0xffff; }
SEGMENT_RULE(rights_are_vm86) { (void)c, (void)seg; return s->rights == 0xf3; }
SEGMENT_RULE(base_is_canonical) { (void)seg; return canonical(c, s->base); }
SEGMENT_RULE(base_is_32_bits) { (void)c, (void)seg; return !s->usable || !(s->base >> 32); }
SEGMENT_RULE(type_is_accessed) { (void)c, (void)seg; return !s->usable || (s->type & TYPE_ACCESSED); }
SEGMENT_RULE(code_is_readable)
{
    (void)c, (void)seg;
    return !s->usable || !(s->type & TYPE_CODE) || (s->type & TYPE_READABLE);
}
SEGMENT_RULE(is_no_system_segment) { (void)c; return (seg != CS && !s->usable) || (s->rights & SEG_S); }
SEGMENT_RULE(dpl_is_not_below_rpl) { (void)c, (void)seg; return !s->usable || s->type > 11 || s->dpl >= s->rpl; }
SEGMENT_RULE(is_present) { (void)c; return (seg != CS && !s->usable) || (s->rights & SEG_P); }
#define RIGHTS_RESERVED 0xfffe0f00u
SEGMENT_RULE(rights_reserved_zero) { (void)c; return (seg != CS && !s->usable) || !(s->rights & RIGHTS_RESERVED); }
static bool granularity_fits(struct guest_segment s)
{
    if ((s.limit & 0xfff) != 0xfff && (s.rights & SEG_G))
        return false;
    return !(s.limit >> 20) || (s.rights & SEG_G);
}
SEGMENT_RULE(limit_fits_granularity) { (void)c; return (seg != CS && !s->usable) || granularity_fits(*s); }

static bool selector_has_no_rpl_ti(struct checker *c)
{
    for (unsigned slot = FIELD_host_es_selector; slot <= FIELD_host_tr_selector; slot++)
        if (c->cpu->vmx.field[slot] & 7) {
            c->field = (uint16_t)slot;
            return false;
        }
    return true;
}
/* Reports the first of two fields that does not satisfy its part. */
static bool both(struct checker *c, enum vmcs_slot first, bool first_ok, enum vmcs_slot second, bool second_ok)
{
    c->field = (uint16_t)(first_ok ? second : first);
    return first_ok && second_ok;
}

/* Bits of PDPTEs that must be 0 in a present one. */
static bool pdptes_ok(const struct checker *c, const uint64_t pdpte[4])
{
    uint64_t reserved = 0x1e6 | ~((1ull << c->cpu->profile->physical_bits) - 1);
    for (unsigned n = 0; n < 4; n++)
        if ((pdpte[n] & 1) && (pdpte[n] & reserved))
            return false;
    return true;
}
static bool pdptes_in_memory_ok(const struct checker *c)
{
    uint64_t pdpte[4];
    space_read(c->cpu->space, V(guest_cr3) & ~0x1full, pdpte, sizeof pdpte);
    return pdptes_ok(c, pdpte);
}
static bool is_pae_guest(const struct checker *c)
{
    return (V(guest_cr0) & CR0_PG) && (V(guest_cr4) & CR4_PAE) && !long_guest(c);
}
static uint32_t revision_at(const struct checker *c, uint64_t pa)
{
    uint32_t revision = 0;
    space_read(c->cpu->space, pa, &revision, sizeof revision);
    return revision;
}
static bool has_link(const struct checker *c) { return V(vmcs_link_pointer) != UINT64_MAX; }
static bool blocked_or_halted(const struct checker *c)
{
    return (V(guest_interruptibility_state) & (BLOCK_STI | BLOCK_MOV_SS)) || V(guest_activity_state) == ACTIVITY_HLT;
}
static bool single_step_pending_expected(const struct checker *c)
{
    return (V(guest_rflags) & FLAG_TF) && !(V(guest_ia32_debugctl) & 2 /* BTF */);
}
/* What may be injected into a guest that is halted or shut down. */
static bool injects_one_of(const struct checker *c, uint32_t exceptions, bool external)
{
    unsigned type = EVENT_TYPE(injection(c)), vector = EVENT_VECTOR(injection(c));
    return type == TYPE_NMI || (external && (type == TYPE_EXTERNAL || type == TYPE_OTHER_EVENT)) ||
           (type == TYPE_HARDWARE_EXCEPTION && vector < 32 && (exceptions >> vector & 1));
}

#define INTEL_64 (cpu_has(c->cpu, FEATURE_LM))
#define DEBUGCTL_DEFINED 0x1c3u /* LBR, BTF, TR, BTS, BTINT */

/* ---- VM-execution controls ------------------------------------------------------------------- */

RULE(CTL_EXEC_01, ALWAYS, allowed(c, VMX_GROUP_PIN, V(pin_based_controls)))
RULE(CTL_EXEC_02, ALWAYS, allowed(c, VMX_GROUP_PRI, V(primary_proc_based_controls)))
RULE(CTL_EXEC_03, primary(c, VMX_PRI_ACTIVATE_SECONDARY_CONTROLS),
     allowed(c, VMX_GROUP_SEC, V(secondary_proc_based_controls)))
RULE(CTL_EXEC_06, ALWAYS, V(cr3_target_count) <= 4)
RULE(CTL_EXEC_07, primary(c, VMX_PRI_USE_IO_BITMAPS),
     both(c, FIELD_io_bitmap_a, physical(c, V(io_bitmap_a), 4096), FIELD_io_bitmap_b,
          physical(c, V(io_bitmap_b), 4096)))
RULE(CTL_EXEC_08, primary(c, VMX_PRI_USE_MSR_BITMAPS), physical(c, V(msr_bitmaps), 4096))
RULE(CTL_EXEC_12, ALWAYS, !pin(c, VMX_PIN_VIRTUAL_NMIS) || pin(c, VMX_PIN_NMI_EXITING))
RULE(CTL_EXEC_13, ALWAYS, !primary(c, VMX_PRI_NMI_WINDOW_EXITING) || pin(c, VMX_PIN_VIRTUAL_NMIS))
RULE(CTL_EXEC_22, secondary(c, VMX_SEC_ENABLE_VPID), V(vpid) != 0)
RULE(CTL_EXEC_23, secondary(c, VMX_SEC_ENABLE_EPT), (V(ept_pointer) & 7) == 0 || (V(ept_pointer) & 7) == 6)
RULE(CTL_EXEC_24, secondary(c, VMX_SEC_ENABLE_EPT), (V(ept_pointer) >> 3 & 7) == 3)
RULE(CTL_EXEC_25, secondary(c, VMX_SEC_ENABLE_EPT), !(V(ept_pointer) & 1 << 6)) /* IA32_VMX_EPT_VPID_CAP[21] is 0 */
RULE(CTL_EXEC_26, secondary(c, VMX_SEC_ENABLE_EPT), !(V(ept_pointer) & 1 << 7))
RULE(CTL_EXEC_27, secondary(c, VMX_SEC_ENABLE_EPT), !(V(ept_pointer) & 0xf00) && physical(c, V(ept_pointer), 1))
RULE(CTL_EXEC_28, ALWAYS, !unrestricted(c) || secondary(c, VMX_SEC_ENABLE_EPT))

/* ---- VM-exit controls ------------------------------------------------------------------------ */

RULE(CTL_EXIT_01, ALWAYS, allowed(c, VMX_GROUP_EXIT, V(vm_exit_controls)))
RULE(CTL_EXIT_04, V(exit_msr_store_count), physical(c, V(exit_msr_store_address), 16))
RULE(CTL_EXIT_05, V(exit_msr_store_count), last_byte_physical(c, V(exit_msr_store_address), V(exit_msr_store_count)))
RULE(CTL_EXIT_06, V(exit_msr_load_count), physical(c, V(exit_msr_load_address), 16))
RULE(CTL_EXIT_07, V(exit_msr_load_count), last_byte_physical(c, V(exit_msr_load_address), V(exit_msr_load_count)))

/* ---- VM-entry controls and event injection --------------------------------------------------- */

RULE(CTL_ENTRY_01, ALWAYS, allowed(c, VMX_GROUP_ENTRY, V(vm_entry_controls)))
RULE(CTL_ENTRY_02, V(entry_msr_load_count), physical(c, V(entry_msr_load_address), 16))
RULE(CTL_ENTRY_03, V(entry_msr_load_count), last_byte_physical(c, V(entry_msr_load_address), V(entry_msr_load_count)))
RULE(CTL_ENTRY_04, ALWAYS, !on_entry(c, VMX_ENTRY_ENTRY_TO_SMM | VMX_ENTRY_DEACTIVATE_DUAL_MONITOR_TREATMENT))
RULE(CTL_ENTRY_05, ALWAYS,
     !on_entry(c, VMX_ENTRY_ENTRY_TO_SMM) || !on_entry(c, VMX_ENTRY_DEACTIVATE_DUAL_MONITOR_TREATMENT))
RULE(CTL_ENTRY_06, injecting(c),
     !injecting_type(c, TYPE_RESERVED) &&
         (!injecting_type(c, TYPE_OTHER_EVENT) || vmx_control_allowed(c->cpu, CONTROL_PRI_MONITOR_TRAP_FLAG)))
RULE(CTL_ENTRY_07, injecting_type(c, TYPE_NMI), EVENT_VECTOR(injection(c)) == VEC_NMI)
RULE(CTL_ENTRY_08, injecting_type(c, TYPE_HARDWARE_EXCEPTION), EVENT_VECTOR(injection(c)) < 32)
RULE(CTL_ENTRY_10, injecting(c), error_code_flag_right(c))
RULE(CTL_ENTRY_11, injecting(c), !(injection(c) & 0x7ffff000))
RULE(CTL_ENTRY_12, injecting(c) && (injection(c) & EVENT_HAS_ERROR), !(V(vm_entry_exception_error_code) >> 16))
RULE(CTL_ENTRY_13,
     injecting(c) && EVENT_TYPE(injection(c)) >= TYPE_SOFTWARE_INTERRUPT && !injecting_type(c, TYPE_OTHER_EVENT),
     V(vm_entry_instruction_length) >= 1 && V(vm_entry_instruction_length) <= 15)

/* ---- host state ------------------------------------------------------------------------------ */

RULE(HOST_CR_01, ALWAYS, vmx_cr_fixed(c->cpu, 0, V(host_cr0)))
RULE(HOST_CR_02, ALWAYS, vmx_cr_fixed(c->cpu, 4, V(host_cr4)))
RULE(HOST_CR_03, INTEL_64, physical(c, V(host_cr3), 1))
RULE(HOST_CR_05, INTEL_64, canonical(c, V(host_ia32_sysenter_esp)))
RULE(HOST_CR_06, INTEL_64, canonical(c, V(host_ia32_sysenter_eip)))
RULE(HOST_CR_08, on_exit(c, VMX_EXIT_LOAD_IA32_PAT), memory_types(V(host_ia32_pat)))
RULE(HOST_CR_09, on_exit(c, VMX_EXIT_LOAD_IA32_EFER), !(V(host_ia32_efer) & ~efer_defined(c->cpu)))
RULE(HOST_CR_10, on_exit(c, VMX_EXIT_LOAD_IA32_EFER),
     !(V(host_ia32_efer) & EFER_LMA) == !long_host(c) && !(V(host_ia32_efer) & EFER_LME) == !long_host(c))
RULE(HOST_SEG_01, ALWAYS, selector_has_no_rpl_ti(c))
RULE(HOST_SEG_02, ALWAYS, V(host_cs_selector) != 0)
RULE(HOST_SEG_03, ALWAYS, V(host_tr_selector) != 0)
RULE(HOST_SEG_04, !long_host(c), V(host_ss_selector) != 0)
RULE(HOST_SEG_05, INTEL_64, canonical(c, V(host_fs_base)))
RULE(HOST_SEG_06, INTEL_64, canonical(c, V(host_gs_base)))
RULE(HOST_SEG_07, INTEL_64, canonical(c, V(host_tr_base)))
RULE(HOST_SEG_08, INTEL_64, canonical(c, V(host_gdtr_base)))
RULE(HOST_SEG_09, INTEL_64, canonical(c, V(host_idtr_base)))
RULE(HOST_ASZ_01, !in_ia32e_mode(c), !long_guest(c))
RULE(HOST_ASZ_02, !in_ia32e_mode(c), !long_host(c))
RULE(HOST_ASZ_03, in_ia32e_mode(c), long_host(c))
RULE(HOST_ASZ_04, !long_host(c), !long_guest(c))
RULE(HOST_ASZ_05, !long_host(c), !(V(host_cr4) & CR4_PCIDE))
RULE(HOST_ASZ_06, !long_host(c), !(V(host_rip) >> 32))
RULE(HOST_ASZ_07, long_host(c), V(host_cr4) & CR4_PAE)
RULE(HOST_ASZ_08, long_host(c), canonical(c, V(host_rip)))

/* ---- guest control registers, debug registers, MSRs ------------------------------------------ */

RULE(GUEST_CR_01, ALWAYS, vmx_cr_fixed(c->cpu, 0, V(guest_cr0) | (unrestricted(c) ? CR0_PG | CR0_PE : 0)))
RULE(GUEST_CR_02, ALWAYS, !(V(guest_cr0) & CR0_PG) || (V(guest_cr0) & CR0_PE))
RULE(GUEST_CR_03, ALWAYS, vmx_cr_fixed(c->cpu, 4, V(guest_cr4)))
RULE(GUEST_CR_05, INTEL_64, physical(c, V(guest_cr3), 1))
RULE(GUEST_CR_06, long_guest(c),
     both(c, FIELD_guest_cr0, (V(guest_cr0) & CR0_PG) != 0, FIELD_guest_cr4, (V(guest_cr4) & CR4_PAE) != 0))
RULE(GUEST_CR_07, !long_guest(c), !(V(guest_cr4) & CR4_PCIDE))
RULE(GUEST_CR_08, on_entry(c, VMX_ENTRY_LOAD_DEBUG_CONTROLS), !(V(guest_ia32_debugctl) & ~(uint64_t)DEBUGCTL_DEFINED))
RULE(GUEST_CR_09, on_entry(c, VMX_ENTRY_LOAD_DEBUG_CONTROLS), !(V(guest_dr7) >> 32))
RULE(GUEST_CR_10, INTEL_64, canonical(c, V(guest_ia32_sysenter_esp)))
RULE(GUEST_CR_11, INTEL_64, canonical(c, V(guest_ia32_sysenter_eip)))
RULE(GUEST_CR_13, on_entry(c, VMX_ENTRY_LOAD_IA32_PAT), memory_types(V(guest_ia32_pat)))
RULE(GUEST_CR_14, on_entry(c, VMX_ENTRY_LOAD_IA32_EFER), !(V(guest_ia32_efer) & ~efer_defined(c->cpu)))
RULE(GUEST_CR_15, on_entry(c, VMX_ENTRY_LOAD_IA32_EFER), !(V(guest_ia32_efer) & EFER_LMA) == !long_guest(c))
RULE(GUEST_CR_16, on_entry(c, VMX_ENTRY_LOAD_IA32_EFER) && (V(guest_cr0) & CR0_PG),
     !(V(guest_ia32_efer) & EFER_LME) == !(V(guest_ia32_efer) & EFER_LMA))

/* ---- guest segment and descriptor-table registers -------------------------------------------- */

RULE(GUEST_SEG_01, ALWAYS, !table_indicator(c, TR))
RULE(GUEST_SEG_02, SEGMENT(LDTR).usable, !table_indicator(c, LDTR))
RULE(GUEST_SEG_03, !vm86(c) && !unrestricted(c), SEGMENT(SS).rpl == SEGMENT(CS).rpl)
RULE(GUEST_SEG_04, vm86(c), segments(c, SET_ALL, FIELD_guest_es_base, base_is_selector_times_16))
RULE(GUEST_SEG_05, vm86(c), segments(c, SET_ALL, FIELD_guest_es_limit, limit_is_64k))
RULE(GUEST_SEG_06, vm86(c), segments(c, SET_ALL, FIELD_guest_es_access_rights, rights_are_vm86))
RULE(GUEST_SEG_07, INTEL_64, segments(c, 1 << TR | 1 << FS | 1 << GS, FIELD_guest_es_base, base_is_canonical))
RULE(GUEST_SEG_08, INTEL_64 && SEGMENT(LDTR).usable, canonical(c, SEGMENT(LDTR).base))
RULE(GUEST_SEG_09, INTEL_64, !(SEGMENT(CS).base >> 32))
RULE(GUEST_SEG_10, INTEL_64, segments(c, 1 << SS | 1 << DS | 1 << ES, FIELD_guest_es_base, base_is_32_bits))
RULE(GUEST_SEG_11, !vm86(c) && !unrestricted(c), (SEGMENT(CS).type & 9) == 9)
RULE(GUEST_SEG_12, !vm86(c) && unrestricted(c), (SEGMENT(CS).type & 9) == 9 || SEGMENT(CS).type == 3)
RULE(GUEST_SEG_13, !vm86(c) && SEGMENT(SS).usable, SEGMENT(SS).type == 3 || SEGMENT(SS).type == 7)
RULE(GUEST_SEG_14, !vm86(c), segments(c, SET_DATA, FIELD_guest_es_access_rights, type_is_accessed))
RULE(GUEST_SEG_15, !vm86(c), segments(c, SET_DATA, FIELD_guest_es_access_rights, code_is_readable))
RULE(GUEST_SEG_16, !vm86(c), segments(c, SET_ALL, FIELD_guest_es_access_rights, is_no_system_segment))
RULE(GUEST_SEG_17, !vm86(c) && unrestricted(c) && SEGMENT(CS).type == 3, SEGMENT(CS).dpl == 0)
RULE(GUEST_SEG_18, !vm86(c) && (SEGMENT(CS).type == 9 || SEGMENT(CS).type == 11), SEGMENT(CS).dpl == SEGMENT(SS).dpl)
RULE(GUEST_SEG_19, !vm86(c) && (SEGMENT(CS).type == 13 || SEGMENT(CS).type == 15), SEGMENT(CS).dpl <= SEGMENT(SS).dpl)
RULE(GUEST_SEG_20, !vm86(c) && !unrestricted(c), SEGMENT(SS).dpl == SEGMENT(SS).rpl)
RULE(GUEST_SEG_21, !vm86(c) && unrestricted(c) && (SEGMENT(CS).type == 3 || !(V(guest_cr0) & CR0_PE)),
     SEGMENT(SS).dpl == 0)
RULE(GUEST_SEG_22, !vm86(c) && !unrestricted(c),
     segments(c, SET_DATA, FIELD_guest_es_access_rights, dpl_is_not_below_rpl))
RULE(GUEST_SEG_23, !vm86(c), segments(c, SET_ALL, FIELD_guest_es_access_rights, is_present))
RULE(GUEST_SEG_24, !vm86(c), segments(c, SET_ALL, FIELD_guest_es_access_rights, rights_reserved_zero))
RULE(GUEST_SEG_25, !vm86(c) && long_guest(c), !(SEGMENT(CS).rights & SEG_L) || !(SEGMENT(CS).rights & SEG_DB))
RULE(GUEST_SEG_26, !vm86(c), segments(c, SET_ALL, FIELD_guest_es_limit, limit_fits_granularity))
RULE(GUEST_SEG_27, !long_guest(c), SEGMENT(TR).type == 3 || SEGMENT(TR).type == 11)
RULE(GUEST_SEG_28, long_guest(c), SEGMENT(TR).type == 11)
RULE(GUEST_SEG_29, ALWAYS, !(SEGMENT(TR).rights & SEG_S))
RULE(GUEST_SEG_30, ALWAYS, SEGMENT(TR).rights & SEG_P)
RULE(GUEST_SEG_31, ALWAYS, SEGMENT(TR).usable)
RULE(GUEST_SEG_32, ALWAYS,
     both(c, FIELD_guest_tr_access_rights, !(SEGMENT(TR).rights & RIGHTS_RESERVED), FIELD_guest_tr_limit,
          granularity_fits(SEGMENT(TR))))
RULE(GUEST_SEG_33, SEGMENT(LDTR).usable, SEGMENT(LDTR).type == 2)
RULE(GUEST_SEG_34, SEGMENT(LDTR).usable, !(SEGMENT(LDTR).rights & SEG_S))
RULE(GUEST_SEG_35, SEGMENT(LDTR).usable, SEGMENT(LDTR).rights & SEG_P)
RULE(GUEST_SEG_36, SEGMENT(LDTR).usable,
     both(c, FIELD_guest_ldtr_access_rights, !(SEGMENT(LDTR).rights & RIGHTS_RESERVED), FIELD_guest_ldtr_limit,
          granularity_fits(SEGMENT(LDTR))))
RULE(GUEST_SEG_37, INTEL_64,
     both(c, FIELD_guest_gdtr_base, canonical(c, V(guest_gdtr_base)), FIELD_guest_idtr_base,
          canonical(c, V(guest_idtr_base))))
RULE(GUEST_SEG_38, ALWAYS,
     both(c, FIELD_guest_gdtr_limit, !(V(guest_gdtr_limit) >> 16), FIELD_guest_idtr_limit,
          !(V(guest_idtr_limit) >> 16)))

/* ---- guest RIP, RFLAGS, activity, interruptibility, pending debug exceptions ----------------- */

RULE(GUEST_RIP_01, !long_guest(c) || !(SEGMENT(CS).rights & SEG_L), !(V(guest_rip) >> 32))
RULE(GUEST_RIP_02, long_guest(c) && (SEGMENT(CS).rights & SEG_L), upper_bits_identical(c, V(guest_rip)))
RULE(GUEST_RIP_03, ALWAYS, !(V(guest_rflags) & 0xffffffffffc08028ull))
RULE(GUEST_RIP_04, ALWAYS, V(guest_rflags) & FLAG_1)
RULE(GUEST_RIP_05, long_guest(c) || !(V(guest_cr0) & CR0_PE), !vm86(c))
RULE(GUEST_RIP_06, injecting_type(c, TYPE_EXTERNAL), V(guest_rflags) & FLAG_IF)
RULE(GUEST_ACT_01, ALWAYS, V(guest_activity_state) <= ACTIVITY_WAIT_SIPI)
RULE(GUEST_ACT_02, V(guest_activity_state) == ACTIVITY_HLT, SEGMENT(SS).dpl == 0)
RULE(GUEST_ACT_03, V(guest_interruptibility_state) & (BLOCK_STI | BLOCK_MOV_SS),
     V(guest_activity_state) == ACTIVITY_ACTIVE)
RULE(GUEST_ACT_04, injecting(c) && V(guest_activity_state) == ACTIVITY_HLT,
     injects_one_of(c, 1u << VEC_DB | 1u << VEC_MC, true))
RULE(GUEST_ACT_05, injecting(c) && V(guest_activity_state) == ACTIVITY_SHUTDOWN, injects_one_of(c, 1u << VEC_MC, false))
RULE(GUEST_ACT_06, injecting(c), V(guest_activity_state) != ACTIVITY_WAIT_SIPI)
RULE(GUEST_INT_01, ALWAYS, !(V(guest_interruptibility_state) & ~0xfull))
RULE(GUEST_INT_02, ALWAYS, (V(guest_interruptibility_state) & (BLOCK_STI | BLOCK_MOV_SS)) != (BLOCK_STI | BLOCK_MOV_SS))
RULE(GUEST_INT_03, !(V(guest_rflags) & FLAG_IF), !(V(guest_interruptibility_state) & BLOCK_STI))
RULE(GUEST_INT_04, injecting_type(c, TYPE_EXTERNAL), !(V(guest_interruptibility_state) & (BLOCK_STI | BLOCK_MOV_SS)))
RULE(GUEST_INT_05, injecting_type(c, TYPE_NMI), !(V(guest_interruptibility_state) & BLOCK_MOV_SS))
RULE(GUEST_INT_06, ALWAYS, !(V(guest_interruptibility_state) & BLOCK_SMI))
RULE(GUEST_INT_08, injecting_type(c, TYPE_NMI) && pin(c, VMX_PIN_VIRTUAL_NMIS),
     !(V(guest_interruptibility_state) & BLOCK_NMI))
RULE(GUEST_DBG_01, ALWAYS, !(V(guest_pending_dbg_exceptions) & 0xfffffffffffeaff0ull))
RULE(GUEST_DBG_02, blocked_or_halted(c) && single_step_pending_expected(c), V(guest_pending_dbg_exceptions) & DR6_BS)
RULE(GUEST_DBG_03, blocked_or_halted(c) && !single_step_pending_expected(c),
     !(V(guest_pending_dbg_exceptions) & DR6_BS))

/* ---- VMCS link pointer and PDPTEs ------------------------------------------------------------ */

RULE(GUEST_LNK_01, has_link(c), physical(c, V(vmcs_link_pointer), 4096))
RULE(GUEST_LNK_02, has_link(c), (revision_at(c, V(vmcs_link_pointer)) & 0x7fffffff) == VMCS_REVISION)
RULE(GUEST_LNK_03, has_link(c), !(revision_at(c, V(vmcs_link_pointer)) >> 31))
RULE(GUEST_LNK_04, has_link(c), V(vmcs_link_pointer) != c->cpu->vmx.current)
RULE(GUEST_PDP_01, is_pae_guest(c) && !secondary(c, VMX_SEC_ENABLE_EPT), pdptes_in_memory_ok(c))
RULE(GUEST_PDP_02, is_pae_guest(c) && secondary(c, VMX_SEC_ENABLE_EPT), pdptes_ok(c, &V(guest_ia32_pdpte0)))

/* ---- the table ------------------------------------------------------------------------------- */

typedef enum verdict rule_function(struct checker *c);
struct rule {
    rule_function *rule; /* NULL: nothing to evaluate on the VMCS */
    uint16_t field;
    uint8_t since, failure;
};
#define RULE_OF_VMX_V1(failure, name) RULE_OF_##failure(name)
#define RULE_OF_VMX_V2(failure, name) RULE_OF_##failure(name)
#define RULE_OF_VMX_NONE(failure, name) NULL
#define RULE_OF_VMX_NOTE(failure, name) NULL
#define RULE_OF_INSTRUCTION(name) NULL /* in the handlers of the instructions */
#define RULE_OF_EXIT_34(name) NULL     /* one entry of the list at a time: vmx_check_msr_load */
#define RULE_OF_ERROR_7(name) rule_##name
#define RULE_OF_ERROR_8(name) rule_##name
#define RULE_OF_EXIT_33(name) rule_##name
#define RULE_OF_EXIT_33_PDPTE(name) rule_##name
#define RULE_OF_EXIT_33_NMI(name) rule_##name
#define RULE_OF_EXIT_33_LINK(name) rule_##name
static const struct rule rules[] = {
#define VMX_CHECK(name, id, area, since, failure, field, applies, rule) \
    { RULE_OF_##since(failure, name), FIELD_##field, since, FAILURE_##failure },
#include "vmx_check.def"
};
#define NR_RULES (sizeof rules / sizeof rules[0])

enum check_failure vmx_check_failure(unsigned row) { return (enum check_failure)rules[row - 1].failure; }

static bool is_here(unsigned generation, const struct rule *rule) { return rule->since <= generation && rule->rule; }

/* The first rule of the rows first .. last that fails, or 0. */
static unsigned first_failing(struct cpu *cpu, unsigned first, unsigned last, uint16_t *field)
{
    unsigned generation = vmx_generation(cpu);
    for (unsigned row = first; row <= last; row++) {
        const struct rule *rule = &rules[row - 1];
        struct checker c = { cpu, rule->field };
        if (!is_here(generation, rule) || rule->rule(&c) != VERDICT_FAILS)
            continue;
        *field = c.field;
        return row;
    }
    return CHECK_NO_VMX_RULE;
}

/* The same, unless the part has passed before and nothing of it has changed. */
static unsigned check_part(struct cpu *cpu, enum vmcs_part part, unsigned first, unsigned last, uint16_t *field)
{
    if (cpu->vmx.checked & part)
        return CHECK_NO_VMX_RULE;
    unsigned failed = first_failing(cpu, first, last, field);
    if (!failed)
        cpu->vmx.checked |= (uint8_t)part;
    return failed;
}

unsigned vmx_check_controls(struct cpu *cpu, uint16_t *field)
{
    return check_part(cpu, PART_CONTROLS, CHECK_CTL_EXEC_01, CHECK_CTL_ENTRY_13, field);
}

unsigned vmx_check_host_state(struct cpu *cpu, uint16_t *field)
{
    uint8_t long_now = is_long_active(cpu) ? PART_HOST_LONG : 0;
    if ((cpu->vmx.checked & PART_HOST_LONG) != long_now)
        cpu->vmx.checked = (uint8_t)((cpu->vmx.checked & ~(PART_HOST | PART_HOST_LONG)) | long_now);
    return check_part(cpu, PART_HOST, CHECK_HOST_CR_01, CHECK_HOST_ASZ_08, field);
}

unsigned vmx_check_guest_state(struct cpu *cpu, uint16_t *field)
{
    unsigned failed = check_part(cpu, PART_CR, CHECK_GUEST_CR_01, CHECK_GUEST_CR_21, field);
    if (!failed)
        failed = check_part(cpu, PART_SEGMENTS, CHECK_GUEST_SEG_01, CHECK_GUEST_SEG_38, field);
    return failed ? failed : first_failing(cpu, CHECK_GUEST_RIP_01, CHECK_GUEST_PDP_02, field);
}

#define MSR_SMM_MONITOR_CTL 0x9b
unsigned vmx_check_msr_load(uint32_t index, uint32_t reserved)
{
    if (index == 0xc0000100 || index == 0xc0000101) /* IA32_FS_BASE, IA32_GS_BASE: the segment state has them */
        return CHECK_MSRLOAD_01;
    if (index >> 8 == 8)
        return CHECK_MSRLOAD_02;
    if (index == MSR_SMM_MONITOR_CTL)
        return CHECK_MSRLOAD_03;
    return reserved ? CHECK_MSRLOAD_04 : CHECK_NO_VMX_RULE;
}

void vmx_check_all(struct cpu *cpu, struct check_verdict *verdict)
{
    for (unsigned n = 0; n < NR_RULES; n++) {
        struct checker c = { cpu, rules[n].field };
        memset(&verdict[n], 0, sizeof verdict[n]);
        verdict[n].verdict = (uint8_t)(is_here(vmx_generation(cpu), &rules[n]) ? rules[n].rule(&c) : VERDICT_NOT_HERE);
        verdict[n].field = c.field;
        verdict[n].value = c.field < NR_VMCS_FIELDS ? cpu->vmx.field[c.field] : 0;
    }
}
