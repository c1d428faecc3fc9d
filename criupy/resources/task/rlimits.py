"""Resource limits of a process."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from criupy.errors import ImageError
from criupy.linux.capability import CAP_SYS_RESOURCE
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Stage, Step, data
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.linux.features import KernelFeatures
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

NAMES = (
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
)  # fmt: skip
"""By RLIMIT_* number.  Source: Linux include/uapi/asm-generic/resource.h."""
NOFILE, SIGPENDING = NAMES.index("NOFILE"), NAMES.index("SIGPENDING")


class Rlimits(Dumpable):
    """prlimit(2).  Image: ``tc.rlimits``, by RLIMIT_* number.

    Read from /proc: prlimit on the task of another user needs CAP_SYS_RESOURCE.
    """

    name = "limits"
    per_thread = False

    def warnings(self, pid: int, features: KernelFeatures) -> Iterator[str]:
        if features.has_capability(CAP_SYS_RESOURCE):
            return
        try:
            with open(f"/proc/{pid}/limits", "rb", buffering=0) as file:
                limits = procfs.limits(file.readall())
        except OSError:
            return  # gone: the dump itself will say so
        for name, (_, hard), own in zip(NAMES, limits, features.hard_limits, strict=False):
            if hard > own:
                yield f"task {pid}: {_too_high(name, hard, own)}"

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        limits = subject.read("limits")
        return lambda _: limits

    def encode(self, facts: bytes, core: core_entry, sink: DumpSink) -> None:
        for soft, hard in procfs.limits(facts):
            core.tc.rlimits.rlimits.add(cur=soft, max=hard)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        file, tid, features = f"core-{subject.tid}.img", subject.tid, subject.features
        if not core.tc.HasField("rlimits"):
            raise ImageError(file, "no limits")
        if len(core.tc.rlimits.rlimits) > len(NAMES):
            raise ImageError(file, f"{len(core.tc.rlimits.rlimits)} limits")
        own = features.hard_limits[NOFILE]
        yield _set(tid, Stage.FILES, NOFILE, own, own)  # room for all descriptors
        for number, limit in enumerate(core.tc.rlimits.rlimits):
            hard, own = limit.max, features.hard_limits[number]
            if hard > own and not features.has_capability(CAP_SYS_RESOURCE):
                subject.warn(f"task {tid}: {_too_high(NAMES[number], hard, own)}")
                hard = own
            # Pending signals and timers count, until all of them are there.
            stage = Stage.CREDENTIALS if number == SIGPENDING else Stage.LIMITS
            yield _set(tid, stage, number, min(limit.cur, hard), hard)


def _set(tid: int, stage: Stage, number: int, soft: int, hard: int) -> Step:
    limit = data(struct.pack("<2Q", soft, hard), f"{{{_text(soft)}, {_text(hard)}}}")
    return Step(tid, stage, "prlimit64", (0, number, limit, 0), about=f"RLIMIT_{NAMES[number]}")


def _too_high(name: str, hard: int, own: int) -> str:
    return (
        f"the hard limit RLIMIT_{name} of {_text(hard)} can be restored as {_text(own)} only: "
        "raising it needs CAP_SYS_RESOURCE"
    )


def _text(limit: int) -> str:
    return "unlimited" if limit == procfs.RLIM_INFINITY else str(limit)
