#!/bin/sh
# make soak: the long tests at their full counts; the report goes into docs/reports/. Arguments: see tools/soak.py.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment
. tools/sanitizers.sh

build_with_sanitizers
tools/inplace.sh
PYTHONPATH=$PWD exec "$python" -P tools/soak.py "$@"
