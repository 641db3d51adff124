#!/bin/sh
# make speed: kvmlab speed with what is built here, beside Unicorn in the same run.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
use_environment

tools/inplace.sh
PYTHONPATH=$PWD exec "$python" -P -m kvmlab.cli speed "$@"
