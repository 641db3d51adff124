/* Random fields in VMCS and VMCB, then an entry and a short run: whatever comes, the processor ends in one of its
 * states and the sanitizers have nothing to say. A failing case prints its seed; the environment variable KVMLAB_SEED
 * runs another slice. */
#include <stdio.h>

#include "room.h"

#define CASES 1500

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

/* Mostly small changes: a bit, a small number, a page, an old friend; sometimes anything. */
static uint64_t odd_value(uint64_t *state, uint64_t old)
{
    static const uint64_t friends[] = { 0,         1,         UINT64_MAX, 0x80000000, 0x800000000000,
                                        ROOM_PML4, ROOM_CODE, ROOM_VMCS,  ROOM_LINK,  0xf3 };
    switch (next_random(state) % 5) {
    case 0: return old ^ 1ull << next_random(state) % 64;
    case 1: return old + next_random(state) % 17 - 8;
    case 2: return (next_random(state) % 0x200) << PAGE_SHIFT;
    case 3: return friends[next_random(state) % 10];
    default: return next_random(state);
    }
}

static uint64_t first_seed(void)
{
    const char *seed = getenv("KVMLAB_SEED");
    return seed ? strtoull(seed, NULL, 0) : 1;
}

static void random_code(struct room *room, uint64_t *state)
{
    uint8_t code[64];
    for (unsigned k = 0; k < sizeof code; k++)
        code[k] = (uint8_t)next_random(state);
    room_put(room, ROOM_CODE, code, sizeof code);
}

static bool is_sane(const struct cpu *cpu, enum cpu_stop stop)
{
    return stop == STOP_EXIT ? cpu->world == WORLD_PLAIN : stop <= STOP_REQUEST;
}

/* The rule that an entry must name: the first that fails when every one is evaluated. */
static unsigned first_failing(struct cpu *cpu)
{
    struct check_verdict verdict[NR_VMX_CHECKS_PLUS_1 - 1];
    vmx_check_all(cpu, verdict);
    for (unsigned n = 0; n < NR_VMX_CHECKS_PLUS_1 - 1; n++)
        if (verdict[n].verdict == VERDICT_FAILS)
            return n + 1;
    return CHECK_NO_VMX_RULE;
}

static bool is_field_rule(unsigned row)
{
    return row && vmx_check_failure(row) != FAILURE_INSTRUCTION && vmx_check_failure(row) != FAILURE_EXIT_34;
}

TEST(vmx_random_fields)
{
    for (unsigned k = 0; k < CASES; k++) {
        struct room *room = room_new("intel-2006");
        struct cpu *cpu = room->cpu;
        uint64_t seed = (first_seed() + k) * 0x9e3779b97f4a7c15, state = seed | 1;
        good_vmcs(room, (enum good)(next_random(&state) % (HOST32 + 1)));
        random_code(room, &state);
        for (unsigned n = next_random(&state) % 4; n; n--) {
            const struct vmcs_row *row = &vmcs_rows[next_random(&state) % NR_VMCS_FIELDS];
            uint64_t old = 0;
            if (vmx_vmread(cpu, row->encoding, &old) == VMX_SUCCEED)
                vmx_vmwrite(cpu, row->encoding, odd_value(&state, old));
        }
        cpu->native = 1;
        unsigned want = first_failing(cpu);
        enum vmx_result result = vmx_vmlaunch(cpu, NULL);
        if (want || is_field_rule(cpu->vmx.entry_failed))
            CHECK_EQ(cpu->vmx.entry_failed, want);
        CHECK(result != VMX_FAULT && result != VMX_FAIL_INVALID);
        CHECK((cpu->world == WORLD_VMX_GUEST) == (result == VMX_SUCCEED) || cpu->activity == ACTIVITY_SHUTDOWN);
        if (result == VMX_SUCCEED && !is_sane(cpu, cpu_run(cpu, 200)))
            test_fail_eq(__FILE__, __LINE__, "seed", seed, 0);
        if (result == VMX_SUCCEED && cpu->world == WORLD_PLAIN &&
            cpu->activity == ACTIVITY_ACTIVE) { /* what was saved enters again, or says why not */
            want = first_failing(cpu);
            result = vmx_vmresume(cpu, NULL);
            if (want || is_field_rule(cpu->vmx.entry_failed))
                CHECK_EQ(cpu->vmx.entry_failed, want); /* also where parts passed before and were not looked at again */
        }
        room_free(room);
    }
}

TEST(svm_random_fields)
{
    for (unsigned k = 0; k < CASES; k++) {
        struct room *room = room_new("amd-2006");
        struct cpu *cpu = room->cpu;
        uint64_t seed = (first_seed() + k) * 0x9e3779b97f4a7c15, state = seed | 1;
        cpu->msr[MSR_VM_HSAVE_PA] = ROOM_HSAVE;
        random_code(room, &state);
        for (unsigned row = 0; row < NR_VMCB_FIELDS; row++)
            vmcb_write(cpu, ROOM_VMCB, row, 0);
        const struct { unsigned row; uint64_t value;
        } good[] = {
            { VMCB_ROW_intercept_misc2, 1 },
            { VMCB_ROW_intercept_misc1, next_random(&state) },
            { VMCB_ROW_guest_asid, 1 },
            { VMCB_ROW_efer, EFER_SVME | EFER_LME },
            { VMCB_ROW_cr0, CR0_PG | CR0_PE },
            { VMCB_ROW_cr3, ROOM_PML4 },
            { VMCB_ROW_cr4, CR4_PAE },
            { VMCB_ROW_rip, ROOM_CODE },
            { VMCB_ROW_rsp, ROOM_STACK },
            { VMCB_ROW_cs_attrib, 0xa9b },
            { VMCB_ROW_ss_attrib, 0xc93 },
            { VMCB_ROW_rflags, 2 },
            { VMCB_ROW_intercept_exceptions, next_random(&state) },
        };
        for (unsigned n = 0; n < sizeof good / sizeof good[0]; n++)
            vmcb_write(cpu, ROOM_VMCB, good[n].row, good[n].value);
        for (unsigned n = next_random(&state) % 5; n; n--) {
            unsigned row = (unsigned)(next_random(&state) % NR_VMCB_FIELDS);
            vmcb_write(cpu, ROOM_VMCB, row, odd_value(&state, vmcb_read(cpu, ROOM_VMCB, row)));
        }
        cpu->native = 1;
        enum svm_result result = svm_vmrun(cpu, ROOM_VMCB, NULL);
        CHECK(result == SVM_ENTERED || result == SVM_EXITED);
        if (result == SVM_ENTERED && !is_sane(cpu, cpu_run(cpu, 200)))
            test_fail_eq(__FILE__, __LINE__, "seed", seed, 0);
        room_free(room);
    }
}
