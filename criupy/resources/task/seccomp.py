"""Seccomp: strict mode and chains of filters."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, NotDumpable, Obstacle
from criupy.linux.capability import CAP_SYS_ADMIN
from criupy.linux.prctl import PR_SET_NO_NEW_PRIVS
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Data, Stage, Step, data
from criupy.resources.kind import SeccompLeader
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry, seccomp_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

DISABLED, STRICT, FILTER = 0, 1, 2
SET_MODE_STRICT, SET_MODE_FILTER = 0, 1
FLAG_TSYNC = 1
"""SECCOMP_FILTER_FLAG_TSYNC: install in all threads.  Source: Linux include/uapi/linux/seccomp.h."""
INSTRUCTION_SIZE = 8
_INSTRUCTION = struct.Struct("<HHI")
"""struct sock_filter: code, two jump offsets, value.  Source: Linux include/uapi/linux/filter.h."""
_BPF_RETURN, _ACTION, _USER_NOTIF = 0x06, 0xFFFF0000, 0x7FC00000
_MOST_INSTRUCTIONS = 4096

Chain = tuple[tuple[bytes, int], ...]
"""Filters (struct sock_filter[]) and their SECCOMP_FILTER_FLAG_*, the oldest first."""


class SeccompFacts(NamedTuple):
    """``mode`` as in /proc/PID/status; ``chain`` is empty except in mode `FILTER`."""

    mode: int
    chain: Chain
    is_leader: bool


class Seccomp(Dumpable):
    """Image: ``thread_core.seccomp_mode`` and ``seccomp_filter``, filters in seccomp.img.

    Threads that share a chain with their leader would have to install the same kernel objects, or a later TSYNC
    fails: so if all have the leader's, the leader installs it for all.  Leaders are encoded before their threads.
    """

    name = "seccomp"
    per_thread = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        mode = procfs.seccomp_mode(subject.read("status"))
        chain = tuple(subject.thread.seccomp_filters()) if mode == FILTER else ()
        if any(_asks_a_supervisor(program) for program, _ in chain):
            name = procfs.comm(subject.read("status")).decode("utf-8", "backslashreplace")
            why = "it asks a supervisor (SECCOMP_RET_USER_NOTIF), whose connection to it cannot be dumped"
            raise NotDumpable([Obstacle(subject.tid, name, "a seccomp filter", why)])
        leader = subject.is_first
        return lambda _: SeccompFacts(mode, chain, leader)

    def encode(self, facts: SeccompFacts, core: core_entry, sink: DumpSink) -> None:
        if facts.is_leader:
            _encode(facts, core, sink, FLAG_TSYNC)
            first = len(sink.seccomp_filters) - len(facts.chain)
            sink.seccomp_leader = SeccompLeader(facts.chain, first, [] if facts.chain else None)
            return
        leader = sink.seccomp_leader
        if leader is not None and leader.followers is not None:
            if facts.chain == leader.chain:
                leader.followers.append(core)
                return
            _part(leader, sink)
        _encode(facts, core, sink)

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        thread, tid = core.thread_core, subject.tid
        if thread.seccomp_mode == DISABLED:
            return
        if thread.creds.no_new_privs and not subject.features.has_capability(CAP_SYS_ADMIN):
            yield Step(tid, Stage.SECCOMP, "prctl", (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        if thread.seccomp_mode == STRICT:
            yield Step(tid, Stage.SECCOMP, "seccomp", (SET_MODE_STRICT, 0, 0))
            return
        for program, flags in _chain(subject.snapshot.seccomp, thread.seccomp_filter, f"core-{tid}.img"):
            count = len(program) // INSTRUCTION_SIZE
            filters = data(program)
            fprog = Data((struct.pack("<H6x", count), filters), text=f"&[{count} instructions]")
            yield Step(tid, Stage.SECCOMP, "seccomp", (SET_MODE_FILTER, flags, fprog), expect=0)


def _asks_a_supervisor(program: bytes) -> bool:
    return any(
        code == _BPF_RETURN and value & _ACTION == _USER_NOTIF
        for code, _, value in _INSTRUCTION.iter_unpack(program)
    )


def _part(leader: SeccompLeader, sink: DumpSink) -> None:
    """A thread has another chain: everyone gets their own after all."""
    last = leader.first + len(leader.chain)
    sink.seccomp_filters[leader.first : last] = [
        (program, flags & ~FLAG_TSYNC, newer)
        for program, flags, newer in sink.seccomp_filters[leader.first : last]
    ]
    for core in leader.followers or ():
        _encode(SeccompFacts(FILTER, leader.chain, is_leader=False), core, sink)
    leader.followers = None


def _encode(facts: SeccompFacts, core: core_entry, sink: DumpSink, extra_flags: int = 0) -> None:
    if facts.mode != DISABLED:
        from criupy.images.pb.core_pb2 import filter as mode_filter
        from criupy.images.pb.core_pb2 import strict as mode_strict

        core.thread_core.seccomp_mode = mode_strict if facts.mode == STRICT else mode_filter
    newer = None
    for program, flags in reversed(facts.chain):
        sink.seccomp_filters.append((program, flags | extra_flags, newer))
        newer = len(sink.seccomp_filters) - 1
    if newer is not None:
        core.thread_core.seccomp_filter = newer


def _chain(image: seccomp_entry, index: int | None, file: str) -> Iterator[tuple[bytes, int]]:
    """The filters from ``index`` to the newest; ImageError if that leads nowhere."""
    seen = set[int]()
    while index is not None:
        if index >= len(image.seccomp_filters) or index in seen:
            raise ImageError(file, f"seccomp filter {index} is not in seccomp.img, or leads back to itself")
        seen.add(index)
        entry = image.seccomp_filters[index]
        count, rest = divmod(len(entry.filter), INSTRUCTION_SIZE)
        if rest or not 0 < count <= _MOST_INSTRUCTIONS:
            raise ImageError("seccomp.img", f"filter {index} has {len(entry.filter)} bytes")
        yield entry.filter, entry.flags
        index = entry.prev if entry.HasField("prev") else None
