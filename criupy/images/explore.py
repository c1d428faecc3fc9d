"""What ``crit x DIR`` prints of an image set: its tasks, their descriptors, mappings and saved pages.

Every image is read by itself, so a set may lack its inventory or its pages.  The lines are CRIU's, whitespace
included; where crit ends in a traceback (at a zombie, which has no images of files and memory) it goes on here.
"""

from __future__ import annotations

import quopri
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from criupy.errors import ImageError
from criupy.images.codec import BY_NAME
from criupy.images.directory import ImageDirectory
from criupy.images.display import FLAGS
from criupy.images.pages import PAGE_SIZE
from criupy.linux import mman

_TASK_DEAD = 2
_PROT = ((mman.PROT_READ, "r"), (mman.PROT_WRITE, "w"), (mman.PROT_EXEC, "x"))
_STATUS = dict(FLAGS["mmap.status"])
_REGULAR = _STATUS["VMA_AREA_REGULAR"]
_FILE_SHARED = _STATUS["VMA_FILE_SHARED"]
_OF_FILE = _STATUS["VMA_FILE_PRIVATE"] | _FILE_SHARED
_NUMBERED = (
    (_STATUS["VMA_AREA_SYSVIPC"], "ips"),
    (_STATUS["VMA_ANON_SHARED"], "shmem"),
    (_STATUS["VMA_AREA_SOCKET"], "packet"),
)
_NAMED = (
    (_STATUS["VMA_AREA_STACK"], "[stack]"),
    (_STATUS["VMA_AREA_VSYSCALL"], "[vsyscall]"),
    (_STATUS["VMA_AREA_VDSO"], "[vdso]"),
)


def ps(directory: ImageDirectory) -> Iterator[str]:
    """The process tree, children behind their parent and indented.  ImageError: there is no such tree."""
    entries = [record.message for record in directory.alone("PSTREE")]
    yield f"{'PID':>7}{'PGID':>7}{'SID':>7}   COMM"
    for entry, depth in _tree(entries):
        comm = _text(_only(directory, "CORE", entry.pid).tc.comm)
        yield f"{entry.pid:7}{entry.pgid:7}{entry.sid:7}   {'    ' * depth}{comm}"


def fds(directory: ImageDirectory) -> Iterator[str]:
    """The descriptors of every task, its working directory and root."""
    files = _Files(directory)
    for pid in _living(directory):
        yield str(pid)
        table = _only(directory, "IDS", pid).files_id
        for record in directory.alone("FDINFO", table):
            yield f"\t{record.message.fd:7}: {files.describe(record.message)}"
        fs = _only(directory, "FS", pid)
        yield f"\t{'cwd':>7}: {files.path(fs.cwd_id)}"
        yield f"\t{'root':>7}: {files.path(fs.root_id)}"


def mems(directory: ImageDirectory) -> Iterator[str]:
    """The executable and the mappings of every task; ``*`` marks those that a restore does not map."""
    files = _Files(directory)
    numbers: dict[int, int] = {}
    for pid in _living(directory):
        yield str(pid)
        mm = _only(directory, "MM", pid)
        yield f"\t{'exe':<40}{files.path(mm.exe_file_id)}"
        for vma in mm.vmas:
            prot = "".join(letter if vma.prot & bit else "-" for bit, letter in _PROT)
            what = _mapped(vma, files, numbers) + ("" if vma.status & _REGULAR else " *")
            yield f"\t{f'{vma.start:08x}-{vma.end:08x}':<36}{prot}{what}"


def rss(directory: ImageDirectory) -> Iterator[str]:
    """The saved pages of every task: each run as ``address / pages``, beside it the mappings that it lies in.

    ``~`` stands for the mapping of the line before.
    """
    files = _Files(directory)
    for pid in _living(directory):
        vmas = _only(directory, "MM", pid).vmas
        runs = directory.alone("PAGEMAP", pid)
        next(runs, None)  # the head
        yield str(pid)
        index, shown = 0, -1
        for record in runs:
            run = record.message
            pages = run.nr_pages or run.compat_nr_pages
            end = run.vaddr + pages * PAGE_SIZE
            line = f"\t{f'{run.vaddr:x} / {pages}':<23}"
            while index < len(vmas) and vmas[index].end <= run.vaddr:
                index += 1
            over = index
            while over < len(vmas) and vmas[over].start < end:
                yield f"{line} {'~' if over == shown else _extent(vmas[over], files)}"
                line = f"\t{'':<23}"
                index = shown = over
                over += 1
            yield line


REPORTS: dict[str, Callable[[ImageDirectory], Iterator[str]]] = {
    "ps": ps,
    "fds": fds,
    "mems": mems,
    "rss": rss,
}
"""By the word on crit's command line: the lines, without their ends."""


def _only(directory: ImageDirectory, kind: str, number: int) -> Any:
    for record in directory.alone(kind, number):
        return record.message
    raise ImageError(BY_NAME[kind].file_name(number), "is empty")


def _text(name: bytes) -> str:
    """Text as crit prints it: what is no UTF-8 looks as Python writes bytes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return str(name)


def _tree(entries: list[Any]) -> Iterator[tuple[Any, int]]:
    """The pstree entries with their depth, in the order of a walk from the root."""
    children: dict[int, list[Any]] = defaultdict(list)
    for entry in entries:
        children[entry.ppid].append(entry)
    roots = children.pop(0, [])
    if len(roots) != 1:
        raise ImageError("pstree.img", f"has {len(roots)} root tasks where one belongs")
    ahead = [(roots[0], 0)]
    while ahead:
        entry, depth = ahead.pop()
        yield entry, depth
        ahead += [(child, depth + 1) for child in reversed(children.pop(entry.pid, []))]
    for parent, orphans in children.items():
        raise ImageError("pstree.img", f"the parent {parent} of task {orphans[0].pid} is not in the tree")


def _living(directory: ImageDirectory) -> Iterator[int]:
    """The pids of the tasks that have descriptors and memory, in the order of the image."""
    for record in directory.alone("PSTREE"):
        pid = record.message.pid
        if _only(directory, "CORE", pid).tc.task_state != _TASK_DEAD:
            yield pid


class _Files:
    """Open files by id: of ``files.img``, else of the images that old versions of CRIU wrote for each kind."""

    def __init__(self, directory: ImageDirectory) -> None:
        self._directory = directory
        self._images: dict[str, dict[int, Any]] = {}

    def path(self, key: int) -> str:
        """The path of a regular file, directory or device."""
        reg = self._find(key, "reg", "REG_FILES")
        return _text(reg.name) if reg and reg.name else "unknown path"

    def describe(self, info: Any) -> str:
        """What a descriptor (fdinfo_entry) refers to."""
        kind = info.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[info.type].name
        match kind:
            case "REG":
                return self.path(info.id)
            case "PIPE":
                pipe = self._find(info.id, "pipe", "PIPES")
                return f"pipe[{pipe.pipe_id if pipe else '?'}]"
            case "UNIXSK":
                return f"unix[{_unix(self._find(info.id, 'usk', 'UNIXSK'))}]"
        return f"{kind}.{info.id}"

    def _find(self, key: int, field: str, old_kind: str) -> Any:
        """The part of a file_entry; None if it is of another type."""
        entry = self._image("FILES").get(key)
        if entry is not None:
            return getattr(entry, field) if entry.HasField(field) else None
        entry = self._image(old_kind).get(key)
        if entry is None:
            raise ImageError("files.img", f"is missing or has no file {key:#x}")
        return entry

    def _image(self, kind: str) -> dict[int, Any]:
        if kind not in self._images:
            present = BY_NAME[kind].file_name() in self._directory.names()
            records = self._directory.alone(kind) if present else ()
            found: dict[int, Any] = {}
            for record in records:
                found.setdefault(record.message.id, record.message)
            self._images[kind] = found
        return self._images[kind]


def _unix(socket: Any) -> str:
    if socket is None:
        return "?"
    name = quopri.encodestring(socket.name).decode("ascii")
    return f"{socket.ino} ({socket.peer})" + (f" {name}" if name else "")


def _mapped(vma: Any, files: _Files, numbers: dict[int, int]) -> str:
    """What is mapped, a space before it.  ``numbers`` counts those without a name, by shmid, in hexadecimal."""
    for bit, name in _NUMBERED:
        if vma.status & bit:
            return f" {name}[{numbers.setdefault(vma.shmid, len(numbers) + 1):x}]"
    if vma.status & _OF_FILE:
        offset = f" + {vma.pgoff:#x}" if vma.pgoff else ""
        shared = " (s)" if vma.status & _FILE_SHARED else ""
        return f" {files.path(vma.shmid)}{offset}{shared}"
    for bit, name in _NAMED:
        if vma.status & bit:
            return f" {name}"
    return " [stack?]" if vma.flags & mman.MAP_GROWSDOWN else ""


def _extent(vma: Any, files: _Files) -> str:
    path = f" {files.path(vma.shmid)}" if vma.status & _OF_FILE else ""
    return f"{vma.start:08x} / {(vma.end - vma.start) // PAGE_SIZE:<8}{path}"
