# Protection in 32-bit protected mode, without paging: every way from one privilege level to another. The guest logs what
# each step shows (selectors, stack pointers, error codes) as dwords behind `log`; EDI is the log's end throughout.
# A handler of the processor's faults logs vector, error code and CS, and goes on at EBX.
#: about: call gates with parameters, far CALL and RET, IRET to ring 3 and back, conforming code, error codes, TF
#: bits: 32
#: org: 0x8000
#: oracle: qemu
#: gap: protected mode without paging

        .equ    IDT, 0x20000
        .equ    STACK0, 0x6000
        .equ    STACK3, 0x7000
        .equ    STACK_TSS, 0x5000

        .equ    CODE0, 0x08
        .equ    DATA0, 0x10
        .equ    CODE3, 0x1b
        .equ    DATA3, 0x23
        .equ    TSS, 0x28
        .equ    GATE_2, 0x33            # call gate to ring 0, two dwords of parameters
        .equ    GATE_0, 0x38            # the same, but DPL 0
        .equ    CONFORMING, 0x40
        .equ    ABSENT_CODE, 0x48
        .equ    ABSENT_DATA, 0x53       # DPL 3, writable, not present
        .equ    GATE_16, 0x5b           # 16-bit call gate, one word
        .equ    GATE_ABSENT, 0x63
        .equ    LDT, 0x68
        .equ    EXEC_ONLY, 0x70
        .equ    CODE16, 0x78
        .equ    GATE_DATA, 0x83         # gate whose selector is no code segment

_start: cld
        mov     edi, offset log
        mov     ecx, 0                  # every vector gets a gate to its stub
1:      mov     eax, ecx
        shl     eax, 4
        add     eax, offset stubs
        mov     [IDT + ecx*8], ax
        mov     word ptr [IDT + ecx*8 + 2], CODE0
        mov     word ptr [IDT + ecx*8 + 4], 0x8e00
        shr     eax, 16
        mov     [IDT + ecx*8 + 6], ax
        inc     ecx
        cmp     ecx, 0x34
        jne     1b
        mov     byte ptr [IDT + 3*8 + 5], 0xee          # INT3, INTO and 0x30 are for everybody
        mov     byte ptr [IDT + 4*8 + 5], 0xee
        mov     byte ptr [IDT + 0x30*8 + 5], 0xee
        mov     byte ptr [IDT + 0x32*8 + 5], 0x6e       # 0x32: not present
        mov     byte ptr [IDT + 0x33*8 + 5], 0xe6       # 0x33: a 16-bit gate for everybody
        mov     eax, offset on_words
        mov     [IDT + 0x33*8], ax
        lidt    [idtr]

        mov     eax, offset tss
        mov     [gdt + TSS + 2], ax
        shr     eax, 16
        mov     [gdt + TSS + 4], al
        mov     eax, offset by_gate
        mov     [gdt + 0x30], ax
        mov     [gdt + 0x38], ax
        mov     [gdt + 0x60], ax
        mov     [gdt + 0x80], ax
        shr     eax, 16
        mov     [gdt + 0x36], ax
        mov     [gdt + 0x3e], ax
        mov     [gdt + 0x66], ax
        mov     [gdt + 0x86], ax
        mov     eax, offset by_gate16
        mov     [gdt + 0x58], ax
        lgdt    [gdtr]
        ljmp    CODE0, offset p1
p1:     mov     eax, DATA0
        mov     ds, eax
        mov     es, eax
        mov     fs, eax
        mov     gs, eax
        mov     ss, eax
        mov     esp, STACK0
        mov     eax, TSS
        ltr     ax
        mov     eax, LDT
        lldt    ax
        xor     eax, eax
        str     eax
        stosd
        sldt    eax
        stosd
        mov     eax, [gdt + TSS + 4]    # busy now
        and     eax, 0xff00
        stosd

# --- Asking about selectors: LAR, LSL, VERR, VERW ------------------------------------------------------------------------
        mov     esi, offset asked
3:      movzx   ecx, word ptr [esi]
        add     esi, 2
        mov     eax, 0x11111111
        lar     eax, ecx
        setz    dl
        stosd
        mov     eax, 0x11111111
        lsl     eax, ecx
        setz    dh
        stosd
        verr    cx
        setz    al
        verw    cx
        setz    ah
        shl     edx, 16
        mov     dx, ax
        mov     eax, edx
        stosd
        cmp     esi, offset asked_end
        jne     3b

        mov     ax, 0x1230              # ARPL raises, then does not
        mov     cx, 3
        arpl    ax, cx
        setz    cl
        stosw
        arpl    ax, ax
        setz    ch
        mov     ax, cx
        stosw

# --- Far CALL and RET at the same level ------------------------------------------------------------------------------------
        push    0x77777777
        push    0x66666666
        lcall   CODE0, offset same_level
        mov     eax, esp
        stosd
        lcall   CONFORMING, offset same_level
        mov     eax, esp
        stosd
        lcall   GATE_2 - 3, 0    # from ring 0 through the gate: same level, no copy
        mov     eax, esp
        stosd
        jmp     faults0

same_level:
        mov     eax, cs
        stosd
        mov     eax, esp
        stosd
        mov     eax, [esp + 4]          # the caller's CS
        stosd
        retf

# Behind every call gate: logs CS, SS, where the stack stands, and eight words of it.
by_gate:
        mov     eax, cs
        stosd
        mov     eax, ss
        stosd
        mov     eax, esp
        stosd
        mov     eax, [esp + 4]
        stosd
        mov     eax, cs
        cmp     eax, [esp + 4]
        je      1f                      # from ring 0
        mov     eax, [esp + 8]
        stosd
        mov     eax, [esp + 12]
        stosd
        mov     eax, [esp + 16]
        stosd
        mov     eax, [esp + 20]
        stosd
        mov     eax, DATA0              # ring 3 must not find this one again
        mov     gs, eax
        retf    8
1:      retf

by_gate16:                              # a 16-bit gate: words on the ring-0 stack
        mov     eax, esp
        stosd
        mov     eax, [esp]
        stosd
        mov     eax, [esp + 4]
        stosd
        mov     eax, [esp + 8]
        stosd
        .byte   0x66, 0xca, 2, 0   # retf 2 with words

# --- Faults in ring 0 ----------------------------------------------------------------------------------------------------------
faults0:
        mov     ebx, offset p2          # a selector beyond the table
        mov     eax, 0xfff8
        mov     es, eax
p2:     mov     ebx, offset p3          # beyond the LDT's limit
        mov     eax, 0x1c
        mov     es, eax
p3:     mov     ebx, offset p4          # the LDT's second entry is data
        mov     eax, 0x0c
        mov     fs, eax
p4:     mov     eax, fs
        stosd
        mov     ebx, offset p5          # SS: a null selector
        xor     eax, eax
        mov     ss, eax
p5:     mov     ebx, offset p6          # SS: DPL 3
        mov     eax, DATA3
        mov     ss, eax
p6:     mov     ebx, offset p7          # SS: code
        mov     eax, CODE0
        mov     ss, eax
p7:     mov     ebx, offset p8          # DS: execute-only code
        mov     eax, EXEC_ONLY
        mov     ds, eax
p8:     mov     ebx, offset p9          # DS: not present
        mov     eax, ABSENT_DATA
        mov     ds, eax
p9:     mov     ebx, offset p10          # DS: a system segment
        mov     eax, TSS
        mov     ds, eax
p10:    mov     ebx, offset p11
        ljmp    ABSENT_CODE, offset p11
p11:    mov     ebx, offset p12
        ljmp    DATA0, offset p12
p12:    mov     ebx, offset p13
        ljmp    0, offset p13
p13:    mov     ebx, offset p14
        lcall   GATE_ABSENT, 0
p14:    mov     ebx, offset p15
        lcall   GATE_DATA, 0
p15:    mov     ebx, offset p16          # CS of DPL 3 without a gate
        ljmp    CODE3, offset p16
p16:    mov     ebx, offset p17          # LTR of a busy TSS
        mov     eax, TSS
        ltr     ax
p17:    mov     ebx, offset p18          # LTR of data, LLDT of data
        mov     eax, DATA0
        ltr     ax
p18:    mov     ebx, offset p19
        lldt    ax
p19:    mov     ebx, offset p20          # RETF to a data segment
        push    DATA0
        push    0
        retf
p20:    mov     esp, STACK0
        mov     ebx, offset p21          # IRET to ring 3 with an SS of ring 0
        push    DATA0
        push    STACK3
        pushfd
        push    CODE3
        push    offset ring3
        iretd
p21:    mov     esp, STACK0
        mov     ebx, offset p23
        int     0x32                    # not present
p23:    mov     ebx, offset p24          # unknown control register
        .byte   0x0f, 0x22, 0xc8
p24:    mov     ebx, offset p25          # TF: one trap after the NOP, logged by the handler
        pushfd
        or      dword ptr [esp], 0x100
        popfd
        nop
        nop
p25:    mov     eax, cs

# --- Ring 3 ----------------------------------------------------------------------------------------------------------------------
        mov     ecx, DATA3
        mov     ds, ecx
        mov     es, ecx
        mov     fs, ecx
        mov     eax, DATA0
        mov     gs, eax                 # dropped on the way out
        push    DATA3
        push    STACK3
        push    0x3202                  # IOPL 3, IF
        push    CODE3
        push    offset ring3
        iretd

ring3:  mov     eax, cs
        stosd
        mov     eax, ss
        stosd
        mov     eax, gs
        stosd
        mov     eax, esp
        stosd
        push    0x11111111
        push    0x22222222
        lcall   GATE_2, 0
        mov     eax, esp                # the parameters are gone
        stosd
        mov     eax, gs
        stosd
        push    0x44443333
        lcall   GATE_16, 0
        mov     eax, esp
        stosd
        add     esp, 2
        lcall   CONFORMING, offset same_level
        int     0x30
        int     0x33
        mov     eax, esp
        stosd
        int3
        mov     eax, 0x7fffffff
        inc     eax
        into
        mov     ebx, offset p26          # DPL 0
        int     0x31
p26:    mov     ebx, offset p27
        hlt
p27:    mov     ebx, offset p28
        lcall   GATE_0, 0
p28:    mov     ebx, offset p29
        lcall   CODE0, offset same_level
p29:    mov     ebx, offset p30
        mov     eax, DATA0
        mov     ds, eax
p30:    mov     ebx, offset p31
        mov     eax, cr0
p31:    mov     ebx, offset p32
        ltr     ax
p32:    mov     ebx, offset p33
        mov     ecx, 0x1b
        rdmsr
p33:    cli                             # IOPL 3: allowed
        sti
        int     0x30
        int     0x20                    # asks ring 0 for IOPL 0 (its gate is for ring 0: #GP, the handler sees 0x102)
ring3_iopl0:
        pushfd
        pop     eax
        stosd
        mov     ebx, offset p34
        cli
p34:    pushfd
        and     dword ptr [esp], 0xfffffdff
        popfd                           # IF stays: no fault
        pushfd
        pop     eax
        stosd
        mov     dx, 0x3f8               # the map allows COM1's first two ports
        in      ax, dx
        mov     ebx, offset p35
        in      eax, dx
p35:    mov     ebx, offset p36
        mov     dx, 0x60
        in      al, dx
p36:    mov     ebx, offset p37
        xor     eax, eax
        mov     ss, eax
p37:    mov     ebx, offset done
        int     0x31

# --- The handler of everything -------------------------------------------------------------------------------------------------------
        .balign 16, 0xcc
stubs:
        .set    n, 0
        .rept   0x34
        .balign 16, 0xcc
        .if n == 8 || (n >= 10 && n <= 14) || n == 17
        nop
        nop
        .else
        push    0
        .endif
        push    n
        jmp     common
        .set    n, n + 1
        .endr

common: push    eax
        push    ds
        push    es
        mov     eax, DATA0
        mov     ds, eax
        mov     es, eax
        mov     eax, [esp + 12]         # vector
        shl     eax, 24
        or      eax, [esp + 16]         # error code
        stosd
        mov     eax, [esp + 24]         # CS
        stosd
        mov     eax, [esp + 28]         # EFLAGS: TF, IOPL, IF
        and     eax, 0x3300
        stosd
        mov     eax, [esp + 12]
        cmp     eax, 1
        je      on_debug
        cmp     eax, 3
        je      2f
        cmp     eax, 4
        je      2f
        cmp     eax, 0x30
        je      on_service
        cmp     dword ptr [esp + 16], 0x102
        je      on_iopl
        mov     eax, [esp + 20]         # the fault's own address must be before EBX
        sub     eax, ebx
        stosd
        mov     [esp + 20], ebx
        cmp     ebx, offset done
        jne     2f
        mov     dword ptr [esp + 24], CODE0
        pop     es
        pop     ds
        pop     eax
        mov     esp, STACK0
        jmp     done
2:      pop     es
        pop     ds
        pop     eax
        add     esp, 8
        iretd

on_debug:
        mov     eax, dr6
        and     eax, 0xf00f
        stosd
        xor     eax, eax
        mov     dr6, eax
        and     dword ptr [esp + 28], 0xfffffeff
        jmp     2b
on_service:
        mov     eax, [esp + 32]         # ESP and SS of ring 3
        stosd
        mov     eax, [esp + 36]
        stosd
        jmp     2b
on_iopl:
        and     dword ptr [esp + 28], 0xffffcfff
        mov     dword ptr [esp + 20], offset ring3_iopl0
        jmp     2b

done:   mov     eax, 0x600d
        cli
        hlt

on_words:                               # a 16-bit gate: five words on the ring-0 stack
        mov     eax, esp
        stosd
        mov     eax, [esp]
        stosd
        mov     eax, [esp + 4]
        stosd
        movzx   eax, word ptr [esp + 8]
        stosd
        .byte   0x66, 0xcf              # IRET with words

        .balign 8, 0
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 08 code, ring 0
        .quad   0x00cf93000000ffff      # 10 data, ring 0
        .quad   0x00cffb000000ffff      # 18 code, ring 3
        .quad   0x00cff3000000ffff      # 20 data, ring 3
        .quad   0x00008900000000ef      # 28 TSS
        .quad   0x0000ec0200080000      # 30 call gate, DPL 3, two parameters
        .quad   0x00008c0000080000      # 38 call gate, DPL 0
        .quad   0x00cf9f000000ffff      # 40 conforming code
        .quad   0x00cf1b000000ffff      # 48 code, not present
        .quad   0x00cf73000000ffff      # 50 data, DPL 3, not present
        .quad   0x0000e40100080000      # 58 16-bit call gate, one parameter
        .quad   0x00006c0000080000      # 60 call gate, DPL 3, not present
        .quad   0x0000820000000017      # 68 LDT
        .quad   0x00cf99000000ffff      # 70 execute-only code
        .quad   0x00009b000000ffff      # 78 16-bit code
        .quad   0x0000ec0000100000      # 80 gate to a data segment
gdtr:   .word   0x87
        .long   gdt
idtr:   .word   0x34 * 8 - 1
        .long   IDT
asked:  .word   CODE0, DATA0, CODE3, DATA3, TSS, GATE_2, CONFORMING, ABSENT_DATA, LDT, EXEC_ONLY, 0, 0x1000
asked_end:
        .balign 4, 0
tss:    .long   0, STACK_TSS, DATA0
        .fill   22, 4, 0
        .word   0, 0x68
map:    .fill   0x7f, 1, 0xff
        .byte   0xfc                    # ports 3f8 and 3f9
        .fill   8, 1, 0xff
        .balign 16, 0
log:    .fill   400, 4, 0

# --- What the log says, by the word of QEMU --------------------------------------------------------------------------------------
#: expect rax=0x600d rdi=log+0x3d8
#: bytes log+0x000 = 28000000 68000000 008b0000 009bc000 ffffffff 01000101 0093c000 ffffffff
#: bytes log+0x020 = 01010101 00fbc000 ffffffff 01000101 00f3c000 ffffffff 01010101 008b0000
#: bytes log+0x040 = ef000000 00000101 00ec0000 11111111 00000100 009fc000 ffffffff 01000101
#: bytes log+0x060 = 0073c000 ffffffff 01010101 00820000 17000000 00000101 0099c000 ffffffff
#: bytes log+0x080 = 00000101 11111111 11111111 00000000 11111111 11111111 00000000 33120100
#: bytes log+0x0a0 = 08000000 f05f0000 08000000 f85f0000 40000000 f05f0000 08000000 f85f0000
#: bytes log+0x0c0 = 08000000 10000000 f05f0000 08000000 f85f0000 f8ff000d 08000000 00000000
#: bytes log+0x0e0 = feffffff 1c00000d 08000000 00000000 feffffff 0c00000d 08000000 00000000
#: bytes log+0x100 = feffffff 10000000 0000000d 08000000 00000000 feffffff 2000000d 08000000
#: bytes log+0x120 = 00000000 feffffff 0800000d 08000000 00000000 feffffff 7000000d 08000000
#: bytes log+0x140 = 00000000 feffffff 5000000b 08000000 00000000 feffffff 2800000d 08000000
#: bytes log+0x160 = 00000000 feffffff 4800000b 08000000 00000000 f9ffffff 1000000d 08000000
#: bytes log+0x180 = 00000000 f9ffffff 0000000d 08000000 00000000 f9ffffff 6000000b 08000000
#: bytes log+0x1a0 = 00000000 f9ffffff 1000000d 08000000 00000000 f9ffffff 1800000d 08000000
#: bytes log+0x1c0 = 00000000 f9ffffff 2800000d 08000000 00000000 fdffffff 1000000d 08000000
#: bytes log+0x1e0 = 00000000 fdffffff 1000000d 08000000 00000000 fdffffff 1000000d 08000000
#: bytes log+0x200 = 00000000 ffffffff 1000000d 08000000 00000000 ffffffff 9201000b 08000000
#: bytes log+0x220 = 00000000 feffffff 00000006 08000000 00000000 fdffffff 00000001 08000000
#: bytes log+0x240 = 00010000 00400000 1b000000 23000000 00000000 00700000 08000000 10000000
#: bytes log+0x260 = e84f0000 1b000000 22222222 11111111 f86f0000 23000000 00700000 00000000
#: bytes log+0x280 = f64f0000 62831b00 3333fc6f 23000000 fe6f0000 43000000 f86f0000 1b000000
#: bytes log+0x2a0 = 00000030 1b000000 00320000 00700000 23000000 f64f0000 73831b00 16320070
#: bytes log+0x2c0 = 23000000 00700000 00000003 1b000000 00320000 00000004 1b000000 00320000
#: bytes log+0x2e0 = 8a01000d 1b000000 00320000 feffffff 0000000d 1b000000 00320000 ffffffff
#: bytes log+0x300 = 3800000d 1b000000 00320000 f9ffffff 0800000d 1b000000 00320000 f9ffffff
#: bytes log+0x320 = 1000000d 1b000000 00320000 feffffff 0000000d 1b000000 00320000 fdffffff
#: bytes log+0x340 = 0000000d 1b000000 00320000 fdffffff 0000000d 1b000000 00320000 feffffff
#: bytes log+0x360 = 00000030 1b000000 00320000 00700000 23000000 0201000d 1b000000 00320000
#: bytes log+0x380 = 960a0000 0000000d 1b000000 00020000 ffffffff 960a0000 0000000d 1b000000
#: bytes log+0x3a0 = 00020000 ffffffff 0000000d 1b000000 00020000 ffffffff 0000000d 1b000000
#: bytes log+0x3c0 = 00020000 feffffff 8a01000d 1b000000 00020000 19fcffff
