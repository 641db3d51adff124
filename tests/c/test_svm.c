/* SVM: every VMRUN rule that a processor of 2006 has, the world switch, exits with their details, injection, virtual
 * interrupts, GIF, ASIDs, paged real mode, and a hypervisor that is itself guest code. */
#include "room.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#undef SET
#undef GET
#define SET(name, value) vmcb_write(cpu, ROOM_VMCB, VMCB_ROW_##name, value)
#define GET(name) vmcb_read(cpu, ROOM_VMCB, VMCB_ROW_##name)

enum kind { KIND_LONG, KIND_PROT, KIND_PAE, KIND_REAL };

static void put_segment(struct cpu *cpu, unsigned row, uint16_t selector, uint32_t attrib, uint32_t limit,
                        uint64_t base)
{
    const uint64_t value[] = { selector, attrib, limit, base };
    for (unsigned k = 0; k < 4; k++)
        vmcb_write(cpu, ROOM_VMCB, row + k, value[k]);
}

static void good_vmcb(struct room *room, enum kind kind)
{
    struct cpu *cpu = room->cpu;
    bool long_mode = kind == KIND_LONG;
    cpu->msr[MSR_VM_HSAVE_PA] = ROOM_HSAVE;
    SET(intercept_misc2, 1); /* VMRUN */
    SET(intercept_misc1, 1u << (SVM_EXIT_HLT - 0x60));
    SET(guest_asid, 1);
    SET(efer, EFER_SVME | (long_mode ? EFER_LME : 0));
    SET(cr0, CR0_PG | CR0_ET | (kind == KIND_REAL ? 0 : CR0_PE));
    SET(cr3, long_mode ? ROOM_PML4 : kind == KIND_PROT ? ROOM_PD32 : ROOM_PAE);
    SET(cr4, kind == KIND_PROT ? CR4_PSE : CR4_PAE);
    SET(dr6, DR6_FIXED1);
    SET(dr7, DR7_FIXED1);
    SET(rflags, FLAG_1);
    SET(rip, kind == KIND_REAL ? 0 : ROOM_CODE);
    SET(rsp, ROOM_STACK);
    for (unsigned n = 0; n < 4; n++) {
        unsigned row = VMCB_ROW_es_selector + 4 * n;
        if (kind == KIND_REAL)
            put_segment(cpu, row, ROOM_CODE >> 4, n == 1 ? 0x9b : 0x93, 0xffff, ROOM_CODE);
        else
            put_segment(cpu, row, n == 1 ? 8 : 0x10, n == 1 ? (long_mode ? 0xa9b : 0xc9b) : 0xc93, 0xffffffff, 0);
    }
    SET(gdtr_base, ROOM_GDT);
    SET(gdtr_limit, 0xff);
    SET(idtr_base, ROOM_IDT);
    SET(idtr_limit, 0xfff);
}

static struct room *guest_of(enum kind kind, const void *code, unsigned bytes)
{
    struct room *room = room_new("amd-2006");
    room_put(room, ROOM_CODE, code, bytes);
    good_vmcb(room, kind);
    return room;
}

static enum cpu_stop enter_and_run(struct cpu *cpu, const struct guest_gprs *gprs)
{
    cpu->native = 1;
    CHECK_EQ(svm_stgi(cpu), SVM_DONE);
    CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB, gprs), SVM_ENTERED);
    CHECK_EQ(cpu->world, WORLD_SVM_GUEST);
    return cpu_run(cpu, 1000);
}

static void expect_exit(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t rip)
{
    CHECK_EQ(cpu->world, WORLD_PLAIN);
    CHECK_EQ(cpu->svm.gif, 0);
    CHECK_EQ(GET(exit_code), code);
    CHECK_EQ(GET(exit_info_1), info1);
    CHECK_EQ(GET(rip), rip);
}

/* ---- the rules ------------------------------------------------------------------------------- */

#define INFO(vector, type, more) ((vector) | (uint32_t)(type) << 8 | (more) | EVENT_VALID)
static const struct breaking {
    enum svm_check_name rule;
    enum kind kind;
    unsigned row;
    uint64_t value;
} breakings[] = {
    { CHECK_SVM_CTL_01, KIND_LONG, VMCB_ROW_intercept_misc2, 0 },
    { CHECK_SVM_CTL_02, KIND_LONG, VMCB_ROW_guest_asid, 0 },
    { CHECK_SVM_CTL_03, KIND_LONG, VMCB_ROW_guest_asid, SVM_NR_ASIDS },
    { CHECK_SVM_CTL_04, KIND_LONG, VMCB_ROW_iopm_base_pa, (1ull << 40) - 0x2000 },
    { CHECK_SVM_CTL_05, KIND_LONG, VMCB_ROW_msrpm_base_pa, (1ull << 40) - 0x1000 },
    { CHECK_SVM_CTL_09, KIND_LONG, VMCB_ROW_tlb_control, 3 },
    { CHECK_SVM_STATE_01, KIND_LONG, VMCB_ROW_efer, EFER_LME },
    { CHECK_SVM_STATE_02, KIND_LONG, VMCB_ROW_efer, EFER_SVME | EFER_LME | 1ull << 40 },
    { CHECK_SVM_STATE_05, KIND_LONG, VMCB_ROW_cr0, CR0_PG | CR0_PE | CR0_NW },
    { CHECK_SVM_STATE_06, KIND_LONG, VMCB_ROW_cr0, CR0_PG | CR0_PE | 1ull << 32 },
    { CHECK_SVM_STATE_07, KIND_LONG, VMCB_ROW_cr3, 1ull << 40 },
    { CHECK_SVM_STATE_08, KIND_LONG, VMCB_ROW_cr4, CR4_PAE | 1u << 31 },
    { CHECK_SVM_STATE_09, KIND_LONG, VMCB_ROW_dr6, 1ull << 32 },
    { CHECK_SVM_STATE_10, KIND_LONG, VMCB_ROW_dr7, 1ull << 32 },
    { CHECK_SVM_STATE_11, KIND_LONG, VMCB_ROW_cr4, 0 },
    { CHECK_SVM_STATE_12, KIND_LONG, VMCB_ROW_cr0, CR0_PG },
    { CHECK_SVM_STATE_13, KIND_LONG, VMCB_ROW_cs_attrib, 0xe9b },
    { CHECK_SVM_STATE_16, KIND_PAE, VMCB_ROW_cr3, ROOM_LINK },
    { CHECK_SVM_EVT_01, KIND_LONG, VMCB_ROW_event_inj, INFO(1, 1, 0) },
    { CHECK_SVM_EVT_01, KIND_LONG, VMCB_ROW_event_inj, INFO(1, 5, 0) },
    { CHECK_SVM_EVT_02, KIND_LONG, VMCB_ROW_event_inj, INFO(2, 3, 0) },
    { CHECK_SVM_EVT_02, KIND_LONG, VMCB_ROW_event_inj, INFO(32, 3, 0) },
    { CHECK_SVM_EVT_03, KIND_LONG, VMCB_ROW_event_inj, INFO(VEC_OF, 3, 0) },
    { CHECK_SVM_EVT_04, KIND_LONG, VMCB_ROW_event_inj, INFO(VEC_UD, 3, 1u << 12) },
};
static const char *const rule_ids[] = {
#define SVM_CHECK(name, id, area, since, failure, field, applies, rule) id,
#include "cpu/svm_check.def"
};

TEST(svm_each_rule_broken_by_one_field)
{
    bool seen[NR_SVM_CHECKS_PLUS_1] = { [CHECK_SVM_STATE_03] = true }; /* amd-2006 has long mode: cannot fail */
    struct check_verdict verdict[NR_SVM_CHECKS_PLUS_1 - 1];
    for (unsigned k = 0; k < COUNT(breakings); k++) {
        const struct breaking *b = &breakings[k];
        struct room *room = guest_of(b->kind, "", 0);
        struct cpu *cpu = room->cpu;
        SET(intercept_misc1, 1u << (SVM_EXIT_IO - 0x60) | 1u << (SVM_EXIT_MSR - 0x60));
        room_put64(room, ROOM_LINK, 0x1e1);
        vmcb_write(cpu, ROOM_VMCB, b->row, b->value);
        SET(rax, 0x1234);
        svm_check_all(cpu, ROOM_VMCB, verdict);
        CHECK_EQ(verdict[b->rule - 1].verdict, VERDICT_FAILS);
        CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB, NULL), SVM_EXITED);
        if (cpu->svm.entry_failed != b->rule)
            test_fail_eq(__FILE__, __LINE__, rule_ids[b->rule - 1], cpu->svm.entry_failed, b->rule);
        CHECK_EQ(GET(exit_code), UINT64_MAX);
        CHECK_EQ(GET(rax), 0x1234); /* no guest state saved */
        CHECK_EQ(cpu->svm.gif, 0);
        CHECK_EQ(cpu->world, WORLD_PLAIN);
        CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE);
        seen[b->rule] = true;
        room_free(room);
    }
    struct room *room = guest_of(KIND_LONG, "", 0);
    svm_check_all(room->cpu, ROOM_VMCB, verdict);
    for (unsigned n = 0; n < NR_SVM_CHECKS_PLUS_1 - 1; n++) {
        if (verdict[n].verdict == VERDICT_FAILS || (verdict[n].verdict != VERDICT_NOT_HERE && !seen[n + 1]))
            test_fail(__FILE__, __LINE__, rule_ids[n]);
    }
    room_free(room);
}

TEST(svm_instruction_faults)
{
    struct room *room = room_new("amd-2006");
    struct cpu *cpu = room->cpu;
    cpu->msr[MSR_EFER] &= ~(uint64_t)EFER_SVME;
    CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB, NULL), SVM_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_UD);
    cpu->msr[MSR_EFER] |= EFER_SVME;
    CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB + 8, NULL), SVM_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_GP);
    CHECK_EQ(svm_vmload(cpu, 1ull << 40), SVM_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_GP);
    cpu->cpl = 3;
    CHECK_EQ(svm_clgi(cpu), SVM_FAULT);
    CHECK_EQ(cpu->fault.vector, VEC_GP);
    drop_fault(cpu);
    room_free(room);
}

/* ---- the world switch ------------------------------------------------------------------------ */

TEST(svm_world_switch_there_and_back)
{
    static const uint8_t code[] = { 0x48, 0xff, 0xc0, 0xf4 }; /* inc rax; hlt */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    struct guest_gprs gprs = { .r = { [RAX] = 7, [RBX] = 0xb0b } };
    SET(rax, 41);
    SET(cr2, 0x2222);
    cpu->cr2 = 0x9999;
    cpu->r[RSP] = 0x9000;
    CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_HLT, 0, ROOM_CODE + 3);
    CHECK_EQ(GET(rax), 42); /* from the VMCB, not from the stub */
    CHECK_EQ(cpu->r[RBX], 0xb0b);
    CHECK_EQ(cpu->r[RAX], 7);
    CHECK_EQ(cpu->r[RSP], 0x9000);
    CHECK_EQ(GET(cr2), 0x2222);
    CHECK_EQ(GET(cpl), 0);
    CHECK_EQ(GET(cs_attrib), 0xa9b);
    CHECK_EQ(GET(efer), EFER_SVME | EFER_LME | EFER_LMA);
    CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE);
    CHECK_EQ(cpu->seg[CS].attr, SEG_P | SEG_S | SEG_G | SEG_L | 11);
    CHECK_EQ(cpu->cr3, ROOM_PML4);
    CHECK_EQ(cpu->asid, 0);
    room_free(room);
}

TEST(svm_guest_modes_run)
{
    static const uint8_t code32[] = { 0xb8, 0x34, 0x12, 0, 0, 0xf4 }, code16[] = { 0xb8, 0x34, 0x12, 0xf4 };
    for (enum kind kind = KIND_LONG; kind <= KIND_REAL; kind++) {
        bool real = kind == KIND_REAL;
        struct room *room = guest_of(kind, real ? code16 : code32, real ? sizeof code16 : sizeof code32);
        struct cpu *cpu = room->cpu;
        CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
        expect_exit(cpu, SVM_EXIT_HLT, 0, real ? 3 : ROOM_CODE + 5);
        CHECK_EQ(GET(rax) & 0xffff, 0x1234);
        room_free(room);
    }
}

/* Paged real mode runs with any segment cache: here a 4 GB limit, which vm86 cannot express. */
TEST(svm_big_real_mode)
{
    static const uint8_t code[] = { 0x67, 0xa1, 0x00, 0x40, 0x01, 0x00, 0xf4 }; /* mov ax, [dword 14000h] */
    struct room *room = guest_of(KIND_REAL, code, sizeof code);
    struct cpu *cpu = room->cpu;
    room_put64(room, ROOM_CODE + 0x14000, 0xbeef);
    SET(ds_limit, 0xffffffff);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_HLT, 0, 6);
    CHECK_EQ(GET(rax) & 0xffff, 0xbeef);
    CHECK_EQ(GET(ds_limit), 0xffffffff);
    room_free(room);
}

TEST(svm_vmload_and_vmsave)
{
    struct room *room = guest_of(KIND_LONG, "", 0);
    struct cpu *cpu = room->cpu;
    SET(fs_base, 0x7f0000001000);
    SET(lstar, 0xffff800000001000);
    SET(sysenter_eip, 0x1234);
    SET(tr_attrib, 0x8b);
    SET(tr_limit, 0x67);
    SET(ldtr_attrib, 0);
    CHECK_EQ(svm_vmload(cpu, ROOM_VMCB), SVM_DONE);
    CHECK_EQ(cpu->seg[FS].base, 0x7f0000001000);
    CHECK_EQ(cpu->msr[MSR_LSTAR], 0xffff800000001000);
    CHECK_EQ(cpu->msr[MSR_SYSENTER_EIP], 0x1234);
    CHECK(cpu->seg[LDTR].attr & SEG_UNUSABLE);
    cpu->msr[MSR_STAR] = 0x5757;
    cpu->seg[GS].base = 0x4444;
    CHECK_EQ(svm_vmsave(cpu, ROOM_VMCB), SVM_DONE);
    CHECK_EQ(GET(star), 0x5757);
    CHECK_EQ(GET(gs_base), 0x4444);
    CHECK_EQ(GET(fs_base), 0x7f0000001000);
    CHECK_EQ(GET(tr_attrib), 0x8b);
    room_free(room);
}

/* ---- exits ----------------------------------------------------------------------------------- */

static const struct insn_exit {
    const char *what;
    uint8_t code[8];
    unsigned bit;
    uint64_t code_wanted, info1, info2;
} insn_exits[] = {
    { "cpuid", { 0x0f, 0xa2 }, SVM_EXIT_CPUID, SVM_EXIT_CPUID, 0, 0 },
    { "rdtsc", { 0x0f, 0x31 }, SVM_EXIT_RDTSC, SVM_EXIT_RDTSC, 0, 0 },
    { "rdtscp", { 0x0f, 0x01, 0xf9 }, SVM_EXIT_RDTSCP, SVM_EXIT_RDTSCP, 0, 0 },
    { "pushf", { 0x9c }, SVM_EXIT_PUSHF, SVM_EXIT_PUSHF, 0, 0 },
    { "popf", { 0x9d }, SVM_EXIT_POPF, SVM_EXIT_POPF, 0, 0 },
    { "iretq", { 0x48, 0xcf }, SVM_EXIT_IRET, SVM_EXIT_IRET, 0, 0 },
    { "int 80h", { 0xcd, 0x80 }, SVM_EXIT_SOFTINT, SVM_EXIT_SOFTINT, 0, 0 },
    { "invd", { 0x0f, 0x08 }, SVM_EXIT_INVD, SVM_EXIT_INVD, 0, 0 },
    { "wbinvd", { 0x0f, 0x09 }, SVM_EXIT_WBINVD, SVM_EXIT_WBINVD, 0, 0 },
    { "pause", { 0xf3, 0x90 }, SVM_EXIT_PAUSE, SVM_EXIT_PAUSE, 0, 0 },
    { "invlpg [rbx]", { 0x0f, 0x01, 0x3b }, SVM_EXIT_INVLPG, SVM_EXIT_INVLPG, 0, 0 },
    { "invlpga", { 0x0f, 0x01, 0xdf }, SVM_EXIT_INVLPGA, SVM_EXIT_INVLPGA, 0, 0 },
    { "vmrun", { 0x0f, 0x01, 0xd8 }, SVM_EXIT_VMRUN, SVM_EXIT_VMRUN, 0, 0 },
    { "vmmcall", { 0x0f, 0x01, 0xd9 }, SVM_EXIT_VMMCALL, SVM_EXIT_VMMCALL, 0, 0 },
    { "vmload", { 0x0f, 0x01, 0xda }, SVM_EXIT_VMLOAD, SVM_EXIT_VMLOAD, 0, 0 },
    { "vmsave", { 0x0f, 0x01, 0xdb }, SVM_EXIT_VMSAVE, SVM_EXIT_VMSAVE, 0, 0 },
    { "stgi", { 0x0f, 0x01, 0xdc }, SVM_EXIT_STGI, SVM_EXIT_STGI, 0, 0 },
    { "clgi", { 0x0f, 0x01, 0xdd }, SVM_EXIT_CLGI, SVM_EXIT_CLGI, 0, 0 },
    { "skinit", { 0x0f, 0x01, 0xde }, SVM_EXIT_SKINIT, SVM_EXIT_SKINIT, 0, 0 },
    { "mov rax, cr0", { 0x0f, 0x20, 0xc0 }, SVM_EXIT_CR0_READ, SVM_EXIT_CR0_READ, 0, 0 },
    { "mov cr3, rax", { 0x0f, 0x22, 0xd8 }, SVM_EXIT_CR0_WRITE + 3, SVM_EXIT_CR0_WRITE + 3, 0, 0 },
    { "mov cr0, rax: PE goes", { 0x0f, 0x22, 0xc0 }, SVM_EXIT_CR0_SEL_WRITE, SVM_EXIT_CR0_SEL_WRITE, 0, 0 },
    { "clts", { 0x0f, 0x06 }, SVM_EXIT_CR0_WRITE, SVM_EXIT_CR0_WRITE, 0, 0 },
    { "lmsw ax", { 0x0f, 0x01, 0xf0 }, SVM_EXIT_CR0_WRITE, SVM_EXIT_CR0_WRITE, 0, 0 },
    { "smsw eax", { 0x0f, 0x01, 0xe0 }, SVM_EXIT_CR0_READ, SVM_EXIT_CR0_READ, 0, 0 },
    { "mov cr8, rax", { 0x44, 0x0f, 0x22, 0xc0 }, SVM_EXIT_CR0_WRITE + 8, SVM_EXIT_CR0_WRITE + 8, 0, 0 },
    { "mov dr7, rax", { 0x0f, 0x23, 0xf8 }, SVM_EXIT_DR0_WRITE + 7, SVM_EXIT_DR0_WRITE + 7, 0, 0 },
    { "mov rax, dr6", { 0x0f, 0x21, 0xf0 }, SVM_EXIT_DR0_READ + 6, SVM_EXIT_DR0_READ + 6, 0, 0 },
    { "sgdt [rbx]", { 0x0f, 0x01, 0x03 }, SVM_EXIT_GDTR_READ, SVM_EXIT_GDTR_READ, 0, 0 },
    { "sidt [rbx]", { 0x0f, 0x01, 0x0b }, SVM_EXIT_IDTR_READ, SVM_EXIT_IDTR_READ, 0, 0 },
    { "lgdt [rbx]", { 0x0f, 0x01, 0x13 }, SVM_EXIT_GDTR_WRITE, SVM_EXIT_GDTR_WRITE, 0, 0 },
    { "lidt [rbx]", { 0x0f, 0x01, 0x1b }, SVM_EXIT_IDTR_WRITE, SVM_EXIT_IDTR_WRITE, 0, 0 },
    { "sldt eax", { 0x0f, 0x00, 0xc0 }, SVM_EXIT_LDTR_READ, SVM_EXIT_LDTR_READ, 0, 0 },
    { "str eax", { 0x0f, 0x00, 0xc8 }, SVM_EXIT_TR_READ, SVM_EXIT_TR_READ, 0, 0 },
    { "lldt ax", { 0x0f, 0x00, 0xd0 }, SVM_EXIT_LDTR_WRITE, SVM_EXIT_LDTR_WRITE, 0, 0 },
    { "ltr ax", { 0x0f, 0x00, 0xd8 }, SVM_EXIT_TR_WRITE, SVM_EXIT_TR_WRITE, 0, 0 },
    { "ud2", { 0x0f, 0x0b }, SVM_EXIT_EXCEPTION + VEC_UD, SVM_EXIT_EXCEPTION + VEC_UD, 0, 0 },
    { "int3", { 0xcc }, SVM_EXIT_EXCEPTION + VEC_BP, SVM_EXIT_EXCEPTION + VEC_BP, 0, 0 },
    { "icebp", { 0xf1 }, SVM_EXIT_ICEBP, SVM_EXIT_ICEBP, 0, 0 },
    { "mov eax, [400000h]",
      { 0x8b, 0x04, 0x25, 0, 0, 0x40, 0 },
      SVM_EXIT_EXCEPTION + VEC_PF,
      SVM_EXIT_EXCEPTION + VEC_PF,
      0,
      0x400000 },
    { "in al, 60h", { 0xe4, 0x60 }, SVM_EXIT_IO, SVM_EXIT_IO, 0x600211, ROOM_CODE + 3 },
    { "out dx, eax", { 0xef }, SVM_EXIT_IO, SVM_EXIT_IO, 0x3f80240, ROOM_CODE + 2 },
    { "rep outsw", { 0x66, 0xf3, 0x6f }, SVM_EXIT_IO, SVM_EXIT_IO, 0x3f8022c, ROOM_CODE + 4 },
    { "rdmsr", { 0x0f, 0x32 }, SVM_EXIT_MSR, SVM_EXIT_MSR, 0, 0 },
    { "wrmsr", { 0x0f, 0x30 }, SVM_EXIT_MSR, SVM_EXIT_MSR, 1, 0 },
};

static void set_intercept(struct cpu *cpu, unsigned bit)
{
    static const unsigned row[] = { VMCB_ROW_intercept_cr_read, VMCB_ROW_intercept_dr_read,
                                    VMCB_ROW_intercept_exceptions, VMCB_ROW_intercept_misc1, VMCB_ROW_intercept_misc2 };
    unsigned word = bit / 32, at = bit % 32, r = row[word];
    if (word < 2 && at >= 16) /* the write half has a row of its own */
        at -= 16, r++;
    vmcb_write(cpu, ROOM_VMCB, r, vmcb_read(cpu, ROOM_VMCB, r) | 1u << at);
}

TEST(svm_instructions_exit_with_their_details)
{
    for (unsigned k = 0; k < COUNT(insn_exits); k++) {
        const struct insn_exit *e = &insn_exits[k];
        uint8_t code[9] = { 0x90 };
        memcpy(code + 1, e->code, sizeof e->code);
        struct room *room = guest_of(KIND_LONG, code, sizeof code);
        struct cpu *cpu = room->cpu;
        const struct guest_gprs gprs = { .r = { [RBX] = 0x4321, [RDX] = 0x3f8, [RCX] = 0x174, [RSI] = 0x1000 } };
        uint8_t all_ones[0x1000];
        memset(all_ones, 0xff, sizeof all_ones);
        room_put(room, 0x100000, all_ones, sizeof all_ones);
        SET(iopm_base_pa, 0x100000);
        SET(msrpm_base_pa, 0x100000);
        set_intercept(cpu, e->bit);
        CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
        if (GET(exit_code) != e->code_wanted)
            test_fail_eq(__FILE__, __LINE__, e->what, GET(exit_code), e->code_wanted);
        if (GET(exit_info_1) != e->info1)
            test_fail_eq(__FILE__, __LINE__, e->what, GET(exit_info_1), e->info1);
        if (e->info2 && GET(exit_info_2) != e->info2)
            test_fail_eq(__FILE__, __LINE__, e->what, GET(exit_info_2), e->info2);
        CHECK_EQ(GET(rip), ROOM_CODE + 1);
        room_free(room);
    }
}

TEST(svm_permission_maps)
{
    static const uint8_t code[] = { 0xe4, 0x60, 0x0f, 0x32, 0x0f, 0x30, 0xf4 }; /* in al, 60h; rdmsr; wrmsr; hlt */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    const struct guest_gprs gprs = { .r = { [RCX] = 0xc0000081 } };
    set_intercept(cpu, SVM_EXIT_IO);
    set_intercept(cpu, SVM_EXIT_MSR);
    SET(iopm_base_pa, 0x100000);
    SET(msrpm_base_pa, 0x110000);
    uint8_t only_write = 1 << 3; /* MSR C0000081h: bits 102h and 103h of the second range */
    room_put(room, 0x110800 + 0x20, &only_write, 1);
    CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_MSR, 1, ROOM_CODE + 4);
    room_free(room);
}

TEST(svm_shutdown)
{
    static const uint8_t ud[] = { 0x0f, 0x0b };
    struct room *room = guest_of(KIND_LONG, ud, sizeof ud);
    struct cpu *cpu = room->cpu;
    SET(idtr_limit, 0);
    set_intercept(cpu, SVM_EXIT_SHUTDOWN);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    CHECK_EQ(GET(exit_code), SVM_EXIT_SHUTDOWN);
    CHECK_EQ(GET(exit_int_info), 0);
    room_free(room);
    room = guest_of(KIND_LONG, ud, sizeof ud);
    cpu = room->cpu;
    SET(idtr_limit, 0);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_SHUTDOWN); /* not intercepted: the machine is down */
    room_free(room);
}

TEST(svm_debug_exception_shows_its_dr6)
{
    static const uint8_t nops[] = { 0x90, 0x90 };
    struct room *room = guest_of(KIND_LONG, nops, sizeof nops);
    struct cpu *cpu = room->cpu;
    set_intercept(cpu, SVM_EXIT_EXCEPTION + VEC_DB);
    SET(rflags, FLAG_1 | FLAG_TF);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_EXCEPTION + VEC_DB, 0, ROOM_CODE + 1);
    CHECK_EQ(GET(dr6), DR6_FIXED1 | DR6_BS);
    room_free(room);
}

/* ---- injection and virtual interrupts -------------------------------------------------------- */

static void put_handler(struct room *room, unsigned vector)
{
    static const uint8_t handler[] = { 0xf4 };
    room_put(room, ROOM_HANDLER, handler, sizeof handler);
    room_put64(room, ROOM_IDT + vector * 16,
               (ROOM_HANDLER & 0xffff) | 8ull << 16 | 0x8eull << 40 | (ROOM_HANDLER & 0xffff0000ull) << 32);
    room_put64(room, ROOM_GDT + 8, 0x00af9b000000ffff);
}

TEST(svm_event_injection)
{
    const struct { unsigned vector, type; uint32_t more; unsigned error_bytes; } all[] = {
        { 0x20, 0, 0, 0 }, { 2, 2, 0, 0 }, { VEC_UD, 3, 0, 0 }, { VEC_GP, 3, EVENT_HAS_ERROR, 8 }, { 0x80, 4, 0, 0 },
    };
    for (unsigned k = 0; k < COUNT(all); k++) {
        struct room *room = guest_of(KIND_LONG, "\x90", 1);
        struct cpu *cpu = room->cpu;
        put_handler(room, all[k].vector);
        SET(event_inj, INFO(all[k].vector, all[k].type, all[k].more));
        SET(event_inj_error, 0x18);
        CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT); /* also with IF = 0 */
        expect_exit(cpu, SVM_EXIT_HLT, 0, ROOM_HANDLER);
        CHECK_EQ(room_get64(room, GET(rsp) + all[k].error_bytes), ROOM_CODE);
        CHECK_EQ(GET(event_inj) >> 31, 0);
        CHECK_EQ(GET(exit_int_info), 0);
        room_free(room);
    }
}

TEST(svm_fault_during_injection)
{
    struct room *room = guest_of(KIND_LONG, "\x90", 1);
    struct cpu *cpu = room->cpu;
    SET(event_inj, INFO(0x21, 0, 0));
    set_intercept(cpu, SVM_EXIT_EXCEPTION + VEC_GP);
    CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB, NULL), SVM_EXITED);
    expect_exit(cpu, SVM_EXIT_EXCEPTION + VEC_GP, 0x21 * 8 + 3, ROOM_CODE);
    CHECK_EQ(GET(exit_int_info), 0x80000021);
    room_free(room);
}

TEST(svm_virtual_interrupt)
{
    static const uint8_t code[] = { 0xfb, 0x90, 0x90, 0xf4 }; /* sti; nop; nop; hlt */
    for (unsigned intercepted = 0; intercepted < 2; intercepted++) {
        struct room *room = guest_of(KIND_LONG, code, sizeof code);
        struct cpu *cpu = room->cpu;
        put_handler(room, 0x40);
        SET(int_ctl, VMCB_V_IRQ | 15u << 16);
        SET(int_vector, 0x40);
        if (intercepted)
            set_intercept(cpu, SVM_EXIT_VINTR);
        CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
        if (intercepted)
            expect_exit(cpu, SVM_EXIT_VINTR, 0, ROOM_CODE + 2);
        else
            expect_exit(cpu, SVM_EXIT_HLT, 0, ROOM_HANDLER);
        CHECK_EQ(GET(int_ctl) & VMCB_V_IRQ,
                 intercepted ? VMCB_V_IRQ : 0); /* the processor takes the request back when it is served */
        room_free(room);
    }
    /* priority not above the TPR: held back */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    put_handler(room, 0x40);
    SET(int_ctl, VMCB_V_IRQ | 5u << 16 | 5u);
    SET(int_vector, 0x40);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_HLT, 0, ROOM_CODE + 3);
    room_free(room);
}

TEST(svm_interrupt_shadow_travels)
{
    static const uint8_t code[] = { 0xfb, 0x0f, 0xa2 }; /* sti; cpuid exits in the shadow */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    set_intercept(cpu, SVM_EXIT_CPUID);
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_CPUID, 0, ROOM_CODE + 1);
    CHECK_EQ(GET(int_state), VMCB_INT_SHADOW);
    room_free(room);
}

TEST(svm_physical_interrupt_and_gif)
{
    static const uint8_t loop[] = { 0xeb, 0xfe };
    struct room *room = guest_of(KIND_LONG, loop, sizeof loop);
    struct cpu *cpu = room->cpu;
    set_intercept(cpu, SVM_EXIT_INTR);
    SET(int_ctl, VMCB_V_INTR_MASKING);
    set_rflags(cpu, FLAG_1 | FLAG_IF); /* the host's IF masks it, the guest's is 0 */
    cpu->intr = 1;
    cpu->intr_vector = 0x31;
    CHECK_EQ(svm_clgi(cpu), SVM_DONE);
    cpu->native = 1;
    CHECK_EQ(svm_vmrun(cpu, ROOM_VMCB, NULL), SVM_ENTERED);
    CHECK_EQ(cpu_run(cpu, 100), STOP_EXIT);
    expect_exit(cpu, SVM_EXIT_INTR, 0, ROOM_CODE);
    CHECK_EQ(cpu->intr, 1); /* pending until STGI */
    CHECK(!interrupts_unmasked(cpu));
    CHECK_EQ(svm_stgi(cpu), SVM_DONE);
    CHECK(interrupts_unmasked(cpu));
    room_free(room);
}

TEST(svm_v_tpr_is_the_guests_cr8)
{
    static const uint8_t code[] = {
        0xb8, 9, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3, 0xf4
    }; /* cr8 = 9; rbx = cr8 */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    SET(int_ctl, VMCB_V_INTR_MASKING);
    cpu->cr8 = 3;
    CHECK_EQ(enter_and_run(cpu, NULL), STOP_EXIT);
    CHECK_EQ(cpu->r[RBX], 9);
    CHECK_EQ(cpu->cr8, 3);
    CHECK_EQ(GET(int_ctl) & 0xff, 9);
    room_free(room);
}

TEST(svm_asids_keep_translations_apart)
{
    static const uint8_t code[] = { 0x8b, 0x04, 0x25, 0x00, 0x20, 0x01, 0x00, 0xf4 }; /* mov eax, [12000h] */
    struct room *room = guest_of(KIND_LONG, code, sizeof code);
    struct cpu *cpu = room->cpu;
    const struct guest_gprs gprs = { 0 };
    CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
    uint64_t work = cpu->work;
    SET(rip, ROOM_CODE);
    CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
    uint64_t warm = cpu->work - work;
    work = cpu->work;
    SET(rip, ROOM_CODE);
    SET(tlb_control, 1);
    CHECK_EQ(enter_and_run(cpu, &gprs), STOP_EXIT);
    CHECK(cpu->work - work > warm); /* walks again */
    room_free(room);
}

/* ---- a hypervisor that is guest code --------------------------------------------------------- */

TEST(svm_hypervisor_in_code)
{
    static const uint8_t code[] = {
        0xb8, 0x00, 0x30, 0x01, 0x00,                         /* mov eax, ROOM_VMCB */
        0x0f, 0x01, 0xdd, 0x0f, 0x01, 0xda, 0x0f, 0x01, 0xd8, /* clgi; vmload; vmrun */
        0x0f, 0x01, 0xdb, 0x0f, 0x01, 0xdc,                   /* vmsave; stgi */
        0x48, 0x8b, 0x1c, 0x25, 0x70, 0x30, 0x01, 0x00, 0xf4
    };                                                                        /* mov rbx, [vmcb + 70h]; hlt */
    static const uint8_t guest[] = { 0xbe, 0x77, 0, 0, 0, 0x0f, 0x01, 0xd9 }; /* mov esi, 77h; vmmcall */
    struct room *room = guest_of(KIND_LONG, guest, sizeof guest);
    struct cpu *cpu = room->cpu;
    set_intercept(cpu, SVM_EXIT_VMMCALL);
    room_put(room, ROOM_HOST_CODE, code, sizeof code);
    CHECK_EQ(cpu_run(cpu, 100), STOP_HLT);
    CHECK_EQ(cpu->r[RBX], SVM_EXIT_VMMCALL);
    CHECK_EQ(cpu->r[RSI], 0x77);
    CHECK_EQ(cpu->r[RAX], ROOM_VMCB);
    CHECK_EQ(cpu->svm.gif, 1);
    CHECK_EQ(cpu->r[REG_RIP], ROOM_HOST_CODE + sizeof code);
    room_free(room);
}
