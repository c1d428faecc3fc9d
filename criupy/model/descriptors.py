"""Open files in words: what a person would want to know of a file_entry.

Names, addresses and paths come from the images as they are, bytes that are no UTF-8 as surrogates: who shows
them makes them harmless.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from criupy.images.display import DICTS
from criupy.images.pb.files_pb2 import GHOST, LINKED, remap_file_path_entry
from criupy.images.text import address
from criupy.model.integrity import FILE_FIELD
from criupy.model.snapshot import PipeData, Snapshot, remap_target

_NO_POSITION = (1 << 64) - 1
_ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}
_FLAGS = ("O_APPEND", "O_NONBLOCK", "O_DSYNC", "O_ASYNC", "O_DIRECT", "O_NOATIME", "O_PATH")
"""Open flags that change how the file behaves."""
_TCP_LISTEN = 10
_TCP_PROTOCOL = 6
_SOCK_RAW = 3
_INET_KINDS = {1: "icmp socket", 6: "tcp socket", 17: "udp socket", 58: "icmp socket", 136: "udplite socket"}
_NETLINK = {
    0: "route",
    4: "sock_diag",
    6: "xfrm",
    9: "audit",
    12: "netfilter",
    15: "kobject_uevent",
    16: "generic",
}
"""Source: Linux include/uapi/linux/netlink.h."""
_CLOCKS = {0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 7: "CLOCK_BOOTTIME"}
_NAMESPACES = {
    0x80: "time", 0x20000: "mnt", 0x2000000: "cgroup", 0x4000000: "uts", 0x8000000: "ipc",
    0x10000000: "user", 0x20000000: "pid", 0x40000000: "net",
}  # fmt: skip
"""By CLONE_NEW*.  Source: Linux include/uapi/linux/sched.h."""


class Description(NamedTuple):
    """An open file.

    ``kind`` is a noun (pipe, directory), ``what`` the path, address or state that tells it from others of its
    kind, ``access`` is r, w, rw or empty, ``notes`` are position, content and flags, where they matter.
    """

    kind: str
    what: str
    access: str = ""
    notes: tuple[str, ...] = ()


def text(name: bytes) -> str:
    """Bytes of an image as text."""
    return name.decode("utf-8", "surrogateescape")


def signal_name(number: int) -> str:
    """``SIGTERM``; a number without a name as it is."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Describer:
    """Describes the open files of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._remaps = {remap.orig_id: remap for remap in snapshot.remaps}

    def describe(self, key: int) -> Description:
        """The open file with an id of ``files.img``; KeyError if there is none."""
        entry = self._snapshot.files[key]
        field = FILE_FIELD[entry.type]
        return self._KINDS[field](self, getattr(entry, field))

    def path(self, key: int) -> str:
        """The path of a regular file, directory or device by its id; KeyError if there is none."""
        return text(self._snapshot.files[key].reg.name)

    def _reg(self, reg: Any) -> Description:
        kind = _file_kind(reg.mode)
        notes = []
        if kind == "file" and reg.pos not in (0, _NO_POSITION):
            notes.append(f"at {_of(reg.pos, reg.size if reg.HasField('size') else None)} bytes")
        if reg.id in self._remaps:
            notes.append(self._gone(self._remaps[reg.id]))
        if reg.ext:
            notes.append("external")
        return _described(kind, text(reg.name), reg.flags, notes)

    def _gone(self, remap: remap_file_path_entry) -> str:
        kind, number = remap_target(remap)
        if kind == GHOST:
            return "deleted, its content is in the images"
        if kind == LINKED:
            return f"deleted, still there as {self.path(number)}"
        return f"of process {number}, which is gone"

    def _pipe(self, pipe: Any) -> Description:
        return _described("pipe", str(pipe.pipe_id), pipe.flags, _content(self._snapshot.pipes_data, pipe))

    def _fifo(self, fifo: Any) -> Description:
        reg = self._snapshot.files[fifo.regf_id].reg if fifo.HasField("regf_id") else None
        what, flags = (text(reg.name), reg.flags) if reg else (str(fifo.pipe_id), os.O_RDWR)
        return _described("fifo", what, flags, _content(self._snapshot.fifo_data, fifo))

    def _isk(self, sk: Any) -> Description:
        kind = "raw socket" if sk.type == _SOCK_RAW else _INET_KINDS.get(sk.proto, "inet socket")
        what = _endpoint(sk.src_addr, sk.src_port)
        if sk.dst_port:
            what += f" -> {_endpoint(sk.dst_addr, sk.dst_port)}"
        return _described(kind, what, sk.flags, [_state(sk.state)] if sk.proto == _TCP_PROTOCOL else [])

    def _usk(self, sk: Any) -> Description:
        what = f"{_socket_type(sk.type)} {sk.ino}"
        if sk.name.startswith(b"\0"):
            what += f" @{text(sk.name[1:])}"
        elif sk.name:
            what += f" {text(sk.name.removesuffix(bytes(1)))}"
        notes = [_state(sk.state)] if sk.state == _TCP_LISTEN else []
        return _described("unix socket", what, sk.flags, [*notes, *([f"peer {sk.peer}"] if sk.peer else [])])

    def _nlsk(self, sk: Any) -> Description:
        what = _NETLINK.get(sk.protocol, f"protocol {sk.protocol}")
        return _described("netlink socket", what, sk.flags, [f"port {sk.portid}"] if sk.portid else [])

    def _psk(self, sk: Any) -> Description:
        what = f"{_socket_type(sk.type)}, protocol {sk.protocol:#x}"
        return _described("packet socket", what, sk.flags, [f"interface {sk.ifindex}"] if sk.ifindex else [])

    def _efd(self, efd: Any) -> Description:
        return _described(
            "eventfd", f"counter {efd.counter}", efd.flags, ["semaphore"] if efd.semaphore else []
        )

    def _epfd(self, epfd: Any) -> Description:
        numbers = {target.number if target.HasField("file") else target.tfd for target in epfd.tfd}
        watched = map(str, sorted(numbers))
        return _described("epoll", _watches(watched), epfd.flags)

    def _sgfd(self, sgfd: Any) -> Description:
        names = [signal_name(bit + 1) for bit in range(64) if sgfd.sigmask >> bit & 1]
        return _described("signalfd", ", ".join(names) or "no signal", sgfd.flags)

    def _tfd(self, tfd: Any) -> Description:
        remains, interval = tfd.vsec + tfd.vnsec / 1e9, tfd.isec + tfd.insec / 1e9
        notes = [f"fires in {remains:.3f} s" if remains else "not armed"]
        if interval:
            notes.append(f"every {interval:g} s")
        if tfd.ticks:
            notes.append(f"{tfd.ticks} expirations unread")
        return _described("timerfd", _CLOCKS.get(tfd.clockid, f"clock {tfd.clockid}"), tfd.flags, notes)

    def _ify(self, ify: Any) -> Description:
        watched = (text(wd.f_handle.path) or f"inode {wd.i_ino}" for wd in ify.wd)
        return _described("inotify", _watches(watched), ify.flags)

    def _ffy(self, ffy: Any) -> Description:
        watched = (text(mark.me.path) or f"inode {mark.ie.i_ino}" for mark in ffy.mark)
        return _described("fanotify", _watches(watched), ffy.flags)

    def _tty(self, tty: Any) -> Description:
        what = self.path(tty.regf_id) if tty.HasField("regf_id") else str(tty.tty_info_id)
        return _described("terminal", what, tty.flags)

    def _memfd(self, memfd: Any) -> Description:
        inode = self._snapshot.memfds[memfd.inode_id]
        notes = [f"at {_of(memfd.pos, inode.size)} bytes" if memfd.pos else f"{inode.size:,} bytes"]
        return _described("memfd", text(inode.name), memfd.flags, notes)

    def _nsf(self, nsf: Any) -> Description:
        what = f"{_NAMESPACES.get(nsf.ns_cflag, hex(nsf.ns_cflag))} {nsf.ns_id}"
        return _described("namespace", what, nsf.flags)

    def _tunf(self, tunf: Any) -> Description:
        return Description("tun device", text(tunf.netdev))

    def _ext(self, ext: Any) -> Description:
        return Description("external file", f"{ext.id:#x}")

    def _bpf(self, bpf: Any) -> Description:
        return _described("bpf map", text(bpf.map_name) or str(bpf.map_id), bpf.flags)

    def _pidfd(self, pidfd: Any) -> Description:
        gone = pidfd.nspid < 0
        return _described(
            "pidfd", "a process that is gone" if gone else f"process {pidfd.nspid}", pidfd.flags
        )

    _KINDS: Mapping[str, Callable[[Describer, Any], Description]] = {
        "reg": _reg, "pipe": _pipe, "fifo": _fifo, "isk": _isk, "usk": _usk, "nlsk": _nlsk, "psk": _psk,
        "efd": _efd, "epfd": _epfd, "sgfd": _sgfd, "tfd": _tfd, "ify": _ify, "ffy": _ffy, "tty": _tty,
        "memfd": _memfd, "nsf": _nsf, "tunf": _tunf, "ext": _ext, "bpf": _bpf, "pidfd": _pidfd,
    }  # fmt: skip


def _described(kind: str, what: str, flags: int, notes: Iterable[str] = ()) -> Description:
    names = [name for name in _FLAGS if flags & getattr(os, name)]
    access = "" if flags & os.O_PATH else _ACCESS.get(flags & os.O_ACCMODE, "")
    return Description(kind, what, access, (*notes, *names))


def _file_kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "directory"
    return "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "file"


def _of(position: int, size: int | None) -> str:
    return f"{position:,}" if size is None else f"{position:,} of {size:,}"


def _content(pipes: Mapping[int, PipeData], end: Any) -> list[str]:
    saved = pipes.get(end.pipe_id)
    return [f"{len(saved.content):,} bytes in it"] if saved and saved.content else []


def _endpoint(words: Sequence[int], port: int) -> str:
    host = address(words) or "?"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _state(number: int) -> str:
    return (
        "listening" if number == _TCP_LISTEN else DICTS["sk"]["state"].get(number, f"state {number}").lower()
    )


def _socket_type(number: int) -> str:
    return DICTS["sk"]["type"].get(number, f"type {number}").lower()


def _watches(watched: Iterable[str]) -> str:
    return f"watches {', '.join(watched) or 'nothing'}"
