/* VMX and SVM: the names of their tables, and the instructions as functions.
 *
 * SDM vol. 3C (VMCS, VM entries, VM exits) and 3D appendices A to C; APM vol. 2 ch. 15 and appendices B, C. The enums
 * come from the .def files beside this header. The functions are the direct-call form: what the instruction does after
 * its #UD and privilege checks have passed; the handlers of the instructions (end of vmx.c and svm.c) make those checks
 * and call the same. */
#ifndef KVMLAB_VIRT_H
#define KVMLAB_VIRT_H

#include "cpu.h"
#include "silicon.h"

/* ---- names ----------------------------------------------------------------------------------- */

enum vmcs_slot { /* FIELD_guest_rip: row of vmcs.def, index into cpu->vmx.field[] */
#define VMCS_FIELD(encoding, name, width, group, needs, meaning) FIELD_##name,
#include "vmcs.def"
    NR_VMCS_FIELDS,
    FIELD_NONE = NR_VMCS_FIELDS
};
enum vmcs_group { VMCS_CONTROL, VMCS_EXIT_INFO, VMCS_GUEST, VMCS_HOST };

enum vmx_control_group {
    VMX_GROUP_PIN, VMX_GROUP_PRI, VMX_GROUP_SEC, VMX_GROUP_TER, VMX_GROUP_EXIT, VMX_GROUP_ENTRY, NR_VMX_GROUPS
};
enum vmx_control_row { /* CONTROL_PRI_HLT_EXITING: row of vmx_control.def */
#define VMX_CONTROL(group, bit, name, since, default1, printed, effect) CONTROL_##group##_##name,
#include "vmx_control.def"
    NR_VMX_CONTROLS, CONTROL_ALWAYS, CONTROL_NEVER
};
/* Generations of the two extensions: columns `since`. */
enum vmx_since { VMX_V1 = 1, VMX_V2, VMX_NONE = 254, VMX_NOTE = 255 };
enum svm_since { SVM_V1 = 1, SVM_V2, SVM_NONE = 254, SVM_NOTE = 255 };

enum vmx_check_name { /* CHECK_GUEST_CR_01: number of the row of vmx_check.def, from 1 */
    CHECK_NO_VMX_RULE,
#define VMX_CHECK(name, id, area, since, failure, field, applies, rule) CHECK_##name,
#include "vmx_check.def"
    NR_VMX_CHECKS_PLUS_1
};
enum svm_check_name { /* CHECK_SVM_CTL_01 */
    CHECK_NO_SVM_RULE,
#define SVM_CHECK(name, id, area, since, failure, field, applies, rule) CHECK_##name,
#include "svm_check.def"
    NR_SVM_CHECKS_PLUS_1
};
enum check_failure { /* column `failure`, in the order in which an entry meets them */
    FAILURE_INSTRUCTION, FAILURE_ERROR_7, FAILURE_ERROR_8, FAILURE_EXIT_33, FAILURE_EXIT_33_PDPTE, FAILURE_EXIT_33_NMI,
    FAILURE_EXIT_33_LINK, FAILURE_EXIT_34, FAILURE_INVALID, FAILURE_NOTE
};

enum vmcb_slot { /* VMCB_ROW_rip: row of vmcb.def */
#define VMCB_FIELD(offset, size, name, area, moved_by, since, meaning) VMCB_ROW_##name,
#include "vmcb.def"
    NR_VMCB_FIELDS,
    VMCB_ROW_NONE = NR_VMCB_FIELDS
};
enum vmx_error { /* VMX_ERROR_VMCALL_IN_ROOT */
    VMX_ERROR_NONE,
#define VMX_ERROR(number, name, meaning) VMX_ERROR_##name = number,
#include "vmx_error.def"
};
enum entry_phase { /* PHASE_CONTROLS */
    PHASE_NONE,
#define ENTRY_PHASE(NAME, vendors, summary) PHASE_##NAME,
#include "entry_phase.def"
};

/* ---- rows as data, for inspection ------------------------------------------------------------ */

struct vmcs_row {
    const char *name, *meaning;
    uint16_t encoding;
    uint8_t bytes;   /* 2, 4, 8 */
    uint8_t natural; /* of natural width */
    uint8_t group;   /* enum vmcs_group */
    uint8_t needs;   /* enum vmx_control_row */
};
extern const struct vmcs_row vmcs_rows[NR_VMCS_FIELDS];
struct vmcb_row {
    const char *name, *meaning;
    uint16_t offset;
    uint8_t bytes, is_save, by_vmload, since;
};
extern const struct vmcb_row vmcb_rows[NR_VMCB_FIELDS];

/* What a rule says about the VMCS or VMCB as it is. */
enum verdict {
    VERDICT_HOLDS,
    VERDICT_FAILS,
    VERDICT_NOT_APPLICABLE,
    VERDICT_NOT_HERE /* this processor has no such rule */
};
struct check_verdict {
    uint64_t value;  /* of `field` */
    uint16_t field;  /* enum vmcs_slot or vmcb_slot: the one at fault, or the first of the rule */
    uint8_t verdict; /* enum verdict */
    uint8_t pad[5];
};

/* ---- VMX ------------------------------------------------------------------------------------- */

void load_guest_gprs(struct cpu *cpu, const struct guest_gprs *gprs);      /* all but RSP */
void store_guest_gprs(const struct cpu *cpu, struct guest_gprs *gprs);     /* after an exit; all but RSP */

enum vmx_result vmx_vmxon(struct cpu *cpu, uint64_t pa);
enum vmx_result vmx_vmxoff(struct cpu *cpu);
enum vmx_result vmx_vmclear(struct cpu *cpu, uint64_t pa);
enum vmx_result vmx_vmptrld(struct cpu *cpu, uint64_t pa);
enum vmx_result vmx_vmptrst(struct cpu *cpu, uint64_t *pa); /* all ones: none */
enum vmx_result vmx_vmread(struct cpu *cpu, uint32_t encoding, uint64_t *value);
enum vmx_result vmx_vmwrite(struct cpu *cpu, uint32_t encoding, uint64_t value);
enum vmx_result vmx_vmcall(struct cpu *cpu);
/* Enter the guest; the caller then runs the processor (cpu_run) until STOP_EXIT. gprs NULL: registers as they are. */
enum vmx_result vmx_vmlaunch(struct cpu *cpu, const struct guest_gprs *gprs);
enum vmx_result vmx_vmresume(struct cpu *cpu, const struct guest_gprs *gprs);

static inline void drop_fault(struct cpu *cpu) { cpu->leave = LEAVE_NONE; }

/* What exits with an interruption information: exceptions, NMIs, acknowledged interrupts. */
struct vmx_event {
    uint32_t info, error, length; /* length: of the instruction, for software exceptions */
};
/* As vmx_exit(): always false. */
bool vmx_exit_event(struct cpu *cpu, uint32_t reason, uint64_t qualification, const struct vmx_event *event);
uint32_t vmx_instruction_info(const struct insn *i);

/* vmx_control.c */
unsigned vmx_generation(const struct cpu *cpu); /* enum vmx_since of the profile; 0: no VMX */
/* MSRs 480h to 492h; false: this processor has no such MSR. */
bool vmx_capability_msr(const struct cpu *cpu, uint32_t index, uint64_t *value) MUST_CHECK;
/* May CR0 or CR4 hold this value in VMX operation? */
bool vmx_cr_fixed(const struct cpu *cpu, unsigned cr, uint64_t value) MUST_CHECK;
bool vmx_control_allowed(const struct cpu *cpu, enum vmx_control_row row);
uint64_t vmx_allowed0(const struct cpu *cpu, enum vmx_control_group group); /* bits that must be 1 */
uint64_t vmx_allowed1(const struct cpu *cpu, enum vmx_control_group group); /* bits that may be 1 */

/* vmcs.c */
#define VMCS_REVISION 0x4b564d01u
int vmcs_slot(const struct cpu *cpu, uint32_t encoding); /* of a field, by either half; -1: not on this processor */
void vmcs_load(struct cpu *cpu, uint64_t pa);  /* makes it the cached one */
void vmcs_unload(struct cpu *cpu);             /* flushes; no VMCS is current */
void vmcs_mark_clear(struct cpu *cpu, uint64_t pa); /* launch state clear, of a region that is not current */
/* Journalled; the rules that look at it are evaluated again. */
void vmcs_change(struct cpu *cpu, enum vmcs_slot slot, uint64_t value);
static inline void vmcs_set(struct cpu *cpu, enum vmcs_slot slot, uint64_t value)
{
    if (cpu->vmx.field[slot] != value)
        vmcs_change(cpu, slot, value);
}
/* Rules that need not be evaluated again while nothing they look at has changed. */
enum vmcs_part {
    PART_CONTROLS = 1,
    PART_HOST = 2,
    PART_CR = 4,
    PART_SEGMENTS = 8,
    PART_HOST_LONG = 16 /* EFER.LMA at that time */
};
#define VMCS(cpu, name) ((cpu)->vmx.field[FIELD_##name])

/* vmx_check.c. The first rule that fails among those of the step, or 0; the field it found wrong in *field. */
unsigned vmx_check_controls(struct cpu *cpu, uint16_t *field);
unsigned vmx_check_host_state(struct cpu *cpu, uint16_t *field);
unsigned vmx_check_guest_state(struct cpu *cpu, uint16_t *field);
unsigned vmx_check_msr_load(uint32_t index, uint32_t reserved); /* MSRLOAD-01 to -04 for one entry */
enum check_failure vmx_check_failure(unsigned row);
/* Every rule on the current VMCS: verdict[row - 1] for row 1 .. NR_VMX_CHECKS_PLUS_1 - 1. Nothing is entered. */
void vmx_check_all(struct cpu *cpu, struct check_verdict *verdict);

/* ---- SVM ------------------------------------------------------------------------------------- */

#define SVM_NR_ASIDS 64u /* CPUID 8000000A EBX */
enum svm_result svm_vmrun(struct cpu *cpu, uint64_t pa, const struct guest_gprs *gprs); /* gprs may be NULL */
enum svm_result svm_vmload(struct cpu *cpu, uint64_t pa);
enum svm_result svm_vmsave(struct cpu *cpu, uint64_t pa);
enum svm_result svm_stgi(struct cpu *cpu);
enum svm_result svm_clgi(struct cpu *cpu);
enum svm_result svm_invlpga(struct cpu *cpu, uint64_t linear, uint32_t asid);
bool svm_intercepted(const struct cpu *cpu, unsigned bit); /* enum svm_intercept */
uint64_t vmcb_read(const struct cpu *cpu, uint64_t vmcb, unsigned row);             /* enum vmcb_slot */
void vmcb_write(struct cpu *cpu, uint64_t vmcb, unsigned row, uint64_t value);      /* journalled */
/* Every rule on the VMCB at pa: verdict[row - 1]. */
void svm_check_all(struct cpu *cpu, uint64_t pa, struct check_verdict *verdict);

/* ---- both ------------------------------------------------------------------------------------ */

uint64_t guest_tsc_offset(const struct cpu *cpu);      /* what RDTSC adds in a guest */
/* May a physical INTR be taken: IF, or what stands in for it in a guest; GIF; no shadow. */
bool interrupts_unmasked(const struct cpu *cpu);
bool nmi_unmasked(const struct cpu *cpu);
uint8_t acknowledge_interrupt(struct cpu *cpu);        /* INTA: the vector of the INTR pin */

#endif
