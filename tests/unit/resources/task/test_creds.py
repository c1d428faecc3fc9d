"""Credentials: what is dumped, and that privileges go in an order that the kernel accepts."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.images.pb.core_pb2 import core_entry
from criupy.linux.features import KernelFeatures
from criupy.linux.procfs import task as procfs
from criupy.model.plan import StubPlan
from criupy.resources.kind import PlanSubject
from criupy.resources.task.creds import Creds, CredsFacts

ALL = (1 << 41) - 1


def fill(core: core_entry, *, ids: tuple[int, ...] = (0,) * 8, secbits: int = 0, **caps: int) -> core_entry:
    creds = core.thread_core.creds
    names = ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid")
    for name, number in zip(names, ids, strict=True):
        setattr(creds, name, number)
    creds.secbits = secbits
    for name in ("inh", "prm", "eff", "bnd", "amb"):
        mask = caps.get(name, 0)
        getattr(creds, f"cap_{name}").extend([mask & 0xFFFFFFFF, mask >> 32])
    return core


def test_encode(status, sink) -> None:
    core = core_entry()
    Creds().encode(CredsFacts(status, 0x2F), core, sink)
    creds = core.thread_core.creds
    assert (creds.uid, creds.euid, creds.suid, creds.fsuid) == (1000, 1001, 1002, 1003)
    assert (creds.gid, creds.egid, creds.sgid, creds.fsgid) == (100, 101, 102, 103)
    assert list(creds.groups) == [7, 20, 1000]
    assert list(creds.cap_prm) == [0xFEFFFFFF, 0x1FF]
    assert list(creds.cap_amb) == [0x400, 0]
    assert (creds.secbits, creds.no_new_privs) == (0x2F, 1)
    assert not creds.HasField("lsm_profile")


def test_nothing_is_said_of_no_new_privs_where_it_is_not_set(status, sink) -> None:
    core = core_entry()
    Creds().encode(CredsFacts(status.replace(b"NoNewPrivs:\t1", b"NoNewPrivs:\t0"), 0), core, sink)
    assert not core.thread_core.creds.HasField("no_new_privs")


def test_plan_of_a_user_with_an_ambient_capability(planning) -> None:
    core = planning.core()
    fill(core, ids=(1000, 1001, 1002, 1003, 5, 6, 7, 6), secbits=0x2F, inh=1 << 10, prm=1 << 10, amb=1 << 10)
    core.thread_core.creds.cap_bnd[:] = [0xFFFFFFFE, 0x1FF]
    core.thread_core.creds.groups.extend([7, 20])
    core.thread_core.creds.no_new_privs = 1
    assert [line.removeprefix("CREDENTIALS 7 ") for line in planning.lines(Creds())] == [
        "setgroups(2, [7, 20])",
        "prctl(28, 20)",
        "setresgid(5, 6, 7)",
        "setresuid(1000, 1001, 1002)",
        "setfsuid(1003)",
        "capset({version 3}, {effective 0x100, permitted 0x500, inheritable 0x400})",
        "prctl(47, 4, 0, 0, 0)",
        "prctl(47, 2, 10, 0, 0)",
        "prctl(24, 0)",
        "prctl(28, 47)",
        "capset({version 3}, {effective 0x0, permitted 0x400, inheritable 0x400})",
        "prctl(38, 1, 0, 0, 0)",
    ]


def test_root_keeps_what_it_needs_without_a_second_capset(planning) -> None:
    fill(planning.core(), prm=ALL, eff=ALL, bnd=ALL)
    lines = planning.lines(Creds())
    assert sum("capset" in line for line in lines) == 1
    assert not any("prctl(24" in line for line in lines)
    assert planning.warnings == []


def test_bits_that_this_kernel_does_not_know_are_dropped(planning) -> None:
    everything = (1 << 64) - 1
    fill(planning.core(), inh=everything, prm=everything, eff=everything, bnd=everything, amb=everything)
    lines = planning.lines(Creds())
    assert sum("prctl(47, 2," in line for line in lines) == 41
    assert f"effective {ALL:#x}, permitted {ALL:#x}, inheritable {ALL:#x}" in "".join(lines)


def test_capabilities_that_criupy_lacks_are_named(planning) -> None:
    planning.features = dataclasses.replace(planning.features, capabilities=ALL & ~(1 << 24))
    fill(planning.core(), prm=ALL, eff=ALL, bnd=ALL)
    assert f"permitted {ALL & ~(1 << 24):#x}" in "".join(planning.lines(Creds()))
    assert planning.warnings == ["thread 7: capabilities [24] cannot be given to it, criupy lacks them"]


@given(*[st.integers(0, ALL)] * 4)
def test_the_last_capset_gives_what_the_image_has_and_criupy_may_give(
    prm: int, eff: int, bnd: int, own: int
) -> None:
    core = fill(core_entry(), prm=prm, eff=eff & prm, bnd=bnd)
    features = KernelFeatures(capabilities=own, pagemap_scan=True)
    subject = PlanSubject(7, None, None, features, lambda _: None, StubPlan(0))
    calls = [(step.call, step.args) for step in Creds().plan(core, subject)]
    last = [args[1].text for call, args in calls if call == "capset"][-1]
    assert last == f"{{effective {eff & prm & own:#x}, permitted {prm & own:#x}, inheritable 0x0}}"
    dropped = {args[1] for call, args in calls if call == "prctl" and args[0] == 24}
    assert dropped == {bit for bit in range(41) if not bnd >> bit & 1}


def test_credentials_that_an_executed_program_has_anyway_need_no_calls(planning, status, sink) -> None:
    text = status.replace(b"\t1000\t1001\t1002\t1003", b"\t0\t0\t0\t0").replace(
        b"NoNewPrivs:\t1", b"NoNewPrivs:\t0"
    )
    planning.features = dataclasses.replace(planning.features, credentials=procfs.credentials(text))
    Creds().encode(CredsFacts(text, 0), planning.core(), sink)
    assert planning.lines(Creds()) == []
    Creds().encode(CredsFacts(text, 1), planning.core(8), sink)
    Creds().encode(CredsFacts(status, 0), planning.core(9), sink)
    assert planning.lines(Creds(), 8)
    assert planning.lines(Creds(), 9)


def test_a_security_label_is_said_to_be_lost(planning) -> None:
    fill(planning.core()).thread_core.creds.lsm_profile = b"docker-default"
    planning.lines(Creds())
    assert planning.warnings == ["thread 7: its security label docker-default is not restored"]


def test_no_credentials(planning) -> None:
    with pytest.raises(ImageError, match="no credentials"):
        planning.lines(Creds())
