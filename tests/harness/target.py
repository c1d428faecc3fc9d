"""A program under test: an isolated session leader whose pid becomes free when it dies, and all of its descendants.

The protocol (``tests/programs/selfcheck.h`` has the C side): a target runs in a directory of its own, with
stdin on /dev/null and stdout and stderr appended to ``log``.  It writes ``ready`` when it has set everything
up, polls for a file ``go`` in that directory, then checks itself from inside, writes ``PASS`` or
``FAIL: why`` and exits.  It may write ``FAIL`` at any time.  ``unsupported: what`` says what this machine
lacks.  Long-running targets keep a little-endian 64-bit count of finished work in a file ``beat``.  What lives in
the IPC namespace and would outlive the program has a line in a file ``sysv``: ``shm 7``, ``sem 8``.

With OWN_PIDS in its environment a target is the init of a pid namespace of its own, and has another pid after each
restore.

A target may fork.  Its members have its environment, by which they are told from strangers; dead ones are left to
the test process, which is the subreaper, and keep their pids busy until they are reaped here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.observe import start_time, stat_of, tree_of

MARK = "CRIUPY_TEST_TARGET"
_CLONE_NEWPID = 0x20000000
IPC_RMID = 0


class Unsupported(Exception):
    """The target says that this machine lacks something; the message is its own."""


class TargetError(AssertionError):
    """The target did not do what it should; the message carries its log."""


def _inheritable() -> Iterator[int]:
    """Descriptors that whoever started the tests left open for every program, beyond the first three."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and os.path.lexists(f"/proc/self/fd/{number}") and os.get_inheritable(number):
            yield number


def wait_until(what: str, condition: Callable[[], bool], *, timeout: float = 20.0) -> None:
    """Poll ``condition`` until it holds; ``TargetError`` naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while not condition():
        if time.monotonic() > deadline:
            raise TargetError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


@dataclass
class Target:
    """One program and all of its incarnations: a restored process is the same target.

    ``members`` are the pids of its tree with their start times, ``sessions`` the sessions that these were in, as of the
    last ``record()``.
    """

    argv: Sequence[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    members: dict[int, int] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    @property
    def has_own_pids(self) -> bool:
        """Whether it is the init of a pid namespace."""
        return "OWN_PIDS" in self.environment

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def beat(self) -> int:
        """Units of work done so far."""
        path = self.directory / "beat"
        data = path.read_bytes()[:8] if path.exists() else b""
        return struct.unpack("<q", data)[0] if len(data) == 8 else 0

    def start(self, *, timeout: float = 30.0) -> Target:
        """Start it and wait until it is ready."""
        assert self.pid == 0, "a target starts once"
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chmod(self.directory, 0o755)
        log = str(self.directory / "log")
        with _new_pid_namespace() if self.has_own_pids else contextlib.nullcontext():
            self.pid = self._spawn(log)
        wait_until(
            f"{self.argv[-1]} is ready", lambda: "ready\n" in self.log or self.has_ended(), timeout=timeout
        )
        for line in self.log.splitlines():
            if line.startswith("unsupported: "):
                self.end()
                raise Unsupported(line.removeprefix("unsupported: "))
        if "ready\n" not in self.log:
            raise TargetError(f"{self.argv[-1]} ended before it was ready:\n{self.log}")
        return self

    def _spawn(self, log: str) -> int:
        return os.posix_spawn(
            "/usr/bin/env",
            ["env", "-C", str(self.directory), *self.argv],
            {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", MARK: str(self.directory), **self.environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ],
        )

    def has_ended(self) -> bool:
        """Whether no process has the pid any more; reaps it if it was ours to reap."""
        if self.pid <= 0:
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return not os.path.exists(f"/proc/{self.pid}")

    def record(self) -> None:
        """Note who belongs to the tree now: with the next dump all of these go, and only then can they come back."""
        if self.pid <= 0:
            return
        self.members = {pid: start for pid in tree_of(self.pid) if (start := start_time(pid)) is not None}
        self.sessions |= {int(stat[3]) for pid in self.members if (stat := stat_of(pid)) is not None}

    def living(self) -> list[int]:
        """Pids of all processes that are ours by their environment, the tree's root first."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return sorted(filter(self._is_marked, pids), key=lambda pid: (pid != self.pid, pid))

    def _is_marked(self, pid: int) -> bool:
        return f"{MARK}={self.directory}".encode() in _environment(pid)

    def left(self) -> list[int]:
        """Pids that the tree still occupies, after reaping what was left to us; strangers on them count too."""
        _reap_children({*self.members, self.pid}, {*self.sessions, self.pid})
        known = {self.pid, *self.members} - {0}
        return sorted({*(pid for pid in known if os.path.exists(f"/proc/{pid}")), *self.living()})

    def wait_gone(self, *, timeout: float = 20.0) -> None:
        """Wait until all pids of its tree are free."""
        try:
            wait_until(f"the tree of {self.pid} is gone", lambda: not self.left(), timeout=timeout)
        except TargetError as late:
            raise TargetError(f"{late}, left are {self.left()}") from None

    def ask(self, *, timeout: float = 30.0) -> None:
        """Let it check itself from inside; ``TargetError`` unless it says PASS.  It ends by that."""
        (self.directory / "go").touch()
        wait_until(f"verdict of {self.argv[-1]}:\n{self.log}", self._has_verdict, timeout=timeout)
        self.expect_no_failure()
        assert "PASS\n" in self.log, f"no verdict:\n{self.log}"
        self.wait_gone()

    def _has_verdict(self) -> bool:
        return "PASS\n" in self.log or "FAIL" in self.log or self.has_ended()

    def expect_no_failure(self) -> None:
        """``TargetError`` if it found something wrong so far, or is gone."""
        if "FAIL" in self.log:
            raise TargetError(f"{self.argv[-1]} found:\n{self.log}")

    def expect_progress(self, *, timeout: float = 20.0) -> None:
        """Wait until it has done more work than now."""
        before = self.beat
        wait_until(
            f"{self.argv[-1]} works on ({before} done); log:\n{self.log}",
            lambda: self.beat > before or "FAIL" in self.log or self.has_ended(),
            timeout=timeout,
        )
        self.expect_no_failure()
        if self.beat <= before:
            raise TargetError(f"{self.argv[-1]} (pid {self.pid}) is gone:\n{self.log}")

    def is_ours(self) -> bool:
        """Whether the process that has the pid now is this target: by its parent or by its environment."""
        stat = stat_of(self.pid)
        if stat is None:
            return False
        return int(stat[1]) == os.getpid() or self._is_marked(self.pid)

    def end(self, *, timeout: float = 20.0) -> None:
        """Kill whatever incarnations live, if they are ours, and free their pids."""
        if not self.has_ended() and not self.is_ours():
            raise TargetError(f"pid {self.pid} belongs to somebody else now")
        wait_until(f"the tree of {self.pid} is dead", self._is_killed, timeout=timeout)
        _remove_sysv(self.directory / "sysv")

    def _is_killed(self) -> bool:
        """Whether nothing of the tree is left; what is, is killed, and what it forks meanwhile the next time."""
        if self.pid <= 0:
            return True
        if not self.has_ended() and self.is_ours():
            self.sessions |= {int(stat[3]) for pid in tree_of(self.pid) if (stat := stat_of(pid)) is not None}
            _kill(self.pid, self.is_ours)
        for pid in self.living():
            _kill(pid, functools.partial(self._is_marked, pid))
        return all(self._is_given_away(pid) for pid in self.left())

    def _is_given_away(self, pid: int) -> bool:
        """Whether a member's pid has been given to somebody else since."""
        known = pid != self.pid and not self._is_marked(pid)
        return known and start_time(pid) not in (self.members.get(pid), None)


@contextlib.contextmanager
def _new_pid_namespace() -> Iterator[None]:
    """Who is made inside is the init of a pid namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWPID)")
        try:
            yield
        finally:
            if libc.setns(own, _CLONE_NEWPID):
                raise OSError(ctypes.get_errno(), "setns(CLONE_NEWPID)")
    finally:
        os.close(own)


def _environment(pid: int) -> list[bytes]:
    """The environment of a process that is alive; if its main thread has ended, as another thread has it."""
    try:
        for name in ("environ", *(f"task/{tid}/environ" for tid in os.listdir(f"/proc/{pid}/task"))):
            with contextlib.suppress(OSError):  # of a thread that has ended
                if found := Path(f"/proc/{pid}/{name}").read_bytes():
                    return found.split(b"\0")
    except OSError:
        pass
    return []


def _kill(pid: int, is_ours: Callable[[], bool]) -> None:
    """SIGKILL to ``pid`` if it is ours."""
    assert pid > 1
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_ours():  # the pidfd is of the process that was checked
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def _reap_children(pids: set[int], sessions: set[int]) -> None:
    """Reap those of our dead children that have such a pid or were in such a session."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in map(int, children):
        stat = stat_of(child)
        if stat is not None and stat[0] == "Z" and (child in pids or int(stat[3]) in sessions):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _remove_sysv(listed: Path) -> None:
    """Remove System V objects that a target has named."""
    libc = ctypes.CDLL(None, use_errno=True)
    for line in listed.read_text().splitlines() if listed.exists() else ():
        kind, number = line.split()
        if kind == "shm":
            libc.shmctl(int(number), IPC_RMID, None)
        else:
            libc.semctl(int(number), 0, IPC_RMID)
