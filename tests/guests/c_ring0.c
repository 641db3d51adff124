/* A compiled program in long mode, ring 0: sieve, quicksort, CRC-32, printing through the serial port.
 *: about: a C program in ring 0: sieve, quicksort, CRC-32
 *: bits: 64
 *: org: 0x100000
 *: console "primes below 8192: 1028\n"
 *: console "sorted 2048 numbers: yes\n"
 *: console "crc32 of 123456789: cbf43926\n"
 *: expect rax=0xcbf43926
 *: oracle: qemu
 */
#include <kvmguest.h>

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

int main(void)
{
    uint32_t seed = 12345, crc;
    int sorted = 1;

    print("primes below 8192: ");
    print_dec(sieve(8192));
    puts("");

    for (int i = 0; i < 2048; i++)
        numbers[i] = seed = seed * 1664525u + 1013904223u;
    quicksort(numbers, 0, 2047);
    for (int i = 1; i < 2048; i++)
        if (numbers[i - 1] > numbers[i])
            sorted = 0;
    print("sorted 2048 numbers: ");
    puts(sorted ? "yes" : "no");

    crc = crc32("123456789", 9);
    print("crc32 of 123456789: ");
    print_hex(crc, 8);
    puts("");
    return (int)crc;
}
