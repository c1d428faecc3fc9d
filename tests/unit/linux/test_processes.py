"""How processes are called in messages."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from criupy.linux.processes import describe


def test_a_running_process_is_described_by_its_command_and_owner():
    text = describe(os.getpid())
    assert text.startswith(f"{os.getpid()} (")
    assert os.path.basename(sys.executable) in text
    assert "running for" in text


def test_a_zombie_is_described_by_who_does_not_wait_for_it():
    with subprocess.Popen(["true"], stdin=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 10
        while not describe(child.pid).endswith(f"a zombie that {os.getpid()} has not waited for)"):
            assert time.monotonic() < deadline, describe(child.pid)
            time.sleep(0.01)


def test_nobody_is_just_a_number():
    assert describe(0x3FFFFFFF) == str(0x3FFFFFFF)
