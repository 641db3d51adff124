/* The dirty log: a page is marked when it becomes writable in the shadow, not at each store (facts 1.9). A query takes the right to
 * write away again, so that the next store faults once and marks. */
#include "hv.h"

#include <string.h>

static uint64_t bitmap_hpa(const struct hv_slot *slot) { return slot->aux + 4 * (slot->size >> PAGE_SHIFT); }

void dirty_mark(struct hv *hv, uint64_t gfn)
{
    const struct hv_slot *slot = hv_slot_at(hv, gfn << PAGE_SHIFT);
    if (!slot || !(slot->flags & 1))
        return;
    uint64_t page = ((gfn << PAGE_SHIFT) - slot->gpa) >> PAGE_SHIFT;
    uint8_t byte, bit = (uint8_t)(1u << (page & 7));
    physical_read(hv->cpu, bitmap_hpa(slot) + page / 8, &byte, 1);
    frame_t frame = space_frame(hv->guest, gfn << PAGE_SHIFT, true);
    if (frame != NO_FRAME)
        memory_clear_attr(hv->memory, frame, PAGE_LOGGED);
    if (byte & bit)
        return;
    byte |= bit;
    physical_write(hv->cpu, bitmap_hpa(slot) + page / 8, &byte, 1);
    silicon_emit(hv->cpu, EVENT_DIRTY, (uint32_t)(slot - hv->slot), gfn, 0, 0, 0);
}

/* From now on the first store to each page counts: nothing of the slot is writable. */
void dirty_start(struct hv *hv, uint32_t number)
{
    const struct hv_slot *slot = &hv->slot[number];
    for (uint64_t gpa = slot->gpa; gpa - slot->gpa < slot->size; gpa += PAGE_SIZE) {
        frame_t frame = space_frame(hv->guest, gpa, true);
        if (hv->vcpu.created)
            shadow_remove_write(hv, gpa >> PAGE_SHIFT, (int)number);
        if (frame != NO_FRAME)
            memory_set_attr(hv->memory, frame, PAGE_LOGGED); /* what the emulator stores */
    }
    hv->vcpu.needs_flush = 1;
}

int dirty_get(struct hv *hv, uint32_t number, uint8_t *bitmap, uint64_t bytes)
{
    if (number >= HV_SLOTS || !hv->slot[number].size) {
        hv->error = "there is no memory in this slot";
        return -(int)KL_EINVAL;
    }
    const struct hv_slot *slot = &hv->slot[number];
    uint64_t wanted = ((slot->size >> PAGE_SHIFT) + 7) / 8;
    if (!(slot->flags & 1)) {
        hv->error = "this slot does not log dirty pages: set its flag first";
        return -(int)KL_ENOENT;
    }
    if (bytes < wanted) {
        hv->error = "the bitmap is too small: one bit for each page of the slot";
        return -(int)KL_EINVAL;
    }
    hv_come_out(hv);
    memset(bitmap, 0, bytes);
    physical_read(hv->cpu, bitmap_hpa(slot), bitmap, wanted);
    for (uint64_t k = 0; k < wanted; k++) {
        const uint8_t zero = 0;
        if (bitmap[k])
            physical_write(hv->cpu, bitmap_hpa(slot) + k, &zero, 1);
    }
    dirty_start(hv, number);
    return 0;
}
