"""The binding: the only file that touches ffi and lib. Error codes become exceptions, structs become bytes and tuples.

Above it nobody sees C: registers, segments and exits travel as the bytes of their struct (:data:`REGS`, :data:`SREGS`,
:data:`EXIT` … take them apart), so that a step costs one call into C and one copy, and whoever wants a number of it
pays for that number alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kvmlab import errors
from kvmlab.engine._engine import ffi, lib

__version__: str = ffi.string(lib.kl_version()).decode()

NO_LIMIT = (1 << 64) - 1
GUEST_PHYSICAL, HOST_PHYSICAL = 0, 1
LOG_DIRTY_PAGES = 1


# ---- structs as bytes -----------------------------------------------------------------------------------------------


class Layout:
    """How a C struct lies in memory: its fields by name, without C.

    Attributes
    ----------
    size
        Bytes of the struct.
    names
        Its numbers, those of inner structs and arrays with the path in front: ``seg.0.base``.
    """

    def __init__(self, ctype: str) -> None:
        rows = list(_numbers(ffi.typeof(ctype), "", 0))
        self.size: int = ffi.sizeof(ctype)
        self.names = tuple(name for name, _, _ in rows)
        codes, at = ["="], 0
        for _, offset, size in rows:
            codes.append(f"{offset - at}x" if offset > at else "")
            codes.append({1: "B", 2: "H", 4: "I", 8: "Q"}[size])
            at = offset + size
        codes.append(f"{self.size - at}x")
        self.struct = struct.Struct("".join(codes))
        self._at = {name: (offset, size) for name, offset, size in rows}

    def offset(self, name: str) -> int:
        """Where a number stands in the struct, in bytes."""
        return self._at[name][0]

    def unpack(self, raw: bytes) -> dict[str, int]:
        """All numbers by name."""
        return dict(zip(self.names, self.struct.unpack(raw), strict=True))

    def pack(self, values: Iterable[int]) -> bytes:
        """The struct's bytes from its numbers in the order of ``names``."""
        return self.struct.pack(*values)


def _numbers(ctype: Any, path: str, base: int) -> Iterator[tuple[str, int, int]]:
    if ctype.kind == "struct":
        for name, field in ctype.fields:
            yield from _numbers(field.type, f"{path}.{name}" if path else name, base + field.offset)
    elif ctype.kind == "array":
        for number in range(ctype.length):
            yield from _numbers(ctype.item, f"{path}.{number}", base + number * ffi.sizeof(ctype.item))
    else:
        yield path, base, ffi.sizeof(ctype)


REGS = Layout("kl_regs")
SREGS = Layout("kl_sregs")
EVENTS = Layout("kl_events")
EXIT = Layout("kl_exit")
EVENT = Layout("kl_event")

EXIT_REASONS: dict[str, int] = {
    name.removeprefix("KL_EXIT_"): getattr(lib, name) for name in dir(lib) if name.startswith("KL_EXIT_")
}
"""Why a run came back: name to number, as in the C API."""


# ---- errors ---------------------------------------------------------------------------------------------------------

_ready: str | None = None


def _start() -> None:
    """Builds the engine's tables, once for the process."""
    global _ready
    if _ready is None:
        message = ffi.new("const char **")
        code = lib.kl_init(message)
        _ready = "" if code == 0 else ffi.string(message[0]).decode() if message[0] else "The engine does not start."
    if _ready:
        raise errors.EngineUnavailable(_ready, "This build is broken: build it again, and run the tests.")


def _sentence(text: str) -> tuple[str, str | None]:
    """What the engine says as message and remedy: sentences begin with a capital and end with a full stop."""
    text = text.strip()
    if not text:
        return "", None
    text = text[0].upper() + text[1:]
    if text[-1] not in ".!?":
        text += "."
    return text, None


class ControlBlock(NamedTuple):
    """The VMCS or VMCB: values by row of the table, None where the processor has no such field; verdicts by row of the
    rules: (0 holds, 1 fails, 2 does not apply, 3 not on this processor; name of the field; its value)."""

    values: tuple[int | None, ...]
    verdicts: tuple[tuple[int, str, int], ...]


class Walk(NamedTuple):
    """A page walk as the engine did it; ``steps`` are (table, index, entry, level, ok, nested, set bits, failed)."""

    linear: int
    physical: int
    page_size: int
    flags: int
    error: int
    failed: int
    steps: tuple[tuple[int, int, int, int, int, int, int, int], ...]


class Handle:
    """One virtual or bare machine behind the C API.

    Not for several threads at once, but for :meth:`kick`. Who calls it holds the machine's lock.
    """

    def __init__(
        self,
        engine: str,
        kind: str,
        cpu: str,
        *,
        mmu: str | None = None,
        real_mode: str | None = None,
        history: int = 0,
        shared_memory: bool = False,
    ) -> None:
        self._vm = ffi.NULL
        _start()
        strings = [ffi.new("char[]", text.encode()) for text in (engine, kind, cpu, mmu or "", real_mode or "")]
        config = ffi.new("kl_config *")
        config.engine, config.kind, config.cpu = strings[:3]
        config.mmu = strings[3] if mmu else ffi.NULL
        config.real_mode = strings[4] if real_mode else ffi.NULL
        config.history = history
        config.shared_memory = shared_memory
        out, message = ffi.new("kl_vm **"), ffi.new("char[]", 512)
        code = lib.kl_create(config, out, message, 512)
        if code:
            raise errors.from_errno(code, *_sentence(ffi.string(message).decode(errors="replace")))
        self._vm = ffi.gc(out[0], lib.kl_destroy)
        self._args = ffi.new("kl_run_args *")
        self._exit = ffi.new("kl_exit *")
        self._regs = ffi.new("kl_regs *")
        self._exit_bytes = ffi.buffer(self._exit)
        self._regs_bytes = ffi.buffer(self._regs)
        self._kl_run = lib.kl_run
        self._kl_step = lib.kl_step
        self._kl_get_regs = lib.kl_get_regs

    @property
    def open(self) -> bool:
        """Whether the machine is still there."""
        return bool(self._vm)

    def close(self) -> None:
        """Gives the machine back. Calling it again does nothing."""
        vm, self._vm = self._vm, ffi.NULL
        if vm != ffi.NULL:
            ffi.release(vm)

    def _check(self, code: int) -> int:
        if code < 0:
            raise self._error(code)
        return code

    def _error(self, code: int) -> errors.Error:
        said = lib.kl_error(self._vm)
        return errors.from_errno(code, *_sentence(ffi.string(said).decode(errors="replace") if said else ""))

    # ---- making

    def create_vcpu(self, vcpu: int = 0) -> None:
        self._check(lib.kl_create_vcpu(self._vm, vcpu))

    def reset(self) -> None:
        self._check(lib.kl_reset(self._vm))

    # ---- memory

    def set_memory_region(self, slot: int, gpa: int, size: int, flags: int) -> None:
        self._check(lib.kl_set_memory_region(self._vm, slot, gpa, size, flags))

    def read(self, space: int, address: int, size: int) -> bytes:
        """What memory answered from ``address`` on: fewer bytes where it ends."""
        buffer = ffi.new("uint8_t[]", size)
        done = self._check(lib.kl_read(self._vm, space, address, buffer, size))
        return bytes(ffi.buffer(buffer, done))

    def write(self, space: int, address: int, data: bytes) -> int:
        """How many bytes memory took."""
        return self._check(lib.kl_write(self._vm, space, address, ffi.from_buffer(data), len(data)))

    def view(self, slot: int) -> memoryview:
        """A slot's memory, read-only, without a copy. It outlives slot and machine."""
        view = ffi.new("kl_view *")
        self._check(lib.kl_view_get(self._vm, slot, view))
        held = ffi.gc(view, lib.kl_view_release)
        kept = ffi.gc(view.bytes, lambda _: held is None)  # the buffer keeps the pointer, the pointer keeps the view
        return memoryview(ffi.buffer(kept, view.size)).toreadonly()

    def dirty_log(self, slot: int, size: int) -> bytes:
        """The slot's bitmap, a bit per page; reading it clears it."""
        bitmap = ffi.new("uint8_t[]", max(size, 1))
        self._check(lib.kl_dirty_log(self._vm, slot, bitmap, size))
        return bytes(ffi.buffer(bitmap, size))

    # ---- state

    def get_regs(self) -> bytes:
        """The general registers, as :data:`REGS`."""
        code = self._kl_get_regs(self._vm, 0, self._regs)
        if code:
            raise self._error(code)
        return self._regs_bytes[:]  # type: ignore[no-any-return]

    def set_regs(self, raw: bytes) -> None:
        self._regs_bytes[:] = raw
        self._check(lib.kl_set_regs(self._vm, 0, self._regs))

    def get_sregs(self) -> bytes:
        """Segments and control registers, as :data:`SREGS`."""
        sregs = ffi.new("kl_sregs *")
        self._check(lib.kl_get_sregs(self._vm, 0, sregs))
        return bytes(ffi.buffer(sregs))

    def set_sregs(self, raw: bytes) -> None:
        sregs = ffi.new("kl_sregs *")
        ffi.buffer(sregs)[:] = raw
        self._check(lib.kl_set_sregs(self._vm, 0, sregs))

    def get_events(self) -> bytes:
        """Debug registers, pending events and the rest, as :data:`EVENTS`."""
        events = ffi.new("kl_events *")
        self._check(lib.kl_get_events(self._vm, 0, events))
        return bytes(ffi.buffer(events))

    def set_events(self, raw: bytes) -> None:
        events = ffi.new("kl_events *")
        ffi.buffer(events)[:] = raw
        self._check(lib.kl_set_events(self._vm, 0, events))

    def get_msr(self, index: int) -> int:
        value = ffi.new("uint64_t *")
        self._check(lib.kl_get_msr(self._vm, 0, index, value))
        return int(value[0])

    def set_msr(self, index: int, value: int) -> None:
        self._check(lib.kl_set_msr(self._vm, 0, index, value))

    def interrupt(self, vector: int) -> None:
        self._check(lib.kl_interrupt(self._vm, 0, vector))

    def nmi(self) -> None:
        self._check(lib.kl_nmi(self._vm, 0))

    def translate(self, gva: int) -> tuple[int, bool, bool, bool]:
        """(gpa, valid, writeable, usermode)"""
        out = ffi.new("kl_translation *")
        self._check(lib.kl_translate(self._vm, 0, gva, out))
        return int(out.gpa), bool(out.valid), bool(out.writeable), bool(out.usermode)

    def debug(self, breakpoints: Iterable[int], single_step: bool) -> None:
        """Linear addresses to stop at, four at the most; stop after every instruction."""
        debug = ffi.new("kl_guest_debug *")
        for number, address in enumerate(breakpoints):
            debug.breakpoint[number].enabled = 1
            debug.breakpoint[number].address = address
            debug.enabled = 1
        debug.single_step = single_step
        debug.enabled |= single_step
        self._check(lib.kl_debug(self._vm, 0, debug))

    # ---- running

    def run(
        self, instructions: int = NO_LIMIT, stop_events: int = 0, time_limit_ms: int = 0, step_phase: bool = False
    ) -> int:
        """Runs until something happens; the reason (:data:`EXIT_REASONS`). :meth:`exit` has the rest."""
        args = self._args
        args.max_instructions = instructions
        args.stop_events = stop_events
        args.time_limit_ms = time_limit_ms
        args.step_phase = step_phase
        code = self._kl_run(self._vm, 0, args, self._exit)
        if code < 0:
            raise self._error(code)
        return self._exit.reason  # type: ignore[no-any-return]

    def exit(self) -> bytes:
        """What the latest run came back with, as :data:`EXIT`."""
        return self._exit_bytes[:]  # type: ignore[no-any-return]

    def step(self) -> bytes | None:
        """One instruction: the exit, as :data:`EXIT`, when it retired and nothing else happened; else None.

        :meth:`regs_after_step` has the registers without another call.
        """
        done = self._kl_step(self._vm, 0, self._exit, self._regs)
        if done == 1:
            return self._exit_bytes[:]  # type: ignore[no-any-return]
        if done < 0:
            raise self._error(done)
        return None

    def regs_after_step(self) -> bytes:
        """The registers after the latest :meth:`step`; only before anything else is called."""
        return self._regs_bytes[:]  # type: ignore[no-any-return]

    def reason(self) -> int:
        """Why the latest run came back."""
        return self._exit.reason  # type: ignore[no-any-return]

    def no_progress(self) -> bool:
        """Whether the latest run ended without a single retired instruction."""
        return self._exit.no_progress != 0  # type: ignore[no-any-return]

    def exit_instructions(self) -> int:
        """Retired instructions at the latest exit."""
        return self._exit.instructions  # type: ignore[no-any-return]

    def step_record(self, count: int) -> tuple[int, bytes]:
        """Steps ``count`` instructions: how many were done, and the registers after each, one behind the other."""
        buffer = ffi.new("kl_regs[]", max(count, 1))
        done = self._check(lib.kl_step_record(self._vm, 0, count, buffer))
        return done, bytes(ffi.buffer(buffer, done * REGS.size))

    def complete(self, value: int) -> None:
        self._check(lib.kl_complete(self._vm, 0, value))

    def string_read(self, size: int) -> bytes:
        """The elements that the OUTS of the latest exit writes, in their order; at most ``size`` bytes."""
        buffer = ffi.new("uint8_t[]", max(size, 1))
        done = self._check(lib.kl_string_read(self._vm, 0, buffer, size))
        return bytes(ffi.buffer(buffer, done))

    def string_answer(self, data: bytes) -> None:
        """Answers all elements of a string IN, in the order in which the guest takes them."""
        self._check(lib.kl_string_answer(self._vm, 0, ffi.from_buffer(data), len(data)))

    def complete_cpuid(self, eax: int, ebx: int, ecx: int, edx: int) -> None:
        self._check(lib.kl_complete_cpuid(self._vm, 0, eax, ebx, ecx, edx))

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """What the guest would see: eax, ebx, ecx, edx."""
        out = ffi.new("uint32_t[4]")
        self._check(lib.kl_cpuid(self._vm, 0, leaf, subleaf, out))
        return out[0], out[1], out[2], out[3]

    def kick(self) -> None:
        """Makes a run come back soon; from any thread."""
        if self._vm != ffi.NULL:
            lib.kl_kick(self._vm)

    # ---- time and events

    def position(self) -> tuple[int, int]:
        out = ffi.new("kl_position *")
        self._check(lib.kl_get_position(self._vm, out))
        return out.instructions, out.sequence

    def state_hash(self) -> int:
        out = ffi.new("uint64_t *")
        self._check(lib.kl_state_hash(self._vm, out))
        return int(out[0])

    def snapshot_save(self) -> int:
        return self._check(lib.kl_snapshot_save(self._vm))

    def snapshot_restore(self, number: int) -> None:
        self._check(lib.kl_snapshot_restore(self._vm, number))

    def snapshot_drop(self, number: int) -> None:
        self._check(lib.kl_snapshot_drop(self._vm, number))

    def history_start(self, interval: int) -> None:
        self._check(lib.kl_history_start(self._vm, interval))

    def goto(self, instructions: int, sequence: int) -> None:
        target = ffi.new("kl_position *")
        target.instructions, target.sequence = instructions, sequence
        self._check(lib.kl_goto(self._vm, target))

    def trace_enable(self, kinds: int, capacity: int) -> None:
        self._check(lib.kl_trace_enable(self._vm, kinds, capacity))

    def trace_range(self) -> tuple[int, int]:
        """Numbers of the records that are kept: the first, and the one behind the last."""
        first, following = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._check(lib.kl_trace_read(self._vm, 0, ffi.NULL, 0, first, following))
        return int(first[0]), int(following[0])

    def trace_read(self, start: int, count: int) -> tuple[int, bytes]:
        """Records from number ``start`` on (later where the ring has lost them): the first one's number, and
        their bytes, each as :data:`EVENT`."""
        buffer = ffi.new("kl_event[]", max(count, 1))
        first, following = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        done = self._check(lib.kl_trace_read(self._vm, start, buffer, count, first, following))
        return max(start, int(first[0])), bytes(ffi.buffer(buffer, done * EVENT.size))

    # ---- looking inside

    def walk(self, which: int, gva: int, access: int, user: bool) -> Walk:
        """``which`` 0: the guest's tables, 1: those the processor uses; ``access`` 0 read, 1 write, 2 fetch."""
        out = ffi.new("kl_walk *")
        self._check(lib.kl_walk_tables(self._vm, 0, which, gva, access, user, out))
        steps = tuple(
            (s.table, s.index, s.entry, s.level, s.ok, s.nested, s.set_bits, s.failed)
            for s in (out.step[number] for number in range(out.nr_steps))
        )
        return Walk(out.linear, out.physical, out.page_size, out.flags, out.error, out.failed, steps)

    def control_block(self) -> ControlBlock:
        """The VMCS or VMCB in the processor as it is, with what each rule of the next entry says about it."""
        field = ffi.new("kl_field *")
        rows = self._check(lib.kl_field_get(self._vm, 0, field))
        values: list[int | None] = []
        for row in range(rows):
            lib.kl_field_get(self._vm, row, field)
            values.append(field.value if field.exists else None)
        checks = ffi.new("kl_check[]", 256)
        count = self._check(lib.kl_check_all(self._vm, checks, 256))
        verdicts = tuple((checks[row].verdict, _text(checks[row].field), checks[row].value) for row in range(count))
        return ControlBlock(tuple(values), verdicts)

    def set_field(self, row: int, value: int) -> None:
        """Writes a field of the VMCS or VMCB by its row."""
        self._check(lib.kl_field_set(self._vm, row, value))

    # ---- the hypervisor's insides

    def slot_info(self, slot: int) -> dict[str, int]:
        """A memory slot's gpa, size, hpa, flags, and whether it is present."""
        out = ffi.new("kl_slot *")
        self._check(lib.kl_slot_info(self._vm, slot, out))
        return _struct_dict(out)

    def shadow_pages(self) -> list[dict[str, int]]:
        """The shadow pages in use, newest first."""
        count = self._check(lib.kl_shadow_pages(self._vm, ffi.NULL, 0))
        out = ffi.new("kl_shadow_page[]", max(count, 1))
        self._check(lib.kl_shadow_pages(self._vm, out, count))
        return [_struct_dict(out[number]) for number in range(count)]

    def shadow_entries(self, number: int) -> tuple[int, ...]:
        """The 512 entries of a shadow page."""
        out = ffi.new("uint64_t[512]")
        self._check(lib.kl_shadow_entries(self._vm, number, out))
        return tuple(out)

    def shadow_parents(self, number: int) -> tuple[int, ...]:
        """Host-physical addresses of the entries that point to a shadow page."""
        count = self._check(lib.kl_shadow_parents(self._vm, number, ffi.NULL, 0))
        out = ffi.new("uint64_t[]", max(count, 1))
        self._check(lib.kl_shadow_parents(self._vm, number, out, count))
        return tuple(out[0:count])

    def shadow_rmap(self, gfn: int) -> tuple[int, ...]:
        """Host-physical addresses of the writable entries that map a guest frame."""
        count = self._check(lib.kl_shadow_rmap(self._vm, gfn, ffi.NULL, 0))
        out = ffi.new("uint64_t[]", max(count, 1))
        self._check(lib.kl_shadow_rmap(self._vm, gfn, out, count))
        return tuple(out[0:count])

    def shadow_state(self) -> dict[str, Any]:
        """Root, counters, the pool."""
        out = ffi.new("kl_shadow_state *")
        self._check(lib.kl_shadow_get_state(self._vm, out))
        return _struct_dict(out) | {"pae_root": tuple(out.pae_root)}

    def shadow_audit(self) -> tuple[str, str, int]:
        """The letter of an invariant that does not hold (empty: all hold), what it says, and where."""
        what, where = ffi.new("const char **"), ffi.new("uint64_t *")
        code = self._check(lib.kl_shadow_audit(self._vm, what, where))
        return (chr(code) if code else "", _text(what[0]), int(where[0]))


def _struct_dict(struct_: Any) -> dict[str, Any]:
    """The numbers of a flat C struct by name."""
    ctype = ffi.typeof(struct_)
    fields = (ctype.item if ctype.kind == "pointer" else ctype).fields
    return {name: getattr(struct_, name) for name, field in fields if field.type.kind == "primitive"}


class Abi:
    """The interface of 2006 in front of a machine: one open file."""

    def __init__(self, engine: str, cpu: str, *, real_mode: str = "auto", history: int = 0) -> None:
        _start()
        strings = [ffi.new("char[]", text.encode()) for text in (engine, "vm", cpu, "shadow", real_mode)]
        config = ffi.new("kl_config *")
        config.engine, config.kind, config.cpu, config.mmu, config.real_mode = strings
        config.history = history
        config.shared_memory = 1
        out, message = ffi.new("kl_abi **"), ffi.new("char[]", 512)
        code = lib.kl_abi_open(config, out, message, 512)
        if code:
            raise errors.from_errno(code, *_sentence(ffi.string(message).decode(errors="replace")))
        self._abi = ffi.gc(out[0], lib.kl_abi_close)

    def close(self) -> None:
        abi, self._abi = self._abi, ffi.NULL
        if abi != ffi.NULL:
            ffi.release(abi)

    def ioctl(self, number: int, pointer: int, value: int) -> int:
        """0 or -errno. Between the slices of a long run signals are looked at."""
        argument = ffi.cast("void *", pointer)
        code: int = lib.KL_ABI_AGAIN
        while code == lib.KL_ABI_AGAIN:
            code = lib.kl_abi_ioctl(self._abi, number & 0xFFFFFFFF, argument, value & 0xFFFFFFFFFFFFFFFF)
        return code

    def mmap(self, length: int, offset: int) -> memoryview | int:
        """Guest memory, writable; or -errno."""
        view = ffi.new("kl_view *")
        code: int = lib.kl_abi_mmap(self._abi, length, offset, view)
        if code < 0:
            return code
        held = ffi.gc(view, lib.kl_view_release)
        kept = ffi.gc(ffi.cast("uint8_t *", view.bytes), lambda _: held is None)
        return memoryview(ffi.buffer(kept, length)).cast("B")


# ---- the engine's tables --------------------------------------------------------------------------------------------


def _text(pointer: Any) -> str:
    return ffi.string(pointer).decode() if pointer else ""


def instruction_rows() -> Iterator[dict[str, Any]]:
    """Every row of insn.def, as the decoder has it."""
    _start()
    row = ffi.new("kl_insn_row *")
    for number in range(lib.kl_table_insn(0, row)):
        lib.kl_table_insn(number, row)
        yield {name: row.attr if name == "attr" else _text(getattr(row, name)) for name, _ in ffi.typeof(row[0]).fields}


def event_rows() -> Iterator[dict[str, str]]:
    """Every row of trace.def, in the order of the kinds' numbers."""
    row = ffi.new("kl_event_row *")
    for number in range(lib.kl_table_event(0, row)):
        lib.kl_table_event(number, row)
        yield {name: _text(getattr(row, name)) for name, _ in ffi.typeof(row[0]).fields}


def profiles() -> tuple[str, ...]:
    """The processors by name."""
    names: list[str] = []
    while (name := lib.kl_profile_name(len(names))) != ffi.NULL:
        names.append(_text(name))
    return tuple(names)


def instruction_length(cpu: str, bits: int, data: bytes) -> int:
    """Bytes of the first instruction in ``data``; -1: none (#UD), -2: more bytes are needed, -3: longer than 15."""
    _start()
    mode = {16: 0, 32: 1, 64: 2}[bits]
    return int(lib.kl_insn_length(cpu.encode(), mode, ffi.from_buffer(data), len(data)))
