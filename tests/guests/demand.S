# Demand paging in 32 bits: nothing behind 0x40000000 until it is touched. The #PF handler notes CR2 and the error code,
# maps a page, and returns to the instruction that faulted. Then a page is read-only until the first write (copy on
# write), with CR0.WP.
#: about: demand paging and copy on write by a #PF handler
#: bits: 32
#: org: 0x100000
#: memory: 4M
#: console "faults: r w r w p\n"
#: expect rax=0x600d rbx=0x77777777 rcx=0x77771234 rdx=5 rbp=0
#: bytes log = 00 00 00 40 00 10 00 40 00 20 00 40 fc 3f 00 40 00 00 00 40
#: oracle: qemu
#: gap: paging without long mode

        .equ    DIRECTORY, 0x200000
        .equ    TABLE_LOW, 0x201000
        .equ    TABLE, 0x202000
        .equ    IDT, 0x210000
        .equ    FRAMES, 0x300000
        .equ    WINDOW, 0x40000000
        .equ    ORIGINAL, 0x2f0000
        .equ    STACK, 0x220000

_start: cld
        mov     esp, STACK
        mov     edi, DIRECTORY
        xor     eax, eax
        mov     ecx, 3 * 1024
        rep stosd
        mov     edi, TABLE_LOW
        mov     eax, 3
1:      stosd
        add     eax, 0x1000
        cmp     edi, TABLE_LOW + 0x1000
        jne     1b
        mov     dword ptr [DIRECTORY], TABLE_LOW + 3
        mov     dword ptr [DIRECTORY + 0x400], TABLE + 3

        mov     eax, offset on_page_fault
        mov     [IDT + 14 * 8], ax
        mov     cx, cs
        mov     [IDT + 14 * 8 + 2], cx
        mov     word ptr [IDT + 14 * 8 + 4], 0x8e00
        shr     eax, 16
        mov     [IDT + 14 * 8 + 6], ax
        lidt    [idtr]

        mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80010000         # PG, and WP so that ring 0 obeys read-only pages
        mov     cr0, eax

        xor     ebp, ebp                # frames given out
        mov     edi, offset log
        mov     dword ptr [ORIGINAL], 0x77777777
        mov     esi, offset text
        call    print

        mov     eax, [WINDOW]                   # read, not present: error code 0
        mov     dword ptr [WINDOW + 0x1000], 5  # write, not present: error code 2
        mov     al, [WINDOW + 0x2000]
        mov     dword ptr [WINDOW + 0x3ffc], 6  # the last dword of a page

        mov     dword ptr [TABLE], ORIGINAL + 1 # page 0 now shows the original, read-only
        invlpg  [WINDOW]
        mov     word ptr [WINDOW], 0x1234       # write, present: error code 3: copied first
        mov     ecx, [WINDOW]
        mov     ebx, [ORIGINAL]                 # untouched
        mov     al, 10
        mov     dx, 0x3f8
        out     dx, al
        mov     edx, ebp
        xor     ebp, ebp
        mov     eax, 0x600d
        hlt

on_page_fault:
        pusha
        mov     eax, cr2
        stosd                                   # EDI is the log's end
        mov     [esp], edi                      # POPA brings it back
        mov     ecx, eax
        shr     ecx, 12
        and     ecx, 1023
        mov     ebx, ebp
        shl     ebx, 12
        add     ebx, FRAMES
        inc     dword ptr [esp + 8]             # EBP in the frame of PUSHA
        mov     edx, [esp + 32]                 # the error code
        test    dl, 1
        jz      2f
        mov     esi, WINDOW                     # present: copy on write, 4 KB
        mov     edi, ebx
        push    ecx
        mov     ecx, 1024
        rep movsd
        pop     ecx
2:      or      ebx, 3
        mov     [TABLE + ecx*4], ebx
        invlpg  [eax]
        mov     al, ' '
        mov     ecx, edx
        mov     dx, 0x3f8
        out     dx, al
        and     ecx, 3
        mov     al, [letters + ecx]
        out     dx, al
        popa
        add     esp, 4
        iretd

print:  mov     dx, 0x3f8
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      ret

text:   .asciz  "faults:"
letters:
        .ascii  "r?wp"                          # by error code
        .balign 4, 0
log:    .fill   8, 4, 0
idtr:   .word   256 * 8 - 1
        .long   IDT
