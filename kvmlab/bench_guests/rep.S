# rep - per unit of N: rep stosq over 1 MiB, then rep movsb of 1 MiB
# a rep instruction counts as one instruction; quote bytes/s (2 MiB per unit)
        .equ    BLOCK, 0x100000
# The copy's source and destination must not be a power of two apart: their pages
# would share the entry of a direct-mapped software TLB at every byte.  That case
# is worth a test of its own: repalias is this file with GAP = 0.
        .ifndef GAP
        .equ    GAP, 0x11000
        .endif
        .equ    DST, BUF+2*BLOCK+GAP
        mov     rdx, rdi
        xor     r8d, r8d
        cld
again:  mov     rax, rdx
        mov     edi, BUF
        mov     ecx, BLOCK/8
        rep     stosq
        mov     esi, BUF
        mov     edi, DST
        mov     ecx, BLOCK
        rep     movsb
        add     r8, [DST+BLOCK-8]             # last qword copied
        dec     rdx
        jnz     again
        mov     rax, r8                         # check: N*(N+1)/2
        ret
