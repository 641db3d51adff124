"""Print the C files of the portable core, one a line, as kvmlab/engine/meson.build lists them.

With ``--exports``: the functions of the C API (kvmlab.h) that a module without host has: all but the interface of 2006,
which is made of a host's files and mappings.
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
    declared = set(re.findall(r"\b(kl_\w+)\(", (ENGINE / "kvmlab.h").read_text()))
    return sorted(name for name in declared if not name.startswith("kl_abi_"))


if __name__ == "__main__":
    print("\n".join(exports() if "--exports" in sys.argv[1:] else core_sources()))
