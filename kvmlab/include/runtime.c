/* runtime.c - start-up code and what compilers call without being asked (memcpy, memset, 64-bit division).
 * kvmlab.compile_c compiles it with the student's program. _start stands first in the image; main()'s value
 * is in RAX (EAX) at the HLT. */
typedef unsigned long long u64;
typedef __SIZE_TYPE__ size;

#if defined(__x86_64__)
__asm__(".section .text.entry,\"ax\",@progbits\n"
        ".globl _start\n"
        "_start:\n"
        "  cld\n"
        "  andq $-16, %rsp\n"
        "  xorl %ebp, %ebp\n"
        "  call main\n"
        "1: hlt\n"
        "  jmp 1b\n"
        ".previous\n");
#else
/* With -m16 this is real-mode code with 32-bit operands: main returns with a 32-bit RET, so CALL says its size. */
__asm__(".section .text.entry,\"ax\",@progbits\n"
        ".globl _start\n"
        "_start:\n"
        "  cld\n"
        "  andl $-16, %esp\n"
        "  xorl %ebp, %ebp\n"
        "  calll main\n"
        "1: hlt\n"
        "  jmp 1b\n"
        ".previous\n");
#endif

void *memcpy(void *to, const void *from, size n)
{
    void *start = to;
    __asm__ volatile("cld; rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memset(void *to, int value, size n)
{
    void *start = to;
    __asm__ volatile("cld; rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    return start;
}

void *memmove(void *to, const void *from, size n)
{
    char *d = to;
    const char *s = from;

    if (d <= s || d >= s + n)
        return memcpy(to, from, n);
    d += n - 1;
    s += n - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size n)
{
    const unsigned char *p = a, *q = b;

    for (; n; n--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

#if !defined(__x86_64__)
/* 64-bit division for 32-bit code, bit by bit: libgcc's names, so that no libgcc is needed. */
static u64 divide(u64 a, u64 b, u64 *rest)
{
    u64 quotient = 0, left = 0;
    int bit;

    for (bit = 63; bit >= 0; bit--) {
        left = left << 1 | (a >> bit & 1);
        if (left >= b) {
            left -= b;
            quotient |= 1ull << bit;
        }
    }
    *rest = left;
    return quotient;
}

u64 __udivdi3(u64 a, u64 b)
{
    u64 rest;
    return divide(a, b, &rest);
}

u64 __umoddi3(u64 a, u64 b)
{
    u64 rest;
    divide(a, b, &rest);
    return rest;
}

u64 __udivmoddi4(u64 a, u64 b, u64 *rest)
{
    u64 left, quotient = divide(a, b, &left);
    if (rest)
        *rest = left;
    return quotient;
}

long long __divdi3(long long a, long long b)
{
    u64 rest, quotient = divide(a < 0 ? -(u64)a : (u64)a, b < 0 ? -(u64)b : (u64)b, &rest);
    return (long long)((a < 0) != (b < 0) ? -quotient : quotient);
}

long long __moddi3(long long a, long long b)
{
    u64 rest;
    divide(a < 0 ? -(u64)a : (u64)a, b < 0 ? -(u64)b : (u64)b, &rest);
    return (long long)(a < 0 ? -rest : rest);
}
#endif
