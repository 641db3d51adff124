"""Positions, events and the timeline."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import small_guests as g

import kvmlab
from kvmlab import engine, trace
from kvmlab.errors import BadArgument
from kvmlab.trace import Event, Position

DEF = Path(trace.__file__).parent / "engine" / "trace.def"


def event(kind: str, vendor: str = "intel", **words: int) -> Event:
    values = (
        dict.fromkeys(engine.EVENT.names, 0)
        | {"kind": trace.kind_number(kind), "instructions": 7, "sequence": 9}
        | words
    )
    return Event(engine.EVENT.pack(values.values()), vendor)


def test_positions() -> None:
    a, b = Position(5, 7), Position(5, 8)
    assert a < b < Position(6) and a != b and a == Position(5, 7) and len({a, b, Position(5, 7)}) == 2
    assert int(a) == 5 and a - Position(2) == 3 and a == 5 and a < 6 and range(10)[a] == 5
    assert pickle.loads(pickle.dumps(a)) == a and a.to_dict() == {"instructions": 5, "sequence": 7}
    with pytest.raises(AttributeError, match="goto"):
        a.instructions = 6
    assert sorted([Position(2), b, a])[-1] is b and a.explain() == "After 5 instructions and 7 events."


def test_kinds_are_those_of_the_table() -> None:
    rows = re.findall(r'^EVENT\(\w+,\s*"(\w+)"', DEF.read_text(encoding="utf-8"), re.MULTILINE)
    assert list(trace.kinds()) == rows
    with pytest.raises(BadArgument, match="table_write"):
        trace.kind_number("tables")


@pytest.mark.parametrize("kind", trace.kinds())
@pytest.mark.parametrize("vendor", ["intel", "amd"])
def test_every_kind_has_a_sentence_whatever_its_words_are(kind: str, vendor: str) -> None:
    for word in (0, 1, 2, 3, 14, 0xFFFFFFFF):
        one = event(kind, vendor, a=word, b=word, c=word, d=word, e=word, rip=0x1000)
        said = one.explain()
        assert said.endswith(".") and said[0].isupper() and "None" not in said
        assert one.to_dict()["kind"] == kind and one.position == Position(7, 9)
        assert pickle.loads(pickle.dumps(one)) == one and one.diff(one) == {}


def test_events_by_field() -> None:
    port = event("port", a=1 | 1 << 8, b=0x3F8, c=0x41, rip=0x1005)
    assert (port.size, port.port, port.value, port.is_write, port.direction, port.side) == (
        1,
        0x3F8,
        0x41,
        1,
        "out",
        "guest",
    )
    assert port.explain() == "The guest wrote 0x41 (1 byte) to port 0x3f8 at 0x1005."
    exits = event("exit", a=0, b=0x2000, c=2 | 7 << 32, d=0x80000B0E, rip=0x1000)
    assert (exits.instruction_length, exits.error_code, exits.common) == (2, 7, "exception")
    with pytest.raises(AttributeError, match="has no 'port'"):
        _ = exits.port
    with pytest.raises(AttributeError, match="goto"):
        exits.reason = 5  # type: ignore[misc]
    fault = event("delivery", a=14 | 3 << 8, b=6, c=0x8_0000_2000, d=0x5000, rip=0x1000)
    assert "#PF, page fault, with error code 0x6 for 0x5000 at 0x1000" in fault.explain()


@pytest.fixture
def run() -> kvmlab.Machine:
    machine = kvmlab.Machine(memory="1M")
    machine.load(g.FIVE)
    list(machine.exits())
    return machine


def test_the_timeline(run: kvmlab.Machine) -> None:
    timeline = run.timeline
    assert [one.kind for one in timeline][-2:] == ["port", "halt"] and len(timeline) == len(list(timeline))
    assert timeline[-1].kind == "halt" and timeline[-2:][0].kind == "port" and timeline
    assert [one.port for one in timeline.filter(kind="port")] == [0x3F8]
    assert len(timeline.filter(kind=("port", "halt"))) == 2 and not timeline.filter(kind="port", port=1)
    assert timeline.filter(port=0x3F8)[0].value == 0x41
    assert timeline.to_records()[-1]["kind"] == "halt" and timeline.counts()["port"] == 1
    assert timeline.since(timeline[-1].position)[0].kind == "halt"
    with pytest.raises(IndexError, match="timeline has"):
        timeline[10_000]
    assert "The guest wrote 0x41" in repr(timeline) and "port 1" in timeline.explain()
    assert "<table" in timeline._repr_mimebundle_()["text/html"]


def test_step_event(run: kvmlab.Machine) -> None:
    run.load(g.FIVE)
    assert run.step_event("port") is None and run.last_stop is not None and run.last_stop.kind == "io"
    port = run.step_event("port")  # unanswered: the access happens now
    assert port is None or port.port == 0x3F8
    run.load(g.COUNT)
    first = run.step_event("retired")  # a kind that is not recorded else
    second = run.step_event("retired")
    assert first is not None and second is not None and first.position < second.position
    port = run.timeline.filter(kind="port")[0]
    run.goto(port)
    assert run.position.instructions == port.position.instructions and run.last_stop.explain() == port.explain()
    with pytest.raises(BadArgument):
        run.step_event("tea")


def test_more_events_than_are_kept() -> None:
    # out 0x80, al; jmp: a port event each turn
    with kvmlab.Machine(memory="1M") as machine:
        machine.on_io(0x80, write=lambda port, size, value: None)
        machine.load(kvmlab.Image(bytes.fromhex("e680 ebfc"), 0x1000))
        machine._handle.trace_enable(machine._mask, 256)
        machine.run(2000)
        timeline = machine.timeline
        assert len(timeline) == 256 and len(list(timeline)) == 256
        positions = [one.position for one in timeline]
        assert positions == sorted(positions)
