"""The pictures of docs/: `pytest tests/browser/take_screenshots.py`. Its name keeps it out of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest
from guests import cell
from PIL import Image
from playwright.sync_api import expect

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
LARGEST = 300 * 1024


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_take_pictures(open_notebook, theme):
    PICTURES.mkdir(exist_ok=True)
    sheet = open_notebook(cell("own_tables", "vm.attach_console()\nvm.bench()"), width=1460, height=1800)
    expect(sheet.bench).to_be_visible()
    sheet.theme(theme)
    for _ in range(14):
        sheet.press("step_exit")
    for tab in ("shadow", "control"):
        sheet.tab(tab)
        take(sheet, f"bench-{tab}-{theme}.png")
    panel = sheet.tab("paging")
    field = panel.locator('[data-role="address"]')
    field.fill("0x40005000")
    sheet.settle(lambda: field.press("Enter"))
    take(sheet, f"bench-paging-{theme}.png")


def take(sheet, name):
    sheet.bench.locator('[data-role="sentence"]').hover()
    sheet.page.evaluate("() => Promise.all(document.getAnimations().map((a) => a.finished.catch(() => 0)))")
    file = PICTURES / name
    sheet.bench.screenshot(path=file)
    with Image.open(file) as picture:  # 256 colours are enough for it, and a third of the size
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(file, optimize=True)
    assert file.stat().st_size < LARGEST, f"{name} has {file.stat().st_size} bytes"
