#ifndef KVMLAB_H
#define KVMLAB_H

#include <stddef.h>
#include <stdint.h>

/* The C API: the only source of the binding's cdef, so it stays plain C declarations without macros.
 *
 * One model, two engines. A handle is a virtual machine (guest under the hypervisor) or a bare machine.
 * Functions return 0 or a negative errno of the contract; kl_error() gives the sentence. No call
 * keeps a pointer it was given. A handle is used by one thread at a time, but kl_kick() by any. */

typedef struct kl_vm kl_vm;

const char *kl_version(void);
int kl_init(const char **error); /* once, under the import lock */

/* ---- making one ------------------------------------------------------------------------- */

typedef struct {
    const char *engine;    /* "soft", "kvm" */
    const char *kind;      /* "vm", "machine" */
    const char *cpu;       /* a profile's name */
    const char *mmu;       /* "shadow", "vtlb", "tdp"; machine: NULL */
    const char *real_mode; /* "auto", "user", "vm86", "emulate"; machine: NULL */
    uint64_t history;      /* bits: faults of 2006 to reproduce, by name in docs */
    int shared_memory;     /* 1: RAM can be mapped by the process (the interface of 2006) */
} kl_config;

int kl_create(const kl_config *config, kl_vm **vm, char *message, size_t message_bytes);
void kl_destroy(kl_vm *vm);
const char *kl_error(const kl_vm *vm); /* the sentence of the last failure */
int kl_create_vcpu(kl_vm *vm, uint32_t vcpu);
int kl_reset(kl_vm *vm);               /* power-on state of the processor; memory stays */

/* ---- memory ------------------------------------------------------------------------------- */

int kl_set_memory_region(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags); /* flags 1: log dirty pages */
/* space 0: guest-physical (a machine's own), 1: host-physical. The result is the number of bytes that memory answered. */
int64_t kl_read(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len);
int64_t kl_write(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len);
/* A counted read-only view of a slot; it outlives slot and VM until kl_view_release. */
typedef struct { const uint8_t *bytes; uint64_t size; void *handle; } kl_view;
int kl_view_get(kl_vm *vm, uint32_t slot, kl_view *view);
void kl_view_release(kl_view *view);
int kl_dirty_log(kl_vm *vm, uint32_t slot, uint8_t *bitmap, uint64_t bytes); /* get and clear */

/* ---- state ---------------------------------------------------------------------------------- */

typedef struct { uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */ uint64_t rip, rflags; } kl_regs;
typedef struct { uint64_t base; uint32_t limit; uint32_t attr; /* as VMX access rights */ uint16_t selector; uint16_t pad[3]; } kl_segment;
typedef struct {
    kl_segment seg[8];     /* es cs ss ds fs gs ldtr tr */
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
} kl_sregs;
typedef struct {
    uint64_t dr[8];
    uint64_t xcr0;
    uint64_t tsc;
    uint32_t activity;         /* 0 active, 1 halted, 2 shut down, 3 waits for SIPI */
    uint32_t interruptibility; /* 1 STI, 2 MOV SS, 8 NMI blocked */
    uint32_t interrupt_pending, nmi_pending;
    uint32_t interrupt_vector; /* the one that is delivered next */
    uint32_t pending_db;
    uint64_t pdpte[4];
    uint64_t interrupt_bitmap[4];
} kl_events;

int kl_get_regs(kl_vm *vm, uint32_t vcpu, kl_regs *regs);
int kl_set_regs(kl_vm *vm, uint32_t vcpu, const kl_regs *regs);
int kl_get_sregs(kl_vm *vm, uint32_t vcpu, kl_sregs *sregs);
int kl_set_sregs(kl_vm *vm, uint32_t vcpu, const kl_sregs *sregs);
int kl_get_events(kl_vm *vm, uint32_t vcpu, kl_events *events);
int kl_set_events(kl_vm *vm, uint32_t vcpu, const kl_events *events);
int kl_get_msr(kl_vm *vm, uint32_t vcpu, uint32_t index, uint64_t *value);
int kl_set_msr(kl_vm *vm, uint32_t vcpu, uint32_t index, uint64_t value);
int kl_interrupt(kl_vm *vm, uint32_t vcpu, uint32_t vector);
int kl_nmi(kl_vm *vm, uint32_t vcpu);

typedef struct { uint64_t gpa; uint8_t valid, writeable, usermode; } kl_translation;
int kl_translate(kl_vm *vm, uint32_t vcpu, uint64_t gva, kl_translation *translation);
typedef struct { uint32_t enabled, single_step; struct { uint32_t enabled; uint64_t address; } breakpoint[4]; } kl_guest_debug;
int kl_debug(kl_vm *vm, uint32_t vcpu, const kl_guest_debug *debug);

/* ---- running ----------------------------------------------------------------------------------- */

/* kl_exit.reason */
enum { KL_EXIT_UNKNOWN, KL_EXIT_EXCEPTION, KL_EXIT_IO, KL_EXIT_CPUID, KL_EXIT_DEBUG, KL_EXIT_HLT, KL_EXIT_MMIO,
       KL_EXIT_FAIL_ENTRY, KL_EXIT_SHUTDOWN, KL_EXIT_LIMIT, KL_EXIT_STOPPED, KL_EXIT_EVENT, KL_EXIT_REAL_MODE };
typedef struct {
    uint32_t reason;
    uint32_t hardware_reason;    /* the processor's exit reason or code, all ones if there was none */
    uint32_t instruction_length; /* 0: not known */
    uint32_t exception, error_code;       /* EXCEPTION */
    uint32_t entry_error;                 /* FAIL_ENTRY: VM-instruction error or SVM code */
    uint32_t failed_check;                /* row number + 1 of the entry rule that failed, 0: none */
    uint32_t no_progress;                 /* LIMIT: 1 when no instruction retired */
    uint8_t is_write, size, string, down, rep, phase;
    uint16_t port;
    uint64_t count;                       /* elements of a string */
    uint64_t address;                     /* string: guest linear; MMIO: guest-physical */
    uint64_t value;                       /* written, or what an unanswered read would give */
    uint64_t qualification, info2;        /* of the hardware exit */
    uint64_t rip;
    uint64_t instructions, sequence;      /* position */
    uint32_t event_kind;                  /* EVENT: the kind that stopped the run */
    uint32_t suberror;                    /* kvm engine: internal error */
    uint32_t replayed;                    /* 1: the run goes through known country, its answers are at hand */
    uint32_t pad;
} kl_exit;

typedef struct {
    uint64_t max_instructions; /* ~0: none */
    uint64_t stop_events;      /* a bit per event kind (trace.def): stop at the next of these */
    uint32_t time_limit_ms;    /* kvm engine, where instructions cannot be counted; 0: none */
    uint32_t step_phase;       /* stop at the next phase of the hypervisor's run loop */
} kl_run_args;

int kl_run(kl_vm *vm, uint32_t vcpu, const kl_run_args *args, kl_exit *exit);
int kl_complete(kl_vm *vm, uint32_t vcpu, uint64_t value);  /* answers the IN or MMIO read of the last exit */
/* A string exit: the elements that an OUTS wrote; the elements that an INS reads (answers it). In bytes. */
int64_t kl_string_read(kl_vm *vm, uint32_t vcpu, void *to, uint64_t bytes);
int kl_string_answer(kl_vm *vm, uint32_t vcpu, const void *from, uint64_t bytes);
int kl_complete_cpuid(kl_vm *vm, uint32_t vcpu, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx);
int kl_cpuid(kl_vm *vm, uint32_t vcpu, uint32_t leaf, uint32_t subleaf, uint32_t *out); /* eax ebx ecx edx, what the guest would see */
void kl_kick(kl_vm *vm);                                     /* from any thread, also a signal handler */
/* One instruction and the registers after it: 1 when it retired and nothing else happened, else 0 and the exit says what. */
int kl_step(kl_vm *vm, uint32_t vcpu, kl_exit *exit, kl_regs *regs);
/* n instructions with all registers after each: fills regs[0..n-1], the number done is returned. */
int64_t kl_step_record(kl_vm *vm, uint32_t vcpu, uint64_t n, kl_regs *regs);

/* ---- time and events (soft engine) ----------------------------------------------------------------- */

typedef struct { uint64_t instructions, sequence; } kl_position;
int kl_get_position(kl_vm *vm, kl_position *position);
int kl_state_hash(kl_vm *vm, uint64_t *hash);         /* over all architectural state and memory */
int64_t kl_snapshot_save(kl_vm *vm);                  /* its number, from 0; negative errno */
int kl_snapshot_restore(kl_vm *vm, int64_t number);
int kl_snapshot_drop(kl_vm *vm, int64_t number);
int kl_history_start(kl_vm *vm, uint64_t interval);   /* from now on inputs are logged and snapshots taken every `interval` instructions */
int kl_goto(kl_vm *vm, const kl_position *position);  /* nearest snapshot, then replay; instructions exactly, the last event at or before */
typedef struct { uint64_t snapshots, inputs, ahead, stored_bytes; } kl_history; /* ahead: inputs that lie in the future */
int kl_history_info(kl_vm *vm, kl_history *info);

typedef struct {
    uint64_t instructions, sequence;
    uint16_t kind; uint8_t side, vcpu; uint32_t a;
    uint64_t b, c, d, e, rip;
} kl_event;
int kl_trace_enable(kl_vm *vm, uint64_t kinds, uint32_t capacity);
int64_t kl_trace_read(kl_vm *vm, uint64_t from, kl_event *to, uint64_t n, uint64_t *first, uint64_t *next);

/* ---- looking inside (soft engine) --------------------------------------------------------------------- */

typedef struct { uint64_t table, index, entry; uint8_t level, ok, nested, set_bits; uint32_t failed; } kl_walk_step;
typedef struct {
    uint64_t linear, physical, page_size;
    uint32_t flags, error, failed, nr_steps;
    kl_walk_step step[24];
} kl_walk;
/* which 0: the guest's tables; 1: the tables the processor uses (shadow, EPT, NPT). access 0 r, 1 w, 2 x. */
int kl_walk_tables(kl_vm *vm, uint32_t vcpu, int which, uint64_t gva, int access, int user, kl_walk *walk);

/* ---- the hypervisor's insides (virtual machines of the soft engine) -------------------------------------- */

typedef struct { uint64_t gpa, size, hpa; uint32_t flags, present; } kl_slot;
int kl_slot_info(kl_vm *vm, uint32_t slot, kl_slot *info);

typedef struct {
    uint64_t gfn, hpa;
    uint32_t role;             /* 3:0 guest levels, 7:4 level, 9:8 quadrant, 12 read-only 13 supervisor 14 no-execute above,
                                  16 metaphysical, 17 CR0.WP=0, 18 EFER.NXE, 19 CR4.PSE */
    uint16_t number;           /* of the pool's pages */
    uint16_t present;          /* entries */
    uint16_t root_count;
    uint16_t parents;          /* entries that point here */
    uint8_t level, guest_levels, quadrant, metaphysical;
    uint8_t slots, pad[3];     /* bit per memory slot mapped from here */
} kl_shadow_page;
int64_t kl_shadow_pages(kl_vm *vm, kl_shadow_page *to, uint64_t n);                 /* newest first; how many there are */
int kl_shadow_entries(kl_vm *vm, uint32_t number, uint64_t *sptes);                /* 512 of them */
int64_t kl_shadow_parents(kl_vm *vm, uint32_t number, uint64_t *spte_hpa, uint64_t n);
int64_t kl_shadow_rmap(kl_vm *vm, uint64_t gfn, uint64_t *spte_hpa, uint64_t n);   /* writable sptes of a guest frame */
typedef struct {
    uint64_t root;             /* what CR3 holds while the guest runs */
    uint64_t pae_root[4];
    uint64_t fixed, guest_faults, table_writes, zapped, recycled, flushes; /* counters since creation */
    uint64_t last_written_gfn;
    uint32_t written, free, total, guest_levels, role, valid;
} kl_shadow_state;
int kl_shadow_get_state(kl_vm *vm, kl_shadow_state *state);
/* 0: the invariants hold; else the letter of the one that does not, *what says it, *where is a host-physical address. */
int kl_shadow_audit(kl_vm *vm, const char **what, uint64_t *where);

/* Fields of the VMCS (Intel) or VMCB (AMD) of this machine, by row. The number of rows is returned. */
typedef struct { const char *name, *meaning, *group; uint32_t place /* encoding, or offset */, bytes, exists, writable; uint64_t value; } kl_field;
int64_t kl_field_get(kl_vm *vm, uint32_t row, kl_field *field);
int kl_field_set(kl_vm *vm, uint32_t row, uint64_t value);
typedef struct { const char *id, *area, *rule, *field; uint32_t verdict; /* 0 holds, 1 fails, 2 does not apply, 3 not on this processor */ uint32_t pad; uint64_t value; } kl_check;
int64_t kl_check_all(kl_vm *vm, kl_check *to, uint64_t n); /* every entry rule on the control structure as it is */

/* ---- the interface of October 2006 (abi2006.c) ----------------------------------------------------------- */

typedef struct kl_abi kl_abi; /* what open("/dev/kvm") gave */
enum { KL_ABI_AGAIN = 1 };    /* of RUN: signals have been looked at, call it again with the same structure */
int kl_abi_open(const kl_config *config, kl_abi **abi, char *message, size_t message_bytes);
void kl_abi_close(kl_abi *abi);
int kl_abi_ioctl(kl_abi *abi, uint32_t number, void *argument, uint64_t value); /* CREATE_VCPU takes a value */
int kl_abi_mmap(kl_abi *abi, uint64_t length, uint64_t offset, kl_view *view);  /* guest memory, to be written too */
kl_vm *kl_abi_vm(kl_abi *abi); /* the machine behind it, for inspection */

/* ---- the tables, for Python ------------------------------------------------------------------------------ */

typedef struct {
    const char *mnemonic, *encoding, *operands, *summary, *flags, *feature, *vmx, *svm;
    uint32_t attr;
} kl_insn_row;
int64_t kl_table_insn(uint64_t number, kl_insn_row *row); /* the number of rows; fills row where it exists */
typedef struct { const char *name, *side, *a, *b, *c, *d, *e, *summary; } kl_event_row;
int64_t kl_table_event(uint64_t number, kl_event_row *row);
const char *kl_profile_name(uint32_t number);             /* NULL behind the last */
int kl_insn_length(const char *cpu, int mode, const uint8_t *bytes, uint32_t available); /* -1 #UD, -2 too short, -3 too long */

#endif
