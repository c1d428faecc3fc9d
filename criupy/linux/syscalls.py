"""System calls that Python's ``os`` lacks: the only place of the project that uses ctypes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from criupy.errors import TraceeError
from criupy.linux.mman import MAP_SHARED, PAGE, PAGEMAP_SCAN, PROT_READ

_libc = ctypes.CDLL(None, use_errno=True)

SYS_openat2 = 437
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08


class _OpenHow(ctypes.Structure):
    """struct open_how.  Source: Linux include/uapi/linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a descriptor (close-on-exec is added to ``flags``), or OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    fd: int = _libc.syscall(SYS_openat2, dir_fd, name, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(name))
    return fd


SYS_tee, SYS_kcmp, SYS_pidfd_getfd = 276, 312, 438
KCMP_FILE, KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_IO, KCMP_EPOLL_TFD = 0, 1, 2, 3, 4, 5, 7


def _result(answer: int) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


PIDFD_THREAD, PIDFD_SIGNAL_THREAD_GROUP = os.O_EXCL, 2
"""Source: Linux include/uapi/linux/pidfd.h; since v6.9."""


def pidfd_of(tid: int) -> int:
    """A pidfd of a process or, by the number of a thread that is no leader, of that; or OSError.

    EINVAL from a kernel that has none of threads (before v6.9).
    """
    try:
        return os.pidfd_open(tid)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        return os.pidfd_open(tid, PIDFD_THREAD)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a close-on-exec duplicate of the descriptor ``fd`` of another process, or OSError."""
    return _result(_libc.syscall(SYS_pidfd_getfd, pidfd, fd, 0))


def tee(source: int, target: int, length: int) -> int:
    """tee(2), not blocking: how many bytes of one pipe are now in the other as well, or OSError."""
    SPLICE_F_NONBLOCK = 2  # noqa: N806 -- its name in the kernel
    return _result(_libc.syscall(SYS_tee, source, target, ctypes.c_size_t(length), SPLICE_F_NONBLOCK))


def kcmp_file(pid1: int, pid2: int, fd1: int, fd2: int) -> int:
    """kcmp(2), KCMP_FILE: 0 for one open file description, else 1 (less) or 2 (greater) in a total order."""
    return _result(_libc.syscall(SYS_kcmp, pid1, pid2, KCMP_FILE, fd1, fd2))


def kcmp_table(tid1: int, tid2: int, what: int) -> int:
    """kcmp(2) of something a thread has one of (KCMP_FILES, KCMP_FS...): 0: both share it, else 1 or 2, an order."""
    return _result(_libc.syscall(SYS_kcmp, tid1, tid2, what, 0, 0))


def timerfd_gettime(fd: int) -> None:
    """timerfd_gettime(2) for its effect: what has expired by now counts among what can be read.  OSError.

    A periodic timer stands still from its first expiry until somebody looks; whoever does not read takes nothing away.
    Source: Linux fs/timerfd.c, ``do_timerfd_gettime``.
    """
    _result(_libc.timerfd_gettime(fd, (ctypes.c_uint64 * 4)()))


IN_DELETE_SELF, IN_DONT_FOLLOW = 0x400, 0x0200_0000


def inotify_init() -> int:
    """inotify_init1(2): a descriptor, close-on-exec; OSError."""
    return _result(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def inotify_add_watch(fd: int, name: bytes, mask: int) -> int:
    """inotify_add_watch(2): the watch descriptor; OSError."""
    return _result(_libc.inotify_add_watch(fd, name, mask))


def inotify_rm_watch(fd: int, wd: int) -> None:
    """inotify_rm_watch(2); OSError."""
    _result(_libc.inotify_rm_watch(fd, wd))


def open_by_handle_at(mount_fd: int, kind: int, handle: bytes) -> int:
    """open_by_handle_at(2), O_PATH: the file that a handle means in the file system of a mount; OSError."""
    words = array("I", (len(handle), kind)).tobytes() + handle
    return _result(_libc.open_by_handle_at(mount_fd, words, os.O_PATH | os.O_CLOEXEC))


class _EpollSlot(ctypes.Structure):
    """struct kcmp_epoll_slot.  Source: Linux include/uapi/linux/kcmp.h."""

    _fields_ = (("efd", ctypes.c_uint32), ("tfd", ctypes.c_uint32), ("toff", ctypes.c_uint32))


def kcmp_epoll(pid1: int, fd: int, pid2: int, epoll_fd: int, tfd: int, skip: int) -> int:
    """kcmp(2), KCMP_EPOLL_TFD: 0 when ``fd`` is the file that the epoll watches under the number ``tfd``.

    ``skip``: how many earlier registrations of the same number to pass over.  OSError where there is none.
    """
    slot = _EpollSlot(epoll_fd, tfd, skip)
    return _result(_libc.syscall(SYS_kcmp, pid1, pid2, KCMP_EPOLL_TFD, fd, ctypes.byref(slot)))


SO_PEEK_OFF = 42
_SOL_SOCKET, _SO_GET_FILTER = 1, 26
_BPF_MAXINSNS, _BPF_INSN = 4096, 8


def socket_filter(fd: int) -> bytes | None:
    """The classic BPF program of a socket, empty if it has none; None: it is an eBPF program, which nobody may see.

    The length that this option goes by is in instructions.  Source: Linux net/core/filter.c, ``sk_get_filter``.
    """
    count = ctypes.c_uint32(0)
    try:
        _result(_libc.getsockopt(fd, _SOL_SOCKET, _SO_GET_FILTER, None, ctypes.byref(count)))
        if not count.value:
            return b""
        program = ctypes.create_string_buffer(_BPF_MAXINSNS * _BPF_INSN)
        count.value = _BPF_MAXINSNS
        _result(_libc.getsockopt(fd, _SOL_SOCKET, _SO_GET_FILTER, program, ctypes.byref(count)))
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        return None
    return program.raw[: count.value * _BPF_INSN]


_process_vm_readv = _libc.process_vm_readv
_process_vm_readv.restype = ctypes.c_ssize_t
_process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def address_of(buffer: bytearray | mmap.mmap) -> int:
    """Where the bytes of ``buffer`` are; good for as long as it lives and keeps its size."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def process_vm_readv(pid: int, address: int, size: int, pieces: Sequence[tuple[int, int]]) -> int:
    """process_vm_readv(2) of at most 1024 pieces (address, length) of ``pid`` into ``size`` bytes at ``address``.

    Returns how many bytes were read before the first that cannot be, 0 if that is the very first; TraceeError
    otherwise.  Other threads run meanwhile.
    """
    local = array("Q", (address, size))
    remote = array("Q", chain.from_iterable(pieces))
    count: int = _process_vm_readv(pid, local.buffer_info()[0], 1, remote.buffer_info()[0], len(pieces), 0)
    if count >= 0:
        return count
    code = ctypes.get_errno()
    if code == errno.EFAULT:
        return 0
    raise TraceeError(f"memory of task {pid} cannot be read", errno=code)


_PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_GET = 77, 2


def has_timer_restore_ids() -> bool:
    """Whether a task can ask for the ids of its POSIX timers.  Source: Linux include/uapi/linux/prctl.h."""
    try:
        return prctl(_PR_TIMER_CREATE_RESTORE_IDS, _RESTORE_IDS_GET) >= 0
    except OSError:
        return False


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one argument, for this thread; OSError."""
    return _result(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


def set_subreaper(*, on: bool) -> bool:
    """Whether orphans among our descendants come to us; returns what it was before."""
    before = ctypes.c_int()
    _result(_libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0))
    prctl(_PR_SET_CHILD_SUBREAPER, int(on))
    return bool(before.value)


class LockedMemory:
    """Memory of ours that is never paged out, at a fixed ``address``; ``bytes`` is a view of it.

    The kernel copies registers that are set word by word: a page fault in between, and SIGKILL during that
    fault, would leave the tracee with half of them.
    """

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.bytes = memoryview(self._map)
        _result(_libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(size)))


SIG_BLOCK, SIG_SETMASK = 0, 2
_SYS_RT_SIGPROCMASK = 14


def signal_mask(how: int, mask: int) -> int:
    """Change the mask of this thread (bit ``signo - 1``) and return the old one.

    Python's own call makes an enumeration member of every signal, at 50 us a time.
    """
    new, old = ctypes.c_uint64(mask), ctypes.c_uint64()
    _result(_libc.syscall(_SYS_RT_SIGPROCMASK, how, ctypes.byref(new), ctypes.byref(old), 8))
    return old.value


def has_pagemap_scan() -> bool:
    """Whether /proc/PID/pagemap knows the PAGEMAP_SCAN ioctl (since v6.7)."""
    ask = array("Q", (12 * 8, 0, 0, PAGE, *(0 for _ in range(8))))
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        try:
            fcntl.ioctl(pagemap, PAGEMAP_SCAN, ask)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return False
            raise TraceeError("the page map cannot be scanned", errno=error.errno or 0) from error
    return True


_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def fallocate(fd: int, size: int) -> None:
    """fallocate(2) of the first ``size`` bytes of a file; nothing happens where the file system does not know it.

    OSError.  posix_fallocate(3) would write zeros there.
    """
    try:
        _result(_fallocate(fd, 0, 0, size))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


TMPFS_MAGIC = 0x01021994
HUGETLBFS_MAGIC = 0x958458F6
OVERLAYFS_MAGIC = 0x794C7630
NFS_MAGIC = 0x6969
PROC_MAGIC, SYSFS_MAGIC, CGROUP_MAGIC, CGROUP2_MAGIC = 0x9FA0, 0x62656572, 0x27E0EB, 0x63677270
DEBUGFS_MAGIC, TRACEFS_MAGIC, BPF_FS_MAGIC = 0x64626720, 0x74726163, 0xCAFE4A11
"""Source: Linux include/uapi/linux/magic.h."""


def file_system(fd: int) -> int:
    """The magic number of the file system that a file is on (fstatfs(2)), or OSError."""
    statfs = (ctypes.c_uint64 * 15)()
    _result(_libc.fstatfs(fd, ctypes.byref(statfs)))
    return int(statfs[0])


_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_FAILED = ctypes.c_void_p(-1).value


def mapped_page(fd: int, offset: int) -> bytes:
    """The page at ``offset`` of a file as those see it who map it: with what is beyond the end of the file.

    TraceeError.  Python's mmap shows no more than the file has.
    """
    address = _mmap(None, PAGE, PROT_READ, MAP_SHARED, fd, offset)
    if address == _FAILED:
        raise TraceeError("shared memory cannot be mapped", errno=ctypes.get_errno())
    try:
        return ctypes.string_at(address, PAGE)
    finally:
        _result(_libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(PAGE)))


_IPC_RMID, _SHM_RDONLY = 0, 0o10000
_shmat = _libc.shmat
_shmat.restype = ctypes.c_void_p


@contextmanager
def _segments() -> Iterator[None]:
    """A System V segment that is not there is like a file that is not there."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EIDRM):
            raise
        raise FileNotFoundError(errno.ENOENT, "no such System V segment") from error


def remove_segment(shmid: int) -> None:
    """shmctl(2), IPC_RMID: it goes when nobody has it attached any more; OSError."""
    with _segments():
        _result(_libc.shmctl(shmid, _IPC_RMID, None))


def touch_segment(shmid: int) -> None:
    """shmat(2) and shmdt(2): now we are who has used it last; OSError."""
    with _segments():
        address = _shmat(shmid, None, _SHM_RDONLY)
        _result(-1 if address == _FAILED else 0)
        _result(_libc.shmdt(ctypes.c_void_p(address)))


_SYS_IOPRIO_GET, _SYS_GET_ROBUST_LIST = 252, 274
_IOPRIO_WHO_PROCESS = 1


def ioprio_get(tid: int) -> int:
    """ioprio_get(2) of a thread: class << 13 | data, 0 if none was set."""
    return _result(_libc.syscall(_SYS_IOPRIO_GET, _IOPRIO_WHO_PROCESS, tid))


def get_robust_list(tid: int) -> tuple[int, int]:
    """get_robust_list(2) of a thread: address (0: none) and size."""
    head, size = ctypes.c_uint64(), ctypes.c_uint64()
    _result(_libc.syscall(_SYS_GET_ROBUST_LIST, tid, ctypes.byref(head), ctypes.byref(size)))
    return head.value, size.value


_SYS_CLONE3 = 435
_CLONE_ARGS_SIZE = 88
_PR_SET_MM, _PR_SET_MM_MAP_SIZE = 35, 15


def has_clone3_set_tid() -> bool:
    """A pid of -1 is refused as a value, not as a request.  Source: Linux kernel/pid.c, ``alloc_pid``."""
    pid = ctypes.c_int(-1)
    words = (ctypes.c_uint64 * 11)()
    words[8], words[9] = ctypes.addressof(pid), 1
    answer: int = _libc.syscall(_SYS_CLONE3, ctypes.byref(words), _CLONE_ARGS_SIZE)
    return answer < 0 and ctypes.get_errno() == errno.EINVAL


def has_set_mm_map() -> bool:
    """Source: Linux kernel/sys.c, ``prctl_set_mm``."""
    size = ctypes.c_uint(0)
    answer: int = _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP_SIZE, ctypes.byref(size), 0, 0)
    return answer == 0 and size.value > 0


_SYS_ARCH_PRCTL, _ARCH_MAP_VDSO_64 = 158, 0x2003


def has_map_vdso() -> bool:
    """We have a vdso already, so EEXIST is the yes.  Source: Linux arch/x86/entry/vdso/vma.c, ``map_vdso_once``."""
    answer: int = _libc.syscall(_SYS_ARCH_PRCTL, _ARCH_MAP_VDSO_64, ctypes.c_ulong(0))
    return answer < 0 and ctypes.get_errno() == errno.EEXIST


_SYS_PROCESS_MRELEASE = 448


def process_mrelease(pidfd: int) -> None:
    """Help a killed process to free its memory, on our processor as well as on its own.

    It may have none left, or the kernel may not know how (before v5.15): then it frees it alone.  Source: Linux
    mm/oom_kill.c.
    """
    _libc.syscall(_SYS_PROCESS_MRELEASE, pidfd, 0)
