/* Memory slots: guest-physical memory, where it lies in host-physical memory, and what is kept beside it (facts 1.9). */
#include "hv.h"

const struct hv_slot *hv_slot_at(const struct hv *hv, uint64_t gpa)
{
    for (unsigned k = 0; k < HV_SLOTS; k++)
        if (gpa - hv->slot[k].gpa < hv->slot[k].size)
            return &hv->slot[k];
    return NULL;
}

bool hv_guest_read(struct hv *hv, uint64_t gpa, void *to, unsigned len) { return space_read(hv->guest, gpa, to, len) == len; }

static uint64_t aux_bytes(uint64_t size)
{
    uint64_t pages = size >> PAGE_SHIFT;
    return (4 * pages + (pages + 7) / 8 + PAGE_SIZE - 1) & PAGE_MASK;
}

int hv_fails(struct hv *hv, enum kl_errno code, const char *text)
{
    hv->error = text;
    return -(int)code;
}

/* The lowest room above the pool where no address is its own guest-physical address. */
static uint64_t place_slot(const struct hv *hv, uint64_t gpa, uint64_t bytes)
{
    uint64_t at = HV_SLOTS_HPA;
    for (unsigned tries = 0; tries < 2 * HV_SLOTS + 2; tries++) {
        bool moved = false;
        for (unsigned k = 0; k < HV_SLOTS; k++) {
            const struct hv_slot *s = &hv->slot[k];
            uint64_t end = s->hpa + s->size + aux_bytes(s->size);
            if (s->size && at < end && s->hpa < at + bytes)
                at = (end + 0x1fffff) & ~0x1fffffull, moved = true;
        }
        if (at == gpa)
            at += 0x200000, moved = true;
        if (!moved)
            break;
    }
    return at;
}

static int add_slot(struct hv *hv, unsigned number, uint64_t gpa, uint64_t size, uint32_t flags)
{
    struct hv_slot *slot = &hv->slot[number];
    uint64_t aux = aux_bytes(size), hpa = place_slot(hv, gpa, size + aux);
    for (unsigned k = 0; k < HV_SLOTS; k++)
        if (hv->slot[k].size && gpa < hv->slot[k].gpa + hv->slot[k].size && hv->slot[k].gpa < gpa + size)
            return hv_fails(hv, KL_EEXIST, "the memory slot overlaps another one");
    if ((hpa + size + aux) >> silicon_physical_bits(hv->cpu))
        return hv_fails(hv, KL_ENOMEM, "the slot and what the hypervisor keeps about it are more than the processor can address");
    struct ram *ram = memory_add_ram(hv->memory, size), *side = ram ? memory_add_ram(hv->memory, aux) : NULL;
    bool ok = side && space_map_ram(hv->host, hpa, ram, 0, ram->nr_pages, EXTENT_RAM);
    ok = ok && space_map_ram(hv->host, hpa + size, side, 0, side->nr_pages, EXTENT_RAM);
    ok = ok && space_map_ram(hv->guest, gpa, ram, 0, ram->nr_pages, EXTENT_RAM);
    if (!ok) {
        space_unmap(hv->host, hpa);
        space_unmap(hv->host, hpa + size);
        if (side)
            ram_disown(side);
        if (ram)
            ram_disown(ram);
        return hv_fails(hv, KL_ENOMEM, "so much memory cannot be had");
    }
    hv->slot_ram[number].ram = ram;
    hv->slot_ram[number].aux = side;
    *slot = (struct hv_slot){ .gpa = gpa, .size = size, .hpa = hpa, .aux = hpa + size, .flags = flags, .serial = ++hv->serial };
    return 0;
}

static void remove_slot(struct hv *hv, unsigned number)
{
    struct hv_slot *slot = &hv->slot[number];
    space_unmap(hv->guest, slot->gpa);
    space_unmap(hv->host, slot->hpa);
    space_unmap(hv->host, slot->aux);
    ram_disown(hv->slot_ram[number].ram);
    ram_disown(hv->slot_ram[number].aux);
    hv->slot_ram[number].ram = hv->slot_ram[number].aux = NULL;
    *slot = (struct hv_slot){ 0 };
}

int hv_set_memory_region(struct hv *hv, uint32_t number, uint64_t gpa, uint64_t size, uint32_t flags)
{
    int result = 0;
    if (number >= HV_SLOTS)
        return hv_fails(hv, KL_EINVAL, "no such slot: there are four, numbers 0 to 3");
    struct hv_slot *slot = &hv->slot[number];
    if (flags & ~1u)
        return hv_fails(hv, KL_EINVAL, "flags is 0 or 1 (log dirty pages)");
    if (size && slot->size && (size != slot->size || gpa != slot->gpa))
        return hv_fails(hv, KL_EINVAL, "a memory slot cannot be resized or moved: remove it first (size 0)");
    if (!size && !slot->size)
        return hv_fails(hv, KL_ENOENT, "there is no memory in this slot");
    hv_come_out(hv);
    if (size && slot->size) { /* only the flag changes */
        bool on = !(slot->flags & 1) && (flags & 1);
        slot->flags = flags;
        if (on)
            dirty_start(hv, number);
        return 0;
    }
    if (hv->vcpu.created)
        shadow_zap_all(hv, ZAP_SLOT);
    if (!size)
        remove_slot(hv, number);
    else
        result = add_slot(hv, number, gpa, size, flags);
    if (result == 0 && size && (flags & 1))
        dirty_start(hv, number);
    mmu_reset_context(hv);
    return result;
}
