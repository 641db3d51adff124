# Big real mode ("unreal"): load a segment with a 4 GB limit in protected mode, go back to real mode, and keep the limit.
# Virtual-8086 mode cannot express it: on intel-2006 the hypervisor must emulate, a basic block at a time.
#: about: big real mode: DS and ES with a limit of 4 GB in real mode
#: bits: 16
#: org: 0x1000
#: memory: 4M
#: console "unreal\n"
#: expect rax&0xffff=0x600d rbx=0x12345678 rcx&0xffff=0 rdx&0xffff=0x3f8
#: bytes 0x200000 = 78 56 34 12
#: bytes 0x300000 = "big copy"
#: oracle: qemu
#: gap: big real mode

_start: cli
        cld
        lgdtd   [gdtr]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     1f                      # no far jump: CS stays a real-mode segment
1:      mov     bx, 8
        mov     ds, bx                  # the hidden part now says: base 0, limit 4 GB
        mov     es, bx
        and     al, 0xfe
        mov     cr0, eax                # back in real mode; DS and ES keep what they loaded
        jmp     2f
2:      mov     esi, 0x200000
        mov     dword ptr [esi], 0x12345678             # above 64 KB: #GP in ordinary real mode
        mov     ebx, [esi]
        mov     esi, offset text_copy
        mov     edi, 0x300000
        mov     ecx, 8
1:      mov     al, [esi]
        mov     [edi], al
        inc     esi
        inc     edi
        dec     ecx
        jnz     1b
        mov     si, offset text
        mov     dx, 0x3f8
        mov     cx, 7
        rep outsb
        xor     ax, ax
        mov     ds, ax                  # a load in real mode sets the base only: the limit is still 4 GB
        mov     esi, 0x200000
        cmp     dword ptr [esi], 0x12345678
        jne     bad
        mov     ax, 0x600d
        hlt
bad:    mov     ax, 0xbad
        hlt

text:   .ascii  "unreal\n"
text_copy:
        .ascii  "big copy"
        .balign 8, 0
gdt:    .quad   0
        .quad   0x00cf93000000ffff
gdtr:   .word   15
        .long   gdt
