# The smallest hypervisor on Intel's side: it runs on the bare machine, turns VMX on, fills a VMCS, and runs a guest that
# prints. Every OUT and CPUID of the guest exits; the handler does the OUT itself and counts.
#
# Start: 64-bit mode with the first 4 GiB mapped to themselves, as Machine.load sets up. The guest shares these tables.
# Memory: 0x40000 VMXON region   0x41000 VMCS   0x50000 the guest's stack, down   0x60000 the exit handler's stack, down

        .equ    VMXON_REGION, 0x40000
        .equ    VMCS_REGION, 0x41000
        .equ    GUEST_STACK, 0x50000
        .equ    HOST_STACK, 0x60000

        .equ    EXIT_REASON, 0x4402
        .equ    EXIT_QUALIFICATION, 0x6400
        .equ    EXIT_LENGTH, 0x440c
        .equ    GUEST_RIP, 0x681e

_start: mov     rax, cr4
        or      eax, 0x2000             # CR4.VMXE
        mov     cr4, rax
        mov     rax, cr0
        or      eax, 0x20               # CR0.NE
        mov     cr0, rax
        mov     ecx, 0x480              # IA32_VMX_BASIC: the revision that both regions begin with
        rdmsr
        mov     [VMXON_REGION], eax
        mov     [VMCS_REGION], eax
        push    VMXON_REGION
        vmxon   [rsp]
        jbe     failed
        mov     qword ptr [rsp], VMCS_REGION
        vmclear [rsp]
        jbe     failed
        vmptrld [rsp]
        jbe     failed

        mov     ecx, 0x481              # controls: what must be 1, and what we want
        xor     eax, eax
        mov     edi, 0x4000
        call    control
        mov     ecx, 0x482
        mov     eax, 0x01000080         # unconditional I/O exiting, HLT exiting
        mov     edi, 0x4002
        call    control
        mov     ecx, 0x483
        mov     eax, 0x200              # host address-space size
        mov     edi, 0x400c
        call    control
        mov     ecx, 0x484
        mov     eax, 0x200              # IA-32e mode guest
        mov     edi, 0x4012
        call    control

        mov     rsi, offset constants   # pairs of encoding and value
1:      mov     eax, [rsi]
        cmp     eax, -1
        je      2f
        movsxd  rbx, dword ptr [rsi + 4]
        vmwrite rax, rbx
        jbe     failed
        add     rsi, 8
        jmp     1b

2:      mov     rbx, cr0                # guest and host share control registers and descriptor tables
        mov     eax, 0x6800
        mov     edi, 0x6c00
        call    both
        mov     rbx, cr3
        mov     eax, 0x6802
        mov     edi, 0x6c02
        call    both
        mov     rbx, cr4
        mov     eax, 0x6804
        mov     edi, 0x6c04
        call    both
        sub     rsp, 16
        sgdt    [rsp + 6]
        mov     rbx, [rsp + 8]
        add     rsp, 16
        mov     r8, rbx
        mov     eax, 0x6816
        mov     edi, 0x6c0c
        call    both
        xor     ebx, ebx
        mov     bx, cs
        mov     eax, 0x802
        mov     edi, 0xc02
        call    both
        mov     bx, ss
        mov     eax, 0x804
        mov     edi, 0xc04
        call    both
        str     ebx
        mov     eax, 0x80e
        mov     edi, 0xc0c
        call    both
        mov     rdx, [r8 + rbx]         # base of the TSS from its descriptor
        mov     rbx, rdx
        shr     rbx, 16
        and     ebx, 0xffffff
        mov     eax, 0x6814
        mov     edi, 0x6c0a
        call    both
        mov     eax, 0x6c16             # HOST_RIP
        mov     rbx, offset on_exit
        vmwrite rax, rbx
        mov     eax, GUEST_RIP
        mov     rbx, offset guest
        vmwrite rax, rbx

        xor     r12d, r12d              # exits
        vmlaunch
failed: mov     rsi, offset text_failed
        call    print
        mov     rax, 0xbad
        hlt

# Writes rbx to the fields eax and edi.
both:   vmwrite rax, rbx
        jbe     failed
        vmwrite rdi, rbx
        jbe     failed
        ret

# Control field edi: the wanted bits eax, adjusted by the capability MSR ecx.
control:
        mov     ebx, eax
        rdmsr
        or      ebx, eax
        and     ebx, edx
        mov     eax, edi
        vmwrite rax, rbx
        jbe     failed
        ret

print:  lodsb
        test    al, al
        jz      1f
        out     0xe9, al
        jmp     print
1:      ret

# The guest's registers are still in the processor: the handler keeps what it uses.
on_exit:
        inc     r12d
        mov     r13, rax
        mov     eax, EXIT_REASON
        vmread  rbx, rax
        cmp     ebx, 30
        je      on_io
        cmp     ebx, 10
        je      on_cpuid
        cmp     ebx, 12
        je      on_hlt
        mov     rsi, offset text_unknown
        call    print
        hlt

on_io:  mov     eax, EXIT_QUALIFICATION
        vmread  rbx, rax
        shr     ebx, 16                 # the port
        cmp     ebx, 0x80
        jne     1f
        mov     rax, r13
        out     0xe9, al                # the guest believes it is port 0x80
        jmp     skip
1:      mov     rsi, offset text_unknown
        call    print
        hlt

on_cpuid:
        mov     r13d, 0x6c61626b        # "kbal" in the guest's eax
skip:   mov     eax, EXIT_LENGTH
        vmread  rbx, rax
        mov     eax, GUEST_RIP
        vmread  rdx, rax
        add     rdx, rbx
        vmwrite rax, rdx
        mov     rax, r13
        mov     rdx, r14                # the guest's rdx, kept by itself in r14
        vmresume
        jmp     failed

on_hlt: mov     rsi, offset text_done
        call    print
        mov     rax, r13                # what the guest left
        vmxoff
        hlt

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

        .balign 8, 0
constants:
        .long   0x2800, -1              # VMCS link pointer
        .long   0x800, 0x10,  0x806, 0x10,  0x808, 0x10,  0x80a, 0x10
        .long   0xc00, 0x10,  0xc06, 0x10,  0xc08, 0x10,  0xc0a, 0x10
        .long   0x4800, -1,  0x4802, -1,  0x4804, -1,  0x4806, -1,  0x4808, -1,  0x480a, -1
        .long   0x480e, 0x67,  0x4810, 0xffff,  0x4812, 0xffff
        .long   0x4814, 0xc093,  0x4816, 0xa09b,  0x4818, 0xc093,  0x481a, 0xc093,  0x481c, 0xc093,  0x481e, 0xc093
        .long   0x4820, 0x10000,  0x4822, 0x8b  # LDTR unusable, TR busy
        .long   0x681a, 0x400,  0x681c, GUEST_STACK,  0x6820, 2
        .long   0x6c14, HOST_STACK
        .long   -1

text_guest:
        .asciz  "hello from the guest\n"
text_done:
        .asciz  "the guest halts\n"
text_failed:
        .asciz  "a VMX instruction failed\n"
text_unknown:
        .asciz  "an exit nobody expected\n"
