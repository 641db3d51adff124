/* The oracle: one instruction on one state, run by somebody who knows, and by our processor.
 *
 * bare.c runs it on a bare `struct cpu`, native.c on the host's own CPU in user mode (64-bit, and 32
 * and 16-bit protected mode through descriptors of an LDT); generate.c makes instruction and state. */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stdint.h>

/* The same code and data in real mode. */
#define REAL_CODE 0x20000u
#define REAL_DATA 0x30000u

/* Linear addresses that host and engine both map; everything else is not present. */
#define CODE_BASE 0x10000000u
#define CODE_SIZE 0x1000u
#define DATA_BASE 0x10010000u
#define DATA_SIZE 0x2000u

enum bitness { BITS_64, BITS_32, BITS_16, BITS_REAL, BITS_FLAT32 }; /* FLAT32: segments from 0 to 4 GB */

/* Segments of the 16 and 32-bit modes, the same in the LDT and in the engine. GS grows downwards. */
struct oracle_segment { uint32_t base, limit; bool code, read_only, expand_down; };
extern const struct oracle_segment oracle_segments[6]; /* ES CS SS DS FS GS */

struct oracle_state {
    uint64_t r[16]; /* in the encoding's order: RAX RCX RDX RBX RSP RBP RSI RDI R8.. */
    uint64_t rip, rflags;
};

enum { NO_FAULT = 255 };
struct oracle_case {
    uint32_t bits;            /* enum bitness */
    uint32_t row;             /* of insn.def */
    uint32_t len;             /* of the instruction, 0: not decodable */
    uint32_t step;            /* TF is set: one iteration */
    uint8_t bytes[16];
    struct oracle_state before;
};
struct oracle_result {
    struct oracle_state after;
    uint32_t vector;          /* NO_FAULT or the exception */
    uint32_t error;
    uint64_t address;         /* #PF */
    uint16_t selector[6];     /* ES CS SS DS FS GS; only bare.c */
};

/* bare.c */
struct insn;
bool bare_init(const char *profile);
void bare_run(const struct oracle_case *c, struct oracle_result *result);
uint8_t *bare_data(void);     /* DATA_SIZE bytes behind DATA_BASE */
uint8_t *bare_code(void);
int bare_length(unsigned bits, const uint8_t *bytes, unsigned available); /* bytes, 0: #UD, -1: more bytes wanted, -2: too long */
int bare_row(unsigned bits, const uint8_t *bytes, unsigned available);    /* -1: none */
unsigned bare_nr_rows(void);
const char *bare_mnemonic(unsigned row), *bare_encoding(unsigned row), *bare_flags(unsigned row);
bool bare_decode(struct oracle_case *c, struct insn *i);                  /* sets row and len */

/* generate.c */
uint64_t random64(void);
void random_seed(uint64_t seed);
bool generate(struct oracle_case *c, unsigned row, unsigned bits); /* false: the row does not exist in this mode */

/* native.c: calls `next` for each case and `done` with what the host CPU made of it, until next() says false. */
typedef bool next_fn(struct oracle_case *c);
typedef void done_fn(const struct oracle_case *c, const struct oracle_result *host);
bool native_init(uint8_t **code, uint8_t **data); /* false: this host cannot; says why on stderr */
void native_loop(next_fn *next, done_fn *done);

#endif
