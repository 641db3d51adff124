#!/bin/sh
# make wasm: the portable core as build-wasm/engine.wasm, without libc and without imports.
#
# Uses clang-19 and wasm-ld-19 (Debian: clang-19 lld-19), else another clang with wasm-ld, else the ziglang wheel.
# WASM_CC names one of clang-19, clang, zig to use that and no other. What is missing in the core's freestanding
# diet shows as an undefined symbol at the link.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

out=build-wasm
compiler=${WASM_CC:-}
if [ -z "$compiler" ]; then
    if have clang-19 && have wasm-ld-19; then compiler=clang-19
    elif have clang && have wasm-ld; then compiler=clang
    elif "$python" -c 'import ziglang' 2>/dev/null; then compiler=zig
    else die "no compiler for wasm here: apt-get install clang-19 lld-19, or pip install ziglang"; fi
fi
case $compiler in
    zig) cc="$python -m ziglang cc -target wasm32-freestanding -fno-sanitize=undefined" ;;
    *) cc="$compiler --target=wasm32-unknown-unknown" ;;
esac

# Nothing to do where the module at hand was made from these files by this compiler.
key="$compiler $(find kvmlab/engine tools/wasm.sh meson.build -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o -name meson.build |
    LC_ALL=C sort | xargs cat | cksum)"
if [ -f "$out/engine.wasm" ] && [ "$(cat "$out/made-from" 2>/dev/null)" = "$key" ]; then
    say "$out/engine.wasm is up to date"
    exit 0
fi

version=$(sed -n "s/^ *version: '\(.*\)',/\1/p" meson.build | head -n 1)
rm -rf "$out/objects"
mkdir -p "$out/objects"

# One object for each source, two at a time; the folder's slashes become dots.
for source in $("$python" tools/core_sources.py) kvmlab/engine/port/devkvm_absent.c kvmlab/engine/port/wasm.c; do
    printf '%s %s\n' "$source" "$out/objects/$(printf %s "$source" | tr / .).o"
done | xargs -P 2 -L 1 sh -c '
    '"$cc"' -std=c11 -O2 -mbulk-memory -nostdlib -ffreestanding -ffp-contract=off -fno-strict-aliasing -Wall -Wextra \
        -Ikvmlab/engine/port/include -Ikvmlab/engine -DKVMLAB_VERSION="\"'"$version"'\"" -c "$0" -o "$1"'

# The C API is what others may call, with malloc, calloc and free for their buffers.
exports=$("$python" tools/core_sources.py --exports | sed 's/^/-Wl,--export=/')
# shellcheck disable=SC2086  # lists of words
$cc -nostdlib -Wl,--no-entry -Wl,-s -Wl,-z,stack-size=1048576 -Wl,--export=malloc -Wl,--export=calloc -Wl,--export=free $exports \
    "$out"/objects/*.o -o "$out/engine.wasm.new"
mv "$out/engine.wasm.new" "$out/engine.wasm"
printf '%s\n' "$key" >"$out/made-from"
say "$out/engine.wasm: $(wc -c <"$out/engine.wasm") bytes, by $compiler"
