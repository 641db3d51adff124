/* The kvm engine's handle, and what devkvm.c and devkvm_exit.c offer each other. */
#ifndef KVMLAB_DEVKVM_H
#define KVMLAB_DEVKVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "engine.h"
#include "space.h"

#define NR_SLOTS 4
#define MAX_CPUID 256
#define STRING_BYTES 65536u /* elements of a repeated OUTS gathered for one exit */

struct devkvm {
    kl_vm vm; /* first: the handle is a pointer to it */
    int kvm, machine, vcpu;
    struct kvm_run *run;
    size_t run_size;
    struct memory memory;
    struct { uint64_t gpa, size; uint32_t flags; struct ram *ram; } slot[NR_SLOTS];
    struct kvm_cpuid2 *cpuid;
    uint64_t queued[4];      /* interrupt vectors that user space queued */
    kl_guest_debug debug;
    bool answer_due;         /* an IN or MMIO read waits for its value */
    bool answered;
    bool shown_valid;        /* what get_regs shows differs from what the kernel holds: the I/O is done already */
    kl_regs shown, behind;   /* registers before the I/O instruction, and after it */
    uint8_t *string;         /* elements of the last string exit */
    uint64_t string_bytes;
    bool string_in;
    atomic_int kicked, running;
    pthread_t runner;
};

/* devkvm.c */
int64_t devkvm_copy(struct devkvm *k, uint64_t gpa, uint8_t *to, const uint8_t *from, uint64_t len);
int devkvm_kernel_regs(struct devkvm *k, kl_regs *regs); /* what the kernel holds, not what is shown */
int devkvm_enter(struct devkvm *k);                      /* KVM_RUN: 0 or a negative errno */
int devkvm_next_vector(const struct devkvm *k);          /* the lowest one queued, or -1 */

/* devkvm_exit.c: the kernel's exit in the words of the model. True: user space sees it; false: go on. */
bool devkvm_describe(struct devkvm *k, kl_exit *exit);

#endif
