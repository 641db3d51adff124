/* Real mode on processors that cannot enter it: the guest runs as virtual-8086 (facts 1.8).
 *
 * vm86 demands base = selector * 16, limit FFFFh and rights F3h of all six segments. The caches that the guest believes in are kept
 * beside the VMCS; what it loads under vm86 changes selector and base only, as a load in real mode does. A state that vm86 cannot
 * express goes to the emulator, one basic block at a time. */
#include "hv.h"

enum { TSS_REDIRECTION = 0x68, TSS_IO_MAP = TSS_REDIRECTION + 32, TSS_BYTES = TSS_IO_MAP + 8192 + 1, TSS_IO_MAP_BASE = 0x66 };
#define VM86_RIGHTS 0xf3u

bool real_mode_is_vm86(const struct hv *hv) { return hv->intel; }

uint64_t real_mode_tss(const struct hv *hv) { return hv->slot[0].gpa + hv->slot[0].size - 3 * PAGE_SIZE; }

/* Redirection bitmap all zero: INT n goes through the vector table; I/O map all zero: the intercept decides. */
void real_mode_write_tss(struct hv *hv)
{
    static const uint8_t zero[PAGE_SIZE];
    uint64_t tss = real_mode_tss(hv);
    uint16_t base = TSS_IO_MAP;
    uint8_t last = 0xff;
    hv->quiet++;
    for (unsigned k = 0; k < 3; k++)
        space_write(hv->guest, tss + k * PAGE_SIZE, zero, PAGE_SIZE);
    space_write(hv->guest, tss + TSS_IO_MAP_BASE, &base, sizeof base);
    space_write(hv->guest, tss + TSS_BYTES - 1, &last, 1);
    hv->quiet--;
}

static enum emulated_why segment_refused(const struct silicon_segment *s)
{
    if (s->limit != 0xffff)
        return s->limit > 0xffff ? WHY_LIMIT_HIGH : WHY_LIMIT_LOW;
    if (s->base != (uint64_t)s->selector << 4)
        return WHY_BASE;
    return s->attr & SEG_DB ? WHY_32_BIT : WHY_INSTRUCTION;
}

bool real_mode_expressible(const struct silicon_state *s, uint32_t *why)
{
    for (unsigned k = ES; k <= GS; k++) {
        enum emulated_why refused = segment_refused(&s->seg[k]);
        *why = refused | k << 8;
        if (refused)
            return false;
    }
    return true;
}

void real_mode_force(struct hv *hv, struct silicon_state *s)
{
    struct hv_vcpu *v = &hv->vcpu;
    for (unsigned k = 0; k < 8; k++)
        v->real_seg[k] = s->seg[k];
    v->real_flags = s->rflags & FLAG_IOPL;
    for (unsigned k = ES; k <= GS; k++) {
        struct silicon_segment *seg = &s->seg[k];
        if (seg->base == 0xffff0000) /* the reset vector */
            seg->base = 0xf0000;
        seg->selector = (uint16_t)(seg->base >> 4); /* a base above FFFFFh loses its top: entry will refuse it */
        seg->limit = 0xffff;
        seg->attr = VM86_RIGHTS;
    }
    s->seg[TR] = (struct silicon_segment){ .base = real_mode_tss(hv), .limit = TSS_BYTES - 1, .attr = SEG_P | 11 };
    for (unsigned k = 0; k < 8; k++)
        v->real_forced[k] = s->seg[k];
    s->rflags = (s->rflags & ~(uint64_t)FLAG_IOPL) | FLAG_VM | FLAG_IOPL;
}

void real_mode_believe(struct hv *hv, struct silicon_state *s)
{
    const struct hv_vcpu *v = &hv->vcpu;
    for (unsigned k = ES; k <= GS; k++) {
        bool loaded = s->seg[k].selector != v->real_forced[k].selector || s->seg[k].base != v->real_forced[k].base;
        uint64_t base = s->seg[k].base;
        uint16_t selector = s->seg[k].selector;
        s->seg[k] = v->real_seg[k];
        if (loaded) { /* only selector and base change: the limit of big real mode stays */
            s->seg[k].base = base;
            s->seg[k].selector = selector;
        }
    }
    s->seg[TR] = v->real_seg[TR];
    s->rflags = (s->rflags & ~(uint64_t)(FLAG_IOPL | FLAG_VM)) | v->real_flags;
}

/* PE was just set: VM entry wants caches that protected mode could have loaded. */
void real_mode_leave(struct hv *hv, struct silicon_state *s)
{
    if (!real_mode_is_vm86(hv))
        return;
    for (unsigned k = ES; k <= GS; k++) {
        struct silicon_segment *seg = &s->seg[k];
        unsigned rpl = k == CS || k == SS ? 0 : seg->selector & 3u;
        if (k == CS) {
            seg->attr = (seg->attr & (SEG_DB | SEG_G)) | SEG_P | SEG_S | 11;
            seg->selector &= (uint16_t)~3u;
        } else {
            seg->attr = (seg->attr & (SEG_DB | SEG_G)) | SEG_P | SEG_S | 3 | rpl << SEG_DPL_SHIFT;
        }
        if (k == SS)
            seg->selector = 0;
    }
    if ((s->seg[TR].attr & SEG_UNUSABLE) || ((s->seg[TR].attr & 15) != 11 && (s->seg[TR].attr & 15) != 3))
        s->seg[TR].attr = SEG_P | 11;
}
