# io - port writes: out 0x500, al.  0x500 belongs to no device of a PC, so a
# machine model takes its slow path and a VMM gets one exit each
# instructions: 3 per unit of N (1 exit).  check: N
        mov     rcx, rdi
        mov     edx, 0x500
        mov     eax, 0x41
again:  out     dx, al
        dec     rcx
        jnz     again
        mov     rax, rdi
        ret
