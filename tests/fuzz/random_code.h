/* Random bytes as guest code, in every mode: nothing a guest does may crash the process, loop for ever in C, or leave
 * what is derived from the state out of step with it. */
#ifndef KVMLAB_RANDOM_CODE_H
#define KVMLAB_RANDOM_CODE_H

#include <stdint.h>

/* Runs `nr_runs` machines; run k depends on seed + k alone. Returns the seed of the first run whose state is
 * contradictory and sets *what, or 0. */
uint64_t random_code(uint64_t seed, uint64_t nr_runs, const char **what);

#endif
