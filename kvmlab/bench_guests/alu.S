# alu - tight dependent integer again: add / dec / jnz
# instructions: 3 per unit of N.  check: N*(N+1)/2
        mov     rcx, rdi
        xor     eax, eax
again:  add     rax, rcx
        dec     rcx
        jnz     again
        ret
