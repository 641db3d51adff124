/* Debug registers at work: instruction, data and I/O breakpoints.
 *
 * SDM vol. 3B ch. 17.2. Instruction breakpoints are faults; data and I/O breakpoints are traps: they wait in
 * cpu->pending_db for the next instruction border. A page with a data breakpoint is never in the front
 * of the TLB, so every access to it comes here. */
#include "access.h"

enum dr7_condition { BREAK_EXECUTE, BREAK_WRITE, BREAK_IO, BREAK_ACCESS };

static bool is_enabled(const struct cpu *cpu, unsigned n) { return cpu->dr[7] >> 2 * n & 3; }
static enum dr7_condition condition_of(const struct cpu *cpu, unsigned n)
{
    return (enum dr7_condition)(cpu->dr[7] >> (16 + 4 * n) & 3);
}

/* Does breakpoint n cover a byte of [address, address + size)? Its low address bits are ignored. */
static bool covers(const struct cpu *cpu, unsigned n, uint64_t address, unsigned size)
{
    static const uint8_t length[4] = { 1, 2, 8, 4 };
    uint64_t bytes = length[cpu->dr[7] >> (18 + 4 * n) & 3], start = cpu->dr[n] & ~(bytes - 1);
    return address < start + bytes && address + size > start;
}

void debug_data_access(struct cpu *cpu, uint64_t linear, unsigned size, bool is_write)
{
    if (!(cpu->dr[7] & 0xff))
        return;
    for (unsigned n = 0; n < 4; n++) {
        enum dr7_condition condition = condition_of(cpu, n);
        bool watched = condition == BREAK_ACCESS || (condition == BREAK_WRITE && is_write);
        if (watched && is_enabled(cpu, n) && covers(cpu, n, linear, size))
            cpu->pending_db |= (uint8_t)(PENDING_B0 << n);
    }
}

void debug_port_access(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->dr[7] & 0xff) || !(cpu->cr4 & CR4_DE))
        return;
    for (unsigned n = 0; n < 4; n++)
        if (condition_of(cpu, n) == BREAK_IO && is_enabled(cpu, n) && covers(cpu, n, port, size))
            cpu->pending_db |= (uint8_t)(PENDING_B0 << n);
}

bool debug_execution(struct cpu *cpu, uint64_t linear)
{
    uint32_t hit = 0;
    for (unsigned n = 0; n < 4; n++)
        if (condition_of(cpu, n) == BREAK_EXECUTE && is_enabled(cpu, n) && cpu->dr[n] == linear)
            hit |= 1u << n;
    return !hit || raise_debug(cpu, hit);
}
