"""asyncio: timers, child processes by pidfd and over pipes, a queue, a signal; each result is checked, none is late."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time

beat = os.open("beat", os.O_RDWR | os.O_CREAT, 0o644)
counts = {"ticks": 0, "children": 0, "words": 0, "signals": 0}
failures: list[str] = []


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def check(condition: bool, what: str) -> None:
    if not condition:
        failures.append(what)
        say(f"FAIL: {what}")


async def tick(done: asyncio.Event) -> None:
    """No timer fires early."""
    while not done.is_set():
        began = time.monotonic()
        await asyncio.sleep(0.02)
        check(time.monotonic() - began >= 0.019, "a timer fired early")
        counts["ticks"] += 1


async def children(done: asyncio.Event) -> None:
    """Every child is waited for, and has the status that it should have."""
    while not done.is_set():
        status = counts["children"] % 7
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"sleep 0.05; exit {status}")
        check(await child.wait() == status, f"child {counts['children']} has another status")
        counts["children"] += 1
        os.pwrite(beat, struct.pack("<q", counts["children"]), 0)


async def talk(done: asyncio.Event) -> None:
    """A child that answers over pipes, all the time the same one."""
    cat = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
    assert cat.stdin is not None
    assert cat.stdout is not None
    while not done.is_set():
        word = b"word %d\n" % counts["words"]
        cat.stdin.write(word)
        check(await cat.stdout.readline() == word, f"word {counts['words']} came back otherwise")
        counts["words"] += 1
        await asyncio.sleep(0.001)
    cat.stdin.close()
    check(await cat.wait() == 0, "cat ended otherwise")


async def raise_signals(done: asyncio.Event) -> None:
    arrived = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, arrived.set)
    while not done.is_set():
        arrived.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(arrived.wait(), 20)
        counts["signals"] += 1
        await asyncio.sleep(0.03)


async def main() -> None:
    done = asyncio.Event()
    tasks = [asyncio.create_task(part(done)) for part in (tick, children, talk, raise_signals)]
    while not all(counts.values()):  # noqa: ASYNC110 - of several tasks
        await asyncio.sleep(0.005)
    say("ready")
    while not os.path.exists("go"):  # noqa: ASYNC110, ASYNC240 - nobody else tells
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*tasks)


if hasattr(asyncio, "PidfdChildWatcher") and sys.version_info < (3, 12):
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
asyncio.run(main())
if not failures:
    say("PASS")
sys.exit(bool(failures))
