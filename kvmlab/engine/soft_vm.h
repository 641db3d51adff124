/* The handle of a virtual machine on the software engine. */
#ifndef KVMLAB_SOFT_VM_H
#define KVMLAB_SOFT_VM_H

#include "soft.h"

#include "cpu/virt.h"
#include "hv/hv.h"
#include "snapshot.h"

struct soft_vm {
    struct soft soft;   /* first; its space is host-physical */
    struct space guest; /* guest-physical */
    struct hv hv;
};
struct soft_vm *soft_vm_of(kl_vm *vm);
extern const struct engine_ops soft_vm_ops;
void inspect_shadow_walk(struct soft_vm *self, uint64_t gva, int access, int user, kl_walk *walk);

#endif
