/* VMCSs that the processor accepts, in the modes a guest of 2006 can be in: see room.h. */
#include "room.h"

static uint32_t required(const struct cpu *cpu, enum vmx_control_group group)
{
    return (uint32_t)vmx_allowed0(cpu, group);
}

static void put_segment(struct cpu *cpu, enum seg seg, uint16_t selector, uint64_t base, uint32_t limit,
                        uint32_t rights)
{
    static const uint16_t first[] = { VMCS_guest_es_selector, VMCS_guest_es_base, VMCS_guest_es_limit,
                                      VMCS_guest_es_access_rights };
    const uint64_t value[] = { selector, base, limit, rights };
    for (unsigned k = 0; k < 4; k++)
        CHECK_EQ(vmx_vmwrite(cpu, first[k] + 2u * seg, value[k]), VMX_SUCCEED);
}

static void put_flat(struct cpu *cpu, uint32_t code, uint32_t data, unsigned dpl)
{
    for (enum seg seg = ES; seg <= GS; seg++)
        put_segment(cpu, seg, (uint16_t)((seg == CS ? 8 : 0x10) | dpl), 0, 0xffffffff,
                    (seg == CS ? code : data) | dpl << 5);
    put_segment(cpu, LDTR, 0x28, 0x1000, 0xff, 0x82);
    put_segment(cpu, TR, 0x18, ROOM_TSS, 0x67, 0x8b);
}

static void put_host(struct cpu *cpu, bool long_mode)
{
    SET(host_cr0, cpu->cr0);
    SET(host_cr3, cpu->cr3);
    SET(host_cr4, cpu->cr4);
    for (unsigned encoding = VMCS_host_es_selector; encoding <= VMCS_host_gs_selector; encoding += 2)
        CHECK_EQ(vmx_vmwrite(cpu, encoding, encoding == VMCS_host_cs_selector ? 8 : 0x10), VMX_SUCCEED);
    SET(host_tr_selector, 0x18);
    SET(host_tr_base, ROOM_TSS);
    SET(host_gdtr_base, ROOM_GDT);
    SET(host_idtr_base, ROOM_IDT);
    SET(host_rsp, 0x9000);
    SET(host_rip, ROOM_HOST_CODE);
    SET(vm_exit_controls, required(cpu, VMX_GROUP_EXIT) | (long_mode ? VMX_EXIT_HOST_ADDRESS_SPACE_SIZE : 0));
}

static void put_guest(struct cpu *cpu, bool long_mode)
{
    SET(pin_based_controls, required(cpu, VMX_GROUP_PIN));
    SET(primary_proc_based_controls, required(cpu, VMX_GROUP_PRI) | VMX_PRI_HLT_EXITING);
    SET(vm_entry_controls, required(cpu, VMX_GROUP_ENTRY) | (long_mode ? VMX_ENTRY_IA_32E_MODE_GUEST : 0));
    SET(vmcs_link_pointer, UINT64_MAX);
    SET(guest_cr0, CR0_PE | CR0_NE | CR0_ET | CR0_PG);
    SET(guest_cr3, long_mode ? ROOM_PML4 : ROOM_PD32);
    SET(guest_cr4, CR4_VMXE | (long_mode ? CR4_PAE : CR4_PSE));
    SET(guest_dr7, 0x400);
    SET(guest_rsp, ROOM_STACK);
    SET(guest_rip, ROOM_CODE);
    SET(guest_rflags, FLAG_1);
    SET(guest_gdtr_base, ROOM_GDT);
    SET(guest_gdtr_limit, 0xff);
    SET(guest_idtr_base, ROOM_IDT);
    SET(guest_idtr_limit, 0xfff);
    put_flat(cpu, long_mode ? 0xa09b : 0xc09b, 0xc093, 0);
}

static void inject(struct cpu *cpu, unsigned vector, enum event_type type, uint32_t more)
{
    SET(vm_entry_interruption_info, vector | (uint32_t)type << 8 | more | EVENT_VALID);
}

static void put_msr(struct room *room, uint32_t index, uint32_t reserved, uint64_t value)
{
    room_put64(room, ROOM_MSRS, index | (uint64_t)reserved << 32);
    room_put64(room, ROOM_MSRS + 8, value);
}

void good_vmcs(struct room *room, enum good good)
{
    struct cpu *cpu = room->cpu;
    bool long_mode = good != PROT && good != PAE && good != VM86 && good != HOST32;
    room_host(room, good != HOST32);
    room_put64(room, ROOM_VMXON, VMCS_REVISION);
    room_put64(room, ROOM_VMCS, VMCS_REVISION);
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON), VMX_SUCCEED);
    CHECK_EQ(vmx_vmclear(cpu, ROOM_VMCS), VMX_SUCCEED);
    CHECK_EQ(vmx_vmptrld(cpu, ROOM_VMCS), VMX_SUCCEED);
    put_host(cpu, good != HOST32);
    put_guest(cpu, long_mode);
    switch (good) {
    case PAE:
        SET(guest_cr3, ROOM_PAE);
        SET(guest_cr4, CR4_VMXE | CR4_PAE);
        break;
    case VM86:
        SET(guest_cr4, CR4_VMXE | CR4_PAE);
        SET(guest_cr3, ROOM_PAE);
        SET(guest_rflags, FLAG_1 | FLAG_VM | FLAG_IOPL);
        for (enum seg seg = ES; seg <= GS; seg++)
            put_segment(cpu, seg, ROOM_CODE >> 4, ROOM_CODE, 0xffff, 0xf3);
        SET(guest_rip, 0);
        break;
    case RING3: put_flat(cpu, 0xa09b, 0xc093, 3); break;
    case CONFORMING: put_flat(cpu, 0xa09f, 0xc093, 0); break;
    case IO_BITMAPS:
        SET(primary_proc_based_controls, required(cpu, VMX_GROUP_PRI) | VMX_PRI_HLT_EXITING | VMX_PRI_USE_IO_BITMAPS);
        SET(io_bitmap_a, ROOM_BITMAP_A);
        SET(io_bitmap_b, ROOM_BITMAP_B);
        break;
    case MSR_LISTS:
        put_msr(room, 0x174, 0, 0);
        SET(exit_msr_store_address, ROOM_MSRS + 16);
        SET(exit_msr_load_address, ROOM_MSRS);
        SET(entry_msr_load_address, ROOM_MSRS);
        room_put64(room, ROOM_MSRS + 16, 0x175);
        SET(exit_msr_store_count, 1);
        SET(exit_msr_load_count, 1);
        SET(entry_msr_load_count, 1);
        break;
    case STI_SHADOW:
    case STEP_SHADOW:
        SET(guest_rflags, FLAG_1 | FLAG_IF | (good == STEP_SHADOW ? FLAG_TF : 0));
        SET(guest_interruptibility_state, BLOCK_STI);
        SET(guest_pending_dbg_exceptions, good == STEP_SHADOW ? DR6_BS : 0);
        break;
    case INJECT_INT:
        SET(guest_rflags, FLAG_1 | FLAG_IF);
        inject(cpu, 0x20, TYPE_EXTERNAL, 0);
        break;
    case INJECT_NMI:
        SET(guest_rflags, FLAG_1 | FLAG_IF);
        inject(cpu, 2, TYPE_NMI, 0);
        break;
    case INJECT_UD: inject(cpu, VEC_UD, TYPE_HARDWARE_EXCEPTION, 0); break;
    case INJECT_GP: inject(cpu, VEC_GP, TYPE_HARDWARE_EXCEPTION, EVENT_HAS_ERROR); break;
    case INJECT_SOFT:
        inject(cpu, 0x80, TYPE_SOFTWARE_INTERRUPT, 0);
        SET(vm_entry_instruction_length, 2);
        break;
    default: break;
    }
}
