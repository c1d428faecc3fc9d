"""The numbers of tasks in images: those that their own pid namespace has for them."""

from __future__ import annotations

from criupy.linux.procfs import task as procfs


class PidNumbers:
    """What the numbers of a tree, as criupy sees them, are inside: pids, tids, process groups and sessions."""

    def __init__(self, inside: dict[int, int] | None = None) -> None:
        """None: the tree has no namespace of its own."""
        self._inside = inside

    @property
    def differ(self) -> bool:
        """Whether the tree has a namespace of its own."""
        return self._inside is not None

    def inside(self, number: int) -> int:
        """0 for what is not seen there, as the kernel has it."""
        return number if self._inside is None else self._inside.get(number, 0)


UNCHANGED = PidNumbers()
"""Of a tree in criupy's own pid namespace."""


def own_number(pid: int) -> int:
    """The pid of a process in its own pid namespace, where its parent and its children know it by that."""
    return _numbers(pid)[-1]


def has_other_numbers(pid: int) -> bool:
    """Whether a process lives in a pid namespace below that of /proc; not if it is gone."""
    try:
        return len(_numbers(pid)) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def _numbers(pid: int) -> tuple[int, ...]:
    with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
        return procfs.ns_numbers(file.readall()).process
