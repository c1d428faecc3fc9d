"""Where in a frozen process there is room for a stub and its work area, and what killed runs have left there."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.linux import abi
from criupy.tracee import blob
from criupy.tracee.batch import RemoteAddress
from criupy.tracee.frozen import FrozenProcess
from criupy.tracee.ptrace import Registers, Tracee

U64 = (1 << 64) - 1
SIGNATURE = b"criupy-1"
STUB = struct.Struct("<8s7QIIQQ16x4Q14Q")
"""The data of `blob.S`, in its order."""
SAVED = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rcx", "rdx", "rsi", "rdi")
WORK_AREA_HEADER = struct.Struct("<8sQ48x")
"""Signature, nonce of the stub that mapped it."""
OVERFLOW = 11
"""Bit of OF in rflags."""
_STATUS_FLAGS = 0x8FF

_SEARCHED_STACK = 1 << 16
_RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_VDSO = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ [0-9a-f]+ 00:00 0 +\[vdso\]$", re.MULTILINE)
"""Without an inode: a file may have this name too."""
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PF_X = 1, 1
_MINUS_EINTR = -4 & U64


class _Area(NamedTuple):
    start: int
    end: int
    perms: bytes
    offset: int
    inode: int
    name: bytes


class Slot(NamedTuple):
    """A place for a stub, and what stands there when there is none."""

    address: RemoteAddress
    pristine: bytes


class Leftover(NamedTuple):
    """The stub of a killed run, and its work area; ``length`` is 0 when that is not mapped any more."""

    slot: Slot
    area: int
    length: int


class Space:
    """The address space of a frozen process.  Source of the maps format: Linux fs/proc/task_mmu.c"""

    def __init__(self, process: FrozenProcess) -> None:
        self.process = process
        self.memory = process.memory
        with open(f"/proc/{process.speaker}/maps", "rb", buffering=0) as file:
            self._text = file.readall()

    @cached_property
    def areas(self) -> list[_Area]:
        """All of them; what is needed while the process stands is found without, which takes less time."""
        return [_area(line) for line in self._text.splitlines()]

    def gap(self, size: int) -> int:
        """An address in the middle of the largest hole, far from whatever grows."""
        ranges = [(int(first, 16), int(last, 16)) for first, last in _RANGE.findall(self._text)]
        holes = [
            (after[0] - before[1], before[1]) for before, after in pairwise(ranges) if after[0] < 1 << 47
        ]
        length, start = max(holes)
        if length < 4 * size + (1 << 22):
            raise TraceeError(f"task {self.process.pid}: its address space is full")
        return start + length // 2 & ~((1 << 21) - 1)

    def has_leftovers(self) -> bool:
        """Whether there is something of a killed run; the process need not be stopped."""
        for places in (self._vdso_padding(), self._segment_tails()):
            slots = list(places)
            if any(self.memory.read(slot.address + blob.DATA, 8) == SIGNATURE for slot in slots):
                return True
            if slots:
                return False
        return False

    def slot(self) -> tuple[Slot, list[Leftover]]:
        """Where a stub fits, and the stubs of killed runs, which nothing needs any more."""
        for places in (self._vdso_padding(), self._segment_tails()):
            leftovers: list[Leftover] = []
            free: list[Slot] = []
            for slot in places:
                content = self.memory.read(slot.address, blob.STUB_END)
                if content == slot.pristine:
                    free.append(slot)
                elif content[blob.DATA :].startswith(SIGNATURE) and not self._is_returned_to(
                    slot.address, content
                ):
                    leftovers.append(self._clean(slot, content))
            free += (leftover.slot for leftover in leftovers)
            if free:
                return free[0], leftovers
        raise TraceeError(f"task {self.process.pid} has no room for {blob.STUB_END} bytes of code")

    def _vdso_padding(self) -> Iterator[Slot]:
        """Zeros behind the section headers and the only segment of the vdso, which nothing uses."""
        found = _VDSO.search(self._text)
        if found is None:
            return
        start, end = int(found[1], 16), int(found[2], 16)
        header = _EHDR.unpack(self.memory.read(start, _EHDR.size))
        segments, sections, section_size, section_count = header[5], header[6], *header[11:13]
        segment = _PHDR.unpack(self.memory.read(start + segments, _PHDR.size))
        used = max(sections + section_size * section_count, segment[2] + segment[5])
        first = start + -(-used // 16) * 16
        for at in range(first, end - blob.STUB_END + 1, blob.STUB_END):
            yield Slot(RemoteAddress(at), bytes(blob.STUB_END))

    def _segment_tails(self) -> Iterator[Slot]:
        """The rest of the last page of executable segments: of the file, but not of the program."""
        headers = {area.inode: area for area in self.areas if area.inode and area.offset == 0}
        for area in self.areas:
            if area.perms != b"r-xp" or area.inode not in headers:
                continue
            base = headers[area.inode].start
            header = _EHDR.unpack(self.memory.read(base, _EHDR.size))
            if not header[0].startswith(b"\x7fELF\x02"):
                continue
            table = self.memory.read(base + header[5], _PHDR.size * header[10])
            for kind, flags, offset, _, _, size, _, _ in _PHDR.iter_unpack(table):
                last = area.start + (offset + size + 15 & ~15) - area.offset
                if kind == _PT_LOAD and flags & _PF_X and area.start < last <= area.end - blob.STUB_END:
                    yield Slot(RemoteAddress(last), self._in_file(area, last))

    def _in_file(self, area: _Area, address: int) -> bytes:
        path = f"/proc/{self.process.speaker}/map_files/{area.start:x}-{area.end:x}"
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TraceeError(f"task {self.process.pid}: opening {path}", errno=error.errno or 0) from error
        try:
            content = os.pread(file, blob.STUB_END, area.offset + address - area.start)
        finally:
            os.close(file)
        return content.ljust(blob.STUB_END, b"\0")

    def _is_returned_to(self, stub: int, content: bytes) -> bool:
        """Whether a signal handler may return into the stub, or into a copy of it in its work area.

        A handler that runs as the stub unblocks signals has its frame above the stack pointer.
        """
        _, _, area, length, *_ = STUB.unpack_from(content, blob.DATA)
        places = range(stub, stub + blob.STUB_END), range(area, area + length)
        return any(
            word in places[0] or word in places[1]
            for thread in self.process.threads
            for word in self._stack(thread.regs().rsp & ~7)
        )

    def _stack(self, pointer: int) -> memoryview:
        """The 64-bit words from a stack pointer on, as far as frames may reasonably be."""
        end = next((area.end for area in self.areas if area.start <= pointer < area.end), pointer)
        size = min(end - pointer, _SEARCHED_STACK)
        return memoryview(self.memory.read(pointer, size) if size else b"").cast("Q")

    def _clean(self, slot: Slot, content: bytes) -> Leftover:
        """Bring back threads that are still on their way, stopped ones say."""
        stub = slot.address
        _, nonce, area, length, *_ = STUB.unpack_from(content, blob.DATA)
        is_mapped = self._is_work_area(area, length, nonce)
        for thread in self.process.threads:
            rip = thread.regs().rip
            if stub <= rip < stub + blob.STUB_END:
                _bring_back(thread, stub, content)
            elif is_mapped and area <= rip < area + length:
                copy = rip - (rip - area - WORK_AREA_HEADER.size) % blob.STUB_END
                _bring_back(thread, copy, self.memory.read(copy, blob.STUB_END))
        return Leftover(slot, area, length if is_mapped else 0)

    def _is_work_area(self, address: int, length: int, nonce: int) -> bool:
        mapped = [area for area in self.areas if area.start < address + length and area.end > address]
        if sum(area.end - area.start for area in mapped) != length:
            return False
        return self.memory.read(address, WORK_AREA_HEADER.size) == WORK_AREA_HEADER.pack(SIGNATURE, nonce)


def _area(line: bytes) -> _Area:
    place, perms, offset, _, inode, *name = line.split(maxsplit=5)
    start, _, end = place.partition(b"-")
    return _Area(int(start, 16), int(end, 16), perms, int(offset, 16), int(inode), name[0] if name else b"")


def _bring_back(thread: Tracee, stub: int, content: bytes) -> None:
    """Give a thread inside the stub of a killed run what that stub would have given it in the end."""
    regs = thread.regs()
    fields = STUB.unpack_from(content, blob.DATA)
    interruptible, interruptible_mask, mask, rip, interrupted_rip, rax, flags = fields[9:16]
    place = regs.rip - stub
    landed = place in (blob.INTERRUPTED, blob.RETURN)
    has_eintr = regs.rax == _MINUS_EINTR if landed else place > blob.RETURN and regs.rbp == 1
    set_values(regs, dict(zip(SAVED, fields[16:], strict=True)))
    regs.eflags = regs.eflags & ~_STATUS_FLAGS | flags >> 8 | (flags & 1) << OVERFLOW
    regs.rip, regs.rax, regs.orig_rax = interrupted_rip, rax, U64
    if rip != interrupted_rip:  # a call was interrupted
        if has_eintr:
            regs.rax = _MINUS_EINTR
        else:
            by_any_handler = interruptible and interruptible_mask == mask
            regs.rax = -(abi.ERESTARTNOHAND if by_any_handler else abi.ERESTARTSYS) & U64
            regs.orig_rax = rax
    thread.set_sigmask(mask)
    thread.set_regs(regs)


def set_values(regs: Registers, values: dict[str, int]) -> None:
    """Set registers by name."""
    for name, value in values.items():
        setattr(regs, name, value)
