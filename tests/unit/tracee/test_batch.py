"""The table of a batch: what `blob.S` will read, and what comes back."""

from __future__ import annotations

import errno
import struct

import pytest

from criupy.errors import TraceeError
from criupy.tracee.batch import NOT_RUN, RECORD, RemoteAddress, SyscallBatch, syscall_numbers

BASE = RemoteAddress(0x7000_0000_0000)


def answered(batch: SyscallBatch, *answers: int) -> bytes:
    table = bytearray(batch.encode(BASE))
    for index, answer in enumerate(answers):
        struct.pack_into("<q", table, index * RECORD.size + 56, answer)
    return bytes(table)


def test_numbers_are_those_of_x86_64_and_not_of_x32() -> None:
    numbers = syscall_numbers()
    assert (numbers["read"], numbers["readv"], numbers["waitid"], numbers["clone3"]) == (0, 19, 247, 435)
    assert (numbers["epoll_pwait2"], numbers["mseal"]) == (441, 462)


def test_record_holds_numbers_addresses_and_references() -> None:
    batch = SyscallBatch()
    first = batch.call("getpid")
    text = batch.data(b"name\0")
    out = batch.out(8)
    batch.call("fcntl", first, -1, text, batch.at(out, 4, bits=32), batch.at(out), tolerate=True)
    table = batch.encode(BASE)
    data = 2 * RECORD.size
    assert len(table) == batch.size
    assert batch.size % 64 == 0
    assert RECORD.unpack_from(table) == (39, 0, 0, 0, 0, 0, 0, 0, 0, NOT_RUN)
    number, references, flags, *arguments, result = RECORD.unpack_from(table, RECORD.size)
    assert (number, references, flags, result) == (72, 0b011001, 1 | 0b001000 << 8, NOT_RUN)
    assert arguments == [56, (1 << 64) - 1, BASE + data, data + 32 + 4, data + 32, 0]
    assert table[data : data + 5] == b"name\0"


def test_memory_may_hold_addresses_of_other_memory() -> None:
    batch = SyscallBatch()
    inner = batch.data(b"x" * 20)
    vector = batch.data(bytes(8) + struct.pack("<Q", 20), pointers={0: inner})
    batch.call("writev", 1, vector, 1)
    table = batch.encode(BASE)
    [address] = struct.unpack_from("<Q", table, RECORD.size + 48)
    assert table[address - BASE :][:20] == b"x" * 20


def test_results_are_numbers_bytes_and_typed_failures() -> None:
    batch = SyscallBatch()
    good = batch.call("getpid")
    soft = batch.call("close", 99, tolerate=True)
    hard = batch.call("close", 77)
    never = batch.call("gettid")
    results = batch.decode(answered(batch, 5, -errno.EBADF, -errno.EBADF), tid=12)
    assert results[good] == 5
    assert results[soft] == -errno.EBADF
    assert results.failed == hard
    for slot in (hard, never):
        with pytest.raises(TraceeError, match=r"task 12: close\(77\): Bad file descriptor") as caught:
            results[slot]
        assert caught.value.errno == errno.EBADF


def test_an_address_beyond_the_errnos_is_no_failure() -> None:
    batch = SyscallBatch()
    slot = batch.call("mmap", 0, 4096, 3, 0x22, -1, 0)
    assert batch.decode(answered(batch, -4096)).check()[slot] == -4096


def test_out_comes_back_as_the_task_left_it() -> None:
    batch = SyscallBatch()
    out = batch.out(5)
    batch.call("getcwd", out, 5)
    table = bytearray(answered(batch, 2))
    table[RECORD.size : RECORD.size + 2] = b"/\0"
    assert batch.decode(bytes(table)).bytes(out) == b"/\0\0\0\0"


def test_prints_like_strace() -> None:
    batch = SyscallBatch()
    fd = batch.call("openat", -100, batch.path("/etc/x"), 0x80000)
    batch.call("lseek", fd, 5, 0)
    assert str(batch) == '0: openat(-100, "/etc/x", 0x80000)\n1: lseek(<0>, 5, 0)'


def test_refuses_what_no_record_can_hold() -> None:
    batch = SyscallBatch()
    out = batch.out(8)
    with pytest.raises(ValueError, match="64 bits at 4"):
        batch.at(out, 4)
    with pytest.raises(ValueError, match="7 arguments"):
        batch.call("mmap", *range(7))
