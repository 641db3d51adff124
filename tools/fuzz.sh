#!/bin/sh
# make fuzz: random bytes as guest code in every mode, under the sanitizers, for as long as you let it: Ctrl-C ends it.
#
#   RUNS   how many machines (default: a hundred thousand)
#   SEED   the first run's seed (default: from the clock; printed, so that a failure can be had again)
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment
. tools/sanitizers.sh

build_with_sanitizers
seed=${SEED:-$(date +%s)}
say "${RUNS:-100000} runs from seed $seed"
with_sanitizers build-asan/tests/c/fuzz_random_code "${RUNS:-100000}" "$seed"
