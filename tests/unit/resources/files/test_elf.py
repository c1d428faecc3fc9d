"""The build id reader against files made by hand, against pyelftools, and against anything."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from criupy.linux import elf

ID = bytes(range(20))
NOTE = (
    struct.pack("<III4s", 4, 4, 1, b"GNU\0") + b"abi!" + struct.pack("<III4s", 4, len(ID), 3, b"GNU\0") + ID
)


def elf64(notes: bytes, *, phoff: int = 64, phnum: int = 1, offset: int = 120) -> bytes:
    head = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, phoff, 0, 0, 64, 56, phnum, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, len(notes), len(notes), 4) + notes


def elf32(notes: bytes) -> bytes:
    head = (
        b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIIIIIII", 4, 84, 0, 0, len(notes), len(notes), 4, 4) + notes


def build_id(tmp_path: Path, content: bytes) -> bytes:
    file = tmp_path / "elf"
    file.write_bytes(content)
    return elf.build_id(os.fsencode(file))


@pytest.mark.parametrize("make", [elf64, elf32])
def test_found(tmp_path: Path, make) -> None:
    assert build_id(tmp_path, make(NOTE)) == ID


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n",
        b"\x7fELF",
        elf64(NOTE[:20]),
        elf64(NOTE, offset=1 << 63),
        elf64(NOTE, phoff=(1 << 64) - 1),
        elf64(NOTE, phnum=0),
        elf64(struct.pack("<III4s", 4, 0xFFFFFFFF, 3, b"GNU\0")),
    ],
)
def test_none(tmp_path: Path, content: bytes) -> None:
    assert build_id(tmp_path, content) == b""


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_anything_behind_an_elf_head(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    place = tmp_path_factory.getbasetemp() / "junk"
    place.write_bytes(b"\x7fELF\2\1" + junk)
    assert len(elf.build_id(os.fsencode(place))) <= 64


def test_words() -> None:
    with open(os.path.realpath(sys.executable), "rb") as file:
        notes = [note for segment in ELFFile(file).iter_segments("PT_NOTE") for note in segment.iter_notes()]
    expected = next((note["n_desc"] for note in notes if note["n_type"] == "NT_GNU_BUILD_ID"), "")
    words = elf.build_id_words(os.fsencode(os.path.realpath(sys.executable)))
    assert struct.pack(f"<{len(words)}I", *words).hex() == expected
