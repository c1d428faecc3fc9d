"""``criupy show``: the drawing of an overview, and the command."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from unit.images import built

from criupy.cli.main import cli
from criupy.cli.output import columns
from criupy.cli.show import PLAIN, Look, draw
from criupy.model.descriptors import Description
from criupy.model.overview import Descriptor, Disk, Memory, Overview, SharedMemory, Task

RECORDED = Path(__file__).parents[2] / "data/criu/images-4.2"
LINES = Look(tee="├─ ", corner="└─ ", bar="│  ")
WRITTEN = time.mktime((2026, 8, 1, 12, 0, 5, 0, 0, -1))


def kinds(*names: str) -> tuple[Descriptor, ...]:
    return tuple(Descriptor(fd, Description(name, f"the {fd}")) for fd, name in enumerate(names))


LEAF = Task(12, "leaf --with arguments", "running", threads=1, memory=Memory(1 << 30, 1 << 20, 0))
TREE = Task(
    10,
    "root",
    "running",
    ("session leader",),
    threads=3,
    memory=Memory(50000 << 10, 68 << 10, 8 << 20),
    descriptors=kinds("file", "directory", "file", "directory", "epoll", "epoll", "pipe"),
    places=(("exe", "/bin/root"), ("cwd", "/"), ("root", "/")),
    children=(
        Task(
            11,
            "middle",
            "stopped by SIGTSTP",
            ("session 5", "group 6"),
            threads=1,
            memory=Memory(4096, 0, 0),
            files_of=10,
            children=(LEAF, replace(LEAF, pid=13)),
        ),
        Task(14, "gone", "zombie, exited with 1"),
    ),
)
OVERVIEW = Overview(
    "images", "1.1", WRITTEN, TREE, SharedMemory(2, 12288), Disk(7, 1500, 28 << 10), "../before"
)


def drawn(look: Look = PLAIN, *, files: bool = False, overview: Overview = OVERVIEW) -> list[str]:
    return list(draw(overview, look, files=files))


def test_head():
    assert drawn()[:6] == [
        "images: CRIU images, format 1.1, written 2026-08-01 12:00:05",
        "built upon ../before",
        "5 tasks (1 zombie), 6 threads",
        (
            "529 pages (2.07 MiB) saved of 2.05 GiB mapped, 2,048 pages (8 MiB) in the parent, "
            "3 pages (12 KiB) of shared memory in 2 objects"
        ),
        "7 image files of 1.46 KiB, 28 KiB on disk",
        "",
    ]
    alone = replace(OVERVIEW, parent="", shared=SharedMemory(0, 0), root=LEAF)
    assert drawn(overview=alone)[1:4] == [
        "1 task, 1 thread",
        "256 pages (1 MiB) saved of 1 GiB mapped",
        "7 image files of 1.46 KiB, 28 KiB on disk",
    ]


def test_tree():
    assert drawn()[6:] == [
        (
            "10 root  running, session leader, 3 threads, 68 KiB saved of 48.8 MiB, 8 MiB in the parent, "
            "2 files, 2 directories, 2 epoll, 1 pipe"
        ),
        "|- 11 middle  stopped by SIGTSTP, session 5, group 6, 1 thread, 0 bytes saved of 4 KiB, descriptors of 10",
        "|  |- 12 leaf --with arguments  running, 1 thread, 1 MiB saved of 1 GiB",
        "|  `- 13 leaf --with arguments  running, 1 thread, 1 MiB saved of 1 GiB",
        "`- 14 gone  zombie, exited with 1",
    ]


def test_narrow_tree():
    lines = drawn(LINES._replace(width=50))[6:]
    assert lines == [
        "10 root  running, session leader, 3 threads,",
        "│    68 KiB saved of 48.8 MiB,",
        "│    8 MiB in the parent, 2 files, 2 directories,",
        "│    2 epoll, 1 pipe",
        "├─ 11 middle  stopped by SIGTSTP, session 5,",
        "│  │    group 6, 1 thread, 0 bytes saved of 4 KiB,",
        "│  │    descriptors of 10",
        "│  ├─ 12 leaf --with arguments  running, 1 thread,",
        "│  │       1 MiB saved of 1 GiB",
        "│  └─ 13 leaf --with arguments  running, 1 thread,",
        "│          1 MiB saved of 1 GiB",
        "└─ 14 gone  zombie, exited with 1",
    ]


@pytest.mark.parametrize("width", [20, 45, 60, 80, 120])
def test_lines_fit(width):
    long = replace(LEAF, command="漢字 " * 100, descriptors=kinds(*(f"kind{n}" for n in range(30))))
    overview = replace(OVERVIEW, root=replace(TREE, children=(*TREE.children, long)))
    for line in drawn(LINES._replace(width=width), files=True, overview=overview)[6:]:
        assert columns(line) <= max(width, 46), line


def test_titles_are_bold_on_terminals():
    lines = drawn(LINES._replace(width=80, bold=True))
    assert lines[0].startswith("\x1b[1mimages\x1b[0m: ")
    assert lines[-1] == "└─ \x1b[1m14 gone\x1b[0m  zombie, exited with 1"
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    assert plain == drawn(LINES._replace(width=80))


def test_descriptors():
    table = (
        Descriptor(0, Description("file", "/a", "r", ("at 5 of 9 bytes", "O_APPEND"))),
        Descriptor(3, Description("file", "/a", "r", ("at 5 of 9 bytes", "O_APPEND")), True, 0),
        Descriptor(1000000, Description("unix socket", "stream 7 @x", "rw"), True),
    )
    children = (replace(LEAF, files_of=10), TREE.children[1])
    overview = replace(OVERVIEW, root=replace(TREE, descriptors=table, children=children))
    assert drawn(files=True, overview=overview)[7:] == [
        "|     exe  /bin/root",
        "|     cwd  /",
        "|    root  /",
        "|       0  r   file         /a, at 5 of 9 bytes, O_APPEND",
        "|       3  r   file         /a, same as 0, close-on-exec",
        "|  1000000  rw  unix socket  stream 7 @x, close-on-exec",
        "|- 12 leaf --with arguments  running, 1 thread, 1 MiB saved of 1 GiB, descriptors of 10",
        "|        ...  descriptors of 10",
        "`- 14 gone  zombie, exited with 1",
    ]


def test_names_from_images_are_harmless():
    evil = "\x1b[2J\n\u202e\udcff"
    task = Task(
        1,
        evil,
        "running",
        threads=1,
        memory=Memory(4096, 4096, 0),
        descriptors=(Descriptor(0, Description("file", evil, "r", (evil,))),),
        places=(("cwd", evil),),
    )
    overview = replace(OVERVIEW, name=evil, parent=evil, root=task)
    lines = drawn(files=True, overview=overview)
    assert all(line.isprintable() for line in lines)
    assert sum(line.count("\\x1b[2J\\n\\u202e\\xff") for line in lines) == 6


def test_deep_trees_are_drawn():
    task = LEAF
    for pid in range(3000):
        task = Task(pid, "deep", "running", children=(task,))
    assert len(drawn(LINES._replace(width=80), overview=replace(OVERVIEW, root=task))) > 3000


# The command


def show(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["show", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_recorded_set():
    code, output, _ = show(RECORDED)
    assert code == 0
    lines = output.splitlines()
    assert lines[1:3] == [
        "3 tasks (1 zombie), 3 threads",
        "32 pages (128 KiB) saved of 2.13 MiB mapped, 1 page (4 KiB) of shared memory in 1 object",
    ]
    assert lines[5].startswith(
        "25169 /tmp/many  running, session leader, 2 threads, 64 KiB saved of 1.07 MiB, "
    )
    assert lines[6].startswith("|- 25171 /tmp/many  running, group leader, 1 thread, ")
    assert lines[7:] == ["`- 25172 many  zombie, exited with 147"]
    code, output, _ = show("--files", RECORDED)
    assert "|       5  r   pipe            138622, 11 bytes in it" in output.splitlines()


def test_errors(tmp_path):
    code, output, error = show(tmp_path)
    assert (code, output) == (1, "")
    assert error == (
        f"Error: {tmp_path}: is not an image set: inventory.img is missing\n"
        "Hint:  a dump that did not finish leaves none; dump again\n"
    )
    images = Path(shutil.copytree(RECORDED, tmp_path / "images"))
    (images / "pages-1.img").write_bytes(b"short")
    code, output, error = show(images)
    assert (code, output, error.count("\n")) == (1, "", 1)
    assert "pages-1.img, offset 5: has 5 bytes" in error


def on_terminal(command: list[str], **environment: str) -> str:
    """What a command writes to a terminal until it ends."""
    ours, theirs = pty.openpty()
    output = b""
    try:
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **environment}
        ) as process:
            os.close(theirs)
            with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
                while True:
                    output += os.read(ours, 65536)
            assert process.wait(timeout=30) == 0, output
    finally:
        os.close(ours)
    return output.decode()


def test_on_a_terminal():
    command = [sys.executable, "-m", "criupy.cli.main", "show", str(RECORDED)]
    lines = on_terminal(command, COLUMNS="60", PYTHONUTF8="1").splitlines()
    assert "├─ \x1b[1m25171 /tmp/many\x1b[0m  running, group leader, 1 thread," in lines
    assert "└─ \x1b[1m25172 many\x1b[0m  zombie, exited with 147" in lines
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 60 for line in lines[5:])
    ascii_lines = on_terminal(command, COLUMNS="60", PYTHONUTF8="0", PYTHONIOENCODING="ascii").splitlines()
    assert ascii_lines[-1] == "`- \x1b[1m25172 many\x1b[0m  zombie, exited with 147"


def test_crit_x_on_a_terminal_shows_no_control_characters(tmp_path):
    images = built.odd_set(tmp_path / "odd")
    output = on_terminal([sys.executable, "-m", "criupy.cli.main", "crit", "x", str(images), "ps"])
    assert "\\x1b[0m" in output
    assert "\x1b" not in output
