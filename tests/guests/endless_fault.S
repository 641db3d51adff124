# A page fault whose handler is not there: delivering it faults again, and again. Each delivery starts on the same stack
# (IST 1), so nothing ever runs out; no instruction retires and none ever will.
#: about: exception delivery that faults for ever
#: bits: 64
#: org: 0x100000
#: limit: 30000
#: exit limit
#: expect rbx=0x600d rsp=STACK+0x7d0 rip=HANDLER cr2=HANDLER
#: engine: soft

        .equ    TABLES, 0x200000        # PML4, PDPT, PD: our own, so that one address can be absent
        .equ    IDT, 0x210000
        .equ    STACK, 0x220000
        .equ    HANDLER, 0x40000000     # PDPT[1] is empty

_start: cld
        mov     edi, TABLES
        xor     eax, eax
        mov     ecx, 3 * 512
        rep stosq
        mov     qword ptr [TABLES], TABLES + 0x1000 + 3
        mov     qword ptr [TABLES + 0x1000], TABLES + 0x2000 + 3
        mov     edi, TABLES + 0x2000    # 0 to 1 GiB in 2 MB pages
        mov     eax, 0x83
1:      mov     [rdi], rax
        add     rdi, 8
        add     rax, 0x200000
        cmp     edi, TABLES + 0x3000
        jne     1b
        mov     eax, TABLES
        mov     cr3, rax

        sgdt    [rip + gdtr]            # our TSS with IST 1 goes behind the GDT that is there
        mov     rsi, [rip + gdtr + 2]
        movzx   ecx, word ptr [rip + gdtr]
        inc     ecx
        mov     edi, offset gdt
        rep movsb
        mov     eax, edi
        sub     eax, offset gdt         # the selector
        mov     ebx, offset tss
        mov     word ptr [rdi], 103
        mov     [rdi + 2], bx
        shr     ebx, 16
        mov     [rdi + 4], bl
        mov     word ptr [rdi + 5], 0x0089
        mov     [rdi + 7], bh
        mov     qword ptr [rdi + 8], 0
        lea     ecx, [rax + 15]
        mov     [rip + gdtr], cx
        mov     qword ptr [rip + gdtr + 2], offset gdt
        lgdt    [rip + gdtr]
        ltr     ax

        mov     word ptr [IDT + 14 * 16], HANDLER & 0xffff
        mov     ax, cs
        mov     [IDT + 14 * 16 + 2], ax
        mov     word ptr [IDT + 14 * 16 + 4], 0x8e01    # interrupt gate, IST 1
        mov     dword ptr [IDT + 14 * 16 + 6], HANDLER >> 16
        mov     qword ptr [IDT + 14 * 16 + 10], 0
        lidt    [rip + idtr]
        mov     ebx, 0x600d
        mov     rsp, STACK + 0x1000
        mov     eax, HANDLER
        jmp     rax                     # the last instruction that retires

        .balign 8, 0
tss:    .long   0
        .quad   0, 0, 0, 0
        .quad   STACK + 0x800           # IST 1
        .fill   15, 4, 0
gdt:    .fill   64, 8, 0
gdtr:   .word   0
        .quad   0
idtr:   .word   256 * 16 - 1
        .quad   IDT
