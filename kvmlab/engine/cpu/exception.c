/* Exceptions and interrupts: raising them, and delivering them through the vector table or the
 * IDT in every mode.
 *
 * SDM vol. 3A ch. 6, 20.1.4 (real mode), 20.3 (vm86), vol. 2A INT n. A delivery reads and pushes first
 * and commits registers last, so a fault inside it leaves the state as it was. While one is under
 * way cpu->event names it (a VM exit then reports it as IDT-vectoring information). */
#include "access.h"
#include "flags.h"

/* ---- raising ----------------------------------------------------------------------------------- */

static bool is_software(const struct fault *event)
{
    return event->type == TYPE_SOFTWARE_INTERRUPT || event->type == TYPE_SOFTWARE_EXCEPTION;
}

static bool vector_in(uint32_t set, unsigned vector) { return vector < 32 && (set >> vector & 1); }

#define VECTORS_WITH_ERROR \
    (1u << VEC_DF | 1u << VEC_TS | 1u << VEC_NP | 1u << VEC_SS | 1u << VEC_GP | 1u << VEC_PF | 1u << VEC_AC | 1u << VEC_CP)
#define VECTORS_WITH_EXT (1u << VEC_TS | 1u << VEC_NP | 1u << VEC_SS | 1u << VEC_GP)
#define VECTORS_CONTRIBUTORY (1u << VEC_DE | 1u << VEC_TS | 1u << VEC_NP | 1u << VEC_SS | 1u << VEC_GP | 1u << VEC_CP)

static bool raise(struct cpu *cpu, enum vector vector, uint32_t error, uint64_t address)
{
    cpu->fault = (struct fault){ .vector = (uint8_t)vector, .type = TYPE_HARDWARE_EXCEPTION, .error = error,
                                 .has_error = vector_in(VECTORS_WITH_ERROR, vector), .address = address,
                                 .in_delivery = cpu->delivering };
    cpu->leave = LEAVE_FAULT;
    return false;
}

bool raise_exception(struct cpu *cpu, enum vector vector) { return raise(cpu, vector, 0, 0); }

/* The EXT bit says that the program did not ask for what was being delivered. */
bool raise_error(struct cpu *cpu, enum vector vector, uint32_t error)
{
    bool ext = cpu->delivering && !is_software(&cpu->event) && vector_in(VECTORS_WITH_EXT, vector);
    return raise(cpu, vector, error | ext, 0);
}

bool raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error) { return raise(cpu, VEC_PF, error, linear); }

bool raise_debug(struct cpu *cpu, uint32_t dr6_bits) { return raise(cpu, VEC_DB, 0, dr6_bits); }

/* Error code that names an entry of the IDT. */
static uint32_t idt_error(const struct fault *event) { return event->vector * 8u + 2; }

/* ---- real mode, and vm86 with VME ------------------------------------------------------------------ */

static void emit_delivery(struct cpu *cpu, const struct fault *event, uint16_t cs, uint64_t rip)
{
    emit(cpu, EVENT_DELIVERY, event->vector | (uint32_t)event->type << 8, event->error,
         (uint64_t)cs << 48 | (rip & 0xffffffffffff), cpu->cr2, 0);
}

/* What any delivery leaves behind. */
static void handler_begins(struct cpu *cpu, const struct fault *event, uint64_t cleared, uint64_t rip)
{
    cpu->rflags &= ~cleared;
    cpu->interruptibility &= (uint8_t)~(BLOCK_STI | BLOCK_MOV_SS);
    if (event->type == TYPE_NMI)
        cpu->interruptibility |= BLOCK_NMI;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu_segments_changed(cpu);
    cpu->r[REG_RIP] = rip;
}

/* Through a vector of four bytes at `table`, which stands in the task itself or in the machine's first page. */
static bool deliver_by_vector(struct cpu *cpu, const struct fault *event, uint64_t table, uint64_t flags, uint64_t rip,
                              uint64_t cleared)
{
    struct far_stack stack;
    uint32_t target;
    if (!system_read(cpu, table + event->vector * 4u, &target, 4))
        return false;
    far_stack_now(cpu, &stack);
    if (!far_room(cpu, &stack, 3, 2))
        return false;
    if ((target & 0xffff) > cpu->seg[CS].limit)
        return raise_error(cpu, VEC_GP, 0);
    if (!far_push(cpu, &stack, 2, flags) || !far_push(cpu, &stack, 2, cpu->seg[CS].selector) ||
        !far_push(cpu, &stack, 2, rip))
        return false;
    emit_delivery(cpu, event, (uint16_t)(target >> 16), target & 0xffff);
    far_stack_commit(cpu, &stack);
    set_segment_real(cpu, CS, (uint16_t)(target >> 16));
    handler_begins(cpu, event, cleared, target & 0xffff);
    return true;
}

static bool deliver_real(struct cpu *cpu, const struct fault *event, uint64_t flags, uint64_t rip)
{
    if (event->vector * 4u + 3 > cpu->idtr.limit)
        return raise_error(cpu, VEC_GP, idt_error(event));
    return deliver_by_vector(cpu, event, cpu->idtr.base, flags, rip, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* INT n of a vm86 task whose redirection bit is clear goes through the task's own table: SDM vol. 3A 20.3.3. */
static bool deliver_redirected(struct cpu *cpu, const struct fault *event, uint64_t flags, uint64_t rip)
{
    uint64_t cleared = FLAG_TF | FLAG_RF | FLAG_IF;
    if (iopl(cpu) < 3) {
        flags = (flags & ~(uint64_t)FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
        cleared = FLAG_TF | FLAG_RF | FLAG_VIF;
    }
    return deliver_by_vector(cpu, event, 0, flags, rip, cleared);
}

/* ---- gates of the IDT ----------------------------------------------------------------------------------- */

enum gate_type { GATE_TASK = 5, GATE_INTERRUPT16 = 6, GATE_INTERRUPT32 = 14 };

struct idt_gate {
    uint64_t offset;
    uint16_t selector;
    uint8_t size, ist; /* bytes of a push; interrupt-stack-table index */
    uint8_t is_interrupt, is_task;
};

static bool read_gate(struct cpu *cpu, const struct fault *event, struct idt_gate *gate)
{
    uint64_t entry[2] = { 0, 0 };
    bool is_long = is_long_active(cpu);
    unsigned entry_bytes = is_long ? 16 : 8;
    if (event->vector * entry_bytes + entry_bytes - 1 > cpu->idtr.limit)
        return raise_error(cpu, VEC_GP, idt_error(event));
    if (!system_read(cpu, cpu->idtr.base + event->vector * entry_bytes, entry, entry_bytes))
        return false;
    unsigned attr = (unsigned)(entry[0] >> 40), type = attr & 0x1f, without_trap_bit = type & ~1u;
    bool known = without_trap_bit == GATE_INTERRUPT32 ||
                 (!is_long && (without_trap_bit == GATE_INTERRUPT16 || type == GATE_TASK));
    if (!known || (is_software(event) && (attr >> SEG_DPL_SHIFT & 3) < cpu->cpl))
        return raise_error(cpu, VEC_GP, idt_error(event));
    if (!(attr & SEG_P))
        return raise_error(cpu, VEC_NP, idt_error(event));
    *gate = (struct idt_gate){ .selector = (uint16_t)(entry[0] >> 16), .is_interrupt = !(type & 1),
                               .is_task = type == GATE_TASK, .size = is_long ? 8 : type & 8 ? 4 : 2,
                               .ist = is_long ? entry[0] >> 32 & 7 : 0 };
    gate->offset = (entry[0] & 0xffff) | (gate->size > 2 ? entry[0] >> 32 & 0xffff0000 : 0) | entry[1] << 32;
    return true;
}

/* The handler's code segment and the level it runs at. */
static bool read_handler(struct cpu *cpu, const struct idt_gate *gate, struct descriptor *cs, unsigned *level)
{
    uint16_t selector = gate->selector & SELECTOR_MASK;
    if (!selector)
        return raise_error(cpu, VEC_GP, 0);
    if (!read_descriptor(cpu, selector, cs, VEC_GP))
        return false;
    unsigned dpl = cs->attr >> SEG_DPL_SHIFT & 3;
    bool is_code = (cs->attr & (SEG_S | TYPE_CODE)) == (SEG_S | TYPE_CODE);
    *level = cs->attr & TYPE_CONFORMING ? cpu->cpl : dpl;
    if (!is_code || dpl > cpu->cpl || (is_vm86(cpu) && *level != 0))
        return raise_error(cpu, VEC_GP, selector);
    if (is_long_active(cpu) && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
        return raise_error(cpu, VEC_GP, selector);
    return (cs->attr & SEG_P) || raise_error(cpu, VEC_NP, selector);
}

static bool stack_of_handler(struct cpu *cpu, const struct idt_gate *gate, unsigned level, struct far_stack *stack)
{
    uint64_t rsp = cpu->r[RSP];
    uint16_t ss;
    if (!is_long_active(cpu)) {
        if (level != cpu->cpl)
            return far_stack_of_level(cpu, level, stack);
        far_stack_now(cpu, stack);
        return true;
    }
    if (gate->ist ? !tss_ist(cpu, gate->ist, &rsp) : level != cpu->cpl && !tss_stack(cpu, level, &ss, &rsp))
        return false;
    far_stack_flat(cpu, stack, level, rsp, gate->ist || level != cpu->cpl);
    stack->rsp &= ~15ull;
    return true;
}

static bool push_frame(struct cpu *cpu, const struct fault *event, struct far_stack *stack, unsigned size, uint64_t flags,
                       uint64_t rip)
{
    static const enum seg saved[] = { GS, FS, DS, ES };
    bool with_stack = stack->is_new || is_long_active(cpu);
    for (unsigned k = 0; is_vm86(cpu) && k < 4; k++)
        if (!far_push(cpu, stack, size, cpu->seg[saved[k]].selector))
            return false;
    if (with_stack && (!far_push(cpu, stack, size, cpu->seg[SS].selector) || !far_push(cpu, stack, size, cpu->r[RSP])))
        return false;
    return far_push(cpu, stack, size, flags) && far_push(cpu, stack, size, cpu->seg[CS].selector) &&
           far_push(cpu, stack, size, rip) && (!event->has_error || far_push(cpu, stack, size, event->error));
}

static bool deliver_by_gate(struct cpu *cpu, const struct fault *event, uint64_t flags, uint64_t rip)
{
    struct idt_gate gate = { 0 };
    struct descriptor cs;
    struct far_stack stack;
    unsigned level = 0;
    bool from_vm86 = is_vm86(cpu);
    if (!read_gate(cpu, event, &gate))
        return false;
    if (gate.is_task)
        return task_switch(cpu, gate.selector, TASK_GATE);
    if (!read_handler(cpu, &gate, &cs, &level) || !stack_of_handler(cpu, &gate, level, &stack))
        return false;
    unsigned nr_pushes = 3 + event->has_error + (stack.is_new || is_long_active(cpu) ? 2 : 0) + (from_vm86 ? 4 : 0);
    if (!far_room(cpu, &stack, nr_pushes, gate.size) || !check_target(cpu, &cs, gate.offset) ||
        !set_accessed(cpu, &cs) || !push_frame(cpu, event, &stack, gate.size, flags, rip))
        return false;
    emit_delivery(cpu, event, gate.selector, gate.offset);
    far_stack_commit(cpu, &stack);
    set_code_segment(cpu, gate.selector, &cs, level);
    for (enum seg seg = ES; from_vm86 && seg <= GS; seg++)
        if (seg != CS && seg != SS)
            set_segment_null(cpu, seg, 0);
    handler_begins(cpu, event, FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (gate.is_interrupt ? FLAG_IF : 0u), gate.offset);
    return true;
}

/* ---- one delivery ------------------------------------------------------------------------------------------ */

/* False: cpu->leave says why; cpu->delivering stays set for a fault. */
static bool deliver(struct cpu *cpu, const struct fault *event, uint64_t flags)
{
    uint64_t rip = cpu->current ? insn_rip(cpu, cpu->current) : cpu->r[REG_RIP];
    bool redirected = false, done;
    cpu->event = *event;
    cpu->delivering = 1;
    cpu->leave = LEAVE_NONE;
    event = &cpu->event;
    if (is_software(event) || event->type == TYPE_PRIVILEGED_SOFTWARE_EXCEPTION)
        rip += event->length;
    if (!is_64bit(cpu))
        rip &= 0xffffffff;
    if (is_real(cpu))
        done = deliver_real(cpu, event, flags, rip);
    else if (is_vm86(cpu) && event->type == TYPE_SOFTWARE_INTERRUPT && (cpu->cr4 & CR4_VME) &&
             !tss_redirects(cpu, event->vector, &redirected))
        done = false;
    else if (redirected)
        done = deliver_redirected(cpu, event, flags, rip);
    else if (is_vm86(cpu) && event->type == TYPE_SOFTWARE_INTERRUPT && iopl(cpu) < 3)
        done = raise_error(cpu, VEC_GP, 0);
    else
        done = deliver_by_gate(cpu, event, flags, rip);
    if (done || cpu->leave != LEAVE_FAULT)
        cpu->delivering = 0;
    return done;
}

/* INT n, INT3, INTO, INT1 as instructions. Their faults are delivered when the handler has returned. */
bool software_interrupt(struct cpu *cpu, uint8_t vector, enum event_type type, unsigned length)
{
    struct fault event = { .vector = vector, .type = (uint8_t)type, .length = length };
    bool stepping = cpu->rflags & FLAG_TF;
    if (type == TYPE_SOFTWARE_INTERRUPT && is_vm86(cpu) && iopl(cpu) < 3 && !(cpu->cr4 & CR4_VME))
        return raise_error(cpu, VEC_GP, 0);
    if (type != TYPE_SOFTWARE_INTERRUPT && cpu->world != WORLD_PLAIN && !intercept_exception(cpu, &event))
        return false;
    if (!deliver(cpu, &event, get_rflags(cpu)))
        return false;
    if (stepping) /* TF was cleared on the way in: no trap on the handler's first instruction */
        cpu->pending_db |= PENDING_NO_STEP;
    return true;
}

/* ---- faults of faults: SDM vol. 3A table 6-5 -------------------------------------------------------------------- */

static bool is_exception(const struct fault *event, unsigned vector)
{
    return event->type == TYPE_HARDWARE_EXCEPTION && event->vector == vector;
}

static bool is_contributory(const struct fault *event)
{
    return event->type == TYPE_HARDWARE_EXCEPTION && vector_in(VECTORS_CONTRIBUTORY, event->vector);
}

enum combined { SERIAL, DOUBLE_FAULT, TRIPLE_FAULT };
static enum combined combine(const struct fault *first, const struct fault *second)
{
    bool counts = is_contributory(second) || is_exception(second, VEC_PF);
    if (is_exception(first, VEC_DF) && counts)
        return TRIPLE_FAULT;
    if (is_contributory(first) && is_contributory(second))
        return DOUBLE_FAULT;
    return is_exception(first, VEC_PF) && counts ? DOUBLE_FAULT : SERIAL;
}

void enter_shutdown(struct cpu *cpu)
{
    cpu->delivering = 0;
    cpu->leave = LEAVE_NONE;
    cpu->activity = ACTIVITY_SHUTDOWN;
    emit(cpu, EVENT_SHUTDOWN, 0, 0, 0, 0, 0);
    cpu_update_attention(cpu);
}

static bool exited(struct cpu *cpu)
{
    cpu->delivering = 0;
    return false;
}

/* The second fault's own intercept comes first, then what the two make together, then its intercept. */
static bool escalate(struct cpu *cpu, struct fault *fault)
{
    bool in_guest = cpu->world != WORLD_PLAIN;
    enum combined combined = fault->in_delivery ? combine(&cpu->event, fault) : SERIAL;
    if (in_guest && !intercept_exception(cpu, fault))
        return exited(cpu);
    if (is_exception(fault, VEC_PF))
        cpu->cr2 = fault->address;
    if (combined == TRIPLE_FAULT) {
        if (in_guest && !intercept_triple_fault(cpu))
            return exited(cpu);
        enter_shutdown(cpu);
        return false;
    }
    if (combined == DOUBLE_FAULT) {
        *fault = (struct fault){ .vector = VEC_DF, .type = TYPE_HARDWARE_EXCEPTION, .has_error = 1, .in_delivery = 1 };
        if (in_guest && !intercept_exception(cpu, fault))
            return exited(cpu);
    }
    return true;
}

/* The flags that a handler finds: RF is set after faults, so that an instruction breakpoint does not hit again. */
static uint64_t flags_of_fault(const struct cpu *cpu, const struct fault *fault)
{
    bool is_trap_or_abort = vector_in(1u << VEC_DB | 1u << VEC_DF | 1u << VEC_MC, fault->vector);
    bool sets_rf = fault->vector == VEC_DB ? (fault->address & DR6_BD) != 0 : !is_trap_or_abort;
    return get_rflags(cpu) | (sets_rf ? FLAG_RF : 0);
}

/* Benign faults may follow each other without end: after this many the instruction runs (and faults) again, so that
 * the loop's budget is asked. */
#define FAULTS_IN_A_ROW 8

bool deliver_fault(struct cpu *cpu)
{
    if (cpu->fault.vector != VEC_DB)
        cpu->pending_db = 0; /* traps of an instruction that did not complete */
    for (unsigned n = 0; n < FAULTS_IN_A_ROW; n++) {
        struct fault fault = cpu->fault;
        cpu->leave = LEAVE_NONE;
        if (!escalate(cpu, &fault))
            return false;
        if (is_exception(&fault, VEC_DB)) {
            cpu->dr[6] = (cpu->dr[6] & ~15ull) | (uint32_t)fault.address;
            cpu->dr[7] &= ~(uint64_t)DR7_GD;
        }
        if (deliver(cpu, &fault, flags_of_fault(cpu, &fault)))
            return true;
        if (cpu->leave != LEAVE_FAULT) { /* a fault comes again with its instruction, a trap does not */
            cpu->delivering = cpu->leave == LEAVE_DEVICE && is_exception(&fault, VEC_DB);
            return false;
        }
        cpu->work++;
    }
    cpu->delivering = 0;
    cpu->leave = LEAVE_NONE;
    return true;
}

bool deliver_event(struct cpu *cpu, const struct fault *event)
{
    uint64_t flags = get_rflags(cpu) | (cpu->rep_partial ? FLAG_RF : 0);
    if (deliver(cpu, event, flags))
        return true;
    if (cpu->leave == LEAVE_FAULT)
        return deliver_fault(cpu);
    cpu->delivering = cpu->leave == LEAVE_DEVICE;
    return false;
}
