"""Numbers in a pid namespace: read from /proc, put into images, and the rules of who may have one."""

from __future__ import annotations

import os

import pytest

from criupy.errors import ImageError, NotDumpable
from criupy.images.pb import core_pb2, inventory_pb2
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs.task import NsNumbers, ns_numbers
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.planner import plan
from criupy.resources.namespaces import pidns
from criupy.resources.pidnumbers import PidNumbers, has_other_numbers, own_number

OUTSIDE, OWN = 1, 9
FEATURES = KernelFeatures(capabilities=-1, pagemap_scan=True)


def status(process: str, thread: str, group: str, session: str, name: str = "init") -> bytes:
    lines = f"NStgid:\t{process}\nNSpid:\t{thread}\nNSpgid:\t{group}\nNSsid:\t{session}\n"
    return f"Name:\t{name}\nUmask:\t0022\n{lines}Kthread:\t0\n".encode()


def test_the_numbers_of_a_status() -> None:
    found = ns_numbers(status("100\t7", "101\t8", "90\t5", "80\t0"))
    assert found == NsNumbers((100, 7), (101, 8), (90, 5), (80, 0))
    with pytest.raises(ValueError, match="not a status file"):
        ns_numbers(b"Name:\tx\nNStgid:\t1\n")


def test_a_tree_without_a_namespace_keeps_its_numbers() -> None:
    numbers = PidNumbers()
    assert not numbers.differ
    assert [numbers.inside(number) for number in (0, 1, 4711)] == [0, 1, 4711]


def test_what_numbers_are_inside() -> None:
    numbers = pidns.numbers(
        [status("50\t1", "50\t1", "50\t1", "50\t1"), status("60\t9", "61\t10", "70\t8", "80\t7")]
    )
    assert numbers.differ
    assert {number: numbers.inside(number) for number in (0, 50, 60, 61, 70, 80, 99)} == {
        0: 0, 50: 1, 60: 9, 61: 10, 70: 8, 80: 7, 99: 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        status("60\t9\t1", "60\t9\t1", "60\t9\t1", "60\t9\t1", "deeper"),
        status("60", "60", "60", "60", "outside"),
        status("60\t9", "60\t9", "50\t1", "40\t0", "of a foreign session"),
    ],
)
def test_who_moved_after_the_first_look_is_refused(other: bytes) -> None:
    with pytest.raises(NotDumpable, match=r"task 60 .*pid namespace"):
        pidns.numbers([status("50\t1", "50\t1", "50\t1", "50\t1"), other])


def test_our_own_number_is_that_of_proc() -> None:
    assert own_number(os.getpid()) == os.getpid()
    assert not has_other_numbers(os.getpid())
    assert not has_other_numbers(1 << 23)


def snapshot(*tasks: tuple[int, int, int], outside: int | None = OUTSIDE, **other: int) -> Snapshot:
    """``tasks``: pid, session, and the number of the pid namespace; ``other`` ids are of the first task."""
    images = []
    for pid, sid, namespace in tasks:
        ids = core_pb2.task_kobj_ids_entry(vm_id=2, files_id=2, fs_id=2, sighand_id=2, pid_ns_id=namespace)
        ppid = 0 if not images else images[0].pid
        entry = core_pb2.pstree_entry(pid=pid, ppid=ppid, pgid=pid, sid=sid, threads=[pid])
        images.append(TaskImages(pid, entry, core_pb2.core_entry(), ids=ids))
    inventory = inventory_pb2.inventory_entry(img_version=2)
    inventory.root_ids.CopyFrom(core_pb2.task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1))
    if outside is not None:
        inventory.root_ids.pid_ns_id = outside
    for name, value in other.items():
        setattr(images[0].ids, name, value)
        setattr(inventory.root_ids, name, value - 1)
    return Snapshot(inventory, tuple(images), {}, {})


@pytest.mark.parametrize(
    ("saved", "is_own"),
    [
        (snapshot((1, 1, OWN), (7, 1, OWN)), True),
        (snapshot((50, 50, OUTSIDE)), False),
        (snapshot((50, 50, OWN), outside=None), False),
    ],
)
def test_whose_pids_they_are(saved: Snapshot, is_own: bool) -> None:
    pidns.check(saved)
    assert saved.has_own_pids is is_own


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        (snapshot((50, 50, OWN)), "is not its init"),
        (snapshot((1, 1, OUTSIDE)), "has no pid namespace of its own"),
        (snapshot((1, 1, OWN), (7, 1, OWN + 1)), "ids-7.img: is of another pid namespace"),
        (snapshot((1, 1, OWN), (7, 0, OWN)), "the session of task 7 is outside"),
        (snapshot((50, 50, OUTSIDE), net_ns_id=10), "a net namespace of its own"),
        (snapshot((1, 1, OWN), mnt_ns_id=12), "a mnt namespace of its own"),
    ],
)
def test_trees_that_nobody_can_restore(saved: Snapshot, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        plan(saved, FEATURES)


def test_pids_outside_are_known_by_the_images() -> None:
    assert snapshot((50, 50, OUTSIDE)).outer_pids == {50}
    saved = snapshot((1, 1, OWN), (7, 1, OWN))
    assert saved.outer_pids == set()
    saved.tasks[1].pstree.outer_pid = 4711
    assert saved.outer_pids == {4711}
