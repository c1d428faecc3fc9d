"""``/proc/PID/mountinfo``: the mounts of a namespace.  Source: Linux fs/proc_namespace.c, ``show_mountinfo``."""

from __future__ import annotations

import re
from typing import NamedTuple


class Mount(NamedTuple):
    """One mount.

    ``device`` is (major, minor) of the superblock; paths are unescaped; ``root`` is within its file system.
    """

    id: int
    parent: int
    device: tuple[int, int]
    root: bytes
    point: bytes
    options: tuple[bytes, ...]
    propagation: tuple[bytes, ...]
    fstype: bytes
    source: bytes
    super_options: tuple[bytes, ...]


_ESCAPED = re.compile(rb"\\([0-7]{3})")


def _unescape(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text)


def parse(text: bytes) -> list[Mount]:
    """The mounts in the kernel's order; ValueError for a line of another form."""
    return [_mount(line) for line in text.splitlines()]


def _mount(line: bytes) -> Mount:
    before, _, after = line.partition(b" - ")
    number, parent, device, root, point, options, *propagation = before.split(b" ")
    fstype, source, super_options = after.split(b" ", 2)
    major, minor = map(int, device.split(b":"))
    return Mount(
        id=int(number),
        parent=int(parent),
        device=(major, minor),
        root=_unescape(root),
        point=_unescape(point),
        options=tuple(options.split(b",")),
        propagation=tuple(propagation),
        fstype=fstype,
        source=_unescape(source),
        super_options=tuple(super_options.split(b",")),
    )
