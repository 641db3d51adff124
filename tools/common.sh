# Sourced by the scripts of this folder, which run from the root of the clone: cd "$(dirname "$0")/.."; . tools/common.sh
#
#   say, die          a line to the person in front of it; the same and stop
#   apt_install       Debian packages: installed when root, else the exact line to type, and stop
#   use_environment   $python is the environment's, and its bin comes first on PATH

say() { printf '%s\n' "-- $*"; }
die() { printf '%s\n' "-- $*" >&2; exit 1; }

is_root() { [ "$(id -u)" = 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

# apt_install WHY PACKAGE...
apt_install() {
    why=$1; shift
    have apt-get || die "$why. Install what your system calls: $*"
    is_root || die "$why. Please run:  sudo apt-get install -y $*"
    say "$why: apt-get install $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } ||
        die "apt-get could not install $*"
}

# The environment is .venv, unless PYTHON names another interpreter to work with (that one is used as it is).
use_environment() {
    python=${PYTHON:-}
    [ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python; } || python=python3
    python=$(command -v "$python") || die "there is no Python called ${PYTHON:-python3} here"
    case $python in /*) ;; *) python=$PWD/$python ;; esac
    PATH=$(dirname "$python"):$PATH
    export PATH
}

# meson builds for the Python that runs it, so it is never called by its own name.
meson_setup() {
    "$python" -c 'import mesonbuild, cffi, ninja' 2>/dev/null || die "$python lacks meson, ninja or cffi: make dev"
    log=$("$python" -m mesonbuild.mesonmain setup "$@" 2>&1) || { printf '%s\n' "$log" >&2; exit 1; }
}

# Quiet when all is well: what the build says is shown when it fails or warns.
ninja_build() {
    if log=$("$python" -m ninja -C "$1" --quiet 2>&1); then
        case $log in *warning:*) printf '%s\n' "$log" >&2 ;; esac
    else
        printf '%s\n' "$log" >&2
        exit 1
    fi
}
