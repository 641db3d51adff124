/* VMX with secondary controls (the rows VMX_V2): no profile has them until EPT walks, so the tests switch the behaviour
 * on. Their rules, capability MSRs, and the controls that need no EPT. */
#include "room.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct second {
    struct room *room;
    struct profile profile;
};

static struct cpu *second_new(struct second *second, enum good good, const void *code, unsigned bytes)
{
    second->room = room_new("intel-2006");
    struct cpu *cpu = second->room->cpu;
    second->profile = *cpu->profile;
    second->profile.behaves[BEHAVIOUR_VMX_SECOND_GENERATION] = 1;
    cpu->profile = &second->profile;
    room_put(second->room, ROOM_CODE, code, bytes);
    good_vmcs(second->room, good);
    SET(primary_proc_based_controls, GET(primary_proc_based_controls) | VMX_PRI_ACTIVATE_SECONDARY_CONTROLS);
    return cpu;
}

static void enter_and_exit(struct cpu *cpu, uint32_t reason)
{
    cpu->native = 1;
    CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_SUCCEED);
    CHECK_EQ(cpu_run(cpu, 1000), STOP_EXIT);
    CHECK_EQ(GET(exit_reason), reason);
}

#define EPT_UG (VMX_SEC_ENABLE_EPT | VMX_SEC_UNRESTRICTED_GUEST)
#define GOOD_EPTP (0x100000 | 3 << 3 | 6)

static const struct breaking {
    enum vmx_check_name rule;
    uint32_t secondary, entry, exit; /* controls that must be on */
    uint32_t field;
    uint64_t value;
} breakings[] = {
    { CHECK_CTL_EXEC_03, 0, 0, 0, VMCS_secondary_proc_based_controls, 1u << 31 },
    { CHECK_CTL_EXEC_08, 0, 0, 0, VMCS_msr_bitmaps, ROOM_BITMAP_C + 8 },
    { CHECK_CTL_EXEC_12, 0, 0, 0, VMCS_pin_based_controls, 0x16 | VMX_PIN_VIRTUAL_NMIS },
    { CHECK_CTL_EXEC_13, 0, 0, 0, VMCS_primary_proc_based_controls, 0x0401e172 | VMX_PRI_NMI_WINDOW_EXITING },
    { CHECK_CTL_EXEC_22, VMX_SEC_ENABLE_VPID, 0, 0, VMCS_vpid, 0 },
    { CHECK_CTL_EXEC_23, VMX_SEC_ENABLE_EPT, 0, 0, VMCS_ept_pointer, GOOD_EPTP | 1 },
    { CHECK_CTL_EXEC_24, VMX_SEC_ENABLE_EPT, 0, 0, VMCS_ept_pointer, 0x100000 | 6 },
    { CHECK_CTL_EXEC_25, VMX_SEC_ENABLE_EPT, 0, 0, VMCS_ept_pointer, GOOD_EPTP | 1 << 6 },
    { CHECK_CTL_EXEC_26, VMX_SEC_ENABLE_EPT, 0, 0, VMCS_ept_pointer, GOOD_EPTP | 1 << 7 },
    { CHECK_CTL_EXEC_27, VMX_SEC_ENABLE_EPT, 0, 0, VMCS_ept_pointer, GOOD_EPTP | 1 << 8 },
    { CHECK_CTL_EXEC_28, 0, 0, 0, VMCS_secondary_proc_based_controls, VMX_SEC_UNRESTRICTED_GUEST },
    { CHECK_HOST_CR_08, 0, 0, VMX_EXIT_LOAD_IA32_PAT, VMCS_host_ia32_pat, 2 },
    { CHECK_HOST_CR_09, 0, 0, VMX_EXIT_LOAD_IA32_EFER, VMCS_host_ia32_efer, EFER_LMA | EFER_LME | 2 },
    { CHECK_HOST_CR_10, 0, 0, VMX_EXIT_LOAD_IA32_EFER, VMCS_host_ia32_efer, EFER_LME },
    { CHECK_GUEST_CR_13, 0, VMX_ENTRY_LOAD_IA32_PAT, 0, VMCS_guest_ia32_pat, 3ull << 56 },
    { CHECK_GUEST_CR_14, 0, VMX_ENTRY_LOAD_IA32_EFER, 0, VMCS_guest_ia32_efer, EFER_LMA | EFER_LME | 2 },
    { CHECK_GUEST_CR_15, 0, VMX_ENTRY_LOAD_IA32_EFER, 0, VMCS_guest_ia32_efer, 0 },
    { CHECK_GUEST_CR_16, 0, VMX_ENTRY_LOAD_IA32_EFER, 0, VMCS_guest_ia32_efer, EFER_LMA },
    { CHECK_GUEST_SEG_12, EPT_UG, 0, 0, VMCS_guest_cs_access_rights, 0xa091 },
    { CHECK_GUEST_SEG_17, EPT_UG, 0, 0, VMCS_guest_cs_access_rights, 0xa0f3 },
};

TEST(vmx_second_generation_rules)
{
    for (unsigned k = 0; k < COUNT(breakings); k++) {
        const struct breaking *b = &breakings[k];
        struct second second;
        struct cpu *cpu = second_new(&second, LONG, "\xf4", 1);
        SET(vpid, 1);
        SET(ept_pointer, GOOD_EPTP);
        SET(msr_bitmaps, ROOM_BITMAP_C);
        SET(host_ia32_pat, 0x0007040600070406);
        SET(guest_ia32_pat, 0x0007040600070406);
        SET(host_ia32_efer, EFER_LMA | EFER_LME);
        SET(guest_ia32_efer, EFER_LMA | EFER_LME);
        SET(secondary_proc_based_controls, b->secondary);
        SET(vm_entry_controls, GET(vm_entry_controls) | b->entry);
        SET(vm_exit_controls, GET(vm_exit_controls) | b->exit);
        if (b->rule == CHECK_CTL_EXEC_08)
            SET(primary_proc_based_controls, GET(primary_proc_based_controls) | VMX_PRI_USE_MSR_BITMAPS);
        uint16_t field;
        CHECK_EQ(vmx_check_controls(cpu, &field), CHECK_NO_VMX_RULE);
        CHECK_EQ(vmx_check_host_state(cpu, &field), CHECK_NO_VMX_RULE);
        CHECK_EQ(vmx_check_guest_state(cpu, &field), CHECK_NO_VMX_RULE);
        CHECK_EQ(vmx_vmwrite(cpu, b->field, b->value), VMX_SUCCEED);
        CHECK(vmx_vmlaunch(cpu, NULL) != VMX_SUCCEED);
        CHECK_EQ(cpu->vmx.entry_failed, b->rule);
        room_free(second.room);
    }
}

TEST(vmx_second_generation_capabilities)
{
    struct second second;
    struct cpu *cpu = second_new(&second, LONG, "", 0);
    uint64_t value;
    CHECK(read_msr(cpu, 0x480, &value));
    CHECK(value >> 55 & 1); /* TRUE MSRs */
    CHECK(read_msr(cpu, 0x482, &value));
    CHECK((uint32_t)value == 0x0401e172);
    CHECK(read_msr(cpu, 0x48e, &value));
    CHECK_EQ((uint32_t)value, 0x0401e172 & ~(3u << 15)); /* CR3 exiting may be off */
    CHECK(read_msr(cpu, 0x490, &value));
    CHECK_EQ((uint32_t)value, 0x11ff & ~4u);
    CHECK(read_msr(cpu, 0x48b, &value));
    CHECK(value >> 32 & VMX_SEC_ENABLE_VPID);
    CHECK_EQ(GET(ept_pointer), 0); /* the field exists now */
    room_free(second.room);
}

TEST(vmx_cr3_without_exits)
{
    static const uint8_t code[] = { 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0xf4 };
    struct second second;
    struct cpu *cpu = second_new(&second, LONG, code, sizeof code);
    SET(primary_proc_based_controls, vmx_allowed0(cpu, VMX_GROUP_PRI) | VMX_PRI_HLT_EXITING);
    enter_and_exit(cpu, EXIT_REASON_HLT);
    CHECK_EQ(cpu->r[RAX], ROOM_PML4);
    room_free(second.room);
}

TEST(vmx_msr_bitmaps)
{
    static const uint8_t code[] = { 0x0f, 0x32, 0x0f, 0x30, 0xf4 }; /* rdmsr; wrmsr; hlt */
    static const struct { uint32_t index, byte; uint8_t bit; uint32_t reason; } all[] = {
        { 0x174, 0, 0, EXIT_REASON_HLT },
        { 0x174, 0x174 / 8, 1 << 4, EXIT_REASON_RDMSR },
        { 0x174, 0x800 + 0x174 / 8, 1 << 4, EXIT_REASON_WRMSR },
        { 0xc0000081, 0x400 + 0x81 / 8, 1 << 1, EXIT_REASON_RDMSR },
        { 0xc0000081, 0xc00 + 0x81 / 8, 1 << 1, EXIT_REASON_WRMSR },
        { 0xc0010015, 0, 0, EXIT_REASON_RDMSR }, /* in neither range */
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct second second;
        struct cpu *cpu = second_new(&second, LONG, code, sizeof code);
        SET(primary_proc_based_controls, GET(primary_proc_based_controls) | VMX_PRI_USE_MSR_BITMAPS);
        SET(msr_bitmaps, ROOM_BITMAP_C);
        room_put(second.room, ROOM_BITMAP_C + all[k].byte, &all[k].bit, 1);
        cpu->r[RCX] = all[k].index;
        enter_and_exit(cpu, all[k].reason);
        room_free(second.room);
    }
}

TEST(vmx_efer_and_pat_switch)
{
    struct second second;
    struct cpu *cpu = second_new(&second, LONG, "\xf4", 1);
    SET(vm_entry_controls, GET(vm_entry_controls) | VMX_ENTRY_LOAD_IA32_EFER | VMX_ENTRY_LOAD_IA32_PAT);
    SET(vm_exit_controls, GET(vm_exit_controls) | VMX_EXIT_LOAD_IA32_EFER | VMX_EXIT_SAVE_IA32_EFER |
                              VMX_EXIT_LOAD_IA32_PAT | VMX_EXIT_SAVE_IA32_PAT);
    SET(guest_ia32_efer, EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE);
    SET(host_ia32_efer, EFER_LMA | EFER_LME);
    SET(guest_ia32_pat, 0x0606060606060606);
    SET(host_ia32_pat, 0x0007040600070406);
    CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_SUCCEED);
    CHECK_EQ(cpu->msr[MSR_EFER], EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE);
    CHECK_EQ(cpu->msr[MSR_PAT], 0x0606060606060606);
    cpu->msr[MSR_PAT] = 0x0707070707070707;
    cpu->native = 1;
    CHECK_EQ(cpu_run(cpu, 10), STOP_EXIT);
    CHECK_EQ(cpu->msr[MSR_EFER], EFER_LMA | EFER_LME);
    CHECK_EQ(GET(guest_ia32_efer), EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE);
    CHECK_EQ(GET(guest_ia32_pat), 0x0707070707070707);
    CHECK_EQ(cpu->msr[MSR_PAT], 0x0007040600070406);
    CHECK(GET(vm_entry_controls) & VMX_ENTRY_IA_32E_MODE_GUEST);
    room_free(second.room);
}

TEST(vmx_secondary_exits)
{
    static const struct { uint8_t code[4]; uint32_t control, reason; } all[] = {
        { { 0x0f, 0x09 }, VMX_SEC_WBINVD_EXITING, EXIT_REASON_WBINVD },
        { { 0x0f, 0x01, 0x13 }, VMX_SEC_DESCRIPTOR_TABLE_EXITING, EXIT_REASON_GDTR_IDTR_ACCESS },
        { { 0x0f, 0x00, 0xc8 }, VMX_SEC_DESCRIPTOR_TABLE_EXITING, EXIT_REASON_LDTR_TR_ACCESS },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct second second;
        struct cpu *cpu = second_new(&second, LONG, all[k].code, sizeof all[k].code);
        SET(secondary_proc_based_controls, all[k].control);
        enter_and_exit(cpu, all[k].reason);
        room_free(second.room);
    }
}

TEST(vmx_virtual_nmis)
{
    struct second second;
    struct cpu *cpu = second_new(&second, LONG, "\x90\xf4", 2);
    SET(pin_based_controls, 0x16 | VMX_PIN_NMI_EXITING | VMX_PIN_VIRTUAL_NMIS);
    SET(primary_proc_based_controls, GET(primary_proc_based_controls) | VMX_PRI_NMI_WINDOW_EXITING);
    SET(guest_interruptibility_state, BLOCK_NMI); /* the window is closed: HLT exits first */
    enter_and_exit(cpu, EXIT_REASON_HLT);
    SET(guest_interruptibility_state, 0);
    CHECK_EQ(vmx_vmresume(cpu, NULL), VMX_SUCCEED);
    CHECK_EQ(cpu_run(cpu, 10), STOP_EXIT);
    CHECK_EQ(GET(exit_reason), EXIT_REASON_NMI_WINDOW);
    SET(guest_interruptibility_state, BLOCK_NMI); /* injecting an NMI into a guest that blocks them: qualification 3 */
    SET(vm_entry_interruption_info, 0x80000202);
    CHECK_EQ(vmx_vmresume(cpu, NULL), VMX_EXITED);
    CHECK_EQ(cpu->vmx.entry_failed, CHECK_GUEST_INT_08);
    CHECK_EQ(GET(exit_qualification), 3);
    room_free(second.room);
}

TEST(vmx_vpid_keeps_translations)
{
    static const uint8_t code[] = { 0x8b, 0x04, 0x25, 0x00, 0x20, 0x01, 0x00, 0xf4 };
    uint64_t work[2];
    for (unsigned tagged = 0; tagged < 2; tagged++) {
        struct second second;
        struct cpu *cpu = second_new(&second, LONG, code, sizeof code);
        SET(secondary_proc_based_controls, tagged ? VMX_SEC_ENABLE_VPID : 0);
        SET(vpid, 7);
        enter_and_exit(cpu, EXIT_REASON_HLT);
        uint64_t before = cpu->work;
        SET(guest_rip, ROOM_CODE);
        CHECK_EQ(vmx_vmresume(cpu, NULL), VMX_SUCCEED);
        CHECK_EQ(cpu->asid, tagged ? 7 : 0);
        CHECK_EQ(cpu_run(cpu, 10), STOP_EXIT);
        work[tagged] = cpu->work - before;
        room_free(second.room);
    }
    CHECK(work[1] < work[0]); /* no walks the second time */
}
