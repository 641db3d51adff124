"""The common part of GNU and LLVM Intel syntax.

Two assemblers translate guests: GNU ``as`` and LLVM's. They agree on most of Intel syntax; where they do not, a text
either fails on one of them or, worse, means something else. Here both kinds are kept away from students:

* what only one of them takes, and what each understands differently, is refused on both, and the message carries the
  form that works everywhere (:func:`check`);
* what both take but LLVM encodes differently (``ret`` in 16-bit code becomes a 32-bit return) is respelled before LLVM
  sees it, so that the bytes are the same (:func:`for_llvm`).

Nothing else here understands instructions: the assembler is a real one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from .errors import AssemblyError

__all__ = ["Statement", "check", "for_llvm", "hint", "statements"]

SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
_SEGMENT = "(?:cs|ds|es|fs|gs|ss)"
_NAME = r"[A-Za-z_.$][\w.$]*"
_LABEL = re.compile(rf"\s*(?:{_NAME}|\d+)\s*:(?!:)")
_PREFIXES = ("rep", "repe", "repz", "repne", "repnz", "lock", *SEGMENTS)
_REGISTER = re.compile(
    r"(?:[re]?(?:ax|bx|cx|dx|si|di|bp|sp)|[abcd][lh]|(?:si|di|bp|sp)l|r(?:8|9|1[0-5])[dwb]?|[c-gs]s|[cd]r\d+|"
    r"[xyz]?mm\d+|st(?:\(\d\))?|[re]?ip)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """One instruction or directive, without labels and comments, strings blanked to underscores.

    ``line`` and ``column`` count from 1 and point at its first character in the text; ``bits`` is the mode it is
    assembled in; ``prefixes``, ``mnemonic`` (lower case) and ``operands`` are its parts.
    """

    line: int
    column: int
    text: str
    bits: int
    prefixes: tuple[str, ...]
    mnemonic: str
    operands: str

    @property
    def directive(self) -> bool:
        """True for ``.word 5`` and ``name = 5``, false for an instruction."""
        return self.mnemonic.startswith(".") or self.operands.startswith("=")

    @property
    def operand_list(self) -> list[str]:
        return [part.strip() for part in _split(self.operands, ",")]

    def column_of(self, offset: int) -> int:
        """The column of a place inside ``text``."""
        return self.column + offset


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that is in no bracket."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def blank(text: str) -> str:
    """The text with comments turned into spaces and string contents into underscores; every column stays."""
    out: list[str] = []
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            end = size if end < 0 else end + 2
            out.append(re.sub(r"[^\n]", " ", text[at:end]))
            at = end
        elif char == "#":
            end = text.find("\n", at)
            end = size if end < 0 else end
            out.append(" " * (end - at))
            at = end
        elif char == '"':
            end = at + 1
            while end < size and text[end] not in '"\n':
                end += 2 if text[end] == "\\" else 1
            end = min(end, size)
            closed = end < size and text[end] == '"'
            out.append('"' + "_" * (end - at - 1) + ('"' if closed else ""))
            at = end + 1 if closed else end
        elif char == "'" and at + 1 < size and text[at + 1] != "\n":
            end = at + (3 if text[at + 1] == "\\" else 2)
            if end < size and text[end] == "'":
                end += 1
            out.append("0" * (min(end, size) - at))
            at = end
        else:
            out.append(char)
            at += 1
    return "".join(out)


def statements(text: str, bits: int = 16) -> Iterator[Statement]:
    """The statements of a text, with the mode each is assembled in."""
    for number, row in enumerate(blank(text).split("\n"), 1):
        start = 0
        for piece in row.split(";"):
            at = 0
            while match := _LABEL.match(piece, at):
                # "gs:[0x10]" after a mnemonic never gets here: a label stands at the statement's head.
                at = match.end()
            body = piece[at:]
            stripped = body.strip()
            if stripped:
                column = start + at + (len(body) - len(body.lstrip())) + 1
                words = stripped.split(None, 1)
                prefixes: list[str] = []
                while len(words) == 2 and words[0].lower() in _PREFIXES and not words[1].startswith("="):
                    prefixes.append(words[0].lower())
                    words = words[1].split(None, 1)
                mnemonic = words[0].lower()
                operands = words[1] if len(words) == 2 else ""
                assign = re.match(rf"({_NAME})\s*(==?)(?!=)(.*)$", stripped)
                if assign:
                    mnemonic, operands = assign.group(1), f"= {assign.group(3).strip()}"
                mode = re.match(r"\.code(16|32|64)$", mnemonic)
                if mode:
                    bits = int(mode.group(1))
                yield Statement(number, column, stripped, bits, tuple(prefixes), mnemonic, operands)
            start += len(piece) + 1


# --- What is refused -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refusal:
    pattern: re.Pattern[str]
    message: str
    right: str | Callable[[re.Match[str], Statement], str]
    bits: tuple[int, ...] = (16, 32, 64)
    directives: bool = False  # looks at directives too


def _refusal(
    pattern: str,
    message: str,
    right: str | Callable[[re.Match[str], Statement], str],
    bits: tuple[int, ...] = (16, 32, 64),
    directives: bool = False,
) -> _Refusal:
    return _Refusal(re.compile(pattern, re.IGNORECASE), message, right, bits, directives)


def _far_right(match: re.Match[str], statement: Statement) -> str:
    which = "lcall" if match.group(1).lower() == "call" else "ljmp"
    target = match.group(2).strip()
    if "[" in target:
        return (
            f"Write `{'call' if which == 'lcall' else 'jmp'} fword ptr {target}`."
            if statement.bits == 64
            else (f"Write `{which} {target}`.")
        )
    return f"Write `{which} 8, offset {target}`: the selector, then the offset."


def _not_branch_segment(match: re.Match[str], _statement: Statement) -> str:
    which = "lcall" if match.group(1).lower() == "call" else "ljmp"
    target = match.group(3).strip()
    offset = target if re.match(r"(0x[\da-f]+|\d+)$", target, re.IGNORECASE) else f"offset {target}"
    return f"Write `{which} {match.group(2).strip()}, {offset}`."


_DATA = {"db": ".byte", "dw": ".word", "dd": ".long", "dq": ".quad"}
_SUFFIXED = "mov|add|sub|and|or|xor|cmp|test|inc|dec|not|neg|adc|sbb|mul|div|lea|shl|shr|sar|rol|ror|pop"

# Each row: what only one assembler takes or what the two take differently; why; the form that works on both.
_REFUSALS = [
    _refusal(
        rf"^(jmp|call)\s+(?!{_SEGMENT}\s*:)([^\[\]:]+?)\s*:\s*(.+)$",
        "`{0}` is a far branch in another assembler's spelling: LLVM does not take it.",
        _not_branch_segment,
    ),
    _refusal(r"^(jmp|call)\s+far\s+(?:ptr\s+)?(.+)$", "`{0}`: `far` is taken by one assembler only.", _far_right),
    _refusal(
        r"^(jmp|call)\s+near\s+(?:ptr\s+)?(.+)$",
        "`{0}`: `near` is taken by one assembler only.",
        lambda m, s: f"Write `{m.group(1)} {m.group(2)}`: a branch is near unless it says otherwise.",
    ),
    _refusal(
        r"^(jmp|call)\s+dword\s+ptr\s+(.*\[.+)$",
        "`{0}` in 16-bit code is a far branch to GNU and a near one to LLVM.",
        lambda m, s: (
            f"For the far branch write `l{'jmp' if m.group(1).lower() == 'jmp' else 'call'} "
            f"{m.group(2)}`; for a near one `{m.group(1)} word ptr {m.group(2)}`."
        ),
        bits=(16,),
    ),
    _refusal(
        r"^(ljmp|lcall)\s+(\[.+)$",
        "`{0}` in 64-bit code has a 32-bit offset to GNU and a 64-bit one to LLVM.",
        lambda m, s: f"Write `{m.group(1)[1:]} fword ptr {m.group(2)}` (16-bit selector, 32-bit offset).",
        bits=(64,),
    ),
    _refusal(
        rf"\[\s*({_SEGMENT})\s*:\s*([^\]]*)\]",
        "`{0}`: LLVM wants the segment before the bracket.",
        lambda m, s: f"Write `{m.group(1)}:[{m.group(2).strip()}]`.",
    ),
    _refusal(
        r"\[\s*rel\s+([^\]]+)\]",
        "`{0}`: `rel` is another assembler's word.",
        lambda m, s: f"Write `[rip + {m.group(1).strip()}]`.",
    ),
    _refusal(
        r"\b(byte|word|dword|fword|qword)\s+((?:[c-gs]s:)?\[[^\]]*\]?)",
        "`{0}`: a size needs `ptr` after it (LLVM refuses the short form, GNU takes it for an offset).",
        lambda m, s: f"Write `{m.group(1)} ptr {m.group(2)}`.",
    ),
    _refusal(
        r"(?<![\w.$])\$\$?(?![\w.$])",
        "`{0}`: `$` as the present place is taken by one assembler only.",
        "Give the place a label: `1: jmp 1b`.",
    ),
    _refusal(
        r"^(j\w+|call|loop\w*)\s+\.(?!\w)",
        "`{0}`: LLVM does not take `.` as the target of a branch.",
        lambda m, s: f"Give the place a label: `1: {m.group(1)} 1b`.",
    ),
    _refusal(
        r"^(data16|data32|addr16|addr32|o16|o32|o64|a16|a32|rex\.w)\b",
        "`{0}`: LLVM drops this prefix or does not know it.",
        "Say the size in the instruction: `lgdtd [x]`, `ljmpd 8, offset x`, `iretd`, `retfq`, `sysretq`, "
        "`[eax]` for a 32-bit address; or put the prefix as `.byte 0x66` before it.",
    ),
    _refusal(
        r"^(lret|lretw|lretl|lretq)\b",
        "`{0}`: AT&T's name for the far return; LLVM does not take it here.",
        lambda m, s: "Write `retfq`." if m.group(1).lower() == "lretq" else "Write `retf`.",
    ),
    _refusal(
        r"^(sysret|sysexit)$",
        "`{0}` does not say to which mode it returns, and the assemblers choose differently.",
        lambda m, s: f"Write `{m.group(1)}q` to return to 64-bit code.",
    ),
    _refusal(r"^retf[wd]\b", "`{0}`: only GNU takes this.", "Write `retf` (or `.byte 0x66` and then `retf`)."),
    _refusal(
        r"^push\s+(word|dword)\s+ptr\s+([^\[\]]+)$",
        "`{0}`: LLVM forgets the size of a constant.",
        lambda m, s: f"Write `push{'w' if m.group(1).lower() == 'word' else 'd'} {m.group(2)}`.",
    ),
    _refusal(
        rf"^((?:{_SUFFIXED})[bwlq])\s+(?![^\n]*mm\d)",
        "`{0}`: a size letter at the instruction's name is AT&T syntax.",
        lambda m, s: (
            f"Write `{m.group(1)[:-1]}`; where no register tells the size, say `byte ptr`, `word ptr`, "
            "`dword ptr` or `qword ptr`."
        ),
    ),
    _refusal(
        r"^(db|dw|dd|dq)\b",
        "`{0}`: this is NASM's word for data.",
        lambda m, s: f"Write `{_DATA[m.group(1).lower()]}`; for text `.ascii` or `.asciz`.",
    ),
    _refusal(
        r"^times\b",
        "`{0}`: this is NASM's word for repetition.",
        "Write `.fill count, size, value`, `.skip count`, or `.org` for padding up to an offset.",
    ),
    _refusal(r"^(res[bwdq])\b", "`{0}`: this is NASM's word for space.", "Write `.skip bytes`."),
    _refusal(
        r"^(bits|use16|use32)\b", "`{0}`: this is NASM's word for the mode.", "Write `.code16`, `.code32` or `.code64`."
    ),
    _refusal(
        r"^org\b",
        "`{0}`: this is NASM's word.",
        "Give the address outside the text (`org=0x7c00`, `--org 0x7c00`); `.org 0x1fe` moves to an offset within it.",
    ),
    _refusal(r"^(section|segment)\b", "`{0}`: this is NASM's word.", "Write `.section .data` or `.data`."),
    _refusal(
        r"^%(define|macro|include|if\w*|assign|rep)\b",
        "`{0}`: this is NASM's preprocessor.",
        "Write `.equ name, value` for a constant, `.macro … .endm` for a macro.",
    ),
    _refusal(
        rf"^({_NAME})\s+equ\s+(.+)$",
        "`{0}`: a constant in another assembler's spelling.",
        lambda m, s: f"Write `.equ {m.group(1)}, {m.group(2)}`.",
    ),
    _refusal(
        r"(?<![\w.$])([\da-f]+)h(?![\w.$])",
        "`{0}`: a hexadecimal number in another assembler's spelling.",
        lambda m, s: f"Write `0x{m.group(1)}`.",
        directives=True,
    ),
    _refusal(
        r"^(icebp|salc)\b",
        "`{0}`: not both assemblers know this one.",
        lambda m, s: f"Write `.byte {'0xf1' if m.group(1).lower() == 'icebp' else '0xd6'}`.",
    ),
    _refusal(
        r"\boffset\s+\d+[bf]\b",
        "`{0}`: LLVM does not take the address of a numbered label.",
        "Give the label a name.",
    ),
    _refusal(r"//", "`{0}`: GNU does not take `//` as a comment.", "Begin a comment with `#`.", directives=True),
    _refusal(
        r"%(?:[re]?[abcd]x|[re]?[sd]i|[re]?[sb]p|[abcd][lh]|[c-gs]s|r\d+)\b",
        "`{0}`: a register with `%` is AT&T syntax.",
        "Write the register's name alone, the target first: `mov ax, 5`.",
    ),
]

_ARITHMETIC = re.compile(r"[\w)\]]\s*[+-]\s*[\w(~-]")
_BITWISE = re.compile(r"<<|>>|[|&^]|(?<!\w)(?:shl|shr|or|and|xor)(?!\w)", re.IGNORECASE)


def _mixed_precedence(expression: str) -> bool:
    """True where + or - stands beside a shift or a bit operator in the same pair of parentheses."""
    levels: list[str] = [""]
    for char in expression:
        if char in "([":
            levels[-1] += "0"
            levels.append("")
        elif char in ")]" and len(levels) > 1:
            if _ARITHMETIC.search(levels[-1]) and _BITWISE.search(levels[-1]):
                return True
            levels.pop()
        else:
            levels[-1] += char
    return any(_ARITHMETIC.search(level) and _BITWISE.search(level) for level in levels)


def _without_brackets(operand: str) -> str:
    """The operand with what stands in square brackets blanked."""
    out, depth = [], 0
    for char in operand:
        depth += char == "["
        out.append(" " if depth else char)
        depth -= char == "]"
    return "".join(out)


def _refuse(text: str, name: str, statement: Statement, offset: int, message: str, right: str) -> NoReturn:
    raise AssemblyError(message, right, line=statement.line, column=statement.column_of(offset), source=text, name=name)


def _constants(listing: list[Statement]) -> dict[str, tuple[int, str]]:
    """Names set by ``.equ``, ``.set`` or ``=``: where first, and the expression."""
    found: dict[str, tuple[int, str]] = {}
    for index, statement in enumerate(listing):
        if statement.mnemonic in (".equ", ".set", ".equiv"):
            parts = statement.operands.split(",", 1)
            if len(parts) == 2:
                found.setdefault(parts[0].strip(), (index, parts[1].strip()))
        elif statement.operands.startswith("="):
            found.setdefault(statement.mnemonic, (index, statement.operands[1:].strip()))
    return found


def labels(text: str) -> set[str]:
    """The names that stand before a colon."""
    found = set()
    for row in blank(text).split("\n"):
        for piece in row.split(";"):
            at = 0
            while match := _LABEL.match(piece, at):
                found.add(match.group().strip().rstrip(":").strip())
                at = match.end()
    return found


def _computed_from_labels(name: str, constants: dict[str, tuple[int, str]], places: set[str]) -> bool:
    """True for ``len = . - text``: LLVM makes a memory operand of such a name even after its definition."""
    seen, todo = set(), [name]
    while todo:
        _, expression = constants[todo.pop()]
        if re.search(r"(?<![\w.$])\.(?![\w.$])|\b\d+[bf]\b", expression):
            return True
        for word in re.findall(_NAME, expression):
            if word in places:
                return True
            if word in constants and word not in seen:
                seen.add(word)
                todo.append(word)
    return False


def check(text: str, bits: int = 16, name: str = "guest") -> list[tuple[int, str]]:
    """Refuse what is not common to both assemblers; return warnings as (line, sentence).

    Raises
    ------
    AssemblyError
        With the line marked and the portable form in the message.
    """
    listing = list(statements(text, bits))
    for statement in listing:
        for rule in _REFUSALS:
            if statement.bits not in rule.bits or (statement.directive and not rule.directives):
                continue
            match = rule.pattern.search(statement.text)
            if match and not (rule.message.startswith("`{0}`: a hexa") and _REGISTER.match(match.group())):
                right = rule.right if isinstance(rule.right, str) else rule.right(match, statement)
                _refuse(text, name, statement, match.start(), rule.message.format(match.group().strip()), right)
        if not statement.directive:
            for operand in statement.operand_list:
                if _mixed_precedence(operand):
                    _refuse(
                        text,
                        name,
                        statement,
                        statement.text.find(operand),
                        f"`{operand}`: the two assemblers disagree on what is done first here.",
                        "Put parentheses: `(1 << 3) + 2`, `1 << (3 + 2)`.",
                    )

    constants = _constants(listing)
    places = labels(text)
    notes: list[tuple[int, str]] = []
    warned: set[str] = set()
    from_labels = {c for c in constants if _computed_from_labels(c, constants, places)}
    for index, statement in enumerate(listing):
        if statement.directive:
            continue
        for operand in statement.operand_list:
            bare = _without_brackets(operand)
            if "[" in operand and not bare.strip():
                continue
            if re.search(r"\boffset\b", bare, re.IGNORECASE) or re.search(r"\bptr\b", bare, re.IGNORECASE):
                continue
            for word in re.findall(rf"(?<![\w.$]){_NAME}", bare):
                if word not in constants:
                    continue
                where, expression = constants[word]
                if word in from_labels and "[" not in operand:
                    _refuse(
                        text,
                        name,
                        statement,
                        max(0, statement.text.find(word)),
                        f"`{word}` is computed from labels (`{expression}`): LLVM makes a memory operand of it.",
                        f"Write `offset {operand}`: that is the number on both assemblers.",
                    )
                if index < where and word not in warned:
                    warned.add(word)
                    notes.append(
                        (
                            statement.line,
                            f"line {statement.line}: `{word}` is used before its .equ (line {listing[where].line}). "
                            f"The assembler takes it for a place in memory and reads [{word}]. Put the .equ above, or "
                            f"write `offset {word}`.",
                        )
                    )
    return notes


# --- What LLVM would encode differently ------------------------------------------------------------------------------


def _att(instruction: str) -> str:
    """An instruction in the other syntax for one moment: there LLVM lets us say the operand size."""
    return f".att_syntax; {instruction}; .intel_syntax noprefix"


def _is_place(operand: str) -> bool:
    return "[" not in operand and not _REGISTER.match(operand.strip())


_STRING = re.compile(r"(?:movs|stos|cmps|scas|lods|ins|outs)([wd])$")
_SEGMENT_REGISTER = re.compile(_SEGMENT + "$", re.IGNORECASE)
_WIDE = {"ax": "eax", "bx": "ebx", "cx": "ecx", "dx": "edx", "si": "esi", "di": "edi", "bp": "ebp", "sp": "esp"}
_NARROW = {wide: narrow for narrow, wide in _WIDE.items()}
_DEFAULT_SEGMENT = re.compile(r"\b(ds:(?=\[(?![^\]]*\b[re]?[bs]p\b))|ss:(?=\[\s*[re]?[bs]p\b))", re.IGNORECASE)


_ACCUMULATORS = {"ax": 16, "eax": 32, "rax": 64}
_SHORT_FORMS = dict(add=0x05, adc=0x15, sbb=0x1D, cmp=0x3D, sub=0x2D, xor=0x35, test=0xA9) | {"and": 0x25, "or": 0x0D}


def _accumulator(statement: Statement, places: set[str]) -> str | None:
    """``sub eax, offset label``: GNU takes the accumulator's short form, LLVM the general one."""
    operands = statement.operand_list
    if len(operands) != 2 or operands[0].lower() not in _ACCUMULATORS or statement.mnemonic not in _SHORT_FORMS:
        return None
    match = re.match(rf"offset\s+({_NAME})\s*([+-].*)?$", operands[1], re.IGNORECASE)
    if not match or match.group(1) not in places:
        return None
    size = _ACCUMULATORS[operands[0].lower()]
    prefix = "0x48, " if size == 64 else "0x66, " if (size == 16) != (statement.bits == 16) else ""
    data = ".2byte" if size == 16 else ".4byte"
    return f".byte {prefix}{_SHORT_FORMS[statement.mnemonic]:#x}; {data} {match.group(1)}{match.group(2) or ''}"


def _respell(statement: Statement) -> str | None:
    """The statement as LLVM must see it to give GNU's bytes; None where they agree already."""
    mnemonic, bits = statement.mnemonic, statement.bits
    operands = statement.operand_list
    first = operands[0] if operands else ""
    if bits == 16:
        if mnemonic in ("ret", "retf") and len(operands) <= 1:
            name = "retw" if mnemonic == "ret" else "lretw"
            return _att(f"{name} ${first}" if first else name)
        if mnemonic == "call" and _is_place(first):
            return _att(f"callw {first}")
        if mnemonic in ("ljmpd", "lcalld") and len(operands) == 2:
            offset = re.sub(r"^offset\s+", "", operands[1], flags=re.IGNORECASE)
            return _att(f"{mnemonic[:-1]}l ${first}, ${offset}")
        if (
            mnemonic == "mov"
            and len(operands) == 2
            and first.lower() in _NARROW
            and _SEGMENT_REGISTER.match(operands[1])
        ):
            return f".byte 0x66; mov {_NARROW[first.lower()]}, {operands[1]}"
    if bits == 32:
        if mnemonic in ("iret", "pushf", "popf"):
            return mnemonic + "d"
        if mnemonic == "push" and re.match(r"offset\b", first, re.IGNORECASE):
            return _att(f"pushl ${re.sub(r'^offset', '', first, flags=re.IGNORECASE).strip()}")
    if bits in (32, 64):
        if mnemonic in ("push", "pop") and len(operands) == 1 and _SEGMENT_REGISTER.match(first):
            return _att(f"{mnemonic}{'l' if bits == 32 else 'q'} %{first.lower()}")  # LLVM goes by the register
        if mnemonic == "mov" and len(operands) == 2:
            target, source = operands[0].lower(), operands[1].lower()
            if _SEGMENT_REGISTER.match(target) and source in _WIDE:
                return f"mov {target}, {_WIDE[source]}"
            if _SEGMENT_REGISTER.match(source) and target in _WIDE:
                return f".byte 0x66; mov {_WIDE[target]}, {source}"
    if mnemonic in ("pushw", "pushd") and len(operands) == 1 and _is_place(first):
        value = re.sub(r"^offset\s+", "", first, flags=re.IGNORECASE)
        return _att(f"push{'w' if mnemonic == 'pushw' else 'l'} ${value}")
    if mnemonic == "int1":
        return ".byte 0xf1"
    if mnemonic == "sysretd":
        return "sysret"
    if mnemonic == "xchg" and len(operands) == 2 and all(_REGISTER.match(operand) for operand in operands):
        return f"xchg {operands[1]}, {operands[0]}"
    match = _STRING.match(mnemonic)
    if match and any(prefix.startswith("rep") for prefix in statement.prefixes) and not operands:
        other = "w" if match.group(1) == "d" else "d"
        if (bits == 16) == (match.group(1) == "d"):
            return f".byte 0x66; {' '.join(statement.prefixes)} {mnemonic[:-1]}{other}"
    if _DEFAULT_SEGMENT.search(statement.text):
        return _DEFAULT_SEGMENT.sub("", statement.text)
    return None


def for_llvm(text: str, bits: int = 16) -> str:
    """The text respelled so that LLVM's assembler gives the bytes of GNU's; every line stays in its place."""
    rows = text.split("\n")
    shift: dict[int, int] = {}
    places = labels(text)
    for statement in statements(text, bits):
        if statement.directive:
            continue
        other = _accumulator(statement, places) or _respell(statement)
        if other is None:
            continue
        row = rows[statement.line - 1]
        start = statement.column - 1 + shift.get(statement.line, 0)
        end = start + len(statement.text)
        rows[statement.line - 1] = row[:start] + other + row[end:]
        shift[statement.line] = shift.get(statement.line, 0) + len(other) - len(statement.text)
    return "\n".join(rows)


# --- Help with what the assembler itself refuses ---------------------------------------------------------------------

_MNEMONICS = """
aaa aad aam aas adc add and arpl bound bsf bsr bswap bt btc btr bts call cbw cdq cdqe clc cld cli clts cmc cmova
cmovae cmovb cmovbe cmove cmovg cmovge cmovl cmovle cmovne cmp cmpsb cmpsd cmpsq cmpsw cmpxchg cmpxchg16b cmpxchg8b
cpuid cqo cwd cwde daa das dec div enter hlt idiv imul in inc insb insd insw int int3 into invd invlpg iret iretd
iretq ja jae jb jbe jc jcxz je jecxz jg jge jl jle jmp jnb jnc jne jno jnp jns jnz jo jp jrcxz js jz lahf lar lcall
lds lea leave les lfs lgdt lgdtd lgs lidt lidtd ljmp ljmpd lldt lmsw lodsb lodsd lodsq lodsw loop loope loopne lsl lss
ltr mfence mov movabs movsb movsd movsq movsw movsx movsxd movzx mul neg nop not or out outsb outsd outsw pop popa
popad popf popfd popfq push pusha pushad pushf pushfd pushfq rcl rcr rdmsr rdtsc ret retf retfq rol ror sahf sal sar
sbb scasb scasd scasw sete setne sgdt shl shld shr shrd sidt sldt smsw stc std sti stosb stosd stosq stosw str sub
swapgs syscall sysenter sysexitq sysretq test ud2 verr verw vmcall vmclear vmlaunch vmload vmptrld vmptrst vmread
vmresume vmrun vmsave vmwrite vmxoff vmxon wbinvd wrmsr xadd xchg xlatb xor
""".split()


def hint(text: str, line: int | None, message: str, bits: int) -> str | None:
    """What would probably be right, for an error that the assembler itself found."""
    if line is None or not 1 <= line <= len(text.splitlines()):
        return None
    here = [s for s in statements(text, bits) if s.line == line]
    low = message.lower()
    if "no such instruction" in low or "mnemonic" in low:
        if len(here) > 1 and ";" in blank(text).split("\n")[line - 1] and here[-1].mnemonic not in _MNEMONICS:
            return "In this syntax `;` begins another instruction. Begin a comment with `#`."
        for statement in here:
            if not statement.directive and statement.mnemonic not in _MNEMONICS:
                near = difflib.get_close_matches(statement.mnemonic, _MNEMONICS, 1, 0.6)
                return f"Did you mean `{near[0]}`?" if near else None
    if ("size mismatch" in low or "mismatch for" in low or "type mismatch" in low or "invalid operand" in low) and here:
        return "Both operands must have the same size (ax with bx, eax with ebx), and only one may be in memory."
    if "too large for field of 1 byte" in low or "out of range" in low or "value of" in low:
        return "LOOP, JCXZ and `jmp short` reach 127 bytes forwards and 128 back: jump over a plain `jmp`."
    if "ambiguous operand size" in low or "operand size" in low:
        return "Say the size: `byte ptr`, `word ptr`, `dword ptr` or `qword ptr` before the bracket."
    if "64-bit mode" in low or "only supported in 64" in low or "not available in" in low:
        return f"This is {bits}-bit code: begin with bits=64, or change the mode and say `.code64`."
    return None
