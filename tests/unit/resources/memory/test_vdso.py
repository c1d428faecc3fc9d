"""The vdso of the image and that of this kernel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.resources.memory import vdso
from criupy.resources.memory.vdso import Function, Vdso


@pytest.fixture(scope="module")
def own() -> Vdso:
    return vdso.running()


class Named(Vdso):
    """A vdso whose functions are told, with no code to go with them."""

    def __init__(self, size: int = 0x2000, data_size: int = 0x4000, **functions: tuple[int, int]) -> None:
        super().__init__(bytes(size), data_size)
        named = {f"__vdso_{name}": Function(*place) for name, place in functions.items()}
        self.__dict__["functions"] = named


def test_our_own_is_read_whole(own: Vdso) -> None:
    assert own.code[:4] == b"\x7fELF"
    assert own.data_size > 0
    assert own.size % 4096 == own.data_size % 4096 == 0
    assert {"__vdso_clock_gettime", "__vdso_time", "__vdso_getcpu"} <= set(own.functions)
    assert 0 < len(own.elf) <= len(own.code)


def test_the_same_code_stands_in(own: Vdso) -> None:
    assert vdso.same(own, own, [0x800])
    padded = Vdso(own.elf.ljust(len(own.code), b"\x90"), own.data_size)
    assert vdso.same(padded, own, [0x800]), "what a dump left behind the file is of no importance"


def test_other_code_with_the_same_functions_stands_in_if_nobody_is_inside(own: Vdso) -> None:
    function = own.functions["__vdso_time"]
    changed = bytearray(own.code)
    changed[function.offset + function.size - 1] ^= 1
    other = Vdso(bytes(changed), own.data_size)
    assert vdso.same(other, own, [])
    assert not vdso.same(other, own, [function.offset + 4])


def test_another_shape_does_not_stand_in(own: Vdso) -> None:
    assert not vdso.same(Vdso(own.code + bytes(4096), own.data_size), own, [])
    assert not vdso.same(Vdso(own.code, own.data_size + 4096), own, [])
    here, there = Named(time=(0x800, 40)), Named(time=(0x810, 40))
    assert not vdso.same(here, there, [])
    assert not vdso.same(here, Named(time=(0x800, 40), getcpu=(0x900, 40)), [])


@given(st.binary(max_size=300))
def test_rubbish_is_an_image_error(rubbish: bytes) -> None:
    own = Named(size=len(rubbish) + 64)
    for image in (
        Vdso(bytes(64) + rubbish, 0x4000),
        Vdso(b"\x7fELF\x02\x01\x01".ljust(64, b"\1") + rubbish, 0x4000),
    ):
        with pytest.raises(ImageError, match="vdso in the images"):
            vdso.same(image, own, [])


def test_damaged_tables_are_an_image_error(own: Vdso) -> None:
    for offset in range(0, 0x500, 3):
        damaged = bytearray(own.code)
        damaged[offset : offset + 3] = b"\xff\xff\xff"
        try:
            vdso.same(Vdso(bytes(damaged), own.data_size), own, [])
        except ImageError as error:
            assert "vdso" in str(error)  # noqa: PT017 - most of the damage is found, some does not matter


def test_functions_jump_to_their_like_or_make_the_call() -> None:
    image = Named(time=(0x100, 40), getcpu=(0x200, 40), getrandom=(0x300, 40), sgx_enter_enclave=(0x400, 40))
    own = Named(time=(0xA00, 40), getcpu=(0xB00, 40))
    patches = dict(vdso.bridge(image, 0x10000, own, []))
    assert patches == {
        0x100: b"\xff\x25\0\0\0\0" + struct.pack("<Q", 0x10A00),
        0x200: b"\xff\x25\0\0\0\0" + struct.pack("<Q", 0x10B00),
        0x300: b"\xb8\x3e\x01\0\0\x0f\x05\xc3",  # mov $318, %eax; syscall; ret
    }


def test_no_room_for_a_jump() -> None:
    own = Named(time=(0x100, 40), getcpu=(0x100, 40))
    for image in (Named(time=(0x100, 13), getcpu=(0x10D, 40)), Named(size=0x100, time=(0xF3, 13))):
        with pytest.raises(ImageError, match="no room"):
            vdso.bridge(image, 0, own, [])


def test_a_thread_in_what_is_written_over() -> None:
    image = Named(time=(0x100, 40))
    for inside in (0x100, 0x10E, 0x200):
        vdso.bridge(image, 0, image, [inside])
    with pytest.raises(ImageError, match="at the entry of a function"):
        vdso.bridge(image, 0, image, [0x10D])
