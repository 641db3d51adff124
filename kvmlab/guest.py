"""What goes in: guests from assembler text, from C, from ELF and flat files.

An :class:`Image` is bytes with an address, an entry point, names and source lines. :func:`assemble` and
:func:`compile_c` make one with the tools found on this machine (:mod:`kvmlab.toolchain`); the text is in the common
part of GNU and LLVM Intel syntax (:mod:`kvmlab.intel_syntax`), so the same text gives the same bytes everywhere.
"""

from __future__ import annotations

import bisect
import difflib
import functools
import importlib.resources
import io
import os
import re
import tempfile
import warnings as _warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from . import intel_syntax, toolchain
from .errors import AssemblyError, AssemblyWarning, BadArgument, ToolUnavailable

__all__ = ["Image", "SourceLine", "assemble", "compile_c"]

BITS = (16, 32, 64)
MAX_IMAGE_BYTES = 256 << 20


class SourceLine(NamedTuple):
    """One line of the text an image was made from; ``number`` counts from 1."""

    number: int
    text: str


class Image:
    """A guest's bytes and what is known about them. Immutable; pickles and compares.

    Parameters
    ----------
    data
        The bytes from the lowest address to the highest; gaps are zero.
    org
        Guest-physical address of the first byte.
    entry
        Where the guest starts; ``org`` where not given.
    symbols
        Labels: name to address.
    lines
        Source lines: address to :class:`SourceLine`.
    bits
        The mode the guest starts in: 16, 32 or 64.
    name
        What to call it in messages.
    segments
        Where the bytes stand that really are in the image, as (address, size); one segment where not given.
    constants
        Names from ``.equ``: name to number.
    source
        The text it was made from.
    warnings
        What the tools said about a text they took all the same.
    """

    __slots__ = (
        "_addresses",
        "bits",
        "constants",
        "data",
        "entry",
        "lines",
        "name",
        "org",
        "segments",
        "source",
        "symbols",
        "warnings",
    )
    _addresses: tuple[int, ...]
    bits: int
    constants: Mapping[str, int]
    data: bytes
    entry: int
    lines: Mapping[int, SourceLine]
    name: str
    org: int
    segments: tuple[tuple[int, int], ...]
    source: str
    symbols: Mapping[str, int]
    warnings: tuple[str, ...]

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        org: int = 0,
        entry: int | None = None,
        symbols: Mapping[str, int] | None = None,
        lines: Mapping[int, SourceLine | tuple[int, str]] | None = None,
        *,
        bits: int = 16,
        name: str = "guest",
        segments: Iterable[tuple[int, int]] | None = None,
        constants: Mapping[str, int] | None = None,
        source: str = "",
        warnings: Iterable[str] = (),
    ) -> None:
        try:
            data = bytes(memoryview(data))
        except TypeError:
            raise BadArgument(
                f"An image is made of bytes; {type(data).__name__} was given.",
                "Give bytes, or use kvmlab.assemble(text) for a text.",
            ) from None
        _check_bits(bits)
        _check_org(org)
        entry = org if entry is None else entry
        if not isinstance(entry, int) or entry < 0:
            raise BadArgument(f"entry={entry!r} is no address.", f"Give a number, for instance org ({org:#x}).")
        put = functools.partial(object.__setattr__, self)
        put("data", data)
        put("org", org)
        put("entry", entry)
        put("bits", bits)
        put("name", name)
        put("symbols", MappingProxyType(dict(sorted((symbols or {}).items(), key=lambda item: (item[1], item[0])))))
        put("constants", MappingProxyType(dict(constants or {})))
        put("lines", MappingProxyType({at: SourceLine(*line) for at, line in sorted((lines or {}).items())}))
        put("segments", tuple((int(a), int(n)) for a, n in segments) if segments is not None else ((org, len(data)),))
        put("source", source)
        put("warnings", tuple(warnings))
        put("_addresses", tuple(self.lines))

    # --- A moment: immutable, compares, pickles -----------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"An image does not change. Make another one: image.replace({name}=…).")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("An image does not change.")

    def _key(self) -> tuple[Any, ...]:
        return (self.data, self.org, self.entry, self.bits, dict(self.symbols), dict(self.lines), self.segments)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Image) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.data, self.org, self.entry, self.bits))

    def __len__(self) -> int:
        return len(self.data)

    def __bytes__(self) -> bytes:
        return self.data

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain types (``data`` stays bytes)."""
        return {
            "name": self.name,
            "bits": self.bits,
            "org": self.org,
            "entry": self.entry,
            "data": self.data,
            "segments": [list(s) for s in self.segments],
            "symbols": dict(self.symbols),
            "constants": dict(self.constants),
            "lines": {at: [line.number, line.text] for at, line in self.lines.items()},
            "source": self.source,
            "warnings": list(self.warnings),
        }

    def replace(self, **changes: Any) -> Image:
        """The same image with some fields changed."""
        fields = self.to_dict()
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise BadArgument(f"An image has no {unknown[0]!r}.", f"It has {', '.join(fields)}.")
        if "data" in changes or "org" in changes:
            fields["segments"] = None
        fields.update(changes)
        return _from_dict(fields)

    # --- Looking things up --------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """The first address behind the image."""
        return self.org + len(self.data)

    def address_of(self, name: str) -> int:
        """The address of a label, or the value of a constant."""
        for table in (self.symbols, self.constants):
            if name in table:
                return table[name]
        known = ", ".join(list(self.symbols)[:8]) or "none"
        raise BadArgument(f"The image {self.name!r} has no label {name!r}.", f"It has: {known}.")

    def line_at(self, address: int) -> SourceLine | None:
        """The source line that made the instruction or data at an address; None where nothing is known."""
        if not self.org <= address < self.end:
            return None
        at = bisect.bisect_right(self._addresses, address) - 1
        return self.lines[self._addresses[at]] if at >= 0 else None

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The nearest label at or below an address inside the image, and the distance from it."""
        best: tuple[str, int] | None = None
        if self.org <= address < self.end:
            for name, at in self.symbols.items():
                if at > address:
                    break
                best = (name, address - at)
        return best

    # --- Showing itself -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return (
            f"<Image {self.name!r}: {len(self.data)} bytes at {self.org:#x}, entry {self.entry:#x}, "
            f"{self.bits}-bit, {len(self.symbols)} labels>"
        )

    def listing(self) -> str:
        """Address, bytes and source line, as an assembler's listing prints them."""
        out = []
        addresses = [*self._addresses, self.end]
        for at, following in zip(addresses, addresses[1:], strict=False):
            data = self.data[at - self.org : following - self.org]
            shown = data[:8].hex(" ") + (" …" if len(data) > 8 else "")
            out.append(f"{at:08x}  {shown:<25}  {self.lines[at].number:4}  {self.lines[at].text.rstrip()}")
        return "\n".join(out) if out else f"{self.org:08x}  {self.data[:16].hex(' ')}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from . import html

        rows: list[Sequence[object]] = []
        addresses = [*self._addresses, self.end]
        names: dict[int, list[str]] = {}
        for name, at in self.symbols.items():
            names.setdefault(at, []).append(name)
        pairs = list(zip(addresses, addresses[1:], strict=False))
        for at, following in pairs[:64]:
            data = self.data[at - self.org : following - self.org]
            shown = data[:8].hex(" ") + (" …" if len(data) > 8 else "")
            rows.append(
                [
                    html.code(f"{at:#x}"),
                    html.code(shown),
                    ", ".join(names.get(at, [])),
                    self.lines[at].number,
                    html.code(self.lines[at].text.strip()),
                ]
            )
        if not rows:
            rows = [
                [html.code(f"{self.org + i:#x}"), html.code(self.data[i : i + 8].hex(" ")), "", "", ""]
                for i in range(0, min(len(self.data), 128), 8)
            ]
        caption = repr(self)[1:-1] + (f" (first {len(rows)} of {len(pairs)} lines)" if len(pairs) > 64 else "")
        return html.bundle(html.table(caption, ["address", "bytes", "label", "line", "text"], rows), repr(self))

    # --- From files ---------------------------------------------------------------------------------------------

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, org: int | None = None, bits: int | None = None) -> Image:
        """A guest from an ELF executable (its own addresses) or a flat file (bytes that stand at ``org``).

        Parameters
        ----------
        org
            For a flat file: the address of its first byte; 0x7c00, where a BIOS puts a boot sector, where not given.
        bits
            The mode it starts in; an ELF file's own class (32 or 64), 16 for a flat file.

        Raises
        ------
        BadArgument
            No such file; an ELF file for another processor, or not linked; an ``org`` for an ELF file.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise BadArgument(
                f"{os.fspath(path)} cannot be read: {error.strerror}.", "Give the path of a file.", errno=error.errno
            ) from None
        name = Path(path).stem
        if data[:4] == b"\x7fELF":
            if org is not None:
                raise BadArgument(
                    f"org={org:#x} was given for {path}, but an ELF file carries its own addresses.",
                    "Leave org out, or link the file for that address.",
                )
            return _from_elf(data, name, bits)
        if not data:
            raise BadArgument(f"{path} is empty.", "Give an ELF executable or a flat binary file.")
        return cls(data, 0x7C00 if org is None else org, bits=16 if bits is None else bits, name=name)


def _from_dict(fields: dict[str, Any]) -> Image:
    fields = dict(fields)
    lines = {int(at): SourceLine(*line) for at, line in fields.pop("lines").items()}
    return Image(fields.pop("data"), fields.pop("org"), fields.pop("entry"), fields.pop("symbols"), lines, **fields)


def _check_bits(bits: object) -> None:
    if bits not in BITS or isinstance(bits, bool):
        raise BadArgument(
            f"bits={bits!r} is no mode of the processor.", "Give 16, 32 or 64: the mode the guest starts in."
        )


def _check_org(org: object) -> None:
    if not isinstance(org, int) or isinstance(org, bool) or not 0 <= org < 1 << 52:
        raise BadArgument(
            f"org={org!r} is no guest-physical address.", "Give a number such as 0x1000, from 0 to 2^52 - 1."
        )


# --- ELF -------------------------------------------------------------------------------------------------------------


def _elf_file(data: bytes, name: str) -> Any:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        return ELFFile(io.BytesIO(data))
    except (ELFError, ValueError, KeyError, OSError) as error:
        raise BadArgument(f"{name} begins like an ELF file but is broken: {error}.", "Build it again.") from None


def _join(pieces: Sequence[tuple[int, bytes]], name: str) -> tuple[int, bytes]:
    """The pieces in one run of bytes from the lowest address on, gaps zero."""
    org = min(at for at, _ in pieces)
    size = max(at + len(data) for at, data in pieces) - org
    if size > MAX_IMAGE_BYTES:
        raise BadArgument(
            f"{name} reaches from {org:#x} to {org + size:#x}: {size >> 20} MiB.",
            f"An image may span {MAX_IMAGE_BYTES >> 20} MiB. Link its parts closer together, or load it in parts.",
        )
    out = bytearray(size)
    for at, data in pieces:
        out[at - org : at - org + len(data)] = data
    return org, bytes(out)


def _from_elf(data: bytes, name: str, bits: int | None) -> Image:
    elf = _elf_file(data, name)
    machine = elf["e_machine"]
    if machine not in ("EM_386", "EM_X86_64"):
        raise BadArgument(f"{name} is an ELF file for {machine}.", "Give one for x86 (EM_386 or EM_X86_64).")
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise BadArgument(
            f"{name} is not linked ({elf['e_type']}).", "Link it first: ld -T script, or cc -nostdlib -static."
        )
    pieces = []
    for segment in elf.iter_segments():
        if segment["p_type"] == "PT_INTERP":
            raise BadArgument(
                f"{name} is a program for an operating system (it names an interpreter).",
                "A guest runs alone: link with -nostdlib -static.",
            )
        if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]:
            if segment["p_memsz"] > MAX_IMAGE_BYTES:
                raise BadArgument(
                    f"{name} has a segment of {segment['p_memsz']:#x} bytes.",
                    f"An image may span {MAX_IMAGE_BYTES >> 20} MiB.",
                )
            content = segment.data()
            pieces.append((segment["p_paddr"], content + bytes(segment["p_memsz"] - len(content)), segment["p_vaddr"]))
    if not pieces:
        raise BadArgument(f"{name} has nothing to load (no PT_LOAD segment).", "Link it as an executable.")
    org, flat = _join([(at, content) for at, content, _ in pieces], name)
    entry = elf["e_entry"]
    for at, content, virtual in pieces:
        # A kernel may be linked for a high virtual address; it starts with paging off, at the physical one.
        if virtual <= entry < virtual + len(content) and virtual != at:
            entry += at - virtual
            break
    symbols, constants = _elf_symbols(elf)
    lines = _elf_lines(elf, {})
    return Image(
        flat,
        org,
        entry,
        symbols,
        lines,
        bits=elf.elfclass if bits is None else bits,
        name=name,
        segments=[(at, len(content)) for at, content, _ in pieces],
        constants=constants,
    )


def _elf_symbols(elf: Any) -> tuple[dict[str, int], dict[str, int]]:
    labels: dict[str, int] = {}
    constants: dict[str, int] = {}
    table = elf.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if table else ():
        kind, where = symbol["st_info"]["type"], symbol["st_shndx"]
        if not symbol.name or kind in ("STT_FILE", "STT_SECTION") or where == "SHN_UNDEF":
            continue
        (constants if where == "SHN_ABS" else labels)[symbol.name] = symbol["st_value"]
    return labels, constants


def _elf_lines(elf: Any, sources: Mapping[str, list[str]], base: int = 0) -> dict[int, SourceLine]:
    """Address to source line from the DWARF line programs; only files in ``sources``, or all where it is empty."""
    out: dict[int, SourceLine] = {}
    if not elf.has_dwarf_info():
        return out
    dwarf = elf.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        version = program["version"]
        files = program["file_entry"]
        for entry in program.get_entries():
            state = entry.state
            if state is None or state.end_sequence or not state.line:
                continue
            index = state.file if version >= 5 else state.file - 1
            if not 0 <= index < len(files):
                continue
            name = files[index].name.decode("utf-8", "replace")
            rows = sources.get(os.path.basename(name))
            if sources and rows is None:
                continue
            text = rows[state.line - 1] if rows and state.line <= len(rows) else ""
            out[state.address + base] = SourceLine(state.line, text)
    return out


# --- The linker ------------------------------------------------------------------------------------------------------

_DISCARD = "/DISCARD/ : { *(.comment*) *(.note*) *(.eh_frame*) *(.gnu*) *(.interp) *(.dyn*) *(.hash) }"


def _script(org: int, placed: Mapping[str, int], align_data: int) -> str:
    """The linker script: code first, from org on; named sections at addresses of their own."""
    own = "\n".join(f"  {name} {at:#x} : {{ KEEP(*({name})) }}" for name, at in placed.items())
    return f"""SECTIONS
{{
{own}
  .text {org:#x} : {"SUBALIGN(1) " if org % 16 else ""}{{ KEEP(*(.text.entry)) *(.text .text.*) }}
  .rodata : {{ *(.rodata .rodata.*) }}
  .data ALIGN({align_data}) : {{ *(.data .data.*) }}
  .bss : {{ *(.bss .bss.* COMMON) }}
  {_DISCARD}
}}
"""


def _link(
    tools: toolchain.Tools, folder: Path, objects: Sequence[str], script: str, emulation: str
) -> tuple[str, bytes]:
    """Link; what the linker said and the ELF file's bytes (empty where it failed)."""
    (folder / "guest.ld").write_text(script)
    command = [
        *tools.linker,
        "-m",
        emulation,
        "-static",
        "-nostdlib",
        "--build-id=none",
        "-z",
        "noexecstack",
        "-T",
        "guest.ld",
        *objects,
        "-o",
        "guest.elf",
    ]
    done = toolchain.run(command, str(folder))
    out = folder / "guest.elf"
    return done.stderr, out.read_bytes() if done.returncode == 0 and out.exists() else b""


def _image(
    elf: Any, source: str, file: str, org: int, bits: int, name: str, entry: str | None, warnings: Sequence[str]
) -> Image:
    """An image from an executable of our own linking: its allocated sections, not its segments."""
    pieces = []
    for section in elf.iter_sections():
        if section["sh_flags"] & 2 and section["sh_size"]:  # SHF_ALLOC
            size = section["sh_size"]
            if size > MAX_IMAGE_BYTES:
                raise BadArgument(
                    f"Section {section.name} of {name} has {size:#x} bytes.",
                    f"An image may span {MAX_IMAGE_BYTES >> 20} MiB; use memory behind it without naming it.",
                )
            content = bytes(size) if section["sh_type"] == "SHT_NOBITS" else section.data()
            pieces.append((section["sh_addr"], content))
    if not pieces:
        pieces = [(org, b"")]
    start, flat = _join(pieces, name)
    symbols, constants = _elf_symbols(elf)
    if entry is not None and entry not in symbols:
        raise BadArgument(
            f"entry={entry!r} is no label of the text.", f"Labels: {', '.join(list(symbols)[:8]) or 'none'}."
        )
    begin = symbols[entry] if entry is not None else symbols.get("_start", org)
    lines = _elf_lines(elf, {file: source.splitlines()})
    return Image(
        flat,
        start,
        begin,
        symbols,
        lines,
        bits=bits,
        name=name,
        segments=[(a, len(d)) for a, d in sorted(pieces)],
        constants=constants,
        source=source,
        warnings=warnings,
    )


# --- Assembler -------------------------------------------------------------------------------------------------------


def assemble(
    text: str,
    bits: int = 16,
    org: int = 0x1000,
    *,
    entry: str | None = None,
    sections: Mapping[str, int] | None = None,
    name: str = "guest",
    tools: str = "auto",
) -> Image:
    """Translate assembler text into an image.

    Parameters
    ----------
    text
        GNU/LLVM Intel syntax: ``mov al, 'A'``; comments begin with ``#``; ``.byte``, ``.word``, ``.asciz`` for data;
        ``offset x`` for the address of a label, ``[x]`` for what stands there.
    bits
        16, 32 or 64: the mode the guest starts in. ``.code32`` and ``.code64`` in the text change it further on.
    org
        Guest-physical address of the first byte.
    entry
        The label to start at; ``_start`` where there is one, else ``org``.
    sections
        Addresses for sections of the text's own: ``{".vectors": 0}``.
    tools
        "auto", or a family: "gnu", "llvm", "zig".

    Raises
    ------
    AssemblyError
        The text has an error; ``.line``, ``.column`` and ``.message`` say where and what, and the message of the
        whole shows the line.
    ToolUnavailable
        No assembler here; the message says what brings one.

    Warns
    -----
    AssemblyWarning
        The text was taken but probably does not mean what was meant, e.g. a constant used before its ``.equ``.

    Examples
    --------
    >>> kvmlab.assemble("mov dx, 0x3f8; mov al, 'A'; out dx, al; hlt").data.hex()
    'baf803b041eef4'
    """
    if not isinstance(text, str):
        raise BadArgument(
            f"The guest's text is a str; {type(text).__name__} was given.",
            "For bytes use kvmlab.Image(data, org), for a file kvmlab.Image.from_file(path).",
        )
    _check_bits(bits)
    _check_org(org)
    placed = tuple(sorted((sections or {}).items(), key=lambda item: item[1]))
    for section, at in placed:
        _check_org(at)
        if not re.fullmatch(r"[.\w]+", section) or section in (".text", ".data", ".rodata", ".bss"):
            raise BadArgument(
                f"sections has {section!r}.", "Name a section of your own, such as '.vectors'; org places .text."
            )
    image = _assemble(text, bits, org, entry, placed, name, toolchain.find(tools))
    for warning in image.warnings:
        _warnings.warn(warning, AssemblyWarning, stacklevel=2)
    return image


@functools.lru_cache(maxsize=128)
def _assemble(
    text: str,
    bits: int,
    org: int,
    entry: str | None,
    placed: tuple[tuple[str, int], ...],
    name: str,
    tools: toolchain.Tools,
) -> Image:
    notes = [sentence for _, sentence in intel_syntax.check(text, bits, name)]
    with tempfile.TemporaryDirectory(prefix="kvmlab-") as temporary:
        folder = Path(temporary)
        body = intel_syntax.for_llvm(text, bits) if tools.llvm else text
        # One line before the student's first: every line number below is off by one.
        (folder / "guest.s").write_text(f".intel_syntax noprefix; .text; .code{bits}\n{body}\n", encoding="utf-8")
        if tools.family == "gnu":
            command = [*tools.assembler, "--64", "-g", "-I", temporary, "guest.s", "-o", "guest.o"]
        else:
            command = [*tools.assembler, "-target", "x86_64-unknown-none-elf", "-g", "-c", "guest.s", "-o", "guest.o"]
        done = toolchain.run(command, temporary)
        found, remarks = _messages(done.stderr, "guest.s", 1)
        if done.returncode or not (folder / "guest.o").exists():
            raise _first_error(found, done.stderr, text, bits, name)
        notes += [f"line {line}: {message}" for line, _, message in remarks if not _harmless(message)]
        elf = _elf_file((folder / "guest.o").read_bytes(), name)
        _refuse_undefined(elf, text, bits, name)
        said, data = _link(tools, folder, ["guest.o"], _script(org, dict(placed), 1), "elf_x86_64")
        if not data:
            raise _link_error(said, elf, text, org, name)
        linked = _elf_file(data, name)
        image = _image(linked, "\n" + text, "guest.s", org, bits, name, entry, notes)
        return image.replace(source=text, lines={at: [n - 1, t] for at, (n, t) in image.lines.items() if n > 1})


def _harmless(message: str) -> bool:
    low = message.lower()
    return "using default for `retf" in low


_GNU_LINE = re.compile(
    r"^([\w./<>-]+):(\d+):(?:(\d+):)? (?:(Error|Warning|Fatal error|error|warning|fatal error|note|Info): )(.*)$"
)


def _messages(
    stderr: str, file: str, shift: int
) -> tuple[list[tuple[int, int | None, str]], list[tuple[int, int | None, str]]]:
    """Errors and warnings as (line, column, message) from what either assembler or compiler printed."""
    errors: list[tuple[int, int | None, str]] = []
    remarks: list[tuple[int, int | None, str]] = []
    pending: tuple[list[tuple[int, int | None, str]], str] | None = None
    for row in stderr.splitlines():
        match = _GNU_LINE.match(row)
        if not match:
            continue
        where, line, column, kind, message = match.groups()
        low = kind.lower()
        mine = os.path.basename(where) == file
        if low in ("note", "info"):
            # An error inside a macro: the place in the student's text comes with the note.
            if pending and mine and ("macro" in message or "instantiation" in message):
                pending[0].append((int(line) - shift, None, pending[1]))
                pending = None
            continue
        target = errors if "error" in low else remarks
        if mine:
            target.append((int(line) - shift, int(column) if column else None, _tidy(message)))
        else:
            pending = (target, _tidy(message))
    return errors, remarks


def _tidy(message: str) -> str:
    message = re.sub(r"`([^'`]*)'", r"`\1`", message)
    message = re.sub(r"'([^']*)'", r"`\1`", message)
    message = re.sub(r"\s*\[-W[^\]]*\]$", "", message)
    return message.replace("invalid instruction mnemonic", "no such instruction:").strip()


def _first_error(
    found: list[tuple[int, int | None, str]], stderr: str, text: str, bits: int, name: str
) -> AssemblyError:
    if not found:
        reason = next((row for row in stderr.splitlines() if row.strip()), "the assembler failed without a word")
        return AssemblyError(_tidy(re.sub(r"^[\w./-]+: ", "", reason)), source=text, name=name)
    # By line: LLVM and GNU agree on the first line in error more often than on the order of their messages.
    line, column, message = min(found, key=lambda item: item[0])
    rows = text.splitlines()
    if not 1 <= line <= len(rows):
        line = min(max(line, 1), max(len(rows), 1))
        column = None
    if column is None:
        column = _column(rows[line - 1] if rows else "", message)
    distinct = len({(at, what) for at, _, what in found}) - 1
    return AssemblyError(
        message,
        intel_syntax.hint(text, line, message, bits),
        line=line,
        column=column,
        source=text,
        name=name,
        others=distinct,
    )


def _column(row: str, message: str) -> int:
    """Where in a line the error is: at the words that the message quotes, else at the first that is not blank."""
    for quoted in re.findall(r"`([^`]+)`", message):
        for part in (quoted, quoted.split()[0] if quoted.split() else ""):
            at = row.find(part)
            if part and at >= 0:
                return at + 1
    return len(row) - len(row.lstrip()) + 1


def _where_named(text: str, word: str, bits: int) -> tuple[int | None, int | None]:
    """The first line and column where a name is used."""
    for statement in intel_syntax.statements(text, bits):
        match = re.search(rf"(?<![\w.$]){re.escape(word)}(?![\w.$])", statement.text)
        if match:
            return statement.line, statement.column_of(match.start())
    return None, None


def _refuse_undefined(elf: Any, text: str, bits: int, name: str) -> None:
    """Names used and never defined, found in the object so that both families say the same."""
    table = elf.get_section_by_name(".symtab")
    missing = [s.name for s in table.iter_symbols() if s.name and s["st_shndx"] == "SHN_UNDEF"] if table else []
    if not missing:
        return
    placed = sorted((_where_named(text, word, bits) + (word,) for word in missing), key=lambda p: p[0] or 1 << 30)
    line, column, word = placed[0]
    known, _ = _elf_symbols(elf)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if near:
        right = f"Did you mean `{near[0]}`?"
    elif re.fullmatch(r"(?:[re]?[abcd]x|[re]?[sd]i|[re]?[sb]p|r\d+\w?|[abcd][lh])", word, re.IGNORECASE):
        right = f"`{word}` is a register, but not in {bits}-bit code."
    else:
        right = f"Define it: `{word}:` before an instruction or data, or `.equ {word}, value`."
    raise AssemblyError(
        f"`{word}` is not defined.", right, line=line, column=column, source=text, name=name, others=len(placed) - 1
    )


def _link_error(said: str, elf: Any, text: str, org: int, name: str) -> AssemblyError:
    """What the linker refused, at the student's line: mostly an address that does not fit."""
    line: int | None = None
    match = re.search(r"\((\.[\w.]+)\+(0x[0-9a-f]+)\)", said)
    if match and match.group(1) == ".text":
        lines = _elf_lines(elf, {"guest.s": ("\n" + text).splitlines()})
        offset = int(match.group(2), 16)
        before = [at for at in lines if at <= offset]
        if before:
            line = lines[max(before)].number - 1
    if "truncated to fit" in said or "out of range" in said:
        width = re.search(r"R_(?:X86_64|386)_(?:PC)?(8|16|32)", said)
        bits = width.group(1) if width else "this field"
        size = f"{bits} bits" if width else bits
        right = f"The text stands at {org:#x}."
        if bits == "16":
            right += " 16-bit code reaches 0 to 0xffff: choose an org below that, or use a 32-bit register."
        elif bits == "32":
            right += " Use `movabs rax, offset x` or `lea rax, [rip + x]` for addresses above 2 GiB."
        return AssemblyError(f"An address does not fit into {size}.", right, line=line, source=text, name=name)
    if "overlap" in said:
        return AssemblyError("Two sections overlap.", "Give them addresses farther apart.", source=text, name=name)
    first = next((row for row in said.splitlines() if row.strip()), "the linker failed without a word")
    first = re.sub(r"^.*?(?:error: |guest\.o: )", "", first)
    return AssemblyError(f"The linker refuses it: {_tidy(first)}.", line=line, source=text, name=name)


# --- C ---------------------------------------------------------------------------------------------------------------

_C_FLAGS = (
    "-O2 -g -std=gnu11 -ffreestanding -nostdlib -fno-pic -fno-pie -mno-red-zone -mgeneral-regs-only "
    "-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-tree-vectorize "
    "-fno-strict-aliasing -fno-common -mtune=generic -Wall"
).split()
_MODES = {64: ["-m64", "-march=x86-64"], 32: ["-m32", "-march=i686"], 16: ["-m16", "-march=i386"]}
_ORG = {64: 0x100000, 32: 0x100000, 16: 0x1000}


def compile_c(
    text: str,
    bits: int = 64,
    org: int | None = None,
    *,
    flags: Sequence[str] = (),
    runtime: bool = True,
    name: str = "guest",
    tools: str = "auto",
) -> Image:
    """Compile freestanding C into an image.

    ``main()`` runs without arguments on the stack of the entry state; its value is in RAX (EAX) at the final HLT.
    ``#include <kvmguest.h>`` gives ``outb``, ``inb``, ``puts``, ``hlt`` and their like; ``<stdint.h>``, ``<stddef.h>``,
    ``<stdbool.h>``, ``<limits.h>`` are the compiler's own. There is no floating point: x87 and SSE stay unused.

    Parameters
    ----------
    bits
        64: long mode. 32: protected mode, i686. 16: real mode on a 386, all in the first 64 KiB.
    org
        Guest-physical address of the first byte: 0x100000, and 0x1000 for 16 bits, where not given.
    flags
        More flags for the compiler, after ours: ``["-O0"]``, ``["-DROUNDS=3"]``.
    runtime
        False leaves out our start-up code; then the image starts at ``_start``, or at what stands in section
        ``.text.entry``, and ``memcpy`` and its like are the text's own business.
    tools
        "auto", or a family: "gnu", "llvm", "zig".

    Raises
    ------
    AssemblyError
        The compiler's first error, with the line marked.
    ToolUnavailable
        No C compiler for x86 here; ``pip install kvmlab[guest]`` brings one.
    """
    if not isinstance(text, str):
        raise BadArgument(
            f"The program is a str; {type(text).__name__} was given.", "Read the file first: Path(…).read_text()."
        )
    _check_bits(bits)
    org = _ORG[bits] if org is None else org
    _check_org(org)
    if isinstance(flags, str):
        raise BadArgument(f"flags={flags!r} is one string.", "Give a list: flags=['-O0', '-DN=3'].")
    image = _compile_c(text, bits, org, tuple(flags), runtime, name, toolchain.find(tools, "compiler"))
    for warning in image.warnings:
        _warnings.warn(warning, AssemblyWarning, stacklevel=2)
    return image


_NO_FLOAT = "Guests are compiled without floating point: use integers."
_SOFT_FLOAT = re.compile(
    r"__(add|sub|mul|div|neg|fix|fixuns|float|floatun|extend|trunc|eq|ne|lt|le|gt|ge|unord|cmp)[sdxt]?[fi]"
)


def _c_command(tools: toolchain.Tools, bits: int, flags: Sequence[str], include: str) -> list[str]:
    command = [*tools.compiler]
    if tools.llvm:
        command += ["-target", "x86_64-unknown-none-elf" if bits == 64 else "i386-unknown-none-elf"]
    base = [f for f in _C_FLAGS if not (tools.llvm and f in ("-mtune=generic", "-fno-tree-vectorize"))]
    if tools.llvm:
        base += ["-fno-vectorize", "-fno-slp-vectorize", "-Qunused-arguments"]
    return [*command, *_MODES[bits], *base, "-I", include, *flags]


@functools.lru_cache(maxsize=64)
def _compile_c(
    text: str, bits: int, org: int, flags: tuple[str, ...], runtime: bool, name: str, tools: toolchain.Tools
) -> Image:
    headers = importlib.resources.files("kvmlab") / "include"
    with tempfile.TemporaryDirectory(prefix="kvmlab-") as temporary:
        folder = Path(temporary)
        (folder / "include").mkdir()
        (folder / "include" / "kvmguest.h").write_bytes((headers / "kvmguest.h").read_bytes())
        (folder / "guest.c").write_text(text, encoding="utf-8")
        command = _c_command(tools, bits, flags, "include")
        if bits == 64 and org >= 0x7F000000:
            command.append("-mcmodel=large")
        done = toolchain.run([*command, "-c", "guest.c", "-o", "guest.o"], temporary)
        found, remarks = _messages(done.stderr, "guest.c", 0)
        if done.returncode or not (folder / "guest.o").exists():
            error = _first_error(found, done.stderr, text, bits, name)
            if not found and ("unrecognized" in error.message or "unknown" in error.message):
                raise BadArgument(
                    f"The compiler does not take the flags: {error.message}", f"flags were {list(flags)}."
                )
            if "SSE" in error.message or "floating" in error.message or "general-regs-only" in error.message:
                error.right = _NO_FLOAT
            raise error
        objects = ["guest.o"]
        elf = _elf_file((folder / "guest.o").read_bytes(), name)
        labels, _ = _elf_symbols(elf)
        if runtime:
            if "main" not in labels:
                raise AssemblyError(
                    "There is no main().",
                    "Write `int main(void) { … }`, or give runtime=False and define _start.",
                    source=text,
                    name=name,
                )
            (folder / "runtime.c").write_bytes((headers / "runtime.c").read_bytes())
            own = toolchain.run([*command, "-g0", "-w", "-c", "runtime.c", "-o", "runtime.o"], temporary)
            if own.returncode:
                raise ToolUnavailable(
                    f"{tools} cannot compile kvmlab's start-up code: {own.stderr.strip()[:400]}",
                    "Try other tools: compile_c(…, tools='llvm') or 'zig'.",
                )
            objects.append("runtime.o")
        said, data = _link(tools, folder, objects, _script(org, {}, 0x1000), "elf_x86_64" if bits == 64 else "elf_i386")
        if not data:
            raise _c_link_error(said, text, org, bits, name)
        notes = [f"line {line}: {message}" for line, _, message in remarks]
        return _image(_elf_file(data, name), text, "guest.c", org, bits, name, None, notes)


def _c_link_error(said: str, text: str, org: int, bits: int, name: str) -> AssemblyError:
    match = re.search(r"undefined (?:reference to|symbol:) [`']?([\w.]+)", said)
    if match:
        word = match.group(1)
        if _SOFT_FLOAT.match(word):
            return AssemblyError("The program computes with float or double.", _NO_FLOAT, source=text, name=name)
        at = re.search(
            rf"\b{re.escape(word)}\b", re.sub(r"^#.*$", lambda m: " " * len(m.group()), text, flags=re.MULTILINE)
        )
        line = text.count("\n", 0, at.start()) + 1 if at else None
        column = at.start() - text.rfind("\n", 0, at.start()) if at else None
        return AssemblyError(
            f"`{word}` is not defined.",
            "There is no C library in a guest: <kvmguest.h> has puts, print, print_hex, print_dec, outb, inb, hlt.",
            line=line,
            column=column,
            source=text,
            name=name,
        )
    if "truncated to fit" in said or "out of range" in said:
        return AssemblyError(
            f"The program does not fit: it stands at {org:#x} and {bits}-bit code cannot reach all of it.",
            "Choose a lower org or a smaller program.",
            source=text,
            name=name,
        )
    first = next((row for row in said.splitlines() if row.strip()), "the linker failed without a word")
    return AssemblyError(f"The linker refuses it: {_tidy(first)}.", source=text, name=name)
