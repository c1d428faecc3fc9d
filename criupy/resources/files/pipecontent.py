"""What is in a pipe, read without taking it out, and put into a new one.

Image: ``pipe_data_entry`` with the bytes after it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.images.pb import files_pb2
from criupy.linux import syscalls
from criupy.model.plan import Step, data
from criupy.model.snapshot import PipeData
from criupy.resources.fileplan import TablePlan

F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
DEFAULT_SIZE = 65536
DEFAULT_LIMIT = 1 << 20
"""Of ``/proc/sys/fs/pipe-max-size`` where nobody has changed it."""
CAP_SYS_RESOURCE = 24
_EPERM = 1


class PipeContent(NamedTuple):
    """``size`` of the buffer in bytes; ``reads``: what each read would give, more than one only of packets."""

    size: int
    reads: tuple[bytes, ...]

    def image(self, pipe_id: int) -> PipeData:
        content = b"".join(self.reads)
        entry = files_pb2.pipe_data_entry(pipe_id=pipe_id, bytes=len(content), size=self.size)
        if len(self.reads) > 1:
            entry.packets.extend(map(len, self.reads))
        return PipeData(entry, content)


def collect(end: int) -> PipeContent:
    """The content of the pipe behind a readable descriptor; it stays there.

    Taken while the task is frozen: pages of a pipe may be shared with memory or files (vmsplice, splice).
    """
    size = fcntl.fcntl(end, F_GETPIPE_SZ)
    (length,) = struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, bytes(4)))
    if not length:
        return PipeContent(size, ())
    source, target = os.pipe()
    try:
        if size > DEFAULT_SIZE and fcntl.fcntl(target, F_GETPIPE_SZ) < size:
            with suppress(PermissionError):  # then it depends on how full the pipe is
                fcntl.fcntl(target, F_SETPIPE_SZ, size)
        copied = syscalls.tee(end, target, length)
        if copied != length:
            hint = "raise /proc/sys/fs/pipe-max-size" if size > DEFAULT_SIZE else ""
            raise TraceeError(f"of {length} bytes in a pipe only {copied} could be read", hint=hint)
        return PipeContent(size, tuple(_reads(source, length)))
    finally:
        os.close(source)
        os.close(target)


def _reads(source: int, length: int) -> Iterator[bytes]:
    while length:
        chunk = os.read(source, length)
        length -= len(chunk)
        yield chunk


def resize(write_end: int, wanted: int, table: TablePlan, about: str) -> Iterator[Step]:
    """Gives a pipe its size, or as much of it as this machine allows."""
    if not wanted or wanted == DEFAULT_SIZE:
        return
    refused = frozenset({_EPERM})
    if wanted > DEFAULT_LIMIT and not table.features.has_capability(CAP_SYS_RESOURCE):
        table.warn(
            f"{about}: its size of {wanted} bytes may be more than this machine allows (CAP_SYS_RESOURCE)"
        )
        less = table.step("fcntl", write_end, F_SETPIPE_SZ, DEFAULT_LIMIT, about=about)
        yield less._replace(tolerate=refused)
    step = table.step("fcntl", write_end, F_SETPIPE_SZ, wanted, about=about)
    yield step._replace(tolerate=refused)


def refill(write_end: int, saved: PipeData, table: TablePlan, about: str) -> Iterator[Step]:
    """Writes the content into a pipe whose ``write_end`` does not block (so that too much of it is an error)."""
    place = 0
    for length in saved.entry.packets or [len(saved.content)] * bool(saved.content):
        chunk = saved.content[place : place + length]
        place += length
        yield table.step("write", write_end, data(chunk), len(chunk), expect=len(chunk), about=about)
