"""Credentials of a thread: ids, groups, capabilities, securebits, no_new_privs."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from criupy.errors import ImageError
from criupy.linux.capability import CAP_SETGID, CAP_SETPCAP
from criupy.linux.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_GET_SECUREBITS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECUREBITS,
)
from criupy.linux.procfs import task as procfs
from criupy.model.plan import Data, Stage, Step, data
from criupy.resources.task.base import Dumpable

if TYPE_CHECKING:
    from criupy.images.pb.core_pb2 import core_entry, creds_entry
    from criupy.resources.kind import Asking, DumpSink, Finish, PlanSubject, Subject

SECBIT_NO_SETUID_FIXUP, SECBIT_KEEP_CAPS = 1 << 2, 1 << 4
CAPABILITY_VERSION_3 = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: sets of 64 bits.  Source: Linux include/uapi/linux/capability.h."""
_HEADER = data(struct.pack("<Ii", CAPABILITY_VERSION_3, 0), "{version 3}")
_U32 = 0xFFFFFFFF


class CredsFacts(NamedTuple):
    """``status`` as read: all but the securebits is in there."""

    status: bytes
    securebits: int


class Creds(Dumpable):
    """Image: ``thread_core.creds``.

    A task under restore has criupy's capabilities until here; what it may get is cut down to them.  Of a leader that
    has ended the securebits are not known; they are taken to be those of its process's first thread.
    Source: Linux kernel/sys.c, security/commoncap.c.
    """

    name = "credentials"
    per_thread = True
    outlives = True

    def collect(self, subject: Subject, ask: Asking) -> Finish:
        status = subject.read("status")
        securebits = ask.call("prctl", PR_GET_SECUREBITS)
        return lambda results: CredsFacts(status, results[securebits])

    def encode(self, facts: CredsFacts, core: core_entry, sink: DumpSink) -> None:
        creds = core.thread_core.creds
        _encode(procfs.credentials(facts.status), creds)
        creds.secbits = facts.securebits

    def plan(self, core: core_entry, subject: PlanSubject) -> Iterator[Step]:
        if not core.thread_core.HasField("creds"):
            raise ImageError(f"core-{subject.tid}.img", "no credentials")
        creds = core.thread_core.creds
        if creds.lsm_profile:
            label = creds.lsm_profile.decode("utf-8", "backslashreplace")
            subject.warn(f"thread {subject.tid}: its security label {label} is not restored")
        features, serialized = subject.features, creds.SerializeToString()
        if features.credentials is not None and serialized == _serialized(features.credentials):
            return
        known = _known(features.last_capability)
        own = features.capabilities & known
        if missing := (_mask(creds.cap_prm) | _mask(creds.cap_inh)) & known & ~own:
            lacks = f"capabilities {list(_bits(missing))} cannot be given to it, criupy lacks them"
            subject.warn(f"thread {subject.tid}: {lacks}")
        for call, arguments, tolerated in _calls(serialized, own, features.last_capability):
            yield Step(subject.tid, Stage.CREDENTIALS, call, arguments, tolerate=tolerated)
        if creds.no_new_privs:
            yield Step(subject.tid, Stage.CREDENTIALS, "prctl", (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _encode(found: procfs.Credentials, creds: creds_entry) -> None:
    creds.uid, creds.euid, creds.suid, creds.fsuid = found.uids
    creds.gid, creds.egid, creds.sgid, creds.fsgid = found.gids
    creds.cap_inh.extend(_words(found.cap_inheritable))
    creds.cap_prm.extend(_words(found.cap_permitted))
    creds.cap_eff.extend(_words(found.cap_effective))
    creds.cap_bnd.extend(_words(found.cap_bounding))
    creds.cap_amb.extend(_words(found.cap_ambient))
    creds.groups.extend(found.groups)
    if found.no_new_privs:
        creds.no_new_privs = 1


def _words(mask: int) -> tuple[int, int]:
    return mask & _U32, mask >> 32


def _mask(words: Sequence[int]) -> int:
    return sum(word << 32 * index for index, word in enumerate(words[:2]))


def _known(last_capability: int) -> int:
    """Bits that the kernel drops silently are not asked for."""
    return (2 << last_capability) - 1


@lru_cache(maxsize=1)
def _serialized(own: procfs.Credentials) -> bytes:
    """Credentials with plain securebits as in the image."""
    from criupy.images.pb.core_pb2 import creds_entry

    creds = creds_entry(secbits=0)
    _encode(own, creds)
    return creds.SerializeToString()


_Call = tuple[int | None, str, *tuple[int | Data, ...]]
"""A call: the capability without which failing is no surprise, name, arguments."""


@lru_cache(maxsize=64)
def _calls(
    serialized: bytes, own: int, last_capability: int
) -> tuple[tuple[str, tuple[int | Data, ...], frozenset[int]], ...]:
    """What gives these credentials, with the errors to tolerate: hundreds of threads often have the same."""
    from criupy.images.pb.core_pb2 import creds_entry

    creds = creds_entry.FromString(serialized)
    found = []
    for needed, call, *arguments in (*_ids(creds), *_capabilities(creds, own, last_capability)):
        allowed = needed is None or own >> needed & 1
        found.append((call, tuple(arguments), frozenset() if allowed else frozenset({errno.EPERM})))
    return tuple(found)


def _ids(creds: creds_entry) -> Iterator[_Call]:
    groups = struct.pack(f"<{len(creds.groups)}I", *creds.groups)
    yield CAP_SETGID, "setgroups", len(creds.groups), data(groups, f"{list(creds.groups)}")
    # So that no change of ids takes a capability away.
    yield CAP_SETPCAP, "prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS
    yield None, "setresgid", creds.gid, creds.egid, creds.sgid
    if creds.fsgid != creds.egid:
        yield None, "setfsgid", creds.fsgid
    yield None, "setresuid", creds.uid, creds.euid, creds.suid
    if creds.fsuid != creds.euid:
        yield None, "setfsuid", creds.fsuid


def _capabilities(creds: creds_entry, own: int, last_capability: int) -> Iterator[_Call]:
    """From the capabilities of criupy down to the image's; CAP_SETPCAP goes last, it is needed for the rest."""
    known = _known(last_capability)
    permitted, inheritable = _mask(creds.cap_prm) & own, _mask(creds.cap_inh) & own
    effective = _mask(creds.cap_eff) & permitted
    setpcap = 1 << CAP_SETPCAP & own
    yield None, "capset", _HEADER, _capset(effective | setpcap, permitted | setpcap, inheritable)
    yield None, "prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0
    for bit in _bits(_mask(creds.cap_amb) & permitted & inheritable):
        yield None, "prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0
    for bit in _bits(known & ~_mask(creds.cap_bnd)):
        yield CAP_SETPCAP, "prctl", PR_CAPBSET_DROP, bit
    yield CAP_SETPCAP, "prctl", PR_SET_SECUREBITS, creds.secbits
    if setpcap & ~(effective & permitted):
        yield None, "capset", _HEADER, _capset(effective, permitted, inheritable)


def _bits(mask: int) -> Iterator[int]:
    return (bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def _capset(effective: int, permitted: int, inheritable: int) -> Data:
    sets = (_words(effective), _words(permitted), _words(inheritable))
    content = struct.pack("<6I", *(words[index] for index in (0, 1) for words in sets))
    return data(
        content, f"{{effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}}}"
    )
