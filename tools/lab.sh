#!/bin/sh
# make lab: from a fresh clone to JupyterLab with lab 0 open. Can be run again, also after an interrupted first run.
#
#   BROWSER=none   print the address, open nothing
#   JUPYTER_ARGS   further arguments for jupyter lab
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/environment.sh

make_environment lab
install_wheel

# JupyterLab asks every new user about news from its makers; a first lesson has better questions. Only in .venv.
settings=.venv/share/jupyter/lab/settings
if [ ! -f $settings/overrides.json ]; then
    mkdir -p $settings
    cp tools/jupyterlab-overrides.json $settings/overrides.json
fi

# Notebooks in work/ are the student's: kvmlab labs adds what is not there and overwrites nothing.
kvmlab labs work
first=$(cd work && ls 00_*.ipynb 2>/dev/null | head -n 1)

set -- ${JUPYTER_ARGS:-}
if is_root; then set -- --allow-root "$@"; fi
if [ "${BROWSER:-}" = none ]; then
    unset BROWSER
    set -- --no-browser "$@"
elif [ -z "${BROWSER:-}" ] && [ "$(uname)" = Linux ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    say "no display here: open the address below in a browser"
    set -- --no-browser "$@"
fi

# Quiet but for the address, which names the first lab.
cd work
exec "$python" -m jupyter lab --ServerApp.log_level=WARN "--LabApp.default_url=/lab/tree/$first" "$@"
