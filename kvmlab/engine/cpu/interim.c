/* What segment.c, exception.c, system.c, intercept.c and debug.c will bring: until each lands, its
 * functions here do the least that is true on a flat machine. Delete each piece as it lands. */
#include "access.h"
#include "flags.h"

bool raise_error(struct cpu *cpu, enum vector vector, uint32_t error)
{
    cpu->fault = (struct fault){ .vector = (uint8_t)vector, .type = TYPE_HARDWARE_EXCEPTION, .has_error = 1, .error = error };
    cpu->leave = LEAVE_FAULT;
    return false;
}
bool raise_exception(struct cpu *cpu, enum vector vector)
{
    raise_error(cpu, vector, 0);
    cpu->fault.has_error = 0;
    return false;
}
bool raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error)
{
    raise_error(cpu, VEC_PF, error);
    cpu->fault.address = linear;
    return false;
}
bool deliver_fault(struct cpu *cpu) { cpu->activity = ACTIVITY_SHUTDOWN; return true; }
bool deliver_event(struct cpu *cpu, const struct fault *event) { (void)event; return deliver_fault(cpu); }
bool segment_check(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, enum access access)
{
    (void)access;
    return offset + size - 1 <= cpu->seg[seg].limit || raise_error(cpu, seg == SS ? VEC_SS : VEC_GP, 0);
}
void debug_data_access(struct cpu *cpu, uint64_t linear, unsigned size, bool is_write) { (void)cpu, (void)linear, (void)size, (void)is_write; }
bool debug_execution(struct cpu *cpu, uint64_t linear) { (void)cpu, (void)linear; return true; }
bool intercept_insn(struct cpu *cpu, const struct insn *i) { (void)cpu, (void)i; return true; }
bool intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string, uint64_t linear)
{
    (void)cpu, (void)i, (void)port, (void)size, (void)in, (void)string, (void)linear;
    return true;
}
bool io_allowed(struct cpu *cpu, uint16_t port, unsigned size) { (void)cpu, (void)port, (void)size; return true; }
void debug_port_access(struct cpu *cpu, uint16_t port, unsigned size) { (void)cpu, (void)port, (void)size; }
bool intercept_event(struct cpu *cpu) { (void)cpu; return true; }
bool intercept_attention(const struct cpu *cpu) { (void)cpu; return false; }
uint64_t get_rflags(const struct cpu *cpu) { return (cpu->rflags & ~(uint64_t)FLAGS_STATUS) | status_flags(cpu); }
void set_rflags(struct cpu *cpu, uint64_t value)
{
    cpu->rflags = (value & ~(uint64_t)FLAGS_STATUS) | FLAG_1;
    set_status_flags(cpu, (uint32_t)value);
    cpu_update_attention(cpu);
}
OP(op_hlt)
{
    (void)i;
    cpu->activity = ACTIVITY_HLT;
    emit(cpu, EVENT_HALT, 0, 0, 0, 0, 0);
    return leave_block(cpu);
}
bool read_msr(struct cpu *cpu, uint32_t index, uint64_t *value) { (void)index, (void)value; return raise_error(cpu, VEC_GP, 0); }
bool write_msr(struct cpu *cpu, uint32_t index, uint64_t value) { (void)index, (void)value; return raise_error(cpu, VEC_GP, 0); }
void cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)cpu, (void)leaf, (void)subleaf;
    memset(out, 0, 16);
}
void vmcs_flush(struct cpu *cpu) { (void)cpu; }
