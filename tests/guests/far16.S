# Real mode and 16-bit protected mode: far CALL, JMP, RET and INT with 16 and 32 bits, LDS and its family, segment
# registers on the stack, the vector table, TF; then a 16-bit TSS, a call gate of words and IRET to ring 3 and back. The guest
# logs words behind `log`; DI is the log's end throughout. Faults log vector, IP, CS and flags, and go on at BX.
#: about: far transfers, interrupts and segment registers in real mode and in 16-bit protected mode
#: bits: 16
#: org: 0x1000
#: oracle: qemu
#: options: real_mode=emulate
#: gap: protected mode without paging

        .equ    CODE0, 0x08
        .equ    DATA0, 0x10
        .equ    CODE3, 0x1b
        .equ    DATA3, 0x23
        .equ    TSS, 0x28
        .equ    GATE, 0x33
        .equ    REAL, 0x38              # limits of real mode, to leave with
        .equ    STACK_TSS, 0x6000
        .equ    STACK3, 0x6800

_start: cld
        mov     di, offset log
        xor     si, si                  # vectors 0 to 7 and 0x20 to 0x27 lead to their stubs
        mov     ax, offset stubs
1:      mov     [si], ax
        mov     word ptr [si + 2], 0
        mov     [si + 0x80], ax
        add     word ptr [si + 0x80], 0x40     # from stubs to stubs20: eight of eight bytes
        nop                             # the log below counts on this address
        mov     word ptr [si + 0x82], 0
        add     ax, 8
        add     si, 4
        cmp     si, 32
        jne     1b

# --- Real mode ---------------------------------------------------------------------------------------------------------
        mov     bx, offset r1
        int     0x21
r1:     mov     bx, offset r2
        int3
r2:     mov     bx, offset r3
        mov     al, 0x7f
        inc     al
        into
r3:     mov     bx, offset r4
        xor     cl, cl
        div     cl
r4:     mov     bx, offset r5
        ud2
r5:     mov     bx, offset r6
        mov     ax, 11
        bound   ax, [bounds]
r6:     mov     bx, offset r7           # one trap, behind the NOP
        pushf
        pop     ax
        or      ah, 1
        push    ax
        popf
        nop
        nop
r7:     ljmp    0x10, offset at8 - 0x100
at8:     mov     ax, cs
        stosw
        lcall   0, offset near_end      # two words
        mov     ax, sp
        stosw
        push    0x5555
        .byte   0x66, 0x9a              # CALL FAR with dwords
        .long   wide_end
        .word   0x20
        mov     ax, sp                  # RETF 2 took the parameter
        stosw
        pushf
        lcall   0, offset by_iret
        mov     ax, sp
        stosw
        ljmp    0, offset at9
at9:     lcall   [near_pointer]
        ljmp    [at10_pointer]
        ud2
at10:    mov     ax, cs
        stosw
        lds     ax, [pair]
        stosw
        mov     ax, ds
        stosw
        mov     dx, ds
        xor     ax, ax
        mov     ds, ax
        lfs     si, [pair]
        mov     ax, fs
        stosw
        lgs     esi, [wide_pair]
        mov     eax, esi
        stosd
        mov     ax, gs
        stosw
        les     si, [es_pair]           # ES stays 0: the log is there
        mov     ax, si
        stosw
        lss     sp, [stack_pair]
        mov     ax, ss
        stosw
        mov     ax, sp
        stosw
        push    fs
        pushd   0x12345678
        pop     eax
        stosd
        pop     ax
        stosw
        push    0x1111
        pop     gs
        mov     ax, gs
        stosw
        xor     ax, ax
        mov     ss, ax
        mov     sp, 0x7c00
        pushd   0x11111111              # a dword push of a segment register moves SP by 4
        pop     eax
        mov     bp, sp
        .byte   0x66, 0x0f, 0xa0        # push fs
        mov     ax, sp
        stosw
        mov     ax, [bp - 4]
        stosw
        add     sp, 4
        pushfd                          # which flags POPFD may change here
        pop     eax
        stosd
        or      eax, 0x00247000         # AC, ID, NT, IOPL
        push    eax
        popfd
        pushfd
        pop     eax
        stosd
        push    2
        popf
        pushf
        pop     ax
        stosw
        pushd   2
        popfd
        smsw    ax
        and     ax, 0xf                 # ET and NE depend on who began
        stosw
        mov     ax, 0xfff0
        mov     fs, ax
        mov     eax, fs:[0x100]         # linear FFF00h + 100h: 1 MB exactly, no wrap
        jmp     protect

near_end:
        mov     bp, sp
        mov     ax, [bp]
        stosw
        mov     ax, [bp + 2]
        stosw
        retf
        .set    wide_end, near2 - 0x200
near2:  mov     bp, sp
        mov     ax, [bp]
        stosw
        mov     ax, [bp + 2]
        stosw
        mov     ax, [bp + 4]
        stosw
        mov     ax, [bp + 8]
        stosw
        .byte   0x66, 0xca, 2, 0        # RETF 2 with dwords
by_iret:
        mov     bp, sp
        mov     ax, [bp + 2]
        stosw
        iret

# --- Protected mode of 16 bits ---------------------------------------------------------------------------------------------
protect:
        lgdt    [gdtr]
        lidt    [idtr]
        mov     ax, offset tss
        mov     [gdt + TSS + 2], ax
        mov     ax, offset by_gate
        mov     [gdt + 0x30], ax
        mov     ax, 1
        lmsw    ax
        ljmp    CODE0, offset p1
p1:     mov     ax, DATA0
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        mov     ax, TSS
        ltr     ax
        str     ax
        stosw
        mov     al, [gdt + TSS + 5]
        stosb
        stosb
        lcall   GATE - 3, 0             # same level
        push    DATA3
        push    STACK3
        pushf
        push    CODE3
        push    offset ring3
        iret
ring3:  mov     ax, DATA3
        mov     ds, ax
        mov     es, ax
        mov     ax, sp
        stosw
        push    0x1111
        push    0x2222
        lcall   GATE, 0
        mov     ax, sp
        stosw
        mov     ax, cs
        stosw
        int     0x31                    # 16-bit gate
        mov     bx, offset p2
        hlt                             # 32-bit gate: a frame of dwords
p2:     int     0x32                    # ends the ride

by_gate:
        mov     ax, ss
        stosw
        mov     ax, sp
        stosw
        mov     bp, sp
        mov     cx, 6
1:      mov     ax, [bp]
        stosw
        add     bp, 2
        loop    1b
        mov     ax, cs
        mov     bp, sp
        cmp     ax, [bp + 2]
        je      2f
        retf    4
2:      retf

on_31:  mov     bp, sp
        mov     cx, 5
1:      mov     ax, [bp]
        stosw
        add     bp, 2
        loop    1b
        iret

on_gp:  mov     bp, sp                  # from 16-bit code through a 32-bit gate
        and     byte ptr [bp + 14], 0xfe        # RF: not every foreign machine sets it
        mov     cx, 12
1:      mov     ax, [bp]
        stosw
        add     bp, 2
        loop    1b
        add     sp, 4
        mov     bp, sp
        mov     [bp], bx
        .byte   0x66, 0xcf              # IRETD

on_32:  mov     ax, DATA0
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        lidt    [real_idtr]             # back to real mode
        mov     eax, cr0
        and     al, 0xfe
        mov     cr0, eax
        ljmp    0, offset real_again
real_again:
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     bx, offset done
        int     0x22
done:   mov     ax, 0x600d
        hlt

# --- Stubs of real mode ---------------------------------------------------------------------------------------------------------
        .balign 8, 0xcc
stubs:
        .set    n, 0
        .rept   8
        .balign 8, 0xcc
        push    n
        jmp     common
        .set    n, n + 1
        .endr
        .balign 8, 0xcc
stubs20:
        .set    n, 0x20
        .rept   8
        .balign 8, 0xcc
        push    n
        jmp     common
        .set    n, n + 1
        .endr
common: push    bp
        mov     bp, sp
        push    ax
        mov     ax, [bp + 2]
        stosw
        mov     ax, [bp + 4]
        sub     ax, bx
        stosw
        mov     ax, [bp + 6]
        stosw
        mov     ax, [bp + 8]
        and     ax, 0x300
        stosw
        mov     [bp + 4], bx
        and     byte ptr [bp + 9], 0xfe # TF off
        pop     ax
        pop     bp
        add     sp, 2
        iret

        .balign 8, 0
gdt:    .quad   0
        .quad   0x00009b000000ffff      # 08 code of 16 bits, ring 0
        .quad   0x000093000000ffff      # 10 data
        .quad   0x0000fb000000ffff      # 18 code, ring 3
        .quad   0x0000f3000000ffff      # 20 data, ring 3
        .quad   0x000081000000002b      # 28 TSS of 16 bits
        .quad   0x0000e40200080000      # 30 call gate of words, two parameters
        .quad   0x000093000000ffff      # 38
idt:    .fill   13, 8, 0
        .word   on_gp, CODE0, 0x8e00, 0
        .fill   0x31 - 14, 8, 0
        .word   on_31, CODE0, 0xe600, 0
        .word   on_32, CODE0, 0xe600, 0
gdtr:   .word   0x3f
        .long   gdt
idtr:   .word   0x33 * 8 - 1
        .long   idt
real_idtr:
        .word   0x3ff
        .long   0
tss:    .word   0, STACK_TSS, DATA0, 0, 0, 0, 0
        .fill   15, 2, 0
bounds: .word   -5, 10
near_pointer:
        .word   near_end, 0
at10_pointer:
        .word   at10 - 0x300, 0x30
pair:   .word   0x1234, 0x5678
wide_pair:
        .long   0x89abcdef
        .word   0x4321
es_pair:
        .word   0x7777, 0
stack_pair:
        .word   0x100, 0x700
        .balign 16, 0
log:    .fill   300, 2, 0

# --- What the log says, by the word of QEMU --------------------------------------------------------------------------------------
#: expect rax&0xffff=0x600d rdi=log+0xd2
#: bytes log+0x000 = 21000000 00000000 03000000 00000000 04000000 00000000 0000feff 00000000
#: bytes log+0x020 = 0600feff 00000000 0500fcff 00000000 0100ffff 00000001 10006b0f 1000007c
#: bytes log+0x040 = 790f0000 10005555 007c1000 007c8e10 00003000 34127856 7856efcd ab892143
#: bytes log+0x060 = 77770007 00017856 34127856 1111fc7b 78561600 00001670 24000200 00002800
#: bytes log+0x080 = 83831000 fc7b9e11 08000000 00000000 00000068 1000f45f bf111b00 22221111
#: bytes log+0x0a0 = fc672300 00681b00 c7111b00 97000068 23000000 0000ca11 00001b00 00009700
#: bytes log+0x0c0 = 00000068 00002300 00002200 00000000 0000
