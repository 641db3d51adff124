// The version of the engine: meson.build's, so that a wheel and its extension can be told to belong together.
#include "kvmlab.h"

const char *kl_version(void)
{
    return KVMLAB_VERSION;
}
