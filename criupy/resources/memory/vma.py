"""What is mapped: from ``smaps`` and ``map_files`` to the kinds of areas that CRIU's images know.

Sources: Linux fs/proc/task_mmu.c (VmFlags); mm/shmem.c, ipc/shm.c, fs/aio.c and fs/hugetlbfs/inode.c (the
names of files without a path).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from criupy.errors import NotDumpable, Obstacle
from criupy.linux import mman
from criupy.linux.procfs.maps import Mapping, parse_smaps
from criupy.options import FileOptions
from criupy.resources import sysvshm
from criupy.resources.filetable import path_problem
from criupy.resources.shmem import is_shared_memory

REGULAR = 1 << 0
VSYSCALL = 1 << 2
VDSO = 1 << 3
HEAP = 1 << 5
FILE_PRIVATE = 1 << 6
FILE_SHARED = 1 << 7
ANON_SHARED = 1 << 8
ANON_PRIVATE = 1 << 9
SYSVIPC = 1 << 10
SOCKET = 1 << 11
VVAR = 1 << 12
AIORING = 1 << 13
MEMFD = 1 << 14
SHSTK = 1 << 15
GUARD = 1 << 16
"""Bits of ``vma_entry.status``."""

_FLAGS = {
    "gd": mman.MAP_GROWSDOWN,
    "lo": mman.MAP_LOCKED,
    "nr": mman.MAP_NORESERVE,
    "ht": mman.MAP_HUGETLB,
}
_ADVICE = {
    "rr": mman.MADV_RANDOM,
    "sr": mman.MADV_SEQUENTIAL,
    "dc": mman.MADV_DONTFORK,
    "mg": mman.MADV_MERGEABLE,
    "hg": mman.MADV_HUGEPAGE,
    "nh": mman.MADV_NOHUGEPAGE,
    "dd": mman.MADV_DONTDUMP,
    "wf": mman.MADV_WIPEONFORK,
}


class MappedFile(NamedTuple):
    """The file behind a mapping: ``path`` is where its link leads, ``mode`` the access that it was opened for."""

    path: bytes
    stat: os.stat_result
    mode: int


class Vma(NamedTuple):
    """An area as ``vma_entry`` has it.

    ``offset`` is in bytes, ``madv`` has a bit per advice, ``mode`` is there if there is a link to what is mapped;
    ``file`` only if it is a file by which the area is restored.
    """

    start: int
    end: int
    prot: int
    flags: int
    status: int
    offset: int = 0
    madv: int = 0
    mode: int | None = None
    file: MappedFile | None = None
    lock_on_fault: bool = False
    sealed: bool = False
    in_common: bool = False
    """Whether others have some of its pages too, as after a fork."""

    @property
    def has_pages(self) -> bool:
        """Whether its pages belong to the task alone and are saved with it."""
        private = self.status & REGULAR and self.status & (ANON_PRIVATE | FILE_PRIVATE)
        return bool(private and not self.status & VVAR and not self.flags & mman.MAP_DROPPABLE)

    @property
    def may_be_lazy(self) -> bool:
        """Whether CRIU would bring its pages by userfaultfd when asked to."""
        wanted = mman.MAP_ANONYMOUS | mman.MAP_PRIVATE
        looked_at = wanted | mman.MAP_LOCKED | mman.MAP_HUGETLB
        return self.flags & looked_at == wanted and not self.status & (VDSO | VVAR | VSYSCALL)


class Refusal(Exception):
    """A mapping that cannot be dumped: ``why``, and ``hint`` for the way out."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


KnownFiles = dict[tuple[int, int, int, bytes], MappedFile]
"""Files behind mappings by device, inode and name in ``maps``."""


def read_vmas(pid: int, files: KnownFiles | None = None) -> list[Vma]:
    """The areas of a stopped task.  NotDumpable if there are some that cannot be dumped.

    ``files`` are known from other tasks that have stood since; new ones are added.
    """
    found = list(_areas(pid, {} if files is None else files))
    obstacles = [area for area in found if isinstance(area, Obstacle)]
    if obstacles:
        raise NotDumpable(obstacles)
    return merge_vvar(area for area in found if isinstance(area, Vma))


def obstacles(pid: int, files: KnownFiles, named: set[bytes], options: FileOptions) -> Iterator[Obstacle]:
    """The mappings of a running task that cannot be dumped; OSError when the task is gone.

    ``files`` and ``named`` are what was seen of other tasks: names that need not be looked at again.
    """
    for area in _areas(pid, files):
        if isinstance(area, Obstacle):
            yield area
        elif area.file and area.file.path not in named:
            named.add(area.file.path)
            if area.status & (MEMFD | SYSVIPC):
                continue
            way = f"/proc/{pid}/map_files/{area.start:x}-{area.end:x}"
            problem = _path_problem(way, area.file, options)
            if problem:
                yield Obstacle(pid, _comm(pid), _what(area.start, area.end, area.file.path), *problem)


def _path_problem(way: str, file: MappedFile, options: FileOptions) -> tuple[str, str] | None:
    try:
        return path_problem(way, file.path, file.stat, options)
    except FileNotFoundError:  # it was unmapped meanwhile
        return None


def _areas(pid: int, files: KnownFiles) -> Iterator[Vma | Obstacle]:
    with open(f"/proc/{pid}/smaps", "rb", buffering=0) as smaps:
        mappings = parse_smaps(smaps.readall())
    for mapping in mappings:
        try:
            vma = classify(mapping, _file(pid, mapping, files) if mapping.has_file else None)
            _check_segment(vma)
            yield vma
        except Refusal as refusal:
            what = _what(mapping.start, mapping.end, mapping.name)
            yield Obstacle(pid, _comm(pid), what, refusal.why, refusal.hint)


def _check_segment(vma: Vma) -> None:
    if vma.status & SYSVIPC and vma.file and (problem := sysvshm.problem(vma.file.path, vma.file.stat)):
        raise Refusal(*problem)


def _what(start: int, end: int, name: bytes) -> str:
    return f"mapping {start:x}-{end:x} ({name.decode('utf-8', 'backslashreplace') or 'anonymous memory'})"


def _comm(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")


def _file(pid: int, mapping: Mapping, known: KnownFiles) -> MappedFile | None:
    """The file of a mapping; None if the mapping has gone (the task runs) or has no link (hugetlb, AIO)."""
    link = f"/proc/{pid}/map_files/{mapping.link}"
    key = (mapping.major, mapping.minor, mapping.inode, mapping.name)
    try:
        access = os.lstat(link).st_mode
        if key not in known:
            known[key] = MappedFile(os.readlink(os.fsencode(link)), os.stat(link), 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO):
            raise
        return None
    modes = {stat.S_IRUSR: os.O_RDONLY, stat.S_IWUSR: os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR: os.O_RDWR}
    return known[key]._replace(mode=modes.get(access & 0o600, os.O_RDONLY))


_ANONYMOUS = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
_SPECIAL = {
    b"[vsyscall]": VSYSCALL | ANON_PRIVATE,
    b"[vvar]": REGULAR | VVAR | ANON_PRIVATE,
    b"[vvar_vclock]": REGULAR | VVAR | ANON_PRIVATE,
    b"[vdso]": REGULAR | VDSO | ANON_PRIVATE,
}
_REFUSED = {
    "io": ("memory of a device cannot be dumped", "close the device first"),
    "pf": ("memory of a device cannot be dumped", "close the device first"),
    "um": ("a userfaultfd watches it, which cannot be dumped yet", "stop its user first"),
    "uw": ("a userfaultfd watches it, which cannot be dumped yet", "stop its user first"),
    "ui": ("a userfaultfd watches it, which cannot be dumped yet", "stop its user first"),
    "ss": (
        "shadow stacks cannot be dumped yet",
        "start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
    ),
}
_TELLING = frozenset(_FLAGS) | frozenset(_ADVICE) | frozenset(_REFUSED) | {"dp", "lf", "sl"}


@lru_cache(maxsize=4096)
def classify(mapping: Mapping, file: MappedFile | None) -> Vma:
    """The area of one mapping; kept, as relatives have the same.  Raises `Refusal`."""
    telling = mapping.flags & _TELLING  # mostly none, which makes this quick
    if not mapping.has_file and mapping.name in _SPECIAL:
        madv = _advice(telling)
        return Vma(mapping.start, mapping.end, mapping.prot, _ANONYMOUS, _SPECIAL[mapping.name], madv=madv)
    for name in telling & _REFUSED.keys():
        raise Refusal(*_REFUSED[name])
    if mapping.protection_key:
        why = f"it has protection key {mapping.protection_key}, which cannot be dumped yet"
        raise Refusal(why, "start the program without memory protection keys")
    private_huge = "ht" in telling and not mapping.shared and mapping.name.startswith(b"/anon_hugepage")
    if mapping.has_file and not private_huge:
        status, offset = _file_status(mapping, file), mapping.offset
        backing = mman.MAP_SHARED if mapping.shared else mman.MAP_PRIVATE
        if status & SYSVIPC:
            backing |= mman.MAP_ANONYMOUS
    else:
        status, offset = REGULAR | ANON_PRIVATE | (HEAP if mapping.name == b"[heap]" else 0), 0
        backing = mman.MAP_DROPPABLE | mman.MAP_ANONYMOUS if "dp" in telling else _ANONYMOUS
    return Vma(
        mapping.start,
        mapping.end,
        mapping.prot,
        backing | (_flags(mapping, telling) if telling else 0),
        status,
        offset,
        _advice(telling) if telling else 0,
        file.mode if file else None,
        None if status & ANON_PRIVATE else file,
        "lf" in telling,
        "sl" in telling,
        mapping.in_common,
    )


def _flags(mapping: Mapping, telling: frozenset[str]) -> int:
    flags = sum(bit for name, bit in _FLAGS.items() if name in telling)
    if flags & mman.MAP_HUGETLB:
        flags |= (mapping.page_size.bit_length() - 1) << mman.MAP_HUGE_SHIFT
    return flags


def _advice(telling: frozenset[str]) -> int:
    return sum(1 << advice for name, advice in _ADVICE.items() if name in telling)


_UNNAMED = {
    b"/SYSV": "a private mapping of System V shared memory cannot be dumped",
    b"/[aio]": "an AIO context cannot be dumped yet",
    b"/secretmem": "secret memory cannot be dumped",
    b"socket:": "a mapped socket cannot be dumped yet",
    b"anon_inode:": "memory of this kind cannot be dumped yet",
    b"/dmabuf:": "a buffer of a device cannot be dumped",
}


def _file_status(mapping: Mapping, file: MappedFile | None) -> int:
    backing = FILE_SHARED if mapping.shared else FILE_PRIVATE
    if file is not None and is_shared_memory(mapping.name, file.stat.st_nlink):
        return REGULAR | backing | MEMFD
    if file is not None and mapping.shared and sysvshm.is_segment(mapping.name, file.stat.st_nlink):
        return REGULAR | ANON_SHARED | SYSVIPC
    named = file is not None and file.stat.st_nlink  # then it may have any name
    for prefix, why in _UNNAMED.items():
        if mapping.name.startswith(prefix) and not named:
            raise Refusal(why, "stop the program's use of it first")
    if file is None:
        raise Refusal("the kernel does not show its file", "look at it again; it may just have gone")
    zero = stat.S_ISCHR(file.stat.st_mode) and file.stat.st_rdev == os.makedev(1, 5)
    if not zero and not stat.S_ISREG(file.stat.st_mode):
        raise Refusal("a mapped device cannot be dumped", "close the device first")
    return REGULAR | backing


def merge_vvar(areas: Iterable[Vma]) -> list[Vma]:
    """The same areas with the parts of the vvar as one, as CRIU has it."""
    merged: list[Vma] = []
    for area in areas:
        last = merged[-1] if merged else None
        if last is not None and last.status & area.status & VVAR and last.end == area.start:
            merged[-1] = last._replace(end=area.end)
        else:
            merged.append(area)
    return merged
