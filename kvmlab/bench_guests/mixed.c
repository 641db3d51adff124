/* mixed - a compiled integer kernel: sieve, quicksort, CRC-32 and a small
 * bytecode interpreter.  No SSE, no libc.  entry: work(N), RDI = N rounds,
 * RAX = check value.  Instructions per round depend on the compiler; they are counted, not stated. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define BUF   ((u8 *)0x400000)
#define FLAGS (BUF)                          /* sieve flags, 16 KiB   */
#define ARR   ((u32 *)(BUF + 0x10000))       /* sort array, 2048 u32  */
#define TAB   ((u32 *)(BUF + 0x20000))       /* CRC table, 1 KiB      */

u64 __attribute__((section(".text.entry"))) work_entry(u64 n);

static u32 seed;
static u32 rnd(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed;
}

static u32 __attribute__((noinline)) sieve(u32 n)
{
    u32 i, j, count = 0;
    for (i = 2; i < n; i++)
        FLAGS[i] = 1;
    for (i = 2; i < n; i++) {
        if (!FLAGS[i])
            continue;
        count++;
        for (j = i + i; j < n; j += i)
            FLAGS[j] = 0;
    }
    return count;
}

static void __attribute__((noinline)) quicksort(u32 *a, long lo, long hi)
{
    while (lo < hi) {
        u32 p = a[(lo + hi) / 2], t;
        long i = lo, j = hi;
        while (i <= j) {
            while (a[i] < p) i++;
            while (a[j] > p) j--;
            if (i <= j) {
                t = a[i]; a[i] = a[j]; a[j] = t;
                i++; j--;
            }
        }
        if (j - lo < hi - i) {
            quicksort(a, lo, j);
            lo = i;
        } else {
            quicksort(a, i, hi);
            hi = j;
        }
    }
}

static void crc_init(void)
{
    u32 i, k, c;
    for (i = 0; i < 256; i++) {
        c = i;
        for (k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        TAB[i] = c;
    }
}

static u32 __attribute__((noinline)) crc32(const u8 *p, u64 n)
{
    u32 c = ~0u;
    while (n--)
        c = TAB[(c ^ *p++) & 255] ^ (c >> 8);
    return ~c;
}

/* a stack machine running: s = 0; for (i = n; i; i--) s = (s ^ i) * 33 + 7; */
enum { PUSH, LOAD, STORE, ADD, MUL, XOR, DEC, JNZ, HALT };
static const u8 prog[] = {
    PUSH, 0, STORE, 1,
    /* 4: */ LOAD, 1, LOAD, 0, XOR, PUSH, 33, MUL, PUSH, 7, ADD, STORE, 1,
    LOAD, 0, DEC, STORE, 0, LOAD, 0, JNZ, 4,
    LOAD, 1, HALT };

static u32 __attribute__((noinline)) interp(const u8 *code, u32 n)
{
    u32 var[4] = { n, 0, 0, 0 }, st[16], *sp = st;
    const u8 *pc = code;
    for (;;) {
        switch (*pc++) {
        case PUSH:  *sp++ = *pc++; break;
        case LOAD:  *sp++ = var[*pc++]; break;
        case STORE: var[*pc++] = *--sp; break;
        case ADD:   sp--; sp[-1] += *sp; break;
        case MUL:   sp--; sp[-1] *= *sp; break;
        case XOR:   sp--; sp[-1] ^= *sp; break;
        case DEC:   sp[-1]--; break;
        case JNZ:   if (*--sp) pc = code + *pc; else pc++; break;
        default:    return sp[-1];
        }
    }
}

u64 work_entry(u64 n)
{
    u64 h = 0xcbf29ce484222325ul, r;
    u32 i;
    seed = 12345;
    crc_init();
    for (r = 0; r < n; r++) {
        h = (h ^ sieve(8192)) * 0x100000001b3ul;
        for (i = 0; i < 2048; i++)
            ARR[i] = rnd();
        quicksort(ARR, 0, 2047);
        h = (h ^ crc32((u8 *)ARR, 8192)) * 0x100000001b3ul;
        h = (h ^ interp(prog, 1000 + (u32)(r & 7))) * 0x100000001b3ul;
    }
    return h;
}
