/* The VMCS: its region in memory, the cached copy of the current one, and access by field encoding.
 *
 * SDM vol. 3C, "Virtual Machine Control Structures"; vol. 3D appendix B. Only the first eight bytes of a region are
 * architectural; ours goes on with the launch state and then one quadword for each row of vmcs.def. While a VMCS is
 * current the processor works on a copy in cpu->vmx.field[]; vmcs_flush() brings memory up to date for whoever wants to
 * look. */
#include <string.h>

#include "virt.h"

enum { REGION_REVISION = 0, REGION_ABORT = 4, REGION_LAUNCHED = 8, REGION_FIELDS = 16,
       REGION_BYTES = REGION_FIELDS + 8 * NR_VMCS_FIELDS };

_Static_assert(NR_VMCS_FIELDS <= VMCS_SLOTS, "struct vmx_state has room for every field");
_Static_assert(REGION_BYTES <= PAGE_SIZE, "a VMCS region is one page");

#define BYTES_16 2
#define BYTES_32 4
#define BYTES_64 8
#define BYTES_NAT 8
#define NATURAL_16 0
#define NATURAL_32 0
#define NATURAL_64 0
#define NATURAL_NAT 1
const struct vmcs_row vmcs_rows[NR_VMCS_FIELDS] = {
#define VMCS_FIELD(encoding, name, width, group, needs, meaning) \
    { #name, meaning, encoding, BYTES_##width, NATURAL_##width, VMCS_##group, CONTROL_##needs },
#include "vmcs.def"
};

/* An encoding is index in bits 9:1, group in 11:10, width in 14:13; the largest index in use is far below 64. */
#define WIDTH_GROUP(encoding) (((encoding) >> 13 & 3) << 2 | ((encoding) >> 10 & 3))
#define INDEX(encoding) ((encoding) >> 1 & 0x1ff)
#define MAX_INDEX 64
static const uint8_t slot_plus_1[16][MAX_INDEX] = {
#define VMCS_FIELD(encoding, name, width, group, needs, meaning)                                                       \
    [WIDTH_GROUP(encoding)][INDEX(encoding)] = FIELD_##name + 1,
#include "vmcs.def"
};
#define ENCODING_RESERVED 0xffff9000u
#define ENCODING_HIGH 1u
#define WIDTH_IS_64(encoding) (((encoding) >> 13 & 3) == 1)

int vmcs_slot(const struct cpu *cpu, uint32_t encoding)
{
    if ((encoding & ENCODING_RESERVED) || INDEX(encoding) >= MAX_INDEX)
        return -1;
    if ((encoding & ENCODING_HIGH) && !WIDTH_IS_64(encoding))
        return -1;
    int slot = slot_plus_1[WIDTH_GROUP(encoding)][INDEX(encoding)] - 1;
    if (slot < 0 || vmcs_rows[slot].needs == CONTROL_ALWAYS)
        return slot;
    return vmx_control_allowed(cpu, (enum vmx_control_row)vmcs_rows[slot].needs) ? slot : -1;
}

/* A region that came from software may hold anything: every field is cut to its width. */
static uint64_t cut(unsigned slot, uint64_t value)
{
    unsigned bits = vmcs_rows[slot].bytes * 8;
    return bits == 64 ? value : value & ((1ull << bits) - 1);
}

void vmcs_load(struct cpu *cpu, uint64_t pa)
{
    uint32_t launched = 0;
    space_read(cpu->space, pa + REGION_LAUNCHED, &launched, sizeof launched);
    memset(cpu->vmx.field, 0, sizeof cpu->vmx.field);
    space_read(cpu->space, pa + REGION_FIELDS, cpu->vmx.field, 8 * NR_VMCS_FIELDS);
    for (unsigned slot = 0; slot < NR_VMCS_FIELDS; slot++)
        cpu->vmx.field[slot] = cut(slot, cpu->vmx.field[slot]);
    cpu->vmx.launched = launched == 1;
    cpu->vmx.checked = 0;
    cpu->vmx.current = pa;
    cpu->vmx.current_valid = 1;
}

void vmcs_flush(struct cpu *cpu)
{
    if (!cpu->vmx.current_valid)
        return;
    uint8_t image[REGION_BYTES - REGION_LAUNCHED] = { 0 };
    uint32_t launched = cpu->vmx.launched;
    memcpy(image, &launched, sizeof launched);
    memcpy(image + REGION_FIELDS - REGION_LAUNCHED, cpu->vmx.field, 8 * NR_VMCS_FIELDS);

    uint8_t before[sizeof image];
    space_read(cpu->space, cpu->vmx.current + REGION_LAUNCHED, before, sizeof before);
    if (memcmp(before, image, sizeof image) != 0) /* an unchanged page keeps its snapshots and decoded code */
        space_write(cpu->space, cpu->vmx.current + REGION_LAUNCHED, image, sizeof image);
}

void vmcs_unload(struct cpu *cpu)
{
    vmcs_flush(cpu);
    cpu->vmx.current_valid = 0;
    cpu->vmx.current = UINT64_MAX;
}

void vmcs_mark_clear(struct cpu *cpu, uint64_t pa)
{
    uint32_t launched = 0;
    space_write(cpu->space, pa + REGION_LAUNCHED, &launched, sizeof launched);
}

/* Which rules look at a field: see the areas of vmx_check.def. */
static unsigned parts_of(unsigned slot, uint64_t changed)
{
    switch (slot) {
    case FIELD_vm_entry_interruption_info:
    case FIELD_vm_entry_exception_error_code:
    case FIELD_vm_entry_instruction_length: return PART_CONTROLS;
    case FIELD_guest_rip:
    case FIELD_guest_rsp: return 0;
    case FIELD_guest_rflags: return changed & FLAG_VM ? PART_SEGMENTS : 0;
    case FIELD_guest_cr0: return PART_CONTROLS | PART_CR | PART_SEGMENTS;
    default: break;
    }
    switch (vmcs_rows[slot].group) {
    case VMCS_CONTROL: return PART_CONTROLS | PART_HOST | PART_CR | PART_SEGMENTS;
    case VMCS_HOST: return PART_HOST;
    case VMCS_GUEST: return PART_CR | PART_SEGMENTS;
    default: return 0;
    }
}

void vmcs_change(struct cpu *cpu, enum vmcs_slot slot, uint64_t value)
{
    uint64_t old = cpu->vmx.field[slot];
    value = cut(slot, value);
    if (old == value)
        return;
    cpu->vmx.field[slot] = value;
    cpu->vmx.checked &= (uint8_t)~parts_of(slot, old ^ value);
    emit(cpu, EVENT_FIELD_WRITE, vmcs_rows[slot].encoding, old, value, cpu->vmx.current, 0);
}
