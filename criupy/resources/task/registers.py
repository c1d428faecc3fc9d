"""General, floating point and vector registers of x86-64, in images and as ptrace sets them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError, NotDumpable, Obstacle
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Step, ThreadState
from criupy.resources.task.base import Dumpable
from criupy.tracee.frozen import EINTR, POLL, regs_for_image, waits_for_ever

if TYPE_CHECKING:
    from criupy.images.pb.arch_pb2 import thread_info_x86, user_x86_fpregs_entry
    from criupy.images.pb.core_pb2 import core_entry
    from criupy.linux.cpu import XsaveLayout
    from criupy.linux.features import KernelFeatures
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject
    from criupy.tracee.ptrace import Registers as UserRegisters

# fmt: off
GPREGS = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax", "ip",
    "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)
"""struct user_regs_struct.  Source: Linux arch/x86/include/asm/user_64.h."""
# fmt: on
_GPREGS = struct.Struct("<27Q")
NO_SYSCALL = (1 << 64) - 1
USER_CS, USER32_CS, USER_DS = 0x33, 0x23, 0x2B
"""Segment selectors of user space.  Source: Linux arch/x86/include/asm/segment.h."""
_SELECTORS = ("ds", "es", "fs", "gs")
_GDT_TLS = (12, 13, 14)

_FXSAVE = struct.Struct("<4H2Q2I")
_FXSAVE_SIZE = 512
_ST, _XMM, _XSTATE_BV = 32, 160, 512
_X87_AND_SSE = 3
_COMPONENTS = (
    ("ymmh_space", 2, "I", 64),
    ("bndreg_state", 3, "Q", 8),
    ("bndcsr_state", 4, "Q", 8),
    ("opmask_reg", 5, "Q", 8),
    ("zmm_upper", 6, "Q", 64),
    ("hi16_zmm", 7, "Q", 128),
    ("pkru", 9, "I", 2),
)
"""Image field, number of the xsave component, type and count of its elements."""
_IN_IMAGES = _X87_AND_SSE | sum(1 << component for _, component, _, _ in _COMPONENTS)


class RegisterFacts(NamedTuple):
    """``registers`` as the thread stopped; ``xstate``: an NT_X86_XSTATE area."""

    registers: UserRegisters
    xstate: bytes
    layout: XsaveLayout | None


class Registers(Dumpable):
    """Image: ``thread_info``.  What was interrupted in a system call is already set up to restart it."""

    name = "registers"
    per_thread = True

    def obstacles(self, pid: int, features: KernelFeatures) -> Iterator[Obstacle]:
        try:
            with (
                open(f"/proc/{pid}/exe", "rb", buffering=0) as exe,
                open(f"/proc/{pid}/status", "rb") as file,
            ):
                head, status = exe.read(5), file.read()
        except OSError:
            return  # gone, or not to be looked at: the dump itself will say so
        name = procfs.comm(status).decode("utf-8", "backslashreplace")
        if head[4:5] == b"\x01":
            yield Obstacle(pid, name, "its registers", "32-bit programs cannot be dumped")
        if b"shstk" in procfs.thread_features(status):
            yield Obstacle(
                pid,
                name,
                "its shadow stack",
                "shadow stacks cannot be dumped yet",
                "start it without GLIBC_TUNABLES=glibc.cpu.x86_shstk",
            )

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        thread = subject.thread
        regs, xstate, layout = thread.regs(), thread.xstate(), subject.features.xsave
        unknown = int.from_bytes(xstate[_XSTATE_BV : _XSTATE_BV + 8], "little") & ~_IN_IMAGES
        if unknown:
            numbers = [number for number in range(unknown.bit_length()) if unknown >> number & 1]
            why = f"images have no place for xsave components {numbers} (AMX tiles are 17 and 18)"
            name = procfs.comm(subject.read("status")).decode("utf-8", "backslashreplace")
            raise NotDumpable([Obstacle(thread.tid, name, "its registers", why)])
        return lambda _: RegisterFacts(regs, xstate, layout)

    def encode(self, facts: RegisterFacts, core: core_entry, sink: DumpSink) -> None:
        from criupy.images.pb.arch_pb2 import COMPAT, NATIVE

        info = core.thread_info
        for name, value in zip(GPREGS, _GPREGS.unpack(bytes(regs_for_image(facts.registers))), strict=True):
            setattr(info.gpregs, name, value)
        info.gpregs.mode = COMPAT if info.gpregs.cs == USER32_CS else NATIVE
        encode_fpregs(facts.xstate, facts.layout, info.fpregs)
        info.MergeFromString(_unused_tls())

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        return iter(())  # registers are no steps: `thread_state`


def encode_fpregs(xstate: bytes, layout: XsaveLayout | None, entry: user_x86_fpregs_entry) -> None:
    """Fill the image message from an NT_X86_XSTATE area."""
    words = _FXSAVE.unpack_from(xstate)
    for name, word in zip(
        ("cwd", "swd", "twd", "fop", "rip", "rdp", "mxcsr", "mxcsr_mask"), words, strict=True
    ):
        setattr(entry, name, word)
    entry.st_space.extend(struct.unpack_from("<32I", xstate, _ST))
    entry.xmm_space.extend(struct.unpack_from("<64I", xstate, _XMM))
    if layout is None or len(xstate) < _XSTATE_BV + 8:
        return
    xsave = entry.xsave
    (xsave.xstate_bv,) = struct.unpack_from("<Q", xstate, _XSTATE_BV)
    for name, component, kind, count in _COMPONENTS:
        if component in layout.components:
            offset, size = layout.components[component]
            array = struct.Struct(f"<{count}{kind}")
            content = xstate[offset : offset + min(size, array.size)].ljust(array.size, b"\0")
            getattr(xsave, name).extend(array.unpack(content))


@cache
def _unused_tls() -> bytes:
    """The slots of 32-bit thread-local storage, as every 64-bit thread has them."""
    from criupy.images.pb.arch_pb2 import thread_info_x86

    info = thread_info_x86()
    for number in _GDT_TLS:
        info.tls.add(
            entry_number=number,
            base_addr=0,
            limit=0,
            seg_32bit=False,
            contents_h=False,
            contents_l=False,
            read_exec_only=True,
            limit_in_pages=False,
            seg_not_present=True,
            usable=False,
        )
    return info.SerializePartialToString()


def thread_state(core: core_entry, subject: PlanSubject) -> ThreadState:
    """What ptrace gives the thread at the very end; ImageError if the image does not say."""
    from criupy.images.pb.arch_pb2 import COMPAT

    file = f"core-{subject.tid}.img"
    if not core.HasField("thread_info") or not core.HasField("thread_core"):
        raise ImageError(file, "a living thread without registers")
    if core.thread_info.gpregs.mode == COMPAT or core.thread_info.gpregs.cs == USER32_CS:
        raise ImageError(file, "32-bit programs cannot be restored")
    xstate = fpregs_to_xstate(core.thread_info.fpregs, subject.features.xsave, file, subject.warn)
    mask = core.tc.blk_sigset if subject.is_leader else core.thread_core.blk_sigset
    return ThreadState(subject.tid, _gpregs(core.thread_info), xstate, mask)


def _gpregs(info: thread_info_x86) -> tuple[int, ...]:
    registers = {name: getattr(info.gpregs, name) for name in GPREGS}
    if (registers["orig_ax"], registers["ax"]) == (POLL, EINTR) and waits_for_ever(POLL, registers["dx"]):
        registers["ax"], registers["ip"] = POLL, registers["ip"] - 2  # CRIU lets it end
    registers["orig_ax"] = NO_SYSCALL  # the restart has been set up; the kernel must not do it again
    registers["cs"], registers["ss"] = USER_CS, registers["ss"] or USER_DS
    for name in _SELECTORS:
        if registers[name] & 3 != 3:  # the kernel takes no others from ptrace; 0 is no segment
            registers[name] = 0
    return tuple(registers.values())


def fpregs_to_xstate(
    entry: user_x86_fpregs_entry, layout: XsaveLayout | None, file: str, warn: Callable[[str], None]
) -> bytes:
    """An NT_X86_XSTATE area for this machine, 512 bytes of FXSAVE on one without xsave.

    Components that the image has in use and this CPU lacks are left out, with a warning.
    """
    area = bytearray(layout.size if layout else _FXSAVE_SIZE)
    legacy = (entry.cwd & 0xFFFF, entry.swd & 0xFFFF, entry.twd & 0xFFFF, entry.fop & 0xFFFF)
    _FXSAVE.pack_into(area, 0, *legacy, entry.rip, entry.rdp, entry.mxcsr, entry.mxcsr_mask)
    area[_ST:_XMM] = _elements(entry.st_space, "I", 32, file, "st_space")
    area[_XMM : _XMM + 256] = _elements(entry.xmm_space, "I", 64, file, "xmm_space")
    if layout is None:
        return bytes(area)
    used = _X87_AND_SSE
    for name, component, kind, count in _COMPONENTS:
        if not entry.xsave.xstate_bv >> component & 1:
            continue
        if not layout.holds(component):
            warn(f"{file}: this CPU has no place for {name}: what the program kept there is lost")
            continue
        used |= 1 << component
        offset, size = layout.components[component]
        values = getattr(entry.xsave, name)
        content = _elements(values, kind, count, file, name) if values else b""
        area[offset : offset + size] = content[:size].ljust(size, b"\0")
    struct.pack_into("<Q", area, _XSTATE_BV, used)
    return bytes(area)


def _elements(values: Sequence[int], kind: str, count: int, file: str, name: str) -> bytes:
    if len(values) < count:
        raise ImageError(file, f"{name} has {len(values)} elements, {count} were expected")
    return struct.pack(f"<{count}{kind}", *values[:count])
