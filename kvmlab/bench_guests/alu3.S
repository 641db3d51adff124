# alu3 - alu's loop in ring 3 (a processor model should not care; a VMM that
# runs user code directly and emulates kernel code does).  Ends through #GP.
# instructions: 3 per unit of N.  check: N*(N+1)/2
        mov     r15, rsp
        mov     r14, rdi
        load_tables
        setgate 13, ongp
        mov     rcx, r14
        xor     edx, edx
        push    UDATA
        push    USTACK
        push    2
        push    UCODE
        lea     rax, [rip + user]
        push    rax
        iretq
user:   add     rdx, rcx
        dec     rcx
        jnz     user
        hlt                                     # done: #GP
halt:   jmp     halt
ongp:   mov     rsp, r15
        mov     rax, rdx
        ret
        tables
