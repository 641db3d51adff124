/* The processor's loop: instruction borders, blocks, and what leaves them (SDM vol. 3A 6.9 for the
 * order of events at a border).
 *
 * Execution goes block by block. Whatever wants a look before the next instruction (pins, traps, shadows,
 * breakpoints, windows) sets cpu->attention; while it is clear, a block runs without a question. */
#include "access.h"
#include "code.h"
#include "flags.h"
#include "virt.h"

#include <stdlib.h>

_Static_assert(sizeof(struct insn) == 40, "five instructions fill 200 bytes of cache");
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the register file and memory accesses assume a little-endian host"
#endif

/* Deliveries, walks and exits that a run may cost beyond its instructions. */
#define WORK_LIMIT (1u << 18)

/* ---- what is derived from the state ------------------------------------------------------------ */

void cpu_update_view(struct cpu *cpu, enum seg seg)
{
    struct seg_view *view = &cpu->view[seg];
    const struct segment *s = &cpu->seg[seg];
    if (seg > GS)
        return;
    if (cpu->code_size == 8) {
        view->base = seg >= FS ? s->base : 0;
        view->read_fast = view->write_fast = ~0ull;
        return;
    }
    bool code = s->attr & TYPE_CODE;
    bool plain = !(s->attr & SEG_UNUSABLE) && (s->attr & SEG_P) && (code || !(s->attr & TYPE_EXPAND_DOWN));
    uint64_t fast = plain && s->limit >= 7 ? (uint64_t)s->limit - 6 : 0; /* offset + 7 <= limit */
    view->base = s->base;
    view->read_fast = code && !(s->attr & TYPE_READABLE) ? 0 : fast;
    view->write_fast = code || !(s->attr & TYPE_WRITABLE) ? 0 : fast;
}

static enum mode decoding_mode(const struct cpu *cpu)
{
    bool big = cpu->seg[CS].attr & SEG_DB;
    if (is_real(cpu))
        return big ? MODE_REAL32 : MODE_REAL16;
    if (is_vm86(cpu))
        return MODE_VM86;
    if (is_long_active(cpu) && (cpu->seg[CS].attr & SEG_L))
        return MODE_LONG64;
    return big ? MODE_PROT32 : MODE_PROT16;
}

static enum paging paging_format(const struct cpu *cpu)
{
    if (!(cpu->cr0 & CR0_PG))
        return PAGING_NONE;
    if (!(cpu->cr4 & CR4_PAE))
        return PAGING_32;
    if (!is_long_active(cpu))
        return PAGING_PAE;
    return cpu->cr4 & CR4_LA57 ? PAGING_5LEVEL : PAGING_4LEVEL;
}

static void derive_mode(struct cpu *cpu)
{
    cpu->mode = (uint8_t)decoding_mode(cpu);
    cpu->paging = (uint8_t)paging_format(cpu);
    cpu->code_size = cpu->mode == MODE_LONG64 ? 8 : cpu->mode == MODE_PROT32 || cpu->mode == MODE_REAL32 ? 4 : 2;
    cpu->linear_mask = cpu->code_size == 8 ? ~0ull : 0xffffffffull;
    cpu->stack_mask = cpu->code_size == 8 ? ~0ull : cpu->seg[SS].attr & SEG_DB ? 0xffffffffull : 0xffffull;
    for (enum seg seg = ES; seg <= GS; seg++)
        cpu_update_view(cpu, seg);
    cpu->front = cpu->front_of[cpu->cpl == 3];
}

void cpu_mode_changed(struct cpu *cpu)
{
    derive_mode(cpu);
    front_flush(cpu);
    cpu->fetch.valid = 0;
    cpu_update_attention(cpu);
}

/* Translations stay: the front has a half per privilege, and a fetch looks at the page and at the privilege. */
void cpu_segments_changed(struct cpu *cpu)
{
    derive_mode(cpu);
    cpu_update_attention(cpu);
}

void cpu_set_cpl(struct cpu *cpu, unsigned cpl)
{
    cpu->cpl = (uint8_t)cpl;
    cpu->front = cpu->front_of[cpl == 3];
}

void cpu_update_attention(struct cpu *cpu)
{
    cpu->attention = cpu->activity != ACTIVITY_ACTIVE || (cpu->interruptibility & (BLOCK_STI | BLOCK_MOV_SS)) ||
                     (cpu->rflags & (FLAG_TF | FLAG_RF)) || (cpu->intr && (cpu->rflags & FLAG_IF)) || cpu->nmi || cpu->init ||
                     cpu->pending_db || cpu->delivering || (cpu->dr[7] & 0xff) || cpu->nr_stop_at || cpu->trace->stops ||
                     (cpu->trace->enabled >> EVENT_RETIRED & 1) || (cpu->world != WORLD_PLAIN && intercept_attention(cpu));
}

void cpu_rebuild(struct cpu *cpu)
{
    cpu->profile = profile_at(cpu->profile_number);
    cpu->shift_aux = cpu_behaves(cpu, BEHAVIOUR_SHIFT_SETS_AF) ? FLAG_AF : 0;
    cpu->current = cpu->block_start = NULL;
    derive_mode(cpu);
    front_flush(cpu);
    cpu_update_attention(cpu);
}

/* ---- checks common to many instructions ------------------------------------------------------------ */

OP(op_gate)
{
    const struct insn_row *row = &insn_rows[i->row];
    if ((row->attr & A_CPL0) && cpu->cpl != 0)
        return raise_error(cpu, VEC_GP, 0);
    if (cpu->world != WORLD_PLAIN && !(row->attr & A_CHECKED) && !intercept_insn(cpu, i))
        return false;
    return row->fn[i->form](cpu, i);
}

OP(op_undefined)
{
    (void)i;
    return raise_exception(cpu, VEC_UD);
}

OP(op_too_long)
{
    (void)i;
    return raise_error(cpu, VEC_GP, 0);
}

/* The rest of a block whose page was written while it ran: nothing happened, look again. */
OP(op_stale)
{
    (void)i;
    cpu->leave = LEAVE_STALE;
    return false;
}

/* ---- leaving a block ---------------------------------------------------------------------------------- */

/* Sets RIP and the time so that they stand before instruction i; the block is over. */
static void stand_before(struct cpu *cpu, const struct insn *i)
{
    if (!cpu->current)
        return; /* at a border: they stand there already */
    cpu->retired = insn_time(cpu, i);
    cpu->r[REG_RIP] = insn_rip(cpu, i) & (cpu->code_size == 8 ? ~0ull : 0xffffffffull);
    cpu->current = cpu->block_start = NULL;
}

static void stand_behind(struct cpu *cpu, const struct insn *i)
{
    cpu->retired = insn_time(cpu, i) + 1;
    cpu->r[REG_RIP] = insn_next_rip(cpu, i) & (cpu->code_size == 8 ? ~0ull : 0xffffffffull);
    cpu->current = cpu->block_start = NULL;
}

/* What a handler's false means. True: go on; false: *stop says why the run ends. */
static NOINLINE bool left(struct cpu *cpu, const struct insn *i, enum cpu_stop *stop)
{
    enum leave leave = (enum leave)cpu->leave;
    cpu->leave = LEAVE_NONE;
    if (leave != LEAVE_DEVICE) /* there cpu_answer() wants to know what had been answered already */
        cpu->log.cursor = 0;
    switch (leave) {
    case LEAVE_FAULT:
        stand_before(cpu, i);
        cpu->work++;
        if (deliver_fault(cpu))
            break;
        return left(cpu, i, stop);
    case LEAVE_DEVICE:
        stand_before(cpu, i);
        *stop = STOP_DEVICE;
        return false;
    case LEAVE_REPEAT:
        if (cpu->rep_partial && (cpu->rflags & FLAG_TF))
            cpu->pending_db |= 64; /* the single-step trap comes after each iteration */
        stand_before(cpu, i); /* its work is counted by elements */
        break;
    case LEAVE_STALE: /* costs no work: whether there was a block must not show */
        stand_before(cpu, i);
        break;
    case LEAVE_BLOCK:
        stand_behind(cpu, i);
        break;
    case LEAVE_JUMP:
        cpu->retired = insn_time(cpu, i) + 1;
        cpu->current = cpu->block_start = NULL;
        break;
    case LEAVE_EXIT: /* the state is the host's; the guest's time stands before the instruction */
        if (cpu->current)
            cpu->retired = insn_time(cpu, i);
        cpu->current = cpu->block_start = NULL;
        cpu->work++;
        if (!cpu->native)
            break;
        *stop = STOP_EXIT;
        return false;
    case LEAVE_NONE:
        break;
    }
    cpu_update_attention(cpu);
    if (cpu->activity != ACTIVITY_SHUTDOWN)
        return true;
    *stop = STOP_SHUTDOWN;
    return false;
}

/* ---- instruction borders -------------------------------------------------------------------------------- */

static bool border_left(struct cpu *cpu, enum cpu_stop *stop)
{
    cpu->current = NULL; /* no instruction is under way */
    return left(cpu, NULL, stop);
}

static bool deliver_at_border(struct cpu *cpu, const struct fault *event, enum cpu_stop *stop)
{
    cpu->work++;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->interruptibility &= (uint8_t)~(BLOCK_STI | BLOCK_MOV_SS);
    if (!deliver_event(cpu, event))
        return border_left(cpu, stop);
    cpu_update_attention(cpu);
    return true;
}

static bool take_interrupt(struct cpu *cpu, enum cpu_stop *stop)
{
    struct fault event = { .type = TYPE_EXTERNAL };
    event.vector = acknowledge_interrupt(cpu);
    return deliver_at_border(cpu, &event, stop);
}

/* Events in the order of SDM 3A 6.9. True: *again says whether something was delivered. */
static NOINLINE bool border(struct cpu *cpu, enum cpu_stop *stop, bool *again)
{
    uint8_t blocked = cpu->interruptibility;
    *again = true;
    if (cpu->activity == ACTIVITY_SHUTDOWN)
        return *stop = STOP_SHUTDOWN, false;
    if (cpu->delivering) { /* a device on the stack answered later */
        struct fault event = cpu->event;
        return deliver_at_border(cpu, &event, stop);
    }
    if (cpu->pending_db && !(blocked & BLOCK_MOV_SS)) {
        struct fault trap = { .vector = VEC_DB, .type = TYPE_HARDWARE_EXCEPTION,
                              .address = (cpu->pending_db & 15u) | (cpu->pending_db & PENDING_BS ? DR6_BS : 0u) };
        cpu->pending_db = 0;
        cpu->activity = ACTIVITY_ACTIVE;
        cpu->fault = trap;
        cpu->leave = LEAVE_FAULT;
        return border_left(cpu, stop);
    }
    if (cpu->world != WORLD_PLAIN && !intercept_event(cpu))
        return border_left(cpu, stop);
    if (cpu->nmi && nmi_unmasked(cpu)) {
        struct fault nmi = { .vector = VEC_NMI, .type = TYPE_NMI };
        cpu->nmi = 0;
        cpu->interruptibility |= BLOCK_NMI;
        return deliver_at_border(cpu, &nmi, stop);
    }
    if (cpu->intr && interrupts_unmasked(cpu))
        return take_interrupt(cpu, stop);
    if (cpu->activity != ACTIVITY_ACTIVE)
        return *stop = STOP_HLT, false;
    uint64_t linear = (cpu->view[CS].base + cpu->r[REG_RIP]) & cpu->linear_mask;
    for (unsigned k = 0; k < cpu->nr_stop_at && !cpu->skip_stop_at; k++)
        if (linear == cpu->stop_at[k])
            return *stop = STOP_BREAK, false;
    cpu->skip_stop_at = 0;
    if ((cpu->dr[7] & 0xff) && !(cpu->rflags & FLAG_RF) && !debug_execution(cpu, linear))
        return border_left(cpu, stop);
    *again = false;
    return true;
}

/* After one instruction that began with something at its border. */
static void after_single(struct cpu *cpu, uint8_t blocked, uint64_t flags)
{
    cpu->interruptibility &= (uint8_t)~(blocked & (BLOCK_STI | BLOCK_MOV_SS));
    if ((flags & FLAG_RF) && (cpu->rflags & FLAG_RF))
        cpu->rflags &= ~(uint64_t)FLAG_RF;
    if ((flags & FLAG_TF) && !(cpu->pending_db & PENDING_NO_STEP))
        cpu->pending_db |= PENDING_BS;
    cpu->pending_db &= (uint8_t)~PENDING_NO_STEP;
    cpu_update_attention(cpu);
}

/* ---- finding the next block -------------------------------------------------------------------------------- */

static NOINLINE bool fetch_ready(struct cpu *cpu, uint64_t linear)
{
    if (UNLIKELY(!cpu->fetch.valid || cpu->fetch.page != linear >> PAGE_SHIFT || cpu->fetch.user != (cpu->cpl == 3))) {
        if (!fetch_translate(cpu, linear))
            return false;
    }
    if (UNLIKELY(!cpu->fetch_host)) {
        cpu->fetch_frame = space_frame(cpu->space, cpu->fetch.frame << PAGE_SHIFT, false);
        cpu->fetch_host = cpu->fetch_frame == NO_FRAME ? NULL : memory_host(cpu->space->memory, cpu->fetch_frame);
    }
    return true;
}

static bool inside_limit(const struct cpu *cpu, unsigned bytes)
{
    return cpu->code_size == 8 || cpu->r[REG_RIP] + bytes - 1 <= cpu->seg[CS].limit;
}

/* One instruction that no block can hold: it crosses a page or the segment limit, or is not in RAM. */
static NOINLINE bool run_uncached(struct cpu *cpu, enum cpu_stop *stop)
{
    uint64_t linear = (cpu->view[CS].base + cpu->r[REG_RIP]) & cpu->linear_mask, pa;
    uint8_t bytes[16];
    struct insn i;
    cpu->block_start = cpu->current = NULL;
    for (unsigned n = 0;; n++) {
        enum decode_result result = decode(cpu, (enum mode)cpu->mode, bytes, n, &i);
        if (result == DECODE_SHORT) {
            bool ok = inside_limit(cpu, n + 1) || raise_error(cpu, VEC_GP, 0);
            ok = ok && translate(cpu, (linear + n) & cpu->linear_mask, ACCESS_FETCH, cpu->cpl == 3, &pa);
            if (!ok)
                return left(cpu, NULL, stop);
            physical_access(cpu, pa, &bytes[n], 1, false);
            continue;
        }
        if (result != DECODE_OK)
            i = (struct insn){ .exec = result == DECODE_LONG ? op_too_long : op_undefined };
        break;
    }
    cpu->block_start = cpu->current = &i;
    if (!i.exec(cpu, &i))
        return left(cpu, &i, stop);
    bool jumped = i.len && (insn_rows[i.row].attr & A_JUMP);
    uint64_t rip = cpu->r[REG_RIP];
    stand_behind(cpu, &i);
    if (jumped)
        cpu->r[REG_RIP] = rip;
    return true;
}

/* The block at RIP, decoded now if it is not there; NULL: one instruction must run uncached. */
static NOINLINE const struct recent *look_up(struct cpu *cpu, uint64_t key)
{
    struct recent *recent = code_recent(cpu, key);
    struct block *block = code_find(cpu, key);
    if (!block)
        block = code_build(cpu, cpu->fetch_frame, cpu->fetch_host, (uint32_t)(key >> 4) & (PAGE_SIZE - 1));
    if (!block)
        return NULL;
    *recent = (struct recent){ key, block, code_insns(cpu, block) };
    return recent;
}

ALWAYS_INLINE bool run_block(struct cpu *cpu, const struct recent *recent, uint64_t most, enum cpu_stop *stop)
{
    const struct block *block = recent->block;
    const struct insn *i = recent->insn, *last;
    bool whole = LIKELY(block->nr <= most), jumps = whole && block->jumps;
    last = i + (whole ? block->nr : most);
    cpu->block_start = i;
    do {
        cpu->current = i;
        if (UNLIKELY(!i->exec(cpu, i)))
            return left(cpu, i, stop);
    } while (++i != last);
    cpu->retired += (uint64_t)(i - cpu->block_start);
    if (!jumps)
        cpu->r[REG_RIP] = (cpu->r[REG_RIP] + last[-1].next) & cpu->linear_mask;
    cpu->current = NULL;
    return true;
}

/* At most `most` instructions. */
ALWAYS_INLINE bool run_next(struct cpu *cpu, uint64_t most, enum cpu_stop *stop)
{
    uint64_t linear = (cpu->view[CS].base + cpu->r[REG_RIP]) & cpu->linear_mask;
    if (UNLIKELY(!inside_limit(cpu, 1))) {
        raise_error(cpu, VEC_GP, 0);
        return left(cpu, NULL, stop);
    }
    if (UNLIKELY(!cpu->fetch_host || cpu->fetch.page != linear >> PAGE_SHIFT || !cpu->fetch.valid ||
                 cpu->fetch.user != (cpu->cpl == 3))) {
        if (!fetch_ready(cpu, linear))
            return left(cpu, NULL, stop);
        if (!cpu->fetch_host)
            return run_uncached(cpu, stop);
    }
    uint64_t key = code_key(cpu->fetch_frame, (uint32_t)(linear & (PAGE_SIZE - 1)), cpu->mode);
    const struct recent *recent = code_recent(cpu, key);
    if (UNLIKELY(recent->key != key)) {
        recent = look_up(cpu, key);
        if (!recent)
            return run_uncached(cpu, stop);
    }
    if (UNLIKELY(!inside_limit(cpu, recent->block->bytes)))
        return run_uncached(cpu, stop);
    return run_block(cpu, recent, most, stop);
}

static void emit_retired(struct cpu *cpu)
{
    emit(cpu, EVENT_RETIRED, 0, get_rflags(cpu), cpu->r[RSP], cpu->r[RAX], 0);
}

enum cpu_stop cpu_run(struct cpu *cpu, uint64_t budget)
{
    enum cpu_stop stop = STOP_BUDGET;
    uint64_t end = cpu->retired + budget < cpu->retired ? ~0ull : cpu->retired + budget;
    uint64_t work_end = cpu->work + WORK_LIMIT + budget < cpu->work ? ~0ull : cpu->work + WORK_LIMIT + budget;
    if (end > cpu->deadline)
        end = cpu->deadline;
    while (cpu->retired < end) {
        if (LIKELY(!cpu->attention)) {
            if (UNLIKELY(*(volatile uint8_t *)&cpu->request)) {
                cpu->request = 0;
                return STOP_REQUEST;
            }
            if (UNLIKELY(!run_next(cpu, end - cpu->retired, &stop)))
                return stop;
            if (UNLIKELY(cpu->work > work_end))
                return STOP_WORK;
            continue;
        }
        bool again;
        if (!border(cpu, &stop, &again))
            return stop;
        if (*(volatile uint8_t *)&cpu->request) {
            cpu->request = 0;
            return STOP_REQUEST;
        }
        if (cpu->work > work_end)
            return STOP_WORK;
        if (again)
            continue;
        uint8_t blocked = cpu->interruptibility;
        uint64_t flags = cpu->rflags, before = cpu->retired;
        uint8_t world = cpu->world;
        if (!run_next(cpu, 1, &stop))
            return stop;
        if (cpu->retired != before && cpu->world == world) { /* after VMLAUNCH and VMRUN shadow and TF are the guest's */
            after_single(cpu, blocked, flags);
            if (cpu->trace->enabled >> EVENT_RETIRED & 1)
                emit_retired(cpu);
        }
        if (cpu->trace->stopped_by)
            return STOP_REQUEST;
    }
    return stop;
}

enum cpu_stop cpu_step(struct cpu *cpu) { return cpu_run(cpu, 1); }

void cpu_request_stop(struct cpu *cpu) { *(volatile uint8_t *)&cpu->request = 1; }

/* ---- power on: SDM 3A table 9-1 ----------------------------------------------------------------------------- */

void cpu_reset(struct cpu *cpu)
{
    static const uint64_t msr_reset[NR_MSRS] = {
#define MSR(index, NAME, storage, feature, reset, writable, kind, summary) [MSR_##NAME] = reset,
#include "msr.def"
#undef MSR
    };
    const struct segment data = { .limit = 0xffff, .attr = SEG_P | SEG_S | TYPE_WRITABLE | TYPE_ACCESSED };
    uint8_t number = cpu->profile_number;
    memset(cpu, 0, CPU_STATE_BYTES);
    cpu->profile_number = number;
    set_status_flags(cpu, 0);
    cpu->rflags = FLAG_1;
    cpu->r[REG_RIP] = 0xfff0;
    cpu->r[RDX] = cpu->profile->signature;
    for (enum seg seg = ES; seg <= GS; seg++)
        cpu->seg[seg] = data;
    cpu->seg[CS] = (struct segment){ .base = 0xffff0000, .limit = 0xffff, .selector = 0xf000,
                                     .attr = SEG_P | SEG_S | TYPE_CODE | TYPE_READABLE | TYPE_ACCESSED };
    cpu->seg[LDTR] = (struct segment){ .limit = 0xffff, .attr = SEG_P | 2 };
    cpu->seg[TR] = (struct segment){ .limit = 0xffff, .attr = SEG_P | 11 };
    cpu->gdtr.limit = cpu->idtr.limit = 0xffff;
    cpu->cr0 = CR0_CD | CR0_NW | CR0_ET;
    cpu->dr[6] = DR6_FIXED1;
    cpu->dr[7] = DR7_FIXED1;
    cpu->xcr0 = 1;
    memcpy(cpu->msr, msr_reset, sizeof msr_reset);
    cpu->deadline = ~0ull;
    cpu->a20 = 1;
    cpu->svm.gif = 1;
    cpu->tlb.epoch = cpu->tlb.global_epoch = 1;
    cpu_rebuild(cpu);
}

/* ---- life --------------------------------------------------------------------------------------------------- */

struct cpu *cpu_new(const struct profile *profile, struct space *space, struct trace *trace)
{
    struct cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return NULL;
    cpu->space = space;
    cpu->trace = trace;
    cpu->nr_filled = FRONT_LIST + 1; /* the first flush makes every entry an empty one */
    while (profile_at(cpu->profile_number) != profile)
        cpu->profile_number++;
    cpu->profile = profile;
    if (!code_init(cpu)) {
        cpu_free(cpu);
        return NULL;
    }
    cpu_reset(cpu);
    return cpu;
}

void cpu_free(struct cpu *cpu)
{
    if (!cpu)
        return;
    code_release(cpu);
    free(cpu);
}
