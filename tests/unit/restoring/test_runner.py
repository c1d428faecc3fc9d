"""Steps become batches: arguments, answers, and what a failure says."""

from __future__ import annotations

import errno
import struct

import pytest

from criupy.errors import RestoreError
from criupy.model.plan import Data, Field, Out, Ref, Stage, Step, data
from criupy.restoring.runner import Answers, compile_steps, run_queues, tables
from criupy.tracee.batch import NOT_RUN, RECORD, Results, SyscallBatch

BASE = 0x10000
FILE = Ref("file", 7)
PIPE = Ref("pipe", 3)


def step(call: str, *args, **details) -> Step:
    return Step(42, Stage.FILES, call, args, **details)


def record(table: bytes, index: int) -> tuple[int, ...]:
    return RECORD.unpack_from(table, index * RECORD.size)


def answered(batch: SyscallBatch, *answers: int, memory: bytes = b"") -> Results:
    return Results(batch, answers, memory.ljust(256, b"\0"), 42)


def test_an_answer_of_the_same_table_is_a_reference():
    table = compile_steps([step("getpid", gives=FILE), step("close", FILE)], Answers())
    _, references, _, value, *_ = record(table.batch.encode(BASE), 1)
    assert (references, value) == (1, 56)


def test_an_answer_of_an_earlier_table_is_a_number():
    answers = Answers()
    first = compile_steps([step("getpid", gives=FILE)], answers)
    first.take(answered(first.batch, 9), answers)
    second = compile_steps([step("close", FILE)], answers)
    _, references, _, value, *_ = record(second.batch.encode(BASE), 0)
    assert (references, value) == (0, 9)


def test_memory_that_a_call_wrote_is_read_with_32_bits():
    answers = Answers()
    steps = [step("pipe2", Out(PIPE, 8), 0), step("close", Field(PIPE, 4))]
    table = compile_steps(steps, answers)
    _, references, flags, *_ = record(table.batch.encode(BASE), 1)
    assert (references, flags >> 8) == (1, 1)
    table.take(answered(table.batch, 0, 0, memory=struct.pack("ii", 5, 6)), answers)
    later = compile_steps([step("close", Field(PIPE, 4))], answers)
    assert record(later.batch.encode(BASE), 0)[3] == 6


def test_data_may_hold_the_address_of_other_data():
    inner = data(b"inside")
    table = compile_steps([step("writev", 1, Data((b"head----", inner, b"tail")), 1)], Answers())
    encoded = table.batch.encode(BASE)
    outer = record(encoded, 0)[4] - BASE
    pointer = int.from_bytes(encoded[outer + 8 : outer + 16], "little") - BASE
    assert encoded[outer : outer + 8] + encoded[outer + 16 : outer + 20] == b"head----tail"
    assert encoded[pointer : pointer + 6] == b"inside"


def test_a_failure_names_task_object_call_and_reason():
    table = compile_steps([step("dup3", 3, 4, 0, about="fd 4 (pipe)")], Answers())
    with pytest.raises(
        RestoreError, match=r"task 42, fd 4 \(pipe\): dup3\(3, 4, 0\): Bad file descriptor"
    ) as caught:
        table.take(answered(table.batch, -errno.EBADF), Answers())
    assert caught.value.errno == errno.EBADF


def test_what_is_tolerated_is_no_failure_and_nothing_else():
    table = compile_steps([step("prctl", tolerate=frozenset({errno.EPERM}))], Answers())
    table.take(answered(table.batch, -errno.EPERM), Answers())
    with pytest.raises(RestoreError, match="Invalid argument"):
        table.take(answered(table.batch, -errno.EINVAL), Answers())


def test_a_short_answer_is_a_failure():
    table = compile_steps([step("pread64", 3, 0, 4096, 0, expect=4096)], Answers())
    with pytest.raises(RestoreError, match="answered 100, not 4096"):
        table.take(answered(table.batch, 100), Answers())


def test_long_queues_are_cut_into_tables_that_keep_fields_with_their_memory():
    steps = []
    for _ in range(2000):
        steps += [step("pipe2", Out(PIPE, 8), 0), step("close", Field(PIPE, 0))]
    made = list(tables(steps, Answers()))
    assert len(made) > 1
    assert sum(len(table.steps) for table in made) == 4000
    assert all(table.batch.size < 1 << 18 for table in made)
    assert all(table.steps[0][0].call == "pipe2" for table in made)


class FakeThread:
    """Answers every call with the number of calls before it, over all tables."""

    capacity = 1 << 20

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def start(self, batch: SyscallBatch) -> None:
        self.batch = batch
        self.log.append(f"start {self.name}")

    def finish(self) -> Results:
        self.log.append(f"finish {self.name}")
        return answered(self.batch, *range(len(self.batch.calls)))


def test_threads_work_side_by_side():
    log: list[str] = []
    queues = [(FakeThread(log, "a"), [step("getpid")]), (FakeThread(log, "b"), [step("getpid")])]
    run_queues(queues, Answers())
    assert log == ["start a", "start b", "finish a", "finish b"]


def test_what_did_not_run_is_a_failure():
    table = compile_steps([step("getpid")], Answers())
    with pytest.raises(RestoreError, match="was not made"):
        table.take(answered(table.batch, NOT_RUN), Answers())
