"""Run an image on QEMU's PC from kvmlab's entry state: an oracle for what Unicorn cannot (gates in long mode, vm86).

A small ROM, written here, puts the machine into the entry state and jumps to the image, which QEMU's generic loader has
placed. The run ends at HLT with IF = 0 or at a triple fault.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvmlab.guest import Image, assemble

QEMU = shutil.which("qemu-system-x86_64")

_ROM = """
        .equ    TABLES, 0x{tables:x}
        .org    0x100
start:  cli
        cld
        in      al, 0x92
        or      al, 2
        and     al, 0xfe
        out     0x92, al
        .if {bits} == 16
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     fs, ax
        mov     gs, ax
        mov     ss, ax
        mov     sp, 0x7c00
        xor     eax, eax
        xor     ebx, ebx
        xor     ecx, ecx
        xor     edx, edx
        ljmp    0, 0x{entry16:x}
        .else
        mov     ax, 0xf000
        mov     ds, ax
        lgdtd   [gdtr]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        ljmpd   8, 0xf0000 + start32
        .endif
        .code32
start32:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     fs, eax
        mov     gs, eax
        mov     esp, 0x{stack:x}
        .if {bits} == 32
        xor     eax, eax
        ljmp    8, 0x{entry:x}
        .endif
        mov     edi, TABLES
        xor     eax, eax
        mov     ecx, 6 * 1024
        rep stosd
        mov     dword ptr [TABLES], TABLES + 0x1007
        mov     eax, TABLES + 0x2007
        mov     edi, TABLES + 0x1000
1:      mov     [edi], eax
        add     edi, 8
        add     eax, 0x1000
        cmp     edi, TABLES + 0x1020
        jne     1b
        mov     eax, 0x87
        mov     edi, TABLES + 0x2000
1:      mov     [edi], eax
        add     edi, 8
        add     eax, 0x200000
        jnc     1b
        mov     eax, 0x620
        mov     cr4, eax
        mov     eax, TABLES
        mov     cr3, eax
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, 0x100
        wrmsr
        mov     eax, 0x80000033
        mov     cr0, eax
        ljmp    0x18, 0xf0000 + start64
        .code64
start64:
        mov     rax, 0x{entry:x}
        jmp     rax
        .balign 8, 0
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdtr:   .word   31
        .long   0xf0000 + gdt
        .org    0xfff0
        .code16
        ljmp    0xf000, offset start
        .org    0x10000
"""


@dataclass
class Result:
    """Registers at the end, the console's text, and how it ended: "hlt" or "shutdown"."""

    end: str = ""
    regs: dict[str, int] = field(default_factory=dict)
    console: str = ""
    memory: bytes = b""


def rom(image: Image, memory: int) -> bytes:
    text = _ROM.format(
        bits=image.bits,
        entry=image.entry,
        entry16=image.entry & 0xFFFF,
        tables=memory - 0x10000,
        stack=memory - 0x10000 - 8,
    )
    text = text.replace("0xf0000 + start32", "offset start32 + 0xf0000").replace(
        "ljmp    0x18, 0xf0000 + start64", "ljmp    0x18, offset start64 + 0xf0000"
    )
    return assemble(text, 16, 0, name="rom").data


def run(
    image: Image, *, memory: int = 16 << 20, seconds: float = 20, extra: Sequence[tuple[int, bytes]] = ()
) -> Result:
    """Boot the image, with more bytes elsewhere where given; wait until it halts for good."""
    assert QEMU
    result = Result()
    with tempfile.TemporaryDirectory(prefix="kvmlab-qemu-") as temporary:
        folder = Path(temporary)
        (folder / "rom").write_bytes(rom(image, memory))
        command = [QEMU, "-M", "pc", "-accel", "tcg", "-m", f"{memory >> 20}M", "-nodefaults", "-display", "none"]
        command += ["-vga", "none", "-no-reboot", "-no-shutdown", "-bios", str(folder / "rom"), "-cpu", "max"]
        for index, (at, content) in enumerate([(image.org, image.data), *extra]):
            (folder / f"image{index}").write_bytes(content)
            command += ["-device", f"loader,file={folder / f'image{index}'},addr={at:#x},force-raw=on"]
        command += ["-chardev", f"file,id=text,path={folder / 'text'}", "-serial", "chardev:text"]
        command += ["-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            link = _connect(folder / "qmp", child, seconds)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                status = _ask(link, "query-status")["status"]
                shown = _ask(link, "human-monitor-command", {"command-line": "info registers"})
                flags = int(re.findall(r"FL=([0-9a-f]+)", shown)[0], 16)
                if status == "shutdown" or ("HLT=1" in shown and not flags & 0x200):
                    result.end = "shutdown" if status == "shutdown" else "hlt"
                    break
            for name, value in re.findall(r"([A-Z][A-Z0-9]{1,2}) ?=([0-9a-f]{8,16})\b", shown):
                result.regs[name.lower()] = int(value, 16)
            for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp"):
                if f"e{name}" in result.regs:
                    result.regs[f"r{name}"] = result.regs[f"e{name}"]
            result.regs["rflags"] = flags
            _ask(link, "pmemsave", {"val": 0, "size": memory, "filename": str(folder / "memory")})
            result.memory = (folder / "memory").read_bytes()
            link.close()
        finally:
            child.kill()
            child.wait()
            child.stderr.close()  # type: ignore[union-attr]
        result.console = (folder / "text").read_text("latin-1")
    return result


def _connect(path: Path, child: subprocess.Popen[bytes], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(path))
        except OSError:
            link.close()
            continue
        stream = link.makefile("rw", encoding="utf-8")
        json.loads(stream.readline())
        _ask(stream, "qmp_capabilities")
        return stream
    raise RuntimeError(f"QEMU did not start: {child.stderr.read().decode() if child.stderr else ''}")


def _ask(link: Any, name: str, arguments: dict[str, Any] | None = None) -> Any:
    link.write(json.dumps({"execute": name, "arguments": arguments or {}}) + "\n")
    link.flush()
    while True:
        answer = json.loads(link.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise RuntimeError(answer["error"]["desc"])
