"""Dump: from a running task to a whole image set, and what becomes of the task afterwards.

The commit point is the rename of the inventory (`ImageWriter.commit`).  Before it every way out resumes the task as it
was; after it the task is ended, left stopped, or left running, as asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from criupy.dumping import encoding, firstlook
from criupy.dumping.capture import TreeFacts, collect_tree, quiet_interpreter
from criupy.dumping.pagesfiles import PagesFiles
from criupy.errors import NoSuchTask
from criupy.hooks import NOBODY, Hooks
from criupy.images.directory import ImageWriter, write_stats
from criupy.images.pb.inventory_pb2 import stats_entry
from criupy.linux import family
from criupy.linux.cgroup import Cgroup
from criupy.linux.features import KernelFeatures, probe
from criupy.log import Log, Report
from criupy.model import snapshot as snapshots
from criupy.options import DumpOptions
from criupy.resources.filetable import FileTable
from criupy.resources.registry import FILE_KINDS
from criupy.tracee.freezer import freeze_tree
from criupy.tracee.frozen import FrozenTree

_FOR_EVER = 1e9
_OF_A_CGROUP = 10.0
_TO_READ = (0.005, 0.02, 0.1)
"""In seconds, how long a tree that was stopped at the wrong moment runs on until it is stopped again."""


@dataclass
class Stopwatch:
    """Durations of the phases of a dump, in microseconds."""

    freezing: int = 0
    frozen: int = 0
    memory: int = 0
    _started: dict[str, float] = field(default_factory=dict)

    def start(self, phase: str) -> None:
        self._started[phase] = time.monotonic()

    def stop(self, phase: str) -> None:
        setattr(self, phase, int((time.monotonic() - self._started.pop(phase)) * 1e6))


def dump(options: DumpOptions, log: Log, report: Report, hooks: Hooks = NOBODY) -> None:
    """Dump ``options.tree`` into ``options.images_dir``.

    Raises `NotDumpable` and `NoSuchTask` before anything is stopped, `HookError` when ``hooks`` do; after any error the
    task runs on unchanged, and but for one after the commit point the directory holds no usable image set.
    """
    features = probe()
    cgroup = Cgroup.at(options.freeze_cgroup) if options.freeze_cgroup is not None else None
    for warning in firstlook.look(options, features, cgroup):
        log.warning(warning)
        report.line(f"Note: {warning}")
    watch = Stopwatch()
    hooks.act("pre-dump", options.tree)
    with ImageWriter(options.images_dir) as writer, _outcome(options, cgroup, writer), quiet_interpreter():
        _dump(options, features, cgroup, writer, watch, log, report, hooks)
    log.info("Dumping finished successfully")


@contextmanager
def _outcome(options: DumpOptions, cgroup: Cgroup | None, writer: ImageWriter) -> Iterator[None]:
    """Says with every error what became of the task."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        if os.path.exists(f"/proc/{options.tree}"):
            raise
        raise NoSuchTask(f"task {options.tree} has ended while it was dumped") from error
    except BaseException as error:
        if writer.committed:
            error.add_note(
                f"The image set in {options.images_dir} is whole; look what became of task {options.tree}."
            )
        else:
            fate = "is frozen as it was" if _is_frozen(cgroup) else "runs on unchanged"
            error.add_note(f"Task {options.tree} {fate}; {options.images_dir} holds no usable image set.")
        raise


def _dump(
    options: DumpOptions,
    features: KernelFeatures,
    cgroup: Cgroup | None,
    writer: ImageWriter,
    watch: Stopwatch,
    log: Log,
    report: Report,
    hooks: Hooks,
) -> None:
    table = FILE_KINDS.table(options.files)
    images = encoding.Images(table, encoding.ObjectIds(), log.run_id, writer)
    members = family.walk(options.tree)
    for member in members:
        images.table.look_ahead(member.pid)
    shmem, segments, nameless = table.shmem, table.segments, table.nameless
    with ExitStack() as opened, PagesFiles(writer, len(members)) as pages, ExitStack() as frozen:
        for objects in (shmem, segments, nameless, table.terminals, table):
            opened.callback(objects.close)
        tree = _freeze(options, cgroup, table, frozen, watch, log)
        threads = sum(len(process.threads) for process in tree.processes)
        log.info(f"Froze {len(tree.members)} tasks with {threads} threads")
        firstlook.look_again({process.pid: process.speaker for process in tree.processes})
        hooks.act("query-ext-files", options.tree)
        facts = collect_tree(tree, images.table, features)
        images.table.terminals.copy()
        watch.start("memory")
        families = pages.copy(facts, report)
        shmem.copy(pages.open, taken=segments.ids)
        segments.copy(pages.open)
        nameless.copy(writer)
        watch.stop("memory")
        if options.leave_running and not hooks.are_set:
            frozen.close()
            watch.stop("frozen")
        snapshot = encoding.encode(facts, images, pages.ids, families)
        with nameless.linked(writer) as names:
            snapshots.write(snapshot, writer)
            pages.finish(facts.numbers(), sync=options.sync)
            writer.commit(snapshot.inventory, sync=options.sync)
        hooks.act("post-dump", options.tree)
        if not options.leave_running:
            watch.stop("frozen")
            _end(options, tree)
        elif hooks.are_set:
            frozen.close()
            watch.stop("frozen")
    written = sum(process.memory.nr_pages for process in facts.processes) - pages.spared
    _tell(options, facts, written, _fate(options, cgroup), watch, log, report)
    for name in names:
        report.line(f"The images need {os.fsdecode(name)}: keep it as long as them, and remove it with them.")


def _freeze(
    options: DumpOptions,
    cgroup: Cgroup | None,
    table: FileTable,
    frozen: ExitStack,
    watch: Stopwatch,
    log: Log,
) -> FrozenTree:
    """The tree, stopped.  With events before it that no image can hold, it is let go for a moment to read them."""
    for pause in (*_TO_READ, 0):
        watch.start("freezing")
        watch.start("frozen")
        tree = frozen.enter_context(freeze_tree(options.tree, timeout=_patience(options), cgroup=cgroup))
        watch.stop("freezing")
        unread = table.unread(tree.processes)
        if not unread or not pause:
            break
        frozen.close()
        time.sleep(pause)
    if unread:
        log.warning(f"{unread} bytes of events were not read, and a restore does not bring them back")
    return tree


def _patience(options: DumpOptions) -> float:
    """In seconds.  As criu has it, a cgroup is never frozen without a limit: strangers may be in it."""
    return options.timeout or (_FOR_EVER if options.freeze_cgroup is None else _OF_A_CGROUP)


def _end(options: DumpOptions, tree: FrozenTree) -> None:
    if options.leave_stopped:
        tree.leave_stopped()
    else:
        tree.kill()


def _is_frozen(cgroup: Cgroup | None) -> bool:
    """Whether somebody had it frozen, once it is given back."""
    return cgroup is not None and cgroup.was_ordered()


def _fate(options: DumpOptions, cgroup: Cgroup | None) -> str:
    """What has become of the tree in the end."""
    if not options.leave_running:
        return "is stopped" if options.leave_stopped else "has ended"
    return "is frozen as it was" if _is_frozen(cgroup) else "runs on"


def _tell(
    options: DumpOptions, facts: TreeFacts, pages: int, fate: str, watch: Stopwatch, log: Log, report: Report
) -> None:
    """``pages``: of memory, as many as were written."""
    processes = facts.processes
    stats = stats_entry()
    stats.dump.freezing_time = watch.freezing
    stats.dump.frozen_time = watch.frozen
    stats.dump.memdump_time = watch.memory
    stats.dump.memwrite_time = watch.memory
    stats.dump.pages_scanned = sum(process.memory.pages_scanned for process in processes)
    stats.dump.pages_skipped_parent = 0
    stats.dump.pages_written = pages
    stats.dump.pages_lazy = 0
    write_stats(options.work_dir, "stats-dump", stats)
    many = len(facts.members) > 1
    what = f"{len(facts.members)} tasks from {options.tree} on" if many else f"task {options.tree}"
    size = f"{pages * 4 / 1024:.1f} MiB of memory"
    count = sum(len(process.threads) for process in processes)
    threads = f"{count} thread{'s' * (count != 1)}"
    report.line(f"Dumped {what}: {threads}, {size}; frozen for {watch.frozen / 1000:.1f} ms.")
    report.line(f"The images are in {options.images_dir}; the {'tree' if many else 'task'} {fate}.")
    log.info(f"frozen for {watch.frozen} us, {pages} pages written")
    if options.display_stats:
        for line in _statistics(stats):
            report.line(line)


def _statistics(stats: stats_entry) -> Iterator[str]:
    entry = stats.dump
    yield "Displaying dump stats:"
    yield f"Freezing time: {entry.freezing_time} us"
    yield f"Frozen time: {entry.frozen_time} us"
    yield f"Memory dump time: {entry.memdump_time} us"
    yield f"Memory write time: {entry.memwrite_time} us"
    yield f"IRMAP resolve time: {entry.irmap_resolve} us"
    yield f"Memory pages scanned: {entry.pages_scanned} (0x{entry.pages_scanned:x})"
    yield f"Memory pages skipped from parent: {entry.pages_skipped_parent} (0x{entry.pages_skipped_parent:x})"
    yield f"Memory pages written: {entry.pages_written} (0x{entry.pages_written:x})"
    yield f"Lazy memory pages: {entry.pages_lazy} (0x{entry.pages_lazy:x})"
