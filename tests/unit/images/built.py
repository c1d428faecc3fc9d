"""An image set made by hand: small, and with more of what images may hold than one program ever has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from criupy.images.codec import BY_NAME, Record, encode_image
from criupy.images.pb import core_pb2, fdtable_pb2, files_pb2, memory_pb2, sockets_pb2
from criupy.model.integrity import FILE_FIELD

PAGE = 4096
REG, PIPE, UNIXSK = fdtable_pb2.REG, fdtable_pb2.PIPE, fdtable_pb2.UNIXSK
ODD_NAMES = [
    b"/plain",
    b"",
    b"/\xff\xfe",
    b"relative",
    "/ä€".encode(),
    b"/new\nline",
    b"/\x1b[31m",
    b"/trailing ",
]
SOCKET_NAMES = [b"", b"/a/path\0", b"\0abstract = \xff", b"x" * 108, b"trailing ", b"tab\tand\nline"]


def least(message: Any) -> Any:
    """The message with zeros in the required fields that it lacks."""
    for field in message.DESCRIPTOR.fields:
        if field.is_required and not message.HasField(field.name):
            if field.message_type is not None:
                getattr(message, field.name).SetInParent()
            elif field.enum_type is not None:
                setattr(message, field.name, field.enum_type.values[0].number)
            else:
                setattr(message, field.name, b"" if field.type == field.TYPE_BYTES else 0)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                least(inner)
    return message


def write(place: Path, kind: str, messages: Iterable[Any], *number: int) -> None:
    """An image of the directory ``place``."""
    image = BY_NAME[kind]
    records = [Record(least(message)) for message in messages]
    (place / image.file_name(*number)).write_bytes(encode_image(image, records))


def file(kind: int, number: int, **fields: Any) -> fdtable_pb2.file_entry:
    """A file_entry with the part that belongs to its kind."""
    entry = fdtable_pb2.file_entry(type=kind, id=number)
    part = getattr(entry, FILE_FIELD[kind])
    part.SetInParent()
    part.id = number
    for name, value in fields.items():
        if isinstance(value, list | tuple):
            getattr(part, name).extend(value)
        else:
            setattr(part, name, value)
    return entry


def task(place: Path, pid: int, *, files_id: int, comm: bytes = b"task", state: int = 1) -> None:
    """The images of a task besides its memory; cwd and root are the files 1 and 2."""
    core = core_pb2.core_entry(mtype=1)
    core.tc.task_state, core.tc.comm = state, comm
    write(place, "CORE", [core], pid)
    write(place, "IDS", [core_pb2.task_kobj_ids_entry(files_id=files_id)], pid)
    write(place, "FS", [core_pb2.fs_entry(cwd_id=1, root_id=2)], pid)


def vma(start: int, pages: int, status: int, **fields: Any) -> memory_pb2.vma_entry:
    """A mapping; ``start`` is in pages."""
    values = {"prot": 3, "flags": 0x22, "fd": -1, "pgoff": 0, "shmid": 0} | fields
    return memory_pb2.vma_entry(start=start * PAGE, end=(start + pages) * PAGE, status=status, **values)


def memory(
    place: Path, pid: int, vmas: list[memory_pb2.vma_entry], runs: Iterable[tuple[int, int]] = ()
) -> None:
    """The mappings of a task and the runs of pages (first, count) that are saved."""
    write(place, "MM", [memory_pb2.mm_entry(exe_file_id=1, vmas=vmas)], pid)
    entries = (
        memory_pb2.pagemap_entry(vaddr=first * PAGE, compat_nr_pages=count, nr_pages=count, flags=4)
        for first, count in runs
    )
    write(place, "PAGEMAP", [memory_pb2.pagemap_head(pages_id=1), *entries], pid)


def odd_set(place: Path) -> Path:
    """Names, kinds of files, states of mappings and runs of pages of every sort; no inventory and no pages."""
    place.mkdir()
    tree = [(500, 0), (30, 500), (4000000, 30), (7, 500), (1, 7)]
    write(place, "PSTREE", [core_pb2.pstree_entry(pid=p, ppid=q, pgid=p, sid=500) for p, q in tree])
    names = [b"plain", "ä€".encode(), b"\xff\xfe", b"esc\x1b[0m", b""]
    for (pid, _), comm in zip(tree, names, strict=True):
        task(place, pid, files_id=3 if pid in (500, 7) else 4, comm=comm)
        memory(place, pid, [vma(1, 1, 1 | 1 << 9)])
    _odd_files(place)
    _odd_memory(place)
    return place


def _odd_files(place: Path) -> None:
    files = [file(REG, 1, name=b"/cwd"), file(REG, 2, name=b"/")]
    files += [file(REG, 10 + i, name=name) for i, name in enumerate(ODD_NAMES)]
    files += [file(UNIXSK, 30 + i, ino=i, peer=2 * i, name=name) for i, name in enumerate(SOCKET_NAMES)]
    files += [file(kind, 50 + kind) for kind in FILE_FIELD]
    write(place, "FILES", files)
    opened = [fdtable_pb2.fdinfo_entry(id=f.id, flags=0, type=f.type, fd=2 * i) for i, f in enumerate(files)]
    opened += [
        fdtable_pb2.fdinfo_entry(id=number, flags=1, type=kind, fd=1 << 30)
        for kind, number in ((REG, 900), (PIPE, 901), (UNIXSK, 902))
    ]
    write(place, "FDINFO", opened, 3)
    write(place, "FDINFO", [], 4)
    # Files that old versions wrote to images of their own.
    write(place, "REG_FILES", [files_pb2.reg_file_entry(id=900, name=b"/old")])
    write(place, "PIPES", [files_pb2.pipe_entry(id=901, pipe_id=77)])
    write(place, "UNIXSK", [sockets_pb2.unix_sk_entry(id=902, ino=1, peer=2, name=b"old")])


def _odd_memory(place: Path) -> None:
    states = [bit | regular for regular in (1, 0) for bit in (0, *(1 << n for n in range(1, 18)))]
    mappings = [vma(0x400 + 2 * i, 1, state, shmid=1) for i, state in enumerate(states)]
    mappings += [vma(0x800 + 2 * i, 1, 1, prot=i % 8, flags=1 << i) for i in range(12)]
    mappings += [vma(0x900 + i, 1, 1 | 1 << 8, shmid=1000 + i // 2) for i in range(40)]
    memory(place, 500, mappings)
    of_file, anonymous = 1 | 1 << 6, 1 | 1 << 9
    vmas = [
        vma(0x10, 0x10, of_file, shmid=1, pgoff=0x3000),
        vma(0x20, 8, of_file | 1 << 7, shmid=12, flags=1),
        vma(0x30, 8, anonymous),
        vma(0x7FFFF0000, 123456789, anonymous, flags=0x122),
        vma(0xFFFFFFFFFF600, 1, 1 << 2),
        vma(0x12, 1, 1 << 16),  # a guard region comes last
    ]
    memory(place, 30, vmas, [(0x11, 1), (0x13, 2), (0x1F, 9), (0x32, 1), (0x34, 4), (0x7FFFF0001, 100000000)])
    memory(place, 7, [vma(1, 1, anonymous), vma(2, 2, anonymous), vma(9, 1, of_file, shmid=2)], [(1, 9)])
