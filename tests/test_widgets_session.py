"""The session and the panels on a real machine, without a browser: requests, marks, background runs, errors."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import kvmlab
from kvmlab.widgets import driver, model
from kvmlab.widgets.protocol import Panel, diff
from kvmlab.widgets.session import Session, session_of

FIVE = """
start:  mov     ax, 0x1234
        mov     bx, ax
        add     ax, bx
        mov     ds, bx
        hlt
"""


def machine(text=FIVE, bits=16):
    made = kvmlab.Machine(memory="4M")
    made.load(kvmlab.assemble(text, bits=bits, org=0x1000))
    return made


def ask(session, verb, **detail):
    session.ask(verb, detail, 1)
    assert session.wait(30)


def item(session, panel, key):
    return dict(session.state[panel].items)[key]


def text(session):
    return item(session, "sentence", "say")["text"]


class Recorder:
    """A view that keeps what it was told."""

    panels = frozenset(model.PANELS) | {"bench"}

    def __init__(self, session):
        self.deltas = []
        session.attach(self)

    def deliver(self, delta, state):
        self.deltas.append(delta)


def test_a_step_marks_what_changed_and_says_what_it_did():
    session = Session(machine())
    ask(session, "step")
    assert item(session, "registers", "gpr:rax")["was"] == "0" * 16
    assert item(session, "registers", "gpr:rbx")["was"] is None
    assert text(session) == "Step: `mov ax, 0x1234` at 0x1000: rax became 0x1234."
    ask(session, "step_back")
    assert item(session, "registers", "gpr:rax")["value"] == "0" * 16


def test_a_delta_of_a_step_is_small():
    session = Session(machine())
    ask(session, "step")
    view = Recorder(session)
    ask(session, "step")
    (delta,) = view.deltas
    assert sum(len(items) for _, items, _ in delta.changes) < 16
    assert not delta.data


def test_an_edit_moves_no_marks():
    session = Session(machine())
    ask(session, "step")
    ask(session, "set", name="rcx", value="ff")
    assert item(session, "registers", "gpr:rax")["was"] == "0" * 16
    assert item(session, "registers", "gpr:rcx")["was"] == "0" * 16
    assert session.machine.regs.rcx == 0xFF


def test_looking_moves_no_marks_and_a_wrong_address_is_an_error_in_words():
    session = Session(machine())
    ask(session, "step")
    ask(session, "walk", address="start", access="r", user=False)
    assert item(session, "paging", "query")["address"] == "0x1000"
    assert item(session, "registers", "gpr:rax")["was"] is not None
    ask(session, "walk", address="no such thing", access="r", user=False)
    assert "is no address" in item(session, "sentence", "error")["text"]
    ask(session, "dismiss")
    assert "error" not in dict(session.state["sentence"].items)


def test_a_long_run_goes_on_in_the_background_and_is_stopped():
    session = Session(machine("here: jmp here", bits=32))
    session.ask("run", {}, 1)
    assert not session.wait(0.05)
    session.ask("step", {}, 2)  # not heard while it runs
    session.ask("stop", {}, 3)
    assert session.wait(30)
    assert "topped" in text(session)
    assert item(session, "bench", "about")["answered"] == 3
    assert item(session, "toolbar", "about")["running"] is None


def test_progress_is_told_while_it_lasts():
    session = Session(machine("here: jmp here", bits=32))
    seen = threading.Event()

    class Watcher(Recorder):
        def deliver(self, delta, state):
            if dict(state["toolbar"].items)["about"]["running"]:
                seen.set()

    view = Watcher(session)
    session.ask("run", {}, 1)
    assert seen.wait(30)
    session.ask("stop", {}, 2)
    assert session.wait(30)
    assert view is not None


def test_an_error_of_a_callback_is_shown_with_where_it_came_from():
    made = machine("mov al, 1\nout 0x80, al\nhlt")

    def broken(port, size, value):
        raise KeyError("no such device")

    made.on_io(0x80, write=broken)
    session = Session(made)
    ask(session, "run")
    error = item(session, "sentence", "error")
    assert error["title"] == "Key error:" and "no such device" in error["text"] and "broken" in error["trace"]


def test_what_a_cell_does_is_seen():
    made = machine()
    session = session_of(made)
    made.step(2)
    deadline = threading.Event()
    for _ in range(50):
        if item(session, "toolbar", "about")["position"] == "2":
            break
        deadline.wait(0.02)
    assert item(session, "toolbar", "about")["position"] == "2"
    assert session_of(made) is session


def test_a_machine_with_a_bench_can_be_forgotten():
    made = machine()
    session_of(made)
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_the_listing_stands_still_while_the_pointer_is_inside():
    session = Session(machine("\n".join(["nop"] * 40 + ["hlt"])))
    first = [key for key, _ in session.state["code"].items]
    for _ in range(6):
        ask(session, "step")
    assert [key for key, _ in session.state["code"].items] == first
    for _ in range(12):
        ask(session, "step")
    assert [key for key, _ in session.state["code"].items] != first
    assert item(session, "code", "line:1012")["now"]


def test_code_is_decoded_from_where_the_source_says():
    session = Session(machine("jmp over\n.byte 0xb8, 0x66\nover: mov ax, 1\nmov bx, 2\nhlt"))
    ask(session, "step")
    lines = {key: content for key, content in session.state["code"].items if key.startswith("line:")}
    assert lines["line:label:1004"]["op"] == "over"
    assert lines["line:1004"]["op"] == "mov" and lines["line:1004"]["now"]


def test_the_hidden_part_of_a_segment():
    session = Session(machine())
    for _ in range(4):
        ask(session, "step")
    ds = item(session, "segments", "seg:ds")
    assert ds["selector"] == "1234" and ds["base"].endswith("12340") and "base" in ds["was"]


def test_what_a_machine_cannot_do_has_no_verb():
    assert driver.can(None) == []
    can = driver.can(machine())
    assert {"step", "step_back", "run", "set", "walk"} <= set(can)
    assert "soft" not in can


@pytest.mark.parametrize("verb", ["no such verb", "step"])
def test_an_empty_bench_answers_every_request(verb):
    session = Session()
    ask(session, verb)
    assert "error" in dict(session.state["sentence"].items)


def test_a_saved_snapshot_is_lists_all_the_way():
    session = Session(machine())
    for name, items in model.saved(session.state):
        assert isinstance(name, str) and isinstance(items, list)
        assert all(isinstance(entry, list) and isinstance(entry[0], str) for entry in items)


def test_drawing_twice_gives_the_same():
    session = Session(machine())
    before = dict(session.state)
    session.refresh()
    assert not diff({name: Panel(panel.items) for name, panel in before.items()},
                    {name: Panel(panel.items) for name, panel in session.state.items() if name != "registers"}
                    | {"registers": before["registers"]})
