"""Guests of a few bytes for tests that need no assembler, with the listing they came from."""

from __future__ import annotations

from kvmlab.guest import Image

# mov al, 0x41; mov dx, 0x3f8; out dx, al; inc ax; hlt
FIVE = Image(bytes.fromhex("b041 baf803 ee 40 f4"), 0x1000, name="five")
# in al, 0x60; mov bl, al; in ax, 0x62; hlt
READS = Image(bytes.fromhex("e460 88c3 e562 f4"), 0x1000, name="reads")
# 1: inc ax; jmp 1b
LOOP = Image(bytes.fromhex("40 ebfd"), 0x1000, name="loop")
# mov cx, 5; 1: inc ax; loop 1b; hlt
COUNT = Image(bytes.fromhex("b90500 40 e2fd f4"), 0x1000, name="count")
# 64 bits: mov rax, [0xfe000000] by rbx; mov [rbx + 8], eax; hlt
MMIO = Image(bytes.fromhex("bb000000fe 8b03 894308 f4"), 0x100000, bits=64, name="mmio")
# 64 bits: mov rax, [0x8000000000]
FAULT = Image(bytes.fromhex("48b80000000080000000 488b00 f4"), 0x100000, bits=64, name="fault")
# mov si, 0x1010; mov cx, 4; mov dx, 0x3f8; rep outsb; hlt; "abcd"
STRING = Image(bytes.fromhex("be1010 b90400 baf803 f36e f4 90909090 61626364"), 0x1000, name="string")
# cpuid; hlt
CPUID = Image(bytes.fromhex("0fa2 f4"), 0x1000, name="cpuid")
# sti; 1: hlt; jmp 1b, and an IVT entry for 0x20 is made by the test
IDLE = Image(bytes.fromhex("fb f4 ebfd"), 0x1000, name="idle")
