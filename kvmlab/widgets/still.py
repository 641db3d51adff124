"""The panels as HTML that stands alone: what a saved notebook shows where no widget can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import html
from .protocol import Panel

EXITS = 40
"""The most exits that a still picture lists."""


def many(panel: Panel, prefix: str) -> list[tuple[str, Any]]:
    """The items whose id starts with ``prefix``, without it."""
    return [(key.removeprefix(prefix), content) for key, content in panel.items if key.startswith(prefix)]


def one(panel: Panel, key: str) -> Any:
    return dict(panel.items).get(key)


def sentence(panel: Panel) -> html.Html:
    said = one(panel, "say")
    error = one(panel, "error")
    out = []
    if said:
        head, rest = said["text"][:said["cut"]], said["text"][said["cut"]:]
        words = [html.code(part) if i % 2 else html.escape(part) for i, part in enumerate(rest.split("`"))]
        out.append(html.paragraph(html.join([html.bold(head), *words])))
    steps = [[content["title"], content["text"]] for _, content in many(panel, "step:")]
    if steps:
        out.append(html.table("What happened, in order", [], steps))
    if error is not None:
        out.append(html.paragraph(html.join([html.bold(error["title"]), " ", error["text"]])))
    return html.join(out)


def registers(panel: Panel) -> html.Html:
    cells = [[name, html.bold(html.code(r["value"])) if r["was"] else html.code(r["value"]), was(r["was"])]
             for name, r in [*many(panel, "gpr:"), *many(panel, "cr:")]]
    flags = one(panel, "flags")
    if flags:
        names = " ".join(name for name, on, *_ in flags["bits"] if on) or "no flag set"
        cells.append(["rflags", html.join([html.code(flags["value"]), " ", names]), was(flags["was"])])
    half = (len(cells) + 1) // 2
    rows = [[html.bold(left[0]), *left[1:], *([html.bold(right[0]), *right[1:]] if right else [])]
            for left, right in zip(cells[:half], [*cells[half:], *[[]] * (2 * half - len(cells))], strict=True)]
    head = ["register", "value", "changed"]
    return html.table(f"{html.bold('Registers')} {one(panel, 'head')['aside']}" if rows else "", head * 2, rows)


def was(digits: str | None) -> html.Html:
    return html.changed(int(digits, 16)) if digits is not None else html.Html("")


def code(panel: Panel) -> html.Html:
    rows = []
    for _, line in many(panel, "line:"):
        if line["kind"] == "label":
            rows.append([html.bold(line["op"] + ":")])
        else:
            text = html.code(f"{line['op']} {line['args']}")
            rows.append([("▸ " if line["now"] else "") + line["address"], html.code(line["bytes"]),
                         html.bold(text) if line["now"] else text])
    return html.table(html.bold("Code"), ["address", "bytes", "instruction"], rows)


def segments(panel: Panel) -> html.Html:
    rows = [[name, *(html.code(s[part]) for part in ("selector", "base", "limit", "rights")), s["type"]]
            for name, s in many(panel, "seg:")]
    return html.table(html.bold("Segments"), ["", "selector", "base", "limit", "rights", "type"], rows)


def paging(panel: Panel) -> html.Html:
    query, result = one(panel, "query"), one(panel, "result")
    if query is None:
        return words(panel)
    rows: list[list[Any]] = [
        [step["level"], step["index"], html.code(step["at"]), html.code(step["entry"]),
         " ".join(name for name, on, *_ in step["bits"] if on),
         html.join([f"{html.mark(ok)} {text}" for ok, text in step["checks"]], ", ")]
        for _, step in many(panel, "step:")]
    if result is not None:
        rows.append([result["title"], "", result["text"]])
    who = "user" if query["user"] else "supervisor"
    title = html.join([html.bold("Walk"), " of ", html.code(query["address"]), f", {who}, access {query['access']}"])
    return html.table(title, ["level", "index", "entry at", "entry", "set bits", "checks"], rows)


def control(panel: Panel) -> html.Html:
    rows = [[html.code(field["code"]), name, html.code(field["value"]), was(field["was"]), field["says"]]
            for name, field in many(panel, "field:") if field["main"] or field["was"] is not None]
    if not rows:
        return words(panel)
    return html.table(html.bold("VMCS" if one(panel, "head")["object"] == "vmcs" else "VMCB"),
                      ["", "field", "value", "changed", "meaning"], rows, row_header=False)


def exits(panel: Panel) -> html.Html:
    rows = many(panel, "exit:")[-EXITS:]
    if not rows:
        return words(panel)
    drawn = html.lanes(f"{len(rows)} exits", "How high each exit rose: to the hypervisor, or to user space.",
                       [(f"#{n}", exit["reason"], exit["to"] == "user") for n, exit in rows[-16:]])
    head = ["exit", "position", "reason", "what happened", "handled by", "instructions since"]
    listed = [[html.bold(f"#{n}") if exit["now"] else f"#{n}", exit["position"], f"{exit['reason']} {exit['name']}",
               exit["what"], "user space" if exit["to"] == "user" else "hypervisor", exit["cost"]] for n, exit in rows]
    return html.join([drawn, html.table(html.bold("Exits"), head, listed, align="lrlllr")])


def console(panel: Panel) -> html.Html:
    out = one(panel, "out")
    return html.pre(out["text"]) if out and out["text"] else html.Html("")


def words(panel: Panel) -> html.Html:
    """What a panel says that has nothing to show."""
    for key in ("blind", "head"):
        said = one(panel, key)
        if isinstance(said, dict) and said.get("text"):
            return html.paragraph(said["text"])
    return html.Html("")


STILLS: dict[str, Callable[[Panel], html.Html]] = {
    "sentence": sentence, "registers": registers, "code": code, "segments": segments, "paging": paging,
    "control": control, "exits": exits, "console": console,
}
BENCH = ("sentence", "registers", "code", "paging", "exits", "console")
"""What a still picture of the whole bench shows."""


def still(state: Mapping[str, Panel], panel: str) -> tuple[str, str]:
    """The moment as HTML that stands alone, and as text."""
    names = BENCH if panel == "bench" else ("sentence", panel) if panel != "sentence" else ("sentence",)
    loaded = bool(many(state.get("registers", Panel()), "gpr:"))
    if not loaded:
        names = ("sentence",)
    page = html.join(STILLS[name](state[name]) for name in names if name in STILLS and name in state)
    said = one(state.get("sentence", Panel()), "say") or {"text": ""}
    return page, f"kvmlab {panel}: {said['text'].replace('`', '')}"
