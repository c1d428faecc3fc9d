"""Seccomp chains: one per thread, or one for all."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from criupy.errors import ImageError, NotDumpable
from criupy.images.pb.core_pb2 import core_entry, disabled, filter, strict  # noqa: A004 -- as the schema has it
from criupy.resources.task.seccomp import FLAG_TSYNC, Seccomp, SeccompFacts

OLD, NEW, OTHER = (b"\x01" * 8, 0), (b"\x02" * 16, 2), (b"\x03" * 8, 0)
LEADER = SeccompFacts(2, (OLD, NEW), is_leader=True)
SAME = SeccompFacts(2, (OLD, NEW), is_leader=False)
NONE = SeccompFacts(0, (), is_leader=False)


def encode(sink, *facts: SeccompFacts) -> list[core_entry]:
    cores = [core_entry(mtype=core_entry.X86_64) for _ in facts]
    for fact, core in zip(facts, cores, strict=True):
        Seccomp().encode(fact, core, sink)
    return cores


def modes(cores: list[core_entry]) -> list[tuple[int, int]]:
    return [(core.thread_core.seccomp_mode, core.thread_core.seccomp_filter) for core in cores]


def test_filters_are_only_read_where_there_are_some(frozen, kernel, status) -> None:
    subject = frozen()
    subject.thread.seccomp_filters = lambda: [OLD, NEW]
    assert Seccomp().collect(subject, kernel.batch)(kernel.answer()) == LEADER
    plain = frozen(9581, status=status.replace(b"Seccomp:\t2", b"Seccomp:\t0"))
    assert Seccomp().collect(plain, kernel.batch)(kernel.answer()) == NONE


def test_a_filter_with_a_supervisor_is_refused(frozen, kernel) -> None:
    subject = frozen()
    asks = struct.pack("<HHI", 0x06, 0, 0x7FC00000)
    subject.thread.seccomp_filters = lambda: [OLD, (bytes(8) + asks, 0)]
    with pytest.raises(NotDumpable, match="a seccomp filter: it asks a supervisor"):
        Seccomp().collect(subject, kernel.batch)


def test_threads_with_the_leader_s_chain_get_it_from_the_leader(sink) -> None:
    cores = encode(sink, LEADER, SAME, SAME)
    assert modes(cores) == [(filter, 1), (disabled, 0), (disabled, 0)]
    assert sink.seccomp_filters == [(NEW[0], 3, None), (OLD[0], FLAG_TSYNC, 0)]


def test_a_thread_with_another_chain_makes_them_all_separate(sink) -> None:
    cores = encode(sink, LEADER, SAME, NONE, SeccompFacts(2, (OTHER,), is_leader=False), SAME)
    assert modes(cores) == [(filter, 1), (filter, 3), (disabled, 0), (filter, 4), (filter, 6)]
    assert [(program, flags, newer) for program, flags, newer in sink.seccomp_filters] == [
        (NEW[0], 2, None),
        (OLD[0], 0, 0),
        (NEW[0], 2, None),
        (OLD[0], 0, 2),
        (OTHER[0], 0, None),
        (NEW[0], 2, None),
        (OLD[0], 0, 5),
    ]


def test_processes_are_apart(sink) -> None:
    cores = encode(sink, LEADER, SAME, LEADER, NONE)
    assert modes(cores) == [(filter, 1), (disabled, 0), (filter, 3), (disabled, 0)]
    assert [flags for _, flags, _ in sink.seccomp_filters] == [3, 1, 2, 0]


def test_strict_mode_and_none(sink) -> None:
    cores = encode(sink, SeccompFacts(0, (), is_leader=True), SeccompFacts(1, (), is_leader=False), NONE)
    assert modes(cores) == [(disabled, 0), (strict, 0), (disabled, 0)]
    assert not cores[0].thread_core.HasField("seccomp_mode")
    assert sink.seccomp_filters == []


@pytest.fixture
def filtered(planning):
    planning.core().thread_core.seccomp_mode = filter
    planning.core().thread_core.seccomp_filter = 1
    planning.seccomp.seccomp_filters.add(filter=NEW[0], flags=2)
    planning.seccomp.seccomp_filters.add(filter=OLD[0], flags=1, prev=0)
    return planning


def test_the_oldest_filter_is_installed_first(filtered) -> None:
    assert filtered.lines(Seccomp()) == [
        "SECCOMP 7 seccomp(1, 1, &[1 instructions])",
        "SECCOMP 7 seccomp(1, 2, &[2 instructions])",
    ]
    step = next(Seccomp().plan(filtered.core(), filtered.subject()))
    assert step.expect == 0
    assert step.args[2].parts[0] == b"\x01" + bytes(7)
    assert step.args[2].parts[1].parts == (OLD[0],)


def test_without_cap_sys_admin_no_new_privs_comes_first(filtered) -> None:
    filtered.core().thread_core.creds.no_new_privs = 1
    assert "prctl" not in filtered.lines(Seccomp())[0]
    filtered.features = dataclasses.replace(filtered.features, capabilities=0)
    assert filtered.lines(Seccomp())[0] == "SECCOMP 7 prctl(38, 1, 0, 0, 0)"


def test_strict_is_planned(planning) -> None:
    planning.core().thread_core.seccomp_mode = strict
    assert planning.lines(Seccomp()) == ["SECCOMP 7 seccomp(0, 0, 0)"]


def test_broken_chains_are_refused(filtered) -> None:
    filtered.seccomp.seccomp_filters[0].prev = 1
    with pytest.raises(ImageError, match="leads back"):
        filtered.lines(Seccomp())
    filtered.seccomp.seccomp_filters[0].prev = 2
    with pytest.raises(ImageError, match="filter 2 is not in"):
        filtered.lines(Seccomp())
    filtered.seccomp.seccomp_filters[1].filter = b"\x01" * 12
    with pytest.raises(ImageError, match="12 bytes"):
        filtered.lines(Seccomp())
