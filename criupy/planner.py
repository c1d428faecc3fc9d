"""From a `Snapshot` to a `RestorePlan`.

Pure: needs no privileges, and refuses what cannot work before anything exists.
"""

from __future__ import annotations

from collections.abc import Iterator

from criupy.errors import ImageError
from criupy.linux.features import KernelFeatures
from criupy.model.plan import Ref, RestorePlan, Step, TaskPlan, order
from criupy.model.snapshot import TASK_STOPPED, Snapshot, TaskImages
from criupy.resources import memory
from criupy.resources.kind import PlanSubject
from criupy.resources.registry import FILE_KINDS, THREAD_KINDS
from criupy.resources.task import registers

_SIGKILL, _SIGALRM, _SIGSTOP, _SIGURG, _SIGVTALRM, _SIGPROF, _SIGWINCH = 9, 14, 19, 23, 26, 27, 28
_WITH_EFFECTS = (18, 20, 21, 22)
"""SIGCONT and the stop signals: sending one takes the others out of the queue."""


def plan(snapshot: Snapshot, features: KernelFeatures) -> RestorePlan:
    """Every step of the restore, in order.

    Raises `ImageError` when the snapshot contradicts itself or holds what criupy cannot restore yet.
    """
    if len(snapshot.tasks) != 1:
        raise ImageError("pstree.img", f"{len(snapshot.tasks)} tasks, and trees cannot be restored yet")
    warnings: list[str] = []
    tasks = tuple(_task(task, snapshot, features, warnings) for task in snapshot.tasks)
    steps = [step for task in snapshot.tasks for step in _steps(task, snapshot, features, warnings)]
    pages = frozenset(Ref("pages", task.pagemap.pages_id) for task in snapshot.tasks if task.pagemap)
    return RestorePlan(tasks=tasks, steps=order(steps, pages), warnings=tuple(dict.fromkeys(warnings)))


def _task(task: TaskImages, snapshot: Snapshot, features: KernelFeatures, warnings: list[str]) -> TaskPlan:
    def subject(tid: int) -> PlanSubject:
        return PlanSubject(tid, task, snapshot, features, warnings.append)

    if task.mm is None:
        raise ImageError("pstree.img", f"task {task.pid} is dead, and zombies cannot be restored yet")
    return TaskPlan(
        pid=task.pid,
        ppid=task.pstree.ppid,
        pgid=task.pstree.pgid,
        sid=task.pstree.sid,
        threads=tuple(registers.thread_state(core, subject(tid)) for tid, core in task.threads.items()),
        stub_base=memory.choose_stub_base(task.mm),
        stopped=task.core.tc.task_state == TASK_STOPPED,
        meeting_signal=_meeting_signal(task),
    )


def _meeting_signal(task: TaskImages) -> int:
    """A signal that is neither pending in the image nor about to come by one of its timers."""
    busy: set[int] = {_SIGKILL, _SIGSTOP, _SIGALRM, _SIGVTALRM, _SIGPROF, *_WITH_EFFECTS}
    for core in task.threads.values():
        queues = (core.thread_core.signals_p.signals, core.tc.signals_s.signals)
        busy |= {int.from_bytes(entry.siginfo[:4], "little") for queue in queues for entry in queue}
    busy |= {timer.si_signo for timer in task.core.tc.timers.posix}
    candidates: list[int] = [_SIGURG, _SIGWINCH, *range(1, 65)]
    for signo in candidates:
        if signo not in busy:
            return signo
    raise ImageError(f"core-{task.pid}.img", "every signal there is, is pending")


def _steps(
    task: TaskImages, snapshot: Snapshot, features: KernelFeatures, warnings: list[str]
) -> Iterator[Step]:
    leader = PlanSubject(task.pid, task, snapshot, features, warnings.append)
    for kind in THREAD_KINDS:  # before the files: a limit makes room for them
        for tid, core in task.threads.items():
            if kind.per_thread or tid == task.pid:
                yield from kind.plan(core, PlanSubject(tid, task, snapshot, features, warnings.append))
    yield from FILE_KINDS.plan(leader)
    yield from memory.plan(leader)
