"""The guests that the browser tests look at, as cells of a notebook: those of tests/guests, on the real engine."""

from __future__ import annotations

from pathlib import Path

GUESTS = Path(__file__).resolve().parents[1] / "guests"


def cell(name: str, show: str = "vm.bench()", kind: str = "VM", **options: str) -> str:
    """A cell that loads a guest of tests/guests and shows something of it."""
    text = (GUESTS / f"{name}.S").read_text("utf-8")
    stated = {"bits": "16", "org": "0x1000", "memory": "4M"}
    for line in text.splitlines():
        if line.startswith("#:"):
            key, _, value = line[2:].strip().partition(":")
            if key in stated:
                stated[key] = value.strip()
    if kind == "VM":
        options = {"engine": "'soft'", **options}
    settings = "".join(f", {key}={value}" for key, value in options.items())
    return (f"import kvmlab\nimage = kvmlab.assemble({text!r}, bits={stated['bits']}, org={stated['org']})\n"
            f"vm = kvmlab.{kind}(memory={stated['memory']!r}{settings})\nvm.load(image)\n{show}")
