"""How an address space comes back.

The stub lives in a range that the image leaves free; all else that it was born with goes.  The vdso is mapped
first, while there is room everywhere; then the areas at their places, writable where content comes.  Content,
final protections and guards, and the layout each have a stage of their own.
"""

from __future__ import annotations

import errno
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from criupy.errors import ImageError
from criupy.images.pages import Content, PagesFile
from criupy.linux import mman
from criupy.model.plan import STUB_SPACE, Arg, Data, Ref, Stage, Step, data
from criupy.model.snapshot import access_mode
from criupy.resources import sysvshm
from criupy.resources.fileplan import open_steps
from criupy.resources.memory import vdso
from criupy.resources.memory.heritage import NOTHING, Area, Bequest, Heritage, joined, same, within, without
from criupy.resources.memory.vma import (
    AIORING,
    ANON_SHARED,
    FILE_PRIVATE,
    FILE_SHARED,
    GUARD,
    SHSTK,
    SOCKET,
    SYSVIPC,
    VDSO,
    VSYSCALL,
    VVAR,
)

if TYPE_CHECKING:
    from criupy.images.pb.memory_pb2 import mm_entry, vma_entry
    from criupy.resources.kind import PlanSubject

_LARGEST_READ = 16 << 20
"""Bytes per call, so that two threads can share the work."""
_GAP = 1 << 20
"""What the kernel keeps free below a stack that grows.  Source: Linux mm/mmap.c, ``stack_guard_gap``."""
_LOWEST = 1 << 16
_MAP_FLAGS = (
    mman.MAP_SHARED
    | mman.MAP_PRIVATE
    | mman.MAP_DROPPABLE
    | mman.MAP_ANONYMOUS
    | mman.MAP_GROWSDOWN
    | mman.MAP_NORESERVE
    | mman.MAP_HUGETLB
    | 0x3F << mman.MAP_HUGE_SHIFT
)
_NOT_YET = {
    ANON_SHARED: "shared anonymous memory",
    SOCKET: "a mapped socket",
    AIORING: "an AIO context",
    SHSTK: "a shadow stack",
}
_NO_SUCH_CALL = frozenset({errno.ENOSYS})
_DEPENDS_ON_KERNEL = frozenset({mman.MADV_MERGEABLE, mman.MADV_HUGEPAGE, mman.MADV_NOHUGEPAGE})
_ADVICE = {
    mman.MADV_RANDOM,
    mman.MADV_SEQUENTIAL,
    mman.MADV_DONTFORK,
    mman.MADV_DONTDUMP,
    mman.MADV_WIPEONFORK,
    *_DEPENDS_ON_KERNEL,
}


def choose_stub_base(mms: Iterable[mm_entry]) -> int:
    """A range of `STUB_SPACE` bytes that no area of any image comes near.  ImageError if there is none."""
    return _hole(_occupied(*mms), STUB_SPACE, STUB_SPACE)


def _occupied(*mms: mm_entry) -> list[tuple[int, int]]:
    return sorted(
        {(vma.start, vma.end) for mm in mms for vma in mm.vmas if not vma.status & (VSYSCALL | GUARD)}
    )


def _hole(occupied: Iterable[tuple[int, int]], size: int, align: int) -> int:
    end = _LOWEST
    for start, following in (*occupied, (mman.TASK_SIZE, mman.TASK_SIZE)):
        base = -(-(end + _GAP) // align) * align
        if base + size + _GAP <= start:
            return base
        end = max(end, following)
    raise ImageError("mm", f"its mappings leave no {size:#x} bytes of address space free")


def plan(
    subject: PlanSubject,
    shared: Mapping[tuple[int, int], int],
    inherited: Heritage = NOTHING,
    own_vdso: vdso.Vdso | None = None,
) -> Iterator[Step]:
    """The steps that make the address space of a task.

    ``shared``: numbers that shared memory has in the nursery, by file id and access mode; ``inherited``: what is in the
    address space already; ``own_vdso``: this kernel's, if not asked for here.

    Raises `ImageError` for what cannot be restored yet.
    """
    return MemoryPlan(subject, shared, inherited, own_vdso or vdso.running()).steps()


def plan_bequest(subject: PlanSubject, given: Bequest, inherited: Heritage) -> Iterator[Step]:
    """What a task does in its address space before it makes others."""
    return MemoryPlan(subject, {}, inherited, None).bequeath(given)


class MemoryPlan:
    """One address space while it is planned."""

    def __init__(
        self,
        subject: PlanSubject,
        shared: Mapping[tuple[int, int], int],
        inherited: Heritage,
        own: vdso.Vdso | None,
    ) -> None:
        task = subject.task
        if task.mm is None or task.pagemap is None:
            raise ImageError(f"mm-{task.pid}.img", "is missing")
        self.subject = subject
        self.shared = shared
        self.tid = subject.tid
        self.mm = task.mm
        self.name = f"mm-{task.pid}.img"
        self._own = own
        self.inherited = inherited
        self.vmas = [vma for vma in self.mm.vmas if not vma.status & (VSYSCALL | GUARD)]
        self.content = list(task.content)
        self.kept = inherited.areas & {Area.of(vma) for vma in self.vmas}
        self.there = within(inherited.content, self.kept)
        """Content of the areas that are kept."""
        self.made: list[vma_entry] = []
        """Areas that the kernel makes with their content: vvar and vdso."""
        self.bridge: list[tuple[int, int]] = []
        """(start, end) of this kernel's vdso, where it is not that of the images."""
        self.patches: list[tuple[int, bytes]] = []
        """(address, bytes) to write over content."""

    @property
    def own(self) -> vdso.Vdso:
        assert self._own is not None
        return self._own

    def step(
        self,
        stage: Stage,
        call: str,
        *args: Arg,
        expect: int | None = None,
        tolerate: frozenset[int] = frozenset(),
        about: str = "",
    ) -> Step:
        return Step(self.tid, stage, call, args, expect=expect, tolerate=tolerate, about=about)

    def steps(self) -> Iterator[Step]:
        self._check()
        yield from self._clear(Stage.MAPPINGS)
        yield from self._vdso()
        made = {vma.start for vma in self.made}
        vmas = [vma for vma in self.vmas if vma.start not in made and Area.of(vma) not in self.kept]
        yield from self._map(Stage.MAPPINGS, vmas)
        yield from self._drop()
        yield from self._fill(Stage.CONTENT, [*self._wanted()])
        yield from self._protect()
        yield from self._layout()

    def bequeath(self, given: Bequest) -> Iterator[Step]:
        yield from self._clear(Stage.TREE)
        areas = {*given.areas}
        yield from self._map(Stage.TREE, [vma for vma in self.vmas if Area.of(vma) in areas])
        yield from self._fill(Stage.TREE, given.content)

    def _check(self) -> None:
        for vma in self.vmas:
            for bit, what in _NOT_YET.items():
                if vma.status & bit and not vma.status & SYSVIPC:
                    raise ImageError(self.name, f"{_range(vma)} is {what}, which cannot be restored yet")
            kinds = (mman.MAP_SHARED, mman.MAP_PRIVATE, mman.MAP_DROPPABLE)
            if vma.flags & (mman.MAP_SHARED | mman.MAP_PRIVATE | mman.MAP_DROPPABLE) not in kinds:
                raise ImageError(self.name, f"{_range(vma)} has flags {vma.flags:#x}")
            if not vma.status & (FILE_PRIVATE | FILE_SHARED) and not vma.flags & mman.MAP_ANONYMOUS:
                raise ImageError(self.name, f"{_range(vma)} has neither a file nor MAP_ANONYMOUS")

    def _clear(self, stage: Stage) -> Iterator[Step]:
        """Everything goes that exec gave the stub, or who made it, and that it does not have itself."""
        if self.inherited.is_clear:
            for area in sorted(self.inherited.areas - self.kept):
                yield self.step(stage, "munmap", area.start, area.end - area.start)
            return
        base = self.subject.stub.base
        yield self.step(stage, "munmap", 0, base)
        yield self.step(stage, "munmap", base + STUB_SPACE, mman.TASK_SIZE - base - STUB_SPACE)

    def _drop(self) -> Iterator[Step]:
        """Pages of who made it, where the task itself has none."""
        for one in joined(without(self.there, self.content)):
            args = (one.start, one.end - one.start, mman.MADV_DONTNEED)
            yield self.step(Stage.MAPPINGS, "madvise", *args, about=f"inherited pages at {one.start:#x}")

    def _vdso(self) -> Iterator[Step]:
        codes = [vma for vma in self.vmas if vma.status & VDSO]
        datas = [vma for vma in self.vmas if vma.status & VVAR]
        if not codes:
            return
        if len(codes) > 1 or len(datas) > 1:
            raise ImageError(self.name, "the vdso was taken apart, which cannot be restored yet")
        code = codes[0]
        start = datas[0].start if datas else code.start
        joined = not datas or datas[0].end == code.start
        image = vdso.Vdso(self.subject.task.vdso, code.start - start if joined else 0)
        inside = self._inside(code)
        if joined and vdso.same(image, self.own, inside):
            self.made = [*datas, code]
            yield from self._map_own(start)
            return
        if inside:
            self.subject.warn(
                "a thread was stopped inside another kernel's vdso: it may misread a clock once"
            )
        start = self._free(self.own.size)
        self.bridge = [(start, start + self.own.size)]
        patches = vdso.bridge(image, start + self.own.data_size, self.own, inside)
        self.patches = [(code.start + offset, content) for offset, content in patches]
        yield from self._map_own(start)

    def _inside(self, code: vma_entry) -> list[int]:
        pointers = (core.thread_info.gpregs.ip for core in self.subject.task.threads.values())
        return [pointer - code.start for pointer in pointers if code.start <= pointer < code.end]

    def _map_own(self, start: int) -> Iterator[Step]:
        """The kernel takes the address for a hint, so look whether it has followed it."""
        about = "vdso"
        size = len(self.own.code)
        yield self.step(Stage.MAPPINGS, "arch_prctl", mman.ARCH_MAP_VDSO_64, start, expect=size, about=about)
        yield self.step(Stage.MAPPINGS, "madvise", start, self.own.size, mman.MADV_NORMAL, about=about)

    def _map(self, stage: Stage, vmas: Sequence[vma_entry]) -> Iterator[Step]:
        last_use = {self._key(vma): vma.start for vma in vmas if self._has_file(vma)}
        opened: dict[tuple[int, int], Ref] = {}
        starts = [one.start for one in self.content]
        for vma in vmas:
            if vma.status & SYSVIPC:
                yield from self._attach(stage, vma)
                continue
            fd: int | Ref = -1
            key = self._key(vma)
            if self._has_file(vma):
                if key not in opened:
                    opened[key] = Ref("mapped file", key[0] << 2 | key[1])
                    yield from self._open(stage, key, opened[key])
                fd = opened[key]
            yield self._mmap(stage, vma, fd, writable=self._has_content(vma, starts))
            yield from self._advise(stage, vma)
            if key in opened and last_use[key] == vma.start:
                yield self.step(stage, "close", opened[key])

    def _attach(self, stage: Stage, vma: vma_entry) -> Iterator[Step]:
        entry = self.subject.snapshot.segments[vma.shmid]
        yield from sysvshm.attach(self.tid, stage, vma, entry, self._free)
        yield from self._advise(stage, vma)

    def _free(self, size: int, align: int = _GAP) -> int:
        """A place where this address space has nothing, now and later."""
        base = self.subject.stub.base
        occupied = [*_occupied(self.mm), (base, base + STUB_SPACE), *self.bridge]
        return _hole(sorted(occupied), size, max(align, _GAP))

    def _open(self, stage: Stage, key: tuple[int, int], ref: Ref) -> Iterator[Step]:
        if key in self.shared:
            fetch = self.step(
                stage,
                "pidfd_getfd",
                self.subject.stub.nursery_fd,
                self.shared[key],
                0,
                about="shared memory",
            )
            yield fetch._replace(gives=ref)
            return
        yield from open_steps(self.subject, key[0], stage, key[1], ref)

    @staticmethod
    def _has_file(vma: vma_entry) -> bool:
        return bool(vma.status & (FILE_PRIVATE | FILE_SHARED))

    @staticmethod
    def _key(vma: vma_entry) -> tuple[int, int]:
        """What is opened: the file id, and the access mode."""
        return vma.shmid, access_mode(vma)

    def _has_content(self, vma: vma_entry, starts: list[int]) -> bool:
        if any(vma.start <= address < vma.end for address, _ in self.patches):
            return True
        index = bisect_left(starts, vma.start)
        if index < len(starts) and starts[index] < vma.end:
            return True
        return index > 0 and self.content[index - 1].end > vma.start

    def _mmap(self, stage: Stage, vma: vma_entry, fd: int | Ref, *, writable: bool) -> Step:
        prot = vma.prot | (mman.PROT_WRITE if writable else 0)
        flags = vma.flags & _MAP_FLAGS | mman.MAP_FIXED_NOREPLACE
        offset = vma.pgoff if self._has_file(vma) else 0
        size = vma.end - vma.start
        about = f"mapping {_range(vma)}"
        return self.step(
            stage, "mmap", vma.start, size, prot, flags, fd, offset, expect=vma.start, about=about
        )

    def _advise(self, stage: Stage, vma: vma_entry) -> Iterator[Step]:
        """Advice on huge pages must be there before the content is."""
        for advice in range(vma.madv.bit_length()):
            if vma.madv >> advice & 1:
                if advice not in _ADVICE:
                    raise ImageError(self.name, f"{_range(vma)} has unknown advice {advice}")
                tolerate = frozenset({errno.EINVAL}) if advice in _DEPENDS_ON_KERNEL else frozenset[int]()
                size = vma.end - vma.start
                about = f"mapping {_range(vma)}"
                args = (vma.start, size, advice)
                yield self.step(stage, "madvise", *args, tolerate=tolerate, about=about)

    def _fill(self, stage: Stage, content: Sequence[Content]) -> Iterator[Step]:
        """By descriptors of the nursery's, each there for as long as it takes."""
        stub = self.subject.stub
        for file in dict.fromkeys(one.file for one in content):
            pages = Ref(f"{file} of {self.tid}", stub.pages.index(file))
            about = str(file)
            fetch = self.step(stage, "pidfd_getfd", stub.nursery_fd, pages.key, 0, about=about)
            yield fetch._replace(gives=pages)
            for one in joined(one for one in content if one.file == file):
                for at in range(one.start, one.end, _LARGEST_READ):
                    size = min(_LARGEST_READ, one.end - at)
                    args = (pages, at, size, one.offset + at - one.start)
                    yield self.step(stage, "pread64", *args, expect=size, about=f"pages at {at:#x}")
            yield self.step(stage, "close", pages)

    def _wanted(self) -> Iterator[Content]:
        """What is not there already, and does not belong to areas that the kernel makes."""
        missing = without(self.content, same(self.content, self.there))
        made = [Content(vma.start, vma.end, PagesFile(0, 0), 0) for vma in self.made]
        yield from without(missing, made)

    def _protect(self) -> Iterator[Step]:
        stage = Stage.PROTECTION
        guarded = [vma for vma in self.mm.vmas if vma.status & GUARD]
        for guard in guarded:
            args = (guard.start, guard.end - guard.start, mman.MADV_GUARD_INSTALL)
            yield self.step(stage, "madvise", *args, about=f"guard region {_range(guard)}")
        if self.patches:
            yield self._patch()
        made = {vma.start for vma in self.made}
        starts = [one.start for one in self.content]
        for vma in self.vmas:
            if vma.start in made:
                continue
            size, about = vma.end - vma.start, f"mapping {_range(vma)}"
            written = self._has_content(vma, starts) or Area.of(vma) in self.kept
            if not vma.prot & mman.PROT_WRITE and written:
                yield self.step(stage, "mprotect", vma.start, size, vma.prot, about=about)
            if vma.flags & mman.MAP_LOCKED:
                # What cannot be touched cannot be brought in beforehand.
                holes = not vma.prot or any(vma.start <= guard.start < vma.end for guard in guarded)
                how = mman.MLOCK_ONFAULT if holes or vma.lock_on_fault else 0
                yield self.step(stage, "mlock2", vma.start, size, how, about=about)
            if vma.sealed:
                yield self.step(stage, "mseal", vma.start, size, 0, tolerate=_NO_SUCH_CALL, about=about)

    def _patch(self) -> Step:
        """One process_vm_writev of the task into itself: there is no system call that copies inside."""
        local: list[bytes | Data] = []
        remote = b""
        for address, content in self.patches:
            local += [data(content), struct.pack("<Q", len(content))]
            remote += struct.pack("<QQ", address, len(content))
        count = len(self.patches)
        size = sum(len(content) for _, content in self.patches)
        args = (self.tid, Data(tuple(local), "&jumps"), count, data(remote), count, 0)
        return self.step(Stage.PROTECTION, "process_vm_writev", *args, expect=size, about="vdso")

    def _layout(self) -> Iterator[Step]:
        mm = self.mm
        used = {info.fd for info in self.subject.snapshot.fds(self.subject.task)}
        scratch = next(number for number in range(len(used) + 1) if number not in used)
        steps = open_steps(self.subject, mm.exe_file_id, Stage.LAYOUT, os.O_RDONLY, Ref("exe", self.tid))
        # The number stands inside of the struct, so it has to be known beforehand: opening gives the lowest.
        yield from (step._replace(expect=scratch) if step.gives else step for step in steps)
        auxv = tuple(mm.full_auxv) or tuple(mm.mm_saved_auxv) or (0, 0)
        head = struct.pack(
            "<11Q",
            mm.mm_start_code,
            mm.mm_end_code,
            mm.mm_start_data,
            mm.mm_end_data,
            mm.mm_start_brk,
            mm.mm_brk,
            mm.mm_start_stack,
            mm.mm_arg_start,
            mm.mm_arg_end,
            mm.mm_env_start,
            mm.mm_env_end,
        )
        words = data(struct.pack(f"<{len(auxv)}Q", *auxv))
        tail = struct.pack("<II", 8 * len(auxv), scratch)
        layout = Data((head, words, tail), "&layout")
        size = len(head) + 8 + len(tail)
        args = (mman.PR_SET_MM, mman.PR_SET_MM_MAP, layout, size, 0)
        yield self.step(Stage.LAYOUT, "prctl", *args, about="memory layout")
        yield self.step(Stage.LAYOUT, "close", scratch)


def _range(vma: vma_entry) -> str:
    return f"{vma.start:x}-{vma.end:x}"
