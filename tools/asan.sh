#!/bin/sh
# make asan: the C tests under AddressSanitizer and UndefinedBehaviorSanitizer: the core, without Python.
# Arguments are parts of test names: tools/asan.sh walk tlb
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment
. tools/sanitizers.sh

build_with_sanitizers
with_sanitizers build-asan/tests/c/ctests "$@"
