"""Image directories: reading one that is trusted in nothing, and writing one that is whole or is none.

Reading never leaves the directory: files are opened beneath its descriptor without following links.  The one
link that is followed is ``parent``, which leads to the previous dump.

Writing ends with :meth:`ImageWriter.commit`, which renames the inventory into place.  Only what has one is an
image set; so a stale one goes first, and what a failed dump wrote goes with :meth:`ImageWriter.abandon`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message

from criupy.errors import ImageError
from criupy.images.codec import (
    BY_NAME,
    ImageKind,
    Placed,
    Record,
    encode_head,
    encode_record,
    kind_of_file,
    read_any,
    read_placed,
    read_records,
)
from criupy.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

INVENTORY = "inventory.img"
PARENT = "parent"
IMG_VERSIONS = (1, 2)
_UNFINISHED = "inventory.img.unfinished"

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _image_error(name: str, what: str, error: OSError) -> ImageError:
    return ImageError(name, f"{what}: {os.strerror(error.errno or 0)}")


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _image_error(name, "cannot be read", error) from error


def _open_directory(path: str | int) -> int:
    try:
        return os.open(
            "." if isinstance(path, int) else path,
            os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
            dir_fd=path if isinstance(path, int) else None,
        )
    except NotADirectoryError as error:
        raise ImageError(str(path), "is not a directory") from error
    except FileNotFoundError as error:
        raise ImageError(str(path), "there is no such directory") from error
    except OSError as error:
        raise _image_error(str(path), "cannot be opened", error) from error


class ImageDirectory:
    """An image set to read from.  A context manager that owns the directory's descriptor, ``fd``.

    ``path`` is a path or the descriptor of a directory, which is not taken over.
    """

    def __init__(self, path: str | int, *, name: str = "") -> None:
        self.fd = _open_directory(path)
        self.name = name or (f"<directory {path}>" if isinstance(path, int) else path)
        self._version = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def names(self) -> list[str]:
        """File names in the directory, sorted."""
        return sorted(os.listdir(self.fd))

    def status(self, name: str) -> os.stat_result:
        """What lstat(2) says of a file of the set."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError as error:
            raise _image_error(name, "cannot be looked at", error) from error

    def open_fd(self, name: str) -> int | None:
        """A descriptor to read a regular file of the set with; None if there is none."""
        try:
            fd = openat2(self.fd, name, _READ, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ImageError(name, "is a symbolic link, which is not followed") from error
            raise _image_error(name, "cannot be opened", error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(name, "is not a regular file")
        return fd

    def of_version(self, version: int) -> Self:
        """The same, taken to be of this ``img_version``: a parent set may have no inventory."""
        self._version = version
        return self

    @property
    def version(self) -> int:
        """``img_version`` of the inventory."""
        if not self._version:
            self.inventory()
        return self._version

    def inventory(self) -> Any:
        """The inventory_entry, without which the directory is no image set."""
        inventory = next((record.message for record in self._read(BY_NAME["INVENTORY"], INVENTORY, 2)), None)
        if inventory is None:
            raise ImageError(
                self.name,
                f"is not an image set: {INVENTORY} is missing",
                hint="a dump that did not finish leaves none; dump again",
            )
        if inventory.img_version not in IMG_VERSIONS:
            raise ImageError(INVENTORY, f"img_version is {inventory.img_version}, known are 1 and 2")
        self._version = inventory.img_version
        return inventory

    def records(self, kind: str, *number: int) -> Iterator[Record]:
        """The records of ``kind`` (crit's name) and number; none if the file does not exist."""
        image = BY_NAME[kind]
        return self._read(image, image.file_name(*number), self.version)

    def first(self, kind: str, *number: int) -> Any:
        """The message of the first record, None if there is none."""
        for record in self.records(kind, *number):
            return record.message
        return None

    def only(self, kind: str, *number: int) -> Any:
        """The message of the first record; an ImageError if there is none."""
        message = self.first(kind, *number)
        if message is None:
            raise ImageError(BY_NAME[kind].file_name(*number), "is missing or empty")
        return message

    def _read(self, kind: ImageKind, name: str, version: int) -> Iterator[Record]:
        fd = self.open_fd(name)
        if fd is None:
            return
        with _reading(name), open(fd, "rb") as stream:
            yield from read_records(stream, kind, name, version=version)

    def placed(self, kind: str, *number: int) -> Iterator[Placed]:
        """The messages of an image, each with the place of the bytes that follow it."""
        image = BY_NAME[kind]
        name, version = image.file_name(*number), self.version
        fd = self.open_fd(name)
        if fd is None:
            return
        with _reading(name), open(fd, "rb") as stream:
            yield from read_placed(stream, image, name, version=version)

    def alone(self, kind: str, *number: int) -> Iterator[Record]:
        """The records of an image looked at by itself: the head of the file tells its version, not the inventory.

        So crit reads, also what a dump left that did not finish.  ImageError if the file does not exist.
        """
        image = BY_NAME[kind]
        name = image.file_name(*number)
        fd = self.open_fd(name)
        if fd is None:
            raise ImageError(name, "is missing")
        with _reading(name), open(fd, "rb") as stream:
            found, records = read_any(stream, name)
            if found.magic != image.magic:
                raise ImageError(name, f"this is an image of kind {found.name}, not {image.name}")
            yield from records

    def parent_name(self) -> str | None:
        """Where the link to the image set of the previous dump leads, None if there is none."""
        try:
            return os.readlink(PARENT, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _image_error(PARENT, "is not a symbolic link", error) from error

    def parent(self) -> ImageDirectory | None:
        """The image set of the previous dump, None if there is none."""
        target = self.parent_name()
        if target is None:
            return None
        try:
            fd = os.open(PARENT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError as error:
            raise _image_error(f"{PARENT} -> {target}", "cannot be opened", error) from error
        try:
            return ImageDirectory(fd, name=os.path.join(self.name, target))
        finally:
            os.close(fd)


_KEPT = ("INVENTORY", "PAGEMAP", "SHMEM_PAGEMAP", "STATS", "IRMAP_CACHE")
"""Kinds that a commit leaves alone: a page server may have put pagemaps there for this very dump."""


def _stale(name: str) -> bool:
    kind = kind_of_file(name)
    return kind is not None and kind.magic is not None and kind.name not in _KEPT


class ImageWriter:
    """An image set that is being written.  A context manager: left without a commit, it abandons.

    ``path`` is a path (made with mode 0700 if it is missing) or the descriptor of a directory.
    """

    def __init__(self, path: str | int) -> None:
        self.name = f"<directory {path}>" if isinstance(path, int) else path
        self._made = False
        if isinstance(path, str):
            self._make(path)
        self.fd = _open_directory(path)
        self._written: dict[str, None] = {}
        self.committed = False
        with contextlib.suppress(FileNotFoundError):
            self._unlink(INVENTORY)

    def below(self, name: str) -> ImageWriter:
        """A writer of a set in a directory of this one, which is made if it is missing."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.fd)
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=self.fd)
        except OSError as error:
            raise _image_error(name, "cannot be opened", error) from error
        try:
            return ImageWriter(fd)
        finally:
            os.close(fd)

    def _make(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)
            self._made = True
        except FileExistsError:
            pass
        except OSError as error:
            raise _image_error(path, "cannot be created", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.committed:
            self.abandon()
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _image_error(name, "a stale file cannot be removed", error) from error

    def create(self, name: str) -> int:
        """A descriptor of a new, empty file with mode 0600, to be closed by the caller."""
        with contextlib.suppress(FileNotFoundError):
            self._unlink(name)
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=self.fd)
        except OSError as error:
            raise _image_error(name, "cannot be created", error) from error
        self._written[name] = None
        return fd

    def remove(self, name: str) -> None:
        """Takes a file back that `create` made."""
        self._unlink(name)
        del self._written[name]

    def write_file(self, name: str, parts: Iterable[bytes]) -> None:
        """A whole file."""
        with open(self.create(name), "wb") as stream:
            try:
                stream.writelines(parts)
                stream.flush()
            except OSError as error:
                raise _image_error(name, "cannot be written", error) from error

    def write(self, kind: str, records: Iterable[Record | Message], *number: int) -> None:
        """An image of ``kind`` (crit's name) and number."""
        image = BY_NAME[kind]
        self.write_named(image.file_name(*number), records)

    def write_named(self, name: str, records: Iterable[Record | Message]) -> None:
        """An image by its file name, which tells the kind."""
        image = kind_of_file(name)
        if image is None:
            raise ImageError(name, "is not the name of an image")
        self.write_file(name, _encoded(image, records))

    def commit(self, inventory: Message, *, sync: bool = False) -> None:
        """Makes the image set whole: the commit point of a dump.

        Images that an earlier dump left here and this one did not write go, for they would be read as ours.
        With ``sync``, everything is on the disk before the inventory is.
        """
        self._remove_stale()
        self.write_file(_UNFINISHED, _encoded(BY_NAME["INVENTORY"], [inventory]))
        if sync:
            self.sync()
        try:
            os.rename(_UNFINISHED, INVENTORY, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            self.committed = True
            if sync:
                os.fsync(self.fd)
        except OSError as error:
            raise _image_error(INVENTORY, "cannot be put in place", error) from error

    def is_whole(self) -> bool:
        """Whether it was committed, be it by another process that has a copy of this."""
        try:
            os.stat(INVENTORY, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _remove_stale(self) -> None:
        for name in os.listdir(self.fd):
            if name not in self._written and _stale(name):
                with contextlib.suppress(FileNotFoundError):
                    self._unlink(name)

    def finish(self, *, sync: bool = False) -> None:
        """Makes a set whole that is only there to be the parent of another, and has no inventory."""
        self._remove_stale()
        if sync:
            self.sync()
        self.committed = True

    def link_parent(self, target: str | None) -> None:
        """Leads to the parent set, or nowhere; what led elsewhere before goes."""
        with contextlib.suppress(FileNotFoundError):
            self._unlink(PARENT)
        if target is None:
            return
        try:
            os.symlink(target, PARENT, dir_fd=self.fd)
        except OSError as error:
            raise _image_error(PARENT, "cannot be made", error) from error
        self._written[PARENT] = None

    def sync(self) -> None:
        """Makes what was written durable: the files and their names."""
        for name in self._written:
            if name == PARENT:
                continue  # a link is as durable as its directory
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                raise _image_error(name, "cannot be made durable", error) from error
        os.fsync(self.fd)

    def abandon(self) -> None:
        """Removes what was written, and the directory if it was made for this."""
        for name in self._written:
            with contextlib.suppress(FileNotFoundError):
                self._unlink(name)
        self._written.clear()
        if self._made:
            with contextlib.suppress(OSError):  # somebody put a file (a log) there: it stays
                os.rmdir(self.name)


def _encoded(kind: ImageKind, records: Iterable[Record | Message]) -> Iterator[bytes]:
    yield encode_head(kind)
    for record in records:
        if isinstance(record, Record):
            yield encode_record(record.message, record.payload)
        else:
            yield encode_record(record)


def write_stats(path: str | int, name: str, stats: Message) -> None:
    """Writes a stats_entry as ``stats-dump`` or ``stats-restore``, whatever else is in the directory."""
    image = kind_of_file(name)
    if image is None or image.name != "STATS":
        raise ImageError(name, "is not the name of a statistics file")
    directory = _open_directory(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        with open(os.open(name, _CREATE, 0o600, dir_fd=directory), "wb") as stream:
            stream.writelines(_encoded(image, [stats]))
    except OSError as error:
        raise _image_error(name, "cannot be written", error) from error
    finally:
        os.close(directory)
