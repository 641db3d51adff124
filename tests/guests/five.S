# Five instructions: the first guest through every layer.
#: about: five 16-bit instructions: one port exit, one HLT
#: bits: 16
#: org: 0x1000
#: console "A"
#: exit io out port=0x3f8 size=1 value=0x41
#: exit hlt
#: expect rax&0xff=0x42 rdx&0xffff=0x3f8
#: oracle: qemu

        mov     dx, 0x3f8               # the serial port
        mov     al, 'A'
        out     dx, al                  # the one exit to user space
        inc     al
        hlt
