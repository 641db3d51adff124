/* The core says which version it is. */
#include "test.h"

#include <string.h>

#include "kvmlab.h"

TEST(version_is_the_projects)
{
    CHECK(!strcmp(kl_version(), KVMLAB_VERSION));
}
