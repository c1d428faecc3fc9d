"""Counts the primes below a limit with several threads, and writes each step that it takes into a file.

An ordinary program that knows nothing of checkpoints: workers take blocks of numbers from a queue, a collector
adds up what they find, in order.  ``scripts/demo`` stops it in the middle and brings it back.

    python examples/primes.py LOG [THREADS] [LIMIT]
"""

from __future__ import annotations

import queue
import sys
import threading
import time

BLOCK = 25_000


def primes_in(start: int, end: int, small: list[int]) -> int:
    """How many primes are in ``range(start, end)``; ``small`` has all primes up to the root of ``end``."""
    sieve = bytearray([1]) * (end - start)
    for prime in small:
        first = max(prime * prime, -(-start // prime) * prime)
        sieve[first - start :: prime] = bytes(len(range(first, end, prime)))
    return sum(sieve) - sum(1 for number in range(start, min(end, 2)) if sieve[number - start])


def small_primes(limit: int) -> list[int]:
    """All primes below ``limit``."""
    return [n for n in range(2, limit) if all(n % d for d in range(2, int(n**0.5) + 1))]


def main(log_name: str, threads: int = 4, limit: int = 5_000_000) -> None:
    """Count, and write the steps to the file ``log_name``."""
    small = small_primes(int(limit**0.5) + 1)
    blocks: queue.Queue[int | None] = queue.Queue()
    found: queue.Queue[tuple[int, int, str]] = queue.Queue()
    for start in range(0, limit, BLOCK):
        blocks.put(start)

    def work() -> None:
        while (start := blocks.get()) is not None:
            count = primes_in(start, min(start + BLOCK, limit), small)
            time.sleep(0.05)
            found.put((start, count, threading.current_thread().name))

    workers = [threading.Thread(target=work, name=f"worker {number}") for number in range(1, threads + 1)]
    for worker in workers:
        worker.start()
        blocks.put(None)
    total, waiting = 0, {}
    with open(log_name, "w", buffering=1, encoding="ascii") as log:
        for start in range(0, limit, BLOCK):
            while start not in waiting:
                block, count, name = found.get()
                waiting[block] = (count, name)
            count, name = waiting.pop(start)
            total += count
            log.write(f"below {start + BLOCK:9,}: {total:7,} primes   (this block by {name})\n")
        for worker in workers:
            worker.join()
        log.write(f"done: {total:,} primes below {limit:,}\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
