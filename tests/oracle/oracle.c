/* oracle CASES SEED [PROFILE [MNEMONIC]]: the host's CPU against the engine, instruction by instruction.
 *
 * Prints one line per difference (the first few of each row) and one per row at the end:
 *   row N mnemonic "encoding" "flags" cases plain differences undefined
 * plain: without a fault; undefined: differences in flags that the manual leaves open, "o:12,a:3" or "-".
 * Exit status 0: no difference in anything defined. 77: this host cannot be asked. */
#define _GNU_SOURCE
#include "oracle.h"

#include "cpu/access.h"
#include "cpu/insn.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_PER_ROW 3
#define MAX_ROWS 2048

static struct row_count {
    uint64_t cases, plain; /* plain: without a fault */
    uint64_t differences;
    uint64_t undefined[6]; /* differences in undefined flags, in the order of flag_names */
} counts[MAX_ROWS];
static const char flag_names[] = "OSZAPC";
static const uint32_t flag_bits[] = { FLAG_OF, FLAG_SF, FLAG_ZF, FLAG_AF, FLAG_PF, FLAG_CF };

static const char *only;
static uint64_t nr_cases, last_case;
static uint8_t *host_data, *host_code, data_before[DATA_SIZE];

static bool skipped(const struct insn_row *row)
{
    static const struct { const char *mnemonic, *reason; } skips[] = {
#define SKIP(mnemonic, reason) { mnemonic, reason },
#include "skip.def"
    };
    for (unsigned n = 0; n < sizeof skips / sizeof *skips; n++)
        if (strcmp(row->mnemonic, skips[n].mnemonic) == 0)
            return true;
    /* far branches and moves to segment registers */
    return strstr(row->operands, "Ap") || strstr(row->operands, "Mp") || strchr(row->operands, 'S');
}

static bool wanted(unsigned row)
{
    return (!only || strcmp(insn_rows[row].mnemonic, only) == 0) && !skipped(&insn_rows[row]);
}

static bool next(struct oracle_case *c)
{
    static const unsigned modes[] = { BITS_64, BITS_64, BITS_32, BITS_16 };
    if (nr_cases++ == last_case)
        return false;
    for (;;) {
        unsigned row = (unsigned)(random64() >> 32) % nr_insn_rows;
        if (!wanted(row) || !generate(c, row, modes[random64() & 3]) || !wanted(c->row))
            continue;
        memcpy(data_before, host_data, DATA_SIZE);
        return true;
    }
}

/* ---- comparing ---------------------------------------------------------------------------------- */

static uint32_t undefined_flags(const struct insn_row *row)
{
    uint32_t mask = 0;
    for (unsigned n = 0; n < 6; n++)
        if (strchr(row->flags, tolower(flag_names[n])))
            mask |= flag_bits[n];
    return mask;
}

/* Both raise an exception, but of two that the instruction has waiting each tells another one. */
static bool explained(const struct oracle_case *c, const struct oracle_result *host, const struct oracle_result *ours)
{
    static const char *const mnemonics[] = {
#define DIFFERENCE(mnemonic, reason) mnemonic,
#include "differences.def"
    };
    if (host->vector == NO_FAULT || ours->vector == NO_FAULT)
        return false;
    for (unsigned n = 0; n < sizeof mnemonics / sizeof *mnemonics; n++)
        if (strcmp(mnemonics[n], insn_rows[c->row].mnemonic) == 0)
            return true;
    return false;
}

static bool same(const struct oracle_case *c, const struct oracle_result *host, const struct oracle_result *ours,
                 uint32_t ignored_flags)
{
    uint64_t register_mask = c->bits == BITS_64 ? ~0ull : 0xffffffff;
    for (unsigned n = 0; n < (c->bits == BITS_64 ? 16 : 8); n++)
        if ((host->after.r[n] ^ ours->after.r[n]) & register_mask)
            return false;
    uint64_t compared = FLAGS_STATUS | FLAG_DF | FLAG_AC | FLAG_ID | FLAG_NT;
    if (explained(c, host, ours))
        return true;
    if (host->vector != ours->vector || host->after.rip != ours->after.rip)
        return false;
    if (host->vector == NO_FAULT && ((host->after.rflags ^ ours->after.rflags) & compared & ~ignored_flags))
        return false;
    if (host->vector == VEC_PF && host->address >> 47)
        return true; /* the kernel's half: its error code is not told */
    return host->error == ours->error && host->address == ours->address;
}

static void print_state(const char *name, const struct oracle_state *s, unsigned nr)
{
    static const char *const names[] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };
    printf("  %-7s", name);
    for (unsigned n = 0; n < nr; n++)
        printf(n < 8 ? "%s=%llx " : "r%.0s%llx ", n < 8 ? names[n] : "", (unsigned long long)s->r[n]);
    printf("ip=%llx fl=%llx\n", (unsigned long long)s->rip, (unsigned long long)s->rflags);
}

static void print_difference(const struct oracle_case *c, const struct oracle_result *host, const struct oracle_result *ours)
{
    static const char *const modes[] = { "64", "32", "16" };
    const struct insn_row *row = &insn_rows[c->row];
    printf("differs: %s \"%s\" in %s-bit%s:", row->mnemonic, row->encoding, modes[c->bits], c->step ? "" : ", whole");
    for (unsigned n = 0; n < (c->len ? c->len : 15); n++)
        printf(" %02x", c->bytes[n]);
    printf("\n");
    unsigned nr = c->bits == BITS_64 ? 16 : 8;
    print_state("before", &c->before, nr);
    print_state("host", &host->after, nr);
    print_state("engine", &ours->after, nr);
    printf("  host: vector %d error %x address %llx; engine: vector %d error %x address %llx\n", (int)host->vector, host->error,
           (unsigned long long)host->address, (int)ours->vector, ours->error, (unsigned long long)ours->address);
    for (unsigned n = 0, shown = 0; n < DATA_SIZE && shown < 8; n++)
        if (host_data[n] != bare_data()[n]) {
            printf("  memory %x: before %02x host %02x engine %02x\n", DATA_BASE + n, data_before[n], host_data[n], bare_data()[n]);
            shown++;
        }
}

static void done(const struct oracle_case *c, const struct oracle_result *host)
{
    struct oracle_result ours;
    struct row_count *count = &counts[c->row];
    memcpy(bare_code(), host_code, CODE_SIZE);
    bare_run(c, &ours);
    uint32_t undefined = undefined_flags(&insn_rows[c->row]);
    bool same_memory = memcmp(host_data, bare_data(), DATA_SIZE) == 0;
    count->cases++;
    count->plain += host->vector == NO_FAULT;
    if (!same_memory || !same(c, host, &ours, undefined)) {
        if (count->differences++ < SHOWN_PER_ROW)
            print_difference(c, host, &ours);
        memcpy(bare_data(), host_data, DATA_SIZE);
    } else if (host->vector == NO_FAULT) {
        for (unsigned n = 0; n < 6; n++)
            count->undefined[n] += (undefined & flag_bits[n]) && ((host->after.rflags ^ ours.after.rflags) & flag_bits[n]);
    }
}

static bool report(void)
{
    bool good = true;
    for (unsigned row = 0; row < nr_insn_rows; row++) {
        const struct row_count *count = &counts[row];
        printf("row %u %s \"%s\" \"%s\" %llu %llu %llu ", row, insn_rows[row].mnemonic, insn_rows[row].encoding, insn_rows[row].flags,
               (unsigned long long)count->cases, (unsigned long long)count->plain, (unsigned long long)count->differences);
        bool any = false;
        for (unsigned n = 0; n < 6; n++)
            if (count->undefined[n]) {
                printf("%s%c:%llu", any ? "," : "", tolower(flag_names[n]), (unsigned long long)count->undefined[n]);
                any = true;
            }
        printf(any ? "\n" : "-\n");
        good &= !count->differences;
    }
    printf("cases %llu\n", (unsigned long long)last_case);
    return good;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: oracle CASES SEED [PROFILE [MNEMONIC]]\n");
        return 2;
    }
    random_seed(strtoull(argv[2], NULL, 0));
    last_case = strtoull(argv[1], NULL, 0);
    only = argc > 4 ? argv[4] : NULL;
    if (!bare_init(argc > 3 ? argv[3] : "amd"))
        return 2;
    if (!native_init(&host_code, &host_data))
        return 77;
    for (unsigned n = 0; n < DATA_SIZE; n++)
        host_data[n] = bare_data()[n] = (uint8_t)random64();
    native_loop(next, done);
    return report() ? 0 : 1;
}
