"""Texts as Linux 6.18 writes them."""

from __future__ import annotations

import pytest

from criupy.linux.procfs import fdinfo


def test_plain_file() -> None:
    assert fdinfo.parse(b"pos:\t37\nflags:\t02102002\nmnt_id:\t27\nino:\t2179366\n") == (
        37,
        0o2102002,
        27,
        2179366,
        b"",
    )


def test_before_inode_numbers_were_told() -> None:
    info = fdinfo.parse(b"pos:\t0\nflags:\t02\nmnt_id:\t9\neventfd-count:                5\n")
    assert (info.ino, info.rest) == (0, b"eventfd-count: 5")


def test_position_without_meaning() -> None:
    assert fdinfo.parse(b"pos:\t-1\nflags:\t0\nmnt_id:\t1\nino:\t2\n").pos == 2**64 - 1


@pytest.mark.parametrize(
    "text", [b"", b"pos:\t0\n", b"flags: 0 pos: 0 mnt_id: 0", b"root\n", b"pos:\tx\nflags:\t0\nmnt_id:\t1\n"]
)
def test_not_fdinfo(text: bytes) -> None:
    with pytest.raises(ValueError):
        fdinfo.parse(text)


def test_eventfd() -> None:
    text = b"eventfd-count:      10000000000\neventfd-id: 12\neventfd-semaphore: 1\n"
    assert fdinfo.eventfd(text) == (1 << 40, 12, True)
    assert fdinfo.eventfd(text.replace(b"re: 1", b"re: 0")).semaphore is False
    assert fdinfo.eventfd(b"eventfd-count:                5\n") == (5, -1, None)


def test_epoll() -> None:
    text = (
        b"tfd:        4 events: 80000019 data: ffffffffffffffff  pos:0 ino:50bc sdev:f\n"
        b"tfd:     1023 events:       19 data:                3  pos:-1 ino:40f sdev:fe00010\n"
    )
    assert list(fdinfo.epoll_targets(text)) == [
        (4, 0x80000019, 2**64 - 1, 0, 0x50BC, 0xF),
        (1023, 0x19, 3, 2**64 - 1, 0x40F, 0xFE00010),
    ]


def test_locks() -> None:
    text = b"lock:\t1: FLOCK  ADVISORY  WRITE 8347 fe:00:2179366 0 EOF\n"
    text += b"lock:\t2: OFDLCK ADVISORY  READ  -1 fe:00:7 5 9\n"
    assert fdinfo.locks(text) == [
        fdinfo.Lock("FLOCK", "ADVISORY", "WRITE", 0, None),
        fdinfo.Lock("OFDLCK", "ADVISORY", "READ", 5, 9),
    ]
    assert fdinfo.locks(b"tfd: 1 events: 1 data: 1 pos:0 ino:1 sdev:1\n") == []
