/* fuzz_random_code [runs] [first seed]: random_code.c as a program, for `make soak` under the sanitizers. */
#include "random_code.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000, seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, done = 0;
    while (done < runs) {
        uint64_t slice = runs - done < 1000 ? runs - done : 1000;
        const char *what;
        uint64_t bad = random_code(seed + done, slice, &what);
        if (bad) {
            printf("seed %" PRIu64 ": %s\n", bad, what);
            return 1;
        }
        done += slice;
        printf("%" PRIu64 " of %" PRIu64 " runs, seeds from %" PRIu64 "\n", done, runs, seed);
        fflush(stdout);
    }
    return 0;
}
