# Transfers of long mode: 64-bit gates with and without IST, the stack they build, ring 3 and back by IRETQ, far RET,
# call gate and SYSCALL, compatibility mode at both ends, null SS, addresses that are not canonical. The guest logs what
# each step shows as quadwords behind `log`; RDI is the log's end. A handler of the processor's faults logs vector, error
# code, CS, SS, the two stack pointers and how far the fault stood before RBX, and goes on at RBX.
#: about: 64-bit interrupt and call gates, IST, compatibility mode, SYSCALL and SYSRET, canonical addresses
#: bits: 64
#: org: 0x8000
#: oracle: qemu
#: gap: interrupts and IRETQ in long mode

        .equ    IDT, 0x20000
        .equ    STACK0, 0x6000
        .equ    STACK3, 0x7000
        .equ    STACK_TSS, 0x5000
        .equ    STACK_IST, 0x4000

        .equ    CODE64, 0x08
        .equ    DATA0, 0x10
        .equ    CODE32, 0x18
        .equ    TSS, 0x20               # 16 bytes
        .equ    LDT, 0x30               # 16 bytes
        .equ    GATE, 0x43              # 16 bytes, DPL 3
        .equ    USER32, 0x53            # the order that SYSRET wants: 32-bit code, data, 64-bit code
        .equ    USER_DATA, 0x5b
        .equ    USER64, 0x63
        .equ    BOTH_L_D, 0x68
        .equ    CONFORMING, 0x70
        .equ    GATE_TO_32, 0x80        # call gate to a 32-bit segment

_start: cld
        mov     rdi, offset log
        xor     ecx, ecx
1:      mov     rax, rcx
        shl     rax, 4
        lea     rdx, [rax + IDT]
        add     rax, offset stubs
        mov     [rdx], ax
        mov     word ptr [rdx + 2], CODE64
        mov     word ptr [rdx + 4], 0x8e00
        shr     rax, 16
        mov     [rdx + 6], ax
        shr     rax, 16
        mov     [rdx + 8], eax
        mov     dword ptr [rdx + 12], 0
        inc     ecx
        cmp     ecx, 0x38
        jne     1b
        mov     byte ptr [IDT + 0x30*16 + 5], 0xee      # 0x30: for everybody
        mov     word ptr [IDT + 0x31*16 + 4], 0xee03    # 0x31: for everybody, IST 3
        mov     byte ptr [IDT + 0x32*16 + 5], 0x6e      # 0x32: not present
        mov     word ptr [IDT + 0x33*16 + 2], CODE32    # 0x33: no 64-bit code segment
        mov     byte ptr [IDT + 0x34*16 + 5], 0xe5      # 0x34: a task gate is nothing here
        mov     byte ptr [IDT + 0x35*16 + 5], 0xe6      # 0x35: nor is a 16-bit gate
        mov     word ptr [IDT + 0x36*16 + 2], CONFORMING
        mov     byte ptr [IDT + 0x36*16 + 5], 0xef      # 0x36: a conforming handler, a trap gate
        mov     byte ptr [IDT + 0x37*16 + 5], 0xee      # 0x37: asks for SYSCALL
        lidt    [idtr]
        mov     rax, offset tss
        mov     [gdt + TSS + 2], ax
        shr     rax, 16
        mov     [gdt + TSS + 4], al
        mov     rax, offset by_gate
        mov     [gdt + 0x40], ax
        mov     [gdt + 0x80], ax
        lgdt    [gdtr]
        mov     rsp, STACK0
        push    CODE64
        mov     rax, offset reloaded
        push    rax
        retfq
reloaded:
        mov     eax, DATA0
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     eax, TSS
        ltr     ax
        mov     eax, LDT
        lldt    ax
        str     eax
        stosq
        sldt    eax
        stosq

        mov     rsi, offset asked
2:      movzx   ecx, word ptr [rsi]
        add     rsi, 2
        mov     rax, 0x1111111111111111
        lar     eax, ecx
        setz    dl
        stosq
        mov     rax, 0x1111111111111111
        lsl     eax, ecx
        setz    dh
        movzx   edx, dx
        stosq
        mov     rax, rdx
        stosq
        cmp     rsi, offset asked_end
        jne     2b

# --- Ring 0: the frame is on 16 bytes whatever RSP was, and SS:RSP is always in it ----------------------------------------
        mov     rbx, offset q1
        int     0x30
q1:     sub     rsp, 3
        mov     rbx, offset q2
        int     0x30
q2:     add     rsp, 3
        mov     rbx, offset q3
        int     0x31                    # IST
q3:     xor     eax, eax
        mov     ss, eax                 # a null SS is right here
        mov     rbx, offset q4
        int     0x30
q4:     mov     eax, DATA0
        mov     ss, eax
        mov     rbx, offset q6
        int     0x32
q6:     mov     rbx, offset q7
        int     0x33
q7:     mov     rbx, offset q8
        int     0x34
q8:     mov     rbx, offset q9
        int     0x35
q9:     mov     rbx, offset q10
        int     0x38                    # beyond the IDT
q10:    mov     rbx, offset q11
        ud2
q11:    mov     rbx, offset q17
        mov     rax, 0x800000000000
        mov     al, [rax]               # not canonical
q17:
        mov     rsp, STACK0
q20:    mov     eax, 5
        mov     cr8, rax
        mov     rax, cr8
        stosq
        xor     eax, eax
        mov     cr8, rax
q21:    mov     rbx, offset q22
        mov     eax, LDT                # an LDT is no TSS
        ltr     ax
q22:    mov     rbx, offset q23
        mov     eax, TSS
        ltr     ax                      # busy
q23:    push    0x4000                  # NT: IRETQ raises #GP
        popfq
        mov     rbx, offset q24
        iretq
q24:    push    2
        popfq

# --- GS base and SWAPGS -----------------------------------------------------------------------------------------------------
        mov     ecx, 0xc0000102
        mov     eax, offset value
        xor     edx, edx
        wrmsr
        swapgs
        mov     rax, gs:[0]
        stosq
        swapgs

# --- Compatibility mode at ring 0 ------------------------------------------------------------------------------------------------
        push    CODE32
        mov     rax, offset compat0
        push    rax
        retfq
        .code32
compat0:
        mov     ebx, offset q25
        int     0x30
q25:    mov     eax, esp
        stosd
        xor     eax, eax
        stosd
        mov     ebx, offset q26
        mov     eax, 3
        mov     ss, eax                 # no null SS here: #GP
q26:    ljmp    CODE64, offset back64
        .code64
back64:

# --- Ring 3 by IRETQ ------------------------------------------------------------------------------------------------------------------
        push    USER_DATA
        push    STACK3 + 5
        push    0x202
        push    USER64
        mov     rax, offset ring3
        push    rax
        iretq
ring3:  mov     eax, cs
        stosq
        mov     rax, rsp
        stosq
        mov     eax, ds                 # DATA0 was dropped
        stosq
        mov     rbx, offset q27
        int     0x30
q27:    mov     rbx, offset q28
        int     0x31
q28:    mov     rbx, offset q29
        int     0x20                    # DPL 0
q29:    mov     rbx, offset q30
        int     0x36                    # a conforming handler runs in ring 3
q30:    mov     rbx, offset q31
        hlt
q31:    mov     rbx, offset q32
        swapgs
q32:    mov     rbx, offset q33
        mov     rcx, 0xc0000080
        rdmsr
q33:    .byte   0x66, 0x90
        call    fword ptr [gate_pointer]        # 64-bit call gate
        mov     rax, rsp
        stosq
        mov     rbx, offset q34
        call    fword ptr [gate32_pointer]        # leads to 32-bit code: #GP
q34:    mov     rax, offset in_kernel
        mov     rbx, offset q35
        syscall                         # EFER.SCE is 0
q35:    int     0x37                    # asks ring 0 for SCE
asked_sce:
        mov     rbx, 0x1234
        syscall
        mov     rax, rcx
        stosq
        mov     eax, cs
        stosq
        mov     eax, ss
        stosq
        pushfq
        pop     rax
        stosq

# --- Ring 3 in compatibility mode -----------------------------------------------------------------------------------------------------
        push    USER32
        mov     rax, offset compat3
        push    rax
        retfq
        .code32
compat3:
        mov     ecx, USER_DATA          # null segments are of no use here
        mov     ds, ecx
        mov     es, ecx
        mov     eax, cs
        stosd
        mov     eax, esp
        stosd
        mov     ebx, offset q36
        int     0x30
q36:    lcall   GATE, 0          # the gate is 64 bits wide from here too
        mov     eax, esp
        stosd
        stosd
        mov     ebx, offset q37
        mov     eax, cr0
q37:    mov     ebx, offset done
        hlt
        .code64

in_kernel:
        mov     rax, rcx
        stosq
        mov     rax, r11
        stosq
        mov     eax, cs
        stosq
        mov     eax, ss
        stosq
        mov     rax, rsp
        stosq
        pushfq
        pop     rax
        stosq
        sysretq

by_gate:
        mov     eax, cs
        stosq
        mov     eax, ss
        stosq
        mov     rax, rsp
        stosq
        mov     rax, [rsp]
        stosq
        mov     rax, [rsp + 8]
        stosq
        mov     rax, [rsp + 16]
        stosq
        mov     rax, [rsp + 24]
        stosq
        retfq

        .balign 16, 0xcc
stubs:
        .set    n, 0
        .rept   0x38
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

common: push    rax
        mov     rax, [rsp + 8]          # vector
        shl     rax, 32
        test    byte ptr [rsp + 16], 2  # an entry of the IDT: foreign machines disagree on its number here
        jz      3f
        and     qword ptr [rsp + 16], 7
3:      or      rax, [rsp + 16]         # error code
        stosq
        mov     rax, [rsp + 32]         # CS
        stosq
        mov     rax, [rsp + 40]         # RFLAGS: IF, NT
        and     rax, 0x4200
        stosq
        mov     rax, [rsp + 48]         # RSP
        stosq
        mov     rax, [rsp + 56]         # SS
        stosq
        mov     rax, rsp
        stosq
        mov     eax, ss
        stosq
        mov     rax, [rsp + 24]         # RIP
        sub     rax, rbx
        stosq
        and     qword ptr [rsp + 40], -0x4001
        cmp     byte ptr [rsp + 8], 0x37
        je      on_sce
        cmp     rbx, offset done
        je      done
        mov     [rsp + 24], rbx
        pop     rax
        add     rsp, 16
        iretq

on_sce: push    rcx
        push    rdx
        mov     ecx, 0xc0000080
        rdmsr
        or      eax, 1
        wrmsr
        mov     ecx, 0xc0000081         # STAR
        xor     eax, eax
        mov     edx, 0x00530008
        wrmsr
        mov     ecx, 0xc0000082         # LSTAR
        mov     eax, offset in_kernel
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000084         # FMASK
        mov     eax, 0x300
        wrmsr
        pop     rdx
        pop     rcx
        mov     rax, offset asked_sce
        mov     [rsp + 24], rax
        pop     rax
        add     rsp, 16
        iretq

done:   cli
        mov     eax, 0x600d
        hlt

        .balign 8, 0
gdt:    .quad   0
        .quad   0x00af9b000000ffff      # 08 64-bit code, ring 0
        .quad   0x00cf93000000ffff      # 10 data, ring 0
        .quad   0x00cf9b000000ffff      # 18 32-bit code, ring 0
        .quad   0x0000890000000067, 0   # 20 TSS
        .quad   0x0000820000000007, 0   # 30 LDT
        .quad   0x0000ec0000080000, 0   # 40 call gate, DPL 3
        .quad   0x00cffb000000ffff      # 50 32-bit code, ring 3
        .quad   0x00cff3000000ffff      # 58 data, ring 3
        .quad   0x00affb000000ffff      # 60 64-bit code, ring 3
        .quad   0x00ef9b000000ffff      # 68 L and D
        .quad   0x00af9f000000ffff      # 70 conforming 64-bit code
        .quad   0
        .quad   0x0000ec0000180000, 0   # 80 call gate to 32-bit code
gdtr:   .word   0x8f
        .quad   gdt
idtr:   .word   0x38 * 16 - 1
        .quad   IDT
gate_pointer:
        .long   0
        .word   GATE
gate32_pointer:
        .long   0
        .word   GATE_TO_32 + 3
asked:  .word   CODE64, DATA0, CODE32, TSS, LDT, GATE, USER64, CONFORMING, 0
asked_end:
        .balign 8, 0
value:  .quad   0x1122334455667788
        .long   0
tss:    .long   0
        .quad   STACK_TSS + 9, 0, 0, 0
        .quad   0, 0, STACK_IST + 1, 0, 0, 0, 0
        .fill   8, 4, 0
        .balign 16, 0
log:    .fill   600, 8, 0

# --- What the log says, by the word of QEMU --------------------------------------------------------------------------------------
#: expect rax=0x600d rdi=log+0x930
#: bytes log+0x000 = 20000000 00000000 30000000 00000000 009ba000 00000000 ffffffff 00000000
#: bytes log+0x020 = 01010000 00000000 0093c000 00000000 ffffffff 00000000 01010000 00000000
#: bytes log+0x040 = 009bc000 00000000 ffffffff 00000000 01010000 00000000 008b0000 00000000
#: bytes log+0x060 = 67000000 00000000 01010000 00000000 00820000 00000000 07000000 00000000
#: bytes log+0x080 = 01010000 00000000 00ec0000 00000000 11111111 11111111 01000000 00000000
#: bytes log+0x0a0 = 00fba000 00000000 ffffffff 00000000 01010000 00000000 009fa000 00000000
#: bytes log+0x0c0 = ffffffff 00000000 01010000 00000000 11111111 11111111 11111111 11111111
#: bytes log+0x0e0 = 00000000 00000000 00000000 30000000 08000000 00000000 00000000 00000000
#: bytes log+0x100 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x120 = 00000000 00000000 00000000 30000000 08000000 00000000 00000000 00000000
#: bytes log+0x140 = fd5f0000 00000000 10000000 00000000 b05f0000 00000000 10000000 00000000
#: bytes log+0x160 = 00000000 00000000 00000000 31000000 08000000 00000000 00000000 00000000
#: bytes log+0x180 = 00600000 00000000 10000000 00000000 c03f0000 00000000 00000000 00000000
#: bytes log+0x1a0 = 00000000 00000000 00000000 30000000 08000000 00000000 00000000 00000000
#: bytes log+0x1c0 = 00600000 00000000 00000000 00000000 c05f0000 00000000 00000000 00000000
#: bytes log+0x1e0 = 00000000 00000000 02000000 0b000000 08000000 00000000 00000000 00000000
#: bytes log+0x200 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x220 = feffffff ffffffff 18000000 0d000000 08000000 00000000 00000000 00000000
#: bytes log+0x240 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x260 = feffffff ffffffff 02000000 0d000000 08000000 00000000 00000000 00000000
#: bytes log+0x280 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x2a0 = feffffff ffffffff 02000000 0d000000 08000000 00000000 00000000 00000000
#: bytes log+0x2c0 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x2e0 = feffffff ffffffff 02000000 0d000000 08000000 00000000 00000000 00000000
#: bytes log+0x300 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x320 = feffffff ffffffff 00000000 06000000 08000000 00000000 00000000 00000000
#: bytes log+0x340 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x360 = feffffff ffffffff 00000000 0d000000 08000000 00000000 00000000 00000000
#: bytes log+0x380 = 00600000 00000000 10000000 00000000 c05f0000 00000000 10000000 00000000
#: bytes log+0x3a0 = feffffff ffffffff 05000000 00000000 30000000 0d000000 08000000 00000000
#: bytes log+0x3c0 = 00000000 00000000 00600000 00000000 10000000 00000000 c05f0000 00000000
#: bytes log+0x3e0 = 10000000 00000000 fdffffff ffffffff 20000000 0d000000 08000000 00000000
#: bytes log+0x400 = 00000000 00000000 00600000 00000000 10000000 00000000 c05f0000 00000000
#: bytes log+0x420 = 10000000 00000000 fdffffff ffffffff 00000000 0d000000 08000000 00000000
#: bytes log+0x440 = 00400000 00000000 00600000 00000000 10000000 00000000 c05f0000 00000000
#: bytes log+0x460 = 10000000 00000000 feffffff ffffffff 88776655 44332211 00000000 30000000
#: bytes log+0x480 = 18000000 00000000 00000000 00000000 00600000 00000000 10000000 00000000
#: bytes log+0x4a0 = c05f0000 00000000 10000000 00000000 00000000 00000000 00600000 00000000
#: bytes log+0x4c0 = 00000000 0d000000 18000000 00000000 00000000 00000000 00600000 00000000
#: bytes log+0x4e0 = 10000000 00000000 c05f0000 00000000 10000000 00000000 feffffff ffffffff
#: bytes log+0x500 = 63000000 00000000 05700000 00000000 00000000 00000000 00000000 30000000
#: bytes log+0x520 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x540 = c04f0000 00000000 00000000 00000000 00000000 00000000 00000000 31000000
#: bytes log+0x560 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x580 = c03f0000 00000000 00000000 00000000 00000000 00000000 02000000 0d000000
#: bytes log+0x5a0 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x5c0 = c04f0000 00000000 00000000 00000000 feffffff ffffffff 00000000 36000000
#: bytes log+0x5e0 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x600 = c06f0000 00000000 5b000000 00000000 00000000 00000000 00000000 0d000000
#: bytes log+0x620 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x640 = c04f0000 00000000 00000000 00000000 ffffffff ffffffff 00000000 0d000000
#: bytes log+0x660 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x680 = c04f0000 00000000 00000000 00000000 fdffffff ffffffff 00000000 0d000000
#: bytes log+0x6a0 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x6c0 = c04f0000 00000000 00000000 00000000 feffffff ffffffff 08000000 00000000
#: bytes log+0x6e0 = 00000000 00000000 e94f0000 00000000 e2820000 00000000 63000000 00000000
#: bytes log+0x700 = 05700000 00000000 5b000000 00000000 05700000 00000000 18000000 0d000000
#: bytes log+0x720 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x740 = c04f0000 00000000 00000000 00000000 f9ffffff ffffffff 00000000 06000000
#: bytes log+0x760 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x780 = c04f0000 00000000 00000000 00000000 feffffff ffffffff 00000000 37000000
#: bytes log+0x7a0 = 63000000 00000000 00020000 00000000 05700000 00000000 5b000000 00000000
#: bytes log+0x7c0 = c04f0000 00000000 00000000 00000000 02000000 00000000 10830000 00000000
#: bytes log+0x7e0 = 02020000 00000000 08000000 00000000 10000000 00000000 05700000 00000000
#: bytes log+0x800 = 02000000 00000000 10830000 00000000 63000000 00000000 5b000000 00000000
#: bytes log+0x820 = 02020000 00000000 53000000 05700000 00000000 30000000 53000000 00000000
#: bytes log+0x840 = 00020000 00000000 05700000 00000000 5b000000 00000000 c04f0000 00000000
#: bytes log+0x860 = 00000000 00000000 00000000 00000000 08000000 00000000 00000000 00000000
#: bytes log+0x880 = e94f0000 00000000 4a830000 00000000 53000000 00000000 05700000 00000000
#: bytes log+0x8a0 = 5b000000 00000000 05700000 05700000 00000000 0d000000 53000000 00000000
#: bytes log+0x8c0 = 00020000 00000000 05700000 00000000 5b000000 00000000 c04f0000 00000000
#: bytes log+0x8e0 = 00000000 00000000 fdffffff ffffffff 00000000 0d000000 53000000 00000000
#: bytes log+0x900 = 00020000 00000000 05700000 00000000 5b000000 00000000 c04f0000 00000000
#: bytes log+0x920 = 00000000 00000000 72fbffff ffffffff
