"""CPython threads with results that can be checked: hash chains, a queue, a lock, sleeps and a pool."""

from __future__ import annotations

import hashlib
import os
import queue
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

CHAIN = 400
done = threading.Event()
failures: list[str] = []
lock = threading.Lock()
counts = {"produced": 0, "consumed": 0, "locked": 0, "chains": 0, "sleeps": 0}
beat = os.open("beat", os.O_RDWR | os.O_CREAT, 0o644)


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def check(condition: bool, what: str) -> None:
    if not condition:
        failures.append(what)
        say(f"FAIL: {what}")


def chain(seed: int) -> str:
    value = str(seed).encode()
    for _ in range(CHAIN):
        value = hashlib.sha256(value).digest()
    return value.hex()


EXPECTED = {seed: chain(seed) for seed in range(8)}


def hasher(seed: int) -> None:
    while not done.is_set():
        check(chain(seed) == EXPECTED[seed], f"hash chain {seed}")
        with lock:
            counts["locked"] += 1
            counts["chains"] += 1
            os.pwrite(beat, struct.pack("<q", counts["chains"]), 0)
        time.sleep(0.002)


def producer(items: queue.Queue[int | None]) -> None:
    while not done.is_set():
        items.put(counts["produced"])
        counts["produced"] += 1
        time.sleep(0.001)
    items.put(None)


def consumer(items: queue.Queue[int | None]) -> None:
    while (item := items.get()) is not None:
        check(item == counts["consumed"], f"queue gave {item}, not {counts['consumed']}")
        counts["consumed"] += 1


def sleeper() -> None:
    last = time.monotonic()
    while not done.wait(0.05):
        now = time.monotonic()
        check(now >= last, f"monotonic clock went back from {last} to {now}")
        last = now
        counts["sleeps"] += 1


def guarded(function: object, *arguments: object) -> threading.Thread:
    def body() -> None:
        try:
            function(*arguments)  # type: ignore[operator]
        except BaseException as error:
            check(False, f"thread died: {error!r}")
            raise

    return threading.Thread(target=body)


def main() -> int:
    items: queue.Queue[int | None] = queue.Queue(maxsize=16)
    threads = [guarded(hasher, seed) for seed in range(4)]
    threads += [guarded(producer, items), guarded(consumer, items), guarded(sleeper)]
    pool = ThreadPoolExecutor(2)
    for thread in threads:
        thread.start()
    say("ready")
    while not os.path.exists("go"):
        futures = {seed: pool.submit(chain, seed) for seed in (4, 5)}
        for seed, future in futures.items():
            check(future.result() == EXPECTED[seed], f"pool chain {seed}")
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    pool.shutdown()
    check(counts["produced"] == counts["consumed"], f"queue lost items: {counts}")
    check(struct.unpack("<q", os.pread(beat, 8, 0))[0] == counts["chains"], "beat")
    if not failures:
        say("PASS")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
