"""Stub trees: made with the pids that are wanted, and gone without a trace unless released."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from criupy.errors import PidInUse, RestoreError, TraceeError
from criupy.model.plan import TaskPlan, ThreadState
from criupy.tracee.batch import SyscallBatch
from criupy.tracee.stub import StubTree

BASE = 0x200000000


def free_pids(count: int) -> list[int]:
    """Numbers that nobody has now, well away from those that the kernel gives next."""
    found = [pid for pid in range(20000, 32000) if not os.path.exists(f"/proc/{pid}")]
    return found[:count]


def plan_of(pids: list[int]) -> TaskPlan:
    threads = tuple(ThreadState(pid, (0,) * 27, b"", 0) for pid in pids)
    return TaskPlan(pid=pids[0], ppid=0, pgid=pids[0], sid=pids[0], threads=threads, stub_base=BASE)


def one(call: str, *args) -> SyscallBatch:
    batch = SyscallBatch()
    batch.call(call, *args)
    return batch


def test_root_and_threads_have_their_numbers_and_only_the_given_descriptors():
    pids = free_pids(20)
    with (
        open("/dev/null", "rb") as null,
        StubTree(plan_of(pids), {77: null.fileno()}, suspend_seccomp=True) as tree,
    ):
        root = tree.create_root()
        tree.create_threads()
        assert list(tree.threads) == pids
        assert [thread.run(one("gettid")).answers[0] for thread in tree.threads.values()] == pids
        assert root.run(one("getppid")).answers[0] == os.getpid()
        assert root.run(one("getsid", 0)).answers[0] == pids[0]
        assert os.listdir(f"/proc/{pids[0]}/fd") == ["77"]
        affinities = {tid: os.sched_getaffinity(tid) for tid in pids}
        assert set(map(frozenset, affinities.values())) == {frozenset(os.sched_getaffinity(0))}
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_an_extra_thread_works_and_goes():
    pids = free_pids(1)
    with StubTree(plan_of(pids), {}, suspend_seccomp=False) as tree:
        tree.create_root()
        with tree.extra_thread() as second:
            assert second.run(one("getpid")).answers[0] == pids[0]
        assert os.listdir(f"/proc/{pids[0]}/task") == [str(pids[0])]


def test_a_failing_batch_stops_and_the_thread_goes_on():
    pids = free_pids(1)
    with StubTree(plan_of(pids), {}, suspend_seccomp=False) as tree:
        root = tree.create_root()
        batch = SyscallBatch()
        batch.call("close", 55)
        batch.call("getpid")
        with pytest.raises(TraceeError, match=r"close\(55\): Bad file descriptor"):
            root.run(batch).check()
        assert root.run(one("getpid")).answers[0] == pids[0]


def test_a_number_in_use_is_said_and_nothing_is_left():
    holder = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        tree = StubTree(plan_of([holder.pid]), {}, suspend_seccomp=False)
        with tree, pytest.raises(PidInUse, match=str(holder.pid)):
            tree.create_root()
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()


def test_a_crash_of_the_stub_is_an_error_and_ends_the_tree():
    pids = free_pids(1)
    with StubTree(plan_of(pids), {}, suspend_seccomp=False) as tree:
        root = tree.create_root()
        with pytest.raises(TraceeError, match="SIGSEGV"):
            root.run(one("munmap", root.table, 4096))
    assert not os.path.exists(f"/proc/{pids[0]}")


def test_arguments_that_do_not_fit_are_refused():
    with StubTree(plan_of(free_pids(1)), {}, suspend_seccomp=False) as tree:
        root = tree.create_root()
        batch = SyscallBatch()
        batch.call("write", 1, batch.data(bytes(root.capacity)), root.capacity)
        with pytest.raises(RestoreError, match="at most"):
            root.start(batch)


KILLED = """
import sys, os, signal
sys.path.insert(0, os.path.dirname({here!r}))
from test_stub import *
with StubTree(plan_of([{pid}, {pid} + 1]), {{}}, suspend_seccomp=False) as tree:
    tree.create_root()
    tree.create_threads()
    print("made", flush=True)
    signal.pause()
"""


def test_the_tree_dies_with_criupy():
    pid = next(pid for pid in free_pids(100) if not os.path.exists(f"/proc/{pid + 1}"))
    script = KILLED.format(here=__file__, pid=pid)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"made\n"
        assert os.path.exists(f"/proc/{pid}")
        maker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False
