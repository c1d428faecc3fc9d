"""Time namespaces: CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from where they were, whatever happened in between.

Image: ``timens_entry`` in ``timens-0.img``, what the two clocks showed inside when the tree stood.  A tree is restored
into a namespace of its own.  Source: Linux kernel/time/namespace.c.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.capability import CAP_SYS_TIME
from criupy.linux.procfs.task import timens_offsets
from criupy.model.plan import NURSERY, Ref, Stage, Step, data, path

if TYPE_CHECKING:
    from criupy.images.pb.namespaces_pb2 import timens_entry
    from criupy.linux.features import KernelFeatures

CLOCKS = ("monotonic", "boottime")
_NUMBERS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME}
_SECOND = 10**9
_CLONE_NEWTIME = 0x80
_AT_FDCWD = -100


class Clocks(NamedTuple):
    """What the clocks show, in nanoseconds."""

    monotonic: int
    boottime: int


def collect(pid: int) -> Clocks:
    """The clocks of a task, by the offsets of its namespace and of our own."""
    own, theirs = _offsets(os.getpid()), _offsets(pid)
    return Clocks(*(time.clock_gettime_ns(_NUMBERS[name]) - own[name] + theirs[name] for name in CLOCKS))


def initial() -> Clocks:
    """The clocks of the initial time namespace, from which offsets count."""
    own = _offsets(os.getpid())
    return Clocks(*(time.clock_gettime_ns(_NUMBERS[name]) - own[name] for name in CLOCKS))


def _offsets(pid: int) -> dict[str, int]:
    """In nanoseconds; zeros on a kernel without time namespaces."""
    try:
        with open(f"/proc/{pid}/timens_offsets", "rb") as file:
            return timens_offsets(file.read())
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            raise
        return dict.fromkeys(CLOCKS, 0)


def encode(facts: Clocks) -> timens_entry:
    from criupy.images.pb.namespaces_pb2 import timens_entry

    entry = timens_entry()
    for name in CLOCKS:
        clock = getattr(entry, name)
        clock.tv_sec, clock.tv_nsec = divmod(getattr(facts, name), _SECOND)
    return entry


def plan(entry: timens_entry | None, now: Clocks, features: KernelFeatures) -> tuple[list[Step], list[str]]:
    """The calls of the nursery that give all tasks to come their clocks, and warnings.

    ``now``: the clocks of the initial namespace.
    """
    if entry is None:
        return [], []
    if not features.has_capability(CAP_SYS_TIME):
        return [], ["without CAP_SYS_TIME the tree gets this machine's clocks: intervals may seem to jump"]
    return list(_steps(entry, now)), []


def _steps(entry: timens_entry, now: Clocks) -> Iterator[Step]:
    lines = []
    for name in CLOCKS:
        clock = getattr(entry, name)
        if not 0 <= clock.tv_nsec < _SECOND:
            raise ImageError("timens-0.img", f"{name} has {clock.tv_nsec} nanoseconds")
        seconds, rest = divmod(clock.tv_sec * _SECOND + clock.tv_nsec - getattr(now, name), _SECOND)
        lines.append(f"{name} {seconds} {rest}\n")
    text = "".join(lines).encode()
    file = Ref("clocks", 0)
    opened = path(b"/proc/self/timens_offsets")
    about = "clocks"
    yield Step(NURSERY, Stage.NURSERY, "unshare", (_CLONE_NEWTIME,), about=about)
    yield Step(NURSERY, Stage.NURSERY, "openat", (_AT_FDCWD, opened, os.O_WRONLY, 0), gives=file, about=about)
    offsets = data(text, "&[clocks as in the images]")
    yield Step(NURSERY, Stage.NURSERY, "write", (file, offsets, len(text)), expect=len(text), about=about)
    yield Step(NURSERY, Stage.NURSERY, "close", (file,), about=about)
