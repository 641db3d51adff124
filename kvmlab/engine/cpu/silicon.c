/* The processor as a hypervisor in C sees it (silicon.h): the plain instructions and physical memory. The instructions of
 * VMX and SVM are in vmx.c and svm.c. A fault that the instruction would raise is the answer `false`, not an event. */
#include "access.h"
#include "virt.h"
#include "silicon.h"

static bool tried(struct cpu *cpu, bool ok)
{
    cpu->leave = LEAVE_NONE;
    return ok;
}

/* ---- registers --------------------------------------------------------------------------------------------------- */

/* Reading may be mere looking: a fault that is not delivered leaves no trace. */
bool x86_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    const struct fault kept = cpu->fault;
    bool ok = tried(cpu, read_msr(cpu, index, value));
    cpu->fault = kept;
    return ok;
}
bool x86_wrmsr(struct cpu *cpu, uint32_t index, uint64_t value) { return tried(cpu, write_msr(cpu, index, value)); }

uint64_t x86_read_cr(struct cpu *cpu, unsigned number)
{
    switch (number) {
    case 0: return cpu->cr0;
    case 2: return cpu->cr2;
    case 3: return cpu->cr3;
    case 4: return cpu->cr4;
    default: return cpu->cr8;
    }
}

bool x86_mov_cr(struct cpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0: return tried(cpu, write_cr0(cpu, value));
    case 2: cpu->cr2 = value; return true;
    case 3: return tried(cpu, write_cr3(cpu, value));
    case 4: return tried(cpu, write_cr4(cpu, value));
    default: return tried(cpu, write_cr8(cpu, value));
    }
}

uint64_t x86_read_dr(struct cpu *cpu, unsigned number) { return cpu->dr[number & 7]; }

void x86_mov_dr(struct cpu *cpu, unsigned number, uint64_t value)
{
    cpu->dr[number & 7] = value;
    front_flush(cpu); /* pages with data breakpoints are not in the front */
    cpu_update_attention(cpu);
}

void x86_invlpg(struct cpu *cpu, uint64_t linear) { tlb_flush_page(cpu, linear); }
void x86_cpuid(struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]) { cpuid(cpu, leaf, subleaf, out); }
void x86_lgdt(struct cpu *cpu, uint64_t base, uint16_t limit) { cpu->gdtr = (struct table_register){ .base = base, .limit = limit }; }
void x86_lidt(struct cpu *cpu, uint64_t base, uint16_t limit) { cpu->idtr = (struct table_register){ .base = base, .limit = limit }; }

void x86_load_host_segments(struct cpu *cpu, uint16_t cs, uint16_t data, uint16_t tr)
{
    uint64_t low = 0, high = 0;
    cpu->seg[CS] = (struct segment){ .limit = ~0u, .attr = SEG_S | SEG_P | SEG_L | SEG_G | 11, .selector = cs };
    for (enum seg seg = ES; seg <= GS; seg++)
        if (seg != CS)
            cpu->seg[seg] = (struct segment){ .limit = ~0u, .attr = SEG_S | SEG_P | SEG_DB | SEG_G | 3, .selector = data };
    space_read(cpu->space, cpu->gdtr.base + tr, &low, 8); /* the host's tables are identity-mapped */
    space_read(cpu->space, cpu->gdtr.base + tr + 8, &high, 8);
    cpu->seg[TR] = (struct segment){ .base = (low >> 16 & 0xffffff) | (low >> 56) << 24 | high << 32, .limit = (uint32_t)(low & 0xffff),
                                     .attr = SEG_P | 11, .selector = tr };
    cpu->seg[LDTR] = (struct segment){ .attr = SEG_UNUSABLE };
    cpu->cpl = 0;
    cpu_mode_changed(cpu);
}

/* ---- physical memory ------------------------------------------------------------------------------------------------ */

uint64_t physical_read64(struct cpu *cpu, uint64_t pa)
{
    uint64_t value = 0;
    space_read(cpu->space, pa, &value, sizeof value);
    return value;
}
void physical_write64(struct cpu *cpu, uint64_t pa, uint64_t value) { space_write(cpu->space, pa, &value, sizeof value); }
void physical_read(struct cpu *cpu, uint64_t pa, void *to, uint64_t len) { space_read(cpu->space, pa, to, len); }
void physical_write(struct cpu *cpu, uint64_t pa, const void *from, uint64_t len) { space_write(cpu->space, pa, from, len); }

/* ---- running ---------------------------------------------------------------------------------------------------------- */

enum silicon_stop silicon_run(struct cpu *cpu, uint64_t budget) { return (enum silicon_stop)cpu_run(cpu, budget); }

void silicon_store_gprs(struct cpu *cpu, struct guest_gprs *gprs) { store_guest_gprs(cpu, gprs); }
uint64_t silicon_cr2(struct cpu *cpu) { return cpu->cr2; }
void silicon_set_cr2(struct cpu *cpu, uint64_t value) { cpu->cr2 = value; }
uint64_t silicon_time(struct cpu *cpu) { return cpu->retired; }
void silicon_retire(struct cpu *cpu, uint64_t instructions) { cpu->retired += instructions; }
void silicon_set_native(struct cpu *cpu, bool native) { cpu->native = native; }
bool silicon_is_intel(const struct cpu *cpu) { return cpu->profile->vendor == VENDOR_INTEL; }
unsigned silicon_physical_bits(const struct cpu *cpu) { return cpu->profile->physical_bits; }
uint32_t silicon_entry_check(const struct cpu *cpu)
{
    return silicon_is_intel(cpu) ? cpu->vmx.entry_failed : cpu->svm.entry_failed;
}
bool silicon_requested(struct cpu *cpu) { return *(volatile uint8_t *)&cpu->request != 0; }
void silicon_take_request(struct cpu *cpu) { cpu->request = 0; }
struct trace *silicon_trace(struct cpu *cpu) { return cpu->trace; }

void silicon_power_on(struct cpu *cpu)
{
    uint64_t retired = cpu->retired, tsc_base = cpu->tsc_base;
    cpu_reset(cpu);
    cpu->retired = retired;
    cpu->tsc_base = tsc_base;
}

void silicon_emit(struct cpu *cpu, enum event_kind kind, uint32_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    emit(cpu, kind, a, b, c, d, e);
}

void silicon_kick(struct cpu *cpu)
{
    if (cpu->world == WORLD_VMX_GUEST)
        (void)vmx_exit(cpu, EXIT_REASON_EXTERNAL_INTERRUPT, 0);
    else if (cpu->world == WORLD_SVM_GUEST)
        (void)svm_exit(cpu, SVM_EXIT_INTR, 0, 0);
    cpu->leave = LEAVE_NONE;
    cpu->current = cpu->block_start = NULL;
    cpu_update_attention(cpu);
}

void silicon_state(struct cpu *cpu, struct silicon_state *s)
{
    memcpy(s->gpr, cpu->r, sizeof s->gpr);
    s->rip = cpu->r[REG_RIP];
    s->rflags = get_rflags(cpu);
    for (unsigned k = 0; k < NR_SEGS; k++)
        s->seg[k] = (struct silicon_segment){ cpu->seg[k].base, cpu->seg[k].limit, cpu->seg[k].attr, cpu->seg[k].selector, { 0 } };
    s->gdt_base = cpu->gdtr.base, s->gdt_limit = cpu->gdtr.limit;
    s->idt_base = cpu->idtr.base, s->idt_limit = cpu->idtr.limit;
    s->cr0 = cpu->cr0, s->cr2 = cpu->cr2, s->cr3 = cpu->cr3, s->cr4 = cpu->cr4;
    s->efer = cpu->msr[MSR_EFER];
    s->dr7 = cpu->dr[7];
    s->interruptibility = cpu->interruptibility;
    s->activity = cpu->activity;
}

/* ---- what a guest may see ------------------------------------------------------------------------------------------------ */

enum { GUEST_PASS, GUEST_HIDE, GUEST_ALWAYS };
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
static const struct guest_bit { uint32_t leaf, subleaf; uint8_t reg, bit, rule; } guest_bits[] = {
#define FEATURE(NAME, leaf, subleaf, reg, bit, virtualised, summary) { leaf, subleaf, REG_##reg, bit, GUEST_##virtualised },
#include "cpuid.def"
};

void silicon_guest_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    cpuid(cpu, leaf, subleaf, out);
    for (unsigned k = 0; k < sizeof guest_bits / sizeof guest_bits[0]; k++) {
        const struct guest_bit *b = &guest_bits[k];
        if (b->leaf != leaf || (leaf == 7 && b->subleaf != subleaf))
            continue;
        if (b->rule == GUEST_HIDE)
            out[b->reg] &= ~(1u << b->bit);
        else if (b->rule == GUEST_ALWAYS)
            out[b->reg] |= 1u << b->bit;
    }
    if (leaf == 0x8000000a) /* SVM is hidden, and so is what tells of it */
        memset(out, 0, 4 * sizeof *out);
}

uint64_t silicon_cr4_defined(const struct cpu *cpu) { return cr4_defined(cpu); }
uint64_t silicon_guest_cr4(const struct cpu *cpu)
{
    return cr4_defined(cpu) & ~(uint64_t)(CR4_VMXE | CR4_SMXE | CR4_PCIDE | CR4_LA57 | CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE |
                                          CR4_OSXSAVE | CR4_PKE);
}
uint64_t silicon_guest_efer(const struct cpu *cpu) { return efer_defined(cpu) & (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE); }
