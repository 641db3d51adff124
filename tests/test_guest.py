"""Guests from text: the same bytes from every assembler, errors that mark the line, C that runs."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import warnings
from pathlib import Path

import pytest
import unicorn_run

from kvmlab import errors, intel_syntax, toolchain
from kvmlab.errors import AssemblyError, AssemblyWarning, BadArgument, ToolUnavailable
from kvmlab.guest import Image, SourceLine, assemble, compile_c

FAMILIES = toolchain.FAMILIES
GUESTS = sorted((Path(__file__).parent / "guests").glob("*.S"))


def _has(family: str, need: str = "assembler") -> bool:
    try:
        toolchain.find(family, need)
    except ToolUnavailable:
        return False
    return True


here = [family for family in FAMILIES if _has(family)]
several = pytest.mark.skipif(len(here) < 2, reason=f"only {here} here: nothing to compare")

FIVE = """\
        mov   dx, 0x3f8         # the serial port
        mov   al, 'A'
        out   dx, al
        inc   al
        hlt
"""


# --- The image -------------------------------------------------------------------------------------------------------


def test_five_instructions() -> None:
    image = assemble(FIVE, bits=16, org=0x1000)
    assert image.data == bytes.fromhex("baf803 b041 ee fec0 f4")
    assert (image.org, image.entry, image.bits, image.end) == (0x1000, 0x1000, 16, 0x1009)
    assert {at: line.number for at, line in image.lines.items()} == {
        0x1000: 1,
        0x1003: 2,
        0x1005: 3,
        0x1006: 4,
        0x1008: 5,
    }
    assert image.line_at(0x1007) == SourceLine(4, "        inc   al")
    assert image.line_at(0x1009) is None and image.line_at(0xFFF) is None


def test_labels_constants_and_entry() -> None:
    image = assemble("back: hlt\n.equ PORT, 0x3f8\n_start: mov dx, PORT\njmp back\n", org=0x2000)
    assert image.symbols == {"back": 0x2000, "_start": 0x2001}
    assert image.constants == {"PORT": 0x3F8}
    assert image.entry == 0x2001
    assert image.symbol_at(0x2003) == ("_start", 2) and image.symbol_at(0x3000) is None
    assert assemble("a: nop\nb: hlt", entry="b").entry == 0x1001
    assert image.address_of("PORT") == 0x3F8
    with pytest.raises(BadArgument, match="no label 'frist'"):
        image.address_of("frist")
    with pytest.raises(BadArgument, match="no label of the text"):
        assemble("hlt", entry="nowhere")


@pytest.mark.parametrize("family", here)
def test_sections(family: str) -> None:
    text = ".data\nvalue: .word 0x1234\n.bss\nroom: .skip 6\n.text\nmov ax, [value]\nhlt\n"
    text += '.section .high, "a"\nfar_away: .byte 7\n'
    image = assemble(text, org=0x1000, sections={".high": 0x3000}, tools=family)
    assert image.org == 0x1000 and image.end == 0x3001 and image.data[-1] == 7
    assert image.symbols["value"] == 0x1004 and image.symbols["far_away"] == 0x3000
    assert image.data[4:6] == b"\x34\x12" and image.data[6:12] == bytes(6)
    assert image.segments == ((0x1000, 4), (0x1004, 2), (0x1006, 6), (0x3000, 1))


def test_image_is_a_moment() -> None:
    image = assemble(FIVE)
    copy = pickle.loads(pickle.dumps(image))
    assert copy == image and hash(copy) == hash(image) and copy.lines == image.lines
    assert image.replace(entry=0x1003) != image
    assert image.to_dict()["data"] == image.data
    with pytest.raises(AttributeError, match=r"replace\(org="):
        image.org = 5
    with pytest.raises(BadArgument, match="no 'size'"):
        image.replace(size=4)
    with pytest.raises(TypeError):
        image.symbols["x"] = 1  # type: ignore[index]
    assert image != "image" and len(image) == 9 and bytes(image) == image.data
    bundle = image._repr_mimebundle_()
    assert "<table" in bundle["text/html"] and "mov   al, &#x27;A&#x27;" in bundle["text/html"]
    assert "9 bytes at 0x1000" in bundle["text/plain"]
    assert "00001005  ee" in image.listing()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Image("text"), "made of bytes"),  # type: ignore[arg-type]
        (lambda: Image(b"", org=-1), "no guest-physical address"),
        (lambda: Image(b"", bits=8), "no mode of the processor"),
        (lambda: Image(b"", entry=-5), "no address"),
        (lambda: assemble(b"hlt"), "bytes was given"),  # type: ignore[arg-type]
        (lambda: assemble("hlt", bits=64.5), "no mode"),  # type: ignore[arg-type]
        (lambda: assemble("hlt", org="0x1000"), "no guest-physical address"),  # type: ignore[arg-type]
        (lambda: assemble("hlt", sections={".text": 5}), "section of your own"),
        (lambda: assemble("hlt", tools="nasm"), "names no family"),
        (lambda: compile_c("int main(void){return 0;}", flags="-O0"), "one string"),
        (lambda: assemble(".skip 0x20000000"), "256 MiB"),
    ],
)
def test_bad_arguments(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadArgument, match=says) as caught:
        make()
    assert caught.value.errno_name == "EINVAL"


# --- Files -----------------------------------------------------------------------------------------------------------


def test_flat_file(tmp_path: Path) -> None:
    path = tmp_path / "boot.bin"
    path.write_bytes(b"\xf4")
    image = Image.from_file(path)
    assert (image.org, image.bits, image.data, image.name) == (0x7C00, 16, b"\xf4", "boot")
    assert Image.from_file(path, org=0x1000, bits=32).bits == 32
    with pytest.raises(BadArgument, match="cannot be read"):
        Image.from_file(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(BadArgument, match="is empty"):
        Image.from_file(tmp_path / "empty")


def _elf(
    *, machine: int = 62, kind: int = 2, at: int = 0x100000, virtual: int | None = None, entry: int | None = None
) -> bytes:
    """A minimal ELF64 executable: one segment with MOV EAX, 42; HLT and 3 bytes of zeroed memory behind."""
    code = b"\xb8\x2a\0\0\0\xf4"
    virtual = at if virtual is None else virtual
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        kind,
        machine,
        1,
        virtual if entry is None else entry,
        64,
        0,
        0,
        64,
        56,
        1,
        64,
        0,
        0,
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 120, virtual, at, len(code), len(code) + 3, 1) + code


def test_elf_file(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(_elf())
    image = Image.from_file(path)
    assert (image.org, image.entry, image.bits) == (0x100000, 0x100000, 64)
    assert image.data == b"\xb8\x2a\0\0\0\xf4\0\0\0"
    path.write_bytes(_elf(virtual=0xFFFFFFFF80100000))
    assert Image.from_file(path).entry == 0x100000
    for broken, says in [(_elf(machine=183), "EM_AARCH64"), (_elf(kind=1), "not linked"), (_elf()[:40], "broken")]:
        path.write_bytes(broken)
        with pytest.raises(BadArgument, match=says):
            Image.from_file(path)
    path.write_bytes(_elf())
    with pytest.raises(BadArgument, match="its own addresses"):
        Image.from_file(path, org=5)


# --- Two assemblers, one guest ---------------------------------------------------------------------------------------

CORPUS = """
        call  f; jmp past; sub ax, offset f; add eax, offset g + 4; test eax, offset g
    f:  push  0x1234; pop ax; ret
        ret   4
    g:  retf
        retf  2
    past: ljmp 0, offset next
    next: ljmpd 8, offset g; lcall 0, offset g; ljmp [bx]; lcall cs:[vector]; jmp fword ptr [bx]
        pushd 5; pushw 5; pushd offset f; iret; iretd; pushf; pushfd; popf; pusha; pushad
        mov   eax, cr0; or al, 1; mov cr0, eax; lgdtd [table]; lidt [table]
        mov   eax, ds; mov ax, ds; mov es, ax; les di, [bx]; lss sp, [bx]
        rep stosd; rep movsw; rep outsb; repne scasb; es lodsb; movsd; rep movsd; lock inc word ptr [bx]
        mov   ax, gs:[0x10]; mov ax, ds:[bx]; mov ax, ss:[bp + 4]; mov ax, ds:[bp]; mov ax, [ebx + ecx*4]
        xchg  bx, cx; xchg ax, bx; xchg [bx], al; int1; int 3; into; aam; bound ax, [bx]
        mov   al, ' '; mov al, '#'; mov al, ';'; in al, 0x60; out dx, eax
    9:  jcxz 9b; loop 9b
        .code32
        push ds; pop es; push cs; pop ss; push fs; pop gs
        iret; iretd; retf; push offset f; pushf; popf; mov es, ax; mov ax, es; mov eax, es; call f; lldt ax; str ax
        rep stosw; rep stosd; ljmp 0x18, offset last; xchg ebx, ecx; push 5; pushw 5; jecxz last; jcxz last
    last:
        .code64
        nop; and eax, offset f; cmp rax, offset f; xor ax, offset f
        push fs; pop gs
        iretq; retfq; retf; sysretq; sysretd; syscall; swapgs; mov ax, ds; mov ds, ax; mov rax, [rip + table]
        mov   rax, offset table; lea rsi, [rip + table]; xchg rbx, rcx; xchg r8d, r9d; rep stosw; rep stosq
        call  last; jmp fword ptr [rbx]; mov r8, 88172645463325252; push offset f; cmpxchg16b [rbx]; call [rip + table]
        mov   ecx, offset SIZE; mov rsi, offset SIZE - 1; movabs rax, offset table; mov cr8, rax; invlpg [rbx]
        mov   qword ptr [0x5010], (1 << 12) + 3; movsd xmm0, [rip + table]; movq rax, xmm3; ltr ax; wrmsr
    table: .word table_end - table - 1
        .long table, 1 << 3 | 2; .quad table
    table_end:
    vector: .word g, 0
        .ascii "a#b;c'd\\"e"; .asciz "/* text */"; .byte 'a', 'b' /* a comment # ; */, 3
        .equ SIZE, . - table
        .balign 16, 0xcc
        .macro twice what
        \\what
        \\what
        .endm
        twice nop
        .irp r, eax, ebx
        inc \\r
        .endr
"""


@several
@pytest.mark.parametrize("family", here[1:])
def test_same_bytes_from_every_assembler(family: str) -> None:
    one, other = assemble(CORPUS, tools=here[0]), assemble(CORPUS, tools=family)
    first = next((i for i, (a, b) in enumerate(zip(one.data, other.data, strict=False)) if a != b), None)
    assert first is None, (
        f"at {one.line_at(one.org + first)}: {one.data[first : first + 8].hex()} {other.data[first : first + 8].hex()}"
    )
    assert one.data == other.data and one.symbols == other.symbols and one.constants == other.constants
    # Where a macro or .irp made several instructions of a line, the two count differently.
    last = CORPUS[: CORPUS.index(".macro")].count("\n")
    numbers = [{line.number for line in image.lines.values() if line.number <= last} for image in (one, other)]
    assert numbers[0] == numbers[1]


@several
@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("family", here[1:])
def test_same_bytes_for_the_guests(path: Path, family: str) -> None:
    import guest_runner

    guest = guest_runner.read(path)
    one, other = guest.build(tools=here[0]), guest.build(tools=family)
    assert one.data == other.data and one.symbols == other.symbols


# --- What is refused on every assembler, with the portable form ------------------------------------------------------


@pytest.mark.parametrize("family", here)
@pytest.mark.parametrize(
    ("text", "bits", "right"),
    [
        ("jmp 8:x\nx: hlt", 16, "ljmp 8, offset x"),
        ("call 0x10:0x200", 16, "lcall 0x10, 0x200"),
        ("mov ax, [gs:0x10]", 16, "gs:[0x10]"),
        ("jmp far ptr x\nx: hlt", 32, "ljmp 8, offset x"),
        ("jmp far [ebx]", 32, "ljmp [ebx]"),
        ("call far ptr [rbx]", 64, "call fword ptr [rbx]"),
        ("ljmp [rbx]", 64, "jmp fword ptr [rbx]"),
        ("jmp dword ptr [bx]", 16, "ljmp [bx]"),
        ("jmp near ptr x\nx: hlt", 16, "jmp x"),
        ("x: jmp $", 16, "1: jmp 1b"),
        ("jmp .", 16, "1: jmp 1b"),
        ("mov rax, [rel x]\nx: hlt", 64, "[rip + x]"),
        ("mov byte [bx], 1", 16, "byte ptr [bx"),
        ("mov ax, 10h", 16, "0x10"),
        ("mov ax, 0ffh", 16, "0x0ff"),
        ("db 5", 16, ".byte"),
        ("times 510 db 0", 16, ".fill"),
        ("bits 16", 16, ".code16"),
        ("org 0x7c00", 16, "org=0x7c00"),
        ("section .text", 16, ".section .data"),
        ("%define A 5", 16, ".equ"),
        ("len equ 5", 16, ".equ len, 5"),
        ("push dword ptr 5", 16, "pushd 5"),
        ("data32 lgdt [bx]", 16, "lgdtd"),
        ("lret", 16, "retf"),
        ("sysret", 64, "sysretq"),
        ("movb al, 5", 16, "`mov`"),
        ("mov $5, %eax", 32, "mov ax, 5"),
        ("nop // no", 16, "`#`"),
        ("ljmp 8, offset 1f\n1: hlt", 16, "a name"),
        ("mov eax, 1 + 3 << 2", 32, "parentheses"),
        ('m: .ascii "abc"\nlen = . - m\nmov cx, len', 16, "offset len"),
    ],
)
def test_refused_with_the_portable_form(text: str, bits: int, right: str, family: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(text, bits=bits, tools=family)
    assert right in str(caught.value)
    assert caught.value.line == text.count("\n", 0, text.index(caught.value.text.strip())) + 1
    assert caught.value.column


def test_what_is_common_is_not_refused() -> None:
    for text, bits in [
        ("mov ax, fs:[bx]", 16),
        ("mov bl, ah; mov ch, bh; mov dh, [bx]", 16),
        ("jmp cs:[bx]", 16),
        ("call es:[di]", 16),
        ("x: jmp x", 16),
        ("add eax, (2 + 3) << 2", 32),
        ("mov eax, 1 << 2 | 3", 32),
        ('.ascii "jmp 8:x // $ db 10h"', 16),
        ("# jmp 8:x", 16),
        ("/* db 1\njmp $ */ hlt", 16),
        ("a$b: mov al, '$'", 16),
        ("mov eax, [ebx + 4 - 1]", 32),
        ("mov dh, 1; mov bh, 2", 16),
    ]:
        assemble(text, bits=bits)


def test_constant_before_its_equ_warns() -> None:
    with pytest.warns(AssemblyWarning, match=r"line 1: `PORT` is used before its .equ \(line 2\)"):
        image = assemble("mov dx, PORT\n.equ PORT, 0x3f8\nhlt")
    assert "PORT" in image.warnings[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assemble("mov dx, offset PORT\n.equ PORT, 0x3f8\nhlt")
        assemble(".equ PORT, 0x3f8\nmov dx, PORT\nhlt")


# --- The assembler's own errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", here)
@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("nop\n  mvo ax, 1\n", 2, "Did you mean `mov`?"),
        ("nop\nnop\nmov ax, nowhere\nnowehre: hlt", 3, "Did you mean `nowehre`?"),
        ("mov eax, missing", 1, "`missing` is not defined"),
        ("mov ax, ebx", 1, "same size"),
        ("mov [bx], 5", 1, "byte ptr"),
        ("mov ax, 5 ; five", 1, "Begin a comment with `#`"),
    ],
)
def test_error_marks_the_line(text: str, line: int, says: str, family: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(text, tools=family)
    error = caught.value
    assert error.line == line and says in str(error), str(error)
    assert f"> {line} | {text.splitlines()[line - 1]}" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and (again.line, again.column, again.message) == (
        error.line,
        error.column,
        error.message,
    )


@pytest.mark.parametrize("family", here)
def test_error_inside_a_macro(family: str) -> None:
    with pytest.raises(AssemblyError, match="no such instruction") as caught:
        assemble(".macro m\nmvo ax\n.endm\nnop\nm\n", tools=family)
    assert caught.value.line in (2, 5)  # GNU names the macro's line, LLVM the line that uses it


def test_caret_stands_under_the_word() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("start:\n\tmov ax, 1\n\tmov cx, nowhere\n")
    assert caught.value.column == 10
    rows = str(caught.value).splitlines()
    assert rows[3] == "> 3 | \tmov cx, nowhere" and rows[4] == "    | \t        ^"


@pytest.mark.parametrize("family", here)
def test_address_that_does_not_fit(family: str) -> None:
    with pytest.raises(AssemblyError, match="does not fit into 16 bits") as caught:
        assemble("nop\nmov si, offset text\nhlt\ntext: .byte 0", bits=16, org=0x20000, tools=family)
    assert caught.value.line == 2 and "0x20000" in str(caught.value)


# --- C ---------------------------------------------------------------------------------------------------------------

PROGRAM = """\
#include <kvmguest.h>
#include <stdbool.h>

static unsigned squares[10];
static long long big = 1ll << 40;

int main(void)
{
    struct { char room[300]; } block = {{1}};
    volatile char *p = block.room;
    for (int i = 0; i < 10; i++)
        squares[i] = (unsigned)(i * i * p[0]);
    puts("squares");
    print_dec(squares[9]);
    print_hex(0xbeef, 4);
    return (int)(big / 12345);
}
"""
compilers = [family for family in FAMILIES if _has(family, "compiler")]


@pytest.mark.parametrize("bits", [64, 32, 16])
@pytest.mark.parametrize("family", compilers)
def test_c_runs(family: str, bits: int) -> None:
    image = compile_c(PROGRAM, bits=bits, tools=family)
    assert image.entry == image.org == {64: 0x100000, 32: 0x100000, 16: 0x1000}[bits]
    assert image.line_at(image.symbols["main"]).number in (7, 8)  # type: ignore[union-attr]
    done = unicorn_run.run(image)
    assert done.console == "squares\n81beef"
    assert done.regs["rax"] & 0xFFFFFFFF == (1 << 40) // 12345


@pytest.mark.parametrize("family", compilers)
def test_c_errors(family: str) -> None:
    with pytest.raises(AssemblyError, match="(?s)line 2.*> 2 \\|   return x;") as caught:
        compile_c("int main(void) {\n  return x;\n}\n", tools=family)
    assert (caught.value.line, caught.value.column) == (2, 10)
    with pytest.raises(AssemblyError, match="There is no main"):
        compile_c("int mian(void) { return 0; }", tools=family)
    with pytest.raises(AssemblyError, match="no C library in a guest") as caught:
        compile_c('int printf(const char *, ...);\nint main(void) { return printf("%d", 5); }', tools=family)
    assert "printf" in caught.value.message
    with pytest.raises(AssemblyError, match="without floating point|use integers"):
        compile_c("double f(double x) { return x * 2; }\nint main(void) { return (int)f(5); }", tools=family)
    with pytest.warns(AssemblyWarning, match="line 1: unused variable"):
        compile_c("int main(void) { int unused; return 0; }", tools=family)


def test_no_compiler_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    toolchain._family.cache_clear()
    try:
        for make in (lambda: compile_c("int main(void) { return 0; }"), lambda: assemble("hlt")):
            with pytest.raises(ToolUnavailable, match=r"pip install kvmlab\[guest\]"):
                make()
    finally:
        toolchain._family.cache_clear()


def test_tools_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMLAB_TOOLS", here[-1])
    assert toolchain.find().family == here[-1]
    monkeypatch.setenv("KVMLAB_TOOLS", "masm")
    with pytest.raises(BadArgument, match="'masm' names no family"):
        assemble("hlt")


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in errors.__all__ if n not in ("from_errno", "AssemblyWarning", "AssemblyError")]
)
def test_errors_carry_errno_and_remedy(name: str) -> None:
    error = getattr(errors, name)("This was given.", "That would be right.")
    assert isinstance(error, errors.Error) and error.errno > 0
    assert str(error) == "This was given. That would be right."
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errno) == (type(error), str(error), error.errno)


def test_errno_finds_its_class() -> None:
    import errno

    assert isinstance(errors.from_errno(-errno.EINVAL, "x"), BadArgument)
    assert isinstance(errors.from_errno(errno.EEXIST), errors.SlotOverlap)
    assert errors.from_errno(errno.EACCES).errno_name == "EACCES"
    assert type(errors.from_errno(errno.E2BIG)) is errors.Error


def test_statements_know_their_mode_and_place() -> None:
    listing = list(intel_syntax.statements("a: mov ax, 1; b: rep movsb # c\n.code32\n  x = 5\n", 16))
    assert [(s.line, s.column, s.bits, s.prefixes, s.mnemonic) for s in listing] == [
        (1, 4, 16, (), "mov"),
        (1, 18, 16, ("rep",), "movsb"),
        (2, 1, 32, (), ".code32"),
        (3, 3, 32, (), "x"),
    ]
    assert listing[0].operand_list == ["ax", "1"] and listing[3].directive
    assert dataclasses.is_dataclass(listing[0])
