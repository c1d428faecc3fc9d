"""Overviews of image sets: the recorded one, and variations of it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.images.test_snapshot import disturb, records_of, rewrite, scalars

from criupy.cli.show import PLAIN, draw
from criupy.errors import ImageError
from criupy.images.codec import Record
from criupy.images.directory import ImageDirectory
from criupy.images.pages import PE_PARENT, PE_PRESENT, load_pagemap
from criupy.model.overview import LONGEST_COMMAND, Memory, Overview, SharedMemory, Task, survey

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
ROOT, CHILD, ZOMBIE = 25169, 25171, 25172


def overview(path: Path) -> Overview:
    with ImageDirectory(str(path)) as directory:
        return survey(directory)


def tasks(path: Path) -> dict[int, Task]:
    return {task.pid: task for task in overview(path).root.walk()}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of the recorded image set."""
    return Path(shutil.copytree(RECORDED, tmp_path / "images"))


def edit(path: Path, change: Callable[[Any], object], index: int = 0) -> None:
    records = records_of(path)
    change(records[index].message)
    rewrite(path, records)


def test_recorded_set():
    found = overview(RECORDED)
    assert (found.name, found.format, found.parent) == (str(RECORDED), "1.1", "")
    assert found.written == os.stat(RECORDED / "inventory.img").st_mtime
    assert found.shared == SharedMemory(1, 4096)
    sizes = [path.stat().st_size for path in RECORDED.iterdir() if path.suffix != ".c"]
    assert found.disk[:2] == (len(sizes), sum(sizes))
    root = found.root
    assert [task.pid for task in root.walk()] == [ROOT, CHILD, ZOMBIE]
    assert [task.pid for task in root.children] == [CHILD, ZOMBIE]
    assert (root.command, root.state, root.threads) == ("/tmp/many", "running", 2)
    assert root.memory == Memory(mapped=1118208, saved=16 * 4096, in_parent=0)
    assert root.places == (("exe", "/tmp/many"), ("cwd", "/tmp/fixture"), ("root", "/"))
    fds = {descriptor.fd: descriptor for descriptor in root.descriptors}
    assert list(fds) == [*range(27), 251]
    assert (fds[7].same_as, fds[5].same_as, fds[4].close_on_exec) == (5, None, True)
    assert fds[19].file.notes == ("at 5 of 5 bytes", "deleted, its content is in the images")
    assert root.children[1] == Task(ZOMBIE, "many", "zombie, exited with 147")


def test_order_of_the_tree(images):
    """Children are in the order of the image, each behind its parent."""
    edit(images / "pstree.img", lambda entry: setattr(entry, "ppid", CHILD), index=2)
    root = overview(images).root
    assert [task.pid for task in root.walk()] == [ROOT, CHILD, ZOMBIE]
    assert [task.pid for task in root.children] == [CHILD]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (0, "zombie, exited with 0"),
        (0x9300, "zombie, exited with 147"),
        (9, "zombie, killed by SIGKILL"),
        (0x8B, "zombie, killed by SIGSEGV"),
        (0x7F, "zombie, killed by signal 127"),
    ],
)
def test_zombies(images, status, state):
    edit(images / f"core-{ZOMBIE}.img", lambda core: setattr(core.tc, "exit_code", status))
    assert tasks(images)[ZOMBIE].state == state


def test_stopped_tasks(images):
    edit(images / f"core-{CHILD}.img", lambda core: setattr(core.tc, "task_state", 3))
    assert tasks(images)[CHILD].state == "stopped by SIGSTOP"
    edit(images / f"core-{CHILD}.img", lambda core: setattr(core.tc, "stop_signo", 20))
    assert tasks(images)[CHILD].state == "stopped by SIGTSTP"


@pytest.mark.parametrize(
    ("pgid", "sid", "marks"),
    [
        (ROOT, ROOT, ()),
        (CHILD, ROOT, ("group leader",)),
        (5, ROOT, ("group 5",)),
        (CHILD, CHILD, ("session leader",)),
        (6, 5, ("session 5", "group 6")),
        (ROOT, 5, ("session 5",)),
    ],
)
def test_sessions_and_groups(images, pgid, sid, marks):
    def change(entry: Any) -> None:
        entry.pgid, entry.sid = pgid, sid

    edit(images / "pstree.img", change, index=1)
    assert tasks(images)[ROOT].marks == ("session leader",)
    assert tasks(images)[CHILD].marks == marks


def test_root_of_a_foreign_session(images):
    edit(images / "pstree.img", lambda entry: (setattr(entry, "sid", 5), setattr(entry, "pgid", 6)))
    assert tasks(images)[ROOT].marks == ("session 5", "group 6")


def test_shared_descriptor_tables(images):
    edit(images / f"ids-{CHILD}.img", lambda ids: setattr(ids, "files_id", 2))
    found = tasks(images)
    assert (found[ROOT].files_of, found[CHILD].files_of) == (None, ROOT)
    assert found[CHILD].descriptors == found[ROOT].descriptors


# Command lines


def with_arguments(images: Path, content: bytes) -> str:
    """The command of the root when these bytes are its arguments, on its stack."""
    with ImageDirectory(str(images)) as directory:
        pagemap = load_pagemap(directory, "PAGEMAP", ROOT)
    assert pagemap is not None
    stack = pagemap.runs[-1]
    with (images / pagemap.pages_file).open("r+b") as pages:
        pages.seek(stack.offset)
        pages.write(content)

    def change(mm: Any) -> None:
        mm.mm_arg_start, mm.mm_arg_end = stack.vaddr, stack.vaddr + len(content)

    edit(images / f"mm-{ROOT}.img", change)
    return tasks(images)[ROOT].command


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"/bin/many\0-x\0two words\0", "/bin/many -x two words"),
        (b"many: master\0\0\0\0", "many: master"),
        (b"/usr/bin/python3\0-m\0server\0", "many: /usr/bin/python3 -m server"),
        (b"many \xff\0", "many \udcff"),
        (b"\0\0\0", "many"),
        (b"", "many"),
    ],
)
def test_command_lines(images, content, command):
    assert with_arguments(images, content) == command


def test_long_command_lines(images):
    command = with_arguments(images, b"many ".ljust(6000, b"x"))
    assert command == "many ".ljust(LONGEST_COMMAND, "x") + "..."


@pytest.mark.parametrize(
    ("start", "end"), [(9 << 20, 10 << 20), (0, 0), ((1 << 64) - 1, 5), (1 << 63, 1 << 64)]
)
def test_arguments_that_are_not_there(images, start, end):
    def change(mm: Any) -> None:
        mm.mm_arg_start, mm.mm_arg_end = start, min(end, (1 << 64) - 1)

    edit(images / f"mm-{ROOT}.img", change)
    assert tasks(images)[ROOT].command == "many"


def test_arguments_across_image_sets(tmp_path):
    """Of an incremental dump: all pages are in the set that it builds upon."""
    before = Path(shutil.copytree(RECORDED, tmp_path / "before"))
    images = Path(shutil.copytree(RECORDED, tmp_path / "images"))
    (images / "parent").symlink_to("../before")
    for pid in (ROOT, CHILD):
        head, *runs = records_of(before / f"pagemap-{pid}.img")
        for run in runs:
            run.message.flags = run.message.flags & ~PE_PRESENT | PE_PARENT
        rewrite(images / f"pagemap-{pid}.img", [head, *runs])
        (images / f"pages-{head.message.pages_id}.img").write_bytes(b"")
    found = overview(images)
    assert found.parent == "../before"
    assert found.root.command == "/tmp/many"
    assert found.root.memory == Memory(mapped=1118208, saved=0, in_parent=16 * 4096)
    (images / "parent").unlink()
    with pytest.raises(ImageError, match="are in a parent, but there is none"):
        overview(images)


def test_images_of_version_1(images):
    for path in images.iterdir():
        if path.suffix == ".img" and path.name != "inventory.img" and "pages-" not in path.name:
            path.write_bytes(path.read_bytes()[4:])
    edit(images / "inventory.img", lambda inventory: setattr(inventory, "img_version", 1))
    assert overview(images).format == "1.0"


# Images that were changed at random


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 64))
def test_disturbed_sets_are_refused_or_drawn(seed):
    choose = random.Random(seed)
    names = [path.name for path in RECORDED.iterdir() if path.suffix != ".c" and "pages-" not in path.name]
    with tempfile.TemporaryDirectory() as directory:
        images = Path(directory) / "images"
        shutil.copytree(RECORDED, images, copy_function=os.link)
        for name in choose.sample(sorted(names), choose.randint(1, 2)):
            records: list[Record] = records_of(images / name)
            message = choose.choice(records).message
            if scalars(message):
                disturb(choose, message)
            rewrite(images / name, records)
        try:
            found = overview(images)
        except ImageError:
            return
        assert all(line.isprintable() for line in draw(found, PLAIN, files=True))
