"""Virtual machines: what they refuse, slots, the dirty log, the engines, exits handled inside."""

from __future__ import annotations

import os
import pickle
import warnings

import pytest
import small_guests as g

import kvmlab
from kvmlab import vm as vm_module
from kvmlab.errors import BadArgument, EngineUnavailable, Error, NoSuchSlot, NotVisible, SlotOverlap
from kvmlab.exits import ExitReason
from kvmlab.guest import Image

CPUS = ["intel-2006", "amd-2006"]


def soft(cpu: str = "intel-2006", **options: object) -> kvmlab.VM:
    return kvmlab.VM(**{"memory": "4M", "engine": "soft", "cpu": cpu, **options})  # type: ignore[arg-type]


def kvm(**options: object) -> kvmlab.VM:
    try:
        return kvmlab.VM(engine="kvm", **options)  # type: ignore[arg-type]
    except EngineUnavailable as error:
        pytest.skip(str(error))


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "hard"}, "'soft'"),
        ({"cpu": "z80"}, "intel-2006"),
        ({"mmu": "none"}, "'shadow'"),
        ({"real_mode": "maybe"}, "'vm86'"),
        ({"need": "speed"}, "'inspect'"),
        ({"memory": "5000"}, "multiple of 4096"),
        ({"memory": "8K", "engine": "soft"}, "last three pages"),
    ],
)
def test_bad_arguments(options: dict[str, str], says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        kvmlab.VM(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((1, 0x1000, "1M"), SlotOverlap, "overlap"),
        ((1, 0x800800, "1M"), BadArgument, "multiple of 4096"),
        ((1, 0x800000, 5000), BadArgument, "multiple of 4096"),
        ((9, 0x800000, "1M"), BadArgument, "slot"),
        ((-1, 0x800000, "1M"), BadArgument, "."),
        ((1, 1 << 60, "1M"), BadArgument, "last physical address"),
        ((2, 0, 0), NoSuchSlot, "no memory|There is no"),
    ],
)
def test_bad_slots(arguments: tuple[int, int, object], error: type[Error], says: str) -> None:
    with soft() as vm, pytest.raises(error, match=says):
        vm.set_memory_region(*arguments)  # type: ignore[arg-type]


def test_memory_that_cannot_be_had() -> None:
    with soft() as vm, pytest.raises(Error):
        vm.set_memory_region(1, 1 << 40, 1 << 50)


def test_without_memory_nothing_runs() -> None:
    with kvmlab.VM(memory=None, engine="soft") as vm:
        with pytest.raises(BadArgument, match="no memory in slot 0"):
            vm.load(g.FIVE)
        vm.set_memory_region(0, 0, "1M")
        vm.load(g.FIVE)
        assert vm.run().port == 0x3F8


# --- Slots and the dirty log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPUS)
def test_the_dirty_log(cpu: str) -> None:
    # mov byte ptr [0x5000], 1; mov byte ptr [0x7000], 1; hlt
    image = Image(bytes.fromhex("c606005001 c606007001 f4"), 0x1000)
    with kvmlab.VM(memory=None, engine="soft", cpu=cpu) as vm:
        vm.set_memory_region(0, 0, "1M", log_dirty=True)
        vm.load(image)
        vm.dirty_log()
        vm.run()
        log = vm.dirty_log()
        assert {5, 7} <= log <= {1, 5, 7}  # page 1, the code, may be mapped writable at once
        assert log.bitmap[0] | 2 == 0b10100010 and "0x5 0x7" in log.explain()
        assert vm.dirty_log() == set()
        with pytest.raises(NoSuchSlot):
            vm.dirty_log(3)


def test_memory_spans_slots() -> None:
    with soft() as vm:
        vm.set_memory_region(1, 0x400000, "1M")
        vm.memory.write(0x3FFFFE, b"abcd")
        assert vm.memory[0x3FFFFE:0x400002] == b"abcd" and vm.memory.view(1)[1] == ord("d")
        assert vm.machine.memory is not vm.memory
        with pytest.raises(NoSuchSlot, match="slot 1"):
            vm.memory[0x500000]


# --- Which engine ----------------------------------------------------------------------------------------------------


def test_the_choice_and_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVMLAB_ENGINE", raising=False)
    monkeypatch.setattr(vm_module, "_host", [("kvm", "it opens and passed its self-test")])
    choose = vm_module.choose_engine
    assert choose("auto", (), None, None, None)[0] == "kvm"
    assert choose("auto", ("inspect", "back"), None, None, None) == (
        "soft", "looking inside and going back in time is needed, which only the soft engine has")  # fmt: skip
    assert choose("auto", (), "amd-2006", None, None)[0] == "soft"
    assert choose("auto", (), None, "vtlb", None)[0] == "soft"
    assert choose("soft", (), None, None, None) == ("soft", 'asked for: engine="soft"')
    with pytest.raises(NotVisible, match="looking inside"):
        choose("kvm", ("inspect",), None, None, None)
    monkeypatch.setenv("KVMLAB_ENGINE", "soft")
    assert choose("auto", (), None, None, None) == ("soft", "the variable KVMLAB_ENGINE says soft")
    monkeypatch.setenv("KVMLAB_ENGINE", "fast")
    with pytest.raises(BadArgument, match="KVMLAB_ENGINE"):
        choose("auto", (), None, None, None)


def test_kvm_without_permission_is_named() -> None:
    if not os.path.exists("/dev/kvm") or os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm is absent, or may be opened")
    with pytest.raises(EngineUnavailable) as raised:
        kvmlab.VM(engine="kvm")
    assert raised.value.errno_name == "EACCES"


# --- Running, as the interface of 2006 says --------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", CPUS)
def test_five_instructions(cpu: str) -> None:
    with soft(cpu) as vm:
        vm.load(g.FIVE)
        out = vm.run()
        assert (out.reason, out.port, out.value, out.rip) == (ExitReason.IO, 0x3F8, 0x41, 0x1005)
        assert out.hardware_reason == (30 if cpu == "intel-2006" else 0x7B)
        assert out.explain().startswith(
            f"VM exit {'30' if cpu == 'intel-2006' else '0x7b'}, I/O instruction: OUT of 1 byte"
        )
        assert vm.run().reason == ExitReason.HLT and vm.regs.ax == 0x42 and vm.vcpu.regs == vm.regs


@pytest.mark.parametrize("cpu", CPUS)
def test_reads_mmio_strings_and_cpuid(cpu: str) -> None:
    with soft(cpu) as vm:
        vm.load(g.READS)
        vm.run().reply(0x1E)
        vm.run().reply(0x1234)
        assert vm.run().reason == ExitReason.HLT and (vm.regs.bl, vm.regs.ax) == (0x1E, 0x1234)
        vm.load(g.MMIO)
        read = vm.run()
        assert (read.reason, read.gpa, read.size, read.direction) == (ExitReason.MMIO, 0xFE000000, 4, "read")
        read.reply(b"\x78\x56\x34\x12")
        write = vm.run()
        assert (write.gpa, write.value) == (0xFE000008, 0x12345678)
        assert vm.run().reason == ExitReason.HLT
        vm.load(g.STRING)
        string = vm.run()
        assert (string.string, string.rep, string.count, string.data) == (True, True, 4, b"abcd")
        assert '("abcd") from 0x1010 to port 0x3f8' in string.explain()
        assert vm.run().reason == ExitReason.HLT and vm.regs.cx == 0
        vm.load(g.CPUID)
        asked = vm.run()
        assert (asked.reason, asked.leaf) == (ExitReason.CPUID, 0)
        with pytest.raises(BadArgument, match="rax"):
            asked.reply({"rsi": 1})
        with pytest.raises(BadArgument, match="32 bits"):
            asked.reply({"rax": 1 << 32})
        asked.reply({"rax": 7})
        vm.run()
        assert vm.regs.rax == 7 and vm.regs.rbx == vm.cpuid(0)["rbx"]


@pytest.mark.parametrize("cpu", CPUS)
def test_functions_answer_strings_by_element(cpu: str) -> None:
    seen = []
    # mov di, 0x2000; mov cx, 3; mov dx, 0x60; rep insb; hlt
    reader = Image(bytes.fromhex("bf0020 b90300 ba6000 f36c f4"), 0x1000)
    with soft(cpu) as vm:
        vm.on_io(0x3F8, write=lambda port, size, value: seen.append(value))
        vm.on_io(0x60, read=lambda port, size: 0x30 + len(seen))
        vm.load(g.STRING)
        assert vm.run().reason == ExitReason.HLT and bytes(seen) == b"abcd"
        vm.load(reader)
        assert vm.run().reason == ExitReason.HLT and vm.memory[0x2000:0x2003] == b"444"
        vm.on_io(0x60)
        vm.load(reader)
        stop = vm.run()
        with pytest.raises(BadArgument, match="3 elements"):
            stop.reply(5)
        stop.reply(b"xyz")
        vm.run()
        assert vm.memory[0x2000:0x2003] == b"xyz"


@pytest.mark.parametrize("cpu", CPUS)
def test_step_exit_sees_what_the_hypervisor_handles(cpu: str) -> None:
    with soft(cpu) as vm:
        vm.load(g.MMIO)
        first = vm.step_exit()
        assert first.reason == ExitReason.EVENT and first.event.common == "exception"
        assert "page fault" in first.explain() and "shadow" in first.explain()
        assert vm.step_exit(kind="hlt").reason == ExitReason.MMIO  # a read asks user space
        vm.last_stop.reply(1)  # type: ignore[union-attr]
        assert vm.step_exit(kind="hlt").reason == ExitReason.HLT
        assert len(vm.timeline.filter(kind="exit")) >= 3
        with pytest.raises(BadArgument, match="cr_access"):
            vm.step_exit(kind="teatime")
        assert vm.shadow.audit() is None or not vm.shadow.audit()


@pytest.mark.parametrize("cpu", CPUS)
def test_exits_backwards(cpu: str) -> None:
    with soft(cpu) as vm:
        vm.load(Image(bytes.fromhex("b800002000 c60001 c6800010000001 c6800020000001 f4"), 0x100000, bits=64))
        seen = []
        while (stop := vm.step_exit()).reason == ExitReason.EVENT:
            seen.append((vm.position, vm.regs, stop.explain()))
        assert len(seen) >= 4
        for position, regs, said in reversed(seen):
            back = vm.step_exit_back()
            assert (vm.position, vm.regs, back.explain()) == (position, regs, said)
        with pytest.raises(Error, match="No exit"):
            vm.step_exit_back()
        vm.goto(seen[-1][0])
        assert vm.regs == seen[-1][1]


@pytest.mark.parametrize("cpu", CPUS)
def test_stepping_ends_where_running_ends(cpu: str) -> None:
    image = Image(bytes.fromhex("b905000000 ffc0 e2fc 48c7c300002000 8903 f4"), 0x100000, bits=64)
    with soft(cpu) as stepped, soft(cpu) as ran:
        for vm in (stepped, ran):
            vm.load(image)
        for n in range(1, 13):
            assert int(stepped.step().position) == n
        ran.run(12)
        assert stepped.regs == ran.regs and stepped.sregs == ran.sregs


def test_a_guest_that_never_retires_ends() -> None:
    # an IDT gate for #PF whose handler is not mapped: the delivery faults for ever, or shuts down
    with soft() as vm:
        vm.load(g.FAULT)
        stop = vm.run(10_000)
        assert stop.reason == ExitReason.SHUTDOWN and "riple fault" in stop.explain()


# --- The other engine ------------------------------------------------------------------------------------------------


def test_on_the_other_engine() -> None:
    with soft("intel-2006") as vm:
        vm.load(g.MMIO)
        vm.set(r12=0x1234)
        vm.step(1)
        other = vm.on("soft")
        assert other.regs == vm.regs and other.sregs == vm.sregs and other.image is vm.image
        assert other.memory[0x100000:0x100010] == vm.memory[0x100000:0x100010]
        assert other.run().gpa == 0xFE000000 and "vm.on" in other.engine_reason
        with pytest.raises(BadArgument):
            vm.on("auto")


def test_from_kvm_to_soft() -> None:
    vm = kvm(memory="1M")
    vm.load(g.FIVE)
    out = vm.run()
    assert out.reason == ExitReason.IO and out.value == 0x41
    other = vm.on("soft")
    assert other.engine == "soft" and other.run().reason in (ExitReason.IO, ExitReason.HLT)
    for ask in (lambda: vm.position, lambda: vm.timeline, lambda: vm.shadow, lambda: vm.vmcs, vm.step_back,
                lambda: vm.run(max_instructions=5), lambda: vm.walk(0)):  # fmt: skip
        with pytest.raises(NotVisible):
            ask()
    vm.close()


def test_a_time_limit_on_kvm() -> None:
    vm = kvm(memory="1M")
    vm.load(g.LOOP)
    stop = vm.run(time_limit=0.1)
    assert stop.reason == ExitReason.LIMIT and "0.1 s" in stop.explain()
    vm.close()


# --- Moments and showing ---------------------------------------------------------------------------------------------


def test_shows_itself() -> None:
    with warnings.catch_warnings(), soft() as vm:
        warnings.simplefilter("error")
        vm.load(g.FIVE)
        assert "Nothing has run yet" in repr(vm)
        vm.run()
        shown = vm._repr_mimebundle_()
        assert "OUT of 1 byte" in shown["text/html"] and "<script" not in shown["text/html"]
        figure = pytest.importorskip("matplotlib") and vm.plot.exits()
        assert len(figure.axes) == 2
        with pytest.raises(BadArgument, match="does not pickle"):
            pickle.dumps(vm)
