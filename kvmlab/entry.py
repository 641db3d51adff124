"""The state a guest starts in after ``load``: where its registers, tables and stack are.

16 bits: segments 0, SP below the boot sector. 32: flat, paging off. 64: the first 4 GiB mapped to themselves with 2 MB
pages, so that a hole is MMIO and not #PF. 32 and 64 have a real GDT in memory, so that a guest can load its segments
again; its tables lie directly below the last three pages of slot 0, which belong to the TSS of virtual-8086 mode.
"""

from __future__ import annotations

import dataclasses
import struct

from .errors import BadArgument
from .guest import Image
from .state import DTable, Regs, Segment, SRegs

__all__ = ["CODE", "DATA", "TSS", "USER_CODE", "USER_DATA", "Entry", "entry_state"]

PAGE = 4096
VM86_PAGES = 3
"""Pages at the top of slot 0 that a 2006 hypervisor on Intel keeps for virtual-8086 mode."""
CODE, DATA, USER_DATA, USER_CODE, TSS = 0x08, 0x10, 0x1B, 0x23, 0x28
"""Selectors. Ring-3 data comes before ring-3 code because SYSRET wants them so."""
_4G = 1 << 32
_CR0 = 0x31  # PE ET NE


@dataclasses.dataclass(frozen=True)
class Entry:
    """Registers and memory to start with, and the memory that images have to leave alone."""

    regs: Regs
    sregs: SRegs
    pages: tuple[tuple[int, bytes], ...]
    reserved: tuple[int, int]


def entry_state(image: Image, reset: SRegs, gpa: int, size: int) -> Entry:
    """The entry state for an image in slot 0, which lies at ``gpa`` and has ``size`` bytes.

    Parameters
    ----------
    reset : SRegs
        Power-on state: what is not said here stays so.
    """
    end = min(gpa + size, _4G)
    top = end - VM86_PAGES * PAGE
    if image.bits == 16:
        entry = _real(image, reset, max(top, gpa), gpa + size)
    else:
        entry = _flat(image, reset, gpa, top, gpa + size)
    low, high = entry.reserved
    for at, length in image.segments:
        if length and at < high and at + length > low:
            raise _overlap(image, at, at + length, low, high)
    return entry


def _overlap(image: Image, at: int, end: int, low: int, high: int) -> BadArgument:
    holds = "the last three pages of slot 0, which belong to the TSS of virtual-8086 mode"
    if image.bits != 16:
        holds = f"the GDT, the TSS{' and the page tables' if image.bits == 64 else ''} of the entry state, and {holds}"
    return BadArgument(
        f"The image {image.name!r} covers {at:#x} to {end:#x}; {low:#x} to {high:#x} are taken: {holds}.",
        "Give more memory (VM(memory=…)) or a lower org, or load with setup=False and set the registers yourself.",
    )


def _real(image: Image, reset: SRegs, top: int, end: int) -> Entry:
    if image.entry > 0xFFFFF:
        raise BadArgument(
            f"Entry {image.entry:#x} cannot be reached in real mode: it lies above 1 MB.",
            "Give an org below 0x100000, or bits=32 or 64.",
        )
    selector = 0 if image.entry <= 0xFFFF else image.entry >> 4 & 0xF000
    data = Segment(0, 0, 0xFFFF, 0x93)
    covers = any(at < 0x7C00 and at + length > 0x7000 for at, length in image.segments)
    sregs = reset.replace(
        cs=Segment(selector, selector << 4, 0xFFFF, 0x9B), ss=data, ds=data, es=data, fs=data, gs=data,
        idt=DTable(0, 0x3FF), gdt=DTable(0, 0xFFFF),
    )  # fmt: skip
    regs = Regs(rip=image.entry - (selector << 4), rsp=0xFFF0 if covers else 0x7C00, rflags=2)
    return Entry(regs, sregs, (), (top, end))


def _flat(image: Image, reset: SRegs, gpa: int, top: int, end: int) -> Entry:
    long = image.bits == 64
    gdt = top - PAGE
    base = gdt - (6 * PAGE if long else 0)
    if base < gpa + PAGE:
        raise BadArgument(
            f"Slot 0 has {end - gpa:#x} bytes: too few for the tables of a {image.bits}-bit entry state.",
            'Give at least 64K: VM(memory="64K").',
        )
    tss = gdt + 0x800
    code_attr, data_attr = (0xA09B, 0xC093) if long else (0xC09B, 0xC093)
    code = Segment(CODE, 0, 0xFFFFFFFF, code_attr)
    data = Segment(DATA, 0, 0xFFFFFFFF, data_attr)
    task = Segment(TSS, tss, 103, 0x8B)
    user = (Segment(USER_DATA, 0, 0xFFFFFFFF, data_attr | 0x60), Segment(USER_CODE, 0, 0xFFFFFFFF, code_attr | 0x60))
    table = struct.pack(
        "<7Q", 0, code.descriptor, data.descriptor, user[0].descriptor, user[1].descriptor, task.descriptor, tss >> 32
    )
    pages = [(gdt, table), (tss, _tss(long, base))]
    cr0, cr3, cr4, efer = _CR0, 0, 0, 0
    if long:
        pages += _identity_map(base)
        cr0, cr3, cr4, efer = _CR0 | 1 << 31, base, 0x20, 0x500
    sregs = reset.replace(
        cs=code, ss=data, ds=data, es=data, fs=data, gs=data, tr=task, ldtr=Segment(0, 0, 0, 0x10000),
        gdt=DTable(gdt, 55 if long else 47), idt=DTable(0, 0), cr0=cr0, cr3=cr3, cr4=cr4, efer=efer,
    )  # fmt: skip
    pointer = base - (8 if long else 4)  # aligned as after a CALL; the return address is 0
    return Entry(Regs(rip=image.entry, rsp=pointer, rflags=2), sregs, tuple(pages), (base, end))


def _tss(long: bool, stack: int) -> bytes:
    """The stack that ring 3 comes back on; no I/O bitmap (its base lies behind the limit)."""
    tss = bytearray(104)
    if long:
        struct.pack_into("<Q", tss, 4, stack)
    else:
        struct.pack_into("<II", tss, 4, stack, DATA)
    struct.pack_into("<H", tss, 102, 104)
    return bytes(tss)


def _identity_map(base: int) -> list[tuple[int, bytes]]:
    """PML4, PDPT and four page directories: 4 GiB, 2 MB a page, open to ring 3."""
    rights = 7
    pdpt, directories = base + PAGE, base + 2 * PAGE
    tables = [
        (base, struct.pack("<Q", pdpt | rights)),
        (pdpt, struct.pack("<4Q", *(directories + n * PAGE | rights for n in range(4)))),
        (directories, struct.pack("<2048Q", *(n << 21 | rights | 0x80 for n in range(2048)))),
    ]
    return [(at, data.ljust(PAGE, b"\0")) for at, data in tables]
