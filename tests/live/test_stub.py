"""Stub trees: made with the pids that are wanted, and gone without a trace unless released."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from harness.observe import inside

from criupy.errors import PidInUse, RestoreError, TraceeError
from criupy.model.plan import (
    CLONE_NEWPID,
    CLONE_PARENT,
    NURSERY,
    SIGCHLD,
    Ref,
    Stage,
    Step,
    StubPlan,
    clone_args,
)
from criupy.restoring.runner import Answers, run_queues
from criupy.tracee.batch import SyscallBatch
from criupy.tracee.stub import StubProcess, StubTree, table_space

BASE = 0x200000000
TASK = Ref("task", 0)
CLONE_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000  # VM FS FILES SIGHAND THREAD SYSVSEM


def free_pids(count: int) -> list[int]:
    """Numbers that nobody has now, well away from those that the kernel gives next."""
    found = [pid for pid in range(20000, 32000) if not os.path.exists(f"/proc/{pid}")]
    return found[:count]


def stub_tree(files: Sequence[int] = (), threads: int = 1) -> StubTree:
    return StubTree(
        StubPlan(BASE, nursery_fd=50), files, table_space(threads, 0), suspend_seccomp=bool(files)
    )


def born(tree: StubTree, pid: int, maker: int = NURSERY) -> StubProcess:
    """A process of ``maker``'s with that pid; the nursery is made if it is not there."""
    if NURSERY not in tree.processes:
        tree.create_nursery([pid])
    flags, signal = (CLONE_PARENT, 0) if maker == NURSERY else (0, SIGCHLD)
    leader = tree.processes[maker].leader
    answers = Answers()
    step = Step(maker, Stage.TREE, "clone3", clone_args(flags, pid, signal), gives=TASK, expect=pid)
    run_queues([(leader, [step])], answers)
    return tree.welcome(pid, tree.processes[maker])


def init(tree: StubTree) -> StubProcess:
    """The init of a pid namespace."""
    nursery = tree.create_nursery([])
    step = Step(NURSERY, Stage.TREE, "clone3", clone_args(CLONE_PARENT | CLONE_NEWPID, 1), gives=TASK)
    run_queues([(nursery.leader, [step])], Answers())
    return tree.welcome(1, nursery)


def one(call: str, *args) -> SyscallBatch:
    batch = SyscallBatch()
    batch.call(call, *args)
    return batch


def test_a_tree_and_threads_have_their_numbers_and_only_the_descriptor_of_the_nursery():
    pids = free_pids(22)
    with open("/dev/null", "rb") as null, stub_tree([null.fileno()], 20) as tree:
        root = born(tree, pids[0])
        child = born(tree, pids[20], pids[0])
        grandchild = born(tree, pids[21], pids[20])
        root.create_threads(pids[1:20])
        assert list(root.threads) == pids[:20]
        assert [thread.run(one("gettid")).answers[0] for thread in root.threads.values()] == pids[:20]
        parents = [process.leader.run(one("getppid")).answers[0] for process in (root, child, grandchild)]
        assert parents == [os.getpid(), pids[0], pids[20]]
        assert os.listdir(f"/proc/{tree.processes[NURSERY].pid}/fd") == ["0"]
        assert os.readlink(f"/proc/{tree.processes[NURSERY].pid}/fd/0") == "/dev/null"
        for process in (root, child, grandchild):
            assert os.listdir(f"/proc/{process.pid}/fd") == ["50"]
            assert process.leader.run(one("pidfd_getfd", 50, 0, 0)).answers[0] == 0
        affinities = {tid: os.sched_getaffinity(tid) for tid in pids[:20]}
        assert set(map(frozenset, affinities.values())) == {frozenset(os.sched_getaffinity(0))}
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_tree_in_a_pid_namespace_has_the_numbers_inside():
    with open("/dev/null", "rb") as null, stub_tree([null.fileno()], 3) as tree:
        root = init(tree)
        child = born(tree, 300, 1)
        child.create_threads([77, 2])
        assert list(child.threads) == [300, 77, 2]
        assert [thread.run(one("gettid")).answers[0] for thread in child.threads.values()] == [300, 77, 2]
        assert child.leader.run(one("getppid")).answers[0] == 1
        assert root.leader.run(one("getppid")).answers[0] == 0
        assert os.listdir(f"/proc/{tree.processes[NURSERY].pid}/fd") == ["0"]
        for process in (root, child):
            assert process.pid > 1
            assert inside(process.pid)["NSpid"] == (1 if process is root else 300)
            assert os.listdir(f"/proc/{process.pid}/fd") == ["50"]
            assert process.leader.run(one("pidfd_getfd", 50, 0, 0)).answers[0] == 0
        with child.extra_thread() as second:
            assert second.run(one("getpid")).answers[0] == 300
        assert list(child.threads) == [300, 77, 2]
        pids = [process.pid for process in (root, child)]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize("maker", [NURSERY, 1])
def test_what_was_made_and_not_taken_on_goes_too(maker):
    """Processes and threads of a batch that stopped in the middle; an init would wait for them for ever."""
    with stub_tree() as tree:
        leader = tree.create_nursery([]).leader if maker == NURSERY else init(tree).leader
        batch = SyscallBatch()
        for flags in (0, CLONE_THREAD):
            content = struct.pack("<11Q", flags, 0, 0, 0, 0 if flags else SIGCHLD, 0, 0, 0, 0, 0, 0)
            batch.call("clone3", batch.data(content), len(content))
        batch.call("close", 55)
        with pytest.raises(TraceeError):
            leader.run(batch).check()
        made = [leader.pid, *leader.born]
        assert len(made) == 3
    assert not any(os.path.exists(f"/proc/{pid}") for pid in made)


def test_an_init_of_many_threads_goes_too():
    """Whichever of them ends last waits until all others are reaped."""
    with stub_tree(threads=32) as tree:
        root = init(tree)
        root.create_threads(list(range(2, 34)))
        born(tree, 100, 1).create_threads([101])
        pid = root.pid
    assert not os.path.exists(f"/proc/{pid}")


def test_an_extra_thread_works_and_goes():
    (pid,) = free_pids(1)
    with stub_tree() as tree:
        root = born(tree, pid)
        with root.extra_thread() as second:
            assert second.run(one("getpid")).answers[0] == pid
        assert os.listdir(f"/proc/{pid}/task") == [str(pid)]


def test_a_failing_batch_stops_and_the_thread_goes_on():
    (pid,) = free_pids(1)
    with stub_tree() as tree:
        root = born(tree, pid).leader
        batch = SyscallBatch()
        batch.call("close", 55)
        batch.call("getpid")
        with pytest.raises(TraceeError, match=r"close\(55\): Bad file descriptor"):
            root.run(batch).check()
        assert root.run(one("getpid")).answers[0] == pid


def test_a_number_in_use_is_said_and_nothing_is_left():
    holder = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        with stub_tree() as tree, pytest.raises(PidInUse, match=str(holder.pid)):
            born(tree, holder.pid)
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()


def test_the_nursery_takes_no_number_that_is_needed():
    with stub_tree() as tree:
        first = tree.create_nursery([]).pid
    needed = set(range(first, first + 8))
    with stub_tree() as tree:
        assert tree.create_nursery(needed).pid not in needed


def test_a_dead_child_is_for_its_parent_to_wait_for():
    pids = free_pids(2)
    with stub_tree() as tree:
        root = born(tree, pids[0]).leader
        child = born(tree, pids[1], pids[0])
        child.leader.start(one("exit_group", 7))
        child.leader.await_end()
        tree.bury(pids[1])
        batch = SyscallBatch()
        status = batch.out(4)
        batch.call("wait4", pids[1], status, 0, 0)
        results = root.run(batch).check()
        assert results.answers[0] == pids[1]
        assert results.bytes(status) == b"\0\7\0\0"


def test_a_crash_of_the_stub_is_an_error_and_ends_the_tree():
    pids = free_pids(2)
    with stub_tree() as tree:
        root = born(tree, pids[0]).leader
        born(tree, pids[1], pids[0])
        with pytest.raises(TraceeError, match="SIGSEGV"):
            root.run(one("munmap", root.table, 4096))
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_arguments_that_do_not_fit_are_refused():
    with stub_tree() as tree:
        root = born(tree, free_pids(1)[0]).leader
        batch = SyscallBatch()
        batch.call("write", 1, batch.data(bytes(root.capacity)), root.capacity)
        with pytest.raises(RestoreError, match="at most"):
            root.start(batch)


KILLED = """
import sys, os, signal
sys.path[:0] = [os.path.dirname({here!r}), os.path.dirname(os.path.dirname({here!r}))]
from test_stub import *
with stub_tree(threads=2) as tree:
    root = born(tree, {pid})
    root.create_threads([{pid} + 1])
    born(tree, {pid} + 2, {pid})
    print("made", flush=True)
    signal.pause()
"""


def test_the_tree_dies_with_criupy():
    (pid,) = (pids := free_pids(3))[:1]
    assert pids == [pid, pid + 1, pid + 2], "they follow each other"
    script = KILLED.format(here=__file__, pid=pid)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"made\n"
        assert os.path.exists(f"/proc/{pid}")
        maker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (_alive(pid) or _alive(pid + 2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)
    assert not _alive(pid + 2)
    for orphan in (pid, pid + 2):
        with contextlib.suppress(ChildProcessError):  # not ours without a subreaper
            os.waitpid(orphan, 0)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False
