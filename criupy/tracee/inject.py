"""Run batches of system calls inside the threads of a frozen process, and leave no trace.

The code in `blob.S` goes, with the registers to return to, into the padding behind the section headers of the
vdso; one thread maps a work area from there (tables, and a copy of the code for each other thread), all run
their tables at the same time, the first unmaps the area again.  At every instant a thread is either where
it was, or somewhere in a stub that brings it back without help: criupy may be killed at any time.  Then the
padding keeps the stub, and the work area of several threads stays mapped; the next run removes both.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from signal import pidfd_send_signal
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.linux import abi
from criupy.tracee import blob
from criupy.tracee.batch import Out, Results, SyscallBatch
from criupy.tracee.frozen import STOP_SIGNALS, FrozenProcess, restart_error
from criupy.tracee.ptrace import Registers, Tracee, held_signals
from criupy.tracee.space import OVERFLOW, SAVED, SIGNATURE, STUB, U64, WORK_AREA_HEADER, Space, set_values

_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_TRAP_FLAG, _ALIGNMENT_CHECK = 0x100, 0x40000
_USER_CS = 0x33
_SYSCALL_INSTRUCTION = b"\x0f\x05"
_RESTART_SYSCALL = 219
_SA_RESTART = 0x10000000
_SIGCONT = 18
_SIGCHLD = 1 << 16
_HARMLESS = _SIGCHLD | 1 << 22 | 1 << 27
"""SIGCHLD, SIGURG, SIGWINCH: ignored unless somebody wants them."""
_STOPS = 0b111 << 19
"""SIGTSTP, SIGTTIN, SIGTTOU."""
_STOPS_AND_CONT = _STOPS | 0b11 << 17
# With a mask of their own: pselect6, ppoll, rt_sigsuspend, epoll_pwait, epoll_pwait2, io_pgetevents.
_WITH_MASK = {270, 271, 130, 281, 441, 333}


def run_batches(
    process: FrozenProcess, batches: Mapping[int, SyscallBatch], *, timeout: float = 10.0
) -> dict[int, Results]:
    """Run one batch in each thread named, all at the same time; the threads stay frozen, and as they were.

    `TraceeError` when a thread cannot be used (32-bit code, single-stepped, no signal left to meet by);
    `FreezeError` when a batch does not come back in time (seconds).  Failures of calls are in the `Results`.
    """
    wanted = {process.thread(tid): batch for tid, batch in batches.items() if batch.calls}
    results = {tid: batch.decode(b"", tid=tid) for tid, batch in batches.items() if not batch.calls}
    if wanted:
        with held_signals():
            _suspend_seccomp(process, wanted)
            injection = _Injection(process, wanted, time.monotonic() + timeout)
            with _near(injection.first.tracee) if not injection.others else nullcontext():
                results |= injection.run()
    return results


def remove_leftovers(process: FrozenProcess) -> None:
    """Undo what a killed run has left: every run does so first."""
    batch = SyscallBatch()
    batch.call("getpid")
    run_batches(process, {process.first.tid: batch})


class MeetingSignals(NamedTuple):
    """What a process does with its signals (bit ``signo - 1``), and which of them mean nothing to it.

    By such a signal a thread meets its tracer, and nothing happens when there is none any more.
    """

    caught: int
    ignored: int
    pending: int = 0
    may_continue: bool = True
    """SIGCONT would neither wake the process nor drop a stop signal."""

    def unblocked(self, blocked: int) -> int:
        """One that the thread does not block; 0 if there is none."""
        free = self._free & ~blocked
        return _lowest(free & _HARMLESS) or _lowest(free)

    def blocked(self, blocked: int, pending: int) -> int:
        """Second choice: one that is not pending, or SIGCONT; 0 if there is none.

        SIGCHLD is left out: whoever blocks that one waits for it by signalfd.
        """
        alone = 1 << _SIGCONT - 1 if self.may_continue else 0
        free = self._free & ~_SIGCHLD & ~(pending | self.pending)
        return _lowest(free & _HARMLESS) or _lowest(free) or _lowest(alone & ~self.caught & ~blocked)

    @property
    def _free(self) -> int:
        # Sending SIGCONT or a stop signal has effects of its own.
        return (_HARMLESS | self.ignored) & ~self.caught & ~_STOPS_AND_CONT


def _lowest(signals: int) -> int:
    return (signals & -signals).bit_length()


class _Area(NamedTuple):
    """The mapping that one run needs: [header, stubs] executable if several threads run, then tables."""

    address: int
    code_size: int
    tables_size: int
    nonce: int

    @property
    def tables(self) -> int:
        return self.address + self.code_size

    @property
    def size(self) -> int:
        return self.code_size + self.tables_size


class _Detour:
    """A thread that is sent through a stub: where it was, and what brings it back."""

    def __init__(
        self, process: FrozenProcess, tracee: Tracee, signals: MeetingSignals, calls: dict[int, bool]
    ) -> None:
        self.process = process
        self.tracee = tracee
        self.away = False
        self.owed = False
        self.stub_address = 0
        self.original = self._checked(tracee.regs(), calls)
        self.restart = restart_error(self.original)
        self.mask = tracee.sigmask()
        self.blocked = self.mask
        if self.restart and self.original.orig_rax in _WITH_MASK:
            self.blocked |= _status(tracee)["SigBlk"]
        self.meeting = signals.unblocked(self.blocked)
        if not self.meeting:
            self.meeting = signals.blocked(self.blocked, _status(tracee)["SigPnd"])
        if not self.meeting:
            raise TraceeError(
                f"task {tracee.tid}: no signal is left to meet by",
                hint="it handles SIGURG, SIGWINCH and SIGCONT, and ignores no other",
            )

    def _checked(self, regs: Registers, calls: dict[int, bool]) -> Registers:
        tid = self.tracee.tid
        if regs.cs != _USER_CS:
            raise TraceeError(f"task {tid} runs 32-bit code")
        if regs.eflags & (_TRAP_FLAG | _ALIGNMENT_CHECK):
            raise TraceeError(f"task {tid} is single-stepped or checks alignment")
        if restart_error(regs):
            is_usual = calls.get(regs.rip)
            if is_usual is None:
                instruction = self.tracee.memory.read(regs.rip - 2, 2)
                is_usual = calls[regs.rip] = instruction == _SYSCALL_INSTRUCTION
            if not is_usual:
                raise TraceeError(f"task {tid} is in a system call of the 32-bit kind")
        return self._out_of_rseq(regs)

    def _out_of_rseq(self, regs: Registers) -> Registers:
        """Leave a restartable sequence as the kernel would: anything that runs in between aborts it."""
        if not regs.orig_rax >> 63:
            return regs  # no such sequence makes system calls
        memory = self.tracee.memory
        area, *_ = self.tracee.rseq()
        if area:
            descriptor = int.from_bytes(memory.read(area + 8, 8), "little")
            if descriptor:
                section = memory.read(descriptor, abi.RSEQ_CRITICAL_SECTION.size)
                _, _, start, length, abort = abi.RSEQ_CRITICAL_SECTION.unpack(section)
                if 0 <= regs.rip - start < length:
                    regs.rip = abort
        return regs

    def stub(self, area: _Area, at: int, *, maps_area: bool) -> bytes:
        """The code for the address ``at``, with everything it needs to return."""
        regs = self.original
        interruptible = self.interruptible_mask
        return blob.CODE[: blob.DATA] + STUB.pack(
            SIGNATURE,
            area.nonce,
            area.address,
            area.size,
            area.tables,
            area.tables_size,
            area.size if maps_area else 0,
            at + (blob.BOOT if maps_area else blob.RUN),
            _PROT_READ | (_PROT_EXEC if area.code_size else _PROT_WRITE),
            interruptible is not None,
            interruptible or 0,
            self.mask,
            regs.rip - 2 if self.restart else regs.rip,
            regs.rip,
            self._rax(),
            (regs.eflags & 0xFF) << 8 | regs.eflags >> OVERFLOW & 1,
            *(getattr(regs, name) for name in SAVED),
        )

    def _rax(self) -> int:
        match self.restart:
            case 0:
                return int(self.original.rax)
            case abi.ERESTART_RESTARTBLOCK:
                return _RESTART_SYSCALL
            case _:
                return int(self.original.orig_rax)

    @property
    def interruptible_mask(self) -> int | None:
        """All signals but those whose handlers must end the interrupted call; ``None`` if there are none."""
        if self.restart in (abi.ERESTARTNOHAND, abi.ERESTART_RESTARTBLOCK):
            return self.blocked
        if self.restart == abi.ERESTARTSYS and self.process.restarting is not None:
            return self.blocked | self.process.restarting
        return None

    def enter(self, stub: int, registers: dict[str, int]) -> None:
        """Send the thread to its stub.  In this order: once it has these registers, the mask is safe too."""
        regs = Registers.from_buffer_copy(self.original)
        set_values(regs, registers | {"r14": self.meeting})
        if self.restart:  # the kernel decides: it lands on the stub's first instruction, or on its second
            regs.rip = stub + blob.INTERRUPTED
        else:
            regs.rip = stub
            regs.orig_rax = U64
        self.stub_address = stub
        self.away = True
        self.tracee.set_regs(regs)
        self.tracee.set_sigmask(U64 & ~(1 << self.meeting - 1))
        self.tracee.resume()

    def stage(self, rip: int, registers: dict[str, int]) -> None:
        """From a stop inside its stub, let the thread go on with another stage."""
        regs = self.tracee.regs()
        set_values(regs, registers | {"rip": rip, "orig_rax": U64, "r14": self.meeting})
        self.tracee.set_regs(regs)
        self.tracee.resume()

    def meet(self, meeting: int, deadline: float) -> Registers:
        """Wait until the thread stops at ``meeting``; its registers."""
        while True:
            stop = self.tracee.wait(deadline)
            if stop.event == abi.PTRACE_EVENT_STOP:
                self.process.stopped_by = stop.signal if stop.signal in STOP_SIGNALS else None
                self.tracee.resume()
            elif stop.signal in STOP_SIGNALS:
                self.tracee.resume(stop.signal)
            elif stop.signal == self.meeting and not stop.event:
                regs = self.tracee.regs()
                if regs.rip == meeting:
                    if self.mask >> self.meeting - 1 & 1:
                        self.tracee.consume_stop()  # else it would be pending if criupy died
                    return regs
                self.owed = True  # somebody else sent it
                self.tracee.resume()
            else:
                raise TraceeError(f"task {self.tracee.tid} got signal {stop.signal} inside a batch")

    def put_back(self) -> None:
        """Give the thread its mask and its registers again, wherever it is."""
        if self.away:
            self.halt()
            if self.restart:  # a handler that runs as soon as it is unblocked may have to end the call
                regs = Registers.from_buffer_copy(self.original)
                regs.rip = self.stub_address + blob.RETURN
                self.tracee.set_regs(regs)
            self.tracee.set_sigmask(self.mask)
            self.tracee.set_regs(self.original, keep=True)
            self.away = False
            if self.owed and self.mask >> self.meeting - 1 & 1:
                pidfd_send_signal(self.process.pidfd, self.meeting)
            self.owed = False

    def halt(self) -> None:
        """Stop it if it runs."""
        if self.tracee.stop is None:
            self.tracee.interrupt()
            self.tracee.wait(time.monotonic() + 5)


class _Injection:
    """One run: its threads, slot and work area."""

    def __init__(
        self, process: FrozenProcess, batches: Mapping[Tracee, SyscallBatch], deadline: float
    ) -> None:
        self.process = process
        self.memory = process.memory
        self.deadline = deadline
        space = Space(process)
        slot, self.leftovers = space.slot()
        self.slot, self.pristine = slot.address, slot.pristine
        status = _status(process.first)
        stops = (status["ShdPnd"] | status["SigPnd"]) & _STOPS
        self.signals = MeetingSignals(
            caught=status["SigCgt"],
            ignored=status["SigIgn"],
            pending=status["ShdPnd"],
            may_continue=process.stopped_by is None and not stops,
        )
        calls: dict[int, bool] = {}
        self.detours = {
            _Detour(process, tracee, self.signals, calls): batch for tracee, batch in batches.items()
        }
        self.first, *self.others = self.detours
        self.prelude, self.actions = self._prelude()
        self.area = self._layout(space)

    def _layout(self, space: Space) -> _Area:
        code = _pages(WORK_AREA_HEADER.size + len(self.others) * blob.STUB_END) if self.others else 0
        tables = (
            WORK_AREA_HEADER.size + self.prelude.size + sum(batch.size for batch in self.detours.values())
        )
        size = code + _pages(tables)
        return _Area(space.gap(size), code, size - code, int.from_bytes(os.urandom(8)))

    def _prelude(self) -> tuple[SyscallBatch, dict[int, Out]]:
        """What the first thread asks before all others: which handlers restart calls; and it cleans up."""
        batch = SyscallBatch()
        for leftover in self.leftovers:
            if leftover.length:
                batch.call("munmap", leftover.area, leftover.length)
        actions: dict[int, Out] = {}
        if self.process.restarting is None:
            caught = (signo for signo in range(1, 65) if self.signals.caught >> signo - 1 & 1)
            for signo in caught:
                actions[signo] = batch.out(32)
                batch.call("rt_sigaction", signo, 0, actions[signo], 8)
        return batch, actions

    def run(self) -> dict[int, Results]:
        with ExitStack() as stack:
            stack.enter_context(self._borrowed_slot())
            stack.callback(self.first.put_back)
            self._boot()
            stack.callback(self._fini)
            self._write_header()
            self._run_prelude()
            self._remove_leftovers()
            if self.others:
                self._write_stubs()
            bases = self._write_tables()
            for detour, at in self._copies():
                stack.callback(detour.put_back)
                detour.enter(at, self._walk(bases[detour], self.detours[detour]))
            self.first.stage(self.slot + blob.RUN, self._walk(bases[self.first], self.detours[self.first]))
            for detour, at in self._copies():
                detour.meet(at + blob.MEETING, self.deadline)
                detour.put_back()
            self.first.meet(self.slot + blob.MEETING, self.deadline)
            return self._read(bases)

    def _copies(self) -> Iterator[tuple[_Detour, int]]:
        """The other threads, with the addresses of their stubs in the work area."""
        start = self.area.address + WORK_AREA_HEADER.size
        return zip(self.others, range(start, self.area.tables, blob.STUB_END), strict=False)

    @contextmanager
    def _borrowed_slot(self) -> Iterator[None]:
        try:
            self.memory.write(self.slot, self.first.stub(self.area, self.slot, maps_area=True))
            yield
        finally:
            if not self.first.away:
                self.memory.write(self.slot, self.pristine)

    def _boot(self) -> None:
        self.first.enter(self.slot, {})
        answer = self.first.meet(self.slot + blob.MEETING, self.deadline).rbx
        if answer != 0:
            code = -answer & U64
            raise TraceeError(
                f"task {self.process.pid}: mapping a work area of {self.area.size} bytes",
                errno=code if code <= abi.MAX_ERRNO else 0,
            )

    def _fini(self) -> None:
        if any(detour.away for detour in self.others):
            return  # somebody could not be brought back from the work area: it must stay
        self.first.halt()
        if self.others:
            self._set_fini_length(self.area.size)
        self.first.stage(self.slot + blob.FINI, {})
        self.first.meet(self.slot + blob.MEETING, time.monotonic() + 5)

    def _set_fini_length(self, length: int) -> None:
        self.memory.write(self.slot + blob.FINI_LENGTH, struct.pack("<Q", length))

    def _write_header(self) -> None:
        self.memory.write(self.area.address, WORK_AREA_HEADER.pack(SIGNATURE, self.area.nonce))

    def _run_prelude(self) -> None:
        if not self.prelude.calls:
            return
        base = self.area.tables + WORK_AREA_HEADER.size
        self.memory.write(base, self.prelude.encode(base))
        self.first.stage(self.slot + blob.RUN, self._walk(base, self.prelude))
        self.first.meet(self.slot + blob.MEETING, self.deadline)
        results = self.prelude.decode(self.memory.read(base, self.prelude.size), tid=self.process.pid).check()
        if self.process.restarting is None:
            flags = {signo: results.bytes(action)[8:16] for signo, action in self.actions.items()}
            self.process.restarting = sum(
                1 << signo - 1
                for signo, value in flags.items()
                if int.from_bytes(value, "little") & _SA_RESTART
            )
            if self.first.restart == abi.ERESTARTSYS:
                self.memory.write(self.slot, self.first.stub(self.area, self.slot, maps_area=True))

    def _remove_leftovers(self) -> None:
        """Their work areas are gone now, so that what remembers those may go."""
        for leftover in self.leftovers:
            if leftover.slot.address != self.slot:
                self.memory.write(leftover.slot.address, leftover.slot.pristine)

    def _write_stubs(self) -> None:
        """From now on the first thread must not unmap the area when it is left alone."""
        code = b"".join(detour.stub(self.area, at, maps_area=False) for detour, at in self._copies())
        self.memory.write(self.area.address + WORK_AREA_HEADER.size, code)
        self._set_fini_length(0)

    def _write_tables(self) -> dict[_Detour, int]:
        base = start = self.area.tables + WORK_AREA_HEADER.size + self.prelude.size
        bases: dict[_Detour, int] = {}
        tables = bytearray()
        for detour, batch in self.detours.items():
            bases[detour] = base
            tables += batch.encode(base)
            base += batch.size
        self.memory.write(start, bytes(tables))
        return bases

    @staticmethod
    def _walk(base: int, batch: SyscallBatch) -> dict[str, int]:
        return {"rbx": base, "r12": base, "r13": base + batch.records_size}

    def _read(self, bases: Mapping[_Detour, int]) -> dict[int, Results]:
        start = bases[self.first]
        tables = memoryview(self.memory.read(start, sum(batch.size for batch in self.detours.values())))
        return {
            detour.tracee.tid: batch.decode(tables[bases[detour] - start :], tid=detour.tracee.tid)
            for detour, batch in self.detours.items()
        }


@contextmanager
def _near(tracee: Tracee) -> Iterator[None]:
    """Run on the processor of a thread: waking one on another that is idle takes ten times as long."""
    before = os.sched_getaffinity(0)
    with open(f"/proc/{tracee.pid}/task/{tracee.tid}/stat", "rb", buffering=0) as file:
        processor = int(file.readall().rpartition(b")")[2].split()[36])
    if processor not in before:
        yield
        return
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _suspend_seccomp(process: FrozenProcess, tracees: Iterable[Tracee]) -> None:
    """Let no filter judge the calls of a batch.  It ends when the thread is given back, or with criupy."""
    for tracee in tracees:
        if tracee.tid in process.unfiltered:
            continue
        try:
            tracee.set_options(abi.PTRACE_O_SUSPEND_SECCOMP)
        except TraceeError as error:
            if _status(tracee)["Seccomp"]:
                raise TraceeError(
                    f"task {tracee.tid}: its seccomp filter cannot be suspended",
                    errno=error.errno,
                    hint="this needs CAP_SYS_ADMIN, and a criupy that is not under seccomp itself",
                ) from error
        process.unfiltered.add(tracee.tid)


def _status(tracee: Tracee) -> dict[str, int]:
    """The signal sets and the seccomp mode of a thread.  Source: Linux fs/proc/array.c"""
    path = f"/proc/{tracee.pid}/task/{tracee.tid}/status"
    with open(path, "rb", buffering=0) as file:
        lines = file.readall().decode(errors="replace").splitlines()
    wanted = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Seccomp")
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: int(fields[name], 16) for name in wanted}


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096
