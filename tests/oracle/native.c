/* The host's side: one instruction on the host's own CPU, in user mode.
 *
 * The loop lives in the signal handler: a case is put into the saved context, the return from the
 * signal loads every register, flag and the code segment at once, and the trap behind the instruction
 * (TF, or an INT3 after it) or its fault comes back here. 32 and 16-bit code runs through descriptors
 * of a local descriptor table. FS belongs to the C library and is left alone. */
#define _GNU_SOURCE
#include "oracle.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__)
#include <asm/ldt.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum { ES, CS, SS, DS, FS, GS };
enum { VEC_DB = 1, VEC_BP = 3, VEC_PF = 14 };
#define SELECTOR(entry) ((entry) << 3 | 7u) /* LDT, privilege level 3 */
#define ENTRY(bits, seg) ((bits) == BITS_16 ? 8u + (seg) : (unsigned)(seg))

static uint8_t *code_bytes; /* a writable view of the page that the host executes */
static next_fn *next_case;
static done_fn *case_done;
static struct oracle_case current;
static bool started, inside;
static sigjmp_buf way_out;
static uint64_t host_selectors;

static const int registers[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

static void collect(const greg_t *g, struct oracle_result *result)
{
    for (unsigned n = 0; n < 16; n++)
        result->after.r[n] = (uint64_t)g[registers[n]];
    result->after.rip = (uint64_t)g[REG_RIP];
    result->after.rflags = (uint64_t)g[REG_EFL];
    result->vector = (uint32_t)g[REG_TRAPNO];
    result->error = (uint32_t)g[REG_ERR];
    result->address = result->vector == VEC_PF ? (uint64_t)g[REG_CR2] : 0;
    bool trapped = result->vector == VEC_DB || (!current.step && result->vector == VEC_BP);
    if (!trapped)
        return;
    result->vector = NO_FAULT;
    result->error = 0;
    if (!current.step)
        result->after.rip--; /* behind the INT3 */
}

static void load_data_segments(unsigned bits)
{
    unsigned ds = bits == BITS_64 ? 0 : SELECTOR(ENTRY(bits, DS)), es = bits == BITS_64 ? 0 : SELECTOR(ENTRY(bits, ES));
    unsigned gs = SELECTOR(ENTRY(bits == BITS_16 ? BITS_16 : BITS_32, GS));
    __asm__ volatile("mov %0, %%ds\n\tmov %1, %%es\n\tmov %2, %%gs" : : "r"(ds), "r"(es), "r"(gs));
}

static void install(greg_t *g)
{
    const struct oracle_state *s = &current.before;
    uint32_t base = current.bits == BITS_64 ? 0 : CODE_BASE;
    uint64_t selectors = host_selectors;
    memset(code_bytes, 0xcc, CODE_SIZE);
    memcpy(code_bytes + (base + s->rip - CODE_BASE), current.bytes, current.len ? current.len : 15);
    for (unsigned n = 0; n < 16; n++)
        g[registers[n]] = (greg_t)s->r[n];
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)s->rflags;
    if (current.bits != BITS_64) {
        selectors &= 0x0000ffffffff0000ull;
        selectors |= SELECTOR(ENTRY(current.bits, CS)) | (uint64_t)SELECTOR(ENTRY(current.bits, SS)) << 48;
    }
    g[REG_CSGSFS] = (greg_t)selectors;
    load_data_segments(current.bits);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)info;
    __asm__ volatile("pushfq\n\tandl $~0x244000, (%%rsp)\n\tpopfq" : : : "memory", "cc"); /* the case's AC, ID, NT */
    if (inside) { /* a fault of the oracle itself: let it crash where it stands */
        signal(number, SIG_DFL);
        return;
    }
    inside = true;
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (started) {
        struct oracle_result result;
        collect(g, &result);
        case_done(&current, &result);
    } else {
        host_selectors = (uint64_t)g[REG_CSGSFS];
        started = true;
    }
    if (!next_case(&current))
        siglongjmp(way_out, 1);
    install(g);
    inside = false;
}

static bool add_descriptor(unsigned entry, const struct oracle_segment *s, bool big)
{
    struct user_desc d = { .entry_number = entry, .base_addr = s->base, .limit = s->limit, .seg_32bit = big,
                           .contents = s->code ? 2 : s->expand_down ? 1 : 0, .read_exec_only = s->read_only };
    return syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0;
}

static uint8_t *map_at(int fd, uint32_t address, uint32_t size, uint64_t offset, int rights)
{
    return mmap((void *)(uintptr_t)address, size, rights, MAP_SHARED | MAP_POPULATE | (address ? MAP_FIXED_NOREPLACE : 0), fd,
                (off_t)offset);
}

bool native_init(uint8_t **code, uint8_t **data)
{
    static uint8_t stack[1 << 16];
    int fd = memfd_create("oracle", 0);
    if (fd < 0 || ftruncate(fd, CODE_SIZE + DATA_SIZE) < 0) {
        fprintf(stderr, "no memory file: %s\n", strerror(errno));
        return false;
    }
    if (map_at(fd, CODE_BASE, CODE_SIZE, 0, PROT_READ | PROT_EXEC) == MAP_FAILED ||
        map_at(fd, DATA_BASE, DATA_SIZE, CODE_SIZE, PROT_READ | PROT_WRITE) == MAP_FAILED) {
        fprintf(stderr, "cannot map the window at %x: %s\n", CODE_BASE, strerror(errno));
        return false;
    }
    code_bytes = map_at(fd, 0, CODE_SIZE, 0, PROT_READ | PROT_WRITE);
    *code = code_bytes;
    *data = (uint8_t *)(uintptr_t)DATA_BASE;
    for (unsigned seg = ES; seg <= GS; seg++)
        if (!add_descriptor(ENTRY(BITS_32, seg), &oracle_segments[seg], true) ||
            !add_descriptor(ENTRY(BITS_16, seg), &oracle_segments[seg], false)) {
            fprintf(stderr, "no local descriptor table: %s\n", strerror(errno));
            return false;
        }
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
    struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
    sigaltstack(&alternate, NULL);
    for (unsigned n = 0; n < sizeof signals / sizeof *signals; n++)
        sigaction(signals[n], &action, NULL);
    return code_bytes != MAP_FAILED;
}

void native_loop(next_fn *next, done_fn *done)
{
    next_case = next;
    case_done = done;
    if (sigsetjmp(way_out, 1) == 0)
        raise(SIGTRAP);
    unsigned none = 0;
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %0, %%gs" : : "r"(none));
}

#else

bool native_init(uint8_t **code, uint8_t **data)
{
    (void)code, (void)data;
    fprintf(stderr, "the native oracle wants Linux on x86-64\n");
    return false;
}
void native_loop(next_fn *next, done_fn *done) { (void)next, (void)done; }

#endif
