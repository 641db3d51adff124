#!/bin/sh
# Build the extension in build/ and put it beside its sources, so that a clone with PYTHONPATH=. is a working kvmlab.
# Needs meson, ninja and cffi in $PYTHON's environment (make dev makes one).
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
python=$(command -v "$python") || { echo "no Python called ${PYTHON:-python3}" >&2; exit 1; }
PATH=$(dirname "$python"):$PATH
export PATH

if [ ! -f build/build.ninja ]; then
    # meson runs the Python that runs meson: the build is for $PYTHON and no other.
    log=$("$python" -m mesonbuild.mesonmain setup build) || { echo "$log" >&2; exit 1; }
fi
"$python" -m ninja -C build --quiet
cp build/kvmlab/engine/_engine*.so kvmlab/engine/
