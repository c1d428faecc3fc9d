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


def kill_by_pid(pid: int) -> None:
    """SIGKILL to a process that is traced by us, so that its number is nobody else's.  OSError."""
    assert pid > 0
    pidfd = os.pidfd_open(pid)
    try:
        kill([pidfd])
    finally:
        os.close(pidfd)


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
    _wait(_fork(action))


class Watch:
    """A child that lives ``life`` on a descriptor: there it hears what it is told, and an end when criupy ends.

    A dying process closes its files before it lets go of those that it traces.
    Source: Linux kernel/exit.c, ``do_exit``.
    """

    def __init__(self, life: Callable[[int], None]) -> None:
        hearing, self._telling = os.pipe()

        def begin() -> None:
            os.close(self._telling)
            life(hearing)

        try:
            self._child = _fork(begin)
        except OSError:
            os.close(self._telling)
            raise
        finally:
            os.close(hearing)

    def tell(self, word: bytes) -> None:
        """One byte to the child."""
        with contextlib.suppress(BrokenPipeError):  # it was killed, and is not needed any more
            os.write(self._telling, word)

    def finish(self) -> None:
        """Let it hear the end, and wait until it has done what it does then."""
        os.close(self._telling)
        _wait(self._child)


@contextmanager
def unless_done(action: Callable[[], None]) -> Iterator[None]:
    """If criupy ends inside, or an error does, the child does it."""

    def life(hearing: int) -> None:
        if not os.read(hearing, 1):
            action()

    watch = Watch(life)
    try:
        yield
        watch.tell(b"!")
    finally:
        watch.finish()


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


def _wait(child: int) -> None:
    with contextlib.suppress(ChildProcessError):  # whoever started criupy lets it ignore SIGCHLD: it is gone
        os.waitpid(child, 0)
