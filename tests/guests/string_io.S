# Strings to a port from real mode: REP OUTSB forwards and backwards, with a segment base, and word-sized.
#: about: real mode prints over port 0x3f8 with string I/O
#: bits: 16
#: org: 0x1000
#: console "Hello from real mode\n"
#: console "drawkcab\n"
#: console "es\n"
#: expect rcx&0xffff=0 rbx&0xffff=0x7c00 rsp&0xffff=0x7c00
#: expect rax&0xffff=0x600d
#: oracle: qemu

        .equ    COM1, 0x3f8

_start: cld
        mov     bx, sp
        mov     dx, COM1
        mov     si, offset hello        # DS:SI, forwards
        mov     cx, offset HELLO_SIZE
        rep outsb
        cmp     si, offset hello_end    # SI stands behind the last byte
        jne     bad

        std                             # backwards: SI starts at the last byte
        mov     si, offset back_end - 1
        mov     cx, offset BACK_SIZE
        rep outsb
        cld
        cmp     si, offset back - 1
        jne     bad
        mov     al, 10
        out     dx, al

        mov     dx, 0x500               # two bytes at a time, to a port that nobody serves
        mov     si, offset words
        mov     cx, 3
        rep outsw
        cmp     si, offset words_end
        jne     bad
        mov     dx, COM1

        mov     ax, 0x0200              # another segment: DS = 0x0200 moves every address up by 0x2000
        mov     ds, ax
        mov     word ptr cs:[0x2000 + 0x10], 0x7365     # "es" at 0x2010, stored through CS = 0
        mov     byte ptr cs:[0x2000 + 0x12], 10
        mov     si, 0x10
        mov     cx, 3
        rep outsb
        xor     cx, cx                  # a count of zero writes nothing
        rep outsb
        mov     ax, 0x600d
        hlt
bad:    mov     ax, 0xbad
        hlt

hello:  .ascii  "Hello from real mode\n"
hello_end:
back:   .ascii  "backward"
back_end:
words:  .ascii  "words\n"
words_end:
        .equ    HELLO_SIZE, hello_end - hello
        .equ    BACK_SIZE, back_end - back
