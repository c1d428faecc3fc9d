"""Freezing and running batches inside of live programs: the target never notices, whenever criupy is killed.

``CRIUPY_TEST_KILLS`` sets how many random kills every program gets (default 40).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
import traceback
from pathlib import Path

import pytest
from harness.observe import Observation, assert_unharmed, mappings
from harness.target import wait_until

from criupy.errors import FreezeError, NoSuchTask, TraceeError
from criupy.tracee import blob
from criupy.tracee.batch import SyscallBatch
from criupy.tracee.freezer import freeze
from criupy.tracee.inject import run_batches
from criupy.tracee.space import SIGNATURE, Space

KILLS = int(os.environ.get("CRIUPY_TEST_KILLS", "40"))
PROGRAMS = ["tracee_blocked.c", "avx_threads.c", "py_threads.py", "go_workers.go"]
TOLERANT = "tracee_blocked.c eintr"
"""Killed between a stop and the correction of what the kernel then answers, criupy leaves an EINTR of the kernel."""
# Threads that block and unblock signals all the time are seen in the middle of it; so are counts of eventfds.
CHANGING = r"Sig(Blk|Pnd)|ShdPnd|fd \d+"


EVERY_SIGNAL = [signo.name[3:] for signo in signal.Signals if signo.name.startswith("SIG")]


def questions():
    """A batch that changes nothing."""
    batch = SyscallBatch()
    tid = batch.call("gettid")
    batch.call("sigaltstack", 0, batch.out(24))
    batch.call("close", 1_000_000, tolerate=True)
    batch.call("getitimer", 0, batch.out(32))
    return batch, tid


def ask_all(process):
    """Run `questions` in all threads and check the answers."""
    asked = {thread.tid: questions() for thread in process.threads}
    results = run_batches(process, {tid: batch for tid, (batch, _) in asked.items()})
    assert {tid: results[tid].check()[slot] for tid, (_, slot) in asked.items()} == {
        tid: tid for tid in asked
    }
    return results


def start_tracer(pid, hook, rounds=1_000_000):
    """Fork a tracer that asks all threads of ``pid``, again and again."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(rounds):
                with freeze(pid, step=hook) as process:
                    ask_all(process)
            status = 0
        except BaseException:  # noqa: BLE001 -- whatever it is, this process ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def killed_at(pid, number, also=lambda: None):
    """Let a tracer kill itself after its step ``number``; whether it came that far."""
    steps = iter(range(1_000_000))

    def hook(_):
        if next(steps) == number:
            also()
            os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(start_tracer(pid, hook, rounds=1), 0)
    assert status in (0, signal.SIGKILL), f"tracer ended with {status:#x}"
    return status != 0


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def vdso_of(pid):
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(start)
                return memory.read(end - start)
    raise AssertionError("no vdso")


@contextlib.contextmanager
def unharmed(process, ignore=CHANGING):
    """The target is what it was, and says itself that it is."""
    before, descriptors = Observation.of(process.pid), os.listdir(f"/proc/{process.pid}/fd")
    yield
    assert_unharmed(before, ignore=ignore)
    assert os.listdir(f"/proc/{process.pid}/fd") == descriptors
    process.ask()


def test_state_is_untouched(target):
    process = target("avx_threads.c")
    with freeze(process.pid) as frozen:
        before = [
            (bytes(t.regs()), t.xstate(), t.sigmask(), t.peek_siginfo(shared=False)) for t in frozen.threads
        ]
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        for _ in range(3):
            ask_all(frozen)
        for thread in frozen.threads:
            thread._regs = None  # ask the kernel, not the copy
        after = [
            (bytes(t.regs()), t.xstate(), t.sigmask(), t.peek_siginfo(shared=False)) for t in frozen.threads
        ]
        assert before == after
        assert Path(f"/proc/{process.pid}/maps").read_text() == maps
    process.expect_progress()
    process.ask()


def test_batch_in_one_thread_of_many(target):
    process = target("tracee_blocked.c")
    with unharmed(process), freeze(process.pid) as frozen:
        for thread in frozen.threads:
            batch, slot = questions()
            assert run_batches(frozen, {thread.tid: batch})[thread.tid][slot] == thread.tid


def test_failing_call_ends_the_batch(target):
    process = target("tracee_caught.py")
    with unharmed(process), freeze(process.pid) as frozen:
        batch = SyscallBatch()
        fine = batch.call("getpid")
        bad = batch.call("close", 1_000_000)
        never = batch.call("gettid")
        results = run_batches(frozen, {process.pid: batch})[process.pid]
        assert results[fine] == process.pid
        assert results.failed == bad
        with pytest.raises(TraceeError, match=r"close\(0xf4240\)") as caught:
            results[never]
        assert caught.value.errno == errno.EBADF


def test_a_call_may_use_what_others_answered(target):
    process = target("tracee_caught.py")
    with unharmed(process), freeze(process.pid) as frozen:
        batch = SyscallBatch()
        ends, text = batch.out(8), batch.out(16)
        batch.call("pipe2", ends, os.O_CLOEXEC)
        batch.call("write", batch.at(ends, 4, bits=32), batch.data(b"through a pipe"), 14)
        count = batch.call("read", batch.at(ends, 0, bits=32), text, 16)
        again = batch.call("dup", batch.at(ends, 0, bits=32))
        for fd in (batch.at(ends, 0, bits=32), batch.at(ends, 4, bits=32), again):
            batch.call("close", fd)
        results = run_batches(frozen, {process.pid: batch})[process.pid].check()
        assert (results[count], results.bytes(text)) == (14, b"through a pipe\0\0")


@pytest.mark.parametrize("program", PROGRAMS)
def test_blocked_and_running_threads_do_not_notice(target, program):
    process = target(program)
    for _ in range(30):
        with freeze(process.pid) as frozen:
            ask_all(frozen)
        time.sleep(random.random() * 0.03)
    process.expect_progress()
    process.ask()


@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("program", [TOLERANT, *PROGRAMS[1:]])
def test_random_kills(target, program):
    process = target(*program.split())
    vdso = vdso_of(process.pid)
    for _ in range(KILLS):
        child = start_tracer(process.pid, lambda _: None)
        time.sleep(random.random() * 0.06)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert status == signal.SIGKILL
        process.expect_no_failure()
    process.expect_progress()
    with freeze(process.pid) as frozen:  # cleans up
        ask_all(frozen)
    assert vdso_of(process.pid) == vdso
    assert "criupy" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.ask()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", [TOLERANT, "tracee_caught.py"])
def test_kill_after_every_step(target, program):
    process = target(*program.split())
    before = Observation.of(process.pid)
    number = 0
    while killed_at(process.pid, number):
        process.expect_no_failure()
        number += 1
    assert number > 15
    assert_unharmed(before, ignore=CHANGING)
    process.ask()


@pytest.mark.parametrize("call", ["read", "pause", "poll", "nanosleep", "epoll", "sigwait"])
def test_handler_still_ends_the_call(target, call):
    process = target("tracee_eintr.c", call)
    time.sleep(0.02)  # it blocks right after it said that it is ready
    with freeze(process.pid) as frozen:
        ask_all(frozen)
        os.kill(process.pid, signal.SIGUSR1)
        ask_all(frozen)
    wait_until("the handler has ended the call", lambda: "PASS" in process.log, timeout=5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", ["pause", "poll", "nanosleep", "epoll", "sigwait"])
def test_handler_still_ends_the_call_when_criupy_is_killed(target, call):
    def is_survived(number):
        process = target("tracee_eintr.c", call)
        time.sleep(0.02)
        if killed_at(process.pid, number, lambda: os.kill(process.pid, signal.SIGUSR1)):
            wait_until(f"step {number} of the tracer is survived", lambda: "PASS" in process.log, timeout=5)
            return True
        return False

    number = 0
    while is_survived(number):
        number += 1
    assert number > 15


def test_leftovers_are_found_and_removed(target):
    process = target(*TOLERANT.split())
    before = Observation.of(process.pid)
    clean = vdso_of(process.pid)
    with freeze(process.pid) as frozen:
        threads = len(frozen.threads)

    def leaves_everything():
        more = len(list(mappings(Path(f"/proc/{process.pid}")))) > len(before.facts["maps"])
        return more and SIGNATURE in vdso_of(process.pid)

    number = 2 * threads
    while not leaves_everything():
        assert killed_at(process.pid, number)
        number += 1
    assert killed_at(process.pid, number)  # in a run that has found something
    with freeze(process.pid):
        assert vdso_of(process.pid) == clean
    assert_unharmed(before, ignore=CHANGING)
    process.ask()


def test_stopped_process_stays_stopped(target):
    process = target(*TOLERANT.split())
    os.kill(process.pid, signal.SIGSTOP)
    wait_until("it is stopped", lambda: state_of(process.pid) == "T")
    with freeze(process.pid) as frozen:
        assert frozen.stopped_by == signal.SIGSTOP
        ask_all(frozen)
    wait_until("it is stopped again", lambda: state_of(process.pid) == "T")
    time.sleep(0.05)
    assert state_of(process.pid) == "T"
    for number in range(40, 400, 13):
        if not killed_at(process.pid, number):
            break
        wait_until("it is stopped again", lambda: state_of(process.pid) == "T")
    os.kill(process.pid, signal.SIGCONT)
    process.expect_progress()
    with freeze(process.pid) as frozen:
        assert frozen.stopped_by is None
        ask_all(frozen)
    process.ask()


def test_stop_signal_while_frozen(target):
    process = target("tracee_blocked.c")
    with freeze(process.pid) as frozen:
        os.kill(process.pid, signal.SIGSTOP)
        ask_all(frozen)
    wait_until("it is stopped", lambda: state_of(process.pid) == "T")
    os.kill(process.pid, signal.SIGCONT)
    process.expect_progress()
    process.ask()


def test_left_stopped(target):
    process = target("tracee_caught.py")
    with freeze(process.pid) as frozen:
        frozen.leave_stopped()
    wait_until("it is stopped", lambda: state_of(process.pid) == "T")
    os.kill(process.pid, signal.SIGCONT)
    process.ask()


def test_killed_at_the_end(target):
    process = target("avx_threads.c")
    with freeze(process.pid) as frozen:
        frozen.kill()
        assert state_of(process.pid) == "Z"
    process.wait_gone()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["caught=URG"],
        ["caught=URG,WINCH", "blocked=CHLD"],
        ["caught=URG,WINCH,CHLD"],
        ["blocked=URG,WINCH"],
    ],
)
def test_signals_to_meet_by(target, arguments):
    process = target("tracee_caught.py", *arguments)
    with unharmed(process), freeze(process.pid) as frozen:
        ask_all(frozen)


def test_all_signals_blocked(target):
    process = target("tracee_caught.py", "caught=URG", "blocked=" + ",".join(EVERY_SIGNAL))
    with unharmed(process), freeze(process.pid) as frozen:
        ask_all(frozen)


def test_seccomp_does_not_see_the_batch(target):
    process = target("tracee_seccomp.c")
    with freeze(process.pid) as frozen:
        filters = [thread.seccomp_filters() for thread in frozen.threads]
        assert [len(of_thread) for of_thread in filters] == [2, 1]
        assert all(
            len(program) % 8 == 0 and flags == 2 for of_thread in filters for program, flags in of_thread
        )
        ask_all(frozen)
    time.sleep(0.05)
    process.ask()


def test_threads_that_come_and_go(target):
    process = target("tracee_churn.c")
    for _ in range(40):
        with freeze(process.pid) as frozen:
            tids = {int(tid) for tid in os.listdir(f"/proc/{process.pid}/task")}
            assert {thread.tid for thread in frozen.threads} == tids
            ask_all(frozen)
    process.ask()


@pytest.mark.parametrize("environment", [{}, {"LEADERLESS": "1"}], ids=["by its leader", "by another thread"])
def test_program_that_executes_itself(environment, target):
    """Its threads die for that, and are seen to be dead by nobody but us: not to look at them is to wait for ever."""
    process = target("exec_storm.c", **environment)
    for _ in range(200):
        with freeze(process.pid, timeout=30) as frozen:
            assert frozen.threads
    process.expect_progress()
    process.ask()


def test_vfork_parent_is_waited_for(target):
    process = target("tracee_vfork.c", "700")
    with pytest.raises(FreezeError, match="vfork"), freeze(process.pid, timeout=0.1):
        pass
    with freeze(process.pid, timeout=5) as frozen:
        ask_all(frozen)
    process.ask()


def test_traced_by_somebody_else(target):
    process = target("tracee_caught.py")
    with freeze(process.pid):
        child = start_tracer(process.pid, lambda _: None, rounds=1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 1
    process.ask()


def test_foreign_tracer_is_named(target):
    process = target("tracee_caught.py")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with freeze(process.pid):
            os.write(write, b".")
            signal.pause()
    os.read(read, 1)
    try:
        with pytest.raises(FreezeError, match=f"traced by {child}"), freeze(process.pid):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
    process.ask()


def test_exception_inside_gives_all_threads_back(target):
    process = target("tracee_blocked.c")
    with unharmed(process), pytest.raises(KeyboardInterrupt), freeze(process.pid):
        raise KeyboardInterrupt


def test_batch_that_does_not_come_back(target):
    process = target("tracee_blocked.c")
    with unharmed(process), freeze(process.pid) as frozen:
        batch = SyscallBatch()
        batch.call("pause")
        batches = {thread.tid: questions()[0] for thread in frozen.threads} | {frozen.threads[2].tid: batch}
        with pytest.raises(FreezeError, match="did not stop in time"):
            run_batches(frozen, batches, timeout=0.3)
        with pytest.raises(FreezeError, match="did not stop in time"):
            run_batches(frozen, {frozen.threads[2].tid: batch}, timeout=0.3)
        ask_all(frozen)


def test_target_killed_while_frozen(target):
    process = target("tracee_blocked.c")
    with freeze(process.pid) as frozen:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TraceeError):
            ask_all(frozen)
    process.wait_gone()


def test_nobody_there():
    with pytest.raises(NoSuchTask), freeze(4_100_000):
        pass
    with pytest.raises(NoSuchTask), freeze(-1):
        pass


def test_stub_fits_the_vdso_of_this_machine(target):
    process = target("tracee_caught.py")
    assert len(vdso_of(process.pid).rstrip(b"\0")) + 2 * blob.STUB_END <= len(vdso_of(process.pid))


def test_without_a_vdso_that_has_room(target, monkeypatch):
    monkeypatch.setattr(Space, "_vdso_padding", lambda _: iter(()))
    process = target(*TOLERANT.split())
    with unharmed(process):
        for _ in range(3):
            with freeze(process.pid) as frozen:
                ask_all(frozen)
        assert killed_at(process.pid, 60)
        with freeze(process.pid) as frozen:
            ask_all(frozen)
        process.expect_progress()
