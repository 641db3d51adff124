#!/bin/sh
# make fmt: Python by ruff; of the C, the lines changed since the last commit (tables and dense lists stay as they are).
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

"$python" -m ruff check --fix --quiet || true
"$python" -m ruff format
if have git-clang-format; then
    git clang-format --extensions c,h HEAD -- kvmlab tests || true
else
    say "no git-clang-format here, so the C was left alone: apt-get install clang-format"
fi
