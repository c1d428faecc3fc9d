"""The plan of an address space: golden texts, ranges, and what is refused."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.images.pages import Content, PagemapWriter, PagesFile
from criupy.images.pb.core_pb2 import core_entry, fs_entry, pstree_entry, task_kobj_ids_entry
from criupy.images.pb.fdtable_pb2 import REG, fdinfo_entry, file_entry
from criupy.images.pb.inventory_pb2 import inventory_entry
from criupy.images.pb.memory_pb2 import mm_entry, vma_entry
from criupy.linux.features import KernelFeatures
from criupy.model.plan import STUB_SPACE, Step, StubPlan
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources.kind import PlanSubject
from criupy.resources.memory import choose_stub_base, plan, vdso

PAGE = 4096
PID = 77
REGULAR, VSYSCALL, VDSO, HEAP, FILE_PRIVATE, FILE_SHARED, ANON_PRIVATE, VVAR, MEMFD, GUARD = (
    1 << bit for bit in (0, 2, 3, 5, 6, 7, 9, 12, 14, 16)
)
ANON = REGULAR | ANON_PRIVATE
OWN = vdso.Vdso(b"code".ljust(2 * PAGE), 4 * PAGE)
OWN.__dict__["functions"] = {"__vdso_time": vdso.Function(0x800, 40)}
OWN.__dict__["elf"] = OWN.code


def area(
    start: int, pages: int, prot: int = 3, flags: int = 0x22, status: int = ANON, **others: int
) -> vma_entry:
    fields = {"pgoff": 0, "shmid": 0, **others}
    end = start + pages * PAGE
    return vma_entry(start=start, end=end, prot=prot, flags=flags, status=status, fd=-1, **fields)


def subject_of(
    vmas: list[vma_entry],
    runs: list[tuple[int, int, int]] = [],  # noqa: B006 - only read
    *,
    fds: list[int] = [],  # noqa: B006 - only read
    code: bytes = b"",
    ip: int = 0,
    warnings: list[str] | None = None,
) -> PlanSubject:
    fields = (
        "mm_start_code mm_end_code mm_start_data mm_end_data mm_start_stack mm_start_brk mm_brk mm_arg_start "
        "mm_arg_end mm_env_start mm_env_end"
    )
    addresses: dict[str, Any] = {name: number << 12 for number, name in enumerate(fields.split(), 1)}
    mm = mm_entry(exe_file_id=9, mm_saved_auxv=[6, 4096, 0, 0], vmas=vmas, **addresses)
    writer = PagemapWriter(1)
    for start, pages, flags in runs:
        writer.add(start, pages, flags)
    core = core_entry(mtype=1)
    core.thread_info.gpregs.ip = ip
    task = TaskImages(
        PID,
        pstree_entry(pid=PID, ppid=0, pgid=PID, sid=PID, threads=[PID]),
        core,
        ids=task_kobj_ids_entry(vm_id=2, files_id=2, fs_id=2, sighand_id=2),
        mm=mm,
        fs=fs_entry(cwd_id=9, root_id=9),
        threads={PID: core},
        pagemap=writer.pagemap("pagemap-77.img"),
        vdso=code,
    )
    files = {}
    for number, name in ((3, b"/lib/libc.so"), (4, b"/data"), (9, b"/bin/program")):
        files[number] = file_entry(type=REG, id=number)
        files[number].reg.id, files[number].reg.name, files[number].reg.flags, files[number].reg.pos = (
            number,
            name,
            0,
            0,
        )
    snapshot = Snapshot(
        inventory=inventory_entry(img_version=2),
        tasks=(task,),
        files=files,
        fdinfo={2: [fdinfo_entry(id=3, flags=0, type=REG, fd=fd) for fd in fds]},
    )
    features = KernelFeatures(capabilities=0, pagemap_scan=True)
    stub = StubPlan(choose_stub_base([mm]), nursery_fd=90, pages=(PagesFile(0, 7), PagesFile(0, 1)))
    return PlanSubject(PID, task, snapshot, features, (warnings if warnings is not None else []).append, stub)


def planned(subject: PlanSubject) -> list[Step]:
    return list(plan(subject, {}, own_vdso=OWN))


def text_of(steps: list[Step]) -> list[str]:
    return [f"{step.stage.name.lower()} {step}" for step in steps]


CLEAR = ["mappings munmap(0, 0x40000000)", "mappings munmap(0x80000000, 0x7fff7ffff000)"]
LAYOUT = [
    'layout openat(-100, "/bin/program", 256, 0) = <exe 0x4d>',
    "layout prctl(35, 14, &layout, 104, 0)",
    "layout close(0)",
]


def test_an_address_space() -> None:
    low, mid, high = 0x400000, 0x7F0000000000, 0x7FFF00000000
    subject = subject_of(
        [
            area(low, 2, 5, 0x2, REGULAR | FILE_PRIVATE, shmid=3, fdflags=0),
            area(low + 2 * PAGE, 1, 1, 0x2, REGULAR | FILE_PRIVATE, shmid=3, pgoff=2 * PAGE, fdflags=0),
            area(low + 9 * PAGE, 4, status=ANON | HEAP, madv=1 << 14 | 1 << 16),
            area(mid, 8, 3, 0x1, REGULAR | FILE_SHARED, shmid=4, pgoff=PAGE, fdflags=2),
            area(mid + 8 * PAGE, 2, 0, 0x4022),
            area(high, 4, 3, 0x2122),
            area(0xFFFFFFFFFF600000, 1, 4, 0x22, VSYSCALL | ANON_PRIVATE),
            area(low + 10 * PAGE, 2, 0, 0, GUARD),
        ],
        [
            (low + 2 * PAGE, 1, 4),
            (low + 9 * PAGE, 1, 6),
            (mid + 9 * PAGE, 1, 6),
            (high + PAGE, 2, 4),
            (high + 3 * PAGE, 1, 4),
        ],
    )
    steps = planned(subject)
    assert text_of(steps) == [
        *CLEAR,
        'mappings openat(-100, "/lib/libc.so", 256, 0) = <mapped file 0xc>',
        "mappings mmap(0x400000, 0x2000, 5, 0x100002, <mapped file 0xc>, 0)",
        "mappings mmap(0x402000, 4096, 3, 0x100002, <mapped file 0xc>, 0x2000)",
        "mappings close(<mapped file 0xc>)",
        "mappings mmap(0x409000, 0x4000, 3, 0x100022, -1, 0)",
        "mappings madvise(0x409000, 0x4000, 14)",
        "mappings madvise(0x409000, 0x4000, 16)",
        'mappings openat(-100, "/data", 258, 0) = <mapped file 0x12>',
        "mappings mmap(0x7f0000000000, 0x8000, 3, 0x100001, <mapped file 0x12>, 4096)",
        "mappings close(<mapped file 0x12>)",
        "mappings mmap(0x7f0000008000, 0x2000, 2, 0x104022, -1, 0)",
        "mappings mmap(0x7fff00000000, 0x4000, 3, 0x100122, -1, 0)",
        "content pidfd_getfd(90, 1, 0) = <pages-1.img of 77 0x1>",
        "content pread64(<pages-1.img of 77 0x1>, 0x402000, 4096, 0)",
        "content pread64(<pages-1.img of 77 0x1>, 0x409000, 4096, 4096)",
        "content pread64(<pages-1.img of 77 0x1>, 0x7f0000009000, 4096, 0x2000)",
        "content pread64(<pages-1.img of 77 0x1>, 0x7fff00001000, 0x3000, 0x3000)",
        "content close(<pages-1.img of 77 0x1>)",
        "protection madvise(0x40a000, 0x2000, 102)",
        "protection mprotect(0x402000, 4096, 1)",
        "protection mprotect(0x7f0000008000, 0x2000, 0)",
        "protection mlock2(0x7fff00000000, 0x4000, 0)",
        *LAYOUT,
    ]
    for step in steps:
        if step.call == "mmap":
            assert step.expect == step.args[0]
        if step.call == "pread64":
            assert step.expect == step.args[2]


def test_the_layout_is_the_kernels_struct() -> None:
    *_, opened, setting, closing = planned(subject_of([area(0x400000, 1)], fds=[0, 1, 2, 4]))
    assert (opened.expect, closing.args) == (3, (3,))
    layout = setting.args[2]
    head, auxv, tail = layout.parts  # type: ignore[union-attr]
    words = [int.from_bytes(head[at : at + 8], "little") >> 12 for at in range(0, len(head), 8)]
    assert words == [1, 2, 3, 4, 6, 7, 5, 8, 9, 10, 11], "start_stack comes after brk there"
    assert auxv.parts[0] == b"".join(word.to_bytes(8, "little") for word in (6, 4096, 0, 0))
    assert tail == (32).to_bytes(4, "little") + (3).to_bytes(4, "little")


def test_the_whole_auxiliary_vector_if_it_is_there() -> None:
    subject = subject_of([area(0x400000, 1)])
    assert subject.task.mm is not None
    subject.task.mm.full_auxv.extend(range(50))
    layout = planned(subject)[-2].args[2]
    assert len(layout.parts[1].parts[0]) == 400  # type: ignore[union-attr]


VVAR_AT = 0x7F0000000000
CODE_AT = VVAR_AT + 4 * PAGE


def with_vdso(code: bytes, data_pages: int = 4, **others: Any) -> PlanSubject:
    start = CODE_AT - data_pages * PAGE
    return subject_of(
        [
            area(0x400000, 1),
            area(start, data_pages, 1, status=ANON | VVAR, madv=1 << 16),
            area(CODE_AT, 2, 5, status=ANON | VDSO),
            area(CODE_AT + 2 * PAGE, 1),
        ],
        [(0x400000, 1, 6), (CODE_AT, 2, 4), (CODE_AT + 2 * PAGE, 1, 6)],
        code=code,
        **others,
    )


def test_the_kernel_maps_a_vdso_that_is_its_own() -> None:
    steps = planned(with_vdso(OWN.code, ip=CODE_AT + 0x900))
    assert text_of(steps) == [
        *CLEAR,
        "mappings arch_prctl(0x2003, 0x7f0000000000)",
        "mappings madvise(0x7f0000000000, 0x6000, 0)",
        "mappings mmap(0x400000, 4096, 3, 0x100022, -1, 0)",
        "mappings mmap(0x7f0000006000, 4096, 3, 0x100022, -1, 0)",
        "content pidfd_getfd(90, 1, 0) = <pages-1.img of 77 0x1>",
        "content pread64(<pages-1.img of 77 0x1>, 0x400000, 4096, 0)",
        "content pread64(<pages-1.img of 77 0x1>, 0x7f0000006000, 4096, 0x3000)",
        "content close(<pages-1.img of 77 0x1>)",
        *LAYOUT,
    ]
    assert steps[2].expect == 2 * PAGE


def test_a_vdso_of_another_kernel_is_bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vdso, "_functions", lambda _image: {"__vdso_time": vdso.Function(0x600, 40)})
    warnings: list[str] = []
    steps = planned(with_vdso(bytes(2 * PAGE), data_pages=3, ip=CODE_AT + 0x900, warnings=warnings))
    assert text_of(steps) == [
        *CLEAR,
        "mappings arch_prctl(0x2003, 0x200000)",
        "mappings madvise(0x200000, 0x6000, 0)",
        "mappings mmap(0x400000, 4096, 3, 0x100022, -1, 0)",
        "mappings mmap(0x7f0000001000, 0x3000, 1, 0x100022, -1, 0)",
        "mappings madvise(0x7f0000001000, 0x3000, 16)",
        "mappings mmap(0x7f0000004000, 0x2000, 7, 0x100022, -1, 0)",
        "mappings mmap(0x7f0000006000, 4096, 3, 0x100022, -1, 0)",
        "content pidfd_getfd(90, 1, 0) = <pages-1.img of 77 0x1>",
        "content pread64(<pages-1.img of 77 0x1>, 0x400000, 4096, 0)",
        "content pread64(<pages-1.img of 77 0x1>, 0x7f0000004000, 0x3000, 4096)",
        "content close(<pages-1.img of 77 0x1>)",
        "protection process_vm_writev(77, &jumps, 1, &[16 bytes], 1, 0)",
        "protection mprotect(0x7f0000004000, 0x2000, 5)",
        *LAYOUT,
    ]
    assert "inside another kernel's vdso" in warnings[0]


def test_no_vdso_stays_none() -> None:
    assert not any(step.call == "arch_prctl" for step in planned(subject_of([area(0x400000, 1)])))


@pytest.mark.parametrize(
    ("vma", "why"),
    [
        (area(0x400000, 1, 3, 0x21, REGULAR | 1 << 8), "shared anonymous memory"),
        (area(0x400000, 1, 3, 0x1, 1 << 13), "AIO"),
        (area(0x400000, 1, 3, 0x22, REGULAR | ANON_PRIVATE | 1 << 15), "shadow stack"),
        (area(0x400000, 1, 3, 0x20, ANON), "flags 0x20"),
        (area(0x400000, 1, 3, 0x23, ANON), "flags 0x23"),
        (area(0x400000, 1, 3, 0x2, ANON), "neither a file"),
        (area(0x400000, 1, madv=1 << 3), "unknown advice 3"),
    ],
)
def test_refusals(vma: vma_entry, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        planned(subject_of([vma]))


def test_much_content_is_cut_for_two_threads() -> None:
    start = 0x7F0000000000
    steps = planned(subject_of([area(start, 10000)], [(start, 10000, 6)]))
    reads = [step.args[1:] for step in steps if step.call == "pread64"]
    assert reads == [
        (start, 16 << 20, 0),
        (start + (16 << 20), 16 << 20, 16 << 20),
        (start + (32 << 20), 10000 * PAGE - (32 << 20), 32 << 20),
    ]


def test_ten_thousand_areas_are_planned_quickly() -> None:
    vmas = [area(0x7F0000000000 + number * 4 * PAGE, 2, 1 + number % 2 * 2) for number in range(10_000)]
    runs = [(vma.start, 1, 6) for vma in vmas]
    began = time.process_time()
    steps = planned(subject_of(vmas, runs))
    assert len(steps) > 20_000
    assert time.process_time() - began < 5, "something is quadratic"


blocks = st.lists(st.tuples(st.integers(0, 1 << 35), st.integers(1, 1 << 33)), max_size=12)


@given(blocks)
def test_the_stub_is_in_nobodys_way(shape: list[tuple[int, int]]) -> None:
    at, vmas = 16, []
    for gap, pages in shape:
        at += gap
        if at + pages >= 0x7FFFFFFFF:
            break
        vmas.append(area(at * PAGE, pages))
        at += pages
    mm = mm_entry(vmas=vmas)
    try:
        base = choose_stub_base([mm])
    except ImageError:
        edges = [0, *(edge for vma in vmas for edge in (vma.start, vma.end)), 0x7FFFFFFFF000]
        gaps = [end - start for start, end in zip(edges[::2], edges[1::2], strict=True)]
        assert max(gaps) < 2 * STUB_SPACE + (2 << 20)
        return
    assert base % PAGE == 0
    assert base >= 1 << 20
    assert base + STUB_SPACE < 0x7FFFFFFFF000
    for vma in vmas:
        assert vma.end + (1 << 20) <= base or base + STUB_SPACE + (1 << 20) <= vma.start


def test_pages_of_a_parent_set_are_read_from_there() -> None:
    subject = subject_of([area(0x400000, 4)], [(0x400000, 1, 6)])
    parent = PagesFile(1, 3)
    content = (*subject.task.content, Content(0x402000, 0x403000, parent, 0x7000))
    subject = subject._replace(
        task=dataclasses.replace(subject.task, resolved=content),
        stub=subject.stub._replace(pages=(PagesFile(0, 1), parent)),
    )
    assert [text for text in text_of(planned(subject)) if text.startswith("content")] == [
        "content pidfd_getfd(90, 0, 0) = <pages-1.img of 77 0x0>",
        "content pread64(<pages-1.img of 77 0x0>, 0x400000, 4096, 0)",
        "content close(<pages-1.img of 77 0x0>)",
        "content pidfd_getfd(90, 1, 0) = <parent/pages-3.img of 77 0x1>",
        "content pread64(<parent/pages-3.img of 77 0x1>, 0x402000, 4096, 0x7000)",
        "content close(<parent/pages-3.img of 77 0x1>)",
    ]
