#!/bin/sh
# The C tests under AddressSanitizer and UndefinedBehaviorSanitizer: the core, without Python.
# Arguments are parts of test names: tools/asan.sh walk tlb
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

[ -f build-asan/build.ninja ] || meson_setup build-asan -Dextension=false -Dtests=true -Ddebug=true -Doptimization=1 \
    -Db_sanitize=address,undefined -Dc_args="-fno-omit-frame-pointer -fno-sanitize-recover=all"
ninja_build build-asan
ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 build-asan/tests/c/ctests "$@"
