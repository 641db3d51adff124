/* What instruction handlers use: registers, operands in memory, the stack.
 *
 * The fast path of a memory access is one comparison with the segment's view and one with the
 * TLB front; everything else (limits, rights, walks, page crossing, devices, the one door) is in
 * mem.c. Values travel in host order: the host is little-endian (checked in run.c). */
#ifndef KVMLAB_ACCESS_H
#define KVMLAB_ACCESS_H

#include <string.h>

#include "cpu.h"

/* ---- registers: reg8 takes a byte offset into r[], the others a register number -------- */

ALWAYS_INLINE uint8_t reg8(const struct cpu *cpu, unsigned offset) { return ((const uint8_t *)cpu->r)[offset]; }
ALWAYS_INLINE uint16_t reg16(const struct cpu *cpu, unsigned n) { return (uint16_t)cpu->r[n]; }
ALWAYS_INLINE uint32_t reg32(const struct cpu *cpu, unsigned n) { return (uint32_t)cpu->r[n]; }
ALWAYS_INLINE uint64_t reg64(const struct cpu *cpu, unsigned n) { return cpu->r[n]; }
ALWAYS_INLINE void set_reg8(struct cpu *cpu, unsigned offset, uint8_t v) { ((uint8_t *)cpu->r)[offset] = v; }
ALWAYS_INLINE void set_reg16(struct cpu *cpu, unsigned n, uint16_t v) { memcpy(&cpu->r[n], &v, 2); }
ALWAYS_INLINE void set_reg32(struct cpu *cpu, unsigned n, uint32_t v) { cpu->r[n] = v; }
ALWAYS_INLINE void set_reg64(struct cpu *cpu, unsigned n, uint64_t v) { cpu->r[n] = v; }

/* By size in bytes, for handlers where speed does not matter. Register numbers, never AH..BH. */
static inline uint64_t reg_by_size(const struct cpu *cpu, unsigned n, unsigned size)
{
    return size == 8 ? cpu->r[n] : cpu->r[n] & ((1ull << size * 8) - 1);
}
static inline void set_reg_by_size(struct cpu *cpu, unsigned n, unsigned size, uint64_t v)
{
    if (size == 8)
        cpu->r[n] = v;
    else if (size == 4)
        cpu->r[n] = (uint32_t)v;
    else
        memcpy(&cpu->r[n], &v, size);
}

/* Offset of the memory operand inside its segment. */
ALWAYS_INLINE uint64_t ea(const struct cpu *cpu, const struct insn *i)
{
    return (cpu->r[i->base] + (cpu->r[i->index] << i->scale) + (uint64_t)i->disp) << i->ashift >> i->ashift;
}

/* ---- memory ------------------------------------------------------------------------------
 * readN(cpu, seg, offset, &value) and writeN(cpu, seg, offset, value) return false after a fault,
 * a VM exit, or for a device that answers later.
 * Read-modify-write: rmw_beginN reads after all checks for the write have passed, rmw_endN
 * stores. Between the two nothing may fault and no other access may happen. rmw_endN is false
 * only when a device answers later: commit registers and flags after it. */

bool mem_read_slow(struct cpu *cpu, enum seg seg, uint64_t offset, void *to, unsigned size) MUST_CHECK;
bool mem_write_slow(struct cpu *cpu, enum seg seg, uint64_t offset, const void *from, unsigned size) MUST_CHECK;
bool mem_check_write(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size) MUST_CHECK; /* would a store fault? */
bool rmw_begin_slow(struct cpu *cpu, enum seg seg, uint64_t offset, void *to, unsigned size) MUST_CHECK;
bool rmw_end_slow(struct cpu *cpu, const void *from, unsigned size) MUST_CHECK;

ALWAYS_INLINE struct tlb_front *front_at(const struct cpu *cpu, uint64_t linear)
{
    return &cpu->front[linear >> PAGE_SHIFT & (FRONT_SIZE - 1)];
}

#define DEFINE_ACCESS(BITS)                                                                                     \
    ALWAYS_INLINE MUST_CHECK bool read##BITS(struct cpu *cpu, enum seg seg, uint64_t offset, uint##BITS##_t *to) \
    {                                                                                                           \
        const struct seg_view *view = &cpu->view[seg];                                                          \
        uint64_t linear = (view->base + offset) & cpu->linear_mask;                                             \
        const struct tlb_front *front = front_at(cpu, linear);                                                  \
        if (LIKELY(offset < view->read_fast && ((linear + BITS / 8 - 1) & PAGE_MASK) == front->read)) {          \
            memcpy(to, front->host + (linear & (PAGE_SIZE - 1)), BITS / 8);                                     \
            return true;                                                                                        \
        }                                                                                                       \
        return mem_read_slow(cpu, seg, offset, to, BITS / 8);                                                   \
    }                                                                                                           \
    ALWAYS_INLINE MUST_CHECK bool write##BITS(struct cpu *cpu, enum seg seg, uint64_t offset, uint##BITS##_t v)  \
    {                                                                                                           \
        const struct seg_view *view = &cpu->view[seg];                                                          \
        uint64_t linear = (view->base + offset) & cpu->linear_mask;                                             \
        const struct tlb_front *front = front_at(cpu, linear);                                                  \
        if (LIKELY(offset < view->write_fast && ((linear + BITS / 8 - 1) & PAGE_MASK) == front->write &&         \
                   !*front->attr)) {                                                                            \
            memcpy(front->host + (linear & (PAGE_SIZE - 1)), &v, BITS / 8);                                     \
            return true;                                                                                        \
        }                                                                                                       \
        return mem_write_slow(cpu, seg, offset, &v, BITS / 8);                                                  \
    }                                                                                                           \
    ALWAYS_INLINE MUST_CHECK bool rmw_begin##BITS(struct cpu *cpu, enum seg seg, uint64_t offset,               \
                                                  uint##BITS##_t *to)                                           \
    {                                                                                                           \
        const struct seg_view *view = &cpu->view[seg];                                                          \
        uint64_t linear = (view->base + offset) & cpu->linear_mask;                                             \
        const struct tlb_front *front = front_at(cpu, linear);                                                  \
        if (LIKELY(offset < view->write_fast && ((linear + BITS / 8 - 1) & PAGE_MASK) == front->write &&         \
                   front->read == front->write && !*front->attr)) {                                             \
            cpu->rmw.host = front->host + (linear & (PAGE_SIZE - 1));                                           \
            memcpy(to, cpu->rmw.host, BITS / 8);                                                                \
            return true;                                                                                        \
        }                                                                                                       \
        return rmw_begin_slow(cpu, seg, offset, to, BITS / 8);                                                  \
    }                                                                                                           \
    ALWAYS_INLINE MUST_CHECK bool rmw_end##BITS(struct cpu *cpu, uint##BITS##_t v)                              \
    {                                                                                                           \
        if (LIKELY(cpu->rmw.host != NULL)) {                                                                    \
            memcpy(cpu->rmw.host, &v, BITS / 8);                                                                \
            return true;                                                                                        \
        }                                                                                                       \
        return rmw_end_slow(cpu, &v, BITS / 8);                                                                 \
    }
DEFINE_ACCESS(8)
DEFINE_ACCESS(16)
DEFINE_ACCESS(32)
DEFINE_ACCESS(64)
#undef DEFINE_ACCESS

static inline MUST_CHECK bool read_by_size(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, uint64_t *to)
{
    *to = 0;
    return mem_read_slow(cpu, seg, offset, to, size);
}
static inline MUST_CHECK bool write_by_size(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, uint64_t v)
{
    return mem_write_slow(cpu, seg, offset, &v, size);
}

/* The r/m operand by size, register or memory. Not for byte registers (their number is an offset). */
static inline MUST_CHECK bool read_rm(struct cpu *cpu, const struct insn *i, unsigned size, uint64_t *to)
{
    if (i->flags & INSN_MEM)
        return read_by_size(cpu, (enum seg)i->seg, ea(cpu, i), size, to);
    *to = reg_by_size(cpu, i->rm, size);
    return true;
}
static inline MUST_CHECK bool write_rm(struct cpu *cpu, const struct insn *i, unsigned size, uint64_t v)
{
    if (i->flags & INSN_MEM)
        return write_by_size(cpu, (enum seg)i->seg, ea(cpu, i), size, v);
    set_reg_by_size(cpu, i->rm, size, v);
    return true;
}

/* System structures (descriptor tables, TSS): linear addresses of 64 bits in all of long mode, supervisor rights
 * whatever the CPL. */
static inline uint64_t system_linear(const struct cpu *cpu, uint64_t linear)
{
    return is_long_active(cpu) ? linear : linear & 0xffffffff;
}
static inline MUST_CHECK bool system_read(struct cpu *cpu, uint64_t linear, void *to, unsigned size)
{
    return linear_access(cpu, system_linear(cpu, linear), to, size, ACCESS_READ, false);
}
static inline MUST_CHECK bool system_write(struct cpu *cpu, uint64_t linear, const void *from, unsigned size)
{
    return linear_access(cpu, system_linear(cpu, linear), (void *)(uintptr_t)from, size, ACCESS_WRITE, false);
}

/* ---- the stack: RSP changes only when the access succeeded ---------------------------------- */

ALWAYS_INLINE uint64_t stack_pointer(const struct cpu *cpu) { return cpu->r[RSP] & cpu->stack_mask; }
ALWAYS_INLINE void set_stack_pointer(struct cpu *cpu, uint64_t v)
{
    cpu->r[RSP] = (cpu->r[RSP] & ~cpu->stack_mask) | (v & cpu->stack_mask);
}
#define DEFINE_STACK(BITS)                                                                 \
    ALWAYS_INLINE MUST_CHECK bool push##BITS(struct cpu *cpu, uint##BITS##_t v)             \
    {                                                                                      \
        uint64_t rsp = (cpu->r[RSP] - BITS / 8) & cpu->stack_mask;                          \
        if (!write##BITS(cpu, SS, rsp, v))                                                  \
            return false;                                                                  \
        set_stack_pointer(cpu, rsp);                                                       \
        return true;                                                                       \
    }                                                                                      \
    ALWAYS_INLINE MUST_CHECK bool pop##BITS(struct cpu *cpu, uint##BITS##_t *to)            \
    {                                                                                      \
        if (!read##BITS(cpu, SS, stack_pointer(cpu), to))                                   \
            return false;                                                                  \
        set_stack_pointer(cpu, cpu->r[RSP] + BITS / 8);                                     \
        return true;                                                                       \
    }
DEFINE_STACK(16)
DEFINE_STACK(32)
DEFINE_STACK(64)
#undef DEFINE_STACK

/* ---- leaving the block loop -------------------------------------------------------------------- */

/* The instruction retired; what stands behind it in the block must be looked up anew. */
static inline bool leave_block(struct cpu *cpu)
{
    cpu->leave = LEAVE_BLOCK;
    return false;
}
/* The instruction set RIP itself: `return jump_to(cpu, rip);` as the last thing of every branch. */
ALWAYS_INLINE bool jump_to(struct cpu *cpu, uint64_t rip)
{
    cpu->r[REG_RIP] = rip;
    return true;
}

/* A handler: `OP(op_hlt) { … return true; }`. */
#define OP(name) bool name(MAYBE_UNUSED struct cpu *cpu, MAYBE_UNUSED const struct insn *i)

#endif
