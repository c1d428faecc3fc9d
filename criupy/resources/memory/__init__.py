"""Address spaces: what is mapped, what is in it, and how both come back."""

from criupy.resources.memory.cow import Family
from criupy.resources.memory.cow import find as find_families
from criupy.resources.memory.dump import (
    MemoryFacts,
    Reader,
    copy_family,
    copy_pages,
    encode_mm,
    family_pagemap,
    pagemap,
    system_call,
)
from criupy.resources.memory.heritage import NOTHING, Heritage, after, bequest
from criupy.resources.memory.restore import choose_stub_base, plan, plan_bequest
from criupy.resources.memory.vma import KnownFiles, obstacles

__all__ = [
    "NOTHING",
    "Family",
    "Heritage",
    "KnownFiles",
    "MemoryFacts",
    "Reader",
    "after",
    "bequest",
    "choose_stub_base",
    "copy_family",
    "copy_pages",
    "encode_mm",
    "family_pagemap",
    "find_families",
    "obstacles",
    "pagemap",
    "plan",
    "plan_bequest",
    "system_call",
]
