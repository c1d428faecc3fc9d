"""criupy in the place of a shell's job that it has restored: it stops when the job stops, and goes on with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from criupy.linux import tty


def wait(root: int) -> None:
    """Until ``root``, a child, has ended; the shell sees what becomes of it by what becomes of us.

    In the end the terminal is ours again.
    """
    assert root > 0
    while os.WIFSTOPPED(os.waitpid(root, os.WUNTRACED)[1]):
        group = os.getpgid(root)
        os.kill(os.getpid(), signal.SIGSTOP)
        if _foreground() == os.getpgrp():
            _hand_over(group)
        if group != os.getpgrp():  # which the shell has told itself
            with suppress(ProcessLookupError):
                _tell_group(group, signal.SIGCONT)
    if _foreground() and not _is_there(_foreground()):
        _hand_over(os.getpgrp())


def _tell_group(group: int, signo: int) -> None:
    assert group > 1
    os.killpg(group, signo)


def _foreground() -> int:
    """The foreground group of our terminal; 0 if standard input is none."""
    with suppress(OSError):
        return tty.controlled(0)[1]
    return 0


def _is_there(group: int) -> bool:
    try:
        _tell_group(group, 0)
    except ProcessLookupError:
        return False
    return True


def _hand_over(group: int) -> None:
    with _despite_the_background(), suppress(OSError):  # somebody else may have the terminal by now
        os.tcsetpgrp(0, group)


@contextmanager
def _despite_the_background() -> Iterator[None]:
    """Who is not in the foreground would be stopped."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
