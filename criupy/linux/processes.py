"""The human view of processes, for messages: psutil knows how people name them.

psutil costs more than a small dump, so it is imported when a message is being made, never before.
"""

from __future__ import annotations

import os


def describe(pid: int) -> str:
    """``4711 (nginx: worker process, of www-data, running for 12 s)``, or as much as can be found out."""
    import time

    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            owner = process.username()
            if process.status() == psutil.STATUS_ZOMBIE:
                return (
                    f"{pid} ({process.name()}, of {owner}, a zombie that {process.ppid()} has not waited for)"
                )
            name = " ".join(process.cmdline()) or process.name()
            age = max(0, round(time.time() - process.create_time()))
            return f"{pid} ({name[:60]}, of {owner}, running for {age} s)"
    except psutil.Error:
        return f"{pid}"


def write_pidfile(path: str, pid: int) -> None:
    """A new file with a number in it, mode 0600.  OSError, too when it is there already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(str(pid))
