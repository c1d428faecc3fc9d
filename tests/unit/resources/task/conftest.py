"""Subjects to collect from and to plan for, without a kernel."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from criupy.images.pb.core_pb2 import core_entry, pstree_entry, seccomp_entry
from criupy.images.pb.memory_pb2 import mm_entry
from criupy.linux.features import KernelFeatures
from criupy.model.plan import StubPlan, order
from criupy.model.snapshot import TaskImages
from criupy.resources.kind import DumpSink, PlanSubject
from criupy.tracee.batch import RECORD, SyscallBatch

STATUS = b"""\
Name:\tod) (d\\n\\\\x
Umask:\t0022
State:\tS (sleeping)
Tgid:\t9580
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103
FDSize:\t256
Groups:\t7 20 1000\x20
NStgid:\t9580
SigQ:\t9/96365
SigPnd:\t0000008000000000
ShdPnd:\t0000010000004000
SigBlk:\t0000018000000200
SigIgn:\t0000000002003000
SigCgt:\t8000000300000001
CapInh:\t0000000000000400
CapPrm:\t000001fffeffffff
CapEff:\t000001fffeffffdf
CapBnd:\t000001fffeffffff
CapAmb:\t0000000000000400
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
Speculation_Store_Bypass:\tvulnerable
Cpus_allowed:\t1,00000002
Cpus_allowed_list:\t1,32
"""


class Kernel:
    """Answers a batch as a test says: results by call, memory in the order of the requests for it."""

    def __init__(self) -> None:
        self.batch = SyscallBatch()

    def answer(self, *memory: bytes, results: dict[int, int] | None = None):
        table = bytearray(self.batch.encode(0))
        for index in range(len(self.batch.calls)):
            answer = (results or {}).get(index, 0)
            table[index * RECORD.size + 56 : (index + 1) * RECORD.size] = answer.to_bytes(
                8, "little", signed=True
            )
        outs = [offset for offset, content, _ in self.batch.memory if content is None]
        for offset, content in zip(outs, memory, strict=True):
            at = self.batch.records_size + offset
            table[at : at + len(content)] = content
        return self.batch.decode(table, tid=1)

    @property
    def calls(self) -> list[str]:
        return [str(call) for call in self.batch.calls]


class Frozen:
    """A subject of a dump; ``files`` by name below /proc/PID."""

    def __init__(self, tid: int = 9580, **files: bytes) -> None:
        self.pid = 9580
        self.tid = tid
        self.is_leader = self.is_first = tid == self.pid
        self.files = {"status": STATUS, **files}
        self.process = SimpleNamespace(stopped_by=None)
        self.thread = SimpleNamespace(tid=tid)
        self.features = KernelFeatures(capabilities=0, pagemap_scan=True)

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]


@pytest.fixture
def status():
    return STATUS


@pytest.fixture
def kernel():
    return Kernel()


@pytest.fixture
def frozen():
    return Frozen


@pytest.fixture
def sink():
    return DumpSink(files=None)


FULL = (1 << 41) - 1


class Planning:
    """Plans of one task with some threads; `lines` prints what a kind wants, in order."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.features = KernelFeatures(capabilities=FULL, pagemap_scan=True)
        self.seccomp = seccomp_entry()
        self.mm = mm_entry()
        self.cores: dict[int, core_entry] = {}

    def core(self, tid: int = 7) -> core_entry:
        return self.cores.setdefault(tid, core_entry(mtype=core_entry.X86_64))

    def subject(self, tid: int = 7, *, parent: int = 1) -> PlanSubject:
        tree = pstree_entry(pid=7, ppid=parent, pgid=7, sid=7, threads=list(self.cores))
        task = TaskImages(7, tree, self.core(7), mm=self.mm, threads=self.cores)
        snapshot = SimpleNamespace(seccomp=self.seccomp)
        return PlanSubject(tid, task, snapshot, self.features, self.warnings.append, StubPlan(0))

    def lines(self, kind, tid: int = 7, *, parent: int = 1) -> list[str]:
        steps = kind.plan(self.core(tid), self.subject(tid, parent=parent))
        return [f"{step.stage.name} {step.tid} {step}" for step in order(steps)]


@pytest.fixture
def planning():
    return Planning()
