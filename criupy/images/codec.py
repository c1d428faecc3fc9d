"""Image files as records: magics, framing, and the raw bytes that follow some records.

An image is a head of one or two magics and then records: a 32-bit length, a protobuf message of that length
and, for some kinds, a payload whose size the message tells.  ``KINDS`` lists every kind of file; reading and
writing are driven by it.  A record that was read and is written again gives the same bytes.

Nothing that is read is trusted: a length is compared with what is left of the file before anything is
allocated, and whatever does not fit is an :class:`ImageError` with the file and the offset.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

from google.protobuf.message import DecodeError, EncodeError, Message

from criupy.errors import ImageError

COMMON_MAGIC = 0x54564319
SERVICE_MAGIC = 0x55105940
MAX_RECORD = 128 << 20
"""No message is longer: an mm_entry with a million mappings is a quarter of this."""

_U32 = struct.Struct("<I")


class Record(NamedTuple):
    """A message and the bytes that follow it in the file, padding included."""

    message: Any
    payload: bytes = b""


class Placed(NamedTuple):
    """A message, and where in the file the bytes are that follow it."""

    message: Any
    place: int
    size: int


class ImageKind(NamedTuple):
    """One kind of image file.

    ``name`` is what crit calls it.  ``pattern`` is the file name with ``%u`` or ``%x`` for its number.
    ``magic`` is None for a raw file.  ``message`` is ``module.message``; where the records after the first
    have another type, that is ``then``.  ``head`` is the word before the magic: common, service, or none (0).
    ``legacy``: written by old versions of CRIU only.
    """

    name: str
    pattern: str
    magic: int | None
    message: str = ""
    then: str = ""
    head: int = COMMON_MAGIC
    legacy: bool = False

    def file_name(self, *number: int) -> str:
        """``core-%u.img`` and 7 give ``core-7.img``."""
        return self.pattern % number if number else self.pattern

    @property
    def message_class(self) -> Any:
        return message_class(self.message)

    @property
    def then_class(self) -> Any:
        return message_class(self.then or self.message)


def _raw(name: str, pattern: str, *, legacy: bool = False) -> ImageKind:
    return ImageKind(name, pattern, None, head=0, legacy=legacy)


def _old(name: str, pattern: str, magic: int, message: str) -> ImageKind:
    return ImageKind(name, pattern, magic, message, legacy=True)


KINDS: tuple[ImageKind, ...] = (
    ImageKind("INVENTORY", "inventory.img", 0x58313116, "inventory.inventory_entry", head=0),
    ImageKind("PSTREE", "pstree.img", 0x50273030, "core.pstree_entry"),
    ImageKind("CORE", "core-%u.img", 0x55053847, "core.core_entry"),
    ImageKind("IDS", "ids-%u.img", 0x54432030, "core.task_kobj_ids_entry"),
    ImageKind("MM", "mm-%u.img", 0x57492820, "memory.mm_entry"),
    ImageKind("FS", "fs-%u.img", 0x51403912, "core.fs_entry"),
    ImageKind("SECCOMP", "seccomp.img", 0x64413049, "core.seccomp_entry"),
    ImageKind("PAGEMAP", "pagemap-%u.img", 0x56084025, "memory.pagemap_head", "memory.pagemap_entry"),
    ImageKind(
        "SHMEM_PAGEMAP", "pagemap-shmem-%u.img", 0x56084025, "memory.pagemap_head", "memory.pagemap_entry"
    ),
    _raw("PAGES", "pages-%u.img"),
    ImageKind("FILES", "files.img", 0x56303138, "fdtable.file_entry"),
    ImageKind("FDINFO", "fdinfo-%u.img", 0x56213732, "fdtable.fdinfo_entry"),
    ImageKind("PIPES_DATA", "pipes-data.img", 0x56453709, "files.pipe_data_entry"),
    ImageKind("FIFO_DATA", "fifo-data.img", 0x59333054, "files.pipe_data_entry"),
    ImageKind("REMAP_FPATH", "remap-fpath.img", 0x59133954, "files.remap_file_path_entry"),
    ImageKind(
        "GHOST_FILE", "ghost-file-%x.img", 0x52583605, "files.ghost_file_entry", "files.ghost_chunk_entry"
    ),
    ImageKind("MEMFD_INODE", "memfd.img", 0x48453499, "files.memfd_inode_entry"),
    ImageKind("TTY_INFO", "tty-info.img", 0x59453036, "files.tty_info_entry"),
    ImageKind("TTY_DATA", "tty-data.img", 0x59413026, "files.tty_data_entry"),
    ImageKind("FILE_LOCKS", "filelocks.img", 0x54323616, "files.file_lock_entry"),
    ImageKind("BPFMAP_DATA", "bpfmap-data.img", 0x64324033, "files.bpfmap_data_entry"),
    ImageKind("SK_QUEUES", "sk-queues.img", 0x56264026, "sockets.sk_packet_entry"),
    ImageKind("TCP_STREAM", "tcp-stream-%x.img", 0x51465506, "sockets.tcp_stream_entry"),
    ImageKind("UTSNS", "utsns-%u.img", 0x54473203, "namespaces.utsns_entry"),
    ImageKind("IPC_VAR", "ipcns-var-%u.img", 0x53115007, "namespaces.ipc_var_entry"),
    ImageKind("IPCNS_SHM", "ipcns-shm-%u.img", 0x46283044, "namespaces.ipc_shm_entry"),
    ImageKind("IPCNS_MSG", "ipcns-msg-%u.img", 0x55453737, "namespaces.ipc_msg_entry", "namespaces.ipc_msg"),
    ImageKind("IPCNS_SEM", "ipcns-sem-%u.img", 0x59573019, "namespaces.ipc_sem_entry"),
    ImageKind("TIMENS", "timens-%u.img", 0x43114433, "namespaces.timens_entry"),
    ImageKind("USERNS", "userns-%u.img", 0x55474906, "namespaces.userns_entry"),
    ImageKind("PIDNS", "pidns-%u.img", 0x61157326, "namespaces.pidns_entry"),
    ImageKind("MNTS", "mountpoints-%u.img", 0x55563928, "namespaces.mnt_entry"),
    ImageKind("AUTOFS", "autofs-%u.img", 0x49353943, "namespaces.autofs_entry"),
    ImageKind("BINFMT_MISC", "binfmt-misc.img", 0x67343323, "namespaces.binfmt_misc_entry"),
    ImageKind("CGROUP", "cgroup.img", 0x59383330, "namespaces.cgroup_entry"),
    ImageKind("APPARMOR", "apparmor.img", 0x59423047, "namespaces.apparmor_entry"),
    ImageKind("NETDEV", "netdev-%u.img", 0x57373951, "network.net_device_entry"),
    ImageKind("NETNS", "netns-%u.img", 0x55933752, "network.netns_entry"),
    _raw("IFADDR", "ifaddr-%u.img"),
    _raw("ROUTE", "route-%u.img"),
    _raw("ROUTE6", "route6-%u.img"),
    _raw("RULE", "rule-%u.img"),
    _raw("IPTABLES", "iptables-%u.img"),
    _raw("IP6TABLES", "ip6tables-%u.img"),
    _raw("NFTABLES", "nftables-%u.img"),
    _raw("NETNF_CT", "netns-ct-%u.img"),
    _raw("NETNF_EXP", "netns-exp-%u.img"),
    _raw("TMPFS_DEV", "tmpfs-dev-%u.tar.gz.img"),
    _raw("TMPFS_IMG", "tmpfs-%u.tar.gz.img", legacy=True),
    ImageKind("CPUINFO", "cpuinfo.img", 0x61404013, "host.cpuinfo_entry"),
    ImageKind("STATS", "stats-dump", 0x57093306, "inventory.stats_entry", head=SERVICE_MAGIC),
    ImageKind("STATS", "stats-restore", 0x57093306, "inventory.stats_entry", head=SERVICE_MAGIC),
    ImageKind("IRMAP_CACHE", "irmap-cache", 0x57004059, "files.irmap_cache_entry", head=SERVICE_MAGIC),
    _old("REG_FILES", "reg-files.img", 0x50363636, "files.reg_file_entry"),
    _old("EXT_FILES", "ext-files.img", 0x59255641, "files.ext_file_entry"),
    _old("NS_FILES", "ns-files.img", 0x61394011, "files.ns_file_entry"),
    _old("EVENTFD_FILE", "eventfd.img", 0x44523722, "files.eventfd_file_entry"),
    _old("EVENTPOLL_FILE", "eventpoll.img", 0x45023858, "files.eventpoll_file_entry"),
    _old("EVENTPOLL_TFD", "eventpoll-tfd.img", 0x44433746, "files.eventpoll_tfd_entry"),
    _old("SIGNALFD", "signalfd.img", 0x57323820, "files.signalfd_entry"),
    _old("INOTIFY_FILE", "inotify.img", 0x48424431, "files.inotify_file_entry"),
    _old("INOTIFY_WD", "inotify-wd.img", 0x54562009, "files.inotify_wd_entry"),
    _old("FANOTIFY_FILE", "fanotify.img", 0x55096122, "files.fanotify_file_entry"),
    _old("FANOTIFY_MARK", "fanotify-mark.img", 0x56506035, "files.fanotify_mark_entry"),
    _old("TIMERFD", "timerfd.img", 0x50493712, "files.timerfd_entry"),
    _old("TTY_FILES", "tty.img", 0x59433025, "files.tty_file_entry"),
    _old("TUNFILE", "tunfile.img", 0x57143751, "fdtable.tunfile_entry"),
    _old("BPFMAP_FILE", "bpfmap-file.img", 0x57506142, "files.bpfmap_file_entry"),
    _old("PIDFD", "pidfd.img", 0x54435556, "files.pidfd_entry"),
    _old("PIPES", "pipes.img", 0x56513555, "files.pipe_entry"),
    _old("FIFO", "fifo.img", 0x58364939, "files.fifo_entry"),
    _old("UNIXSK", "unixsk.img", 0x54373943, "sockets.unix_sk_entry"),
    _old("INETSK", "inetsk.img", 0x56443851, "sockets.inet_sk_entry"),
    _old("PACKETSK", "packetsk.img", 0x60454618, "sockets.packet_sock_entry"),
    _old("NETLINK_SK", "netlinksk.img", 0x58005614, "sockets.netlink_sk_entry"),
    _old("VMAS", "vmas-%u.img", 0x54123737, "memory.vma_entry"),
    _old("SIGACT", "sigacts-%u.img", 0x55344201, "core.sa_entry"),
    _old("ITIMERS", "itimers-%u.img", 0x57464056, "core.itimer_entry"),
    _old("POSIX_TIMERS", "posix-timers-%u.img", 0x52603957, "core.posix_timer_entry"),
    _old("CREDS", "creds-%u.img", 0x54023547, "core.creds_entry"),
    _old("RLIMIT", "rlimit-%u.img", 0x57113925, "core.rlimit_entry"),
    _old("SIGNAL", "signal-s-%u.img", 0x59255647, "core.siginfo_entry"),
    _old("PSIGNAL", "signal-p-%u.img", 0x59255647, "core.siginfo_entry"),
    _old("BINFMT_MISC_OLD", "binfmt-misc-%u.img", 0x67343323, "namespaces.binfmt_misc_entry"),
)
BY_NAME: dict[str, ImageKind] = {kind.name: kind for kind in reversed(KINDS)}
"""By crit's name; of two kinds with one name or magic, the first in ``KINDS``."""
BY_MAGIC: dict[int, ImageKind] = {kind.magic: kind for kind in reversed(KINDS) if kind.magic is not None}


def message_class(path: str) -> Any:
    """The class for ``core.pstree_entry``; its generated module is imported when first asked for."""
    module, _, name = path.partition(".")
    return getattr(importlib.import_module(f"criupy.images.pb.{module}_pb2"), name)


_BY_PATTERN = {kind.pattern: kind for kind in KINDS}


def kind_of_file(name: str) -> ImageKind | None:
    """The kind of a file by its name, None for a file that is no image."""
    found = re.fullmatch(r"(.+-)([0-9a-f]+)((?:\.tar\.gz)?\.img)", name)
    if found is None:
        return _BY_PATTERN.get(name) if "%" not in name else None
    before, number, after = found.groups()
    hexadecimal = _BY_PATTERN.get(f"{before}%x{after}")
    return hexadecimal or (_BY_PATTERN.get(f"{before}%u{after}") if number.isdecimal() else None)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _ghost_payload(message: Any) -> int | None:
    return 0 if message.chunks else None


def _shm_payload(message: Any) -> int:
    return 0 if message.in_pagemaps else _padded(message.size, 4)


_PAYLOAD: dict[str, Callable[[Any], int | None]] = {
    "pipe_data_entry": lambda message: int(message.bytes),
    "sk_packet_entry": lambda message: int(message.length),
    "tcp_stream_entry": lambda message: message.inq_len + message.outq_len,
    "ghost_file_entry": _ghost_payload,
    "ghost_chunk_entry": lambda message: int(message.len),
    "ipc_shm_entry": _shm_payload,
    "ipc_msg": lambda message: _padded(message.msize, 8),
    "ipc_sem_entry": lambda message: _padded(2 * message.nsems, 8),
    "bpfmap_data_entry": lambda message: message.keys_bytes + message.values_bytes,
}
"""Size of the payload of a message; None: all that is left of the file."""


class _Source:
    """A stream of known size, of which no more is asked for than there is."""

    def __init__(self, stream: IO[bytes], size: int, name: str) -> None:
        self.stream = stream
        self.size = size
        self.name = name
        self.left = size

    def error(self, reason: str, *, at: int | None = None) -> ImageError:
        return ImageError(self.name, reason, offset=self.size - self.left if at is None else at)

    def take(self, count: int, what: str) -> bytes:
        data = self.stream.read(count) if count <= self.left else b""
        if len(data) != count:
            raise self._short(count, what)
        self.left -= count
        return data

    def _short(self, count: int, what: str) -> ImageError:
        if count <= self.left:
            return self.error(f"{what} of {count} bytes ends early: the file is being changed")
        return self.error(f"{what} of {count} bytes, but only {self.left} are left: the file is truncated")

    def skip(self, count: int, what: str) -> int:
        """Leaves bytes out, and tells where they are."""
        if count > self.left:
            raise self._short(count, what)
        place = self.size - self.left
        self.left -= count
        self.stream.seek(place + count)
        return place

    def word(self, what: str) -> int:
        word: int = _U32.unpack(self.take(4, what))[0]
        return word


def read_head(source: _Source) -> tuple[int, int]:
    """The word before the magic (0 when there is none) and the magic."""
    first = source.word("a magic")
    if first in (COMMON_MAGIC, SERVICE_MAGIC):
        return first, source.word("a magic")
    return 0, first


def _check_head(source: _Source, kind: ImageKind, version: int) -> None:
    head, magic = read_head(source)
    expected = 0 if version == 1 and kind.head == COMMON_MAGIC else kind.head
    if magic != kind.magic:
        found = BY_MAGIC.get(magic)
        what = f"this is an image of kind {found.name}" if found else f"unknown magic {magic:#x}"
        raise source.error(f"{what}, not {kind.name} ({kind.magic:#x})", at=0)
    if head != expected:
        raise source.error(f"head word {head:#x} where {expected:#x} belongs", at=0)


def _parse(source: _Source, cls: Any) -> Any:
    size = source.word("a record length")
    if size > MAX_RECORD:
        raise source.error(f"a record of {size} bytes")
    data = source.take(size, "a record")
    message = cls()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise source.error(f"not a {cls.DESCRIPTOR.name}: {error}") from error
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors()[:4])
        raise source.error(f"{cls.DESCRIPTOR.name} lacks {missing}")
    return message


def _record(source: _Source, cls: Any, rule: Callable[[Any], int | None] | None) -> Record:
    message = _parse(source, cls)
    if rule is None:
        return Record(message)
    size = rule(message)
    return Record(message, source.take(source.left if size is None else size, "a payload"))


def _records(source: _Source, kind: ImageKind) -> Iterator[Record]:
    if not source.left:
        return
    first, then = kind.message_class, kind.then_class
    first_rule, rule = (_PAYLOAD.get(cls.DESCRIPTOR.name) for cls in (first, then))
    if kind.name == "IPCNS_MSG":
        while source.left:
            queue = _record(source, first, first_rule)
            yield queue
            for _ in range(queue.message.qnum):
                yield _record(source, then, rule)
        return
    yield _record(source, first, first_rule)
    while source.left:
        yield _record(source, then, rule)


def size_of(stream: IO[bytes]) -> int:
    """Size of a seekable stream, whose position is at its start again."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size


def read_records(stream: IO[bytes], kind: ImageKind, name: str, *, version: int = 2) -> Iterator[Record]:
    """The records of an image of a known kind, as they are read.

    ``version`` is the inventory's ``img_version``; images of version 1 have no common magic.
    """
    source = _Source(stream, size_of(stream), name)
    _check_head(source, kind, version)
    yield from _records(source, kind)


def read_placed(stream: IO[bytes], kind: ImageKind, name: str, *, version: int = 2) -> Iterator[Placed]:
    """The same without the bytes that follow the messages."""
    source = _Source(stream, size_of(stream), name)
    _check_head(source, kind, version)
    cls = kind.message_class
    while source.left:
        message = _parse(source, cls)
        size = _PAYLOAD[cls.DESCRIPTOR.name](message)
        size = source.left if size is None else size
        yield Placed(message, source.skip(size, "a payload"), size)
        cls = kind.then_class


def read_any(stream: IO[bytes], name: str) -> tuple[ImageKind, Iterator[Record]]:
    """The kind that the magic tells, and the records as they are read."""
    source = _Source(stream, size_of(stream), name)
    _, magic = read_head(source)
    kind = BY_MAGIC.get(magic)
    if kind is None:
        raise source.error(f"unknown magic {magic:#x}", at=0)
    return kind, _records(source, kind)


def encode_head(kind: ImageKind) -> bytes:
    if kind.magic is None:
        return b""
    return (_U32.pack(kind.head) if kind.head else b"") + _U32.pack(kind.magic)


def encode_record(message: Message, payload: bytes = b"") -> bytes:
    """Length, message and payload.  EncodeError: the caller left out a required field."""
    body = message.SerializeToString()
    if len(body) > MAX_RECORD:
        raise EncodeError(f"a {message.DESCRIPTOR.name} of {len(body)} bytes")
    return _U32.pack(len(body)) + body + payload


def encode_image(kind: ImageKind, records: Iterable[Record]) -> bytes:
    """A whole file."""
    parts = [encode_head(kind)]
    parts.extend(encode_record(record.message, record.payload) for record in records)
    return b"".join(parts)
