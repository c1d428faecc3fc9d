"""What /proc keeps for a process and can be written back there: oom_score_adj and the login uid."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.linux.capability import CAP_SYS_RESOURCE
from criupy.model.plan import Ref, Stage, Step, data, path
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.linux.features import KernelFeatures
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

NO_LOGIN_UID = 0xFFFFFFFF
_AT_FDCWD = -100


class ProcFacts(NamedTuple):
    """``loginuid`` is None on a kernel without it."""

    oom_score_adj: int
    loginuid: int | None


class OomScore(Dumpable):
    """Image: ``tc.oom_score_adj`` and ``tc.loginuid``.

    Planned before the root directory may change, since /proc is needed.
    """

    name = "oom_score_adj"
    per_thread = False

    def warnings(self, pid: int, features: KernelFeatures) -> Iterator[str]:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "rb") as file:
                score = int(file.read())
        except OSError:
            return  # gone: the dump itself will say so
        if _too_low(score, features):
            yield f"task {pid}: {_stays(score, features)}"

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        score = int(subject.read("oom_score_adj"))
        try:
            login: int | None = int(subject.read("loginuid"))
        except FileNotFoundError:
            login = None
        facts = ProcFacts(score, login)
        return lambda _: facts

    def encode(self, facts: ProcFacts, core: core_entry, sink: DumpSink) -> None:
        core.tc.oom_score_adj = facts.oom_score_adj
        if facts.loginuid is not None:
            core.tc.loginuid = facts.loginuid

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        tid, score = subject.tid, core.tc.oom_score_adj
        if core.tc.HasField("oom_score_adj"):
            if _too_low(score, subject.features):
                subject.warn(f"task {tid}: {_stays(score, subject.features)}")
            elif score != subject.features.oom_score_adj:
                yield from _write(tid, "oom_score_adj", score)
        if core.tc.HasField("loginuid") and core.tc.loginuid != NO_LOGIN_UID:
            yield from _write(tid, "loginuid", core.tc.loginuid)


def _too_low(score: int, features: KernelFeatures) -> bool:
    return score < features.oom_score_adj and not features.has_capability(CAP_SYS_RESOURCE)


def _stays(score: int, features: KernelFeatures) -> str:
    return (
        f"oom_score_adj {score} is restored as {features.oom_score_adj}: lowering it needs CAP_SYS_RESOURCE"
    )


def _write(tid: int, name: str, value: int) -> Iterator[Step]:
    file = Ref(name, tid)
    content = str(value).encode()
    opened = path(b"/proc/self/" + name.encode())
    yield Step(tid, Stage.LAYOUT, "openat", (_AT_FDCWD, opened, os.O_WRONLY | os.O_CLOEXEC, 0), gives=file)
    # EPERM: a login uid that is set may not be changed
    refused = frozenset({errno.EPERM}) if name == "loginuid" else frozenset[int]()
    yield Step(
        tid,
        Stage.LAYOUT,
        "write",
        (file, data(content, f'"{value}"'), len(content)),
        tolerate=refused,
        about=name,
    )
    yield Step(tid, Stage.LAYOUT, "close", (file,))
