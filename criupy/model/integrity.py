"""What must hold in a snapshot, as far as the images alone can tell.

Images are untrusted.  Whatever a restore would index with, allocate by or hand to the kernel as a structure
is looked at here, before anything is created; a violation is an :class:`ImageError` that names the file.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from criupy.errors import ImageError
from criupy.images.ghosts import Ghost
from criupy.images.pages import PAGE_SIZE, Pagemap
from criupy.images.pb.core_pb2 import core_entry, disabled, filter, seccomp_entry, strict  # noqa: A004
from criupy.images.pb.fdtable_pb2 import MEMFD, PACKETSK, REG, TTY, UNIXSK, fd_types, file_entry
from criupy.images.pb.files_pb2 import (
    CONSOLE,
    CTTY,
    EXT_TTY,
    LINKED,
    PTY,
    SERIAL,
    VT,
    memfd_inode_entry,
)
from criupy.images.pb.memory_pb2 import mm_entry, vma_entry
from criupy.images.pb.namespaces_pb2 import ipc_shm_entry
from criupy.model.snapshot import (
    LOCK_FLOCK,
    LOCK_LEASE,
    LOCK_OFD,
    LOCK_POSIX,
    TASK_ALIVE,
    TASK_DEAD,
    TASK_STOPPED,
    Snapshot,
    TaskImages,
    remap_target,
)

PID_MAX = 4 << 20
"""Source: Linux include/linux/threads.h, PID_MAX_LIMIT."""
NSIG_ACTIONS = 62
_EXIT_CODE = 0xFF00
AUXV_WORDS = 44
RLIM_NLIMITS = 16
SIGINFO_SIZE = 128
BPF_MAXINSNS = 4096
FD_MAX = 1 << 30
PATH_MAX = 4096
TASK_SIZE = 0x00FF_FFFF_FFFF_F000
"""End of user addresses with five-level paging; what fits this machine the kernel says."""

_REGULAR, _VSYSCALL = 1 << 0, 1 << 2
_FILE_PRIVATE, _FILE_SHARED, _ANON_SHARED, _ANON_PRIVATE = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_SYSVIPC, _SOCKET, _AIORING, _SHSTK, _GUARD = 1 << 10, 1 << 11, 1 << 13, 1 << 15, 1 << 16
_STATUS_SCRATCH = 0xF000_0000
_GHOSTS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK)
_LOCKS = (LOCK_POSIX, LOCK_FLOCK, LOCK_OFD, LOCK_LEASE)
_SOCKET_TYPES = (1, 2, 5)
_SUN_PATH = 108
_SCM_RIGHTS, _SCM_MAX_FD = 1, 253
_INT_MAX = (1 << 31) - 1
_TTY_TYPES = (PTY, CONSOLE, VT, CTTY, EXT_TTY, SERIAL)
_LARGEST_PTY = 1 << 20
_NCCS = 19
_LARGEST_TTY_DATA = 1 << 16
_MOST_ENDS = 1 << 12
_LARGEST_SEGMENT = 1 << 40
_HUGE_SIZE = 0x3F << 26
_SHM_HUGETLB = 0o4000

_FILE_FIELD = {
    "REG": "reg", "PIPE": "pipe", "FIFO": "fifo", "INETSK": "isk", "UNIXSK": "usk", "EVENTFD": "efd",
    "EVENTPOLL": "epfd", "INOTIFY": "ify", "SIGNALFD": "sgfd", "PACKETSK": "psk", "TTY": "tty",
    "FANOTIFY": "ffy", "NETLINKSK": "nlsk", "NS": "nsf", "TUNF": "tunf", "EXT": "ext", "TIMERFD": "tfd",
    "MEMFD": "memfd", "BPFMAP": "bpf", "PIDFD": "pidfd",
}  # fmt: skip
FILE_FIELD: dict[int, str] = {fd_types.Value(name): field for name, field in _FILE_FIELD.items()}
"""The field of a file_entry that belongs to a type."""

_XSAVE_COUNTS = (
    ("ymmh_space", 64),
    ("bndreg_state", 8),
    ("bndcsr_state", 8),
    ("opmask_reg", 8),
    ("zmm_upper", 64),
    ("hi16_zmm", 128),
    ("pkru", 2),
)
_SCHED_RESET_ON_FORK = 0x4000_0000
_SCHED_REALTIME = (1, 2)
_SCHED_FAIR = (0, 3, 5)


def check(snapshot: Snapshot) -> None:
    """ImageError at the first thing that cannot be."""
    _check_inventory(snapshot)
    _check_files(snapshot)
    _check_tree(snapshot)
    _check_seccomp(snapshot.seccomp)
    for task in snapshot.tasks:
        _check_core(task, snapshot.seccomp)
        if not task.zombie:
            _check_task(task, snapshot)
    for table, entries in snapshot.fdinfo.items():
        _check_fdinfo(f"fdinfo-{table}.img", entries, snapshot.files)
    _check_sockets(snapshot)
    _check_remaps(snapshot)
    _check_locks(snapshot)
    _check_terminals(snapshot)
    _check_shmem(snapshot)
    _check_segments(snapshot)


def _require(holds: object, file: str, reason: str) -> None:
    if not holds:
        raise ImageError(file, reason)


def _check_inventory(snapshot: Snapshot) -> None:
    inventory = snapshot.inventory
    _require(inventory.fdinfo_per_id, "inventory.img", "fdinfo_per_id is not set: the images are too old")
    _require(inventory.HasField("root_ids"), "inventory.img", "root_ids is missing (this may be a pre-dump)")


# The tree


def _check_tree(snapshot: Snapshot) -> None:
    name = "pstree.img"
    _require(snapshot.tasks, name, "is missing or has no task")
    seen: set[int] = set()
    tids: set[int] = set()
    zombies: set[int] = set()
    for index, task in enumerate(snapshot.tasks):
        entry, pid = task.pstree, task.pid
        _require(0 < pid <= PID_MAX, name, f"{pid} is no pid")
        _require(pid not in seen, name, f"two tasks have the pid {pid}")
        if index == 0:
            _require(entry.ppid == 0, name, f"the first task, {pid}, has the parent {entry.ppid}")
        else:
            _require(
                entry.ppid in seen, name, f"the parent {entry.ppid} of task {pid} does not come before it"
            )
            _require(entry.ppid not in zombies, name, f"the parent {entry.ppid} of task {pid} is a zombie")
        seen.add(pid)
        _require(0 <= entry.pgid <= PID_MAX and 0 <= entry.sid <= PID_MAX, name, f"task {pid}: pgid or sid")
        if task.zombie:
            zombies.add(pid)
        for tid in task.threads:
            _require(0 < tid <= PID_MAX, name, f"task {pid}: {tid} is no tid")
            _require(tid not in tids, name, f"task {pid}: thread {tid} is in the tree twice")
            tids.add(tid)
    _check_ids(snapshot)


def _check_ids(snapshot: Snapshot) -> None:
    root = snapshot.root
    if root.ids:
        own = snapshot.inventory.root_ids.files_id
        _require(root.ids.files_id != own, f"ids-{root.pid}.img", "files_id is that of the dumping process")


# Cores


def _check_core(task: TaskImages, seccomp: seccomp_entry) -> None:
    name = f"core-{task.pid}.img"
    core = task.core
    _check_machine(name, core)
    _require(core.HasField("tc"), name, "has no tc, which the leader of a task needs")
    state = core.tc.task_state
    _require(state in (TASK_ALIVE, TASK_DEAD, TASK_STOPPED), name, f"unknown task_state {state}")
    if task.zombie:
        return
    tc = core.tc
    actions = len(tc.sigactions)
    _require(actions == NSIG_ACTIONS, name, f"has {actions} signal actions where {NSIG_ACTIONS} belong")
    _require(tc.HasField("timers"), name, "has no timers")
    _require(tc.HasField("rlimits"), name, "has no rlimits")
    _require(len(tc.rlimits.rlimits) <= RLIM_NLIMITS, name, f"has {len(tc.rlimits.rlimits)} resource limits")
    _require(len(tc.comm) < 16 and b"\0" not in tc.comm, name, "comm is too long")
    _check_signals(name, tc.signals_s)
    _require(task.living, name, "its main thread has ended, and it has no other")
    code = tc.dead_leader
    _require(not code & ~_EXIT_CODE, name, f"a main thread does not end with the status {code:#x}")
    for tid, thread in task.threads.items():
        _require(
            thread.HasField("thread_info") or tid not in task.living, f"core-{tid}.img", "has no thread_info"
        )
        _check_thread(f"core-{tid}.img", thread, leader=tid == task.pid, seccomp=seccomp)


def _check_machine(name: str, core: core_entry) -> None:
    if core.mtype != core_entry.X86_64:
        found = core_entry.march.Name(core.mtype)
        raise ImageError(name, f"is of architecture {found}; only X86_64 can be restored")


def _check_thread(name: str, core: core_entry, *, leader: bool, seccomp: seccomp_entry) -> None:
    _check_machine(name, core)
    _require(core.HasField("thread_core"), name, "has no thread_core")
    _require(leader or not core.HasField("tc"), name, "is a thread's, but has a tc as only leaders have")
    thread = core.thread_core
    _require(thread.HasField("creds"), name, "has no credentials")
    if core.HasField("thread_info"):
        _check_fpregs(name, core.thread_info.fpregs)
    _check_scheduler(name, thread)
    _check_signals(name, thread.signals_p)
    _require(thread.pdeath_sig <= 64, name, f"pdeath_sig is {thread.pdeath_sig}")
    _require(len(thread.comm) < 16 and b"\0" not in thread.comm, name, "comm is too long")
    creds = thread.creds
    for words in (creds.cap_inh, creds.cap_prm, creds.cap_eff, creds.cap_bnd, creds.cap_amb):
        _require(len(words) <= 2, name, f"a capability set has {len(words)} words")
    _require(len(creds.groups) <= 65536, name, f"has {len(creds.groups)} groups")
    mode = thread.seccomp_mode
    _require(mode in (disabled, strict, filter), name, f"unknown seccomp_mode {mode}")
    if mode == filter:
        count = len(seccomp.seccomp_filters)
        index = thread.seccomp_filter
        _require(index < count, name, f"seccomp_filter is {index}, but seccomp.img has {count} filters")


def _check_fpregs(name: str, fpregs: Any) -> None:
    _require(len(fpregs.st_space) == 32, name, f"st_space has {len(fpregs.st_space)} words where 32 belong")
    _require(
        len(fpregs.xmm_space) == 64, name, f"xmm_space has {len(fpregs.xmm_space)} words where 64 belong"
    )
    for field, count in _XSAVE_COUNTS:
        found = len(getattr(fpregs.xsave, field))
        _require(found in (0, count), name, f"{field} has {found} words where {count} belong")


def _check_scheduler(name: str, thread: Any) -> None:
    policy = thread.sched_policy & ~_SCHED_RESET_ON_FORK
    _require(-20 <= thread.sched_nice <= 19, name, f"sched_nice is {thread.sched_nice}")
    if policy in _SCHED_REALTIME:
        _require(1 <= thread.sched_prio <= 99, name, f"sched_prio is {thread.sched_prio}")
    else:
        _require(policy in _SCHED_FAIR, name, f"sched_policy is {policy}")
        _require(
            thread.sched_prio == 0, name, f"sched_prio is {thread.sched_prio} without a real-time policy"
        )


def _check_signals(name: str, queue: Any) -> None:
    for entry in queue.signals:
        size = len(entry.siginfo)
        _require(size == SIGINFO_SIZE, name, f"a pending signal has {size} bytes where {SIGINFO_SIZE} belong")


def _check_seccomp(seccomp: seccomp_entry) -> None:
    name = "seccomp.img"
    filters = seccomp.seccomp_filters
    for index, entry in enumerate(filters):
        size = len(entry.filter)
        _require(
            size and size % 8 == 0 and size <= 8 * BPF_MAXINSNS, name, f"filter {index} has {size} bytes"
        )
        if entry.HasField("prev"):
            _require(
                entry.prev < len(filters), name, f"filter {index} leads to {entry.prev}, which is not there"
            )
    done: set[int] = set()
    for index in range(len(filters)):
        _follow(name, filters, index, done)


def _follow(name: str, filters: Sequence[Any], index: int, done: set[int]) -> None:
    """Follows ``prev`` to its end; ``done`` are filters whose chain is known to end."""
    chain: set[int] = set()
    while index not in done:
        _require(index not in chain, name, f"the chain of filter {index} leads back to itself")
        chain.add(index)
        if not filters[index].HasField("prev"):
            break
        index = filters[index].prev
    done |= chain


# Descriptors


def _check_files(snapshot: Snapshot) -> None:
    name = "files.img"
    for key, entry in snapshot.files.items():
        field = FILE_FIELD.get(entry.type)
        what = f"file {key:#x} ({fd_types.Name(entry.type)})"
        if field is None or not entry.HasField(field):
            raise ImageError(name, f"{what} has no entry of its type")
        part = getattr(entry, field)
        _require(part.id == entry.id, name, f"{what} holds an entry with the id {part.id:#x}")
        if field == "reg":
            _check_path(name, what, part)
        elif field in ("fifo", "tty") and part.HasField("regf_id"):
            _require(
                _is(snapshot.files, part.regf_id, REG), name, f"{what}: there is no path {part.regf_id:#x}"
            )
        elif field == "epfd":
            for target in part.tfd:
                reached = not target.HasField("file") or target.file in snapshot.files
                _require(reached, name, f"{what} watches file {target.file:#x}, which is not there")
                _require(
                    target.number < FD_MAX, name, f"{what} watches {target.number}, which is no descriptor"
                )
        elif field == "memfd":
            found = part.inode_id in snapshot.memfds
            _require(found, name, f"{what}: memfd.img has no inode {part.inode_id}")


def _check_path(name: str, what: str, reg: Any) -> None:
    path = reg.name
    _require(len(path) < PATH_MAX and b"\0" not in path, name, f"{what}: its path is too long or has a NUL")
    _require(reg.ext or path.startswith(b"/"), name, f"{what}: its path does not start with /")


def _is(files: Mapping[int, file_entry], key: int, *types: int) -> bool:
    return key in files and files[key].type in types


def _check_fdinfo(name: str, entries: Iterable[Any], files: Mapping[int, file_entry]) -> None:
    seen: set[int] = set()
    for entry in entries:
        fd = entry.fd
        _require(fd < FD_MAX, name, f"{fd} is no descriptor")
        _require(fd not in seen, name, f"descriptor {fd} is there twice")
        seen.add(fd)
        _require(entry.flags in (0, 1), name, f"descriptor {fd} has flags {entry.flags:#x}")
        kind = fd_types.Name(entry.type)
        _require(
            _is(files, entry.id, entry.type), name, f"descriptor {fd}: no file {entry.id:#x} of type {kind}"
        )


def _check_sockets(snapshot: Snapshot) -> None:
    """Unix sockets, and what is on its way to them."""
    inodes: set[int] = set()
    for key, entry in snapshot.files.items():
        if entry.type == UNIXSK:
            usk, what = entry.usk, f"file {key:#x} (UNIXSK)"
            _require(usk.type in _SOCKET_TYPES, "files.img", f"{what} has type {usk.type}")
            _require(usk.ino not in inodes, "files.img", f"two unix sockets have the inode {usk.ino}")
            _require(
                len(usk.name) <= _SUN_PATH + 1, "files.img", f"{what} has a name of {len(usk.name)} bytes"
            )
            where = usk.name_dir
            good = not where or (where.startswith(b"/") and len(where) < PATH_MAX and b"\0" not in where)
            _require(good, "files.img", f"{what}: the directory of its path is none")
            inodes.add(usk.ino)
    name = "sk-queues.img"
    for packet in snapshot.sk_queues:
        message = packet.entry
        _require(
            _is(snapshot.files, message.id_for, UNIXSK), name, f"there is no unix socket {message.id_for:#x}"
        )
        for scm in message.scm:
            _require(scm.type == _SCM_RIGHTS, name, f"a message has control data of the type {scm.type}")
            _require(len(scm.rights) <= _SCM_MAX_FD, name, f"a message has {len(scm.rights)} files")
            for file_id in scm.rights:
                _require(file_id in snapshot.files, name, f"there is no file {file_id:#x} for a message")


def _check_remaps(snapshot: Snapshot) -> None:
    name = "remap-fpath.img"
    seen: set[int] = set()
    for remap in snapshot.remaps:
        kind, number = remap_target(remap)
        _require(_is(snapshot.files, remap.orig_id, REG), name, f"there is no path {remap.orig_id:#x}")
        _require(remap.orig_id not in seen, name, f"path {remap.orig_id:#x} is there twice")
        seen.add(remap.orig_id)
        _check_old_path(name, snapshot.files[remap.orig_id].reg.name)
        if kind == LINKED:
            _require(_is(snapshot.files, number, REG), name, f"there is no path {number:#x}")
    for ghost in snapshot.ghosts.values():
        _check_ghost(ghost)
    for entry in snapshot.files.values():
        if entry.reg.HasField("embedded_id"):
            ghost = snapshot.ghosts[entry.reg.embedded_id]
            _require(stat.S_ISREG(ghost.entry.mode), ghost.name, "is of no regular file")
            _check_old_path("files.img", entry.reg.name)


def _check_old_path(name: str, path: bytes) -> None:
    """Of a file that a restore makes again."""
    parts = path.split(b"/")
    _require(b".." not in parts and parts[-1] not in (b"", b"."), name, "a path leads elsewhere")


def _check_locks(snapshot: Snapshot) -> None:
    name = "filelocks.img"
    numbers = {
        task.pid: {info.fd for info in snapshot.fds(task)} for task in snapshot.tasks if not task.zombie
    }
    for lock in snapshot.locks:
        what = f"the lock of descriptor {lock.fd} of task {lock.pid}"
        _require(lock.fd in numbers.get(lock.pid, ()), name, f"{what}: there is no such descriptor")
        _require(lock.flag in _LOCKS, name, f"{what} is of kind {lock.flag}")
        _require(lock.type in (0, 1), name, f"{what} is of type {lock.type}, which cannot be restored")
        fits = lock.start >= 0 and lock.len >= 0 and lock.start + lock.len < 1 << 63
        _require(fits, name, f"{what} has {lock.len} bytes from {lock.start} on")


def _check_ghost(ghost: Ghost) -> None:
    entry, kind = ghost.entry, stat.S_IFMT(ghost.entry.mode)
    _require(kind in _GHOSTS, ghost.name, f"mode {entry.mode:o} is of no file that can be made again")
    _require(not ghost.chunks or kind == stat.S_IFREG, ghost.name, "has content, and is no regular file")
    target = entry.symlnk_target
    fits = len(target) < PATH_MAX and b"\0" not in target and bool(target) == (kind == stat.S_IFLNK)
    _require(fits, ghost.name, "has a target that is none of a symbolic link")
    for time in (entry.atim, entry.mtim):
        _require(
            time.tv_sec < _INT_MAX << 3 and time.tv_usec < 1_000_000, ghost.name, "has a time out of range"
        )


def _check_terminals(snapshot: Snapshot) -> None:
    name = "tty-info.img"
    for key, info in snapshot.terminals.items():
        what = f"terminal {key}"
        _require(info.type in _TTY_TYPES, name, f"{what} has type {info.type}")
        _require(info.type != PTY or info.HasField("pty"), name, f"{what} has no number")
        _require(info.pty.index <= _LARGEST_PTY, name, f"{what} has the number {info.pty.index}")
        _require(max(info.sid, info.pgrp) <= PID_MAX, name, f"{what}: sid or pgrp")
        parts = [info.HasField(part) for part in ("termios", "termios_locked", "winsize")]
        _require(all(parts) or not any(parts), name, f"{what} has only a part of its attributes")
        if all(parts):
            _check_attributes(name, what, info)
    for entry in snapshot.files.values():
        if entry.type == TTY:
            found = entry.tty.tty_info_id in snapshot.terminals and entry.tty.HasField("regf_id")
            _require(found, "files.img", f"file {entry.id:#x} is of a terminal that is not in {name}")
    for key, unread in snapshot.terminal_data.items():
        _require(key in snapshot.terminals, "tty-data.img", f"there is no terminal {key} in {name}")
        _require(
            len(unread.data) <= _LARGEST_TTY_DATA, "tty-data.img", f"terminal {key}: {len(unread.data)} bytes"
        )
        in_order = list(unread.ends) == sorted(unread.ends) and max(unread.ends, default=0) <= len(
            unread.data
        )
        _require(in_order and len(unread.ends) <= _MOST_ENDS, "tty-data.img", f"terminal {key}: its ends")


def _check_attributes(name: str, what: str, info: Any) -> None:
    for termios in (info.termios, info.termios_locked):
        _require(len(termios.c_cc) >= _NCCS, name, f"{what} has {len(termios.c_cc)} characters")
        _require(termios.c_line <= 0xFF, name, f"{what} has line discipline {termios.c_line}")
    size = info.winsize
    _require(
        max(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel) <= 0xFFFF, name, f"{what} has no size"
    )


# Memory


def _check_task(task: TaskImages, snapshot: Snapshot) -> None:
    pid, files = task.pid, snapshot.files
    if task.ids is None or task.mm is None or task.fs is None or task.pagemap is None:
        raise ImageError(f"core-{pid}.img", "is of a living task, which lacks other images")
    for key, what in ((task.fs.cwd_id, "working directory"), (task.fs.root_id, "root")):
        _require(_is(files, key, REG), f"fs-{pid}.img", f"the {what}, {key:#x}, is not in files.img")
    name = f"mm-{pid}.img"
    _require(_is(files, task.mm.exe_file_id, REG), name, f"exe {task.mm.exe_file_id:#x} is not in files.img")
    _require(len(task.mm.mm_saved_auxv) <= AUXV_WORDS, name, f"has {len(task.mm.mm_saved_auxv)} auxv words")
    _check_vmas(name, task.mm, files)
    _check_pages(task.pagemap, task.mm)


def _check_vmas(name: str, mm: mm_entry, files: Mapping[int, file_entry]) -> None:
    _require(mm.vmas, name, "has no mappings")
    end, guards = 0, False
    for vma in mm.vmas:
        where = f"mapping {vma.start:#x}-{vma.end:#x}"
        status = vma.status
        _require(vma.start < vma.end and not (vma.start | vma.end) % PAGE_SIZE, name, f"{where} is no range")
        _require(not status & _STATUS_SCRATCH, name, f"{where} has status {status:#x}")
        if status & _VSYSCALL:
            continue
        _require(vma.end <= TASK_SIZE, name, f"{where} is not in user space")
        if status & _GUARD:
            guards = True
            continue
        _require(not guards, name, f"{where} comes after a guard region")
        _require(vma.start >= end, name, f"{where} overlaps the one before or is out of order")
        end = vma.end
        _check_backing(name, where, vma, files)


def _check_backing(name: str, where: str, vma: vma_entry, files: Mapping[int, file_entry]) -> None:
    _require(vma.prot < 8, name, f"{where} has prot {vma.prot:#x}")
    if vma.status & _SOCKET:
        _require(_is(files, vma.shmid, PACKETSK), name, f"{where}: there is no packet socket {vma.shmid:#x}")
    elif vma.status & (_FILE_PRIVATE | _FILE_SHARED):
        _require(_is(files, vma.shmid, REG, MEMFD), name, f"{where}: there is no file {vma.shmid:#x}")
        _require(not vma.pgoff % PAGE_SIZE, name, f"{where} has offset {vma.pgoff:#x}")


def _private(mm: mm_entry) -> Iterator[tuple[int, int]]:
    """The ranges that a pagemap may have pages in, neighbours joined."""
    start = end = 0
    for vma in mm.vmas:
        private = vma.status & _REGULAR and vma.status & (_ANON_PRIVATE | _FILE_PRIVATE)
        if vma.status & (_GUARD | _VSYSCALL) or not (private or vma.status & (_SHSTK | _AIORING)):
            continue
        if vma.start == end:
            end = vma.end
            continue
        if end:
            yield start, end
        start, end = vma.start, vma.end
    if end:
        yield start, end


def _check_pages(pagemap: Pagemap, mm: mm_entry) -> None:
    ranges = _private(mm)
    start, end = next(ranges, (0, 0))
    for run in pagemap:
        while end and end <= run.vaddr:
            start, end = next(ranges, (0, 0))
        if not start <= run.vaddr < run.end <= end:
            raise ImageError(pagemap.name, f"pages {run.vaddr:#x}-{run.end:#x} are in no private mapping")


def shmem_ids(tasks: Iterable[TaskImages], memfds: Mapping[int, memfd_inode_entry]) -> set[int]:
    """The shmids whose content is in images: memfds, System V segments, and shared memory of old images."""
    found = {memfd.shmid for memfd in memfds.values()}
    for task in tasks:
        if task.mm:
            found |= {vma.shmid for vma in task.mm.vmas if vma.status & (_ANON_SHARED | _SYSVIPC)}
    return found


def _check_shmem(snapshot: Snapshot) -> None:
    for memfd in snapshot.memfds.values():
        pagemap = snapshot.shmem.get(memfd.shmid)
        _require(pagemap or not memfd.size, f"pagemap-shmem-{memfd.shmid}.img", "is missing or empty")
        if pagemap and pagemap.runs and pagemap.runs[-1].end > -(-memfd.size // PAGE_SIZE) * PAGE_SIZE:
            raise ImageError(
                pagemap.name, f"has pages beyond the {memfd.size} bytes of memfd {memfd.inode_id}"
            )


def _check_segments(snapshot: Snapshot) -> None:
    """System V shared memory."""
    name = f"ipcns-shm-{snapshot.ipc_namespace}.img"
    keys: set[int] = set()
    for number, entry in snapshot.segments.items():
        desc, what = entry.desc, f"segment {number}"
        _require(number <= _INT_MAX, name, f"{number} is no id of a segment")
        _require(0 < entry.size <= _LARGEST_SEGMENT, name, f"{what} has {entry.size} bytes")
        _require(desc.mode <= 0o777, name, f"{what} has mode {desc.mode:o}")
        flag = entry.hugetlb_flag
        pages = flag == 0 or PAGE_SIZE < _segment_page(entry) <= _LARGEST_SEGMENT
        _require(pages and not flag & ~(_SHM_HUGETLB | _HUGE_SIZE), name, f"{what} has pages of {flag:#x}")
        _require(not desc.key or desc.key not in keys, name, f"two segments have the key {desc.key:#x}")
        keys.add(desc.key)
    for task in snapshot.tasks:
        for vma in task.mm.vmas if task.mm else ():
            if vma.status & _SYSVIPC:
                _check_attachment(f"mm-{task.pid}.img", name, vma, snapshot)


def _segment_page(entry: ipc_shm_entry) -> int:
    return 1 << (entry.hugetlb_flag >> 26 & 0x3F) if entry.hugetlb_flag else PAGE_SIZE


def _check_attachment(mm: str, ipcns: str, vma: vma_entry, snapshot: Snapshot) -> None:
    where = f"mapping {vma.start:#x}-{vma.end:#x}"
    others = _FILE_PRIVATE | _FILE_SHARED | _ANON_PRIVATE | _SOCKET
    _require(vma.status & _ANON_SHARED and not vma.status & others, mm, f"{where} has status {vma.status:#x}")
    entry = snapshot.segments.get(vma.shmid)
    if entry is None:
        raise ImageError(ipcns, f"has no segment {vma.shmid}, which is needed for {where} of {mm}")
    page = _segment_page(entry)
    size = -(-entry.size // page) * page
    fits = not (vma.start | vma.end | vma.pgoff) % page and vma.pgoff + vma.end - vma.start <= size
    _require(fits, mm, f"{where} with offset {vma.pgoff:#x} is no part of segment {vma.shmid}")
    pagemap = snapshot.shmem.get(vma.shmid)
    if pagemap is None or not entry.in_pagemaps:
        raise ImageError(f"pagemap-shmem-{vma.shmid}.img", "is missing or empty")
    last = pagemap.runs[-1].end if pagemap.runs else 0
    _require(last <= size, pagemap.name, f"has pages beyond the {size} bytes of segment {vma.shmid}")
