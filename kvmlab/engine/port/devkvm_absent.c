/* Hosts without /dev/kvm: no Linux, or no x86-64. */
#include "../engine.h"

int devkvm_create(const kl_config *config, kl_vm **vm, const char **error)
{
    (void)config, (void)vm;
    *error = "this host has no /dev/kvm (that needs Linux on x86-64): use engine=\"soft\"";
    return -(int)KL_ENODEV;
}
