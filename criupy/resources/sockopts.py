"""Options that sockets of all families have.  Image: ``sk_opts_entry`` in the entry of the socket.

Source: Linux include/uapi/asm-generic/socket.h, net/core/sock.c.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.images.pb import sockets_pb2
from criupy.linux import syscalls
from criupy.model.plan import Data, Step, data

if TYPE_CHECKING:
    from criupy.resources.fileplan import TablePlan

SOL_SOCKET = 1
SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 7, 8, 32, 33
_SO_LINGER, _SO_RCVTIMEO, _SO_SNDTIMEO, _SO_BINDTODEVICE, _SO_ATTACH_FILTER = 13, 20, 21, 25, 26
_SO_BUF_LOCK, _SO_PASSRIGHTS = 72, 83
_CAP_NET_ADMIN = 12
_BPF_MAXINSNS = 4096
_IFNAMSIZ = 16
_TIMEVAL, _LINGER = struct.Struct("<qq"), struct.Struct("<ii")

_ALWAYS = {
    "so_sndbuf": SO_SNDBUF,
    "so_rcvbuf": SO_RCVBUF,
    "reuseaddr": 2,
    "so_priority": 12,
    "so_rcvlowat": 18,
    "so_dontroute": 5,
    "so_no_check": 11,
    "so_reuseport": 15,
    "so_broadcast": 6,
    "so_keepalive": 9,
    "so_oobinline": 10,
    "so_buf_lock": _SO_BUF_LOCK,
}
"""Options that every family has, by their fields; CRIU writes them whatever they are."""
_PASSING = {"so_passcred": 16, "so_passsec": 34}
"""What unix and netlink sockets have besides, and CRIU writes of them."""
_WHEN_SET = {"so_mark": 36, "so_passpidfd": 76, "so_timestamp": 29, "so_timestampns": 35}
_OF_MOST = (*_ALWAYS.items(), *_WHEN_SET.items())
_OF_ALL = (*_OF_MOST, *_PASSING.items())
_AF_UNIX = 1
_THAT_PASS = (1, 16)
"""AF_UNIX and AF_NETLINK."""
_AT_FIRST = {"so_rcvlowat": 1}
"""What a new socket has that is not 0."""
_IN_THEIR_OWN_WAY = ("so_sndbuf", "so_rcvbuf", "so_buf_lock")
"""Set in a way of their own."""


class SocketOptions(NamedTuple):
    """Options as they are found: numbers by field, times in (s, us), ``linger`` in s, the rest as the kernel has it.

    ``peek_off`` is -1, ``linger`` None, and ``device`` and ``filter`` are empty where there is none.
    """

    numbers: dict[str, int]
    send_timeout: tuple[int, int]
    receive_timeout: tuple[int, int]
    linger: int | None
    device: bytes
    filter: bytes
    peek_off: int
    refuses_rights: bool


def collect(sock: socket.SocketType) -> SocketOptions:
    """Everything, of a socket that nobody changes meanwhile."""
    family = sock.family
    wanted = _OF_ALL if family in _THAT_PASS else _OF_MOST
    found = {field: value for field, number in wanted if (value := _number(sock, number)) is not None}
    on, seconds = _LINGER.unpack(sock.getsockopt(SOL_SOCKET, _SO_LINGER, _LINGER.size))
    peek_off = _number(sock, syscalls.SO_PEEK_OFF)
    return SocketOptions(
        numbers=found,
        send_timeout=_TIMEVAL.unpack(sock.getsockopt(SOL_SOCKET, _SO_SNDTIMEO, _TIMEVAL.size)),
        receive_timeout=_TIMEVAL.unpack(sock.getsockopt(SOL_SOCKET, _SO_RCVTIMEO, _TIMEVAL.size)),
        linger=seconds if on else None,
        device=sock.getsockopt(SOL_SOCKET, _SO_BINDTODEVICE, _IFNAMSIZ).rstrip(b"\0"),
        filter=syscalls.socket_filter(sock.fileno()) or b"",
        peek_off=-1 if peek_off is None else peek_off,
        refuses_rights=family == _AF_UNIX and _number(sock, _SO_PASSRIGHTS) == 0,
    )


def _number(sock: socket.SocketType, number: int) -> int | None:
    """None: this kernel, or this family, does not have the option."""
    try:
        return sock.getsockopt(SOL_SOCKET, number)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise
        return None


NOTHING = sockets_pb2.sk_opts_entry(
    so_sndbuf=0, so_rcvbuf=0, so_snd_tmo_sec=0, so_snd_tmo_usec=0, so_rcv_tmo_sec=0, so_rcv_tmo_usec=0
)
"""What an entry must have, of a socket of which nobody knows."""


def obstacles(sock: socket.SocketType) -> Iterator[tuple[str, str]]:
    """(why, hint) for what cannot be dumped."""
    if syscalls.socket_filter(sock.fileno()) is None:
        yield "it has an eBPF filter, which cannot be dumped", "let the program remove it (SO_DETACH_FILTER)"


def encode(found: SocketOptions) -> sockets_pb2.sk_opts_entry:
    """The message."""
    entry = sockets_pb2.sk_opts_entry(
        so_snd_tmo_sec=found.send_timeout[0],
        so_snd_tmo_usec=found.send_timeout[1],
        so_rcv_tmo_sec=found.receive_timeout[0],
        so_rcv_tmo_usec=found.receive_timeout[1],
    )
    for field, value in found.numbers.items():
        if value or field not in _WHEN_SET:
            setattr(entry, field, value & 0xFFFF_FFFF)
    if found.linger is not None:
        entry.so_linger = found.linger
    if found.device:
        entry.so_bound_dev = found.device
    if found.peek_off >= 0:
        entry.so_peek_off = found.peek_off
    if found.refuses_rights:
        entry.so_refuse_rights = True
    for code, jt, jf, k in struct.iter_unpack("<HBBI", found.filter):
        entry.so_filter.append(code << 48 | jt << 40 | jf << 32 | k)
    return entry


def plan(number: int, opts: sockets_pb2.sk_opts_entry, table: TablePlan, about: str) -> Iterator[Step]:
    """Gives a new socket all of its options.

    Raises `ImageError` for values that no socket has.
    """

    yield from _buffers(number, opts, table, about)
    for name, value, size in (*_numbers(opts), *_times(opts, about), *_rest(opts, about)):
        yield table.step("setsockopt", number, SOL_SOCKET, name, value, size, about=about)


_Setting = tuple[int, Data, int]
"""Option, value and its size."""


def _numbers(opts: sockets_pb2.sk_opts_entry) -> Iterator[_Setting]:
    for field, name in (_ALWAYS | _PASSING | _WHEN_SET).items():
        if field not in _IN_THEIR_OWN_WAY and opts.HasField(field):
            value = int(getattr(opts, field))
            if value != _AT_FIRST.get(field, 0):
                yield name, integer(value), 4
    if opts.HasField("so_peek_off"):
        yield syscalls.SO_PEEK_OFF, integer(opts.so_peek_off & 0x7FFFFFFF), 4
    if opts.so_refuse_rights:
        yield _SO_PASSRIGHTS, integer(0), 4


def _times(opts: sockets_pb2.sk_opts_entry, about: str) -> Iterator[_Setting]:
    for name, seconds, micros in (
        (_SO_SNDTIMEO, opts.so_snd_tmo_sec, opts.so_snd_tmo_usec),
        (_SO_RCVTIMEO, opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec),
    ):
        if seconds >= 1 << 63 or micros >= 1_000_000:
            raise ImageError("files.img", f"{about}: {seconds} s, {micros} us is no timeout")
        if seconds or micros:
            yield name, data(_TIMEVAL.pack(seconds, micros), f"{{{seconds} s, {micros} us}}"), _TIMEVAL.size
    if opts.HasField("so_linger"):
        seconds = opts.so_linger & 0x7FFFFFFF
        yield _SO_LINGER, data(_LINGER.pack(1, seconds), f"{{1, {seconds}}}"), _LINGER.size


def _rest(opts: sockets_pb2.sk_opts_entry, about: str) -> Iterator[_Setting]:
    device = opts.so_bound_dev
    if len(device) >= _IFNAMSIZ:
        raise ImageError("files.img", f"{about}: its interface has too long a name")
    if device:
        yield _SO_BINDTODEVICE, data(device, device.decode("utf-8", "backslashreplace")), len(device)
    if opts.so_filter:
        yield _SO_ATTACH_FILTER, _program(opts.so_filter, about), 16


def integer(value: int) -> Data:
    """The argument of most options."""
    return data(struct.pack("<I", value), f"&{value}")


def _buffers(number: int, opts: sockets_pb2.sk_opts_entry, table: TablePlan, about: str) -> Iterator[Step]:
    """Sizes, of which the kernel gives the double, and whether somebody had asked for them."""
    for size, name in ((opts.so_sndbuf, send_buffer(table)), (opts.so_rcvbuf, receive_buffer(table))):
        yield table.step(
            "setsockopt", number, SOL_SOCKET, name, integer(min(size // 2, 1 << 30)), 4, about=about
        )
    if opts.HasField("so_buf_lock"):
        lock = integer(opts.so_buf_lock & 3)
        step = table.step("setsockopt", number, SOL_SOCKET, _SO_BUF_LOCK, lock, 4, about=about)
        yield step._replace(tolerate=frozenset({errno.ENOPROTOOPT}))


def send_buffer(table: TablePlan) -> int:
    """The option that sets it, beyond net.core.wmem_max if that is allowed."""
    return SO_SNDBUFFORCE if table.features.has_capability(_CAP_NET_ADMIN) else SO_SNDBUF


def receive_buffer(table: TablePlan) -> int:
    """The same of the receive buffer."""
    return SO_RCVBUFFORCE if table.features.has_capability(_CAP_NET_ADMIN) else SO_RCVBUF


def _program(instructions: Iterable[int], about: str) -> Data:
    """struct sock_fprog.  Source: Linux include/uapi/linux/filter.h."""
    words = [*instructions]
    if len(words) > _BPF_MAXINSNS:
        raise ImageError("files.img", f"{about}: its filter has {len(words)} instructions")
    code = b"".join(
        struct.pack("<HBBI", word >> 48, word >> 40 & 0xFF, word >> 32 & 0xFF, word & 0xFFFFFFFF)
        for word in words
    )
    return Data((struct.pack("<HHI", len(words), 0, 0), data(code)), f"{{{len(words)} instructions}}")
