"""The first look at what is to be dumped, before anyone is stopped: everything that stands in the way, at once."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import TypeVar

from criupy.dumping import cgroups
from criupy.errors import NoSuchTask, NotDumpable, Obstacle, PrivilegeError
from criupy.linux import family, namespaces, processes, syscalls
from criupy.linux.capability import CAP_SYS_ADMIN, CAP_SYS_PTRACE
from criupy.linux.cgroup import Cgroup
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import task as proc_task
from criupy.options import DumpOptions, FileOptions
from criupy.resources import memory
from criupy.resources.filetable import Distinct
from criupy.resources.namespaces import pidns
from criupy.resources.registry import FILE_KINDS, THREAD_KINDS

_PF_KTHREAD = 0x200000  # Source: Linux include/linux/sched.h


_BY_SIGNAL = 0x7F
_MOMENT = 0.05


def look(options: DumpOptions, features: KernelFeatures, cgroup: Cgroup | None = None) -> list[str]:
    """Warnings about what will come back only in part, and about who will be stopped by ``cgroup`` besides the tree.

    Raises `NoSuchTask`, `PrivilegeError`, or `NotDumpable` with every obstacle that was found in the tree; what
    `tracee.cgroup.check` says.
    """
    root = options.tree
    if not features.has_capability(CAP_SYS_PTRACE) or not features.has_capability(CAP_SYS_ADMIN):
        message = "CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed to dump a task"
        raise PrivilegeError(message, hint="run criupy as root")
    with _refusals(root):
        obstacles = [*_root(options)]
    if obstacles:
        raise NotDumpable(obstacles)
    with _refusals(root):
        members = [member for member in family.walk(root) if not family.is_zombie(member)]
        pids = [member.pid for member in members]
        obstacles = _lasting(
            lambda: [
                *_tree(pids, features, options),
                *_strangers(options, pids),
                *cgroups.obstacles(members, cgroup),
            ]
        )
    if obstacles:
        raise NotDumpable(obstacles)
    said = [line for pid in pids for line in _of_living(pid, _warnings(pid, features), root)]
    with _refusals(root):
        return [
            *said,
            *FILE_KINDS.warnings(_speakers(pids), features),
            *cgroups.warnings(members, cgroup),
        ]


def _warnings(pid: int, features: KernelFeatures) -> Iterator[str]:
    speaker = family.speaker(pid)
    for kind in THREAD_KINDS:
        yield from kind.warnings(speaker, features)


def _speakers(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield family.speaker(pid)


@contextmanager
def _refusals(root: int) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoSuchTask(f"there is no task {root}", hint="ps -e lists the tasks that are there") from error
    except PermissionError as error:
        hint = "it may have capabilities that criupy lacks, or belong to another user namespace"
        raise PrivilegeError(f"task {root} may not be looked into: {error.filename}", hint=hint) from error


T = TypeVar("T")


def _of_living(pid: int, found: Iterable[T], root: int) -> Iterator[T]:
    """What was found of a task; one below the root may end at any time, and is no obstacle then."""
    try:
        there = [*found]
    except (FileNotFoundError, ProcessLookupError):
        if pid == root:
            raise
        return
    if there and (pid == root or not family.is_ending(pid)):
        yield from there


def _lasting(look: Callable[[], list[Obstacle]]) -> list[Obstacle]:
    """What is found twice, a moment apart.

    A task that runs changes what is being looked at: its descriptors, its memory; between vfork and execve it shares
    what it will not, and at its birth or death it is in no cgroup.
    """
    found = {(one.pid, one.what) for one in look()}
    if not found:
        return []
    time.sleep(_MOMENT)
    return [one for one in look() if (one.pid, one.what) in found]


def _root(options: DumpOptions) -> Iterator[Obstacle]:
    """What stands in the way already of looking further."""
    root = options.tree
    stat = proc_task.stat(_read(root, "stat"))
    comm = stat.comm.decode("utf-8", "backslashreplace")
    yield from _whole_task(root, comm, stat)
    yield from pidns.root_obstacles(root, comm)
    if stat.session != root and not options.shell_job:
        why = f"it is not a session leader (its session is {stat.session})"
        yield Obstacle(
            root, comm, "session", why, "start it with setsid, or dump and restore it with --shell-job"
        )


def _tree(pids: Sequence[int], features: KernelFeatures, options: DumpOptions) -> Iterator[Obstacle]:
    kin = family.kin(pids)
    root = pids[0]
    files: memory.KnownFiles = {}
    named: set[bytes] = set()
    for pid in pids:
        yield from _of_living(pid, _member(pid, root, kin, features, options.files), root)
        yield from _of_living(pid, _memory(pid, files, named, options.files), root)
    yield from FILE_KINDS.outside(pids, options.outside, shell_job=options.shell_job)
    speakers = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            speakers[pid] = family.speaker(pid)
    yield from _shared(speakers)


def _strangers(options: DumpOptions, pids: Sequence[int]) -> Iterator[Obstacle]:
    """Who would end with the tree."""
    if not (options.leave_running or options.leave_stopped):
        yield from pidns.strangers(options.tree, pids)


def _memory(
    pid: int, files: memory.KnownFiles, named: set[bytes], options: FileOptions
) -> Iterator[Obstacle]:
    for one in memory.obstacles(family.speaker(pid), files, named, options):
        yield one._replace(pid=pid)


def look_again(speakers: Mapping[int, int]) -> None:
    """What may have changed until the tasks were stopped and no kind looks at; by pid, who speaks for each.

    `NotDumpable`.
    """
    obstacles = [*_shared(speakers), *pidns.obstacles_again(speakers)]
    if obstacles:
        raise NotDumpable(obstacles)


def _member(
    pid: int, root: int, kin: family.Kin, features: KernelFeatures, options: FileOptions
) -> Iterator[Obstacle]:
    stat = proc_task.stat(_read(pid, "stat"))
    comm = stat.comm.decode("utf-8", "backslashreplace")
    if pid != root and stat.state in "ZX" and family.is_ending(pid):
        return  # it has died since, or is about to; of the root more is asked before
    blocking = [] if pid == root else [*_whole_task(pid, comm, stat)]
    yield from blocking
    if blocking:
        return
    yield from _namespaces(pid, comm, root)
    yield from pidns.obstacles(pid, comm, root)
    speaker = family.speaker(pid)
    of_kinds = (kind.obstacles(speaker, features) for kind in THREAD_KINDS)
    for one in chain(chain.from_iterable(of_kinds), FILE_KINDS.obstacles(speaker, kin, options)):
        yield one._replace(pid=pid)


_SHARED = {
    syscalls.KCMP_VM: "its address space",
    syscalls.KCMP_SIGHAND: "its signal actions",
    syscalls.KCMP_FILES: "its descriptors",
    syscalls.KCMP_FS: "working directory, root and umask",
}


def _shared(speakers: Mapping[int, int]) -> Iterator[Obstacle]:
    """What processes share, by clone(2), with others than their parents."""
    for what, name in _SHARED.items():
        known: Distinct[int] = Distinct(partial(syscalls.kcmp_table, what=what))
        for pid, speaker in speakers.items():
            with suppress(FileNotFoundError, ProcessLookupError):
                other, place = known.find(speaker)
                if other is None:
                    known.insert(place, speaker)
                    continue
                parent = _parent(pid)
                if syscalls.kcmp_table(speaker, speakers.get(parent, parent), what) == 0:
                    continue
                comm = proc_task.stat(_read(pid, "stat")).comm.decode("utf-8", "backslashreplace")
                why = f"it shares {name} with {processes.describe(other)}, who is not its parent"
                yield Obstacle(pid, comm, "task", why, "dump it when it has executed a program of its own")


def _parent(pid: int) -> int:
    return proc_task.stat(_read(pid, "stat")).ppid


def _whole_task(pid: int, comm: str, stat: proc_task.Stat) -> Iterator[Obstacle]:
    lines = _read(pid, "status").decode("utf-8", "backslashreplace").splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if pid == os.getpid():
        yield Obstacle(pid, comm, "criupy itself", "cannot be dumped", "name the process to dump")
    elif status["Tgid"] != str(pid):
        yield Obstacle(pid, comm, "thread", f"it is a thread of {status['Tgid']}", "name the process to dump")
    elif stat.state in "ZX" and not family.is_ending(pid):
        yield from _without_leader(pid, comm, stat)
    elif stat.state in "ZX":
        yield Obstacle(pid, comm, "task", "it is dead already (a zombie)", "its parent has to wait for it")
    elif stat.flags & _PF_KTHREAD:
        yield Obstacle(pid, comm, "task", "it is a kernel thread")
    elif status["TracerPid"] != "0":
        why = f"it is traced by {processes.describe(int(status['TracerPid']))}"
        yield Obstacle(pid, comm, "task", why, "detach the debugger first")


def _without_leader(pid: int, comm: str, stat: proc_task.Stat) -> Iterator[Obstacle]:
    """A process whose main thread has ended, while others go on."""
    speaker = family.speaker(pid)
    try:
        os.close(syscalls.pidfd_of(speaker))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        why = (
            "its main thread has ended while others run, and this kernel gives no access to their descriptors"
        )
        yield Obstacle(pid, comm, "task", why, "this takes Linux 6.9 (PIDFD_THREAD)")
    if stat.exit_code & _BY_SIGNAL:
        why = f"a seccomp filter has killed its main thread alone (signal {stat.exit_code & _BY_SIGNAL})"
        yield Obstacle(pid, comm, "task", f"{why}, which cannot be restored")


def _namespaces(pid: int, comm: str, root: int) -> Iterator[Obstacle]:
    """A tree has clocks of its own after a restore, but only one pair of them."""
    own, theirs = namespaces.identify(os.getpid()), namespaces.identify(family.speaker(pid))
    for kind, inode in theirs.items():
        if own.get(kind) != inode and kind not in ("cgroup", "pid", "time"):
            why = "the task lives in another one than criupy, which cannot be dumped yet"
            yield Obstacle(pid, comm, f"{kind} namespace", why, f"run criupy inside (nsenter -t {pid})")
    if "time" in theirs and theirs["time"] != namespaces.identify(family.speaker(root)).get("time"):
        why = f"the task lives in another one than {root}, which cannot be dumped"
        yield Obstacle(pid, comm, "time namespace", why, "dump it by itself")


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
