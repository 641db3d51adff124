/* See random_code.h. A run makes a small machine with descriptor tables, a TSS and page tables that are right in most
 * places, puts the processor into one of twelve modes, and lets it execute instructions of insn.def with random
 * operands, or plain random bytes. */
#include "random_code.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/access.h"
#include "cpu/cpu.h"

enum layout { GDT = 0x1000, LDT = 0x1800, IDT = 0x2000, TSS = 0x3000, TABLES = 0x4000, CODE = 0x10000, STACK = 0x20000,
              MEMORY = 0x40000 };

static uint64_t random_state;

static uint64_t random64(void)
{
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
static unsigned below(unsigned n) { return (unsigned)(random64() % n); }
static bool one_in(unsigned n) { return below(n) == 0; }

struct machine {
    struct memory memory;
    struct space space;
    struct trace trace;
    struct cpu *cpu;
    uint8_t *ram;
};

/* ---- tables -------------------------------------------------------------------------------------- */

static void put(struct machine *m, uint32_t at, uint64_t value, unsigned size) { memcpy(m->ram + at, &value, size); }

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(uint16_t selector, uint32_t offset, unsigned attr, unsigned low_byte)
{
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)low_byte << 32 | (uint64_t)attr << 40 |
           (uint64_t)(offset >> 16) << 48;
}

/* Selectors of the GDT by index; system descriptors take two entries so that they fit long mode. */
enum { CODE32_0 = 1, DATA_0, CODE64_0, CODE16_0, CODE32_3, DATA_3, CODE64_3, CONFORMING, EXPAND_DOWN, DATA16_0, TSS_GDT,
       LDT_GDT = 13, CALL_GATE = 15, TSS16 = 17, TASK_GATE_GDT, DATA16_3, CODE16_3, NR_GDT };

static void make_gdt(struct machine *m, bool is_long)
{
    static const struct { unsigned index; uint32_t limit, attr; } segments[] = {
        { CODE32_0, 0xfffff, 0xc09b }, { DATA_0, 0xfffff, 0xc093 }, { CODE64_0, 0xfffff, 0xa09b }, { CODE16_0, 0xffff, 0x009b },
        { CODE32_3, 0xfffff, 0xc0fb }, { DATA_3, 0xfffff, 0xc0f3 }, { CODE64_3, 0xfffff, 0xa0fb }, { CONFORMING, 0xfffff, 0xc09e },
        { EXPAND_DOWN, 0x1fff, 0x4096 }, { DATA16_0, 0xffff, 0x0093 }, { DATA16_3, 0xffff, 0x00f3 }, { CODE16_3, 0xffff, 0x00fb },
    };
    for (unsigned k = 0; k < sizeof segments / sizeof *segments; k++)
        put(m, GDT + segments[k].index * 8, descriptor(0, segments[k].limit, segments[k].attr), 8);
    put(m, GDT + TSS_GDT * 8, descriptor(TSS, 0x8ff, 0x8b), 8);
    put(m, GDT + LDT_GDT * 8, descriptor(LDT, 0x7f, 0x82), 8);
    uint16_t target = (uint16_t)((is_long ? CODE64_0 : one_in(4) ? CONFORMING : CODE32_0) * 8);
    put(m, GDT + CALL_GATE * 8, gate(target, CODE + below(0x800), is_long || !one_in(3) ? 0xec : 0xe4, below(4)), 8);
    put(m, GDT + TSS16 * 8, descriptor(TSS, 0x67, 0xe1), 8);
    put(m, GDT + TASK_GATE_GDT * 8, gate(TSS16 * 8, 0, 0xe5, 0), 8);
    memcpy(m->ram + LDT, m->ram + GDT, 0x80);
}

static void make_idt(struct machine *m, bool is_long)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        unsigned type = is_long ? 14 + below(2) : one_in(12) ? 5 : (one_in(4) ? 6 : 14) + below(2);
        unsigned attr = type | (one_in(3) ? 0xe0 : 0x80), ist = is_long && one_in(3) ? below(8) : 0;
        uint16_t selector = (uint16_t)((is_long ? CODE64_0 : one_in(5) ? CODE32_3 : CODE32_0) * 8);
        if (type == 5)
            selector = TSS16 * 8;
        uint64_t low = gate(selector, CODE + below(0x800), attr, ist);
        put(m, IDT + vector * (is_long ? 16 : 8), low, 8);
        if (is_long)
            put(m, IDT + vector * 16 + 8, 0, 8);
    }
}

static void make_tss(struct machine *m, bool is_long)
{
    for (unsigned level = 0; level < 3; level++) {
        put(m, TSS + 4 + level * 8, STACK + 0x1000 * level + below(2) * 4, is_long ? 8 : 4);
        if (!is_long)
            put(m, TSS + 8 + level * 8, level ? below(64) * 8 + level : DATA_0 * 8, 2);
    }
    for (unsigned ist = 0; is_long && ist < 7; ist++)
        put(m, TSS + 0x24 + ist * 8, STACK + 0x800 + 0x100 * ist, 8);
    put(m, TSS + 0x66, 0x88 + below(4) * 0x100, 2);
}

static void make_page_tables(struct machine *m)
{
    put(m, TABLES, (TABLES + 0x1000) | 7, 8);          /* PML4 */
    put(m, TABLES + 0xff8, (TABLES + 0x1000) | 7, 8);
    put(m, TABLES + 0x1000, (TABLES + 0x2000) | 7, 8); /* PDPT */
    put(m, TABLES + 0x2000, (TABLES + 0x3000) | 7, 8); /* PD */
    put(m, TABLES + 0x2008, 0x87, 8);
    put(m, TABLES + 0x1100, (TABLES + 0x2000) | 1, 8); /* PAE: its own PDPT, without rights */
    put(m, TABLES + 0x4000, (TABLES + 0x5000) | 7, 4); /* 32-bit directory */
    put(m, TABLES + 0x4004, 0x87, 4);
    for (unsigned page = 0; page < 512; page++) {
        put(m, TABLES + 0x3000 + page * 8, (uint64_t)page << 12 | (one_in(40) ? below(8) : 7), 8);
        put(m, TABLES + 0x5000 + page * 4, (uint64_t)page << 12 | (one_in(40) ? below(8) : 7), 4);
    }
}

/* ---- code -------------------------------------------------------------------------------------------- */

static unsigned put_instruction(uint8_t *to)
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0x65, 0x48, 0x41, 0x44 };
    const struct insn_row *row = &insn_rows[below(nr_insn_rows)];
    unsigned n = 0;
    while (one_in(4) && n < 3)
        to[n++] = prefixes[below(sizeof prefixes)];
    for (const char *t = row->encoding; *t;) {
        unsigned value, digits = 0;
        if (((t[0] >= '0' && t[0] <= '9') || (t[0] >= 'A' && t[0] <= 'F')) && sscanf(t, "%2x", &value) == 1 &&
            t[1] != ' ' && t[1]) {
            digits = 2;
            to[n++] = (uint8_t)(value | (t[2] == '+' ? below(8) : 0));
        } else if (t[0] == '/') {
            to[n++] = (uint8_t)(t[1] == 'r' ? random64() : (random64() & 0xc7) | (unsigned)(t[1] - '0') << 3);
        }
        for (t += digits; *t && *t != ' ';)
            t++;
        while (*t == ' ')
            t++;
    }
    for (unsigned k = 0; k < 6 && n < 15; k++)
        to[n++] = (uint8_t)(one_in(3) ? random64() : below(4) * 0x10);
    return n - (one_in(2) ? below(6) : 6);
}

static void make_code(struct machine *m)
{
    for (uint32_t at = CODE; at < CODE + 0xff0;)
        if (one_in(8))
            m->ram[at++] = (uint8_t)random64();
        else
            at += put_instruction(m->ram + at);
}

/* ---- the processor in a mode ---------------------------------------------------------------------------- */

enum start { START_REAL, START_UNREAL, START_VM86, START_PROT16, START_PROT32, START_RING3, START_PAGED, START_PAE,
             START_LONG, START_LONG3, START_COMPAT, START_COMPAT3, NR_STARTS };

static void load(struct cpu *cpu, enum seg seg, unsigned selector, uint32_t limit, uint32_t attr)
{
    cpu->seg[seg] = (struct segment){ .selector = (uint16_t)selector, .limit = limit, .attr = attr };
}

static void enter(struct cpu *cpu, enum start start)
{
    bool is_long = start >= START_LONG, paged = start >= START_PAGED, ring3 = start == START_RING3 || start == START_LONG3 ||
                                                                              start == START_COMPAT3 || (paged && one_in(3));
    unsigned level = ring3 ? 3 : 0;
    uint32_t dpl = level << SEG_DPL_SHIFT;
    cpu->gdtr = (struct table_register){ .base = GDT, .limit = NR_GDT * 8 - 1 };
    cpu->idtr = (struct table_register){ .base = IDT, .limit = is_long ? 0xfff : 0x7ff };
    load(cpu, TR, TSS_GDT * 8, 0x8ff, 0x8b);
    cpu->seg[TR].base = TSS;
    load(cpu, LDTR, LDT_GDT * 8, 0x7f, 0x82);
    cpu->seg[LDTR].base = LDT;
    cpu->r[REG_RIP] = CODE + below(16);
    cpu->r[RSP] = STACK + 0x3000 + (one_in(8) ? below(8) : 0);
    cpu->cr0 = CR0_ET | (start > START_UNREAL ? CR0_PE : 0) | (paged ? CR0_PG : 0) | (one_in(2) ? CR0_WP | CR0_AM : 0);
    if (start <= START_VM86) {
        for (enum seg seg = ES; seg <= GS; seg++)
            load(cpu, seg, 0, 0xffff, 0x93);
        cpu->idtr = (struct table_register){ .base = start == START_VM86 ? IDT : 0, .limit = 0x7ff };
        cpu->seg[CS].base = CODE;
        cpu->seg[CS].selector = CODE >> 4;
        cpu->r[REG_RIP] = below(16);
        cpu->r[RSP] = 0x7c00;
        if (start == START_UNREAL)
            cpu->seg[DS].limit = cpu->seg[ES].limit = 0xffffffff;
    } else {
        bool code64 = start == START_LONG || start == START_LONG3, code16 = start == START_PROT16;
        unsigned cs = code64 ? (ring3 ? CODE64_3 : CODE64_0) : code16 ? CODE16_0 : ring3 ? CODE32_3 : CODE32_0;
        load(cpu, CS, cs * 8 + level, code16 ? 0xffff : 0xffffffff, (code64 ? 0xa09b : code16 ? 0x9b : 0xc09b) | dpl);
        for (enum seg seg = ES; seg <= GS; seg++)
            if (seg != CS)
                load(cpu, seg, (ring3 ? DATA_3 : DATA_0) * 8 + level, 0xffffffff, 0xc093 | dpl);
        if (code16) {
            cpu->seg[CS].base = CODE;
            cpu->r[REG_RIP] = 0;
        }
    }
    if (start == START_VM86) {
        set_rflags(cpu, FLAG_VM | (one_in(2) ? FLAG_IOPL : 0) | (one_in(4) ? FLAG_VIF : 0));
        for (enum seg seg = ES; seg <= GS; seg++)
            cpu->seg[seg].attr = 0xf3;
        cpu->cr4 |= one_in(2) ? CR4_VME : 0;
    }
    cpu->cr3 = is_long ? TABLES : start == START_PAE ? TABLES + 0x1100 : TABLES + 0x4000;
    cpu->cr4 |= (one_in(2) ? CR4_PSE : 0) | (one_in(4) ? CR4_PVI : 0) | (one_in(4) ? CR4_DE : 0) | (one_in(4) ? CR4_PGE : 0);
    cpu->cpl = (uint8_t)(start == START_VM86 ? 3 : start < START_PROT16 ? 0 : level);
    if (is_long) {
        cpu->cr4 |= CR4_PAE;
        cpu->msr[MSR_EFER] = EFER_LME | EFER_LMA | EFER_SCE | (one_in(2) ? EFER_NXE : 0);
    } else if (start == START_PAE) {
        cpu->cr4 |= CR4_PAE;
        if (!load_pdptes(cpu, cpu->cr3))
            abort();
    }
    cpu->msr[MSR_STAR] = (uint64_t)(CODE16_0 * 8 + 3) << 48 | (uint64_t)(CODE32_0 * 8) << 32 | CODE;
    cpu->msr[MSR_LSTAR] = cpu->msr[MSR_CSTAR] = cpu->msr[MSR_SYSENTER_EIP] = CODE + 0x100;
    cpu->msr[MSR_SYSENTER_CS] = CODE32_0 * 8;
    cpu->msr[MSR_SYSENTER_ESP] = STACK + 0x2000;
}

static void shake(struct machine *m)
{
    struct cpu *cpu = m->cpu;
    for (unsigned reg = RAX; reg <= R15; reg++)
        if (reg != RSP)
            cpu->r[reg] = one_in(3) ? random64() : one_in(2) ? below(MEMORY) : below(0x100);
    set_rflags(cpu, (cpu->rflags & (FLAG_VM | FLAG_IOPL | FLAG_VIF)) | (random64() & (FLAGS_STATUS | FLAG_DF | FLAG_AC)) |
                        (one_in(2) ? FLAG_IF : 0) | (one_in(6) ? FLAG_TF : 0) | (one_in(8) ? FLAG_NT : 0) |
                        (one_in(4) ? FLAG_IOPL : 0));
    if (one_in(6)) {
        for (unsigned k = 0; k < 4; k++)
            cpu->dr[k] = one_in(2) ? CODE + below(64) : STACK + 0x2fc0 + below(64);
        cpu->dr[7] = DR7_FIXED1 | (random64() & 0xffff23ff);
    }
    for (unsigned k = below(6); k > 0; k--)
        m->ram[below(CODE)] ^= (uint8_t)(1u << below(8));
}

static void begin(struct machine *m, struct cpu *cpu)
{
    static const uint8_t bits_of_long[NR_STARTS] = { [START_LONG] = 1, [START_LONG3] = 1, [START_COMPAT] = 1, [START_COMPAT3] = 1 };
    enum start start = (enum start)below(NR_STARTS);
    memset(m->ram, 0, MEMORY);
    make_gdt(m, bits_of_long[start]);
    make_idt(m, bits_of_long[start]);
    make_tss(m, bits_of_long[start]);
    make_page_tables(m);
    make_code(m);
    for (unsigned k = 0; k < 64 && start == START_REAL; k++)
        put(m, k * 4, below(0x800) | CODE << 12, 4);
    code_drop_all(cpu);
    cpu_reset(cpu);
    enter(cpu, start);
    shake(m);
    cpu_rebuild(cpu);
    tlb_flush(cpu, true);
}

/* ---- checks ------------------------------------------------------------------------------------------------ */

static const char *contradiction(struct cpu *cpu)
{
    struct seg_view view[6];
    uint8_t mode = cpu->mode, paging = cpu->paging, code_size = cpu->code_size, attention = cpu->attention;
    uint64_t stack_mask = cpu->stack_mask;
    memcpy(view, cpu->view, sizeof view);
    cpu_rebuild(cpu);
    if (mode != cpu->mode || code_size != cpu->code_size)
        return "the mode is stale";
    if (paging != cpu->paging)
        return "the paging format is stale";
    if (stack_mask != cpu->stack_mask)
        return "the stack's size is stale";
    if (memcmp(view, cpu->view, sizeof view) != 0)
        return "a segment's view is stale";
    if (attention != cpu->attention && cpu->attention)
        return "somebody was not told to look at the border";
    if (cpu->cpl > 3 || (is_real(cpu) && cpu->cpl != 0 && !is_vm86(cpu)) || (is_vm86(cpu) && cpu->cpl != 3))
        return "no such privilege level in this mode";
    if (is_protected(cpu) && is_long_active(cpu) != (cpu->paging >= PAGING_4LEVEL))
        return "EFER.LMA does not fit the paging format";
    if (is_vm86(cpu) && is_long_active(cpu))
        return "vm86 in long mode";
    if (!is_64bit(cpu) && cpu->r[REG_RIP] >> 32)
        return "RIP above 4 GB outside 64-bit mode";
    return NULL;
}

static bool hook(void *context, struct device_access *access)
{
    (void)context;
    if (one_in(4))
        return false;
    access->value = access->is_write ? access->value : random64();
    return true;
}

static const char *run(struct machine *m)
{
    struct cpu *cpu = m->cpu;
    m->trace.stops = 1ull << EVENT_DELIVERY; /* faults without end would only cost time */
    cpu_update_attention(cpu);
    for (unsigned k = 0; k < 40; k++) {
        m->trace.stopped_by = 0;
        enum cpu_stop stop = cpu_run(cpu, 1 + below(64));
        const char *what = contradiction(cpu);
        if (what)
            return what;
        if (stop == STOP_DEVICE)
            cpu_answer(cpu, random64());
        if (stop == STOP_SHUTDOWN || stop == STOP_WORK)
            break;
        if (one_in(4)) {
            cpu->intr = 1;
            cpu->intr_vector = (uint8_t)random64();
        }
        cpu->nmi |= one_in(8);
        cpu_update_attention(cpu);
    }
    return NULL;
}

/* ---- a copy of the state is the machine -------------------------------------------------------------------- */

struct copy {
    uint8_t ram[MEMORY];
    uint64_t random_state, sequence;
    uint8_t state[]; /* CPU_STATE_BYTES */
};

static struct copy *copy_of(const struct machine *m)
{
    struct copy *copy = malloc(sizeof *copy + CPU_STATE_BYTES);
    if (!copy)
        abort();
    memcpy(copy->ram, m->ram, MEMORY);
    memcpy(copy->state, m->cpu, CPU_STATE_BYTES);
    copy->random_state = random_state;
    copy->sequence = m->trace.sequence;
    return copy;
}

static void go_back(struct machine *m, const struct copy *copy)
{
    memcpy(m->ram, copy->ram, MEMORY);
    memcpy(m->cpu, copy->state, CPU_STATE_BYTES);
    random_state = copy->random_state;
    m->trace.sequence = copy->sequence;
    code_drop_all(m->cpu);
    cpu_rebuild(m->cpu);
}

/* Runs on, goes back, runs again: everything must come out the same. */
static const char *run_twice(struct machine *m)
{
    struct copy *before = copy_of(m);
    const char *what = run(m);
    if (!what) {
        struct copy *after = copy_of(m);
        go_back(m, before);
        what = run(m);
        if (!what && memcmp(after->state, m->cpu, CPU_STATE_BYTES) != 0)
            what = "a second run from a copy of the state ends in another state";
        else if (!what && (memcmp(after->ram, m->ram, MEMORY) != 0 || after->sequence != m->trace.sequence))
            what = "a second run from a copy of the state leaves other memory or events";
        free(after);
    }
    free(before);
    return what;
}

uint64_t random_code(uint64_t seed, uint64_t nr_runs, const char **what)
{
    struct machine m;
    struct cpu *cpus[8] = { 0 };
    uint64_t bad = 0;
    const char *error;
    *what = NULL;
    if (!engine_init(&error))
        abort();
    memory_init(&m.memory, NULL);
    space_init(&m.space, &m.memory);
    struct ram *ram = memory_add_ram(&m.memory, MEMORY);
    if (!trace_init(&m.trace, 0) || !ram || !space_map_ram(&m.space, 0, ram, 0, ram->nr_pages, EXTENT_RAM))
        abort();
    m.ram = ram->host;
    for (unsigned k = 0; k < nr_profiles() && k < 8; k++) {
        cpus[k] = cpu_new(profile_at(k), &m.space, &m.trace);
        if (!cpus[k])
            abort();
        cpus[k]->device_hook = hook;
    }
    for (uint64_t k = 0; k < nr_runs && !bad; k++) {
        random_state = (seed + k) * 0x2545f4914f6cdd1d;
        m.cpu = cpus[below(nr_profiles() < 8 ? nr_profiles() : 8)];
        begin(&m, m.cpu);
        *what = run(&m);
        if (!*what && one_in(3) && m.cpu->activity != ACTIVITY_SHUTDOWN)
            *what = run_twice(&m);
        bad = *what ? seed + k : 0;
    }
    for (unsigned k = 0; k < 8; k++)
        cpu_free(cpus[k]);
    space_release(&m.space);
    ram_put(ram);
    memory_release(&m.memory);
    trace_release(&m.trace);
    return bad;
}
