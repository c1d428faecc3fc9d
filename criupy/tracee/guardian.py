"""A child of criupy's that finishes what must not be left half done when criupy is killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from criupy.errors import TraceeError

_PATIENCE, _SOON = 60.0, 0.5
"""Seconds: to give much memory back takes its time."""


def kill(pidfds: Iterable[int]) -> None:
    """SIGKILL to processes by their pidfds; who is dead already does not matter."""
    for pidfd in pidfds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def end(pidfd: int) -> None:
    """SIGKILL to a process that need not be a child, and wait for its end."""
    kill([pidfd])
    if not _ends(pidfd, _PATIENCE):
        raise TraceeError("a process does not die")


def are_dead(pids: Iterable[int]) -> bool:
    """Whether all of these processes have ended; waits for those that are at it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            pidfd = os.pidfd_open(pid)
            try:
                if not _ends(pidfd, _SOON) and (_has_memory(pid) or not _ends(pidfd, _PATIENCE)):
                    return False
            finally:
                os.close(pidfd)
    return True


def _has_memory(pid: int) -> bool:
    """Who dies parts with its address space first, whatever it takes to take that down."""
    with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
        return not file.read().startswith(b"0 ")


def _ends(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def finish(action: Callable[[], None]) -> None:
    """Let the child do it, which goes on when criupy is killed; comes back when it is done."""
    child = _fork(action)
    os.waitpid(child, 0)


@contextmanager
def unless_done(action: Callable[[], None]) -> Iterator[None]:
    """If criupy ends inside, or an error does, the child does it."""
    waiting, held = os.pipe()

    def watch() -> None:
        os.close(held)
        if not os.read(waiting, 1):
            action()

    child = _fork(watch)
    os.close(waiting)
    try:
        yield
        with contextlib.suppress(BrokenPipeError):  # the child was killed, and is not needed any more
            os.write(held, b"!")
    finally:
        os.close(held)
        os.waitpid(child, 0)


def _fork(action: Callable[[], None]) -> int:
    """A child in a process group of its own, so that a signal for ours does not end it too."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - this process has nobody to raise it to
            traceback.print_exc()
        finally:
            os._exit(status)
    assert child > 0
    return child
