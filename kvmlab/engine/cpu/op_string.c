/* String instructions: MOVS STOS LODS CMPS SCAS INS OUTS, alone and repeated (SDM vol. 1 7.3.9).
 *
 * A repeated instruction goes on in runs: as many elements as lie in one page on both sides are done
 * on host memory at once; what no host pointer reaches (page crossings, devices, watched pages) is
 * done by element. After each run the registers are committed and the handler leaves with
 * LEAVE_REPEAT, so that interrupts come in between and a fault finds everything before it done. */
#include "access.h"
#include "flags.h"

#define STEP_LIMIT 512 /* elements that one call does by element */

/* ---- counters and indices have the address size ------------------------------------------------- */

static unsigned address_size(const struct insn *i) { return 8 - i->ashift / 8; }
static uint64_t index_of(const struct cpu *cpu, const struct insn *i, enum gpr reg)
{
    return cpu->r[reg] << i->ashift >> i->ashift;
}
static void advance(struct cpu *cpu, const struct insn *i, enum gpr reg, uint64_t elements)
{
    uint64_t bytes = elements * i->size;
    uint64_t v = cpu->r[reg] + (cpu->rflags & FLAG_DF ? -bytes : bytes);
    set_reg_by_size(cpu, reg, address_size(i), v << i->ashift >> i->ashift);
}

/* ---- runs on host memory --------------------------------------------------------------------------- */

/* A stretch of elements in one page: the first one at `host`, the next at host + stride. */
struct run {
    uint8_t *host;
    uint64_t elements;
};

/* The longest stretch from `offset` in the direction of DF, up to `most` elements, that needs no
 * check beyond the segment's view and the front of the TLB. None: elements is 0. */
static struct run find_run(const struct cpu *cpu, const struct insn *i, enum seg seg, uint64_t offset, bool write,
                           uint64_t most)
{
    const struct seg_view *view = &cpu->view[seg];
    uint64_t linear = (view->base + offset) & cpu->linear_mask, in_page = linear & (PAGE_SIZE - 1);
    uint64_t fast = write ? view->write_fast : view->read_fast, room;
    const struct tlb_front *front = front_at(cpu, linear);
    struct run run = { NULL, 0 };
    if (offset >= fast || in_page + i->size > PAGE_SIZE || (linear & PAGE_MASK) != (write ? front->write : front->read) ||
        (write && *front->attr))
        return run;
    if (cpu->rflags & FLAG_DF) {
        room = (in_page < offset ? in_page : offset) / i->size + 1;
    } else {
        uint64_t page_room = PAGE_SIZE - in_page, end = i->ashift ? ~0ull >> i->ashift : ~0ull;
        uint64_t view_room = (fast - 1 < end ? fast - 1 : end) - offset; /* offsets up to here are inside */
        room = page_room / i->size;
        if (room > view_room / i->size + 1)
            room = view_room / i->size + 1;
    }
    run.host = front->host + in_page;
    run.elements = room < most ? room : most;
    return run;
}

/* Forwards in the order of the elements: an overlap repeats what was just written. */
static void copy_run(uint8_t *to, const uint8_t *from, uint64_t elements, unsigned size, bool down)
{
    uint64_t bytes = elements * size;
    if (!down && (to <= from || to >= from + bytes)) {
        memmove(to, from, bytes);
        return;
    }
    int64_t stride = down ? -(int64_t)size : (int64_t)size;
    for (uint64_t n = 0; n < elements; n++) {
        uint64_t v;
        memcpy(&v, from + (int64_t)n * stride, size);
        memcpy(to + (int64_t)n * stride, &v, size);
    }
}

static void fill_run(uint8_t *to, uint64_t value, uint64_t elements, unsigned size, bool down)
{
    uint8_t *lowest = down ? to - (elements - 1) * size : to;
    if (size == 1) {
        memset(lowest, (int)(uint8_t)value, elements);
        return;
    }
    for (uint64_t n = 0; n < elements; n++)
        memcpy(lowest + n * size, &value, size);
}

/* ---- one element, by the slow paths --------------------------------------------------------------------- */

static bool movs_element(struct cpu *cpu, const struct insn *i)
{
    uint64_t v;
    if (!read_by_size(cpu, (enum seg)i->seg, index_of(cpu, i, RSI), i->size, &v) ||
        !write_by_size(cpu, ES, index_of(cpu, i, RDI), i->size, v))
        return false;
    advance(cpu, i, RSI, 1);
    advance(cpu, i, RDI, 1);
    return true;
}

static bool stos_element(struct cpu *cpu, const struct insn *i)
{
    if (!write_by_size(cpu, ES, index_of(cpu, i, RDI), i->size, cpu->r[RAX]))
        return false;
    advance(cpu, i, RDI, 1);
    return true;
}

static bool lods_element(struct cpu *cpu, const struct insn *i)
{
    uint64_t v;
    if (!read_by_size(cpu, (enum seg)i->seg, index_of(cpu, i, RSI), i->size, &v))
        return false;
    set_reg_by_size(cpu, RAX, i->size, v);
    advance(cpu, i, RSI, 1);
    return true;
}

static void compare(struct cpu *cpu, unsigned size, uint64_t a, uint64_t b)
{
    switch (size) {
    case 1: flags_sub8(cpu, (uint8_t)a, (uint8_t)b, (uint8_t)(a - b)); break;
    case 2: flags_sub16(cpu, (uint16_t)a, (uint16_t)b, (uint16_t)(a - b)); break;
    case 4: flags_sub32(cpu, (uint32_t)a, (uint32_t)b, (uint32_t)(a - b)); break;
    default: flags_sub64(cpu, a, b, a - b); break;
    }
}

static bool cmps_element(struct cpu *cpu, const struct insn *i)
{
    uint64_t a, b;
    if (!read_by_size(cpu, (enum seg)i->seg, index_of(cpu, i, RSI), i->size, &a) ||
        !read_by_size(cpu, ES, index_of(cpu, i, RDI), i->size, &b))
        return false;
    compare(cpu, i->size, a, b);
    advance(cpu, i, RSI, 1);
    advance(cpu, i, RDI, 1);
    return true;
}

static bool scas_element(struct cpu *cpu, const struct insn *i)
{
    uint64_t b;
    if (!read_by_size(cpu, ES, index_of(cpu, i, RDI), i->size, &b))
        return false;
    compare(cpu, i->size, reg_by_size(cpu, RAX, i->size), b);
    advance(cpu, i, RDI, 1);
    return true;
}

/* ---- repetition -------------------------------------------------------------------------------------------- */

typedef bool element_fn(struct cpu *cpu, const struct insn *i);
/* Does up to `most` elements at once and advances the indices; the number done, 0: go by element. */
typedef uint64_t run_fn(struct cpu *cpu, const struct insn *i, uint64_t most);

static uint64_t movs_run(struct cpu *cpu, const struct insn *i, uint64_t most)
{
    struct run from = find_run(cpu, i, (enum seg)i->seg, index_of(cpu, i, RSI), false, most);
    struct run to = find_run(cpu, i, ES, index_of(cpu, i, RDI), true, from.elements);
    if (to.elements) {
        copy_run(to.host, from.host, to.elements, i->size, cpu->rflags & FLAG_DF);
        advance(cpu, i, RSI, to.elements);
        advance(cpu, i, RDI, to.elements);
    }
    return to.elements;
}

static uint64_t stos_run(struct cpu *cpu, const struct insn *i, uint64_t most)
{
    struct run to = find_run(cpu, i, ES, index_of(cpu, i, RDI), true, most);
    if (to.elements) {
        fill_run(to.host, cpu->r[RAX], to.elements, i->size, cpu->rflags & FLAG_DF);
        advance(cpu, i, RDI, to.elements);
    }
    return to.elements;
}

static uint64_t lods_run(struct cpu *cpu, const struct insn *i, uint64_t most)
{
    struct run from = find_run(cpu, i, (enum seg)i->seg, index_of(cpu, i, RSI), false, most);
    if (from.elements) {
        int64_t last = (int64_t)((from.elements - 1) * i->size);
        uint64_t v = 0;
        memcpy(&v, from.host + (cpu->rflags & FLAG_DF ? -last : last), i->size);
        set_reg_by_size(cpu, RAX, i->size, v);
        advance(cpu, i, RSI, from.elements);
    }
    return from.elements;
}

/* Elements up to the one that ends the repetition, or all. `a_stride` 0: one value against a string. */
static uint64_t compare_run(struct cpu *cpu, const struct insn *i, const uint8_t *a_host, int64_t a_stride,
                            const uint8_t *b_host, int64_t b_stride, uint64_t elements)
{
    bool while_equal = i->rep == 0xf3;
    uint64_t a = 0, b = 0, done = 0;
    do {
        memcpy(&a, a_host, i->size);
        memcpy(&b, b_host, i->size);
        a_host += a_stride;
        b_host += b_stride;
        done++;
    } while (done < elements && (a == b) == while_equal);
    compare(cpu, i->size, a, b);
    return done;
}

static uint64_t cmps_run(struct cpu *cpu, const struct insn *i, uint64_t most)
{
    struct run a = find_run(cpu, i, (enum seg)i->seg, index_of(cpu, i, RSI), false, most);
    struct run b = find_run(cpu, i, ES, index_of(cpu, i, RDI), false, a.elements);
    if (!b.elements)
        return 0;
    int64_t stride = cpu->rflags & FLAG_DF ? -(int64_t)i->size : i->size;
    uint64_t done = compare_run(cpu, i, a.host, stride, b.host, stride, b.elements);
    advance(cpu, i, RSI, done);
    advance(cpu, i, RDI, done);
    return done;
}

static uint64_t scas_run(struct cpu *cpu, const struct insn *i, uint64_t most)
{
    struct run b = find_run(cpu, i, ES, index_of(cpu, i, RDI), false, most);
    if (!b.elements)
        return 0;
    int64_t stride = cpu->rflags & FLAG_DF ? -(int64_t)i->size : i->size;
    uint64_t done = compare_run(cpu, i, (const uint8_t *)&cpu->r[RAX], 0, b.host, stride, b.elements);
    advance(cpu, i, RDI, done);
    return done;
}

static uint64_t no_run(MAYBE_UNUSED struct cpu *cpu, MAYBE_UNUSED const struct insn *i, MAYBE_UNUSED uint64_t most)
{
    return 0;
}

/* REPE and REPNE stop behind the element that decides. */
static bool goes_on(const struct cpu *cpu, const struct insn *i, bool compares)
{
    return !compares || flag_zf(cpu) == (i->rep == 0xf3);
}

static void count_down(struct cpu *cpu, const struct insn *i, uint64_t elements)
{
    set_reg_by_size(cpu, RCX, address_size(i), index_of(cpu, i, RCX) - elements);
    cpu->rep_partial = index_of(cpu, i, RCX) != 0;
    /* by elements, not by runs: how long a run is depends on what is rebuildable */
    cpu->work += (cpu->elements + elements) / 4096 - cpu->elements / 4096;
    cpu->elements += elements;
    access_log_commit(cpu);
}

static bool leave_to_repeat(struct cpu *cpu)
{
    cpu->leave = LEAVE_REPEAT;
    return false;
}

static bool repeat(struct cpu *cpu, const struct insn *i, element_fn *element, run_fn *run, bool compares)
{
    uint64_t left = index_of(cpu, i, RCX);
    uint64_t limit = cpu->rflags & FLAG_TF ? 1 : STEP_LIMIT; /* the single-step trap comes after each element */
    if (left && limit > 1) {
        uint64_t done = run(cpu, i, left);
        if (done) {
            count_down(cpu, i, done);
            if (done < left && goes_on(cpu, i, compares))
                return leave_to_repeat(cpu);
            cpu->rep_partial = 0;
            return true;
        }
    }
    while (left) {
        if (!element(cpu, i))
            return false;
        count_down(cpu, i, 1);
        left--;
        if (!goes_on(cpu, i, compares))
            break;
        if (left && (--limit == 0 || cpu->pending_db || run != no_run))
            return leave_to_repeat(cpu);
    }
    cpu->rep_partial = 0;
    return true;
}

#define DEFINE_STRING(name, element, run, compares)                                                       \
    static bool name(struct cpu *cpu, const struct insn *i)                                              \
    {                                                                                                     \
        return i->rep ? repeat(cpu, i, element, run, compares) : element(cpu, i);                         \
    }                                                                                                     \
    OP(op_##name##_b) { return name(cpu, i); }                                                            \
    OP(op_##name##_v) { return name(cpu, i); }
DEFINE_STRING(movs, movs_element, movs_run, false)
DEFINE_STRING(stos, stos_element, stos_run, false)
DEFINE_STRING(lods, lods_element, lods_run, false)
DEFINE_STRING(cmps, cmps_element, cmps_run, true)
DEFINE_STRING(scas, scas_element, scas_run, true)

/* ---- INS and OUTS ------------------------------------------------------------------------------------------- */

/* Rights of the port, then the memory operand, then the intercept, then the device. */
static bool ins_element(struct cpu *cpu, const struct insn *i)
{
    uint16_t port = (uint16_t)cpu->r[RDX];
    uint64_t offset = index_of(cpu, i, RDI), linear = (cpu->view[ES].base + offset) & cpu->linear_mask, value;
    unsigned size = i->size;
    if (!io_allowed(cpu, port, size) || !intercept_io(cpu, i, port, size, true, true, linear) ||
        !mem_check_write(cpu, ES, offset, size) || !port_access(cpu, port, size, false, &value) ||
        !write_by_size(cpu, ES, offset, size, value))
        return false;
    debug_port_access(cpu, port, size);
    advance(cpu, i, RDI, 1);
    return true;
}

static bool outs_element(struct cpu *cpu, const struct insn *i)
{
    uint16_t port = (uint16_t)cpu->r[RDX];
    uint64_t offset = index_of(cpu, i, RSI), linear = (cpu->view[i->seg].base + offset) & cpu->linear_mask, value;
    unsigned size = i->size;
    if (!io_allowed(cpu, port, size) || !intercept_io(cpu, i, port, size, false, true, linear) ||
        !read_by_size(cpu, (enum seg)i->seg, offset, size, &value) || !port_access(cpu, port, size, true, &value))
        return false;
    debug_port_access(cpu, port, size);
    advance(cpu, i, RSI, 1);
    return true;
}

/* The port's rights are asked even when the count is zero. */
static bool io_string(struct cpu *cpu, const struct insn *i, element_fn *element)
{
    if (!i->rep)
        return element(cpu, i);
    if (index_of(cpu, i, RCX) == 0)
        return io_allowed(cpu, (uint16_t)cpu->r[RDX], i->size);
    return repeat(cpu, i, element, no_run, false);
}
OP(op_ins_b) { return io_string(cpu, i, ins_element); }
OP(op_ins_v) { return io_string(cpu, i, ins_element); }
OP(op_outs_b) { return io_string(cpu, i, outs_element); }
OP(op_outs_v) { return io_string(cpu, i, outs_element); }
