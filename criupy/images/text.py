"""Images as JSON values and back, in the form that CRIU's crit has.

A message is an object of the fields that are there, in the order of their numbers; what follows a record in
the file is under ``extra``.  Text that is no UTF-8 is kept by surrogate escapes.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import quopri
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError

from criupy.errors import ImageError
from criupy.images.codec import BY_NAME, ImageKind, Record
from criupy.images.display import BINARY, DICTS, FLAGS, FORMS
from criupy.images.pb import class_of

OWN_FIELDS = 20000
"""Field numbers from here up are criupy's own."""

_MINOR_BITS = 20


class Style(NamedTuple):
    """How to show an image.

    ``pretty``: numbers in the form that suits the field.  ``payload``: what follows the records too,
    else only its size.  ``own_fields``: also those that CRIU does not know.
    """

    pretty: bool = False
    payload: bool = True
    own_fields: bool = False


AS_CRIT = Style()
"""What ``crit decode`` prints."""


# From messages


def decode(kind: ImageKind, records: Iterable[Record], style: Style = AS_CRIT) -> dict[str, Any]:
    """The JSON value of an image.  ImageError: a payload that the record does not describe."""
    return {"magic": kind.name, "entries": list(_entries(kind, iter(records), style))}


def _entries(kind: ImageKind, records: Iterator[Record], style: Style) -> Iterator[dict[str, Any]]:
    for record in records:
        entry = message_to_json(record.message, style)
        if kind.name == "IPCNS_MSG":
            _add_extra(entry, _messages_of_queue(record, records, style))
        else:
            _add_extra(entry, _extra(record, style))
        yield entry


def _add_extra(entry: dict[str, Any], extra: Any) -> None:
    if extra is not None:
        entry["extra"] = extra


def message_to_json(message: Any, style: Style, *, within_hex: bool = False) -> dict[str, Any]:
    """A message without what follows it."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.number >= OWN_FIELDS and not style.own_fields:
            continue
        key = f"{message.DESCRIPTOR.name}.{field.name}"
        form = FORMS.get(key, "")
        if not form and within_hex:
            form = "hex"
        shown[field.name] = _field(field, key, value, form, style)
    return shown


def _field(field: FieldDescriptor, key: str, value: Any, form: str, style: Style) -> Any:
    if not field.is_repeated:
        return _value(field, key, value, form, style)
    if form == "ipadd" and style.pretty:
        return [address(value)]
    return [_value(field, key, item, form, style) for item in value]


def _value(field: FieldDescriptor, key: str, value: Any, form: str, style: Style) -> Any:
    if field.message_type is not None:
        return message_to_json(value, style, within_hex=form == "hex")
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, bytes):
        return _bytes(key, value, form)
    if isinstance(value, bool | str) or not (form and style.pretty):
        return value
    return _number(field.name, value, form)


def _bytes(key: str, value: bytes, form: str) -> str:
    if form == "conv=unix_name":
        return quopri.encodestring(value).decode("ascii")
    if key in BINARY:
        return base64.encodebytes(value).decode("ascii")
    return value.decode("utf-8", "surrogateescape")


def _number(name: str, value: int, form: str) -> str | int:
    words = form.split()
    if "hex" in words:
        return f"0x{value:x}"
    if "dev" in words:
        return _device(value, old="odev" in words)
    kind, _, table = form.partition("=")
    if kind == "flags":
        return _flag_names(value, FLAGS[table])
    if kind == "dict":
        return DICTS[table].get(name, {}).get(value, value)
    return value


def _device(value: int, *, old: bool) -> str:
    if old:
        return f"{os.major(value)}:{os.minor(value)}"
    return f"{value >> _MINOR_BITS}:{value & ((1 << _MINOR_BITS) - 1)}"


def _flag_names(value: int, table: tuple[tuple[str, int], ...]) -> str:
    names = [name for name, bit in table if value & bit]
    rest = value & ~sum(bit for _, bit in table)
    if rest:
        names.append(f"0x{rest:x}")
    return " | ".join(names)


def address(words: Any) -> str:
    """An address of one (IPv4) or four (IPv6) words in network order; empty if it is neither."""
    if len(words) == 1:
        return str(ipaddress.IPv4Address(struct.pack("=I", words[0])))
    if len(words) == 4:
        return str(ipaddress.IPv6Address(struct.pack("=4I", *words)))
    return ""


# What follows a record


def _base64(data: bytes, style: Style) -> str:
    return base64.encodebytes(data).decode("ascii") if style.payload else f"... <{_size(len(data))}>"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1024 or unit == "TB":
            break
        count /= 1024
    return f"{count:.1f}{unit}" if count % 1 else f"{count:.0f}{unit}"


def _extra(record: Record, style: Style) -> Any:
    message, payload = record.message, record.payload
    match message.DESCRIPTOR.name:
        case "pipe_data_entry" | "sk_packet_entry" | "bpfmap_data_entry":
            return _base64(payload, style)
        case "tcp_stream_entry":
            if not style.payload:
                return _base64(payload, style)
            inq, outq = payload[: message.inq_len], payload[message.inq_len :]
            return {"inq": _base64(inq, style), "outq": _base64(outq, style)}
        case "ipc_shm_entry":
            return _base64(payload[: message.size], style)
        case "ipc_sem_entry":
            return list(struct.unpack_from(f"<{message.nsems}H", payload))
        case "ghost_file_entry":
            return None if message.chunks or not style.payload else _base64(payload, style)
        case "ghost_chunk_entry":
            return _base64(payload, style) if style.payload else None
    return None


def _messages_of_queue(queue: Record, records: Iterator[Record], style: Style) -> list[Any]:
    shown: list[Any] = []
    for _ in range(queue.message.qnum):
        record = next(records)
        shown.append(message_to_json(record.message, style))
        shown.append(_base64(record.payload[: record.message.msize], style))
    return shown


# To messages


def encode(image: Any) -> tuple[ImageKind, list[Record]]:
    """The kind and records of a JSON value, plain or pretty.  ImageError: it is no image."""
    try:
        kind = BY_NAME[image["magic"]]
        if kind.magic is None:
            raise _no_image(f"images of kind {kind.name} have no records")
        return kind, list(_records(kind, image["entries"]))
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        EncodeError,
        struct.error,
        RecursionError,
    ) as error:
        raise _no_image(f"{type(error).__name__}: {error}") from error


def _no_image(reason: str) -> ImageError:
    return ImageError("JSON", f"is not the text of an image: {reason}")


def _records(kind: ImageKind, entries: list[dict[str, Any]]) -> Iterator[Record]:
    cls = kind.message_class
    for entry in entries:
        message = json_to_message(cls, entry)
        extra = entry.get("extra")
        if kind.name == "IPCNS_MSG":
            yield Record(message)
            yield from _queue_records(kind, extra or [])
        else:
            yield Record(message, _payload(message, extra))
        if kind.then:
            cls = kind.then_class if kind.name != "IPCNS_MSG" else cls


def json_to_message(cls: Any, entry: dict[str, Any]) -> Any:
    """A message from its JSON object; a key that is no field is a ValueError."""
    message = cls()
    message.SetInParent()
    fields = cls.DESCRIPTOR.fields_by_name
    for name, value in entry.items():
        if name == "extra" and name not in fields:
            continue
        field = fields.get(name)
        if field is None:
            raise ValueError(f"{cls.DESCRIPTOR.name} has no field {name}")
        _set(message, field, f"{cls.DESCRIPTOR.name}.{name}", value)
    return message


def _set(message: Any, field: FieldDescriptor, key: str, value: Any) -> None:
    form = FORMS.get(key, "")
    if field.is_repeated:
        target = getattr(message, field.name)
        if form == "ipadd" and value and isinstance(value[0], str):
            value = _address_words(value[0])
        target.extend(_parsed(field, key, item, form) for item in value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(json_to_message(class_of(field.message_type), value))
    else:
        setattr(message, field.name, _parsed(field, key, value, form))


def _parsed(field: FieldDescriptor, key: str, value: Any, form: str) -> Any:
    if field.message_type is not None:
        return json_to_message(class_of(field.message_type), value)
    if field.enum_type is not None:
        return field.enum_type.values_by_name[value].number if isinstance(value, str) else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _parsed_bytes(key, value, form)
    if isinstance(value, str) and field.type != FieldDescriptor.TYPE_STRING:
        return _parsed_number(field.name, value, form)
    return value


def _parsed_bytes(key: str, value: str, form: str) -> bytes:
    if form == "conv=unix_name":
        return quopri.decodestring(value.encode("ascii"))
    if key in BINARY:
        return _unbase64(value)
    return value.encode("utf-8", "surrogateescape")


def _parsed_number(name: str, value: str, form: str) -> int:
    words = form.split()
    if "dev" in words and ":" in value:
        major, minor = (int(part) for part in value.split(":"))
        return os.makedev(major, minor) if "odev" in words else major << _MINOR_BITS | minor
    kind, _, table = form.partition("=")
    if kind == "flags":
        bits = dict(FLAGS[table])
        parts = [part.strip() for part in value.split("|") if part.strip()]
        return sum(bits[part] if part in bits else int(part, 0) for part in dict.fromkeys(parts))
    if kind == "dict":
        by_name = {text: number for number, text in DICTS[table].get(name, {}).items()}
        return by_name[value] if value in by_name else int(value, 0)
    return int(value, 0)


def _address_words(text: str) -> list[int]:
    packed = ipaddress.ip_address(text).packed
    return list(struct.unpack(f"={len(packed) // 4}I", packed))


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _pad(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


_PAYLOAD: dict[str, Callable[[Any], bytes]] = {
    "pipe_data_entry": _unbase64,
    "sk_packet_entry": _unbase64,
    "bpfmap_data_entry": _unbase64,
    "ghost_file_entry": _unbase64,
    "ghost_chunk_entry": _unbase64,
    "ipc_shm_entry": lambda extra: _pad(_unbase64(extra), 4),
    "ipc_sem_entry": lambda extra: _pad(struct.pack(f"<{len(extra)}H", *extra), 8),
    "tcp_stream_entry": lambda extra: _unbase64(extra["inq"]) + _unbase64(extra["outq"]),
}


def _payload(message: Any, extra: Any) -> bytes:
    return b"" if extra is None else _PAYLOAD[message.DESCRIPTOR.name](extra)


def _queue_records(kind: ImageKind, extra: list[Any]) -> Iterator[Record]:
    for entry, data in zip(extra[::2], extra[1::2], strict=True):
        yield Record(json_to_message(kind.then_class, entry), _pad(_unbase64(data), 8))
