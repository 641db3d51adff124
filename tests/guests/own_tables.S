# A guest that edits its own page tables: through their physical addresses, and through a second linear address. Every
# store to a table that a hypervisor shadows must be seen. After each edit INVLPG, as the manual wants.
#: about: a guest edits its own page tables
#: bits: 64
#: org: 0x100000
#: console "0123456789"
#: expect rax=0x600d rbx=10 rcx=0x63 rdx=0x23 r8=0x222 r9=0x111 r10=0x333
#: bytes 0x300000 = 11 01
#: oracle: qemu
#: gap: page tables edited in ring 0

        .equ    TABLES, 0x200000        # PML4, PDPT, PD, then the PT of the window
        .equ    PT, 0x203000
        .equ    WINDOW, 0x40000000
        .equ    TABLE_ALIAS, 0x40100000 # the PT's own page, at entry 256 of itself

_start: cld
        mov     edi, TABLES
        xor     eax, eax
        mov     ecx, 5 * 512
        rep stosq
        mov     qword ptr [TABLES], TABLES + 0x1000 + 3
        mov     qword ptr [TABLES + 0x1000], TABLES + 0x2000 + 3
        mov     qword ptr [TABLES + 0x1008], TABLES + 0x4000 + 3
        mov     qword ptr [TABLES + 0x4000], PT + 3
        mov     qword ptr [TABLES + 0x2000], 0x83       # 0 to 4 MiB: two large pages
        mov     qword ptr [TABLES + 0x2008], 0x200083
        mov     qword ptr [PT], 0x300003
        mov     qword ptr [PT + 256 * 8], PT + 3        # the table maps itself
        mov     dword ptr [0x300000], 0x111
        mov     dword ptr [0x301000], 0x222
        mov     dword ptr [0x302000], 0x333
        mov     eax, TABLES
        mov     cr3, rax

        mov     r9d, [WINDOW]                           # 0x111
        mov     qword ptr [PT], 0x301003                # by its physical address (mapped one to one)
        invlpg  [WINDOW]
        mov     r8d, [WINDOW]                           # 0x222
        mov     qword ptr [TABLE_ALIAS], 0x302003       # through the alias
        invlpg  [WINDOW]
        mov     r10d, [WINDOW]                          # 0x333
        mov     rdx, [PT]                               # the processor has set A: 0x302023
        and     edx, 0xfff
        mov     dword ptr [WINDOW], 0x333
        mov     rcx, [TABLE_ALIAS]                      # and now D: 0x302063
        and     ecx, 0xfff

        xor     ebx, ebx                                # ten pages in turn behind one address, byte stores to the entry
        mov     edi, 0x310
1:      mov     byte ptr [PT + 1], 0                    # bits 8 to 15
        mov     eax, edi
        shl     eax, 12
        or      eax, 3
        mov     [PT], eax                               # half an entry: the upper half is zero already
        invlpg  [WINDOW]
        lea     eax, [rbx + '0']
        mov     [WINDOW], eax
        inc     edi
        inc     ebx
        cmp     ebx, 10
        jne     1b
        mov     esi, 0x310000                           # read back where they really are
        mov     dx, 0x3f8
        mov     ecx, 10
2:      mov     al, [rsi]
        out     dx, al
        add     esi, 0x1000
        dec     ecx
        jnz     2b
        mov     edx, 0x23
        mov     ecx, 0x63
        mov     eax, 0x600d
        hlt
