"""Messages with every field set, and images of them, from a seed."""

from __future__ import annotations

import random
from typing import Any

from criupy.images.codec import KINDS, ImageKind, Record
from criupy.images.display import BINARY, FLAGS, FORMS
from criupy.images.pb import class_of
from criupy.images.text import OWN_FIELDS

_BITS = {
    "uint32": 32, "int32": 31, "sint32": 31, "uint64": 64, "int64": 63, "sint64": 63, "fixed64": 64,
}  # fmt: skip
_MAX_DEPTH = 6


def readable_kinds() -> list[ImageKind]:
    """Every kind with records; of two that have the same magic, both."""
    return [kind for kind in KINDS if kind.magic is not None]


def records(kind: ImageKind, seed: int, *, own_fields: bool = False) -> list[Record]:
    """A few records of an image, with payloads that fit them."""
    choose = random.Random(f"{kind.name} {seed}")
    first = _Filler(choose, own_fields).message(kind.message_class)
    then = [_Filler(choose, own_fields).message(kind.then_class) for _ in range(choose.randint(0, 3))]
    if kind.name == "IPCNS_MSG":
        first.qnum = len(then)
    if kind.name == "GHOST_FILE" and not first.chunks:
        then = []
    return [Record(message, _payload(choose, message)) for message in [first, *then]]


class _Filler:
    def __init__(self, choose: random.Random, own_fields: bool) -> None:
        self.choose = choose
        self.own_fields = own_fields

    def message(self, cls: Any, depth: int = 0) -> Any:
        message = cls()
        message.SetInParent()
        for field in cls.DESCRIPTOR.fields:
            if field.number >= OWN_FIELDS and not self.own_fields:
                continue
            if not field.is_required and (depth > _MAX_DEPTH or self.choose.random() < 0.2):
                continue
            self._set(message, field, depth)
        return message

    def _set(self, message: Any, field: Any, depth: int) -> None:
        key = f"{field.containing_type.name}.{field.name}"
        if not field.is_repeated:
            if field.message_type is not None:
                getattr(message, field.name).CopyFrom(self.message(class_of(field.message_type), depth + 1))
            else:
                setattr(message, field.name, self._value(field, key))
            return
        target = getattr(message, field.name)
        count = self.choose.choice((1, 4)) if FORMS.get(key) == "ipadd" else self.choose.randint(0, 3)
        for _ in range(count):
            if field.message_type is not None:
                target.append(self.message(class_of(field.message_type), depth + 1))
            else:
                target.append(self._value(field, key))

    def _value(self, field: Any, key: str) -> Any:
        choose = self.choose
        if field.enum_type is not None:
            return choose.choice(field.enum_type.values).number
        kind = {1: "double", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 8: "bool", 9: "string",
                12: "bytes", 13: "uint32", 17: "sint32", 18: "sint64"}[field.type]  # fmt: skip
        if kind == "bool":
            return choose.random() < 0.5
        if kind == "string":
            return self._text()
        if kind == "bytes":
            return (
                choose.randbytes(choose.choice((0, 1, 70, 200))) if key in BINARY else self._text().encode()
            )
        return self._number(kind, FORMS.get(key, ""))

    def _text(self) -> str:
        letters = "abc/ =\t.\\\"'äß€😀\x7f\n"
        return "".join(self.choose.choice(letters) for _ in range(self.choose.randint(0, 12)))

    def _number(self, kind: str, form: str) -> int:
        choose = self.choose
        largest = (1 << _BITS[kind]) - 1
        if form.startswith("flags=") and choose.random() < 0.5:
            bits = [bit for _, bit in FLAGS[form.removeprefix("flags=")]]
            return sum(choose.sample(bits, choose.randint(0, len(bits))))
        if not form and kind.startswith(("int", "sint")):
            return choose.choice((0, 1, -1, largest, -largest - 1, choose.randint(-largest, largest)))
        return choose.choice((0, 1, 2, 5, 10, largest, choose.randint(0, largest)))


_LENGTH = {
    "pipe_data_entry": ["bytes"],
    "sk_packet_entry": ["length"],
    "ghost_chunk_entry": ["len"],
    "tcp_stream_entry": ["inq_len", "outq_len"],
    "bpfmap_data_entry": ["keys_bytes", "values_bytes"],
    "ipc_shm_entry": ["size"],
    "ipc_msg": ["msize"],
}
_UNIT = {"ipc_shm_entry": 4, "ipc_msg": 8}


def _payload(choose: random.Random, message: Any) -> bytes:
    """Bytes that follow the record; lengths in the message are made to fit."""
    name = message.DESCRIPTOR.name
    if name == "ipc_sem_entry":
        message.nsems = choose.randint(0, 5)
        return choose.randbytes(2 * message.nsems) + bytes(-2 * message.nsems % 8)
    if name == "ghost_file_entry":
        return b"" if message.chunks else choose.randbytes(100)
    if name == "ipc_shm_entry":
        message.ClearField("in_pagemaps")  # with it, the real crit reads into the next record
    content = b""
    for field in _LENGTH.get(name, []):
        part = choose.randbytes(choose.choice((0, 1, 7, 57, 58, 300)))
        setattr(message, field, len(part))
        content += part
    return content + bytes(-len(content) % _UNIT.get(name, 1))
