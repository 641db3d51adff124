"""The bench on /dev/kvm: what cannot be seen there is one sentence and a button that goes on where it can."""

from __future__ import annotations

import pytest
from guests import cell
from playwright.sync_api import expect

import kvmlab


@pytest.fixture(scope="module", autouse=True)
def kvm() -> None:
    try:
        kvmlab.VM(memory="64K", engine="kvm").close()
    except kvmlab.Error as error:
        pytest.skip(f"no /dev/kvm to look at: {error}")


def test_a_panel_that_cannot_see_says_so_and_leads_to_the_soft_engine(open_notebook):
    sheet = open_notebook(cell("five", engine="'kvm'"))
    sheet.press("step")
    for tab in ("shadow", "paging", "control"):
        panel = sheet.tab(tab)
        expect(panel.locator('[data-role="blind"]')).to_contain_text("Not visible here")
        expect(panel.locator("table")).to_have_count(0)
    expect(sheet.bench.locator('[data-verb="step_back"]')).to_have_count(0)
    rip = sheet.bench.locator('[data-reg="rip"]').get_attribute("aria-label").split(",")[0]
    sheet.settle(sheet.panel("control").locator('[data-verb="soft"]').click)
    expect(sheet.bench.locator('[data-verb="step_back"]')).to_be_visible()
    expect(sheet.bench.locator('[data-place="world"] .aside')).to_contain_text("soft engine")
    assert sheet.bench.locator('[data-reg="rip"]').get_attribute("aria-label").split(",")[0] == rip
    sheet.press("step_exit")
    expect(sheet.tab("control").locator('[data-field="exit_reason"]')).to_be_visible()
