"""Print the C files of the portable core, one a line, as kvmlab/engine/meson.build lists them.

With ``--exports``: the functions of the C API (kvmlab.h), all of which the core defines.
"""

import re
import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parent.parent / "kvmlab" / "engine"


def core_sources() -> list[str]:
    listed = re.search(r"core_sources = files\((.*?)^\)", (ENGINE / "meson.build").read_text(), re.S | re.M)
    if not listed:
        raise SystemExit("kvmlab/engine/meson.build has no list core_sources = files(…)")
    return [f"kvmlab/engine/{name}" for name in re.findall(r"^\s*'([^']+)'", listed[1], re.M)]


def exports() -> list[str]:
    return sorted(set(re.findall(r"\b(kl_\w+)\(", (ENGINE / "kvmlab.h").read_text())))


if __name__ == "__main__":
    print("\n".join(exports() if "--exports" in sys.argv[1:] else core_sources()))
