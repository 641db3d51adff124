#!/bin/sh
# make labs: the release notebooks, made from labs/*.py. Arguments: see tools/labs.py.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

"$python" -c 'import jupytext, nbgrader' 2>/dev/null || die "$python lacks jupytext or nbgrader: make dev"
exec "$python" -P tools/labs.py "$@"
