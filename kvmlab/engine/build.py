"""cffi's recipe for ``kvmlab.engine._engine``: the declarations are kvmlab.h, and nothing else.

Run by meson as ``python -m cffi.gen_src exec-python build.py _engine.c``. The header is kept plain on purpose
(no macros but ``#define NAME number``, no conditionals but its include guard), so reading it is all there is to do.
"""

import re
from pathlib import Path

from cffi import FFI

HEADER = Path(__file__).with_name("kvmlab.h")
KEPT_DIRECTIVE = re.compile(r"#\s*define\s+\w+\s+\(?-?(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\)?\s*(//.*|/\*.*\*/\s*)?$")


def declarations(header: str) -> str:
    """Return the header without the preprocessor lines that cffi does not read: includes and the include guard."""
    kept = []
    for line in header.splitlines():
        if not line.lstrip().startswith("#"):
            kept.append(line)
        elif KEPT_DIRECTIVE.match(line.strip()):
            name = line.split()[1]
            kept.append(f"#define {name} ...")
    return "\n".join(kept)


ffibuilder = FFI()
ffibuilder.cdef(declarations(HEADER.read_text(encoding="utf-8")))
ffibuilder.set_source("kvmlab.engine._engine", '#include "kvmlab.h"\n')
