"""The hypervisor: what it handles, what goes to user space, real mode, interrupts, debugging, time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import kvmlab
from kvmlab import VM, ExitReason, tables
from kvmlab.errors import BadArgument, Error, NotVisible

CPUS = pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006"])


def machine(code: str, cpu: str = "intel-2006", bits: int = 64, memory: str = "1M", **options: Any) -> VM:
    vm = VM(memory, engine="soft", cpu=cpu, **options)
    vm.load(kvmlab.assemble(code, bits=bits, org=0x10000 if bits > 16 else 0x1000))
    return vm


# ---- exits to user space


@CPUS
def test_cpuid_is_filtered_unless_answered(cpu: str) -> None:
    vm = machine(
        "mov eax, 1\ncpuid\nmov esi, ecx\nmov eax, 0x80000001\ncpuid\nmov eax, 7\nxor ecx, ecx\ncpuid\nhlt", cpu
    )
    assert vm.run().reason is ExitReason.CPUID
    assert vm.run().reason is ExitReason.CPUID
    assert vm.regs.rsi >> 5 & 1 == 0  # VMX is hidden
    assert vm.run().reason is ExitReason.CPUID
    assert vm.regs.rcx >> 2 & 1 == 0  # SVM is hidden
    assert vm.run().reason is ExitReason.HLT
    vm = machine("mov eax, 1\ncpuid\nhlt", cpu)
    vm.run().reply({"rax": 0x1111, "rbx": 0x2222})
    vm.run()
    assert (vm.regs.rax, vm.regs.rbx) == (0x1111, 0x2222)


@CPUS
@pytest.mark.parametrize("code", ["vmxon [rsp]", "vmcall", "vmlaunch", "vmrun", "vmmcall", "stgi"])
def test_virtualization_is_hidden_and_undefined(cpu: str, code: str) -> None:
    vm = machine(f"{code}\nhlt", cpu)
    assert vm.run().reason is ExitReason.SHUTDOWN  # #UD without an IDT
    delivered = [event.vector for event in vm.timeline.filter(kind="delivery")]
    injected = [event.vector for event in vm.timeline.filter(kind="inject")]
    assert 6 in delivered + injected or not delivered


@pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006", "intel", "amd"])
@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("rdtscp", False),
        ("mov eax, 0x8000\nxor ecx, ecx\nxor edx, edx\nmonitor", False),
        ("mov rax, cr4\nor eax, 0x2000\nmov cr4, rax", False),  # VMXE
        ("mov rax, cr4\nor eax, 0x100000\nmov cr4, rax", False),  # SMEP
        ("mov rax, cr4\nor eax, 0x80\nmov cr4, rax", True),  # PGE
        ("mov ecx, 0xc0000080\nrdmsr\nor eax, 0x1000\nwrmsr", False),  # SVME
        ("mov ecx, 0xc0000080\nrdmsr\nor eax, 0x800\nwrmsr", True),  # NXE
        ("mov ecx, 0x480\nrdmsr", False),
    ],
)
def test_what_is_hidden_faults_and_what_is_offered_works(cpu: str, code: str, allowed: bool) -> None:
    stop = machine(code + "\nhlt", cpu).run()
    assert stop.reason is (ExitReason.HLT if allowed else ExitReason.SHUTDOWN)


@CPUS
def test_mmio_of_every_width_and_form(cpu: str) -> None:
    code = """
        mov edi, 0x40000000
        mov byte ptr [rdi], 0x11
        mov word ptr [rdi + 2], 0x2222
        mov dword ptr [rdi + 4], 0x44444444
        mov rax, 0x8888888888888888
        mov [rdi + 8], rax
        add dword ptr [rdi + 0x10], 5
        xchg [rdi + 0x18], rbx
        mov cl, [rdi + 0x20]
        movzx edx, word ptr [rdi + 0x22]
        push qword ptr [rdi + 0x28]
        pop rsi
        hlt
    """
    vm = machine(code, cpu)
    vm.set(rbx=0xB)
    seen = []

    def write(gpa: int, size: int, value: int) -> None:
        seen.append(("w", gpa & 0xFFF, size, value))

    def read(gpa: int, size: int) -> int:
        seen.append(("r", gpa & 0xFFF, size, 0))
        return 0x10 + (gpa & 0xFF)

    vm.on_mmio(range(0x40000000, 0x40001000), read=read, write=write)
    assert vm.run().reason is ExitReason.HLT
    assert seen == [
        ("w", 0, 1, 0x11), ("w", 2, 2, 0x2222), ("w", 4, 4, 0x44444444), ("w", 8, 8, 0x8888888888888888),
        ("r", 0x10, 4, 0), ("w", 0x10, 4, 0x25), ("r", 0x18, 8, 0), ("w", 0x18, 8, 0xB), ("r", 0x20, 1, 0),
        ("r", 0x22, 2, 0), ("r", 0x28, 8, 0),
    ]  # fmt: skip
    regs = vm.regs
    assert (regs.rbx, regs.rcx & 0xFF, regs.rdx, regs.rsi) == (0x28, 0x30, 0x32, 0x38)


@CPUS
def test_a_repeated_string_to_a_device_is_one_access_after_the_other(cpu: str) -> None:
    vm = machine("mov edi, 0x40000000\nmov esi, 0x20000\nmov ecx, 5\ncld\nrep movsb\nhlt", cpu)
    vm.memory[0x20000:0x20005] = b"hello"
    got = []
    vm.on_mmio(range(0x40000000, 0x40001000), write=lambda gpa, size, value: got.append(value))
    vm.run()
    assert bytes(got) == b"hello"
    assert (vm.regs.rcx, vm.regs.rdi, vm.regs.rsi) == (0, 0x40000005, 0x20005)


@CPUS
def test_string_io_ends_before_a_page_that_faults(cpu: str) -> None:
    # the second page of the buffer is not present: user space gets what lies before it, then the guest its #PF
    vm = machine("mov esi, 0x200ff0\nmov ecx, 0x20\nmov edx, 0x3f8\ncld\nrep outsb\nhlt", cpu, memory="4M")
    tables = vm.sregs.cr3
    pd = vm.memory.u64[vm.memory.u64[tables] & ~0xFFF] & ~0xFFF
    vm.memory.u64[pd + 8] = 0x30000 | 3
    vm.memory.u64[0x30000] = 0x200000 | 3
    stop = vm.run()
    assert (stop.reason, stop.count, stop.address) == (ExitReason.IO, 0x10, 0x200FF0)
    assert vm.run().reason is ExitReason.SHUTDOWN  # #PF without an IDT
    assert (vm.regs.rcx, vm.regs.rsi, vm.sregs.cr2) == (0x10, 0x201000, 0x201000)


# ---- entries


def test_a_broken_field_fails_the_entry_that_checks_it() -> None:
    vmcs = [row.name for row in tables.vmcs_fields()]
    vmcb = [row.name for row in tables.vmcb_fields()]
    vm = machine("nop\nhlt")
    vm._handle.set_field(vmcs.index("guest_rflags"), 0)
    assert [check.id for check in vm.vmcs.check() if check.ok is False] == ["GUEST-RIP-04"]
    stop = vm.run()
    assert stop.reason is ExitReason.UNKNOWN
    assert "GUEST-RIP-04" in stop.explain()
    vm = machine("nop\nhlt")
    vm._handle.set_field(vmcs.index("host_cs_selector"), 0)
    stop = vm.run()
    assert stop.reason is ExitReason.FAIL_ENTRY
    assert "HOST-SEG-02" in stop.explain()
    vm = machine("nop\nhlt", "amd-2006")
    vm._handle.set_field(vmcb.index("guest_asid"), 0)
    stop = vm.run()
    assert stop.reason is ExitReason.FAIL_ENTRY
    assert "SVM-CTL-02" in stop.explain()


@CPUS
def test_a_limit_is_exact(cpu: str) -> None:
    vm = machine("1: jmp 1b", cpu)
    stop = vm.run(max_instructions=1000)
    assert (stop.reason, vm.position.instructions) == (ExitReason.LIMIT, 1000)


# ---- interrupts


@CPUS
@pytest.mark.parametrize("bits", [16, 64])
def test_interrupts_come_lowest_first_when_the_window_opens(cpu: str, bits: int) -> None:
    if bits == 16:
        code = """
            mov word ptr [0x80], offset one
            mov word ptr [0x82], 0
            mov word ptr [0xc0], offset two
            mov word ptr [0xc2], 0
            hlt
            mov ax, 0
            sti
            inc ax
            inc ax
            hlt
    one:    mov bx, ax
            inc cx
            mov si, cx
            iret
    two:    inc cx
            mov di, cx
            iret
        """
    else:
        code = """
            mov rsi, offset one
            mov [0x20000 + 0x20*16], si
            mov word ptr [0x20000 + 0x20*16 + 2], 8
            mov word ptr [0x20000 + 0x20*16 + 4], 0x8e00
            mov word ptr [0x20000 + 0x20*16 + 6], 1
            mov rsi, offset two
            mov [0x20000 + 0x30*16], si
            mov word ptr [0x20000 + 0x30*16 + 2], 8
            mov word ptr [0x20000 + 0x30*16 + 4], 0x8e00
            mov word ptr [0x20000 + 0x30*16 + 6], 1
            mov word ptr [0x30000], 0xfff
            mov qword ptr [0x30002], 0x20000
            lidt [0x30000]
            hlt
            mov eax, 0
            mov ecx, 0
            sti
            inc eax
            inc eax
            hlt
    one:    mov ebx, eax
            inc ecx
            mov esi, ecx
            iretq
    two:    inc ecx
            mov edi, ecx
            iretq
        """
    vm = machine(code, cpu, bits)
    assert vm.run().reason is ExitReason.HLT
    vm.set(rcx=0)
    vm.interrupt(0x30)
    vm.interrupt(0x20)
    assert vm.events.interrupts == (0x20, 0x30)
    assert vm.run().reason is ExitReason.HLT
    regs = vm.regs
    assert regs.rbx & 0xFFFF == 1  # the instruction behind STI came first
    assert (regs.rsi & 0xFFFF, regs.rdi & 0xFFFF) == (1, 2)
    assert vm.events.interrupts == ()
    if not (bits == 16 and cpu == "intel-2006"):
        assert any(event.kind == "window" for event in vm.timeline)


# ---- debugging


@CPUS
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_single_step_and_breakpoints(cpu: str, bits: int) -> None:
    vm = machine("nop\nnop\nmov eax, 5\nout 0x10, al\nnop\nnop\nhlt", cpu, bits)
    start = vm.regs.rip
    vm.debug(single_step=True)
    rips = []
    for _ in range(20):
        stop = vm.run()
        if stop.reason is ExitReason.HLT:
            break
        rips.append((stop.reason.name, vm.regs.rip - start))
    length = 6 if bits == 16 else 5
    at = [1, 2, 2 + length]
    assert rips[:4] == [("DEBUG", at[0]), ("DEBUG", at[1]), ("DEBUG", at[2]), ("IO", at[2])]
    assert vm.regs.rflags & 0x100 == 0
    vm = machine("nop\nnop\nnop\nnop\nhlt", cpu, bits)
    vm.debug(breakpoints=[start + 2, start + 3])
    assert (vm.run().reason, vm.regs.rip) == (ExitReason.DEBUG, start + 2)
    assert (vm.run().reason, vm.regs.rip) == (ExitReason.DEBUG, start + 3)
    assert vm.run().reason is ExitReason.HLT


# ---- real mode

UNREAL = """
        cli
        lgdtd [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 1f
1:      mov bx, 8
        mov ds, bx
        and al, 0xfe
        mov cr0, eax
        jmp 2f
2:      mov esi, 0x30000
        mov eax, [esi]
        hlt
        .balign 8
gdt:    .quad 0, 0x00cf92000000ffff
gdtr:   .word 15
        .long gdt
"""


@pytest.mark.parametrize(("cpu", "mode"), [("intel-2006", "auto"), ("intel-2006", "emulate"), ("amd-2006", "auto")])
def test_big_real_mode(cpu: str, mode: str) -> None:
    vm = machine(UNREAL, cpu, 16, real_mode=mode)
    vm.memory.u32[0x30000] = 0xCAFE
    assert vm.run().reason is ExitReason.HLT
    assert vm.regs.rax == 0xCAFE
    assert vm.sregs.ds.limit == 0xFFFFFFFF
    blocks = sum(1 for event in vm.timeline.filter(kind="emulated") if event.why & 0xFF in (1, 2, 3, 4, 5))
    assert blocks == 0 if cpu == "amd-2006" else blocks > 0


def test_big_real_mode_as_in_2006_is_cut_to_64k() -> None:
    vm = machine(UNREAL, cpu="intel-2006", bits=16, real_mode="vm86")
    stop = vm.run()
    assert (stop.reason, stop.exception) == (ExitReason.EXCEPTION, 13)


def test_big_real_mode_goes_to_user_space_when_asked() -> None:
    vm = machine(UNREAL, cpu="intel-2006", bits=16, real_mode="user")
    stop = vm.run()
    assert stop.reason is ExitReason.REAL_MODE
    assert vm.sregs.ds.limit == 0xFFFFFFFF


@CPUS
def test_exceptions_of_real_mode_go_through_the_vector_table(cpu: str) -> None:
    code = """
        mov word ptr [0x00], offset divide
        mov word ptr [0x02], 0
        mov word ptr [0x18], offset undefined
        mov word ptr [0x1a], 0
        xor bx, bx
        div bl
        ud2
        hlt
divide: inc bx
        mov bp, sp
        add word ptr [bp], 2
        iret
undefined: inc cx
        mov bp, sp
        add word ptr [bp], 2
        iret
    """
    vm = machine(code, cpu, 16)
    vm.set(rcx=0)
    assert vm.run().reason is ExitReason.HLT
    assert (vm.regs.rbx, vm.regs.rcx) == (1, 1)


# ---- memory slots


def test_host_physical_is_never_guest_physical() -> None:
    vm = VM(None, engine="soft")
    vm.set_memory_region(0, 0, 0x10000)
    vm.set_memory_region(1, 0x4000000, 0x10000)
    vm.set_memory_region(2, 0x4200000, 0x10000)
    slots = [vm._handle.slot_info(number) for number in range(3)]
    spans = []
    for slot in slots:
        assert slot["hpa"] != slot["gpa"]
        spans.append((slot["hpa"], slot["hpa"] + slot["size"]))
        vm.memory.u32[slot["gpa"] + 4] = 0x1234
        assert vm.machine.memory.u32[slot["hpa"] + 4] == 0x1234
    for one, other in itertools.combinations(spans, 2):
        assert one[1] <= other[0] or other[1] <= one[0]


@CPUS
def test_a_slot_can_go_and_come_under_a_running_guest(cpu: str) -> None:
    vm = machine("mov eax, [0x200000]\nhlt\nmov eax, [0x200000]\nhlt\nmov eax, [0x200000]\nhlt", cpu)
    vm.set_memory_region(1, 0x200000, 0x1000)
    vm.memory.u32[0x200000] = 0x11
    vm.run()
    assert vm.regs.rax == 0x11
    vm.set_memory_region(1, 0x200000, 0)
    stop = vm.run()
    assert (stop.reason, stop.gpa) == (ExitReason.MMIO, 0x200000)
    stop.reply(0x22)
    vm.run()
    assert vm.regs.rax == 0x22
    vm.set_memory_region(1, 0x200000, 0x1000)
    vm.run()
    assert vm.regs.rax == 0


def test_errors_say_what_would_be_right() -> None:
    with pytest.raises(BadArgument):
        VM("8K", engine="soft")
    with pytest.raises(Error, match="shadow"):
        VM("1M", engine="soft", mmu="tdp")
    with pytest.raises(Error):
        VM("1M", engine="soft").set_memory_region(4, 0, 0x1000)
    with pytest.raises(Error, match="log"):
        VM("1M", engine="soft").dirty_log(0)
    with pytest.raises(NotVisible):
        _ = VM("1M", engine="soft").vmcb


# ---- time


@CPUS
@pytest.mark.parametrize("bits", [16, 64])
def test_going_back_and_forward_is_exact(cpu: str, bits: int) -> None:
    code = """
        mov cx, 40
1:      mov ax, cx
        out 0x10, al
        push ax
        pop bx
        mov [0x5000], cx
        loop 1b
        hlt
    """
    if bits == 64:
        code = (
            code.replace("cx", "ecx").replace("ax", "eax").replace("push eax", "push rax").replace("pop bx", "pop rbx")
        )
    vm = machine(code, cpu, bits)
    vm.on_io(0x10, write=lambda port, size, value: None)
    states = {}
    for target in (20, 57, 110):
        vm.run(max_instructions=target - vm.position.instructions)
        states[target] = (vm.regs, vm.memory[0x5000:0x5004], vm._handle.state_hash())
    for target in (57, 20, 110, 20):
        vm.goto(target)
        assert (vm.regs, vm.memory[0x5000:0x5004]) == states[target][:2]
        assert not vm.shadow.audit()


@CPUS
def test_a_run_in_slices_is_the_same_run(cpu: str) -> None:
    code = "mov ecx, 50\n1: mov eax, ecx\nmov [0x5000 + rcx*8], eax\nmov edx, cr3\nmov cr3, rdx\nloop 1b\nhlt"
    code = code.replace("mov edx, cr3", "mov rdx, cr3")
    whole, sliced = machine(code, cpu), machine(code, cpu)
    whole.run()
    while sliced.run(max_instructions=7).reason is ExitReason.LIMIT:
        pass
    assert whole.regs == sliced.regs
    assert whole.position == sliced.position
    assert whole._handle.state_hash() == sliced._handle.state_hash()


@CPUS
def test_looking_changes_nothing(cpu: str) -> None:
    code = "mov ecx, 50\n1: mov eax, ecx\nmov [0x5000 + rcx*8], eax\nmov rdx, cr3\nmov cr3, rdx\nout 0x10, al\n"
    code += "loop 1b\nhlt"
    quiet, watched = machine(code, cpu), machine(code, cpu)
    for vm in (quiet, watched):
        for step in (3, 20, 1, 50, 2):
            vm.run(max_instructions=step)
            if vm is watched:
                _ = (
                    vm.regs,
                    vm.sregs,
                    vm.events,
                    vm.debug_regs,
                    vm.msrs.to_dict(),
                    vm.walk(0x5000),
                    vm.translate(0x5000),
                )
                _ = vm.shadow.pages(), vm.shadow.walk(0x5000), vm.shadow.rmap(5), vm.shadow.audit(), vm.shadow.state
                _ = (vm.vmcs if cpu == "intel-2006" else vm.vmcb).check(), vm.memory[0:0x100], vm.explain()
    assert quiet.position == watched.position
    assert quiet._handle.state_hash() == watched._handle.state_hash()


@CPUS
def test_a_guest_has_its_own_debug_registers(cpu: str) -> None:
    code = """
        mov word ptr [4], offset handler
        mov word ptr [6], 0
        mov eax, offset there
        mov dr0, eax
        mov eax, 2
        mov dr7, eax
        nop
there:  inc cx
        mov eax, dr0
        hlt
handler: inc bx
        mov eax, dr6
        mov esi, eax
        xor eax, eax
        mov dr7, eax
        iret
    """
    vm = machine(code, cpu, 16)
    vm.set(rbx=0, rcx=0)
    assert vm.run().reason is ExitReason.HLT
    image = vm.image
    assert image is not None
    assert (vm.regs.rbx & 0xFFFF, vm.regs.rcx & 0xFFFF, vm.regs.rax) == (1, 1, image.symbols["there"])
    assert vm.regs.rsi & 0xF == 1


@CPUS
def test_an_unaligned_access_across_two_devices_and_memory(cpu: str) -> None:
    vm = machine("mov rdi, 0x100000 - 3\nmov eax, 0x44332211\nmov [rdi], eax\nmov ebx, [rdi]\nhlt", cpu)
    seen = []
    vm.on_mmio(
        range(0x100000, 0x101000),
        write=lambda gpa, size, value: seen.append((gpa, size, value)),
        read=lambda gpa, size: 0x99,
    )
    vm.set_memory_region(1, 0x800000, 0x1000)
    assert vm.run().reason is ExitReason.HLT
    assert seen == [(0x100000, 1, 0x44)]
    assert vm.regs.rbx == 0x99332211
