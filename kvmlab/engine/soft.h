/* The software engine's handle: memory, a processor, what is traced. */
#ifndef KVMLAB_SOFT_H
#define KVMLAB_SOFT_H

#include "cpu/cpu.h"
#include "engine.h"

struct soft_slot { uint64_t start, size; struct ram *ram; };

struct soft {
    kl_vm vm;               /* first: the handle is a pointer to it */
    struct memory memory;
    struct space space;     /* what the processor's physical addresses mean */
    struct trace trace;
    struct cpu *cpu;
    struct soft_slot slot[4];
    uint64_t stopped_at;    /* time + 1 of the stop at a breakpoint that the next run steps over */
    bool single_step;
};

/* `bytes`: of a struct that begins with struct soft. */
struct soft *soft_new(const struct profile *profile, const struct engine_ops *ops, size_t bytes);
int soft_create_vm(const kl_config *config, const struct profile *profile, kl_vm **vm, const char **error); /* soft_vm.c */
void soft_release(struct soft *soft);
bool soft_is_machine(const kl_vm *vm); /* a bare machine of this engine */
void cpu_get_regs(struct cpu *cpu, kl_regs *regs);
void cpu_set_regs(struct cpu *cpu, const kl_regs *regs);
void cpu_get_sregs(const struct cpu *cpu, kl_sregs *sregs);
void cpu_set_sregs(struct cpu *cpu, const kl_sregs *sregs);

#endif
