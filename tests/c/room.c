/* The room of the VMX and SVM tests: see room.h. */
#include "room.h"

void room_put(struct room *room, uint64_t pa, const void *bytes, uint64_t len)
{
    space_write(&room->space, pa, bytes, len);
}

void room_put64(struct room *room, uint64_t pa, uint64_t value) { room_put(room, pa, &value, sizeof value); }

uint64_t room_get64(struct room *room, uint64_t pa)
{
    uint64_t value = 0;
    space_read(&room->space, pa, &value, sizeof value);
    return value;
}

static void identity_tables(struct room *room)
{
    room_put64(room, ROOM_PML4, ROOM_PDPT | 7);
    room_put64(room, ROOM_PDPT, ROOM_PD | 7);
    room_put64(room, ROOM_PD, 0xe7);             /* one 2 MB page */
    room_put64(room, ROOM_PAE, ROOM_PD | 1);     /* PDPTEs */
    uint32_t four_mb = 0xe7;
    room_put(room, ROOM_PD32, &four_mb, sizeof four_mb);
}

struct room *room_new(const char *profile)
{
    const char *error;
    struct room *room = calloc(1, sizeof *room);
    engine_init(&error);
    memory_init(&room->memory, NULL);
    space_init(&room->space, &room->memory);
    struct ram *ram = memory_add_ram(&room->memory, ROOM_BYTES);
    if (!ram || !space_map_ram(&room->space, 0, ram, 0, ROOM_BYTES / PAGE_SIZE, EXTENT_RAM) ||
        !trace_init(&room->trace, 0))
        abort();
    ram_put(ram);
    room->cpu = cpu_new(profile_find(profile), &room->space, &room->trace);
    identity_tables(room);
    room_host(room, true);
    return room;
}

void room_free(struct room *room)
{
    cpu_free(room->cpu);
    trace_release(&room->trace);
    space_release(&room->space);
    memory_release(&room->memory);
    free(room);
}

void room_host(struct room *room, bool long_mode)
{
    struct cpu *cpu = room->cpu;
    const uint32_t data = SEG_P | SEG_S | SEG_G | SEG_DB | 3,
                   code = SEG_P | SEG_S | SEG_G | 11 | (long_mode ? SEG_L : SEG_DB);
    for (enum seg seg = ES; seg <= GS; seg++)
        cpu->seg[seg] = (struct segment){ .limit = 0xffffffff, .selector = 0x10, .attr = data };
    cpu->seg[CS] = (struct segment){ .limit = 0xffffffff, .selector = 8, .attr = code };
    cpu->seg[TR] = (struct segment){ .base = ROOM_TSS, .limit = 0x67, .selector = 0x18, .attr = SEG_P | 11 };
    cpu->gdtr = (struct table_register){ .base = ROOM_GDT, .limit = 0xff };
    cpu->cr0 = CR0_PE | CR0_NE | CR0_ET | CR0_WP | CR0_PG;
    cpu->cr3 = long_mode ? ROOM_PML4 : ROOM_PD32;
    cpu->cr4 = (long_mode ? CR4_PAE : CR4_PSE) | (cpu_has(cpu, FEATURE_VMX) ? CR4_VMXE : 0);
    cpu->msr[MSR_EFER] = (long_mode ? EFER_LME | EFER_LMA : 0) | (cpu_has(cpu, FEATURE_SVM) ? EFER_SVME : 0);
    cpu->r[RSP] = ROOM_STACK;
    cpu->r[REG_RIP] = ROOM_HOST_CODE;
    cpu->cpl = 0;
    set_rflags(cpu, FLAG_1);
    tlb_flush(cpu, true);
    cpu_mode_changed(cpu);
}

uint64_t room_vmread(struct cpu *cpu, uint32_t encoding)
{
    uint64_t value = 0;
    CHECK_EQ(vmx_vmread(cpu, encoding, &value), VMX_SUCCEED);
    return value;
}
