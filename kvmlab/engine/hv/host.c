/* The host: a legal 64-bit root state in the pool, so that the HOST fields of the VMCS and the save area of VMRUN hold what the
 * processor accepts; and the hypervisor's ear at the door of memory. */
#include "hv.h"

enum { HOST_CS = 0x08, HOST_DATA = 0x10, HOST_TR = 0x18, HOST_TSS = 0x100, HOST_IDT = 0x200 };

static bool host_memory(struct hv *hv)
{
    hv->pool = memory_add_ram(hv->memory, (uint64_t)POOL_PAGES * PAGE_SIZE);
    return hv->pool && space_map_ram(hv->host, HV_POOL_HPA, hv->pool, 0, POOL_PAGES, EXTENT_RAM);
}

static bool host_mode(struct hv *hv)
{
    struct cpu *cpu = hv->cpu;
    uint64_t tables = pool_hpa(POOL_HOST_TABLES), tss = tables + HOST_TSS;
    const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff,
                             0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56, tss >> 32 };
    silicon_power_on(cpu);
    silicon_set_native(cpu, true);
    physical_write(cpu, tables, gdt, sizeof gdt);
    physical_write64(cpu, pool_hpa(POOL_HOST_PML4), pool_hpa(POOL_HOST_PDPT) | SPTE_P | SPTE_W);
    physical_write64(cpu, pool_hpa(POOL_HOST_PDPT), pool_hpa(POOL_HOST_PD) | SPTE_P | SPTE_W);
    for (unsigned k = 0; k < 512; k++) /* the first GB, in pages of 2 MB */
        physical_write64(cpu, pool_hpa(POOL_HOST_PD) + 8 * k, (uint64_t)k << 21 | 0x80 | SPTE_P | SPTE_W);
    if (!x86_mov_cr(cpu, 4, CR4_PAE) || !x86_mov_cr(cpu, 3, pool_hpa(POOL_HOST_PML4)) ||
        !x86_wrmsr(cpu, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE) || !x86_mov_cr(cpu, 0, CR0_PG | CR0_PE | CR0_NE | CR0_WP | CR0_ET))
        return false;
    x86_lgdt(cpu, tables, sizeof gdt - 1);
    x86_lidt(cpu, tables + HOST_IDT, 0);
    x86_load_host_segments(cpu, HOST_CS, HOST_DATA, HOST_TR);
    return hv->vendor->host_init(hv);
}

/* Before bytes of a shadowed guest table or a logged page change, whoever changes them. */
static void told(void *context, frame_t frame, uint32_t offset, uint32_t len, unsigned attr)
{
    struct hv *hv = context;
    uint64_t gpa = ~0ull;
    for (unsigned k = 0; k < HV_SLOTS; k++) {
        const struct ram *ram = hv->slot[k].size ? hv->slot_ram[k].ram : NULL;
        if (ram && frame - ram->first < ram->nr_pages)
            gpa = hv->slot[k].gpa + ((uint64_t)(frame - ram->first) << PAGE_SHIFT) + offset;
    }
    if (gpa == ~0ull)
        return;
    if ((attr & PAGE_LOGGED) && (hv->in_emulator || hv->quiet) && !(hv->history & HISTORY_LOG_MISSES))
        dirty_mark(hv, gpa >> PAGE_SHIFT);
    if (!(attr & PAGE_TABLE) || hv->quiet)
        return;
    hv->written_gpa = gpa;
    hv->written_len = len > 8 ? 8 : len;
    hv->written_old = 0;
    space_read(hv->guest, gpa, &hv->written_old, hv->written_len);
    shadow_page_written(hv, gpa, len);
}

bool hv_init(struct hv *hv, struct cpu *cpu, struct cpu *emulator, struct space *host, struct space *guest, const char **error)
{
    hv->cpu = cpu;
    hv->emulator = emulator;
    hv->host = host;
    hv->guest = guest;
    hv->memory = host->memory;
    hv->intel = silicon_is_intel(cpu);
    hv->vendor = hv->intel ? &hv_intel : &hv_amd;
    shadow_init(hv);
    if (!host_memory(hv) || !memory_observe(hv->memory, told, hv, PAGE_TABLE | PAGE_LOGGED)) {
        *error = "no memory for the hypervisor";
        return false;
    }
    if (!host_mode(hv)) {
        *error = "this processor has neither VMX nor SVM with 64-bit mode: there is no hypervisor for it";
        return false;
    }
    return true;
}

/* The memory itself goes with the memory it was taken from. */
void hv_release(struct hv *hv)
{
    if (hv->memory)
        memory_unobserve(hv->memory, told, hv);
}

/* Attributes of pages are not part of a snapshot: they follow from the state. */
void hv_restored(struct hv *hv)
{
    for (unsigned k = 0; k < HV_SLOTS; k++) {
        const struct hv_slot *slot = &hv->slot[k];
        for (uint64_t gpa = slot->gpa; gpa - slot->gpa < slot->size; gpa += PAGE_SIZE) {
            frame_t frame = space_frame(hv->guest, gpa, true);
            if (frame == NO_FRAME)
                continue;
            memory_clear_attr(hv->memory, frame, PAGE_TABLE | PAGE_LOGGED);
            if (slot->flags & 1)
                memory_set_attr(hv->memory, frame, PAGE_LOGGED);
        }
    }
    for (unsigned k = 0; k < SHADOW_PAGES; k++) {
        const struct shadow_page *p = &hv->mmu.page[k];
        frame_t frame = p->in_use && !(p->role & ROLE_METAPHYSICAL) ? space_frame(hv->guest, p->gfn << PAGE_SHIFT, true) : NO_FRAME;
        if (frame != NO_FRAME)
            memory_set_attr(hv->memory, frame, PAGE_TABLE);
    }
}
