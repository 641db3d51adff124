"""%%guest and %vm: what they bind, what they call, and what they say when an argument is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import kvmlab
from kvmlab import magics
from kvmlab.errors import AssemblyError
from kvmlab.guest import Image

CELL = "        mov   dx, 0x3f8\nagain:  mov   al, 'A'\n        out   dx, al\n        hlt\n"


class _Recorder:
    """Stands where a VM stands and writes down what it is asked: the magics are tested, not the engine."""

    made: list[_Recorder] = []

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.asked: list[Any] = []
        self.image: Image | None = None
        self.closed = False
        self.regs, self.sregs, self.engine_reason, self.position = "regs", "sregs", "soft: asked for", "position"
        self.console = "A"
        self.memory = self.timeline = self.shadow = self
        _Recorder.made.append(self)

    def load(self, image: Image) -> None:
        self.image = image

    def close(self) -> None:
        self.closed = True

    def read(self, at: int, size: int) -> bytes:
        return bytes(range(65, 65 + size))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.asked.append((name, arguments, keywords))
            return f"{name} done"

        return call


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(kvmlab.__dict__, "VM", _Recorder)
    _Recorder.made.clear()
    InteractiveShell.clear_instance()
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "kvmlab")
    yield shell
    InteractiveShell.clear_instance()


def guest(shell: Any, line: str = "", cell: str = CELL) -> Any:
    return shell.run_cell_magic("guest", line, cell)


def test_binds_the_machine_and_the_image(shell: Any) -> None:
    image = guest(shell)
    assert isinstance(image, Image) and shell.user_ns["image"] is image
    assert shell.user_ns["vm"].image is image and shell.user_ns["vm"].options == {}
    assert (image.bits, image.org) == (16, 0x1000)
    # Line 1 is the line of the magic itself, so that numbers agree with those beside the cell.
    assert image.lines[0x1000].number == 2


def test_options_reach_the_machine(shell: Any) -> None:
    line = "hello --bits 32 --org 0x7c00 --cpu amd-2006 --mmu shadow --engine soft --memory 8M"
    line += " --real-mode user --entry again"
    image = guest(shell, line)
    assert (image.bits, image.org, image.entry, image.name) == (32, 0x7C00, image.symbols["again"], "hello")
    assert shell.user_ns["hello"].options == {
        "memory": "8M", "engine": "soft", "cpu": "amd-2006", "mmu": "shadow", "real_mode": "user",
    }  # fmt: skip


def test_run_prints_the_console_and_gives_the_stop(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert guest(shell, "--run --max-instructions 100") == "run done"
    assert capsys.readouterr().out == "A\n"
    assert shell.user_ns["vm"].asked == [("attach_console", (), {}), ("run", (), {"max_instructions": 100})]


def test_bench_asks_for_an_engine_that_shows_things(shell: Any) -> None:
    assert guest(shell, "--bench") == "bench done"
    assert shell.user_ns["vm"].options == {"need": ("inspect", "back")}


def test_running_the_cell_again_closes_the_former_machine(shell: Any) -> None:
    guest(shell)
    first = shell.user_ns["vm"]
    guest(shell)
    assert first.closed and shell.user_ns["vm"] is not first
    # A cell with an error leaves what was there.
    with pytest.raises(AssemblyError):
        guest(shell, cell="mvo ax, 1")
    assert not shell.user_ns["vm"].closed


def test_c(shell: Any) -> None:
    image = guest(shell, "--c", '#include <kvmguest.h>\nint main(void) { puts("hi"); return 5; }\n')
    assert image.bits == 64 and image.org == 0x100000
    assert image.line_at(image.symbols["main"]).number == 3
    with pytest.raises(AssemblyError, match="line 2.*") as caught:
        guest(shell, "--c", "int main(void) { return x; }")
    assert caught.value.line == 2
    with pytest.raises(UsageError, match="starts at main"):
        guest(shell, "--c --entry a")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--bit 16", r"no option --bit. Did you mean --bits\?"),
        ("--bits 8", "give 16, 32 or 64"),
        ("--bits sixteen", "no number; write 4096 or 0x1000"),
        ("--org here", "no number"),
        ("--cpu pentium-9", "intel-2006"),
        ("--engine hard", "soft"),
        ("two names", "unrecognized arguments: names"),
        ("image", "cannot be the name"),
        ("2nd", "cannot be the name"),
        ("--org", "expected one argument"),
        ('"open', "No closing quotation"),
    ],
)
def test_a_wrong_argument_is_explained(shell: Any, line: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        guest(shell, line)
    assert "%%guest [NAME]" in str(caught.value)
    assert not _Recorder.made


def test_an_error_marks_the_line_beside_the_cell(shell: Any) -> None:
    with pytest.raises(AssemblyError) as caught:
        guest(shell, "--bits 16", "nop\nmvo ax, 1\n")
    assert caught.value.line == 3
    assert "> 3 | mvo ax, 1" in str(caught.value) and "1 | # %%guest --bits 16" in str(caught.value)
    assert caught.value._render_traceback_() == [f"AssemblyError: {caught.value}"]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("run", ("run", (), {"max_instructions": None})),
        ("run 1_000", ("run", (), {"max_instructions": 1000})),
        ("step", ("step", (1,), {})),
        ("step 0x10", ("step", (16,), {})),
        ("back 3", ("step_back", (3,), {})),
        ("exit", ("step_exit", (), {"kind": None})),
        ("exit io", ("step_exit", (), {"kind": "io"})),
        ("event fill", ("step_event", (), {"kind": "fill"})),
        ("walk 0x5000", ("walk", (0x5000,), {"access": "r", "user": False})),
        ("walk again w user", ("walk", (0x1003,), {"access": "w", "user": True})),
        ("walk again+8", ("walk", (0x100B,), {"access": "r", "user": False})),
        ("translate 2**12", ("translate", (4096,), {})),
        ("exits", ("filter", (), {"kind": "exit"})),
        ("exits io", ("filter", (), {"kind": "io"})),
        ("shadow", ("pages", (), {})),
        ("reset", ("reset", (), {})),
        ("bench", ("bench", (), {})),
    ],
)
def test_words_of_vm(shell: Any, line: str, asked: Any) -> None:
    guest(shell)
    assert shell.run_line_magic("vm", line) == f"{asked[0]} done"
    assert shell.user_ns["vm"].asked == [asked]


def test_words_that_show(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    image = guest(shell, "other")
    for word, value in [
        ("regs", "regs"),
        ("sregs", "sregs"),
        ("console", "A"),
        ("image", image),
        ("position", "position"),
    ]:
        assert shell.run_line_magic("vm", word) == value
    shell.run_line_magic("vm", "mem again 20")
    assert capsys.readouterr().out.splitlines() == [
        "00001003  41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP",
        "00001013  51 52 53 54                                      QRST",
    ]
    shell.run_line_magic("vm", "help")
    shown = capsys.readouterr().out
    assert all(f"%vm {word}" in shown for word in magics.WORDS) and "other.regs" in shown
    shell.user_ns["third"] = _Recorder()
    assert shell.run_line_magic("vm", "third: regs") == "regs"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("reg", r"Did you mean `%vm regs`\?"),
        ("walk", "An address is missing"),
        ("walk agian", "Did you mean 'again'"),
        ("walk 1 2", "One argument is enough"),
        ("step -1", "at least 1"),
        ("step many", "no count"),
        ("regs rax", "No argument is needed"),
        ("mem", "An address is missing"),
        ("nothing: regs", "'nothing' does not exist"),
        ("image: regs", "is a Image, not a machine"),
    ],
)
def test_a_wrong_word_is_explained(shell: Any, line: str, says: str) -> None:
    guest(shell)
    with pytest.raises(UsageError, match=says):
        shell.run_line_magic("vm", line)


def test_before_any_guest(shell: Any) -> None:
    with pytest.raises(UsageError, match="`%%guest`"):
        shell.run_line_magic("vm", "regs")
