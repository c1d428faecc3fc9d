"""The vdso: code of the kernel in every address space, whose addresses a program has learnt by heart.

It is mapped anew by the kernel at the place that the image has.  Where the image has the code of another
kernel, that code stays as ordinary memory.  Each function in it jumps to the same one of this kernel's vdso,
which is mapped elsewhere; one that this kernel lacks becomes the system call that it stands for.

Sources: Linux arch/x86/entry/vdso/vma.c (data pages first, then the code), arch/x86/entry/vdso/vdso.lds.S.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

from criupy.errors import ImageError, TraceeError
from criupy.linux.procfs.maps import parse_maps

_SYSTEM_CALLS = {
    "__vdso_gettimeofday": 96,
    "__vdso_time": 201,
    "__vdso_clock_gettime": 228,
    "__vdso_clock_getres": 229,
    "__vdso_getcpu": 309,
    "__vdso_getrandom": 318,
}


class Function(NamedTuple):
    """``offset`` and ``size`` in bytes, the offset from the start of the vdso."""

    offset: int
    size: int


@dataclass(frozen=True)
class Vdso:
    """Code, and how many bytes of data pages stand before it."""

    code: bytes
    data_size: int

    @property
    def size(self) -> int:
        return self.data_size + len(self.code)

    @cached_property
    def functions(self) -> dict[str, Function]:
        """The functions that it exports, by name.  ValueError for bytes that are no vdso."""
        try:
            return dict(_exported(self.code))
        except Exception as error:  # of damaged files, pyelftools raises whatever it runs into
            raise ValueError("it is no ELF file with dynamic symbols") from error

    @cached_property
    def elf(self) -> bytes:
        """The bytes of the ELF file; behind it there is padding, which a dump may have used for a moment."""
        table, size, count = (
            struct.unpack_from("<40xQ10xHH", self.code) if len(self.code) >= 64 else (0, 0, 0)
        )
        return self.code[: table + size * count]


def _exported(code: bytes) -> Iterator[tuple[str, Function]]:
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    segments: list[Any] = list(ELFFile(io.BytesIO(code)).iter_segments())
    base = min(part["p_vaddr"] for part in segments if part["p_type"] == "PT_LOAD")
    dynamic = next(part for part in segments if isinstance(part, DynamicSegment))
    for symbol in dynamic.iter_symbols():
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
            yield symbol.name, Function(symbol["st_value"] - base, symbol["st_size"])


@cache
def running() -> Vdso:
    """The vdso of this kernel, from the address space of this process.  TraceeError where there is none."""
    with open("/proc/self/maps", "rb") as maps:
        mappings = parse_maps(maps.read())
    code = next((mapping for mapping in mappings if mapping.name == b"[vdso]"), None)
    if code is None:
        raise TraceeError("this process has no vdso, so nothing is known of the kernel's")
    start = code.start
    for mapping in reversed(mappings):
        if mapping.name.startswith(b"[vvar") and mapping.end == start:
            start = mapping.start
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(code.start)
        return Vdso(memory.read(code.end - code.start), code.start - start)


def same(image: Vdso, own: Vdso, inside: Sequence[int]) -> bool:
    """Whether ``own`` can stand in for the image's.

    Its code is equal, or nobody was stopped ``inside`` (offsets) and every function is where it was.
    """
    if (image.data_size, len(image.code)) != (own.data_size, len(own.code)):
        return False
    if image.elf and image.elf == own.elf:
        return True
    return not inside and _functions(image) == own.functions


def _functions(image: Vdso) -> dict[str, Function]:
    try:
        return image.functions
    except ValueError as error:
        raise ImageError("pages file", f"the vdso in the images cannot be used: {error}") from error


def bridge(image: Vdso, own_code: int, own: Vdso, inside: Sequence[int]) -> list[tuple[int, bytes]]:
    """What to write over the image's code: (offset, bytes); ``own_code`` is where that of ``own`` is mapped.

    ImageError if a thread was stopped in what has to be written over.
    """
    known = _functions(image)
    patches: list[tuple[int, bytes]] = []
    for name, number in _SYSTEM_CALLS.items():
        if name in known:
            target = own.functions.get(name)
            code = _jump(own_code + target.offset) if target else _system_call(number)
            patches.append((known[name].offset, code))
    spaces = sorted({function.offset for function in known.values()} | {len(image.code)})
    for offset, code in patches:
        if offset < 0 or next((end for end in spaces if end > offset), 0) < offset + len(code):
            raise ImageError("pages file", f"the function at {offset:#x} of the vdso has no room for a jump")
        if any(offset < at < offset + len(code) for at in inside):
            message = "a thread was stopped at the entry of a function of the vdso, which is another kernel's"
            raise ImageError("core", message, hint="dump again, or restore on the kernel of the dump")
    return patches


def _jump(target: int) -> bytes:
    """``jmp *0(%rip)`` and the address: changes no register."""
    return b"\xff\x25" + bytes(4) + struct.pack("<Q", target)


def _system_call(number: int) -> bytes:
    """``mov $number, %eax; syscall; ret``: arguments of up to three are where the kernel has them."""
    return b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"
