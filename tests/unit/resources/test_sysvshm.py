"""System V segments: what becomes of one in a restore, golden plans, and what is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest

from criupy.errors import ImageError, SegmentInUse
from criupy.images.pages import PagemapWriter, PagesFile
from criupy.images.pb import core_pb2, inventory_pb2
from criupy.images.pb.memory_pb2 import mm_entry, vma_entry
from criupy.images.pb.namespaces_pb2 import ipc_desc_entry, ipc_shm_entry
from criupy.linux.procfs.sysvipc import Segment
from criupy.model.plan import Stage
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources import sysvshm
from criupy.resources.sysvshm import Standing, attach, plan, problem, standing

PAGE, HUGE = 4096, 2 << 20
PID = 77
NAMESPACE = 3
AT = 0x7F0000000000


def entry(number: int = 5, size: int = 2 * PAGE, **fields: Any) -> ipc_shm_entry:
    names = ("key", "uid", "gid", "cuid", "cgid", "mode")
    desc = {"mode": 0o600} | {name: fields.pop(name) for name in names if name in fields}
    described = ipc_desc_entry(id=number, **dict.fromkeys(names, 0) | desc)
    return ipc_shm_entry(desc=described, size=size, in_pagemaps=True, **fields)


def found(number: int = 5, **fields: Any) -> Segment:
    plain = Segment(
        id=number, key=0, mode=0o600, size=2 * PAGE, creator=PID, last=PID, attached=0, uid=0, gid=0, cuid=0,
        cgid=0, changed=1000, destroyed=False, locked=False,
    )  # fmt: skip
    return plain._replace(**fields)


def vma(number: int = 5, pages: int = 2, prot: int = 3, pgoff: int = 0, fdflags: int = 2) -> vma_entry:
    return vma_entry(
        start=AT, end=AT + pages * PAGE, pgoff=pgoff, shmid=number, prot=prot, flags=0x21, status=0x501, fd=-1,
        fdflags=fdflags,
    )  # fmt: skip


def snapshot(*entries: ipc_shm_entry, runs: tuple[tuple[int, int], ...] = ((0, 1),)) -> Snapshot:
    """Every segment is attached by the one task; ``runs`` are the (first page, pages) that each has."""
    shmem = {}
    for pages_id, one in enumerate(entries, 1):
        writer = PagemapWriter(pages_id)
        for first, count in runs:
            writer.add(first * PAGE, count)
        shmem[one.desc.id] = writer.pagemap(f"pagemap-shmem-{one.desc.id}.img")
    ids = core_pb2.task_kobj_ids_entry(vm_id=2, files_id=2, fs_id=2, sighand_id=2, ipc_ns_id=NAMESPACE)
    task = TaskImages(
        PID,
        core_pb2.pstree_entry(pid=PID, ppid=0, pgid=PID, sid=PID, threads=[PID]),
        core_pb2.core_entry(),
        ids=ids,
        mm=mm_entry(vmas=[vma(one.desc.id) for one in entries]),
    )
    inventory = inventory_pb2.inventory_entry(img_version=2)
    inventory.root_ids.CopyFrom(ids)
    return Snapshot(inventory, (task,), {}, {}, shmem=shmem, segments={one.desc.id: one for one in entries})


def planned(saved: Snapshot, *present: Segment) -> tuple[list[str], list[str]]:
    """(steps as text, warnings)"""
    pages = tuple(PagesFile(0, number) for number in range(1, len(saved.shmem) + 1))
    steps, warnings = plan(saved, {one.id: one for one in present}, pages)
    assert all(step.stage is Stage.HOLD for step in steps)
    return [f"{step}" + (f" -> {step.expect}" if step.expect is not None else "") for step in steps], warnings


def asked_for(number: int) -> list[str]:
    size = len(str(number))
    return [
        f'openat(-100, "/proc/sys/kernel/shm_next_id", 1, 0) = <shm_next_id for {number:#x}>',
        f'write(<shm_next_id for {number:#x}>, "{number}", {size}) -> {size}',
        f"close(<shm_next_id for {number:#x}>)",
    ]


def test_a_segment_is_made_and_filled() -> None:
    assert planned(snapshot(entry(key=0x1234), runs=((0, 1), (1, 1)))) == (
        [
            *asked_for(5),
            f"shmget(0x1234, {PAGE * 2:#x}, 1920) -> 5",
            "shmat(5, 0x20000000000, 0) -> 2199023255552",
            "pread64(0, 0x20000000000, 0x2000, 0) -> 8192",
        ],
        [],
    )


def test_creator_owner_and_marks() -> None:
    saved = snapshot(entry(cuid=1002, cgid=1003, uid=1000, gid=1001, mode=0o640, destroyed=True, locked=True))
    assert planned(saved)[0] == [
        *asked_for(5),
        "setresgid(0xffffffff, 1003, 0xffffffff)",
        "setresuid(0xffffffff, 1002, 0xffffffff)",
        "shmget(0, 0x2000, 1952) -> 5",
        "setresuid(0xffffffff, 0, 0xffffffff)",
        "setresgid(0xffffffff, 0, 0xffffffff)",
        "shmctl(5, 1, {uid 1000, gid 1001, mode 640})",
        "shmat(5, 0x20000000000, 0) -> 2199023255552",
        "shmctl(5, 0, 0)",
        "pread64(0, 0x20000000000, 4096, 0) -> 4096",
        "shmctl(5, 11, 0)",
    ]


def test_places_of_huge_pages_are_aligned() -> None:
    flag = 0o4000 | 21 << 26
    saved = snapshot(entry(5), entry(6, HUGE + 1, hugetlb_flag=flag, cuid=7), entry(7), runs=())
    steps = planned(saved)[0]
    assert [step for step in steps if "shmat" in step] == [
        f"shmat({number}, {place:#x}, 0) -> {place}"
        for number, place in ((5, 1 << 41), (6, (1 << 41) + HUGE), (7, (1 << 41) + 3 * HUGE + PAGE))
    ]
    made = steps.index(f"shmget(0, {HUGE + 1:#x}, {flag | 0o3600:#x}) -> 6")
    assert steps[made - 3] == "prctl(28, 4, 0, 0, 0)"


def test_what_the_tree_has_left_is_made_anew() -> None:
    steps, warnings = planned(snapshot(entry()), found())
    assert steps == ["shmctl(5, 0, 0)", *planned(snapshot(entry()))[0]]
    assert "left by the tree itself" in warnings[0]


@pytest.mark.parametrize(
    ("state", "words"),
    [({"attached": 3}, "others have it attached (3 times)"), ({"last": 4711}, "ipcrm -m 5")],
)
def test_what_belongs_to_others_is_attached_as_it_is(state: dict[str, int], words: str) -> None:
    saved = snapshot(entry(creator=PID, changed=1000))
    steps, warnings = planned(saved, found(**state))
    assert steps == ["shmat(5, 0x20000000000, 4096) -> 2199023255552"]
    assert len(warnings) == 1
    assert words in warnings[0]


KNOWN = {"creator": PID, "changed": 1000}


@pytest.mark.parametrize(
    ("saved", "there", "expected"),
    [
        ({}, None, Standing.GONE),
        (KNOWN, {}, Standing.LEFT),
        ({}, {"creator": 9, "changed": 1}, Standing.LEFT),  # by an earlier restore
        (KNOWN, {"last": 9}, Standing.SHARED),
        (KNOWN, {"attached": 1}, Standing.SHARED),
        (KNOWN | {"key": 5}, {"attached": 1, "destroyed": True}, Standing.SHARED),
        (KNOWN | {"destroyed": True}, {"attached": 1, "destroyed": True}, Standing.SHARED),
        (KNOWN | {"destroyed": True}, {}, Standing.TAKEN),  # it would be gone
        (KNOWN, {"last": 9, "changed": 1001}, Standing.TAKEN),
        (KNOWN, {"last": 9, "creator": 8}, Standing.TAKEN),
        ({}, {"attached": 1}, Standing.TAKEN),  # CRIU's images cannot tell
        (KNOWN, {"size": PAGE}, Standing.TAKEN),
        (KNOWN, {"key": 1}, Standing.TAKEN),
        (KNOWN, {"cuid": 1}, Standing.TAKEN),
        (KNOWN, {"cgid": 1}, Standing.TAKEN),
        (KNOWN, {"uid": 1, "mode": 0o644}, Standing.LEFT),
    ],
)
def test_standing(saved: dict[str, Any], there: dict[str, Any] | None, expected: Standing) -> None:
    assert standing(entry(**saved), None if there is None else found(**there), {PID}) is expected


@pytest.mark.parametrize(
    ("saved", "there", "words"),
    [
        (entry(), found(attached=2), "id 5 cannot be restored, for there is another one (5: 8192 bytes"),
        (entry(key=0x1234), found(6, key=0x1234), "key 0x1234 (id 5) cannot be restored"),
        (entry(5 + (3 << 15)), found(), "id 98309 cannot be restored"),
    ],
)
def test_others_have_the_id_or_the_key(saved: ipc_shm_entry, there: Segment, words: str) -> None:
    with pytest.raises(SegmentInUse) as refused:
        sysvshm.check(snapshot(saved), {there.id: there})
    assert words in str(refused.value)
    assert f"ipcrm -m {there.id}" in refused.value.hint


def test_nobody_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    others = {one.id: one for one in (found(6), found(7, key=9))}
    sysvshm.check(snapshot(entry(), entry(8, key=0x1234)), others)


def test_an_ipc_namespace_of_their_own() -> None:
    saved = snapshot(entry())
    saved.inventory.root_ids.ipc_ns_id = NAMESPACE + 1
    with pytest.raises(ImageError, match="IPC namespace of its own"):
        planned(saved)
    saved.tasks[0].mm.ClearField("vmas")  # type: ignore[union-attr]
    assert planned(saved) == ([], [])


def test_too_large_together() -> None:
    size = 1 << 40
    with pytest.raises(ImageError, match="too large together"):
        planned(snapshot(*(entry(number, size) for number in range(70)), runs=()))


def attached(part: vma_entry, segment: ipc_shm_entry) -> list[str]:
    def scratch(size: int, align: int) -> int:
        return 16 * max(size, align)

    return [str(step) for step in attach(PID, Stage.MAPPINGS, part, segment, scratch)]


def test_attachments() -> None:
    assert attached(vma(), entry()) == [f"shmat(5, {AT:#x}, 0)"]
    assert attached(vma(prot=1, fdflags=0), entry()) == [f"shmat(5, {AT:#x}, 4096)"]
    assert attached(vma(prot=1), entry(size=2 * PAGE - 7)) == [
        f"shmat(5, {AT:#x}, 0)",
        f"mprotect({AT:#x}, 0x2000, 1)",
    ]


def test_a_part_of_an_attachment() -> None:
    assert attached(vma(prot=0, pgoff=PAGE, fdflags=0), entry(size=4 * PAGE)) == [
        "shmat(5, 0x40000, 4096)",
        f"mremap(0x41000, 0x2000, 0x2000, 3, {AT:#x})",
        "munmap(0x40000, 0x4000)",
        f"mprotect({AT:#x}, 0x2000, 0)",
    ]


def test_the_segment_behind_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(number: int, size: int, block: int = PAGE) -> os.stat_result:
        times = (size, 0, 0, 0)
        return os.stat_result((0o100777, number, 1, 0, 0, 0, *times), {"st_blksize": block})

    there = {
        5: found(size=PAGE + 1, key=0x1234),
        6: found(6, size=HUGE + 1),
        7: found(7, size=PAGE, destroyed=True),
    }
    monkeypatch.setattr(sysvshm.sysvipc, "segments", lambda: there)
    assert problem(b"/SYSV00001234 (deleted)", stat(5, PAGE + 1)) is None
    assert problem(b"/SYSV00000000 (deleted)", stat(6, 2 * HUGE, HUGE)) is None
    assert problem(b"/SYSV00004321 (deleted)", stat(7, PAGE)) is None
    for link, found_stat in (
        (b"/SYSV00001234 (deleted)", stat(8, PAGE + 1)),
        (b"/SYSV00001235 (deleted)", stat(5, PAGE + 1)),
        (b"/SYSV00001234 (deleted)", stat(5, 3 * PAGE)),
    ):
        why, hint = problem(link, found_stat) or ("", "")
        assert "IPC namespace" in why
        assert hint
