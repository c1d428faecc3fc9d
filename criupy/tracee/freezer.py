"""Stop a running process with all of its threads, or a whole tree of them, and give them back as they were.

Threads are seized without options, so that they live on when criupy is killed, and stopped by PTRACE_INTERRUPT;
processes and threads are looked for until nothing new is found.  A signal on its way in is delivered, never held: the
thread then stops at the entry of its handler.  Job-control stops are kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from criupy.errors import FreezeError, NoSuchTask, PrivilegeError, TraceeError
from criupy.linux import abi, family
from criupy.linux.cgroup import Cgroup
from criupy.linux.family import Member
from criupy.linux.syscalls import LockedMemory
from criupy.tracee.batch import syscall_numbers
from criupy.tracee.cgroup import BorrowedCgroup, seizable
from criupy.tracee.frozen import STOP_SIGNALS, FrozenProcess, FrozenTree, reap, status_of
from criupy.tracee.inject import remove_leftovers
from criupy.tracee.ptrace import Memory, Step, Stop, Tracee, held_signals, nothing
from criupy.tracee.space import Space

_CLONE_VFORK = 0x4000
_VFORK_CALLS = {"58", "56", "435"}  # vfork, clone, clone3
_PATIENCE = 0.02
_ATTEMPTS = 5
_GONE = (errno.ENOENT, errno.ESRCH)
_EINTR = 4
_U64 = (1 << 64) - 1

# Calls that answer EINTR as soon as anything stops them, signal or not, although they could go on waiting:
# number, register, mask and value of the argument that says "for ever".
# Source: Linux fs/eventpoll.c, ipc/sem.c, kernel/signal.c, fs/aio.c
_INTERRUPTED_BY_A_STOP = {
    232: ("r10", 0xFFFFFFFF, 0xFFFFFFFF),  # epoll_wait
    281: ("r10", 0xFFFFFFFF, 0xFFFFFFFF),  # epoll_pwait
    441: ("r10", _U64, 0),  # epoll_pwait2
    65: ("r10", 0, 0),  # semop
    220: ("r10", _U64, 0),  # semtimedop
    128: ("rdx", _U64, 0),  # rt_sigtimedwait
    208: ("r8", _U64, 0),  # io_getevents
}


@contextmanager
def freeze(pid: int, *, timeout: float = 10.0, step: Step = nothing) -> Iterator[FrozenProcess]:
    """Stop all threads of ``pid`` alone; on every way out they go on as if nothing had happened.

    What a killed criupy has left in the process is removed first.
    `NoSuchTask`; `PrivilegeError`; `FreezeError` when somebody else traces a thread, or when a thread (a vfork parent,
    say) does not stop within ``timeout`` seconds.
    """
    with _frozen(pid, timeout, step, with_children=False) as tree:
        yield tree.processes[0]


@contextmanager
def freeze_tree(
    pid: int, *, timeout: float = 10.0, cgroup: Cgroup | None = None, step: Step = nothing
) -> Iterator[FrozenTree]:
    """Stop ``pid`` and everyone below it, as `freeze` does one process.

    With a ``cgroup`` they are stopped all at once, and with them whoever else is in it; at the end it is frozen if,
    and only if, somebody had frozen it before.
    `FreezeError` too when the tree grows faster than it can be stopped, for ``timeout`` seconds; what
    `BorrowedCgroup` says.
    """
    with _frozen(pid, timeout, step, with_children=True, cgroup=cgroup) as tree:
        yield tree


@contextmanager
def _frozen(
    pid: int, timeout: float, step: Step, *, with_children: bool, cgroup: Cgroup | None = None
) -> Iterator[FrozenTree]:
    if pid <= 0:
        raise NoSuchTask(f"{pid} is not a pid")
    syscall_numbers()  # loads a table: not while anything is stopped
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + timeout
        borrowed = BorrowedCgroup(cgroup, deadline, step=step) if cgroup is not None else None
        freezer = _TreeFreezer(pid, deadline, step, with_children=with_children, cgroup=borrowed)
        stack.callback(freezer.close)
        freezer.prepare()
        stack.callback(freezer.release)
        if borrowed is not None:
            stack.enter_context(borrowed)
            stack.callback(freezer.settle)
            borrowed.stop(freezer.catch, freezer.await_caught)
        with held_signals(), freezer.undertaker():
            tree = freezer.freeze()
        freezer.clean()
        yield tree


class _TreeFreezer:
    """The processes of a tree, from the first look at them until they are given back."""

    def __init__(
        self, root: int, deadline: float, step: Step, *, with_children: bool, cgroup: BorrowedCgroup | None
    ) -> None:
        self.root = root
        self.deadline = deadline
        self.step = step
        self._with_children = with_children
        self._cgroup = cgroup
        self._strangers: frozenset[int] = frozenset()
        self._buffer = Tracee.new_buffer()
        self._freezers: dict[int, _Freezer] = {}
        self._zombies: set[int] = set()

    def prepare(self) -> None:
        """What can be done before anyone stands."""
        if self._cgroup is None or not self._cgroup.cgroup.is_frozen():
            self._await_vfork()
        for member in self._walk():
            self._meet(member.pid)

    def catch(self) -> None:
        """Ask those to stop who stand because their cgroup is frozen: they will when it is thawed."""
        assert self._cgroup is not None
        with held_signals():
            self._begin(seizable(self._cgroup.cgroup, self._walk()))

    def await_caught(self) -> None:
        with held_signals():
            for freezer in self._freezers.values():
                freezer.halt()

    def freeze(self) -> FrozenTree:
        members: list[Member] = []
        while True:
            before, members = members, self._walk()
            if not self._advance(members) and members == before:
                break  # a walk that something ends under may miss others, so two have to agree
            if time.monotonic() > self.deadline:
                raise FreezeError(
                    f"the tree of task {self.root} grows faster than it can be stopped",
                    hint="allow more time (--timeout)",
                )
        return self._tree(members)

    @contextmanager
    def undertaker(self) -> Iterator[None]:
        """Meanwhile, who dies is reaped: who executes a program waits until all other threads of its process are.

        To seize one of them, or that one itself, is to wait for that in turn, whatever happens.  And the init of a
        pid namespace ends after all others in it.  Source: Linux fs/exec.c, ``de_thread``; kernel/ptrace.c,
        ``ptrace_attach``; kernel/pid_namespace.c, ``zap_pid_ns_processes``.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._bury, args=(done,))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _bury(self, done: threading.Event) -> None:
        """Only while no more threads are seized: looking at ten thousand of them would hold that up."""
        seized = 0
        while not done.wait(_PATIENCE):
            before, seized = seized, sum(len(freezer.tracees) for freezer in list(self._freezers.values()))
            if seized != before:
                continue
            for freezer in list(self._freezers.values()):
                for tracee in list(freezer.tracees.values()):
                    if tracee.has_died():
                        reap(tracee.pid, tracee.tid, time.monotonic())

    def clean(self) -> None:
        """Undo what killed runs of criupy have left."""
        for freezer in self._freezers.values():
            if freezer.is_dirty and freezer.tracees:
                remove_leftovers(freezer.process)

    def settle(self) -> None:
        """Wait a moment for those that were asked to stop and run still, when something went wrong."""
        with held_signals():
            for freezer in self._freezers.values():
                freezer.settle()

    def release(self) -> None:
        with held_signals():
            for freezer in self._freezers.values():
                freezer.release()

    def close(self) -> None:
        for freezer in self._freezers.values():
            freezer.close()

    def _walk(self) -> list[Member]:
        """The tree, and whoever else is in the cgroup.

        The children of who waits in vfork are left alone: one of them has to go on.
        """
        closed = [pid for pid, freezer in self._freezers.items() if freezer.in_vfork]
        members = family.walk(self.root, closed if self._with_children else [self.root])
        if not members:
            raise NoSuchTask(
                f"task {self.root} has ended" if self._freezers else f"there is no task {self.root}"
            )
        if self._cgroup is None:
            return members
        strangers = self._cgroup.cgroup.others(members, {self.root, *closed})
        self._strangers = frozenset(member.pid for member in strangers)
        return members + strangers

    def _await_vfork(self) -> None:
        while any(_in_vfork(member.pid, tid) for member in self._walk() for tid in member.tids):
            if time.monotonic() > self.deadline:
                raise _vfork_error(self.root)
            time.sleep(0.005)

    def _meet(self, pid: int) -> _Freezer | None:
        """None for a process that is dead, or dies at this moment."""
        if pid not in self._freezers:
            speaker = _speaker(pid)
            try:
                self._freezers[pid] = _Freezer(pid, speaker, self._buffer, self.deadline, self.step)
            except NoSuchTask:
                if pid == self.root:
                    raise
                return None
            except TraceeError as error:
                if error.errno in _GONE:
                    return None  # or the thread is that spoke for it, or executes a program
                if pid == self.root or _has_a_program(pid):
                    raise
                return None
        return self._freezers[pid]

    def _advance(self, members: list[Member]) -> bool:
        """Stop whatever runs; whether there was anything."""
        for member in members:
            if member.pid in self._freezers:
                self._freezers[member.pid].forget(member.tids)
        moved, begun = self._begin(members)
        for freezer in begun:
            moved |= freezer.halt()
        return moved

    def _begin(self, members: list[Member]) -> tuple[bool, list[_Freezer]]:
        """Ask whatever runs to stop; whether there was anything, and who may have to be waited for."""
        self._forget({member.pid for member in members})
        moved = False
        begun: list[_Freezer] = []
        for member in members:
            if family.is_zombie(member):
                self._zombies.add(member.pid)
                continue
            freezer = self._meet(member.pid)
            if freezer is None:
                moved = True  # the next walk tells what became of it
                continue
            moved |= freezer.begin(member.tids)
            begun.append(freezer)
        return moved, begun

    def _forget(self, here: set[int]) -> None:
        """Who is gone; and let go of who was stopped although its parent waits for it in vfork."""
        for pid in self._freezers.keys() - here:
            freezer = self._freezers.pop(pid)
            freezer.release()
            freezer.close()
        self._zombies.clear()

    def _tree(self, members: list[Member]) -> FrozenTree:
        members = [member for member in members if member.pid not in self._strangers]
        processes = [
            self._freezers[member.pid].done() for member in members if member.pid not in self._zombies
        ]
        if not processes or processes[0].pid != self.root:
            raise FreezeError(f"task {self.root} is dead")
        stopped = {process.pid for process in processes if process.stopped_by}
        for process in processes:
            children = (member.pid for member in members if member.ppid == process.pid)
            process.stopped_children = (
                tuple(child for child in children if child in stopped) if stopped else ()
            )
        return FrozenTree(tuple(members), tuple(processes))


class _Freezer:
    """The tracees of one process, from the first that is seized."""

    def __init__(self, pid: int, speaker: int, buffer: LockedMemory, deadline: float, step: Step) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise NoSuchTask(f"there is no task {pid}") from error
        try:
            self.process = FrozenProcess(pid, speaker, pidfd, Memory(speaker, step=step), buffer)
        except BaseException:
            os.close(pidfd)
            raise
        self.deadline = deadline
        self.step = step
        self.tracees: dict[int, Tracee] = {}
        self.in_vfork = False
        self._running: list[Tracee] = []
        self._on_its_way: dict[int, int] = {}
        """By thread, the signal that it stopped for in the end, and still has to get."""
        try:
            self.is_dirty = self._has_leftovers()
        except BaseException:
            self.close()
            raise

    def _has_leftovers(self) -> bool:
        try:
            return Space(self.process).has_leftovers()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise TraceeError(f"task {self.process.speaker} has ended", errno=errno.ESRCH) from error
        except TraceeError as error:
            if error.errno not in (0, *_GONE):
                raise
            return False  # it executes another program at this moment, and the memory of that is new

    def close(self) -> None:
        self.process.memory.close()
        os.close(self.process.pidfd)

    def begin(self, tids: frozenset[int]) -> bool:
        """Seize the threads that are new, and ask them to stop; whether there were any, or it is about to be dead.

        A leader may be dead for long; of another thread it is news.
        """
        new = sorted(tids - self.tracees.keys())
        self._running += [tracee for tid in new if (tracee := self._seize(tid))]
        return any(tid in self.tracees or tid != self.process.pid for tid in new) or not self.tracees

    def forget(self, here: frozenset[int]) -> None:
        """Threads that stood, and have died and been reaped since."""
        for tid in self.tracees.keys() - here:
            self._lose(tid)

    def _lose(self, tid: int) -> None:
        """A thread is gone; it may have executed a program, and be what the number of the leader means now."""
        self.tracees.pop(tid, None)
        self.tracees.pop(self.process.pid, None)

    def halt(self) -> bool:
        """Wait until all that were asked stand, or until it shows that one waits in vfork; whether anyone is left."""
        running, self._running = self._running, []
        for tracee in running:
            if not self._halt(tracee):
                self._running.append(tracee)
        self.in_vfork = bool(self._running)
        return self.in_vfork

    def done(self) -> FrozenProcess:
        process = self.process
        process.threads = tuple(
            self.tracees[tid] for tid in sorted(self.tracees, key=lambda tid: (tid != process.pid, tid))
        )
        process.speaker = process.first.tid
        process.memory.reopen(process.speaker)
        return process

    def settle(self) -> None:
        """Wait a moment for those that were asked to stop and have not yet."""
        deadline = time.monotonic() + 0.2
        for tracee in self.tracees.values():
            if tracee.stop is None:
                with contextlib.suppress(FreezeError, TraceeError):
                    stop = tracee.wait(deadline)
                    if stop.event:
                        _let_it_go_on_waiting(tracee)
                    else:
                        self._on_its_way[tracee.tid] = stop.signal

    def release(self) -> None:
        """Detach all; a thread that does not stop can only be left to the end of criupy."""
        self.settle()
        for tracee in self.tracees.values():
            try:
                tracee.detach(self._on_its_way.get(tracee.tid, 0))
            except TraceeError:  # killed meanwhile, or not stopping
                reap(tracee.pid, tracee.tid, time.monotonic() + 0.05)
        self.tracees.clear()
        self._running.clear()
        self._on_its_way.clear()
        self.in_vfork = False

    def _seize(self, tid: int) -> Tracee | None:
        """None for a thread that is dead.

        Who executes a program takes over the number of a leader that is dead: of one that could not be seized, and it
        may be ours already by another number.
        """
        process = self.process
        tracee = Tracee(process.pid, tid, process.memory, process.buffer, step=self.step)
        for _ in range(_ATTEMPTS):
            try:
                tracee.seize()
                break
            except TraceeError as error:
                why = error
            state, tracer = _state_and_tracer(process.pid, tid)
            if state in ("", "Z", "X"):
                if tid != process.pid:
                    self._lose(tid)
                return None
            if tracer == os.getpid():
                break
            if tracer:
                raise FreezeError(
                    f"task {tid} is traced by {tracer} ({_comm(tracer)})", hint="stop the debugger first"
                ) from why
        else:
            raise PrivilegeError(f"task {tid} may not be traced: {os.strerror(why.errno)}") from why
        self.tracees[tid] = tracee
        with contextlib.suppress(TraceeError):  # dead: waiting for it tells
            tracee.interrupt()
        return tracee

    def _halt(self, tracee: Tracee) -> bool:
        """Wait for the stop that was asked for; signals that come first are delivered.  False: it is in vfork."""
        while True:
            try:
                stop = tracee.wait(min(self.deadline, time.monotonic() + _PATIENCE))
            except TraceeError:
                reap(tracee.pid, tracee.tid, self.deadline)
                self._lose(tracee.tid)
                return True
            except FreezeError as error:
                if _has_left_others(tracee):
                    self.tracees.pop(tracee.tid, None)
                    return True
                if not self._urge(tracee, error):
                    return False
                continue
            if _stands(tracee, stop):
                break
        if stop.signal in STOP_SIGNALS:
            self.process.stopped_by = stop.signal
        return True

    def _urge(self, tracee: Tracee, error: FreezeError) -> bool:
        """Ask one to stop that does not, once more; False: it is in vfork."""
        in_vfork = _in_vfork(tracee.pid, tracee.tid)
        if time.monotonic() >= self.deadline:
            raise self._stuck(tracee, error, in_vfork=in_vfork) from error
        if not in_vfork:
            with contextlib.suppress(TraceeError):  # dead: the next look tells
                tracee.interrupt()  # seen with v6.18: who executes a program may not stop for the first
        return not in_vfork

    @staticmethod
    def _stuck(tracee: Tracee, error: FreezeError, *, in_vfork: bool) -> FreezeError:
        if in_vfork:
            return _vfork_error(tracee.pid)
        return FreezeError(
            f"{error}: it is {_doing(tracee)}",
            hint="it stays traced, and stops when that ends, until criupy exits",
        )


def _stands(tracee: Tracee, stop: Stop) -> bool:
    """Whether it has come to the stop that was asked for.

    If not it goes on to that, or has been killed since for one that executes a program: waiting for it tells.
    """
    try:
        if stop.event == abi.PTRACE_EVENT_STOP:
            _let_it_go_on_waiting(tracee)
            return True
        tracee.resume(stop.signal)
    except TraceeError as error:
        if error.errno != errno.ESRCH:
            raise
    return False


def _let_it_go_on_waiting(tracee: Tracee) -> None:
    """Turn an EINTR that only our stop has caused into a restart; a handler still makes it EINTR."""
    regs = tracee.regs()
    if regs.rax != -_EINTR & _U64:
        return
    register, mask, for_ever = _INTERRUPTED_BY_A_STOP.get(regs.orig_rax, ("", 0, 1))
    if register and getattr(regs, register) & mask == for_ever:
        regs.rax = -abi.ERESTARTNOHAND & _U64
        tracee.set_regs(regs)


def _has_left_others(tracee: Tracee) -> bool:
    """Whether it was a leader and is dead, of which nobody is told before its other threads are."""
    return tracee.tid == tracee.pid and _state_and_tracer(tracee.pid, tracee.tid)[0] in ("Z", "X")


def _has_a_program(pid: int) -> bool:
    return os.path.exists(f"/proc/{_speaker(pid)}/exe")


def _speaker(pid: int) -> int:
    """As `family.speaker`; the process itself if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return family.speaker(pid)
    return pid


def _state_and_tracer(pid: int, tid: int) -> tuple[str, int]:
    status = status_of(pid, tid)
    return status.get("State", "").strip()[:1], int(status.get("TracerPid", "0"))


def _comm(pid: int) -> str:
    return status_of(pid, pid).get("Name", "gone").strip()


def _doing(tracee: Tracee) -> str:
    try:
        with open(f"/proc/{tracee.pid}/task/{tracee.tid}/wchan", encoding="ascii") as file:
            return f"in {file.read()}, state {_state_and_tracer(tracee.pid, tracee.tid)[0]}"
    except OSError:
        return "gone"


def _vfork_error(pid: int) -> FreezeError:
    """A vfork parent does not stop before its child has gone on, nor can it be let go of."""
    return FreezeError(f"task {pid} waits for a child of vfork, and does not stop before that has gone on")


def _in_vfork(pid: int, tid: int) -> bool:
    try:
        with open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] != b"D":
                return False
        with open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as file:
            number, *arguments = file.read().split()
    except OSError:
        return False
    if number == "56":
        return bool(int(arguments[0], 16) & _CLONE_VFORK)
    return number in _VFORK_CALLS
