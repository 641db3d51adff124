/* The processor: its state, the decoded instruction, and what the files of cpu/ offer each other.
 *
 * SDM vol. 3A ch. 2 (system architecture), APM vol. 2 ch. 1. All architectural state is in
 * `struct cpu` above the mark `rebuildable`, without host pointers, so a copy of those bytes is
 * the processor; what stands below the mark is rebuilt from it at any time.
 *
 * Faults and exits are values: a function that can fault returns bool, false after it has
 * recorded why in cpu->leave. Registers are committed last. Freestanding (no libc but mem*). */
#ifndef KVMLAB_CPU_H
#define KVMLAB_CPU_H

#include "../space.h"
#include "../trace.h"
#include "arch.h"

/* ---- registers ------------------------------------------------------------------------- */

struct segment {
    uint64_t base;
    uint32_t limit; /* in bytes, inclusive, granularity applied */
    uint32_t attr;  /* enum seg_attr */
    uint16_t selector;
    uint16_t pad[3];
};
struct table_register { /* GDTR, IDTR */
    uint64_t base;
    uint32_t limit;
    uint32_t pad;
};

/* Lazy status flags (flags.h): the last result and enough of how it came about. */
struct lazy_flags {
    int64_t result;   /* sign-extended; ZF, SF, PF derive from it */
    uint64_t carries; /* bit 63: carry out; bit 62: carry into the sign bit; OF = 63 ^ 62 */
    uint64_t aux;     /* bit 4: AF; bits 15:8: flips of PF's byte; bit 63: flip of SF */
};

/* ---- what leaves the block loop, and why ------------------------------------------------ */

enum leave {
    LEAVE_NONE,
    LEAVE_FAULT,  /* cpu->fault waits for delivery; nothing of the instruction is committed */
    LEAVE_EXIT,   /* a VM exit has happened: the state is the host's, RIP included */
    LEAVE_DEVICE, /* cpu->device waits for an answer; the instruction will run again */
    LEAVE_REPEAT, /* a repeated string instruction did some iterations and goes on at the same RIP */
    LEAVE_STALE,  /* nothing happened: the block's page was written, look it up anew */
    LEAVE_BLOCK,  /* the instruction retired, but the block behind it must not be trusted */
    LEAVE_JUMP,   /* the instruction retired and set cpu->r[REG_RIP] itself although it does not end a block */
};

struct fault {
    uint8_t vector;
    uint8_t type;     /* enum event_type */
    uint8_t has_error;
    uint8_t in_delivery; /* an event is being delivered (IDT vectoring) */
    uint32_t error;
    uint64_t address; /* #PF: linear address; #DB: DR6-like bits */
    uint32_t length;  /* software events: length of the instruction */
    uint32_t pad;
};

enum pending_db { PENDING_B0 = 1, PENDING_BS = 64, PENDING_NO_STEP = 128 /* this instruction leaves no single-step trap */ };

enum cpu_stop { /* why cpu_run() came back */
    STOP_BUDGET,   /* the instruction budget is used up */
    STOP_WORK,     /* the work budget is used up: deliveries, walks and exits without end */
    STOP_DEVICE,   /* cpu->device: an access to a port or device that user space must answer */
    STOP_EXIT,     /* native VM exit: host state is loaded, vmcs/vmcb tells why */
    STOP_HLT,      /* halted with no event that could wake it */
    STOP_SHUTDOWN, /* triple fault */
    STOP_BREAK,    /* a breakpoint of the outside, cpu->stop_at */
    STOP_REQUEST,  /* somebody asked (cpu_request_stop) */
};

/* ---- accesses to ports and devices -------------------------------------------------------- */

enum device_kind { DEVICE_MMIO, DEVICE_PORT };
struct device_access {
    uint64_t address;  /* gpa, or port number */
    uint64_t value;    /* written, or the answer */
    uint8_t kind, size /* bytes: 1, 2, 4, 8 */, is_write, pad;
    uint32_t pad2;
};
#define ACCESS_LOG 16
struct access_log { /* device accesses of the instruction under way, replayed when it runs again */
    uint64_t at;    /* position (retired instructions) the log belongs to */
    uint32_t count, cursor;
    struct device_access done[ACCESS_LOG];
};
/* Answers now (true; reads fill access->value) or later (false). */
typedef bool device_hook(void *context, struct device_access *access);

/* ---- translation --------------------------------------------------------------------------- */

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };
#define TLB_SETS 512
#define TLB_WAYS 4
enum tlb_flags { TLB_W = 1, TLB_U = 2, TLB_NX = 4, TLB_G = 8, TLB_D = 16, TLB_VALID = 128 };
struct tlb_entry {   /* architectural */
    uint64_t page;   /* linear page number */
    uint64_t frame;  /* physical page number in the cpu's space */
    uint32_t epoch;  /* valid while equal to cpu->tlb.epoch, or .global_epoch for TLB_G */
    uint16_t asid;
    uint8_t flags, pad;
};
struct tlb {
    struct tlb_entry way[TLB_SETS][TLB_WAYS];
    uint8_t next[TLB_SETS]; /* the way to replace: first in, first out, so that hits leave no trace */
    uint32_t epoch, global_epoch;
};
#define FRONT_SIZE 256
#define FRONT_LIST 64
#define TABLE_PAGES 256
struct tlb_front {   /* rebuildable: a host pointer where an access needs no further check */
    uint64_t read, write; /* linear page address, or 1: no */
    uint8_t *host;        /* the page */
    uint8_t *attr;        /* its enum page_attr byte */
};
struct fetch_page {  /* architectural: the page instructions come from, looked up on page change only */
    uint64_t page;   /* linear page number */
    uint64_t frame;  /* physical page number */
    uint32_t valid, user;
};
struct seg_view {    /* derived from segment and mode: what a plain access needs */
    uint64_t base;
    uint64_t read_fast, write_fast; /* offsets below: 8 bytes are inside and allowed. 0: ask segment_check() */
};

#define WALK_STEPS 24
struct walk_step { /* one table entry that a walk visited; `format` tells what the bits mean */
    uint64_t table, index, entry; /* physical address of the table, index, value read */
    uint8_t level;                /* 5..1: PML5, PML4, PDPT, PD, PT */
    uint8_t ok;                   /* 0: this entry stopped the walk */
    uint8_t nested;               /* belongs to an EPT/NPT walk for the address of a guest table */
    uint8_t set_bits;             /* 1: A was set, 2: D was set by this walk */
    uint32_t failed;              /* enum walk_check of the first check that failed, 0: none */
};
enum walk_check { WALK_OK, WALK_NOT_PRESENT, WALK_RESERVED, WALK_WRITE, WALK_USER, WALK_NX, WALK_SMEP, WALK_SMAP,
                  WALK_NOT_CANONICAL, WALK_HOLE };
struct walk {
    uint64_t linear, physical;
    uint64_t page_size;     /* bytes the translation covers: 4K, 2M, 4M, 1G */
    uint32_t flags;         /* enum tlb_flags of the translation */
    uint32_t error;         /* #PF error code if it failed */
    uint32_t failed;        /* enum walk_check */
    uint32_t nr_steps;
    struct walk_step step[WALK_STEPS];
};

/* ---- the decoded instruction ---------------------------------------------------------------- */

struct cpu;
struct insn;
typedef bool op_fn(struct cpu *cpu, const struct insn *i);

enum insn_flags { INSN_LOCK = 1, INSN_MEM = 2, INSN_REX = 4, INSN_SEG = 8 /* segment override */, INSN_OP66 = 16,
                  INSN_ADDR67 = 32 };
struct insn {
    op_fn *exec;    /* bound handler (op_gate when the row wants checks first) */
    uint64_t imm;   /* immediate, sign-extended; far pointer: offset | selector << 32; ENTER: iw | ib << 32 */
    int64_t disp;   /* displacement; RIP-relative: already relative to the start of the block */
    uint8_t base, index, scale, seg; /* address = r[base] + (r[index] << scale) + disp in view[seg] */
    uint8_t reg;    /* ModRM.reg: register number; byte operands: byte offset into r[] */
    uint8_t rm;     /* ModRM.rm likewise when it is a register; opcode+r registers too */
    uint8_t len;    /* bytes */
    uint8_t size;   /* operand size in bytes: 1, 2, 4, 8 */
    uint8_t ashift; /* 0, 32, 48: addresses are (x << ashift) >> ashift */
    uint8_t rep;    /* 0, 0xf2, 0xf3 */
    uint8_t flags;  /* enum insn_flags */
    uint8_t form;   /* index into row->fn */
    uint16_t next;  /* offset behind this instruction from the start of the block */
    uint16_t row;   /* number of its row in insn.def */
};

#define BLOCK_INSNS 32
struct block {
    uint64_t key;        /* physical page number << 16 | offset << 4 | mode; 0: free */
    uint32_t first_insn; /* index into code_cache.insn */
    uint32_t next;       /* next block on the same page, or 0 */
    uint32_t chain;      /* next in the hash bucket, or 0 */
    uint16_t bytes;      /* length */
    uint8_t nr;          /* instructions */
    uint8_t jumps;       /* its last instruction sets RIP itself */
};
struct code_cache; /* run.c */

/* ---- virtualization (vmx.c, svm.c own the meaning) -------------------------------------------- */

enum world { WORLD_PLAIN, /* no virtualization, VMX root or SVM host */ WORLD_VMX_GUEST, WORLD_SVM_GUEST };

#define VMCS_SLOTS 256 /* fields of a cached VMCS: room for every row of vmcs.def */
struct vmx_state {
    uint8_t on;              /* VMX operation */
    uint8_t current_valid;   /* a VMCS is current */
    uint8_t launched;        /* launch state of the current VMCS */
    uint8_t checked;         /* enum vmcs_part: parts that passed their checks and have not changed since */
    uint32_t entry_failed;   /* number (1..) of the first failed row of vmx_check.def, 0: none */
    uint64_t vmxon, current; /* physical addresses */
    uint64_t field[VMCS_SLOTS]; /* the current VMCS, by row of vmcs.def; flushed to memory by vmcs_flush() */
    uint32_t vectoring, vectoring_error; /* IDT-vectoring information of the event being delivered */
    uint64_t preemption_deadline;
};
struct svm_state {
    uint8_t gif, pad0[3];
    uint32_t entry_failed;   /* number of the first failed row of svm_check.def */
    uint64_t vmcb, hsave;    /* physical addresses */
    uint64_t intercepts[3];  /* copied from the VMCB at VMRUN: six 32-bit words, pairs low/high */
    uint64_t iopm, msrpm, tsc_offset, nested_cr3;
    uint32_t int_ctl, asid;
    uint32_t vectoring, vectoring_error;
    uint8_t v_intr_masking, host_if, v_tpr, pad1;
    uint8_t v_irq, v_prio, v_vector, v_ign_tpr;
};

/* ---- profiles: one row each in profile.def ------------------------------------------------------ */

enum feature { /* cpuid.def names them; generations first */
#define FEATURE(NAME, leaf, subleaf, reg, bit, virtualised, summary) FEATURE_##NAME,
#define GENERATION(NAME, summary) FEATURE_##NAME,
#include "cpuid.def"
    NR_FEATURES
};
enum behaviour { /* named differences between processors, each with its source in profile.def */
#define BEHAVIOUR(NAME, summary) BEHAVIOUR_##NAME,
#include "profile.def"
    NR_BEHAVIOURS
};
enum vendor { VENDOR_INTEL, VENDOR_AMD };
struct profile {
    const char *name, *brand;
    enum vendor vendor;
    uint32_t signature;      /* CPUID.1:EAX */
    uint8_t physical_bits, linear_bits;
    enum feature generation; /* it has all generations up to this one */
    uint8_t has[NR_FEATURES], behaves[NR_BEHAVIOURS + 1];
};
unsigned nr_profiles(void);
const struct profile *profile_at(unsigned number);
const struct profile *profile_find(const char *name); /* NULL: no such profile */

enum msr_slot { /* where an MSR's value is kept: rows of msr.def */
#define MSR(index, NAME, storage, feature, reset, writable, kind, summary) MSR_##NAME,
#include "msr.def"
#undef MSR
    NR_MSRS
};

/* ---- the processor ------------------------------------------------------------------------------- */

struct cpu {
    uint64_t r[NR_REGS];       /* r[REG_RIP]: RIP; inside a block, the RIP of its first instruction */
    struct lazy_flags lazy;    /* CF PF AF ZF SF OF */
    uint64_t rflags;           /* the other flags (the status bits here are not valid) */
    struct segment seg[NR_SEGS];
    struct table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t dr[8];
    uint64_t xcr0;
    uint64_t msr[NR_MSRS];     /* EFER too: msr[MSR_EFER] */
    uint64_t pdpte[4];         /* PAE: loaded with CR3 */
    uint64_t retired;          /* instructions: the processor's time */
    uint64_t tsc_base;         /* TSC = tsc_base + retired */
    uint64_t deadline;         /* `retired` at which HLT and runs come back to the caller; ~0: never */

    uint8_t cpl;
    uint8_t activity;          /* enum activity */
    uint8_t interruptibility;  /* enum interruptibility */
    uint8_t world;             /* enum world */
    uint8_t native;            /* after a VM exit: 1 the C caller goes on, 0 guest code at HOST_RIP */
    uint8_t profile_number;
    uint8_t a20;               /* 0: address bit 20 is forced to 0 */
    uint8_t leave;             /* enum leave */
    uint8_t intr, intr_vector; /* INTR pin, and what the simple acknowledge yields */
    uint8_t nmi, init;         /* pins, edge: latched until taken */
    uint8_t pending_db;        /* enum pending_db: debug traps that wait for the instruction border */
    uint8_t delivering;        /* an event is being delivered; cpu->event says which */
    uint8_t rep_partial;       /* inside an unfinished repeated string instruction */
    uint8_t cpuid_hidden;      /* what a hypervisor above wants: nothing yet */
    struct fault fault;        /* LEAVE_FAULT: what */
    struct fault event;        /* the event being delivered */
    struct device_access device; /* LEAVE_DEVICE: what */
    struct access_log log;
    struct vmx_state vmx;
    struct svm_state svm;
    struct fetch_page fetch;
    uint16_t asid;             /* tag of the TLB entries in use: ASID or VPID, 0 for the host */
    uint64_t work;             /* work done: exits, deliveries, walks, emulated accesses, 4096 elements of a string */
    uint64_t elements;         /* done by repeated string instructions, ever */
    struct tlb tlb;

    /* ---- rebuildable: everything above is the state of the processor ---- */
    char rebuildable;
    uint8_t code_size;         /* 2, 4, 8: cpu_mode_changed() */
    uint8_t mode;              /* enum mode: low bits of a block's key */
    uint8_t attention;         /* something to look at before the next instruction: cpu_update_attention() */
    uint8_t request;           /* somebody wants the processor back; written by other threads */
    uint8_t paging;            /* enum paging: row of the walk */
    uint8_t sink[2];
    uint8_t shift_aux;         /* AF after a shift: 0 or FLAG_AF, by SHIFT_SETS_AF */
    uint64_t linear_mask;      /* ffffffff, or all ones in 64-bit mode */
    uint64_t stack_mask;       /* ffff, ffffffff, or all ones */
    struct seg_view view[6];
    const struct profile *profile;
    struct tlb_front *front;   /* front_of[cpl == 3] */
    struct tlb_front front_of[2][FRONT_SIZE];
    uint16_t filled[FRONT_LIST]; /* entries of front_of in use, so that a flush costs what was filled since the last */
    uint16_t nr_filled;        /* above FRONT_LIST: too many to list */
    struct { uint64_t page; const uint8_t *host; } table_page[TABLE_PAGES]; /* where page tables lie: paging.c */
    uint32_t table_generation; /* of the space, when they were looked up */
    uint8_t *fetch_host;       /* host page of cpu->fetch; NULL: look it up, or no RAM */
    frame_t fetch_frame;
    const struct insn *current; /* the instruction under way (faults, RDTSC, exits: its length and index) */
    const struct insn *block_start;
    struct code_cache *code;
    struct recent *recent;     /* code.h */
    struct space *space;
    struct trace *trace;
    device_hook *device_hook;
    void *device_context;
    uint8_t (*acknowledge)(void *context); /* INTA: yields the vector; NULL: intr_vector, and INTR falls */
    void *acknowledge_context;
    uint64_t stop_at[4];       /* linear addresses: the run stops before the instruction there */
    uint8_t nr_stop_at, skip_stop_at; /* skip: not at the very first border (the last run stopped there) */
    struct { uint8_t *host; uint8_t *attr; uint64_t linear; uint32_t size; } rmw; /* access.h: read-modify-write under way */
};

enum mode { /* key of a block: what decoding depends on */
    MODE_REAL16, MODE_VM86, MODE_PROT16, MODE_PROT32, MODE_LONG64, MODE_REAL32 /* CS.D set while PE=0 */ };
enum paging { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_EPT };

static inline bool cpu_has(const struct cpu *cpu, enum feature f) 
{
    return f <= cpu->profile->generation || cpu->profile->has[f];
}
static inline bool cpu_behaves(const struct cpu *cpu, enum behaviour b) { return cpu->profile->behaves[b]; }
static inline bool is_real(const struct cpu *cpu) { return !(cpu->cr0 & CR0_PE); }
static inline bool is_vm86(const struct cpu *cpu) { return (cpu->rflags & FLAG_VM) != 0; }
static inline bool is_protected(const struct cpu *cpu) { return (cpu->cr0 & CR0_PE) && !(cpu->rflags & FLAG_VM); }
static inline bool is_long_active(const struct cpu *cpu) { return (cpu->msr[MSR_EFER] & EFER_LMA) != 0; }
static inline bool is_64bit(const struct cpu *cpu) { return cpu->code_size == 8; }
static inline unsigned iopl(const struct cpu *cpu) { return cpu->rflags >> IOPL_SHIFT & 3; }

static inline bool is_canonical(const struct cpu *cpu, uint64_t linear)
{
    unsigned unused = cpu->cr4 & CR4_LA57 ? 64 - 57 : 64 - 48;
    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

/* run.c */
bool engine_init(const char **error); /* builds the opcode maps; false: a row of insn.def is wrong, *error says which */
struct cpu *cpu_new(const struct profile *profile, struct space *space, struct trace *trace);
void cpu_free(struct cpu *cpu);
void cpu_reset(struct cpu *cpu);        /* power-on state: SDM 3A 9.1 */
enum cpu_stop cpu_run(struct cpu *cpu, uint64_t budget); /* retires at most `budget` instructions */
enum cpu_stop cpu_step(struct cpu *cpu); /* one instruction, or the delivery of one event */
void cpu_request_stop(struct cpu *cpu);  /* from any thread */
void cpu_answer(struct cpu *cpu, uint64_t value); /* completes cpu->device; the next run goes on */
void cpu_drop_log(struct cpu *cpu);      /* the state was edited: accesses already answered are asked again */
void cpu_rebuild(struct cpu *cpu);       /* after the state was copied in: mode, views, fronts */
void code_drop_all(struct cpu *cpu);
#define CPU_STATE_BYTES offsetof(struct cpu, rebuildable)

/* To call whenever what they derive from has changed. */
void cpu_mode_changed(struct cpu *cpu);      /* CR0, CR4, EFER, CS, SS, RFLAGS.VM, CPL, world: code size, paging, views, masks */
void cpu_segments_changed(struct cpu *cpu);  /* only CS, SS, CPL or RFLAGS.VM: a far transfer, a delivery */
void cpu_set_cpl(struct cpu *cpu, unsigned cpl); /* only the privilege level changed */
void cpu_update_view(struct cpu *cpu, enum seg seg); /* one segment was loaded */
void cpu_update_attention(struct cpu *cpu);  /* IF, TF, shadow, pins, DR7, activity */

/* decode.c */
enum decode_result { DECODE_OK, DECODE_UD, DECODE_SHORT /* wants more bytes */, DECODE_LONG /* over 15 bytes: #GP */ };
enum decode_result decode(const struct cpu *cpu, enum mode mode, const uint8_t *bytes, unsigned available, struct insn *i);
enum forms { FORM_ONE, FORM_RM, FORM_SZ, FORM_SZRM }; /* insn.def, column forms */
enum row_attr { A_BYTE = 1, A_LOCK = 2, A_D64 = 4, A_F64 = 8, A_NO64 = 16, A_ONLY64 = 32, A_PROT = 64, A_CPL0 = 128,
                A_JUMP = 256, A_END = 512, A_REP = 1024, A_IO = 2048, A_CHECKED = 4096, A_W16 = 8192 };
struct insn_row {
    const char *mnemonic, *encoding, *operands, *summary;
    op_fn *fn[6];
    uint32_t attr;           /* enum row_attr */
    uint8_t forms;           /* enum forms */
    uint8_t feature;         /* enum feature */
    uint8_t vmx, svm;        /* enum intercept_class */
    const char *flags;       /* flags written; upper case defined, lower case undefined, 0/1 fixed */
};
extern const struct insn_row insn_rows[];
extern const unsigned nr_insn_rows;
op_fn op_gate;  /* privilege, then intercept, then the row's handler */
op_fn op_stale; /* what the rest of a block becomes when its page is written while it runs */

/* segment.c: SDM 3A ch. 3, 5, 8 */
enum selector_bits { SELECTOR_RPL = 3, SELECTOR_TI = 4, SELECTOR_INDEX = 0xfff8, SELECTOR_MASK = 0xfffc };
bool segment_check(struct cpu *cpu, enum seg seg, uint64_t offset, unsigned size, enum access access) MUST_CHECK; /* #GP/#SS */
bool load_segment(struct cpu *cpu, enum seg seg, uint16_t selector) MUST_CHECK;     /* MOV/POP/LDS to ES SS DS FS GS */
bool load_ldtr(struct cpu *cpu, uint16_t selector) MUST_CHECK;
bool load_tr(struct cpu *cpu, uint16_t selector) MUST_CHECK;
void set_segment_real(struct cpu *cpu, enum seg seg, uint16_t selector);            /* real mode and vm86: base = selector * 16 */
void set_segment_null(struct cpu *cpu, enum seg seg, uint16_t selector);
struct descriptor { uint64_t low, high; uint64_t base; uint32_t limit, attr; uint64_t address /* linear, of the entry */; };
enum lookup { LOOKUP_FOUND, LOOKUP_OUTSIDE /* of its table: nothing is raised */, LOOKUP_FAULT };
enum lookup find_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d);
bool read_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d, uint8_t vector_if_outside) MUST_CHECK;
void set_segment(struct cpu *cpu, enum seg seg, uint16_t selector, const struct descriptor *d);
void set_code_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d, unsigned level); /* and the CPL */
bool set_accessed(struct cpu *cpu, struct descriptor *d) MUST_CHECK;                /* writes the A bit back */
bool check_target(struct cpu *cpu, const struct descriptor *cs, uint64_t rip) MUST_CHECK; /* inside it, or canonical: #GP(0) */
bool far_jump(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size) MUST_CHECK;
bool far_call(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size, uint64_t return_rip) MUST_CHECK;
bool far_return(struct cpu *cpu, unsigned size, uint16_t pop_bytes) MUST_CHECK;
bool interrupt_return(struct cpu *cpu, unsigned size) MUST_CHECK;
uint64_t flags_writable(const struct cpu *cpu, unsigned size); /* flags that IRET and POPF may change */
/* The stack of a far transfer: filled first, committed last. */
struct far_stack { uint64_t rsp, base, mask; unsigned level; bool is_new; struct segment ss; };
void far_stack_now(const struct cpu *cpu, struct far_stack *stack);
void far_stack_flat(const struct cpu *cpu, struct far_stack *stack, unsigned level, uint64_t rsp, bool is_new); /* long mode */
bool far_stack_of_level(struct cpu *cpu, unsigned level, struct far_stack *stack) MUST_CHECK;      /* from the TSS, checked */
bool far_room(struct cpu *cpu, const struct far_stack *stack, unsigned nr_pushes, unsigned size) MUST_CHECK;
bool far_push(struct cpu *cpu, struct far_stack *stack, unsigned size, uint64_t value) MUST_CHECK;
void far_stack_commit(struct cpu *cpu, const struct far_stack *stack);
bool tss_stack(struct cpu *cpu, unsigned dpl, uint16_t *ss, uint64_t *rsp) MUST_CHECK;
bool tss_ist(struct cpu *cpu, unsigned ist, uint64_t *rsp) MUST_CHECK;
bool tss_redirects(struct cpu *cpu, uint8_t vector, bool *redirected) MUST_CHECK; /* VME's interrupt redirection map */
enum task_source { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE }; /* as in the exit qualification of a task switch */
bool task_switch(struct cpu *cpu, uint16_t selector, enum task_source source) MUST_CHECK;
bool io_allowed(struct cpu *cpu, uint16_t port, unsigned size) MUST_CHECK; /* IOPL and TSS bitmap: #GP(0) */

/* exception.c: SDM 3A ch. 6 */
bool raise_exception(struct cpu *cpu, enum vector vector);               /* always false: `return raise_exception(cpu, VEC_UD);` */
bool raise_error(struct cpu *cpu, enum vector vector, uint32_t error);   /* likewise */
bool raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error); /* CR2 is set at delivery */
bool raise_debug(struct cpu *cpu, uint32_t dr6_bits);                    /* a debug fault: DR6 gets these bits at delivery */
bool software_interrupt(struct cpu *cpu, uint8_t vector, enum event_type type, unsigned length) MUST_CHECK;
/* Delivers cpu->fault: intercepts, contributory faults, double and triple fault. False: LEAVE_EXIT, LEAVE_DEVICE, or
 * shut down. RIP stands on the faulting instruction (for a trap: behind it). */
bool deliver_fault(struct cpu *cpu);
/* An interrupt, an NMI, an injected event, without intercepts. False likewise; after LEAVE_DEVICE cpu->delivering stays
 * set, and the next border delivers cpu->event again. */
bool deliver_event(struct cpu *cpu, const struct fault *event);
void enter_shutdown(struct cpu *cpu);

/* paging.c: SDM 3A ch. 4. access.h has what the handlers use. */
bool page_walk(struct cpu *cpu, uint64_t linear, enum access access, bool user, bool commit, struct walk *walk);
void tlb_flush(struct cpu *cpu, bool global_too);
void tlb_flush_page(struct cpu *cpu, uint64_t linear);
void tlb_flush_asid(struct cpu *cpu, uint16_t asid);
void front_flush(struct cpu *cpu);            /* rights may have changed: CPL, WP, SMAP, AC, a page's kind */
bool load_pdptes(struct cpu *cpu, uint64_t cr3) MUST_CHECK; /* false: a reserved bit is set; #GP is up to the caller */
bool translate(struct cpu *cpu, uint64_t linear, enum access access, bool user, uint64_t *physical) MUST_CHECK;
bool fetch_translate(struct cpu *cpu, uint64_t linear) MUST_CHECK; /* fills cpu->fetch */

/* mem.c: the slow halves of access.h */
bool linear_access(struct cpu *cpu, uint64_t linear, void *data, unsigned size, enum access access, bool user) MUST_CHECK;
bool device_access(struct cpu *cpu, enum device_kind kind, uint64_t address, unsigned size, bool is_write, uint64_t *value) MUST_CHECK;
bool port_access(struct cpu *cpu, uint16_t port, unsigned size, bool is_write, uint64_t *value) MUST_CHECK;
bool physical_access(struct cpu *cpu, uint64_t pa, void *data, unsigned size, bool is_write); /* no device: holes read ones; false there */
void access_log_commit(struct cpu *cpu); /* one iteration of a repeated instruction is done: its accesses are past */

/* system.c: control and debug registers, MSRs, CPUID */
bool write_cr0(struct cpu *cpu, uint64_t value) MUST_CHECK;
bool write_cr3(struct cpu *cpu, uint64_t value) MUST_CHECK;
bool write_cr4(struct cpu *cpu, uint64_t value) MUST_CHECK;
bool write_cr8(struct cpu *cpu, uint64_t value) MUST_CHECK;
bool write_efer(struct cpu *cpu, uint64_t value) MUST_CHECK;
uint64_t cr4_defined(const struct cpu *cpu);        /* bits of CR4 that the profile has */
uint64_t efer_defined(const struct cpu *cpu);
bool read_msr(struct cpu *cpu, uint32_t index, uint64_t *value) MUST_CHECK;   /* #GP(0): no such MSR */
bool write_msr(struct cpu *cpu, uint32_t index, uint64_t value) MUST_CHECK;
bool write_dr(struct cpu *cpu, unsigned number, uint64_t value) MUST_CHECK;
void cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]); /* eax ebx ecx edx */
uint64_t read_tsc(const struct cpu *cpu);           /* as RDTSC sees it now */
void set_rflags(struct cpu *cpu, uint64_t value);   /* all bits as given; refreshes what derives from them */
uint64_t get_rflags(const struct cpu *cpu);

/* debug.c: SDM 3B ch. 17, debug registers */
void debug_data_access(struct cpu *cpu, uint64_t linear, unsigned size, bool is_write); /* may set pending_db */
void debug_port_access(struct cpu *cpu, uint16_t port, unsigned size);
bool debug_execution(struct cpu *cpu, uint64_t linear) MUST_CHECK; /* false: #DB fault at this instruction */

/* intercept.c: does this exit? One place for both vendors. False: LEAVE_EXIT was taken. */
enum intercept_class {
#define INTERCEPT(NAME, summary) INTERCEPT_##NAME,
#include "intercept.def"
#undef INTERCEPT
    NR_INTERCEPTS
};
bool intercept_insn(struct cpu *cpu, const struct insn *i) MUST_CHECK;            /* by the row's columns; from op_gate */
bool intercept_io(struct cpu *cpu, const struct insn *i, uint16_t port, unsigned size, bool in, bool string, uint64_t linear) MUST_CHECK;
bool intercept_cr_write(struct cpu *cpu, const struct insn *i, unsigned cr, uint64_t value, unsigned gpr) MUST_CHECK;
bool intercept_cr_read(struct cpu *cpu, const struct insn *i, unsigned cr, unsigned gpr) MUST_CHECK;
bool intercept_clts(struct cpu *cpu, const struct insn *i) MUST_CHECK;
bool intercept_lmsw(struct cpu *cpu, const struct insn *i, uint16_t value, bool memory, uint64_t linear) MUST_CHECK;
bool intercept_dr(struct cpu *cpu, const struct insn *i, unsigned dr, bool read, unsigned gpr) MUST_CHECK;
bool intercept_msr(struct cpu *cpu, const struct insn *i, uint32_t index, bool is_write) MUST_CHECK;
bool intercept_invlpg(struct cpu *cpu, const struct insn *i, uint64_t linear) MUST_CHECK;
bool intercept_exception(struct cpu *cpu, const struct fault *fault) MUST_CHECK;  /* called before delivery */
bool intercept_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, bool has_error, uint32_t error) MUST_CHECK;
bool intercept_event(struct cpu *cpu);        /* INTR, NMI, INIT, windows, V_INTR at an instruction border; false: exit taken */
bool intercept_attention(const struct cpu *cpu); /* a window or virtual interrupt wants the border checked */
bool intercept_triple_fault(struct cpu *cpu) MUST_CHECK;
/* What a guest reads in CR0/CR4, and what a write really changes (VMX masks and shadows). */
uint64_t guest_cr_read(const struct cpu *cpu, unsigned cr);
uint64_t vmx_cr0_required(const struct cpu *cpu);
uint64_t guest_cr_write(const struct cpu *cpu, unsigned cr, uint64_t value);

/* vmx.c, svm.c: the one way to exit */
bool vmx_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification); /* always false */
bool svm_exit(struct cpu *cpu, uint64_t code, uint64_t info1, uint64_t info2); /* always false */
void vmcs_flush(struct cpu *cpu); /* the cached VMCS to memory: snapshots, inspection, VMCLEAR */

/* ---- small helpers of the handlers ---------------------------------------------------------------- */

/* RIP of instruction i of the block under way, and behind it. */
static inline uint64_t rip_mask(const struct cpu *cpu)
{
    return cpu->code_size == 8 ? ~0ull : cpu->code_size == 4 ? 0xffffffffull : 0xffffull;
}
static inline uint64_t insn_next_rip(const struct cpu *cpu, const struct insn *i) { return cpu->r[REG_RIP] + i->next; }
static inline uint64_t insn_rip(const struct cpu *cpu, const struct insn *i) { return cpu->r[REG_RIP] + i->next - i->len; }
/* Instructions retired when i starts (RDTSC, events). */
static inline uint64_t insn_time(const struct cpu *cpu, const struct insn *i)
{
    return cpu->retired + (uint64_t)(i - cpu->block_start);
}

static inline void emit(struct cpu *cpu, enum event_kind kind, uint32_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    struct trace *trace = cpu->trace;
    uint64_t sequence = trace->sequence++;
    if (UNLIKELY((trace->enabled | trace->stops) >> kind & 1)) {
        struct event event = { .instructions = cpu->current ? insn_time(cpu, cpu->current) : cpu->retired,
                               .sequence = sequence, .kind = (uint16_t)kind, .a = a, .b = b, .c = c, .d = d, .e = e,
                               .rip = cpu->current ? insn_rip(cpu, cpu->current) : cpu->r[REG_RIP] };
        trace_event(trace, &event);
    }
}

#endif
