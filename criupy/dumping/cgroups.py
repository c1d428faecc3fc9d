"""The first look at the cgroups of a tree: who in it is frozen already, and who else will be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from criupy.errors import Obstacle
from criupy.linux import processes
from criupy.linux.cgroup import Cgroup, cgroups_of
from criupy.linux.family import Member
from criupy.linux.procfs import mountinfo
from criupy.linux.procfs import task as proc_task
from criupy.tracee.cgroup import check

_PF_EXITING = 0x4  # Source: Linux include/linux/sched.h
_FEW = 5


def obstacles(members: Sequence[Member], cgroup: Cgroup | None) -> Iterator[Obstacle]:
    """What stands in the way of stopping living ``members``, if need be by ``cgroup``; what `check` says of that.

    Who is being born, or dies, is in no cgroup for an instant.
    """
    if cgroup is not None:
        check(cgroup)
        yield from _outside(members, cgroup)
    yield from _frozen(members, cgroup)


def warnings(members: Sequence[Member], cgroup: Cgroup | None) -> Iterator[str]:
    """Whom the cgroup stops besides the tree, whose root comes first."""
    strangers = cgroup.others(members, {members[0].pid}) if cgroup is not None else []
    if cgroup is not None and strangers:
        named = ", ".join(processes.describe(member.pid) for member in strangers[:_FEW])
        more = f" and {len(strangers) - _FEW} more" if len(strangers) > _FEW else ""
        yield f"what is in {cgroup.path} and not of the tree is stopped as long as that: {named}{more}"


def _frozen(members: Sequence[Member], cgroup: Cgroup | None) -> Iterator[Obstacle]:
    """Who is frozen by another cgroup than ours comes to no ptrace-stop, or from there to no batch."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = mountinfo.parse(file.read())
    seen: set[bytes] = set()
    for pid, _, _ in members:
        with suppress(FileNotFoundError, ProcessLookupError):
            text = _read(pid, "cgroup")
            for found in cgroups_of(text, mounts) if text not in seen else ():
                if found.is_frozen() and (cgroup is None or found.freezer is not cgroup.freezer):
                    why = f"it is frozen with all of {found.path}"
                    hint = f"thaw that, or have it thawed for the dump alone: --freeze-cgroup {found.path}"
                    yield Obstacle(pid, _comm(pid), "cgroup", why, hint)
            seen.add(text)


def _outside(members: Sequence[Member], cgroup: Cgroup) -> Iterator[Obstacle]:
    """Who would run on while the cgroup is frozen."""
    for pid, _, tids in _missing(members, cgroup.tids()):
        with suppress(FileNotFoundError, ProcessLookupError):
            who = "it is" if pid in tids else f"its thread {min(tids)} is"
            why = f"{who} neither in {cgroup.path} nor below, and would run on while that is frozen"
            hint = "name a cgroup that holds the whole tree, or do without --freeze-cgroup"
            yield Obstacle(pid, _comm(pid), "cgroup", why, hint)


def _missing(members: Sequence[Member], inside: set[int]) -> list[Member]:
    """Members with those of their threads that are not ``inside``, and live."""
    found = []
    for member in members:
        tids = frozenset(tid for tid in member.tids - inside if _is_alive(member.pid, tid))
        if tids:
            found.append(member._replace(tids=tids))
    return found


def _is_alive(pid: int, tid: int) -> bool:
    try:
        stat = proc_task.stat(_read(pid, f"task/{tid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.state not in "ZX" and not stat.flags & _PF_EXITING


def _comm(pid: int) -> str:
    return proc_task.stat(_read(pid, "stat")).comm.decode("utf-8", "backslashreplace")


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
