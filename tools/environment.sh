# Sourced after common.sh: the environment .venv, made and refreshed.
#
#   make_environment EXTRA    .venv exists and has this kvmlab's build tools and the dependencies of kvmlab[EXTRA]
#   install_wheel             a wheel of this tree is built and installed there, unless the one there is this tree's
#   install_editable          the tree itself is installed there (make dev)
#
# Each step that has succeeded leaves a stamp in .venv, written last: a run that was interrupted does its step again.

stamps=.venv/kvmlab-stamps

# done_with STEP KEY: true if STEP has been done for this KEY before. mark STEP KEY: it has now.
done_with() { [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]; }
mark() { mkdir -p "$stamps" && printf '%s\n' "$2" >"$stamps/$1.new" && mv "$stamps/$1.new" "$stamps/$1"; }

# What a Debian without extras lacks: the venv module, Python's headers, a C compiler with its library's headers.
need_build_tools() {
    base=${PYTHON:-python3}
    have "$base" || apt_install "There is no $base" python3
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "kvmlab needs Python 3.11 or newer; $base is $("$base" -V 2>&1). Name another:  make PYTHON=/path/to/python3.12"

    missing=
    "$base" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    "$base" -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
        missing="$missing python3-dev"
    echo '#include <stdlib.h>' | ${CC:-cc} -E -x c - >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
    # shellcheck disable=SC2086  # a list of words
    [ -z "$missing" ] || apt_install "kvmlab is built here, which needs$missing" $missing
    "$base" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$base still has no venv and ensurepip. Is it Debian's Python? Name that one:  make PYTHON=/usr/bin/python3"
}

make_environment() {
    extra=$1
    if ! done_with created yes || ! .venv/bin/python -c '' 2>/dev/null; then
        need_build_tools
        say "making the environment .venv"
        rm -rf .venv
        "$base" -m venv .venv
        mark created yes
    fi
    PYTHON=.venv/bin/python
    use_environment
    export PYTHON

    key=$(cksum <pyproject.toml)
    if ! done_with "needs-$extra" "$key"; then
        need_build_tools
        say "installing what kvmlab[$extra] needs"
        "$python" tools/requirements.py build "$extra" >.venv/requirements.txt
        "$python" -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
        mark "needs-$extra" "$key"
    fi
}

# The build folder is kept, so that a rebuild after an edit takes seconds.
install_wheel() {
    key=$("$python" tools/package_files.py --fingerprint)
    done_with installed "wheel $key" && return
    need_build_tools
    say "building and installing kvmlab"
    rm -rf build-wheel/dist
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --config-settings=build-dir=build-wheel/meson -w build-wheel/dist .
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build-wheel/dist/*.whl
    mark installed "wheel $key"
}

install_editable() {
    need_build_tools
    say "installing kvmlab from this tree, rebuilt on import"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --config-settings=build-dir=build-editable -e .
    mark installed editable
}
