"""The first look at what is to be dumped, before anyone is stopped: everything that stands in the way, at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

from criupy.errors import NoSuchTask, NotDumpable, Obstacle, PrivilegeError
from criupy.linux import namespaces, processes
from criupy.linux.capability import CAP_SYS_ADMIN, CAP_SYS_PTRACE
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import task as proc_task
from criupy.options import DumpOptions
from criupy.resources import memory
from criupy.resources.registry import FILE_KINDS, THREAD_KINDS

_PF_KTHREAD = 0x200000  # Source: Linux include/linux/sched.h


def look(options: DumpOptions, features: KernelFeatures) -> list[str]:
    """Warnings about what will come back only in part.

    Raises `NoSuchTask`, `PrivilegeError`, or `NotDumpable` with every obstacle that was found.
    """
    pid = options.tree
    if not features.has_capability(CAP_SYS_PTRACE) or not features.has_capability(CAP_SYS_ADMIN):
        message = "CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed to dump a task"
        raise PrivilegeError(message, hint="run criupy as root")
    try:
        obstacles = [*_obstacles(options, features)]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoSuchTask(f"there is no task {pid}", hint="ps -e lists the tasks that are there") from error
    except PermissionError as error:
        hint = "it may have capabilities that criupy lacks, or belong to another user namespace"
        raise PrivilegeError(f"task {pid} may not be looked into: {error.filename}", hint=hint) from error
    if obstacles:
        raise NotDumpable(obstacles)
    said = [line for kind in THREAD_KINDS for line in kind.warnings(pid, features)]
    return [*said, *FILE_KINDS.warnings(pid, features)]


def look_again(pid: int) -> None:
    """What may have changed until the task was stopped and no kind looks at: `NotDumpable` for children."""
    found = [*_family(pid, proc_task.stat(_read(pid, "stat")).comm.decode("utf-8", "backslashreplace"))]
    if found:
        raise NotDumpable(found)


def _obstacles(options: DumpOptions, features: KernelFeatures) -> Iterator[Obstacle]:
    pid = options.tree
    stat = proc_task.stat(_read(pid, "stat"))
    comm = stat.comm.decode("utf-8", "backslashreplace")
    blocking = list(_whole_task(pid, comm, stat))
    yield from blocking
    if blocking:
        return
    if stat.session != pid and not options.shell_job:
        why = f"it is not a session leader (its session is {stat.session})"
        yield Obstacle(
            pid, comm, "session", why, "start it with setsid, or dump and restore it with --shell-job"
        )
    yield from _family(pid, comm)
    yield from _namespaces(pid, comm)
    for kind in THREAD_KINDS:
        yield from kind.obstacles(pid, features)
    yield from memory.obstacles(pid, features)
    yield from FILE_KINDS.obstacles(pid)


def _whole_task(pid: int, comm: str, stat: proc_task.Stat) -> Iterator[Obstacle]:
    lines = _read(pid, "status").decode("utf-8", "backslashreplace").splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if pid == os.getpid():
        yield Obstacle(pid, comm, "criupy itself", "cannot be dumped", "name the process to dump")
    elif status["Tgid"] != str(pid):
        yield Obstacle(pid, comm, "thread", f"it is a thread of {status['Tgid']}", "name the process to dump")
    elif stat.state in "ZX":
        yield Obstacle(pid, comm, "task", "it is dead already (a zombie)", "its parent has to wait for it")
    elif stat.flags & _PF_KTHREAD:
        yield Obstacle(pid, comm, "task", "it is a kernel thread")
    elif status["TracerPid"] != "0":
        why = f"it is traced by {processes.describe(int(status['TracerPid']))}"
        yield Obstacle(pid, comm, "task", why, "detach the debugger first")


def _family(pid: int, comm: str) -> Iterator[Obstacle]:
    children = [
        child
        for tid in os.listdir(f"/proc/{pid}/task")
        for child in _read(pid, f"task/{tid}/children").split()
    ]
    if children:
        names = ", ".join(child.decode() for child in children[:8])
        why = f"it has {len(children)} (pid {names}), and trees of processes cannot be dumped yet"
        yield Obstacle(pid, comm, "child processes", why, "dump it when they have ended")


def _namespaces(pid: int, comm: str) -> Iterator[Obstacle]:
    own, theirs = namespaces.identify(os.getpid()), namespaces.identify(pid)
    for kind, inode in theirs.items():
        if own.get(kind) != inode and kind != "cgroup":
            why = "the task lives in another one than criupy, which cannot be dumped yet"
            yield Obstacle(pid, comm, f"{kind} namespace", why, f"run criupy inside (nsenter -t {pid})")


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
