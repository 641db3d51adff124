# 32-bit paging with 4 MB pages: one page directory, no page tables, plus one ordinary table for comparison.
#: about: 32-bit paging with 4 MB pages, an alias, accessed and dirty bits
#: bits: 32
#: org: 0x100000
#: memory: 16M
#: console "4 MB pages\n"
#: expect rax=0x600d rbx=0xcafe0001 rcx=0x5555aaaa rdx=0xe3 rsi=0xa3 rdi=0x67
#: oracle: qemu
#: gap: paging without long mode

        .equ    DIRECTORY, 0x200000
        .equ    TABLE, 0x201000
        .equ    P, 1
        .equ    RW, 2
        .equ    ACCESSED, 0x20
        .equ    DIRTY, 0x40
        .equ    LARGE, 0x80

_start: cld
        mov     esp, 0x210000
        mov     edi, DIRECTORY
        xor     eax, eax
        mov     ecx, 2048
        rep stosd
        mov     dword ptr [DIRECTORY], 0 + LARGE + RW + P                       # 0 to 4 MB where they are
        mov     dword ptr [DIRECTORY + 4 * 0x100], 0x400000 + LARGE + RW + P    # 0x40000000 shows 0x400000
        mov     dword ptr [DIRECTORY + 4 * 0x101], 0x400000 + LARGE + RW + P    # and so does 0x40400000
        mov     dword ptr [DIRECTORY + 4 * 0x102], TABLE + RW + P               # 0x40800000: 4 KB pages
        mov     dword ptr [TABLE], 0x400000 + 4 + RW + P                        # the first of them, for users too

        mov     eax, cr4
        or      eax, 0x10               # CR4.PSE: bit 7 of a directory entry means 4 MB
        mov     cr4, eax
        mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax

        mov     dword ptr [0x40000000], 0xcafe0001
        mov     ebx, [0x40400000]       # the same bytes through the alias: only read, so its D bit stays clear
        mov     ecx, 0x5555aaaa
        mov     [0x407ffffc], ecx       # its last dword: D is set now
        mov     ecx, [0x403ffffc]
        mov     edx, [DIRECTORY + 4 * 0x101]            # 0x4000e3: present, writable, accessed, dirty, large
        and     edx, 0xfff
        mov     dword ptr [0x40800004], 1
        mov     edi, [TABLE]
        and     edi, 0xfff              # 0x67: present, writable, user, accessed, dirty
        mov     eax, [0x40400004]
        cmp     eax, 1
        jne     bad
        mov     dword ptr [DIRECTORY + 4 * 0x103], 0x800000 + LARGE + RW + P
        mov     eax, [0x40c00000]
        mov     esi, [DIRECTORY + 4 * 0x103]            # read only: accessed, not dirty
        and     esi, 0xfff

        push    esi
        mov     esi, offset text
        mov     ebp, edx
        mov     dx, 0x3f8
1:      lodsb
        test    al, al
        jz      2f
        out     dx, al
        jmp     1b
2:      mov     edx, ebp
        pop     esi
        mov     eax, 0x600d
        hlt
bad:    mov     eax, 0xbad
        hlt

text:   .asciz  "4 MB pages\n"
