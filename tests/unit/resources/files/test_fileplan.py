"""Golden plans of descriptor tables, and tables that cannot be planned."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.images.pages import PagesFile
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, inventory_pb2
from criupy.linux.features import KernelFeatures
from criupy.model.plan import NURSERY, Ref, Revived, Stage, Step, StubPlan
from criupy.model.snapshot import PipeData, Snapshot, TaskImages
from criupy.resources.fileplan import (
    F_DUPFD,
    F_SETFD,
    F_SETOWN_EX,
    SPARE_NUMBERS,
    Numbers,
    open_steps,
    plan_revived,
)
from criupy.resources.kind import PlanSubject
from criupy.resources.registry import FILE_KINDS

PID = 100
NOBODY = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
CWD, ROOT = 1000, 1001
STUB = StubPlan(0, nursery_fd=90, pages=(PagesFile(0, 1),))


def reg(
    name: bytes, flags: int = 0, pos: int = 0, fown: core_pb2.fown_entry = NOBODY
) -> fdtable_pb2.file_entry:
    body = files_pb2.reg_file_entry(id=0, name=name, flags=flags, pos=pos, fown=fown, mode=0o100644)
    return fdtable_pb2.file_entry(type=fdtable_pb2.REG, id=0, reg=body)


def pipe(pipe_id: int, flags: int) -> fdtable_pb2.file_entry:
    body = files_pb2.pipe_entry(id=0, pipe_id=pipe_id, flags=flags, fown=NOBODY)
    return fdtable_pb2.file_entry(type=fdtable_pb2.PIPE, id=0, pipe=body)


def eventfd(counter: int, *, semaphore: bool = False, flags: int = os.O_RDWR) -> fdtable_pb2.file_entry:
    body = files_pb2.eventfd_file_entry(id=0, flags=flags, fown=NOBODY, counter=counter)
    if semaphore:
        body.semaphore = True
    return fdtable_pb2.file_entry(type=fdtable_pb2.EVENTFD, id=0, efd=body)


def epoll(*targets: int) -> fdtable_pb2.file_entry:
    body = files_pb2.eventpoll_file_entry(id=0, flags=os.O_RDWR, fown=NOBODY)
    for target in targets:
        body.tfd.add(id=0, tfd=target, events=1, data=target)
    return fdtable_pb2.file_entry(type=fdtable_pb2.EVENTPOLL, id=0, epfd=body)


def stray(number: int, file_id: int) -> fdtable_pb2.file_entry:
    """An epoll instance that watches a file under a number which does not lead to it."""
    entry = epoll(number)
    entry.epfd.tfd[0].file, entry.epfd.tfd[0].number, entry.epfd.tfd[0].tfd = file_id, number, 99
    return entry


def snapshot(
    files: Sequence[fdtable_pb2.file_entry], table: dict[int, int | tuple[int, int]], **more: object
) -> Snapshot:
    """``table``: number to index of file, or (index, descriptor flags)."""
    by_id = {CWD: reg(b"/home"), ROOT: reg(b"/")}
    by_id |= dict(enumerate(files))
    for file_id, entry in by_id.items():
        entry.id = file_id
        for _, body in entry.ListFields():
            if hasattr(body, "fown"):
                body.id = file_id
    infos = []
    for fd, which in table.items():
        index, flags = which if isinstance(which, tuple) else (which, 0)
        infos.append(fdtable_pb2.fdinfo_entry(id=index, fd=fd, flags=flags, type=by_id[index].type))
    task = TaskImages(
        PID,
        core_pb2.pstree_entry(pid=PID, ppid=0, pgid=PID, sid=PID, threads=[PID, PID + 1]),
        core_pb2.core_entry(),
        ids=core_pb2.task_kobj_ids_entry(vm_id=2, files_id=2, fs_id=2, sighand_id=2),
        fs=core_pb2.fs_entry(cwd_id=CWD, root_id=ROOT, umask=0o22),
        threads={PID: core_pb2.core_entry(), PID + 1: core_pb2.core_entry()},
    )
    inventory = inventory_pb2.inventory_entry(img_version=2)
    return Snapshot(inventory, (task,), by_id, {2: infos}, **more)  # type: ignore[arg-type]


def steps_of(subject: PlanSubject) -> list[Step]:
    """Of all tasks, those of the nursery first."""
    nursery = subject._replace(tid=NURSERY)
    steps, shared = FILE_KINDS.plan_shared(nursery)
    for task in subject.snapshot.tasks:
        own = subject._replace(tid=task.pid, task=task)
        steps += FILE_KINDS.plan_table(own, shared, STUB.nursery_fd)
        steps += FILE_KINDS.plan_fs(own)
    return steps


def plan(saved: Snapshot, capabilities: int = -1) -> tuple[list[str], list[str]]:
    """(steps as text, warnings)"""
    warnings: list[str] = []
    features = KernelFeatures(capabilities=capabilities, pagemap_scan=True)
    subject = PlanSubject(PID, saved.root, saved, features, warnings.append, STUB)
    shown = []
    for step in steps_of(subject):
        stage = "" if step.stage is Stage.FILES else f"{step.stage.name.lower()}: "
        shown.append(f"{stage}{step}" + (f" -> {step.expect}" if step.expect is not None else ""))
    return shown, warnings


def table_steps(saved: Snapshot) -> list[str]:
    return [line for line in plan(saved)[0] if not line.startswith("filesystem")]


def test_numbers_are_like_the_kernels() -> None:
    numbers = Numbers()
    assert [numbers.take() for _ in range(3)] == [0, 1, 2]
    numbers.occupy(4)
    numbers.release(1)
    assert [numbers.take() for _ in range(3)] == [1, 3, 5]


def test_files_in_their_place_and_past_gaps() -> None:
    saved = snapshot(
        [reg(b"/log", os.O_WRONLY | os.O_APPEND, 7), reg(b"/null")], {0: 1, 1: 0, 2: (0, 1), 9: (1, 1)}
    )
    assert table_steps(saved) == [
        'openat(-100, "/null", 256, 0) -> 0',
        'openat(-100, "/log", 1281, 0) -> 1',
        "lseek(1, 7, 0) -> 7",
        "dup3(1, 2, 0x80000)",
        "dup3(0, 9, 0x80000)",
    ]
    saved = snapshot([reg(b"/a"), reg(b"/b")], {5: (0, 1), 7: 1})
    assert table_steps(saved) == [
        'openat(-100, "/a", 256, 0) -> 0',
        "dup3(0, 5, 0x80000)",
        "close(0)",
        'openat(-100, "/b", 256, 0) -> 0',
        "dup3(0, 7, 0)",
        "close(0)",
    ]


def test_a_pipe_the_wrong_way_round() -> None:
    saved = snapshot([pipe(77, os.O_RDONLY), pipe(77, os.O_WRONLY)], {0: 1, 1: (0, 1)})
    content = files_pb2.pipe_data_entry(pipe_id=77, bytes=3, size=4096)
    saved = snapshot(
        [pipe(77, os.O_RDONLY), pipe(77, os.O_WRONLY)],
        {0: 1, 1: (0, 1)},
        pipes_data={77: PipeData(content, b"abc")},
    )
    assert table_steps(saved) == [
        "pipe2(&<pipe 0x4d>, 2048) -> 0",
        "fcntl(1, 1031, 4096)",
        "write(1, &[3 bytes], 3) -> 3",
        "fcntl(1, 4, 0)",
        "fcntl(0, 4, 0)",
        "fcntl(0, 0, 0) -> 2",
        "dup3(1, 0, 0)",
        "close(1)",
        "dup3(2, 1, 0x80000)",
        "close(2)",
    ]


def test_half_a_pipe_in_packets() -> None:
    content = files_pb2.pipe_data_entry(pipe_id=77, bytes=3, size=65536, packets=[1, 2])
    saved = snapshot(
        [pipe(77, os.O_RDONLY | os.O_NONBLOCK)], {0: 0}, pipes_data={77: PipeData(content, b"abb")}
    )
    assert table_steps(saved) == [
        "pipe2(&<pipe 0x4d>, 0x4800) -> 0",
        "write(1, &[1 bytes], 1) -> 1",
        "write(1, &[2 bytes], 2) -> 2",
        "close(1)",
    ]


def test_a_pipe_over_the_limit() -> None:
    content = files_pb2.pipe_data_entry(pipe_id=77, bytes=0, size=1 << 22)
    saved = snapshot([pipe(77, os.O_RDONLY)], {0: 0}, pipes_data={77: PipeData(content, b"")})
    steps, warnings = plan(saved, capabilities=0)
    assert steps[1:3] == ["fcntl(1, 1031, 0x100000)", "fcntl(1, 1031, 0x400000)"]
    assert len(warnings) == 1
    assert "4194304 bytes" in warnings[0]
    assert plan(saved)[1] == []


def test_eventfds() -> None:
    files = [
        eventfd(5, semaphore=True),
        eventfd(1 << 40, flags=os.O_RDWR | os.O_NONBLOCK),
        eventfd(2**64 - 1),
    ]
    assert table_steps(snapshot(files, {0: 0, 1: 1, 2: 2})) == [
        "eventfd2(5, 1) -> 0",
        "eventfd2(0, 2048) -> 1",
        f"write(1, &{1 << 40}, 8) -> 8",
        "eventfd2(0, 0) -> 2",
        f"write(2, &{2**64 - 2}, 8) -> 8",
    ]


def test_epoll_watches_when_all_are_in_place() -> None:
    saved = snapshot([epoll(1, 2), epoll(0), eventfd(0)], {0: 0, 1: 1, 2: 2})
    assert table_steps(saved) == [
        "epoll_create1(0) -> 0",
        "epoll_create1(0) -> 1",
        "eventfd2(0, 0) -> 2",
        "epoll_ctl(0, 1, 1, {0x1, 0x1})",
        "epoll_ctl(0, 1, 2, {0x1, 0x2})",
        "epoll_ctl(1, 1, 0, {0x1, 0x0})",
    ]


def test_owners() -> None:
    def owned(pid: int, pid_type: int, uid: int = 0) -> fdtable_pb2.file_entry:
        fown = core_pb2.fown_entry(uid=uid, euid=uid, signum=10, pid_type=pid_type, pid=pid)
        return reg(b"/tty", os.O_ASYNC | os.O_NONBLOCK, fown=fown)

    steps, warnings = plan(
        snapshot([owned(PID, 1, uid=5), owned(PID + 1, 0), owned(4711, 1)], {0: 0, 1: 1, 2: 2})
    )
    owners = [step for step in steps if "fcntl" in step or "setresuid" in step]
    assert owners == [
        "fcntl(0, 10, 10)",
        "setresuid(5, 5, 0xffffffff)",
        "fcntl(0, 15, {type 1, pid 100})",
        "setresuid(0, 0, 0xffffffff)",
        "fcntl(0, 4, 0x2800)",
        "fcntl(1, 10, 10)",
        "attributes: fcntl(1, 15, {type 0, pid 101})",
        "fcntl(1, 4, 0x2800)",
        "fcntl(2, 10, 10)",
        "fcntl(2, 4, 0x2800)",
    ]
    assert len(warnings) == 1
    assert "4711, which is not in the image set" in warnings[0]


def test_place() -> None:
    saved = snapshot([], {})
    assert plan(saved)[0] == [
        'filesystem: openat(-100, "/home", 0x210100, 0) = <directory 0x64>',
        "filesystem: fchdir(<directory 0x64>)",
        "filesystem: close(<directory 0x64>)",
        "filesystem: umask(18)",
    ]
    saved.files[ROOT].reg.name = b"/jail"
    assert plan(saved)[0][1] == 'filesystem: chroot("/jail")'


def test_open_steps() -> None:
    saved = snapshot([reg(b"/lib/x.so")], {0: 0})
    subject = PlanSubject(PID, saved.root, saved, KernelFeatures(-1, pagemap_scan=True), print, STUB)
    (step,) = open_steps(subject, 0, Stage.MAPPINGS, os.O_RDWR, Ref("mapped", 7))
    assert str(step) == 'openat(-100, "/lib/x.so", 258, 0) = <mapped 0x7>'


def _twice(saved: Snapshot) -> None:
    saved.fdinfo[2].append(saved.fdinfo[2][0])  # type: ignore[attr-defined]


def _external(saved: Snapshot) -> None:
    saved.files[0].reg.ext = True


def _relative(saved: Snapshot) -> None:
    saved.files[0].reg.name = b"etc/passwd"


def _dangling(saved: Snapshot) -> None:
    del saved.files[0]  # type: ignore[attr-defined]


def _other_type(saved: Snapshot) -> None:
    saved.files[0].type = fdtable_pb2.PIPE


def _unknown_type(saved: Snapshot) -> None:
    saved.files[0].type = saved.fdinfo[2][0].type = fdtable_pb2.BPFMAP


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_twice, "descriptor 0 of task 100 is there twice"),
        (_external, "/file is external"),
        (_relative, "no absolute path"),
        (_dangling, "needs file 0x0, which is not there"),
        (_other_type, "needs file 0x0, which is not there"),
        (_unknown_type, "of the kind BPFMAP, which cannot be restored yet"),
    ],
)
def test_what_cannot_be_planned(change, said: str) -> None:
    saved = snapshot([reg(b"/file")], {0: 0})
    change(saved)
    with pytest.raises(ImageError, match=said):
        plan(saved)


ENTRIES = st.sampled_from(["file", "read", "write", "eventfd"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.integers(0, 30), st.tuples(st.integers(0, 8), st.integers(0, 1)), max_size=16),
    st.data(),
)
def test_any_table_ends_up_as_it_was(table: dict[int, tuple[int, int]], draw: st.DataObject) -> None:
    """The steps, carried out by a model of the kernel's descriptor table, give the table of the image."""
    makers = {
        "file": lambda index: reg(b"/%d" % index),
        "read": lambda index: pipe(index // 2, os.O_RDONLY),
        "write": lambda index: pipe(index // 2, os.O_WRONLY),
        "eventfd": eventfd,
    }
    files = [makers[draw.draw(ENTRIES)](index) for index in range(9)]
    saved = snapshot(files, table)  # type: ignore[arg-type]
    subject = PlanSubject(
        PID, saved.root, saved, KernelFeatures(capabilities=-1, pagemap_scan=True), str, STUB
    )
    model = Model()
    for step in steps_of(subject):
        if step.stage is Stage.FILES:
            model.run(step)
    assert model.highest < max(table, default=0) + 1 + SPARE_NUMBERS
    assert {fd: flags for fd, (_, flags) in model.open.items()} == {
        fd: flags for fd, (_, flags) in table.items()
    }
    for fd, (index, _) in table.items():
        what = model.open[fd][0]
        for other, (other_index, _) in table.items():
            assert (model.open[other][0] == what) == (other_index == index)
        assert what.startswith(Model.KINDS[files[index].type])


class Model:
    """A descriptor table: number to (what is open, close-on-exec)."""

    KINDS: ClassVar = {fdtable_pb2.REG: "openat", fdtable_pb2.PIPE: "pipe", fdtable_pb2.EVENTFD: "eventfd2"}

    def __init__(self) -> None:
        self.open: dict[int, tuple[str, int]] = {}
        self.highest = -1
        self.made = 0

    def take(self, what: str) -> int:
        number = next(number for number in range(1000) if number not in self.open)
        self.open[number] = (what, 0)
        self.highest = max(number, self.highest)
        return number

    def run(self, step: Step) -> None:
        args = [arg if isinstance(arg, int) else -1 for arg in step.args]
        answer = 0
        self.made += 1
        match step.call:
            case "openat" | "eventfd2":
                reopened = "/proc/self/fd" in str(step)
                answer = self.take(f"{'pipe' if reopened else step.call} {self.made}")
            case "pipe2":
                self.take(f"pipe read {self.made}")
                self.take(f"pipe write {self.made}")
            case "fcntl" if args[1] == F_DUPFD:
                answer = self.take(self.open[args[0]][0])
            case "fcntl" if args[1] == F_SETFD:
                self.open[args[0]] = (self.open[args[0]][0], args[2])
            case "fcntl":
                assert args[0] in self.open
            case "dup3":
                assert args[0] != args[1]
                self.open[args[1]] = (self.open[args[0]][0], int(args[2] == os.O_CLOEXEC))
                answer = args[1]
            case "close":
                del self.open[args[0]]
            case other:
                raise AssertionError(other)
        assert step.expect in (None, answer)


def without_names(kind: int, *files: fdtable_pb2.file_entry, table: dict[int, int]) -> Snapshot:
    """All of the files were one, which has no name any more."""
    remaps = [
        files_pb2.remap_file_path_entry(orig_id=number, remap_id=5, remap_type=kind)  # type: ignore[arg-type]
        for number in range(len(files))
    ]
    return snapshot(files, dict(table), remaps=remaps)


def plan_nameless(saved: Snapshot) -> list[str]:
    stub = STUB._replace(revived=plan_revived(saved))
    features = KernelFeatures(capabilities=-1, pagemap_scan=True)
    subject = PlanSubject(PID, saved.root, saved, features, print, stub)
    return [
        f"{'nursery: ' if step.tid == NURSERY else ''}{step} -> {step.expect}"
        for step in steps_of(subject)
        if step.stage <= Stage.FILES
    ]


def test_a_file_without_a_name_is_opened_again_through_the_nursery() -> None:
    """By one descriptor, whoever opens it; what had other flags or another position still has."""
    tmpfile = os.O_TMPFILE | os.O_RDWR
    saved = without_names(
        files_pb2.GHOST, reg(b"/file", os.O_RDWR), reg(b"/file", tmpfile, 7), table={0: 0, 3: 1}
    )
    assert plan_revived(saved) == (Revived(files_pb2.GHOST, 5, b"/file", os.O_PATH),)
    assert plan_nameless(saved) == [
        "pidfd_getfd(90, 1, 0) -> 0",
        'openat(-100, "/proc/self/fd/0", 258, 0) -> 1',
        "close(0) -> None",
        "dup3(1, 0, 0) -> None",
        "close(1) -> None",
        "pidfd_getfd(90, 1, 0) -> 1",
        'openat(-100, "/proc/self/fd/1", 258, 0) -> 2',
        "close(1) -> None",
        "lseek(2, 7, 0) -> 7",
        "dup3(2, 3, 0) -> None",
        "close(2) -> None",
    ]


def test_files_without_names_that_tasks_share_are_opened_by_the_nursery() -> None:
    saved = two_tasks([reg(b"/file")], {0: 0}, {0: 0})
    remap = files_pb2.remap_file_path_entry(orig_id=0, remap_id=CWD, remap_type=files_pb2.LINKED)
    saved = dataclasses.replace(saved, remaps=[remap])
    assert plan_nameless(saved)[0] == 'nursery: openat(-100, "/proc/self/fd/1", 256, 0) -> 2'


def test_a_symbolic_link_without_a_name_is_not_followed() -> None:
    link = reg(b"/link", os.O_PATH | os.O_NOFOLLOW)
    link.reg.mode = 0o120777
    assert plan_nameless(without_names(files_pb2.GHOST, link, table={0: 0}))[:2] == [
        "pidfd_getfd(90, 1, 0) -> 0",
        f"fcntl(0, {F_DUPFD}, 0) -> 1",
    ]


def test_a_directory_without_a_name() -> None:
    saved = snapshot([], {})
    saved = dataclasses.replace(
        saved, remaps=[files_pb2.remap_file_path_entry(orig_id=CWD, remap_id=5, remap_type=files_pb2.GHOST)]
    )
    stub = STUB._replace(revived=plan_revived(saved))
    subject = PlanSubject(PID, saved.root, saved, KernelFeatures(-1, pagemap_scan=True), print, stub)
    assert str(next(FILE_KINDS.plan_fs(subject))) == "pidfd_getfd(90, 1, 0) = <directory 0x64>"


def test_a_file_of_a_process_that_was_gone() -> None:
    with pytest.raises(ImageError, match="is of a process that was gone"):
        plan(without_names(files_pb2.PROCFS, reg(b"/proc/7/maps"), table={0: 0}))


def two_tasks(
    files: Sequence[fdtable_pb2.file_entry], first: dict[int, int], second: dict[int, int]
) -> Snapshot:
    """A parent and its child, each with a table of its own."""
    saved = snapshot(files, dict(first))
    child = TaskImages(
        PID + 7,
        core_pb2.pstree_entry(pid=PID + 7, ppid=PID, pgid=PID, sid=PID, threads=[PID + 7]),
        core_pb2.core_entry(),
        ids=core_pb2.task_kobj_ids_entry(vm_id=3, files_id=3, fs_id=3, sighand_id=3),
        fs=saved.root.fs,
        threads={PID + 7: core_pb2.core_entry()},
    )
    infos = [
        fdtable_pb2.fdinfo_entry(id=index, fd=fd, flags=0, type=saved.files[index].type)
        for fd, index in second.items()
    ]
    return dataclasses.replace(saved, tasks=(*saved.tasks, child), fdinfo={**saved.fdinfo, 3: infos})


def test_what_two_tasks_share_is_opened_by_the_nursery() -> None:
    saved = two_tasks([reg(b"/log", os.O_RDWR, 9), reg(b"/own")], {0: 0, 1: 0, 2: 1}, {1: 0})
    assert table_steps(saved) == [
        'hold: openat(-100, "/log", 258, 0) -> 1',
        "hold: lseek(1, 9, 0) -> 9",
        "pidfd_getfd(90, 1, 0) -> 0",
        "fcntl(0, 2, 0)",
        "dup3(0, 1, 0)",
        'openat(-100, "/own", 256, 0) -> 2',
        "pidfd_getfd(90, 1, 0) -> 0",
        "dup3(0, 1, 0)",
        "close(0)",
    ]


def test_a_pipe_between_two_tasks_is_made_whole_by_the_nursery() -> None:
    saved = two_tasks([pipe(5, os.O_RDONLY), pipe(5, os.O_WRONLY)], {0: 0}, {3: 1})
    assert table_steps(saved) == [
        "hold: pipe2(&<pipe 0x5>, 2048) -> 0",
        "hold: fcntl(1, 4, 0)",
        "hold: fcntl(2, 4, 0)",
        "pidfd_getfd(90, 1, 0) -> 0",
        "fcntl(0, 2, 0)",
        "pidfd_getfd(90, 2, 0) -> 0",
        "dup3(0, 3, 0)",
        "close(0)",
    ]


def test_a_shared_epoll_gets_its_targets_in_one_table_only() -> None:
    saved = two_tasks([epoll(4), eventfd(1)], {3: 0, 4: 1}, {3: 0, 4: 1})
    steps = table_steps(saved)
    assert [step for step in steps if step.startswith("epoll_ctl")] == ["epoll_ctl(3, 1, 4, {0x1, 0x4})"]
    assert "epoll_create1" in steps[0]


def test_a_watched_file_has_its_old_number_for_a_moment() -> None:
    saved = snapshot([stray(7, 1), eventfd(0)], {0: 0, 3: 1})
    assert table_steps(saved)[-3:] == ["dup3(3, 7, 0x80000)", "epoll_ctl(0, 1, 7, {0x1, 0x7})", "close(7)"]


def test_who_has_the_number_of_a_watched_file_gets_it_back() -> None:
    saved = snapshot([stray(1, 1), eventfd(0), eventfd(2)], {0: 0, 1: (2, 1), 2: 1})
    assert table_steps(saved)[-5:] == [
        "fcntl(1, 0, 0) -> 3",
        "dup3(2, 1, 0x80000)",
        "epoll_ctl(0, 1, 1, {0x1, 0x1})",
        "dup3(3, 1, 0x80000)",
        "close(3)",
    ]


def test_an_instance_that_has_the_number_of_what_it_watches() -> None:
    saved = snapshot([stray(0, 1), eventfd(0)], {0: 0, 1: 1})
    assert table_steps(saved)[-5:] == [
        "fcntl(0, 0, 0) -> 2",
        "dup3(1, 0, 0x80000)",
        "epoll_ctl(2, 1, 0, {0x1, 0x0})",
        "dup3(2, 0, 0)",
        "close(2)",
    ]


def test_an_instance_and_what_it_watches_meet_in_the_nursery() -> None:
    saved = two_tasks([stray(0, 1), eventfd(0)], {5: 0}, {4: 1})
    assert table_steps(saved) == [
        "hold: epoll_create1(0) -> 1",
        "hold: eventfd2(0, 0) -> 2",
        "hold: fcntl(0, 0, 0) -> 3",
        "hold: dup3(2, 0, 0x80000)",
        "hold: epoll_ctl(1, 1, 0, {0x1, 0x0})",
        "hold: dup3(3, 0, 0)",
        "hold: close(3)",
        "pidfd_getfd(90, 1, 0) -> 0",
        "dup3(0, 5, 0)",
        "close(0)",
        "pidfd_getfd(90, 2, 0) -> 0",
        "dup3(0, 4, 0)",
        "close(0)",
    ]


def test_a_watched_file_that_nobody_has() -> None:
    with pytest.raises(ImageError, match="needs file 0x1, which no task has open"):
        plan(snapshot([stray(7, 1), eventfd(0)], {0: 0}))


def test_owners_of_what_is_shared_are_named_where_their_numbers_are_known() -> None:
    """By the nursery; but by the first who has it, if the tree's pids are its own."""
    fown = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=1, pid=PID)
    saved = two_tasks([reg(b"/log", fown=fown)], {4: 0}, {5: 0})
    owner = f"{F_SETOWN_EX}, {{type 1, pid {PID}}})"
    assert [line for line in plan(saved)[0] if owner in line] == [f"hold: fcntl(1, {owner}"]
    saved.inventory.root_ids.pid_ns_id = 1
    for task in saved.tasks:
        assert task.ids is not None
        task.ids.pid_ns_id = 9
    subject = PlanSubject(
        PID, saved.root, saved, KernelFeatures(capabilities=-1, pagemap_scan=True), str, STUB
    )
    setters = [(step.tid, f"{step}") for step in steps_of(subject) if owner in f"{step}"]
    assert setters == [(PID, f"fcntl(4, {owner}")]


def test_an_owner_that_is_a_thread_of_another_waits_for_the_threads_of_all() -> None:
    fown = core_pb2.fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=PID + 1)
    saved = two_tasks([reg(b"/own"), reg(b"/its", fown=fown)], {3: 0}, {5: 1})
    assert f"zombies: fcntl(5, {F_SETOWN_EX}, {{type 0, pid {PID + 1}}})" in plan(saved)[0]
