/* The parsed encodings of insn.def: what decode.c looks instructions up in. */
#ifndef KVMLAB_INSN_H
#define KVMLAB_INSN_H

#include "cpu.h"

enum opcode_map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, NR_MAPS };
enum mandatory_prefix { PREFIX_ANY, PREFIX_NONE, PREFIX_66, PREFIX_F3, PREFIX_F2 };
enum immediate { IMM_NONE, IMM_IB, IMM_IW, IMM_IZ, IMM_IV, IMM_CB, IMM_CZ, IMM_CP, IMM_MO };
enum rm_kind { KIND_ANY, KIND_MEM, KIND_REG, KIND_MOD_IGNORED };

struct encoding {
    uint8_t map, opcode, prefix, kind;
    int8_t digit;        /* ModRM.reg, or -1 */
    int16_t fixed_modrm; /* the whole ModRM byte, or -1 */
    bool modrm, rex_w, plus_reg;
    bool byte_rm, byte_reg;
    uint8_t imm[2];
};
struct opcode_node { uint16_t row, next; };

const struct encoding *insn_encoding(unsigned row);
const struct opcode_node *opcode_first(unsigned map, uint8_t opcode);
const struct opcode_node *opcode_next(const struct opcode_node *node);

#endif
