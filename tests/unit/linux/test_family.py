"""Who descends from whom, looked up in the family of this very process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from criupy.linux import family


@contextmanager
def children() -> Iterator[tuple[int, int]]:
    """A child of ours, and a child of its own; both wait."""
    told, tell = os.pipe()
    held, hold = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold)
        grandchild = os.fork()
        if grandchild:
            os.write(tell, b"%d" % grandchild)
        os.read(held, 1)
        if grandchild:
            os.waitpid(grandchild, 0)
        os._exit(0)
    os.close(held)
    try:
        yield child, int(os.read(told, 16))
    finally:
        os.close(hold)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)


def test_a_walk_has_parents_first() -> None:
    own = os.getpid()
    with children() as (child, grandchild):
        members = {member.pid: member for member in family.walk(own)}
        order = list(members)
        assert order[0] == own
        assert order.index(child) < order.index(grandchild)
        assert (members[child].ppid, members[grandchild].ppid) == (own, child)
        assert members[grandchild].tids == {grandchild}
        assert grandchild not in {member.pid for member in family.walk(own, [child])}
        assert [member.pid for member in family.walk(child)] == [child, grandchild]
        kin = family.kin([own, child])
        assert kin.pids == {own, child}
        assert os.getpgid(0) in kin.groups


def test_many_threads_are_not_asked_one_by_one() -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(100)]
    for thread in threads:
        thread.start()
    try:
        with children() as (child, grandchild):
            found = family.walk(os.getpid())
            assert {child, grandchild} <= {member.pid for member in found}
            assert len(found[0].tids) > 100
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_who_is_gone_has_no_family() -> None:
    assert family.walk(1 << 30) == []
    assert family.kin([1 << 30]) == (frozenset(), frozenset())


def test_who_speaks_for_a_process_without_its_main_thread() -> None:
    """This very program, started again: its main thread ends, another goes on."""
    script = """
import ctypes, os, threading
def live():
    print(threading.get_native_id(), flush=True)
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=live).start()
ctypes.CDLL(None).syscall(60, 0)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        other = int(child.stdout.readline())
        deadline = time.monotonic() + 30
        while family.speaker(child.pid) == child.pid and time.monotonic() < deadline:
            time.sleep(0.001)
        assert family.speaker(child.pid) == other
        assert not family.is_ending(child.pid)
        assert family.is_ending_thread(child.pid, child.pid)
        assert os.path.exists(f"/proc/{other}/exe")
        child.kill()
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is not None
        assert family.speaker(child.pid) == child.pid
        assert family.is_ending(child.pid)
    assert family.is_ending(child.pid)
    assert family.speaker(os.getpid()) == os.getpid()
