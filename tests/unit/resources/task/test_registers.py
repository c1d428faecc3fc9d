"""Registers between ptrace's layouts and the image."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError, NotDumpable
from criupy.images.pb.arch_pb2 import COMPAT, user_x86_fpregs_entry
from criupy.images.pb.core_pb2 import core_entry
from criupy.linux.cpu import XsaveLayout
from criupy.linux.features import KernelFeatures
from criupy.resources.task import registers
from criupy.resources.task.registers import GPREGS, Registers, encode_fpregs, fpregs_to_xstate, thread_state
from criupy.tracee.ptrace import Registers as UserRegisters

SMALL = XsaveLayout(832, {2: (576, 256)})
INTEL = XsaveLayout(
    2696,
    {
        2: (576, 256),
        3: (960, 64),
        4: (1024, 64),
        5: (1088, 64),
        6: (1152, 512),
        7: (1664, 1024),
        9: (2688, 8),
    },
)
AMD = XsaveLayout(2440, {2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8)})
WITH_TILES = XsaveLayout(11008, {**INTEL.components, 17: (2752, 64), 18: (2816, 8192)})
LAYOUTS = (SMALL, INTEL, AMD, WITH_TILES)
RESERVED = slice(416, 512)


def no_warning(text: str) -> None:
    raise AssertionError(text)


def state(layout: XsaveLayout, content: bytes, used: int) -> bytes:
    """An NT_X86_XSTATE area: what hardware leaves at zero is zero."""
    area = bytearray(content.ljust(layout.size, b"\x5a")[: layout.size])
    area[RESERVED] = bytes(96)
    area[5] = 0  # the tag word has 8 bits
    area[512:576] = struct.pack("<Q", used).ljust(64, b"\0")
    ends = {offset + size for offset, size in layout.components.values()}
    for component in (17, 18):
        if component in layout.components:  # tiles are not in images
            offset, size = layout.components[component]
            area[offset : offset + size] = bytes(size)
    gap = {offset for offset, _ in layout.components.values()}
    for end in ends - gap - {layout.size}:
        following = min((offset for offset in gap if offset > end), default=layout.size)
        area[end:following] = bytes(following - end)
    return bytes(area)


@given(st.sampled_from(LAYOUTS), st.binary(min_size=3000, max_size=3000))
def test_all_components_survive(layout: XsaveLayout, content: bytes) -> None:
    used = 3 | sum(1 << component for component in layout.components if component < 10)
    area = state(layout, content, used)
    entry = user_x86_fpregs_entry()
    encode_fpregs(area, layout, entry)
    read = user_x86_fpregs_entry.FromString(entry.SerializeToString())
    assert fpregs_to_xstate(read, layout, "core-1.img", no_warning) == area


def test_state_moves_between_cpus_that_place_it_otherwise() -> None:
    area = bytearray(AMD.size)
    area[512] = 3 | 1 << 5 | 0  # opmask
    area[832:896] = bytes(range(64))
    area[513] = 2  # PKRU
    area[2432:2436] = b"\x54\x55\x55\x55"
    entry = user_x86_fpregs_entry()
    encode_fpregs(bytes(area), AMD, entry)
    moved = fpregs_to_xstate(entry, INTEL, "core-1.img", no_warning)
    assert moved[1088:1152] == bytes(range(64))
    assert moved[2688:2696] == b"\x54\x55\x55\x55\0\0\0\0"
    assert moved[512:520] == area[512:520]


def test_what_this_cpu_lacks_is_left_out_and_said() -> None:
    entry = user_x86_fpregs_entry()
    encode_fpregs(state(INTEL, b"", 0xE7), INTEL, entry)
    warnings: list[str] = []
    area = fpregs_to_xstate(entry, SMALL, "core-1.img", warnings.append)
    assert len(area) == 832
    assert area[512:520] == (7).to_bytes(8, "little")
    assert [text.split("place for ")[1].split(":")[0] for text in warnings] == [
        "opmask_reg",
        "zmm_upper",
        "hi16_zmm",
    ]


def test_unused_components_are_kept_in_the_image_and_not_loaded() -> None:
    entry = user_x86_fpregs_entry()
    encode_fpregs(state(SMALL, b"", 2), SMALL, entry)
    assert entry.xsave.xstate_bv == 2
    assert set(entry.xsave.ymmh_space) == {0x5A5A5A5A}
    area = fpregs_to_xstate(entry, SMALL, "core-1.img", no_warning)
    assert area[576:] == bytes(256)
    assert area[512] == 3


def test_an_image_without_xsave_and_a_cpu_without() -> None:
    entry = user_x86_fpregs_entry()
    encode_fpregs(state(SMALL, b"", 7), None, entry)
    assert not entry.HasField("xsave")
    area = fpregs_to_xstate(entry, INTEL, "core-1.img", no_warning)
    assert (len(area), area[512]) == (INTEL.size, 3)
    assert fpregs_to_xstate(entry, None, "core-1.img", no_warning) == area[:512]


@pytest.mark.parametrize("name", ["st_space", "xmm_space"])
def test_short_arrays_are_refused(name: str) -> None:
    entry = user_x86_fpregs_entry(st_space=[0] * 32, xmm_space=[0] * 64)
    getattr(entry, name).pop()
    with pytest.raises(ImageError, match=name):
        fpregs_to_xstate(entry, SMALL, "core-1.img", no_warning)


def test_an_array_may_be_absent_but_not_short() -> None:
    entry = user_x86_fpregs_entry(st_space=[0] * 32, xmm_space=[0] * 64)
    entry.xsave.xstate_bv = 7
    assert fpregs_to_xstate(entry, SMALL, "core-1.img", no_warning)[512] == 7
    entry.xsave.ymmh_space.extend([1] * 63)
    with pytest.raises(ImageError, match="ymmh_space has 63"):
        fpregs_to_xstate(entry, SMALL, "core-1.img", no_warning)


def user_registers(**values: int) -> UserRegisters:
    regs = UserRegisters()
    for number, (name, _) in enumerate(UserRegisters._fields_):
        setattr(regs, name, values.get(name, 0x100 + number))
    return regs


def encode(regs: UserRegisters) -> core_entry:
    core = core_entry(mtype=core_entry.X86_64)
    facts = registers.RegisterFacts(regs, state(SMALL, b"", 7), SMALL)
    Registers().encode(facts, core, None)
    core.thread_info.clear_tid_addr = 0
    core.thread_core.futex_rla = core.thread_core.futex_rla_len = 0
    core.thread_core.blk_sigset = 0x4000
    return core


def test_registers_are_in_kernel_order() -> None:
    regs = user_registers(cs=0x33, ss=0x2B, orig_rax=(1 << 64) - 1)
    core = encode(regs)
    assert [getattr(core.thread_info.gpregs, name) for name in GPREGS] == list(
        struct.unpack("<27Q", bytes(regs))
    )
    assert [slot.entry_number for slot in core.thread_info.tls] == [12, 13, 14]


def test_state_that_images_have_no_place_for_is_refused(frozen, kernel) -> None:
    subject = frozen()
    subject.thread.regs = user_registers
    subject.thread.xstate = lambda: state(WITH_TILES, b"", 7 | 1 << 9)
    assert Registers().collect(subject, kernel.batch)(kernel.answer()).xstate[512:514] == b"\x07\x02"
    subject.thread.xstate = lambda: state(WITH_TILES, b"", 7 | 3 << 17)
    with pytest.raises(NotDumpable, match=r"components \[17, 18\]"):
        Registers().collect(subject, kernel.batch)


def test_64_bit_programs_are_no_obstacle(planning) -> None:
    assert list(Registers().obstacles(os.getpid(), planning.features)) == []
    assert list(Registers().obstacles(1 << 30, planning.features)) == []


def test_an_interrupted_call_is_made_again_or_answers_eintr() -> None:
    again = encode(user_registers(rax=(1 << 64) - 512, orig_rax=34, rip=0x1002, cs=0x33))
    assert (again.thread_info.gpregs.ax, again.thread_info.gpregs.ip) == (34, 0x1000)
    eintr = encode(user_registers(rax=(1 << 64) - 516, orig_rax=35, rip=0x1002, cs=0x33))
    assert (eintr.thread_info.gpregs.ax, eintr.thread_info.gpregs.ip) == ((1 << 64) - 4, 0x1002)


@pytest.mark.parametrize(
    ("timeout", "again"), [(0xFFFFFFFF, True), ((1 << 64) - 1, True), (3000, False), (0, False)]
)
def test_a_poll_without_timeout_is_made_again(planning, timeout: int, again: bool) -> None:
    """Also where CRIU has written that it is over."""
    poll = {"orig_rax": 7, "rip": 0x1002, "cs": 0x33, "rdx": timeout}
    expected = (7, 0x1000) if again else ((1 << 64) - 4, 0x1002)
    ours = encode(user_registers(rax=(1 << 64) - 516, **poll)).thread_info.gpregs
    assert (ours.ax, ours.ip) == expected
    planning.cores[8] = encode(user_registers(rax=(1 << 64) - 4, **poll))
    planning.features = KernelFeatures(capabilities=0, pagemap_scan=True, xsave=SMALL)
    theirs = dict(zip(GPREGS, thread_state(planning.core(8), planning.subject(8)).registers, strict=True))
    assert (theirs["ax"], theirs["ip"]) == expected


def test_a_thread_starts_outside_of_any_call(planning) -> None:
    regs = user_registers(cs=0x33, ss=0, fs=0, gs=0x2B, ds=1, es=0, orig_rax=34, rax=5)
    planning.cores[8] = encode(regs)
    planning.features = KernelFeatures(capabilities=0, pagemap_scan=True, xsave=SMALL)
    made = thread_state(planning.core(8), planning.subject(8))
    values = dict(zip(GPREGS, made.registers, strict=True))
    assert values["orig_ax"] == (1 << 64) - 1
    assert (values["cs"], values["ss"], values["ds"], values["gs"]) == (0x33, 0x2B, 0, 0x2B)
    assert values["ip"] == regs.rip
    assert (made.tid, made.sigmask, len(made.xstate)) == (8, 0x4000, 832)


def test_a_leader_has_its_mask_elsewhere(planning) -> None:
    planning.cores[7] = encode(user_registers(cs=0x33))
    planning.core().tc.blk_sigset = 0x8000
    assert thread_state(planning.core(), planning.subject()).sigmask == 0x8000


def test_32_bit_code_and_missing_registers_are_refused(planning) -> None:
    with pytest.raises(ImageError, match="without registers"):
        thread_state(planning.core(), planning.subject())
    planning.cores[7] = encode(user_registers(cs=0x23))
    assert planning.core().thread_info.gpregs.mode == COMPAT
    with pytest.raises(ImageError, match="32-bit"):
        thread_state(planning.core(), planning.subject())
