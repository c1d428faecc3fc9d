"""System V shared memory: segments of the IPC namespace that criupy shares with the tree.

Images: ``ipc_shm_entry`` in ``ipcns-shm-<id of the IPC namespace>.img`` for each segment that the tree has attached,
pages in ``pagemap-shmem-<id>.img`` by their offset in the segment.  CRIU has the same for namespaces that it dumps, and
takes no notice of it otherwise.

A segment can outlive the tree, and others can have it attached; `Standing` tells what a restore does then.  It is made
by the nursery, which has it attached until the tree runs.  Should the restore fail, somebody has to see to the
`aftermath`.

Source: Linux ipc/shm.c, ipc/util.c.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, KernelFeatureMissing, SegmentInUse, TraceeError
from criupy.images.pages import Pagemap, PagesFile
from criupy.images.pb.namespaces_pb2 import ipc_desc_entry, ipc_shm_entry
from criupy.linux import mman, syscalls
from criupy.linux.prctl import PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP
from criupy.linux.procfs import sysvipc
from criupy.linux.procfs.sysvipc import Segment
from criupy.model.plan import NURSERY, Arg, Ref, Stage, Step, data, path
from criupy.model.snapshot import access_mode
from criupy.resources.shmem import Stored, fill, huge_page, store

if TYPE_CHECKING:
    from criupy.images.pb.memory_pb2 import vma_entry
    from criupy.model.snapshot import Snapshot

STATUS_SYSVIPC = 1 << 10
"""Of ``vma_entry.status``."""
NEXT_ID = "/proc/sys/kernel/shm_next_id"
"""The id of the next segment that is made, whoever makes it."""
_NAME = b"/SYSV"
_IPC_CREAT, _IPC_EXCL, _SHM_HUGETLB = 0o1000, 0o2000, 0o4000
_IPC_RMID, _IPC_SET, _SHM_LOCK = 0, 1, 11
_SHM_RDONLY = 0o10000
_SLOT = (1 << 15) - 1
"""The part of an id that no two segments have in common; the rest is a sequence number."""
_NURSERY_SPACE = 1 << 41
"""Where the nursery attaches, above what it fills of other shared memory."""
_NURSERY_END = 1 << 46
_AT_FDCWD = -100
_KEEP = 0xFFFF_FFFF


def is_segment(link: bytes, nlink: int) -> bool:
    """Whether a nameless file is behind an attachment; ``link`` is where /proc has it."""
    return not nlink and link.startswith(_NAME)


def problem(link: bytes, found: os.stat_result) -> tuple[str, str] | None:
    """Why an attached segment cannot be dumped, and a way out; its inode number is its id."""
    segment = sysvipc.segments().get(found.st_ino)
    if segment is not None and _is_behind(segment, link, found):
        return None
    return "its segment is not in criupy's IPC namespace", "detach it (shmdt) before the dump"


def _is_behind(segment: Segment, link: bytes, found: os.stat_result) -> bool:
    """IPC_RMID takes the key away, but not out of the name; huge pages round the size up."""
    named = segment.destroyed or link.startswith(b"%s%08x" % (_NAME, segment.key))
    return named and 0 <= found.st_size - segment.size < found.st_blksize


class Attached(NamedTuple):
    """A segment as it is found; ``fd`` is a descriptor of ours for it, ``huge`` the size of its pages or 0."""

    segment: Segment
    fd: int
    huge: int


class Segments:
    """All segments of one dump, open until `close`."""

    def __init__(self) -> None:
        self._attached: dict[int, Attached] = {}
        self._stored: dict[int, Stored] = {}

    @property
    def ids(self) -> AbstractSet[int]:
        return self._attached.keys()

    def add(self, way: str, found: os.stat_result) -> int:
        """The id of a segment that ``way`` leads to."""
        number = found.st_ino
        if number not in self._attached:
            segment = sysvipc.segments().get(number)
            if segment is None:
                raise TraceeError(f"System V segment {number} is not in criupy's IPC namespace")
            fd = os.open(way, os.O_RDONLY | os.O_CLOEXEC)
            self._attached[number] = Attached(segment, fd, huge_page(fd, found))
        return number

    def copy(self, pages_file: Callable[[], tuple[int, int]]) -> None:
        """Store the content of all segments, while the tree stands; ``pages_file`` gives (pages id, descriptor)."""
        self._stored = {number: store(one.fd, pages_file) for number, one in self._attached.items()}

    def entries(self) -> dict[int, ipc_shm_entry]:
        """The messages, by id."""
        return {number: _message(one) for number, one in self._attached.items()}

    def pagemaps(self) -> dict[int, Pagemap]:
        """By id."""
        return {number: stored.pagemap(number) for number, stored in self._stored.items()}

    def close(self) -> None:
        for one in self._attached.values():
            os.close(one.fd)
        self._attached.clear()


def _message(one: Attached) -> ipc_shm_entry:
    segment = one.segment
    names = ("key", "uid", "gid", "cuid", "cgid", "mode", "id")
    entry = ipc_shm_entry(
        desc=ipc_desc_entry(**{name: getattr(segment, name) for name in names}),
        size=segment.size,
        in_pagemaps=True,
        creator=segment.creator,
        changed=segment.changed,
    )
    if one.huge:
        entry.hugetlb_flag = _SHM_HUGETLB | (one.huge.bit_length() - 1) << mman.MAP_HUGE_SHIFT
    if segment.destroyed:
        entry.destroyed = True
    if segment.locked:
        entry.locked = True
    return entry


# Restore


class Standing(enum.Enum):
    """What a restore finds of a segment of the images."""

    GONE = enum.auto()
    """It is made anew."""
    LEFT = enum.auto()
    """Nobody has it attached, and the last who had was of this tree (as it was dumped, or restored before): it is
    removed, and made anew with the content of the dump."""
    SHARED = enum.auto()
    """Others have it attached, or had since: it is attached as it is."""
    TAKEN = enum.auto()
    """It is not the same one: nothing is restored."""


def standing(entry: ipc_shm_entry, found: Segment | None, pids: AbstractSet[int]) -> Standing:
    """``found``: what has its id now; ``pids``: the processes of the tree."""
    if found is None:
        return Standing.GONE
    desc = entry.desc
    born = (found.size, found.cuid, found.cgid) == (entry.size, desc.cuid, desc.cgid)
    marked = found.destroyed or (not entry.destroyed and found.key == desc.key)
    if not born or not marked:
        return Standing.TAKEN
    if not found.attached and found.last in pids:
        return Standing.LEFT
    known = entry.HasField("creator") and entry.HasField("changed")
    same = known and (found.creator, found.changed) == (entry.creator, entry.changed)
    return Standing.SHARED if same else Standing.TAKEN


def check(snapshot: Snapshot, present: Mapping[int, Segment]) -> None:
    """Raises `SegmentInUse` for an id or a key that somebody else has, `KernelFeatureMissing` if none can be asked for.

    ``present``: the segments of this IPC namespace by id.
    """
    pids = snapshot.outer_pids
    for entry in _in_use(snapshot):
        match standing(entry, present.get(entry.desc.id), pids):
            case Standing.TAKEN:
                raise _taken(entry, present[entry.desc.id])
            case Standing.GONE:
                for other in present.values():
                    if _excludes(other, entry):
                        raise _taken(entry, other)
            case Standing.SHARED:
                continue
        if not os.access(NEXT_ID, os.W_OK):
            why = f"{NEXT_ID} cannot be written, which is needed to give System V segment {entry.desc.id} its id"
            hint = "run criupy as root, where /proc/sys is not read-only, on a kernel with CONFIG_CHECKPOINT_RESTORE"
            raise KernelFeatureMissing(why, hint=hint)


def _excludes(other: Segment, entry: ipc_shm_entry) -> bool:
    desc = entry.desc
    return (other.id ^ desc.id) & _SLOT == 0 or (desc.key != 0 and other.key == desc.key)


def _taken(entry: ipc_shm_entry, other: Segment) -> SegmentInUse:
    wanted, key = entry.desc.id, entry.desc.key
    what = f"id {wanted}" if other.id & _SLOT == wanted & _SLOT else f"key {key:#x} (id {wanted})"
    facts = f"{other.id}: {other.size} bytes, key {other.key:#x}, attached {other.attached} times"
    message = f"the System V segment with {what} cannot be restored, for there is another one ({facts})"
    hint = f"ipcs -m -i {other.id} shows it; if nobody needs it, remove it with ipcrm -m {other.id}"
    return SegmentInUse(message, hint=hint)


def plan(
    snapshot: Snapshot, present: Mapping[int, Segment], pages: Sequence[PagesFile]
) -> tuple[list[Step], list[str]]:
    """What the nursery does for every segment that a living task has attached, and warnings.

    ``present``: the segments of this IPC namespace by id; ``pages``: what the nursery has from 0 on.
    Raises `ImageError` for segments of an IPC namespace that the tree had for itself.
    """
    steps: list[Step] = []
    warnings: list[str] = []
    pids = snapshot.outer_pids
    place = _NURSERY_SPACE
    for entry in _in_use(snapshot):
        found = present.get(entry.desc.id)
        place = -(-place // page_of(entry)) * page_of(entry)
        match standing(entry, found, pids):
            case Standing.SHARED:
                assert found is not None
                warnings.append(_shared(found))
                steps.append(_step(entry, "shmat", entry.desc.id, place, _SHM_RDONLY, expect=place))
            case Standing.LEFT:
                warnings.append(
                    f"System V segment {entry.desc.id} is there still, left by the tree itself: it is made anew, "
                    "with the content of the dump"
                )
                steps.append(_step(entry, "shmctl", entry.desc.id, _IPC_RMID, 0))
                steps += _make(entry, place, snapshot.shmem[entry.desc.id], pages)
            case _:  # `check` refuses what is taken
                steps += _make(entry, place, snapshot.shmem[entry.desc.id], pages)
        place += rounded(entry) + mman.PAGE
    return steps, warnings


def _in_use(snapshot: Snapshot) -> list[ipc_shm_entry]:
    ids = {
        vma.shmid: None
        for task in snapshot.tasks
        for vma in (task.mm.vmas if task.mm is not None else ())
        if vma.status & STATUS_SYSVIPC
    }
    namespace = snapshot.ipc_namespace
    if ids and namespace != snapshot.inventory.root_ids.ipc_ns_id:
        why = "the tree had an IPC namespace of its own, which cannot be restored yet"
        raise ImageError(f"ipcns-shm-{namespace}.img", why)
    return [snapshot.segments[number] for number in ids]


def _shared(found: Segment) -> str:
    if found.attached:
        who = f"others have it attached ({found.attached} times)"
    else:
        who = (
            f"others have had it attached (ipcrm -m {found.id} before a restore brings back what was dumped)"
        )
    return (
        f"System V segment {found.id} has outlived the tree, and {who}: it keeps the content that it has now"
    )


def page_of(entry: ipc_shm_entry) -> int:
    """The size of its pages."""
    return 1 << (entry.hugetlb_flag >> mman.MAP_HUGE_SHIFT & 0x3F) if entry.hugetlb_flag else mman.PAGE


def rounded(entry: ipc_shm_entry) -> int:
    """The bytes that an attachment of all of it takes."""
    page = page_of(entry)
    return -(-entry.size // page) * page


def _step(
    entry: ipc_shm_entry, call: str, *args: Arg, gives: Ref | None = None, expect: int | None = None
) -> Step:
    about = f"System V segment {entry.desc.id}"
    return Step(NURSERY, Stage.HOLD, call, args, gives=gives, expect=expect, about=about)


def _make(entry: ipc_shm_entry, place: int, pagemap: Pagemap, pages: Sequence[PagesFile]) -> Iterator[Step]:
    """A segment that stays attached at ``place``, so that it may be marked for destruction at once."""
    desc = entry.desc
    if place + rounded(entry) > _NURSERY_END:
        raise ImageError(f"pagemap-shmem-{desc.id}.img", "the segments are too large together")
    yield from _ask_for(entry)
    yield from _born(entry)
    if (desc.uid, desc.gid) != (desc.cuid, desc.cgid):
        yield _step(entry, "shmctl", desc.id, _IPC_SET, _owner(desc))
    yield _step(entry, "shmat", desc.id, place, 0, expect=place)
    if entry.destroyed:
        yield _step(entry, "shmctl", desc.id, _IPC_RMID, 0)
    yield from fill(pagemap, place, pages, f"System V segment {desc.id}")
    if entry.locked:
        yield _step(entry, "shmctl", desc.id, _SHM_LOCK, 0)


def _ask_for(entry: ipc_shm_entry) -> Iterator[Step]:
    """The next segment of the namespace gets the id, if nobody else makes one meanwhile."""
    number = b"%d" % entry.desc.id
    opened = Ref("shm_next_id for", entry.desc.id)
    yield _step(entry, "openat", _AT_FDCWD, path(NEXT_ID.encode()), os.O_WRONLY, 0, gives=opened)
    yield _step(entry, "write", opened, data(number, f'"{number.decode()}"'), len(number), expect=len(number))
    yield _step(entry, "close", opened)


def _born(entry: ipc_shm_entry) -> Iterator[Step]:
    """Who makes a segment keeps the rights of an owner for ever, so the ids change for a moment."""
    desc = entry.desc
    huge = _SHM_HUGETLB | entry.hugetlb_flag if entry.hugetlb_flag else 0
    flags = _IPC_CREAT | _IPC_EXCL | desc.mode | huge
    make = _step(entry, "shmget", desc.key, entry.size, flags, expect=desc.id)
    if (desc.cuid, desc.cgid) == (0, 0):
        yield make
        return
    if huge:  # these need CAP_IPC_LOCK, or a group that we do not know
        yield _step(entry, "prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    yield _step(entry, "setresgid", _KEEP, desc.cgid, _KEEP)
    yield _step(entry, "setresuid", _KEEP, desc.cuid, _KEEP)
    yield make
    yield _step(entry, "setresuid", _KEEP, 0, _KEEP)
    yield _step(entry, "setresgid", _KEEP, 0, _KEEP)


def _owner(desc: ipc_desc_entry) -> Arg:
    """Source: Linux include/uapi/linux/shm.h, ``struct shmid64_ds``; only these three are looked at."""
    head = struct.pack("<6I", desc.key, desc.uid, desc.gid, desc.cuid, desc.cgid, desc.mode)
    return data(head.ljust(112, b"\0"), f"{{uid {desc.uid}, gid {desc.gid}, mode {desc.mode:o}}}")


def attach(
    tid: int, stage: Stage, vma: vma_entry, entry: ipc_shm_entry, scratch: Callable[[int, int], int]
) -> Iterator[Step]:
    """An attachment of a task, or what is left of one: there all of it is attached elsewhere, and the part moved.

    ``scratch(size, align)`` is a place that is free.
    """
    about = f"System V segment {entry.desc.id} at {vma.start:x}-{vma.end:x}"
    size, length = rounded(entry), vma.end - vma.start
    may_write = access_mode(vma) != os.O_RDONLY
    at = vma.start if length == size else scratch(size, page_of(entry))
    flags = 0 if may_write else _SHM_RDONLY
    yield Step(tid, stage, "shmat", (entry.desc.id, at, flags), expect=at, about=about)
    if length != size:
        move = (at + vma.pgoff, length, length, mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED, vma.start)
        yield Step(tid, stage, "mremap", move, expect=vma.start, about=about)
        yield Step(tid, stage, "munmap", (at, size), about=about)
    if vma.prot != mman.PROT_READ | (mman.PROT_WRITE if may_write else 0):
        yield Step(tid, stage, "mprotect", (vma.start, length, vma.prot), about=about)


def aftermath(steps: Iterable[Step], nursery: int) -> Callable[[], None]:
    """What to do when a restore has failed, and all that it has made is dead; ``nursery``: its pid, before it acts.

    What it has made is removed.  What belongs to others gets another last user than the tree, which never ran: it would
    be taken for the tree's the next time.
    """
    used = {step.args[0] for step in steps if step.call == "shmat"}
    before = {(one.id, one.changed) for one in sysvipc.segments().values() if one.creator == nursery}

    def settle() -> None:
        for one in sysvipc.segments().values():
            is_new = one.creator == nursery and (one.id, one.changed) not in before
            if is_new or one.id in used:
                with suppress(FileNotFoundError):  # it has gone with its last attachment
                    (syscalls.remove_segment if is_new else syscalls.touch_segment)(one.id)

    return settle
