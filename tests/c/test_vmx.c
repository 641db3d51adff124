/* VMX as instructions and as a world switch: VMfail with its numbers, entries and exits of a few bytes of guest code
 * with their reasons, qualifications and lengths, injection, vectoring, windows, masks and shadows; and a hypervisor
 * that is itself guest code. */
#include "room.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Runs the guest from the good VMCS until it exits. */
static enum cpu_stop run_guest(struct cpu *cpu)
{
    cpu->native = 1;
    return cpu_run(cpu, 1000);
}

static struct room *guest_of(enum good good, const void *code, unsigned bytes)
{
    struct room *room = room_new("intel-2006");
    room_put(room, ROOM_CODE, code, bytes);
    good_vmcs(room, good);
    return room;
}

static void enter(struct cpu *cpu) { CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_SUCCEED); }

static void expect_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification, unsigned length, uint64_t rip)
{
    CHECK_EQ(cpu->world, WORLD_PLAIN);
    CHECK_EQ(GET(exit_reason), reason);
    CHECK_EQ(GET(exit_qualification), qualification);
    CHECK_EQ(GET(exit_instruction_length), length);
    CHECK_EQ(GET(guest_rip), rip);
    CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE);
}

#define PRIMARY(more) SET(primary_proc_based_controls, vmx_allowed0(cpu, VMX_GROUP_PRI) | (more))

/* ---- VMXON to VMWRITE: every VMfail ---------------------------------------------------------- */

TEST(vmx_instruction_failures)
{
    struct room *room = room_new("intel-2006");
    struct cpu *cpu = room->cpu;
    uint64_t value;
    CHECK_EQ(vmx_vmclear(cpu, ROOM_VMCS), VMX_FAULT); /* not in VMX operation */
    CHECK_EQ(cpu->fault.vector, VEC_UD);
    drop_fault(cpu);
    room_put64(room, ROOM_VMXON, VMCS_REVISION + 1);
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON), VMX_FAIL_INVALID); /* wrong revision */
    CHECK(flag_cf(cpu));
    room_put64(room, ROOM_VMXON, VMCS_REVISION);
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON + 8), VMX_FAIL_INVALID);
    cpu->cr4 &= ~(uint64_t)CR4_VMXE;
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON), VMX_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_UD);
    drop_fault(cpu);
    cpu->cr4 |= CR4_VMXE;
    cpu->cr0 &= ~(uint64_t)CR0_NE;
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON), VMX_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_GP);
    drop_fault(cpu);
    cpu->cr0 |= CR0_NE;
    CHECK_EQ(vmx_vmxon(cpu, ROOM_VMXON), VMX_SUCCEED);
    CHECK_EQ(vmx_vmread(cpu, VMCS_guest_rip, &value), VMX_FAIL_INVALID); /* no current VMCS */
    CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_FAIL_INVALID);
    CHECK_EQ(vmx_vmptrst(cpu, &value), VMX_SUCCEED);
    CHECK_EQ(value, UINT64_MAX);
    room_put64(room, ROOM_VMCS, VMCS_REVISION);
    CHECK_EQ(vmx_vmclear(cpu, ROOM_VMCS), VMX_SUCCEED);
    CHECK_EQ(vmx_vmptrld(cpu, ROOM_VMCS), VMX_SUCCEED);

#define FAILS(call, error)                        \
    do {                                          \
        CHECK_EQ(call, VMX_FAIL_VALID);           \
        CHECK(flag_zf(cpu) && !flag_cf(cpu));     \
        CHECK_EQ(GET(vm_instruction_error), error); \
    } while (0)
    FAILS(vmx_vmcall(cpu), 1);
    FAILS(vmx_vmclear(cpu, ROOM_VMCS + 1), 2);
    FAILS(vmx_vmclear(cpu, 1ull << 36), 2);
    FAILS(vmx_vmclear(cpu, ROOM_VMXON), 3);
    FAILS(vmx_vmresume(cpu, NULL), 5);
    FAILS(vmx_vmptrld(cpu, ROOM_VMCS + 1), 9);
    FAILS(vmx_vmptrld(cpu, ROOM_VMXON), 10);
    FAILS(vmx_vmptrld(cpu, ROOM_CODE), 11);
    FAILS(vmx_vmread(cpu, 0x6900, &value), 12);            /* no such index */
    FAILS(vmx_vmread(cpu, VMCS_guest_rip | 1, &value), 12); /* only 64-bit fields have an upper half */
    FAILS(vmx_vmread(cpu, VMCS_ept_pointer, &value), 12);   /* not on this processor */
    FAILS(vmx_vmread(cpu, VMCS_secondary_proc_based_controls, &value), 12);
    FAILS(vmx_vmwrite(cpu, 1u << 15, 0), 12);
    FAILS(vmx_vmwrite(cpu, VMCS_exit_reason, 0), 13);
    FAILS(vmx_vmxon(cpu, ROOM_VMXON), 15);
    cpu->interruptibility = BLOCK_MOV_SS;
    FAILS(vmx_vmlaunch(cpu, NULL), 26);
    CHECK_EQ(cpu->vmx.entry_failed, CHECK_INS_06);
    CHECK_EQ(vmx_vmxoff(cpu), VMX_SUCCEED);
    CHECK_EQ(cpu->vmx.on, 0);
    room_free(room);
}

TEST(vmx_launch_state)
{
    static const uint8_t hlt[] = { 0xf4 };
    struct room *room = guest_of(LONG, hlt, sizeof hlt);
    struct cpu *cpu = room->cpu;
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    FAILS(vmx_vmlaunch(cpu, NULL), 4);
    CHECK_EQ(vmx_vmresume(cpu, NULL), VMX_SUCCEED);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(vmx_vmclear(cpu, ROOM_VMCS), VMX_SUCCEED); /* clear, and no longer current */
    CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_FAIL_INVALID);
    CHECK_EQ(vmx_vmptrld(cpu, ROOM_VMCS), VMX_SUCCEED);
    CHECK_EQ(GET(guest_rip), ROOM_CODE); /* the fields have been in memory meanwhile */
    enter(cpu);
    room_free(room);
}

TEST(vmcs_field_widths_and_halves)
{
    struct room *room = guest_of(LONG, "", 0);
    struct cpu *cpu = room->cpu;
    SET(guest_es_selector, 0x12345678);
    CHECK_EQ(GET(guest_es_selector), 0x5678);
    SET(guest_es_limit, 0x123456789abcdef0);
    CHECK_EQ(GET(guest_es_limit), 0x9abcdef0);
    SET(tsc_offset, 0x1111222233334444);
    CHECK_EQ(room_vmread(cpu, VMCS_tsc_offset | 1), 0x11112222);
    CHECK_EQ(vmx_vmwrite(cpu, VMCS_tsc_offset | 1, 0xaaaabbbb), VMX_SUCCEED);
    CHECK_EQ(GET(tsc_offset), 0xaaaabbbb33334444);
    SET(guest_rip, 0xfedcba9876543210);
    CHECK_EQ(GET(guest_rip), 0xfedcba9876543210);
    /* two VMCSs: each keeps its own */
    room_put64(room, ROOM_LINK, VMCS_REVISION);
    CHECK_EQ(vmx_vmclear(cpu, ROOM_LINK), VMX_SUCCEED);
    CHECK_EQ(vmx_vmptrld(cpu, ROOM_LINK), VMX_SUCCEED);
    SET(guest_rip, 1);
    CHECK_EQ(vmx_vmptrld(cpu, ROOM_VMCS), VMX_SUCCEED);
    CHECK_EQ(GET(guest_rip), 0xfedcba9876543210);
    room_free(room);
}

TEST(vmx_capability_msrs_of_2006)
{
    static const struct { uint32_t index; uint64_t value;
    } known[] = {
        { 0x481, 0x0000001f00000016 },
        { 0x482, 0x6799fffe0401e172 },
        { 0x483, 0x0003efff00036dff },
        { 0x484, 0x00001fff000011ff },
        { 0x486, 0x80000021 },
        { 0x487, 0xffffffff },
        { 0x488, 0x2000 },
    };
    static const uint32_t later[] = { 0x48b, 0x48c, 0x48d, 0x48e, 0x48f, 0x490, 0x492 };
    struct room *room = room_new("intel-2006");
    uint64_t value;
    for (unsigned k = 0; k < COUNT(known); k++) {
        CHECK(read_msr(room->cpu, known[k].index, &value));
        CHECK_EQ(value, known[k].value);
    }
    for (unsigned k = 0; k < COUNT(later); k++)
        CHECK(!read_msr(room->cpu, later[k], &value));
    CHECK(read_msr(room->cpu, 0x480, &value));
    CHECK_EQ(value & 0x7fffffff, VMCS_REVISION);
    CHECK(!write_msr(room->cpu, 0x480, 0));
    room_free(room);
    struct room *amd = room_new("amd-2006");
    CHECK(!read_msr(amd->cpu, 0x480, &value));
    room_free(amd);
}

/* ---- the world switch ------------------------------------------------------------------------ */

TEST(vmx_world_switch_there_and_back)
{
    static const uint8_t code[] = { 0x48, 0xff, 0xc0,  /* inc rax */
                                    0x0f, 0xa2 };      /* cpuid */
    struct room *room = guest_of(LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    struct guest_gprs gprs = { .r = { [RAX] = 41, [R15] = 0x1515 } };
    SET(guest_rsp, 0x9990);
    SET(guest_rflags, FLAG_1 | FLAG_CF | FLAG_IOPL);
    SET(guest_fs_base, 0x1234000);
    SET(guest_ia32_sysenter_eip, 0x777000);
    SET(host_fs_base, 0x5555000);
    SET(host_ia32_sysenter_eip, 0x888000);
    SET(host_rsp, 0x9000);
    CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
    CHECK_EQ(cpu->world, WORLD_VMX_GUEST);
    CHECK_EQ(cpu->r[RSP], 0x9990);
    CHECK_EQ(cpu->seg[FS].base, 0x1234000);
    CHECK_EQ(cpu->msr[MSR_SYSENTER_EIP], 0x777000);
    CHECK(flag_cf(cpu));
    uint64_t before = cpu->retired;
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(cpu->retired, before + 1);
    expect_exit(cpu, EXIT_REASON_CPUID, 0, 2, ROOM_CODE + 3);
    store_guest_gprs(cpu, &gprs);
    CHECK_EQ(gprs.r[RAX], 42);
    CHECK_EQ(gprs.r[R15], 0x1515);
    CHECK_EQ(GET(guest_rsp), 0x9990);
    CHECK_EQ(GET(guest_rflags) & ~(uint64_t)FLAGS_STATUS, FLAG_1 | FLAG_IOPL);
    CHECK(GET(guest_rflags) & FLAG_CF); /* INC keeps it */
    CHECK_EQ(GET(guest_cs_access_rights), 0xa09b);
    /* the host as the chapter says */
    CHECK_EQ(cpu->r[RSP], 0x9000);
    CHECK_EQ(get_rflags(cpu), FLAG_1);
    CHECK_EQ(cpu->seg[FS].base, 0x5555000);
    CHECK_EQ(cpu->msr[MSR_SYSENTER_EIP], 0x888000);
    CHECK_EQ(cpu->seg[CS].attr, SEG_P | SEG_S | SEG_G | SEG_L | 11);
    CHECK_EQ(cpu->seg[TR].limit, 0x67);
    CHECK_EQ(cpu->seg[LDTR].attr, SEG_UNUSABLE);
    CHECK_EQ(cpu->gdtr.limit, 0xffff);
    CHECK_EQ(cpu->dr[7], 0x400);
    CHECK_EQ(cpu->cpl, 0);
    room_free(room);
}

TEST(vmx_guest_modes_run)
{
    static const uint8_t code[] = {
        0xb8, 0x34, 0x12, 0x00, 0x00, 0xf4
    }; /* mov eax, 1234h; hlt. In 16 bits: add [bx+si], al before it */
    static const enum good modes[] = { LONG, PROT, PAE, RING3, CONFORMING };
    for (unsigned k = 0; k < COUNT(modes); k++) {
        struct room *room = guest_of(modes[k], code, sizeof code);
        struct cpu *cpu = room->cpu;
        enter(cpu);
        if (modes[k] != RING3) {
            CHECK_EQ(run_guest(cpu), STOP_EXIT);
            CHECK_EQ(cpu->r[RAX], 0x1234);
            expect_exit(cpu, EXIT_REASON_HLT, 0, 1, ROOM_CODE + 5);
        } else {
            CHECK_EQ(cpu->cpl, 3);
        }
        room_free(room);
    }
}

/* A program in virtual-8086 mode, as KVM ran real mode: CLI is allowed at IOPL 3, HLT is #GP and exits by the bitmap.
 */
TEST(vmx_vm86_guest)
{
    static const uint8_t code[] = { 0xb8, 0x34, 0x12, 0xfa, 0xf4 };
    struct room *room = guest_of(VM86, code, sizeof code);
    struct cpu *cpu = room->cpu;
    SET(exception_bitmap, 0xffffffff);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_reason), EXIT_REASON_EXCEPTION_OR_NMI);
    CHECK_EQ(GET(exit_interruption_info), 0x80000b0d);
    CHECK_EQ(GET(guest_rip), 4);
    CHECK_EQ(cpu->r[RAX] & 0xffff, 0x1234);
    CHECK_EQ(GET(guest_ss_access_rights), 0xf3);
    CHECK_EQ(vmx_vmresume(cpu, NULL), VMX_SUCCEED); /* what was saved may enter again */
    room_free(room);
}

/* ---- instructions that exit ------------------------------------------------------------------ */

static const struct insn_exit {
    const char *what;
    uint8_t code[10];
    uint32_t primary;      /* control that makes it exit; 0: always */
    uint32_t reason;
    uint64_t qualification;
    unsigned length;
} insn_exits[] = {
    { "cpuid", { 0x0f, 0xa2 }, 0, EXIT_REASON_CPUID, 0, 2 },
    { "hlt", { 0xf4 }, VMX_PRI_HLT_EXITING, EXIT_REASON_HLT, 0, 1 },
    { "invd", { 0x0f, 0x08 }, 0, EXIT_REASON_INVD, 0, 2 },
    { "rdtsc", { 0x0f, 0x31 }, VMX_PRI_RDTSC_EXITING, EXIT_REASON_RDTSC, 0, 2 },
    { "rdpmc", { 0x0f, 0x33 }, VMX_PRI_RDPMC_EXITING, EXIT_REASON_RDPMC, 0, 2 },
    { "monitor", { 0x0f, 0x01, 0xc8 }, VMX_PRI_MONITOR_EXITING, EXIT_REASON_MONITOR, 0, 3 },
    { "mwait", { 0x0f, 0x01, 0xc9 }, VMX_PRI_MWAIT_EXITING, EXIT_REASON_MWAIT, 0, 3 },
    { "pause", { 0xf3, 0x90 }, VMX_PRI_PAUSE_EXITING, EXIT_REASON_PAUSE, 0, 2 },
    { "invlpg [rbx]", { 0x0f, 0x01, 0x3b }, VMX_PRI_INVLPG_EXITING, EXIT_REASON_INVLPG, 0x4321, 3 },
    { "rdmsr", { 0x0f, 0x32 }, 0, EXIT_REASON_RDMSR, 0, 2 },
    { "wrmsr", { 0x0f, 0x30 }, 0, EXIT_REASON_WRMSR, 0, 2 },
    { "mov cr3, rsi", { 0x0f, 0x22, 0xde }, VMX_PRI_CR3_LOAD_EXITING, EXIT_REASON_CR_ACCESS, 0x603, 3 },
    { "mov r9, cr3", { 0x41, 0x0f, 0x20, 0xd9 }, VMX_PRI_CR3_STORE_EXITING, EXIT_REASON_CR_ACCESS, 0x913, 4 },
    { "mov cr8, rax", { 0x44, 0x0f, 0x22, 0xc0 }, VMX_PRI_CR8_LOAD_EXITING, EXIT_REASON_CR_ACCESS, 0x008, 4 },
    { "mov rbp, cr8", { 0x44, 0x0f, 0x20, 0xc5 }, VMX_PRI_CR8_STORE_EXITING, EXIT_REASON_CR_ACCESS, 0x518, 4 },
    { "mov dr7, rdx", { 0x0f, 0x23, 0xfa }, VMX_PRI_MOV_DR_EXITING, EXIT_REASON_DR_ACCESS, 0x207, 3 },
    { "mov rcx, dr6", { 0x0f, 0x21, 0xf1 }, VMX_PRI_MOV_DR_EXITING, EXIT_REASON_DR_ACCESS, 0x116, 3 },
    { "in al, 60h", { 0xe4, 0x60 }, VMX_PRI_UNCONDITIONAL_IO_EXITING, EXIT_REASON_IO_INSTRUCTION, 0x600048, 2 },
    { "out dx, eax", { 0xef }, VMX_PRI_UNCONDITIONAL_IO_EXITING, EXIT_REASON_IO_INSTRUCTION, 0x3f80003, 1 },
    { "rep outsb", { 0xf3, 0x6e }, VMX_PRI_UNCONDITIONAL_IO_EXITING, EXIT_REASON_IO_INSTRUCTION, 0x3f80030, 2 },
    { "insw", { 0x66, 0x6d }, VMX_PRI_UNCONDITIONAL_IO_EXITING, EXIT_REASON_IO_INSTRUCTION, 0x3f80019, 2 },
    { "vmcall", { 0x0f, 0x01, 0xc1 }, 0, EXIT_REASON_VMCALL, 0, 3 },
    { "vmlaunch", { 0x0f, 0x01, 0xc2 }, 0, EXIT_REASON_VMLAUNCH, 0, 3 },
    { "vmresume", { 0x0f, 0x01, 0xc3 }, 0, EXIT_REASON_VMRESUME, 0, 3 },
    { "vmxoff", { 0x0f, 0x01, 0xc4 }, 0, EXIT_REASON_VMXOFF, 0, 3 },
    { "vmxon [rbx+16]", { 0xf3, 0x0f, 0xc7, 0x73, 0x10 }, 0, EXIT_REASON_VMXON, 16, 5 },
    { "vmclear [rbx-8]", { 0x66, 0x0f, 0xc7, 0x73, 0xf8 }, 0, EXIT_REASON_VMCLEAR, (uint64_t)-8, 5 },
    { "vmptrld [rbx]", { 0x0f, 0xc7, 0x33 }, 0, EXIT_REASON_VMPTRLD, 0, 3 },
    { "vmptrst [rbx]", { 0x0f, 0xc7, 0x3b }, 0, EXIT_REASON_VMPTRST, 0, 3 },
    { "vmread rax, rcx", { 0x0f, 0x78, 0xc8 }, 0, EXIT_REASON_VMREAD, 0, 3 },
    { "vmwrite rcx, [rip]", { 0x0f, 0x79, 0x0d, 0, 0, 0, 0 }, 0, EXIT_REASON_VMWRITE, ROOM_CODE + 8, 7 },
};

TEST(vmx_instructions_exit_with_their_details)
{
    for (unsigned k = 0; k < COUNT(insn_exits); k++) {
        const struct insn_exit *e = &insn_exits[k];
        uint8_t code[11] = { 0x90 }; /* one NOP before it: exits inside a block */
        memcpy(code + 1, e->code, sizeof e->code);
        struct room *room = guest_of(LONG, code, sizeof code);
        struct cpu *cpu = room->cpu;
        struct guest_gprs gprs = { .r = { [RBX] = 0x4321, [RDX] = 0x3f8, [RCX] = 1, [RSI] = 0x1000, [RDI] = 0x2000 } };
        PRIMARY(e->primary);
        CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        if (GET(exit_reason) != e->reason || GET(exit_qualification) != e->qualification ||
            GET(exit_instruction_length) != e->length)
            test_fail_eq(__FILE__, __LINE__, e->what, GET(exit_qualification), e->qualification);
        CHECK_EQ(GET(guest_rip), ROOM_CODE + 1);
        room_free(room);
    }
}

TEST(vmx_instruction_information)
{
    static const uint8_t vmread[] = { 0x0f, 0x78, 0xc8 };             /* vmread rax, rcx */
    static const uint8_t vmptrld[] = { 0x0f, 0xc7, 0x74, 0x8b, 0x10 }; /* vmptrld [rbx + rcx*4 + 16] */
    static const uint8_t outs[] = { 0x65, 0x6e };                     /* gs outsb */
    const struct { const uint8_t *code; unsigned bytes; uint32_t want; } all[] = {
        { vmread, sizeof vmread, 1u << 28 | 1u << 10 },
        { vmptrld, sizeof vmptrld, 2 | 2u << 7 | 3u << 15 | 1u << 18 | 3u << 23 | 6u << 28 },
        { outs, sizeof outs, 2u << 7 | 5u << 15 },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct room *room = guest_of(LONG, all[k].code, all[k].bytes);
        struct cpu *cpu = room->cpu;
        PRIMARY(VMX_PRI_UNCONDITIONAL_IO_EXITING);
        enter(cpu);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        CHECK_EQ(GET(exit_instruction_info) & (k == 1 ? 0x0fffffff : 0xffffffff),
                 all[k].want & (k == 1 ? 0x0fffffff : 0xffffffff));
        room_free(room);
    }
}

TEST(vmx_instructions_do_not_exit_without_their_control)
{
    for (unsigned k = 0; k < COUNT(insn_exits); k++) {
        const struct insn_exit *e = &insn_exits[k];
        bool is_default1 = e->primary == VMX_PRI_CR3_LOAD_EXITING || e->primary == VMX_PRI_CR3_STORE_EXITING;
        bool no_counters = e->primary == VMX_PRI_RDPMC_EXITING; /* #GP */
        if (!e->primary || is_default1 || no_counters || e->primary == VMX_PRI_HLT_EXITING ||
            e->primary == VMX_PRI_UNCONDITIONAL_IO_EXITING)
            continue;
        uint8_t code[12] = { 0 };
        memcpy(code, e->code, sizeof e->code);
        code[e->length] = 0x0f, code[e->length + 1] = 0xa2; /* cpuid ends it */
        struct room *room = guest_of(LONG, code, sizeof code);
        struct cpu *cpu = room->cpu;
        struct guest_gprs gprs = { .r = { [RBX] = 0x4321, [RDX] = 0x400 } };
        PRIMARY(0);
        CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        if (GET(exit_reason) != EXIT_REASON_CPUID)
            test_fail_eq(__FILE__, __LINE__, e->what, GET(exit_reason), EXIT_REASON_CPUID);
        room_free(room);
    }
}

TEST(vmx_io_bitmaps)
{
    static const struct { uint16_t port; uint8_t opcode, bits_at; bool exits;
    } all[] = {
        { 0x60, 0xec, 0x60, true },
        { 0x61, 0xec, 0x60, false },
        { 0x5f, 0xed, 0x60, true } /* in eax: 5F..62 */,
        { 0x61, 0xed, 0x60, false },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        uint8_t code[] = { all[k].opcode, 0xf4 }, bit = (uint8_t)(1 << (all[k].bits_at & 7));
        struct room *room = guest_of(IO_BITMAPS, code, sizeof code);
        struct cpu *cpu = room->cpu;
        struct guest_gprs gprs = { .r = { [RDX] = all[k].port } };
        room_put(room, ROOM_BITMAP_A + all[k].bits_at / 8, &bit, 1);
        CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        CHECK_EQ(GET(exit_reason), all[k].exits ? EXIT_REASON_IO_INSTRUCTION : EXIT_REASON_HLT);
        room_free(room);
    }
    /* a wrap past FFFFh exits whatever the bitmaps say */
    static const uint8_t wraps[] = { 0xed, 0xf4 };
    struct room *room = guest_of(IO_BITMAPS, wraps, sizeof wraps);
    struct guest_gprs gprs = { .r = { [RDX] = 0xfffe } };
    struct cpu *cpu = room->cpu;
    CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_reason), EXIT_REASON_IO_INSTRUCTION);
    room_free(room);
}

/* ---- control registers: masks and shadows ---------------------------------------------------- */

TEST(vmx_cr0_mask_and_shadow)
{
    static const uint8_t code[] = { 0x0f, 0x20, 0xc0,       /* mov rax, cr0: sees the shadow */
                                    0x0f, 0x06,             /* clts: TS owned and 0 in the shadow: nothing */
                                    0x48, 0x83, 0xf0, 0x02, /* xor rax, MP: not owned */
                                    0x0f, 0x22, 0xc0,       /* mov cr0, rax */
                                    0x48, 0x83, 0xf0, 0x08, /* xor rax, TS: owned */
                                    0x0f, 0x22, 0xc0 };
    struct room *room = guest_of(LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    SET(guest_cr0, CR0_PE | CR0_NE | CR0_ET | CR0_PG | CR0_TS);
    SET(cr0_guest_host_mask, CR0_PE | CR0_NE | CR0_PG | CR0_TS | CR0_WP);
    SET(cr0_read_shadow, CR0_PE | CR0_PG | CR0_WP);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_CR_ACCESS, 0, 3, ROOM_CODE + 16);
    CHECK_EQ(cpu->r[RAX], CR0_PE | CR0_ET | CR0_PG | CR0_WP | CR0_MP | CR0_TS);
    CHECK_EQ(GET(guest_cr0), CR0_PE | CR0_NE | CR0_ET | CR0_PG | CR0_TS | CR0_MP); /* TS kept, WP not set, MP written */
    room_free(room);
}

TEST(vmx_clts_lmsw_and_cr3_targets)
{
    static const uint8_t clts[] = { 0x0f, 0x06 };
    static const uint8_t lmsw[] = { 0x66, 0xb8, 0x0b, 0x00, 0x0f, 0x01, 0xf0 }; /* mov ax, 0bh; lmsw ax */
    static const uint8_t cr3[] = { 0x0f, 0x22, 0xd8, 0xf4 };
    struct room *room = guest_of(LONG, clts, sizeof clts);
    struct cpu *cpu = room->cpu;
    SET(cr0_guest_host_mask, CR0_TS);
    SET(cr0_read_shadow, CR0_TS);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_CR_ACCESS, 2 << 4, 2, ROOM_CODE);
    room_free(room);

    room = guest_of(LONG, lmsw, sizeof lmsw);
    cpu = room->cpu;
    SET(cr0_guest_host_mask, CR0_TS);
    SET(cr0_read_shadow, 0);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_CR_ACCESS, 3 << 4 | 0xb0000, 3, ROOM_CODE + 4);
    room_free(room);

    room = guest_of(LONG, cr3, sizeof cr3);
    cpu = room->cpu;
    const struct guest_gprs gprs = { .r = { [RAX] = ROOM_PML4 } };
    SET(cr3_target_count, 2);
    SET(cr3_target1, ROOM_PML4);
    CHECK_EQ(vmx_vmlaunch(cpu, &gprs), VMX_SUCCEED);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_HLT, 0, 1, ROOM_CODE + 3);
    room_free(room);
}

/* ---- exceptions, injection, vectoring -------------------------------------------------------- */

static void put_gate(struct room *room, unsigned vector, uint64_t handler)
{
    room_put64(room, ROOM_IDT + vector * 16,
               (handler & 0xffff) | 8ull << 16 | 0x8eull << 40 | (handler & 0xffff0000) << 32);
    room_put64(room, ROOM_IDT + vector * 16 + 8, 0);
    room_put64(room, ROOM_GDT + 8, 0x00a09b000000ffff | 0x000f000000000000);
}

TEST(vmx_page_fault_mask_and_match)
{
    static const uint8_t load[] = { 0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x40, 0x00, 0xf4 }; /* mov rax, [400000h] */
    const struct { uint32_t bitmap, mask, match; bool exits; } all[] = {
        { 1u << VEC_PF, 0, 0, true }, { 0, 0, 0, false }, { 1u << VEC_PF, PF_W, PF_W, false }, { 0, PF_W, PF_W, true },
        { 1u << VEC_PF, PF_W, 0, true }, { 0, 0, 1, true },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct room *room = guest_of(LONG, load, sizeof load);
        struct cpu *cpu = room->cpu;
        static const uint8_t handler[] = { 0x0f, 0xa2 };
        room_put(room, ROOM_HANDLER, handler, sizeof handler);
        put_gate(room, VEC_PF, ROOM_HANDLER);
        SET(exception_bitmap, all[k].bitmap);
        SET(page_fault_error_code_mask, all[k].mask);
        SET(page_fault_error_code_match, all[k].match);
        cpu->cr2 = 0x1111;
        enter(cpu);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        if (all[k].exits) {
            CHECK_EQ(GET(exit_reason), EXIT_REASON_EXCEPTION_OR_NMI);
            CHECK_EQ(GET(exit_qualification), 0x400000);
            CHECK_EQ(GET(exit_interruption_info), 0x80000b0e);
            CHECK_EQ(GET(exit_interruption_error_code), 0);
            CHECK_EQ(GET(guest_rip), ROOM_CODE);
            CHECK(GET(guest_rflags) & FLAG_RF);
            CHECK_EQ(cpu->cr2, 0x1111); /* the exit does not write it */
        } else {
            CHECK_EQ(GET(exit_reason), EXIT_REASON_CPUID);
            CHECK_EQ(cpu->cr2, 0x400000);
        }
        CHECK_EQ(GET(idt_vectoring_info), 0);
        room_free(room);
    }
}

TEST(vmx_injection_reaches_the_handler)
{
    const struct { enum good good; unsigned vector, error_bytes; uint64_t pushed_rip; } all[] = {
        { INJECT_INT, 0x20, 0, ROOM_CODE }, { INJECT_NMI, 2, 0, ROOM_CODE }, { INJECT_UD, VEC_UD, 0, ROOM_CODE },
        { INJECT_GP, VEC_GP, 8, ROOM_CODE }, { INJECT_SOFT, 0x80, 0, ROOM_CODE + 2 },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        static const uint8_t nops[] = { 0x90, 0x90 }, handler[] = { 0x0f, 0xa2 };
        struct room *room = room_new("intel-2006");
        struct cpu *cpu = room->cpu;
        room_put(room, ROOM_CODE, nops, sizeof nops);
        room_put(room, ROOM_HANDLER, handler, sizeof handler);
        put_gate(room, all[k].vector, ROOM_HANDLER);
        good_vmcs(room, all[k].good);
        SET(vm_entry_exception_error_code, 0x18);
        enter(cpu);
        CHECK_EQ(run_guest(cpu), STOP_EXIT);
        CHECK_EQ(GET(exit_reason), EXIT_REASON_CPUID);
        CHECK_EQ(GET(guest_rip), ROOM_HANDLER);
        CHECK_EQ(room_get64(room, GET(guest_rsp) + all[k].error_bytes), all[k].pushed_rip);
        if (all[k].error_bytes)
            CHECK_EQ(room_get64(room, GET(guest_rsp)), 0x18);
        CHECK(!(GET(vm_entry_interruption_info) & EVENT_VALID)); /* used up */
        CHECK_EQ(GET(guest_interruptibility_state), all[k].good == INJECT_NMI ? BLOCK_NMI : 0);
        CHECK_EQ(GET(idt_vectoring_info), 0);
        room_free(room);
    }
}

/* The gate is missing: #GP during delivery exits, and the injected event is in the IDT-vectoring information. */
TEST(vmx_fault_during_injection)
{
    struct room *room = guest_of(INJECT_SOFT, "", 0);
    struct cpu *cpu = room->cpu;
    SET(exception_bitmap, 1u << VEC_GP);
    CHECK_EQ(vmx_vmlaunch(cpu, NULL), VMX_EXITED);
    CHECK_EQ(GET(exit_reason), EXIT_REASON_EXCEPTION_OR_NMI);
    CHECK_EQ(GET(exit_interruption_info), 0x80000b0d);
    CHECK_EQ(GET(exit_interruption_error_code), 0x80 * 8 + 2);
    CHECK_EQ(GET(idt_vectoring_info), 0x80000480);
    CHECK_EQ(GET(exit_instruction_length), 2);
    CHECK_EQ(GET(guest_rip), ROOM_CODE);
    CHECK_EQ(cpu->vmx.launched, 1);
    room_free(room);
}

TEST(vmx_double_and_triple_fault)
{
    static const uint8_t ud[] = { 0x0f, 0x0b };
    struct room *room = guest_of(LONG, ud, sizeof ud);
    struct cpu *cpu = room->cpu;
    SET(guest_idtr_limit, 0);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_TRIPLE_FAULT, 0, 0, ROOM_CODE);
    CHECK_EQ(GET(idt_vectoring_info), 0);
    room_free(room);

    room = guest_of(LONG, ud, sizeof ud); /* #UD, then #GP in its delivery: serial; #GP's own makes #DF, which exits */
    cpu = room->cpu;
    SET(guest_idtr_limit, 0);
    SET(exception_bitmap, 1u << VEC_DF);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_interruption_info), 0x80000b08);
    CHECK_EQ(GET(idt_vectoring_info), 0); /* #DF exits directly */
    room_free(room);
}

TEST(vmx_software_exceptions_have_a_length)
{
    static const uint8_t int3[] = { 0xcc }, icebp[] = { 0xf1 };
    struct room *room = guest_of(LONG, int3, sizeof int3);
    struct cpu *cpu = room->cpu;
    SET(exception_bitmap, 1u << VEC_BP);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_interruption_info), 0x80000603);
    CHECK_EQ(GET(exit_instruction_length), 1);
    CHECK_EQ(GET(guest_rip), ROOM_CODE);
    room_free(room);
    room = guest_of(LONG, icebp, sizeof icebp);
    cpu = room->cpu;
    SET(exception_bitmap, 1u << VEC_DB);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_interruption_info), 0x80000501);
    CHECK_EQ(GET(exit_instruction_length), 1);
    room_free(room);
}

TEST(vmx_software_interrupt_is_not_an_exception)
{
    static const uint8_t int14[] = { 0xcd, 0x0e }, handler[] = { 0x0f, 0xa2 };
    struct room *room = guest_of(LONG, int14, sizeof int14);
    struct cpu *cpu = room->cpu;
    room_put(room, ROOM_HANDLER, handler, sizeof handler);
    put_gate(room, VEC_PF, ROOM_HANDLER);
    SET(exception_bitmap, 0xffffffff);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(GET(exit_reason), EXIT_REASON_CPUID);
    room_free(room);
}

/* ---- pins and windows ------------------------------------------------------------------------ */

TEST(vmx_external_interrupt_exits)
{
    static const uint8_t loop[] = { 0xeb, 0xfe };
    for (unsigned acknowledge = 0; acknowledge < 2; acknowledge++) {
        struct room *room = guest_of(LONG, loop, sizeof loop);
        struct cpu *cpu = room->cpu;
        SET(pin_based_controls, vmx_allowed0(cpu, VMX_GROUP_PIN) | VMX_PIN_EXTERNAL_INTERRUPT_EXITING);
        SET(vm_exit_controls, GET(vm_exit_controls) | (acknowledge ? VMX_EXIT_ACKNOWLEDGE_INTERRUPT_ON_EXIT : 0u));
        enter(cpu);
        cpu->intr = 1;
        cpu->intr_vector = 0x33;
        cpu_update_attention(cpu);
        CHECK_EQ(run_guest(cpu), STOP_EXIT); /* although IF = 0 */
        expect_exit(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, 0, 0, ROOM_CODE);
        CHECK_EQ(GET(exit_interruption_info), acknowledge ? 0x80000033 : 0);
        CHECK_EQ(cpu->intr, !acknowledge); /* not acknowledged: the host takes it when it sets IF */
        room_free(room);
    }
}

TEST(vmx_nmi_exits)
{
    static const uint8_t loop[] = { 0xeb, 0xfe };
    struct room *room = guest_of(LONG, loop, sizeof loop);
    struct cpu *cpu = room->cpu;
    SET(pin_based_controls, vmx_allowed0(cpu, VMX_GROUP_PIN) | VMX_PIN_NMI_EXITING);
    enter(cpu);
    cpu->nmi = 1;
    cpu_update_attention(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_EXCEPTION_OR_NMI, 0, 0, ROOM_CODE);
    CHECK_EQ(GET(exit_interruption_info), 0x80000202);
    CHECK_EQ(cpu->interruptibility, BLOCK_NMI);
    CHECK_EQ(cpu->nmi, 0);
    room_free(room);
}

TEST(vmx_interrupt_window_waits_for_the_shadow)
{
    static const uint8_t code[] = { 0xfb, 0x90, 0x90 }; /* sti; nop; nop */
    struct room *room = guest_of(LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    PRIMARY(VMX_PRI_INTERRUPT_WINDOW_EXITING);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_INTERRUPT_WINDOW, 0, 0, ROOM_CODE + 2); /* behind the instruction in STI's shadow */
    CHECK_EQ(GET(guest_interruptibility_state), 0);
    room_free(room);
    /* open at once, also for a guest that halts */
    room = guest_of(LONG, code, sizeof code);
    cpu = room->cpu;
    PRIMARY(VMX_PRI_INTERRUPT_WINDOW_EXITING);
    SET(guest_rflags, FLAG_1 | FLAG_IF);
    SET(guest_activity_state, ACTIVITY_HLT);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_INTERRUPT_WINDOW, 0, 0, ROOM_CODE);
    CHECK_EQ(GET(guest_activity_state), ACTIVITY_HLT);
    room_free(room);
}

TEST(vmx_tsc_offset)
{
    static const uint8_t code[] = { 0x0f, 0x31, 0xf4 };
    struct room *room = guest_of(LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    PRIMARY(VMX_PRI_HLT_EXITING | VMX_PRI_USE_TSC_OFFSETTING);
    SET(tsc_offset, 0x5000000000);
    enter(cpu);
    uint64_t want = cpu->tsc_base + cpu->retired + 0x5000000000;
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(cpu->r[RDX] << 32 | cpu->r[RAX], want);
    room_free(room);
}

TEST(vmx_task_switch_exits)
{
    static const uint8_t code[] = { 0xea, 0, 0, 0, 0, 0x18, 0 }; /* jmp 18h:0: a TSS */
    struct room *room = guest_of(PROT, code, sizeof code);
    struct cpu *cpu = room->cpu;
    room_put64(room, ROOM_GDT + 0x18, 0x0000890000000067 | (uint64_t)ROOM_TSS << 16);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_TASK_SWITCH, 0x18 | 2ull << 30, 7, ROOM_CODE);
    room_free(room);
}

TEST(vmx_msr_lists_at_exit)
{
    static const uint8_t hlt[] = { 0xf4 };
    struct room *room = guest_of(MSR_LISTS, hlt, sizeof hlt);
    struct cpu *cpu = room->cpu;
    SET(guest_ia32_sysenter_esp, 0x123000);
    room_put64(room, ROOM_MSRS + 8, 0x55); /* SYSENTER_CS, in both load lists */
    enter(cpu);
    CHECK_EQ(cpu->msr[MSR_SYSENTER_CS], 0x55);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    CHECK_EQ(room_get64(room, ROOM_MSRS + 24), 0x123000); /* SYSENTER_ESP was stored */
    CHECK_EQ(cpu->msr[MSR_SYSENTER_CS], 0x55);
    room_free(room);
}

/* An exit that cannot be completed is a VMX abort: an indicator in the region, and shutdown. */
TEST(vmx_abort)
{
    static const uint8_t hlt[] = { 0xf4 };
    static const struct {
        uint64_t store_index, load_index;
        uint32_t indicator;
    } all[] = { { 0x12345, 0x174, 1 }, { 0x175, 0x12345, 4 } };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct room *room = guest_of(MSR_LISTS, hlt, sizeof hlt);
        struct cpu *cpu = room->cpu;
        SET(entry_msr_load_count, 0);
        enter(cpu);
        room_put64(room, ROOM_MSRS, all[k].load_index);
        room_put64(room, ROOM_MSRS + 16, all[k].store_index);
        CHECK_EQ(run_guest(cpu), STOP_SHUTDOWN);
        CHECK_EQ(room_get64(room, ROOM_VMCS) >> 32, all[k].indicator);
        CHECK_EQ(cpu->world, WORLD_PLAIN);
        room_free(room);
    }
}

TEST(vmx_single_step_leaves_dr6)
{
    static const uint8_t nops[] = { 0x90, 0x90 };
    struct room *room = guest_of(LONG, nops, sizeof nops);
    struct cpu *cpu = room->cpu;
    SET(exception_bitmap, 1u << VEC_DB);
    SET(guest_rflags, FLAG_1 | FLAG_TF);
    enter(cpu);
    CHECK_EQ(run_guest(cpu), STOP_EXIT);
    expect_exit(cpu, EXIT_REASON_EXCEPTION_OR_NMI, DR6_BS, 0, ROOM_CODE + 1);
    CHECK_EQ(GET(exit_interruption_info), 0x80000301);
    CHECK_EQ(cpu->dr[6], DR6_FIXED1);
    room_free(room);
}

/* ---- a hypervisor that is guest code --------------------------------------------------------- */

/* On a bare machine: VMWRITE of HOST_RIP and GUEST_RIP, VMLAUNCH, and the exit handler reads the reason. */
TEST(vmx_hypervisor_in_code)
{
    static const uint8_t code[] = {
        0xb8, 0x16, 0x6c, 0x00, 0x00,                         /* mov eax, HOST_RIP */
        0x48, 0x8d, 0x0d, 0x15, 0x00, 0x00, 0x00,             /* lea rcx, [handler] */
        0x0f, 0x79, 0xc1,                                     /* vmwrite rax, rcx */
        0xb8, 0x1e, 0x68, 0x00, 0x00,                         /* mov eax, GUEST_RIP */
        0xb9, 0x00, 0x60, 0x00, 0x00,                         /* mov ecx, ROOM_CODE */
        0x0f, 0x79, 0xc1,                                     /* vmwrite rax, rcx */
        0x0f, 0x01, 0xc2,                                     /* vmlaunch */
        0xf4, 0x90,                                           /* hlt: it failed */
        0xb8, 0x02, 0x44, 0x00, 0x00,                         /* handler: mov eax, EXIT_REASON */
        0x0f, 0x78, 0xc3,                                     /* vmread rbx, rax */
        0xf4,
    };
    static const uint8_t guest[] = { 0xbe, 0x77, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xc1 }; /* mov esi, 77h; vmcall */
    struct room *room = guest_of(LONG, guest, sizeof guest);
    struct cpu *cpu = room->cpu;
    room_put(room, ROOM_HOST_CODE, code, sizeof code);
    cpu->native = 0;
    cpu->r[REG_RIP] = ROOM_HOST_CODE;
    CHECK_EQ(cpu_run(cpu, 100), STOP_HLT);
    CHECK_EQ(cpu->world, WORLD_PLAIN);
    CHECK_EQ(cpu->r[RBX], EXIT_REASON_VMCALL);
    CHECK_EQ(cpu->r[RSI], 0x77);
    CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE + sizeof code);
    CHECK_EQ(cpu->retired, 7 + 1 + 3); /* the intercepted VMCALL does not retire */
    room_free(room);
}

TEST(vmx_instructions_are_undefined_outside)
{
    static const uint8_t code[] = { 0x0f, 0x01, 0xc2 }; /* vmlaunch without VMXON */
    struct room *room = room_new("intel-2006");
    room_put(room, ROOM_HOST_CODE, code, sizeof code);
    static const uint8_t handler[] = { 0xf4 };
    room_put(room, ROOM_HANDLER, handler, sizeof handler);
    put_gate(room, VEC_UD, ROOM_HANDLER);
    room->cpu->idtr = (struct table_register){ .base = ROOM_IDT, .limit = 0xfff };
    CHECK_EQ(cpu_run(room->cpu, 10), STOP_HLT);
    CHECK_EQ(room->cpu->r[REG_RIP], ROOM_HANDLER + 1);
    room_free(room);
}

TEST(vmx_vmcs_is_in_memory_after_flush)
{
    struct room *room = guest_of(LONG, "", 0);
    struct cpu *cpu = room->cpu;
    SET(guest_rip, 0x1122334455667788);
    vmcs_flush(cpu);
    bool found = false;
    for (uint64_t at = ROOM_VMCS; at < ROOM_VMCS + PAGE_SIZE; at += 8)
        found |= room_get64(room, at) == 0x1122334455667788;
    CHECK(found);
    CHECK_EQ(room_get64(room, ROOM_VMCS), VMCS_REVISION);
    room_free(room);
}
