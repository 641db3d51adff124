"""The first thing that must work: the bundle loads in a real JupyterLab and a bench without a machine says so."""

from playwright.sync_api import expect

CELL = "from kvmlab import widgets\nwidgets.bench()"


def test_an_empty_bench_says_that_nothing_is_loaded(open_notebook):
    sheet = open_notebook(CELL)
    expect(sheet.bench).to_have_attribute("role", "region")
    expect(sheet.bench.locator('[data-role="sentence"]')).to_contain_text("Nothing is loaded yet")
    expect(sheet.bench.locator('[data-role="sentence"]')).to_have_attribute("aria-live", "polite")


def test_a_control_whose_function_is_not_there_is_not_drawn(open_notebook):
    sheet = open_notebook(CELL)
    expect(sheet.bench.locator('[data-verb="python"]')).to_be_visible()
    for verb in ("step", "step_back", "run", "reset", "stop"):
        expect(sheet.bench.locator(f'[data-verb="{verb}"]')).to_have_count(0)


def test_keys_of_the_bench_do_not_edit_the_notebook(open_notebook):
    sheet = open_notebook(CELL)
    sheet.bench.locator('[data-verb="help"]').click()
    help_list = sheet.bench.locator('[data-role="help"]')
    expect(help_list).to_be_visible()
    before = sheet.page.locator(".jp-Notebook .jp-Cell").count()
    for key in ("b", "a", "d", "d", "x"):
        sheet.page.keyboard.press(key)
    sheet.page.keyboard.press("?")
    expect(help_list).to_have_count(0)
    assert sheet.page.locator(".jp-Notebook .jp-Cell").count() == before
