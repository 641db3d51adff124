# cr3 - address-space switches: alternate between two PML4s (same contents),
# touching 64 pages after each switch, so that every touch misses a flushed TLB
# instructions: 262 per unit of N (64 page touches).  check: N + 1
        mov     rbp, rdi
        mov     rdx, cr3                        # copy the PML4
        mov     rsi, rdx
        mov     edi, SCRATCH
        mov     ecx, 512
        cld
        rep     movsq
        mov     ebx, SCRATCH                    # the other address space
        mov     r12, rdx
        mov     rdi, rbp
        xor     eax, eax
again:  mov     cr3, rbx
        xchg    rdx, rbx
        mov     esi, BUF
        mov     ecx, 64
touch:  mov     [rsi], rbp                      # 4 instructions a page
        add     rsi, 4096+64                    # (another cache line each time)
        dec     ecx
        jnz     touch
        dec     rbp
        jnz     again
        mov     cr3, r12
        mov     rax, rdi
        add     rax, [BUF+63*(4096+64)]
        ret
