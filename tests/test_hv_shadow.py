"""Shadow page tables: what is kept, what is dropped, who may write, and the invariants after every event."""

from __future__ import annotations

import pytest

import kvmlab
from kvmlab import VM, ExitReason

CPUS = pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006"])
P, W, U, A, D, PS, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63


def kinds(vm: VM, since: int, *names: str) -> dict[str, int]:
    found = dict.fromkeys(names, 0)
    for event in vm.timeline:
        if event.position.sequence >= since and event.kind in found:
            found[event.kind] += 1
    return found


def long_mode(code: str, cpu: str, memory: str = "4M") -> VM:
    vm = VM(memory, engine="soft", cpu=cpu)
    vm.load(kvmlab.assemble(code, bits=64, org=0x10000))
    return vm


def map_4k(vm: VM, root: int, tables: int, gva: int, gpa: int, rights: int = P | W) -> int:
    """Maps one page with tables of its own (three pages from ``tables``); where its last entry is."""
    at = [root, tables, tables + 0x1000, tables + 0x2000]
    for level in range(3):
        vm.memory.u64[at[level] + (gva >> 39 - 9 * level & 511) * 8] = at[level + 1] | P | W | U
    entry = at[3] + (gva >> 12 & 511) * 8
    vm.memory.u64[entry] = gpa | rights
    return entry


def hlt(vm: VM) -> None:
    stop = vm.run(max_instructions=100_000)
    assert stop.reason is ExitReason.HLT, stop
    assert not vm.shadow.audit(), vm.shadow.audit()


@CPUS
def test_cached_roots_refill_nothing(cpu: str) -> None:
    """Two CR3 values in turn: after the first round a switch finds its root, and no entry is filled again."""
    vm = long_mode(
        """
        mov ecx, 20
1:      mov cr3, rbx
        mov eax, [0x8000001000]
        mov cr3, rdi
        mov edx, [rsi]
        cmp ecx, 18
        jne 2f
        hlt
2:      loop 1b
        hlt
        """,
        cpu,
    )
    root = vm.sregs.cr3
    for number, base in enumerate((0x100000, 0x110000)):
        vm.memory[base : base + 0x1000] = vm.memory[root : root + 0x1000]
        map_4k(vm, base, base + 0x1000, 0x8000001000, 0x200000 + 0x1000 * number)
        vm.memory.u32[0x200000 + 0x1000 * number] = 0xA + number
    vm.set(rbx=0x100000, rdi=0x110000, rsi=0x8000001000)
    hlt(vm)
    assert (vm.regs.rax, vm.regs.rdx) == (0xA, 0xB)
    since, before = vm.position.sequence, vm.shadow.state
    hlt(vm)
    found = kinds(vm, since, "fill", "zap", "root_switch", "spte_clear")
    assert found["fill"] == found["zap"] == found["spte_clear"] == 0
    assert found["root_switch"] >= 34
    assert all(event.found for event in vm.timeline.filter(kind="root_switch") if event.position.sequence >= since)
    assert vm.shadow.state.fixed == before.fixed
    assert vm.shadow.state.flushes == before.flushes


@CPUS
def test_one_store_to_a_table_costs_one_exit_and_one_refill(cpu: str) -> None:
    vm = long_mode(
        """
        mov eax, [0x8000001000]
        hlt
        mov [rdi], rsi
        hlt
        mov eax, [0x8000001000]
        hlt
        """,
        cpu,
    )
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.memory.u32[0x200000], vm.memory.u32[0x201000] = 0xA, 0xB
    vm.set(rdi=entry, rsi=0x201000 | P | W)
    hlt(vm)
    assert vm.regs.rax == 0xA
    table = entry & ~0xFFF
    assert any(page.gfn == table >> 12 and not page.metaphysical for page in vm.shadow.pages())
    since, before = vm.position.sequence, vm.shadow.state
    hlt(vm)
    found = kinds(vm, since, "table_write", "exit", "fill", "zap")
    assert (found["table_write"], found["zap"]) == (1, 0)
    assert found["exit"] == 2  # the page fault, and HLT
    write = next(event for event in vm.timeline.filter(kind="table_write") if event.position.sequence >= since)
    assert (write.gpa, write.was & ~(A | D), write.now) == (entry, 0x200000 | P | W, 0x201000 | P | W)
    since = vm.position.sequence
    hlt(vm)
    assert vm.regs.rax == 0xB
    found = kinds(vm, since, "fill", "exit", "zap")
    assert (found["fill"], found["exit"], found["zap"]) == (1, 2, 0)
    assert vm.shadow.state.flushes == before.flushes
    assert vm.shadow.state.table_writes == before.table_writes + 1


@CPUS
def test_the_third_store_in_a_row_opens_the_lock(cpu: str) -> None:
    vm = long_mode("mov eax, [0x8000001000]\nhlt\n" + "mov [rdi + 0x100], rsi\nhlt\n" * 4, cpu)
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.set(rdi=entry, rsi=0)
    hlt(vm)
    table = entry >> 12
    exits = []
    for _ in range(4):
        since = vm.position.sequence
        hlt(vm)
        exits.append(kinds(vm, since, "table_write")["table_write"])
        shadowed = any(page.gfn == table and not page.metaphysical for page in vm.shadow.pages())
        exits.append(shadowed)
    assert exits == [1, True, 1, True, 1, False, 0, False]


@CPUS
def test_misaligned_stores_zap(cpu: str) -> None:
    vm = long_mode(
        "mov eax, [0x8000001000]\nhlt\nmov dword ptr [rdi + 0x106], 0\nhlt\nmov eax, [0x8000001000]\nhlt", cpu
    )
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.set(rdi=entry)
    hlt(vm)
    since = vm.position.sequence
    hlt(vm)
    assert kinds(vm, since, "zap")["zap"] == 1
    hlt(vm)


@CPUS
def test_accessed_and_dirty_bits_are_the_guests(cpu: str) -> None:
    vm = long_mode("mov eax, [0x8000001000]\nhlt\nmov [0x8000001000], eax\nhlt\nmov [0x8000001000], eax\nhlt", cpu)
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    hlt(vm)
    assert vm.memory.u64[entry] & (A | D) == A
    assert not vm.shadow.rmap(0x200)
    hlt(vm)
    assert vm.memory.u64[entry] & (A | D) == A | D
    assert len(vm.shadow.rmap(0x200)) == 1
    since = vm.position.sequence
    hlt(vm)
    assert kinds(vm, since, "exit")["exit"] == 1  # HLT alone


@CPUS
def test_write_protection_off_for_supervisor_is_seen_by_user_mode(cpu: str) -> None:
    """CR0.WP = 0: a supervisor store to a read-only user page works, and user mode still cannot store."""
    vm = long_mode(
        """
        mov rax, cr0
        and eax, 0xfffeffff
        mov cr0, rax
        mov eax, [0x8000001000]
        mov dword ptr [rdi], 0x77
        mov ebx, [rdi]
        hlt
        mov rax, cr0
        or eax, 0x10000
        mov cr0, rax
        mov ecx, [rdi]
        mov dword ptr [rdi], 0x88
        hlt
        """,
        cpu,
    )
    map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000, P | U)
    vm.set(rdi=0x8000001000)
    hlt(vm)
    assert (vm.regs.rbx, vm.memory.u32[0x200000]) == (0x77, 0x77)
    assert vm.run().reason is ExitReason.SHUTDOWN  # #PF without an IDT
    assert (vm.memory.u32[0x200000], vm.sregs.cr2) == (0x77, 0x8000001000)


@CPUS
def test_no_execute(cpu: str) -> None:
    vm = long_mode("call rdi\nhlt\ncall rdi\nhlt", cpu)
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.memory[0x200000:0x200001] = b"\xc3"
    vm.set(rdi=0x8000001000, efer=vm.sregs.efer | 0x800)
    hlt(vm)
    vm.memory.u64[entry] |= NX  # user space edits the guest's table: the shadow follows
    assert vm.run().reason is ExitReason.SHUTDOWN
    assert vm.sregs.cr2 == 0x8000001000


@CPUS
def test_quadrants_of_a_32_bit_guest(cpu: str) -> None:
    """One guest directory is four shadow pages, one guest table is two; a 4 MB page is two metaphysical ones."""
    vm = VM("16M", engine="soft", cpu=cpu)
    vm.load(
        kvmlab.assemble(
            """
            mov eax, 0x10
            mov cr4, eax
            mov eax, 0x100000
            mov cr3, eax
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            mov eax, [0x40001000]
            mov ebx, [0x40201000]
            mov ecx, [0xc0000000]
            mov edx, [0xc0200000]
            hlt
            """,
            bits=32,
            org=0x10000,
        )
    )
    vm.memory.u32[0x100000] = 0 | P | W | PS
    vm.memory.u32[0x100000 + 0x400] = 0x101000 | P | W
    vm.memory.u32[0x100000 + 0xC00] = 0x800000 | P | W | PS
    vm.memory.u32[0x101000 + 4] = 0x200000 | P | W
    vm.memory.u32[0x101000 + 0x201 * 4] = 0x201000 | P | W
    for number, gpa in enumerate((0x200000, 0x201000, 0x800000, 0xA00000)):
        vm.memory.u32[gpa] = 0xA0 + number
    hlt(vm)
    regs = vm.regs
    assert [regs.rax, regs.rbx, regs.rcx, regs.rdx] == [0xA0, 0xA1, 0xA2, 0xA3]
    pages = vm.shadow.pages()
    assert sorted(page.quadrant for page in pages if page.level == 2 and page.gfn == 0x100) == [0, 1, 2, 3]
    assert sorted(page.quadrant for page in pages if page.gfn == 0x101 and page.level == 1) == [0, 1]
    assert {0x800, 0xA00} <= {page.gfn for page in pages if page.metaphysical}
    assert vm.shadow.walk(0x40201000).gpa is not None


@CPUS
def test_a_pool_that_is_too_small_recycles_the_oldest(cpu: str) -> None:
    """A guest that touches more tables than there are shadow pages goes on, and the roots stay."""
    vm = long_mode(
        "mov ecx, 300\nmov rbx, 0x8000000000\n1: mov eax, [rbx]\nadd rbx, 0x40000000\nloop 1b\nhlt", cpu, "8M"
    )
    root = vm.sregs.cr3
    vm.memory.u64[root + 8] = 0x100000 | P | W
    for number in range(300):
        table = 0x110000 + number * 0x2000
        vm.memory.u64[0x100000 + (number & 511) * 8] = table | P | W
        vm.memory.u64[table] = (table + 0x1000) | P | W
        vm.memory.u64[table + 0x1000] = 0x4000 | P | W
    hlt(vm)
    state = vm.shadow.state
    assert state.recycled > 0
    assert state.free >= 5
    assert state.flushes == 0
    assert any(page.roots for page in vm.shadow.pages())


@CPUS
def test_only_a_slot_change_drops_everything(cpu: str) -> None:
    vm = long_mode("mov eax, [0x1000]\nhlt\nmov eax, [0x1000]\nhlt", cpu)
    hlt(vm)
    assert vm.shadow.state.flushes == 0
    vm.set_memory_region(1, 0x1000000, 0x10000)
    assert vm.shadow.state.flushes == 1
    assert vm.shadow.pages() == []
    hlt(vm)


@CPUS
def test_the_dirty_log_costs_one_fault_per_page_and_round(cpu: str) -> None:
    vm = long_mode("1: mov [0x5000], eax\nmov [0x7000], eax\nmov [0x5000], ebx\nhlt\njmp 1b", cpu)
    hlt(vm)
    vm.set_memory_region(0, 0, 4 << 20, log_dirty=True)
    hlt(vm)
    assert {5, 7} <= vm.dirty_log(0)
    assert not vm.dirty_log(0) & {5, 7}
    since = vm.position.sequence
    hlt(vm)
    assert kinds(vm, since, "dirty")["dirty"] >= 2
    assert {5, 7} <= vm.dirty_log(0)


@CPUS
def test_user_space_edits_a_guest_table_and_the_guest_sees_it(cpu: str) -> None:
    vm = long_mode("mov eax, [0x8000001000]\nhlt\nmov eax, [0x8000001000]\nhlt", cpu)
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.memory.u32[0x200000], vm.memory.u32[0x201000] = 0xA, 0xB
    hlt(vm)
    vm.memory.u64[entry] = 0x201000 | P | W
    hlt(vm)
    assert vm.regs.rax == 0xB


@CPUS
def test_a_table_maps_itself(cpu: str) -> None:
    """The last entry of the root points to the root: tables are reached as pages, and stay write-protected."""
    vm = long_mode("mov rax, [rdi]\nmov [rdi + 0x20], rsi\nmov rbx, [rdi + 0x20]\nhlt", cpu)
    root = vm.sregs.cr3
    vm.memory.u64[root + 511 * 8] = root | P | W
    vm.set(rdi=0xFFFFFFFFFFFFF000, rsi=0x1234000)
    hlt(vm)
    assert vm.regs.rbx == 0x1234000
    assert vm.memory.u64[root + 0x20] == 0x1234000
    assert vm.shadow.state.table_writes >= 1


@CPUS
def test_pae(cpu: str) -> None:
    """Three levels: the four top entries are read with CR3, and a change of one counts from the next load on."""
    vm = VM("4M", engine="soft", cpu=cpu)
    vm.load(
        kvmlab.assemble(
            """
            mov eax, 0x20
            mov cr4, eax
            mov eax, 0x100000
            mov cr3, eax
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            mov ebx, [0x40001000]
            mov dword ptr [0x100008], 0
            mov ecx, [0x40001000]
            hlt
            mov eax, cr3
            mov cr3, eax
            mov edx, [0x40001000]
            """,
            bits=32,
            org=0x10000,
        )
    )
    vm.memory.u64[0x100000], vm.memory.u64[0x100008] = 0x101000 | P, 0x102000 | P
    vm.memory.u64[0x101000] = 0 | P | W | PS
    vm.memory.u64[0x102000] = 0x103000 | P | W
    vm.memory.u64[0x103008] = 0x200000 | P | W
    vm.memory.u32[0x200000] = 0xCAFE
    hlt(vm)
    assert (vm.regs.rbx, vm.regs.rcx) == (0xCAFE, 0xCAFE)
    assert {page.guest_levels for page in vm.shadow.pages() if page.roots} == {3}
    assert vm.run().reason is ExitReason.SHUTDOWN
    assert vm.sregs.cr2 == 0x40001000


IDT = """
        lea rax, [rip + handler]
        mov rbx, 0x20000
        mov edx, 0
1:      mov [rbx], ax
        mov word ptr [rbx + 2], 8
        mov word ptr [rbx + 4], 0x8e00
        mov word ptr [rbx + 6], 1
        mov qword ptr [rbx + 8], 0
        add rbx, 16
        inc edx
        cmp edx, 32
        jne 1b
        mov word ptr [0x30000], 0x1ff
        mov qword ptr [0x30002], 0x20000
        lidt [0x30000]
"""


@CPUS
def test_an_exception_delivered_to_a_shadowed_table(cpu: str) -> None:
    """The stack lies in a page table: no instruction stores there, so the table is given up and the delivery goes."""
    vm = long_mode("hlt", cpu)
    code = kvmlab.assemble("mov eax, [rsi]\n" + IDT + "mov rsp, rdi\nud2\nhandler: pop rcx\nhlt", bits=64, org=0x10000)
    vm.load(code)
    entry = map_4k(vm, vm.sregs.cr3, 0x100000, 0x8000001000, 0x200000)
    vm.set(rsi=0x8000001000, rdi=(entry & ~0xFFF) + 0x800)
    table = entry >> 12
    vm.run(max_instructions=1)
    assert any(page.gfn == table and not page.metaphysical for page in vm.shadow.pages())
    hlt(vm)
    assert not any(page.gfn == table and not page.metaphysical for page in vm.shadow.pages())
    assert vm.regs.rcx == code.symbols["handler"] - 2  # UD2


@CPUS
def test_a_page_fault_while_a_page_fault_is_delivered_is_a_double_fault(cpu: str) -> None:
    code = IDT + "mov rsp, 0x9000001000\nmov eax, [rsp]\nhandler: hlt"
    vm = long_mode(code, cpu)
    assert vm.run().reason is ExitReason.SHUTDOWN
    vectors = [event.vector for event in vm.timeline.filter(kind="inject")]
    assert (set(vectors[:-1]), vectors[-1]) == ({14}, 8)  # delivered again where only the shadow lacked the IDT's page
