"""``%%guest`` and ``%vm``: short words for the objects of :mod:`kvmlab` in a notebook.

``%load_ext kvmlab`` brings them. Nothing here does anything that a line of Python cannot: ``%vm help`` shows the line
for each word, and everything is bound to ordinary variables.
"""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

import kvmlab

from .errors import BadArgument
from .guest import Image, assemble, compile_c

__all__ = ["KvmlabMagics", "load_ipython_extension"]

ENGINES = ("auto", "soft", "kvm")
CPUS = ("intel-2006", "amd-2006", "intel", "amd")
MMUS = ("shadow", "vtlb", "tdp")
REAL_MODES = ("auto", "user", "vm86", "emulate")

GUEST_USAGE = """%%guest [NAME] [--bits 16|32|64] [--org 0x1000] [--c] [--memory 4M]
        [--engine soft|kvm] [--cpu CPU] [--mmu MMU] [--real-mode HOW] [--entry LABEL]
        [--run] [--max-instructions N] [--bench]"""


class _Parser(argparse.ArgumentParser):
    """Arguments whose errors name what was meant; nothing exits."""

    def __init__(self, magic: str, usage: str) -> None:
        super().__init__(prog=magic, add_help=False, allow_abbrev=False)
        self.line = usage

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.line}")

    def parse_line(self, line: str) -> argparse.Namespace:
        try:
            words = shlex.split(line, comments=False)
        except ValueError as error:
            self.error(f"{line!r}: {error}")
        known = [option for action in self._actions for option in action.option_strings]
        for word in words:
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.5)
                self.error(f"There is no option {name}." + (f" Did you mean {near[0]}?" if near else ""))
        return self.parse_args(words)


def _number(text: str) -> int:
    try:
        return int(text.replace("_", ""), 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 4096 or 0x1000") from None


def _guest_parser() -> _Parser:
    parser = _Parser("%%guest", GUEST_USAGE)
    parser.add_argument("name", nargs="?", default="vm")
    parser.add_argument("--bits", type=_number, default=None)
    parser.add_argument("--org", type=_number, default=None)
    parser.add_argument("--entry")
    parser.add_argument("--c", action="store_true")
    parser.add_argument("--memory")
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--cpu", choices=CPUS)
    parser.add_argument("--mmu", choices=MMUS)
    parser.add_argument("--real-mode", dest="real_mode", choices=REAL_MODES)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--max-instructions", dest="max_instructions", type=_number)
    parser.add_argument("--bench", action="store_true")
    return parser


@dataclass(frozen=True)
class _Word:
    """One word of %vm: its arguments as shown, its line of Python, and what it does."""

    arguments: str
    python: str
    about: str
    do: Callable[[KvmlabMagics, Any, Sequence[str]], Any]


@magics_class
class KvmlabMagics(Magics):
    """The magics; the state is in the user's own variables."""

    shell: Any
    image: Image | None = None
    last: str = "vm"

    # --- %%guest ------------------------------------------------------------------------------------------------

    @cell_magic
    def guest(self, line: str, cell: str) -> Any:
        """Assemble (or with --c compile) the cell, make a virtual machine, load the guest; --run runs it.

        NAME (``vm`` where not given) becomes a variable with the VM, ``image`` one with the image. Options not given
        are those of ``kvmlab.VM``. --bench shows the bench; it and everything that looks inside needs the soft engine.
        """
        options = _guest_parser().parse_line(line)
        if not options.name.isidentifier() or options.name in ("image", "kvmlab"):
            raise UsageError(f"{options.name!r} cannot be the name of the machine's variable.\n{GUEST_USAGE}")
        image = self._image(line, cell, options)
        self.image = image
        chosen = {k: getattr(options, k) for k in ("memory", "engine", "cpu", "mmu", "real_mode")}
        chosen = {k: v for k, v in chosen.items() if v is not None}
        if options.bench:
            chosen["need"] = ("inspect", "back")
        old = self.shell.user_ns.get(options.name)
        vm = kvmlab.VM(**chosen)
        vm.load(image)
        if old is not None and type(old) is type(vm):
            old.close()  # the cell was run again: the former machine gives its memory back
        self.last = options.name
        self.shell.user_ns[options.name] = vm
        self.shell.user_ns["image"] = image
        if options.bench:
            return vm.bench()
        if not options.run:
            return image
        vm.attach_console()
        stop = vm.run(max_instructions=options.max_instructions)
        text = str(getattr(vm.console, "text", vm.console) or "")
        if text:
            print(text, end="" if text.endswith("\n") else "\n")
        return stop

    def _image(self, line: str, cell: str, options: argparse.Namespace) -> Image:
        bits = options.bits if options.bits is not None else (64 if options.c else 16)
        if bits not in (16, 32, 64):
            raise UsageError(f"--bits {bits} is no mode of the processor; give 16, 32 or 64.\n{GUEST_USAGE}")
        # The magic's own line comes first, so that line numbers are those beside the cell.
        if options.c:
            if options.entry:
                raise UsageError("--entry is for assembler text; a C program starts at main().")
            return compile_c(f"// %%guest {line}\n{cell}", bits, options.org, name=options.name)
        org = 0x1000 if options.org is None else options.org
        return assemble(f"# %%guest {line}\n{cell}", bits, org, entry=options.entry, name=options.name)

    # --- %vm ----------------------------------------------------------------------------------------------------

    @line_magic
    def vm(self, line: str) -> Any:
        """Ask the last guest's machine something: ``%vm regs``, ``%vm walk 0x1000``, ``%vm help``.

        ``%vm NAME: WORD`` asks the machine in another variable.
        """
        words = line.split()
        name = self.last
        if words and words[0].endswith(":"):
            name = words.pop(0)[:-1]
        if not words or words[0] == "help":
            return print(_help(name))
        word = WORDS.get(words[0])
        if word is None:
            near = difflib.get_close_matches(words[0], WORDS, 1, 0.5)
            hint = f" Did you mean `%vm {near[0]}`?" if near else ""
            raise UsageError(f"%vm knows no word {words[0]!r}.{hint}\n`%vm help` lists them: {', '.join(WORDS)}.")
        machine = self.shell.user_ns.get(name)
        if machine is None or not hasattr(machine, "regs"):
            what = "does not exist" if machine is None else f"is a {type(machine).__name__}, not a machine"
            raise UsageError(
                f"The variable {name!r} {what}. Run a cell that begins with `%%guest`, or make one with "
                f"`{name} = kvmlab.VM(); {name}.load(image)`."
            )
        try:
            return word.do(self, machine, words[1:])
        except UsageError as error:
            raise UsageError(f"{error}\n%vm {words[0]} {word.arguments}    {word.about}") from None

    # --- Arguments of %vm ---------------------------------------------------------------------------------------

    def address(self, text: str) -> int:
        """An address: a number, a label of the last image (``table+8``), or a Python expression."""
        total = 0
        try:
            for part in text.split("+"):
                if self.image is not None and (part in self.image.symbols or part in self.image.constants):
                    total += self.image.address_of(part)
                else:
                    total += int(part.replace("_", ""), 0)
            return total
        except ValueError:
            pass
        try:
            value = self.shell.ev(text)
        except Exception:
            value = None
        if isinstance(value, int):
            return value
        labels = list(self.image.symbols) if self.image is not None else []
        near = difflib.get_close_matches(text, labels, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"{text!r} is no address.{hint} Give a number (0x1000), a label, or an expression (vm.regs.rip)."
        )


def _one(words: Sequence[str], what: str) -> str:
    if not words:
        raise UsageError(f"{what} is missing.")
    if len(words) > 1:
        raise UsageError(f"One argument is enough; {' '.join(words)!r} was given.")
    return words[0]


def _none(words: Sequence[str]) -> None:
    if words:
        raise UsageError(f"No argument is needed; {' '.join(words)!r} was given.")


def _count(words: Sequence[str], default: int | None) -> int | None:
    if not words:
        return default
    text = _one(words, "A number")
    try:
        count = int(text.replace("_", ""), 0)
    except ValueError:
        count = 0
    if count < 1:
        raise UsageError(f"{text!r} is no count; give a whole number, at least 1.")
    return count


def _attribute(name: str) -> Callable[[KvmlabMagics, Any, Sequence[str]], Any]:
    def do(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
        _none(words)
        return getattr(machine, name)

    return do


def _call(name: str) -> Callable[[KvmlabMagics, Any, Sequence[str]], Any]:
    def do(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
        _none(words)
        return getattr(machine, name)()

    return do


def _run(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
    return machine.run(max_instructions=_count(words, None))


def _counted(name: str) -> Callable[[KvmlabMagics, Any, Sequence[str]], Any]:
    def do(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
        return getattr(machine, name)(_count(words, 1))

    return do


def _kind(name: str) -> Callable[[KvmlabMagics, Any, Sequence[str]], Any]:
    def do(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
        return getattr(machine, name)(kind=_one(words, "A kind") if words else None)

    return do


def _walk(magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
    words = list(words)
    user = "user" in words
    access = [word for word in words if word in ("r", "w", "x")]
    rest = [word for word in words if word not in ("user", "r", "w", "x")]
    at = magics.address(_one(rest, "An address"))
    return machine.walk(at, access=access[-1] if access else "r", user=user)


def _translate(magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
    return machine.translate(magics.address(_one(words, "An address")))


def _memory(magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
    if not words:
        raise UsageError("An address is missing.")
    at, size = magics.address(words[0]), _count(words[1:], 64) or 64
    data = bytes(machine.memory.read(at, size))
    for offset in range(0, size, 16):
        row = data[offset : offset + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        print(f"{at + offset:08x}  {row.hex(' '):<47}  {text}")
    return None


def _exits(_magics: KvmlabMagics, machine: Any, words: Sequence[str]) -> Any:
    events = machine.timeline.filter(kind=_one(words, "A kind") if words else "exit")
    return events


def _image_word(magics: KvmlabMagics, _machine: Any, words: Sequence[str]) -> Any:
    _none(words)
    return magics.image


WORDS: dict[str, _Word] = {
    "regs": _Word("", "vm.regs", "the general registers", _attribute("regs")),
    "sregs": _Word("", "vm.sregs", "segments, control registers, tables", _attribute("sregs")),
    "run": _Word("[N]", "vm.run(max_instructions=N)", "on until user space is needed", _run),
    "step": _Word("[N]", "vm.step(N)", "one instruction, or N", _counted("step")),
    "event": _Word(
        "[KIND]", "vm.step_event(kind)", "the next phase inside an entry, an exit, a fill", _kind("step_event")
    ),
    "exit": _Word("[KIND]", "vm.step_exit(kind)", "the next hardware exit", _kind("step_exit")),
    "back": _Word("[N]", "vm.step_back(N)", "back by an instruction, or N", _counted("step_back")),
    "walk": _Word("ADDR [r|w|x] [user]", "vm.walk(ADDR, access, user)", "the guest's page walk, step by step", _walk),
    "translate": _Word("ADDR", "vm.translate(ADDR)", "guest-virtual to guest-physical", _translate),
    "mem": _Word("ADDR [N]", "vm.memory.read(ADDR, N)", "guest-physical memory in hex", _memory),
    "exits": _Word("[KIND]", 'vm.timeline.filter(kind="exit")', "the exits so far", _exits),
    "timeline": _Word("", "vm.timeline", "every event so far", _attribute("timeline")),
    "vmcs": _Word("", "vm.vmcs", "the VMCS (Intel)", _attribute("vmcs")),
    "vmcb": _Word("", "vm.vmcb", "the VMCB (AMD)", _attribute("vmcb")),
    "shadow": _Word("", "vm.shadow.pages()", "the shadow pages", lambda magics, machine, words: machine.shadow.pages()),
    "console": _Word("", "vm.console", "what the guest wrote", _attribute("console")),
    "position": _Word("", "vm.position", "instructions and events so far", _attribute("position")),
    "image": _Word("", "image", "the guest's listing", _image_word),
    "engine": _Word("", "vm.engine_reason", "which engine runs it, and why", _attribute("engine_reason")),
    "reset": _Word("", "vm.reset()", "back to the state before the first run", _call("reset")),
    "bench": _Word("", "vm.bench()", "the bench", _call("bench")),
}


def _help(name: str) -> str:
    left = [f"%vm {word} {entry.arguments}".rstrip() for word, entry in WORDS.items()]
    middle = [entry.python.replace("vm.", f"{name}.") for entry in WORDS.values()]
    widths = max(map(len, left)), max(map(len, middle))
    rows = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {entry.about}"
        for a, b, entry in zip(left, middle, WORDS.values(), strict=True)
    ]
    return "\n".join([*rows, "ADDR: a number, a label of the guest, or an expression such as vm.regs.rip"])


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext kvmlab`` calls."""
    try:
        shell.register_magics(KvmlabMagics)
    except AttributeError:
        raise BadArgument("This is no IPython shell.", "Use %load_ext kvmlab in a notebook or in ipython.") from None
