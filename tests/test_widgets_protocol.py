"""Deltas: applied to what was there, they give what is there; they are small; a gap is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmlab.widgets.protocol import MAX_BYTES, Panel, diff, full


def merge(state, message, buffers):
    """What js/store.js does, in Python: the tests in the browser hold the two together."""
    state = {name: (list(items), data) for name, (items, data) in state.items()}
    for name, changed, order in message["changes"]:
        items, data = state.get(name, ([], b""))
        contents = dict(items) | dict(map(tuple, changed))
        state[name] = ([(key, contents[key]) for key in (order if order is not None else [k for k, _ in items])], data)
    for name, offset, index in message["bytes"]:
        items, data = state.get(name, ([], b""))
        state[name] = (items, data[:offset] + buffers[index])
    return state


def plain(state):
    return {name: (list(panel.items), panel.data) for name, panel in state.items() if panel.items or panel.data}


def filled(state):
    return {name: (items, data) for name, (items, data) in state.items() if items or data}


panels = st.dictionaries(
    st.sampled_from(["code", "registers", "timeline"]),
    st.builds(
        lambda items, data: Panel.of(items.items(), data),
        st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 3)),
        st.binary(max_size=8),
    ),
)


@given(panels, panels)
def test_a_delta_leads_from_the_old_state_to_the_new(old, new):
    new = {**{name: Panel() for name in old}, **new}
    message, buffers = diff(old, new).message(7)
    assert filled(merge(plain(old), message, buffers)) == plain(new)
    assert message["seq"] == 7


def test_what_stays_is_not_sent():
    old = {"registers": Panel.of([("rax", 1), ("rbx", 2), ("rcx", 3)])}
    new = {"registers": Panel.of([("rax", 1), ("rbx", 5), ("rcx", 3)])}
    assert diff(old, new).changes == [["registers", [["rbx", 5]], None]]
    assert not diff(new, new)


def test_bulk_data_that_grows_sends_its_end():
    old, new = {"timeline": Panel(data=b"abcdef")}, {"timeline": Panel(data=b"abcdefgh")}
    assert diff(old, new).data == [("timeline", 6, b"gh")]
    back = diff(new, {"timeline": Panel(data=b"abX")})
    assert back.data == [("timeline", 2, b"X")]


def test_a_full_snapshot_has_every_panel_in_order():
    message, buffers = full({"b": Panel.of([("x", 1)]), "a": Panel(data=b"z")}, 3)
    assert [name for name, _ in message["panels"]] == ["b", "a"]
    assert message["bytes"] == [["a", 0]] and buffers == [b"z"]


def test_a_panel_refuses_two_of_one_name_and_too_much_bulk():
    with pytest.raises(ValueError, match="'rax' is there twice"):
        Panel.of([("rax", 1), ("rax", 2)])
    with pytest.raises(ValueError, match="at the most"):
        Panel(data=bytes(MAX_BYTES + 1))


def test_a_view_of_one_panel_gets_only_its_part():
    delta = diff({}, {"code": Panel.of([("a", 1)]), "console": Panel.of([("b", 1)])})
    assert [change[0] for change in delta.only(frozenset({"code"})).changes] == ["code"]
