"""How this CPU and kernel lay out extended register state."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
#   push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid
#   mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx; mov [r8+12], edx; pop rbx; ret
_CPUID = bytes.fromhex("53 89f8 89f1 4989d0 0fa2 418900 41895804 41894808 4189500c 5b c3")
# uint64_t xgetbv0(void): xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; ret
_XGETBV = bytes.fromhex("31c9 0f01d0 48c1e220 4809d0 c3")
_OSXSAVE = 1 << 27
_SUPERVISOR = 1


class XsaveLayout(NamedTuple):
    """The standard (not compacted) format of an xsave area, as NT_X86_XSTATE has it on this machine.

    ``size``: its exact length in bytes, which PTRACE_SETREGSET insists on; ``components``: (offset, length) by
    number, for those that the kernel has enabled, beyond x87 (0) and SSE (1).  Offsets differ between CPUs.

    Source: Intel SDM volume 1, chapter 13; Linux arch/x86/kernel/fpu/xstate.c.
    """

    size: int
    components: Mapping[int, tuple[int, int]]

    def holds(self, component: int) -> bool:
        return component < 2 or component in self.components


def xsave_layout() -> XsaveLayout | None:
    """What CPUID leaf 13 says; None on a CPU without xsave (or another architecture's)."""
    if os.uname().machine != "x86_64":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as code:
        code.write(_CPUID)
        code.seek(64)
        code.write(_XGETBV)
        page = ctypes.c_char.from_buffer(code)
        base = ctypes.addressof(page)
        cpuid = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(base)
        xgetbv = ctypes.CFUNCTYPE(ctypes.c_uint64)(base + 64)

        def leaf(number: int, sub: int) -> tuple[int, ...]:
            registers = ctypes.create_string_buffer(16)
            cpuid(number, sub, ctypes.addressof(registers))
            return struct.unpack("<4I", registers.raw)

        try:
            if not leaf(1, 0)[2] & _OSXSAVE or leaf(0, 0)[0] < 13:
                return None
            enabled = xgetbv()
            size = leaf(13, 0)[1]
            components = {}
            for component in range(2, 63):
                if enabled >> component & 1:
                    length, offset, flags, _ = leaf(13, component)
                    if length and not flags & _SUPERVISOR:
                        components[component] = (offset, length)
        finally:
            del page
    return XsaveLayout(size, MappingProxyType(components))
