"""The interface of October 2006: layouts and numbers bit for bit, and its traps."""

from __future__ import annotations

import errno
from typing import Any

import pytest

import kvmlab
from kvmlab import abi2006 as kvm
from kvmlab.errors import EngineUnavailable

ffi = kvm.ffi

# size of each structure, and offsets of members, as a 64-bit compiler lays out the header as posted
SIZES = {
    "kvm_memory_region": 24, "kvm_run": 48, "kvm_regs": 152, "kvm_segment": 24, "kvm_dtable": 16, "kvm_sregs": 296,
    "kvm_translation": 32, "kvm_interrupt": 8, "kvm_breakpoint": 16, "kvm_debug_guest": 80, "kvm_dirty_log": 16,
}  # fmt: skip
OFFSETS = {
    ("kvm_run", "emulated"): 4, ("kvm_run", "mmio_completed"): 8, ("kvm_run", "exit_type"): 12,
    ("kvm_run", "exit_reason"): 16, ("kvm_run", "instruction_length"): 20, ("kvm_run", "hw"): 24, ("kvm_run", "ex"): 24,
    ("kvm_run", "io"): 24, ("kvm_run", "mmio"): 24, ("kvm_regs", "rax"): 8, ("kvm_regs", "rip"): 136,
    ("kvm_regs", "rflags"): 144, ("kvm_sregs", "cs"): 8, ("kvm_sregs", "ss"): 128, ("kvm_sregs", "ldt"): 176,
    ("kvm_sregs", "gdt"): 200, ("kvm_sregs", "idt"): 216, ("kvm_sregs", "cr0"): 232, ("kvm_sregs", "efer"): 272,
    ("kvm_sregs", "apic_base"): 280, ("kvm_sregs", "pending_int"): 288, ("kvm_translation", "vcpu"): 8,
    ("kvm_translation", "physical_address"): 16, ("kvm_translation", "valid"): 24, ("kvm_translation", "usermode"): 26,
    ("kvm_debug_guest", "breakpoints"): 8, ("kvm_debug_guest", "singlestep"): 72, ("kvm_segment", "unusable"): 22,
    ("kvm_dirty_log", "dirty_bitmap"): 8,
}  # fmt: skip
NUMBERS = {
    "KVM_RUN": 0xC030AE02, "KVM_GET_REGS": 0xC098AE03, "KVM_SET_REGS": 0x4098AE04, "KVM_GET_SREGS": 0xC128AE05,
    "KVM_SET_SREGS": 0x4128AE06, "KVM_TRANSLATE": 0xC020AE07, "KVM_INTERRUPT": 0x4008AE08,
    "KVM_DEBUG_GUEST": 0x4050AE09,
    "KVM_SET_MEMORY_REGION": 0x4018AE0A, "KVM_CREATE_VCPU": 0x4004AE0B, "KVM_GET_DIRTY_LOG": 0x4010AE0C,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_size(name: str) -> None:
    assert ffi.sizeof(f"struct {name}") == SIZES[name]


@pytest.mark.parametrize(("name", "member"), OFFSETS)
def test_offset(name: str, member: str) -> None:
    assert ffi.offsetof(f"struct {name}", member) == OFFSETS[name, member]


@pytest.mark.parametrize("name", NUMBERS)
def test_number(name: str) -> None:
    assert getattr(kvm, name) == NUMBERS[name]


def test_union_members_overlap() -> None:
    assert ffi.offsetof("struct kvm_run", "io", "address") == ffi.offsetof("struct kvm_run", "io", "value") == 40
    assert ffi.offsetof("struct kvm_run", "io", "count") == ffi.offsetof("struct kvm_run", "mmio", "data") == 32
    assert ffi.offsetof("struct kvm_run", "mmio", "is_write") == 44


class Guest:
    """A machine of one page of real-mode code at 0x1000."""

    def __init__(self, code: str, cpu: str = "intel-2006", bits: int = 16, **options: Any) -> None:
        try:
            self.fd = kvm.open_(cpu=cpu, **options)
        except EngineUnavailable as error:
            pytest.skip(str(error))
        self.region(0, 0x40000)
        kvm.ioctl(self.fd, kvm.KVM_CREATE_VCPU, 0)
        self.memory = kvm.mmap_(self.fd, 0x40000, 0)
        image = kvmlab.assemble(code, bits=bits, org=0x1000)
        self.memory[0x1000 : 0x1000 + len(image.data)] = image.data
        self.run_ = ffi.new("struct kvm_run *")
        sregs = self.sregs()
        sregs.cs.selector = sregs.cs.base = 0
        kvm.ioctl(self.fd, kvm.KVM_SET_SREGS, sregs)
        self.set(rip=0x1000, rsp=0x8000)

    def region(self, gpa: int, size: int, slot: int = 0, flags: int = 0) -> None:
        region = ffi.new(
            "struct kvm_memory_region *", {"slot": slot, "flags": flags, "guest_phys_addr": gpa, "memory_size": size}
        )
        kvm.ioctl(self.fd, kvm.KVM_SET_MEMORY_REGION, region)

    def regs(self) -> Any:
        regs = ffi.new("struct kvm_regs *")
        kvm.ioctl(self.fd, kvm.KVM_GET_REGS, regs)
        return regs

    def set(self, **values: int) -> None:
        regs = self.regs()
        for name, value in values.items():
            setattr(regs, name, value)
        kvm.ioctl(self.fd, kvm.KVM_SET_REGS, regs)

    def sregs(self) -> Any:
        sregs = ffi.new("struct kvm_sregs *")
        kvm.ioctl(self.fd, kvm.KVM_GET_SREGS, sregs)
        return sregs

    def run(self, emulated: int = 0, mmio_completed: int = 0) -> Any:
        self.run_.emulated, self.run_.mmio_completed = emulated, mmio_completed
        kvm.ioctl(self.fd, kvm.KVM_RUN, self.run_)
        return self.run_

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        kvm.close_(self.fd)


CPUS = pytest.mark.parametrize("cpu", ["intel-2006", "amd-2006"])


@CPUS
def test_reset_state(cpu: str) -> None:
    fd = kvm.open_(cpu=cpu)
    kvm.ioctl(fd, kvm.KVM_SET_MEMORY_REGION, ffi.new("struct kvm_memory_region *", {"memory_size": 0x10000}))
    kvm.ioctl(fd, kvm.KVM_CREATE_VCPU, 0)
    regs, sregs = ffi.new("struct kvm_regs *"), ffi.new("struct kvm_sregs *")
    kvm.ioctl(fd, kvm.KVM_GET_REGS, regs)
    kvm.ioctl(fd, kvm.KVM_GET_SREGS, sregs)
    assert (regs.rip, regs.rflags) == (0xFFF0, 2)
    assert (sregs.cs.selector, sregs.cs.base) == (0xF000, 0xF0000 if cpu == "intel-2006" else 0xFFFF0000)
    assert (sregs.cr0, sregs.apic_base, sregs.pending_int) == (0x60000010, 0xFEE00900, 0)
    kvm.close_(fd)


@pytest.mark.parametrize(("cpu", "engine"), [("intel-2006", "soft"), ("amd-2006", "soft"), ("intel-2006", "kvm")])
def test_out_and_in(cpu: str, engine: str) -> None:
    with Guest("mov al, 0x41\nout 0x10, al\nin ax, 0x20\nhlt", cpu, engine=engine) as guest:
        run = guest.run()
        assert (run.exit_type, run.exit_reason) == (kvm.KVM_EXIT_TYPE_VM_EXIT, kvm.KVM_EXIT_IO)
        io = run.io
        assert (io.direction, io.size, io.string, io.rep, io.port, io.value) == (
            kvm.KVM_EXIT_IO_OUT,
            1,
            0,
            0,
            0x10,
            0x41,
        )
        assert guest.regs().rip == 0x1002  # on the instruction
        if engine == "soft":
            assert run.instruction_length == (2 if cpu == "intel-2006" else 0)
        run = guest.run(emulated=1)
        assert run.emulated == 0
        assert (run.io.direction, run.io.size, run.io.port) == (kvm.KVM_EXIT_IO_IN, 2, 0x20)
        guest.set(rax=guest.regs().rax & ~0xFFFF | 0xBEEF)
        run = guest.run(emulated=1)
        assert run.exit_reason == kvm.KVM_EXIT_HLT
        assert guest.regs().rax == 0xBEEF
        assert guest.regs().rip == 0x1007  # HLT has been skipped


def test_an_exit_not_emulated_comes_again() -> None:
    with Guest("out 0x10, al\nhlt") as guest:
        for _ in range(3):
            assert guest.run().io.port == 0x10
        assert guest.run(emulated=1).exit_reason == kvm.KVM_EXIT_HLT


@CPUS
def test_cpuid_goes_to_user_space(cpu: str) -> None:
    with Guest("cpuid\nhlt", cpu) as guest:
        assert guest.run().exit_reason == kvm.KVM_EXIT_CPUID
        guest.set(rax=1, rbx=2, rcx=3, rdx=4)
        assert guest.run(emulated=1).exit_reason == kvm.KVM_EXIT_HLT
        regs = guest.regs()
        assert (regs.rax, regs.rbx, regs.rcx, regs.rdx) == (1, 2, 3, 4)


MMIO = """
    mov ax, 0x8000
    mov ds, ax
    mov word ptr [0x10], 0x1234
    mov bl, [0x20]
    hlt
"""


@CPUS
def test_mmio_writes_are_committed_and_reads_run_again(cpu: str) -> None:
    with Guest(MMIO, cpu) as guest:
        run = guest.run()
        assert run.exit_reason == kvm.KVM_EXIT_MMIO
        assert (run.mmio.phys_addr, run.mmio.len, run.mmio.is_write) == (0x80010, 2, 1)
        assert bytes(run.mmio.data)[:2] == b"\x34\x12"
        behind = guest.regs().rip
        assert behind == 0x100B
        run = guest.run()
        assert (run.mmio.phys_addr, run.mmio.len, run.mmio.is_write) == (0x80020, 1, 0)
        assert guest.regs().rip == behind
        run.mmio.data[0] = 0x77
        assert guest.run(mmio_completed=1).exit_reason == kvm.KVM_EXIT_HLT
        assert guest.regs().rbx & 0xFF == 0x77


def test_a_stale_answer_goes_to_the_next_read() -> None:
    with Guest(MMIO.replace("hlt", "mov bh, [0x21]\nhlt")) as guest:
        guest.run()
        run = guest.run()
        run.mmio.data[0] = 0x77
        run = guest.run(mmio_completed=1)
        assert run.mmio.phys_addr == 0x80021  # the flag was used up by the read that waited for it
        assert run.mmio_completed == 1  # never cleared by the kernel
        run.mmio.data[0] = 0x55
        run = guest.run(mmio_completed=1)
        assert run.exit_reason == kvm.KVM_EXIT_HLT


@CPUS
def test_string_output(cpu: str) -> None:
    with Guest("mov si, 0x1100\nmov cx, 5\nmov dx, 0x3f8\ncld\nrep outsb\nhlt", cpu) as guest:
        guest.memory[0x1100:0x1105] = b"hello"
        io = guest.run().io
        assert (io.string, io.rep, io.string_down, io.size, io.count, io.address) == (1, 1, 0, 1, 5, 0x1100)
        assert bytes(guest.memory[io.address : io.address + io.count]) == b"hello"
        guest.set(rcx=0, rsi=0x1105)
        assert guest.run(emulated=1).exit_reason == kvm.KVM_EXIT_HLT


@CPUS
def test_triple_fault_has_no_reason_of_its_own(cpu: str) -> None:
    with Guest("lidt [0x1100]\nint3", cpu) as guest:
        run = guest.run()
        assert (run.exit_type, run.exit_reason) == (kvm.KVM_EXIT_TYPE_VM_EXIT, kvm.KVM_EXIT_UNKNOWN)
        assert run.hw.hardware_exit_reason == (2 if cpu == "intel-2006" else 0x7F)


def test_vm86_cannot_enter_a_base_above_1m() -> None:
    with Guest("hlt", real_mode="vm86") as guest:
        sregs = guest.sregs()
        sregs.ds.base = 0x123450
        kvm.ioctl(guest.fd, kvm.KVM_SET_SREGS, sregs)
        run = guest.run()
        assert (run.exit_type, run.exit_reason) == (kvm.KVM_EXIT_TYPE_VM_EXIT, kvm.KVM_EXIT_UNKNOWN)
        assert run.hw.hardware_exit_reason == 0x80000021


def test_a_failed_first_entry_is_resumed_in_2006() -> None:
    """The launched flag was set by any entry without CF and ZF: the next attempt is VMRESUME, error 5."""
    with Guest("hlt", real_mode="vm86", history=2) as guest:
        sregs = guest.sregs()
        sregs.ds.base = 0x123450
        kvm.ioctl(guest.fd, kvm.KVM_SET_SREGS, sregs)
        guest.run()
        run = guest.run()
        assert (run.exit_type, run.exit_reason) == (kvm.KVM_EXIT_TYPE_FAIL_ENTRY, 5)


def test_an_unusable_segment_reads_back_as_zeros() -> None:
    with Guest("hlt") as guest:
        sregs = guest.sregs()
        sregs.ldt.unusable, sregs.ldt.present, sregs.ldt.type = 1, 1, 2
        kvm.ioctl(guest.fd, kvm.KVM_SET_SREGS, sregs)
        ldt = guest.sregs().ldt
        assert (ldt.unusable, ldt.present, ldt.type, ldt.s, ldt.g) == (0, 0, 0, 0, 0)


def test_interrupts_are_a_queue_and_a_boolean() -> None:
    with Guest("sti\nnop\nhlt\nhlt") as guest:
        guest.memory[0x20 * 4 : 0x20 * 4 + 4] = (0x2000).to_bytes(4, "little")
        guest.memory[0x2000:0x2002] = b"\x43\xcf"  # inc bx; iret
        assert guest.sregs().pending_int == 0
        kvm.ioctl(guest.fd, kvm.KVM_INTERRUPT, ffi.new("struct kvm_interrupt *", {"irq": 0x20}))
        assert guest.sregs().pending_int == 1
        guest.run()
        assert (guest.regs().rbx, guest.sregs().pending_int) == (1, 0)
        with pytest.raises(OSError, match="INTERRUPT") as error:
            kvm.ioctl(guest.fd, kvm.KVM_INTERRUPT, ffi.new("struct kvm_interrupt *", {"irq": 256}))
        assert error.value.errno == errno.EINVAL


def test_translate_has_two_constants() -> None:
    with Guest("hlt") as guest:
        out = ffi.new("struct kvm_translation *", {"linear_address": 0x1234})
        kvm.ioctl(guest.fd, kvm.KVM_TRANSLATE, out)
        assert (out.physical_address, out.valid, out.writeable, out.usermode) == (0x1234, 1, 1, 0)


def test_debug_guest() -> None:
    with Guest("nop\ninc ax\ninc ax\nhlt") as guest:
        debug = ffi.new("struct kvm_debug_guest *", {"enabled": 1})
        debug.breakpoints[0].enabled, debug.breakpoints[0].address = 1, 0x1002
        kvm.ioctl(guest.fd, kvm.KVM_DEBUG_GUEST, debug)
        assert guest.run().exit_reason == kvm.KVM_EXIT_DEBUG
        assert (guest.regs().rip, guest.regs().rax) == (0x1002, 1)
        assert guest.run().exit_reason == kvm.KVM_EXIT_HLT
    with Guest("hlt", "amd-2006") as guest, pytest.raises(OSError, match="DEBUG") as error:
        kvm.ioctl(guest.fd, kvm.KVM_DEBUG_GUEST, ffi.new("struct kvm_debug_guest *"))
    assert error.value.errno == errno.EOPNOTSUPP


@CPUS
def test_dirty_log(cpu: str) -> None:
    with Guest("mov byte ptr [0x3000], 1\nmov byte ptr [0x5000], 1\nhlt\nmov byte ptr [0x5000], 2\nhlt", cpu) as guest:
        guest.region(0, 0x40000, flags=kvm.KVM_MEM_LOG_DIRTY_PAGES)
        bitmap = bytearray(8)
        log = ffi.new("struct kvm_dirty_log *", {"dirty_bitmap": ffi.from_buffer(bitmap)})

        def dirty() -> set[int]:
            kvm.ioctl(guest.fd, kvm.KVM_GET_DIRTY_LOG, log)
            return {n for n in range(64) if bitmap[n >> 3] >> (n & 7) & 1}

        guest.run()
        assert {3, 5} <= dirty()
        guest.run()
        found = dirty()
        assert 5 in found and 3 not in found


def _fails(fd: int, number: int, argument: Any, code: int) -> None:
    with pytest.raises(OSError) as error:
        kvm.ioctl(fd, number, argument)
    assert error.value.errno == code


def test_errors() -> None:
    fd = kvm.open_()

    def region(slot: int, gpa: int, size: int, flags: int = 0) -> Any:
        return ffi.new(
            "struct kvm_memory_region *", {"slot": slot, "guest_phys_addr": gpa, "memory_size": size, "flags": flags}
        )

    _fails(fd, kvm.KVM_CREATE_VCPU, 0, errno.EINVAL)  # the vm86 TSS needs slot 0
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(0, 0x10, 0x1000), errno.EINVAL)
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(0, 0, 0x1010), errno.EINVAL)
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(4, 0, 0x1000), errno.EINVAL)
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(0, 0xFFFFFFFFFFFFF000, 0x2000), errno.EINVAL)
    kvm.ioctl(fd, kvm.KVM_SET_MEMORY_REGION, region(0, 0, 0x10000))
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(1, 0xF000, 0x2000), errno.EEXIST)
    _fails(fd, kvm.KVM_SET_MEMORY_REGION, region(0, 0, 0x20000), errno.EINVAL)
    _fails(fd, kvm.KVM_GET_REGS, ffi.new("struct kvm_regs *"), errno.ENOENT)
    _fails(fd, kvm.KVM_CREATE_VCPU, 1, errno.EINVAL)
    kvm.ioctl(fd, kvm.KVM_CREATE_VCPU, 0)
    _fails(fd, kvm.KVM_CREATE_VCPU, 0, errno.EEXIST)
    _fails(fd, kvm.KVM_GET_REGS, ffi.new("struct kvm_regs *", {"vcpu": 1}), errno.EINVAL)
    bitmap = ffi.new("uint8_t[]", 16)
    _fails(fd, kvm.KVM_GET_DIRTY_LOG, ffi.new("struct kvm_dirty_log *", {"dirty_bitmap": bitmap}), errno.ENOENT)
    _fails(
        fd, kvm.KVM_GET_DIRTY_LOG, ffi.new("struct kvm_dirty_log *", {"slot": 2, "dirty_bitmap": bitmap}), errno.EINVAL
    )
    _fails(fd, 0xC01CAE07, ffi.new("struct kvm_translation *"), errno.EINVAL)  # a 32-bit caller's number
    _fails(fd, 0x404CAE09, ffi.new("struct kvm_debug_guest *"), errno.EINVAL)
    _fails(fd, 0xAE01, 0, errno.EINVAL)  # KVM_GET_API_VERSION came later
    with pytest.raises(OSError, match="no slot") as error:
        kvm.mmap_(fd, 0x1000, 0x10000)
    assert error.value.errno == errno.EFAULT
    kvm.close_(fd)
    with pytest.raises(OSError) as error:
        kvm.ioctl(fd, kvm.KVM_RUN, ffi.new("struct kvm_run *"))
    assert error.value.errno == errno.EBADF


def test_a_mapping_outlives_the_machine_and_changes_code_under_it() -> None:
    with Guest("again: inc ax\nout 0x10, al\njmp again") as guest:
        memory = guest.memory
        guest.run()
        memory[0x1000] = 0x48  # dec ax
        guest.run(emulated=1)
        assert guest.regs().rax & 0xFFFF == 0
    assert memory[0x1000] == 0x48
