"""pipe(2): two kinds of ends, with content and a size in between.

Image: ``pipe_entry`` in ``files.img``, content in ``pipes-data.img``, with ``packets`` of our own.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Hashable, Iterable, Iterator

from criupy.images.pb import fdtable_pb2
from criupy.linux.features import KernelFeatures
from criupy.model.plan import Out, Ref, Step, path
from criupy.resources.fileplan import AT_FDCWD, F_SETFL, SETTABLE, TablePlan
from criupy.resources.files import pipecontent
from criupy.resources.filetable import Collected, FileImages, FileTable
from criupy.resources.kind import FileKind
from criupy.resources.openfile import OpenFile


class Pipe(FileKind):
    """The content is that of the pipe, read through the first readable end that is met."""

    name = "pipe"
    match = ("pipe",)
    type = fdtable_pb2.PIPE

    def identity(self, file: OpenFile) -> tuple[Hashable, ...]:
        return ()

    def together(self, entry: fdtable_pb2.file_entry) -> Hashable:
        return self.name, entry.pipe.pipe_id

    def collect(self, file: OpenFile, table: FileTable) -> pipecontent.PipeContent | None:
        if file.readable and table.first(("pipe", file.info.ino)):
            return pipecontent.collect(file.own)
        return None

    def encode(self, one: Collected, entry: fdtable_pb2.file_entry, images: FileImages) -> None:
        pipe = entry.pipe
        pipe.id, pipe.pipe_id, pipe.flags = one.id, one.file.info.ino, one.file.flags
        pipe.fown.CopyFrom(one.file.owner.message())
        if one.facts is not None:
            images.pipes_data[pipe.pipe_id] = one.facts.image(pipe.pipe_id)

    def plan(self, entry: fdtable_pb2.file_entry, table: TablePlan) -> Iterator[Step]:
        """All ends at once: those that pipe2(2) makes, and further ones opened through /proc."""
        pipe_id = entry.pipe.pipe_id
        about = f"pipe:[{pipe_id}]"
        saved = table.snapshot.pipes_data.get(pipe_id)
        ends_held = [one.pipe for one in table.groups[self.together(entry)]]
        in_packets = any(end.flags & os.O_DIRECT for end in ends_held) or (saved and saved.entry.packets)
        packets = os.O_DIRECT if in_packets else 0
        read_end, write_end = table.numbers.take(), table.numbers.take()
        ends = Out(Ref("pipe", pipe_id), 8)
        yield table.step("pipe2", ends, os.O_NONBLOCK | packets, expect=0, about=about)
        if saved is not None:
            yield from pipecontent.resize(write_end, saved.entry.size, table, about)
            yield from pipecontent.refill(write_end, saved, table, about)
        free = {os.O_RDONLY: read_end, os.O_WRONLY: write_end}
        for end in ends_held:
            access = end.flags & os.O_ACCMODE
            if access in free:
                number = free.pop(access)
                table.settle(end.id, number)
                created = os.O_NONBLOCK | (packets if access == os.O_WRONLY else 0)
                if end.flags & SETTABLE != created:
                    yield table.step("fcntl", number, F_SETFL, end.flags & SETTABLE, about=about)
            else:
                again = path(b"/proc/self/fd/%d" % read_end)
                flags = access | end.flags & SETTABLE & ~os.O_ASYNC
                yield table.opens(end.id, "openat", AT_FDCWD, again, flags, 0, about=about)
        for number in free.values():
            yield table.close(number)


def warnings(files: Iterable[OpenFile], features: KernelFeatures) -> Iterator[str]:
    """Of the pipes among the descriptors of running tasks: whose size or whose other end will not come back."""
    limit = _size_limit()
    sizes: dict[bytes, tuple[str, int]] = {}
    here: dict[bytes, int] = {}
    alone: dict[bytes, int] = {}
    for file in files:
        if not file.link.startswith(b"pipe:["):
            continue
        what = f"task {file.pid}, fd {file.fd} ({file.link.decode()})"
        sizes.setdefault(file.link, (what, fcntl.fcntl(file.own, pipecontent.F_GETPIPE_SZ)))
        access = file.flags & os.O_ACCMODE
        here[file.link] = here.get(file.link, 0) | _SIDES[access]
        alone[file.link] = alone.get(file.link, 0) | _left_alone(file.own)
    for link, (what, size) in sizes.items():
        if size > limit and not features.has_capability(pipecontent.CAP_SYS_RESOURCE):
            yield f"{what}: without CAP_SYS_RESOURCE its size of {size} bytes comes back as {limit}"
        for side, name in ((_READ, "reads from"), (_WRITE, "writes to")):
            if not (here[link] | alone[link]) & side:
                yield f"{what}: who {name} it is not dumped, so it comes back with nobody at that end"


_READ, _WRITE = 1, 2
_SIDES = {os.O_RDONLY: _READ, os.O_WRONLY: _WRITE, os.O_RDWR: _READ | _WRITE}


def _left_alone(end: int) -> int:
    """The sides of a pipe that nobody has open, as far as this end knows.  Source: Linux fs/pipe.c, ``pipe_poll``."""
    poll = select.poll()
    poll.register(end, 0)
    events = sum(found for _, found in poll.poll(0))
    return (_READ if events & select.POLLERR else 0) | (_WRITE if events & select.POLLHUP else 0)


def _size_limit() -> int:
    with open("/proc/sys/fs/pipe-max-size", "rb") as file:
        return int(file.read())
