"""A program under test: an isolated session leader whose pid becomes free when it dies.

The protocol (``tests/programs/selfcheck.h`` has the C side): a target runs in a directory of its own, with
stdin on /dev/null and stdout and stderr appended to ``log``.  It writes ``ready`` when it has set everything
up, polls for a file ``go`` in that directory, then checks itself from inside, writes ``PASS`` or
``FAIL: why`` and exits.  It may write ``FAIL`` at any time.  ``unsupported: what`` says what this machine
lacks.  Long-running targets keep a little-endian 64-bit count of finished work in a file ``beat``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "CRIUPY_TEST_TARGET"


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
    """One program and all of its incarnations: a restored process is the same target."""

    argv: Sequence[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    pid: int = 0

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
        self.pid = os.posix_spawn(
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

    def has_ended(self) -> bool:
        """Whether no process has the pid any more; reaps it if it was ours to reap."""
        if self.pid <= 0:
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return not os.path.exists(f"/proc/{self.pid}")

    def wait_gone(self, *, timeout: float = 20.0) -> None:
        """Wait until its pid is free."""
        wait_until(f"pid {self.pid} is free", self.has_ended, timeout=timeout)

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
        try:
            environ = Path(f"/proc/{self.pid}/environ").read_bytes()
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        parent = int(stat.rpartition(")")[2].split()[1])
        return parent == os.getpid() or f"{MARK}={self.directory}".encode() in environ.split(b"\0")

    def end(self) -> None:
        """Kill whatever incarnation lives, if it is ours, and free the pid."""
        if self.has_ended():
            return
        if not self.is_ours():
            raise TargetError(f"pid {self.pid} belongs to somebody else now")
        pidfd = os.pidfd_open(self.pid)
        try:
            if self.is_ours():  # the pidfd is of the process that was checked
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        self.wait_gone()
