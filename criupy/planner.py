"""From a `Snapshot` to a `RestorePlan`.

Pure: needs no privileges, and refuses what cannot work before anything exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from criupy.errors import ImageError
from criupy.images.pages import PagesFile
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs.sysvipc import Segment
from criupy.model.plan import NURSERY, RestorePlan, Stage, Step, StubPlan, TaskPlan, data, order, outer_pid
from criupy.model.snapshot import TASK_DEAD as DEAD
from criupy.model.snapshot import TASK_STOPPED as STOPPED
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.model.tasktree import Growth, Kinsman, grow
from criupy.resources import memory, sysvshm, terminalrestore
from criupy.resources.fileplan import SPARE_NUMBERS, Shared, plan_revived
from criupy.resources.kind import PlanSubject
from criupy.resources.namespaces import pidns, timens
from criupy.resources.registry import FILE_KINDS, THREAD_KINDS
from criupy.resources.task import registers, taskstate

_SIGKILL, _SIGALRM, _SIGCHLD, _SIGSTOP, _SIGURG, _SIGVTALRM, _SIGPROF, _SIGWINCH = (
    9,
    14,
    17,
    19,
    23,
    26,
    27,
    28,
)
_WITH_EFFECTS = (18, 20, 21, 22)
"""SIGCONT and the stop signals: sending one takes the others out of the queue."""
_SHARED = ("files_id", "fs_id", "vm_id", "sighand_id")
"""The ids of what processes may share."""
_INHERITED = ("net", "ipc", "uts", "mnt", "user")
"""Kinds of namespaces that a restored tree has from criupy."""
_NO_SEGMENTS: Mapping[int, Segment] = {}
_DEFAULT_ACTION = data(bytes(32), "{SIG_DFL}")


def plan(
    snapshot: Snapshot,
    features: KernelFeatures,
    now: timens.Clocks | None = None,
    segments: Mapping[int, Segment] = _NO_SEGMENTS,
) -> RestorePlan:
    """Every step of the restore, in order.

    ``now``: the clocks of this machine, without which the tree gets them as they are.
    ``segments``: the System V segments that are there already, by id.
    Raises `ImageError` when the snapshot contradicts itself or holds what criupy cannot restore yet.
    """
    return _Planning(snapshot, features, now, segments).plan()


@dataclass
class _Planning:
    snapshot: Snapshot
    features: KernelFeatures
    now: timens.Clocks | None
    segments: Mapping[int, Segment]
    warnings: list[str] = field(default_factory=list)
    inherited: dict[int, memory.Heritage] = field(default_factory=dict)
    terminals: terminalrestore.Terminals = field(init=False)

    def __post_init__(self) -> None:
        self.terminals = terminalrestore.Terminals(self.snapshot)
        self.first_with: dict[tuple[str, int], TaskImages] = {}
        """Who of those that share something is the first: by the name of the id, and the id."""
        for task in self.snapshot.tasks:
            for name in _SHARED:
                if task.ids is not None:
                    self.first_with.setdefault((name, getattr(task.ids, name)), task)

    def plan(self) -> RestorePlan:
        _check_namespaces(self.snapshot)
        pidns.check(self.snapshot)
        kinsmen = [_kinsman(task) for task in self.snapshot.tasks]
        growth = grow(kinsmen, last_pid=pidns.highest(self.snapshot) if self.snapshot.has_own_pids else 0)
        living = [task for task in self.snapshot.tasks if not task.zombie]
        stub = self._stub(living, growth)
        shared_steps, shared = FILE_KINDS.plan_shared(self._subject(self.snapshot.root, stub, NURSERY))
        births = [*self._births(growth, living, stub), *terminalrestore.plan_foreground(self.terminals, stub)]
        segment_steps, warnings = sysvshm.plan(self.snapshot, self.segments, stub.pages)
        self.warnings += warnings
        outside = frozenset(outer_pid(task.pid) for task in self.snapshot.tasks)
        steps = [*self._clocks(), *births, *segment_steps, *order(shared_steps, outside)]
        for task in self.snapshot.tasks:
            if task.zombie:
                steps += taskstate.plan_death(task.core, task.pid)
            else:
                steps += order(self._task(task, stub, shared))
        steps += self._forget_the_dead(growth)
        steps.sort(key=lambda step: step.stage)
        return RestorePlan(
            tasks=tuple(self._threads(task, stub) for task in living),
            steps=tuple(steps),
            stub=stub,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def _subject(self, task: TaskImages, stub: StubPlan, tid: int) -> PlanSubject:
        names = (name for name in _SHARED if task.ids is not None and not self._is_first(task, name))
        shared = frozenset(names)
        return PlanSubject(tid, task, self.snapshot, self.features, self.warnings.append, stub, shared)

    def _stub(self, living: list[TaskImages], growth: Growth) -> StubPlan:
        descriptors = (info.fd for task in living for info in self.snapshot.fds(task))
        pages = {one.file for task in living for one in task.content}
        pages |= {PagesFile(0, pagemap.pages_id) for pagemap in self.snapshot.shmem.values()}
        return StubPlan(
            base=memory.choose_stub_base(task.mm for task in living if task.mm is not None),
            meeting_signal=_meeting_signal(living),
            nursery_fd=max(descriptors, default=-1) + 1 + SPARE_NUMBERS,
            pages=tuple(sorted(pages)),
            terminals=self.terminals.given(),
            revived=plan_revived(self.snapshot),
            helpers=growth.helpers,
            own_pids=self.snapshot.has_own_pids,
        )

    def _births(self, growth: Growth, living: Sequence[TaskImages], stub: StubPlan) -> Iterator[Step]:
        """The growth of the tree, and before anyone makes others what these are going to inherit.

        That is memory, and the terminal of a session.
        """
        controlling = self.terminals.controlling()
        tasks = {task.pid: task for task in living}
        made = [(step.tid, step.gives.key) for step in growth.steps if step.gives is not None]
        state = {NURSERY: memory.NOTHING}
        done: set[int] = set()
        for step in growth.steps:
            maker = step.tid
            if step.gives is not None:
                if maker in tasks and maker not in done:
                    done.add(maker)
                    born = (tasks[child] for one, child in made if one == maker and child in tasks)
                    heirs = [child for child in born if self._is_first(child, "vm_id")]
                    given = memory.bequest(tasks[maker], heirs, state[maker])
                    if given is not None:
                        subject = self._subject(tasks[maker], stub, maker)
                        yield from memory.plan_bequest(subject, given, state[maker])
                        state[maker] = memory.after(tasks[maker], state[maker], given)
                state[step.gives.key] = state[maker]
            yield step
            if step.call == "setsid" and maker in controlling:
                yield from terminalrestore.plan_leader(maker, controlling[maker], stub)
        self.inherited = state

    def _clocks(self) -> list[Step]:
        if self.now is None:
            return []
        steps, warnings = timens.plan(self.snapshot.timens, self.now, self.features)
        self.warnings += warnings
        return steps

    def _threads(self, task: TaskImages, stub: StubPlan) -> TaskPlan:
        states = (
            registers.thread_state(task.threads[tid], self._subject(task, stub, tid)) for tid in task.living
        )
        return TaskPlan(
            pid=task.pid,
            threads=tuple(states),
            stopped=task.core.tc.task_state == STOPPED,
            descriptors=task.ids.files_id if task.ids else 0,
            directories=task.ids.fs_id if task.ids else 0,
            memory=task.ids.vm_id if task.ids else 0,
        )

    def _is_first(self, task: TaskImages, name: str) -> bool:
        """Whether it is the first of those who share what has the id ``name``."""
        return self.first_with[name, getattr(task.ids, name)] is task

    def _task(self, task: TaskImages, stub: StubPlan, shared: Shared) -> Iterator[Step]:
        if task.lost_its_leader:
            yield from self._end_of_leader(task, stub)
            yield from _by_others(task, self._living(task, stub, shared))
        else:
            yield from self._living(task, stub, shared)

    def _end_of_leader(self, task: TaskImages, stub: StubPlan) -> Iterator[Step]:
        """What a leader that has ended still has, and its end: until then it does everything that all threads share."""
        leader = self._subject(task, stub, task.pid)
        own = (step for kind in THREAD_KINDS if kind.outlives for step in kind.plan(task.core, leader))
        for step in order(own):
            yield step._replace(stage=Stage.ZOMBIES)
        yield taskstate.plan_end_of_leader(task.core, task.pid)

    def _living(self, task: TaskImages, stub: StubPlan, shared: Shared) -> Iterator[Step]:
        leader = self._subject(task, stub, task.pid)
        for kind in THREAD_KINDS:  # before the files: a limit makes room for them
            for tid in task.living if kind.per_thread else (task.pid,):
                yield from kind.plan(task.threads[tid], self._subject(task, stub, tid))
        if self._is_first(task, "files_id"):
            yield from FILE_KINDS.plan_table(leader, shared, stub.nursery_fd)
        yield from FILE_KINDS.plan_locks(leader)
        if self._is_first(task, "fs_id"):
            yield from FILE_KINDS.plan_fs(leader)
        if self._is_first(task, "vm_id"):
            yield from memory.plan(leader, shared.memory, self.inherited[task.pid])
        if self._is_first(task, "files_id"):
            yield Step(
                task.pid, Stage.FILESYSTEM, "close", (stub.nursery_fd,), about="the nursery's descriptor"
            )

    def _forget_the_dead(self, growth: Growth) -> Iterator[Step]:
        """The default action of SIGCHLD, once more: setting it takes the signal out of the queue."""
        quiet = (DEAD, STOPPED)
        tasks = self.snapshot.tasks
        parents = growth.told | {task.pstree.ppid for task in tasks if task.core.tc.task_state in quiet}
        for task in self.snapshot.tasks:
            if task.pid in parents:
                args = (_SIGCHLD, _DEFAULT_ACTION, 0, 8)
                about = "SIGCHLD of the dead and stopped"
                yield Step(task.living[0], Stage.ZOMBIES, "rt_sigaction", args, about=about)


def _by_others(task: TaskImages, steps: Iterator[Step]) -> Iterator[Step]:
    """What has to be done when the leader has ended, is done by the first of the others."""
    for step in steps:
        late = step.tid == task.pid and step.stage >= Stage.ZOMBIES
        yield step._replace(tid=task.living[0]) if late else step


def _check_namespaces(snapshot: Snapshot) -> None:
    """A tree must not come back without a namespace that it had for itself."""
    outside = snapshot.inventory.root_ids
    for task in snapshot.tasks:
        for kind in _INHERITED if task.ids is not None else ():
            name = f"{kind}_ns_id"
            if outside.HasField(name) and getattr(task.ids, name) != getattr(outside, name):
                why = f"the task had a {kind} namespace of its own, which cannot be restored yet"
                raise ImageError(f"ids-{task.pid}.img", why)


def _kinsman(task: TaskImages) -> Kinsman:
    entry, ids = task.pstree, task.ids
    if ids is None:
        return Kinsman(entry.pid, entry.ppid, entry.pgid, entry.sid, 0)
    return Kinsman(
        entry.pid,
        entry.ppid,
        entry.pgid,
        entry.sid,
        files_id=ids.files_id,
        fs_id=ids.fs_id,
        vm_id=ids.vm_id,
        sighand_id=ids.sighand_id,
        shares_io=task.core.tc.shares_io,
    )


def _meeting_signal(tasks: list[TaskImages]) -> int:
    """A signal that is neither pending in the images nor about to come by one of their timers."""
    busy: set[int] = {_SIGKILL, _SIGSTOP, _SIGALRM, _SIGCHLD, _SIGVTALRM, _SIGPROF, *_WITH_EFFECTS}
    for task in tasks:
        for core in task.threads.values():
            queues = (core.thread_core.signals_p.signals, core.tc.signals_s.signals)
            busy |= {int.from_bytes(entry.siginfo[:4], "little") for queue in queues for entry in queue}
        busy |= {timer.si_signo for timer in task.core.tc.timers.posix}
    candidates: list[int] = [_SIGURG, _SIGWINCH, *range(1, 65)]
    for signo in candidates:
        if signo not in busy:
            return signo
    raise ImageError("core images", "every signal there is, is pending")
