"""The images of files are those that a real criu makes of the same task."""

from __future__ import annotations

import pytest

from criupy.images.directory import ImageDirectory
from criupy.images.pb import fdtable_pb2
from criupy.model.snapshot import Snapshot, load


def described(saved: Snapshot):
    """Descriptors, mapped files, place, pipe content; everything but file ids, and without fields of our own."""

    def text(file_id: int) -> str:
        entry = fdtable_pb2.file_entry()
        entry.CopyFrom(saved.files[file_id])
        backing = text(entry.fifo.regf_id) if entry.fifo.regf_id else ""
        entry.efd.ClearField("semaphore")
        for _, body in entry.ListFields():
            if hasattr(body, "id"):
                body.id = 0
        entry.id = entry.fifo.regf_id = 0
        return str(entry) + backing

    task = saved.root
    first: dict[int, int] = {}
    descriptors = {
        info.fd: (info.flags, first.setdefault(info.id, info.fd), text(info.id)) for info in saved.fds(task)
    }
    mapped = {
        vma.start: text(vma.shmid)
        for vma in task.mm.vmas
        if vma.shmid in saved.files and vma.status & 0xC0 and not vma.status & 1 << 14
    }
    exe = saved.files[task.mm.exe_file_id].reg
    return {
        "descriptors": descriptors,
        "mapped": mapped,
        "exe": (exe.name, exe.mode, exe.size, list(exe.build_id)),
        "place": (text(task.fs.cwd_id), text(task.fs.root_id), task.fs.umask),
        "pipes": {key: (pipe.entry.size, pipe.content) for key, pipe in saved.pipes_data.items()},
        "fifos": {key: (pipe.entry.size, pipe.content) for key, pipe in saved.fifo_data.items()},
    }


@pytest.mark.parametrize(
    "program",
    [
        "regular_files.c",
        "pipes.c",
        "epoll.c",
        "event_counters.c",
        "shared_descriptions.c",
        "signal_descriptors.c",
        "chrooted.c",
        "py_threads.py",
    ],
)
def test_same_as_criu(program, target, criupy, criu, place):
    process = target(program)
    found = []
    for engine in (criu, criupy):
        images = place / engine.name
        engine.dump(process, images, "--leave-running")
        with ImageDirectory(str(images)) as directory:
            found.append(described(load(directory)))
    theirs, ours = found
    assert ours == theirs
