"""Runs the steps of a plan in this very process, which has no descriptors then, and stops.  No restore engine needed.

Usage: run_steps.py STEPS REPORT.  STEPS is a pickled list of steps; REPORT, a file of 4096 bytes, gets ``ok`` or what
went wrong.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import signal
import sys

from criupy.model.plan import Arg, Data, Out, Ref, Step
from criupy.tracee.batch import syscall_numbers


def main(steps_file: str, report_file: str) -> None:
    with open(steps_file, "rb") as file:
        steps: list[Step] = pickle.load(file)
    numbers = syscall_numbers()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    descriptor = os.open(report_file, os.O_RDWR)
    report = mmap.mmap(descriptor, 4096)
    os.closerange(0, 4096)
    answers: dict[Ref, int] = {}
    kept: list[object] = []

    def value(arg: Arg) -> object:
        if isinstance(arg, int):
            return ctypes.c_ulong(arg)
        if isinstance(arg, Ref):
            return ctypes.c_ulong(answers[arg])
        if isinstance(arg, Data):
            assert all(isinstance(part, bytes) for part in arg.parts)
            memory = ctypes.create_string_buffer(
                b"".join(part for part in arg.parts if isinstance(part, bytes))
            )
        else:
            assert isinstance(arg, Out)
            memory = ctypes.create_string_buffer(arg.size)
        kept.append(memory)
        return memory

    problem = "ok"
    for step in steps:
        answer = libc.syscall(numbers[step.call], *map(value, step.args))
        code = ctypes.get_errno()
        if answer == -1 and code not in step.tolerate:
            problem = f"{step}: {os.strerror(code)}"
            break
        if answer != -1 and step.expect not in (None, answer):
            problem = f"{step} answered {answer}, not {step.expect}"
            break
        if step.gives is not None:
            answers[step.gives] = answer
    report[:] = problem.encode().ljust(4096, b"\0")
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
