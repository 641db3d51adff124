/* The slow halves of access.h: segment limits, page crossing, devices, and the front of the TLB
 * (SDM vol. 3A 5.3 for limits, 4.6 for rights, ch. 8 for split accesses). */
#include "access.h"

/* ---- devices: answered now, later, or already answered -------------------------------------- */

void access_log_commit(struct cpu *cpu) { cpu->log.count = cpu->log.cursor = 0; }

static bool same_access(const struct device_access *a, const struct device_access *b)
{
    return a->address == b->address && a->kind == b->kind && a->size == b->size && a->is_write == b->is_write;
}

/* The answer to the access at the log's cursor, if the instruction asked the same before. */
static bool answered_before(struct cpu *cpu, struct device_access *access)
{
    struct access_log *log = &cpu->log;
    uint64_t now = cpu->current ? insn_time(cpu, cpu->current) : cpu->retired;
    if (log->at != now) {
        log->at = now;
        log->count = log->cursor = 0;
    }
    if (log->cursor >= log->count)
        return false;
    if (!same_access(&log->done[log->cursor], access)) {
        log->count = log->cursor; /* the state was edited: what follows is another story */
        return false;
    }
    access->value = log->done[log->cursor++].value;
    return true;
}

static void remember(struct cpu *cpu, const struct device_access *access)
{
    struct access_log *log = &cpu->log;
    if (log->count < ACCESS_LOG) {
        log->done[log->count++] = *access;
        log->cursor = log->count;
    }
    emit(cpu, access->kind == DEVICE_PORT ? EVENT_PORT : EVENT_MMIO, access->size | (uint32_t)access->is_write << 8,
         access->address, access->value, 0, 0);
}

bool device_access(struct cpu *cpu, enum device_kind kind, uint64_t address, unsigned size, bool is_write, uint64_t *value)
{
    struct device_access access = { .address = address, .value = is_write ? *value : ~0ull >> (64 - 8 * size),
                                    .kind = (uint8_t)kind, .size = (uint8_t)size, .is_write = is_write };
    if (!answered_before(cpu, &access)) {
        cpu->work++;
        if (cpu->device_hook && !cpu->device_hook(cpu->device_context, &access)) {
            cpu->device = access;
            cpu->leave = LEAVE_DEVICE;
            return false;
        }
        remember(cpu, &access);
    }
    if (!is_write)
        *value = access.value;
    return true;
}

void cpu_answer(struct cpu *cpu, uint64_t value)
{
    if (!cpu->device.size)
        return;
    if (!cpu->device.is_write)
        cpu->device.value = value & (~0ull >> (64 - 8 * cpu->device.size));
    cpu->log.at = cpu->retired; /* the instruction is the next one */
    cpu->log.count = cpu->log.cursor; /* what it had asked before this access stays */
    if (cpu->log.count < ACCESS_LOG)
        cpu->log.done[cpu->log.count++] = cpu->device;
    emit(cpu, cpu->device.kind == DEVICE_PORT ? EVENT_PORT : EVENT_MMIO,
         cpu->device.size | (uint32_t)cpu->device.is_write << 8, cpu->device.address, cpu->device.value, 0, 0);
    cpu->log.cursor = 0;
    cpu->device.size = 0;
}

void cpu_drop_log(struct cpu *cpu)
{
    access_log_commit(cpu);
    cpu->device.size = 0;
}

bool port_access(struct cpu *cpu, uint16_t port, unsigned size, bool is_write, uint64_t *value)
{
    return device_access(cpu, DEVICE_PORT, port, size, is_write, value);
}

/* ---- physical memory ---------------------------------------------------------------------------- */

bool physical_access(struct cpu *cpu, uint64_t pa, void *data, unsigned size, bool is_write)
{
    return (is_write ? space_write(cpu->space, pa, data, size) : space_read(cpu->space, pa, data, size)) == size;
}

/* One piece inside a page: RAM, or a device in pieces of 8, 4, 2, 1 bytes. */
static bool piece(struct cpu *cpu, uint64_t pa, uint8_t *data, unsigned size, bool is_write)
{
    frame_t frame = space_frame(cpu->space, pa, is_write);
    if (frame != NO_FRAME)
        return physical_access(cpu, pa, data, size, is_write);
    const struct extent *extent = space_find(cpu->space, pa);
    if (extent && extent->kind == EXTENT_ROM)
        return true; /* a store to ROM is dropped */
    while (size) {
        unsigned n = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
        uint64_t value = 0;
        memcpy(&value, data, n);
        if (!device_access(cpu, DEVICE_MMIO, pa, n, is_write, &value))
            return false;
        memcpy(data, &value, n);
        pa += n, data += n, size -= n;
    }
    return true;
}

bool linear_access(struct cpu *cpu, uint64_t linear, void *data, unsigned size, enum access access, bool user)
{
    uint64_t first, second = 0;
    unsigned left = (unsigned)(PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
    bool is_write = access == ACCESS_WRITE;
    uint64_t mask = linear >> 32 ? ~0ull : cpu->linear_mask; /* tables of the system lie anywhere, also for 32-bit code */
    if (!translate(cpu, linear, access, user, &first))
        return false;
    if (size > left && !translate(cpu, (linear + left) & mask, access, user, &second))
        return false; /* both pages are checked before anything is written */
    if (size <= left)
        return piece(cpu, first, data, size, is_write);
    return piece(cpu, first, data, left, is_write) && piece(cpu, second, (uint8_t *)data + left, size - left, is_write);
}

/* ---- the front of the TLB -------------------------------------------------------------------------- */

static bool alignment_checked(const struct cpu *cpu)
{
    return cpu->cpl == 3 && (cpu->cr0 & CR0_AM) && (cpu->rflags & FLAG_AC);
}

static bool data_breakpoint_on_page(const struct cpu *cpu, uint64_t linear)
{
    for (unsigned k = 0; k < 4; k++)
        if ((cpu->dr[7] >> 2 * k & 3) && (cpu->dr[7] >> (16 + 4 * k) & 3) && !((cpu->dr[k] ^ linear) & PAGE_MASK))
            return true;
    return false;
}

static void note_filled(struct cpu *cpu, const struct tlb_front *f)
{
    unsigned half = cpu->front == cpu->front_of[1];
    if (cpu->nr_filled < FRONT_LIST)
        cpu->filled[cpu->nr_filled] = (uint16_t)(half * FRONT_SIZE + (unsigned)(f - cpu->front));
    if (cpu->nr_filled <= FRONT_LIST)
        cpu->nr_filled++;
}

/* After an access succeeded: remember the host page, so that the next one is a comparison. */
static void front_fill(struct cpu *cpu, uint64_t linear, bool is_write)
{
    uint64_t pa, page = linear & PAGE_MASK;
    bool user = cpu->cpl == 3;
    if (alignment_checked(cpu) || ((cpu->dr[7] & 0xff) && data_breakpoint_on_page(cpu, linear)))
        return;
    if (!translate(cpu, linear, is_write ? ACCESS_WRITE : ACCESS_READ, user, &pa))
        return; /* cannot be: the access went through */
    frame_t frame = space_frame(cpu->space, pa, is_write);
    if (frame == NO_FRAME)
        return;
    struct tlb_front *f = front_at(cpu, linear);
    uint8_t *host = memory_host(cpu->space->memory, frame);
    if (f->read == 1 && f->write == 1)
        note_filled(cpu, f);
    if (f->read != page && f->write != page)
        f->read = f->write = 1;
    else if (f->host != host)
        f->read = f->write = 1;
    f->host = host;
    f->attr = memory_attr(cpu->space->memory, frame);
    f->read = page; /* whoever may write may read */
    if (is_write)
        f->write = page;
}

/* ---- operands ------------------------------------------------------------------------------------------ */

static bool check_operand(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, enum access access,
                          uint64_t *linear)
{
    const struct seg_view *view = &cpu->view[seg];
    if (offset >= (access == ACCESS_WRITE ? view->write_fast : view->read_fast) &&
        !segment_check(cpu, seg, offset, size, access))
        return false;
    *linear = (view->base + offset) & cpu->linear_mask;
    if (is_64bit(cpu) && (!is_canonical(cpu, *linear) || !is_canonical(cpu, *linear + size - 1)))
        return raise_error(cpu, seg == SS ? VEC_SS : VEC_GP, 0);
    if (alignment_checked(cpu) && (*linear & (size - 1)))
        return raise_error(cpu, VEC_AC, 0);
    return true;
}

bool mem_read_slow(struct cpu *cpu, enum seg seg, uint64_t offset, void *to, unsigned size)
{
    uint64_t linear;
    if (!check_operand(cpu, seg, offset, size, ACCESS_READ, &linear) ||
        !linear_access(cpu, linear, to, size, ACCESS_READ, cpu->cpl == 3))
        return false;
    debug_data_access(cpu, linear, size, false);
    front_fill(cpu, linear, false);
    return true;
}

bool mem_write_slow(struct cpu *cpu, enum seg seg, uint64_t offset, const void *from, unsigned size)
{
    uint64_t linear;
    if (!check_operand(cpu, seg, offset, size, ACCESS_WRITE, &linear) ||
        !linear_access(cpu, linear, (void *)(uintptr_t)from, size, ACCESS_WRITE, cpu->cpl == 3))
        return false;
    debug_data_access(cpu, linear, size, true);
    front_fill(cpu, linear, true);
    return true;
}

bool mem_check_write(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size)
{
    uint64_t linear, pa;
    bool user = cpu->cpl == 3;
    if (!check_operand(cpu, seg, offset, size, ACCESS_WRITE, &linear) || !translate(cpu, linear, ACCESS_WRITE, user, &pa))
        return false;
    uint64_t last = (linear + size - 1) & cpu->linear_mask;
    return !((linear ^ last) & PAGE_MASK) || translate(cpu, last & PAGE_MASK, ACCESS_WRITE, user, &pa);
}

bool rmw_begin_slow(struct cpu *cpu, enum seg seg, uint64_t offset, void *to, unsigned size)
{
    uint64_t linear = (cpu->view[seg].base + offset) & cpu->linear_mask;
    /* rights for the store come first: a read-only page faults as a write */
    if (!mem_check_write(cpu, seg, offset, size))
        return false;
    if (cpu->view[seg].read_fast == 0 && !segment_check(cpu, seg, offset, size, ACCESS_READ))
        return false;
    if (!linear_access(cpu, linear, to, size, ACCESS_READ, cpu->cpl == 3))
        return false;
    cpu->rmw.host = NULL;
    cpu->rmw.linear = linear;
    return true;
}

bool rmw_end_slow(struct cpu *cpu, const void *from, unsigned size)
{
    uint64_t linear = cpu->rmw.linear;
    if (!linear_access(cpu, linear, (void *)(uintptr_t)from, size, ACCESS_WRITE, cpu->cpl == 3))
        return false;
    debug_data_access(cpu, linear, size, true);
    front_fill(cpu, linear, true);
    return true;
}
