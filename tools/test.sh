#!/bin/sh
# make test: everything that tests need, then all tests (make lint is one of them). Nothing is skipped for want of a tool: what cannot be
# had ends the run with the line that would get it. Arguments are pytest's: tools/test.sh tests/test_wasm.py -x
set -eu
cd "$(dirname "$0")/.."
. tools/common.sh
. tools/environment.sh
. tools/node.sh

make_environment dev
install_wheel

# A browser for the widgets' tests: a system's Chromium, Chrome or Edge, else Playwright's, else Debian's.
need_browser() {
    for name in chromium chromium-browser google-chrome google-chrome-stable msedge microsoft-edge; do
        if have "$name"; then
            KVMLAB_BROWSER=${KVMLAB_BROWSER:-$(command -v "$name")}
            export KVMLAB_BROWSER
            return
        fi
    done
    playwright_starts && return
    say "no Chromium, Chrome or Edge here: playwright install chromium"
    "$python" -m playwright install chromium >/dev/null 2>&1 && playwright_starts && return
    apt_install "The widgets' tests need a browser, and Playwright's cannot be had or does not start here" chromium
    KVMLAB_BROWSER=$(command -v chromium)
    export KVMLAB_BROWSER
}

playwright_starts() {
    "$python" - >/dev/null 2>&1 <<'EOF'
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    playwright.chromium.launch(args=["--no-sandbox"]).close()
EOF
}

# A compiler for wasm, which is one for aarch64 too: clang-19, else (no root, no Debian with it) the ziglang wheel.
need_clang() {
    { have clang-19 && have wasm-ld-19; } && return
    "$python" -c 'import ziglang' 2>/dev/null && return
    if is_root && have apt-get; then
        say "no clang-19 here: apt-get install clang-19 lld-19"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends clang-19 lld-19
        } >/dev/null 2>&1 && return
    fi
    say "no clang-19 here: pip install ziglang"
    "$python" -m pip install --quiet --disable-pip-version-check ziglang
}

need_browser
need_node
need_clang

# Not "python -m pytest", which would put this folder first on the path: the tests are the installed wheel's.
exec pytest "$@"
