"""Plain HTML for moments: what stands alone on GitHub, in nbconvert and in a PDF.

Only ``table``, ``caption``, ``th``, ``td``, ``b``, ``code``, ``pre``, ``p`` and ``svg``: no script, no class, no
style sheet, and no colour that a dark page would swallow. What changed is said by a mark, by weight and by the old
value. Alignment is given twice, as an attribute and as a style, because GitHub strips the one and JupyterLab's style
sheet overrides the other.

Text is escaped everywhere unless it is an :class:`Html`, so a caller can pass a guest's own words without thinking.
"""

from __future__ import annotations

import html as _html
from collections.abc import Iterable, Sequence

__all__ = ["Html", "bits", "bold", "bundle", "changed", "code", "escape", "hexadecimal", "join", "lanes", "lines",
           "mark", "paragraph", "pre", "table"]

CHANGED = "▲"
OK = "✓"
FAILED = "✗"


class Html(str):
    """Text that is markup already. Everything else is escaped on its way into a cell."""

    __slots__ = ()


def escape(text: object) -> Html:
    """The text as markup. An :class:`Html` passes as it is; ``None`` is the empty text."""
    if isinstance(text, Html):
        return text
    return Html("" if text is None else _html.escape(str(text), quote=True))


def join(parts: Iterable[object], between: object = "") -> Html:
    """The parts, each escaped, one after the other."""
    return Html(escape(between).join(escape(part) for part in parts))


def bold(text: object) -> Html:
    return Html(f"<b>{escape(text)}</b>")


def code(text: object) -> Html:
    return Html(f"<code>{escape(text)}</code>")


def pre(text: object) -> Html:
    return Html(f"<pre>{escape(text)}</pre>")


def paragraph(text: object) -> Html:
    return Html(f"<p>{escape(text)}</p>")


def lines(parts: Iterable[object]) -> Html:
    """The parts under each other in one cell."""
    return Html("<br>".join(escape(part) for part in parts))


def hexadecimal(value: int, digits: int = 16, *, heavy: bool = False) -> Html:
    """``value`` with all its leading zeros, without ``0x``: for a column whose heading says what it is.

    Parameters
    ----------
    value : int
        Not negative.
    digits : int
        Width of the field in hexadecimal digits: 16 for 64 bits, 8 for 32, 4 for 16.
    heavy : bool
        True where the value changed.
    """
    shown = code(f"{value:0{digits}x}")
    return bold(shown) if heavy else shown


def changed(was: int | None, digits: int = 0) -> Html:
    """The mark with the old value, or nothing where ``was`` is None."""
    if was is None:
        return Html("")
    return Html(f"{CHANGED} was {code(f'{was:0{digits}x}' if digits else f'{was:#x}')}")


def mark(ok: bool | None) -> Html:
    """A tick, a cross, or nothing for what does not apply."""
    return Html("" if ok is None else OK if ok else FAILED)


def bits(value: int, names: Sequence[tuple[int, str]]) -> str:
    """The names of the bits that are set, in the order given, or ``none``.

    Parameters
    ----------
    value : int
    names : sequence of (bit number, name)
    """
    return " ".join(name for bit, name in names if value >> bit & 1) or "none"


def _cell(tag: str, content: object, align: str, extra: str = "") -> str:
    place = {"l": "left", "r": "right", "c": "center"}[align]
    return f'<{tag}{extra} align="{place}" style="text-align:{place}">{escape(content)}</{tag}>'


def table(caption: object, header: Sequence[object], rows: Iterable[Sequence[object]], *, align: str = "",
          row_header: bool = True) -> Html:
    """A table that a reader of the page's source can read too.

    Parameters
    ----------
    caption : str or Html
        What the table shows, with what and when; stands above it. Empty for none.
    header : sequence
        The columns' headings. Empty for none.
    rows : iterable of sequences
        A shorter row's last cell spans the columns that are left.
    align : str
        One letter per column, ``l``, ``r`` or ``c``; columns not named are ``l``.
    row_header : bool
        Whether the first cell of a row names it.
    """
    body = [tuple(row) for row in rows]
    columns = max([len(header), *(len(row) for row in body)], default=0)
    align = align.ljust(columns, "l")
    out = ['<table border="1" cellpadding="4" cellspacing="0" style="border-collapse:collapse">']
    if caption:
        out.append(f'<caption align="top" style="caption-side:top;text-align:left">{escape(caption)}</caption>')
    if header:
        cells = "".join(_cell("th", name, align[i], ' scope="col"') for i, name in enumerate(header))
        out.append(f"<thead><tr>{cells}</tr></thead>")
    out.append("<tbody>")
    for row in body:
        html_cells = []
        for i, content in enumerate(row):
            left = columns - len(row)
            span = f' colspan="{left + 1}"' if left and i == len(row) - 1 else ""
            head = row_header and i == 0
            html_cells.append(_cell("th" if head else "td", content, align[i],
                                    span + (' scope="row"' if head else "")))
        out.append(f"<tr>{''.join(html_cells)}</tr>")
    out.append("</tbody></table>")
    return Html("\n".join(out))


def lanes(title: str, description: str, exits: Sequence[tuple[str, str, bool]]) -> Html:
    """A drawing of exits: how high each one rose. Carries its own ground and colours, so it reads on any page.

    Parameters
    ----------
    title, description : str
        For those who cannot see it; the description says in words what the drawing shows.
    exits : sequence of (label, reason, to_user)
        In order. ``to_user`` is true where KVM_RUN returned.
    """
    left, step = 104, 44
    width = left + step * max(1, len(exits)) + 12
    ui = 'font-family="sans-serif" font-size="12"'
    out = [(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="176" viewBox="0 0 {width} 176" '
           f'role="img" {ui}><title>{escape(title)}</title><desc>{escape(description)}</desc>'),
           f'<rect width="{width}" height="176" rx="6" fill="#ffffff"/>']
    for y, name, ink, ground in ((22, "user space", "#0c6553", "#e0f3ee"), (72, "hypervisor", "#6d35a8", "#f2eafa"),
                                 (122, "guest", "#0a5aa8", "#e6f0fa")):
        out.append(f'<rect x="8" y="{y}" width="{width - 16}" height="30" rx="4" fill="{ground}"/>'
                   f'<text x="16" y="{y + 20}" fill="{ink}" font-weight="bold">{name}</text>')
    out.append(f'<path d="M{left - 4} 137H{width - 14}" stroke="#0a5aa8" stroke-width="2"/>')
    for i, (label, reason, to_user) in enumerate(exits):
        x, top = left + step * i + 20, 42 if to_user else 92
        out.append(f'<path d="M{x - 5} 137V{top}H{x + 5}V137" fill="none" stroke="#97450a" stroke-width="1.6"/>'
                   f'<text x="{x}" y="{top - 5}" text-anchor="middle" fill="#1c1f23" font-weight="bold">'
                   f'{escape(reason)}</text><text x="{x}" y="168" text-anchor="middle" fill="#4a5058">'
                   f'{escape(label)}</text>')
    out.append('<text x="16" y="168" fill="#4a5058">exit</text></svg>')
    return Html("".join(out))


def bundle(html: str, text: str) -> dict[str, str]:
    """What ``_repr_mimebundle_`` of a moment returns."""
    return {"text/html": str(html), "text/plain": text}
