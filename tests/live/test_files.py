"""Descriptor tables, round trip: what is collected from one process and planned into another looks the same there.

The plan runs in an ordinary process here, without the restore engine; `test_objects.py` has the whole way.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criupy.errors import NotDumpable, RestoreError
from criupy.images.pb import core_pb2, fdtable_pb2, inventory_pb2
from criupy.linux.family import kin
from criupy.linux.features import KernelFeatures
from criupy.model.plan import Step, StubPlan, order
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources.files import fs
from criupy.resources.filetable import FileImages
from criupy.resources.kind import PlanSubject
from criupy.resources.registry import FILE_KINDS

RUN_STEPS = Path(__file__).parent.parent / "harness" / "run_steps.py"
NURSERY_FD = 2000
FEATURES = KernelFeatures(capabilities=(1 << 41) - 1, pagemap_scan=True)

PROLOGUE = """
import fcntl, os, select, signal, socket, sys, time
F_SETSIG, F_SETPIPE_SZ = 10, 1031
def opened(name, flags, at=None):
    fd = os.open(name, flags, 0o640)
    return fd if at is None else os.dup2(fd, at)
"""
EPILOGUE = """
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """``process(code)``: pid of a stopped program that has run the code in ``tmp_path``, all descriptors its own."""
    with ExitStack() as stack:

        def start(code: str) -> int:
            child = subprocess.Popen(
                [sys.executable, "-c", PROLOGUE + code + EPILOGUE],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stack.enter_context((tmp_path / "stderr").open("wb")),
                start_new_session=True,
            )
            stack.callback(_end, child)
            _wait(lambda: child.poll() is not None or _state(child.pid) == "T")
            assert child.returncode is None, (tmp_path / "stderr").read_text()
            return child.pid

        yield start


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(timeout=10)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 20 seconds"
        time.sleep(0.01)


def collect(pid: int) -> tuple[FileImages, core_pb2.fs_entry]:
    table = FILE_KINDS.table()
    table.descriptors(SimpleNamespace(pid=pid, speaker=pid))  # type: ignore[arg-type]
    table.all_are_known()
    facts = fs.collect(pid, table)
    return table.encode(), fs.encode(facts)


def snapshot(pid: int) -> Snapshot:
    """The image set of a task that consists of files only."""
    images, place = collect(pid)
    pstree = core_pb2.pstree_entry(pid=pid, ppid=0, pgid=pid, sid=pid, threads=[pid])
    core = core_pb2.core_entry()
    ids = core_pb2.task_kobj_ids_entry(vm_id=2, files_id=images.files_ids[pid], fs_id=2, sighand_id=2)
    task = TaskImages(pid, pstree, core, ids=ids, fs=place, threads={pid: core})
    return Snapshot(
        inventory=inventory_pb2.inventory_entry(img_version=2),
        tasks=(task,),
        files=images.files,
        fdinfo=images.fdinfo,
        pipes_data=images.pipes_data,
        fifo_data=images.fifo_data,
    )


def planned(saved: Snapshot, warnings: list[str] | None = None) -> tuple[Step, ...]:
    said: list[str] = [] if warnings is None else warnings
    subject = PlanSubject(saved.root.pid, saved.root, saved, FEATURES, said.append, StubPlan(0))
    shared_steps, shared = FILE_KINDS.plan_shared(subject)
    assert not shared_steps, "one task shares nothing"
    return order([*FILE_KINDS.plan_table(subject, shared, NURSERY_FD), *FILE_KINDS.plan_fs(subject)])


@pytest.fixture
def rebuilt(tmp_path: Path) -> Iterator[Callable[[Snapshot], int]]:
    """``rebuilt(snapshot)``: pid of a process that has run the plan for it."""
    with ExitStack() as stack:

        def run(saved: Snapshot) -> int:
            report = tmp_path / "report"
            report.write_bytes(bytes(4096))
            (tmp_path / "steps").write_bytes(pickle.dumps(list(planned(saved))))
            child = subprocess.Popen(
                [sys.executable, RUN_STEPS, tmp_path / "steps", report], start_new_session=True
            )
            stack.callback(_end, child)
            _wait(lambda: report.read_bytes()[0] != 0 or child.poll() is not None)
            assert report.read_bytes().rstrip(b"\0") == b"ok"
            return child.pid

        yield run


def comparable(saved: Snapshot, pid: int) -> dict[str, Any]:
    """All that has to be equal: descriptors by number, each with its file as text; inode numbers are not."""
    pipes: dict[int, str] = {}

    def text(file_id: int) -> str:
        entry = fdtable_pb2.file_entry()
        entry.CopyFrom(saved.files[file_id])
        entry.epfd.tfd.sort(key=lambda target: (target.tfd, target.data))
        pipe_id = entry.pipe.pipe_id or entry.fifo.pipe_id
        shown = re.sub(rf"\b{pid}\b", "PID", str(entry))
        if pipe_id:
            shown = shown.replace(f"pipe_id: {pipe_id}", pipes.setdefault(pipe_id, f"pipe {len(pipes)}"))
        if entry.fifo.regf_id:
            shown += text(entry.fifo.regf_id)
        return re.sub(r"\b(id|regf_id|inode|file): \d+", "", shown)

    first: dict[int, int] = {}
    found: dict[str, Any] = {}
    for info in saved.fds(saved.root):
        found[f"fd {info.fd}"] = (info.flags, first.setdefault(info.id, info.fd), text(info.id))
    place = saved.root.fs
    assert place is not None
    found["fs"] = (text(place.cwd_id), text(place.root_id), place.umask)
    for pipe_id, content in {**saved.pipes_data, **saved.fifo_data}.items():
        found[pipes[pipe_id]] = (content.entry.size, list(content.entry.packets), content.content)
    return found


TABLES = {
    "regular": """
fd = opened("data", os.O_RDWR | os.O_CREAT | os.O_APPEND, 50)
os.write(fd, b"x" * 100); os.lseek(fd, 37, 0)
os.dup2(fd, 60, inheritable=False); os.dup(fd)
opened("data", os.O_RDONLY | os.O_CLOEXEC); opened("data", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
opened("data", os.O_RDONLY | os.O_NOATIME | os.O_DSYNC); os.lseek(opened("data", os.O_RDONLY), 1 << 40, 0)
opened("/etc", os.O_DIRECTORY); opened("/etc/passwd", os.O_PATH); os.symlink("data", "link")
opened("link", os.O_PATH | os.O_NOFOLLOW); opened("/dev/null", os.O_PATH)
listed = opened("/usr/bin", os.O_DIRECTORY, 77)
""",
    "devices and proc": """
opened("/proc/self/status", os.O_RDONLY); opened(f"/proc/self/task/{os.getpid()}/stat", os.O_RDONLY)
opened("/proc/self/fd", os.O_DIRECTORY); opened("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW)
for name in ("null", "zero", "full", "random", "urandom"): opened("/dev/" + name, os.O_RDWR)
""",
    "one file many times": """
opened("data", os.O_CREAT)
for i in range(150):
    fd = opened("data", os.O_RDONLY)
    if i % 3 == 0: os.dup2(fd, 900 - i)
""",
    "pipes": """
r, w = os.pipe2(os.O_NONBLOCK); fcntl.fcntl(w, F_SETPIPE_SZ, 1 << 18); os.write(w, b"hello" * 40000)
os.dup2(r, 100); os.dup2(w, 40)
r, w = os.pipe(); os.write(w, b"left over"); os.close(w)
r, w = os.pipe(); os.close(r)
r, w = os.pipe2(os.O_DIRECT); os.write(w, b"abc"); os.write(w, b"defg")
r, w = os.pipe2(os.O_DIRECT); os.write(w, b"one packet")
r, w = os.pipe(); opened(f"/proc/self/fd/{r}", os.O_RDWR)
opened(f"/proc/self/fd/{w}", os.O_WRONLY | os.O_NONBLOCK)
r, w = os.pipe(); fcntl.fcntl(w, F_SETPIPE_SZ, 4096); os.write(w, b"f" * 4096)
""",
    "crossed pipes": """
ends = [os.pipe() for _ in range(20)]
for i, (r, w) in enumerate(ends): os.dup2(w, 200 + i); os.dup2(r, 300 - i); os.close(r); os.close(w)
r, w = os.pipe(); os.dup2(w, 10); os.dup2(r, 11)
""",
    "fifos": """
os.mkfifo("fifo"); fd = opened("fifo", os.O_RDWR | os.O_NONBLOCK); os.write(fd, b"named")
opened("fifo", os.O_RDONLY); opened("fifo", os.O_WRONLY)
""",
    "eventfds": """
os.eventfd(5, os.EFD_SEMAPHORE); fd = os.eventfd(0, os.EFD_NONBLOCK); os.eventfd_write(fd, 2**64 - 2); os.dup(fd)
os.eventfd(2**32 - 1)
""",
    "epolls": """
r, w = os.pipe(); event = os.eventfd(1); inner = select.epoll(); outer = select.epoll()
inner.register(r, select.EPOLLIN | select.EPOLLET); outer.register(inner.fileno(), select.EPOLLIN)
other = os.dup(event); inner.register(other, select.EPOLLIN | select.EPOLLONESHOT); os.close(other)
assert opened("/dev/null", os.O_RDONLY) == other
inner.register(event, select.EPOLLOUT | select.EPOLLEXCLUSIVE); os.dup(event)
os.dup(outer.fileno())
""",
    "owners": """
r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(r, F_SETSIG, signal.SIGUSR1)
fcntl.fcntl(w, fcntl.F_SETOWN, -os.getpgrp()); signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(w, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.setresuid(1234, 1000, 0); fcntl.fcntl(opened("/etc/passwd", 0), fcntl.F_SETOWN, os.getpid()); os.setresuid(0, 0, 0)
""",
    "place": """
os.mkdir("root"); os.mkdir("root/inside"); os.umask(0o123); os.chroot("root"); os.chdir("/inside")
opened("a file inside", os.O_RDWR | os.O_CREAT)
""",
    "nothing": """
os.closerange(0, 100)
""",
}


@pytest.mark.parametrize("table", TABLES)
def test_round_trip(process: Callable[[str], int], rebuilt: Callable[[Snapshot], int], table: str) -> None:
    pid = process(TABLES[table])
    assert list(FILE_KINDS.obstacles(pid, kin([pid]))) == []
    saved = snapshot(pid)
    before = comparable(saved, pid)
    assert comparable(snapshot(pid), pid) == before, "collecting has changed the process"
    if table == "fifos":  # what is in a FIFO stays as long as somebody has it open
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert comparable(snapshot(rebuilt(saved)), pid) == before


REFUSED = """
pair = socket.socketpair(); inet = socket.socket(); os.pidfd_open(os.getppid())
opened("/dev/fuse", os.O_RDWR); opened("/dev/kmsg", os.O_RDONLY)
gone = opened("gone", os.O_CREAT | os.O_RDWR); os.unlink("gone"); os.posix_fallocate(gone, 0, 1200 << 10)
opened("elsewhere", os.O_CREAT); os.link("elsewhere", "second"); os.unlink("elsewhere")
fcntl.flock(opened("locked", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
fcntl.fcntl(opened("owned", os.O_CREAT | os.O_RDWR), fcntl.F_SETOWN, os.getppid())
opened("/proc/self/fdinfo/0", os.O_RDONLY); opened("/proc/self/fd/0", os.O_PATH | os.O_NOFOLLOW)
r, w = os.pipe(); lost = select.epoll(); lost.register(r, select.EPOLLIN)
socket.send_fds(pair[0], [b"in flight"], [r]); os.close(r)
"""
EXPECTED = [
    "socket): descriptors of this kind",
    "pidfd): it leads to process ",
    "fuse connection /dev/fuse): descriptors of this kind",
    "character device /dev/kmsg): descriptors of this kind",
    "/gone): it was deleted, and its 1228800 bytes are more than",
    "/elsewhere): its name is gone, while it has 1 name elsewhere",
    "/locked): it holds a lock (flock, write), which goes with its process",
    "/owned): its signals go to process ",
    "/fdinfo/0): what it shows of the task itself",
    "/fd/0): what it shows of the task itself",
    "epoll): it watches a file that was descriptor ",
]


def test_all_obstacles_at_once(process: Callable[[str], int]) -> None:
    pid = process(REFUSED)
    obstacles = list(FILE_KINDS.obstacles(pid, kin([pid])))
    found = [f"{one.what}: {one.why}" for one in obstacles]
    assert len(found) == len(EXPECTED), found
    for line, part in zip(found, EXPECTED, strict=True):
        assert part in line
    assert all(one.hint and one.pid == pid and one.comm.startswith("python") for one in obstacles)


def test_threads_on_their_own(process: Callable[[str], int]) -> None:
    pid = process(
        """
import ctypes, threading
def leave():
    assert ctypes.CDLL(None).unshare(0x400 | 0x200) == 0
    left.set()
    signal.pause()
left = threading.Event()
threading.Thread(target=signal.pause, daemon=True).start()
threading.Thread(target=leave, daemon=True).start()
left.wait()
"""
    )
    (files, place) = FILE_KINDS.obstacles(pid, kin([pid]))
    assert files.what == place.what
    assert files.what.startswith("thread ")
    assert "descriptors of its own" in files.why
    assert "working directory" in place.why


def test_what_appears_after_the_first_look(process: Callable[[str], int]) -> None:
    """The frozen task is looked at again: nothing that cannot be dumped slips through."""
    pid = process(REFUSED)
    with pytest.raises(NotDumpable) as caught:
        collect(pid)
    found = [str(one) for one in caught.value.obstacles]
    for part in EXPECTED[:1] + EXPECTED[2:7] + EXPECTED[-3:-1]:
        assert any(part in line for line in found)
    assert not any("epoll" in line for line in found), "that takes the descriptors of all"


def test_a_watched_file_that_nobody_has_after_the_first_look(process: Callable[[str], int]) -> None:
    pid = process(
        """
import ctypes
r, w = os.pipe(); lost = select.epoll(); lost.register(r, select.EPOLLIN)
if os.fork() == 0: ctypes.CDLL(None).prctl(1, signal.SIGKILL); signal.pause()
os.close(r)
"""
    )
    (obstacle,) = FILE_KINDS.obstacles(pid, kin([pid]))
    assert "no descriptor leads to it now" in obstacle.why
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    assert not list(FILE_KINDS.obstacles(pid, kin([pid, child])))
    with pytest.raises(NotDumpable, match="no descriptor leads to it now"):
        collect(pid)


def test_what_proc_shows_of_other_tasks(process: Callable[[str], int]) -> None:
    pid = process(
        """
import ctypes
if (child := os.fork()) == 0: ctypes.CDLL(None).prctl(1, signal.SIGKILL); signal.pause()
opened(f"/proc/{child}/status", 0); opened(f"/proc/{child}/task/{child}/stat", 0); opened(f"/proc/{child}/fdinfo/1", 0)
"""
    )
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    (found,) = FILE_KINDS.obstacles(pid, kin([pid, child]))
    assert "/fdinfo/1" in found.what
    assert f"what it shows of task {child} is not there yet" in found.why
    assert not list(FILE_KINDS.obstacles(pid, kin([pid])))


def test_a_look_ahead_hides_no_change(process: Callable[[str], int], tmp_path: Path) -> None:
    """Read with files that were opened before everything changed, a table looks as it does when read afresh."""
    own = len(os.listdir("/proc/self/fd"))
    pid = process(
        """
null = opened("/dev/null", 0); data = opened("data", os.O_CREAT | os.O_RDWR); moved = opened("/etc/hosts", 0)
r, w = os.pipe(); event = os.eventfd(1); inner = select.epoll(); twin = select.epoll()
signal.raise_signal(signal.SIGSTOP)
os.close(null); os.lseek(data, 2, 0); os.set_inheritable(moved, True); os.dup2(w, r); os.eventfd_write(event, 4)
opened("other", os.O_CREAT); opened("/etc/passwd", 0, moved); inner.register(r); os.dup2(os.eventfd(0), twin.fileno())
os.mkdir("changed")
"""
    )
    table = FILE_KINDS.table()
    table.look_ahead(pid)
    os.kill(pid, signal.SIGCONT)
    _wait(lambda: (tmp_path / "changed").exists() and _state(pid) == "T")
    table.descriptors(SimpleNamespace(pid=pid, speaker=pid))  # type: ignore[arg-type]
    images, fresh = table.encode(), collect(pid)[0]
    assert images.fdinfo == fresh.fdinfo
    assert {number: images.files[number] for number in fresh.files if number in images.files} == {
        number: entry for number, entry in fresh.files.items() if number in images.files
    }
    assert len({info.id for info in fresh.fdinfo[2]}) == len(images.files)
    del table
    assert len(os.listdir("/proc/self/fd")) <= own + 1, "files that were opened ahead are still open"


def test_a_name_that_leads_elsewhere_fails_the_encoding(
    process: Callable[[str], int], tmp_path: Path
) -> None:
    pid = process('opened("data", os.O_CREAT | os.O_RDWR)')
    table = FILE_KINDS.table()
    table.descriptors(SimpleNamespace(pid=pid, speaker=pid))  # type: ignore[arg-type]
    (tmp_path / "data").rename(tmp_path / "other")
    (tmp_path / "data").write_text("an impostor")
    with pytest.raises(NotDumpable, match="leads to another file"):
        table.encode()


def test_warnings(process: Callable[[str], int], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    pid = process("r, w = os.pipe(); fcntl.fcntl(w, F_SETPIPE_SZ, 1 << 20); r, w = os.pipe(); os.close(w)")
    assert list(FILE_KINDS.warnings([pid], FEATURES)) == []
    pair = "pair = socket.socketpair(); r, w = os.pipe(); socket.send_fds(pair[0], [b'x'], [r]); os.close(r)"
    (told,) = FILE_KINDS.warnings([process(pair)], FEATURES)
    assert "who reads from it is not dumped" in told


def test_checks_name_what_is_different(process: Callable[[str], int], tmp_path: Path) -> None:
    saved = snapshot(process('os.write(opened("data", os.O_CREAT | os.O_RDWR), b"four")'))
    (check,) = (one for one in FILE_KINDS.checks(saved) if one.name.endswith(b"/data"))
    check.run()
    data = tmp_path / "data"
    data.write_bytes(b"fifth")
    with pytest.raises(RestoreError, match="/data is not the file that was dumped: its size was 4, and is 5"):
        check.run()
    data.write_bytes(b"four")
    data.chmod(0o600)
    with pytest.raises(RestoreError, match="its mode was 100640, and is 100600"):
        check.run()
    data.unlink()
    with pytest.raises(RestoreError, match="No such file or directory"):
        check.run()
    own = [one.name for one in FILE_KINDS.checks(saved)]
    assert b"/" in own
    assert b"/dev/null" in own
