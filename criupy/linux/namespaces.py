"""The namespaces of a task, as the kernel names them."""

from __future__ import annotations

import os

KINDS = ("pid", "net", "ipc", "uts", "time", "mnt", "user", "cgroup")
"""In the order in which CRIU numbers them."""


def identify(pid: int) -> dict[str, int]:
    """Inode number of each namespace of ``pid``; kinds that this kernel lacks are missing.

    Source: Linux fs/nsfs.c.  Raises ``OSError`` when the task is gone.
    """
    found: dict[str, int] = {}
    for kind in KINDS:
        try:
            found[kind] = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}"):
                raise
    return found
