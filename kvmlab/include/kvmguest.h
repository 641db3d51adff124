/* kvmguest.h - what a C program needs inside a guest: ports, the console, HLT, a few system registers.
 * Freestanding; everything is static and inline. Works for 16, 32 and 64-bit guests (kvmlab.compile_c).
 * Text goes to the serial port 0x3f8, where vm.attach_console() listens. */
#ifndef KVMGUEST_H
#define KVMGUEST_H

#include <stddef.h>
#include <stdint.h>

#ifndef KVMGUEST_CONSOLE
#define KVMGUEST_CONSOLE 0x3f8
#endif

#define KVMGUEST_INLINE static inline __attribute__((always_inline, unused))

/* --- Ports: each is one I/O exit --- */

KVMGUEST_INLINE void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

KVMGUEST_INLINE void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

KVMGUEST_INLINE void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

KVMGUEST_INLINE uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

KVMGUEST_INLINE uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

KVMGUEST_INLINE uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* One REP OUTSB: one instruction, one exit for the whole string. */
KVMGUEST_INLINE void outsb(uint16_t port, const void *from, size_t count)
{
    __asm__ volatile("cld; rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

/* --- The console --- */

KVMGUEST_INLINE int putchar(int c)
{
    outb(KVMGUEST_CONSOLE, (uint8_t)c);
    return c;
}

/* The text as it is, byte by byte. */
static inline __attribute__((unused)) void print(const char *text)
{
    while (*text)
        putchar(*text++);
}

/* The text and a newline, as C's puts does. */
static inline __attribute__((unused)) int puts(const char *text)
{
    print(text);
    putchar('\n');
    return 0;
}

static inline __attribute__((unused)) void print_hex(uint64_t value, unsigned digits)
{
    while (digits--)
        putchar("0123456789abcdef"[(unsigned)(value >> (digits * 4)) & 15]);
}

static inline __attribute__((unused)) void print_dec(uint32_t value)
{
    char text[10];
    unsigned n = 0;

    do
        text[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n)
        putchar(text[--n]);
}

/* --- The processor --- */

KVMGUEST_INLINE void hlt(void) { __asm__ volatile("hlt" : : : "memory"); }
KVMGUEST_INLINE void sti(void) { __asm__ volatile("sti" : : : "memory"); }
KVMGUEST_INLINE void cli(void) { __asm__ volatile("cli" : : : "memory"); }

KVMGUEST_INLINE void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
}

KVMGUEST_INLINE uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

KVMGUEST_INLINE void wrmsr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index) : "memory");
}

KVMGUEST_INLINE uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

#define KVMGUEST_CR(n)                                                                                   \
    KVMGUEST_INLINE uintptr_t read_cr##n(void)                                                           \
    {                                                                                                    \
        uintptr_t value;                                                                                 \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                               \
        return value;                                                                                    \
    }                                                                                                    \
    KVMGUEST_INLINE void write_cr##n(uintptr_t value)                                                    \
    {                                                                                                    \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                   \
    }
KVMGUEST_CR(0)
KVMGUEST_CR(2)
KVMGUEST_CR(3)
KVMGUEST_CR(4)

KVMGUEST_INLINE void invlpg(const void *address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* --- Devices in memory: an address that no memory slot covers makes each access an MMIO exit --- */

KVMGUEST_INLINE uint8_t mmio_read8(uintptr_t at) { return *(volatile uint8_t *)at; }
KVMGUEST_INLINE uint16_t mmio_read16(uintptr_t at) { return *(volatile uint16_t *)at; }
KVMGUEST_INLINE uint32_t mmio_read32(uintptr_t at) { return *(volatile uint32_t *)at; }
KVMGUEST_INLINE void mmio_write8(uintptr_t at, uint8_t value) { *(volatile uint8_t *)at = value; }
KVMGUEST_INLINE void mmio_write16(uintptr_t at, uint16_t value) { *(volatile uint16_t *)at = value; }
KVMGUEST_INLINE void mmio_write32(uintptr_t at, uint32_t value) { *(volatile uint32_t *)at = value; }

#endif
