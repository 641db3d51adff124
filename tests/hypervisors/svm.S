# The smallest hypervisor on AMD's side: the same guest as vmx.S, under VMRUN. The VMCB is plain memory; the intercepts are
# OUT (all of the I/O permission map set), CPUID and HLT, and VMRUN itself, as it must.
#
# Memory: 0x40000 host save area   0x41000 VMCB   0x42000 I/O permission map, 12 KB   0x50000 the guest's stack, down

        .equ    HSAVE, 0x40000
        .equ    VMCB, 0x41000
        .equ    IOPM, 0x42000
        .equ    GUEST_STACK, 0x50000

_start: mov     ecx, 0xc0000080
        rdmsr
        or      eax, 0x1000             # EFER.SVME
        wrmsr
        mov     [VMCB + 0x4d0], eax     # the guest has the same EFER
        mov     ecx, 0xc0010117         # VM_HSAVE_PA
        mov     eax, HSAVE
        xor     edx, edx
        wrmsr
        mov     edi, IOPM
        mov     eax, -1
        mov     ecx, 3 * 1024
        rep stosd

        mov     dword ptr [VMCB + 0x0c], 0x09040000     # intercepts: I/O (27), HLT (24), CPUID (18)
        mov     dword ptr [VMCB + 0x10], 1              # VMRUN
        mov     dword ptr [VMCB + 0x40], IOPM
        mov     dword ptr [VMCB + 0x58], 1              # ASID
        mov     rax, cr0
        mov     [VMCB + 0x558], rax
        mov     rax, cr3
        mov     [VMCB + 0x550], rax
        mov     rax, cr4
        mov     [VMCB + 0x548], rax
        mov     dword ptr [VMCB + 0x570], 2             # RFLAGS
        mov     rax, offset guest
        mov     [VMCB + 0x578], rax
        mov     dword ptr [VMCB + 0x5d8], GUEST_STACK
        mov     ax, cs
        mov     [VMCB + 0x410], ax
        mov     word ptr [VMCB + 0x412], 0xa9b
        mov     dword ptr [VMCB + 0x414], -1
        mov     ax, ss
        mov     [VMCB + 0x420], ax
        mov     word ptr [VMCB + 0x422], 0xc93
        mov     dword ptr [VMCB + 0x424], -1

        xor     r12d, r12d              # exits
run:    mov     eax, VMCB
        clgi
        vmload
        vmrun
        vmsave
        stgi
        inc     r12d
        mov     rbx, [VMCB + 0x70]      # exit code
        cmp     rbx, 0x7b
        je      on_io
        cmp     rbx, 0x72
        je      on_cpuid
        cmp     rbx, 0x78
        je      on_hlt
        mov     rsi, offset text_unknown
        call    print
        mov     rax, 0xbad
        hlt

on_io:  mov     rbx, [VMCB + 0x80]      # EXITINFO2: the RIP behind it
        mov     [VMCB + 0x578], rbx
        cmp     word ptr [VMCB + 0x7a], 0x80
        jne     1f
        mov     al, [VMCB + 0x5f8]      # the guest's RAX
        out     0xe9, al
        jmp     run
1:      mov     rsi, offset text_unknown
        call    print
        hlt

on_cpuid:
        mov     dword ptr [VMCB + 0x5f8], 0x6c61626b
        mov     dword ptr [VMCB + 0x5fc], 0
        add     qword ptr [VMCB + 0x578], 2
        jmp     run

on_hlt: mov     rsi, offset text_done
        call    print
        mov     rax, [VMCB + 0x5f8]
        hlt

print:  lodsb
        test    al, al
        jz      1f
        out     0xe9, al
        jmp     print
1:      ret

# ---- the guest --------------------------------------------------------------------------------------------------------

guest:  mov     rbp, offset text_guest
1:      mov     al, [rbp]
        test    al, al
        jz      2f
        out     0x80, al
        inc     rbp
        jmp     1b
2:      xor     eax, eax
        cpuid
        hlt

text_guest:
        .asciz  "hello from the guest\n"
text_done:
        .asciz  "the guest halts\n"
text_unknown:
        .asciz  "an exit nobody expected\n"
