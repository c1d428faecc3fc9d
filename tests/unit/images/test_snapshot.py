"""Snapshots: what is loaded is written back the same, and what contradicts itself is refused by name."""

from __future__ import annotations

import copy
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.images.codec import Record, encode_image, kind_of_file, read_records
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pb import fdtable_pb2
from criupy.images.pb.memory_pb2 import pagemap_entry, pagemap_head
from criupy.images.pb.namespaces_pb2 import ipc_desc_entry, ipc_shm_entry
from criupy.model.snapshot import TASK_ALIVE, TASK_DEAD, Snapshot, load, write

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
ROOT, CHILD, ZOMBIE, THREAD = 25169, 25171, 25172, 25173


def load_from(path: Path) -> Snapshot:
    with ImageDirectory(str(path)) as directory:
        return load(directory)


def records_of(path: Path) -> list[Record]:
    kind = kind_of_file(path.name)
    assert kind is not None
    return list(read_records(io.BytesIO(path.read_bytes()), kind, path.name))


def rewrite(path: Path, records: list[Record]) -> None:
    kind = kind_of_file(path.name)
    assert kind is not None
    path.unlink()
    path.write_bytes(encode_image(kind, records))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of the recorded image set."""
    return Path(shutil.copytree(RECORDED, tmp_path / "images"))


def test_recorded_set():
    snapshot = load_from(RECORDED)
    assert [task.pid for task in snapshot.tasks] == [ROOT, CHILD, ZOMBIE]
    root = snapshot.root
    assert list(root.threads) == [ROOT, THREAD]
    assert root.core is root.threads[ROOT]
    assert root.core.tc.task_state == TASK_ALIVE
    assert snapshot.task(ZOMBIE).zombie
    assert snapshot.task(ZOMBIE).core.tc.task_state == TASK_DEAD
    assert snapshot.task(ZOMBIE).mm is None
    assert {snapshot.files[entry.id].type for entry in snapshot.fds(root)} >= {
        fdtable_pb2.PIPE,
        fdtable_pb2.EVENTFD,
        fdtable_pb2.EVENTPOLL,
        fdtable_pb2.UNIXSK,
    }
    assert [data.content for data in snapshot.pipes_data.values()] == [b"in the pipe"]
    assert [data.content for data in snapshot.fifo_data.values()] == [b"in the fifo"]
    assert [(len(ghost.chunks), ghost.size) for ghost in snapshot.ghosts.values()] == [(1, 5), (2, 65539)]
    assert [memfd.name for memfd in snapshot.memfds.values()] == [b"shared"]
    assert snapshot.sk_queues
    assert list(snapshot.others) == []
    assert [(lock.flag, lock.fd) for lock in snapshot.locks] == [(2, 21)]
    assert len(root.vdso) % 4096 == 0
    assert root.vdso[:4] == b"\x7fELF"


def test_loaded_is_written_back(tmp_path):
    snapshot = load_from(RECORDED)
    with ImageWriter(str(tmp_path / "again")) as writer:
        write(snapshot, writer)
        writer.commit(snapshot.inventory)
    for kind in ("pages", "ghost-file"):
        for content in RECORDED.glob(f"{kind}-*.img"):
            shutil.copy(content, tmp_path / "again")
    assert load_from(tmp_path / "again") == snapshot
    for path in sorted((tmp_path / "again").iterdir()):
        if not path.name.startswith("pagemap-"):  # counts are in both fields
            assert path.read_bytes() == (RECORDED / path.name).read_bytes(), path.name


def edited(name: str, edit: Callable[[Any], object], index: int = 0) -> Callable[[Path], None]:
    """A change of one message of one image."""

    def apply(images: Path) -> None:
        records = records_of(images / name)
        edit(records[index].message)
        rewrite(images / name, records)

    return apply


def removed(name: str) -> Callable[[Path], None]:
    return lambda images: (images / name).unlink()


def swapped(name: str, first: int, second: int) -> Callable[[Path], None]:
    def apply(images: Path) -> None:
        records = records_of(images / name)
        records[first], records[second] = records[second], records[first]
        rewrite(images / name, records)

    return apply


def repeated(name: str, edit: Callable[[Any], object]) -> Callable[[Path], None]:
    """The first entry once more, changed."""

    def apply(images: Path) -> None:
        records = records_of(images / name)
        again = copy.deepcopy(records[0])
        edit(again.message)
        rewrite(images / name, [*records, again])

    return apply


def file_index(kind: int) -> int:
    return next(i for i, r in enumerate(records_of(RECORDED / "files.img")) if r.message.type == kind)


def entry_index(file_id: int) -> int:
    return next(i for i, r in enumerate(records_of(RECORDED / "files.img")) if r.message.id == file_id)


GONE = entry_index(20)


def nothing(message: Any) -> None:
    """Leaves a message as it is."""


_INDICES = {"LAST", *map(str, range(10))}


def put(**values: Any) -> Callable[[Any], object]:
    """Sets fields; a dotted path is written with two underscores."""

    def edit(message: Any) -> None:
        for path, value in values.items():
            *outer, field = path.split("__")
            target = message
            for name in outer:
                target = (
                    target[int(name.replace("LAST", "-1"))] if name in _INDICES else getattr(target, name)
                )
            setattr(target, field, value)

    return edit


CORE, THREAD_CORE, MM = f"core-{ROOT}.img", f"core-{THREAD}.img", f"mm-{ROOT}.img"
BROKEN = [
    (removed("pstree.img"), "pstree.img: is missing or has no task"),
    (removed(CORE), f"{CORE}: is missing"),
    (removed(f"core-{ZOMBIE}.img"), f"core-{ZOMBIE}.img: is missing"),
    (removed(f"ids-{CHILD}.img"), f"ids-{CHILD}.img: is missing"),
    (removed(f"fs-{ROOT}.img"), f"fs-{ROOT}.img: is missing"),
    (removed(MM), f"{MM}: is missing"),
    (removed(f"pagemap-{ROOT}.img"), f"pagemap-{ROOT}.img: is missing"),
    (removed("pages-2.img"), "pages-2.img: is missing"),
    (removed("files.img"), f"fs-{ROOT}.img: the working directory"),
    (removed("memfd.img"), "memfd.img has no inode 1"),
    (removed("ghost-file-2.img"), "ghost-file-2.img: is missing"),
    (removed("pagemap-shmem-950.img"), "pagemap-shmem-950.img: is missing"),
    (edited("inventory.img", lambda m: m.ClearField("fdinfo_per_id")), "fdinfo_per_id is not set"),
    (edited("inventory.img", lambda m: m.ClearField("root_ids")), "root_ids is missing"),
    (edited("inventory.img", put(root_ids__files_id=2)), "files_id is that of the dumping process"),
    (edited("pstree.img", put(pid=0)), "core-0.img: is missing"),
    (edited("pstree.img", put(ppid=1)), f"the first task, {ROOT}, has the parent 1"),
    (edited("pstree.img", put(ppid=4), index=1), f"the parent 4 of task {CHILD} does not come before it"),
    (edited("pstree.img", put(ppid=0), index=1), f"the parent 0 of task {CHILD}"),
    (edited("pstree.img", lambda m: m.threads.append(ROOT)), f"task {ROOT} has thread {ROOT} twice"),
    (edited("pstree.img", lambda m: m.threads.insert(0, 5)), f"the first thread of task {ROOT}"),
    (edited("pstree.img", lambda m: m.ClearField("threads")), f"the first thread of task {ROOT}"),
    (
        edited("pstree.img", lambda m: m.threads.append(THREAD), index=1),
        f"thread {THREAD} is in the tree twice",
    ),
    (swapped("pstree.img", 0, 1), f"the first task, {CHILD}, has the parent {ROOT}"),
    (repeated("pstree.img", put(ppid=ROOT)), f"two tasks have the pid {ROOT}"),
    (edited(CORE, put(mtype=3)), "of architecture AARCH64"),
    (edited(CORE, put(tc__task_state=6)), "unknown task_state 6"),
    (edited(CORE, lambda m: m.ClearField("tc")), "has no tc"),
    (edited(CORE, lambda m: m.ClearField("thread_info")), "has no thread_info"),
    (edited(CORE, lambda m: m.ClearField("thread_core")), "has no thread_core"),
    (edited(CORE, lambda m: m.tc.ClearField("timers")), "has no timers"),
    (edited(CORE, lambda m: m.tc.ClearField("rlimits")), "has no rlimits"),
    (edited(CORE, lambda m: m.tc.sigactions.pop()), "has 61 signal actions"),
    (edited(CORE, put(tc__comm=b"a name that is too long")), "comm is too long"),
    (edited(CORE, put(thread_core__signals_p__signals__0__siginfo=b"short")), "a pending signal has 5 bytes"),
    (edited(CORE, lambda m: m.thread_info.fpregs.st_space.pop()), "st_space has 31 words"),
    (edited(CORE, lambda m: m.thread_info.fpregs.xsave.ymmh_space.pop()), "ymmh_space has 63 words"),
    (edited(CORE, put(thread_core__sched_policy=0, thread_core__sched_prio=5)), "sched_prio is 5"),
    (edited(CORE, put(thread_core__sched_policy=6)), "sched_policy is 6"),
    (edited(CORE, put(thread_core__sched_nice=-21)), "sched_nice is -21"),
    (edited(CORE, put(thread_core__pdeath_sig=65)), "pdeath_sig is 65"),
    (edited(CORE, put(thread_core__seccomp_mode=2)), "seccomp_filter is 0, but seccomp.img has 0 filters"),
    (edited(CORE, lambda m: m.thread_core.creds.cap_eff.append(1)), "a capability set has 3 words"),
    (edited(THREAD_CORE, lambda m: m.thread_core.ClearField("creds")), f"{THREAD_CORE}: has no credentials"),
    (edited(THREAD_CORE, lambda m: m.tc.CopyFrom(records_of(RECORDED / CORE)[0].message.tc)), "has a tc"),
    (edited("seccomp.img", lambda m: m.seccomp_filters.add(filter=b"1234567")), "filter 0 has 7 bytes"),
    (edited("seccomp.img", lambda m: m.seccomp_filters.add(filter=bytes(8), prev=1)), "filter 0 leads to 1"),
    (edited("seccomp.img", lambda m: m.seccomp_filters.add(filter=bytes(8), prev=0)), "leads back to itself"),
    (edited("files.img", put(id=77)), "holds an entry with the id"),
    (edited("files.img", lambda m: m.ClearField("reg")), "file 0x1 (REG) has no entry of its type"),
    (edited("files.img", put(reg__name=b"relative")), "does not start with /"),
    (edited("files.img", put(reg__name=b"/a\0b")), "has a NUL"),
    (edited("files.img", put(fifo__regf_id=99), file_index(fdtable_pb2.FIFO)), "there is no path 0x63"),
    (edited("files.img", put(memfd__inode_id=9), file_index(fdtable_pb2.MEMFD)), "memfd.img has no inode 9"),
    (repeated("files.img", put(reg__pos=5)), "two different entries have the id 1"),
    (edited("fdinfo-2.img", put(id=999)), "fdinfo-2.img: descriptor 0: no file 0x3e7 of type REG"),
    (edited("fdinfo-2.img", put(type=fdtable_pb2.PIPE)), "of type PIPE"),
    (edited("fdinfo-2.img", put(fd=1)), "descriptor 1 is there twice"),
    (edited("fdinfo-2.img", put(flags=2)), "descriptor 0 has flags 0x2"),
    (edited("fdinfo-2.img", put(fd=1 << 31)), "is no descriptor"),
    (edited(f"fs-{ROOT}.img", put(root_id=999)), "the root, 0x3e7, is not in files.img"),
    (edited("remap-fpath.img", put(orig_id=999)), "there is no path 0x3e7"),
    (edited("remap-fpath.img", put(remap_id=9)), "ghost-file-9.img: is missing"),
    (repeated("remap-fpath.img", nothing), "is there twice"),
    (edited("files.img", put(reg__name=b"/tmp/../etc/passwd"), GONE), "a path leads elsewhere"),
    (edited("filelocks.img", put(fd=2000)), "descriptor 2000 of task 25169: there is no such descriptor"),
    (edited("filelocks.img", put(pid=ZOMBIE)), "there is no such descriptor"),
    (edited("filelocks.img", put(flag=3)), "is of kind 3"),
    (edited("filelocks.img", put(type=2)), "is of type 2"),
    (edited("filelocks.img", put(start=-1)), "from -1 on"),
    (edited("filelocks.img", put(start=1, len=(1 << 63) - 1)), "bytes from 1 on"),
    (edited("ghost-file-1.img", put(mode=0o140600)), "mode 140600 is of no file"),
    (edited("ghost-file-1.img", put(mode=0o040700)), "has content, and is no regular file"),
    (edited("ghost-file-1.img", put(symlnk_target=b"/etc/passwd")), "a target that is none"),
    (edited("ghost-file-1.img", put(mtim__tv_usec=1_000_000)), "a time out of range"),
    (edited("ghost-file-2.img", put(size=1 << 63)), "the file has 9223372036854775808 bytes"),
    (edited("ghost-file-2.img", put(size=65538)), "beyond the end"),
    (swapped("ghost-file-2.img", 1, 2), "out of order"),
    (edited(MM, put(exe_file_id=999)), "exe 0x3e7 is not in files.img"),
    (edited(MM, lambda m: m.ClearField("vmas")), "has no mappings"),
    (edited(MM, lambda m: m.mm_saved_auxv.extend([1] * 45)), "auxv words"),
    (edited(MM, put(vmas__0__start=0x400001)), "is no range"),
    (edited(MM, put(vmas__0__end=0)), "is no range"),
    (edited(MM, put(vmas__0__end=1 << 63)), "is not in user space"),
    (edited(MM, put(vmas__1__start=0x1000, vmas__1__end=0x2000)), "is out of order"),
    (edited(MM, put(vmas__0__status=1 << 28)), "has status 0x10000000"),
    (edited(MM, put(vmas__0__shmid=999)), "there is no file 0x3e7"),
    (edited(MM, put(vmas__0__pgoff=5)), "has offset 0x5"),
    (edited(MM, put(vmas__0__prot=64)), "has prot 0x40"),
    (edited(f"pagemap-{ROOT}.img", put(vaddr=0x1000), index=1), "pages 0x1000-"),
    (edited("memfd.img", put(size=1)), None),
    (edited("memfd.img", put(size=0)), "has pages beyond the 0 bytes of memfd 1"),
]


@pytest.mark.parametrize(("break_it", "reason"), BROKEN, ids=[str(reason) for _, reason in BROKEN])
def test_contradictions_are_refused(images, break_it, reason):
    break_it(images)
    if reason is None:
        load_from(images)
        return
    with pytest.raises(ImageError) as caught:
        load_from(images)
    assert reason in str(caught.value)


# System V segments

SEGMENTS, PAGES = "ipcns-shm-3.img", "pagemap-shmem-5.img"
"""3 is the IPC namespace of the recorded tree."""
ATTACHED_AT = 0x7FFFF0000000


def segment(number: int, **fields: Any) -> ipc_shm_entry:
    desc = ipc_desc_entry(key=0, uid=0, gid=0, cuid=0, cgid=0, mode=0o600, id=number)
    entry = ipc_shm_entry(desc=desc, size=2 * 4096, in_pagemaps=True)
    put(**fields)(entry)
    return entry


@pytest.fixture
def with_segment(images: Path) -> Path:
    """The recorded image set with the segment 5, which is attached by the root; 9 is attached by nobody."""

    def attach(mm: Any) -> None:
        mm.vmas.add(
            start=ATTACHED_AT, end=ATTACHED_AT + 4096, pgoff=4096, shmid=5, prot=3, flags=0x21, status=0x501,
            fd=-1, fdflags=2,
        )  # fmt: skip

    edited(MM, attach)(images)
    write_image(images / SEGMENTS, [segment(5, desc__key=0x1234), segment(9)])
    write_image(images / PAGES, [pagemap_head(pages_id=77), *_page(0)])
    (images / "pages-77.img").write_bytes(bytes(4096))
    return images


def _page(address: int) -> list[Any]:
    return [pagemap_entry(vaddr=address, compat_nr_pages=1, nr_pages=1, flags=4)]


def write_image(path: Path, messages: list[Any]) -> None:
    kind = kind_of_file(path.name)
    assert kind is not None
    path.write_bytes(encode_image(kind, map(Record, messages)))


def test_segments_are_written_back(with_segment, tmp_path):
    snapshot = load_from(with_segment)
    assert list(snapshot.segments) == [5, 9]
    assert snapshot.segments[5].desc.key == 0x1234
    assert [run.vaddr for run in snapshot.shmem[5]] == [0]
    with ImageWriter(str(tmp_path / "again")) as writer:
        write(snapshot, writer)
        writer.commit(snapshot.inventory)
    for name in (SEGMENTS, PAGES):
        assert (tmp_path / "again" / name).read_bytes() == (with_segment / name).read_bytes()


BROKEN_SEGMENTS = [
    (removed(SEGMENTS), f"{SEGMENTS}: has no segment 5, which is needed for mapping 0x7ffff0000000-"),
    (removed(PAGES), f"{PAGES}: is missing"),
    (edited(SEGMENTS, put(desc__id=1 << 31)), f"{SEGMENTS}: 2147483648 is no id"),
    (edited(SEGMENTS, put(desc__id=6)), f"{SEGMENTS}: has no segment 5"),
    (edited(SEGMENTS, put(desc__id=9)), "two different entries have the id 9"),
    (edited(SEGMENTS, put(desc__key=0x1234), index=1), "two segments have the key 0x1234"),
    (edited(SEGMENTS, put(desc__mode=0o1600)), "segment 5 has mode 1600"),
    (edited(SEGMENTS, put(size=0)), "segment 5 has 0 bytes"),
    (edited(SEGMENTS, put(size=1 << 62)), "segment 5 has 4611686018427387904 bytes"),
    (edited(SEGMENTS, put(size=4096)), "is no part of segment 5"),
    (edited(SEGMENTS, put(hugetlb_flag=1)), "segment 5 has pages of 0x1"),
    (edited(SEGMENTS, put(hugetlb_flag=0o4000)), "segment 5 has pages of 0x800"),
    (edited(SEGMENTS, put(hugetlb_flag=0o4000 | 63 << 26)), "segment 5 has pages of"),
    (edited(SEGMENTS, put(hugetlb_flag=0o4000 | 21 << 26)), "is no part of segment 5"),
    (edited(MM, put(vmas__LAST__status=0x581, vmas__LAST__shmid=1)), "has status 0x581"),
    (edited(MM, put(vmas__LAST__status=0x601)), "has status 0x601"),
    (edited(MM, put(vmas__LAST__pgoff=5)), "with offset 0x5 is no part of segment 5"),
    (edited(MM, put(vmas__LAST__pgoff=0x2000)), "with offset 0x2000 is no part of segment 5"),
    (edited(MM, put(vmas__LAST__pgoff=(1 << 64) - 4096)), "is no part of segment 5"),
    (edited(PAGES, put(vaddr=0x2000), index=1), f"{PAGES}: has pages beyond the 8192 bytes of segment 5"),
]


@pytest.mark.parametrize(
    ("break_it", "reason"), BROKEN_SEGMENTS, ids=[str(why) for _, why in BROKEN_SEGMENTS]
)
def test_broken_segments_are_refused(with_segment, break_it, reason):
    break_it(with_segment)
    with pytest.raises(ImageError) as caught:
        load_from(with_segment)
    assert reason in str(caught.value)


def test_content_beside_the_description_is_refused(with_segment):
    """As CRIU wrote it once."""
    kind = kind_of_file(SEGMENTS)
    old = segment(5)
    old.ClearField("in_pagemaps")
    (with_segment / SEGMENTS).write_bytes(encode_image(kind, [Record(old, bytes(8192))]))
    with pytest.raises(ImageError, match="pagemap-shmem-5"):
        load_from(with_segment)


def dead_leader(status: int) -> Callable[[Any], None]:
    def edit(message: Any) -> None:
        message.tc.dead_leader = status

    return edit


def test_a_leader_that_has_ended(images):
    edited(CORE, dead_leader(7 << 8))(images)
    edited(CORE, lambda m: m.ClearField("thread_info"))(images)
    root = load_from(images).root
    assert root.lost_its_leader
    assert root.living == (THREAD,)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        (CORE, 9, "does not end with the status 0x9"),
        (CORE, 1 << 16, "does not end with the status 0x10000"),
        (f"core-{CHILD}.img", 0, "it has no other"),
    ],
)
def test_leaders_that_cannot_have_ended(images, name, status, reason):
    edited(name, dead_leader(status))(images)
    with pytest.raises(ImageError, match=reason):
        load_from(images)


@pytest.mark.parametrize(
    "change",
    [
        removed("seccomp.img"),
        removed("fdinfo-3.img"),
        removed("pipes-data.img"),
        removed("timens-0.img"),
        edited("inventory.img", lambda m: m.ClearField("plugins_entry")),
        edited(f"fs-{ROOT}.img", lambda m: m.ClearField("umask")),
        edited(CORE, lambda m: m.thread_info.fpregs.ClearField("xsave")),
        edited(CORE, lambda m: m.thread_core.ClearField("sched_policy")),
        edited("files.img", lambda m: m.reg.ClearField("mode")),
        edited("remap-fpath.img", lambda m: (m.ClearField("remap_type"), put(remap_id=1 | 1 << 31)(m))),
        repeated("files.img", nothing),
    ],
)
def test_what_criu_accepts_is_accepted(images, change):
    change(images)
    load_from(images)


def test_loading_imports_no_more_of_protobuf_than_its_runtime():
    script = f"""
import sys
from criupy.images.directory import ImageDirectory
from criupy.model.snapshot import load
with ImageDirectory({str(RECORDED)!r}) as directory:
    load(directory)
heavy = {{"google.protobuf.descriptor_pool", "google.protobuf.text_format", "criupy.images.pb.network_pb2"}}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# Images that were changed at random


def scalars(message: Any) -> list[tuple[Any, Any]]:
    """Every number and byte string in a message: its holder and field."""
    found: list[tuple[Any, Any]] = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                found += scalars(inner)
        else:
            found.append((message, field))
    return found


def disturb(choose: random.Random, message: Any) -> None:
    holder, field = choose.choice(scalars(message))
    if choose.random() < 0.15 and not field.is_required:
        holder.ClearField(field.name)
    elif field.is_repeated:
        values = getattr(holder, field.name)
        values.extend(list(values) * choose.randint(1, 3))
    elif field.type == field.TYPE_BYTES:
        setattr(holder, field.name, choose.randbytes(choose.choice((0, 1, 127, 5000))))
    elif field.type != field.TYPE_STRING and field.enum_type is None:
        old = int(getattr(holder, field.name))
        new = choose.choice((0, 1, old + 1, old * 2, 1 << 12, (1 << 31) - 1, (1 << 32) - 1, (1 << 64) - 1))
        try:
            setattr(holder, field.name, new)
        except (ValueError, OverflowError):
            holder.ClearField(field.name) if not field.is_required else setattr(holder, field.name, 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 64))
def test_disturbed_sets_are_refused_or_sound(seed):
    choose = random.Random(seed)
    names = [path.name for path in RECORDED.iterdir() if path.suffix != ".c" and "pages-" not in path.name]
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory) / "images"
        shutil.copytree(RECORDED, images, copy_function=os.link)
        for name in choose.sample(sorted(names), choose.randint(1, 2)):
            records = records_of(images / name)
            message = choose.choice(records).message
            if scalars(message):
                disturb(choose, message)
            rewrite(images / name, records)
        try:
            snapshot = load_from(images)
        except ImageError:
            return
        with ImageWriter(f"{directory}/again") as writer:
            write(snapshot, writer)
            writer.commit(snapshot.inventory)
        for kind in ("pages", "ghost-file"):
            for path in images.glob(f"{kind}-*.img"):
                os.link(path, f"{directory}/again/{path.name}")
        assert load_from(Path(directory) / "again") == snapshot
