"""Memory that tasks share: memfds and anonymous shared mappings, each stored once, whoever maps it.

Images: ``memfd_inode_entry`` in ``memfd.img``, pages in ``pagemap-shmem-<shmid>.img`` by their offset in the object.
CRIU has anonymous shared memory as a memfd with the name "/dev/zero".  A restore makes all of it in the nursery.

Source: Linux mm/shmem.c, mm/memfd.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, TraceeError
from criupy.images.pages import PE_PRESENT, Pagemap, PagemapWriter, PagesFile, send_pages
from criupy.images.pb import fdtable_pb2, files_pb2
from criupy.linux import mman
from criupy.linux.syscalls import HUGETLBFS_MAGIC, file_system, mapped_page
from criupy.model.plan import NURSERY, Arg, Data, Stage, Step, path
from criupy.model.snapshot import access_mode

if TYPE_CHECKING:
    from criupy.model.snapshot import Snapshot
    from criupy.resources.fileplan import Numbers
    from criupy.resources.openfile import OpenFile

ANONYMOUS = b"/dev/zero"
_MEMFD, _HUGE = b"/memfd:", b"/anon_hugepage"
_DELETED = b" (deleted)"
STATUS_MEMFD = 1 << 14
"""Of ``vma_entry.status``."""
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_HUGETLB = 1, 2, 4
_F_SEAL_SEAL = 1
_NAME_MAX = 249
_SHMID_MAX = 0xFFFF_FFFF
_LARGEST_READ = 1 << 30
_NURSERY_SPACE = 1 << 40
"""Where the nursery maps what it fills."""
_AT_FDCWD = -100


def is_shared_memory(link: bytes, nlink: int) -> bool:
    """Whether a nameless file is such an object; ``link`` is where /proc has it."""
    return not nlink and link.startswith((ANONYMOUS + _DELETED, _MEMFD, _HUGE))


class Extent(NamedTuple):
    """Bytes of an object that may be other than zero, in whole pages."""

    offset: int
    size: int


class Stored(NamedTuple):
    """The content of an object in a pages file: its extents, one after the other."""

    pages_id: int
    extents: tuple[Extent, ...]

    def pagemap(self, shmid: int) -> Pagemap:
        writer = PagemapWriter(self.pages_id)
        for extent in self.extents:
            writer.add(extent.offset, extent.size // mman.PAGE, PE_PRESENT)
        return writer.pagemap(f"pagemap-shmem-{shmid}.img")


def store(fd: int, pages_file: Callable[[], tuple[int, int]]) -> Stored:
    """Store what is in an object that ``fd`` is open for; ``pages_file`` gives (pages id, descriptor)."""
    total = os.fstat(fd).st_size
    extents = tuple(_extents(fd, total))
    pages_id, target = pages_file()
    place = 0
    for extent in extents:
        size = min(extent.size, total - extent.offset)
        send_pages(target, fd, size, place, start=extent.offset)
        place += extent.size
    os.ftruncate(target, place)
    last = total // mman.PAGE * mman.PAGE
    if extents and last < total < extents[-1].offset + extents[-1].size:
        os.pwrite(target, mapped_page(fd, last), place - mman.PAGE)  # who maps it may write beyond the end
    return Stored(pages_id, extents)


class SharedObject(NamedTuple):
    """An object as it is found; ``fd`` is a descriptor of ours for it, ``hugetlb`` the MFD_HUGETLB flags or 0."""

    inode_id: int
    fd: int
    name: bytes
    stat: os.stat_result
    seals: int
    hugetlb: int


class SharedMemory:
    """All objects of one dump, open until `close`."""

    def __init__(self) -> None:
        self._objects: dict[tuple[int, int], SharedObject] = {}
        self._stored: dict[int, Stored] = {}
        self._shmids: dict[int, int] = {}

    def add(self, way: str | int, link: bytes) -> int:
        """The inode_id of an object; ``way`` is a path that leads to it, or a descriptor of ours."""
        found = os.stat(way)
        key = found.st_dev, found.st_ino
        if key not in self._objects:
            # A description of our own: looking for data moves its position.
            fd = os.open(f"/proc/self/fd/{way}" if isinstance(way, int) else way, os.O_RDONLY | os.O_CLOEXEC)
            inode_id = len(self._objects) + 1
            self._objects[key] = SharedObject(
                inode_id, fd, _name(link), found, _seals(fd), _hugetlb(fd, found)
            )
        return self._objects[key].inode_id

    def copy(self, pages_file: Callable[[], tuple[int, int]], taken: Collection[int] = ()) -> None:
        """Store the content of all objects, while nobody runs; ``pages_file`` gives (pages id, descriptor).

        A shmid is an inode number if it can be: other devices have the same ones, and so have System V segments, whose
        ids are ``taken``.
        """
        used = set(taken)
        for one in self._objects.values():
            self._stored[one.inode_id] = store(one.fd, pages_file)
            shmid = one.stat.st_ino & _SHMID_MAX
            while shmid in used:
                shmid = (shmid + 1) & _SHMID_MAX
            self._shmids[one.inode_id] = shmid
            used.add(shmid)

    def entries(self) -> dict[int, files_pb2.memfd_inode_entry]:
        """The messages, by inode_id."""
        return {one.inode_id: _message(one, self._shmids[one.inode_id]) for one in self._objects.values()}

    def pagemaps(self) -> dict[int, Pagemap]:
        """By shmid."""
        return {shmid: self._stored[inode_id].pagemap(shmid) for inode_id, shmid in self._shmids.items()}

    def close(self) -> None:
        for one in self._objects.values():
            os.close(one.fd)
        self._objects.clear()


def file_entry(file_id: int, inode_id: int, file: OpenFile | None) -> fdtable_pb2.file_entry:
    """The entry of a descriptor, or of a mapping where there is none."""
    entry = fdtable_pb2.file_entry(type=fdtable_pb2.MEMFD, id=file_id)
    memfd = entry.memfd
    memfd.id, memfd.inode_id = file_id, inode_id
    memfd.flags, memfd.pos = (file.flags, file.info.pos) if file else (0, 0)
    if file is not None:
        memfd.fown.CopyFrom(file.owner.message())
    else:
        memfd.fown.uid = memfd.fown.euid = memfd.fown.signum = memfd.fown.pid_type = memfd.fown.pid = 0
    return entry


def _name(link: bytes) -> bytes:
    name = link.removesuffix(_DELETED)
    return name.removeprefix(_MEMFD) if name.startswith(_MEMFD) else ANONYMOUS


def _seals(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _F_SEAL_SEAL  # of a file system that knows no seals


def _hugetlb(fd: int, found: os.stat_result) -> int:
    size = huge_page(fd, found)
    return _MFD_HUGETLB | (size.bit_length() - 1) << mman.MAP_HUGE_SHIFT if size else 0


def huge_page(fd: int, found: os.stat_result) -> int:
    """The size of an object's huge pages, 0 if it has none; on hugetlbfs it is the block size."""
    size = found.st_blksize
    return size if size > mman.PAGE and file_system(fd) == HUGETLBFS_MAGIC else 0


def _extents(fd: int, size: int) -> Iterator[Extent]:
    """What is not a hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise TraceeError("shared memory cannot be looked into", errno=error.errno or 0) from error
        end = os.lseek(fd, start, os.SEEK_HOLE)
        start = start // mman.PAGE * mman.PAGE
        yield Extent(start, -(-(end - start) // mman.PAGE) * mman.PAGE)


def _message(one: SharedObject, shmid: int) -> files_pb2.memfd_inode_entry:
    entry = files_pb2.memfd_inode_entry(
        name=one.name,
        uid=one.stat.st_uid,
        gid=one.stat.st_gid,
        size=one.stat.st_size,
        shmid=shmid,
        seals=one.seals,
        inode_id=one.inode_id,
        mode=one.stat.st_mode,
    )
    if one.hugetlb:
        entry.hugetlb_flag = one.hugetlb
    return entry


# Restore


class Made(NamedTuple):
    """What the nursery has: a descriptor for both directions by inode_id, and one for mappings by (file id, mode)."""

    objects: dict[int, int]
    mapped: dict[tuple[int, int], int]


def plan(snapshot: Snapshot, numbers: Numbers, pages: tuple[PagesFile, ...]) -> tuple[list[Step], Made]:
    """Makes every object that a living task maps or has open.  ``pages``: what the nursery has from 0 on."""
    made = Made({}, {})
    steps: list[Step] = []
    place = _NURSERY_SPACE
    for inode_id in dict.fromkeys(_in_use(snapshot)):
        entry = snapshot.memfds[inode_id]
        number = made.objects[inode_id] = numbers.take()
        steps += _make(entry, number, place, _reserves_nothing(snapshot, inode_id))
        if size := _rounded(entry):
            steps += fill(snapshot.shmem.get(entry.shmid), place, pages)
            steps.append(_step("munmap", place, size))
        steps += _finish(entry, number)
        place += _rounded(entry) + mman.PAGE
    for task in snapshot.tasks:
        for vma in task.mm.vmas if task.mm is not None else ():
            key = (vma.shmid, access_mode(vma))
            if vma.status & STATUS_MEMFD and key not in made.mapped:
                inode = made.objects[snapshot.files[vma.shmid].memfd.inode_id]
                made.mapped[key] = numbers.take()
                steps.append(_step("openat", _AT_FDCWD, again(inode), key[1], 0, expect=made.mapped[key]))
    return steps, made


def again(number: int) -> Data:
    """The path by which a task opens once more what it has open at ``number``."""
    return path(b"/proc/self/fd/%d" % number)


def _in_use(snapshot: Snapshot) -> Iterator[int]:
    for task in snapshot.tasks:
        ids = [info.id for info in snapshot.fds(task)]
        if task.mm is not None:
            ids += [vma.shmid for vma in task.mm.vmas if vma.status & STATUS_MEMFD]
        for file_id in ids:
            entry = snapshot.files.get(file_id)
            if entry is not None and entry.type == fdtable_pb2.MEMFD:
                yield entry.memfd.inode_id


def _reserves_nothing(snapshot: Snapshot, inode_id: int) -> bool:
    """Whether all of its mappings were made with MAP_NORESERVE."""
    flags = [
        vma.flags
        for task in snapshot.tasks
        for vma in (task.mm.vmas if task.mm is not None else ())
        if vma.status & STATUS_MEMFD and snapshot.files[vma.shmid].memfd.inode_id == inode_id
    ]
    return bool(flags) and all(each & mman.MAP_NORESERVE for each in flags)


def _rounded(entry: files_pb2.memfd_inode_entry) -> int:
    page = 1 << (entry.hugetlb_flag >> mman.MAP_HUGE_SHIFT & 0x3F) if entry.hugetlb_flag else mman.PAGE
    return -(-entry.size // page) * page


def _step(call: str, *args: Arg, expect: int | None = None, stage: Stage = Stage.HOLD) -> Step:
    return Step(NURSERY, stage, call, args, expect=expect, about="shared memory")


def _make(
    entry: files_pb2.memfd_inode_entry, number: int, place: int, reserve_nothing: bool
) -> Iterator[Step]:
    """The object at a descriptor, and mapped at ``place`` if it has a size."""
    size = _rounded(entry)
    if size >= _NURSERY_SPACE:
        raise ImageError("memfd.img", f"inode {entry.inode_id} has {entry.size} bytes")
    both = mman.PROT_READ | mman.PROT_WRITE
    flags = mman.MAP_SHARED | mman.MAP_FIXED_NOREPLACE | (mman.MAP_NORESERVE if reserve_nothing else 0)
    if entry.name == ANONYMOUS and size:
        huge = mman.MAP_HUGETLB | entry.hugetlb_flag & ~7 if entry.hugetlb_flag else 0
        yield _step("mmap", place, size, both, flags | mman.MAP_ANONYMOUS | huge, -1, 0, expect=place)
        link = path(b"/proc/self/map_files/%x-%x" % (place, place + size))
        yield _step("openat", _AT_FDCWD, link, os.O_RDWR, 0, expect=number)
        return
    if len(entry.name) > _NAME_MAX or b"\0" in entry.name:
        raise ImageError("memfd.img", f"inode {entry.inode_id} has a name that no memfd can have")
    sealing = 0 if entry.seals == _F_SEAL_SEAL else _MFD_ALLOW_SEALING
    kind = _MFD_CLOEXEC | sealing | entry.hugetlb_flag
    yield _step("memfd_create", path(entry.name), kind, expect=number)
    if entry.size:
        yield _step("ftruncate", number, entry.size)
        yield _step("mmap", place, size, both, flags, number, 0, expect=place)


def fill(
    pagemap: Pagemap | None, place: int, pages: Sequence[PagesFile], about: str = "shared memory"
) -> Iterator[Step]:
    """The nursery reads the content of an object that it has mapped at ``place``."""
    for run in pagemap or ():
        if not run.flags & PE_PRESENT:
            raise ImageError(
                pagemap.name if pagemap else "", "is built upon another set, which cannot be restored yet"
            )
        for at in range(run.vaddr, run.end, _LARGEST_READ):
            length = min(_LARGEST_READ, run.end - at)
            assert pagemap is not None
            source = pages.index(PagesFile(0, pagemap.pages_id))
            offset = run.offset + at - run.vaddr
            yield _step("pread64", source, place + at, length, offset, expect=length)._replace(about=about)


def _finish(entry: files_pb2.memfd_inode_entry, number: int) -> Iterator[Step]:
    """Owner and mode; seals when everyone has mapped it, for some forbid that."""
    if entry.name == ANONYMOUS:
        return
    if entry.uid or entry.gid:
        yield _step("fchown", number, entry.uid, entry.gid)
    if entry.HasField("mode"):
        yield _step("fchmod", number, stat.S_IMODE(entry.mode))
    if entry.seals not in (0, _F_SEAL_SEAL):
        yield _step("fcntl", number, fcntl.F_ADD_SEALS, entry.seals, stage=Stage.TIMERS)
