"""Where things are in an address space: the fields of PR_SET_MM_MAP.

Sources: Linux fs/proc/array.c (stat), include/uapi/linux/prctl.h (struct prctl_mm_map).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_CRIU_AUXV_WORDS = 44


class Layout(NamedTuple):
    """Addresses of the parts of a program; ``auxv`` the words of its auxiliary vector."""

    start_code: int
    end_code: int
    start_data: int
    end_data: int
    start_stack: int
    start_brk: int
    brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    auxv: tuple[int, ...]

    @property
    def criu_auxv(self) -> tuple[int, ...]:
        """As much of the vector as CRIU's field holds."""
        return self.auxv[:_CRIU_AUXV_WORDS]


def parse_layout(stat: bytes, auxv: bytes, brk: int) -> Layout:
    """From ``/proc/PID/stat`` and ``auxv``, and the answer of brk(0)."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    start_code, end_code, start_stack = map(int, fields[23:26])
    start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end = map(int, fields[42:49])
    return Layout(
        start_code=start_code,
        end_code=end_code,
        start_data=start_data,
        end_data=end_data,
        start_stack=start_stack,
        start_brk=start_brk,
        brk=brk,
        arg_start=arg_start,
        arg_end=arg_end,
        env_start=env_start,
        env_end=env_end,
        auxv=struct.unpack(f"<{len(auxv) // 8}Q", auxv),
    )
