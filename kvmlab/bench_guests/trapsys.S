# trapsys - ring 3 -> syscall -> ring 0 -> sysretq -> ring 3, N times
# instructions: 5 per unit of N (syscall, inc, sysretq, dec, jnz).  check: N
        mov     r15, rsp
        mov     r14, rdi
        load_tables
        setgate 6, onud                         # #UD ends the test
        mov     ecx, 0xc0000081                 # STAR
        xor     eax, eax
        mov     edx, (0x18<<16)|KCODE
        wrmsr
        mov     ecx, 0xc0000082                 # LSTAR
        lea     rax, [rip + onsys]
        mov     rdx, rax
        shr     rdx, 32
        wrmsr
        mov     ecx, 0xc0000084                 # FMASK
        mov     eax, 0x200
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000080                 # EFER.SCE
        rdmsr
        or      eax, 1
        wrmsr
        xor     r13d, r13d
        mov     rbp, r14
        push    UDATA
        push    USTACK
        push    2
        push    UCODE
        lea     rax, [rip + user]
        push    rax
        iretq
user:   syscall
        dec     rbp
        jnz     user
        ud2                                     # done
halt:   jmp     halt
onsys:  inc     r13
        sysretq
onud:   mov     rsp, r15
        mov     rax, r13
        ret
        tables
