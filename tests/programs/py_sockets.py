"""asyncio and multiprocessing over unix sockets: clients of a server in another process, and a manager's dictionary.

Every number that is sent comes back once and in order, and every count is one more than the one before.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import struct
import sys
import threading
import time

CLIENTS = 3
ROUNDS = 200
failures: list[str] = []


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def check(condition: bool, what: str) -> None:
    if not condition:
        failures.append(what)
        say(f"FAIL: {what}")


def result_of(number: int) -> str:
    value = str(number).encode()
    for _ in range(ROUNDS):
        value = hashlib.sha256(value).digest()
    return value.hex()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        number = int(line)
        writer.write(f"{number} {result_of(number % 50)}\n".encode())
        await writer.drain()
    writer.close()


async def serve(ready: int) -> None:
    server = await asyncio.start_unix_server(answer, "server")
    os.write(ready, b"!")
    os.close(ready)
    await server.serve_forever()


async def ask(done: list[int], stopping: threading.Event) -> None:
    """A client: some numbers are always under way."""
    reader, writer = await asyncio.open_unix_connection("server")
    place = len(done)
    done.append(0)
    sent = 0
    while not failures and not (stopping.is_set() and sent == done[place]):
        while not stopping.is_set() and sent - done[place] < 5:
            writer.write(f"{sent}\n".encode())
            sent += 1
        if sent == done[place]:
            await asyncio.sleep(0)
            continue
        line = (await reader.readline()).decode()
        expected = f"{done[place]} {RESULTS[done[place] % 50]}\n"
        check(line == expected, f"{line!r} came, not {expected!r}")
        done[place] += 1
    writer.close()


def count(shared: dict[str, int], stopping: threading.Event) -> None:
    """In a thread: a dictionary in the manager's process counts."""
    expected = 0
    while not failures and not stopping.is_set():
        shared["count"] = shared["count"] + 1
        expected += 1
        check(shared["count"] == expected, f"the manager has {shared['count']}, not {expected}")


async def watch(done: list[int], stopping: threading.Event) -> None:
    beat = os.open("beat", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    while not failures and not os.path.exists("go"):  # noqa: ASYNC240 - it is asked a hundred times a second only
        os.pwrite(beat, struct.pack("<q", sum(done)), 0)
        await asyncio.sleep(0.01)
    stopping.set()


async def work(done: list[int], stopping: threading.Event) -> None:
    await asyncio.gather(watch(done, stopping), *(ask(done, stopping) for _ in range(CLIENTS)))


RESULTS = [result_of(number) for number in range(50)]


def main() -> int:
    os.environ["TMPDIR"] = os.getcwd()
    reader, writer = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(reader)
        asyncio.run(serve(writer))
        os._exit(0)
    os.close(writer)
    check(os.read(reader, 1) == b"!", "no server")
    os.close(reader)
    done: list[int] = []
    stopping = threading.Event()
    with multiprocessing.get_context("fork").Manager() as manager:
        shared = manager.dict(count=0)
        counting = threading.Thread(target=count, args=(shared, stopping))
        counting.start()
        time.sleep(0.1)
        say("ready")
        asyncio.run(work(done, stopping))
        counting.join()
        check(shared["count"] > 0, "the manager has not counted")
    check(len(done) == CLIENTS and min(done) > 0, f"a client has done nothing: {done}")
    os.kill(server, 15)
    check(os.waitpid(server, 0)[0] == server, "the server is gone")
    if not failures:
        say("PASS")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
