"""A batch: a table of system calls that a task makes on its own, one after the other, while criupy waits.

Building, encoding and decoding are pure.  The table is what ``run`` in `blob.S` walks through: records first,
then the memory that the calls read and write::

    batch = SyscallBatch()
    out = batch.out(8)
    batch.call("pipe2", out, os.O_CLOEXEC)
    batch.call("fcntl", batch.at(out, 4, bits=32), F_SETPIPE_SZ, 1 << 20, tolerate=True)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import NamedTuple

from criupy.errors import TraceeError
from criupy.linux import abi

RECORD = struct.Struct("<IHH6Qq")
"""64 bytes: number, mask of arguments that are offsets, flags, arguments, result."""

TOLERATE = 1
NOT_RUN = -(1 << 63)
ALIGNMENT = 64
_POINTER = struct.Struct("<Q")
_U64 = (1 << 64) - 1


class RemoteAddress(int):
    """An address in a task: arithmetic keeps the type, nothing here follows it."""

    def __add__(self, offset: int) -> RemoteAddress:
        return RemoteAddress(int(self) + offset)

    def __repr__(self) -> str:
        return f"{int(self):#x}"


@cache
def syscall_numbers() -> Mapping[str, int]:
    """System call numbers of x86-64 by name, from python-ptrace's table."""
    import ptrace

    # The table alone: importing its package costs 7 ms for prototypes that nothing here needs.
    path = os.path.join(ptrace.__path__[0], "syscall", "linux", "x86_64.py")
    module = ModuleType("ptrace_syscall_names")
    SourceFileLoader(module.__name__, path).exec_module(module)
    names: dict[int, str] = module.SYSCALL_NAMES | abi.NEWER_SYSCALLS
    return {name: number for number, name in names.items() if number < 512}  # those above are of x32


@dataclass(slots=True, unsafe_hash=True)  # a frozen one takes three times as long to make
class Slot:
    """The place of a call in its batch; as an argument, the answer of that call."""

    index: int

    def __str__(self) -> str:
        return f"<{self.index}>"


@dataclass(slots=True, unsafe_hash=True)
class Memory:
    """Bytes in the table that calls read (`SyscallBatch.data`) or write (`out`); passed by address."""

    index: int
    offset: int
    """In the data area of the table."""
    size: int
    text: str

    def __str__(self) -> str:
        return self.text


Data = Memory
Out = Memory


class Field(NamedTuple):
    """A number inside `Memory` when the call is made, as an argument: 64 bits, or 32 of them without sign."""

    memory: Memory
    offset: int
    bits: int

    def __str__(self) -> str:
        return f"{self.memory}[{self.offset}]"


Argument = int | Slot | Memory | Field


class Call(NamedTuple):
    """One system call of a batch."""

    name: str
    number: int
    arguments: tuple[Argument, ...]
    tolerate: bool

    def __str__(self) -> str:
        def show(argument: Argument) -> str:
            if isinstance(argument, int):
                return hex(argument) if argument > 4096 else str(int(argument))
            return str(argument)

        return f"{self.name}({', '.join(map(show, self.arguments))})"


class SyscallBatch:
    """Builds a table.  A batch runs in one task, once, and stops at the first failure not tolerated."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.outs: list[Out] = []
        self.memory: list[tuple[int, bytes | None, tuple[tuple[int, Memory], ...]]] = []
        """Offset in the data area, content (``None``: zeros), (offset, memory whose address stands there)."""
        self._data_size = 0
        self._records = bytearray()
        self._places: list[tuple[int, int, bool]] = []
        """Where in the records an offset into the data area stands, that offset, whether it is to be an address."""

    def call(self, name: str, *arguments: Argument, tolerate: bool = False) -> Slot:
        """Append a call.  ``tolerate``: failing is an answer too (``-errno``), and the batch goes on."""
        if len(arguments) > 6:
            raise ValueError(f"{name} with {len(arguments)} arguments")
        number = syscall_numbers()[name]
        references = 0
        flags = TOLERATE if tolerate else 0
        values = [0] * 6
        for position, argument in enumerate(arguments):
            if isinstance(argument, int):
                values[position] = argument & _U64
                continue
            if isinstance(argument, Slot):
                references |= 1 << position
                values[position] = argument.index * RECORD.size + 56
                continue
            where = len(self._records) + 8 + 8 * position
            if isinstance(argument, Memory):
                self._places.append((where, argument.offset, True))
            else:
                references |= 1 << position
                flags |= 0x100 << position if argument.bits == 32 else 0
                self._places.append((where, argument.memory.offset + argument.offset, False))
        self._records += RECORD.pack(number, references, flags, *values, NOT_RUN)
        self.calls.append(Call(name, number, arguments, tolerate))
        return Slot(len(self.calls) - 1)

    def data(self, content: bytes, *, pointers: Mapping[int, Memory] | None = None, text: str = "") -> Data:
        """Memory for calls to read; ``pointers``: at which offsets addresses of other memory stand in it."""
        places = tuple((pointers or {}).items())
        return self._place(len(content), content, places, text or f"{content[:32]!r}")

    def path(self, name: str | bytes) -> Data:
        """A NUL-terminated string."""
        encoded = os.fsencode(name)
        return self.data(encoded + b"\0", text='"' + encoded.decode("utf-8", "backslashreplace") + '"')

    def out(self, size: int) -> Out:
        """Memory of ``size`` bytes for calls to write, zero before."""
        self.outs.append(self._place(size, None, (), f"&out{len(self.memory)}"))
        return self.outs[-1]

    def at(self, memory: Memory, offset: int = 0, *, bits: int = 64) -> Field:
        """An argument that is read from memory of this batch just before the call: 64 or 32 bits."""
        if bits not in (32, 64) or not 0 <= offset <= memory.size - bits // 8:
            raise ValueError(f"{bits} bits at {offset} of {memory.size} bytes")
        return Field(memory, offset, bits)

    def _place(
        self, size: int, content: bytes | None, pointers: tuple[tuple[int, Memory], ...], text: str
    ) -> Memory:
        new = Memory(len(self.memory), self._data_size, size, text)
        self.memory.append((new.offset, content, pointers))
        self._data_size += -(-size // 16) * 16 + 16  # a 64-bit load of the last bytes stays inside
        return new

    @property
    def records_size(self) -> int:
        """Bytes of the records, where the walk ends."""
        return len(self._records)

    @property
    def size(self) -> int:
        """Bytes of the whole table, a multiple of `ALIGNMENT`."""
        return -(-(self.records_size + self._data_size) // ALIGNMENT) * ALIGNMENT

    def encode(self, base: RemoteAddress | int) -> bytes:
        """The table as it must stand at the address ``base`` of the task."""
        table = bytearray(self.size)
        end = self.records_size
        address = int(base) + end
        table[:end] = self._records
        for where, offset, is_address in self._places:
            _POINTER.pack_into(table, where, offset + (address if is_address else end))
        for offset, content, pointers in self.memory:
            at = end + offset
            if content is not None:
                table[at : at + len(content)] = content
            for where, target in pointers:
                _POINTER.pack_into(table, at + where, address + target.offset)
        return bytes(table)

    def decode(self, table: bytes | memoryview, *, tid: int = 0) -> Results:
        """The answers, from the table as it is after the run; ``tid`` is for messages."""
        end = self.records_size
        answers = memoryview(table)[:end].cast("B").cast("q")[7::8].tolist()
        return Results(self, tuple(answers), bytes(table[end : self.size]), tid)

    def __str__(self) -> str:
        return "\n".join(f"{index}: {call}" for index, call in enumerate(self.calls))


class Diverged(Exception):
    """A task asks for something else than the one before."""


class Replay:
    """Takes the same requests as an earlier batch did, and is it: building one takes much longer than comparing.

    `Diverged` at the first request that is another one.
    """

    def __init__(self, batch: SyscallBatch) -> None:
        self._batch = batch
        self._calls = self._memory = 0

    def call(self, name: str, *arguments: Argument, tolerate: bool = False) -> Slot:
        """As `SyscallBatch.call`."""
        index = self._calls
        self._calls += 1
        if index < len(self._batch.calls):
            call = self._batch.calls[index]
            if call.name == name and call.arguments == arguments and call.tolerate is tolerate:
                return Slot(index)
        raise Diverged

    def out(self, size: int) -> Out:
        """As `SyscallBatch.out`."""
        index = self._memory
        self._memory += 1
        if index < len(self._batch.outs) and self._batch.outs[index].size == size:
            return self._batch.outs[index]
        raise Diverged

    def whole(self) -> SyscallBatch:
        """The batch, if all of it was asked for again."""
        if (self._calls, self._memory) != (len(self._batch.calls), len(self._batch.outs)):
            raise Diverged
        return self._batch


@dataclass(frozen=True)
class Results:
    """What a batch answered; ``answers`` are raw: ``-errno``, and `NOT_RUN` behind the first hard failure."""

    batch: SyscallBatch
    answers: tuple[int, ...]
    memory: bytes
    tid: int = 0

    @property
    def failed(self) -> Slot | None:
        """The call at which the batch stopped."""
        for index, (call, answer) in enumerate(zip(self.batch.calls, self.answers, strict=True)):
            if answer == NOT_RUN or (-abi.MAX_ERRNO <= answer < 0 and not call.tolerate):
                return Slot(index)
        return None

    def check(self) -> Results:
        """Itself if every call was made and none failed that must not; else `TraceeError`."""
        slot = self.failed
        if slot is not None:
            self._fail(slot)
        return self

    def __getitem__(self, slot: Slot) -> int:
        """The answer (``-errno`` where failing is tolerated), or `TraceeError` naming call and reason."""
        answer = self.answers[slot.index]
        if answer == NOT_RUN:
            self.check()
        if -abi.MAX_ERRNO <= answer < 0 and not self.batch.calls[slot.index].tolerate:
            self._fail(slot)
        return answer

    def bytes(self, memory: Memory) -> bytes:
        """What is in memory of the batch now."""
        return self.memory[memory.offset : memory.offset + memory.size]

    def _fail(self, slot: Slot) -> None:
        answer = self.answers[slot.index]
        call = self.batch.calls[slot.index]
        where = f"task {self.tid}: " if self.tid else ""
        if answer == NOT_RUN:
            raise TraceeError(f"{where}{call} was not made")
        raise TraceeError(f"{where}{call}", errno=-answer)
