"""A child of criupy's that finishes what must not be left half done when criupy is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def kill(pidfds: Iterable[int]) -> None:
    """SIGKILL to processes by their pidfds; who is dead already does not matter."""
    for pidfd in pidfds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


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
        with contextlib.suppress(BrokenPipeError):  # somebody has killed the child, who is not needed any more
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
        finally:
            os._exit(status)
    assert child > 0
    return child
