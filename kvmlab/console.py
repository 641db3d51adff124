"""What the guest writes to its serial port (0x3f8) or its debug port (0xe9), and what is typed to it."""

from __future__ import annotations

import collections

from . import html

__all__ = ["Console"]

COM1, DEBUG_PORT = 0x3F8, 0xE9
_DATA, _INTERRUPTS, _IDENTIFICATION, _LINE_CONTROL, _MODEM_CONTROL, _LINE_STATUS, _MODEM_STATUS, _SCRATCH = range(8)
_READY, _SENT = 0x01, 0x60


class Console:
    """A serial port that is always ready: the text so far, and the keys that wait.

    ``str(console)``, ``console.text``, ``"word" in console``, ``console == "Hello\\n"``.
    """

    def __init__(self) -> None:
        self._out = bytearray()
        self._in: collections.deque[int] = collections.deque()
        self._registers = bytearray(8)
        self.attached = False

    @property
    def data(self) -> bytes:
        """The bytes that the guest wrote."""
        return bytes(self._out)

    @property
    def text(self) -> str:
        """The same as text: UTF-8, and where that fails each byte as a character."""
        try:
            return self._out.decode("utf-8")
        except UnicodeDecodeError:
            return self._out.decode("latin-1")

    @property
    def waiting(self) -> bytes:
        """What was typed and not read yet."""
        return bytes(self._in)

    def type(self, text: str | bytes) -> None:
        """Types to the guest: the next reads of port 0x3f8 get it."""
        self._in.extend(text.encode() if isinstance(text, str) else text)

    def clear(self) -> None:
        """Forgets what was written and typed."""
        self._out.clear()
        self._in.clear()

    # ---- what the machine calls

    def port_read(self, port: int, size: int) -> int:
        """A read of one of the ports, as a 16550 answers it (or Bochs's debug port: 0xe9)."""
        if port == DEBUG_PORT:
            return DEBUG_PORT
        value = 0
        for n in range(size):
            value |= self._register(port + n - COM1) << 8 * n
        return value

    def port_write(self, port: int, size: int, value: int) -> None:
        """A write to one of the ports."""
        for n in range(size if port != DEBUG_PORT else 1):
            byte, register = value >> 8 * n & 0xFF, port + n - COM1
            if port == DEBUG_PORT or (register == _DATA and not self._registers[_LINE_CONTROL] & 0x80):
                self._out.append(byte)
            elif 0 < register < 8:
                self._registers[register] = byte

    def _register(self, register: int) -> int:
        if register == _DATA and not self._registers[_LINE_CONTROL] & 0x80:
            return self._in.popleft() if self._in else 0
        if register == _LINE_STATUS:
            return _SENT | (_READY if self._in else 0)
        if register == _IDENTIFICATION:
            return 0x01
        if register == _MODEM_STATUS:
            return 0xB0
        return self._registers[register] if 0 <= register < 8 else 0xFF

    # ---- text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text if self.attached else "<no console: vm.attach_console() makes one>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.text == other
        if isinstance(other, bytes):
            return self.data == other
        return self is other

    __hash__ = object.__hash__

    def __contains__(self, part: object) -> bool:
        return part in self.text if isinstance(part, str) else isinstance(part, bytes) and part in self._out

    def __len__(self) -> int:
        return len(self._out)

    def __bool__(self) -> bool:
        return True

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return html.bundle(html.pre(repr(self)), repr(self))
