# Sourced by the scripts of this folder: which Python works here, with its environment's bin first on PATH.
python=${PYTHON:-}
if [ -z "$python" ]; then
    if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
fi
python=$(command -v "$python") || { echo "there is no Python called ${PYTHON:-python3} here" >&2; exit 1; }
case $python in /*) ;; *) python=$PWD/$python ;; esac
PATH=$(dirname "$python"):$PATH
export PATH

# meson builds for the Python that runs it, so it is never called by its own name.
meson_setup() {
    "$python" -c 'import mesonbuild, cffi, ninja' 2>/dev/null ||
        { echo "$python lacks meson, ninja or cffi: make dev" >&2; exit 1; }
    log=$("$python" -m mesonbuild.mesonmain setup "$@" 2>&1) || { echo "$log" >&2; exit 1; }
}

ninja_build() {
    "$python" -m ninja -C "$1" --quiet
}
