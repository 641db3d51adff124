/* 128-bit products and quotients in portable C: some builds have no helper for __int128. */
#ifndef KVMLAB_WIDE_H
#define KVMLAB_WIDE_H

#include <stdbool.h>
#include <stdint.h>

struct wide { uint64_t low, high; };

static inline struct wide wide_mul(uint64_t a, uint64_t b)
{
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t low = al * bl, mid1 = ah * bl, mid2 = al * bh, high = ah * bh;
    uint64_t carry = ((low >> 32) + (uint32_t)mid1 + (uint32_t)mid2) >> 32;
    struct wide p = { a * b, high + (mid1 >> 32) + (mid2 >> 32) + carry };
    return p;
}

static inline struct wide wide_mul_signed(int64_t a, int64_t b)
{
    struct wide p = wide_mul((uint64_t)a, (uint64_t)b);
    p.high -= (a < 0 ? (uint64_t)b : 0) + (b < 0 ? (uint64_t)a : 0);
    return p;
}

static inline struct wide wide_negate(struct wide v)
{
    struct wide n = { ~v.low + 1, ~v.high + (v.low == 0) };
    return n;
}

/* Quotient and remainder of a 128-bit dividend; false when the quotient has more than 64 bits.
 * Knuth's algorithm D with 32-bit digits. */
static inline bool wide_div(struct wide n, uint64_t d, uint64_t *quotient, uint64_t *remainder)
{
    if (n.high >= d)
        return false; /* also d == 0 */
    if (n.high == 0) {
        *quotient = n.low / d;
        *remainder = n.low % d;
        return true;
    }
    unsigned shift = 0;
    for (uint64_t top = d; !(top >> 63); top <<= 1)
        shift++;
    d <<= shift;
    uint64_t high = shift ? n.high << shift | n.low >> (64 - shift) : n.high, low = n.low << shift;
    uint64_t dh = d >> 32, dl = (uint32_t)d, digit[2];
    uint64_t rest = high;
    for (int k = 1; k >= 0; k--) {
        uint64_t next = k ? low >> 32 : (uint32_t)low;
        uint64_t q = rest / dh, r = rest % dh;
        while (q >> 32 || q * dl > (r << 32 | next)) {
            q--;
            r += dh;
            if (r >> 32)
                break;
        }
        rest = (rest << 32 | next) - q * d;
        digit[k] = q;
    }
    *quotient = digit[1] << 32 | digit[0];
    *remainder = rest >> shift;
    return true;
}

/* Signed: false when the quotient does not fit into 64 bits. Truncates towards zero. */
static inline bool wide_div_signed(struct wide n, int64_t d, int64_t *quotient, int64_t *remainder)
{
    bool negative = (int64_t)n.high < 0, opposite = negative != (d < 0);
    uint64_t q, r;
    if (!wide_div(negative ? wide_negate(n) : n, d < 0 ? -(uint64_t)d : (uint64_t)d, &q, &r))
        return false;
    if (opposite ? q > 1ull << 63 : q >> 63)
        return false;
    *quotient = (int64_t)(opposite ? -q : q);
    *remainder = (int64_t)(negative ? -r : r);
    return true;
}

#endif
