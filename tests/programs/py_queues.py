"""Workers of multiprocessing with a queue and a semaphore, which are deleted files in /dev/shm that all map."""

import multiprocessing
import struct
import sys
import time
from pathlib import Path


def work(tasks: "multiprocessing.Queue[int]", results: "multiprocessing.Queue[int]", at_once) -> None:
    while (number := tasks.get()) >= 0:
        with at_once:
            results.put(number * number)


def main() -> None:
    context = multiprocessing.get_context("fork")
    tasks, results, at_once = context.Queue(), context.Queue(), context.BoundedSemaphore(2)
    workers = [context.Process(target=work, args=(tasks, results, at_once)) for _ in range(3)]
    for worker in workers:
        worker.start()
    done = 0
    with Path("beat").open("wb", buffering=0) as beat:
        while done < 20 or not Path("go").exists():
            for number in range(20):
                tasks.put(done * 20 + number)
            found = sorted(results.get() for _ in range(20))
            if found != [(done * 20 + number) ** 2 for number in range(20)]:
                print(f"FAIL: {found}", file=sys.stderr, flush=True)
            done += 1
            beat.seek(0)
            beat.write(struct.pack("<q", done))
            if done == 5:
                print("ready", file=sys.stderr, flush=True)
            time.sleep(0.005)
    for _ in workers:
        tasks.put(-1)
    for worker in workers:
        worker.join()
    left = [worker.exitcode for worker in workers]
    print("PASS" if left == [0, 0, 0] else f"FAIL: {left}", file=sys.stderr, flush=True)


main()
