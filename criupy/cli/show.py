"""``criupy show``: what an image set holds, drawn for a person."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from criupy.cli.output import clipped, columns, errors, printable, write
from criupy.linux.mman import PAGE

if TYPE_CHECKING:
    from criupy.model.overview import Descriptor, Overview, Task

_NARROWEST = 40
"""Columns that a line gets however deep in the tree it is."""
_PLURALS = {"directory": "directories", "epoll": "epoll", "inotify": "inotify", "fanotify": "fanotify"}


class Look(NamedTuple):
    """How to draw: ``width`` of lines in columns; ``bold`` for titles.

    ``tee``, ``corner``, ``bar`` and ``blank`` are the branches of the tree.
    """

    width: int = sys.maxsize
    bold: bool = False
    tee: str = "|- "
    corner: str = "`- "
    bar: str = "|  "
    blank: str = "   "

    def title(self, text: str) -> str:
        return click.style(text, bold=True) if self.bold else text

    def room(self, before: str) -> int:
        """The columns that are left behind the branches of a line."""
        return max(self.width - len(before), _NARROWEST)


PLAIN = Look()
"""For files and pipes: a task to a line, ASCII branches."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directory", metavar="DIR")
@click.option("--files", is_flag=True, help="List the descriptors of every task, too.")
def show(directory: str, files: bool) -> None:
    """Show what an image set holds: its tasks as a tree, their memory and descriptors."""
    from criupy.images.directory import ImageDirectory
    from criupy.model.overview import survey

    with errors():
        with ImageDirectory(directory) as images:
            overview = survey(images)
        encoding = sys.stdout.encoding or "utf-8"
        for line in draw(overview, _look(encoding), files=files):
            write(f"{line}\n".encode(encoding, "backslashreplace"))


def _look(encoding: str) -> Look:
    """What standard output can take."""
    if not sys.stdout.isatty():
        return PLAIN
    terminal = Look(width=shutil.get_terminal_size().columns, bold=True)
    try:
        "├─└│…".encode(encoding)
    except UnicodeEncodeError:
        return terminal
    return terminal._replace(tee="├─ ", corner="└─ ", bar="│  ")


def draw(overview: Overview, look: Look, *, files: bool = False) -> Iterator[str]:
    """The lines of an overview, of printable characters alone; ``files`` lists the descriptors."""
    yield from _head(overview, look)
    yield ""
    ahead = [(overview.root, "", "")]
    while ahead:
        task, branch, guide = ahead.pop()
        below = guide + (look.bar if task.children else look.blank)
        yield from _task(task, branch, below, look)
        if files:
            yield from _files(task, below, look)
        for child in reversed(task.children):
            last = child is task.children[-1]
            branch, bar = (look.corner, look.blank) if last else (look.tee, look.bar)
            ahead.append((child, guide + branch, guide + bar))


# The head


def _head(overview: Overview, look: Look) -> Iterator[str]:
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(overview.written))
    name = printable(overview.name)
    yield f"{look.title(name)}: CRIU images, format {overview.format}, written {written}"
    if overview.parent:
        yield f"built upon {printable(overview.parent)}"
    yield _tasks(list(overview.root.walk()))
    yield _saved_memory(overview)
    disk = overview.disk
    yield f"{_count(disk.files, 'image file')} of {_size(disk.size)}, {_size(disk.taken)} on disk"


def _tasks(tasks: list[Task]) -> str:
    zombies = sum(task.memory is None for task in tasks)
    threads = sum(task.threads for task in tasks)
    gone = f" ({_count(zombies, 'zombie')})" if zombies else ""
    return f"{_count(len(tasks), 'task')}{gone}, {_count(threads, 'thread')}"


def _saved_memory(overview: Overview) -> str:
    memories = [task.memory for task in overview.root.walk() if task.memory]
    saved = sum(memory.saved for memory in memories)
    in_parent = sum(memory.in_parent for memory in memories)
    parts = [f"{_pages(saved)} saved of {_size(sum(memory.mapped for memory in memories))} mapped"]
    if in_parent:
        parts.append(f"{_pages(in_parent)} in the parent")
    if overview.shared.objects:
        objects = _count(overview.shared.objects, "object")
        parts.append(f"{_pages(overview.shared.saved)} of shared memory in {objects}")
    return ", ".join(parts)


# Tasks


def _task(task: Task, branch: str, below: str, look: Look) -> Iterator[str]:
    """The title of a task and the facts about it, in as many lines as they need."""
    room = look.room(branch)
    title = clipped(f"{task.pid} {printable(task.command)}", room)
    line, started = branch + look.title(title), columns(title)
    for index, fact in enumerate(_facts(task)):
        joint = ", " if index else "  "
        if started + columns(joint + fact) >= room:  # a comma has to fit behind it
            yield line + joint.rstrip()
            line, started, joint, room = f"{below}  ", 2, "", look.room(below)
        line += joint + fact
        started += columns(joint + fact)
    yield line


def _facts(task: Task) -> Iterator[str]:
    yield task.state
    yield from task.marks
    if task.memory:
        yield _count(task.threads, "thread")
        yield f"{_size(task.memory.saved)} saved of {_size(task.memory.mapped)}"
        if task.memory.in_parent:
            yield f"{_size(task.memory.in_parent)} in the parent"
        if task.files_of is not None:
            yield f"descriptors of {task.files_of}"
        else:
            yield from _kinds(task.descriptors)


def _kinds(descriptors: Iterable[Descriptor]) -> Iterator[str]:
    kinds = Counter(descriptor.file.kind for descriptor in descriptors)
    return (_count(count, kind) for kind, count in kinds.most_common())


# Descriptors


def _files(task: Task, below: str, look: Look) -> Iterator[str]:
    for line in _file_lines(task):
        yield below + clipped(line, look.room(below))


def _file_lines(task: Task) -> Iterator[str]:
    for place, path in task.places:
        yield f"{place:>6}  {printable(path)}"
    if task.files_of is not None:
        yield f"{'...':>6}  descriptors of {task.files_of}"
        return
    kinds = max((len(descriptor.file.kind) for descriptor in task.descriptors), default=0)
    for descriptor in task.descriptors:
        file = descriptor.file
        notes = list(file.notes)
        if descriptor.same_as is not None:
            notes = [f"same as {descriptor.same_as}"]
        if descriptor.close_on_exec:
            notes.append("close-on-exec")
        told = ", ".join([file.what, *notes])
        yield f"{descriptor.fd:>6}  {file.access:<2}  {file.kind:<{kinds}}  {printable(told)}"


# Words


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"


def _pages(size: int) -> str:
    return f"{_count(size // PAGE, 'page')} ({_size(size)})"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 100 else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
