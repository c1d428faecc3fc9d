"""Dump, frozen time and restore of criupy beside a real criu, in turn, in one run.

Each round starts a fresh target for each of the two, the first of them in turn, and takes three figures:
the frozen time (the target's own largest gap between two reads of the clock while ``dump --leave-running``
runs), the wall time of a dump that ends the target, and the wall time of the restore.  Both are started cold for
every command, and write to the same file system.  A ratio is the median of the ratios of the rounds.
For memory that processes share by copy-on-write the size of the images is printed too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import build, engine, reaper
from harness.target import Target


@dataclass(frozen=True)
class Row:
    """A kind of target; ``sizes`` if the size of its images is of interest."""

    title: str
    environment: dict[str, str]
    program: str = "bench_target.c"
    sizes: bool = False


ROWS = {
    "small": Row("one small task", {}),
    "memory": Row("1 GiB random memory, 4 KiB pages", {"MEBIBYTES": "1024"}),
    "threads": Row("200 threads", {"THREADS": "200"}),
    "tree50": Row("50 tasks", {"TASKS": "50"}, "tree_many.c"),
    "tree1000": Row("1,000 tasks", {"TASKS": "1000"}, "tree_many.c"),
    "threads10000": Row("10,000 threads", {"THREADS": "10000"}),
    "descriptors": Row("2,000 descriptors", {"DESCRIPTORS": "2000"}, "bench_descriptors.c"),
    "cow": Row(
        "1 GiB and a child that changed 1 %", {"TASKS": "2", "MEBIBYTES": "1024"}, "tree_many.c", sizes=True
    ),
}
DEFAULT = ["small", "memory", "threads", "tree50"]


@dataclass(frozen=True)
class Figures:
    """What one round measured of one engine, in seconds and bytes."""

    frozen: float
    dump: float
    restore: float
    size: float


def measure(tool: engine.Engine, row: Row, place: Path) -> Figures:
    """Start a target, and dump, dump and restore it with ``tool``."""
    target = Target(build.argv_of(row.program), place / "target", row.environment)
    try:
        target.start(timeout=120)
        time.sleep(0.05)
        _reset_gap(target)
        tool.dump(target, place / "running", "--leave-running", timeout=300)
        frozen = _gap(target)
        shutil.rmtree(place / "running")
        dumped = tool.dump(target, place / "images", timeout=300).seconds
        size = sum(image.stat().st_size for image in (place / "images").rglob("*.img"))
        target.wait_gone(timeout=60)
        restored = tool.restore(target, place / "images", timeout=300).seconds
        target.expect_progress()
        target.ask(timeout=120)
        return Figures(frozen, dumped, restored, size)
    finally:
        target.end()
        shutil.rmtree(place)


def _gap(target: Target) -> float:
    data = (target.directory / "beat").read_bytes()
    return float(struct.unpack_from("<q", data, 8)[0]) / 1e9


def _reset_gap(target: Target) -> None:
    with (target.directory / "beat").open("r+b") as beat:
        os.pwrite(beat.fileno(), bytes(8), 8)


# The figures of a table, each with its unit and how much of it that is.
UNITS = {"frozen": ("ms", 1e-3), "dump": ("s", 1.0), "restore": ("s", 1.0), "size": ("MiB", 1 << 20)}


def table(row: Row, ours: list[Figures], theirs: list[Figures]) -> Iterator[str]:
    """Lines for one kind of target."""
    for name, (unit, scale) in UNITS.items():
        if name == "size" and not row.sizes:
            continue
        mine, other = ([getattr(figures, name) for figures in side] for side in (ours, theirs))
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        left, right = statistics.median(mine) / scale, statistics.median(other) / scale
        title = row.title if name == "frozen" else ""
        yield f"{title:36}{name:9}{left:10.3f} {unit:3}{right:10.3f} {unit:3}{ratio:8.2f}x"


def parse(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)} (default: {' '.join(DEFAULT)})"
    )
    parser.add_argument("--rounds", type=int, default=7, help="pairs of measurements per row (default: 7)")
    parser.add_argument("--directory", type=Path, help="where images go (default: build/bench)")
    options = parser.parse_args(words)
    unknown = set(options.rows) - set(ROWS)
    if unknown or options.rounds < 1:
        parser.error(f"no such row: {', '.join(sorted(unknown))}" if unknown else "--rounds: at least 1")
    return options


def main(words: list[str]) -> None:
    """Run the rows that were asked for and print the table."""
    options = parse(words)
    peer = engine.criu()
    if os.geteuid() != 0:
        sys.exit("scripts/bench: needs root, for criupy and criu both")
    if peer is None:
        sys.exit("scripts/bench: needs a real criu: scripts/real-criu, or CRIUPY_CRIU=PATH")
    reaper.become_subreaper()
    base = options.directory or build.ROOT / "build" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    tools = (engine.criupy(), peer)
    print(f"criupy: {tools[0].path}\ncriu:   {tools[1].path}\nimages: {base}, {options.rounds} rounds\n")
    print(f"{'':36}{'':9}{'criupy':>10} {'':3}{'criu':>10} {'':3}{'ratio':>8}", flush=True)
    for name in options.rows or DEFAULT:
        results: tuple[list[Figures], list[Figures]] = ([], [])
        for number in range(options.rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                os.sync()  # nobody pays for what another left to be written
                place = Path(tempfile.mkdtemp(dir=base))
                results[side].append(measure(tools[side], ROWS[name], place))
        print("\n".join(table(ROWS[name], *results)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
