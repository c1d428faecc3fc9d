"""From mappings to areas, and what is refused."""

from __future__ import annotations

import os
import stat

import pytest

from criupy.images.pb.memory_pb2 import vma_entry
from criupy.linux.procfs.maps import Mapping
from criupy.resources.memory.dump import encode_vma
from criupy.resources.memory.vma import MappedFile, Refusal, Vma, classify, merge_vvar

START, END = 0x7F0000000000, 0x7F0000002000


def mapping(
    name: bytes = b"", flags: str = "rd wr", *, inode: int = 0, shared: bool = False, **others: int
) -> Mapping:
    fields = {"prot": 3, "offset": 0, "major": 0, "minor": 0, **others}
    return Mapping(
        START, END, shared=shared, inode=inode, name=name, flags=frozenset(flags.split()), **fields
    )


def file(
    path: bytes = b"/lib/libc.so", *, links: int = 1, mode: int = stat.S_IFREG | 0o755, device: int = 0
) -> MappedFile:
    found = os.stat_result((mode, 7, 3, links, 0, 0, 4096, 0, 0, 0), {"st_rdev": device})
    return MappedFile(path, found, os.O_RDONLY)


ANONYMOUS, PRIVATE, SHARED = 0x20, 0x2, 0x1


@pytest.mark.parametrize(
    ("given", "backing", "status", "flags", "madv"),
    [
        (mapping(), None, 1 | 1 << 9, PRIVATE | ANONYMOUS, 0),
        (mapping(b"[heap]"), None, 1 | 1 << 5 | 1 << 9, PRIVATE | ANONYMOUS, 0),
        (mapping(b"[stack]", "rd wr gd"), None, 1 | 1 << 9, PRIVATE | ANONYMOUS | 0x100, 0),
        (mapping(b"[anon: name ]", "rd lo nr"), None, 1 | 1 << 9, PRIVATE | ANONYMOUS | 0x6000, 0),
        (mapping(b"[vdso]", "rd ex de"), None, 1 | 1 << 3 | 1 << 9, PRIVATE | ANONYMOUS, 0),
        (mapping(b"[vvar]", "rd pf io de dd"), None, 1 | 1 << 12 | 1 << 9, PRIVATE | ANONYMOUS, 1 << 16),
        (mapping(b"[vsyscall]", "ex"), None, 1 << 2 | 1 << 9, PRIVATE | ANONYMOUS, 0),
        (mapping(b"/lib/libc.so", inode=3), file(), 1 | 1 << 6, PRIVATE, 0),
        (mapping(b"/lib/libc.so", inode=3, shared=True), file(), 1 | 1 << 7, SHARED, 0),
        # a file may have any name
        (mapping(b"[vdso]", inode=3), file(b"/tmp/[vdso]"), 1 | 1 << 6, PRIVATE, 0),
        (mapping(b"/anon_hugepage", inode=3), file(b"/anon_hugepage"), 1 | 1 << 6, PRIVATE, 0),
        (mapping(b"/SYSV", inode=3, shared=True), file(b"/SYSV"), 1 | 1 << 7, SHARED, 0),
        (
            mapping(b"/dev/zero", inode=3),
            file(b"/dev/zero", mode=stat.S_IFCHR | 0o666, device=os.makedev(1, 5)),
            1 | 1 << 6,
            PRIVATE,
            0,
        ),
        (mapping(b"", "rd nr wf dd dp"), None, 1 | 1 << 9, 0x8 | ANONYMOUS | 0x4000, 1 << 16 | 1 << 18),
        (
            mapping(b"", "rr sr dc mg hg nh dd wf"),
            None,
            1 | 1 << 9,
            PRIVATE | ANONYMOUS,
            sum(1 << advice for advice in (1, 2, 10, 12, 14, 15, 16, 18)),
        ),
        (
            mapping(b"/anon_hugepage (deleted)", "rd ht", inode=4, page_size=2 << 20),
            file(b"/anon_hugepage (deleted)", links=0),
            1 | 1 << 9,
            PRIVATE | ANONYMOUS | 0x40000 | 21 << 26,
            0,
        ),
        (
            mapping(b"/dev/zero (deleted)", inode=3, shared=True),
            file(b"/dev/zero (deleted)", links=0),
            1 | 1 << 7 | 1 << 14,
            SHARED,
            0,
        ),
        (
            mapping(b"/SYSV00001234 (deleted)", inode=3, shared=True),
            file(b"/SYSV00001234 (deleted)", links=0),
            1 | 1 << 8 | 1 << 10,
            SHARED | ANONYMOUS,
            0,
        ),
        (
            mapping(b"/memfd:x (deleted)", inode=3),
            file(b"/memfd:x (deleted)", links=0),
            1 | 1 << 6 | 1 << 14,
            PRIVATE,
            0,
        ),
        (
            mapping(b"/anon_hugepage (deleted)", "rd ht", inode=4, page_size=2 << 20, shared=True),
            file(b"/anon_hugepage (deleted)", links=0),
            1 | 1 << 7 | 1 << 14,
            SHARED | 0x40000 | 21 << 26,
            0,
        ),
    ],
    ids=lambda value: value.name.decode() or "anonymous" if isinstance(value, Mapping) else "",
)
def test_kinds(given: Mapping, backing: MappedFile | None, status: int, flags: int, madv: int) -> None:
    vma = classify(given, backing)
    assert (vma.start, vma.end, vma.prot) == (START, END, 3)
    assert (hex(vma.status), hex(vma.flags), hex(vma.madv)) == (hex(status), hex(flags), hex(madv))


@pytest.mark.parametrize(
    ("given", "backing", "why"),
    [
        (mapping(b"/dev/mem", "rd io", inode=3), file(mode=stat.S_IFCHR), "memory of a device"),
        (mapping(b"/dev/dri/card0", inode=3), file(mode=stat.S_IFCHR), "a mapped device"),
        (mapping(b"/SYSV00000000 (deleted)", inode=3), file(links=0), "System V"),
        (mapping(b"/[aio] (deleted)", inode=3, shared=True), file(links=0), "AIO"),
        (mapping(b"socket:[4711]", inode=3, shared=True), None, "socket"),
        (mapping(b"anon_inode:[io_uring]", minor=14, shared=True), None, "of this kind"),
        (mapping(b"/lib/x", inode=3), None, "does not show"),
        (mapping(flags="rd uw"), None, "userfaultfd"),
        (mapping(flags="rd ss"), None, "shadow stacks"),
        (mapping(protection_key=2), None, "protection key 2"),
    ],
)
def test_refusals(given: Mapping, backing: MappedFile | None, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        classify(given, backing)
    assert refused.value.hint


def test_parts_of_the_vvar_are_one_area() -> None:
    data = classify(mapping(b"[vvar]", "rd pf io dd"), None)
    clocks = Vma(END, END + 0x1000, 1, data.flags, data.status, madv=data.madv)
    apart = Vma(END + 0x9000, END + 0xA000, 1, data.flags, data.status)
    merged = merge_vvar([data, clocks, apart])
    assert [(vma.start, vma.end) for vma in merged] == [(START, END + 0x1000), (apart.start, apart.end)]


def test_what_the_image_has() -> None:
    entry = vma_entry()
    vma = classify(mapping(b"/lib/libc.so", "rd lo lf sl rr", inode=3, offset=0x5000), file())
    encode_vma(vma, 9, entry)
    assert entry == vma_entry(
        start=START, end=END, pgoff=0x5000, shmid=9, prot=3, flags=0x2002, status=0x41, fd=-1, madv=2, fdflags=0,
        lock_on_fault=True, sealed=True,
    )  # fmt: skip
    plain = vma_entry()
    encode_vma(classify(mapping(), None), 0, plain)
    assert not plain.HasField("fdflags")
    assert not plain.HasField("madv")


def test_who_has_pages_of_his_own() -> None:
    def has(
        name: bytes = b"", flags: str = "rd", backing: MappedFile | None = None, *, shared: bool = False
    ) -> bool:
        return classify(mapping(name, flags, inode=3 if backing else 0, shared=shared), backing).has_pages

    assert has()
    assert has(b"/lib/libc.so", backing=file())
    assert has(b"[vdso]")
    assert not has(b"/lib/libc.so", backing=file(), shared=True)
    assert not has(b"[vvar]", "rd io")
    assert not has(b"[vsyscall]")
    assert not has(flags="rd dp")
