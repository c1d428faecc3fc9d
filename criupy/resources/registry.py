"""All kinds, one line each."""

from __future__ import annotations

from criupy.resources.files.epoll import Epoll
from criupy.resources.files.eventfd import Eventfd
from criupy.resources.files.fanotify import Fanotify
from criupy.resources.files.fifo import Fifo
from criupy.resources.files.inotify import Inotify
from criupy.resources.files.kinds import FileKinds
from criupy.resources.files.memfd import Memfd
from criupy.resources.files.namespace import NamespaceFile
from criupy.resources.files.pidfd import Pidfd
from criupy.resources.files.pipe import Pipe
from criupy.resources.files.refused import REFUSED
from criupy.resources.files.regular import RegularFile
from criupy.resources.files.signalfd import Signalfd
from criupy.resources.files.timerfd import Timerfd
from criupy.resources.files.tty import Tty
from criupy.resources.files.unixsock import UnixSock
from criupy.resources.kind import TaskKind
from criupy.resources.task.comm import Comm
from criupy.resources.task.creds import Creds
from criupy.resources.task.membarrier import Membarrier
from criupy.resources.task.oom import OomScore
from criupy.resources.task.prctls import ProcessPrctls, ThreadPrctls
from criupy.resources.task.registers import Registers
from criupy.resources.task.rlimits import Rlimits
from criupy.resources.task.rseq import Rseq
from criupy.resources.task.sched import Sched
from criupy.resources.task.seccomp import Seccomp
from criupy.resources.task.signals import ProcessSignals, ThreadSignals
from criupy.resources.task.taskstate import TaskState
from criupy.resources.task.threading import Threading
from criupy.resources.task.timers import Timers

THREAD_KINDS: tuple[TaskKind, ...] = (
    TaskState(),
    Registers(),
    Rseq(),
    Threading(),
    Comm(),
    Sched(),
    Membarrier(),
    OomScore(),
    Rlimits(),
    ProcessSignals(),
    ThreadSignals(),
    Seccomp(),
    Creds(),
    ThreadPrctls(),
    ProcessPrctls(),
    Timers(),
)
"""Task state in the order in which it is encoded and planned; the leader of a process comes before its threads."""

FILE_KINDS = FileKinds(
    (
        RegularFile(),
        Pipe(),
        Fifo(),
        Eventfd(),
        Epoll(),
        Memfd(),
        UnixSock(),
        Signalfd(),
        Inotify(),
        Fanotify(),
        Pidfd(),
        NamespaceFile(),
        Timerfd(),
        Tty(),
        *REFUSED,
    )
)
"""Kinds of open files."""
