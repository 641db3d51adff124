"""For everybody: axe, contrast as rendered, keyboard, room on the first screen, no sideways scrolling."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from contrast import LOWEST, MEASURE
from guests import cell
from playwright.sync_api import expect

TABS = ("shadow", "paging", "control", "segments", "exits")
SERIOUS = ("serious", "critical")
SMALLEST_PX = 11


def opened(open_notebook, **size):
    """The long-mode guest after some exits, with something changed to mark."""
    sheet = open_notebook(cell("long_mode", "vm.attach_console()\nvm.step_exit()\nvm.bench()"), **size)
    expect(sheet.bench).to_be_visible()
    for _ in range(3):
        sheet.press("step_exit")
    return sheet


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_and_contrast_in_every_tab(open_notebook, theme):
    sheet = opened(open_notebook)
    sheet.theme(theme)
    sheet.bench.locator('[data-verb="python"]').click()
    sheet.bench.locator('[data-verb="help"]').click()
    found, low = [], []
    for tab in TABS:
        sheet.tab(tab)
        sheet.page.evaluate("() => Promise.all(document.getAnimations().map((a) => a.finished.catch(() => 0)))")
        for violation in Axe().run(sheet.page, context=".kvmlab").response["violations"]:
            if violation["impact"] in SERIOUS:
                found.append((tab, violation["id"], violation["nodes"][0]["html"][:120]))
        count, worst, smallest = sheet.page.evaluate(MEASURE)
        assert count > 100
        low += [(tab, *text) for text in worst if text[0] < LOWEST]
        assert smallest >= SMALLEST_PX
    assert not found
    assert not low


def test_the_first_screen_holds_what_matters(open_notebook):
    sheet = opened(open_notebook, width=1460, height=1200)
    bench = sheet.bench.bounding_box()
    assert 940 <= bench["width"] <= 1180, "the notebook's column is about 1000 pixels wide here"
    for name in ("sentence", "world", "code", "registers"):
        box = sheet.panel(name).bounding_box()
        assert box["y"] + box["height"] - bench["y"] <= 900, name


@pytest.mark.parametrize("width", [760, 1000, 1300, 1900])
def test_nothing_scrolls_sideways(open_notebook, width):
    sheet = opened(open_notebook, width=width)
    for tab in TABS:
        sheet.tab(tab)
        inside, outside = sheet.bench.evaluate("el => [el.scrollWidth, el.clientWidth]")
        assert inside <= outside + 1, tab


def test_a_grid_is_one_tab_stop_and_the_arrows_move_in_it(open_notebook):
    sheet = opened(open_notebook)
    grid = sheet.panel("registers").get_by_role("grid", name="General registers")
    assert grid.locator('[tabindex="0"]').count() == 1
    grid.locator('[data-reg="rip"]').focus()
    sheet.page.keyboard.press("ArrowDown")
    expect(grid.locator('[data-reg="rax"]')).to_be_focused()
    sheet.page.keyboard.press("ArrowUp")
    expect(grid.locator('[data-reg="rip"]')).to_be_focused()
    assert grid.locator('[tabindex="0"]').count() == 1
    assert "rip" in (sheet.bench.locator('[data-role="reading"]').text_content() or "")
    sheet.page.keyboard.press("Tab")
    expect(grid.locator(":focus")).to_have_count(0)


def test_a_lamp_explains_itself_to_the_keyboard(open_notebook):
    sheet = opened(open_notebook)
    panel = sheet.tab("control")
    lamp = panel.locator(".lamp").first
    lamp.focus()
    sheet.page.keyboard.press("ArrowRight")
    focused = panel.locator(".lamp:focus")
    expect(focused).to_have_attribute("aria-label", r := focused.get_attribute("aria-label") or "")
    assert r.split()[0] in (sheet.bench.locator('[data-role="reading"]').text_content() or "")
