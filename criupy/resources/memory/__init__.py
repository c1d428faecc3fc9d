"""Address spaces: what is mapped, what is in it, and how both come back."""

from criupy.resources.memory.dump import MemoryFacts, collect, copy_pages, encode_mm, pagemap
from criupy.resources.memory.restore import choose_stub_base, plan
from criupy.resources.memory.vma import obstacles

__all__ = [
    "MemoryFacts",
    "choose_stub_base",
    "collect",
    "copy_pages",
    "encode_mm",
    "obstacles",
    "pagemap",
    "plan",
]
