"""How a thread is scheduled: policy, priorities, CPUs, and the priority of its disk requests."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, Obstacle
from criupy.linux import syscalls
from criupy.linux.capability import CAP_SYS_NICE
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Stage, Step, data
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.linux.features import KernelFeatures
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE, SCHED_EXT = 0, 1, 2, 3, 5, 6, 7
RESET_ON_FORK = 0x40000000
"""SCHED_RESET_ON_FORK, an extra bit of a policy.  Source: Linux include/uapi/linux/sched.h."""
_REALTIME = (SCHED_FIFO, SCHED_RR)
_POLICIES = {
    SCHED_OTHER: "OTHER",
    SCHED_FIFO: "FIFO",
    SCHED_RR: "RR",
    SCHED_BATCH: "BATCH",
    SCHED_IDLE: "IDLE",
    SCHED_EXT: "EXT",
}
_IOPRIO_WHO_PROCESS = 1


class SchedFacts(NamedTuple):
    """``policy`` with `RESET_ON_FORK`, ``priority`` of a realtime policy, ``io_priority`` as ioprio_get(2) has it.

    ``status`` is the thread's, for its CPUs; ``online`` is their number.
    """

    policy: int
    nice: int
    priority: int
    io_priority: int
    status: bytes
    online: int


class Sched(Dumpable):
    """Image: ``thread_core.sched_*``; own fields ``cpu_affinity`` (only if restricted) and ``io_priority``."""

    name = "scheduling"
    per_thread = True
    outlives = True

    def obstacles(self, pid: int, features: KernelFeatures) -> Iterator[Obstacle]:
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                if os.sched_getscheduler(int(tid)) & ~RESET_ON_FORK == SCHED_DEADLINE:
                    with open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:
                        comm = file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
                    what = f"scheduling of thread {tid}"
                    yield Obstacle(
                        pid, comm, what, "SCHED_DEADLINE cannot be dumped", "use chrt to change it first"
                    )
        except OSError:
            return  # gone meanwhile: the dump itself will say so

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        tid = subject.tid
        policy = os.sched_getscheduler(tid)
        priority = os.sched_getparam(tid).sched_priority if policy else 0
        nice = os.getpriority(os.PRIO_PROCESS, tid)
        io_priority = syscalls.ioprio_get(tid)
        status = subject.read("status")
        online = subject.features.cpus
        return lambda _: SchedFacts(policy, nice, priority, io_priority, status, online)

    def encode(self, facts: SchedFacts, core: core_entry, sink: DumpSink) -> None:
        thread = core.thread_core
        thread.sched_nice, thread.sched_policy = facts.nice, facts.policy
        if facts.policy & ~RESET_ON_FORK in _REALTIME:
            thread.sched_prio = facts.priority
        if facts.io_priority:
            thread.io_priority = facts.io_priority
        cpus = procfs.cpus(facts.status)
        if (1 << facts.online) - 1 & ~cpus:
            thread.cpu_affinity = cpus.to_bytes((cpus.bit_length() + 7) // 8, "little")

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        thread, tid = core.thread_core, subject.tid
        policy, nice, priority = _checked(core, tid)
        refused = frozenset[int]()
        if not subject.features.has_capability(CAP_SYS_NICE):
            refused = frozenset({errno.EPERM, errno.EACCES})
            if policy & ~RESET_ON_FORK in _REALTIME or nice < 0:
                subject.warn(f"thread {tid}: its priority needs CAP_SYS_NICE and may stay as it is")
        if (policy, nice, priority) != subject.features.scheduling:
            yield Step(tid, Stage.ATTRIBUTES, "setpriority", (os.PRIO_PROCESS, 0, nice), tolerate=refused)
            parameter = data(struct.pack("<i", priority), f"{{{priority}}}")
            about = f"SCHED_{_POLICIES[policy & ~RESET_ON_FORK]}"
            arguments = (0, policy, parameter)
            yield Step(tid, Stage.ATTRIBUTES, "sched_setscheduler", arguments, tolerate=refused, about=about)
        if thread.cpu_affinity:
            mask = thread.cpu_affinity.ljust(-(-len(thread.cpu_affinity) // 8) * 8, b"\0")
            cpus = f"{{{int.from_bytes(mask, 'little'):#x}}}"
            # EINVAL: this machine has none of these CPUs
            none = frozenset({errno.EINVAL})
            yield Step(
                tid, Stage.ATTRIBUTES, "sched_setaffinity", (0, len(mask), data(mask, cpus)), tolerate=none
            )
        if thread.HasField("io_priority"):
            yield Step(
                tid,
                Stage.ATTRIBUTES,
                "ioprio_set",
                (_IOPRIO_WHO_PROCESS, 0, thread.io_priority),
                tolerate=refused,
            )


def _checked(core: core_entry, tid: int) -> tuple[int, int, int]:
    """Policy (with `RESET_ON_FORK`), nice and realtime priority; ImageError outside of what the kernel knows."""
    thread, file = core.thread_core, f"core-{tid}.img"
    policy = thread.sched_policy & ~RESET_ON_FORK
    if policy not in _POLICIES:
        raise ImageError(file, f"scheduling policy {policy} cannot be restored")
    if not -20 <= thread.sched_nice <= 19:
        raise ImageError(file, f"nice value {thread.sched_nice}")
    if not (1 <= thread.sched_prio <= 99 if policy in _REALTIME else thread.sched_prio == 0):
        raise ImageError(file, f"priority {thread.sched_prio} with SCHED_{_POLICIES[policy]}")
    return thread.sched_policy, thread.sched_nice, thread.sched_prio
