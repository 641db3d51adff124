/* The model that both engines implement, and the front the binding calls (kvmlab.h).
 *
 * kl_*() in engine.c checks what every engine would check and calls the engine through struct
 * engine_ops. A NULL entry means "not visible here" (ENOTSUP). Everything but devkvm.c and
 * abi2006.c stays free of libc, so that the same API serves the wasm build. */
#ifndef KVMLAB_ENGINE_H
#define KVMLAB_ENGINE_H

#include "kvmlab.h"

#include <stdbool.h>

/* The contract's error numbers: Linux values on every host. */
enum kl_errno { KL_ENOENT = 2, KL_EINTR = 4, KL_E2BIG = 7, KL_EAGAIN = 11, KL_ENOMEM = 12, KL_EACCES = 13, KL_EFAULT = 14,
                KL_EBUSY = 16, KL_EEXIST = 17, KL_ENODEV = 19, KL_EINVAL = 22, KL_ENOSYS = 38, KL_ENOTSUP = 95 };

struct history;
struct memory;
struct region;
struct trace;

struct engine_ops {
    void (*destroy)(kl_vm *vm);
    int (*create_vcpu)(kl_vm *vm, uint32_t vcpu);
    int (*reset)(kl_vm *vm);
    int (*set_memory_region)(kl_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size, uint32_t flags);
    int64_t (*read)(kl_vm *vm, int space, uint64_t address, void *to, uint64_t len);
    int64_t (*write)(kl_vm *vm, int space, uint64_t address, const void *from, uint64_t len);
    int (*view_get)(kl_vm *vm, uint32_t slot, kl_view *view);
    int (*dirty_log)(kl_vm *vm, uint32_t slot, uint8_t *bitmap, uint64_t bytes);
    int (*get_regs)(kl_vm *vm, kl_regs *regs);
    int (*set_regs)(kl_vm *vm, const kl_regs *regs);
    int (*get_sregs)(kl_vm *vm, kl_sregs *sregs);
    int (*set_sregs)(kl_vm *vm, const kl_sregs *sregs);
    int (*get_events)(kl_vm *vm, kl_events *events);
    int (*set_events)(kl_vm *vm, const kl_events *events);
    int (*get_msr)(kl_vm *vm, uint32_t index, uint64_t *value);
    int (*set_msr)(kl_vm *vm, uint32_t index, uint64_t value);
    int (*interrupt)(kl_vm *vm, uint32_t vector);
    int (*nmi)(kl_vm *vm);
    int (*translate)(kl_vm *vm, uint64_t gva, kl_translation *translation);
    int (*debug)(kl_vm *vm, const kl_guest_debug *debug);
    int (*run)(kl_vm *vm, const kl_run_args *args, kl_exit *exit);
    int (*complete)(kl_vm *vm, uint64_t value);
    int64_t (*string_read)(kl_vm *vm, void *to, uint64_t bytes);
    int (*string_answer)(kl_vm *vm, const void *from, uint64_t bytes);
    int (*complete_cpuid)(kl_vm *vm, const uint32_t out[4]);
    int (*cpuid)(kl_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    void (*kick)(kl_vm *vm);
    int (*get_position)(kl_vm *vm, kl_position *position);
    int (*walk_tables)(kl_vm *vm, int which, uint64_t gva, int access, int user, kl_walk *walk);
    struct trace *(*trace)(kl_vm *vm);
    struct memory *(*memory)(kl_vm *vm);
    unsigned (*regions)(kl_vm *vm, struct region *regions); /* the pieces of state of a snapshot; caches flushed first */
    void (*restored)(kl_vm *vm);             /* the regions were copied in: rebuild what derives from them */
    void (*attention)(kl_vm *vm);            /* what is traced has changed */
    int (*legacy)(kl_vm *vm, unsigned what, uint64_t value); /* what only the interface of 2006 asks: enum legacy */
};

enum legacy { LEGACY_RETRY,      /* what the last exit asked is forgotten: its instruction runs again */
              LEGACY_SKIP,       /* likewise, and its instruction is stepped over */
              LEGACY_STALE_MMIO  /* an answer nobody asked for: the next read from a device takes it */ };

struct kl_vm {
    const struct engine_ops *ops;
    struct history *history; /* NULL: nobody has asked for snapshots */
    bool mapped;       /* user space may write guest memory behind the engine's back */
    const char *error; /* static text: what was wrong and what would be right */
};

/* `return refuse(vm, KL_EINVAL, "…");` */
static inline int refuse(kl_vm *vm, enum kl_errno code, const char *text)
{
    vm->error = text;
    return -(int)code;
}

int soft_create(const kl_config *config, kl_vm **vm, const char **error);
int devkvm_create(const kl_config *config, kl_vm **vm, const char **error); /* port: absent where the host has no /dev/kvm */

#endif
