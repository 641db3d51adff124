#!/bin/sh
# Build the extension in build/ and put it beside its sources, so that a clone with PYTHONPATH=. is a working kvmlab.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

[ -f build/build.ninja ] || meson_setup build
ninja_build build
cp build/kvmlab/engine/_engine*.so kvmlab/engine/
