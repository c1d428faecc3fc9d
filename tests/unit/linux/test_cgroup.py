"""Cgroups with a freezer: directories that look like them, and what /proc says of them."""

from __future__ import annotations

import os
import threading

import pytest

from criupy.errors import UsageError
from criupy.linux import family
from criupy.linux.cgroup import V1, V2, Cgroup, Freezer, cgroups_of
from criupy.linux.procfs import mountinfo

BOTH = pytest.mark.parametrize("freezer", [V1, V2], ids=["v1", "v2"])


def make(path, freezer: Freezer, *, own="0", state="", threads="") -> Cgroup:
    """A directory with files as the kernel shows them."""
    path.mkdir()
    contents = {freezer.threads: threads, freezer.own: f"{own}\n", freezer.state: state}
    for name, content in {freezer.control: "", **contents}.items():
        (path / name).write_text(content)
    return Cgroup.at(str(path))


@BOTH
def test_a_cgroup_is_known_by_its_files(tmp_path, freezer):
    made = make(tmp_path / "one", freezer)
    assert made == Cgroup(str(tmp_path / "one"), freezer)
    os.symlink(tmp_path / "one", tmp_path / "link")
    assert Cgroup.at(str(tmp_path / "link")) == made


@pytest.mark.parametrize(
    ("path", "what"), [("", "is not a directory"), ("none", "is not a directory"), (".", "has neither")]
)
def test_no_cgroup(tmp_path, path, what):
    with pytest.raises(UsageError, match=what) as caught:
        Cgroup.at(path and str(tmp_path / path))
    assert "/proc/PID/cgroup" in caught.value.hint


@pytest.mark.parametrize(
    ("freezer", "state", "frozen"),
    [
        (V1, "THAWED\n", False),
        (V1, "FREEZING\n", False),
        (V1, "FROZEN\n", True),
        (V2, "populated 1\nfrozen 0\n", False),
        (V2, "populated 0\nfrozen 1\n", True),
        (V2, "", False),
    ],
)
def test_states(tmp_path, freezer, state, frozen):
    assert make(tmp_path / "one", freezer, state=state).is_frozen() == frozen


@BOTH
def test_orders(tmp_path, freezer):
    cgroup = make(tmp_path / "one", freezer)
    cgroup.freeze()
    assert (tmp_path / "one" / freezer.control).read_bytes() == freezer.freeze
    cgroup.thaw()
    assert (tmp_path / "one" / freezer.control).read_bytes() == freezer.thaw
    assert not make(tmp_path / "two", freezer, own="0").was_ordered()
    assert make(tmp_path / "three", freezer, own="1").was_ordered()


@BOTH
def test_above_and_below(tmp_path, freezer):
    paths = [tmp_path / "one", tmp_path / "one" / "two", tmp_path / "one" / "two" / "three"]
    one, two, three = (make(path, freezer, threads=f"{number}\n0\n") for number, path in enumerate(paths, 7))
    assert list(three.above()) == [two, one]
    assert one.subtree() == [one, two, three]
    assert (one.tids(), two.tids(), three.tids()) == ({7, 8, 9}, {8, 9}, {9})


@BOTH
def test_gone(tmp_path, freezer):
    cgroup = Cgroup(str(tmp_path / "gone"), freezer)
    cgroup.freeze()
    cgroup.thaw()
    assert not cgroup.is_frozen()
    assert not cgroup.was_ordered()
    assert cgroup.tids() == set()


def test_a_refused_order_is_an_error(tmp_path):
    cgroup = make(tmp_path / "one", V1)
    (tmp_path / "one" / V1.control).unlink()
    (tmp_path / "one" / V1.control).mkdir()
    with pytest.raises(IsADirectoryError):
        cgroup.freeze()


def test_others_are_processes_with_their_threads(tmp_path):
    own = os.getpid()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        cgroup = make(tmp_path / "one", V2, threads=f"{thread.native_id}\n{own}\n{1 << 30}\n")
        (found,) = cgroup.others([], {1 << 30})
        assert (found.pid, found.ppid) == (own, os.getppid())
        assert {own, thread.native_id} <= found.tids
        assert cgroup.others([], {os.getppid()}) == []
        assert cgroup.others(family.walk(own), ()) == []
    finally:
        done.set()
        thread.join()


def test_descent():
    assert family.descends(os.getpid(), {os.getpid()})
    assert family.descends(os.getpid(), {os.getppid()})
    assert not family.descends(os.getpid(), {1 << 30})
    assert not family.descends(1 << 30, {os.getpid()})


MOUNTS = mountinfo.parse(
    rb"""31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 / /sys/fs/cgroup/the\040freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 /user /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"6:freezer:/a/b\n5:devices:/c\n", [("/sys/fs/cgroup/the freezer/a/b", V1)]),
        (
            b"6:cpu,freezer:/a:b\n0::/user/x\n",
            [("/sys/fs/cgroup/the freezer/a:b", V1), ("/sys/fs/cgroup/unified/x", V2)],
        ),
        (b"0::/user\n", []),
        (b"0::/username/x\n", []),
        (b"0::/elsewhere\n", []),
        (b"1:name=freezer:/a\n", []),
        (b"6:freezer:/\n", [("/sys/fs/cgroup/the freezer/", V1)]),
        (b"", []),
    ],
)
def test_cgroups_of_a_task(text, found):
    assert cgroups_of(text, MOUNTS) == [Cgroup(path, freezer) for path, freezer in found]
