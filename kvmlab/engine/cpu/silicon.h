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

struct cpu;
struct profile;

/* The registers the assembler stub of a hypervisor moves by hand. */
struct guest_gprs { uint64_t r[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15; rsp is not used */ };

/* ---- VMX: SDM vol. 3C ch. 24-30 ------------------------------------------------------------ */

enum vmx_result { VMX_SUCCEED, VMX_FAIL_INVALID /* no current VMCS: CF */, VMX_FAIL_VALID /* ZF; field instruction_error */ };
enum vmx_result vmx_vmxon(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmxoff(struct cpu *cpu);
enum vmx_result vmx_vmclear(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmptrld(struct cpu *cpu, uint64_t region);
enum vmx_result vmx_vmptrst(struct cpu *cpu, uint64_t *region);
enum vmx_result vmx_vmread(struct cpu *cpu, uint32_t field, uint64_t *value);
enum vmx_result vmx_vmwrite(struct cpu *cpu, uint32_t field, uint64_t value);
/* Entry. VMX_SUCCEED: the processor stands in the guest (or an entry failure has exited at once:
 * silicon_run() will report STOP_EXIT with bit 31 of the exit reason set). */
enum vmx_result vmx_vmlaunch(struct cpu *cpu, const struct guest_gprs *gprs);
enum vmx_result vmx_vmresume(struct cpu *cpu, const struct guest_gprs *gprs);
/* Field encodings by name: VMCS_guest_rip … */
enum vmcs_field {
#define VMCS_FIELD(encoding, name, ...) VMCS_##name = encoding,
#include "vmcs.def"
#undef VMCS_FIELD
    VMCS_NO_FIELD = -1
};

/* ---- SVM: APM vol. 2 ch. 15 ------------------------------------------------------------------- */

bool svm_vmload(struct cpu *cpu, uint64_t vmcb);
bool svm_vmsave(struct cpu *cpu, uint64_t vmcb);
void svm_stgi(struct cpu *cpu);
void svm_clgi(struct cpu *cpu);
/* The VMCB is plain memory: physical_read and physical_write below. False: #GP would be raised. */
bool svm_vmrun(struct cpu *cpu, uint64_t vmcb, const struct guest_gprs *gprs);
void svm_invlpga(struct cpu *cpu, uint64_t linear, uint32_t asid);

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
bool silicon_is_intel(struct cpu *cpu);
struct trace *silicon_trace(struct cpu *cpu);
/* An event of the hypervisor at the present position. */
void silicon_emit(struct cpu *cpu, enum event_kind kind, uint32_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);

#endif
