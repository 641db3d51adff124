/* What an exit of /dev/kvm was, in the words of the model.
 *
 * The kernel tells port, size and data of an I/O exit, but not where its instruction stands nor whether it
 * repeats: that is read from the guest's bytes at RIP and before it. The elements of a repeated OUTS, which leaves
 * once per element on some hosts, are gathered into one exit. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "devkvm.h"

/* ---- what an I/O instruction was ------------------------------------------------------------------------------- */

struct io_insn { bool string, rep, other_address_size; unsigned length; };

static unsigned default_operand_bytes(const struct kvm_sregs *s)
{
    return s->cs.l ? 4 : s->cs.db ? 4 : 2;
}

/* Reads an I/O instruction at `bytes`; false: there stands something else. */
static bool decode_io(const uint8_t *bytes, unsigned available, bool long_mode, unsigned default_bytes, bool in,
                      unsigned size, struct io_insn *insn)
{
    bool op66 = false;
    *insn = (struct io_insn){ 0 };
    for (unsigned at = 0; at < available && at < 15; at++) {
        uint8_t b = bytes[at];
        if (b == 0x66)
            op66 = true;
        else if (b == 0xf2 || b == 0xf3)
            insn->rep = true;
        else if (b == 0x67)
            insn->other_address_size = true;
        else if (b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65 ||
                 (long_mode && (b & 0xf0) == 0x40))
            continue;
        else {
            unsigned operand = b & 1 ? (op66 ? 6 - default_bytes : default_bytes) : 1;
            insn->string = b >= 0x6c && b <= 0x6f;
            bool is_in = insn->string ? b < 0x6e : b == 0xe4 || b == 0xe5 || b == 0xec || b == 0xed;
            bool is_io = insn->string || (b >= 0xe4 && b <= 0xe7) || (b >= 0xec && b <= 0xef);
            insn->length = at + 1 + (b >= 0xe4 && b <= 0xe7);
            insn->rep = insn->rep && insn->string;
            return is_io && is_in == in && operand == size;
        }
    }
    return false;
}

static unsigned read_code(struct devkvm *k, uint64_t linear, uint8_t *bytes, unsigned n)
{
    unsigned done = 0;
    for (; done < n; done++) {
        struct kvm_translation t = { .linear_address = linear + done };
        if (ioctl(k->vcpu, KVM_TRANSLATE, &t) < 0 || !t.valid || devkvm_copy(k, t.physical_address, bytes + done, NULL, 1) != 1)
            break;
    }
    return done;
}

/* Finds the I/O instruction: at RIP (not executed yet, or repeating), else ending at RIP. */
static bool find_io(struct devkvm *k, const kl_regs *regs, const struct kvm_sregs *s, bool in, unsigned size,
                    struct io_insn *insn, uint64_t *start)
{
    uint8_t bytes[15];
    uint64_t base = s->cs.l ? 0 : s->cs.base;
    bool in_place = in; /* IN leaves before it is done */
    for (unsigned turn = 0; turn < 2; turn++, in_place = !in_place) {
        if (in_place) {
            unsigned n = read_code(k, base + regs->rip, bytes, sizeof bytes);
            *start = regs->rip;
            if (decode_io(bytes, n, s->cs.l, default_operand_bytes(s), in, size, insn))
                return true;
            continue;
        }
        for (unsigned length = 1; length <= 4 && length <= regs->rip; length++) {
            unsigned n = read_code(k, base + regs->rip - length, bytes, length);
            *start = regs->rip - length;
            if (n == length && decode_io(bytes, n, s->cs.l, default_operand_bytes(s), in, size, insn) && insn->length == length)
                return true;
        }
    }
    *insn = (struct io_insn){ 0 };
    *start = regs->rip;
    return false;
}

/* ---- describing exits ---------------------------------------------------------------------------------------------- */

static uint64_t io_value(const struct kvm_run *run)
{
    uint64_t value = 0;
    memcpy(&value, (const uint8_t *)run + run->io.data_offset, run->io.size);
    return value;
}

static bool keep_string(struct devkvm *k, const void *bytes, uint64_t n)
{
    if (!k->string)
        k->string = malloc(STRING_BYTES);
    if (!k->string || k->string_bytes + n > STRING_BYTES)
        return false;
    if (bytes)
        memcpy(k->string + k->string_bytes, bytes, n);
    k->string_bytes += n;
    return true;
}

/* What a repeated instruction counts down: CX, ECX or RCX by its address size. */
static uint64_t count_mask(const struct kvm_sregs *s, const struct io_insn *insn)
{
    if (s->cs.l)
        return insn->other_address_size ? 0xffffffffu : ~0ull;
    return (s->cs.db != 0) != insn->other_address_size ? 0xffffffffu : 0xffffu;
}

/* A repeated OUTS leaves once for each few elements: gather them, they belong to one instruction. When the last is out,
 * RIP may still stand on it: entering then would run on into the next instruction. */
static void gather_outs(struct devkvm *k, uint64_t start, uint16_t port, uint8_t size, uint64_t mask)
{
    kl_regs now;
    while (devkvm_kernel_regs(k, &now) == 0 && now.rip == start && (now.gpr[1] & mask) && k->string_bytes + PAGE_SIZE <= STRING_BYTES) {
        if (devkvm_enter(k) < 0 || k->run->exit_reason != KVM_EXIT_IO || k->run->io.port != port ||
            k->run->io.size != size || k->run->io.direction != KVM_EXIT_IO_OUT)
            return;
        keep_string(k, (uint8_t *)k->run + k->run->io.data_offset, (uint64_t)size * k->run->io.count);
    }
}

static void describe_io(struct devkvm *k, kl_exit *exit)
{
    const struct kvm_run *run = k->run;
    struct kvm_sregs s;
    struct io_insn insn;
    uint64_t start;
    bool in = run->io.direction == KVM_EXIT_IO_IN;
    *exit = (kl_exit){ .reason = KL_EXIT_IO, .hardware_reason = ~0u, .is_write = !in, .size = run->io.size, .port = run->io.port,
                       .count = 1, .value = in ? ~0ull >> (64 - 8 * run->io.size) : io_value(run) };
    k->string_bytes = 0;
    k->string_in = in;
    k->answer_due = in;
    if (ioctl(k->vcpu, KVM_GET_SREGS, &s) < 0 || devkvm_kernel_regs(k, &k->behind) < 0)
        return;
    find_io(k, &k->behind, &s, in, exit->size, &insn, &start);
    k->shown = k->behind;
    k->shown.rip = start;
    exit->instruction_length = insn.length;
    if (!insn.string) {
        k->shown_valid = !in && start != k->behind.rip;
        return;
    }
    exit->string = 1;
    exit->rep = insn.rep;
    exit->down = k->behind.rflags >> 10 & 1;
    if (in) {
        keep_string(k, NULL, (uint64_t)run->io.size * run->io.count);
        exit->count = run->io.count;
        exit->address = s.es.base * !s.cs.l + k->behind.gpr[7];
        return;
    }
    keep_string(k, (const uint8_t *)run + run->io.data_offset, (uint64_t)run->io.size * run->io.count);
    if (insn.rep)
        gather_outs(k, start, exit->port, exit->size, count_mask(&s, &insn));
    devkvm_kernel_regs(k, &k->behind);
    exit->count = k->string_bytes / exit->size;
    int64_t step = exit->down ? -(int64_t)exit->size : exit->size;
    k->shown.gpr[6] = k->behind.gpr[6] - (uint64_t)(step * (int64_t)exit->count);
    k->shown.gpr[1] = k->behind.gpr[1] + (insn.rep ? exit->count : 0);
    k->shown_valid = true;
    exit->address = s.ds.base * !s.cs.l + k->shown.gpr[6];
}

static void describe_mmio(struct devkvm *k, kl_exit *exit)
{
    const struct kvm_run *run = k->run;
    *exit = (kl_exit){ .reason = KL_EXIT_MMIO, .hardware_reason = ~0u, .is_write = run->mmio.is_write,
                       .size = (uint8_t)run->mmio.len, .count = 1, .address = run->mmio.phys_addr, .value = ~0ull };
    if (run->mmio.is_write) {
        exit->value = 0;
        memcpy(&exit->value, run->mmio.data, run->mmio.len);
    }
    k->answer_due = !run->mmio.is_write;
}

bool devkvm_describe(struct devkvm *k, kl_exit *exit)
{
    const struct kvm_run *run = k->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO: describe_io(k, exit); return true;
    case KVM_EXIT_MMIO: describe_mmio(k, exit); return true;
    case KVM_EXIT_HLT: exit->reason = KL_EXIT_HLT; return devkvm_next_vector(k) < 0;
    case KVM_EXIT_DEBUG: exit->reason = KL_EXIT_DEBUG; return true;
    case KVM_EXIT_SHUTDOWN: exit->reason = KL_EXIT_SHUTDOWN; return true;
    case KVM_EXIT_FAIL_ENTRY:
        exit->reason = KL_EXIT_FAIL_ENTRY;
        exit->entry_error = (uint32_t)run->fail_entry.hardware_entry_failure_reason;
        return true;
    case KVM_EXIT_INTERNAL_ERROR:
        exit->reason = KL_EXIT_UNKNOWN;
        exit->suberror = run->internal.suberror;
        return true;
    case KVM_EXIT_EXCEPTION:
        exit->reason = KL_EXIT_EXCEPTION;
        exit->exception = run->ex.exception;
        exit->error_code = run->ex.error_code;
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN: case KVM_EXIT_INTR: return false;
    default:
        exit->reason = KL_EXIT_UNKNOWN;
        exit->hardware_reason = run->exit_reason == KVM_EXIT_UNKNOWN ? (uint32_t)run->hw.hardware_exit_reason : ~0u;
        return true;
    }
}
