# fp - SSE2 double arithmetic: a scalar logistic map and a packed recurrence
# instructions: 10 per unit of N (5 scalar FP, 2 packed FP, 1 FP move, 2 integer)
# check: bits of the sums (the same on every correct IEEE-754 machine)
        mov     rcx, rdi
        movsd   xmm0, [rip + x0]
        movsd   xmm2, [rip + r]
        movapd  xmm7, [rip + one]
        xorpd   xmm3, xmm3
        xorpd   xmm4, xmm4
        movapd  xmm5, [rip + pa]
        movapd  xmm6, [rip + pb]
again:  movapd  xmm1, xmm7
        subsd   xmm1, xmm0                      # 1 - x
        mulsd   xmm0, xmm1
        mulsd   xmm0, xmm2                      # x = r * x * (1 - x)
        addsd   xmm3, xmm0                      # sum += x
        divsd   xmm1, xmm2                      # off the critical path
        mulpd   xmm4, xmm5
        addpd   xmm4, xmm6
        dec     rcx
        jnz     again
        addsd   xmm3, xmm1
        movq    rax, xmm3
        movq    rdx, xmm4
        xor     rax, rdx
        ret
        .balign 16, 0xcc
one:    .double      1.0, 1.0
pa:     .double      0.999, 0.5
pb:     .double      0.25, 3.0
x0:     .double      0.123456789
r:      .double      3.9
