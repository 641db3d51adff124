/* The engine's side: a bare processor at privilege level 3 behind page tables that map only the
 * code and data of the oracle. The instruction is decoded and executed by its handler directly, so
 * that a fault stays visible instead of being delivered. */
#include "oracle.h"

#include "cpu/access.h"
#include "cpu/flags.h"
#include "cpu/insn.h"

#include <stdio.h>

/* Physical: tables at 0, then code and data at their linear addresses. */
#define PAGE_U_W_P 7u
#define PAGE_U_P 5u
#define TABLE_PAE 0x1000u /* 4-level: 1000 PML4, 2000 PDPT, 3000 PD, 4000 PT */
#define TABLE_32 0x5000u  /* 32-bit: 5000 PD, 6000 PT */

const struct oracle_segment oracle_segments[6] = {
    [ES] = { DATA_BASE + 0x10, 0x1fdf, false, false, false },
    [CS] = { CODE_BASE, 0xffff, true, false, false },
    [SS] = { DATA_BASE, 0x1fff, false, false, false },
    [DS] = { DATA_BASE, 0x1fff, false, false, false },
    [FS] = { DATA_BASE + 0x100, 0xfff, false, true, false },
    [GS] = { DATA_BASE - 0x1000, 0x12ff, false, false, true },
};

static const struct oracle_segment flat_segments[2] = {
    { 0, 0xffffffff, false, false, false },
    { 0, 0xffffffff, true, false, false },
};

static struct memory memory;
static struct space space;
static struct trace trace;
static struct cpu *cpu;
static struct ram *code_ram, *data_ram;

static void put_entry(uint64_t pa, uint64_t entry, unsigned bytes) { space_write(&space, pa, &entry, bytes); }

static void map_page(uint32_t linear, unsigned rights)
{
    put_entry(0x4000 + (linear >> 12 & 511) * 8, linear | rights, 8);
    put_entry(0x6000 + (linear >> 12 & 1023) * 4, linear | rights, 4);
}

static void build_tables(void)
{
    put_entry(TABLE_PAE, 0x2000 | PAGE_U_W_P, 8);
    put_entry(0x2000, 0x3000 | PAGE_U_W_P, 8);
    put_entry(0x3000 + (CODE_BASE >> 21 & 511) * 8, 0x4000 | PAGE_U_W_P, 8);
    put_entry(TABLE_32 + (CODE_BASE >> 22) * 4, 0x6000 | PAGE_U_W_P, 4);
    map_page(CODE_BASE, PAGE_U_P);
    for (uint32_t at = 0; at < DATA_SIZE; at += PAGE_SIZE)
        map_page(DATA_BASE + at, PAGE_U_W_P);
}

bool bare_init(const char *profile_name)
{
    const char *error;
    const struct profile *profile = profile_find(profile_name);
    if (!engine_init(&error)) {
        fprintf(stderr, "insn.def: %s\n", error);
        return false;
    }
    memory_init(&memory, NULL);
    space_init(&space, &memory);
    struct ram *tables = memory_add_ram(&memory, 8 * PAGE_SIZE);
    code_ram = memory_add_ram(&memory, CODE_SIZE);
    data_ram = memory_add_ram(&memory, DATA_SIZE);
    if (!profile || !tables || !code_ram || !data_ram || !trace_init(&trace, 0) ||
        !space_map_ram(&space, 0, tables, 0, 8, EXTENT_RAM) ||
        !space_map_ram(&space, CODE_BASE, code_ram, 0, CODE_SIZE / PAGE_SIZE, EXTENT_RAM) ||
        !space_map_ram(&space, DATA_BASE, data_ram, 0, DATA_SIZE / PAGE_SIZE, EXTENT_RAM))
        return false;
    if (!space_map_ram(&space, REAL_CODE, code_ram, 0, CODE_SIZE / PAGE_SIZE, EXTENT_RAM) ||
        !space_map_ram(&space, REAL_DATA, data_ram, 0, DATA_SIZE / PAGE_SIZE, EXTENT_RAM))
        return false;
    build_tables();
    cpu = cpu_new(profile, &space, &trace);
    return cpu != NULL;
}

uint8_t *bare_data(void) { return data_ram->host; }
uint8_t *bare_code(void) { return code_ram->host; }

static struct segment segment_of(const struct oracle_segment *s, bool big, unsigned dpl)
{
    uint32_t attr = SEG_P | SEG_S | dpl << SEG_DPL_SHIFT | TYPE_ACCESSED | (big ? SEG_DB : 0);
    attr |= s->code ? TYPE_CODE | TYPE_READABLE : (s->read_only ? 0 : TYPE_WRITABLE) | (s->expand_down ? TYPE_EXPAND_DOWN : 0);
    return (struct segment){ .base = s->base, .limit = s->limit, .attr = attr, .selector = 7 };
}

static void enter_mode(unsigned bits)
{
    static unsigned now = 99;
    if (bits == now && bits != BITS_REAL) /* real-mode code may load segments */
        return;
    now = bits;
    cpu_reset(cpu);
    if (bits == BITS_REAL) {
        for (enum seg seg = ES; seg <= GS; seg++)
            set_segment_real(cpu, seg, (uint16_t)((seg == CS ? REAL_CODE : REAL_DATA + 0x10 * seg) >> 4));
        cpu_mode_changed(cpu);
        return;
    }
    cpu->cpl = 3;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_AM | CR0_ET;
    for (enum seg seg = ES; seg <= GS; seg++)
        cpu->seg[seg] = segment_of(bits == BITS_FLAT32 ? &flat_segments[seg == CS] : &oracle_segments[seg], bits != BITS_16, 3);
    cpu->seg[TR].limit = 0; /* no I/O permission bitmap */
    cpu->cr3 = TABLE_32;
    if (bits == BITS_64) {
        cpu->cr4 = CR4_PAE;
        cpu->cr3 = TABLE_PAE;
        cpu->msr[MSR_EFER] = EFER_LME | EFER_LMA | EFER_SCE;
        cpu->seg[CS].attr = (cpu->seg[CS].attr & ~(uint32_t)SEG_DB) | SEG_L;
    }
    cpu_mode_changed(cpu);
}

static enum mode mode_of(unsigned bits)
{
    static const enum mode modes[] = { MODE_LONG64, MODE_PROT32, MODE_PROT16, MODE_REAL16, MODE_PROT32 };
    return modes[bits];
}

int bare_length(unsigned bits, const uint8_t *bytes, unsigned available)
{
    struct insn i;
    switch (decode(cpu, mode_of(bits), bytes, available, &i)) {
    case DECODE_OK: return i.len;
    case DECODE_UD: return 0;
    case DECODE_SHORT: return -1;
    default: return -2;
    }
}

int bare_row(unsigned bits, const uint8_t *bytes, unsigned available)
{
    struct insn i;
    return decode(cpu, mode_of(bits), bytes, available, &i) == DECODE_OK ? (int)i.row : -1;
}

unsigned bare_nr_rows(void) { return nr_insn_rows; }
const char *bare_mnemonic(unsigned row) { return insn_rows[row].mnemonic; }
const char *bare_encoding(unsigned row) { return insn_rows[row].encoding; }
const char *bare_flags(unsigned row) { return insn_rows[row].flags; }

bool bare_decode(struct oracle_case *c, struct insn *i)
{
    enter_mode(c->bits);
    if (decode(cpu, mode_of(c->bits), c->bytes, sizeof c->bytes - 1, i) != DECODE_OK)
        return false;
    c->row = i->row;
    c->len = i->len;
    return true;
}

/* One instruction, or with TF one iteration of it. */
static void execute(const struct insn *i)
{
    for (;;) {
        cpu->leave = LEAVE_NONE;
        cpu->current = cpu->block_start = i;
        bool ok = i->exec(cpu, i);
        enum leave leave = ok ? LEAVE_BLOCK : (enum leave)cpu->leave;
        if (leave == LEAVE_REPEAT && !(cpu->rflags & FLAG_TF))
            continue;
        if (leave == LEAVE_BLOCK && !(insn_rows[i->row].attr & A_JUMP))
            cpu->r[REG_RIP] = (cpu->r[REG_RIP] + i->len) & cpu->linear_mask;
        return;
    }
}

void bare_run(const struct oracle_case *c, struct oracle_result *result)
{
    struct insn i;
    enter_mode(c->bits);
    memcpy(cpu->r, c->before.r, sizeof c->before.r);
    cpu->r[REG_RIP] = c->before.rip;
    set_rflags(cpu, c->before.rflags);
    cpu->rep_partial = 0;
    cpu->pending_db = 0;
    enum decode_result decoded = decode(cpu, (enum mode)cpu->mode, c->bytes, sizeof c->bytes - 1, &i);
    cpu->leave = LEAVE_NONE;
    if (decoded == DECODE_OK) {
        execute(&i);
    } else {
        cpu->leave = LEAVE_FAULT;
        cpu->fault = (struct fault){ .vector = decoded == DECODE_UD ? VEC_UD : VEC_GP };
    }
    cpu->current = cpu->block_start = NULL;
    memcpy(result->after.r, cpu->r, sizeof result->after.r);
    result->after.rip = cpu->r[REG_RIP];
    result->after.rflags = get_rflags(cpu);
    for (enum seg seg = ES; seg <= GS; seg++)
        result->selector[seg] = cpu->seg[seg].selector;
    result->vector = cpu->leave == LEAVE_FAULT ? cpu->fault.vector : NO_FAULT;
    result->error = cpu->leave == LEAVE_FAULT ? cpu->fault.error : 0;
    result->address = cpu->leave == LEAVE_FAULT && cpu->fault.vector == VEC_PF ? cpu->fault.address : 0;
    cpu->leave = LEAVE_NONE;
}
