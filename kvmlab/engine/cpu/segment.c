/* Segmentation: descriptors, segment registers, limits and rights, and the far transfers that
 * go through descriptors and gates.
 *
 * SDM vol. 3A ch. 3 (segments), ch. 5 (protection), ch. 8 (TSS); vol. 2 CALL, JMP, RET, IRET.
 * All checks and memory accesses of a transfer come first, in the manual's order; registers are
 * committed last. Hardware task switches are not there yet: a transfer that needs one passes its
 * checks, may exit, and then raises #GP as it does in long mode. */
#include "access.h"

#define GATE_PARAMETERS 31 /* five bits of a call gate */

enum system_type { SYSTEM_TSS16 = 1, SYSTEM_LDT = 2, SYSTEM_TSS16_BUSY = 3, SYSTEM_CALL_GATE16 = 4,
                   SYSTEM_TASK_GATE = 5, SYSTEM_TSS32 = 9, SYSTEM_TSS32_BUSY = 11, SYSTEM_CALL_GATE32 = 12 };

static bool fault_selector(struct cpu *cpu, enum vector vector, uint16_t selector)
{
    return raise_error(cpu, vector, selector & SELECTOR_MASK);
}

/* ---- limits and rights ------------------------------------------------------------------- */

/* Are the bytes [offset, offset + size) inside? Offsets have 32 bits here. Wrapping around a limit of 4 GB is not a
 * violation (SDM vol. 3A 5.3 leaves it to the processor). */
static bool inside_limit(const struct segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    if ((s->attr & (SEG_S | TYPE_CODE | TYPE_EXPAND_DOWN)) == (SEG_S | TYPE_EXPAND_DOWN))
        return offset > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffull : 0xffffull);
    return last <= s->limit || s->limit == 0xffffffff;
}

bool segment_check(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, enum access access)
{
    enum vector vector = seg == SS ? VEC_SS : VEC_GP;
    if (is_64bit(cpu)) {
        uint64_t linear = cpu->view[seg].base + offset;
        return (is_canonical(cpu, linear) && is_canonical(cpu, linear + size - 1)) || raise_error(cpu, vector, 0);
    }
    const struct segment *s = &cpu->seg[seg];
    bool is_code = s->attr & TYPE_CODE;
    if (s->attr & SEG_UNUSABLE)
        return raise_error(cpu, vector, 0);
    if (is_protected(cpu) && access == ACCESS_WRITE && (is_code || !(s->attr & TYPE_WRITABLE)))
        return raise_error(cpu, vector, 0);
    if (is_protected(cpu) && access == ACCESS_READ && is_code && !(s->attr & TYPE_READABLE))
        return raise_error(cpu, vector, 0);
    return inside_limit(s, offset, size) || raise_error(cpu, vector, 0);
}

/* ---- descriptors --------------------------------------------------------------------------- */

static void decode_descriptor(struct descriptor *d)
{
    uint32_t high = (uint32_t)(d->low >> 32);
    d->base = (d->low >> 16 & 0xffffff) | (high & 0xff000000);
    d->attr = high >> 8 & 0xf0ff;
    d->limit = (uint32_t)(d->low & 0xffff) | (high & 0xf0000);
    if (d->attr & SEG_G)
        d->limit = d->limit << 12 | 0xfff;
}

static bool table_of(const struct cpu *cpu, uint16_t selector, uint64_t *base, uint32_t *limit)
{
    if (selector & SELECTOR_TI) {
        *base = cpu->seg[LDTR].base;
        *limit = cpu->seg[LDTR].limit;
        return !(cpu->seg[LDTR].attr & SEG_UNUSABLE);
    }
    *base = cpu->gdtr.base;
    *limit = cpu->gdtr.limit;
    return true;
}

enum lookup find_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d)
{
    uint64_t base;
    uint32_t limit, offset = selector & SELECTOR_INDEX;
    if (!table_of(cpu, selector, &base, &limit) || offset + 7 > limit)
        return LOOKUP_OUTSIDE;
    d->address = base + offset;
    d->high = 0;
    if (!system_read(cpu, d->address, &d->low, 8))
        return LOOKUP_FAULT;
    decode_descriptor(d);
    return LOOKUP_FOUND;
}

/* System descriptors of long mode have 16 bytes; the second half holds bits 63:32 of the base or offset. */
static enum lookup find_second_half(struct cpu *cpu, uint16_t selector, struct descriptor *d)
{
    uint64_t base;
    uint32_t limit, offset = selector & SELECTOR_INDEX;
    if (!table_of(cpu, selector, &base, &limit) || offset + 15 > limit)
        return LOOKUP_OUTSIDE;
    if (!system_read(cpu, d->address + 8, &d->high, 8))
        return LOOKUP_FAULT;
    d->base |= d->high << 32;
    return LOOKUP_FOUND;
}

static bool found(struct cpu *cpu, enum lookup lookup, uint16_t selector, enum vector vector)
{
    if (lookup == LOOKUP_OUTSIDE)
        return fault_selector(cpu, vector, selector);
    return lookup == LOOKUP_FOUND;
}

bool read_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d, uint8_t vector_if_outside)
{
    return found(cpu, find_descriptor(cpu, selector, d), selector, (enum vector)vector_if_outside);
}

static bool read_system_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d, enum vector vector)
{
    return read_descriptor(cpu, selector, d, vector) &&
           (!is_long_active(cpu) || found(cpu, find_second_half(cpu, selector, d), selector, vector));
}

static unsigned dpl_of(const struct descriptor *d) { return d->attr >> SEG_DPL_SHIFT & 3; }
static bool is_code(const struct descriptor *d) { return (d->attr & (SEG_S | TYPE_CODE)) == (SEG_S | TYPE_CODE); }
static bool is_conforming(const struct descriptor *d) { return d->attr & TYPE_CONFORMING; }
static bool is_writable_data(const struct descriptor *d)
{
    return (d->attr & (SEG_S | TYPE_CODE | TYPE_WRITABLE)) == (SEG_S | TYPE_WRITABLE);
}
static bool is_null(uint16_t selector) { return !(selector & SELECTOR_MASK); }

bool set_accessed(struct cpu *cpu, struct descriptor *d)
{
    uint8_t type = (uint8_t)(d->low >> 40) | TYPE_ACCESSED;
    if (d->attr & TYPE_ACCESSED)
        return true;
    d->attr |= TYPE_ACCESSED;
    return system_write(cpu, d->address + 5, &type, 1);
}

/* ---- loading a segment register ------------------------------------------------------------ */

void set_segment(struct cpu *cpu, enum seg seg, uint16_t selector, const struct descriptor *d)
{
    struct segment *s = &cpu->seg[seg];
    s->selector = selector;
    s->base = d->base;
    s->limit = d->limit;
    s->attr = d->attr;
}

/* Only the base follows the selector in real mode: limit and attributes stay what they were ("big real mode"). */
void set_segment_real(struct cpu *cpu, enum seg seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];
    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (is_vm86(cpu) || s->attr & SEG_UNUSABLE) {
        s->limit = 0xffff;
        s->attr = SEG_P | SEG_S | TYPE_WRITABLE | TYPE_ACCESSED | (is_vm86(cpu) ? SEG_DPL : 0);
    }
}

void set_segment_null(struct cpu *cpu, enum seg seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];
    s->selector = selector;
    s->attr = SEG_UNUSABLE | (seg == SS ? (uint32_t)(selector & SELECTOR_RPL) << SEG_DPL_SHIFT : 0u);
    if (!cpu_behaves(cpu, BEHAVIOUR_NULL_SELECTOR_KEEPS_BASE)) {
        s->base = 0;
        s->limit = 0;
    }
}

static bool check_data_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    unsigned rpl = selector & SELECTOR_RPL, dpl = dpl_of(d);
    if (!(d->attr & SEG_S) || (is_code(d) && !(d->attr & TYPE_READABLE)))
        return fault_selector(cpu, VEC_GP, selector);
    if (!(is_code(d) && is_conforming(d)) && (rpl > dpl || cpu->cpl > dpl))
        return fault_selector(cpu, VEC_GP, selector);
    return (d->attr & SEG_P) || fault_selector(cpu, VEC_NP, selector);
}

static bool check_stack_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d, unsigned level,
                                enum vector vector)
{
    if ((selector & SELECTOR_RPL) != level || !is_writable_data(d) || dpl_of(d) != level)
        return fault_selector(cpu, vector, selector);
    return (d->attr & SEG_P) || fault_selector(cpu, VEC_SS, selector);
}

bool load_segment(struct cpu *cpu, enum seg seg, uint16_t selector)
{
    struct descriptor d;
    if (!is_protected(cpu)) {
        set_segment_real(cpu, seg, selector);
    } else if (is_null(selector)) {
        if (seg == SS && !(is_64bit(cpu) && cpu->cpl != 3 && (selector & SELECTOR_RPL) == cpu->cpl))
            return raise_error(cpu, VEC_GP, 0);
        set_segment_null(cpu, seg, selector);
    } else {
        if (!read_descriptor(cpu, selector, &d, VEC_GP))
            return false;
        if (seg == SS ? !check_stack_segment(cpu, selector, &d, cpu->cpl, VEC_GP)
                      : !check_data_segment(cpu, selector, &d))
            return false;
        if (!set_accessed(cpu, &d))
            return false;
        set_segment(cpu, seg, selector, &d);
    }
    if (seg == SS)
        cpu_segments_changed(cpu);
    else
        cpu_update_view(cpu, seg);
    return true;
}

/* LLDT and LTR. */
bool load_ldtr(struct cpu *cpu, uint16_t selector)
{
    struct descriptor d;
    if (is_null(selector)) {
        set_segment_null(cpu, LDTR, selector);
        return true;
    }
    if (selector & SELECTOR_TI)
        return fault_selector(cpu, VEC_GP, selector);
    if (!read_descriptor(cpu, selector, &d, VEC_GP))
        return false;
    if ((d.attr & (SEG_S | SEG_TYPE)) != SYSTEM_LDT)
        return fault_selector(cpu, VEC_GP, selector);
    if (!(d.attr & SEG_P))
        return fault_selector(cpu, VEC_NP, selector);
    if (is_long_active(cpu) && (!read_system_descriptor(cpu, selector, &d, VEC_GP)))
        return false;
    if (is_long_active(cpu) && !is_canonical(cpu, d.base))
        return fault_selector(cpu, VEC_GP, selector);
    set_segment(cpu, LDTR, selector, &d);
    return true;
}

bool load_tr(struct cpu *cpu, uint16_t selector)
{
    struct descriptor d;
    if (is_null(selector))
        return raise_error(cpu, VEC_GP, 0);
    if (selector & SELECTOR_TI)
        return fault_selector(cpu, VEC_GP, selector);
    if (!read_descriptor(cpu, selector, &d, VEC_GP))
        return false;
    unsigned type = d.attr & (SEG_S | SEG_TYPE);
    if (type != SYSTEM_TSS32 && (type != SYSTEM_TSS16 || is_long_active(cpu)))
        return fault_selector(cpu, VEC_GP, selector);
    if (!(d.attr & SEG_P))
        return fault_selector(cpu, VEC_NP, selector);
    if (is_long_active(cpu)) {
        if (!read_system_descriptor(cpu, selector, &d, VEC_GP))
            return false;
        if ((d.high >> 40 & (SEG_S | SEG_TYPE)) || !is_canonical(cpu, d.base))
            return fault_selector(cpu, VEC_GP, selector);
    }
    uint8_t busy = (uint8_t)(d.low >> 40) | 2;
    if (!system_write(cpu, d.address + 5, &busy, 1))
        return false;
    d.attr |= 2;
    set_segment(cpu, TR, selector, &d);
    return true;
}

/* ---- the task-state segment ------------------------------------------------------------------ */

static bool tss_read(struct cpu *cpu, uint32_t offset, void *to, unsigned size)
{
    const struct segment *tr = &cpu->seg[TR];
    if (tr->attr & SEG_UNUSABLE || offset + size - 1 > tr->limit)
        return fault_selector(cpu, VEC_TS, tr->selector);
    return system_read(cpu, tr->base + offset, to, size);
}

static bool tss_is_32(const struct cpu *cpu)
{
    return (cpu->seg[TR].attr & SEG_TYPE & ~2u) == SYSTEM_TSS32;
}

/* SS and RSP for a privilege level: SDM vol. 3A 5.8.5, 8.2.1, 8.7. */
bool tss_stack(struct cpu *cpu, unsigned dpl, uint16_t *ss, uint64_t *rsp)
{
    uint8_t slot[8] = { 0 };
    *rsp = 0;
    *ss = (uint16_t)dpl;
    if (is_long_active(cpu))
        return tss_read(cpu, 4 + dpl * 8, rsp, 8);
    if (tss_is_32(cpu)) {
        if (!tss_read(cpu, 4 + dpl * 8, slot, 6))
            return false;
        memcpy(rsp, slot, 4);
        memcpy(ss, slot + 4, 2);
    } else {
        if (!tss_read(cpu, 2 + dpl * 4, slot, 4))
            return false;
        memcpy(rsp, slot, 2);
        memcpy(ss, slot + 2, 2);
    }
    return true;
}

bool tss_ist(struct cpu *cpu, unsigned ist, uint64_t *rsp)
{
    return tss_read(cpu, 0x24 + (ist - 1) * 8, rsp, 8);
}

/* The I/O permission bitmap is asked when IOPL does not suffice, and always in vm86: SDM vol. 1, 19.5.2. */
bool io_allowed(struct cpu *cpu, uint16_t port, unsigned size)
{
    const struct segment *tr = &cpu->seg[TR];
    uint16_t map, bits;
    if (is_real(cpu) || (!is_vm86(cpu) && cpu->cpl <= iopl(cpu)))
        return true;
    if (tr->attr & SEG_UNUSABLE || !tss_is_32(cpu) || tr->limit < 0x67)
        return raise_error(cpu, VEC_GP, 0);
    if (!system_read(cpu, tr->base + 0x66, &map, 2))
        return false;
    uint32_t at = map + port / 8u;
    if (at + 1 > tr->limit)
        return raise_error(cpu, VEC_GP, 0);
    if (!system_read(cpu, tr->base + at, &bits, 2))
        return false;
    return !(bits >> port % 8 & ((1u << size) - 1)) || raise_error(cpu, VEC_GP, 0);
}

/* INT n in vm86 with VME: is this vector redirected to the task's own table? The map lies below the I/O bitmap. */
bool tss_redirects(struct cpu *cpu, uint8_t vector, bool *redirected)
{
    const struct segment *tr = &cpu->seg[TR];
    uint16_t map;
    uint8_t bits;
    if (tr->attr & SEG_UNUSABLE || !tss_is_32(cpu) || tr->limit < 0x67)
        return raise_error(cpu, VEC_GP, 0);
    if (!system_read(cpu, tr->base + 0x66, &map, 2))
        return false;
    uint32_t at = map - 32u + vector / 8u;
    if (map < 32 || at > tr->limit)
        return raise_error(cpu, VEC_GP, 0);
    if (!system_read(cpu, tr->base + at, &bits, 1))
        return false;
    *redirected = !(bits >> vector % 8 & 1);
    return true;
}

/* ---- a stack that is filled before it becomes the stack --------------------------------------- */

void far_stack_now(const struct cpu *cpu, struct far_stack *stack)
{
    *stack = (struct far_stack){ .rsp = cpu->r[RSP], .mask = cpu->stack_mask, .level = cpu->cpl, .ss = cpu->seg[SS],
                                 .base = is_64bit(cpu) ? 0 : cpu->seg[SS].base };
}

/* Long mode has no stack segment to speak of: with a new stack SS becomes a null selector. */
void far_stack_flat(const struct cpu *cpu, struct far_stack *stack, unsigned level, uint64_t rsp, bool is_new)
{
    *stack = (struct far_stack){ .rsp = rsp, .mask = ~0ull, .level = level, .is_new = is_new, .ss = cpu->seg[SS] };
    if (is_new) {
        stack->ss = (struct segment){ .selector = (uint16_t)level,
                                      .attr = SEG_UNUSABLE | level << SEG_DPL_SHIFT };
    }
}

/* The stack that the TSS names for a more privileged level of 16- and 32-bit transfers. */
bool far_stack_of_level(struct cpu *cpu, unsigned level, struct far_stack *stack)
{
    struct descriptor d;
    uint16_t ss;
    uint64_t rsp;
    if (!tss_stack(cpu, level, &ss, &rsp))
        return false;
    if (is_null(ss))
        return raise_error(cpu, VEC_TS, 0);
    if (!read_descriptor(cpu, ss, &d, VEC_TS) || !check_stack_segment(cpu, ss, &d, level, VEC_TS) ||
        !set_accessed(cpu, &d))
        return false;
    *stack = (struct far_stack){ .rsp = rsp, .base = d.base, .mask = d.attr & SEG_DB ? 0xffffffff : 0xffff,
                                 .level = level, .is_new = true,
                                 .ss = { .base = d.base, .limit = d.limit, .attr = d.attr, .selector = ss } };
    return true;
}

/* Is there room for `nr` pushes? #SS(0), or of a new stack #SS(its selector). */
bool far_room(struct cpu *cpu, const struct far_stack *stack, unsigned nr, unsigned size)
{
    for (unsigned k = 1; k <= nr; k++) {
        uint64_t offset = (stack->rsp - k * size) & stack->mask;
        bool fits = stack->mask == ~0ull
                        ? is_canonical(cpu, offset) && is_canonical(cpu, offset + size - 1)
                        : !(stack->ss.attr & SEG_UNUSABLE) && inside_limit(&stack->ss, offset, size);
        if (!fits)
            return raise_error(cpu, VEC_SS, stack->is_new ? stack->ss.selector & SELECTOR_MASK : 0);
    }
    return true;
}

bool far_push(struct cpu *cpu, struct far_stack *stack, unsigned size, uint64_t value)
{
    uint64_t offset = (stack->rsp - size) & stack->mask, linear = stack->base + offset;
    if (stack->mask != ~0ull)
        linear &= 0xffffffff;
    if (!linear_access(cpu, linear, &value, size, ACCESS_WRITE, stack->level == 3))
        return false;
    stack->rsp = (stack->rsp & ~stack->mask) | offset;
    return true;
}

/* Last of all: SS and RSP become these. The caller sets CS and the level, then calls cpu_segments_changed(). */
void far_stack_commit(struct cpu *cpu, const struct far_stack *stack)
{
    if (!stack->is_new) {
        cpu->r[RSP] = stack->rsp;
        return;
    }
    cpu->r[RSP] = stack->mask == 0xffff ? (cpu->r[RSP] & ~0xffffull) | (stack->rsp & 0xffff) : stack->rsp & stack->mask;
    if (stack->ss.attr & SEG_UNUSABLE)
        set_segment_null(cpu, SS, stack->ss.selector);
    else
        cpu->seg[SS] = stack->ss;
}

/* ---- code segments and gates -------------------------------------------------------------------- */

/* Present, no contradiction between L and D, and the target inside. In this order: SDM vol. 2A CALL. */
static bool check_code_present(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    if (!(d->attr & SEG_P))
        return fault_selector(cpu, VEC_NP, selector);
    if (is_long_active(cpu) && (d->attr & SEG_L) && (d->attr & SEG_DB))
        return fault_selector(cpu, VEC_GP, selector);
    return true;
}

bool check_target(struct cpu *cpu, const struct descriptor *cs, uint64_t rip)
{
    bool fits = is_long_active(cpu) && (cs->attr & SEG_L) ? is_canonical(cpu, rip) : rip <= cs->limit;
    return fits || raise_error(cpu, VEC_GP, 0);
}

void set_code_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d, unsigned level)
{
    set_segment(cpu, CS, (uint16_t)((selector & SELECTOR_MASK) | level), d);
    cpu->cpl = (uint8_t)level;
}

/* A transfer without gate may not change the level. */
static bool check_direct(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    unsigned rpl = selector & SELECTOR_RPL, dpl = dpl_of(d);
    if (is_conforming(d) ? dpl > cpu->cpl : (rpl > cpu->cpl || dpl != cpu->cpl))
        return fault_selector(cpu, VEC_GP, selector);
    return check_code_present(cpu, selector, d);
}

struct gate { uint16_t selector; uint64_t offset; unsigned size, parameters; };

/* A call gate of 16, 32 or 64 bits, its checks and the code segment behind it. `descriptor`: the gate, already read. */
static bool read_call_gate(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor, struct gate *gate,
                           struct descriptor *cs)
{
    bool is_long = is_long_active(cpu);
    uint64_t low = descriptor->low;
    if (is_long && !found(cpu, find_second_half(cpu, selector, descriptor), selector, VEC_GP))
        return false;
    if (is_long && (descriptor->high >> 40 & (SEG_S | SEG_TYPE)))
        return fault_selector(cpu, VEC_GP, selector);
    if (!(descriptor->attr & SEG_P))
        return fault_selector(cpu, VEC_NP, selector);
    gate->selector = (uint16_t)(low >> 16);
    gate->size = is_long ? 8 : descriptor->attr & 8 ? 4 : 2;
    gate->parameters = is_long ? 0 : low >> 32 & GATE_PARAMETERS;
    gate->offset = (low & 0xffff) | (gate->size > 2 ? low >> 32 & 0xffff0000 : 0) | descriptor->high << 32;
    if (is_null(gate->selector))
        return raise_error(cpu, VEC_GP, 0);
    if (!read_descriptor(cpu, gate->selector, cs, VEC_GP))
        return false;
    if (!is_code(cs) || dpl_of(cs) > cpu->cpl)
        return fault_selector(cpu, VEC_GP, gate->selector);
    if (is_long && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
        return fault_selector(cpu, VEC_GP, gate->selector);
    return (cs->attr & SEG_P) || fault_selector(cpu, VEC_NP, gate->selector);
}

/* A switch to the task of this TSS: its checks, a possible exit, then what a processor in long mode raises. */
bool task_switch(struct cpu *cpu, uint16_t selector, enum task_source source)
{
    struct descriptor tss;
    enum vector vector = source == TASK_IRET ? VEC_TS : VEC_GP;
    if (is_null(selector) || selector & SELECTOR_TI)
        return fault_selector(cpu, vector, selector);
    if (!read_descriptor(cpu, selector, &tss, vector))
        return false;
    unsigned type = tss.attr & (SEG_S | SEG_TYPE), busy = source == TASK_IRET ? 2 : 0;
    if (type != (SYSTEM_TSS16 | busy) && type != (SYSTEM_TSS32 | busy))
        return fault_selector(cpu, vector, selector);
    if (!(tss.attr & SEG_P))
        return fault_selector(cpu, VEC_NP, selector);
    if (!intercept_task_switch(cpu, selector, source, cpu->delivering && cpu->event.has_error, cpu->event.error))
        return false;
    return fault_selector(cpu, VEC_GP, selector);
}

/* What a far JMP or CALL finds when its selector names no code segment. */
enum target { TARGET_FAULT, TARGET_GATE, TARGET_TASK /* the new task runs */ };
static enum target system_target(struct cpu *cpu, uint16_t selector, struct descriptor *d, enum task_source source)
{
    unsigned type = d->attr & SEG_TYPE;
    bool is_gate = type == SYSTEM_CALL_GATE32 || (type == SYSTEM_CALL_GATE16 && !is_long_active(cpu));
    bool is_task = !is_long_active(cpu) && (type == SYSTEM_TASK_GATE || type == SYSTEM_TSS16 || type == SYSTEM_TSS32);
    if (d->attr & SEG_S || !(is_gate || is_task) || dpl_of(d) < cpu->cpl || dpl_of(d) < (selector & SELECTOR_RPL)) {
        (void)fault_selector(cpu, VEC_GP, selector);
        return TARGET_FAULT;
    }
    if (is_gate)
        return TARGET_GATE;
    if (type == SYSTEM_TASK_GATE && !(d->attr & SEG_P)) {
        (void)fault_selector(cpu, VEC_NP, selector);
        return TARGET_FAULT;
    }
    uint16_t tss = type == SYSTEM_TASK_GATE ? (uint16_t)(d->low >> 16) : selector;
    return task_switch(cpu, tss, source) ? TARGET_TASK : TARGET_FAULT;
}

/* ---- far JMP -------------------------------------------------------------------------------------- */

static bool far_jump_real(struct cpu *cpu, uint16_t selector, uint64_t offset)
{
    if (offset > cpu->seg[CS].limit)
        return raise_error(cpu, VEC_GP, 0);
    set_segment_real(cpu, CS, selector);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = offset;
    return true;
}

bool far_jump(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size)
{
    struct descriptor cs, entry;
    struct gate gate = { selector, offset, size, 0 };
    if (!is_protected(cpu))
        return far_jump_real(cpu, selector, offset);
    if (is_null(selector))
        return raise_error(cpu, VEC_GP, 0);
    if (!read_descriptor(cpu, selector, &cs, VEC_GP))
        return false;
    if (is_code(&cs)) {
        if (!check_direct(cpu, selector, &cs))
            return false;
    } else {
        entry = cs;
        enum target target = system_target(cpu, selector, &entry, TASK_JMP);
        if (target != TARGET_GATE)
            return target == TARGET_TASK;
        if (!read_call_gate(cpu, selector, &entry, &gate, &cs))
            return false;
        if (!is_conforming(&cs) && dpl_of(&cs) != cpu->cpl)
            return fault_selector(cpu, VEC_GP, gate.selector);
    }
    if (!check_target(cpu, &cs, gate.offset) || !set_accessed(cpu, &cs))
        return false;
    set_code_segment(cpu, gate.selector, &cs, cpu->cpl);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = gate.offset;
    return true;
}

/* ---- far CALL --------------------------------------------------------------------------------------- */

static bool far_call_real(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size, uint64_t return_rip)
{
    struct far_stack stack;
    far_stack_now(cpu, &stack);
    if (!far_room(cpu, &stack, 2, size))
        return false;
    if (offset > cpu->seg[CS].limit)
        return raise_error(cpu, VEC_GP, 0);
    if (!far_push(cpu, &stack, size, cpu->seg[CS].selector) || !far_push(cpu, &stack, size, return_rip))
        return false;
    far_stack_commit(cpu, &stack);
    set_segment_real(cpu, CS, selector);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = offset;
    return true;
}

/* CALL to a more privileged level: the caller's stack and the parameters go to the new one. */
static bool push_caller(struct cpu *cpu, struct far_stack *stack, const struct gate *gate)
{
    uint64_t parameter[GATE_PARAMETERS];
    for (unsigned k = 0; k < gate->parameters; k++) {
        uint64_t offset = (cpu->r[RSP] + k * gate->size) & cpu->stack_mask;
        if (!read_by_size(cpu, SS, offset, gate->size, &parameter[k]))
            return false;
    }
    if (!far_push(cpu, stack, gate->size, cpu->seg[SS].selector) || !far_push(cpu, stack, gate->size, cpu->r[RSP]))
        return false;
    for (unsigned k = gate->parameters; k-- > 0;)
        if (!far_push(cpu, stack, gate->size, parameter[k]))
            return false;
    return true;
}

static bool stack_for_gate(struct cpu *cpu, unsigned level, struct far_stack *stack)
{
    uint16_t ss;
    uint64_t rsp;
    if (!is_long_active(cpu))
        return far_stack_of_level(cpu, level, stack);
    if (!tss_stack(cpu, level, &ss, &rsp))
        return false;
    far_stack_flat(cpu, stack, level, rsp, true);
    return true;
}

bool far_call(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size, uint64_t return_rip)
{
    struct descriptor cs, entry;
    struct far_stack stack;
    struct gate gate = { selector, offset, size, 0 };
    unsigned level = cpu->cpl, nr_pushes = 2;
    if (!is_protected(cpu))
        return far_call_real(cpu, selector, offset, size, return_rip);
    if (is_null(selector))
        return raise_error(cpu, VEC_GP, 0);
    if (!read_descriptor(cpu, selector, &cs, VEC_GP))
        return false;
    far_stack_now(cpu, &stack);
    if (is_code(&cs)) {
        if (!check_direct(cpu, selector, &cs))
            return false;
    } else {
        entry = cs;
        enum target target = system_target(cpu, selector, &entry, TASK_CALL);
        if (target != TARGET_GATE)
            return target == TARGET_TASK;
        if (!read_call_gate(cpu, selector, &entry, &gate, &cs))
            return false;
        if (!is_conforming(&cs) && dpl_of(&cs) < cpu->cpl) {
            level = dpl_of(&cs);
            nr_pushes = 4 + gate.parameters;
            if (!stack_for_gate(cpu, level, &stack))
                return false;
        } else if (is_long_active(cpu)) {
            far_stack_flat(cpu, &stack, level, cpu->r[RSP], false);
        }
    }
    if (!far_room(cpu, &stack, nr_pushes, gate.size) || !check_target(cpu, &cs, gate.offset) ||
        !set_accessed(cpu, &cs))
        return false;
    if (stack.is_new && !push_caller(cpu, &stack, &gate))
        return false;
    if (!far_push(cpu, &stack, gate.size, cpu->seg[CS].selector) || !far_push(cpu, &stack, gate.size, return_rip))
        return false;
    far_stack_commit(cpu, &stack);
    set_code_segment(cpu, gate.selector, &cs, level);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = gate.offset;
    return true;
}

/* ---- far RET and IRET --------------------------------------------------------------------------------- */

/* Word number `k` of `size` bytes above the top of the stack. */
static bool peek(struct cpu *cpu, unsigned size, uint64_t above, uint64_t *value)
{
    return read_by_size(cpu, SS, (cpu->r[RSP] + above) & cpu->stack_mask, size, value);
}

/* Segments that the level returned to may not use become null: SDM vol. 3A 5.8.6. */
static void drop_privileged_segments(struct cpu *cpu)
{
    static const enum seg dropped[] = { ES, DS, FS, GS };
    for (unsigned k = 0; k < 4; k++) {
        const struct segment *s = &cpu->seg[dropped[k]];
        bool is_conforming_code = (s->attr & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);
        if (!(s->attr & SEG_UNUSABLE) && !is_conforming_code && (s->attr >> SEG_DPL_SHIFT & 3) < cpu->cpl)
            set_segment_null(cpu, dropped[k], 0);
    }
}

static bool check_return_code(struct cpu *cpu, uint16_t selector, struct descriptor *cs)
{
    unsigned rpl = selector & SELECTOR_RPL;
    if (is_null(selector))
        return raise_error(cpu, VEC_GP, 0);
    if (!read_descriptor(cpu, selector, cs, VEC_GP))
        return false;
    if (!is_code(cs) || rpl < cpu->cpl || (is_conforming(cs) ? dpl_of(cs) > rpl : dpl_of(cs) != rpl))
        return fault_selector(cpu, VEC_GP, selector);
    return check_code_present(cpu, selector, cs);
}

/* The stack segment returned to. A null SS is right for 64-bit code outside ring 3. */
static bool check_return_stack(struct cpu *cpu, uint16_t selector, struct descriptor *ss, const struct descriptor *cs,
                               unsigned level)
{
    if (is_null(selector)) {
        bool allowed = is_long_active(cpu) && (cs->attr & SEG_L) && level != 3 && (selector & SELECTOR_RPL) == level;
        return allowed || raise_error(cpu, VEC_GP, 0);
    }
    return read_descriptor(cpu, selector, ss, VEC_GP) && check_stack_segment(cpu, selector, ss, level, VEC_GP) &&
           set_accessed(cpu, ss);
}

/* CS, SS, RSP and the level after a return that changes the stack. */
static void commit_return(struct cpu *cpu, uint16_t cs_selector, const struct descriptor *cs, uint16_t ss_selector,
                          const struct descriptor *ss, uint64_t rsp)
{
    unsigned level = cs_selector & SELECTOR_RPL;
    bool is_lower = level > cpu->cpl;
    if (is_null(ss_selector))
        set_segment_null(cpu, SS, ss_selector);
    else
        set_segment(cpu, SS, ss_selector, ss);
    set_code_segment(cpu, cs_selector, cs, level);
    if (is_lower)
        drop_privileged_segments(cpu);
    cpu_segments_changed(cpu);
    if (cpu->stack_mask == 0xffff)
        set_stack_pointer(cpu, rsp);
    else
        cpu->r[RSP] = rsp & cpu->stack_mask;
}

static bool far_return_real(struct cpu *cpu, unsigned size, uint16_t pop_bytes)
{
    uint64_t rip, cs;
    if (!peek(cpu, size, 0, &rip) || !peek(cpu, size, size, &cs))
        return false;
    if (rip > cpu->seg[CS].limit)
        return raise_error(cpu, VEC_GP, 0);
    set_stack_pointer(cpu, cpu->r[RSP] + 2 * size + pop_bytes);
    set_segment_real(cpu, CS, (uint16_t)cs);
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = rip;
    return true;
}

bool far_return(struct cpu *cpu, unsigned size, uint16_t pop_bytes)
{
    struct descriptor cs, ss = { 0 };
    uint64_t rip, cs_word, ss_word = 0, rsp = 0;
    if (!is_protected(cpu))
        return far_return_real(cpu, size, pop_bytes);
    if (!peek(cpu, size, 0, &rip) || !peek(cpu, size, size, &cs_word) ||
        !check_return_code(cpu, (uint16_t)cs_word, &cs))
        return false;
    unsigned level = cs_word & SELECTOR_RPL;
    bool is_outer = level > cpu->cpl;
    if (is_outer && (!peek(cpu, size, 2 * size + pop_bytes, &rsp) ||
                     !peek(cpu, size, 3 * size + pop_bytes, &ss_word) ||
                     !check_return_stack(cpu, (uint16_t)ss_word, &ss, &cs, level)))
        return false;
    if (!check_target(cpu, &cs, rip) || !set_accessed(cpu, &cs))
        return false;
    if (is_outer) {
        commit_return(cpu, (uint16_t)cs_word, &cs, (uint16_t)ss_word, &ss, rsp + pop_bytes);
    } else {
        set_stack_pointer(cpu, cpu->r[RSP] + 2 * size + pop_bytes);
        set_code_segment(cpu, (uint16_t)cs_word, &cs, level);
        cpu_segments_changed(cpu);
    }
    cpu->r[REG_RIP] = rip;
    return true;
}

/* Flags that IRET and POPF may change, by operand size and the level before the return. */
uint64_t flags_writable(const struct cpu *cpu, unsigned size)
{
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (!is_protected(cpu) ? is_real(cpu) || iopl(cpu) == 3 : cpu->cpl <= iopl(cpu))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL;
    return mask;
}

static bool return_real(struct cpu *cpu, unsigned size)
{
    uint64_t rip, cs, flags, mask = flags_writable(cpu, size);
    if (!peek(cpu, size, 0, &rip) || !peek(cpu, size, size, &cs) || !peek(cpu, size, 2 * size, &flags))
        return false;
    if (rip > cpu->seg[CS].limit)
        return raise_error(cpu, VEC_GP, 0);
    if (is_vm86(cpu) && iopl(cpu) < 3) { /* VME, 16 bits: VIF stands for IF */
        if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (cpu->rflags & FLAG_VIP)))
            return raise_error(cpu, VEC_GP, 0);
        mask |= FLAG_VIF;
        flags = (flags & 0xffff) | (flags & FLAG_IF ? FLAG_VIF : 0);
    }
    set_stack_pointer(cpu, cpu->r[RSP] + 3 * size);
    set_segment_real(cpu, CS, (uint16_t)cs);
    set_rflags(cpu, (get_rflags(cpu) & ~mask) | (flags & mask));
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = rip;
    return true;
}

static bool return_to_vm86(struct cpu *cpu, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const enum seg popped[] = { SS, ES, DS, FS, GS };
    uint64_t rsp, selector[5];
    if (!peek(cpu, 4, 12, &rsp))
        return false;
    for (unsigned k = 0; k < 5; k++)
        if (!peek(cpu, 4, 16 + 4 * k, &selector[k]))
            return false;
    if (rip > 0xffff)
        return raise_error(cpu, VEC_GP, 0);
    cpu->cpl = 3;
    set_rflags(cpu, flags);
    set_segment_real(cpu, CS, cs);
    for (unsigned k = 0; k < 5; k++)
        set_segment_real(cpu, popped[k], (uint16_t)selector[k]);
    cpu_segments_changed(cpu);
    cpu->r[RSP] = rsp;
    cpu->r[REG_RIP] = rip;
    return true;
}

bool interrupt_return(struct cpu *cpu, unsigned size)
{
    struct descriptor cs, ss = { 0 };
    uint64_t rip, cs_word, flags, ss_word = 0, rsp = 0;
    bool has_vme = (cpu->cr4 & CR4_VME) && size == 2;
    if (is_vm86(cpu) && iopl(cpu) < 3 && !has_vme)
        return raise_error(cpu, VEC_GP, 0);
    cpu->interruptibility &= (uint8_t)~BLOCK_NMI; /* even when the IRET faults: SDM vol. 3A 6.7.1 */
    if (!is_protected(cpu))
        return return_real(cpu, size);
    if (cpu->rflags & FLAG_NT) {
        uint16_t back;
        if (is_long_active(cpu))
            return raise_error(cpu, VEC_GP, 0);
        return tss_read(cpu, 0, &back, 2) && task_switch(cpu, back, TASK_IRET);
    }
    if (!peek(cpu, size, 0, &rip) || !peek(cpu, size, size, &cs_word) || !peek(cpu, size, 2 * size, &flags))
        return false;
    if (size == 4 && (flags & FLAG_VM) && cpu->cpl == 0 && !is_long_active(cpu))
        return return_to_vm86(cpu, rip, (uint16_t)cs_word, flags);
    if (!check_return_code(cpu, (uint16_t)cs_word, &cs))
        return false;
    unsigned level = cs_word & SELECTOR_RPL;
    bool pops_stack = level > cpu->cpl || is_64bit(cpu);
    if (pops_stack && (!peek(cpu, size, 3 * size, &rsp) || !peek(cpu, size, 4 * size, &ss_word) ||
                       !check_return_stack(cpu, (uint16_t)ss_word, &ss, &cs, level)))
        return false;
    if (!check_target(cpu, &cs, rip) || !set_accessed(cpu, &cs))
        return false;
    uint64_t mask = flags_writable(cpu, size) | (cpu->cpl == 0 && size > 2 ? FLAG_VIF | FLAG_VIP : 0);
    flags = (get_rflags(cpu) & ~mask) | (flags & mask);
    if (pops_stack) {
        commit_return(cpu, (uint16_t)cs_word, &cs, (uint16_t)ss_word, &ss, rsp);
    } else {
        set_stack_pointer(cpu, cpu->r[RSP] + 3 * size);
        set_code_segment(cpu, (uint16_t)cs_word, &cs, level);
        cpu_segments_changed(cpu);
    }
    set_rflags(cpu, flags);
    cpu->r[REG_RIP] = rip;
    return true;
}
