"""The generated messages, made into classes when they are first asked for.

A dump of a small task uses forty of the two hundred messages, and nothing of protobuf's Python side (text
format, reflection, the pure Python runtime): importing and building all that takes longer than the dump.
So a generated module has its file's descriptor and, as its ``__getattr__``, what ``messages`` gives; pool
and classes are upb's own.  With another runtime of protobuf, they are those that ``google.protobuf`` gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

_upb: Any
try:
    from google._upb import _message as _upb
except ImportError:
    _upb = None


def messages(module: str, serialized: bytes) -> tuple[Any, Callable[[str], Any]]:
    """The descriptor of a file, and the ``__getattr__`` of its module: messages, enums and their values."""
    file = _pool().AddSerializedFile(serialized)

    def find(name: str) -> Any:
        found = _find(file, name, module)
        if found is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        setattr(sys.modules[module], name, found)
        return found

    return file, find


def _pool() -> Any:
    if _upb is not None:
        return _upb.default_pool
    from google.protobuf.descriptor_pool import Default

    return Default()


def _find(file: Any, name: str, module: str) -> Any:
    if name in file.message_types_by_name:
        return class_of(file.message_types_by_name[name], module)
    if name in file.enum_types_by_name:
        from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

        return EnumTypeWrapper(file.enum_types_by_name[name])
    for enum in file.enum_types_by_name.values():
        if name in enum.values_by_name:
            return enum.values_by_name[name].number
    return None


def class_of(descriptor: Any, module: str = __name__) -> Any:
    """What google.protobuf.message_factory.GetMessageClass does, without what its import brings."""
    if _upb is None:
        from google.protobuf.message_factory import GetMessageClass

        return GetMessageClass(descriptor)
    made = getattr(descriptor, "_concrete_class", None)  # for the field of another message, maybe
    if made is not None:
        return made
    return _upb.MessageMeta(descriptor.name, (Message,), {"DESCRIPTOR": descriptor, "__module__": module})
