"""The fields of /proc/PID/stat that PR_SET_MM_MAP takes."""

from __future__ import annotations

import struct

from criupy.resources.memory.layout import parse_layout

STAT = (
    b"45 (a) b (c) S 1 45 45 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 12345 2400256 200 18446744073709551615 "
    b"26 27 28 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 45 46 47 48 49 50 51 0\n"
)


def test_fields_are_those_of_the_man_page() -> None:
    layout = parse_layout(STAT, struct.pack("<6Q", 33, 0x7FFF00000000, 6, 4096, 0, 0), 99)
    assert (layout.start_code, layout.end_code, layout.start_stack) == (26, 27, 28)
    assert (layout.start_data, layout.end_data, layout.start_brk, layout.brk) == (45, 46, 47, 99)
    assert (layout.arg_start, layout.arg_end, layout.env_start, layout.env_end) == (48, 49, 50, 51)
    assert layout.auxv == layout.criu_auxv == (33, 0x7FFF00000000, 6, 4096, 0, 0)


def test_criu_has_room_for_44_words() -> None:
    layout = parse_layout(STAT, struct.pack("<50Q", *range(50)), 99)
    assert layout.auxv == tuple(range(50))
    assert layout.criu_auxv == tuple(range(44))
