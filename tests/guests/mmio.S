# A device that lives in memory: at 0xfe000000 no memory slot answers, so every access is an exit with its address, size
# and data. Loads, stores, sign and zero extension, a read-modify-write (two exits), a string store.
#: about: an MMIO device driven from a 64-bit guest
#: bits: 64
#: machine: no
#: org: 0x100000
#: exit mmio write gpa=0xfe000000 size=1
#: exit mmio write gpa=0xfe000002 size=2
#: exit mmio write gpa=0xfe000004 size=4
#: exit mmio write gpa=0xfe000008 size=8
#: exit mmio read gpa=0xfe000010 size=4 reply=0x12345678
#: exit mmio read gpa=0xfe000014 size=1 reply=0x80
#: exit mmio read gpa=0xfe000014 size=1 reply=0x80
#: exit mmio read gpa=0xfe000020 size=8 reply=0x1122334455667788
#: exit mmio read gpa=0xfe000030 size=4 reply=41
#: exit mmio write gpa=0xfe000030 size=4
#: exit mmio read gpa=0xfe000040 size=4 reply=7
#: exit hlt
#: expect rax=0x12345678 rbx=0x80 rcx=0xffffffffffffff80 rdx=0x1122334455667788 rbp=1 r8=0x600d
#: expect rsp&0xf=8

        .equ    DEVICE, 0xfe000000

_start: mov     edi, DEVICE             # zero-extended: a 32-bit move clears the upper half of RDI
        mov     byte ptr [rdi], 0x11
        mov     word ptr [rdi + 2], 0x2222
        mov     dword ptr [rdi + 4], 0x44444444
        mov     rax, 0x8888888888888888
        mov     [rdi + 8], rax
        mov     eax, [rdi + 0x10]       # first the exit with the address, then user space's answer
        movzx   ebx, byte ptr [rdi + 0x14]
        movsx   rcx, byte ptr [rdi + 0x14]
        mov     rdx, [rdi + 0x20]
        inc     dword ptr [rdi + 0x30]  # read 41, write 42: one instruction, two exits
        xor     ebp, ebp
        cmp     dword ptr [rdi + 0x40], 7
        sete    bpl
        mov     r8d, 0x600d
        hlt
