"""A Python parent gives numbered jobs to four forked workers over pipes; every result comes back once, in order."""

from __future__ import annotations

import hashlib
import os
import select
import struct
import sys

WORKERS = 4
AHEAD = 6
ROUNDS = 1000
failures: list[str] = []


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def check(condition: bool, what: str) -> None:
    if not condition:
        failures.append(what)
        say(f"FAIL: {what}")


def result_of(job: int) -> str:
    value = str(job).encode()
    for _ in range(ROUNDS):
        value = hashlib.sha256(value).digest()
    return value.hex()


def lines_of(descriptor: int, rest: bytes) -> tuple[list[str], bytes]:
    """The whole lines that are there, and the beginning of the next; an empty list at the end of the file."""
    data = os.read(descriptor, 65536)
    *whole, rest = (rest + data).split(b"\n")
    return [line.decode() for line in whole], rest


def work(jobs: int, results: int, parent: int) -> int:
    """In a worker: answer jobs, in order, until there are none.  Jobs of one worker have consecutive numbers."""
    rest, expected = b"", 0
    while select.select([jobs], [], []):
        lines, rest = lines_of(jobs, rest)
        if not lines and not rest:
            break
        for line in lines:
            check(int(line) == expected, f"job {line} came, not {expected}")
            check(os.getppid() == parent, f"the parent is {os.getppid()}, not {parent}")
            expected += 1
            os.write(results, f"{line} {result_of(int(line) % 50)}\n".encode())
    return bool(failures)


class Worker:
    """What the parent knows of one."""

    def __init__(self, others: list[Worker]) -> None:
        job_reader, self.jobs = os.pipe()
        self.results, result_writer = os.pipe()
        self.sent = self.received = 0
        self.rest = b""
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            for other in (*others, self):
                os.close(other.jobs)
                os.close(other.results)
            status = 1
            try:
                status = work(job_reader, result_writer, parent)
            except BaseException as error:
                check(False, f"worker died: {error!r}")
                raise
            finally:
                os._exit(status)
        os.close(job_reader)
        os.close(result_writer)

    def give(self) -> None:
        while self.sent - self.received < AHEAD:
            os.write(self.jobs, f"{self.sent}\n".encode())
            self.sent += 1

    def take(self) -> int:
        lines, self.rest = lines_of(self.results, self.rest)
        check(bool(lines) or bool(self.rest), f"worker {self.pid} has closed its pipe")
        for line in lines:
            number, _, result = line.partition(" ")
            check(int(number) == self.received, f"result {number} came, not {self.received}")
            check(result == EXPECTED[int(number) % 50], f"result {number} is wrong")
            self.received += 1
        return len(lines)


EXPECTED = [result_of(job) for job in range(50)]


def main() -> int:
    beat = os.open("beat", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    workers: list[Worker] = []
    for _ in range(WORKERS):
        workers.append(Worker(workers))
    by_pipe = {worker.results: worker for worker in workers}
    total, stopping = 0, False
    say("ready")
    while not failures and not (stopping and all(worker.sent == worker.received for worker in workers)):
        stopping = stopping or os.path.exists("go")
        if not stopping:
            for worker in workers:
                worker.give()
        for pipe in select.select(list(by_pipe), [], [], 0.1)[0]:
            total += by_pipe[pipe].take()
        os.pwrite(beat, struct.pack("<q", total), 0)
    check(total == sum(worker.sent for worker in workers), f"{total} results")
    for worker in workers:
        os.close(worker.jobs)
        pid, status = os.waitpid(worker.pid, 0)
        check((pid, status) == (worker.pid, 0), f"worker {worker.pid} ended with status {status}")
        check(not os.read(worker.results, 1), "results are left")
    if not failures:
        say("PASS")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
