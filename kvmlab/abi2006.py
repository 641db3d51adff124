"""The raw interface of October 2006: eleven calls on one file descriptor, structures bit for bit as posted.

::

    from kvmlab import abi2006 as kvm

    fd = kvm.open_()
    region = kvm.ffi.new("struct kvm_memory_region *", {"slot": 0, "memory_size": 0x100000})
    kvm.ioctl(fd, kvm.KVM_SET_MEMORY_REGION, region)
    kvm.ioctl(fd, kvm.KVM_CREATE_VCPU, 0)
    memory = kvm.mmap_(fd, 0x100000, 0)      # guest memory by guest-physical offset, writable
    run = kvm.ffi.new("struct kvm_run *")
    kvm.ioctl(fd, kvm.KVM_RUN, run)

One ``open_`` is one virtual machine; ``close_`` ends it. Errors are :class:`OSError` with the errno of the contract.
A mapping lies inside one slot: where the kernel would have answered an access with SIGBUS, ``mmap_`` answers EFAULT.
"""

from __future__ import annotations

import errno
import itertools
import os
from typing import Any

from cffi import FFI

from . import engine as _engine

__all__ = ["close_", "ffi", "ioctl", "mmap_", "open_"]

HEADER = """
struct kvm_memory_region { uint32_t slot; uint32_t flags; uint64_t guest_phys_addr; uint64_t memory_size; };

struct kvm_run {
    uint32_t vcpu;
    uint32_t emulated;
    uint32_t mmio_completed;
    uint32_t exit_type;
    uint32_t exit_reason;
    uint32_t instruction_length;
    union {
        struct { uint32_t hardware_exit_reason; } hw;
        struct { uint32_t exception; uint32_t error_code; } ex;
        struct {
            uint8_t direction; uint8_t size; uint8_t string; uint8_t string_down; uint8_t rep; uint8_t pad;
            uint16_t port;
            uint64_t count;
            union { uint64_t address; uint32_t value; };
        } io;
        struct { uint64_t phys_addr; uint8_t data[8]; uint32_t len; uint8_t is_write; } mmio;
    };
};

struct kvm_regs {
    uint32_t vcpu; uint32_t padding;
    uint64_t rax, rbx, rcx, rdx;
    uint64_t rsi, rdi, rsp, rbp;
    uint64_t r8, r9, r10, r11;
    uint64_t r12, r13, r14, r15;
    uint64_t rip, rflags;
};

struct kvm_segment {
    uint64_t base; uint32_t limit; uint16_t selector; uint8_t type;
    uint8_t present, dpl, db, s, l, g, avl; uint8_t unusable; uint8_t padding;
};
struct kvm_dtable { uint64_t base; uint16_t limit; uint16_t padding[3]; };

struct kvm_sregs {
    uint32_t vcpu; uint32_t padding;
    struct kvm_segment cs, ds, es, fs, gs, ss;
    struct kvm_segment tr, ldt;
    struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    uint64_t efer;
    uint64_t apic_base;
    uint32_t pending_int; uint32_t padding2;
};

struct kvm_translation {
    uint64_t linear_address; uint32_t vcpu; uint32_t padding;
    uint64_t physical_address; uint8_t valid; uint8_t writeable; uint8_t usermode;
};
struct kvm_interrupt { uint32_t vcpu; uint32_t irq; };
struct kvm_breakpoint { uint32_t enabled; uint32_t padding; uint64_t address; };
struct kvm_debug_guest { uint32_t vcpu; uint32_t enabled; struct kvm_breakpoint breakpoints[4]; uint32_t singlestep; };
/* `padding` stands twice in the header as posted; the second one is called padding2 here. */
struct kvm_dirty_log { uint32_t slot; uint32_t padding; union { void *dirty_bitmap; uint64_t padding2; }; };
"""

ffi = FFI()
"""Makes the structures: ``ffi.new("struct kvm_run *")``."""
ffi.cdef(HEADER)

KVMIO = 0xAE
KVM_MEM_LOG_DIRTY_PAGES = 1
KVM_EXIT_TYPE_FAIL_ENTRY, KVM_EXIT_TYPE_VM_EXIT = 1, 2
KVM_EXIT_UNKNOWN, KVM_EXIT_EXCEPTION, KVM_EXIT_IO, KVM_EXIT_CPUID, KVM_EXIT_DEBUG, KVM_EXIT_HLT, KVM_EXIT_MMIO = range(
    7
)
KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT = 0, 1


def _iow(number: int, ctype: str, direction: int = 1) -> int:
    return direction << 30 | int(ffi.sizeof(ctype)) << 16 | KVMIO << 8 | number


def _iowr(number: int, ctype: str) -> int:
    return _iow(number, ctype, 3)


KVM_RUN = _iowr(2, "struct kvm_run")
KVM_GET_REGS = _iowr(3, "struct kvm_regs")
KVM_SET_REGS = _iow(4, "struct kvm_regs")
KVM_GET_SREGS = _iowr(5, "struct kvm_sregs")
KVM_SET_SREGS = _iow(6, "struct kvm_sregs")
KVM_TRANSLATE = _iowr(7, "struct kvm_translation")
KVM_INTERRUPT = _iow(8, "struct kvm_interrupt")
KVM_DEBUG_GUEST = _iow(9, "struct kvm_debug_guest")
KVM_SET_MEMORY_REGION = _iow(10, "struct kvm_memory_region")
KVM_CREATE_VCPU = _iow(11, "int")
KVM_GET_DIRTY_LOG = _iow(12, "struct kvm_dirty_log")

_names = {value: name for name, value in list(globals().items()) if name.startswith("KVM_") and value > 0xAE00}
_open: dict[int, _engine.Abi] = {}
_next = itertools.count(1000)


def _of(fd: int) -> _engine.Abi:
    if fd not in _open:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return _open[fd]


def open_(engine: str = "soft", cpu: str = "intel-2006", real_mode: str = "auto", history: int = 0) -> int:
    """Opens /dev/kvm: a new virtual machine without memory and processor.

    Parameters
    ----------
    engine : str
        ``soft`` or ``kvm``.
    cpu : str
        Of the soft engine: ``intel-2006`` or ``amd-2006``.
    real_mode : str
        ``auto``, ``user``, ``vm86`` (as it was in 2006) or ``emulate``.
    history : int
        Faults of the kernels of the time to reproduce, a bit each: 1 exceptions of real mode come to user space, 2 a
        failed first entry counts as launched, 4 the dirty log misses what the emulator stores.

    Returns
    -------
    int
        A descriptor for :func:`ioctl`, :func:`mmap_` and :func:`close_`.
    """
    fd = next(_next)
    _open[fd] = _engine.Abi(engine, cpu, real_mode=real_mode, history=history)
    return fd


def close_(fd: int) -> None:
    """Ends the virtual machine. Mappings outlive it."""
    _of(fd).close()
    del _open[fd]


def ioctl(fd: int, number: int, argument: Any = 0) -> int:
    """One of the eleven calls.

    Parameters
    ----------
    fd : int
    number : int
        KVM_RUN, KVM_GET_REGS …
    argument : cdata, bytearray or int
        The structure (a pointer from :data:`ffi`, or its bytes, changed in place); of KVM_CREATE_VCPU the number.

    Raises
    ------
    OSError
        With the errno of the contract; EINTR where a signal or a stop came first.
    """
    abi = _of(fd)
    value, pointer = 0, 0
    if isinstance(argument, int):
        value = argument
    else:
        buffer = ffi.buffer(argument) if isinstance(argument, ffi.CData) else argument
        size = number >> 16 & 0x3FFF
        if len(buffer) < size:
            raise OSError(
                errno.EFAULT, f"{_names.get(number, hex(number))} takes {size} bytes, {len(buffer)} were given"
            )
        keep = ffi.from_buffer(buffer)
        pointer = int(ffi.cast("uintptr_t", keep))
    code = abi.ioctl(number, pointer, value)
    if code < 0:
        raise OSError(-code, f"{_names.get(number, hex(number))}: {os.strerror(-code)}")
    return code


def mmap_(fd: int, length: int, offset: int) -> memoryview:
    """Guest memory by guest-physical offset, to read and to write; it outlives slot and machine.

    From now on the machine cannot be taken back in time: user space changes its memory unseen.
    """
    view = _of(fd).mmap(length, offset)
    if isinstance(view, int):
        raise OSError(-view, f"no slot has {length:#x} bytes at {offset:#x}")
    return view
