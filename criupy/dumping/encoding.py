"""From facts to a snapshot: every kind encodes its part, and the set gets its tree, ids and inventory.

CRIU compares ids only inside one image set: equal numbers mean one kernel object.  The dumping process comes first,
so a task that shares a namespace with it has its number (images: ``ids-PID.img``, ``pstree.img``, ``inventory.img``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from criupy.dumping.capture import Place, ProcessFacts, ThreadFacts, TreeFacts, ZombieFacts
from criupy.images.directory import ImageWriter
from criupy.images.pages import Pagemap
from criupy.images.pb import core_pb2, inventory_pb2, memory_pb2
from criupy.linux import namespaces
from criupy.model.snapshot import Snapshot, TaskImages
from criupy.resources import memory
from criupy.resources.files import fs
from criupy.resources.filetable import FIRST_FILES_ID, FileTable, Tree
from criupy.resources.kind import DumpSink
from criupy.resources.namespaces import timens
from criupy.resources.pidnumbers import PidNumbers
from criupy.resources.task import taskstate
from criupy.resources.task.prctls import ProcessPrctls

OWN_OBJECTS = 1
"""vm, files, fs and sighand id of the dumping process itself."""
IMAGE_VERSION = 2
ROOT_CGROUP_SET = 1


class Objects(NamedTuple):
    """Numbers of what a task has, or shares."""

    vm: int
    files: int
    fs: int
    sighand: int


class ObjectIds:
    """Numbers for namespaces in order of first sight, and ``task_kobj_ids_entry`` messages made of them."""

    def __init__(self) -> None:
        self._namespaces: dict[tuple[str, int], int] = {}
        own = namespaces.identify(os.getpid())
        self.root = self.message(own, Objects(*[OWN_OBJECTS] * 4))

    def message(self, inodes: dict[str, int], objects: Objects) -> core_pb2.task_kobj_ids_entry:
        """``inodes`` by kind of namespace."""
        ids = core_pb2.task_kobj_ids_entry(
            vm_id=objects.vm, files_id=objects.files, fs_id=objects.fs, sighand_id=objects.sighand
        )
        for kind, inode in inodes.items():
            setattr(ids, f"{kind}_ns_id", self.namespace(kind, inode))
        return ids

    def namespace(self, kind: str, inode: int) -> int:
        return self._namespaces.setdefault((kind, inode), len(self._namespaces) + 1)


def inventory(root_ids: core_pb2.task_kobj_ids_entry, run_id: str) -> inventory_pb2.inventory_entry:
    """The inventory of a full dump without network locks or plugins."""
    entry = inventory_pb2.inventory_entry(
        img_version=IMAGE_VERSION,
        fdinfo_per_id=True,
        root_ids=root_ids,
        ns_per_id=True,
        root_cg_set=ROOT_CGROUP_SET,
        lsmtype=_security_module(),
        dump_criu_run_id=run_id,
    )
    entry.plugins_entry.SetInParent()
    return entry


def _security_module() -> inventory_pb2.lsmtype:
    if os.path.isdir("/sys/fs/selinux") and os.path.exists("/sys/fs/selinux/enforce"):
        return inventory_pb2.SELINUX
    if os.path.isdir("/sys/kernel/security/apparmor"):
        return inventory_pb2.APPARMOR
    return inventory_pb2.NO_LSM


class Images(NamedTuple):
    """What an encoding draws numbers from."""

    table: FileTable
    ids: ObjectIds
    run_id: str
    writer: ImageWriter


def encode(
    tree: TreeFacts, images: Images, pages_ids: Mapping[int, int], families: Mapping[int, memory.Family]
) -> Snapshot:
    """The snapshot of a tree; by pid the pages files, which are written already, and the families that share pages.

    Raises `NotDumpable` when the name of an open file leads elsewhere by now, or as `TreeFacts.numbers` says.
    """
    numbers = tree.numbers()
    pids = (member.place.pid for member in tree.members)
    files = images.table.encode(Tree(numbers, frozenset(pids), images.ids.namespace), images.writer)
    sink = DumpSink(images.table, numbers)
    tasks = []
    objects: dict[int, Objects] = {}
    for number, member in enumerate(tree.members, FIRST_FILES_ID):
        if isinstance(member, ZombieFacts):
            tasks.append(_zombie(member, numbers))
        else:
            pid, parent = member.pid, objects.get(member.place.ppid)
            objects[pid] = Objects(
                vm=parent.vm if parent and "vm" in member.shares else number,
                files=files.files_ids[pid],
                fs=files.fs_ids[pid],
                sighand=parent.sighand if parent and "sighand" in member.shares else number,
            )
            ids = images.ids.message(member.namespaces, objects[pid])
            pagemap = memory.pagemap(member.memory, families.get(member.pid), pages_ids[member.pid])
            tasks.append(_task(member, ids, pagemap, sink))
    return Snapshot(
        inventory=inventory(images.ids.root, images.run_id),
        tasks=tuple(tasks),
        files=files.files,
        fdinfo=files.fdinfo,
        seccomp=_seccomp(sink),
        pipes_data=files.pipes_data,
        fifo_data=files.fifo_data,
        remaps=files.remaps,
        locks=files.locks,
        sk_queues=files.sk_queues,
        memfds=images.table.shmem.entries(),
        shmem={**images.table.shmem.pagemaps(), **images.table.segments.pagemaps()},
        segments=images.table.segments.entries(),
        timens=timens.encode(tree.clocks),
        terminals=images.table.terminals.entries(numbers),
        terminal_data=images.table.terminals.unread(),
    )


def _pstree(place: Place, threads: Iterable[int], numbers: PidNumbers) -> core_pb2.pstree_entry:
    pid, ppid, pgid, sid = map(numbers.inside, place)
    entry = core_pb2.pstree_entry(pid=pid, ppid=ppid, pgid=pgid, sid=sid, threads=threads)
    if numbers.differ:
        entry.outer_pid = place.pid
    return entry


def _zombie(facts: ZombieFacts, numbers: PidNumbers) -> TaskImages:
    pid = numbers.inside(facts.place.pid)
    core = core_pb2.core_entry()
    taskstate.zombie(core, facts.stat)
    return TaskImages(pid, _pstree(facts.place, [pid], numbers), core, threads={pid: core})


def _task(
    facts: ProcessFacts, ids: core_pb2.task_kobj_ids_entry, pagemap: Pagemap, sink: DumpSink
) -> TaskImages:
    pid = sink.numbers.inside(facts.pid)
    cores = {sink.numbers.inside(thread.tid): _core(thread, sink) for thread in facts.threads}
    if facts.dead_leader is not None:
        _, first, *_ = cores.values()
        taskstate.dead_leader(cores[pid], first, *facts.dead_leader)
    if "io" in facts.shares:
        cores[pid].tc.shares_io = True
    return TaskImages(
        pid=pid,
        pstree=_pstree(facts.place, cores, sink.numbers),
        core=cores[pid],
        ids=ids,
        mm=_mm(facts),
        fs=fs.encode(facts.fs),
        threads=cores,
        pagemap=pagemap,
    )


def _core(thread: ThreadFacts, sink: DumpSink) -> core_pb2.core_entry:
    core = core_pb2.core_entry(mtype=core_pb2.core_entry.X86_64)
    for kind, facts in thread.parts():
        kind.encode(facts, core, sink)
    core.thread_core.cg_set = ROOT_CGROUP_SET
    return core


def _mm(facts: ProcessFacts) -> memory_pb2.mm_entry:
    mm = memory.encode_mm(facts.memory)
    for kind, found in facts.threads[0].parts():
        if isinstance(kind, ProcessPrctls):
            kind.encode_mm(found, mm)
    return mm


def _seccomp(sink: DumpSink) -> core_pb2.seccomp_entry:
    image = core_pb2.seccomp_entry()
    for program, flags, newer in sink.seccomp_filters:
        image.seccomp_filters.add(filter=program, flags=flags, prev=newer)
    return image
