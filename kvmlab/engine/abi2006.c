/* The interface of October 2006: eleven calls on one file descriptor, in front of the model of engine.h.
 *
 * This is the only place that knows `emulated`, `mmio_completed`, `exit_type` and the 48 bytes of struct kvm_run. Numbers and layouts
 * are those of the header as posted, for 64-bit callers; a call with the number of a 32-bit caller is EINVAL, as it was. Structures are
 * copied in and out; the caller's memory is never kept. Host part: not in the portable core. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

/* ---- structures, by byte ------------------------------------------------------------------------------------------- */

struct abi_run { /* 48 bytes */
    uint32_t vcpu, emulated, mmio_completed;
    uint32_t exit_type, exit_reason, instruction_length;
    union {
        struct { uint32_t hardware_exit_reason; } hw;
        struct { uint32_t exception, error_code; } ex;
        struct {
            uint8_t direction, size, string, string_down, rep, pad;
            uint16_t port;
            uint64_t count;
            union { uint64_t address; uint32_t value; } at;
        } io;
        struct { uint64_t phys_addr; uint8_t data[8]; uint32_t len; uint8_t is_write, pad[3]; } mmio;
    } u;
};
struct abi_regs { uint32_t vcpu, padding; uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8_15[8], rip, rflags; };
struct abi_segment { uint64_t base; uint32_t limit; uint16_t selector; uint8_t type, present, dpl, db, s, l, g, avl, unusable, padding; };
struct abi_dtable { uint64_t base; uint16_t limit, padding[3]; };
struct abi_sregs {
    uint32_t vcpu, padding;
    struct abi_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct abi_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint32_t pending_int, padding2;
};
struct abi_translation { uint64_t linear_address; uint32_t vcpu, padding; uint64_t physical_address; uint8_t valid, writeable, usermode, pad[5]; };
struct abi_interrupt { uint32_t vcpu, irq; };
struct abi_debug { uint32_t vcpu, enabled; struct { uint32_t enabled, padding; uint64_t address; } breakpoints[4]; uint32_t singlestep, pad; };
struct abi_region { uint32_t slot, flags; uint64_t guest_phys_addr, memory_size; };
struct abi_dirty_log { uint32_t slot, padding; uint64_t dirty_bitmap; };

_Static_assert(sizeof(struct abi_run) == 48 && sizeof(struct abi_regs) == 152 && sizeof(struct abi_segment) == 24, "as posted");
_Static_assert(sizeof(struct abi_sregs) == 296 && sizeof(struct abi_translation) == 32 && sizeof(struct abi_debug) == 80, "as posted");
_Static_assert(sizeof(struct abi_region) == 24 && sizeof(struct abi_dirty_log) == 16 && sizeof(struct abi_interrupt) == 8, "as posted");

enum abi_number {
    ABI_RUN = 2, ABI_GET_REGS, ABI_SET_REGS, ABI_GET_SREGS, ABI_SET_SREGS, ABI_TRANSLATE, ABI_INTERRUPT, ABI_DEBUG_GUEST,
    ABI_SET_MEMORY_REGION, ABI_CREATE_VCPU, ABI_GET_DIRTY_LOG };
#define ABI_IOW(nr, size) (1u << 30 | (uint32_t)(size) << 16 | 0xAEu << 8 | (nr))
#define ABI_IOWR(nr, size) (3u << 30 | (uint32_t)(size) << 16 | 0xAEu << 8 | (nr))
enum { EXIT_TYPE_FAIL_ENTRY = 1, EXIT_TYPE_VM_EXIT = 2 };
enum { ABI_EXIT_UNKNOWN, ABI_EXIT_EXCEPTION, ABI_EXIT_IO, ABI_EXIT_CPUID, ABI_EXIT_DEBUG, ABI_EXIT_HLT, ABI_EXIT_MMIO };
enum { TRIPLE_FAULT_INTEL = 2, SHUTDOWN_AMD = 0x7f };

struct kl_abi {
    kl_vm *vm;
    kl_exit last;        /* what the caller was told */
    uint8_t has_vcpu, amd, asked /* `last` waits for an answer */, inside /* a run goes on in slices */;
    struct { uint64_t gpa, size; } slot[4];
};

/* ---- life --------------------------------------------------------------------------------------------------------------- */

int kl_abi_open(const kl_config *config, kl_abi **abi, char *message, size_t message_bytes)
{
    kl_abi *self = calloc(1, sizeof *self);
    *abi = NULL;
    if (!self)
        return -(int)KL_ENOMEM;
    int result = kl_create(config, &self->vm, message, message_bytes);
    if (result < 0) {
        free(self);
        return result;
    }
    self->amd = config->cpu && config->cpu[0] == 'a';
    *abi = self;
    return 0;
}

void kl_abi_close(kl_abi *abi)
{
    kl_destroy(abi->vm);
    free(abi);
}

kl_vm *kl_abi_vm(kl_abi *abi) { return abi->vm; }

/* ---- registers -------------------------------------------------------------------------------------------------------------- */

static int get_regs(kl_abi *abi, struct abi_regs *r)
{
    kl_regs regs;
    int result = kl_get_regs(abi->vm, 0, &regs);
    if (result < 0)
        return result;
    r->rax = regs.gpr[0], r->rcx = regs.gpr[1], r->rdx = regs.gpr[2], r->rbx = regs.gpr[3];
    r->rsp = regs.gpr[4], r->rbp = regs.gpr[5], r->rsi = regs.gpr[6], r->rdi = regs.gpr[7];
    memcpy(r->r8_15, &regs.gpr[8], sizeof r->r8_15);
    r->rip = regs.rip, r->rflags = regs.rflags;
    return 0;
}

static int set_regs(kl_abi *abi, const struct abi_regs *r)
{
    kl_regs regs = { .gpr = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi }, .rip = r->rip, .rflags = r->rflags };
    memcpy(&regs.gpr[8], r->r8_15, sizeof r->r8_15);
    return kl_set_regs(abi->vm, 0, &regs);
}

enum { ATTR_S = 1 << 4, ATTR_P = 1 << 7, ATTR_AVL = 1 << 12, ATTR_L = 1 << 13, ATTR_DB = 1 << 14, ATTR_G = 1 << 15, ATTR_UNUSABLE = 1 << 16 };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR };

/* An unusable segment reads back with all its bits 0, `unusable` too. */
static struct abi_segment segment_out(const kl_segment *s)
{
    uint32_t a = s->attr & ATTR_UNUSABLE ? 0 : s->attr;
    return (struct abi_segment){ .base = s->base, .limit = s->limit, .selector = s->selector, .type = a & 15, .present = (a & ATTR_P) != 0,
                                 .dpl = a >> 5 & 3, .db = (a & ATTR_DB) != 0, .s = (a & ATTR_S) != 0, .l = (a & ATTR_L) != 0,
                                 .g = (a & ATTR_G) != 0, .avl = (a & ATTR_AVL) != 0 };
}

/* Rights that are all zero stand for an unusable segment. */
static kl_segment segment_in(const struct abi_segment *s)
{
    uint32_t a = (s->type & 15u) | (s->s ? ATTR_S : 0u) | (s->dpl & 3u) << 5 | (s->present ? ATTR_P : 0u) | (s->avl ? ATTR_AVL : 0u) |
                 (s->l ? ATTR_L : 0u) | (s->db ? ATTR_DB : 0u) | (s->g ? ATTR_G : 0u);
    if (s->unusable || a == 0)
        a = ATTR_UNUSABLE;
    return (kl_segment){ .base = s->base, .limit = s->limit, .attr = a, .selector = s->selector };
}

static int get_sregs(kl_abi *abi, struct abi_sregs *r)
{
    kl_sregs s;
    kl_events events;
    int result = kl_get_sregs(abi->vm, 0, &s);
    if (result < 0 || (result = kl_get_events(abi->vm, 0, &events)) < 0)
        return result;
    r->cs = segment_out(&s.seg[SEG_CS]), r->ds = segment_out(&s.seg[SEG_DS]), r->es = segment_out(&s.seg[SEG_ES]);
    r->fs = segment_out(&s.seg[SEG_FS]), r->gs = segment_out(&s.seg[SEG_GS]), r->ss = segment_out(&s.seg[SEG_SS]);
    r->tr = segment_out(&s.seg[SEG_TR]), r->ldt = segment_out(&s.seg[SEG_LDTR]);
    r->gdt = (struct abi_dtable){ .base = s.gdt_base, .limit = (uint16_t)s.gdt_limit };
    r->idt = (struct abi_dtable){ .base = s.idt_base, .limit = (uint16_t)s.idt_limit };
    r->cr0 = s.cr0, r->cr2 = s.cr2, r->cr3 = s.cr3, r->cr4 = s.cr4, r->cr8 = s.cr8, r->efer = s.efer, r->apic_base = s.apic_base;
    r->pending_int = events.interrupt_pending != 0; /* a boolean, not a vector */
    return 0;
}

static int set_sregs(kl_abi *abi, const struct abi_sregs *r)
{
    kl_sregs s = { .gdt_base = r->gdt.base, .gdt_limit = r->gdt.limit, .idt_base = r->idt.base, .idt_limit = r->idt.limit,
                   .cr0 = r->cr0, .cr2 = r->cr2, .cr3 = r->cr3, .cr4 = r->cr4, .cr8 = r->cr8, .efer = r->efer, .apic_base = r->apic_base };
    s.seg[SEG_CS] = segment_in(&r->cs), s.seg[SEG_DS] = segment_in(&r->ds), s.seg[SEG_ES] = segment_in(&r->es);
    s.seg[SEG_FS] = segment_in(&r->fs), s.seg[SEG_GS] = segment_in(&r->gs), s.seg[SEG_SS] = segment_in(&r->ss);
    s.seg[SEG_TR] = segment_in(&r->tr), s.seg[SEG_LDTR] = segment_in(&r->ldt);
    return kl_set_sregs(abi->vm, 0, &s);
}

/* ---- KVM_RUN ------------------------------------------------------------------------------------------------------------------- */

enum { SLICE = 1 << 20, SLICE_MS = 50 }; /* instructions, or time, between two looks at signals */

/* An engine without `legacy` completes the last access by itself, with what user space has put into RAX. */
static int legacy(kl_abi *abi, unsigned what, uint64_t value)
{
    kl_regs regs;
    if (abi->vm->ops->legacy)
        return abi->vm->ops->legacy(abi->vm, what, value);
    if (what != LEGACY_SKIP || !abi->asked || abi->last.reason != KL_EXIT_IO || abi->last.is_write || abi->last.string)
        return 0;
    int result = kl_get_regs(abi->vm, 0, &regs);
    return result < 0 ? result : kl_complete(abi->vm, 0, regs.gpr[0]);
}

/* What `emulated` and `mmio_completed` say about the last exit. */
static void answer(kl_abi *abi, const struct abi_run *run)
{
    bool read_waits = abi->asked && abi->last.reason == KL_EXIT_MMIO && !abi->last.is_write;
    uint64_t data;
    memcpy(&data, run->u.mmio.data, sizeof data);
    if (run->emulated)
        (void)legacy(abi, LEGACY_SKIP, 0);
    else if (!(read_waits && run->mmio_completed))
        (void)legacy(abi, LEGACY_RETRY, 0);
    if (run->mmio_completed && read_waits)
        (void)kl_complete(abi->vm, 0, data);
    else if (run->mmio_completed)
        (void)legacy(abi, LEGACY_STALE_MMIO, data); /* nobody asked: the next read from a device will find it */
    abi->asked = 0;
}

static void describe_io(const kl_exit *exit, struct abi_run *run)
{
    run->u.io.direction = exit->is_write;
    run->u.io.size = exit->size;
    run->u.io.string = exit->string;
    run->u.io.string_down = exit->down;
    run->u.io.rep = exit->rep;
    run->u.io.port = exit->port;
    if (exit->string) {
        run->u.io.count = exit->count;
        run->u.io.at.address = exit->address;
    } else {
        run->u.io.at.value = exit->is_write ? (uint32_t)exit->value : 0;
    }
}

static void describe(const kl_abi *abi, const kl_exit *exit, struct abi_run *run)
{
    run->exit_type = EXIT_TYPE_VM_EXIT;
    run->instruction_length = abi->amd ? 0 : exit->instruction_length;
    memset(&run->u, 0, sizeof run->u);
    switch (exit->reason) {
    case KL_EXIT_FAIL_ENTRY:
        run->exit_type = EXIT_TYPE_FAIL_ENTRY;
        run->exit_reason = exit->entry_error; /* the hardware's number, not one of ours */
        break;
    case KL_EXIT_EXCEPTION:
        run->exit_reason = ABI_EXIT_EXCEPTION;
        run->u.ex.exception = exit->exception;
        run->u.ex.error_code = exit->error_code;
        break;
    case KL_EXIT_IO:
        run->exit_reason = ABI_EXIT_IO;
        describe_io(exit, run);
        break;
    case KL_EXIT_CPUID: run->exit_reason = ABI_EXIT_CPUID; break;
    case KL_EXIT_DEBUG: run->exit_reason = ABI_EXIT_DEBUG; break;
    case KL_EXIT_HLT: run->exit_reason = ABI_EXIT_HLT; break;
    case KL_EXIT_MMIO:
        run->exit_reason = ABI_EXIT_MMIO;
        run->u.mmio.phys_addr = exit->address;
        run->u.mmio.len = exit->size;
        run->u.mmio.is_write = exit->is_write;
        if (exit->is_write)
            memcpy(run->u.mmio.data, &exit->value, sizeof run->u.mmio.data);
        break;
    case KL_EXIT_SHUTDOWN:
        run->exit_reason = ABI_EXIT_UNKNOWN;
        run->u.hw.hardware_exit_reason = abi->amd ? SHUTDOWN_AMD : TRIPLE_FAULT_INTEL;
        break;
    case KL_EXIT_REAL_MODE: /* the entry that would be refused: user space may emulate a block */
        run->exit_reason = ABI_EXIT_UNKNOWN;
        run->u.hw.hardware_exit_reason = 0x80000021;
        break;
    default:
        run->exit_reason = ABI_EXIT_UNKNOWN;
        run->u.hw.hardware_exit_reason = exit->hardware_reason;
        break;
    }
}

static int run_slice(kl_abi *abi, struct abi_run *run)
{
    bool counts = abi->vm->ops->legacy != NULL; /* /dev/kvm goes by time */
    const kl_run_args args = { .max_instructions = counts ? SLICE : ~0ull, .time_limit_ms = counts ? 0 : SLICE_MS };
    kl_exit exit;
    if (!abi->inside)
        answer(abi, run);
    run->emulated = 0;
    abi->inside = 1;
    int result = kl_run(abi->vm, 0, &args, &exit);
    if (result < 0) {
        abi->inside = 0;
        return result;
    }
    if (exit.reason == KL_EXIT_LIMIT && !exit.no_progress)
        return KL_ABI_AGAIN;
    abi->inside = 0;
    run->exit_type = 0;
    if (exit.reason == KL_EXIT_STOPPED || exit.reason == KL_EXIT_LIMIT)
        return -(int)KL_EINTR;
    describe(abi, &exit, run);
    abi->last = exit;
    abi->asked = 1;
    return 0;
}

/* ---- the others -------------------------------------------------------------------------------------------------------------------- */

static int set_memory_region(kl_abi *abi, const struct abi_region *region)
{
    if (region->slot >= 4 || (region->flags & ~1u))
        return -(int)KL_EINVAL;
    if (region->memory_size == 0 && abi->slot[region->slot].size == 0)
        return 0; /* nothing to remove */
    int result = kl_set_memory_region(abi->vm, region->slot, region->guest_phys_addr, region->memory_size, region->flags);
    if (result == 0) {
        abi->slot[region->slot].gpa = region->guest_phys_addr;
        abi->slot[region->slot].size = region->memory_size;
    }
    return result;
}

/* Guest memory, by guest-physical offset: inside one slot, for the caller to read and write. */
int kl_abi_mmap(kl_abi *abi, uint64_t length, uint64_t offset, kl_view *view)
{
    for (unsigned k = 0; k < 4; k++) {
        uint64_t start = offset - abi->slot[k].gpa;
        if (start >= abi->slot[k].size || length > abi->slot[k].size - start)
            continue;
        int result = kl_view_get(abi->vm, k, view);
        if (result < 0)
            return result;
        abi->vm->mapped = 1;
        view->bytes += start;
        view->size = length;
        return 0;
    }
    return -(int)KL_EFAULT; /* an access there would be SIGBUS */
}

static int create_vcpu(kl_abi *abi, uint64_t number)
{
    if (number != 0)
        return -(int)KL_EINVAL;
    int result = abi->has_vcpu ? -(int)KL_EEXIST : kl_create_vcpu(abi->vm, 0);
    abi->has_vcpu |= result == 0;
    return result;
}

static int dirty_log(kl_abi *abi, const struct abi_dirty_log *log)
{
    if (log->slot >= 4 || !abi->slot[log->slot].size)
        return -(int)KL_EINVAL;
    uint64_t bytes = ((abi->slot[log->slot].size >> 12) + 7) / 8;
    return kl_dirty_log(abi->vm, log->slot, (uint8_t *)(uintptr_t)log->dirty_bitmap, bytes);
}

static int debug_guest(kl_abi *abi, const struct abi_debug *d)
{
    kl_guest_debug debug = { .enabled = d->enabled, .single_step = d->singlestep };
    if (abi->amd)
        return -(int)KL_ENOTSUP; /* SVM had no such thing */
    for (unsigned k = 0; k < 4; k++) {
        debug.breakpoint[k].enabled = d->breakpoints[k].enabled;
        debug.breakpoint[k].address = d->breakpoints[k].address;
    }
    return kl_debug(abi->vm, 0, &debug);
}

static int translate(kl_abi *abi, struct abi_translation *t)
{
    kl_translation out;
    int result = kl_translate(abi->vm, 0, t->linear_address, &out);
    t->physical_address = out.valid ? out.gpa : ~0ull;
    t->valid = out.valid;
    t->writeable = 1; /* constants, as they were */
    t->usermode = 0;
    return result;
}

/* `argument`: the caller's structure; for CREATE_VCPU its value. 0, KL_ABI_AGAIN (call RUN again, nothing happened yet), -errno. */
int kl_abi_ioctl(kl_abi *abi, uint32_t number, void *argument, uint64_t value)
{
    static const uint32_t numbers[] = {
        [ABI_RUN] = ABI_IOWR(ABI_RUN, sizeof(struct abi_run)), [ABI_GET_REGS] = ABI_IOWR(ABI_GET_REGS, sizeof(struct abi_regs)),
        [ABI_SET_REGS] = ABI_IOW(ABI_SET_REGS, sizeof(struct abi_regs)), [ABI_GET_SREGS] = ABI_IOWR(ABI_GET_SREGS, sizeof(struct abi_sregs)),
        [ABI_SET_SREGS] = ABI_IOW(ABI_SET_SREGS, sizeof(struct abi_sregs)),
        [ABI_TRANSLATE] = ABI_IOWR(ABI_TRANSLATE, sizeof(struct abi_translation)),
        [ABI_INTERRUPT] = ABI_IOW(ABI_INTERRUPT, sizeof(struct abi_interrupt)),
        [ABI_DEBUG_GUEST] = ABI_IOW(ABI_DEBUG_GUEST, sizeof(struct abi_debug)),
        [ABI_SET_MEMORY_REGION] = ABI_IOW(ABI_SET_MEMORY_REGION, sizeof(struct abi_region)),
        [ABI_CREATE_VCPU] = ABI_IOW(ABI_CREATE_VCPU, sizeof(int)),
        [ABI_GET_DIRTY_LOG] = ABI_IOW(ABI_GET_DIRTY_LOG, sizeof(struct abi_dirty_log)),
    };
    unsigned nr = number & 0xff;
    if (nr < ABI_RUN || nr > ABI_GET_DIRTY_LOG || number != numbers[nr])
        return -(int)KL_EINVAL;
    if (nr == ABI_CREATE_VCPU)
        return create_vcpu(abi, value);
    if (!argument)
        return -(int)KL_EFAULT;
    if (nr == ABI_SET_MEMORY_REGION)
        return set_memory_region(abi, argument);
    if (nr == ABI_GET_DIRTY_LOG)
        return dirty_log(abi, argument);
    uint32_t vcpu;
    memcpy(&vcpu, nr == ABI_TRANSLATE ? (char *)argument + offsetof(struct abi_translation, vcpu) : argument, sizeof vcpu);
    if (vcpu != 0)
        return -(int)KL_EINVAL;
    if (!abi->has_vcpu)
        return -(int)KL_ENOENT;
    switch (nr) {
    case ABI_RUN: return run_slice(abi, argument);
    case ABI_GET_REGS: return get_regs(abi, argument);
    case ABI_SET_REGS: return set_regs(abi, argument);
    case ABI_GET_SREGS: return get_sregs(abi, argument);
    case ABI_SET_SREGS: return set_sregs(abi, argument);
    case ABI_TRANSLATE: return translate(abi, argument);
    case ABI_INTERRUPT: return kl_interrupt(abi->vm, 0, ((const struct abi_interrupt *)argument)->irq);
    default: return debug_guest(abi, argument);
    }
}
