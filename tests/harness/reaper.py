"""A tiny init: runs a command, reaps every orphan, and exits as the command did.

A restored task needs its old pid back, and an unreaped zombie keeps its number for ever.
Elsewhere a subreaper, as pid 1 of a private pid namespace it takes all that is left over with it::

    unshare --pid --fork --mount-proc --kill-child python reaper.py COMMAND...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make orphaned descendants ours to wait for.  Source: Linux kernel/sys.c"""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run(argv: list[str]) -> int:
    """Run ``argv`` and reap all others until it ends; its exit status, or 128 + signal."""
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too, which decides
    command = os.posix_spawnp(argv[0], argv, os.environ, setsigdef=[signal.SIGINT, signal.SIGPIPE])
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: reaper.py COMMAND [ARGUMENT]...")
    sys.exit(run(sys.argv[1:]))
