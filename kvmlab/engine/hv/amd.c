/* SVM's half of the hypervisor: not there yet. */
#include "hv.h"

static bool host_init(struct hv *hv)
{
    (void)hv;
    return false;
}

const struct hv_vendor hv_amd = { .host_init = host_init };
