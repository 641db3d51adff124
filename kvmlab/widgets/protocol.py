"""What goes over the wire between a VM and the views of it: full snapshots, and what changed since.

A panel's state is an ordered list of items ``(id, content)`` with ids of its own, and, where it has bulk data, bytes.
Lists carry the order, because saved widget state sorts the keys of dictionaries; inside a content order has no meaning.
``docs/widgets.md`` describes the messages; ``js/store.js`` is the other end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Item = tuple[str, Any]
MAX_BYTES = 64 * 1024
"""The most bulk data of one panel, in bytes."""


@dataclass(frozen=True)
class Panel:
    """What one panel shows."""

    items: tuple[Item, ...] = ()
    data: bytes = b""

    def __post_init__(self) -> None:
        ids = [name for name, _ in self.items]
        if len(set(ids)) != len(ids):
            double = next(name for name in ids if ids.count(name) > 1)
            raise ValueError(f"a panel's ids are its own, but {double!r} is there twice")
        if len(self.data) > MAX_BYTES:
            raise ValueError(f"{len(self.data)} bytes of bulk data; a panel has {MAX_BYTES} at the most")

    @classmethod
    def of(cls, items: Iterable[Item], data: bytes = b"") -> Panel:
        return cls(tuple(items), data)


State = Mapping[str, Panel]


@dataclass(frozen=True)
class Delta:
    """What to send so that a view of ``old`` shows ``new``."""

    changes: list[list[Any]] = field(default_factory=list)
    data: list[tuple[str, int, bytes]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changes or self.data)

    def only(self, panels: frozenset[str]) -> Delta:
        """The part for a view that shows ``panels``."""
        return Delta([change for change in self.changes if change[0] in panels],
                     [entry for entry in self.data if entry[0] in panels])

    def message(self, seq: int) -> tuple[dict[str, Any], list[bytes]]:
        """The message and its buffers."""
        entries = [[name, offset, index] for index, (name, offset, _) in enumerate(self.data)]
        return ({"kind": "delta", "seq": seq, "changes": self.changes, "bytes": entries},
                [data for _, _, data in self.data])


def diff(old: State, new: State) -> Delta:
    """What changed, by panel: the items that are new or differ, and the order of all where ids came, went or moved."""
    delta = Delta()
    for name, panel in new.items():
        before = old.get(name, Panel())
        if panel.items != before.items:
            known = dict(before.items)
            changed = [[key, content] for key, content in panel.items if key not in known or known[key] != content]
            order = [key for key, _ in panel.items]
            same = order == [key for key, _ in before.items]
            delta.changes.append([name, changed, None if same else order])
        elif name not in old:
            delta.changes.append([name, [], []])
        if panel.data != before.data:
            common = _common(before.data, panel.data)
            delta.data.append((name, common, panel.data[common:]))
    for name in old:
        if name not in new and old[name].items:
            delta.changes.append([name, [], []])
    return delta


def _common(old: bytes, new: bytes) -> int:
    """How many bytes both begin with."""
    if new.startswith(old):
        return len(old)
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[:middle] == new[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def full(state: State, seq: int) -> tuple[dict[str, Any], list[bytes]]:
    """Everything, for a view that opens or has missed something."""
    panels = [[name, [list(item) for item in panel.items]] for name, panel in state.items()]
    bulk = [(name, panel.data) for name, panel in state.items() if panel.data]
    entries = [[name, index] for index, (name, _) in enumerate(bulk)]
    return {"kind": "full", "seq": seq, "panels": panels, "bytes": entries}, [data for _, data in bulk]
