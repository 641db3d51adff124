/* The code cache, for run.c. */
#ifndef KVMLAB_CODE_H
#define KVMLAB_CODE_H

#include "cpu.h"

static inline uint64_t code_key(frame_t frame, uint32_t offset, unsigned mode)
{
    return (uint64_t)frame << 16 | (uint64_t)offset << 4 | mode;
}
bool code_init(struct cpu *cpu);
void code_release(struct cpu *cpu);
struct block *code_find(const struct cpu *cpu, uint64_t key);

/* In front of code_find(): the block that last ran for a key, one comparison away. */
#define NR_RECENT 1024
struct recent { uint64_t key; const struct block *block; const struct insn *insn; };
static inline struct recent *code_recent(const struct cpu *cpu, uint64_t key)
{
    return &cpu->recent[(key >> 4 ^ key >> 16 ^ key) % NR_RECENT];
}
/* NULL: the first instruction crosses the end of the page. */
struct block *code_build(struct cpu *cpu, frame_t frame, const uint8_t *page_bytes, uint32_t offset);
const struct insn *code_insns(const struct cpu *cpu, const struct block *block);

op_fn op_undefined, op_too_long;

#endif
