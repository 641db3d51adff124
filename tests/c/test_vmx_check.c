/* Every rule of VM entry that a processor of 2006 has: a VMCS that is good, one field made bad, and the rule's name,
 * error or exit must come out. Rules that another rule always precedes are asked through vmx_check_all. */
#include "room.h"

/* ---- and what breaks them -------------------------------------------------------------------- */

#define NON_CANONICAL 0x0000800000000000ull
#define BEYOND_MEMORY (1ull << 36)
#define FIXED_PIN 0x16u
#define FIXED_PRI 0x0401e172u
#define FIXED_EXIT 0x36dffu
#define FIXED_ENTRY 0x11ffu
#define INFO(vector, type, more) ((vector) | (uint32_t)(type) << 8 | (more) | EVENT_VALID)

static const struct breaking {
    enum vmx_check_name rule;
    enum good good;
    uint32_t field;
    uint64_t value;
} breakings[] = {
    { CHECK_CTL_EXEC_01, LONG, VMCS_pin_based_controls, FIXED_PIN & ~2u },
    { CHECK_CTL_EXEC_01, LONG, VMCS_pin_based_controls, FIXED_PIN | 1u << 7 },
    { CHECK_CTL_EXEC_02, LONG, VMCS_primary_proc_based_controls, FIXED_PRI & ~(1u << 15) },
    { CHECK_CTL_EXEC_02, LONG, VMCS_primary_proc_based_controls, FIXED_PRI | 1u << 31 },
    { CHECK_CTL_EXEC_06, LONG, VMCS_cr3_target_count, 5 },
    { CHECK_CTL_EXEC_07, IO_BITMAPS, VMCS_io_bitmap_a, ROOM_BITMAP_A + 1 },
    { CHECK_CTL_EXEC_07, IO_BITMAPS, VMCS_io_bitmap_b, BEYOND_MEMORY },
    { CHECK_CTL_EXIT_01, LONG, VMCS_vm_exit_controls, FIXED_EXIT | 1u << 9 | 1u << 12 },
    { CHECK_CTL_EXIT_04, MSR_LISTS, VMCS_exit_msr_store_address, ROOM_MSRS + 8 },
    { CHECK_CTL_EXIT_05, MSR_LISTS, VMCS_exit_msr_store_count, 0xffffffff },
    { CHECK_CTL_EXIT_06, MSR_LISTS, VMCS_exit_msr_load_address, BEYOND_MEMORY },
    { CHECK_CTL_EXIT_07, MSR_LISTS, VMCS_exit_msr_load_count, 0xffffffff },
    { CHECK_CTL_ENTRY_01, LONG, VMCS_vm_entry_controls, FIXED_ENTRY | 1u << 9 | 1u << 13 },
    { CHECK_CTL_ENTRY_02, MSR_LISTS, VMCS_entry_msr_load_address, ROOM_MSRS + 1 },
    { CHECK_CTL_ENTRY_03, MSR_LISTS, VMCS_entry_msr_load_count, 0xffffffff },
    { CHECK_CTL_ENTRY_04, LONG, VMCS_vm_entry_controls, FIXED_ENTRY | 1u << 9 | 1u << 10 },
    { CHECK_CTL_ENTRY_06, INJECT_INT, VMCS_vm_entry_interruption_info, INFO(0x20, 1, 0) },
    { CHECK_CTL_ENTRY_06, INJECT_INT, VMCS_vm_entry_interruption_info, INFO(0, 7, 0) },
    { CHECK_CTL_ENTRY_07, INJECT_NMI, VMCS_vm_entry_interruption_info, INFO(3, 2, 0) },
    { CHECK_CTL_ENTRY_08, INJECT_UD, VMCS_vm_entry_interruption_info, INFO(32, 3, 0) },
    { CHECK_CTL_ENTRY_10, INJECT_GP, VMCS_vm_entry_interruption_info, INFO(VEC_GP, 3, 0) },
    { CHECK_CTL_ENTRY_10, INJECT_UD, VMCS_vm_entry_interruption_info, INFO(VEC_UD, 3, EVENT_HAS_ERROR) },
    { CHECK_CTL_ENTRY_11, INJECT_UD, VMCS_vm_entry_interruption_info, INFO(VEC_UD, 3, 1u << 12) },
    { CHECK_CTL_ENTRY_12, INJECT_GP, VMCS_vm_entry_exception_error_code, 0x10000 },
    { CHECK_CTL_ENTRY_13, INJECT_SOFT, VMCS_vm_entry_instruction_length, 0 },
    { CHECK_CTL_ENTRY_13, INJECT_SOFT, VMCS_vm_entry_instruction_length, 16 },
    { CHECK_HOST_CR_01, LONG, VMCS_host_cr0, CR0_PE | CR0_PG },
    { CHECK_HOST_CR_01, LONG, VMCS_host_cr0, CR0_PE | CR0_NE | CR0_PG | 1ull << 32 },
    { CHECK_HOST_CR_02, LONG, VMCS_host_cr4, CR4_PAE },
    { CHECK_HOST_CR_02, LONG, VMCS_host_cr4, CR4_PAE | CR4_VMXE | 1ull << 31 },
    { CHECK_HOST_CR_03, LONG, VMCS_host_cr3, BEYOND_MEMORY },
    { CHECK_HOST_CR_05, LONG, VMCS_host_ia32_sysenter_esp, NON_CANONICAL },
    { CHECK_HOST_CR_06, LONG, VMCS_host_ia32_sysenter_eip, NON_CANONICAL },
    { CHECK_HOST_SEG_01, LONG, VMCS_host_ds_selector, 0x13 },
    { CHECK_HOST_SEG_01, LONG, VMCS_host_tr_selector, 0x1c },
    { CHECK_HOST_SEG_02, LONG, VMCS_host_cs_selector, 0 },
    { CHECK_HOST_SEG_03, LONG, VMCS_host_tr_selector, 0 },
    { CHECK_HOST_SEG_04, HOST32, VMCS_host_ss_selector, 0 },
    { CHECK_HOST_SEG_05, LONG, VMCS_host_fs_base, NON_CANONICAL },
    { CHECK_HOST_SEG_06, LONG, VMCS_host_gs_base, NON_CANONICAL },
    { CHECK_HOST_SEG_07, LONG, VMCS_host_tr_base, NON_CANONICAL },
    { CHECK_HOST_SEG_08, LONG, VMCS_host_gdtr_base, NON_CANONICAL },
    { CHECK_HOST_SEG_09, LONG, VMCS_host_idtr_base, NON_CANONICAL },
    { CHECK_HOST_ASZ_01, HOST32, VMCS_vm_entry_controls, FIXED_ENTRY | 1u << 9 },
    { CHECK_HOST_ASZ_02, HOST32, VMCS_vm_exit_controls, FIXED_EXIT | 1u << 9 },
    { CHECK_HOST_ASZ_03, PROT, VMCS_vm_exit_controls, FIXED_EXIT },
    { CHECK_HOST_ASZ_06, HOST32, VMCS_host_rip, 1ull << 32 },
    { CHECK_HOST_ASZ_07, LONG, VMCS_host_cr4, CR4_VMXE },
    { CHECK_HOST_ASZ_08, LONG, VMCS_host_rip, NON_CANONICAL },
    { CHECK_GUEST_CR_01, LONG, VMCS_guest_cr0, CR0_PE | CR0_PG },
    { CHECK_GUEST_CR_01, PROT, VMCS_guest_cr0, CR0_PE | CR0_NE },
    { CHECK_GUEST_CR_03, LONG, VMCS_guest_cr4, CR4_PAE },
    { CHECK_GUEST_CR_05, LONG, VMCS_guest_cr3, BEYOND_MEMORY },
    { CHECK_GUEST_CR_06, LONG, VMCS_guest_cr4, CR4_VMXE },
    { CHECK_GUEST_CR_08, LONG, VMCS_guest_ia32_debugctl, 4 },
    { CHECK_GUEST_CR_09, LONG, VMCS_guest_dr7, 1ull << 32 },
    { CHECK_GUEST_CR_10, LONG, VMCS_guest_ia32_sysenter_esp, NON_CANONICAL },
    { CHECK_GUEST_CR_11, LONG, VMCS_guest_ia32_sysenter_eip, NON_CANONICAL },
    { CHECK_GUEST_SEG_01, LONG, VMCS_guest_tr_selector, 0x1c },
    { CHECK_GUEST_SEG_02, LONG, VMCS_guest_ldtr_selector, 0x2c },
    { CHECK_GUEST_SEG_03, LONG, VMCS_guest_ss_selector, 0x13 },
    { CHECK_GUEST_SEG_04, VM86, VMCS_guest_ds_base, 0x100000 },
    { CHECK_GUEST_SEG_04, VM86, VMCS_guest_ss_selector, 0x1234 },
    { CHECK_GUEST_SEG_05, VM86, VMCS_guest_ds_limit, 0xffffffff },
    { CHECK_GUEST_SEG_06, VM86, VMCS_guest_es_access_rights, 0x93 },
    { CHECK_GUEST_SEG_07, LONG, VMCS_guest_fs_base, NON_CANONICAL },
    { CHECK_GUEST_SEG_07, LONG, VMCS_guest_tr_base, NON_CANONICAL },
    { CHECK_GUEST_SEG_08, LONG, VMCS_guest_ldtr_base, NON_CANONICAL },
    { CHECK_GUEST_SEG_09, LONG, VMCS_guest_cs_base, 1ull << 32 },
    { CHECK_GUEST_SEG_10, LONG, VMCS_guest_es_base, 1ull << 32 },
    { CHECK_GUEST_SEG_11, LONG, VMCS_guest_cs_access_rights, 0xa093 },
    { CHECK_GUEST_SEG_13, LONG, VMCS_guest_ss_access_rights, 0xc091 },
    { CHECK_GUEST_SEG_14, LONG, VMCS_guest_gs_access_rights, 0xc092 },
    { CHECK_GUEST_SEG_15, LONG, VMCS_guest_ds_access_rights, 0xc099 },
    { CHECK_GUEST_SEG_16, LONG, VMCS_guest_cs_access_rights, 0xa08b },
    { CHECK_GUEST_SEG_16, LONG, VMCS_guest_ds_access_rights, 0xc083 },
    { CHECK_GUEST_SEG_18, LONG, VMCS_guest_cs_access_rights, 0xa0fb },
    { CHECK_GUEST_SEG_19, CONFORMING, VMCS_guest_cs_access_rights, 0xa0ff },
    { CHECK_GUEST_SEG_20, CONFORMING, VMCS_guest_ss_access_rights, 0xc0f3 },
    { CHECK_GUEST_SEG_22, LONG, VMCS_guest_ds_selector, 0x13 },
    { CHECK_GUEST_SEG_23, LONG, VMCS_guest_cs_access_rights, 0xa01b },
    { CHECK_GUEST_SEG_23, LONG, VMCS_guest_ds_access_rights, 0xc013 },
    { CHECK_GUEST_SEG_24, LONG, VMCS_guest_ds_access_rights, 0xc193 },
    { CHECK_GUEST_SEG_24, LONG, VMCS_guest_cs_access_rights, 0x2a09b },
    { CHECK_GUEST_SEG_25, LONG, VMCS_guest_cs_access_rights, 0xe09b },
    { CHECK_GUEST_SEG_26, LONG, VMCS_guest_ds_limit, 0xfffff000 },
    { CHECK_GUEST_SEG_26, PROT, VMCS_guest_es_access_rights, 0x4093 },
    { CHECK_GUEST_SEG_27, PROT, VMCS_guest_tr_access_rights, 0x89 },
    { CHECK_GUEST_SEG_28, LONG, VMCS_guest_tr_access_rights, 0x83 },
    { CHECK_GUEST_SEG_29, LONG, VMCS_guest_tr_access_rights, 0x9b },
    { CHECK_GUEST_SEG_30, LONG, VMCS_guest_tr_access_rights, 0x0b },
    { CHECK_GUEST_SEG_31, LONG, VMCS_guest_tr_access_rights, 0x1008b },
    { CHECK_GUEST_SEG_32, LONG, VMCS_guest_tr_access_rights, 0x18b },
    { CHECK_GUEST_SEG_32, LONG, VMCS_guest_tr_limit, 0x100000 },
    { CHECK_GUEST_SEG_33, LONG, VMCS_guest_ldtr_access_rights, 0x83 },
    { CHECK_GUEST_SEG_34, LONG, VMCS_guest_ldtr_access_rights, 0x92 },
    { CHECK_GUEST_SEG_35, LONG, VMCS_guest_ldtr_access_rights, 0x02 },
    { CHECK_GUEST_SEG_36, LONG, VMCS_guest_ldtr_access_rights, 0x282 },
    { CHECK_GUEST_SEG_37, LONG, VMCS_guest_gdtr_base, NON_CANONICAL },
    { CHECK_GUEST_SEG_37, LONG, VMCS_guest_idtr_base, NON_CANONICAL },
    { CHECK_GUEST_SEG_38, LONG, VMCS_guest_gdtr_limit, 0x10000 },
    { CHECK_GUEST_SEG_38, LONG, VMCS_guest_idtr_limit, 0x10000 },
    { CHECK_GUEST_RIP_01, PROT, VMCS_guest_rip, 1ull << 32 },
    { CHECK_GUEST_RIP_02, LONG, VMCS_guest_rip, 1ull << 50 },
    { CHECK_GUEST_RIP_03, LONG, VMCS_guest_rflags, FLAG_1 | 1u << 15 },
    { CHECK_GUEST_RIP_03, LONG, VMCS_guest_rflags, FLAG_1 | 1ull << 22 },
    { CHECK_GUEST_RIP_04, LONG, VMCS_guest_rflags, 0 },
    { CHECK_GUEST_RIP_05, VM86, VMCS_vm_entry_controls, FIXED_ENTRY | 1u << 9 },
    { CHECK_GUEST_RIP_06, INJECT_INT, VMCS_guest_rflags, FLAG_1 },
    { CHECK_GUEST_ACT_01, LONG, VMCS_guest_activity_state, 4 },
    { CHECK_GUEST_ACT_02, RING3, VMCS_guest_activity_state, ACTIVITY_HLT },
    { CHECK_GUEST_ACT_03, STI_SHADOW, VMCS_guest_activity_state, ACTIVITY_HLT },
    { CHECK_GUEST_ACT_04, INJECT_UD, VMCS_guest_activity_state, ACTIVITY_HLT },
    { CHECK_GUEST_ACT_05, INJECT_INT, VMCS_guest_activity_state, ACTIVITY_SHUTDOWN },
    { CHECK_GUEST_ACT_06, INJECT_NMI, VMCS_guest_activity_state, ACTIVITY_WAIT_SIPI },
    { CHECK_GUEST_INT_01, LONG, VMCS_guest_interruptibility_state, 1u << 5 },
    { CHECK_GUEST_INT_02, STI_SHADOW, VMCS_guest_interruptibility_state, BLOCK_STI | BLOCK_MOV_SS },
    { CHECK_GUEST_INT_03, LONG, VMCS_guest_interruptibility_state, BLOCK_STI },
    { CHECK_GUEST_INT_04, INJECT_INT, VMCS_guest_interruptibility_state, BLOCK_STI },
    { CHECK_GUEST_INT_05, INJECT_NMI, VMCS_guest_interruptibility_state, BLOCK_MOV_SS },
    { CHECK_GUEST_INT_06, LONG, VMCS_guest_interruptibility_state, BLOCK_SMI },
    { CHECK_GUEST_DBG_01, LONG, VMCS_guest_pending_dbg_exceptions, 1u << 4 },
    { CHECK_GUEST_DBG_02, STEP_SHADOW, VMCS_guest_pending_dbg_exceptions, 0 },
    { CHECK_GUEST_DBG_03, STI_SHADOW, VMCS_guest_pending_dbg_exceptions, DR6_BS },
    { CHECK_GUEST_LNK_01, LONG, VMCS_vmcs_link_pointer, ROOM_LINK + 8 },
    { CHECK_GUEST_LNK_01, LONG, VMCS_vmcs_link_pointer, BEYOND_MEMORY },
    { CHECK_GUEST_LNK_02, LONG, VMCS_vmcs_link_pointer, ROOM_CODE },
    { CHECK_GUEST_LNK_03, LONG, VMCS_vmcs_link_pointer, ROOM_LINK },
    { CHECK_GUEST_LNK_04, LONG, VMCS_vmcs_link_pointer, ROOM_VMCS },
    { CHECK_GUEST_PDP_01, PAE, VMCS_guest_cr3, ROOM_LINK },
};

/* A rule of the table that another rule always catches first; vmx_check_all still names it. */
static const struct breaking shadowed[] = {
    { CHECK_CTL_ENTRY_05, LONG, VMCS_vm_entry_controls, FIXED_ENTRY | 1u << 9 | 3u << 10 },
    { CHECK_HOST_ASZ_04, LONG, VMCS_vm_exit_controls, FIXED_EXIT },
    { CHECK_GUEST_CR_02, LONG, VMCS_guest_cr0, CR0_NE | CR0_PG },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
static const char *const rule_ids[] = {
#define VMX_CHECK(name, id, area, since, failure, field, applies, rule) id,
#include "cpu/vmx_check.def"
};

static void prepare_link_page(struct room *room)
{
    room_put64(room, ROOM_LINK, VMCS_REVISION | 1ull << 31 | 1);
    room_put64(room, ROOM_LINK, (VMCS_REVISION | 1ull << 31) | 0x1ull << 32); /* as PDPTE: present, reserved bits set */
}

static void check_failure(struct cpu *cpu, const struct breaking *b, enum vmx_result result)
{
    uint64_t reason = 0;
    switch (vmx_check_failure(b->rule)) {
    case FAILURE_ERROR_7:
    case FAILURE_ERROR_8:
        CHECK_EQ(result, VMX_FAIL_VALID);
        CHECK(flag_zf(cpu) && !flag_cf(cpu));
        CHECK_EQ(room_vmread(cpu, VMCS_vm_instruction_error), vmx_check_failure(b->rule) == FAILURE_ERROR_7 ? 7 : 8);
        break;
    default:
        CHECK_EQ(result, VMX_EXITED);
        reason = room_vmread(cpu, VMCS_exit_reason);
        CHECK_EQ(reason, 0x80000021);
        CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE);
        CHECK_EQ(cpu->r[RSP], 0x9000);
        break;
    }
    if (vmx_check_failure(b->rule) == FAILURE_EXIT_33_LINK)
        CHECK_EQ(room_vmread(cpu, VMCS_exit_qualification), 4);
    if (vmx_check_failure(b->rule) == FAILURE_EXIT_33_PDPTE)
        CHECK_EQ(room_vmread(cpu, VMCS_exit_qualification), 2);
    CHECK_EQ(cpu->world, WORLD_PLAIN);
    CHECK_EQ(cpu->vmx.launched, 0);
}

TEST(vmx_good_states_enter)
{
    for (enum good good = LONG; good <= HOST32; good++) {
        struct room *room = room_new("intel-2006");
        struct check_verdict verdict[NR_VMX_CHECKS_PLUS_1 - 1];
        good_vmcs(room, good);
        vmx_check_all(room->cpu, verdict);
        for (unsigned n = 0; n < NR_VMX_CHECKS_PLUS_1 - 1; n++)
            if (verdict[n].verdict == VERDICT_FAILS)
                test_fail(__FILE__, __LINE__, rule_ids[n]);
        vmx_vmlaunch(room->cpu, NULL);
        CHECK_EQ(room->cpu->vmx.entry_failed, CHECK_NO_VMX_RULE);
        CHECK_EQ(room->cpu->vmx.launched, 1);
        room_free(room);
    }
}

static bool names_the_rule(struct cpu *cpu, enum vmx_check_name rule)
{
    struct check_verdict verdict[NR_VMX_CHECKS_PLUS_1 - 1];
    vmx_check_all(cpu, verdict);
    return verdict[rule - 1].verdict == VERDICT_FAILS;
}

TEST(vmx_each_rule_broken_by_one_field)
{
    bool seen[NR_VMX_CHECKS_PLUS_1] = { false };
    for (unsigned k = 0; k < COUNT(breakings); k++) {
        const struct breaking *b = &breakings[k];
        struct room *room = room_new("intel-2006");
        prepare_link_page(room);
        good_vmcs(room, b->good);
        CHECK_EQ(vmx_vmwrite(room->cpu, b->field, b->value), VMX_SUCCEED);
        if (!names_the_rule(room->cpu, b->rule))
            test_fail(__FILE__, __LINE__, rule_ids[b->rule - 1]);
        enum vmx_result result = vmx_vmlaunch(room->cpu, NULL);
        if (room->cpu->vmx.entry_failed != b->rule)
            test_fail_eq(__FILE__, __LINE__, rule_ids[b->rule - 1], room->cpu->vmx.entry_failed, b->rule);
        check_failure(room->cpu, b, result);
        seen[b->rule] = true;
        room_free(room);
    }
    for (unsigned k = 0; k < COUNT(shadowed); k++) {
        struct room *room = room_new("intel-2006");
        good_vmcs(room, shadowed[k].good);
        CHECK_EQ(vmx_vmwrite(room->cpu, shadowed[k].field, shadowed[k].value), VMX_SUCCEED);
        CHECK(names_the_rule(room->cpu, shadowed[k].rule));
        seen[shadowed[k].rule] = true;
        room_free(room);
    }
    /* nothing of the table is left out */
    struct room *room = room_new("intel-2006");
    struct check_verdict verdict[NR_VMX_CHECKS_PLUS_1 - 1];
    good_vmcs(room, LONG);
    vmx_check_all(room->cpu, verdict);
    for (unsigned n = 0; n < NR_VMX_CHECKS_PLUS_1 - 1; n++)
        if (verdict[n].verdict != VERDICT_NOT_HERE && !seen[n + 1])
            test_fail(__FILE__, __LINE__, rule_ids[n]);
    room_free(room);
}

TEST(vmx_msr_load_list)
{
    static const struct { enum vmx_check_name rule; uint32_t index, reserved; uint64_t value;
    } bad[] = {
        { CHECK_MSRLOAD_01, 0xc0000100, 0, 0 },
        { CHECK_MSRLOAD_01, 0xc0000101, 0, 0 },
        { CHECK_MSRLOAD_02, 0x802, 0, 0 },
        { CHECK_MSRLOAD_03, 0x9b, 0, 0 },
        { CHECK_MSRLOAD_04, 0x174, 1, 0 },
        { CHECK_MSRLOAD_05, 0x12345, 0, 0 },
        { CHECK_MSRLOAD_05, 0x175, 0, NON_CANONICAL },
        { CHECK_MSRLOAD_05, 0xc0000080, 0, 1ull << 63 },
    };
    for (unsigned k = 0; k < COUNT(bad); k++) {
        struct room *room = room_new("intel-2006");
        struct cpu *cpu = room->cpu;
        good_vmcs(room, MSR_LISTS);
        SET(entry_msr_load_address, ROOM_MSRS + 32); /* first entry good, second bad */
        SET(entry_msr_load_count, 2);
        room_put64(room, ROOM_MSRS + 32, 0x174);
        room_put64(room, ROOM_MSRS + 40, 0x77);
        room_put64(room, ROOM_MSRS + 48, bad[k].index | (uint64_t)bad[k].reserved << 32);
        room_put64(room, ROOM_MSRS + 56, bad[k].value);
        CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_EXITED);
        CHECK_EQ(cpu->vmx.entry_failed, bad[k].rule);
        CHECK_EQ(room_vmread(cpu, VMCS_exit_reason), 0x80000022);
        CHECK_EQ(room_vmread(cpu, VMCS_exit_qualification), 2);
        CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE);
        CHECK_EQ(cpu->msr[MSR_SYSENTER_CS], 0); /* the exit's list has loaded it again */
        room_free(room);
    }
}
