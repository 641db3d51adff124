"""Joining modules: every form that we use works, every other is refused with the line."""

import shutil
import subprocess

import pytest

from kvmlab.widgets import bundle


def write(folder, **modules):
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder


def run(module, tmp_path):
    file = tmp_path / "joined.mjs"
    file.write_text(module)
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here to run the joined module")
    program = f"import joined from {file.as_uri()!r}; console.log(JSON.stringify(joined))"
    done = subprocess.run([node, "--input-type=module", "-e", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_of_modules_do_not_meet(tmp_path):
    write(tmp_path, main='import { f } from "./a.js";\nimport { f as g } from "./b.js";\nexport default [f(), g()];\n',
          a='const secret = 1;\nexport function f() { return secret; }\n',
          b='const secret = 2;\nfunction h() { return secret; }\nexport { h as f };\n')
    assert run(bundle.module(tmp_path), tmp_path) == "[1,2]"


def test_a_module_runs_once(tmp_path):
    write(tmp_path, main='import { list } from "./a.js";\nimport { n } from "./b.js";\nexport default [list, n];\n',
          a='export const list = [];\n',
          b='import { list } from "./a.js";\nlist.push(1);\nexport const n = list.length;\n')
    assert run(bundle.module(tmp_path), tmp_path) == "[[1],1]"


@pytest.mark.parametrize(("text", "said"), [
    ('import { a } from "./missing.js";\nexport default 1;\n', "missing"),
    ('import x from "./b.js";\nexport default 1;\n', "not understood"),
    ('import { no } from "./b.js";\nexport default 1;\n', "does not export"),
    ('import { back } from "./circle.js";\nexport default 1;\n', "circle"),
    ("export const x = 1;\n", "no default export"),
])
def test_what_is_not_understood_is_refused(tmp_path, text, said):
    write(tmp_path, main=text, b="export const yes = 1;\n",
          circle='import { m } from "./other.js";\nexport const back = 1;\n',
          other='import { back } from "./circle.js";\nexport const m = back;\n')
    with pytest.raises(bundle.BundleError, match=said):
        bundle.module(tmp_path)


def test_the_widgets_join_into_one_module():
    joined = bundle.module()
    assert "export default" in joined
    assert "import {" not in joined
    assert ".kvmlab" in bundle.style()
