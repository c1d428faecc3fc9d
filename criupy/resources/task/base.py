"""What most kinds of task state have in common: there is nothing to say of them before the freeze."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from criupy.errors import Obstacle
    from criupy.linux.features import KernelFeatures


class Dumpable:
    """A kind that can always be dumped and given back as it was."""

    outlives = False

    def obstacles(self, pid: int, features: KernelFeatures) -> Iterator[Obstacle]:
        return iter(())

    def warnings(self, pid: int, features: KernelFeatures) -> Iterator[str]:
        return iter(())
