/* What a hypervisor may do with the processor: functions that bear the names of the instructions,
 * physical memory, and what an exit reports. hv/ includes this header of cpu/ and no other;
 * machine.root in Python offers exactly these functions.
 *
 * A hypervisor in C enters a guest with vmx_vmlaunch(), vmx_vmresume() or svm_vmrun() and then lets
 * the processor run with silicon_run() until it reports STOP_EXIT: host state is loaded again, and the guest's
 * general registers, CR2, DR0-3 and several MSRs are still in the silicon (silicon_store_gprs). */
#ifndef KVMLAB_SILICON_H
#define KVMLAB_SILICON_H

#include "../space.h"
#include "../trace.h"
#include "arch.h"

struct cpu;
struct profile;

/* ---- VMX: SDM vol. 3C ch. 24-30 ------------------------------------------------------------ */

enum vmx_result vmx_vmxon(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmxoff(struct cpu *cpu);
enum vmx_result vmx_vmclear(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmptrld(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmptrst(struct cpu *cpu, uint64_t *region);
enum vmx_result vmx_vmread(struct cpu *cpu, uint32_t field, uint64_t *value);
enum vmx_result vmx_vmwrite(struct cpu *cpu, uint32_t field, uint64_t value);
/* Entry. VMX_SUCCEED: the processor stands in the guest, silicon_run() goes on; VMX_EXITED: an exit has happened already. */
enum vmx_result vmx_vmlaunch(struct cpu *cpu, const struct guest_gprs *gprs);
enum vmx_result vmx_vmresume(struct cpu *cpu, const struct guest_gprs *gprs);

/* ---- SVM: APM vol. 2 ch. 15 ------------------------------------------------------------------- */

enum svm_result svm_vmload(struct cpu *cpu, uint64_t vmcb);
enum svm_result svm_vmsave(struct cpu *cpu, uint64_t vmcb);
enum svm_result svm_stgi(struct cpu *cpu);
enum svm_result svm_clgi(struct cpu *cpu);
/* The VMCB is plain memory: physical_read and physical_write below. */
enum svm_result svm_vmrun(struct cpu *cpu, uint64_t vmcb, const struct guest_gprs *gprs);
enum svm_result svm_invlpga(struct cpu *cpu, uint64_t linear, uint32_t asid);

/* ---- the rest of the instructions a hypervisor needs -------------------------------------------- */

bool x86_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *value); /* false: #GP */
bool x86_wrmsr(struct cpu *cpu, uint32_t index, uint64_t value);
uint64_t x86_read_cr(struct cpu *cpu, unsigned number);
bool x86_mov_cr(struct cpu *cpu, unsigned number, uint64_t value);
uint64_t x86_read_dr(struct cpu *cpu, unsigned number);
void x86_mov_dr(struct cpu *cpu, unsigned number, uint64_t value);
void x86_invlpg(struct cpu *cpu, uint64_t linear);
void x86_cpuid(struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
void x86_lgdt(struct cpu *cpu, uint64_t base, uint16_t limit);
void x86_lidt(struct cpu *cpu, uint64_t base, uint16_t limit);
void x86_load_host_segments(struct cpu *cpu, uint16_t cs, uint16_t data, uint16_t tr); /* flat 64-bit ring 0, from the GDT in memory */

/* ---- physical memory ------------------------------------------------------------------------------- */

uint64_t physical_read64(struct cpu *cpu, uint64_t pa);
void physical_write64(struct cpu *cpu, uint64_t pa, uint64_t value); /* through the one door, journalled */
void physical_read(struct cpu *cpu, uint64_t pa, void *to, uint64_t len);
void physical_write(struct cpu *cpu, uint64_t pa, const void *from, uint64_t len);

/* ---- running ------------------------------------------------------------------------------------------ */

enum silicon_stop { SILICON_BUDGET, SILICON_WORK, SILICON_DEVICE, SILICON_EXIT, SILICON_HLT, SILICON_SHUTDOWN,
                    SILICON_BREAK, SILICON_REQUEST }; /* the same numbers as enum cpu_stop */
enum silicon_stop silicon_run(struct cpu *cpu, uint64_t budget);
void silicon_store_gprs(struct cpu *cpu, struct guest_gprs *gprs); /* the guest's, after an exit */
uint64_t silicon_cr2(struct cpu *cpu);
void silicon_set_cr2(struct cpu *cpu, uint64_t value);
uint64_t silicon_time(struct cpu *cpu);                            /* retired instructions */
void silicon_retire(struct cpu *cpu, uint64_t instructions);       /* emulated and skipped instructions count too */
void silicon_set_native(struct cpu *cpu, bool native);
void silicon_power_on(struct cpu *cpu);                            /* reset; time goes on */
bool silicon_is_intel(const struct cpu *cpu);
unsigned silicon_physical_bits(const struct cpu *cpu);
uint32_t silicon_entry_check(const struct cpu *cpu);               /* row + 1 of the entry rule that failed last, 0: none */
uint64_t silicon_cr4_defined(const struct cpu *cpu);               /* CR4 bits that the processor has */
bool silicon_requested(struct cpu *cpu);                           /* somebody wants the processor back */
void silicon_take_request(struct cpu *cpu);
/* What a guest of a hypervisor may see: the processor's own leaf, filtered by the column `virtualised` of cpuid.def. */
void silicon_guest_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t silicon_guest_cr4(const struct cpu *cpu);                 /* CR4 bits that go with it */
uint64_t silicon_guest_efer(const struct cpu *cpu);
/* A device of the host interrupts: the guest in the processor is left at this border (external interrupt). */
void silicon_kick(struct cpu *cpu);

struct silicon_segment { uint64_t base; uint32_t limit, attr; uint16_t selector, pad[3]; };
struct silicon_state { /* of whoever is in the processor; for looking while a guest runs */
    uint64_t gpr[16], rip, rflags;
    struct silicon_segment seg[8]; /* by enum seg */
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, efer, dr7;
    uint32_t interruptibility, activity;
};
void silicon_state(struct cpu *cpu, struct silicon_state *state);

struct trace *silicon_trace(struct cpu *cpu);
/* An event of the hypervisor at the present position. */
void silicon_emit(struct cpu *cpu, enum event_kind kind, uint32_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);

#endif
