"""Signals between threads: kept when they come early, never lost, and given in time."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync import locks
from natsync.locks import Latch, Milestone, Wakeup, acquire_within
from tests.support.waiting import never

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.conftest import Pool

PAUSE = 0.05


@pytest.fixture(params=[None, 0.01], ids=["", "sliced"])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleep as long as usual, and for moments only."""
    if request.param is not None:
        monkeypatch.setattr(locks, "_SLICE", request.param)


# Acquiring.


@pytest.mark.parametrize("timeout", [0, 0.001, 5, threading.TIMEOUT_MAX, 1e10, math.inf])
def test_a_free_lock_is_got_at_once(slices: None, timeout: float):
    lock = threading.Lock()
    assert acquire_within(lock, timeout)
    assert lock.locked()


@pytest.mark.parametrize("timeout", [0, 0.001, 0.015, 0.055])
def test_a_held_lock_is_not_got_and_the_wait_is_over_in_time(slices: None, timeout: float):
    lock = threading.Lock()
    lock.acquire()
    start = time.monotonic()
    assert not acquire_within(lock, timeout)
    assert timeout <= time.monotonic() - start < timeout + 1


def test_the_last_look_of_a_sliced_wait_finds_the_lock(monkeypatch: pytest.MonkeyPatch):
    """When time is over after a slice, the lock may just have come free."""
    monkeypatch.setattr(locks, "_SLICE", -1.0)
    assert acquire_within(threading.Lock(), 0.0)
    held = threading.Lock()
    held.acquire()
    assert not acquire_within(held, 0.0)


class SlowLock:
    """Is got at the third attempt; keeps how long each was willing to wait."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def acquire(self, *, timeout: float) -> bool:
        self.timeouts.append(timeout)
        return len(self.timeouts) == 3


@pytest.mark.parametrize("timeout", [30, 1e10, math.inf])
def test_the_main_thread_looks_for_signals_now_and_then(timeout: float):
    """One that comes while it falls asleep does not wake it."""
    lock: Any = SlowLock()
    assert acquire_within(lock, timeout)
    assert all(0 < each <= 1.0 for each in lock.timeouts)


@pytest.mark.parametrize("timeout, longest", [(30, 30), (math.inf, threading.TIMEOUT_MAX)])
def test_other_threads_sleep_on(pool: Pool, timeout: float, longest: float):
    lock: Any = SlowLock()
    assert not pool.submit(acquire_within, lock, timeout).result(10)
    assert lock.timeouts == [longest]


@pytest.mark.parametrize("timeout", [30, 1e10, math.inf])
def test_a_lock_that_comes_free_is_got(pool: Pool, slices: None, timeout: float):
    lock = threading.Lock()
    lock.acquire()
    waiting = pool.submit(acquire_within, lock, timeout)
    never(waiting.done, PAUSE)
    lock.release()
    assert waiting.result(10)


# Wakeup.


def test_a_wakeup_that_comes_first_is_kept():
    wakeup = Wakeup()
    wakeup.set()
    assert wakeup.wait(0)
    assert not wakeup.wait(0), "the wait consumes it"


def test_two_wakeups_before_a_wait_are_one():
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    assert wakeup.wait(0)
    assert not wakeup.wait(0)


def test_without_a_wakeup_the_wait_is_over_in_time():
    start = time.monotonic()
    assert not Wakeup().wait(0.05)
    assert 0.05 <= time.monotonic() - start < 1


@pytest.mark.parametrize("timeout", [30, math.inf])
def test_a_wakeup_ends_a_wait(pool: Pool, timeout: float):
    wakeup = Wakeup()
    waiting = pool.submit(wakeup.wait, timeout)
    never(waiting.done, PAUSE)
    wakeup.set()
    assert waiting.result(10)


def test_no_wakeup_is_lost(pool: Pool, slices: None, switching: None):
    """Each thread notes its news and sets; the waiter, which waits for ever, must in the end have seen all of them."""
    threads, each = 6, 500
    wakeup = Wakeup()
    news = [0] * threads
    finished = threading.Event()

    def report(index: int) -> None:
        for _ in range(each):
            news[index] += 1
            wakeup.set()

    def watch() -> None:
        while sum(news) < threads * each:
            wakeup.wait(math.inf)
        finished.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    list(pool.map(report, range(threads)))
    assert finished.wait(10)


def test_a_ping_pong_of_wakeups_loses_none(switching: None):
    here, there = Wakeup(), Wakeup()
    rounds = 2000

    def answer() -> None:
        for _ in range(rounds):
            here.wait(math.inf)
            there.set()

    answering = threading.Thread(target=answer, daemon=True)
    answering.start()
    for _ in range(rounds):
        here.set()
        assert there.wait(10)
    answering.join(10)


@pytest.mark.parametrize("timeout", [math.inf, 30])
def test_a_wait_can_be_ended_from_a_signal_handler(strike: Callable[[Callable[[], object]], None], timeout: float):
    """A Condition would deadlock there: the handler may strike while the waiter itself holds its lock."""
    wakeup = Wakeup()
    strike(wakeup.set)
    assert wakeup.wait(timeout)


@pytest.mark.parametrize("kind", [Wakeup, Latch, Milestone])
def test_a_wait_can_be_interrupted_as_by_ctrl_c(
    slices: None, strike: Callable[[Callable[[], object]], None], kind: type[Wakeup | Latch | Milestone]
):
    def interrupt() -> None:
        raise KeyboardInterrupt

    strike(interrupt)
    with pytest.raises(KeyboardInterrupt):
        kind().wait(math.inf)


# Latch.


def test_an_open_latch_lets_its_waiter_go():
    latch = Latch()
    assert not latch.wait(0)
    latch.open()
    latch.open()
    assert latch.wait(0)


def test_a_latch_ends_a_wait_after_the_facts_are_stored(switching: None):
    """Whoever is let go may read what was stored before, always."""
    answers: list[int] = []
    latches = [Latch() for _ in range(1000)]

    def give() -> None:
        for number, latch in enumerate(latches):
            answers.append(number)
            latch.open()

    giving = threading.Thread(target=give)
    giving.start()
    for number, latch in enumerate(latches):
        assert latch.wait(10)
        assert len(answers) > number
    giving.join(10)


def test_an_answer_and_a_loss_may_both_open_a_latch(pool: Pool, switching: None):
    for _ in range(300):
        latch = Latch()
        openings = [pool.submit(latch.open), pool.submit(latch.open)]
        assert latch.wait(10)
        for opening in openings:
            opening.result(10)


def test_a_closed_latch_is_waited_for_in_time():
    start = time.monotonic()
    assert not Latch().wait(0.05)
    assert 0.05 <= time.monotonic() - start < 1


# Milestone.


def test_an_open_milestone_lets_everybody_go():
    milestone = Milestone()
    assert [milestone.is_open, milestone.wait(0)] == [False, False]
    milestone.open()
    milestone.open()
    assert milestone.is_open
    assert milestone.wait(0)
    assert milestone.wait(math.inf)


def test_a_milestone_ends_all_waits(pool: Pool, slices: None):
    milestone = Milestone()
    waiting = [pool.submit(milestone.wait, timeout) for timeout in (30, math.inf, 30, math.inf)]
    never(lambda: any(each.done() for each in waiting), PAUSE)
    milestone.open()
    assert all(each.result(10) for each in waiting)


def test_a_gate_that_opens_just_now_is_not_missed(pool: Pool, switching: None):
    for _ in range(300):
        milestone = Milestone()
        waiting = [pool.submit(milestone.wait, math.inf) for _ in range(3)]
        milestone.open()
        assert all(each.result(10) for each in waiting)


def test_a_closed_gate_is_waited_for_in_time():
    start = time.monotonic()
    assert not Milestone().wait(0.05)
    assert 0.05 <= time.monotonic() - start < 1
