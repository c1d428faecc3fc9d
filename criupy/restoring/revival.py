"""Files without a name, as a restore brings them back: each has its name for a moment, in which it is opened.

A ghost is made anew under a name beside the one that it had, as CRIU does, and linked to that; what has other names is
linked from the one that the images lead to, which stays.  Tasks open them again through descriptors of the nursery's.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import NamedTuple

from criupy.errors import ImageError, RestoreError
from criupy.images.directory import ImageDirectory
from criupy.images.ghosts import Ghost
from criupy.images.pages import send_pages
from criupy.images.pb.files_pb2 import LINKED
from criupy.model.plan import Revived
from criupy.model.snapshot import Snapshot
from criupy.tracee import guardian

_LONGEST_NAME = 200
_Target = tuple[int, int]


class _Made(NamedTuple):
    """``fd`` of ours leads to a file that has the name ``name``, or none."""

    fd: int
    name: bytes | None


@contextmanager
def revive(
    wanted: Sequence[Revived], snapshot: Snapshot, directory: ImageDirectory, warn: Callable[[str], None]
) -> Iterator[list[int]]:
    """Descriptors of ours for all that is wanted, in its order; no name of theirs is left when they are there.

    Raises `RestoreError` for a place where a file cannot be made.
    """
    with ExitStack() as stack:
        revival = _Revival(wanted, snapshot, directory, warn, stack)
        with guardian.unless_done(revival.clean) if wanted else nullcontext():
            found = revival.all()
            revival.clean()
        yield found


class _Revival:
    def __init__(
        self,
        wanted: Sequence[Revived],
        snapshot: Snapshot,
        directory: ImageDirectory,
        warn: Callable[[str], None],
        stack: ExitStack,
    ) -> None:
        self._snapshot = snapshot
        self._directory = directory
        self._warn = warn
        self._stack = stack
        self._wanted = wanted
        token = secrets.token_hex(4).encode()
        self._beside: dict[_Target, bytes] = {}
        """The names that ghosts are made under."""
        for one in wanted:
            if one.kind != LINKED:
                self._beside.setdefault((one.kind, one.number), _beside(one, token))
        self._free = {one.name for one in wanted if not os.path.lexists(one.name)}
        self._directories = _missing(
            one.name if self._is_directory(one) else os.path.dirname(one.name) for one in wanted
        )
        """What has to be there for a moment, parents first: it was deleted too."""
        self._made: dict[_Target, _Made] = {}
        self._named: dict[tuple[_Target, bytes], int] = {}

    def _is_directory(self, one: Revived) -> bool:
        return one.kind != LINKED and stat.S_ISDIR(self._snapshot.ghosts[one.number].entry.mode)

    def all(self) -> list[int]:
        for directory in self._directories:
            with _failures(directory):
                os.mkdir(directory, 0o700)
        return [self._descriptor(one) for one in self._wanted]

    def clean(self) -> None:
        """Takes away every name that was given; anyone can do it, and at any time."""
        for one in self._wanted:
            self._take_name(one)
        for name in self._beside.values():
            with suppress(FileNotFoundError):
                os.rmdir(name) if stat.S_ISDIR(os.lstat(name).st_mode) else os.unlink(name)
        for directory in reversed(self._directories):
            with suppress(OSError):  # it was not made, or somebody has put something there
                os.rmdir(directory)

    def _take_name(self, one: Revived) -> None:
        """Unlinks the name that a file has had, if it was us who gave it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            known = self._known(one) if one.name in self._free else None
            if known is not None and os.path.samestat(os.lstat(one.name), known):
                os.unlink(one.name)

    def _known(self, one: Revived) -> os.stat_result | None:
        """The file itself, as far as it has a name."""
        name = self._source(one)
        return os.lstat(name) if os.path.lexists(name) else None

    def _source(self, one: Revived) -> bytes:
        if one.kind == LINKED:
            return bytes(self._snapshot.files[one.number].reg.name)
        return self._beside[one.kind, one.number]

    def _descriptor(self, one: Revived) -> int:
        target = one.kind, one.number
        with _failures(one.name):
            if target not in self._made:
                self._made[target] = self._make(one)
            if (target, one.name) not in self._named:
                self._named[target, one.name] = self._name(one, self._made[target])
            path = self._named[target, one.name]
            if one.flags & os.O_PATH:
                return path
            return self._keep(os.open(f"/proc/self/fd/{path}", one.flags | os.O_CLOEXEC))

    def _keep(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd

    def _make(self, one: Revived) -> _Made:
        source = self._source(one)
        if one.kind == LINKED:
            return _Made(self._keep(_open(source)), source)
        ghost = self._snapshot.ghosts[one.number]
        if self._is_directory(one):
            return self._make_directory(one, ghost)
        if stat.S_ISREG(ghost.entry.mode):
            fd, name = self._make_regular(one, source)
            try:
                _fill(fd, ghost, self._directory)
                _adorn(fd, ghost)
                return _Made(self._keep(_open(f"/proc/self/fd/{fd}", follow=True)), name)
            finally:
                os.close(fd)  # what is open for writing cannot be run
        _make_special(source, ghost)
        fd = self._keep(_open(source))
        _check_ours(fd, ghost)
        _adorn(fd, ghost)
        return _Made(fd, source)

    def _was_unnamed(self, one: Revived) -> bool:
        """Whether it never had a name: what somebody opened with O_TMPFILE."""
        return any(
            self._snapshot.files[file_id].reg.flags & os.O_TMPFILE == os.O_TMPFILE
            for file_id, target in self._snapshot.nameless.items()
            if target == (one.kind, one.number)
        )

    def _make_regular(self, one: Revived, beside: bytes) -> tuple[int, bytes | None]:
        """A descriptor, and the name if it has one."""
        directory, base = os.path.split(one.name)
        if self._was_unnamed(one):
            with suppress(OSError):  # a file system that does not know how
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), None
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(beside, flags, 0o600), beside
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        name = os.fsdecode(base)[:_LONGEST_NAME]
        shown = f"{os.fsdecode(one.name)} shows as /memfd:{name} (deleted)"
        self._warn(f"{shown}, since nothing can be made in its directory")
        return os.memfd_create(name), None

    def _make_directory(self, one: Revived, ghost: Ghost) -> _Made:
        name = one.name
        if name not in self._directories:
            name = self._source(one)
            os.mkdir(name, 0o700)
            self._say_name(one, name)
        fd = self._keep(_open(name))
        _check_ours(fd, ghost)
        _adorn(fd, ghost)
        return _Made(fd, None)

    def _name(self, one: Revived, made: _Made) -> int:
        """A descriptor that shows the name which the file has had."""
        if made.name is None:
            return made.fd
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(one.name), os.fstat(made.fd)):
                return self._keep(_open(one.name))
        try:
            os.link(made.name, one.name, follow_symlinks=False)
        except (FileExistsError, PermissionError):  # taken, or of a file system without links
            self._say_name(one, made.name)
            return made.fd
        fd = self._keep(_open(one.name))
        os.unlink(one.name)
        return fd

    def _say_name(self, one: Revived, name: bytes) -> None:
        if name != one.name:
            why = "another file has its name"
            self._warn(f"{os.fsdecode(one.name)} shows as {os.fsdecode(name)} (deleted), since {why}")


def _beside(one: Revived, token: bytes) -> bytes:
    directory, base = os.path.split(one.name)
    return os.path.join(directory, b"%s.cr.%x.%s.ghost" % (base[:_LONGEST_NAME], one.number, token))


def _missing(directories: Iterable[bytes]) -> list[bytes]:
    """Those that are gone, with the ones above them, parents first."""
    found: set[bytes] = set()
    for directory in directories:
        place = directory
        while not os.path.lexists(place):
            found.add(place)
            place = os.path.dirname(place)
    return sorted(found)


@contextmanager
def _failures(name: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        shown = os.fsdecode(name)
        hint = f"{shown} has no name any more, but for a moment a restore needs it there"
        raise RestoreError(f"{shown} cannot be brought back", errno=error.errno or 0, hint=hint) from error


def _open(name: bytes | str, *, follow: bool = False) -> int:
    return os.open(name, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


def _make_special(name: bytes, ghost: Ghost) -> None:
    entry = ghost.entry
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.symlnk_target, name)
    else:
        device = os.makedev(entry.rdev >> 8 & 0xFFF, entry.rdev & 0xFF | entry.rdev >> 12 & 0xFFF00)
        os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, device)


def _check_ours(fd: int, ghost: Ghost) -> None:
    """That nobody has put something else in its place before it was opened."""
    found = os.fstat(fd)
    is_directory = stat.S_ISDIR(found.st_mode)
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(ghost.entry.mode) or (
        found.st_nlink > 1 and not is_directory
    ):
        raise RestoreError(f"somebody has replaced the file of {ghost.name}")


def _fill(fd: int, ghost: Ghost, directory: ImageDirectory) -> None:
    source = directory.open_fd(ghost.name)
    if source is None:
        raise ImageError(ghost.name, "is missing")
    try:
        os.ftruncate(fd, ghost.size)
        for chunk in ghost.chunks:
            send_pages(fd, source, chunk.size, chunk.offset, start=chunk.place, name=f"file of {ghost.name}")
    finally:
        os.close(source)


def _adorn(fd: int, ghost: Ghost) -> None:
    """Owner, mode and times."""
    entry, way = ghost.entry, f"/proc/self/fd/{fd}"
    os.chown(way, entry.uid, entry.gid)
    if stat.S_ISLNK(entry.mode):
        return
    os.chmod(way, stat.S_IMODE(entry.mode))
    if entry.HasField("mtim") and entry.HasField("atim"):
        times = [time.tv_sec * 1_000_000_000 + time.tv_usec * 1000 for time in (entry.atim, entry.mtim)]
        os.utime(way, ns=(times[0], times[1]))
