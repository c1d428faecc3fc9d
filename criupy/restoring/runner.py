"""From steps to batches: what a plan says, put into the tables that stub threads walk through."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from criupy.errors import PidInUse, RestoreError
from criupy.linux.abi import MAX_ERRNO
from criupy.model.plan import Arg, Data, Field, Out, Ref, Stage, Step
from criupy.tracee.batch import NOT_RUN, RECORD, Argument, Memory, Results, Slot, SyscallBatch
from criupy.tracee.stub import StubThread

_RUN_BYTES = 1 << 17
"""Size of the tables that a stage is cut into; steps that share answers in memory stay in one table."""


@dataclass
class Answers:
    """What steps have answered so far, for the steps of later tables."""

    values: dict[Ref, int] = field(default_factory=dict)
    memory: dict[Ref, bytes] = field(default_factory=dict)


class Table(NamedTuple):
    """Some steps of one thread as a batch, each with its slot."""

    batch: SyscallBatch
    steps: tuple[tuple[Step, Slot], ...]
    outs: dict[Ref, Memory]

    def take(self, results: Results, answers: Answers) -> None:
        """Keep the answers; `RestoreError` names the step that failed."""
        for step, slot in self.steps:
            answer = results.answers[slot.index]
            if answer == NOT_RUN:
                raise RestoreError(f"{_where(step)}: {step} was not made")
            if -MAX_ERRNO <= answer < 0:
                if -answer not in step.tolerate:
                    raise _failure(step, -answer)
            elif step.expect is not None and answer != step.expect:
                message = f"{_where(step)}: {step} answered {answer}, not {step.expect}"
                raise RestoreError(message)
            if step.gives is not None:
                answers.values[step.gives] = answer
        for ref, memory in self.outs.items():
            answers.memory[ref] = results.bytes(memory)


def run_queues(queues: Iterable[tuple[StubThread, Sequence[Step]]], answers: Answers) -> None:
    """Each thread runs its queue, all at the same time."""
    for _ in at_work(queues, answers):
        pass


def at_work(queues: Iterable[tuple[StubThread, Sequence[Step]]], answers: Answers) -> Iterator[None]:
    """The same, yielding while they are at work."""
    waiting = [(thread, tables(steps, answers, thread.capacity)) for thread, steps in queues]
    while waiting:
        started: list[tuple[StubThread, Iterator[Table], Table]] = []
        for thread, rest in waiting:
            table = next(rest, None)
            if table is not None:
                thread.start(table.batch)
                started.append((thread, rest, table))
        if started:
            yield
        for thread, _, table in started:
            table.take(thread.finish(), answers)
        waiting = [(thread, rest) for thread, rest, _ in started]


def tables(steps: Iterable[Step], answers: Answers, capacity: int = _RUN_BYTES) -> Iterator[Table]:
    """Cut steps into tables of bounded size; a table is made when the ones before it have answered."""
    most = min(_RUN_BYTES, capacity // 2)
    pending: list[Step] = []
    size = 0
    for step in steps:
        weight = RECORD.size + sum(_weight(arg) for arg in step.args)
        if pending and size + weight > most and not any(isinstance(arg, Field) for arg in step.args):
            yield compile_steps(pending, answers)
            pending, size = [], 0
        pending.append(step)
        size += weight
    if pending:
        yield compile_steps(pending, answers)


def _weight(arg: Arg) -> int:
    if isinstance(arg, Out):
        return arg.size + 32
    if isinstance(arg, Data):
        return 32 + sum(_weight(part) + 8 if isinstance(part, Data) else len(part) for part in arg.parts)
    return 0


class _Compiler:
    """A batch while it is made; answers of earlier batches become plain numbers in it."""

    def __init__(self, answers: Answers) -> None:
        self.batch = SyscallBatch()
        self.outs: dict[Ref, Memory] = {}
        self._slots: dict[Ref, Slot] = {}
        self._answers = answers

    def call(self, step: Step) -> Slot:
        slot = self.batch.call(step.call, *map(self._argument, step.args), tolerate=bool(step.tolerate))
        if step.gives is not None:
            self._slots[step.gives] = slot
        return slot

    def _argument(self, arg: Arg) -> Argument:
        match arg:
            case Data():
                return self._place(arg)
            case Out(ref, size):
                self.outs[ref] = self.batch.out(size)
                return self.outs[ref]
            case Field(ref, offset):
                if ref in self.outs:
                    return self.batch.at(self.outs[ref], offset, bits=32)
                return int.from_bytes(self._answers.memory[ref][offset : offset + 4], "little")
            case Ref():
                return self._slots[arg] if arg in self._slots else self._answers.values[arg]
        return arg

    def _place(self, part: Data) -> Memory:
        content = b""
        pointers: dict[int, Memory] = {}
        for piece in part.parts:
            if isinstance(piece, Data):
                pointers[len(content)] = self._place(piece)
                content += bytes(8)
            else:
                content += piece
        return self.batch.data(content, pointers=pointers, text=str(part))


def compile_steps(steps: Iterable[Step], answers: Answers) -> Table:
    """A batch of these steps."""
    compiler = _Compiler(answers)
    made = tuple((step, compiler.call(step)) for step in steps)
    return Table(compiler.batch, made, compiler.outs)


def _failure(step: Step, number: int) -> RestoreError:
    if step.call == "clone3" and number == errno.EEXIST:
        return PidInUse(f"pid {step.expect} is in use")
    hint = ""
    if number == errno.ENOMEM and step.stage in (Stage.MAPPINGS, Stage.CONTENT):
        hint = "the machine or the cgroup has too little memory for this task"
    return RestoreError(f"{_where(step)}: {step}", errno=number, hint=hint)


def _where(step: Step) -> str:
    about = f", {step.about}" if step.about else ""
    return f"task {step.tid}{about}" if step.tid else f"the nursery{about}"
