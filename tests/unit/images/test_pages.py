"""Pagemaps: runs are joined when written, checked when read, and followed to the set that has the content."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.images import pages
from criupy.images.codec import Record
from criupy.images.directory import ImageDirectory, ImageWriter
from criupy.images.pages import (
    PE_LAZY,
    PE_PARENT,
    PE_PRESENT,
    PagemapWriter,
    PageRun,
    PageSources,
    load_pagemap,
)
from criupy.images.pb.core_pb2 import task_kobj_ids_entry
from criupy.images.pb.inventory_pb2 import inventory_entry
from criupy.images.pb.memory_pb2 import pagemap_entry, pagemap_head

PAGE = 4096
INVENTORY = inventory_entry(
    img_version=2, root_ids=task_kobj_ids_entry(vm_id=1, files_id=1, fs_id=1, sighand_id=1)
)


def write_set(path, messages, content: bytes, *, parent: str = "", pages_id: int = 1) -> str:
    """An image set with the pagemap of task 7."""
    with ImageWriter(str(path)) as writer:
        writer.write("PAGEMAP", messages, 7)
        with open(pages.create_pages(writer, pages_id), "wb") as stream:
            stream.write(content)
        writer.commit(INVENTORY)
    if parent:
        (path / "parent").symlink_to(parent)
    return str(path)


def entry(vaddr: int, count: int, flags: int = PE_PRESENT) -> pagemap_entry:
    return pagemap_entry(vaddr=vaddr, compat_nr_pages=min(count, 0xFFFFFFFF), nr_pages=count, flags=flags)


def load(path: str) -> pages.Pagemap:
    with ImageDirectory(path) as directory:
        pagemap = load_pagemap(directory, "PAGEMAP", 7)
    assert pagemap is not None
    return pagemap


def content_of(path: str) -> dict[int, bytes]:
    """Every page by its address, wherever it is."""
    with ImageDirectory(path) as directory:
        pagemap = load_pagemap(directory, "PAGEMAP", 7)
        assert pagemap is not None
        with PageSources(directory, "PAGEMAP", 7, pagemap) as found:
            return {
                source.vaddr + i * PAGE: os.pread(found.files[source.file], PAGE, source.offset + i * PAGE)
                for source in found.sources
                for i in range(source.nr_pages)
            }


def test_writer_joins_and_places():
    writer = PagemapWriter(3)
    assert writer.add(0x1000, 2) == 0
    assert writer.add(0x3000, 1) == 2 * PAGE
    assert writer.add(0x4000, 1, PE_PRESENT | PE_LAZY) == 3 * PAGE
    assert writer.add(0x5000, 4, PE_PARENT) == 4 * PAGE
    assert writer.add(0x9000, 1) == 4 * PAGE
    assert writer.add(0xB000, 1) == 5 * PAGE
    assert writer.present_pages == 6
    assert list(writer.records()) == [
        pagemap_head(pages_id=3),
        entry(0x1000, 3),
        entry(0x4000, 1, PE_PRESENT | PE_LAZY),
        entry(0x5000, 4, PE_PARENT),
        entry(0x9000, 1),
        entry(0xB000, 1),
    ]
    with pytest.raises(ValueError, match="come after"):
        writer.add(0xB000, 1)


def test_more_pages_than_a_32_bit_count_holds():
    writer = PagemapWriter(1)
    writer.add(0, 0xFFFFFFFF)
    writer.add(0xFFFFFFFF * PAGE, 2)
    assert [run.nr_pages for run in writer.pagemap()] == [0xFFFFFFFF, 2]


def test_written_is_read(tmp_path):
    writer = PagemapWriter(5)
    writer.add(0x1000, 2)
    writer.add(0x8000, 1, PE_PRESENT | PE_LAZY)
    path = write_set(tmp_path / "set", writer.records(), b"x" * 3 * PAGE, pages_id=5)
    assert load(path) == writer.pagemap("pagemap-7.img")
    assert load(path).pages_file == "pages-5.img"


def test_count_and_flags_of_older_versions(tmp_path):
    old = [
        pagemap_head(pages_id=1),
        pagemap_entry(vaddr=0x1000, compat_nr_pages=2),
        pagemap_entry(vaddr=0x4000, compat_nr_pages=1, in_parent=True),
        pagemap_entry(vaddr=0x6000, compat_nr_pages=0, nr_pages=1),
    ]
    assert load(write_set(tmp_path / "set", old, bytes(3 * PAGE))).runs == (
        PageRun(0x1000, 2, PE_PRESENT, 0),
        PageRun(0x4000, 1, PE_PARENT, 2 * PAGE),
        PageRun(0x6000, 1, PE_PRESENT, 2 * PAGE),
    )


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry(0x1001, 1)], "not page aligned"),
        ([entry(0x1000, 0)], "has 0 pages"),
        ([entry(0x1000, 1 << 60)], "has 1152921504606846976 pages"),
        ([entry(0x2000, 1), entry(0x1000, 1)], "out of order"),
        ([entry(0x1000, 2), entry(0x2000, 1)], "overlaps"),
        ([entry(0x1000, 1, 8)], "has flags 0x8"),
        ([entry(0x1000, 4)], "has 12288 bytes where pagemap-7.img needs 16384"),
    ],
)
def test_broken_pagemaps(tmp_path, entries, reason):
    path = write_set(tmp_path / "set", [pagemap_head(pages_id=1), *entries], bytes(3 * PAGE))
    with pytest.raises(ImageError, match=reason):
        load(path)


def test_pages_file_may_be_missing_only_if_nothing_is_in_it(tmp_path):
    path = write_set(tmp_path / "set", [pagemap_head(pages_id=1)], b"")
    (tmp_path / "set/pages-1.img").unlink()
    assert load(path).runs == ()
    path = write_set(tmp_path / "set", [pagemap_head(pages_id=1), entry(0, 1)], b"")
    (tmp_path / "set/pages-1.img").unlink()
    with pytest.raises(ImageError, match=r"pages-1\.img: is missing"):
        load(path)


def letters(text: str) -> bytes:
    return b"".join(letter.encode() * PAGE for letter in text)


def test_parents_are_followed(tmp_path):
    head = pagemap_head(pages_id=1)
    write_set(
        tmp_path / "a", [head, entry(0x1000, 4), entry(0x5000, 2, PE_PRESENT | PE_PARENT)], letters("abcdef")
    )
    middle = [head, entry(0x1000, 1, PE_PARENT), entry(0x2000, 1), entry(0x3000, 4, PE_PARENT)]
    write_set(tmp_path / "b", middle, letters("B"), parent="../a")
    last = [head, entry(0x1000, 3, PE_PARENT), entry(0x4000, 1), entry(0x5000, 1, PE_PARENT)]
    path = write_set(tmp_path / "c", last, letters("D"), parent="../b")
    (tmp_path / "a/inventory.img").unlink()  # a parent needs none
    found = content_of(path)
    assert {vaddr: page[:1] for vaddr, page in found.items()} == {
        0x1000: b"a", 0x2000: b"B", 0x3000: b"c", 0x4000: b"D", 0x5000: b"e",
    }  # fmt: skip


def test_parents_that_do_not_hold_what_is_needed(tmp_path):
    head = pagemap_head(pages_id=1)
    path = write_set(tmp_path / "b", [head, entry(0x1000, 3, PE_PARENT)], b"", parent="../a")
    with pytest.raises(ImageError, match=r"parent -> \.\./a: cannot be opened"):
        content_of(path)
    write_set(tmp_path / "a", [head, entry(0x1000, 1), entry(0x3000, 1)], letters("ab"))
    with pytest.raises(ImageError, match="has no page at 0x2000"):
        content_of(path)
    (tmp_path / "a/pagemap-7.img").unlink()
    with pytest.raises(ImageError, match=r"pagemap-7\.img: is missing"):
        content_of(path)
    (tmp_path / "b/parent").unlink()
    with pytest.raises(ImageError, match="are in a parent, but there is none"):
        content_of(path)


@pytest.mark.timeout(30)
def test_parents_in_a_circle(tmp_path):
    path = write_set(tmp_path / "a", [pagemap_head(pages_id=1), entry(0x1000, 1, PE_PARENT)], b"", parent=".")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ImageError, match="build upon each other"):
        content_of(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_lazy_pages_are_elsewhere(tmp_path):
    path = write_set(tmp_path / "a", [pagemap_head(pages_id=1), entry(0x1000, 1, PE_LAZY)], b"")
    with pytest.raises(ImageError, match="source of a migration"):
        content_of(path)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([1, 4, 6])), max_size=20))
def test_offsets_are_the_sum_of_present_pages_before(parts):
    writer, vaddr, present = PagemapWriter(1), 0, 0
    expected = {}
    for gap, count, flags in parts:
        vaddr += gap * PAGE
        assert writer.add(vaddr, count, flags) == present * PAGE
        for _ in range(count):
            expected[vaddr] = (flags, present * PAGE if flags & PE_PRESENT else None)
            vaddr += PAGE
            present += bool(flags & PE_PRESENT)
    found = {}
    for run in writer.pagemap():
        for i in range(run.nr_pages):
            offset = run.offset + i * PAGE if run.flags & PE_PRESENT else None
            found[run.vaddr + i * PAGE] = (run.flags, offset)
    assert found == expected


def test_records_of_a_pagemap_are_messages():
    assert not any(isinstance(message, Record) for message in PagemapWriter(1).records())
