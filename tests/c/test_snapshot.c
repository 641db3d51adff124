/* Snapshots and history: a run that is repeated from a snapshot gives the same machine, bit for bit. */
#include <string.h>

#include "kvmlab.h"
#include "test.h"

/* A real-mode loop that writes memory, rewrites its own immediate, asks a port and prints:
 *   start: inc word [0x2000] ; mov al, [0x1010] ; in al, 0x60 ; add [0x2002], al ; inc byte [0x100f+1]
 *          mov bl, imm8 (rewritten) ; out 0xe9, al ; rep stosb (cx=5) ; jmp start */
static const uint8_t loop[] = {
    0xff, 0x06, 0x00, 0x20,       /* 1000: inc word [0x2000] */
    0xe4, 0x60,                   /* 1004: in al, 0x60 */
    0x00, 0x06, 0x02, 0x20,       /* 1006: add [0x2002], al */
    0xfe, 0x06, 0x0f, 0x10,       /* 100a: inc byte [0x100f] */
    0xb3, 0x00,                   /* 100e: mov bl, imm8 */
    0xe6, 0xe9,                   /* 1010: out 0xe9, al */
    0xb9, 0x05, 0x00,             /* 1012: mov cx, 5 */
    0xbf, 0x00, 0x30,             /* 1015: mov di, 0x3000 */
    0xf3, 0xaa,                   /* 1018: rep stosb */
    0xeb, 0xe4,                   /* 101a: jmp 1000 */
};

static kl_vm *machine(void)
{
    const kl_config config = { .engine = "soft", .kind = "machine", .cpu = "intel-2006" };
    char message[100];
    kl_vm *vm;
    kl_sregs sregs;
    kl_regs regs;
    CHECK_EQ(kl_create(&config, &vm, message, sizeof message), 0);
    CHECK_EQ(kl_set_memory_region(vm, 0, 0, 1 << 20, 0), 0);
    CHECK_EQ(kl_write(vm, 0, 0x1000, loop, sizeof loop), sizeof loop);
    kl_get_sregs(vm, 0, &sregs);
    sregs.seg[1].base = sregs.seg[1].selector = 0;
    kl_set_sregs(vm, 0, &sregs);
    kl_get_regs(vm, 0, &regs);
    regs.rip = 0x1000;
    kl_set_regs(vm, 0, &regs);
    return vm;
}

/* Runs to the given number of instructions; each IN gets an answer that depends on the time. */
static void run_to(kl_vm *vm, uint64_t instructions)
{
    for (;;) {
        kl_position position;
        kl_exit exit;
        kl_get_position(vm, &position);
        if (position.instructions >= instructions)
            return;
        const kl_run_args args = { .max_instructions = instructions - position.instructions };
        CHECK_EQ(kl_run(vm, 0, &args, &exit), 0);
        if (exit.reason == KL_EXIT_IO && !exit.is_write && !exit.replayed)
            kl_complete(vm, 0, exit.instructions * 7);
    }
}

static uint64_t hash(kl_vm *vm)
{
    uint64_t h = 0;
    CHECK_EQ(kl_state_hash(vm, &h), 0);
    return h;
}

static uint32_t next_random(uint32_t *seed) { return *seed = *seed * 1664525u + 1013904223u; }

TEST(snapshot_restore_and_run_again_is_the_same_machine)
{
    uint32_t seed = 1;
    kl_vm *vm = machine();
    for (unsigned k = 0; k < 300; k++) {
        kl_position p;
        kl_get_position(vm, &p);
        run_to(vm, p.instructions + (next_random(&seed) >> 16) % 700);
        kl_get_position(vm, &p);
        uint64_t before = hash(vm);
        int64_t snapshot = kl_snapshot_save(vm);
        CHECK(snapshot >= 0);
        run_to(vm, p.instructions + 1000);
        uint64_t first = hash(vm);
        CHECK_EQ(kl_snapshot_restore(vm, snapshot), 0);
        CHECK_EQ(hash(vm), before);
        run_to(vm, p.instructions + (next_random(&seed) >> 16) % 999);
        run_to(vm, p.instructions + 1000);
        CHECK_EQ(hash(vm), first);
        CHECK_EQ(kl_snapshot_drop(vm, snapshot), 0);
    }
    kl_destroy(vm);
}

TEST(history_goes_to_any_moment_and_on_again)
{
    enum { MOMENTS = 40 };
    struct { kl_position position; uint64_t hash; } moment[MOMENTS];
    uint32_t seed = 7;
    kl_vm *vm = machine();
    CHECK_EQ(kl_history_start(vm, 500), 0);
    for (unsigned k = 0; k < MOMENTS; k++) {
        kl_position p;
        kl_get_position(vm, &p);
        run_to(vm, p.instructions + 1 + (next_random(&seed) >> 16) % 300);
        kl_get_position(vm, &moment[k].position);
        moment[k].hash = hash(vm);
    }
    for (unsigned k = 0; k < 3 * MOMENTS; k++) {
        unsigned m = (next_random(&seed) >> 16) % MOMENTS;
        kl_position p;
        CHECK_EQ(kl_goto(vm, &moment[m].position), 0);
        kl_get_position(vm, &p);
        CHECK_EQ(p.instructions, moment[m].position.instructions);
        CHECK_EQ(p.sequence, moment[m].position.sequence);
        CHECK_EQ(hash(vm), moment[m].hash);
    }
    kl_goto(vm, &moment[0].position);
    run_to(vm, moment[MOMENTS - 1].position.instructions); /* the logged answers, not new ones */
    CHECK_EQ(hash(vm), moment[MOMENTS - 1].hash);
    kl_destroy(vm);
}

TEST(an_edit_in_the_past_ends_the_old_future)
{
    kl_vm *vm = machine();
    kl_history info;
    kl_regs regs;
    kl_position p;
    kl_history_start(vm, 100);
    run_to(vm, 1000);
    kl_goto(vm, &(kl_position){ 450, 0 });
    kl_history_info(vm, &info);
    CHECK(info.ahead > 0);
    kl_get_regs(vm, 0, &regs);
    regs.gpr[0] ^= 0xff00;
    kl_set_regs(vm, 0, &regs);
    kl_history_info(vm, &info);
    CHECK_EQ(info.ahead, 0);
    run_to(vm, 2000);
    uint64_t end = hash(vm);
    kl_goto(vm, &(kl_position){ 500, 0 });
    run_to(vm, 2000);
    kl_get_position(vm, &p);
    CHECK_EQ(p.instructions, 2000);
    CHECK_EQ(hash(vm), end);
    kl_destroy(vm);
}

TEST(going_back_without_history_says_so)
{
    kl_vm *vm = machine();
    CHECK_EQ(kl_goto(vm, &(kl_position){ 0, 0 }), (uint64_t)-2);
    CHECK(strstr(kl_error(vm), "kl_history_start"));
    CHECK(kl_snapshot_restore(vm, 3) < 0);
    kl_destroy(vm);
}
