"""/proc/PID/maps and /proc/PID/smaps: the mappings of a task.  Source: Linux fs/proc/task_mmu.c."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from criupy.linux.mman import PROT_EXEC, PROT_READ, PROT_WRITE

_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([-r])([-w])([-x])([sp]) "
    rb"([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *([^\n]*)"
)
_PAGE_SIZE = re.compile(rb"\nKernelPageSize: +(\d+) kB")
_PROTECTION_KEY = re.compile(rb"\nProtectionKey: +(\d+)")


class Mapping(NamedTuple):
    """One line of ``maps``, and what ``smaps`` adds.

    ``offset`` and ``page_size`` are in bytes, ``flags`` are the two-letter VmFlags, ``name`` is as the kernel
    prints it: a newline in a path is ``\\012`` there, and so is ``\\012`` itself (``map_files`` tells).
    ``in_common``: somebody else has some of its pages too, as after a fork.
    """

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    major: int
    minor: int
    inode: int
    name: bytes
    page_size: int = 4096
    protection_key: int = 0
    flags: frozenset[str] = frozenset()
    in_common: bool = False

    @property
    def has_file(self) -> bool:
        """Whether something with an inode is mapped, be it a file, shared memory or a device."""
        return bool(self.inode or self.major or self.minor)

    @property
    def link(self) -> str:
        """The name of its link in ``/proc/PID/map_files``."""
        return f"{self.start:x}-{self.end:x}"


def parse_maps(text: bytes) -> list[Mapping]:
    """The mappings in ``maps``, ascending.  ValueError for a line of another form."""
    return [_mapping(line) for line in text.removesuffix(b"\n").split(b"\n")] if text else []


def parse_smaps(text: bytes) -> list[Mapping]:
    """The mappings in ``smaps``, ascending.  ValueError for text of another form."""
    return list(_smaps(text))


def _smaps(text: bytes) -> Iterator[Mapping]:
    # This runs while a task is stopped: cutting at a fixed text is much faster than a search for each line.
    head, *blocks = text.split(b"\nVmFlags:")
    has_keys = b"\nProtectionKey:" in text
    sets: dict[bytes, frozenset[str]] = {}
    at = 0
    for block in blocks:
        end = block.index(b"\n")
        words = block[:end]
        flags = sets.get(words) or sets.setdefault(words, frozenset(words.decode().split()))
        line = head[at : head.find(b"\n", at)]
        size = _PAGE_SIZE.search(head, at) if "ht" in flags else None
        key = _PROTECTION_KEY.search(head, at) if has_keys else None
        known = line, int(size[1]) << 10 if size else 4096, int(key[1]) if key else 0, flags
        mapping = _mapping(*known)
        in_common = _kilobytes(head, b"\nShared_Dirty:", at) > 0 or (
            not mapping.inode and _kilobytes(head, b"\nShared_Clean:", at) > 0
        )
        yield _mapping(*known, in_common=True) if in_common else mapping
        head, at = block, end + 1
    if at != len(head):
        raise ValueError("smaps shows no VmFlags for its last mapping")


def _kilobytes(text: bytes, name: bytes, at: int) -> int:
    """A number of ``smaps``, which is right-aligned before `` kB``; 0 where the kernel does not show it."""
    start = text.find(name, at)
    return int(text[start + len(name) : text.index(b" kB", start)]) if start >= 0 else 0


@lru_cache(maxsize=4096)
def _mapping(
    line: bytes,
    page_size: int = 4096,
    protection_key: int = 0,
    flags: frozenset[str] = frozenset(),
    *,
    in_common: bool = False,
) -> Mapping:
    """Kept: processes with a common ancestor mostly have the same mappings."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("a line of maps or smaps has an unknown form")
    start, end, read, write, execute, share, offset, major, minor, inode, name = match.groups()
    prot = (PROT_READ if read == b"r" else 0) | (PROT_WRITE if write == b"w" else 0)
    return Mapping(
        int(start, 16),
        int(end, 16),
        prot | (PROT_EXEC if execute == b"x" else 0),
        share == b"s",
        int(offset, 16),
        int(major, 16),
        int(minor, 16),
        int(inode),
        name,
        page_size,
        protection_key,
        flags,
        in_common,
    )
