# mem - random walk over 64 MiB of 4 KiB pages: one load and one store per step
# to a random line of a random page (16384 pages: misses every first-level TLB)
# instructions: 13 per unit of N (one load, one store)
        mov     rcx, rdi
        mov     esi, BUF
        mov     r8, 88172645463325252
        mov     r9, 6364136223846793005         # Knuth's 64-bit LCG
        mov     r10, 1442695040888963407
        xor     eax, eax
again:  imul    r8, r9
        add     r8, r10
        mov     rdx, r8
        shr     rdx, 50                         # 14 bits: page number
        shl     rdx, 12
        mov     rbx, r8
        shr     rbx, 32
        and     ebx, 0xff8                      # qword in the page
        or      rdx, rbx
        add     rax, [rsi+rdx]
        mov     [rsi+rdx], rcx
        dec     rcx
        jnz     again
        ret
