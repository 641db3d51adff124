/* The same work in ring 3, above a small kernel: its own GDT, TSS, IDT and page tables, system calls by INT 0x80 and by
 * SYSCALL. The program cannot reach the port or the interrupt flag: its CLI is a #GP, which the kernel counts and skips.
 *: about: a C program in ring 3 with system calls (INT 0x80 and SYSCALL) to a small kernel
 *: bits: 64
 *: org: 0x100000
 *: console "kernel: ring 3 starts\n"
 *: console "primes below 8192: 1028\n"
 *: console "sorted 2048 numbers: yes\n"
 *: console "crc32 of 123456789: cbf43926\n"
 *: console "kernel: 40 calls by INT 0x80, 2 by SYSCALL, 1 refused\n"
 *: expect rax=0xcbf43926
 *: oracle: qemu
 *: gap: INT n, SYSCALL and SYSRET in long mode
 */
#include <kvmguest.h>

/* --- The kernel ------------------------------------------------------------------------------------------------- */

enum { CALL_PUTCHAR, CALL_PRINT, CALL_EXIT };
enum { KCODE = 0x08, KDATA = 0x10, UCODE32 = 0x18, UDATA = 0x20, UCODE = 0x28, TSS = 0x30 };

static uint64_t gdt[8] = {
    0,
    0x00af9b000000ffff, /* 08 code, ring 0 */
    0x00cf93000000ffff, /* 10 data, ring 0 */
    0x00cffb000000ffff, /* 18 32-bit code, ring 3: where SYSRET counts from */
    0x00cff3000000ffff, /* 20 data, ring 3 */
    0x00affb000000ffff, /* 28 code, ring 3 */
};
static uint32_t tss[26];
static uint64_t idt[256][2];
static uint64_t pml4[512] __attribute__((aligned(4096)));
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));
static uint8_t user_stack[8192] __attribute__((aligned(16)));
uint8_t kernel_stack[8192] __attribute__((aligned(16)));
uint64_t user_rsp;
unsigned by_int, by_syscall, refused;

struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint64_t base;
};

void on_int80(void), on_syscall(void), on_gp(void), enter_user(void *rip, void *rsp);
void __attribute__((noreturn)) finish(unsigned value);

__asm__(".text\n"
        "on_int80:\n" /* RAX number, RDI argument; all but RAX survive */
        "  incl by_int(%rip)\n"
        "  push %rcx; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10; push %r11\n"
        "  mov %rax, %rsi\n"
        "  cld\n"
        "  sub $8, %rsp\n"
        "  call kernel_call\n"
        "  add $8, %rsp\n"
        "  pop %r11; pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %rcx\n"
        "  iretq\n"
        "on_syscall:\n" /* RCX = return address, R11 = flags; the stack is still the program's */
        "  mov %rsp, user_rsp(%rip)\n"
        "  lea kernel_stack+8192(%rip), %rsp\n"
        "  incl by_syscall(%rip)\n"
        "  push %rcx; push %r11; push %rdx; push %rsi; push %rdi; push %r8; push %r9; push %r10\n"
        "  mov %rax, %rsi\n"
        "  call kernel_call\n"
        "  pop %r10; pop %r9; pop %r8; pop %rdi; pop %rsi; pop %rdx; pop %r11; pop %rcx\n"
        "  mov user_rsp(%rip), %rsp\n"
        "  sysretq\n"
        "on_gp:\n" /* the error code is on top, then RIP: step over one byte */
        "  incl refused(%rip)\n"
        "  add $8, %rsp\n"
        "  incq (%rsp)\n"
        "  iretq\n"
        "enter_user:\n" /* RDI = RIP, RSI = RSP */
        "  push $0x23\n"
        "  push %rsi\n"
        "  push $2\n"
        "  push $0x2b\n"
        "  push %rdi\n"
        "  iretq\n"
        "load_segments:\n"
        "  mov $0x10, %eax\n"
        "  mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
        "  pop %rcx\n"
        "  push $0x08\n"
        "  push %rcx\n"
        "  lretq\n"
        "finish:\n"
        "  mov %edi, %eax\n"
        "  cli\n"
        "1: hlt\n"
        "  jmp 1b\n");
void load_segments(void);

void kernel_call(uint64_t argument, uint64_t number)
{
    if (number == CALL_PUTCHAR)
        putchar((int)argument);
    else if (number == CALL_PRINT)
        print((const char *)argument);
    else if (number == CALL_EXIT) {
        print("kernel: ");
        print_dec(by_int);
        print(" calls by INT 0x80, ");
        print_dec(by_syscall);
        print(" by SYSCALL, ");
        print_dec(refused);
        puts(" refused");
        finish((unsigned)argument);
    }
}

static void gate(unsigned vector, void (*handler)(void), unsigned dpl)
{
    uint64_t at = (uint64_t)handler;

    idt[vector][0] = (at & 0xffff) | KCODE << 16 | (0x8e00ull | dpl << 13) << 32 | (at >> 16 & 0xffff) << 48;
    idt[vector][1] = at >> 32;
}

static void kernel_start(void)
{
    uint64_t base = (uint64_t)tss, stack = (uint64_t)(kernel_stack + sizeof kernel_stack);
    struct pointer gdtr = { sizeof gdt - 1, (uint64_t)gdt }, idtr = { sizeof idt - 1, (uint64_t)idt };

    pml4[0] = (uint64_t)pdpt | 7;
    pdpt[0] = (uint64_t)pd | 7;
    for (unsigned i = 0; i < 512; i++)
        pd[i] = (uint64_t)i << 21 | 0x87; /* 2 MB, present, writable, user */
    write_cr3((uint64_t)pml4);

    tss[1] = (uint32_t)stack; /* RSP0 */
    tss[2] = (uint32_t)(stack >> 32);
    tss[25] = 104 << 16; /* no I/O bitmap: every port is forbidden in ring 3 */
    gdt[6] = 103 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[7] = base >> 32;
    __asm__ volatile("lgdt %0" : : "m"(gdtr));
    load_segments();
    __asm__ volatile("ltr %w0" : : "r"(TSS));
    gate(0x80, on_int80, 3);
    gate(13, on_gp, 0);
    __asm__ volatile("lidt %0" : : "m"(idtr));

    wrmsr(0xc0000081, (uint64_t)UCODE32 << 48 | (uint64_t)KCODE << 32); /* STAR */
    wrmsr(0xc0000082, (uint64_t)on_syscall);                            /* LSTAR */
    wrmsr(0xc0000084, 0x700);                                           /* FMASK: IF, TF, DF */
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);                           /* EFER.SCE */
}

/* --- The program ------------------------------------------------------------------------------------------------ */

static void user_putchar(int c) /* by INT 0x80 */
{
    uint64_t number = CALL_PUTCHAR;
    __asm__ volatile("int $0x80" : "+a"(number) : "D"((uint64_t)c) : "memory");
}

static void user_print(const char *text) /* by SYSCALL, which takes RCX and R11 for itself */
{
    uint64_t number = CALL_PRINT;
    __asm__ volatile("syscall" : "+a"(number) : "D"(text) : "rcx", "r11", "memory");
}

static void user_puts(const char *text)
{
    while (*text)
        user_putchar(*text++);
    user_putchar('\n');
}

static uint8_t composite[8192];
static uint32_t numbers[2048];
static uint32_t table[256];

static unsigned sieve(unsigned limit)
{
    unsigned count = 0;

    for (unsigned i = 2; i < limit; i++) {
        if (composite[i])
            continue;
        count++;
        for (unsigned j = 2 * i; j < limit; j += i)
            composite[j] = 1;
    }
    return count;
}

static void quicksort(uint32_t *a, long low, long high)
{
    while (low < high) {
        uint32_t pivot = a[(low + high) / 2];
        long i = low, j = high;

        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                uint32_t t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        quicksort(a, low, j);
        low = i;
    }
}

static uint32_t crc32(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    while (size--)
        crc = table[(crc ^ *p++) & 255] ^ (crc >> 8);
    return ~crc;
}

static void __attribute__((noreturn)) user_main(void)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t seed = 12345, crc;
    unsigned primes = sieve(8192);
    char text[9];
    int sorted = 1;

    user_print("primes below 8192: ");
    for (int i = 3; i >= 0; i--, primes /= 10)
        text[i] = (char)('0' + primes % 10);
    text[4] = 0;
    user_puts(text);

    for (int i = 0; i < 2048; i++)
        numbers[i] = seed = seed * 1664525u + 1013904223u;
    quicksort(numbers, 0, 2047);
    for (int i = 1; i < 2048; i++)
        if (numbers[i - 1] > numbers[i])
            sorted = 0;
    user_puts(sorted ? "sorted 2048 numbers: yes" : "sorted 2048 numbers: no");

    __asm__ volatile("cli"); /* #GP: ring 3 may not */

    crc = crc32("123456789", 9);
    user_print("crc32 of 123456789: ");
    for (int i = 0; i < 8; i++)
        text[i] = digits[crc >> (28 - 4 * i) & 15];
    text[8] = 0;
    user_puts(text);
    __asm__ volatile("int $0x80" : : "a"((uint64_t)CALL_EXIT), "D"((uint64_t)crc) : "memory");
    __builtin_unreachable();
}

int main(void)
{
    kernel_start();
    puts("kernel: ring 3 starts");
    enter_user((void *)user_main, user_stack + sizeof user_stack - 8);
    return 0;
}
