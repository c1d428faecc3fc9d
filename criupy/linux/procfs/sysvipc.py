"""``/proc/sysvipc/shm``: the System V shared memory segments of an IPC namespace.

Source: Linux ipc/shm.c, ``sysvipc_shm_proc_show``.
"""

from __future__ import annotations

from typing import NamedTuple

_SHM_DEST, _SHM_LOCKED = 0o1000, 0o2000
_NAMES = b"key shmid perms size cpid lpid nattch uid gid cuid cgid".split()


class Segment(NamedTuple):
    """One segment.

    ``key`` is unsigned, 0 is IPC_PRIVATE; ``size`` is in bytes, as asked for.  ``creator`` and ``last`` are the pids of
    who made it and of who has attached or detached it last (0: nobody, or somebody in a pid namespace that ours does
    not see).  ``attached`` counts the areas of memory that it is mapped at.  ``changed`` is when it was made or got
    another owner or mode, in seconds since 1970.
    ``destroyed``: it goes with its last attachment (IPC_RMID); ``locked``: it stays in memory (SHM_LOCK).
    """

    id: int
    key: int
    mode: int
    size: int
    creator: int
    last: int
    attached: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    changed: int
    destroyed: bool
    locked: bool


def parse(text: bytes) -> dict[int, Segment]:
    """The segments by id; ValueError for text of another form."""
    head, *lines = text.splitlines()
    names = head.split()
    if names[: len(_NAMES)] != _NAMES or b"ctime" not in names:
        raise ValueError("/proc/sysvipc/shm has an unknown form")
    changed = names.index(b"ctime")
    segments = (_segment(line.split(), changed) for line in lines)
    return {segment.id: segment for segment in segments}


def _segment(words: list[bytes], changed: int) -> Segment:
    key, number, _, size, creator, last, attached, uid, gid, cuid, cgid = map(int, words[: len(_NAMES)])
    mode = int(words[2], 8)
    return Segment(
        id=number,
        key=key & 0xFFFF_FFFF,
        mode=mode & 0o777,
        size=size,
        creator=creator,
        last=last,
        attached=attached,
        uid=uid,
        gid=gid,
        cuid=cuid,
        cgid=cgid,
        changed=int(words[changed]),
        destroyed=bool(mode & _SHM_DEST),
        locked=bool(mode & _SHM_LOCKED),
    )


def segments() -> dict[int, Segment]:
    """Those of our IPC namespace, now; none on a kernel without System V IPC."""
    try:
        with open("/proc/sysvipc/shm", "rb", buffering=0) as file:
            return parse(file.readall())
    except FileNotFoundError:
        return {}
