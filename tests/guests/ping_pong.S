# Two processes with their own page tables take turns. Both see their own page at 0x40000000 and a common one at
# 0x40001000; the kernel switches CR3 eight times. A hypervisor that keeps its shadow pages refills nothing after the
# first turn of each.
#: about: two processes in a CR3 ping-pong
#: bits: 32
#: org: 0x100000
#: console "abababab"
#: expect rax=0x600d rbx=4 rcx=40 rdx=8
#: oracle: qemu
#: gap: paging without long mode

        .equ    DIRECTORY_A, 0x200000
        .equ    DIRECTORY_B, 0x201000
        .equ    TABLE_LOW, 0x202000     # common: linear = physical for 0 to 4 MB
        .equ    TABLE_A, 0x203000
        .equ    TABLE_B, 0x204000
        .equ    PAGE_A, 0x210000
        .equ    PAGE_B, 0x211000
        .equ    PAGE_COMMON, 0x212000
        .equ    OWN, 0x40000000
        .equ    COMMON, 0x40001000
        .equ    STACK, 0x220000

_start: cld
        mov     esp, STACK
        mov     edi, DIRECTORY_A
        xor     eax, eax
        mov     ecx, 5 * 1024
        rep stosd
        mov     edi, TABLE_LOW
        mov     eax, 3
1:      stosd
        add     eax, 0x1000
        cmp     edi, TABLE_LOW + 0x1000
        jne     1b
        mov     dword ptr [DIRECTORY_A], TABLE_LOW + 3
        mov     dword ptr [DIRECTORY_B], TABLE_LOW + 3
        mov     dword ptr [DIRECTORY_A + 0x400], TABLE_A + 3
        mov     dword ptr [DIRECTORY_B + 0x400], TABLE_B + 3
        mov     dword ptr [TABLE_A], PAGE_A + 3
        mov     dword ptr [TABLE_B], PAGE_B + 3
        mov     dword ptr [TABLE_A + 4], PAGE_COMMON + 3
        mov     dword ptr [TABLE_B + 4], PAGE_COMMON + 3
        mov     dword ptr [PAGE_A], 'a'                 # what each prints
        mov     dword ptr [PAGE_B], 'b'

        mov     eax, DIRECTORY_A
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax

        mov     ebp, 4
turn:   mov     eax, DIRECTORY_A
        mov     cr3, eax
        call    process
        mov     eax, DIRECTORY_B        # the same code goes on in another address space
        mov     cr3, eax
        call    process
        dec     ebp
        jnz     turn

        mov     ebx, [OWN + 4]          # B's own count
        mov     edx, [COMMON]           # what both counted
        mov     eax, DIRECTORY_A
        mov     cr3, eax
        mov     ecx, [OWN + 4]
        imul    ecx, ecx, 10            # A's own count, 4, times 10
        mov     eax, 0x600d
        hlt

process:
        mov     dx, 0x3f8
        mov     al, [OWN]
        out     dx, al
        inc     dword ptr [OWN + 4]
        inc     dword ptr [COMMON]
        ret
