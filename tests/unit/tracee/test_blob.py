"""The shipped machine code is what its source assembles to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from criupy.tracee import blob

ROOT = Path(__file__).resolve().parents[3]
SMALLEST_PADDING = 1504
"""Bytes behind the section headers of a vdso of Linux 6.18."""


@pytest.mark.skipif(shutil.which("objcopy") is None, reason="needs as and objcopy (binutils)")
def test_shipped_bytes_are_the_assembled_source() -> None:
    command = [str(ROOT / "scripts" / "assemble-blob"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kernel_finds_its_way_back_in() -> None:
    """A call is restarted 2 bytes before where it returns, so the first instruction has 2 bytes."""
    assert blob.INTERRUPTED == 2
    assert blob.CODE[0] == 0xEB  # jmp rel8
    assert blob.CODE[blob.MEETING - 2 : blob.MEETING] == b"\x0f\x05"


def test_two_stubs_fit_into_the_padding_of_a_vdso() -> None:
    assert blob.STUB_END * 2 <= SMALLEST_PADDING
