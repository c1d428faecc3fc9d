"""What /proc says about a process, as a value: two of them are compared to prove a target unharmed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RESTART_SYSCALL = "219"
STATUS = (
    "Name", "Umask", "Tgid", "Ngid", "Pid", "PPid", "TracerPid", "Uid", "Gid", "Groups", "Kthread", "SigPnd",
    "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
    "Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed", "VmLck", "VmPin", "THP_enabled", "Threads",
)  # fmt: skip
# VmFlags that mmap, mlock and madvise set.  Source: Linux fs/proc/task_mmu.c
ADVICE = frozenset({
    "lo", "io", "sr", "rr", "dc", "de", "ac", "nr", "ht", "sf", "nl", "ar", "wf", "dd", "mm", "hg", "nh",
    "mg", "um", "uw",
})  # fmt: skip
FILES = (
    "limits", "oom_score_adj", "personality", "timerslack_ns", "cgroup", "timers", "coredump_filter",
    "loginuid", "sessionid", "cmdline", "environ", "auxv", "uid_map",
)  # fmt: skip
LINKS = (
    "cwd",
    "root",
    "exe",
    *(f"ns/{name}" for name in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")),
)


@dataclass(frozen=True)
class Mapping:
    """A piece of address space; neighbours that differ in nothing are one."""

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    path: str
    flags: frozenset[str]

    def continues(self, other: Mapping) -> bool:
        """Whether it only goes on where ``other`` ends."""
        same = (self.perms, self.device, self.inode, self.flags) == (
            other.perms,
            other.device,
            other.inode,
            other.flags,
        )
        backed = self.inode == 0 or self.offset == other.offset + (other.end - other.start)
        return same and backed and self.start == other.end and self.path == other.path


@dataclass(frozen=True)
class Observation:
    """The state of one process at one moment: ``facts`` by name, each compared as it is."""

    pid: int
    facts: dict[str, object]

    @classmethod
    def of(cls, pid: int) -> Observation:
        """Look at ``pid``; its threads should be at rest or doing the same thing again and again."""
        return cls(pid, dict(_facts(Path(f"/proc/{speaker(pid)}"))))

    def again(self) -> Observation:
        """The same process as it is now."""
        return self.of(self.pid)

    def differences(self, after: Observation, *, ignore: str = r"(?!)") -> list[str]:
        """What ``after`` has otherwise; ``ignore`` matches names of facts that the target itself changes."""
        gone, new = self._threads() - after._threads(), after._threads() - self._threads()
        found = [f"{thread} is gone" for thread in sorted(gone)] + [
            f"{thread} is new" for thread in sorted(new)
        ]
        found = [line for line in found if not re.search(ignore, line)]
        for name in sorted(self.facts.keys() | after.facts.keys()):
            before, now = self.facts.get(name), after.facts.get(name)
            of_these = name.startswith(tuple(f"{thread} " for thread in gone | new))
            if before != now and not of_these and not re.search(ignore, name):
                found.append(f"{name}: {_diff(before, now)}")
        return found

    def _threads(self) -> set[str]:
        return {name.removesuffix(" State") for name in self.facts if name.endswith(" State")}


@dataclass(frozen=True)
class TreeObservation:
    """The state of all processes of a tree; ``pid`` is its root."""

    pid: int
    tasks: dict[int, Observation]

    @classmethod
    def of(cls, pid: int) -> TreeObservation:
        """Look at ``pid`` and at all of its descendants; who ends meanwhile is not among them."""
        tasks = {}
        for member in tree_of(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                tasks[member] = Observation.of(member)
        return cls(pid, tasks)

    def again(self) -> TreeObservation:
        """The same tree as it is now."""
        return self.of(self.pid)

    def differences(self, after: TreeObservation, *, ignore: str = r"(?!)") -> list[str]:
        """What ``after`` has otherwise; ``ignore`` is as for one process, and matches ``task 7 is new`` too."""
        found = [f"task {pid} is gone" for pid in sorted(self.tasks.keys() - after.tasks.keys())]
        found += [f"task {pid} is new" for pid in sorted(after.tasks.keys() - self.tasks.keys())]
        found = [line for line in found if not re.search(ignore, line)]
        for pid in sorted(self.tasks.keys() & after.tasks.keys()):
            lines = self.tasks[pid].differences(after.tasks[pid], ignore=ignore)
            found += [f"task {pid} {line}" for line in lines]
        return found


def assert_unharmed(
    before: Observation | TreeObservation, *, ignore: str = r"(?!)", timeout: float = 10.0
) -> None:
    """``AssertionError`` listing all that a dump has changed in its target.

    A program that works is seen in transient states: what is right once within ``timeout`` seconds is right.
    """
    deadline = time.monotonic() + timeout
    while found := before.differences(before.again(), ignore=ignore):
        if time.monotonic() > deadline:
            raise AssertionError(f"task {before.pid} is not what it was:\n" + "\n".join(found))
        time.sleep(0.02)


def tree_of(pid: int) -> list[int]:
    """``pid`` and all of its descendants, parents first."""
    tree = [pid]
    for member in tree:
        for task in _listed(Path(f"/proc/{member}/task")):
            children = map(int, (_read(Path(f"/proc/{member}/task/{task}/children")) or "").split())
            tree += [child for child in children if child not in tree]
    return tree


def stat_of(pid: int) -> list[str] | None:
    """The words of ``/proc/PID/stat`` behind the name: state, parent, group, session, ...; None if it is gone."""
    text = _read(Path(f"/proc/{pid}/stat"))
    return None if text is None else text.rpartition(")")[2].split()


def _state(tid: int) -> str:
    state = (stat_of(tid) or ["gone"])[0]
    return "running" if state in "RSD" else state


def speaker(pid: int) -> int:
    """By whose number ``/proc`` tells of what threads share: a thread that lives, if the main thread does not."""
    if (stat_of(pid) or ["Z"])[0] not in "ZX":
        return pid
    others = sorted(map(int, _listed(Path(f"/proc/{pid}/task"))))
    return next((tid for tid in others if (stat_of(tid) or ["Z"])[0] not in "ZX"), pid)


def start_time(pid: int) -> int | None:
    """When it was born, in clock ticks of its own boot time: with the pid, what tells two processes apart."""
    stat = stat_of(pid)
    return None if stat is None else int(stat[19])


def shape_of(pid: int) -> dict[int, tuple[object, ...]]:
    """By pid, what a restore has to bring back of a tree's form: name, parent, group, session, threads, files.

    Numbers are those that the tasks themselves know, in their own pid namespace.  Of threads how they are; of
    descriptors the number and the flags, close-on-exec with them.
    """
    shape: dict[int, tuple[object, ...]] = {}
    for member in tree_of(pid):
        stat, own = stat_of(member), inside(member)
        if stat is not None and own:
            name = (_read(Path(f"/proc/{member}/comm")) or "").strip()
            parent = "ours" if member == pid else inside(int(stat[1])).get("NStgid")
            tids = map(int, _listed(Path(f"/proc/{member}/task")))
            threads = {inside(member, tid).get("NSpid", 0): _state(tid) for tid in tids}
            shape[own["NStgid"]] = (
                name,
                parent,
                own["NSpgid"],
                own["NSsid"],
                threads,
                _descriptor_flags(speaker(member)),
            )
    return shape


def inside(pid: int, tid: int = 0) -> dict[str, int]:
    """The NS* lines of ``status``, as the pid namespace of the thread itself has them; empty when it is gone."""
    text = _read(Path(f"/proc/{pid}/task/{tid or pid}/status")) or ""
    lines = (line.split() for line in text.splitlines() if line.startswith("NS"))
    return {words[0].rstrip(":"): int(words[-1]) for words in lines}


def _descriptor_flags(pid: int) -> dict[int, str]:
    """As ``fdinfo`` has them, octal."""
    flags = {}
    for number in map(int, _listed(Path(f"/proc/{pid}/fd"))):
        lines = (_read(Path(f"/proc/{pid}/fdinfo/{number}")) or "").splitlines()
        flags[number] = next((line.split()[1] for line in lines if line.startswith("flags:")), "gone")
    return flags


def resting_calls(pid: int) -> dict[int, str]:
    """By thread, where it is blocked: the call, the stack pointer and the program counter."""
    calls = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        words = (_read(Path(f"/proc/{pid}/task/{tid}/syscall")) or "").split()
        if words and words[0] not in ("running", "-1"):
            calls[int(tid)] = " ".join([words[0], *words[-2:]])
    return calls


def same_calls(before: dict[int, str], after: dict[int, str]) -> bool:
    """Whether all threads are blocked where they were; restart_syscall goes on with any call."""
    restarted = {tid: " ".join([RESTART_SYSCALL, *call.split()[1:]]) for tid, call in before.items()}
    return all(after.get(tid) in (call, restarted[tid]) for tid, call in before.items())


def _diff(old: object, new: object) -> str:
    if isinstance(old, tuple) and isinstance(new, tuple):
        gone = [f"\n    - {item}" for item in old if item not in new]
        come = [f"\n    + {item}" for item in new if item not in old]
        return "".join(gone + come) or "other order"
    return f"{old!r} is now {new!r}"


def _facts(proc: Path) -> Iterator[tuple[str, object]]:
    stat = stat_of(int(proc.name))
    yield "start", stat and stat[19]
    yield "exit code", stat and stat[49]
    if (living := _living_thread(proc)) is not None:
        yield from _possessions(proc, living)
    for tid in sorted(os.listdir(proc / "task"), key=int):
        yield from _thread(proc / "task" / tid, "" if tid == proc.name else f"thread {tid} ")


def _living_thread(proc: Path) -> Path | None:
    """Where memory and files of a process show: at its main thread, if that has not ended.  None for a zombie."""
    for tid in sorted(os.listdir(proc / "task"), key=lambda tid: (tid != proc.name, int(tid))):
        status = _read(proc / "task" / tid / "status") or ""
        if not re.search(r"^State:\s*[ZX]", status, re.MULTILINE):
            return proc if tid == proc.name else proc / "task" / tid
    return None


def _possessions(proc: Path, living: Path) -> Iterator[tuple[str, object]]:
    pieces = tuple(mappings(living))
    yield "maps", pieces
    yield "executable maps", tuple(piece for piece in pieces if "x" in piece.perms)
    yield "text", tuple(_read_only_content(living))
    yield from _descriptors(living)
    for name in FILES:
        yield name, _read((living if (living / name).exists() else proc) / name)
    for name in LINKS:
        yield name, _link(living / name)


def _thread(task: Path, label: str) -> Iterator[tuple[str, object]]:
    status = dict(line.split(":", 1) for line in (_read(task / "status") or "").splitlines())
    for name in STATUS:
        yield f"{label}{name}", status.get(name, "").strip()
    state = status.get("State", "?").strip()[:1]
    yield f"{label}State", "running" if state in "RSD" else state
    yield f"{label}children", _read(task / "children")
    stat = (_read(task / "stat") or "").rpartition(")")[2].split()
    if len(stat) > 38:
        yield f"{label}sched", ("priority", stat[15], "nice", stat[16], "rt", stat[37], "policy", stat[38])
        yield f"{label}session", ("pgrp", stat[2], "session", stat[3], "tty", stat[4])


_CLOCKWORK = re.compile(r"^(ticks: |it_value: ).*", re.MULTILINE)
"""What of a timerfd changes by itself."""


_LOG = re.compile(r"^pos:.*\n(?=flags:\t0*102001$)", re.MULTILINE)
"""The position of a file that is only appended to, O_APPEND and O_WRONLY: it moves a moment after what it tells of."""


def _descriptors(proc: Path) -> Iterator[tuple[str, object]]:
    for number in sorted(os.listdir(proc / "fd"), key=int):
        info = _read(proc / "fdinfo" / number)
        steady = info and _LOG.sub("", _CLOCKWORK.sub(r"\1", info))
        yield f"fd {number}", (_link(proc / "fd" / number), steady)


def mappings(proc: Path) -> Iterator[Mapping]:
    """The address space from smaps, with the flags that madvise, mlock and mmap set."""
    head = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) (\S+) (\d+)\s*(.*)$")
    current: Mapping | None = None
    pending: re.Match[str] | None = None
    for line in (_read(proc / "smaps") or "").splitlines():
        if match := head.match(line):
            pending = match
        elif line.startswith("VmFlags:") and pending is not None:
            start, end, perms, offset, device, inode, path = pending.groups()
            flags = ADVICE & frozenset(line.split()[1:])
            new = Mapping(
                int(start, 16), int(end, 16), perms, int(offset, 16), device, int(inode), path, flags
            )
            if current is not None and new.continues(current):
                current = Mapping(current.start, new.end, *(getattr(current, name) for name in _REST))
            else:
                if current is not None:
                    yield current
                current = new
    if current is not None:
        yield current


_REST = ("perms", "offset", "device", "inode", "path", "flags")


def _read_only_content(proc: Path) -> Iterator[tuple[str, str]]:
    """Digests of what the program itself cannot change: its code and constants, the vdso among them."""
    with (proc / "mem").open("rb", buffering=0) as memory:
        for piece in mappings(proc):
            if piece.path == "[vdso]":
                yield piece.path, _digest(memory, piece)
            elif piece.perms[:2] == "r-" and not piece.path.startswith("[v"):
                yield f"{piece.start:x} {piece.path}", _digest(memory, piece)


def _digest(memory: io.FileIO, piece: Mapping) -> str:
    """Of the content of a mapping; a program that runs may unmap it meanwhile, and then it is another fact."""
    digest = hashlib.sha256()
    left = piece.end - piece.start
    try:
        memory.seek(piece.start)
        while left > 0 and (data := memory.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()[:16]


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return None


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
