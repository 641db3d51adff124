/* What intercept.c will bring: until it lands, nothing is intercepted. */
#include "access.h"

bool intercept_insn(struct cpu *cpu, const struct insn *i) { (void)cpu, (void)i; return true; }
bool intercept_event(struct cpu *cpu) { (void)cpu; return true; }
bool intercept_attention(const struct cpu *cpu) { (void)cpu; return false; }
bool intercept_exception(struct cpu *cpu, const struct fault *fault) { (void)cpu, (void)fault; return true; }
bool intercept_triple_fault(struct cpu *cpu) { (void)cpu; return true; }
bool intercept_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, bool has_error, uint32_t error)
{
    (void)cpu, (void)selector, (void)source, (void)has_error, (void)error;
    return true;
}
bool intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string, uint64_t linear)
{
    (void)cpu, (void)i, (void)port, (void)size, (void)in, (void)string, (void)linear;
    return true;
}
bool intercept_cr_write(struct cpu *cpu, const struct insn *i, unsigned cr, uint64_t value, unsigned gpr)
{
    (void)cpu, (void)i, (void)cr, (void)value, (void)gpr;
    return true;
}
bool intercept_cr_read(struct cpu *cpu, const struct insn *i, unsigned cr, unsigned gpr)
{
    (void)cpu, (void)i, (void)cr, (void)gpr;
    return true;
}
bool intercept_clts(struct cpu *cpu, const struct insn *i) { (void)cpu, (void)i; return true; }
bool intercept_lmsw(struct cpu *cpu, const struct insn *i, uint16_t value, bool memory, uint64_t linear)
{
    (void)cpu, (void)i, (void)value, (void)memory, (void)linear;
    return true;
}
void vmcs_flush(struct cpu *cpu) { (void)cpu; }
bool intercept_dr(struct cpu *cpu, const struct insn *i, unsigned dr, bool read, unsigned gpr)
{
    (void)cpu, (void)i, (void)dr, (void)read, (void)gpr;
    return true;
}
bool intercept_msr(struct cpu *cpu, const struct insn *i, uint32_t index, bool is_write)
{
    (void)cpu, (void)i, (void)index, (void)is_write;
    return true;
}
bool intercept_invlpg(struct cpu *cpu, const struct insn *i, uint64_t linear) { (void)cpu, (void)i, (void)linear; return true; }
uint64_t guest_cr_read(const struct cpu *cpu, unsigned cr)
{
    return cr == 0 ? cpu->cr0 : cr == 3 ? cpu->cr3 : cr == 4 ? cpu->cr4 : cr == 8 ? cpu->cr8 : cpu->cr2;
}
uint64_t guest_cr_write(const struct cpu *cpu, unsigned cr, uint64_t value) { (void)cpu, (void)cr; return value; }
