"""Figures for reports, with matplotlib: ``vm.plot.exits()``."""

from __future__ import annotations

from typing import Any

from .errors import ToolUnavailable

__all__ = ["Plot"]

# Who acts: guest, hypervisor, user space, hardware. Dark enough to be read on white and in print.
_INK = {"guest": "#0a5aa8", "hypervisor": "#6d35a8", "user": "#0c6553", "hardware": "#97450a"}
_LANES = (
    ("VM exits", ("exit",), "hardware"),
    ("to user space", ("user_exit",), "user"),
    ("ports", ("port",), "user"),
    ("device memory", ("mmio",), "user"),
    ("faults, interrupts", ("delivery", "inject"), "guest"),
    ("CR writes", ("cr_write",), "guest"),
    ("shadow fills", ("fill",), "hypervisor"),
    ("table writes", ("table_write",), "hypervisor"),
    ("zaps", ("zap",), "hypervisor"),
    ("dirty marks", ("dirty",), "hypervisor"),
    ("halts", ("halt", "shutdown"), "guest"),
)
_MARKS = "|os^vDPX*d<"


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ToolUnavailable("Figures need matplotlib, which is not here.", "pip install 'kvmlab[lab]'") from None
    return plt


class Plot:
    """``vm.plot``: figures of what a machine did."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def exits(self) -> Any:
        """What happened when: a lane per kind of event over the instructions, and how often each exit came.

        Returns
        -------
        matplotlib.figure.Figure
            Close it with ``matplotlib.pyplot.close(figure)`` where many are made.

        Raises
        ------
        NotVisible
            On the kvm engine, whose events cannot be seen.
        """
        events = list(self._machine.timeline)
        plt = _pyplot()
        lanes = [
            (name, [e.position.instructions for e in events if e.kind in kinds], side) for name, kinds, side in _LANES
        ]
        empty = [name for name, at, _ in lanes if not at]
        lanes = [lane for lane in lanes if lane[1]]
        counts: dict[str, int] = {}
        for event in events:
            if event.kind == "exit":
                counts[event.common] = counts.get(event.common, 0) + 1
        figure, axes = plt.subplots(
            2 if counts else 1, 1, figsize=(9, 1.6 + 0.32 * (len(lanes) + len(counts))), squeeze=False,
            height_ratios=[max(len(lanes), 2), max(len(counts), 2)] if counts else None, layout="constrained",
        )  # fmt: skip
        self._draw_lanes(axes[0][0], lanes, empty)
        if counts:
            self._draw_counts(axes[1][0], counts)
        plt.close(figure)  # the notebook shows what a cell returns; pyplot would show it once more
        return figure

    def _draw_lanes(self, axis: Any, lanes: list[tuple[str, list[int], str]], empty: list[str]) -> None:
        for row, (name, at, side) in enumerate(lanes):
            mark = _MARKS[[lane[0] for lane in _LANES].index(name)]
            axis.plot(at, [row] * len(at), mark, color=_INK[side], markersize=7, markerfacecolor="none", clip_on=False)
        axis.set_yticks(range(len(lanes)), [f"{name} ({len(at):,})" for name, at, _ in lanes])
        axis.set_ylim(len(lanes) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel("instructions")
        title = f"{self._machine.cpu}, {self._machine.engine} engine"
        axis.set_title(title + (f"   (none: {', '.join(empty)})" if empty else ""), fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)

    def _draw_counts(self, axis: Any, counts: dict[str, int]) -> None:
        names = sorted(counts, key=lambda name: counts[name])
        bars = axis.barh(names, [counts[name] for name in names], color="#f3e3d5", edgecolor=_INK["hardware"])
        axis.bar_label(bars, [f" {counts[name]:,}" for name in names])
        axis.set_xlabel("VM exits by reason")
        axis.spines[["top", "right"]].set_visible(False)
