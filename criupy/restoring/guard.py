"""What a restore makes dies with its tasks, and they die with criupy; but System V segments do not.

So a child of criupy waits until the nursery is dead, which it is in any case, and undoes the rest unless it is told not
to.  Nobody traces it, and no signal but SIGKILL reaches it.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from criupy.tracee.ptrace import held_signals

_PATIENCE = 60.0
"""Seconds: to give much memory back takes its time."""


class Guard:
    """A context manager around that of the tree: when it is left, what had to be undone is undone."""

    def __init__(self) -> None:
        self._pipe = -1
        self._pidfd = -1
        self._pid = 0
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def watch(self, nursery: int, undo: Callable[[], None]) -> None:
        """From now on ``undo`` is called, in another process, when that of the pidfd ``nursery`` has ended."""
        reads, self._pipe = os.pipe()
        with held_signals():
            self._pid = os.fork()
            if self._pid == 0:
                os.close(self._pipe)  # its end is how that of criupy is seen
                _stand_by(nursery, reads, undo)
            self._pidfd = os.pidfd_open(self._pid)
        os.close(reads)

    def keep(self) -> None:
        """Nothing is to be undone any more."""
        self._kept = True
        if self._pid:
            with suppress(BrokenPipeError):  # somebody has killed the child: then it undoes nothing either
                os.write(self._pipe, b"\0")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._pid:
            return
        os.close(self._pipe)
        if not _wait(self._pidfd, _PATIENCE):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        if error is not None and status and not self._kept:
            error.add_note("System V segments that were made could not be removed: ipcs -m shows them.")


def _stand_by(nursery: int, reads: int, undo: Callable[[], None]) -> None:
    """The life of the child, which ends in here."""
    status = 1
    try:
        os.setsid()  # whoever kills criupy's process group does not mean it
        _wait(nursery)
        if not os.read(reads, 1):
            undo()
        status = 0
    finally:
        os._exit(status)


def _wait(pidfd: int, seconds: float | None = None) -> bool:
    """Whether a process has ended, or ends in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
