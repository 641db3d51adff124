# #UD with an IDT that has no gates: #UD cannot be delivered, #GP neither, #DF neither. The processor shuts down.
#: about: a triple fault
#: bits: 32
#: org: 0x100000
#: exit io out port=0x3f8 size=1 value=0x2e
#: exit shutdown
#: expect rax&0xff=0x2e rbx=0x600d
#: oracle: qemu

_start: mov     ebx, 0x600d
        mov     dx, 0x3f8
        mov     al, '.'
        out     dx, al
        lidt    [no_idt]
        ud2
        mov     ebx, 0xbad              # never reached
        hlt

        .balign 4, 0
no_idt: .word   0
        .long   0
