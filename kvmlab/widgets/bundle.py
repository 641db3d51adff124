"""Joins the widgets' ES modules into one, and their style sheets into one.

anywidget loads a widget's module from a blob URL, where relative imports do not resolve; so the modules under ``js/``,
which import each other normally, become one module with a scope for each. The subset of the language's module syntax
that is understood is small and checked::

    import { a, b as c } from "./file.js";
    export function f() {}    export class C {}    export const c = …;    export { a, b };    export default …;

Run by the build (``python -m kvmlab.widgets.bundle OUT_JS OUT_CSS``, or as a plain script: it imports nothing of ours),
and by :mod:`kvmlab.widgets.assets` where the package runs from its sources.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STYLES = ("tokens.css", "bench.css")

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";[ \t]*$', re.MULTILINE)
_DECLARATION = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const|let) ([A-Za-z_$][\w$]*))", re.MULTILINE)
_LIST = re.compile(r"^export \{([^}]*)\};[ \t]*$", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*(?:(?!\*/).)*\*/[ \t]*)\n", re.MULTILINE | re.DOTALL)
_STRAY = re.compile(r"^\s*(?:import|export)\b(?!\().*$", re.MULTILINE)


class BundleError(Exception):
    """A module uses a form that is not understood, is missing, or imports itself by a detour."""


def _names(text: str) -> list[tuple[str, str]]:
    """``a, b as c`` as pairs (name there, name here)."""
    pairs = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        words = part.split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1] != "as"):
            raise BundleError(f"not understood: {part!r}")
        pairs.append((words[0], words[-1]))
    return pairs


def _join_modules(entry: Path) -> str:
    order: list[Path] = []
    numbers: dict[Path, int] = {}
    bodies: dict[Path, str] = {}
    exports: dict[Path, list[tuple[str, str]]] = {}
    root = entry.parent

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        if path in trail:
            circle = " → ".join(str(step.relative_to(root)) for step in (*trail[trail.index(path):], path))
            raise BundleError(f"modules import each other in a circle: {circle}")
        if path in numbers:
            return
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            asker = trail[-1].name if trail else "the build"
            raise BundleError(f"{asker} imports {path.name}, which is missing") from None
        needed: list[tuple[re.Match[str], Path]] = []
        for match in _IMPORT.finditer(text):
            target = (path.parent / match[2]).resolve()
            visit(target, (*trail, path))
            needed.append((match, target))
        found: list[tuple[str, str]] = [(match[1], match[1]) for match in _DECLARATION.finditer(text)]
        for match in _LIST.finditer(text):
            found += [(inner, outer) for inner, outer in _names(match[1])]
        for match, target in reversed(needed):
            wanted = _names(match[1])
            there = {outer for _, outer in exports[target]}
            for name, _ in wanted:
                if name not in there:
                    raise BundleError(f"{path.relative_to(root)} imports {name}, which {target.name} does not export")
            binding = ", ".join(name if name == here else f"{name}: {here}" for name, here in wanted)
            text = text[:match.start()] + f"const {{ {binding} }} = $m{numbers[target]};" + text[match.end():]
        text = _LIST.sub("", _DECLARATION.sub("", text))
        if _DEFAULT.search(text):
            text = _DEFAULT.sub("const $default = ", text)
            found.append(("$default", "$default"))
        stray = _STRAY.search(text)
        if stray:
            raise BundleError(f"{path.relative_to(root)}: form not understood: {stray[0].strip()!r}")
        numbers[path] = len(numbers)
        # Every widget carries the module with it, so lines of comment go.
        bodies[path], exports[path] = _COMMENT.sub("", text).strip(), found
        order.append(path)

    visit(entry.resolve(), ())
    out = ["// Made by kvmlab/widgets/bundle.py from the modules under kvmlab/widgets/js: change those."]
    for path in order:
        back = ", ".join(inner if inner == outer else f"{outer}: {inner}" for inner, outer in exports[path])
        name = path.relative_to(root).as_posix()
        out.append(f"\n// ---- {name}\nconst $m{numbers[path]} = (() => {{\n{bodies[path]}\n"
                   f"return {{ {back} }};\n}})();")
    if not any(outer == "$default" for _, outer in exports[entry.resolve()]):
        raise BundleError(f"{entry.name} has no default export")
    out.append(f"\nexport default $m{numbers[entry.resolve()]}.$default;\n")
    return "\n".join(out)


def module(sources: Path = HERE / "js", entry: str = "main.js") -> str:
    """The one ES module of all widgets."""
    return _join_modules((sources / entry).resolve())


def style(sources: Path = HERE / "css") -> str:
    """The one style sheet of all widgets."""
    return "\n".join((sources / name).read_text("utf-8") for name in STYLES)


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print("usage: bundle.py OUT_JS OUT_CSS", file=sys.stderr)
        return 2
    try:
        joined = module()
    except BundleError as error:
        print(f"bundle.py: {error}", file=sys.stderr)
        return 1
    Path(argv[0]).write_text(joined, "utf-8")
    Path(argv[1]).write_text(style(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
