# trapint - ring 3 -> int 0x80 -> ring 0 -> iretq -> ring 3, N times
# instructions: 5 per unit of N (int, inc, iretq, dec, jnz).  check: N
        mov     r15, rsp                        # the loader's stack
        mov     r14, rdi
        load_tables
        setgate 0x80, on80
        setgate 0x81, on81
        xor     r13d, r13d
        mov     rcx, r14
        push    UDATA                     # into ring 3
        push    USTACK
        push    2
        push    UCODE
        lea     rax, [rip + user]
        push    rax
        iretq
user:   int     0x80
        dec     rcx
        jnz     user
        int     0x81                            # done
halt:   jmp     halt
on80:   inc     r13
        iretq
on81:   mov     rsp, r15
        mov     rax, r13
        ret
        tables
