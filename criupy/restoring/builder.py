"""Brings a stub tree to where every task is ready to run, by the steps of a plan.

Tasks work side by side; what each has to do is cut into as few batches as its threads and the others allow, since a
batch costs a wake-up and a stop, whatever is in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from operator import attrgetter

from criupy.log import Log, Report
from criupy.model.plan import NURSERY, RestorePlan, Stage, Step, TaskPlan, outer_pid
from criupy.restoring.runner import Answers, at_work, compile_steps, run_queues
from criupy.tracee.stub import StubProcess, StubThread, StubTree

_WORTH_A_SECOND_THREAD = 8 << 20
_AT_ONCE = 4
"""Reads of page contents between two looks at the progress, per thread."""
_CONTENT = (Stage.FILES, Stage.MAPPINGS, Stage.THREADS, Stage.CONTENT)
_SPACE = (Stage.ZOMBIES, Stage.PROTECTION, Stage.LAYOUT)
_REST = tuple(stage for stage in Stage if stage > Stage.LAYOUT)
_Stages = dict[Stage, list[Step]]


def build(
    plan: RestorePlan, tree: StubTree, log: Log, report: Report, *, after_births: Callable[[], None]
) -> None:
    """Make all processes of the plan, and run all of its steps; when all are there, ``after_births``."""
    _Builder(plan, tree, log, report).build(after_births)


class _Builder:
    def __init__(self, plan: RestorePlan, tree: StubTree, log: Log, report: Report) -> None:
        self.plan = plan
        self.tree = tree
        self.log = log
        self.common = _by_stage(step for step in plan.steps if step.stage <= Stage.HOLD)
        self.living = {task.pid: task for task in plan.tasks}
        self.steps: dict[int, _Stages] = {pid: {} for pid in self.living}
        """By pid, what a process does once everyone is there."""
        self.deaths: dict[int, list[Step]] = {}
        """By pid, what those do who are dead in the images."""
        self.ends: dict[int, list[Step]] = {}
        """By pid, what leaders do who have ended in the images, while other threads go on."""
        self.late: list[Step] = []
        """What the nursery does at the end: the threads are there then."""
        process_of = {tid: task.pid for task in plan.tasks for tid in (task.pid, *task.tids)}
        for step in plan.steps:
            if step.stage > Stage.HOLD:
                self._file(step, process_of)
        self.answers = {pid: Answers() for pid in self.living}
        self.progress = _Progress(plan, report)

    def _file(self, step: Step, process_of: dict[int, int]) -> None:
        if step.tid == NURSERY:
            self.late.append(step)
        elif step.tid not in process_of:
            self.deaths.setdefault(step.tid, []).append(step)
        elif step.stage is Stage.ZOMBIES and step.tid not in self.living[process_of[step.tid]].tids:
            self.ends.setdefault(step.tid, []).append(step)
        else:
            self.steps[process_of[step.tid]].setdefault(step.stage, []).append(step)

    def build(self, after_births: Callable[[], None]) -> None:
        nursery = self.tree.processes[NURSERY].leader
        shared = Answers()
        with nullcontext() if self._fills_much() else self.tree.on_one_processor():
            run_queues([(nursery, self.common.get(Stage.NURSERY, []))], shared)
            self._grow(self.common[Stage.TREE], shared)
        self.log.info(f"Created {len(self.living)} tasks")
        after_births()
        for tid, run in groupby(self.common.get(Stage.HOLD, []), attrgetter("tid")):  # tasks help it
            run_queues([(self.tree.processes[tid].leader, [*run])], shared)
        for task in self.plan.tasks:
            if task.stopped:
                self.tree.processes[task.pid].stop()
        meets = self.deaths or self.ends or any(Stage.ZOMBIES in steps for steps in self.steps.values())
        if meets or self._is_shared("descriptors") or self._is_shared("directories"):
            self._run(_CONTENT)
            self._let_die()
            self._run(
                _SPACE
            )  # here files are opened for the last time, before anyone changes the root of others
            self._run(_REST)
        else:
            self._run((*_CONTENT, *_SPACE, *_REST))
        run_queues([(nursery, self.late)], shared)

    def _fills_much(self) -> bool:
        return (
            _volume(step for step in self.common[Stage.TREE] if step.call == "pread64")
            >= _WORTH_A_SECOND_THREAD
        )

    def _is_shared(self, what: str) -> bool:
        """Whether several tasks have one table (``descriptors``), or one root (``directories``)."""
        return len({getattr(task, what) for task in self.plan.tasks}) < len(self.plan.tasks)

    # The tree

    def _grow(self, steps: Sequence[Step], answers: Answers) -> None:
        """In the order of the steps: what one task does in a row is a batch."""
        for tid, run in groupby(steps, attrgetter("tid")):
            own = list(run)
            process = self.tree.processes[tid]
            last = [own.pop()] if own[-1].call == "exit_group" else []
            self._do(process, own, answers)
            for step in own:
                if step.call == "clone3":
                    assert step.gives is not None
                    number = step.gives.key
                    shares_memory = self._shares_memory(tid, number)
                    born = self.tree.welcome(number, process, shares_memory=shares_memory)
                    answers.values[outer_pid(number)] = born.pid
            if last:
                self._end(tid, process, last, answers)

    def _shares_memory(self, maker: int, child: int) -> bool:
        if maker not in self.living or child not in self.living:
            return False
        return self.living[maker].memory == self.living[child].memory

    def _do(self, process: StubProcess, steps: Sequence[Step], answers: Answers) -> None:
        """Steps of one task; two threads share the work where it reads much."""
        for reads, run in groupby(steps, lambda step: step.call == "pread64"):
            some = list(run)
            if reads and _volume(some) >= _WORTH_A_SECOND_THREAD:
                for _ in self._read(process, some, answers):
                    pass
            else:
                run_queues([(process.leader, some)], answers)

    def _end(self, number: int, process: StubProcess, steps: Sequence[Step], answers: Answers) -> None:
        """The last steps of a task, which does not come back from them."""
        for _ in at_work([(process.leader, steps)], answers):
            process.leader.await_end()
            break
        self.tree.bury(number)

    def _let_die(self) -> None:
        for pid, steps in self.deaths.items():
            self._end(pid, self.tree.processes[pid], steps, Answers())
        for pid, (*steps, last) in self.ends.items():
            process = self.tree.processes[pid]
            run_queues([(process.leader, steps)], self.answers[pid])
            process.end_leader(compile_steps([last], self.answers[pid]).batch)

    # Everything else

    def _run(self, stages: Iterable[Stage]) -> None:
        """These stages of all processes; those that share a descriptor table one after the other."""
        wanted = [*stages]
        self.log.debug(f"{wanted[0].name.lower()} to {wanted[-1].name.lower()}")
        lanes: dict[int, list[TaskPlan]] = {}
        for task in self.plan.tasks:
            lanes.setdefault(task.descriptors, []).append(task)
        working = deque(self._lane(lane, wanted) for lane in lanes.values())
        while working:
            lane = working.popleft()
            with suppress(StopIteration):
                next(lane)
                working.append(lane)

    def _lane(self, tasks: Iterable[TaskPlan], stages: Sequence[Stage]) -> Iterator[None]:
        for task in tasks:
            yield from self._process(task, stages)

    def _process(self, task: TaskPlan, stages: Sequence[Stage]) -> Iterator[None]:
        """Stages in which only the leader has something to do are one."""
        process, answers = self.tree.processes[task.pid], self.answers[task.pid]
        pending: list[Step] = []
        for stage in stages:
            steps = self.steps[task.pid].get(stage, [])
            if stage is Stage.THREADS:
                others = [tid for tid in task.tids if tid != task.pid]
                if others:
                    yield from at_work([(process.leader, pending)], answers)
                    pending = []
                    process.create_threads(others)
            elif stage is Stage.CONTENT and _volume(steps) >= _WORTH_A_SECOND_THREAD:
                for reads, run in groupby(steps, lambda step: step.call == "pread64"):
                    if reads:
                        yield from at_work([(process.leader, pending)], answers)
                        pending = []
                        yield from self._read(process, list(run), answers)
                    else:
                        pending += run
            elif all(step.tid == task.pid for step in steps):
                pending += steps
            else:
                yield from at_work([(process.leader, pending)], answers)
                pending = []
                yield from at_work(_queues(process, steps), answers)
        yield from at_work([(process.leader, pending)], answers)

    def _read(self, process: StubProcess, reads: Sequence[Step], answers: Answers) -> Iterator[None]:
        """Page contents, by two threads of the address space."""
        with process.extra_thread() as second:
            for at in range(0, len(reads), 2 * _AT_ONCE):
                some = reads[at : at + 2 * _AT_ONCE]
                yield from at_work([(process.leader, some[::2]), (second, some[1::2])], answers)
                self.progress.add(_volume(some))


class _Progress:
    """How much of the memory is in place."""

    def __init__(self, plan: RestorePlan, report: Report) -> None:
        self._report = report
        self._done = 0
        self._total = _volume(step for step in plan.steps if step.call == "pread64")

    def add(self, size: int) -> None:
        self._done += size
        self._report.progress("memory", self._done, self._total)


def _volume(steps: Iterable[Step]) -> int:
    """Bytes of content."""
    return sum(step.expect or 0 for step in steps)


def _by_stage(steps: Iterable[Step]) -> _Stages:
    found: _Stages = {}
    for step in steps:
        found.setdefault(step.stage, []).append(step)
    return found


def _queues(process: StubProcess, steps: Iterable[Step]) -> list[tuple[StubThread, list[Step]]]:
    queues: dict[int, list[Step]] = {}
    for step in steps:
        queues.setdefault(step.tid, []).append(step)
    return [(process.threads[tid], own) for tid, own in queues.items()]
