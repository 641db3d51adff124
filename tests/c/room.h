/* A small machine for the tests of VMX and SVM: two megabytes of RAM, a processor in 64-bit mode with flat identity
 * paging, and pages with fixed purposes. A hypervisor of a few lines can stand here. */
#ifndef KVMLAB_TEST_ROOM_H
#define KVMLAB_TEST_ROOM_H

#include <stdlib.h>
#include <string.h>

#include "cpu/access.h"
#include "cpu/flags.h"
#include "cpu/virt.h"
#include "test.h"

enum room_page {
    ROOM_VMXON = 0x1000, ROOM_VMCS = 0x2000, ROOM_PML4 = 0x3000, ROOM_PDPT = 0x4000, ROOM_PD = 0x5000,
    ROOM_CODE = 0x6000, ROOM_GDT = 0x7000, ROOM_IDT = 0x8000, ROOM_STACK = 0xa000 /* top */, ROOM_TSS = 0xb000,
    ROOM_BITMAP_A = 0xc000, ROOM_BITMAP_B = 0xd000, ROOM_BITMAP_C = 0xe000, ROOM_MSRS = 0xf000, ROOM_LINK = 0x10000,
    ROOM_PAE = 0x11000, ROOM_PD32 = 0x12000, ROOM_VMCB = 0x13000, ROOM_HSAVE = 0x14000, ROOM_HOST_CODE = 0x15000,
    ROOM_HANDLER = 0x16000, ROOM_BYTES = 0x200000
};

struct room {
    struct memory memory;
    struct space space;
    struct trace trace;
    struct cpu *cpu;
};

struct room *room_new(const char *profile);
void room_free(struct room *room);
void room_put(struct room *room, uint64_t pa, const void *bytes, uint64_t len);
void room_put64(struct room *room, uint64_t pa, uint64_t value);
uint64_t room_get64(struct room *room, uint64_t pa);
/* The processor as a host in 64-bit mode, or in 32-bit protected mode with paging. */
void room_host(struct room *room, bool long_mode);

/* VMX operation with a current VMCS that enters, in these variants. Entries run at ROOM_CODE, exits at
 * ROOM_HOST_CODE. */
enum good {
    LONG, PROT, PAE, VM86, RING3, CONFORMING, IO_BITMAPS, MSR_LISTS, STI_SHADOW, STEP_SHADOW,
    INJECT_INT, INJECT_NMI, INJECT_UD, INJECT_GP, INJECT_SOFT, HOST32
};
void good_vmcs(struct room *room, enum good good);
uint64_t room_vmread(struct cpu *cpu, uint32_t encoding);
#define SET(name, value) CHECK_EQ(vmx_vmwrite(cpu, VMCS_##name, value), VMX_SUCCEED)
#define GET(name) room_vmread(cpu, VMCS_##name)

#endif
