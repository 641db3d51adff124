# It counts and never stops: only a budget, a stop from outside, or the notebook's interrupt button ends it.
#: about: an endless loop
#: bits: 64
#: org: 0x100000
#: limit: 30000
#: exit limit
#: expect rbx&0x1=0
#: engine: soft

_start: xor     eax, eax
        xor     ebx, ebx
1:      inc     rax
        jmp     1b
