"""Moments of a dump and a restore at which others may act: clients of the service, and action scripts.

Names and order are CRIU's::

    dump      pre-dump (nobody is stopped yet), query-ext-files (the tree is frozen), post-dump (the image set is
              whole, the tree is frozen)
    restore   pre-restore (nothing is there yet), post-restore (all of it is there, and nobody runs), pre-resume,
              post-resume (all run)
"""

from __future__ import annotations

from typing import Literal, Protocol

Moment = Literal[
    "pre-dump",
    "query-ext-files",
    "post-dump",
    "pre-restore",
    "post-restore",
    "pre-resume",
    "post-resume",
]


class Hooks(Protocol):
    """Who acts; ``are_set`` is false if nobody does."""

    @property
    def are_set(self) -> bool: ...

    def act(self, moment: Moment, pid: int) -> None:
        """``pid``: the root of the tree, 0 if there is none yet.  `HookError`: the dump or restore shall fail."""
        ...


class Nobody:
    """Lets every moment pass."""

    are_set = False

    def act(self, moment: Moment, pid: int) -> None:
        """Nothing."""


NOBODY = Nobody()
