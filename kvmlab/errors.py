"""The errors of kvmlab.

Every error says two things: what was given (and why that is refused), and what would be right. It carries
the errno that the interface of 2006 answers in the same case, so that code written against one face of kvmlab
finds its way in the other. What a *guest* does wrong is never an error here: it is an :class:`~kvmlab.Exit`.
"""

from __future__ import annotations

import errno as _errno
import os
import re
from typing import Any, ClassVar

__all__ = [
    "AssemblyError",
    "AssemblyWarning",
    "BadArgument",
    "Busy",
    "EngineUnavailable",
    "Error",
    "NoSuchSlot",
    "NotVisible",
    "SlotOverlap",
    "ToolUnavailable",
    "from_errno",
]


class Error(Exception):
    """Base of all errors of kvmlab.

    Parameters
    ----------
    message
        What was given and why it cannot be done: one sentence with the values in it.
    right
        What would be right: one sentence, a line of code, or a command. Shown after the message.
    errno
        A number from :mod:`errno`; the class's own where not given.
    """

    default_errno: ClassVar[int] = _errno.EIO

    def __init__(self, message: str, right: str | None = None, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.right = right
        self.errno = self.default_errno if errno is None else errno

    @property
    def errno_name(self) -> str:
        """The errno by name: "EINVAL"."""
        return _errno.errorcode.get(self.errno, str(self.errno))

    def __str__(self) -> str:
        if not self.right:
            return self.message
        joint = "\n" if "\n" in self.message or "\n" in self.right else " "
        return f"{self.message}{joint}{self.right}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(cls: type[Error], message: str, state: dict[str, Any]) -> Error:
    """Unpickle without asking a subclass for its own constructor's arguments."""
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class BadArgument(Error, ValueError):
    """A value that cannot be: a wrong size, an unaligned address, an unknown register, a number too wide. EINVAL."""

    default_errno = _errno.EINVAL


class NoSuchSlot(Error, LookupError):
    """A memory slot, or a page of guest-physical memory, that nobody has set up. ENOENT."""

    default_errno = _errno.ENOENT


class SlotOverlap(Error):
    """A memory slot that would cover addresses of another. EEXIST."""

    default_errno = _errno.EEXIST


class Busy(Error):
    """The machine is running in another thread. EBUSY."""

    default_errno = _errno.EBUSY


class NotVisible(Error):
    """This engine, or this moment, cannot show what was asked for; the message says why and where it can be seen."""

    default_errno = _errno.EOPNOTSUPP


class EngineUnavailable(Error):
    """The engine asked for cannot run here: no /dev/kvm, no permission, no such processor. ENODEV, or EACCES."""

    default_errno = _errno.ENODEV


class ToolUnavailable(Error):
    """No assembler, linker or compiler was found; the message names the command that brings one. ENOENT."""

    default_errno = _errno.ENOENT


class AssemblyWarning(UserWarning):
    """The guest's text was translated, but probably not as its author meant it."""


class AssemblyError(Error):
    """The guest's text cannot be translated.

    Attributes
    ----------
    line
        The line of the student's text, counted from 1; None where no single line is to blame.
    column
        The column, counted from 1; None where it is not known.
    message
        What is wrong, without the place.
    right
        The form that works, where one is known.
    """

    default_errno = _errno.EINVAL

    def __init__(
        self,
        message: str,
        right: str | None = None,
        *,
        line: int | None = None,
        column: int | None = None,
        source: str | None = None,
        name: str = "guest",
        others: int = 0,
    ) -> None:
        Error.__init__(self, message, right)
        self.line = line
        self.column = column
        self.source = source
        self.name = name
        self.others = others

    @property
    def text(self) -> str | None:
        """The line of the student's text that is to blame."""
        rows = (self.source or "").splitlines()
        return rows[self.line - 1] if self.line is not None and 1 <= self.line <= len(rows) else None

    def _render_traceback_(self) -> list[str]:
        """In a notebook: the student's line, not the frames of the assembler's caller."""
        return [f"{type(self).__name__}: {self}"]

    def marked(self, around: int = 2) -> str:
        """The student's line with its neighbours, a mark at its head and a caret under the column."""
        if self.source is None or self.line is None:
            return ""
        rows = self.source.splitlines()
        if not 1 <= self.line <= len(rows):
            return ""
        first, last = max(1, self.line - around), min(len(rows), self.line + around)
        width = len(str(last))
        out = []
        for number in range(first, last + 1):
            text = rows[number - 1].rstrip()
            mark = ">" if number == self.line else " "
            out.append(f"{mark} {number:{width}} | {text}".rstrip())
            if number == self.line and self.column is not None:
                # Tabs are kept so that the caret stands under its column whatever a tab's width is.
                pad = re.sub(r"[^\t]", " ", text[: self.column - 1])
                out.append(f"  {'':{width}} | {pad}^")
        return "\n".join(out)

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        if self.line is not None and self.column is not None:
            where = f"line {self.line}, column {self.column}: "
        parts = [f"{where}{self.message}"]
        marked = self.marked()
        if marked:
            parts.append(marked)
        if self.right:
            parts.append(self.right)
        if self.others:
            parts.append(f"({self.others} more error{'s' if self.others > 1 else ''} below this one)")
        return "\n".join(parts)


_BY_ERRNO: dict[int, type[Error]] = {
    _errno.EINVAL: BadArgument,
    _errno.ENOENT: NoSuchSlot,
    _errno.EEXIST: SlotOverlap,
    _errno.EBUSY: Busy,
    _errno.EOPNOTSUPP: NotVisible,
    _errno.ENODEV: EngineUnavailable,
    _errno.EACCES: EngineUnavailable,
    _errno.EPERM: EngineUnavailable,
}


def from_errno(number: int, message: str | None = None, right: str | None = None) -> Error:
    """The error of the right class for an errno (either sign) that the engine returned."""
    number = abs(number)
    cls = _BY_ERRNO.get(number, Error)
    return cls(message or os.strerror(number), right, errno=number)
