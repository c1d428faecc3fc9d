"""Memory of real processes: which pages are found, how they are copied, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.target import Target, wait_until

from criupy.options import FileOptions
from criupy.resources import memory
from criupy.resources.memory import content
from criupy.resources.memory.vma import VDSO, read_vmas

PAGE = 4096


@contextmanager
def stopped(target: Target) -> Iterator[int]:
    assert target.pid > 0
    assert target.is_ours()
    os.kill(target.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{target.pid}/stat")
    wait_until("it is stopped", lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    yield target.pid
    os.kill(target.pid, signal.SIGCONT)


def read(pid: int, start: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, size, start)
    finally:
        os.close(fd)


@pytest.mark.parametrize("program", ["memory_kinds.c", "zero_memory.c", "guard_regions.c"])
def test_every_page_that_matters_is_copied(program, target, tmp_path):
    with stopped(target(program)) as pid:
        vmas = read_vmas(pid)
        runs = content.runs_of(content.scan(pid, vmas, has_pagemap_scan=True), vmas)
        fd = os.open(tmp_path / "pages", os.O_RDWR | os.O_CREAT, 0o600)
        content.copy_runs(pid, runs, fd)
        copied = os.pread(fd, os.fstat(fd).st_size, 0)
        os.close(fd)
        assert copied == b"".join(read(pid, run.start, run.end - run.start) for run in runs)
        saved = {page for run in runs for page in range(run.start, run.end, PAGE)}
        guards = content.guards_of(content.scan(pid, vmas, has_pagemap_scan=True), vmas)
        for vma in vmas:
            if not vma.has_pages or vma.end - vma.start > 64 << 20:
                continue
            for page in range(vma.start, vma.end, PAGE):
                if page not in saved and not any(start <= page < end for start, end in guards):
                    unwritten = of_the_file(vma, page)
                    assert unwritten is None or read(pid, page, PAGE) == unwritten, hex(page)


def of_the_file(vma, page: int) -> bytes | None:
    """What a page holds that nobody wrote; None beyond the end of the file, where nothing can be read."""
    if vma.file is None:
        return bytes(PAGE)
    found = Path(os.fsdecode(vma.file.path)).read_bytes()[vma.offset + page - vma.start :][:PAGE]
    return found.ljust(PAGE, b"\0") if found else None


@pytest.mark.parametrize("program", ["memory_kinds.c", "guard_regions.c", "zero_memory.c"])
def test_without_pagemap_scan_zero_pages_are_found_as_well(program, target):
    with stopped(target(program)) as pid:
        vmas = read_vmas(pid)
        new, old = (content.scan(pid, vmas, has_pagemap_scan=scan) for scan in (True, False))

        def pages(found: list[content.Found]) -> set[int]:
            return {page for run in content.runs_of(found, vmas) for page in range(run.start, run.end, PAGE)}

        more = pages(old) - pages(new)
        assert not pages(new) - pages(old)
        for page in more:
            assert read(pid, page, PAGE) == bytes(PAGE)
        assert content.guards_of(new, vmas) == content.guards_of(old, vmas)


def test_all_of_the_vdso_is_saved(target):
    with stopped(target("clocks.c")) as pid:
        vmas = read_vmas(pid)
        runs = content.runs_of(content.scan(pid, vmas, has_pagemap_scan=True), vmas)
        (area,) = (vma for vma in vmas if vma.status & VDSO)
        assert (area.start, area.end) in [(run.start, run.end) for run in runs]


def test_sealed_memory(target, criupy, images):
    process = target("sealed_memory.c")
    criupy.dump(process, images)
    process.wait_gone()
    criupy.restore(process, images)
    process.ask()


IN_THE_WAY = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
shared = mmap.mmap(-1, 4096)
fd = os.memfd_create("some memfd")
os.ftruncate(fd, 4096)
of_memfd = mmap.mmap(fd, 4096)
with open("gone", "w+b") as gone:
    gone.write(bytes(4096))
    gone.flush()
    deleted = mmap.mmap(gone.fileno(), 4096)
os.unlink("gone")
CLONE_NEWIPC, IPC_CREAT = 0x08000000, 0o1000
namespace = os.open("/proc/self/ns/ipc", os.O_RDONLY)
assert libc.unshare(CLONE_NEWIPC) == 0
segment = libc.shmget(0, 4096, IPC_CREAT | 0o600)
libc.shmat.restype = ctypes.c_void_p
attached = libc.shmat(segment, None, 0)
assert libc.setns(namespace, CLONE_NEWIPC) == 0
context = ctypes.c_ulong()
libc.syscall(206, 8, ctypes.byref(context))
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_stands_in_the_way_is_named(tmp_path):
    program = [sys.executable, "-I", "-c", IN_THE_WAY]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        found = {
            obstacle.what.partition(" (")[2]: obstacle
            for obstacle in memory.obstacles(process.pid, {}, set(), FileOptions(ghost_limit=0))
        }
        process.stdin.close()
        process.wait(10)
    assert {name.partition(" (")[0].rstrip(")") for name in found} == {
        f"{tmp_path}/gone", "/SYSV00000000", "/[aio]",
    }  # fmt: skip
    assert all(obstacle.pid == process.pid and obstacle.hint and obstacle.why for obstacle in found.values())
    assert "deleted" in found[f"{tmp_path}/gone (deleted))"].why
