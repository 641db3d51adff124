/* Segments, exceptions, system registers and their instructions, where the manual says what a foreign machine in software
 * does not do: limits and types, error codes, debug traps, VME, what differs by vendor. (Transfers between privilege levels
 * are guests: far32.S, far64.S, vm86.S.) */
#include <stdarg.h>

#include "room.h"

/* Selectors of the tests' GDT. */
enum { CODE = 0x08, DATA = 0x10, CODE64 = 0x18, SMALL = 0x20, READ_ONLY = 0x28, DOWN = 0x30, EXEC_ONLY = 0x38, USER_CODE = 0x43,
       USER_DATA = 0x4b, TASK = 0x50, DOWN16 = 0x60, ABSENT = 0x68 };

static void put_gdt(struct room *room)
{
    static const uint64_t gdt[] = {
        0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0x0040930000000fff, 0x00cf91000000ffff,
        0x0040970000000fff, 0x00cf99000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x000089000000ffff | (uint64_t)ROOM_TSS << 16,
        0, 0x0000970000000fff, 0x00cf13000000ffff,
    };
    room_put(room, ROOM_GDT, gdt, sizeof gdt);
}

/* All vectors lead to a HLT. */
static void put_idt(struct room *room, bool is_long)
{
    for (unsigned vector = 0; vector < 64; vector++) {
        uint64_t low = (ROOM_HANDLER & 0xffff) | (uint64_t)(is_long ? CODE64 : CODE) << 16 | 0xeeull << 40 |
                       (uint64_t)(ROOM_HANDLER >> 16) << 48;
        room_put64(room, ROOM_IDT + vector * (is_long ? 16 : 8), low);
        if (is_long)
            room_put64(room, ROOM_IDT + vector * 16 + 8, 0);
    }
    uint8_t hlt = 0xf4;
    room_put(room, ROOM_HANDLER, &hlt, 1);
}

static void segment_from(struct cpu *cpu, enum seg seg, unsigned selector)
{
    struct descriptor d;
    CHECK(read_descriptor(cpu, (uint16_t)selector, &d, VEC_GP));
    set_segment(cpu, seg, (uint16_t)selector, &d);
}

/* Flat 32-bit protected mode without paging, ring 0 or 3. */
static struct room *protected_mode(const char *profile, unsigned level)
{
    struct room *room = room_new(profile);
    struct cpu *cpu = room->cpu;
    put_gdt(room);
    put_idt(room, false);
    cpu->gdtr = (struct table_register){ .base = ROOM_GDT, .limit = 0x6f };
    cpu->idtr = (struct table_register){ .base = ROOM_IDT, .limit = 64 * 8 - 1 };
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
    cpu->cr4 = 0;
    cpu->msr[MSR_EFER] = 0;
    for (enum seg seg = ES; seg <= GS; seg++)
        segment_from(cpu, seg, seg == CS ? (level ? USER_CODE : CODE) : level ? USER_DATA : DATA);
    segment_from(cpu, TR, TASK);
    uint32_t stack0[2] = { ROOM_STACK, DATA };
    room_put(room, ROOM_TSS + 4, stack0, sizeof stack0);
    uint16_t no_map = 0xffff;
    room_put(room, ROOM_TSS + 0x66, &no_map, 2);
    cpu->cpl = (uint8_t)level;
    cpu->r[RSP] = ROOM_STACK;
    cpu->r[REG_RIP] = ROOM_CODE;
    cpu_mode_changed(cpu);
    return room;
}

static struct room *long_mode(const char *profile)
{
    struct room *room = room_new(profile);
    struct cpu *cpu = room->cpu;
    put_gdt(room);
    put_idt(room, true);
    cpu->gdtr = (struct table_register){ .base = ROOM_GDT, .limit = 0x6f };
    cpu->idtr = (struct table_register){ .base = ROOM_IDT, .limit = 64 * 16 - 1 };
    segment_from(cpu, CS, CODE64);
    segment_from(cpu, TR, TASK);
    cpu->r[REG_RIP] = ROOM_CODE;
    cpu_mode_changed(cpu);
    return room;
}

static struct room *real_mode(void)
{
    struct room *room = room_new("intel-2006");
    struct cpu *cpu = room->cpu;
    cpu_reset(cpu);
    set_segment_real(cpu, CS, 0);
    for (unsigned vector = 0; vector < 64; vector++) {
        uint32_t target = ROOM_HANDLER >> 4 << 16;
        room_put(room, vector * 4, &target, 4);
    }
    uint8_t hlt = 0xf4;
    room_put(room, ROOM_HANDLER, &hlt, 1);
    cpu->r[REG_RIP] = ROOM_CODE;
    cpu->r[RSP] = ROOM_STACK;
    cpu_mode_changed(cpu);
    return room;
}

/* A task in vm86 with or without VME; its own table at 0 leads to 0:ROOM_HANDLER too. */
static struct room *vm86_mode(bool vme, unsigned level)
{
    struct room *room = protected_mode("intel-2006", 0);
    struct cpu *cpu = room->cpu;
    cpu->cr4 = vme ? CR4_VME : 0;
    cpu->cpl = 3;
    set_rflags(cpu, FLAG_VM | (uint64_t)level << IOPL_SHIFT);
    for (enum seg seg = ES; seg <= GS; seg++)
        set_segment_real(cpu, seg, seg == CS ? 0 : 0x100);
    for (unsigned vector = 0; vector < 64; vector++) {
        uint32_t target = (uint32_t)(ROOM_HANDLER & 0xf) | ROOM_HANDLER >> 4 << 16;
        room_put(room, vector * 4, &target, 4);
    }
    uint16_t io_map = 0x88;
    room_put(room, ROOM_TSS + 0x66, &io_map, 2);
    cpu->r[REG_RIP] = ROOM_CODE;
    cpu->r[RSP] = 0x800;
    cpu_mode_changed(cpu);
    return room;
}

static void put_code(struct room *room, unsigned count, ...)
{
    va_list bytes;
    va_start(bytes, count);
    for (unsigned k = 0; k < count; k++) {
        uint8_t byte = (uint8_t)va_arg(bytes, int);
        room_put(room, ROOM_CODE + k, &byte, 1);
    }
    va_end(bytes);
}

/* Runs until the handler's HLT (or another stop) and says what was delivered last: vector << 32 | error code. */
#define NOTHING UINT64_MAX
static uint64_t delivered(struct room *room)
{
    memset(&room->cpu->event, 0xff, sizeof room->cpu->event);
    cpu_run(room->cpu, 100);
    const struct fault *event = &room->cpu->event;
    return event->vector == 0xff ? NOTHING : (uint64_t)event->vector << 32 | event->error;
}
#define FAULT(vector, error) ((uint64_t)(vector) << 32 | (error))

/* ---- limits and types ------------------------------------------------------------------------------------------------- */

static uint64_t store_to(unsigned selector, uint32_t offset)
{
    struct room *room = protected_mode("intel-2006", 0);
    segment_from(room->cpu, DS, selector);
    cpu_update_view(room->cpu, DS);
    room->cpu->r[RBX] = offset;
    put_code(room, 3, 0x89, 0x03, 0xf4); /* mov [ebx], eax; hlt */
    uint64_t got = delivered(room);
    room_free(room);
    return got;
}

TEST(segment_limits_and_types)
{
    CHECK_EQ(store_to(SMALL, 0xffc), NOTHING);
    CHECK_EQ(store_to(SMALL, 0xffd), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(SMALL, 0xffffffff), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(DOWN, 0x1000), NOTHING);
    CHECK_EQ(store_to(DOWN, 0xfff), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(DOWN, 0x1fffff), NOTHING);
    CHECK_EQ(store_to(DOWN, 0xfffffffe), FAULT(VEC_GP, 0)); /* the upper end of expand-down is FFFFFFFF */
    CHECK_EQ(store_to(DOWN16, 0xfffc), NOTHING);
    CHECK_EQ(store_to(DOWN16, 0xfffd), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(DOWN16, 0x10000), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(READ_ONLY, 0x1000), FAULT(VEC_GP, 0));
    CHECK_EQ(store_to(CODE, 0x1000), FAULT(VEC_GP, 0));
}

TEST(execute_only_code_cannot_be_read)
{
    struct room *room = protected_mode("intel-2006", 0);
    segment_from(room->cpu, CS, EXEC_ONLY);
    cpu_mode_changed(room->cpu);
    put_code(room, 7, 0x2e, 0xa1, 0, 0x60, 0, 0, 0xf4); /* mov eax, cs:[6000h] */
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);
}

TEST(null_segment_faults_at_use)
{
    struct room *room = protected_mode("intel-2006", 0);
    put_code(room, 9, 0x31, 0xc0, 0x8e, 0xd8, 0xa1, 0, 0x60, 0, 0); /* xor eax,eax; mov ds,eax; mov eax,[6000h] */
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    CHECK_EQ(room->cpu->retired, 3);
    room_free(room);
}

TEST(stack_faults_are_ss)
{
    struct room *room = protected_mode("intel-2006", 3);
    segment_from(room->cpu, SS, USER_DATA);
    room->cpu->seg[SS].limit = 0xfff;
    cpu_mode_changed(room->cpu);
    room->cpu->r[RSP] = 0x1002;
    put_code(room, 1, 0x50); /* push eax */
    CHECK_EQ(delivered(room), FAULT(VEC_SS, 0));
    CHECK_EQ(room->cpu->cpl, 0);
    room_free(room);
}

TEST(real_mode_limits)
{
    struct room *room = real_mode();
    put_code(room, 4, 0xa1, 0xff, 0xff, 0xf4); /* mov ax, [ffffh] */
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    CHECK_EQ(room->cpu->seg[CS].selector, ROOM_HANDLER >> 4);
    room_free(room);

    room = real_mode();
    room->cpu->r[RSP] = 1;
    put_code(room, 2, 0x50, 0xf4); /* push ax: no stack for the handler either */
    delivered(room);
    CHECK_EQ(room->cpu->activity, ACTIVITY_SHUTDOWN);
    room_free(room);

    room = real_mode();
    room->cpu->idtr.limit = 0x1f; /* vectors 0 to 7: neither #GP nor #DF */
    put_code(room, 2, 0xcd, 0x20);
    delivered(room);
    CHECK_EQ(room->cpu->activity, ACTIVITY_SHUTDOWN);
    room_free(room);
}

/* ---- addresses of 64 bits ------------------------------------------------------------------------------------------------ */

static uint64_t with_address(uint64_t address, uint8_t opcode, uint8_t modrm)
{
    struct room *room = long_mode("intel-2006");
    room->cpu->r[RAX] = room->cpu->r[RBP] = address;
    put_code(room, 4, 0x48, opcode, modrm, 0xf4);
    if (modrm == 0x45)
        put_code(room, 5, 0x48, opcode, modrm, 0, 0xf4);
    uint64_t got = delivered(room);
    room_free(room);
    return got;
}

TEST(addresses_must_be_canonical)
{
    CHECK_EQ(with_address(0x800000000000, 0x8b, 0x00), FAULT(VEC_GP, 0)); /* mov rax, [rax] */
    CHECK_EQ(with_address(0x7fffffffffff, 0x8b, 0x00), FAULT(VEC_GP, 0));
    CHECK_EQ(with_address(0x800000000000, 0x8b, 0x45), FAULT(VEC_SS, 0)); /* mov rax, [rbp + 0] */
    CHECK_EQ(with_address(0x1000, 0x8b, 0x00), NOTHING);

    struct room *room = long_mode("intel-2006");
    room->cpu->r[RSP] = 0x800000000010;
    put_code(room, 3, 0x50, 0x50, 0xf4);
    delivered(room);
    CHECK_EQ(room->cpu->activity, ACTIVITY_SHUTDOWN); /* no stack to deliver #SS on */
    room_free(room);

    room = long_mode("intel-2006");
    put_code(room, 4, 0xff, 0xe0, 0xf4, 0xf4); /* jmp rax */
    room->cpu->r[RAX] = 0x800000000000;
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    CHECK_EQ(room_get64(room, room->cpu->r[RSP] + 8), ROOM_CODE);
    room_free(room);
}

TEST(null_ss_in_long_mode_wants_its_own_rpl)
{
    for (unsigned rpl = 0; rpl < 4; rpl++) {
        struct room *room = long_mode("intel-2006");
        room->cpu->r[RAX] = rpl;
        put_code(room, 3, 0x8e, 0xd0, 0xf4); /* mov ss, eax */
        CHECK_EQ(delivered(room), rpl ? FAULT(VEC_GP, 0) : NOTHING);
        room_free(room);
    }
}

/* ---- control registers and MSRs -------------------------------------------------------------------------------------------- */

static bool takes_cr(struct room *room, unsigned number, uint64_t value)
{
    struct cpu *cpu = room->cpu;
    bool ok = number == 0 ? write_cr0(cpu, value) : number == 3 ? write_cr3(cpu, value)
              : number == 4 ? write_cr4(cpu, value) : write_cr8(cpu, value);
    CHECK(ok || (cpu->leave == LEAVE_FAULT && cpu->fault.vector == VEC_GP && cpu->fault.error == 0));
    cpu->leave = LEAVE_NONE;
    return ok;
}

TEST(control_registers_refuse)
{
    struct room *room = protected_mode("intel-2006", 0);
    CHECK(!takes_cr(room, 0, CR0_PG | CR0_ET));            /* PG without PE */
    CHECK(!takes_cr(room, 0, CR0_PE | CR0_NW));            /* NW without CD */
    CHECK(!takes_cr(room, 0, 1ull << 32 | CR0_PE));
    CHECK(takes_cr(room, 0, CR0_PE | 1 << 6));             /* other reserved bits are dropped */
    CHECK_EQ(room->cpu->cr0, CR0_PE | CR0_ET);
    CHECK(!takes_cr(room, 4, 1 << 15));
    CHECK(!takes_cr(room, 4, CR4_SMEP));                   /* a bit of a later processor */
    CHECK(!takes_cr(room, 4, CR4_OSFXSR));                 /* no FXSAVE, no bit */
    CHECK(takes_cr(room, 4, CR4_VME | CR4_PVI | CR4_PSE | CR4_PGE));
    room_free(room);

    room = long_mode("intel-2006");
    CHECK(!takes_cr(room, 4, CR4_VMXE));                   /* PAE must stay */
    CHECK(!takes_cr(room, 0, CR0_PE | CR0_ET));            /* PG must stay in 64-bit code */
    CHECK(!takes_cr(room, 3, 1ull << 36));                 /* MAXPHYADDR is 36 */
    CHECK(takes_cr(room, 3, ROOM_PML4 | 0x18));
    CHECK(!takes_cr(room, 8, 16));
    CHECK(takes_cr(room, 8, 15));
    CHECK(!write_efer(room->cpu, 0));                      /* LME must stay while PG is set */
    CHECK(!write_efer(room->cpu, EFER_LME | 1 << 3));
    CHECK(write_efer(room->cpu, EFER_LME | EFER_NXE | EFER_SCE));
    CHECK_EQ(room->cpu->msr[MSR_EFER], EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
    CHECK(!write_msr(room->cpu, 0xc0000101, 1ull << 47));
    CHECK(!write_msr(room->cpu, 0x277, 2));                /* no such memory type */
    CHECK(write_msr(room->cpu, 0x277, 0x0606060606060606));
    uint64_t value;
    CHECK(!read_msr(room->cpu, 0xc0010117, &value));       /* VM_HSAVE_PA is AMD's */
    room_free(room);
}

TEST(pae_reads_the_pdptes_at_once)
{
    struct room *room = protected_mode("intel-2006", 0);
    CHECK(takes_cr(room, 3, ROOM_PAE));
    CHECK(takes_cr(room, 4, CR4_PAE));
    CHECK(takes_cr(room, 0, CR0_PE | CR0_PG));
    CHECK_EQ(room->cpu->pdpte[0], ROOM_PD | 1);
    room_put64(room, ROOM_PAE, ROOM_PD | 3); /* bit 1 is reserved */
    CHECK(!takes_cr(room, 3, ROOM_PAE));
    room_free(room);
}

TEST(entering_and_leaving_long_mode)
{
    struct room *room = protected_mode("intel-2006", 0);
    struct cpu *cpu = room->cpu;
    CHECK(write_efer(cpu, EFER_LME));
    CHECK(takes_cr(room, 3, ROOM_PML4));
    CHECK(!takes_cr(room, 0, CR0_PE | CR0_PG)); /* PAE first */
    CHECK(takes_cr(room, 4, CR4_PAE));
    CHECK(takes_cr(room, 0, CR0_PE | CR0_PG));
    CHECK(is_long_active(cpu) && !is_64bit(cpu));
    CHECK(takes_cr(room, 0, CR0_PE));           /* from compatibility mode that is allowed */
    CHECK(!is_long_active(cpu));
    room_free(room);
}

/* ---- faults of faults, flags of handlers ------------------------------------------------------------------------------------ */

static void gate_absent(struct room *room, unsigned vector, unsigned entry_bytes)
{
    uint8_t attr = 0x6e;
    room_put(room, ROOM_IDT + vector * entry_bytes + 5, &attr, 1);
}

TEST(error_codes_name_the_gate_and_who_asked)
{
    struct room *room = protected_mode("intel-2006", 0);
    gate_absent(room, VEC_UD, 8);
    put_code(room, 2, 0x0f, 0x0b);                              /* an exception: EXT */
    CHECK_EQ(delivered(room), FAULT(VEC_NP, VEC_UD * 8 + 3));
    room_free(room);

    room = protected_mode("intel-2006", 0);
    gate_absent(room, 0x30, 8);
    put_code(room, 2, 0xcd, 0x30);                              /* INT n: the program asked */
    CHECK_EQ(delivered(room), FAULT(VEC_NP, 0x30 * 8 + 2));
    room_free(room);

    room = long_mode("intel-2006");
    gate_absent(room, 0x30, 16);
    put_code(room, 2, 0xcd, 0x30);
    CHECK_EQ(delivered(room), FAULT(VEC_NP, 0x30 * 8 + 2));
    room_free(room);

    room = protected_mode("intel-2006", 0);
    gate_absent(room, 0x31, 8);
    room->cpu->intr = 1;
    room->cpu->intr_vector = 0x31;
    set_rflags(room->cpu, FLAG_IF);
    put_code(room, 2, 0x90, 0xf4);                              /* an interrupt: EXT */
    CHECK_EQ(delivered(room), FAULT(VEC_NP, 0x31 * 8 + 3));
    room_free(room);
}

TEST(double_and_triple_faults)
{
    struct room *room = protected_mode("intel-2006", 0);
    gate_absent(room, VEC_GP, 8);
    put_code(room, 2, 0xcd, 0x7f);                              /* beyond the IDT: #GP, whose gate is absent */
    CHECK_EQ(delivered(room), FAULT(VEC_DF, 0));
    CHECK_EQ(room_get64(room, room->cpu->r[RSP]) & 0xffffffff, 0);
    room_free(room);

    room = protected_mode("intel-2006", 0);
    room->cpu->idtr.limit = 0;
    put_code(room, 2, 0x0f, 0x0b);
    delivered(room);
    CHECK_EQ(room->cpu->activity, ACTIVITY_SHUTDOWN);
    CHECK_EQ(room->cpu->r[REG_RIP], ROOM_CODE);
    room_free(room);

    room = long_mode("intel-2006");                             /* #PF whose stack gives #PF */
    room->cpu->r[RSP] = 0x400000;
    put_code(room, 8, 0x8b, 0x04, 0x25, 0, 0, 0x30, 0, 0xf4);   /* mov eax, [300000h] */
    delivered(room);
    CHECK_EQ(room->cpu->activity, ACTIVITY_SHUTDOWN);
    CHECK_EQ(room->cpu->cr2, 0x3fffd8 + 0x20); /* the push of SS */
    room_free(room);
}

TEST(rf_is_in_the_image_of_faults_only)
{
    struct room *room = protected_mode("intel-2006", 0);
    put_code(room, 2, 0x0f, 0x0b);
    CHECK_EQ(delivered(room), FAULT(VEC_UD, 0));
    CHECK(room_get64(room, room->cpu->r[RSP] + 8) & FLAG_RF);
    CHECK(!(room->cpu->rflags & FLAG_RF));
    room_free(room);

    room = protected_mode("intel-2006", 0);
    put_code(room, 1, 0xcc);
    CHECK_EQ(delivered(room), FAULT(VEC_BP, 0));
    CHECK(!(room_get64(room, room->cpu->r[RSP] + 8) & FLAG_RF));
    CHECK_EQ(room_get64(room, room->cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 1);
    room_free(room);
}

/* ---- debug -------------------------------------------------------------------------------------------------------------------- */

TEST(single_step)
{
    struct room *room = protected_mode("intel-2006", 0);
    set_rflags(room->cpu, FLAG_TF);
    put_code(room, 2, 0x90, 0x90);
    CHECK_EQ(delivered(room), FAULT(VEC_DB, 0));
    CHECK_EQ(room_get64(room, room->cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 1);
    CHECK_EQ(room->cpu->dr[6] & 0xf00f, DR6_BS);
    CHECK(!(room->cpu->rflags & FLAG_TF));
    room_free(room);

    room = protected_mode("intel-2006", 0);
    set_rflags(room->cpu, FLAG_TF);
    put_code(room, 2, 0xcd, 0x30); /* INT n clears TF on its way: no trap */
    CHECK_EQ(delivered(room), FAULT(0x30, 0));
    CHECK_EQ(room->cpu->pending_db, 0);
    room_free(room);

    room = protected_mode("intel-2006", 0);
    set_rflags(room->cpu, FLAG_TF);
    room->cpu->r[RAX] = DATA;
    put_code(room, 4, 0x8e, 0xd0, 0x90, 0x90); /* MOV SS: the trap comes one later */
    CHECK_EQ(delivered(room), FAULT(VEC_DB, 0));
    CHECK_EQ(room_get64(room, room->cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 3);
    room_free(room);
}

TEST(breakpoints_of_the_debug_registers)
{
    struct room *room = protected_mode("intel-2006", 0);
    struct cpu *cpu = room->cpu;
    CHECK(write_dr(cpu, 0, ROOM_CODE + 1) && write_dr(cpu, 7, 1));
    put_code(room, 3, 0x90, 0x90, 0xf4);
    CHECK_EQ(delivered(room), FAULT(VEC_DB, 0));
    CHECK_EQ(room_get64(room, cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 1); /* before it runs */
    CHECK_EQ(cpu->dr[6] & 0xf00f, 1);
    CHECK_EQ(cpu->retired, 2); /* the NOP and the handler's HLT */
    room_free(room);

    room = protected_mode("intel-2006", 0);
    cpu = room->cpu;
    CHECK(write_dr(cpu, 1, 0x9002) && write_dr(cpu, 7, 4 | 1 << 20 | 1 << 22)); /* two bytes, writes */
    put_code(room, 11, 0xa1, 0, 0x90, 0, 0, 0xa3, 0, 0x90, 0, 0, 0x90);         /* reads it, writes it */
    CHECK_EQ(delivered(room), FAULT(VEC_DB, 0));
    CHECK_EQ(room_get64(room, cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 10); /* behind the store */
    CHECK_EQ(cpu->dr[6] & 0xf00f, 2);
    room_free(room);

    room = protected_mode("intel-2006", 0);
    CHECK(write_dr(room->cpu, 7, DR7_GD));
    put_code(room, 3, 0x0f, 0x21, 0xc0); /* mov eax, dr0 */
    CHECK_EQ(delivered(room), FAULT(VEC_DB, 0));
    CHECK_EQ(room->cpu->dr[6] & 0xf00f, DR6_BD);
    CHECK(!(room->cpu->dr[7] & DR7_GD));
    room_free(room);
}

/* ---- interrupts and shadows ------------------------------------------------------------------------------------------------------- */

TEST(sti_and_mov_ss_hold_interrupts_for_one_instruction)
{
    static const uint8_t code[2][6] = { { 0xfb, 0x90, 0x90 }, { 0x8e, 0xd0, 0x90, 0x90 } }; /* sti, mov ss */
    for (unsigned k = 0; k < 2; k++) {
        struct room *room = protected_mode("intel-2006", 0);
        room->cpu->r[RAX] = DATA;
        set_rflags(room->cpu, k ? FLAG_IF : 0);
        room_put(room, ROOM_CODE, code[k], 6);
        if (k)
            cpu_step(room->cpu); /* MOV SS itself runs before the line rises */
        room->cpu->intr = 1;
        room->cpu->intr_vector = 0x30;
        cpu_update_attention(room->cpu);
        CHECK_EQ(delivered(room), FAULT(0x30, 0));
        CHECK_EQ(room_get64(room, room->cpu->r[RSP]) & 0xffffffff, ROOM_CODE + 2 + k);
        room_free(room);
    }
}

static bool answer_later(void *context, struct device_access *access)
{
    (void)context, (void)access;
    return false;
}

/* A stack in a device: every push waits for user space, and the interrupt is delivered once. */
TEST(a_delivery_waits_for_a_device)
{
    struct room *room = protected_mode("intel-2006", 0);
    struct cpu *cpu = room->cpu;
    uint64_t pushed[8];
    unsigned nr = 0;
    cpu->device_hook = answer_later;
    cpu->r[RSP] = 0x80000010;
    set_rflags(cpu, FLAG_IF | FLAG_CF);
    put_code(room, 2, 0x90, 0x90);
    cpu->intr = 1;
    cpu->intr_vector = 0x30;
    cpu_update_attention(cpu);
    while (nr < 8 && cpu_run(cpu, 10) == STOP_DEVICE) {
        CHECK_EQ(cpu->r[REG_RIP], ROOM_CODE);
        CHECK(cpu->device.is_write);
        pushed[nr++] = cpu->device.value;
        cpu_answer(cpu, 0);
    }
    CHECK_EQ(nr, 3);
    CHECK_EQ(pushed[0], FLAG_IF | FLAG_1 | FLAG_CF);
    CHECK_EQ(pushed[1], CODE);
    CHECK_EQ(pushed[2], ROOM_CODE);
    CHECK_EQ(cpu->r[REG_RIP], ROOM_HANDLER + 1);
    CHECK_EQ(cpu->r[RSP], 0x80000004);
    room_free(room);
}

/* ---- VME and PVI --------------------------------------------------------------------------------------------------------------------- */

static void redirect(struct room *room, unsigned vector, bool to_monitor)
{
    uint8_t bits = to_monitor ? (uint8_t)(1u << vector % 8) : 0;
    room_put(room, ROOM_TSS + 0x68 + vector / 8, &bits, 1);
}

TEST(vm86_interrupts_by_redirection_bit)
{
    struct room *room = vm86_mode(true, 0);
    redirect(room, 0x21, false);
    room->cpu->rflags |= FLAG_VIF;
    put_code(room, 2, 0xcd, 0x21);
    cpu_step(room->cpu);
    CHECK(is_vm86(room->cpu));
    CHECK_EQ(room->cpu->r[REG_RIP], ROOM_HANDLER & 0xf);
    CHECK_EQ(room->cpu->seg[CS].selector, ROOM_HANDLER >> 4);
    CHECK_EQ(room->cpu->r[RSP], 0x7fa);
    CHECK_EQ(room_get64(room, 0x1000 + 0x7fa) >> 32 & 0xffff, FLAG_1 | FLAG_IOPL | FLAG_IF); /* VIF shows as IF, IOPL as 3 */
    CHECK(!(room->cpu->rflags & FLAG_VIF));
    room_free(room);

    room = vm86_mode(true, 0);
    redirect(room, 0x21, true);
    put_code(room, 2, 0xcd, 0x21);
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0)); /* IOPL below 3: for the monitor */
    CHECK(!is_vm86(room->cpu));
    CHECK_EQ(room->cpu->seg[DS].attr & SEG_UNUSABLE, SEG_UNUSABLE);
    room_free(room);

    room = vm86_mode(true, 3);
    redirect(room, 0x21, true);
    put_code(room, 2, 0xcd, 0x21);
    CHECK_EQ(delivered(room), FAULT(0x21, 0));
    CHECK_EQ(room->cpu->r[RSP], ROOM_STACK - 9 * 4);
    room_free(room);
}

TEST(vm86_flags_with_vme)
{
    struct room *room = vm86_mode(true, 0);
    struct cpu *cpu = room->cpu;
    put_code(room, 4, 0xfb, 0x9c, 0xfa, 0x9d); /* sti, pushf, cli, popf */
    cpu_step(cpu);
    CHECK_EQ(cpu->rflags & (FLAG_VIF | FLAG_IF), FLAG_VIF);
    cpu_step(cpu);
    CHECK_EQ(room_get64(room, 0x1000 + 0x7fe) & 0xffff, FLAG_1 | FLAG_IOPL | FLAG_IF);
    cpu_step(cpu);
    CHECK_EQ(cpu->rflags & FLAG_VIF, 0);
    cpu_step(cpu);
    CHECK_EQ(cpu->rflags & (FLAG_VIF | FLAG_IF | FLAG_IOPL | FLAG_VM), FLAG_VIF | FLAG_VM);
    room_free(room);

    room = vm86_mode(true, 0);
    room->cpu->rflags |= FLAG_VIP;
    put_code(room, 1, 0xfb); /* STI with an interrupt waiting */
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);

    room = vm86_mode(false, 0);
    put_code(room, 1, 0x9c);
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);
}

TEST(protected_mode_virtual_interrupts)
{
    struct room *room = protected_mode("intel-2006", 3);
    room->cpu->cr4 |= CR4_PVI;
    put_code(room, 2, 0xfb, 0xfa);
    cpu_step(room->cpu);
    CHECK_EQ(room->cpu->rflags & (FLAG_VIF | FLAG_IF), FLAG_VIF);
    cpu_step(room->cpu);
    CHECK_EQ(room->cpu->rflags & FLAG_VIF, 0);
    room_free(room);
}

/* ---- what is absent, and what differs by vendor ----------------------------------------------------------------------------------------- */

TEST(no_coprocessor)
{
    static const uint64_t cr0[] = { 0, CR0_EM, CR0_TS };
    for (unsigned k = 0; k < 3; k++) {
        struct room *room = protected_mode("intel-2006", 0);
        room->cpu->cr0 |= cr0[k];
        put_code(room, 2, 0xd9, 0xe8); /* fld1 */
        CHECK_EQ(delivered(room), FAULT(k ? VEC_NM : VEC_UD, 0));
        room_free(room);
    }
    struct room *room = protected_mode("intel-2006", 0);
    room->cpu->cr0 |= CR0_MP | CR0_TS;
    put_code(room, 1, 0x9b);
    CHECK_EQ(delivered(room), FAULT(VEC_NM, 0));
    room_free(room);
}

TEST(cpuid_says_what_there_is)
{
    uint32_t out[4];
    for (unsigned n = 0; n < nr_profiles(); n++) {
        struct room *room = long_mode(profile_at(n)->name);
        struct cpu *cpu = room->cpu;
        cpuid(cpu, 1, 0, out);
        CHECK_EQ(out[0], cpu->profile->signature);
        CHECK(!(out[3] & 1) && !(out[3] & 0x07800000)); /* no x87, MMX, FXSR, SSE, SSE2 yet */
        CHECK_EQ(out[2] >> 5 & 1, cpu_has(cpu, FEATURE_VMX));
        cpuid(cpu, 0x80000001, 0, out);
        CHECK_EQ(out[2] >> 2 & 1, cpu_has(cpu, FEATURE_SVM));
        CHECK(out[3] >> 29 & 1);
        CHECK(out[3] >> 11 & 1); /* in 64-bit code both show SYSCALL */
        cpuid(cpu, 0x80000008, 0, out);
        CHECK_EQ(out[0], cpu->profile->physical_bits | cpu->profile->linear_bits << 8);
        cpuid(cpu, 0x7fffffff, 0, out);
        CHECK_EQ(out[0] || out[1] || out[2] || out[3], cpu->profile->vendor == VENDOR_INTEL); /* as the highest basic leaf */
        room_free(room);
    }
}

TEST(syscall_outside_64_bit_code)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct room *room = long_mode(amd ? "amd-2006" : "intel-2006");
        struct cpu *cpu = room->cpu;
        segment_from(cpu, CS, CODE);
        cpu->msr[MSR_EFER] |= EFER_SCE;
        cpu->msr[MSR_STAR] = (uint64_t)CODE64 << 32;
        cpu->msr[MSR_CSTAR] = ROOM_HANDLER;
        cpu_mode_changed(cpu);
        put_code(room, 2, 0x0f, 0x05);
        CHECK_EQ(delivered(room), amd ? NOTHING : FAULT(VEC_UD, 0));
        CHECK(is_64bit(cpu));
        CHECK_EQ(cpu->r[REG_RIP], ROOM_HANDLER + 1);
        room_free(room);
    }
}

TEST(sysenter_in_long_mode)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct room *room = long_mode(amd ? "amd-2006" : "intel-2006");
        struct cpu *cpu = room->cpu;
        cpu->msr[MSR_SYSENTER_CS] = CODE64;
        cpu->msr[MSR_SYSENTER_EIP] = ROOM_HANDLER;
        cpu->msr[MSR_SYSENTER_ESP] = 0xffff800000000000;
        put_code(room, 2, 0x0f, 0x34);
        CHECK_EQ(delivered(room), amd ? FAULT(VEC_UD, 0) : NOTHING);
        CHECK(amd || cpu->r[RSP] == 0xffff800000000000);
        room_free(room);
    }
}

TEST(null_selectors_and_their_base)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct room *room = long_mode(amd ? "amd-2006" : "intel-2006");
        room->cpu->seg[GS].base = 0x1234;
        put_code(room, 5, 0x31, 0xc0, 0x8e, 0xe8, 0xf4); /* mov gs, eax */
        CHECK_EQ(delivered(room), NOTHING);
        CHECK_EQ(room->cpu->seg[GS].base, amd ? 0x1234 : 0);
        room_free(room);
    }
}

TEST(lock_mov_cr0_is_cr8_on_amd)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        struct room *room = protected_mode(amd ? "amd-2006" : "intel-2006", 0);
        room->cpu->r[RAX] = 7;
        put_code(room, 5, 0xf0, 0x0f, 0x22, 0xc0, 0xf4);
        CHECK_EQ(delivered(room), amd ? NOTHING : FAULT(VEC_UD, 0));
        CHECK_EQ(room->cpu->cr8, amd ? 7 : 0);
        room_free(room);
    }
}

TEST(time_stamps_count_instructions)
{
    struct room *room = protected_mode("intel-2006", 3);
    put_code(room, 6, 0x90, 0x0f, 0x31, 0x90, 0x0f, 0x31);
    cpu_run(room->cpu, 4);
    CHECK_EQ(room->cpu->r[RAX], 3);
    room->cpu->cr4 |= CR4_TSD;
    put_code(room, 2, 0x0f, 0x31);
    room->cpu->r[REG_RIP] = ROOM_CODE;
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);
}

TEST(umip_hides_the_tables)
{
    struct room *room = protected_mode("intel", 3);
    put_code(room, 7, 0x0f, 0x01, 0x05, 0, 0x90, 0, 0); /* sgdt [9000h] */
    cpu_step(room->cpu);
    CHECK_EQ(room_get64(room, 0x9000) >> 16 & 0xffffffff, ROOM_GDT);
    room->cpu->cr4 |= CR4_UMIP;
    room->cpu->r[REG_RIP] = ROOM_CODE;
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);
}

TEST(ports_by_the_map_of_the_task)
{
    struct room *room = protected_mode("intel-2006", 3);
    uint16_t map = 0x68;
    uint8_t allowed[0x100];
    memset(allowed, 0xff, sizeof allowed);
    allowed[0x78 / 8] = 0x00; /* ports 78 to 7f */
    room_put(room, ROOM_TSS + 0x66, &map, 2);
    room_put(room, ROOM_TSS + 0x68, allowed, sizeof allowed);
    put_code(room, 4, 0xe5, 0x7c, 0xe5, 0x7d); /* four bytes at 7c; at 7d one is 80 */
    cpu_step(room->cpu);
    CHECK_EQ(room->cpu->r[REG_RIP], ROOM_CODE + 2);
    CHECK_EQ(delivered(room), FAULT(VEC_GP, 0));
    room_free(room);
}

TEST(alignment_is_checked_in_ring_3_only)
{
    for (unsigned level = 0; level <= 3; level += 3) {
        struct room *room = protected_mode("intel-2006", level);
        room->cpu->cr0 |= CR0_AM;
        cpu_mode_changed(room->cpu);
        set_rflags(room->cpu, FLAG_AC);
        put_code(room, 11, 0xa1, 0, 0x90, 0, 0, 0xa1, 2, 0x90, 0, 0, 0xf4); /* at 9000h, at 9002h */
        CHECK_EQ(delivered(room), level ? FAULT(VEC_AC, 0) : NOTHING);
        CHECK_EQ(room->cpu->retired, 2 + (level == 0));
        room_free(room);
    }
}

/* SMAP: AC opens user pages to ring 0, never to the processor's own accesses for a user program. */
TEST(smap_and_the_ac_flag)
{
    struct room *room = long_mode("intel");
    struct cpu *cpu = room->cpu;
    uint64_t physical;
    cpu->cr4 |= CR4_SMAP;
    cpu_mode_changed(cpu);
    put_code(room, 3, 0x0f, 0x01, 0xcb); /* stac */
    cpu_step(cpu);
    CHECK(translate(cpu, 0x9000, ACCESS_READ, false, &physical));
    cpu->cpl = 3;
    CHECK(!translate(cpu, 0x9000, ACCESS_READ, false, &physical));
    CHECK_EQ(cpu->fault.vector, VEC_PF);
    CHECK_EQ(cpu->fault.error, PF_P);
    cpu->cpl = 0;
    set_rflags(cpu, 0);
    CHECK(!translate(cpu, 0x9000, ACCESS_READ, false, &physical));
    room_free(room);
}
