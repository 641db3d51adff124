/* A slice of the random-code fuzzer; `make soak` runs the rest. */
#include "random_code.h"
#include "test.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* KVMLAB_SEED chooses other runs. */
TEST(random_code_leaves_no_contradiction)
{
    const char *seed = getenv("KVMLAB_SEED"), *what;
    uint64_t bad = random_code(seed ? strtoull(seed, NULL, 0) : 1, 2000, &what);
    if (bad)
        printf("seed %" PRIu64 ": %s\n", bad, what);
    CHECK(!bad);
}
