# Self-modifying code, four ways: the very next instruction, another page, through a second linear address of the code's
# page, and by a string store. Each time the new bytes must run.
#: about: self-modifying code: same block, other page, through an alias, by REP MOVSB
#: bits: 64
#: org: 0x100000
#: console "1234"
#: expect rax=0x600d rbx=5050 rcx=0 rsi&0xff=0x34
#: oracle: qemu

        .equ    TABLES, 0x200000
        .equ    OTHER, 0x220000         # a page for code that we write
        .equ    ALIAS, 0x40000000       # the same page by another name

_start: cld
        mov     esp, 0x210000
        xor     ebx, ebx                # 1. the immediate of the next instruction, a hundred times
        mov     ecx, 100
1:      mov     [rip + patch + 2], ecx
patch:  add     ebx, 0x12345678         # 81 c3 imm32
        dec     ecx
        jnz     1b
        mov     al, '1'
        call    put

        mov     dword ptr [OTHER], 0xc332b0             # 2. mov al, '2'; ret
        mov     esi, OTHER
        call    rsi
        call    put

        mov     edi, TABLES             # 3. the same page behind 1 GiB
        xor     eax, eax
        mov     ecx, 5 * 512
        rep stosq
        mov     qword ptr [TABLES], TABLES + 0x1000 + 3
        mov     qword ptr [TABLES + 0x1000], TABLES + 0x2000 + 3
        mov     qword ptr [TABLES + 0x1008], TABLES + 0x3000 + 3
        mov     qword ptr [TABLES + 0x2000], 0x83
        mov     qword ptr [TABLES + 0x2008], 0x200083
        mov     qword ptr [TABLES + 0x3000], TABLES + 0x4000 + 3
        mov     qword ptr [TABLES + 0x4000], OTHER + 3
        mov     eax, TABLES
        mov     cr3, rax
        call    rsi                     # runs once more as it was
        mov     byte ptr [ALIAS + 1], '3'
        call    rsi                     # the store through the alias is seen
        call    put

        push    rsi                     # 4. a string store over code that has just run
        mov     edi, OTHER
        lea     rsi, [rip + code4]
        mov     ecx, 3
        rep movsb
        pop     rsi
        call    rsi
        call    put
        movzx   esi, al
        mov     eax, 0x600d
        hlt

put:    mov     dx, 0x3f8
        out     dx, al
        ret

code4:  .byte   0xb0, '4', 0xc3
