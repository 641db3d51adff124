"""The bench on the long-mode guest: what a person can see and do, read from the page."""

from __future__ import annotations

import json
import re

from guests import cell
from playwright.sync_api import expect

CONSOLE = "vm.attach_console()\nvm.bench()"


def register(sheet, name):
    return sheet.bench.locator(f'[data-reg="{name}"]')


def sentence(sheet):
    return sheet.bench.locator('[data-role="sentence"]')


def save(sheet):
    sheet.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")


def position(sheet):
    text = sheet.bench.locator('[data-role="position"]').text_content() or ""
    return int(re.sub(r"\D", "", text))


def test_run_to_the_next_exit_and_read_why_and_who_handled_it(open_notebook):
    sheet = open_notebook(cell("long_mode"))
    sheet.press("step_exit")
    expect(sentence(sheet)).to_contain_text(re.compile(r"VM exit \d+"))
    expect(sentence(sheet)).to_contain_text(re.compile("hypervisor|user space"))
    expect(sheet.bench.locator('[data-role="world"]')).to_have_attribute("aria-label", re.compile("1 exits"))
    expect(sheet.panel("timeline").locator('[aria-current="true"]')).to_have_text("#1")
    assert sheet.bench.locator("[data-step]").count() >= 2


def test_run_to_an_exit_of_one_kind(open_notebook):
    sheet = open_notebook(cell("long_mode", CONSOLE))
    sheet.bench.locator('select[aria-label="Kind of exit to run to"]').select_option("cr_access")
    sheet.press("step_exit")
    expect(sentence(sheet)).to_contain_text("CR")
    sheet.bench.locator('[data-verb="python"]').click()
    expect(sheet.bench.locator('[data-role="python"] pre')).to_contain_text("vm.step_exit(kind='cr_access'")


def test_an_address_that_fails_shows_the_entry_that_failed(open_notebook):
    sheet = open_notebook(cell("long_mode", "vm.attach_console()\nvm.run()\nvm.bench()"))
    panel = sheet.tab("paging")
    field = panel.locator('[data-role="address"]')
    field.fill("40005000")
    sheet.settle(lambda: field.press("Enter"))
    failed = panel.locator('[data-level][data-ok="false"]')
    expect(failed).to_have_count(1)
    expect(failed).to_have_attribute("data-level", "PT")
    expect(failed).to_contain_text("not present")
    expect(failed.locator(".bad")).to_contain_text("P")
    expect(panel.locator('[data-role="error-code"]')).to_have_text("0")
    expect(panel.locator('[data-level="PML4"]')).to_have_attribute("data-ok", "true")
    field.fill("0x1000")
    sheet.settle(lambda: field.press("Enter"))
    expect(panel.locator('[data-level][data-ok="false"]')).to_have_count(0)
    sheet.settle(lambda: panel.locator('select[aria-label="From"]').select_option("user"))
    expect(panel.locator('[data-level][data-ok="false"]')).to_contain_text("user mode refused")


def test_a_segment_opens_its_hidden_part(open_notebook):
    sheet = open_notebook(cell("long_mode", "vm.attach_console()\nvm.run()\nvm.bench()"))
    panel = sheet.tab("segments")
    expect(panel.locator('[data-hidden="cs"]')).to_have_count(0)
    panel.locator('[data-open="cs"]').click()
    hidden = panel.locator('[data-hidden="cs"]')
    expect(hidden.locator('[data-part="limit"]')).to_be_visible()
    expect(hidden.locator(".bits")).to_have_attribute("aria-label", re.compile("L 1"))
    expect(panel.locator('[data-seg="cs"]')).to_contain_text("GDT entry")


def test_a_click_on_an_exit_shows_its_state_and_forward_again(open_notebook):
    sheet = open_notebook(cell("long_mode"))
    for _ in range(4):
        sheet.press("step_exit")
    last = position(sheet), register(sheet, "rip").get_attribute("aria-label").split(",")[0]
    panel = sheet.tab("exits")
    expect(panel.locator("[data-exit-row]")).to_have_count(4)
    sheet.settle(panel.locator('[data-goto="2"]').click)
    expect(panel.locator('[data-exit-row="2"]')).to_have_attribute("aria-current", "true")
    expect(sheet.panel("timeline")).to_contain_text("#3 to #4 lie ahead")
    assert position(sheet) <= last[0]
    sheet.settle(panel.locator('[data-goto="4"]').click)
    assert (position(sheet), register(sheet, "rip").get_attribute("aria-label").split(",")[0]) == last


def test_step_back_goes_where_step_came_from(open_notebook):
    sheet = open_notebook(cell("long_mode", CONSOLE))
    for _ in range(2):
        sheet.press("step_exit")
    before = [register(sheet, name).get_attribute("aria-label").split(",")[0] for name in ("rip", "rax", "rcx", "rsp")]
    at = position(sheet)
    for _ in range(3):
        sheet.press("step")
    assert position(sheet) == at + 3
    for _ in range(3):
        sheet.press("step_back")
    assert position(sheet) == at
    assert before == [register(sheet, name).get_attribute("aria-label").split(",")[0]
                      for name in ("rip", "rax", "rcx", "rsp")]


def test_the_shadow_stands_beside_the_guest_tables(open_notebook):
    sheet = open_notebook(cell("own_tables", CONSOLE))
    sheet.press("run")
    panel = sheet.tab("shadow")
    field = panel.locator('[data-role="address"]')
    field.fill("0x100000")
    sheet.settle(lambda: field.press("Enter"))
    expect(panel.locator('[data-chain="gpa"]')).to_contain_text("0x100000")
    expect(panel.locator('[data-card="g:PML4"]')).to_be_visible()
    expect(panel.locator('[data-card="s:PML4"]')).to_be_visible()
    assert panel.locator("[data-page]").count() >= 3


def test_fills_since_the_last_stop_are_told(open_notebook):
    sheet = open_notebook(cell("own_tables", CONSOLE))
    sheet.bench.locator('select[aria-label="Kind of exit to run to"]').select_option("exception")
    sheet.press("step_exit")
    panel = sheet.tab("shadow")
    expect(panel.locator('[data-event="fill"]').first).to_be_visible()


def test_the_control_block_marks_what_changed(open_notebook):
    for cpu, name, title in (("intel-2006", "exit_reason", "VMCS"), ("amd-2006", "exit_code", "VMCB")):
        sheet = open_notebook(cell("long_mode", CONSOLE, cpu=repr(cpu)))
        sheet.press("step_exit")
        sheet.press("step_exit")
        expect(sheet.bench.locator('[data-tab="control"]')).to_contain_text(title)
        panel = sheet.tab("control")
        expect(panel.locator(f'[data-field="{name}"]')).to_be_visible()
        assert panel.locator(".chg-row").count() >= 1
        expect(panel.locator(".chg-row").first).to_contain_text("was")
        expect(panel.locator('[data-role="checks"]')).to_contain_text("rules hold")


def test_the_console_shows_what_the_guest_wrote(open_notebook):
    sheet = open_notebook(cell("long_mode", CONSOLE))
    sheet.press("run")
    expect(sheet.bench.locator('[data-role="console"]')).to_contain_text("1 real mode")


def test_a_runaway_guest_is_stopped(open_notebook):
    sheet = open_notebook(cell("endless"))
    sheet.bench.locator('[data-verb="run"]').click()
    stop = sheet.bench.locator('[data-verb="stop"]')
    expect(stop).to_be_visible()
    sheet.settle(stop.click)
    expect(sentence(sheet)).to_contain_text(re.compile("[Ss]topped"))
    sheet.press("step")


def test_a_reload_shows_the_present_stop(open_notebook):
    sheet = open_notebook(cell("long_mode", CONSOLE))
    for _ in range(3):
        sheet.press("step_exit")
    shown = sentence(sheet).text_content()
    save(sheet)
    sheet.page.on("dialog", lambda dialog: dialog.accept())
    sheet.page.reload()
    expect(sentence(sheet)).to_have_text(shown, timeout=60_000)
    sheet.press("step")


def test_a_saved_notebook_stands_alone(open_notebook, lab):
    from kvmlab import static

    sheet = open_notebook(cell("long_mode", "vm.attach_console()\nvm.run()\nvm.bench()"), "vm.regs", "vm.walk(0x1000)")
    expect(sheet.bench).to_be_visible()
    save(sheet)
    file = sorted(lab.folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime)[-1]
    assert static.rewrite(file) >= 1
    page = "".join("".join(output["data"].get("text/html", "")) for c in json.loads(file.read_text())["cells"]
                   for output in c["outputs"] if "data" in output)
    assert "<script" not in page
    for words in ("rip", "Walk", "Exits", "VM exit"):
        assert words in page, words


def test_the_brackets_walk_along_the_timeline(open_notebook):
    sheet = open_notebook(cell("long_mode", CONSOLE))
    for _ in range(3):
        sheet.press("step_exit")
    current = sheet.panel("timeline").locator('.hd[aria-current="true"]')
    sheet.bench.locator('[data-verb="step"]').focus()
    for key, number in (("[", "#2"), ("[", "#1"), ("]", "#2"), ("]", "#3")):
        sheet.settle(lambda key=key: sheet.page.keyboard.press(key))
        expect(current).to_have_text(number)


def test_each_panel_is_a_widget_of_its_own(open_notebook):
    names = ("world", "timeline", "code", "registers", "segments", "paging", "shadow", "vmcs", "exits", "console")
    sheet = open_notebook(cell("long_mode", "vm.attach_console()\nvm.step_exit(handled=True)"),
                          *(f"vm.view.{name}()" for name in names))
    expect(sheet.page.locator(".kvmlab.single")).to_have_count(len(names))
    for i in range(len(names)):
        view = sheet.page.locator(".kvmlab.single").nth(i)
        expect(view.locator('[data-role="sentence"]')).to_contain_text("VM exit")
        expect(view).not_to_contain_text("could not be drawn")


def test_a_refused_entry_names_the_rule_and_the_field(open_notebook):
    broken = "vm.set(cs=vm.sregs.cs.replace(attr=0xe09b))\nvm.bench()"
    sheet = open_notebook(cell("own_tables", broken))
    sheet.press("run")
    expect(sentence(sheet)).to_contain_text("GUEST-SEG-25")
    expect(sheet.bench.locator('[data-way="entry"]')).to_have_class("bad")
    panel = sheet.tab("control")
    expect(panel.locator('[data-role="failed"]')).to_contain_text("GUEST-SEG-25")
    expect(panel.locator('[data-check="GUEST-SEG-25"]')).to_have_class("lamp f")
    expect(panel.locator('[data-field="guest_cs_access_rights"]')).to_have_class("bad-row")
