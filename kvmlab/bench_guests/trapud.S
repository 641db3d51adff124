# trapud - ring 3 -> ud2 (#UD exception) -> ring 0 handler steps over it -> iretq
# for machines that cannot deliver a software INT; ends through #GP (hlt, ring 3)
# instructions: 5 per unit of N (inc, add, iretq, dec, jnz; a UD2 does not retire).  check: N
        mov     r15, rsp
        mov     r14, rdi
        load_tables
        setgate 6, onud
        setgate 13, ongp
        xor     r13d, r13d
        mov     rcx, r14
        push    UDATA
        push    USTACK
        push    2
        push    UCODE
        lea     rax, [rip + user]
        push    rax
        iretq
user:   ud2
        dec     rcx
        jnz     user
        hlt                                     # done: #GP
halt:   jmp     halt
onud:   inc     r13
        add     qword ptr [rsp], 2
        iretq
ongp:   mov     rsp, r15
        mov     rax, r13
        ret
        tables
