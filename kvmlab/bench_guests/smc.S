# smc - self-modifying code: every round writes the immediate of the very next
# instruction, which then has to execute with the new value
# instructions: 4 per unit of N.  check: sum of the counters, 32 bits
        mov     rcx, rdi
        xor     eax, eax
        jmp     again
        .balign 64, 0xcc
again:  mov     [rip + patch + 1], ecx
patch:  add     eax, 0x12345678    # opcode 05 id
        dec     rcx
        jnz     again
        ret
