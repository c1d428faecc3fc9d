"""Order and text of restore plans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criupy.errors import ImageError
from criupy.model.plan import (
    CLONE_PARENT,
    NURSERY,
    Data,
    Field,
    Out,
    Ref,
    RestorePlan,
    Stage,
    Step,
    StubPlan,
    TaskPlan,
    ThreadState,
    clone_args,
    data,
    order,
    path,
)


def test_steps_print_like_strace() -> None:
    opened = Ref("file", 2)
    step = Step(7, Stage.FILES, "openat", (-100, path(b"/etc/passwd"), 0x8000), gives=opened)
    assert str(step) == 'openat(-100, "/etc/passwd", 0x8000) = <file 0x2>'
    assert str(Step(7, Stage.FILES, "dup3", (opened, 3, 0))) == "dup3(<file 0x2>, 3, 0)"
    assert str(Step(7, Stage.FILES, "pipe2", (Out(Ref("pipe", 9), 8), 0))) == "pipe2(&<pipe 0x9>, 0)"
    assert str(Step(7, Stage.FILES, "close", (Field(Ref("pipe", 9), 4),))) == "close(<pipe 0x9>[4])"
    assert str(data(b"1234")) == "&[4 bytes]"
    assert str(Data((b"12", data(b"x", "&name")))) == "&[2 bytes, &name]"


def test_order_is_by_stage_then_by_needs() -> None:
    opened = Ref("file", 1)
    use = Step(1, Stage.FILES, "close", (opened,))
    give = Step(1, Stage.FILES, "open", gives=opened)
    late = Step(1, Stage.TIMERS, "setitimer")
    early = Step(2, Stage.FILES, "umask")
    assert order([late, use, early, give]) == (give, use, early, late)


def test_order_refuses_dangling_and_circular_needs() -> None:
    with pytest.raises(ImageError, match="nothing in the image set gives"):
        order([Step(1, Stage.FILES, "close", (Ref("file", 1),))])
    one, two = Ref("file", 1), Ref("file", 2)
    with pytest.raises(ImageError, match="wait for each other"):
        order([Step(1, Stage.FILES, "a", (one,), gives=two), Step(1, Stage.FILES, "b", (two,), gives=one)])


@given(st.permutations(range(30)))
def test_a_chain_comes_out_in_order_whatever_the_input_order(numbers: list[int]) -> None:
    chain = [
        Step(1, Stage.FILES, "call", (Ref("link", number - 1),) if number else (), gives=Ref("link", number))
        for number in range(30)
    ]
    assert order(chain[number] for number in numbers) == tuple(chain)


def test_a_long_plan_is_ordered_without_recursion() -> None:
    chain = [
        Step(1, Stage.FILES, "call", (Ref("l", n - 1),) if n else (), gives=Ref("l", n))
        for n in range(10_000)
    ]
    assert order(reversed(chain)) == tuple(chain)


def test_the_text_of_a_plan_holds_tree_steps_and_release() -> None:
    state = ThreadState(5, (0,) * 27, b"x" * 512, 0)
    birth = Step(NURSERY, Stage.TREE, "clone3", clone_args(CLONE_PARENT, 5), expect=5)
    task = TaskPlan(pid=5, threads=(state,))
    steps = order([Step(5, Stage.FILESYSTEM, "umask", (18,)), birth])
    plan = RestorePlan((task,), steps, StubPlan(0x10000))
    assert str(plan).splitlines() == [
        "tree        nursery  clone3({CLONE_PARENT, set_tid=5}, 88)",
        "filesystem        5  umask(18)",
        "resume            5  registers, 512 bytes of xstate, mask",
    ]
    assert [stage for stage, _ in plan.stages()] == [Stage.TREE, Stage.FILESYSTEM]
