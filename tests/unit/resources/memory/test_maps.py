"""Lines of maps and smaps, the odd ones too."""

from __future__ import annotations

from itertools import pairwise

import pytest

from criupy.linux.procfs.maps import Mapping, parse_maps, parse_smaps

SMAPS = b"""\
55f4d3396000-55f4d3397000 rw-p 00003000 fe:00 2164963                    /tmp/a name with  spaces\\012and more (deleted)
Size:                  4 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
THPeligible:           0
ProtectionKey:         3
VmFlags: rd wr mr mw me ac@
7f0000000000-7f0000200000 r--s 00000000 00:11 194638                     /anon_hugepage (deleted)
Size:               2048 kB
KernelPageSize:     2048 kB
MMUPageSize:        2048 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd sh mr mw me ms de ht@
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Size:                  4 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: ex@
""".replace(b"@", b" ")  # the kernel ends these lines so


def test_smaps() -> None:
    first, huge, last = parse_smaps(SMAPS)
    assert first == Mapping(
        start=0x55F4D3396000,
        end=0x55F4D3397000,
        prot=3,
        shared=False,
        offset=0x3000,
        major=0xFE,
        minor=0,
        inode=2164963,
        name=b"/tmp/a name with  spaces\\012and more (deleted)",
        page_size=4096,
        protection_key=3,
        flags=frozenset({"rd", "wr", "mr", "mw", "me", "ac"}),
    )
    assert first.link == "55f4d3396000-55f4d3397000"
    assert first.has_file
    assert (huge.page_size, huge.shared, huge.prot) == (2 << 20, True, 1)
    assert "ht" in huge.flags
    assert (last.name, last.prot, last.has_file) == (b"[vsyscall]", 4, False)


def test_maps() -> None:
    text = b"".join(line + b"\n" for line in SMAPS.split(b"\n") if b"-" in line[:20])
    lines = parse_maps(text)
    assert [line.name for line in lines] == [line.name for line in parse_smaps(SMAPS)]
    assert parse_maps(b"") == []


@pytest.mark.parametrize(
    "text",
    [
        SMAPS.rsplit(b"VmFlags", 1)[0],
        SMAPS.replace(b"rw-p", b"rw-?"),
        b"Size: 4 kB\n" + SMAPS,
    ],
)
def test_smaps_of_another_form(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_smaps(text)


def test_maps_of_another_form() -> None:
    with pytest.raises(ValueError):
        parse_maps(b"1000-2000 rw-p\n")


def test_our_own() -> None:
    with open("/proc/self/smaps", "rb") as smaps:
        mappings = parse_smaps(smaps.read())
    assert all(one.end <= other.start for one, other in pairwise(mappings))
    assert {b"[stack]", b"[vdso]"} <= {mapping.name for mapping in mappings}
