#!/bin/sh
# make lint: what a reviewer should not have to say. Python by ruff and mypy, the widgets' JavaScript by tsc.
# (The C's warnings are errors in tests/test_portable.py; its layout is make fmt's, on the lines you changed.)
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

say "ruff"; "$python" -m ruff check --quiet
say "mypy"; "$python" -m mypy --no-error-summary
if [ -f tsconfig.json ]; then
    . tools/node.sh
    need_node_modules
    say "tsc"; run_node node_modules/typescript/bin/tsc --noEmit -p .
fi
