# Sourced after use_environment: the core, its tests and its fuzzers with AddressSanitizer and UBSan, in build-asan/.

build_with_sanitizers() {
    [ -f build-asan/build.ninja ] || meson_setup build-asan -Dextension=false -Dtests=true -Ddebug=true -Doptimization=1 \
        -Db_sanitize=address,undefined -Dc_args="-fno-omit-frame-pointer -fno-sanitize-recover=all"
    ninja_build build-asan
}

with_sanitizers() {
    ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 "$@"
}
