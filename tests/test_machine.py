"""The bare machine: loading, running, stops and answers, devices in Python, stepping, one caller at a time, time."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest
import small_guests as g

import kvmlab
from kvmlab.errors import BadArgument, Busy, Error, NoSuchSlot, NotVisible
from kvmlab.exits import ExitReason
from kvmlab.guest import Image


@pytest.fixture
def machine() -> Iterator[kvmlab.Machine]:
    with kvmlab.Machine(memory="4M") as made:
        yield made


# --- Making one, and what it refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["4M", "4 M", "4MB", "4MiB", 4 << 20, "0x400000"])
def test_sizes(memory: str | int) -> None:
    assert len(kvmlab.Machine(memory=memory).memory) == 4 << 20


@pytest.mark.parametrize("memory", ["", "many", "4X", 0, -4096, 5000, "1K", 4.5, True, None])
def test_sizes_that_are_none(memory: object) -> None:
    with pytest.raises(BadArgument, match="multiple of 4096"):
        kvmlab.Machine(memory=memory)  # type: ignore[arg-type]


def test_memory_that_cannot_be_had() -> None:
    with pytest.raises(Error) as raised:
        kvmlab.Machine(memory=1 << 51)
    assert raised.value.errno_name in ("ENOMEM", "EINVAL")


def test_an_unknown_processor_names_those_there_are() -> None:
    with pytest.raises(BadArgument, match="intel-2006"):
        kvmlab.Machine(cpu="pentium-9")


def test_a_closed_machine_says_so() -> None:
    machine = kvmlab.Machine()
    machine.close()
    machine.close()
    for ask in (lambda: machine.regs, machine.run, machine.step, lambda: machine.memory[0:4], machine.reset):
        with pytest.raises(BadArgument, match="closed"):
            ask()
    assert "closed" in repr(machine)
    machine.stop()


def test_a_machine_does_not_pickle(machine: kvmlab.Machine) -> None:
    with pytest.raises(BadArgument, match="does not pickle"):
        pickle.dumps(machine)


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_memory(machine: kvmlab.Machine) -> None:
    memory = machine.memory
    memory[0x2000:0x2004] = b"\x01\x02\x03\x04"
    assert memory[0x2000:0x2004] == b"\x01\x02\x03\x04" and memory[0x2001] == 2
    assert (memory.u8[0x2003], memory.u16[0x2000], memory.u32[0x2000]) == (4, 0x0201, 0x04030201)
    memory.u64[0x2000] = 0x1122334455667788
    assert memory.read(0x2000, 8) == bytes.fromhex("8877665544332211")
    memory[0x2000] = 9
    assert memory[0x2000] == 9
    view = memory.view()
    assert view.readonly and view[0x2000] == 9 and len(view) == 4 << 20
    memory.write(0x2000, b"")
    memory[0x2000] = 7
    assert view[0x2000] == 7
    machine.close()
    assert view[0x2000] == 7  # it outlives the machine


def test_what_memory_refuses(machine: kvmlab.Machine) -> None:
    memory = machine.memory
    with pytest.raises(NoSuchSlot, match=r"No memory is at guest-physical 0x400000.*slot 0 from 0x0 to 0x400000"):
        memory[0x3FFFFE:0x400002]
    with pytest.raises(NoSuchSlot):
        memory.write(0x3FFFFE, b"1234")
    assert memory[0x3FFFFE:0x400000] == b"\0\0"  # nothing of it was stored
    with pytest.raises(BadArgument, match="4 bytes; 3 were given"):
        memory[0:4] = b"123"
    with pytest.raises(BadArgument, match="u8 has 8 bits"):
        memory.u8[0] = 256
    with pytest.raises(BadArgument, match="one piece"):
        memory[0:8:2]
    with pytest.raises(BadArgument, match="ends before"):
        memory[8:4]
    with pytest.raises(BadArgument, match="no guest-physical address"):
        memory[0xFFFF800000000000]
    with pytest.raises(BadArgument, match="u32"):
        memory[0:4] = 5  # type: ignore[assignment]


# --- The entry state -------------------------------------------------------------------------------------------------


def test_entry_16(machine: kvmlab.Machine) -> None:
    machine.load(g.FIVE)
    regs, sregs = machine.regs, machine.sregs
    assert (regs.rip, regs.rsp, regs.rflags, regs.rax) == (0x1000, 0x7C00, 2, 0)
    assert sregs.mode == "real" and {sregs.cs.base, sregs.ds.base, sregs.ss.selector} == {0}
    machine.load(Image(bytes(0x7000), 0x1000))
    assert machine.regs.rsp == 0xFFF0
    machine.load(Image(b"\xf4", 0x12345))
    assert machine.sregs.cs.base + machine.regs.rip == 0x12345
    with pytest.raises(BadArgument, match="above 1 MB"):
        machine.load(Image(b"\xf4", 0x100000))


@pytest.mark.parametrize("bits", [32, 64])
def test_entry_32_and_64(machine: kvmlab.Machine, bits: int) -> None:
    # reload every segment from the GDT, load ring 3's too, and halt
    code = bytes.fromhex("b810000000 8ed8 8ec0 8ed0 b823000000 8ee0 0f00c8 f4")
    machine.load(Image(code, 0x100000, bits=bits))
    sregs, top = machine.sregs, (4 << 20) - 3 * 4096
    assert sregs.bits == bits and sregs.cpl == 0 and sregs.idt.limit == 0 and not machine.regs.rflags & 0x200
    assert sregs.gdt.base + 4096 == top and sregs.paging == ("4-level" if bits == 64 else "none")
    assert machine.regs.rsp % 16 == (8 if bits == 64 else 12) and machine.regs.rsp < sregs.gdt.base
    stop = machine.run(100)
    assert stop.reason == ExitReason.HLT, stop
    assert machine.sregs.fs.selector == 0x23 and machine.sregs.fs.dpl == 3
    if bits == 64:
        assert machine.walk(0xFFE00000, "w", user=True).page_size == 2 << 20
        assert machine.translate(0xC0000000).gpa == 0xC0000000 and not machine.translate(1 << 32)


def test_images_that_do_not_fit(machine: kvmlab.Machine) -> None:
    with pytest.raises(BadArgument, match="no memory is at 0x400000"):
        machine.load(Image(bytes(0x2000), 0x3FF000))
    with pytest.raises(BadArgument, match="last three pages"):
        machine.load(Image(bytes(16), 0x3FE000, bits=32))
    with pytest.raises(BadArgument, match="the GDT, the TSS and the page tables"):
        machine.load(Image(bytes(16), 0x3FC000, bits=64))
    machine.load(Image(b"\x90", 0x3FE000), setup=False)
    assert machine.memory[0x3FE000] == 0x90 and machine.image is not None
    scattered = Image(bytes(0x600000), 0x1000, segments=[(0x1000, 16), (0x500000, 16)])
    with pytest.raises(BadArgument, match="0x500000"):
        machine.load(scattered)
    with pytest.raises(BadArgument, match=r"kvmlab\.Image"):
        machine.load(b"\xf4")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="64K"):
        kvmlab.Machine(memory="32K").load(Image(b"\xf4", 0x1000, bits=64))


# --- Stops and answers -----------------------------------------------------------------------------------------------


def test_five_instructions(machine: kvmlab.Machine) -> None:
    machine.load(g.FIVE)
    out = machine.run()
    assert out.reason == ExitReason.IO and (out.direction, out.port, out.size, out.value, out.data) == (
        "out", 0x3F8, 1, 0x41, b"A")  # fmt: skip
    assert out.rip == 0x1005 and out.position == 2 and machine.last_stop is out
    halt = machine.run()
    assert halt.reason == ExitReason.HLT and machine.regs.ax == 0x42 and halt.position == 5
    assert [stop.kind for stop in _again(machine).exits()] == ["io", "hlt"]


def _again(machine: kvmlab.Machine) -> kvmlab.Machine:
    machine.load(g.FIVE)
    return machine


def test_reads_are_answered(machine: kvmlab.Machine) -> None:
    machine.load(g.READS)
    first = machine.run()
    assert (first.direction, first.port, first.size) == ("in", 0x60, 1)
    for wrong, says in ((256, "8 bits"), (b"ab", "reads 1 bytes"), ("a", "no answer"), (None, "no answer")):
        with pytest.raises(BadArgument, match=says):
            first.reply(wrong)  # type: ignore[arg-type]
    first.reply(0x1E)
    with pytest.raises(BadArgument, match="already"):
        first.reply(1)
    second = machine.run()
    assert machine.regs.bl == 0x1E and second.size == 2
    with pytest.raises(BadArgument, match="older"):
        first.reply(1)
    second.reply(b"\x34\x12")
    halt = machine.run()
    assert machine.regs.ax == 0x1234
    with pytest.raises(BadArgument, match="no answer"):
        halt.reply(1)


def test_unanswered_reads_are_all_ones(machine: kvmlab.Machine) -> None:
    machine.load(g.READS)
    assert [stop.kind for stop in machine.exits()] == ["io", "io", "hlt"]
    assert machine.regs.bl == 0xFF and machine.regs.ax == 0xFFFF


def test_editing_drops_the_access_and_says_so(machine: kvmlab.Machine) -> None:
    machine.load(g.READS)
    stop = machine.run()
    with pytest.warns(UserWarning, match=r"stop\.reply"):
        machine.set(rcx=1)
    with pytest.raises(BadArgument, match="no access to answer"):
        stop.reply(1)
    assert machine.run().rip == stop.rip  # the instruction runs again


def test_mmio(machine: kvmlab.Machine) -> None:
    machine.load(g.MMIO)
    read = machine.run()
    assert (read.reason, read.direction, read.gpa, read.size) == (ExitReason.MMIO, "read", 0xFE000000, 4)
    read.reply(0x12345678)
    write = machine.run()
    assert (write.direction, write.gpa, write.value, write.data) == (
        "write",
        0xFE000008,
        0x12345678,
        b"\x78\x56\x34\x12",
    )
    assert machine.run().reason == ExitReason.HLT


def test_a_stop_without_its_machine_cannot_be_answered() -> None:
    machine = kvmlab.Machine()
    machine.load(g.READS)
    stop = pickle.loads(pickle.dumps(machine.run()))
    with pytest.raises(BadArgument, match="unpickled"):
        stop.reply(1)


def test_limits(machine: kvmlab.Machine) -> None:
    machine.load(g.LOOP)
    stop = machine.run(1000)
    assert stop.reason == ExitReason.LIMIT and stop.limit == 1000 and machine.position == 1000
    assert machine.run(0).reason == ExitReason.LIMIT and machine.position == 1000
    assert machine.run(time_limit=0.05).reason == ExitReason.LIMIT
    with pytest.raises(BadArgument):
        machine.run(max_instructions="many")  # type: ignore[arg-type]


# --- Devices in Python -----------------------------------------------------------------------------------------------


def test_functions_answer_ports(machine: kvmlab.Machine) -> None:
    seen = []
    machine.on_io(range(0x60, 0x64), read=lambda port, size: seen.append((port, size)) or 0x11 * (port - 0x5F))
    machine.load(g.READS)
    assert machine.run().reason == ExitReason.HLT
    assert seen == [(0x60, 1), (0x62, 2)] and machine.regs.bl == 0x11 and machine.regs.ax == 0x33
    machine.on_io(range(0x60, 0x64))
    machine.load(g.READS)
    assert machine.run().reason == ExitReason.IO


def test_a_string_calls_once_per_element(machine: kvmlab.Machine) -> None:
    seen = []
    machine.on_io(0x3F8, write=lambda port, size, value: seen.append((size, value)))
    machine.load(g.STRING)
    assert machine.run().reason == ExitReason.HLT and seen == [(1, byte) for byte in b"abcd"]


def test_functions_answer_memory(machine: kvmlab.Machine) -> None:
    written = []
    where = range(0xFE000000, 0xFE001000)
    machine.on_mmio(where, read=lambda gpa, size: gpa & 0xFFFF0000, write=lambda *what: written.append(what))
    machine.load(g.MMIO)
    assert machine.run().reason == ExitReason.HLT and written == [(0xFE000008, 4, 0xFE000000)]
    machine.on_mmio(where)
    machine.load(g.MMIO)
    assert machine.run().reason == ExitReason.MMIO


def test_an_exception_in_a_function_stops_there_and_is_raised(machine: kvmlab.Machine) -> None:
    def broken(port: int, size: int) -> int:
        raise RuntimeError("the device is on fire")

    machine.on_io(0x60, read=broken)
    machine.load(g.READS)
    with pytest.raises(RuntimeError, match="on fire"):
        machine.run()
    assert machine.last_stop is not None and machine.last_stop.port == 0x60 and machine.regs.rip == 0x1000
    machine.last_stop.reply(5)
    assert machine.run().port == 0x62 and machine.regs.bl == 5


def test_functions_that_misbehave(machine: kvmlab.Machine) -> None:
    machine.load(g.READS)
    machine.on_io(0x60, read=lambda port, size: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(BadArgument, match="returned None"):
        machine.run()
    machine.load(g.READS)
    machine.on_io(0x60, read=lambda port, size: machine.run().rip)
    with pytest.raises(Busy, match="middle of"):
        machine.run()
    for call in (lambda: machine.on_io("com1"), lambda: machine.on_io(0x10000), lambda: machine.on_io(1, read=5)):  # type: ignore[arg-type]
        with pytest.raises(BadArgument):
            call()
    with pytest.raises(BadArgument, match="range"):
        machine.on_mmio("here", read=lambda a, b: 0)  # type: ignore[arg-type]


def test_a_function_may_look_at_the_machine(machine: kvmlab.Machine) -> None:
    seen = []
    machine.on_io(0x60, read=lambda port, size: seen.append((machine.regs.rip, machine.memory[0x1000])) or 1)
    machine.load(g.READS)
    machine.run()
    assert seen == [(0x1000, 0xE4)]


def test_the_console(machine: kvmlab.Machine) -> None:
    machine.attach_console()
    machine.load(g.FIVE)
    assert machine.run().reason == ExitReason.HLT
    assert machine.console == "A" and machine.console.text == "A" and "A" in machine.console
    # in al, 0x3fd (line status); in al, 0x3f8
    reader = Image(bytes.fromhex("bafd03 ec 88c3 baf803 ec f4"), 0x1000)
    machine.console_input("q")
    machine.load(reader)
    machine.run()
    assert machine.regs.bl == 0x61 and machine.regs.al == ord("q")


# --- State from outside ----------------------------------------------------------------------------------------------


def test_set(machine: kvmlab.Machine) -> None:
    machine.load(g.FIVE)
    machine.set(rax=5, bl=7, cr2=0x1234, ds=machine.sregs.ds.replace(base=0x10), dr0=0x7C05)
    assert (machine.regs.rax, machine.regs.rbx, machine.sregs.cr2, machine.sregs.ds.base) == (5, 7, 0x1234, 0x10)
    assert machine.debug_regs.dr0 == 0x7C05
    with pytest.raises(BadArgument, match="Did you mean"):
        machine.set(rax=6, raxx=1)
    with pytest.raises(BadArgument, match="too wide"):
        machine.set(rax=6, rbx=1 << 64)
    assert machine.regs.rax == 5  # nothing was changed
    with pytest.raises(BadArgument, match=r"vm\.set"):
        machine.regs = 5  # type: ignore[assignment]


def test_msrs(machine: kvmlab.Machine) -> None:
    machine.msrs["lstar"] = 0x1234
    assert machine.msrs[0xC0000082] == 0x1234 and "lstar" in machine.msrs.to_dict()
    for index in (0x12345678, "rax"):
        with pytest.raises(BadArgument):
            machine.msrs[index]
    with pytest.raises(BadArgument, match="0xc0000082"):
        machine.msrs[0xC0000082] = 1 << 63  # not canonical


def test_interrupts(machine: kvmlab.Machine) -> None:
    machine.load(g.IDLE)
    machine.memory.u32[4 * 0x20] = 0x1100
    machine.memory.write(0x1100, bytes.fromhex("43 cf"))  # inc bx; iret
    assert machine.run().reason == ExitReason.HLT
    machine.interrupt(0x20)
    assert machine.events.interrupts == (0x20,)
    assert machine.run().reason == ExitReason.HLT and machine.regs.bx == 1
    with pytest.raises(BadArgument, match="vector"):
        machine.interrupt(256)


def test_triple_fault(machine: kvmlab.Machine) -> None:
    machine.load(Image(bytes.fromhex("0f0b"), 0x100000, bits=64))
    stop = machine.run()
    assert stop.reason == ExitReason.SHUTDOWN and "riple fault at 0x100000" in stop.explain()
    machine.reset()
    assert machine.regs.rip == 0xFFF0 and machine.last_stop is None


def test_what_this_engine_does_not_have(machine: kvmlab.Machine) -> None:
    with pytest.raises(NotVisible):
        _ = machine.fpu


# --- Stepping --------------------------------------------------------------------------------------------------------


def test_stepping_ends_where_running_ends() -> None:
    stepped, ran = kvmlab.Machine(memory="1M"), kvmlab.Machine(memory="1M")
    for machine in (stepped, ran):
        machine.load(g.COUNT)
    for n in range(1, 9):
        stop = stepped.step()
        assert stop.reason == ExitReason.DEBUG and stop.position == n
    ran.run(8)
    assert stepped.regs == ran.regs and stepped.position == ran.position


def test_step_says_what_it_met(machine: kvmlab.Machine) -> None:
    machine.load(g.FIVE)
    assert machine.step(2).explain() == "Stepped 2 instructions, as asked; the next instruction is at 0x1005."
    assert machine.step().reason == ExitReason.IO
    assert machine.step().reason == ExitReason.DEBUG and machine.regs.rip == 0x1006
    assert machine.step(5).reason == ExitReason.HLT
    machine.attach_console()
    machine.load(g.FIVE)
    assert [machine.step().kind for _ in range(4)] == ["debug"] * 4 and machine.console == "A"


def test_step_record(machine: kvmlab.Machine) -> None:
    machine.load(g.COUNT)
    regs = machine.step_record(100)
    assert [r.rip for r in regs[:3]] == [0x1003, 0x1004, 0x1003] and regs[-1].ax == 5
    assert len(regs) == 12 and machine.position == 12


def test_breakpoints(machine: kvmlab.Machine) -> None:
    machine.load(g.COUNT)
    machine.debug(breakpoints=[0x1003])
    for n in range(5):
        stop = machine.run()
        assert stop.reason == ExitReason.DEBUG and stop.breakpoint == 0x1003 and machine.regs.ax == n
    assert machine.run().reason == ExitReason.HLT
    with pytest.raises(BadArgument, match="four"):
        machine.debug(breakpoints=range(5))
    machine.debug(single_step=True)
    machine.load(g.COUNT)
    assert machine.run().reason == ExitReason.DEBUG and machine.regs.rip == 0x1003
    machine.debug()
    assert machine.run().reason == ExitReason.HLT


# --- One caller at a time --------------------------------------------------------------------------------------------


def test_a_second_caller_is_refused_and_stop_stops(machine: kvmlab.Machine) -> None:
    machine.load(g.LOOP)
    stops: list[object] = []
    thread = threading.Thread(target=lambda: stops.append(machine.run()))
    thread.start()
    while machine.progress[0] == 0:
        time.sleep(0.001)
    for ask in (lambda: machine.regs, machine.step, lambda: machine.memory[0:1], lambda: machine.set(rax=1)):
        with pytest.raises(Busy, match="another thread"):
            ask()
    assert "running" in repr(machine)
    machine.stop()
    thread.join(10)
    assert [stop.reason for stop in stops] == [ExitReason.STOPPED]  # type: ignore[attr-defined]
    assert machine.step().reason == ExitReason.DEBUG  # a stop without a run stops nothing
    machine.stop()
    assert machine.run(100).reason == ExitReason.LIMIT


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path.insert(0, "tests")
import small_guests, kvmlab
machine = kvmlab.Machine()
machine.load(small_guests.LOOP)
machine.run(2_000_000)
waited = []
for _ in range(5):
    def interrupt():
        time.sleep(0.2)
        waited.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        machine.run()
    except KeyboardInterrupt:
        waited[-1] = time.monotonic() - waited[-1]
before = machine.regs.rip
assert before in (0x1000, 0x1001), before
assert machine.step().reason.name == "DEBUG"
print(min(waited))
"""


def test_the_interrupt_button() -> None:
    """KeyboardInterrupt comes within 50 ms (the best of five: the machine that tests may be busy), at a border."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.05
    assert signal.SIGINT


def test_progress(machine: kvmlab.Machine, capsys: pytest.CaptureFixture[str]) -> None:
    from kvmlab import progress

    shown = progress.Progress(True)
    shown._next = 0
    shown.tell(12_000_000, 3, 0.5)
    shown.end()
    assert "12,000,000 instructions, 3 exits" in capsys.readouterr().err
    machine.load(g.LOOP)
    machine.run(1000, progress=False)
    assert capsys.readouterr() == ("", "")
    assert machine.progress == (1000, 0)


def test_observers_hear_of_everything(machine: kvmlab.Machine) -> None:
    heard = []
    forget = machine.observe(lambda: heard.append(1))
    counts = []
    for act in (lambda: machine.load(g.COUNT), machine.step, lambda: machine.run(3), lambda: machine.set(rbx=1),
                lambda: machine.memory.write(0x3000, b"1"), machine.step_back, machine.reset):  # fmt: skip
        act()
        counts.append(len(heard))
    assert counts == sorted(set(counts)), counts
    forget()
    forget()
    machine.step()
    assert len(heard) == counts[-1]


# --- Time ------------------------------------------------------------------------------------------------------------


def test_going_back_and_forth(machine: kvmlab.Machine) -> None:
    machine.load(g.COUNT)
    start = machine.regs
    seen = [machine.regs]
    for _ in range(10):
        machine.step()
        seen.append(machine.regs)
    for n in (1, 2, 3):
        machine.step_back(n)
    assert machine.position == 4 and machine.regs == seen[4]
    assert "position 4" in machine.last_stop.explain()  # type: ignore[union-attr]
    machine.goto(9)
    assert machine.regs == seen[9]
    machine.goto(0)
    assert machine.regs == start
    with pytest.raises(Error, match="beginning"):
        machine.step_back()
    machine.run()
    assert machine.regs.ax == 5


def test_answers_are_remembered(machine: kvmlab.Machine) -> None:
    machine.load(g.READS)
    machine.run().reply(0x1E)
    machine.run().reply(0x1234)
    machine.run()
    end = machine.position
    machine.goto(1)
    assert machine.regs.al == 0x1E
    machine.goto(end)
    assert machine.regs.ax == 0x1234


def test_the_timeline_does_not_repeat_itself(machine: kvmlab.Machine) -> None:
    machine.load(g.FIVE)
    list(machine.exits())
    before = machine.timeline.to_records()
    machine.goto(1)
    list(machine.exits())
    assert machine.timeline.to_records() == before


def test_nothing_has_run_yet(machine: kvmlab.Machine) -> None:
    with pytest.raises(Error):
        machine.step_back()
    with pytest.raises(Error):
        machine.goto(5)
    assert machine.last_stop is None and machine.position == 0


def test_no_warnings_by_default(machine: kvmlab.Machine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        machine.load(g.FIVE)
        machine.run()
        machine.set(rbx=1)  # an OUT asks for nothing
        machine.run()
