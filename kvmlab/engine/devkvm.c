/* The kvm engine: /dev/kvm behind the model of engine.h (Linux on x86-64).
 *
 * The kernel's interface of today is turned into the contract of the model: RIP stands on the instruction of an
 * I/O exit, a repeated string is one exit with its address and count, MMIO writes are committed and reads are
 * not. RIP at an exit is never trusted: hosts differ (measured: OUT leaves with RIP behind it where the kernel
 * emulates, on it where hardware runs). What an exit was is found out in devkvm_exit.c.
 *
 * A guest that never leaves is stopped by a signal to the thread that runs it plus immediate_exit. */
#define _GNU_SOURCE
#include "devkvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct devkvm *kvm_of(kl_vm *vm) { return (struct devkvm *)vm; }

/* ---- stopping ------------------------------------------------------------------------------------ */

static _Thread_local struct kvm_run *entered; /* what this thread is inside of */

static int stop_signal(void) { return SIGRTMIN + 4; }

static void on_stop_signal(int number)
{
    (void)number;
    if (entered)
        entered->immediate_exit = 1;
}

static void install_stop_signal(void)
{
    struct sigaction action = { .sa_handler = on_stop_signal };
    sigemptyset(&action.sa_mask);
    sigaction(stop_signal(), &action, NULL); /* no SA_RESTART: KVM_RUN comes back with EINTR */
}

static void devkvm_kick(kl_vm *vm)
{
    struct devkvm *k = kvm_of(vm);
    atomic_store(&k->kicked, 1);
    k->run->immediate_exit = 1;
    if (atomic_load(&k->running))
        pthread_kill(k->runner, stop_signal());
}

static bool start_timer(timer_t *timer, uint32_t milliseconds)
{
    struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = stop_signal() };
    struct itimerspec when = { .it_value = { milliseconds / 1000, (long)(milliseconds % 1000) * 1000000 },
                               .it_interval = { 0, 5 * 1000000 } }; /* again, should the first come between two entries */
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    return timer_create(CLOCK_MONOTONIC, &event, timer) == 0 && timer_settime(*timer, 0, &when, NULL) == 0;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static void devkvm_destroy(kl_vm *vm)
{
    struct devkvm *k = kvm_of(vm);
    if (k->run && (void *)k->run != MAP_FAILED)
        munmap(k->run, k->run_size);
    if (k->vcpu >= 0)
        close(k->vcpu);
    if (k->machine >= 0)
        close(k->machine);
    if (k->kvm >= 0)
        close(k->kvm);
    memory_release(&k->memory);
    free(k->cpuid);
    free(k->string);
    free(k);
}

static int from_errno(kl_vm *vm, const char *text)
{
    vm->error = text;
    return -errno;
}

static int load_cpuid(struct devkvm *k)
{
    k->cpuid = calloc(1, sizeof *k->cpuid + MAX_CPUID * sizeof k->cpuid->entries[0]);
    if (!k->cpuid)
        return -(int)KL_ENOMEM;
    k->cpuid->nent = MAX_CPUID;
    if (ioctl(k->kvm, KVM_GET_SUPPORTED_CPUID, k->cpuid) < 0 || ioctl(k->vcpu, KVM_SET_CPUID2, k->cpuid) < 0)
        return from_errno(&k->vm, "/dev/kvm did not take the CPUID table it offers");
    return 0;
}

static int open_devices(struct devkvm *k, const char **error)
{
    k->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (k->kvm < 0) {
        *error = errno == EACCES ? "/dev/kvm is there but may not be opened: join its group (often: usermod -aG kvm USER), or use engine=\"soft\""
                                 : "this host has no /dev/kvm: use engine=\"soft\"";
        return errno == EACCES ? -(int)KL_EACCES : -(int)KL_ENODEV;
    }
    if (ioctl(k->kvm, KVM_GET_API_VERSION, 0) != 12) {
        *error = "/dev/kvm speaks another version of its interface than 12";
        return -(int)KL_ENODEV;
    }
    int run_size = ioctl(k->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    k->machine = ioctl(k->kvm, KVM_CREATE_VM, 0);
    if (k->machine < 0 || run_size <= 0) {
        *error = "/dev/kvm could not make a virtual machine";
        return -errno;
    }
    k->run_size = (size_t)run_size;
    ioctl(k->machine, KVM_SET_TSS_ADDR, 0xfffbd000ul); /* old Intel hosts need a place for their real-mode TSS */
    k->vcpu = ioctl(k->machine, KVM_CREATE_VCPU, 0);
    k->run = k->vcpu < 0 ? NULL : mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->vcpu, 0);
    if (k->vcpu < 0 || (void *)k->run == MAP_FAILED) {
        *error = "/dev/kvm could not make a virtual processor";
        return -errno;
    }
    return 0;
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static int set_region(struct devkvm *k, uint32_t slot, uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot, .flags = k->slot[slot].flags & 1 ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = k->slot[slot].gpa, .memory_size = size,
        .userspace_addr = (uint64_t)(uintptr_t)k->slot[slot].ram->host };
    return ioctl(k->machine, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? from_errno(&k->vm, "/dev/kvm did not take the memory slot") : 0;
}

static int devkvm_set_memory_region(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags)
{
    struct devkvm *k = kvm_of(vm);
    if (size && k->slot[slot].size) {
        if (size != k->slot[slot].size || gpa != k->slot[slot].gpa)
            return refuse(vm, KL_EINVAL, "a memory slot cannot be moved or resized: remove it first (size 0)");
        k->slot[slot].flags = flags;
        return set_region(k, slot, size);
    }
    if (size == 0) {
        if (!k->slot[slot].size)
            return refuse(vm, KL_ENOENT, "there is no memory in this slot");
        int result = set_region(k, slot, 0);
        if (result == 0) {
            ram_put(k->slot[slot].ram);
            memset(&k->slot[slot], 0, sizeof k->slot[slot]);
        }
        return result;
    }
    for (unsigned s = 0; s < NR_SLOTS; s++)
        if (k->slot[s].size && gpa < k->slot[s].gpa + k->slot[s].size && k->slot[s].gpa < gpa + size)
            return refuse(vm, KL_EEXIST, "the memory slot overlaps another one");
    struct ram *ram = memory_add_ram(&k->memory, size);
    if (!ram)
        return refuse(vm, KL_ENOMEM, "so much memory cannot be had");
    k->slot[slot].gpa = gpa, k->slot[slot].size = size, k->slot[slot].flags = flags, k->slot[slot].ram = ram;
    int result = set_region(k, slot, size);
    if (result < 0) {
        ram_put(ram);
        memset(&k->slot[slot], 0, sizeof k->slot[slot]);
    }
    return result;
}

/* Copies between a buffer and the slots; holes read ones and drop writes. */
int64_t devkvm_copy(struct devkvm *k, uint64_t gpa, uint8_t *to, const uint8_t *from, uint64_t len)
{
    int64_t answered = 0;
    for (uint64_t n; len; len -= n, gpa += n) {
        uint8_t *host = NULL;
        n = PAGE_SIZE - (gpa & (PAGE_SIZE - 1));
        n = n < len ? n : len;
        for (unsigned s = 0; s < NR_SLOTS; s++)
            if (k->slot[s].size && gpa - k->slot[s].gpa < k->slot[s].size)
                host = k->slot[s].ram->host + (gpa - k->slot[s].gpa);
        if (to) {
            host ? memcpy(to, host, n) : memset(to, 0xff, n);
            to += n;
        } else {
            if (host)
                memcpy(host, from, n);
            from += n;
        }
        answered += host ? (int64_t)n : 0;
    }
    return answered;
}

#define ONLY_GUEST_PHYSICAL(space) \
    if (space != 0)                \
    return refuse(vm, KL_ENOTSUP, "host-physical memory is the kernel's and not visible here")

static int64_t devkvm_read(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len)
{
    ONLY_GUEST_PHYSICAL(space);
    return devkvm_copy(kvm_of(vm), address, to, NULL, len);
}

static int64_t devkvm_write(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len)
{
    ONLY_GUEST_PHYSICAL(space);
    return devkvm_copy(kvm_of(vm), address, NULL, from, len);
}

static int devkvm_view_get(kl_vm *vm, uint32_t slot, kl_view *view)
{
    struct devkvm *k = kvm_of(vm);
    if (slot >= NR_SLOTS || !k->slot[slot].size)
        return refuse(vm, KL_ENOENT, "there is no memory in this slot");
    *view = (kl_view){ .bytes = k->slot[slot].ram->host, .size = k->slot[slot].size, .handle = k->slot[slot].ram };
    ram_get(k->slot[slot].ram);
    return 0;
}

static int devkvm_dirty_log(kl_vm *vm, uint32_t slot, uint8_t *bitmap, uint64_t bytes)
{
    struct devkvm *k = kvm_of(vm);
    if (slot >= NR_SLOTS || !k->slot[slot].size)
        return refuse(vm, KL_EINVAL, "there is no memory in this slot");
    if (!(k->slot[slot].flags & 1))
        return refuse(vm, KL_ENOENT, "this slot does not log dirty pages: set it with log_dirty=True");
    uint64_t need = (k->slot[slot].size / PAGE_SIZE + 63) / 64 * 8;
    uint8_t *whole = calloc(1, need);
    if (!whole)
        return refuse(vm, KL_ENOMEM, "no memory for the dirty bitmap");
    struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = whole };
    int result = ioctl(k->machine, KVM_GET_DIRTY_LOG, &log) < 0 ? from_errno(vm, "/dev/kvm refused the dirty log") : 0;
    memcpy(bitmap, whole, bytes < need ? bytes : need);
    free(whole);
    return result;
}

/* ---- state ----------------------------------------------------------------------------------------------- */

/* The two orders of general registers: ours is the encoding's, the kernel's is its own. */
static void regs_from_kernel(kl_regs *to, const struct kvm_regs *r)
{
    const uint64_t gpr[16] = { r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                               r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15 };
    memcpy(to->gpr, gpr, sizeof gpr);
    to->rip = r->rip;
    to->rflags = r->rflags;
}

static void regs_to_kernel(struct kvm_regs *r, const kl_regs *from)
{
    const uint64_t *g = from->gpr;
    *r = (struct kvm_regs){ .rax = g[0], .rcx = g[1], .rdx = g[2], .rbx = g[3], .rsp = g[4], .rbp = g[5], .rsi = g[6],
                            .rdi = g[7], .r8 = g[8], .r9 = g[9], .r10 = g[10], .r11 = g[11], .r12 = g[12], .r13 = g[13],
                            .r14 = g[14], .r15 = g[15], .rip = from->rip, .rflags = from->rflags };
}

int devkvm_kernel_regs(struct devkvm *k, kl_regs *regs)
{
    struct kvm_regs r;
    if (ioctl(k->vcpu, KVM_GET_REGS, &r) < 0)
        return from_errno(&k->vm, "/dev/kvm refused the registers");
    regs_from_kernel(regs, &r);
    return 0;
}

static int set_kernel_regs(struct devkvm *k, const kl_regs *regs)
{
    struct kvm_regs r;
    regs_to_kernel(&r, regs);
    return ioctl(k->vcpu, KVM_SET_REGS, &r) < 0 ? from_errno(&k->vm, "/dev/kvm refused the registers") : 0;
}

static int devkvm_get_regs(kl_vm *vm, kl_regs *regs)
{
    struct devkvm *k = kvm_of(vm);
    if (!k->shown_valid)
        return devkvm_kernel_regs(k, regs);
    *regs = k->shown;
    return 0;
}

static int finish_pending(struct devkvm *k);

/* Registers that the caller did not change keep what the finished instruction made of them. */
static int devkvm_set_regs(kl_vm *vm, const kl_regs *regs)
{
    struct devkvm *k = kvm_of(vm);
    kl_regs now = *regs;
    if (k->answer_due) {
        kl_regs before, after;
        int result = devkvm_kernel_regs(k, &before);
        result = result ? result : finish_pending(k);
        result = result ? result : devkvm_kernel_regs(k, &after);
        if (result)
            return result;
        k->shown = before, k->behind = after, k->shown_valid = true;
    }
    if (k->shown_valid) {
        for (unsigned n = 0; n < 16; n++)
            if (now.gpr[n] == k->shown.gpr[n])
                now.gpr[n] = k->behind.gpr[n];
        if (now.rip == k->shown.rip)
            now.rip = k->behind.rip;
        if (now.rflags == k->shown.rflags)
            now.rflags = k->behind.rflags;
        k->shown_valid = false;
    }
    return set_kernel_regs(k, &now);
}

static void segment_from_kernel(kl_segment *to, const struct kvm_segment *s)
{
    to->base = s->base, to->limit = s->limit, to->selector = s->selector;
    to->attr = s->type | (uint32_t)s->s << 4 | (uint32_t)s->dpl << 5 | (uint32_t)s->present << 7 | (uint32_t)s->avl << 12 |
               (uint32_t)s->l << 13 | (uint32_t)s->db << 14 | (uint32_t)s->g << 15 | (uint32_t)s->unusable << 16;
}

static void segment_to_kernel(struct kvm_segment *to, const kl_segment *s)
{
    *to = (struct kvm_segment){ .base = s->base, .limit = s->limit, .selector = s->selector, .type = s->attr & 15,
                                .s = s->attr >> 4 & 1, .dpl = s->attr >> 5 & 3, .present = s->attr >> 7 & 1,
                                .avl = s->attr >> 12 & 1, .l = s->attr >> 13 & 1, .db = s->attr >> 14 & 1,
                                .g = s->attr >> 15 & 1, .unusable = s->attr >> 16 & 1 };
}

static int devkvm_get_sregs(kl_vm *vm, kl_sregs *s)
{
    struct kvm_sregs r;
    if (ioctl(kvm_of(vm)->vcpu, KVM_GET_SREGS, &r) < 0)
        return from_errno(vm, "/dev/kvm refused the system registers");
    const struct kvm_segment *seg[8] = { &r.es, &r.cs, &r.ss, &r.ds, &r.fs, &r.gs, &r.ldt, &r.tr };
    memset(s, 0, sizeof *s);
    for (unsigned n = 0; n < 8; n++)
        segment_from_kernel(&s->seg[n], seg[n]);
    s->gdt_base = r.gdt.base, s->gdt_limit = r.gdt.limit, s->idt_base = r.idt.base, s->idt_limit = r.idt.limit;
    s->cr0 = r.cr0, s->cr2 = r.cr2, s->cr3 = r.cr3, s->cr4 = r.cr4, s->cr8 = r.cr8;
    s->efer = r.efer, s->apic_base = r.apic_base;
    return 0;
}

static int devkvm_set_sregs(kl_vm *vm, const kl_sregs *s)
{
    struct devkvm *k = kvm_of(vm);
    struct kvm_sregs r;
    if (ioctl(k->vcpu, KVM_GET_SREGS, &r) < 0)
        return from_errno(vm, "/dev/kvm refused the system registers");
    struct kvm_segment *seg[8] = { &r.es, &r.cs, &r.ss, &r.ds, &r.fs, &r.gs, &r.ldt, &r.tr };
    for (unsigned n = 0; n < 8; n++)
        segment_to_kernel(seg[n], &s->seg[n]);
    r.gdt.base = s->gdt_base, r.gdt.limit = (uint16_t)s->gdt_limit;
    r.idt.base = s->idt_base, r.idt.limit = (uint16_t)s->idt_limit;
    r.cr0 = s->cr0, r.cr2 = s->cr2, r.cr3 = s->cr3, r.cr4 = s->cr4, r.cr8 = s->cr8;
    r.efer = s->efer, r.apic_base = s->apic_base;
    return ioctl(k->vcpu, KVM_SET_SREGS, &r) < 0
               ? from_errno(vm, "/dev/kvm refused the system registers: CR0, CR4 or EFER hold bits this host does not offer its guests")
               : 0;
}

static int devkvm_get_events(kl_vm *vm, kl_events *e)
{
    struct devkvm *k = kvm_of(vm);
    struct kvm_vcpu_events events = { 0 };
    struct kvm_debugregs debug = { 0 };
    struct kvm_mp_state activity = { 0 };
    memset(e, 0, sizeof *e);
    if (ioctl(k->vcpu, KVM_GET_VCPU_EVENTS, &events) < 0 || ioctl(k->vcpu, KVM_GET_DEBUGREGS, &debug) < 0)
        return from_errno(vm, "/dev/kvm refused the pending events");
    ioctl(k->vcpu, KVM_GET_MP_STATE, &activity);
    memcpy(e->dr, debug.db, sizeof debug.db);
    e->dr[6] = debug.dr6, e->dr[7] = debug.dr7;
    e->xcr0 = 1;
    e->activity = activity.mp_state == KVM_MP_STATE_HALTED;
    e->interruptibility = (events.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? 1u : 0) |
                          (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2u : 0) | (events.nmi.masked ? 8u : 0);
    memcpy(e->interrupt_bitmap, k->queued, sizeof k->queued);
    e->interrupt_pending = (k->queued[0] | k->queued[1] | k->queued[2] | k->queued[3]) != 0;
    e->nmi_pending = events.nmi.pending;
    for (unsigned v = 256; v-- > 0;)
        if (k->queued[v / 64] >> v % 64 & 1)
            e->interrupt_vector = v;
    return 0;
}

static int devkvm_set_events(kl_vm *vm, const kl_events *e)
{
    struct devkvm *k = kvm_of(vm);
    struct kvm_vcpu_events events;
    struct kvm_debugregs debug = { .dr6 = e->dr[6], .dr7 = e->dr[7] };
    memcpy(debug.db, e->dr, sizeof debug.db);
    if (ioctl(k->vcpu, KVM_GET_VCPU_EVENTS, &events) < 0)
        return from_errno(vm, "/dev/kvm refused the pending events");
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
    events.interrupt.shadow = (uint8_t)((e->interruptibility & 1 ? KVM_X86_SHADOW_INT_STI : 0) |
                                        (e->interruptibility & 2 ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    events.nmi.masked = e->interruptibility >> 3 & 1;
    events.nmi.pending = e->nmi_pending != 0;
    memcpy(k->queued, e->interrupt_bitmap, sizeof k->queued);
    if (ioctl(k->vcpu, KVM_SET_VCPU_EVENTS, &events) < 0 || ioctl(k->vcpu, KVM_SET_DEBUGREGS, &debug) < 0)
        return from_errno(vm, "/dev/kvm refused the pending events");
    return 0;
}

static int devkvm_get_msr(kl_vm *vm, uint32_t index, uint64_t *value)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = { .head = { .nmsrs = 1 }, .entry = { .index = index } };
    if (ioctl(kvm_of(vm)->vcpu, KVM_GET_MSRS, &msr) != 1)
        return refuse(vm, KL_EINVAL, "this host's /dev/kvm has no such MSR");
    *value = msr.entry.data;
    return 0;
}

static int devkvm_set_msr(kl_vm *vm, uint32_t index, uint64_t value)
{
    struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msr = { .head = { .nmsrs = 1 },
                                                                         .entry = { .index = index, .data = value } };
    return ioctl(kvm_of(vm)->vcpu, KVM_SET_MSRS, &msr) != 1
               ? refuse(vm, KL_EINVAL, "this host's /dev/kvm has no such MSR, or does not take the value")
               : 0;
}

static int devkvm_interrupt(kl_vm *vm, uint32_t vector)
{
    kvm_of(vm)->queued[vector / 64] |= 1ull << vector % 64;
    return 0;
}

static int devkvm_nmi(kl_vm *vm)
{
    return ioctl(kvm_of(vm)->vcpu, KVM_NMI, 0) < 0 ? from_errno(vm, "/dev/kvm cannot inject an NMI") : 0;
}

static int devkvm_translate(kl_vm *vm, uint64_t gva, kl_translation *t)
{
    struct kvm_translation translation = { .linear_address = gva };
    if (ioctl(kvm_of(vm)->vcpu, KVM_TRANSLATE, &translation) < 0)
        return from_errno(vm, "/dev/kvm refused to translate");
    *t = (kl_translation){ .gpa = translation.valid ? translation.physical_address : ~0ull, .valid = translation.valid,
                           .writeable = translation.writeable, .usermode = translation.usermode };
    return 0;
}

static int devkvm_debug(kl_vm *vm, const kl_guest_debug *debug)
{
    kvm_of(vm)->debug = *debug;
    return 0;
}

static int devkvm_cpuid(kl_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct devkvm *k = kvm_of(vm);
    memset(out, 0, 4 * sizeof *out);
    for (uint32_t n = 0; n < k->cpuid->nent; n++) {
        const struct kvm_cpuid_entry2 *e = &k->cpuid->entries[n];
        if (e->function == leaf && (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX))) {
            out[0] = e->eax, out[1] = e->ebx, out[2] = e->ecx, out[3] = e->edx;
            return 0;
        }
    }
    return 0;
}

/* ---- entering ------------------------------------------------------------------------------------------------ */

int devkvm_enter(struct devkvm *k)
{
    entered = k->run;
    int result = ioctl(k->vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
    entered = NULL;
    return result;
}

/* A RUN that is told to leave at once completes the instruction whose answer is at hand. */
static int finish_pending(struct devkvm *k)
{
    k->answer_due = false;
    k->run->immediate_exit = 1;
    int result = devkvm_enter(k);
    k->run->immediate_exit = 0;
    return result == -EINTR || result == 0 ? 0 : from_errno(&k->vm, "/dev/kvm could not complete the access");
}

static int arm_debug(struct devkvm *k, bool step)
{
    struct kvm_guest_debug debug = { 0 };
    unsigned nr = 0;
    for (unsigned n = 0; n < 4; n++)
        if (k->debug.enabled && k->debug.breakpoint[n].enabled) {
            debug.arch.debugreg[nr] = k->debug.breakpoint[n].address;
            debug.arch.debugreg[7] |= 2ull << 2 * nr++;
        }
    if (nr)
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    if (step || (k->debug.enabled && k->debug.single_step))
        debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    return ioctl(k->vcpu, KVM_SET_GUEST_DEBUG, &debug) < 0 ? from_errno(&k->vm, "/dev/kvm refused the breakpoints") : 0;
}

int devkvm_next_vector(const struct devkvm *k)
{
    for (unsigned v = 0; v < 256; v++)
        if (k->queued[v / 64] >> v % 64 & 1)
            return (int)v;
    return -1;
}

static void inject_or_ask(struct devkvm *k)
{
    int vector = devkvm_next_vector(k);
    k->run->request_interrupt_window = 0;
    if (vector < 0)
        return;
    struct kvm_interrupt irq = { .irq = (uint32_t)vector };
    if (k->run->ready_for_interrupt_injection && ioctl(k->vcpu, KVM_INTERRUPT, &irq) == 0)
        k->queued[vector / 64] &= ~(1ull << vector % 64);
    k->run->request_interrupt_window = devkvm_next_vector(k) >= 0;
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static uint64_t milliseconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* deadline 0: none. */
static int run_until_exit(struct devkvm *k, uint64_t deadline, kl_exit *exit)
{
    for (;;) {
        inject_or_ask(k);
        if (atomic_load(&k->kicked))
            k->run->immediate_exit = 1;
        int result = devkvm_enter(k);
        k->run->immediate_exit = 0;
        if (result == -EINTR || result == -EAGAIN) {
            if (atomic_exchange(&k->kicked, 0))
                exit->reason = KL_EXIT_STOPPED;
            else if (deadline && milliseconds_now() >= deadline)
                exit->reason = KL_EXIT_LIMIT;
            else if (deadline)
                continue; /* the timer's signal, a little early */
            else
                exit->reason = KL_EXIT_STOPPED; /* some other signal: the caller wants to see it */
            return 0;
        }
        if (result < 0)
            return from_errno(&k->vm, "KVM_RUN failed");
        k->answer_due = false;
        if (devkvm_describe(k, exit))
            return 0;
    }
}

static void answer_with_ones(struct devkvm *k)
{
    struct kvm_run *run = k->run;
    if (!k->answer_due || k->answered)
        return;
    if (run->exit_reason == KVM_EXIT_IO)
        memset((uint8_t *)run + run->io.data_offset, 0xff, (size_t)run->io.size * run->io.count);
    else
        memset(run->mmio.data, 0xff, sizeof run->mmio.data);
}

static int devkvm_run(kl_vm *vm, const kl_run_args *args, kl_exit *exit)
{
    struct devkvm *k = kvm_of(vm);
    bool step = args->max_instructions == 1, timed = args->time_limit_ms != 0;
    timer_t timer;
    kl_regs regs;
    if (args->max_instructions != ~0ull && !step)
        return refuse(vm, KL_ENOTSUP, "instructions cannot be counted here: give a time limit, step one at a time, or use the soft engine");
    if (args->stop_events || args->step_phase)
        return refuse(vm, KL_ENOTSUP, "the kernel's events are not visible here: use the soft engine");
    answer_with_ones(k);
    k->answered = k->shown_valid = false;
    int result = arm_debug(k, step);
    if (result < 0)
        return result;
    k->runner = pthread_self();
    atomic_store(&k->running, 1);
    uint64_t deadline = timed ? milliseconds_now() + args->time_limit_ms : 0;
    if (timed && !start_timer(&timer, args->time_limit_ms))
        timed = false;
    result = run_until_exit(k, timed ? deadline : 0, exit);
    if (timed)
        timer_delete(timer);
    atomic_store(&k->running, 0);
    if (result == 0 && devkvm_get_regs(vm, &regs) == 0)
        exit->rip = regs.rip;
    if (step && result == 0 && exit->reason == KL_EXIT_DEBUG && !k->debug.enabled)
        exit->reason = KL_EXIT_LIMIT;
    return result;
}

static int devkvm_complete(kl_vm *vm, uint64_t value)
{
    struct devkvm *k = kvm_of(vm);
    struct kvm_run *run = k->run;
    if (!k->answer_due)
        return refuse(vm, KL_EINVAL, "there is no access to answer: the last stop was none");
    if (run->exit_reason == KVM_EXIT_IO)
        memcpy((uint8_t *)run + run->io.data_offset, &value, run->io.size);
    else
        memcpy(run->mmio.data, &value, sizeof value);
    k->answered = true;
    return 0;
}

/* The elements of the last string exit: read those of an OUTS, give those of an INS. */
static int64_t devkvm_string_read(kl_vm *vm, void *to, uint64_t bytes)
{
    struct devkvm *k = kvm_of(vm);
    uint64_t n = bytes < k->string_bytes ? bytes : k->string_bytes;
    if (k->string_in)
        return refuse(vm, KL_EINVAL, "the last stop was no string output");
    if (n)
        memcpy(to, k->string, n);
    return (int64_t)n;
}

static int devkvm_string_answer(kl_vm *vm, const void *from, uint64_t bytes)
{
    struct devkvm *k = kvm_of(vm);
    struct kvm_run *run = k->run;
    if (!k->answer_due || run->exit_reason != KVM_EXIT_IO || bytes != (uint64_t)run->io.size * run->io.count)
        return refuse(vm, KL_EINVAL, "the last stop was no string input of this many bytes");
    memcpy((uint8_t *)run + run->io.data_offset, from, bytes);
    k->answered = true;
    return 0;
}

static const struct engine_ops devkvm_ops = {
    .destroy = devkvm_destroy,
    .set_memory_region = devkvm_set_memory_region,
    .read = devkvm_read,
    .write = devkvm_write,
    .view_get = devkvm_view_get,
    .dirty_log = devkvm_dirty_log,
    .get_regs = devkvm_get_regs,
    .set_regs = devkvm_set_regs,
    .get_sregs = devkvm_get_sregs,
    .set_sregs = devkvm_set_sregs,
    .get_events = devkvm_get_events,
    .set_events = devkvm_set_events,
    .get_msr = devkvm_get_msr,
    .set_msr = devkvm_set_msr,
    .interrupt = devkvm_interrupt,
    .nmi = devkvm_nmi,
    .translate = devkvm_translate,
    .debug = devkvm_debug,
    .run = devkvm_run,
    .complete = devkvm_complete,
    .string_read = devkvm_string_read,
    .string_answer = devkvm_string_answer,
    .cpuid = devkvm_cpuid,
    .kick = devkvm_kick,
};

int devkvm_create(const kl_config *config, kl_vm **vm, const char **error)
{
    struct devkvm *k = calloc(1, sizeof *k);
    (void)config;
    if (!k) {
        *error = "no memory for a machine";
        return -(int)KL_ENOMEM;
    }
    k->vm.ops = &devkvm_ops;
    k->kvm = k->machine = k->vcpu = -1;
    memory_init(&k->memory, NULL);
    install_stop_signal();
    int result = open_devices(k, error);
    if (result == 0) {
        result = load_cpuid(k);
        *error = k->vm.error;
    }
    if (result < 0) {
        devkvm_destroy(&k->vm);
        return result;
    }
    *vm = &k->vm;
    return 0;
}
