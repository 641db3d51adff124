/* The hypervisor: a working model of the first KVM (2006), on the processor of cpu/ through silicon.h alone.
 *
 * hv.c the run loop; host.c the root state under it; slots.c memory slots; vcpu.c the virtual processor's state; exits.c and io.c what
 * exits ask; intel.c and amd.c the vendor's half; mmu.c guest page walk, page faults, roots; shadow.c shadow pages; realmode.c real
 * mode as virtual-8086; emulate.c the instruction emulator; irq.c interrupts; dirty.c the dirty log.
 *
 * Everything above the mark `rebuildable` is state: physical addresses and indices, no pointers, so a copy of those bytes is the
 * hypervisor. What is bigger (shadow pages, their links, reverse-map heads, dirty bitmaps, VMCS) lies in host-physical memory. */
#ifndef KVMLAB_HV_H
#define KVMLAB_HV_H

#include "../cpu/silicon.h"
#include "../engine.h"

#define HV_SLOTS 4

/* ---- host-physical memory: the pool, in pages ------------------------------------------------------------------ */

#define HV_POOL_HPA 0x02000000ull   /* below 4 GB: PAE roots must be */
#define HV_SLOTS_HPA 0x04000000ull  /* slot memory from here on, never where hpa equals gpa */
#define SHADOW_PAGES 256
enum pool_page {
    POOL_HOST_TABLES,   /* GDT, TSS */
    POOL_HOST_PML4, POOL_HOST_PDPT, POOL_HOST_PD,
    POOL_VMXON,         /* VMXON region, or the host save area of SVM */
    POOL_VMCS,          /* VMCS, or VMCB */
    POOL_IO_BITMAPS,    /* three pages: VMX A and B; SVM's permission map */
    POOL_MSR_BITMAP = POOL_IO_BITMAPS + 3, /* two pages: SVM's permission map */
    POOL_MSR_LISTS = POOL_MSR_BITMAP + 2,  /* guest and host MSRs that entries and exits switch */
    POOL_PAE_ROOT,
    POOL_HOST_VMCB,     /* what VMLOAD brings back for the host */
    POOL_SHADOW = 16,
    POOL_LINKS = POOL_SHADOW + SHADOW_PAGES, /* one page of list links for each shadow page */
    POOL_PAGES = POOL_LINKS + SHADOW_PAGES
};
static inline uint64_t pool_hpa(unsigned page) { return HV_POOL_HPA + (uint64_t)page * PAGE_SIZE; }

struct hv_slot {
    uint64_t gpa, size;   /* size 0: no such slot */
    uint64_t hpa;         /* where its memory lies */
    uint64_t aux;         /* where its reverse-map heads and then its dirty bitmap lie */
    uint32_t flags;       /* 1: log dirty pages */
    uint32_t serial;      /* names its blocks of RAM below the mark */
};

/* ---- shadow pages ------------------------------------------------------------------------------------------------------ */

/* The role word. Bits 12-14 and 17-19 are ours: a shadow page is only reused where the same rights and rules hold. */
enum role {
    ROLE_GLEVELS = 15, ROLE_LEVEL_SHIFT = 4, ROLE_LEVEL = 15 << 4, ROLE_QUADRANT_SHIFT = 8, ROLE_QUADRANT = 3 << 8,
    ROLE_READONLY = 1 << 12, ROLE_SUPERVISOR = 1 << 13, ROLE_NO_EXEC = 1 << 14, /* what the levels above forbid */
    ROLE_METAPHYSICAL = 1 << 16, ROLE_WP0 = 1 << 17, ROLE_NXE = 1 << 18, ROLE_PSE = 1 << 19 };

enum spte_bits { SPTE_P = 1, SPTE_W = 2, SPTE_U = 4, SPTE_A = 0x20, SPTE_D = 0x40, SPTE_G = 0x100,
                 SPTE_SOFT = 1 << 9,     /* not a leaf: the child stands for a large page; a leaf: MMIO, not present */
                 SPTE_GUEST_W = 1 << 10, /* the guest said writable */
                 SPTE_GUEST_U = 1 << 11  /* the guest said user */ };
#define SPTE_NX (1ull << 63)
#define SPTE_ADDRESS 0x000ffffffffff000ull

#define NO_SHADOW 0xffffu
struct shadow_page {
    uint64_t gfn;
    uint32_t role;
    uint32_t parents;        /* first link of its parent sptes, 0: none (roots) */
    uint16_t hash_next, newer, older; /* hash chain and the active list */
    uint16_t root_count;
    uint16_t nr_present;
    uint8_t in_use, slots;   /* slots: bit per memory slot mapped from here */
    uint8_t pad[4];
};
#define SHADOW_BUCKETS 256
struct shadow_mmu {
    struct shadow_page page[SHADOW_PAGES];
    uint16_t bucket[SHADOW_BUCKETS];
    uint16_t newest, oldest, free, nr_free;
    uint16_t root;           /* of a 4-level guest */
    uint16_t pae_root[4];    /* else */
    uint8_t glevels;         /* guest paging levels of the context: 0, 2, 3, 4 */
    uint8_t root_valid;
    uint8_t pad[2];
    uint32_t role_bits;      /* WP0, NXE, PSE of the context */
    uint64_t root_hpa;       /* what hardware CR3 is to hold */
    uint64_t last_written_gfn; /* flood detection */
    uint32_t nr_written, pad2;
    uint64_t pf_fixed, pf_guest, zapped, recycled, flushes, table_writes; /* counters */
};

/* ---- the virtual processor ------------------------------------------------------------------------------------------------ */

enum hv_phase { PHASE_USER, PHASE_PRE_ENTRY, PHASE_ENTERED, PHASE_EXITED, PHASE_HANDLED };
enum hv_real_mode { REAL_AUTO, REAL_USER, REAL_VM86, REAL_EMULATE };
/* Faults of the kernels of the time, reproduced on demand (kl_config.history). */
enum hv_history { HISTORY_REAL_EXCEPTIONS = 1, /* exceptions of real mode go to user space, not through the vector table */
                  HISTORY_LAUNCHED = 2,        /* an entry that failed with reason 33 or 34 counts as launched: the next one is error 5 */
                  HISTORY_LOG_MISSES = 4       /* what the emulator stores is not in the dirty log */ };

enum hv_pending { PENDING_NONE, PENDING_IN, PENDING_OUT, PENDING_STRING_IN, PENDING_STRING_OUT, PENDING_CPUID, PENDING_MMIO_READ,
                  PENDING_BLOCK /* real_mode="user": a basic block */ };

struct hv_access { uint64_t address, value; uint8_t kind, size, is_write, pad[5]; };
#define HV_LOG 16

struct hv_exit { /* what the last hardware exit reported, vendor's words */
    uint32_t reason;      /* VMX exit reason, low half of the SVM exit code */
    uint32_t length;      /* of the instruction, 0: not told */
    uint64_t qualification, info2;
    uint32_t interruption, interruption_error; /* VMX layout on both */
    uint32_t vectoring, vectoring_error;
    uint64_t rip;
};

struct hv_io { uint64_t count, address; uint16_t port; uint8_t size, is_in, string, rep, down, length; uint8_t address_size, pad[7]; };

struct hv_vcpu {
    struct guest_gprs gprs;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base; /* as the guest believes */
    uint64_t dr[4], dr6, dr7;
    uint64_t pdpte[4];
    uint64_t irq_pending[4];
    uint64_t stale_mmio;       /* 2006: an answer nobody asked for, given to the next read */
    struct silicon_segment real_seg[8]; /* vm86: the segment caches as the guest believes, and what we made of them */
    struct silicon_segment real_forced[8];
    uint64_t real_flags;       /* vm86: IOPL as the guest believes */
    struct hv_exit exit;
    struct hv_io io;
    struct hv_access log[HV_LOG], device;
    uint64_t answer, debug_address[4];
    uint32_t answer_regs[4];
    uint64_t bad_cycles;       /* exits since an instruction last retired */
    uint64_t last_time;
    uint32_t nr_log;
    uint32_t event, event_error, event_length; /* to inject at the next entry, VMX layout; 0: none */
    uint32_t hardware_reason, block_why;
    uint8_t phase, pending, answered, created;
    uint8_t launched, vm86 /* the VMCS holds real mode as virtual-8086 */, window, needs_flush;
    uint8_t debug_enabled, debug_step, debug_bits, stale_mmio_valid;
    uint8_t step_trap;         /* TF was set over an instruction that we skipped */
    uint8_t device_write;      /* a store to a device waits for its exit */
    uint8_t resume_over;       /* the last stop was a breakpoint: step over it */
    uint8_t block_done;        /* instructions of an emulated block that a stop has cut; 0: no block is under way */
    uint8_t pad[4];
    struct silicon_state block; /* where it stands, as the guest believes; the VMCS says how it began */
};

struct hv_vendor;
struct hv_host_ram; /* hv.c */

struct hv {
    struct hv_slot slot[HV_SLOTS];
    struct hv_vcpu vcpu;
    struct shadow_mmu mmu;
    uint64_t history;
    uint64_t written_gpa, written_old; /* the store to a guest table under way */
    uint32_t written_len;
    uint32_t serial;
    uint8_t real_mode, intel;
    uint8_t quiet;             /* our own stores to guest tables: no zap */
    uint8_t in_emulator;
    uint8_t silent;            /* only looking: walks leave no event */
    uint8_t pad[3];
    char rebuildable;
    struct cpu *cpu;
    struct cpu *emulator;      /* a second processor on the guest-physical space */
    struct trace emulator_trace;
    uint32_t emulator_epoch;   /* of its TLB when it began: a change is a flush that the guest asked for */
    struct space *host, *guest;
    struct memory *memory;
    struct { struct ram *ram, *aux; } slot_ram[HV_SLOTS];
    struct ram *pool;
    const struct hv_vendor *vendor;
    const char *error;
};
#define HV_STATE_BYTES offsetof(struct hv, rebuildable)

/* What a handler says. */
enum hv_verdict { HV_RESUME, HV_TO_USER };

enum hv_entered { HV_ENTERED, HV_EXITED, HV_REFUSED };

struct hv_vendor {
    bool (*host_init)(struct hv *hv);
    bool (*vcpu_setup)(struct hv *hv);
    void (*get)(struct hv *hv, struct silicon_state *s);       /* the state that hardware will load, without general registers but RSP */
    void (*put)(struct hv *hv, const struct silicon_state *s); /* s->cr0, cr3, cr4, efer: hardware values */
    uint64_t (*rip)(struct hv *hv);
    void (*set_rip)(struct hv *hv, uint64_t rip);
    uint64_t (*rsp)(struct hv *hv);
    uint64_t (*rflags)(struct hv *hv);
    void (*set_rflags)(struct hv *hv, uint64_t rflags);
    uint32_t (*shadow)(struct hv *hv);                         /* interruptibility */
    void (*set_shadow)(struct hv *hv, uint32_t interruptibility);
    void (*set_root)(struct hv *hv, uint64_t hpa);
    void (*inject)(struct hv *hv, uint32_t event, uint32_t error, uint32_t length);
    void (*set_window)(struct hv *hv, bool wanted);
    void (*set_exceptions)(struct hv *hv, uint32_t bitmap);
    void (*set_dr7)(struct hv *hv, uint64_t dr7);
    bool (*get_msr)(struct hv *hv, uint32_t index, uint64_t *value); /* false: not kept by the vendor */
    bool (*set_msr)(struct hv *hv, uint32_t index, uint64_t value);
    enum hv_entered (*enter)(struct hv *hv);
    void (*read_exit)(struct hv *hv);                          /* vcpu.exit */
    enum hv_verdict (*handle)(struct hv *hv, kl_exit *exit);
    uint64_t cr0_guest_owned, cr4_guest_owned;
    uint32_t shutdown_reason;
};
extern const struct hv_vendor hv_intel, hv_amd;

int hv_fails(struct hv *hv, enum kl_errno code, const char *text); /* `return hv_fails(…)`: -code */

/* ---- host.c, slots.c, vcpu.c, io.c, exits.c, hv.c ---------------------------------------------------------------------------------------------------------- */

bool hv_init(struct hv *hv, struct cpu *cpu, struct cpu *emulator, struct space *host, struct space *guest, const char **error);
void hv_release(struct hv *hv);
int hv_create_vcpu(struct hv *hv);
int hv_reset(struct hv *hv);
int hv_set_memory_region(struct hv *hv, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags);
int hv_run(struct hv *hv, const kl_run_args *args, kl_exit *exit);
int hv_complete(struct hv *hv, uint64_t value);
int hv_complete_cpuid(struct hv *hv, const uint32_t out[4]);
void hv_complete_pending(struct hv *hv);
void hv_complete_device(struct hv *hv, uint64_t value);
void hv_abandon(struct hv *hv, bool skip); /* what the last exit asked is forgotten; skip: step over its instruction */
void hv_get_state(struct hv *hv, struct silicon_state *s);       /* as the guest believes */
void hv_put_state(struct hv *hv, const struct silicon_state *s);
int64_t hv_string(struct hv *hv, void *bytes, uint64_t len, bool answer); /* elements of a string exit; -1: there is none */
void hv_restored(struct hv *hv);           /* the state was copied in: page attributes */
void hv_come_out(struct hv *hv);           /* if the guest is in the processor: make it leave */
bool hv_get_msr(struct hv *hv, uint32_t index, uint64_t *value);
bool hv_set_msr(struct hv *hv, uint32_t index, uint64_t value);
void hv_skip(struct hv *hv, unsigned length);
void hv_inject(struct hv *hv, unsigned vector, bool has_error, uint32_t error); /* an exception, at the next entry */
void hv_inject_page_fault(struct hv *hv, uint64_t gva, uint32_t error);
bool hv_set_cr0(struct hv *hv, uint64_t value); /* false: #GP */
bool hv_set_cr3(struct hv *hv, uint64_t value);
bool hv_set_cr4(struct hv *hv, uint64_t value);
bool hv_set_cr8(struct hv *hv, uint64_t value);
bool hv_set_efer(struct hv *hv, uint64_t value);
const struct hv_slot *hv_slot_at(const struct hv *hv, uint64_t gpa);
bool hv_guest_read(struct hv *hv, uint64_t gpa, void *to, unsigned len);
void hv_decide(struct hv *hv, uint32_t what, uint64_t address, uint64_t value);
enum hv_decision { DECIDE_GUEST_FAULT = 1, DECIDE_MMIO, DECIDE_TABLE_WRITE, DECIDE_IO, DECIDE_CPUID, DECIDE_HLT, DECIDE_MSR, DECIDE_CR,
                   DECIDE_DR, DECIDE_REAL_MODE, DECIDE_UNKNOWN, DECIDE_INTERRUPT, DECIDE_RETRY_DELIVERY, DECIDE_DEBUG, DECIDE_SHUTDOWN,
                   DECIDE_UNDEFINED };
/* handlers that both vendors share */
enum hv_verdict hv_handle_io(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_handle_cpuid(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_handle_hlt(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_handle_rdmsr(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_handle_wrmsr(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_handle_page_fault(struct hv *hv, uint64_t gva, uint32_t error, kl_exit *exit);
enum hv_verdict hv_handle_exception(struct hv *hv, unsigned vector, kl_exit *exit);
enum hv_verdict hv_handle_window(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_emulate(struct hv *hv, uint32_t why, kl_exit *exit);
enum hv_verdict hv_unknown(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_debug_stop(struct hv *hv, kl_exit *exit);
enum hv_verdict hv_shutdown(struct hv *hv, kl_exit *exit);

/* ---- mmu.c ---------------------------------------------------------------------------------------------------------- */

struct guest_walk {
    uint64_t gva, gpa;
    uint64_t table_gfn[5];  /* by level: the frame of the table that holds the entry */
    uint64_t entry[5];      /* by level, as it is after the walk */
    uint64_t entry_gpa[5];
    uint32_t error;         /* #PF error code if it failed */
    uint8_t levels, leaf_level, writable, user, no_exec, global, dirty;
    uint8_t upper_writable[5], upper_user[5], upper_no_exec[5]; /* what the levels above an entry allow */
};
bool mmu_walk(struct hv *hv, uint64_t gva, uint32_t error, bool commit, struct guest_walk *walk); /* error: the access as #PF bits W U I */
enum mmu_verdict { MMU_FIXED, MMU_EMULATE, MMU_GUEST_FAULT };
enum mmu_verdict mmu_page_fault(struct hv *hv, uint64_t gva, uint32_t error, struct guest_walk *walk);
void mmu_reset_context(struct hv *hv); /* CR0, CR4, EFER, CR3 or memory changed: new roots at the next entry */
void mmu_load_roots(struct hv *hv);
bool mmu_load_pdptes(struct hv *hv, uint64_t cr3);
bool mmu_read_linear(struct hv *hv, uint64_t gva, void *to, unsigned len, uint32_t access); /* through the guest's tables */
bool mmu_write_linear(struct hv *hv, uint64_t gva, const void *from, unsigned len);

/* ---- shadow.c ------------------------------------------------------------------------------------------------------- */

void shadow_init(struct hv *hv);
unsigned shadow_get(struct hv *hv, uint64_t gfn, uint32_t role, bool *found); /* existing or new */
void shadow_reserve(struct hv *hv);                                           /* room for one fault */
bool shadow_is_table(const struct hv *hv, uint64_t gfn);                      /* a guest table that we shadow */
void shadow_zap_gfn(struct hv *hv, uint64_t gfn, uint32_t reason);
void shadow_zap_all(struct hv *hv, uint32_t reason);
void shadow_page_written(struct hv *hv, uint64_t gpa, unsigned len);          /* before a store to a guest table */
void shadow_remove_write(struct hv *hv, uint64_t gfn, int slot);              /* W off in all sptes of the frame */
uint64_t shadow_read(struct hv *hv, unsigned page, unsigned index);
void shadow_set_leaf(struct hv *hv, unsigned page, unsigned index, uint64_t spte, uint64_t gva);
void shadow_set_child(struct hv *hv, unsigned page, unsigned index, unsigned child, bool large, uint64_t gva);
void shadow_drop(struct hv *hv, unsigned page, unsigned index, uint32_t reason);
void shadow_drop_roots(struct hv *hv);
unsigned shadow_page_of(uint64_t hpa); /* NO_SHADOW: none */
uint64_t shadow_hpa(unsigned page);
int shadow_audit(struct hv *hv, const char **what, uint64_t *where); /* 0: A to E hold; else the letter */
unsigned shadow_parents(struct hv *hv, unsigned page, uint64_t *spte_hpa, unsigned most);
unsigned shadow_rmap(struct hv *hv, uint64_t gfn, uint64_t *spte_hpa, unsigned most); /* how many; the first `most` */
enum zap_reason { ZAP_STORE = 1, ZAP_FLOOD, ZAP_MISALIGNED, ZAP_RECYCLED, ZAP_SLOT, ZAP_USER_WRITE, ZAP_DELIVERY, ZAP_PARENT, ZAP_REPLACED };

/* ---- realmode.c, emulate.c, irq.c, dirty.c ------------------------------------------------------------------------------ */

bool real_mode_is_vm86(const struct hv *hv);          /* this processor runs real mode as virtual-8086 */
/* Why something was emulated: word b of the event `emulated`; of real mode, the segment in bits 15:8. */
enum emulated_why { WHY_INSTRUCTION, WHY_LIMIT_HIGH, WHY_LIMIT_LOW, WHY_BASE, WHY_32_BIT, WHY_ALWAYS, WHY_DEVICE, WHY_TABLE, WHY_REGISTER };
bool real_mode_expressible(const struct silicon_state *s, uint32_t *why);
void real_mode_force(struct hv *hv, struct silicon_state *s); /* what the guest believes to what hardware takes */
void real_mode_believe(struct hv *hv, struct silicon_state *s);
void real_mode_leave(struct hv *hv, struct silicon_state *s); /* PE was just set: make the caches legal */
void real_mode_write_tss(struct hv *hv);
uint64_t real_mode_tss(const struct hv *hv);          /* gpa: the last three pages of slot 0 */

enum emulated { EMULATED_OK, EMULATED_USER /* *exit is filled */, EMULATED_INJECT /* the instruction is refused: #GP */, EMULATED_SHUTDOWN };
enum emulated emulate_instruction(struct hv *hv, uint32_t why, kl_exit *exit);
enum hv_verdict emulate_block(struct hv *hv, uint64_t budget, kl_exit *exit, uint32_t why);
void emulate_end_block(struct hv *hv); /* a block that a stop has cut ends where it stands */
bool emulate_event(struct hv *hv, uint32_t event, uint32_t error, uint32_t length); /* deliver through the guest's own tables */
enum insn_class { CLASS_OTHER, CLASS_HLT, CLASS_CPUID, CLASS_IO, CLASS_MSR, CLASS_PRIVILEGED };
void emulate_walk(struct hv *hv, uint64_t gva, int access, int user, kl_walk *walk);
struct hv_decoded { uint8_t length, class, size /* of the operand, bytes */, address_size, rep, string, is_in, seg, is_write_msr, immediate, ends_block, opcode; uint16_t port; };
bool emulate_decode(struct hv *hv, struct hv_decoded *d); /* the instruction at RIP; false: it cannot be read */

void irq_queue(struct hv *hv, unsigned vector);
bool irq_any(const struct hv *hv);
bool irq_before_entry(struct hv *hv); /* false: the event's delivery shut the guest down */
void irq_after_exit(struct hv *hv);    /* an event whose delivery was cut short */

void dirty_mark(struct hv *hv, uint64_t gfn);
int dirty_get(struct hv *hv, uint32_t slot, uint8_t *bitmap, uint64_t bytes);
void dirty_start(struct hv *hv, uint32_t slot); /* the log was turned on */

#endif
