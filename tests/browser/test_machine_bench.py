"""The bench on a bare machine, which has no hypervisor below it: stepping, going back, looking, editing, stopping."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

SETUP = """
import kvmlab
image = kvmlab.assemble('''
start:
        mov     ax, 0x1234
        mov     bx, ax
        add     ax, bx
        mov     ds, bx
        hlt
''', bits=16, org=0x1000)
machine = kvmlab.Machine(memory="4M")
machine.load(image)
"""
BENCH = SETUP + "machine.bench()"


def register(sheet, name):
    return sheet.bench.locator(f'[data-reg="{name}"]')


def test_a_step_says_which_registers_changed_and_from_what(open_notebook):
    sheet = open_notebook(BENCH)
    expect(register(sheet, "rax")).to_have_attribute("aria-label", "rax 0x0")
    sheet.press("step")
    expect(register(sheet, "rax")).to_have_attribute("aria-label", "rax 0x1234, changed, was 0x0")
    expect(register(sheet, "rip")).to_have_attribute("aria-label", "rip 0x1003, changed, was 0x1000")
    expect(register(sheet, "rbx")).to_have_attribute("aria-label", "rbx 0x0")
    expect(sheet.bench.locator('[data-role="changed-count"]')).to_contain_text("2 changed since the last stop")
    expect(sheet.bench.locator('.code [aria-current="step"]')).to_contain_text("mov")
    expect(sheet.bench.locator('[data-role="position"]')).to_have_text("1 instruction")


def test_a_step_back_undoes_it(open_notebook):
    sheet = open_notebook(BENCH)
    for _ in range(3):
        sheet.press("step")
    expect(register(sheet, "rax")).to_have_attribute("aria-label", "rax 0x2468, changed, was 0x1234")
    sheet.press("step_back")
    expect(register(sheet, "rax")).to_have_attribute("aria-label", "rax 0x1234, changed, was 0x2468")
    expect(sheet.bench.locator('[data-role="position"]')).to_have_text("2 instructions")


def test_keys_do_what_the_buttons_do_and_focus_stays(open_notebook):
    sheet = open_notebook(BENCH)
    button = sheet.bench.locator('[data-verb="step"]')
    button.focus()
    for key in ("s", "s", "S"):
        sheet.settle(lambda key=key: sheet.page.keyboard.press(key))
    expect(sheet.bench.locator('[data-role="position"]')).to_have_text("1 instruction")
    expect(button).to_be_focused()


def test_every_click_has_its_line_of_python(open_notebook):
    sheet = open_notebook(BENCH)
    sheet.bench.locator('[data-verb="python"]').click()
    sheet.press("step")
    sheet.press("step_back")
    expect(sheet.bench.locator('[data-role="python"] pre')).to_have_text("vm.step()\nvm.step_back()")


def test_a_register_is_edited_and_the_marks_stay(open_notebook):
    sheet = open_notebook(BENCH, "machine.regs.rbx")
    sheet.press("step")
    register(sheet, "rbx").dblclick()
    field = sheet.bench.locator("input.edit")
    field.fill("xyz")
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("beef")
    sheet.settle(lambda: field.press("Enter"))
    expect(register(sheet, "rbx")).to_have_attribute("aria-label", "rbx 0xbeef, changed, was 0x0")
    expect(register(sheet, "rax")).to_have_attribute("aria-label", "rax 0x1234, changed, was 0x0")
    expect(register(sheet, "rbx")).to_be_focused()


def test_a_segment_opens_its_hidden_part(open_notebook):
    sheet = open_notebook(BENCH)
    for _ in range(4):
        sheet.press("step")
    panel = sheet.tab("segments")
    row = panel.locator('[data-seg="ds"]')
    expect(row).to_contain_text("1234")
    expect(panel.locator('[data-hidden="ds"]')).to_have_count(0)
    row.locator("button").click()
    hidden = panel.locator('[data-hidden="ds"]')
    expect(hidden.locator('[data-part="base"]')).to_contain_text(re.compile(r"0001 ?2340"))
    expect(hidden.locator('[data-part="limit"]')).to_contain_text(re.compile(r"ffff"))


def test_what_a_cell_does_is_seen_in_the_bench(open_notebook):
    sheet = open_notebook(BENCH, "machine.step(2);")
    expect(sheet.bench.locator('[data-role="position"]')).to_have_text("2 instructions")
    expect(register(sheet, "rbx")).to_have_attribute("aria-label", re.compile("rbx 0x1234"))


def test_a_runaway_guest_is_stopped(open_notebook):
    sheet = open_notebook("""
import kvmlab
machine = kvmlab.Machine(memory="4M")
machine.load(kvmlab.assemble("here: inc eax\\njmp here", bits=32, org=0x1000))
machine.bench()
""")
    sheet.bench.locator('[data-verb="run"]').click()
    stop = sheet.bench.locator('[data-verb="stop"]')
    expect(stop).to_be_visible()
    expect(sheet.bench.locator('[role="progressbar"]')).to_be_visible()
    sheet.settle(stop.click)
    expect(stop).to_have_count(0)
    expect(sheet.bench.locator('[data-role="position"]')).to_contain_text("instructions")
    expect(sheet.bench.locator('[data-role="sentence"]')).to_contain_text(re.compile("[Ss]topped"))


def test_an_error_of_a_callback_is_shown(open_notebook):
    sheet = open_notebook("""
import kvmlab
machine = kvmlab.Machine(memory="4M")
machine.load(kvmlab.assemble("mov al, 1\\nout 0x80, al\\nhlt", bits=16, org=0x1000))
def broken(port, size, value):
    raise KeyError("no such device")
machine.on_io(0x80, write=broken)
machine.bench()
""")
    sheet.press("run")
    error = sheet.bench.locator('[data-role="error"]')
    expect(error).to_contain_text("no such device")
    error.locator("summary").click()
    expect(error.locator("pre")).to_contain_text("broken")


def test_a_second_view_and_a_panel_of_its_own_show_the_same_stop(open_notebook):
    sheet = open_notebook(BENCH, "machine.view.registers()", "machine.bench()")
    expect(sheet.page.locator(".kvmlab")).to_have_count(3)
    sheet.press("step")
    for view in (0, 1, 2):
        label = sheet.page.locator(".kvmlab").nth(view).locator('[data-reg="rax"]')
        expect(label).to_have_attribute("aria-label", "rax 0x1234, changed, was 0x0")


@pytest.mark.parametrize("address", ["0x1000", "start"])
def test_an_address_is_walked_also_by_its_label(open_notebook, address):
    sheet = open_notebook(BENCH)
    panel = sheet.tab("paging")
    field = panel.locator('[data-role="address"]')
    field.fill(address)
    sheet.settle(lambda: field.press("Enter"))
    expect(field).to_have_value("0x1000")
    expect(panel.locator('[data-role="walk-result"]')).to_contain_text("Paging is off")
