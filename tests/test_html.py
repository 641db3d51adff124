"""The helpers for pages without script: what they escape, align and span."""

import re

from kvmlab import html


def test_text_is_escaped_and_markup_passes():
    assert html.escape("<b>&'") == "&lt;b&gt;&amp;&#x27;"
    assert html.escape(html.Html("<b>x</b>")) == "<b>x</b>"
    assert html.code("<x>") == "<code>&lt;x&gt;</code>"
    assert html.escape(None) == ""


def test_a_short_row_spans_what_is_left():
    page = html.table("Walk", ["level", "index", "entry"], [["PML4", 1, html.hexadecimal(0x5023)], ["page", "none"]])
    assert '<td colspan="2"' in page
    assert "<code>0000000000005023</code>" in page
    assert page.count("<tr>") == 3


def test_the_first_cell_names_the_row():
    page = html.table("", [], [["rip", "1"]])
    assert re.search(r'<th scope="row"[^>]*>rip</th><td', page)
    assert "<caption" not in page and "<thead" not in page
    assert "<th" not in html.table("", [], [["rip", "1"]], row_header=False)


def test_what_changed_says_what_it_was():
    assert html.changed(0x46) == "▲ was <code>0x46</code>"
    assert html.changed(0x46, 4) == "▲ was <code>0046</code>"
    assert html.changed(None) == ""


def test_nothing_in_a_page_needs_script_or_style_sheet():
    page = html.table("t", ["a"], [["<script>alert(1)</script>"]]) + html.lanes("one", "one exit", [("#1", "30", True)])
    assert "<script" not in page and "class=" not in page and "<style" not in page


def test_bits_are_named_in_the_order_given():
    assert html.bits(0b101, [(2, "U"), (1, "W"), (0, "P")]) == "U P"
    assert html.bits(0, [(0, "P")]) == "none"
