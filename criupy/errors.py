"""Every error that criupy raises on purpose.

::

    CriupyError               exit 1, no RPC errno unless a subclass says otherwise
    ├── UsageError            the request itself makes no sense (options, arguments)
    ├── PrivilegeError        the caller may not do this
    ├── ImageError            an image file is missing, foreign, truncated or contradicts itself
    ├── NoSuchTask            the task to dump does not exist (or is gone)
    ├── NotDumpable           what a first look found in the way of a dump, all of it
    ├── HookError             a script, or a client of the service, said no
    ├── FreezeError           the tree could not be brought to a stable stop
    ├── TraceeError           the kernel refused something that was done to or in a task
    ├── RestoreError          a step of a restore failed; nothing of the tree was left
    │   ├── PidInUse          a pid or tid of the image set belongs to somebody else
    │   └── SegmentInUse      the id or key of a System V segment does
    └── KernelFeatureMissing  this kernel lacks something that the request needs

A message names the object and the task; ``hint`` says what to do next.  ``OSError`` becomes one of these in
``linux/syscalls``, ``tracee/`` and ``images/`` only, always ``from`` its cause.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple


class CriupyError(Exception):
    """Base of all; ``str()`` is the one-line message, ``hint`` what the user can do about it."""

    exit_code = 1
    rpc_errno = 0

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CriupyError):
    """The request itself makes no sense."""

    rpc_errno = errno.EBADRQC


class PrivilegeError(CriupyError):
    """The caller lacks a capability or permission for the request."""

    rpc_errno = errno.EPERM


class ImageError(CriupyError):
    """An image file cannot be used.  ``file`` is its name in the set, ``offset`` the byte where reading stopped."""

    def __init__(self, file: str, reason: str, *, offset: int | None = None, hint: str = "") -> None:
        where = f"{file}, offset {offset}" if offset is not None else file
        super().__init__(f"{where}: {reason}", hint=hint)
        self.file = file
        self.offset = offset
        self.reason = reason


class NoSuchTask(CriupyError):
    """There is no task with the pid that was asked for."""

    rpc_errno = errno.ESRCH


class Obstacle(NamedTuple):
    """One thing that stands in the way of a dump: which object of which task, why, and the way out."""

    pid: int
    comm: str
    what: str
    why: str
    hint: str = ""

    def __str__(self) -> str:
        return f"task {self.pid} ({self.comm}), {self.what}: {self.why}"


class NotDumpable(CriupyError):
    """Found before the freeze: every object that cannot be saved."""

    def __init__(self, obstacles: Sequence[Obstacle]) -> None:
        self.obstacles = tuple(obstacles)
        hints = list(dict.fromkeys(obstacle.hint for obstacle in obstacles if obstacle.hint))
        super().__init__("\n".join(str(obstacle) for obstacle in obstacles), hint="\n".join(hints))


class HookError(CriupyError):
    """Who was to act at some moment of a dump or restore did not do it."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FreezeError(CriupyError):
    """The tree did not come to a stable stop in time."""


class TraceeError(CriupyError):
    """The kernel refused an operation on a task.  ``errno`` is its answer, 0 when there is none."""

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(f"{message}: {os.strerror(errno)}" if errno else message, hint=hint)
        self.errno = errno


class RestoreError(CriupyError):
    """A step of a restore failed; all that was created is gone again."""

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(f"{message}: {os.strerror(errno)}" if errno else message, hint=hint)
        self.errno = errno


class PidInUse(RestoreError):
    """A pid or tid that the image set needs is taken."""

    rpc_errno = errno.EEXIST


class SegmentInUse(RestoreError):
    """The id or the key of a System V segment that the image set needs is taken."""

    rpc_errno = errno.EEXIST


class TerminalInUse(RestoreError):
    """The number of a pseudo terminal that the image set needs is taken."""

    rpc_errno = errno.EEXIST


class KernelFeatureMissing(CriupyError):
    """The running kernel lacks a feature; the message names it and what it is needed for."""
