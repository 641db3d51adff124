"""Guest-physical memory as Python sees it. Every store goes through the engine, which has to know of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from .errors import BadArgument, NoSuchSlot
from .state import number

if TYPE_CHECKING:
    from .engine import Handle

__all__ = ["Memory", "Words", "parse_size"]

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
PAGE = 4096


def parse_size(size: object, what: str = "memory") -> int:
    """Bytes from ``"4M"``, ``"64K"``, ``"1G"`` or a number; a multiple of 4096."""
    right = 'Give a number of bytes, or text such as "64K", "4M", "1G"; a multiple of 4096.'
    if isinstance(size, str):
        text = size.strip().upper().removesuffix("IB").removesuffix("B") if size.strip() else ""
        digits, unit = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "")
        try:
            amount = int(digits.strip().replace("_", ""), 0) * _UNITS[unit]
        except (ValueError, KeyError):
            raise BadArgument(f"{what}={size!r} is no size.", right) from None
    elif isinstance(size, int) and not isinstance(size, bool):
        amount = size
    else:
        raise BadArgument(f"{what}={size!r} is no size.", right)
    if amount <= 0 or amount % PAGE:
        raise BadArgument(f"{what}={size!r} is {amount} bytes: memory comes in pages of 4096 bytes.", right)
    return amount


class _Owner(Protocol):
    """What memory needs of its machine."""

    def _acquire(self) -> Handle: ...
    def _release(self) -> None: ...
    def _edited(self, what: str) -> None: ...
    def _extents(self) -> tuple[tuple[int, int, int], ...]: ...


class Words:
    """Memory as numbers of one width, little-endian: ``vm.memory.u32[0x1000]``."""

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self._size = size

    def __getitem__(self, gpa: int) -> int:
        return int.from_bytes(self._memory.read(gpa, self._size), "little")

    def __setitem__(self, gpa: int, value: int) -> None:
        data = number(value, f"u{8 * self._size}", 8 * self._size).to_bytes(self._size, "little")
        self._memory.write(gpa, data)

    def __repr__(self) -> str:
        return f"<memory in words of {8 * self._size} bits>"


class Memory:
    """All guest-physical memory.

    ``memory[a:b]`` reads bytes, ``memory[a:b] = data`` writes as many; ``memory[a]`` is one byte as a number.
    ``u8``, ``u16``, ``u32``, ``u64`` read and write numbers. ``view()`` is read-only and copies nothing.

    Raises
    ------
    NoSuchSlot
        Where no memory is; the message names the address and what is there.
    """

    def __init__(self, owner: _Owner, space: int = 0) -> None:
        self._owner = owner
        self._space = space
        self.u8 = Words(self, 1)
        self.u16 = Words(self, 2)
        self.u32 = Words(self, 4)
        self.u64 = Words(self, 8)

    def read(self, gpa: int, size: int) -> bytes:
        """``size`` bytes from ``gpa`` on."""
        gpa, size = _address(gpa), _length(size)
        handle = self._owner._acquire()
        try:
            data = handle.read(self._space, gpa, size)
        finally:
            self._owner._release()
        if len(data) != size:
            raise self._hole(gpa + len(data), f"reading {size} bytes from {gpa:#x}")
        return data

    def write(self, gpa: int, data: bytes | bytearray | memoryview | Iterable[int]) -> None:
        """Stores the bytes from ``gpa`` on; all of them, or none where memory ends before."""
        gpa = _address(gpa)
        try:
            content = bytes(data) if not isinstance(data, int) else None
        except (TypeError, ValueError):
            content = None
        if content is None:
            raise BadArgument(f"{type(data).__name__} cannot be stored as bytes.", 'Give bytes, such as b"\\x01\\x02".')
        if not content:
            return
        handle = self._owner._acquire()
        try:
            if self._space == 0:
                end = self._covered(gpa, len(content))
                if end < gpa + len(content):
                    raise self._hole(end, f"writing {len(content)} bytes at {gpa:#x}")
            done = handle.write(self._space, gpa, content)
        finally:
            self._owner._release()
        if done != len(content):
            raise self._hole(gpa + done, f"writing {len(content)} bytes at {gpa:#x}")
        self._owner._edited("memory")

    def view(self, slot: int = 0) -> memoryview:
        """A slot's memory without a copy, read-only: it shows what the guest stores later too. numpy takes it.

        It stays usable after the slot or the machine is gone.
        """
        handle = self._owner._acquire()
        try:
            return handle.view(slot)
        finally:
            self._owner._release()

    def __getitem__(self, where: int | slice) -> bytes | int:
        if isinstance(where, slice):
            start, stop = self._bounds(where)
            return self.read(start, stop - start)
        return self.read(where, 1)[0]

    def __setitem__(self, where: int | slice, data: bytes | bytearray | memoryview | int) -> None:
        if isinstance(where, slice):
            start, stop = self._bounds(where)
            if isinstance(data, int):
                raise BadArgument(
                    f"A range of {stop - start} bytes takes bytes; a number was given.",
                    f"For one number: vm.memory.u32[{start:#x}] = {data:#x}.",
                )
            if len(data) != stop - start:
                raise BadArgument(
                    f"The range {start:#x} to {stop:#x} has {stop - start} bytes; {len(data)} were given.",
                    f"vm.memory.write({start:#x}, data) takes any length.",
                )
            self.write(start, data)
        elif isinstance(data, int):
            self.u8[where] = data
        else:
            raise BadArgument(
                "One address takes one byte, as a number.", f"vm.memory.write({where:#x}, data) takes bytes."
            )

    def __len__(self) -> int:
        return sum(size for _, _, size in self._owner._extents())

    def __repr__(self) -> str:
        return f"<memory: {self._there()}>"

    def _bounds(self, where: slice) -> tuple[int, int]:
        if where.step not in (None, 1):
            raise BadArgument(
                f"Memory is read in one piece; a step of {where.step} was given.",
                "Take the step of the bytes: vm.memory[a:b][::2].",
            )
        if where.stop is None or where.start is None:
            extents = self._owner._extents()
            low = min((gpa for _, gpa, _ in extents), default=0)
            high = max((gpa + size for _, gpa, size in extents), default=0)
            where = slice(low if where.start is None else where.start, high if where.stop is None else where.stop)
        start, stop = _address(where.start), _address(where.stop)
        if stop < start:
            raise BadArgument(f"The range {start:#x} to {stop:#x} ends before it begins.", "Give vm.memory[low:high].")
        return start, stop

    def _covered(self, gpa: int, size: int) -> int:
        """The end of the run of memory that begins at ``gpa``, or ``gpa + size`` if that is nearer."""
        at = gpa
        while at < gpa + size:
            here = next((start + n for _, start, n in self._owner._extents() if start <= at < start + n), None)
            if here is None:
                return at
            at = here
        return gpa + size

    def _there(self) -> str:
        parts = [f"slot {slot} from {gpa:#x} to {gpa + size:#x}" for slot, gpa, size in sorted(self._owner._extents())]
        return ", ".join(parts) or "no slot yet"

    def _hole(self, at: int, doing: str) -> NoSuchSlot:
        if self._space == 1:
            return NoSuchSlot(f"No host memory is at {at:#x} ({doing}).")
        return NoSuchSlot(f"No memory is at guest-physical {at:#x} ({doing}).", f"There is {self._there()}.")


def _address(value: object) -> int:
    address = number(value, "address")
    if address >= 1 << 52:
        raise BadArgument(
            f"{address:#x} is no guest-physical address: they have 52 bits at the most.",
            "Give a guest-physical address; vm.translate(gva).gpa makes one of a guest-virtual address.",
        )
    return address


def _length(value: object) -> int:
    size = number(value, "size")
    if size > 1 << 40:
        raise BadArgument(f"{size} bytes are more than can be read at once.", "Give the number of bytes.")
    return size
