#!/bin/sh
# make dev: .venv with all tools and the tree itself installed (rebuilt on import), and the extension in place.
# Jupyter's data files (the server extension's json) are placed only by a wheel: make lab, make test.
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/environment.sh

make_environment dev
install_editable
tools/inplace.sh
say "ready:  . .venv/bin/activate"
