# A virtual-8086 task under a 32-bit monitor. The task believes it is alone on an 8086: it calls a BIOS-like service with
# INT 0x21, disables interrupts, writes to a port that its I/O bitmap allows and to one that it does not. With IOPL 0 the
# sensitive instructions trap to the monitor by #GP, which does what the 8086 would have done.
#: about: a virtual-8086 task: INT, IRET, CLI, STI, PUSHF and ports trap to a monitor
#: bits: 32
#: org: 0x8000
#: console "v86: int21 cli port sti hlt\n"
#: expect rax=0x600d rbx=8 rcx=0x42
#: oracle: qemu
#: gap: protected mode without paging, vm86

        .equ    IDT, 0x20000
        .equ    MONITOR_STACK, 0x30000
        .equ    TASK_STACK, 0x6000
        .equ    COM1, 0x3f8
        .equ    FORBIDDEN, 0x501

_start: cld
        mov     eax, offset on_gp
        mov     edi, IDT + 13 * 8
        call    set_gate
        lidt    [idtr]
        lgdt    [gdtr]
        ljmp    8, offset monitor
monitor:
        mov     eax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     eax, offset tss
        mov     [gdt + 0x18 + 2], ax
        shr     eax, 16
        mov     [gdt + 0x18 + 4], al
        mov     byte ptr [bitmap + COM1 / 8], 0xfe      # COM1's bit is clear: allowed without a trap
        mov     eax, 0x18
        ltr     ax
        xor     ebx, ebx                # traps seen

        push    0                       # GS, FS, DS, ES of the task
        push    0
        push    0
        push    0
        push    0                       # SS
        push    TASK_STACK
        push    0x00020202              # EFLAGS: VM, IF, IOPL 0
        push    0                       # CS
        mov     eax, offset task
        push    eax
        iretd                           # into virtual-8086 mode

# --- The monitor: #GP from the task ----------------------------------------------------------------------------------
# The stack: error code, EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS. The task's segments are 0, so its offsets are addresses.
on_gp:  push    eax
        push    edx
        push    esi
        mov     eax, 0x10
        mov     ds, eax
        inc     ebx
        mov     esi, [esp + 16]         # EIP
        movzx   eax, byte ptr [esi]
        cmp     al, 0xcd                # INT n
        je      gp_int
        cmp     al, 0xcf                # IRET
        je      gp_iret
        cmp     al, 0xfa
        je      gp_cli
        cmp     al, 0xfb
        je      gp_sti
        cmp     al, 0x9c                # PUSHF
        je      gp_pushf
        cmp     al, 0xee                # OUT DX, AL to a port that is not allowed
        je      gp_out
        cmp     al, 0xf4                # HLT: the task is done
        je      gp_hlt
        mov     eax, 0xbad
        hlt
gp_int: movzx   esi, byte ptr [esi + 1]
        mov     eax, [esi*4]            # the task's own vector table
        mov     edx, [esp + 28]         # its SP: push FLAGS, CS, IP as an 8086 would
        sub     edx, 6
        mov     [esp + 28], edx
        mov     esi, [esp + 16]
        add     esi, 2
        mov     [edx], si
        mov     word ptr [edx + 2], 0
        mov     word ptr [edx + 4], 0x0202
        movzx   eax, ax
        mov     [esp + 16], eax
        jmp     gp_back
gp_iret:
        mov     edx, [esp + 28]         # IP, CS and FLAGS from the task's stack
        movzx   eax, word ptr [edx]
        mov     [esp + 16], eax
        add     edx, 6
        mov     [esp + 28], edx
        jmp     gp_back
gp_cli: mov     byte ptr [virtual_if], 0
        jmp     gp_next
gp_sti: mov     byte ptr [virtual_if], 1
        jmp     gp_next
gp_pushf:
        mov     edx, [esp + 28]
        sub     edx, 2
        mov     [esp + 28], edx
        movzx   eax, byte ptr [virtual_if]
        shl     eax, 9
        or      eax, 2
        mov     [edx], ax
        jmp     gp_next
gp_out: mov     ecx, [esp + 8]          # swallowed: the value is in the task's AL
        movzx   ecx, cl
gp_next:
        inc     dword ptr [esp + 16]
gp_back:
        pop     esi
        pop     edx
        pop     eax
        add     esp, 4
        iretd
gp_hlt: mov     eax, 0x600d
        hlt

set_gate:
        mov     [edi], ax
        mov     word ptr [edi + 2], 8
        mov     word ptr [edi + 4], 0x8e00
        shr     eax, 16
        mov     [edi + 6], ax
        ret

# --- The task: 16-bit code that knows nothing ------------------------------------------------------------------------
        .code16
task:   mov     word ptr [0x21 * 4], offset service
        mov     word ptr [0x21 * 4 + 2], 0
        mov     si, offset text_v86
        int     0x21                    # 1: #GP, reflected through the vector at 0x84
        cli                             # 3
        mov     si, offset text_cli
        call    say
        pushf                           # 4: sees its virtual IF, which is clear
        pop     ax
        test    ax, 0x200
        jnz     task_bad
        mov     dx, FORBIDDEN
        mov     al, 0x42
        out     dx, al                  # 5: the bitmap forbids it
        mov     si, offset text_port
        call    say
        sti                             # 6
        pushf                           # 7: sees it set
        pop     ax
        test    ax, 0x200
        jz      task_bad
        mov     si, offset text_sti
        call    say
        hlt                             # 8: ends the task
task_bad:
        ud2
service:
        call    say
        iret                            # 2: traps too
say:    mov     dx, COM1
1:      mov     al, [si]
        test    al, al
        jz      2f
        out     dx, al                  # allowed: no trap
        inc     si
        jmp     1b
2:      ret

text_v86:
        .asciz  "v86: int21 "
text_cli:
        .asciz  "cli "
text_port:
        .asciz  "port "
text_sti:
        .asciz  "sti hlt\n"
virtual_if:
        .byte   1
        .balign 8, 0
gdt:    .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
        .quad   0x0000890000002068      # TSS: 0x68 bytes, the bitmap, a last byte of ones, base filled in
gdt_end:
gdtr:   .word   gdt_end - gdt - 1
        .long   gdt
idtr:   .word   256 * 8 - 1
        .long   IDT
        .balign 4, 0
tss:    .long   0, MONITOR_STACK, 0x10
        .fill   88, 1, 0
        .word   0, 104                  # the bitmap begins behind the TSS
bitmap: .fill   0x2000, 1, 0xff
        .byte   0xff
