"""Cgroups of our own with a freezer, in the hierarchies that this machine has mounted."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.observe import stat_of, tree_of
from harness.target import wait_until

_ORDERS = {
    "v1": {"file": "freezer.state", "freeze": "FROZEN", "thaw": "THAWED"},
    "v2": {"file": "cgroup.freeze", "freeze": "1", "thaw": "0"},
}


def mount_of(version: str) -> Path | None:
    """Where the hierarchy of the v1 freezer, or of v2, is mounted; None if it is not, or not ours to write."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.split()[:3]
        is_it = kind == "cgroup2" if version == "v2" else kind == "cgroup" and "freezer" in options.split(",")
        if is_it and os.access(mount := place.split()[4], os.W_OK):
            return Path(mount)
    return None


@dataclass(frozen=True)
class TestCgroup:
    """A cgroup below ``above``, which is a cgroup or the mount."""

    __test__ = False

    version: str
    path: Path

    @classmethod
    def new(cls, version: str, above: Path) -> TestCgroup:
        """Pids do not tell apart who runs at the same time: there may be several pid namespaces."""
        return cls(version, Path(tempfile.mkdtemp(prefix="criupy-test-", dir=above)))

    def below(self) -> TestCgroup:
        """A new one below it."""
        return self.new(self.version, self.path)

    def enter(self, root: int) -> None:
        """Move a process and all of its tree, also who is born meanwhile, in here."""

        def is_in() -> bool:
            inside = self._tids()
            outside = {pid for pid in tree_of(root) if not inside.issuperset(_living_threads(pid))}
            for pid in outside:
                self._move(pid)
            return not outside

        wait_until(f"the tree of {root} is in {self.path}", is_in)

    def _move(self, pid: int) -> None:
        assert pid > 1
        with contextlib.suppress(ProcessLookupError):
            (self.path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Processes in it and below."""
        listed = (path.read_text().split() for path in self.path.glob("**/cgroup.procs"))
        return {int(pid) for pids in listed for pid in pids}

    def _tids(self) -> set[int]:
        listed = self.path.glob("**/tasks" if self.version == "v1" else "**/cgroup.threads")
        return {int(tid) for path in listed for tid in path.read_text().split()}

    def freeze(self, *, wait: bool = True) -> None:
        """Freeze it; ``wait`` until everyone stands."""
        self._order("freeze")
        if wait:
            wait_until(f"{self.path} is frozen", self.is_frozen)

    def thaw(self) -> None:
        """Thaw it."""
        self._order("thaw")

    def _order(self, what: str) -> None:
        (self.path / _ORDERS[self.version]["file"]).write_text(_ORDERS[self.version][what])

    def is_frozen(self) -> bool:
        """Whether everyone in it stands."""
        if self.version == "v1":
            return self._state() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text().splitlines()

    def is_thawed(self) -> bool:
        """Whether nobody holds it, nor is about to."""
        return self._state() == _ORDERS[self.version]["thaw"] and not self.is_frozen()

    def _state(self) -> str:
        return (self.path / _ORDERS[self.version]["file"]).read_text().strip()

    def remove(self) -> None:
        """Thaw it with all that is below, move everyone out to where it is, and remove it."""
        for directory in [self.path, *(path for path in self.path.glob("**/*") if path.is_dir())][::-1]:
            one = TestCgroup(self.version, directory)
            one.thaw()
            wait_until(f"{directory} is removed", one._is_removed)

    def _is_removed(self) -> bool:
        above = TestCgroup(self.version, self.path.parent)
        for pid in self.pids() - {0}:
            above._move(pid)
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


def _living_threads(pid: int) -> set[int]:
    """Those of a process that can be moved: not a main thread that has ended, which stays where it was."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tid in map(int, os.listdir(f"/proc/{pid}/task")):
            if (stat_of(tid) or ["X"])[0] not in "ZX":
                found.add(tid)
    return found
