"""Going back: from random positions of every guest, a run that is repeated gives the same machine, bit for bit.

``KVMLAB_POSITIONS`` is the number of positions of each guest (``make soak``: 1,000); the seed is printed."""

from __future__ import annotations

import os
import random
from typing import Any

import guest_runner
import pytest

import kvmlab
from kvmlab.exits import Exit, ExitReason

POSITIONS = int(os.environ.get("KVMLAB_POSITIONS", "10"))
SEED = int(os.environ.get("KVMLAB_SEED", "0")) or random.randrange(1 << 32)
AFTER = 1000
GUESTS = guest_runner.all_guests()
MACHINES = ("machine-intel-2006", "machine-amd-2006", "vm-intel-2006", "vm-amd-2006")


def _open(guest: guest_runner.Guest, where: str) -> Any:
    kind, _, cpu = where.partition("-")
    if kind == "machine":
        if not guest.machine:
            pytest.skip("this guest says that it is nothing for a bare machine")
        return kvmlab.Machine(memory=guest.memory, cpu=cpu)
    if cpu not in guest.cpus:
        pytest.skip(f"this guest says that it is nothing for {cpu}")
    return kvmlab.VM(memory=guest.memory, engine="soft", cpu=cpu, **guest.options)


def _serve(vm: Any, stop: Exit, guest: guest_runner.Guest) -> bool:
    """Answers a stop in a way that depends on nothing but the position; False: the guest is at its end."""
    if stop.reason in (ExitReason.IO, ExitReason.MMIO):
        if stop.direction == "in" if stop.reason is ExitReason.IO else not stop.is_write:
            stop.reply(int(vm.position) * 37 & (1 << 8 * stop.size) - 1)
        return True
    if stop.reason is ExitReason.HLT and guest.inject:
        vm.interrupt(guest.inject[int(vm.position) % len(guest.inject)][1])
        return True
    return stop.reason is ExitReason.CPUID


def _run_to(vm: Any, instructions: int, guest: guest_runner.Guest) -> bool:
    while int(vm.position) < instructions:
        stop = vm.run(max_instructions=instructions - int(vm.position))
        if stop.reason is not ExitReason.LIMIT and not _serve(vm, stop, guest):
            return False
        if stop.reason is ExitReason.LIMIT and int(vm.position) < instructions:
            return False  # a delivery that faults for ever: time does not go on
    return True


@pytest.mark.parametrize("where", MACHINES)
@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_a_repeated_run_is_the_same_run(guest: guest_runner.Guest, where: str) -> None:
    chance = random.Random(f"{SEED} {guest.name} {where}")
    print(f"KVMLAB_SEED={SEED}")
    image = guest.build()
    with _open(guest, where) as vm:
        vm.load(image)
        for name, value in guest.registers.items():
            vm.set(**{name: guest.value(value, image)})
        handle, stride = vm._handle, max(2, min(guest.limit, 20_000) // POSITIONS)
        for _ in range(POSITIONS):
            alive = _run_to(vm, int(vm.position) + chance.randrange(1, stride), guest)
            before, saved = handle.state_hash(), handle.snapshot_save()
            start = int(vm.position)
            goes_on = alive and _run_to(vm, start + AFTER, guest)
            first, end = handle.state_hash(), vm.position
            handle.snapshot_restore(saved)
            assert handle.state_hash() == before, f"restoring at {start} gave another machine"
            if goes_on:  # in two pieces; a guest that ends is run as before
                _run_to(vm, start + chance.randrange(1, AFTER), guest)
            if alive:
                _run_to(vm, start + AFTER, guest)
            assert (vm.position, handle.state_hash()) == (end, first), f"from {start}, the second run went another way"
            handle.snapshot_drop(saved)
            if not alive:
                break


@pytest.mark.parametrize("where", MACHINES)
@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_every_moment_can_be_seen_again(guest: guest_runner.Guest, where: str) -> None:
    chance = random.Random(f"{SEED} {guest.name} {where}")
    print(f"KVMLAB_SEED={SEED}")
    image = guest.build()
    with _open(guest, where) as vm:
        vm.load(image)
        for name, value in guest.registers.items():
            vm.set(**{name: guest.value(value, image)})
        moments = []
        for _ in range(POSITIONS):
            if not _run_to(vm, int(vm.position) + chance.randrange(1, 500), guest):
                break
            moments.append((vm.position, vm.regs, vm.sregs))
        for position, regs, sregs in chance.sample(moments, len(moments)):
            vm.goto(position)
            assert (vm.position, vm.regs, vm.sregs) == (position, regs, sregs)
