/* The manual's names for bits and numbers of the architecture, for both sides of silicon.h.
 *
 * SDM vol. 3A ch. 2, 3, 6 (registers, segments, vectors), vol. 3C and APM vol. 2 ch. 15 (controls, exits, fields of VMCS and VMCB).
 * Constants only: nothing here knows the processor's state. */
#ifndef KVMLAB_ARCH_H
#define KVMLAB_ARCH_H

#include <stdint.h>

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
           REG_RIP, REG_ZERO, /* pseudo registers: base of RIP-relative operands; always 0 */
           NR_REGS };
enum seg { ES, CS, SS, DS, FS, GS, LDTR, TR, NR_SEGS };

/* Segment attributes as VMX prints access rights (SDM vol. 3C, "guest register state"). */
enum seg_attr { SEG_TYPE = 15, SEG_S = 1 << 4, SEG_DPL = 3 << 5, SEG_P = 1 << 7, SEG_AVL = 1 << 12, SEG_L = 1 << 13,
                SEG_DB = 1 << 14, SEG_G = 1 << 15, SEG_UNUSABLE = 1 << 16 };
enum seg_type { TYPE_ACCESSED = 1, TYPE_WRITABLE = 2, TYPE_READABLE = 2, TYPE_EXPAND_DOWN = 4, TYPE_CONFORMING = 4,
                TYPE_CODE = 8 };
#define SEG_DPL_SHIFT 5

enum rflags { FLAG_CF = 1, FLAG_1 = 2, FLAG_PF = 4, FLAG_AF = 16, FLAG_ZF = 64, FLAG_SF = 128, FLAG_TF = 1 << 8,
              FLAG_IF = 1 << 9, FLAG_DF = 1 << 10, FLAG_OF = 1 << 11, FLAG_IOPL = 3 << 12, FLAG_NT = 1 << 14,
              FLAG_RF = 1 << 16, FLAG_VM = 1 << 17, FLAG_AC = 1 << 18, FLAG_VIF = 1 << 19, FLAG_VIP = 1 << 20,
              FLAG_ID = 1 << 21 };
#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define IOPL_SHIFT 12
enum cr0_bits { CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_ET = 16, CR0_NE = 32, CR0_WP = 1 << 16,
                CR0_AM = 1 << 18, CR0_NW = 1 << 29, CR0_CD = 1 << 30 };
#define CR0_PG 0x80000000u
enum cr4_bits { CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16, CR4_PAE = 32, CR4_MCE = 64,
                CR4_PGE = 128, CR4_PCE = 256, CR4_OSFXSR = 512, CR4_OSXMMEXCPT = 1024, CR4_UMIP = 1 << 11,
                CR4_LA57 = 1 << 12, CR4_VMXE = 1 << 13, CR4_SMXE = 1 << 14, CR4_FSGSBASE = 1 << 16,
                CR4_PCIDE = 1 << 17, CR4_OSXSAVE = 1 << 18, CR4_SMEP = 1 << 20, CR4_SMAP = 1 << 21, CR4_PKE = 1 << 22 };
enum efer_bits { EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11, EFER_SVME = 1 << 12,
                 EFER_LMSLE = 1 << 13, EFER_FFXSR = 1 << 14 };
enum vm_cr_bits { VM_CR_LOCK = 8, VM_CR_SVMDIS = 16 };
#define APIC_BASE_ENABLE 0x800u
enum dr6_bits { DR6_B0 = 1, DR6_BD = 1 << 13, DR6_BS = 1 << 14, DR6_BT = 1 << 15 };
#define DR6_FIXED1 0xffff0ff0u
#define DR7_FIXED1 0x400u
#define DR7_GD 0x2000u

enum vector { VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF, VEC_TS = 10, VEC_NP, VEC_SS,
              VEC_GP, VEC_PF, VEC_MF = 16, VEC_AC, VEC_MC, VEC_XM, VEC_CP = 21 };
enum pf_error { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };
enum event_type { /* as in VMX's interruption information, bits 10:8 */
    TYPE_EXTERNAL = 0, TYPE_NMI = 2, TYPE_HARDWARE_EXCEPTION = 3, TYPE_SOFTWARE_INTERRUPT = 4,
    TYPE_PRIVILEGED_SOFTWARE_EXCEPTION = 5, TYPE_SOFTWARE_EXCEPTION = 6 };
enum activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_SIPI };
enum interruptibility { BLOCK_STI = 1, BLOCK_MOV_SS = 2, BLOCK_SMI = 4, BLOCK_NMI = 8 };

/* ---- VMX and SVM ------------------------------------------------------------------------- */

enum vmcs_encoding { /* VMCS_guest_rip: what VMREAD and VMWRITE take */
#define VMCS_FIELD(encoding, name, width, group, needs, meaning) VMCS_##name = encoding,
#include "vmcs.def"
};
enum vmx_control { /* VMX_PRI_HLT_EXITING: the bit as a mask */
#define VMX_CONTROL(group, bit, name, since, default1, printed, effect) VMX_##group##_##name = 1u << bit,
#include "vmx_control.def"
};
enum exit_reason { /* EXIT_REASON_HLT: VMX basic exit reason */
#define VMX_EXIT(number, name, common, kind, layout, what, why) EXIT_REASON_##name = number,
#include "exit.def"
};
#define EXIT_REASON_ENTRY_FAILED (1u << 31)
enum svm_intercept { /* SVM_EXIT_HLT: exit code, and number of the intercept bit from byte 0 of the VMCB */
    SVM_EXIT_CR0_READ = 0x00, SVM_EXIT_CR0_WRITE = 0x10, SVM_EXIT_DR0_READ = 0x20, SVM_EXIT_DR0_WRITE = 0x30,
    SVM_EXIT_EXCEPTION = 0x40,
#define VMCB_INTERCEPT(bit, name) SVM_EXIT_##name = bit,
#include "vmcb.def"
    SVM_EXIT_NPF = 0x400
};
#define SVM_EXIT_INVALID UINT64_MAX
enum vmcb_offset { /* VMCB_rip: byte offset */
#define VMCB_FIELD(offset, size, name, area, moved_by, since, meaning) VMCB_##name = offset,
#include "vmcb.def"
};
enum vmcb_size { /* VMCB_SIZE_rip: bytes */
#define VMCB_FIELD(offset, size, name, area, moved_by, since, meaning) VMCB_SIZE_##name = size,
#include "vmcb.def"
};
enum vmcb_bit { /* VMCB_V_IRQ: mask in its field */
#define VMCB_BIT(field, bit, name) VMCB_##name = 1u << bit,
#include "vmcb.def"
};
/* Interruption information (VMX) and EVENTINJ, EXITINTINFO (SVM) share this layout. */
#define EVENT_VECTOR(info) ((info) & 0xffu)
#define EVENT_TYPE(info) ((info) >> 8 & 7u)
enum { EVENT_HAS_ERROR = 1u << 11, EVENT_NMI_UNBLOCKING = 1u << 12, EVENT_VALID = 1u << 31 };

enum vmx_result { /* how a VMX instruction ends */
    VMX_SUCCEED,      /* CF PF AF ZF SF OF cleared; VMLAUNCH, VMRESUME: the guest is in the processor now */
    VMX_FAIL_INVALID, /* CF = 1: no current VMCS to hold a number */
    VMX_FAIL_VALID,   /* ZF = 1, the number is in vm_instruction_error */
    VMX_EXITED,       /* VMLAUNCH, VMRESUME: a VM exit has happened: entry failure, or a fault during injection */
    VMX_FAULT,        /* #UD or #GP, in cpu->fault; in the direct-call form the caller ends it with drop_fault() */
};

enum svm_result {
    SVM_DONE,
    SVM_ENTERED, /* VMRUN: the guest is in the processor now */
    SVM_EXITED,  /* VMRUN: a #VMEXIT has happened: the VMCB was refused, or a fault during injection */
    SVM_FAULT,   /* #UD or #GP, in cpu->fault; in the direct-call form the caller ends it with drop_fault() */
};
/* The general registers that VM entry does not load: the stub before VMLAUNCH, VMRESUME and VMRUN moves them. */
struct guest_gprs {
    uint64_t r[16]; /* by enum gpr; RSP is ignored, and RAX by VMRUN */
};

#endif
