"""A thread that waits for a reply, and rounds: threads that wake one another instead of all at once."""

from __future__ import annotations

import itertools
import random
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from natsync.core.reply import ReplyWaiter, Round
from natsync.errors import ConnectionClosedError
from natsync.protocol.operations import MsgOp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import Pool


def op(number: int) -> MsgOp:
    return (1, "inbox", None, None, b"%d" % number)


def is_open(waiter: ReplyWaiter) -> bool:
    """Whether its thread has been told to go on, which `wait` alone does not say: it looks at the answer, too."""
    return waiter._latch is not None and not waiter._latch._lock.locked()


def asleep() -> ReplyWaiter:
    """One whose thread has begun to wait."""
    waiter = ReplyWaiter()
    assert not waiter.wait(0)
    return waiter


def answered(count: int) -> list[ReplyWaiter]:
    waiters = [asleep() for _ in range(count)]
    for number, waiter in enumerate(waiters):
        waiter.answer(op(number))
    return waiters


# One waiter.


def test_it_waits_until_its_time_is_over():
    waiter = ReplyWaiter()
    assert not waiter.wait(0.01)
    assert waiter.result() is None
    assert not waiter.answered


def test_a_reply_ends_the_wait(pool: Pool):
    waiter = ReplyWaiter()
    waiting = pool.submit(waiter.wait, 600)
    waiter.reply(op(7))
    assert waiting.result(10)
    assert waiter.result() == op(7)


def test_a_failure_ends_the_wait_and_is_raised(pool: Pool):
    waiter = ReplyWaiter()
    waiting = pool.submit(waiter.wait, 600)
    waiter.fail(ConnectionClosedError("closed"))
    assert waiting.result(10)
    with pytest.raises(ConnectionClosedError):
        waiter.result()


@pytest.mark.parametrize("make", [ReplyWaiter, asleep])
def test_an_answer_whose_thread_nobody_has_woken_is_seen_when_time_is_over(make: Callable[[], ReplyWaiter]):
    waiter = make()
    waiter.answer(op(7))
    assert not is_open(waiter)
    assert waiter.wait(0)
    assert waiter.result() == op(7)


def test_waiters_share_nothing():
    first, second = ReplyWaiter(), ReplyWaiter()
    first.reply(op(1))
    first.left = first.is_last = True
    first.token = "1"
    assert (second.answered, second.left, second.is_last, second.token, second.result()) == (False,) * 3 + ("", None)


# Rounds.


def test_each_wakes_the_next_when_it_runs():
    waiters = answered(3)
    Round(waiters)
    assert [is_open(each) for each in waiters] == [False, False, False]
    waiters[0].wake()
    assert [is_open(each) for each in waiters] == [True, False, False]
    waiters[0].leave()
    assert [is_open(each) for each in waiters] == [True, True, False]
    waiters[1].leave()
    assert [is_open(each) for each in waiters] == [True, True, True]
    waiters[2].leave()


def test_the_last_one_knows_that_it_is():
    waiters = answered(3)
    Round(waiters)
    assert [each.is_last for each in waiters] == [False, False, True]


@pytest.mark.parametrize("gone", [gone for count in range(1, 4) for gone in itertools.combinations(range(4), count)])
def test_those_who_have_left_are_passed_over(gone: tuple[int, ...]):
    """They ran out of time just when the reply came."""
    waiters = answered(4)
    for index in gone:
        waiters[index].leave()
    Round(waiters)
    waiters[0].wake()
    for index, waiter in enumerate(waiters):
        if index not in gone:
            assert is_open(waiter)
            waiter.leave()


def test_one_that_leaves_out_of_turn_wakes_the_next():
    waiters = answered(3)
    Round(waiters)
    waiters[1].leave()
    assert [is_open(each) for each in waiters] == [False, False, True]


def test_a_round_is_under_way_until_its_last_thread_has_left():
    waiters = answered(3)
    made = Round(waiters)
    made._ends_at += 600
    assert made.is_under_way
    waiters[0].leave()
    waiters[1].leave()
    assert made.is_under_way
    waiters[2].leave()
    assert not made.is_under_way


def test_a_round_whose_last_thread_left_before_it_began_is_none():
    waiters = answered(2)
    waiters[1].leave()
    made = Round(waiters)
    made._ends_at += 600
    assert not made.is_under_way


def test_a_round_that_takes_too_long_counts_no_more():
    made = Round(answered(2))
    made._ends_at = 0.0
    assert not made.is_under_way


def test_whoever_relies_on_the_last_thread_is_seen_by_it(pool: Pool, switching: None):
    """Who asks while the round is under way does not send; so the last one must see the question, and look after it."""
    for _ in range(300):
        waiters = answered(2)
        made = Round(waiters)
        made._ends_at += 600
        asked: list[int] = []

        def ask(made: Round = made, asked: list[int] = asked) -> bool:
            asked.append(1)
            return made.is_under_way

        def last(waiter: ReplyWaiter = waiters[1], asked: list[int] = asked) -> bool:
            waiter.leave()
            return waiter.is_last and bool(asked)

        relies, sends = pool.submit(ask), pool.submit(last)
        assert sends.result(10) or not relies.result(10)


class Ring:
    """Threads that each wait for a reply, for a time that may be too short."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self.waiters = [ReplyWaiter() for _ in range(count)]
        self.times = [chance.choice([0.0, 0.0001, 0.001, 60.0]) for _ in range(count)]
        self.chance = chance

    def ask(self, index: int) -> bool:
        waiter = self.waiters[index]
        came = waiter.wait(self.times[index])
        waiter.leave()
        return came

    def answer(self) -> None:
        for number, waiter in enumerate(self.waiters):
            waiter.answer(op(number))
        Round(self.waiters)
        self.waiters[0].wake()


def test_a_round_reaches_everybody_whoever_runs_out_of_time_meanwhile(pool: Pool, switching: None):
    chance = random.Random(5)
    for _ in range(60):
        ring = Ring(6, chance)
        waiting: list[Future[bool]] = [pool.submit(ring.ask, index) for index in range(6)]
        if chance.random() < 0.5:
            threading.Event().wait(0.0005)
        ring.answer()
        for index, task in enumerate(waiting):
            assert task.result(10) or ring.times[index] < 60, "a thread was never woken"
