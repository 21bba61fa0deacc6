"""The workers: how many there are, what they survive, and how they end."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from natsync.core.dispatcher import Dispatcher
from natsync.core.threads import ClientThread, on_thread_of
from tests.support.waiting import Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = 0.05


@pytest.fixture
def make() -> Iterator[Callable[[int], Dispatcher]]:
    made: list[Dispatcher] = []

    def make(most: int) -> Dispatcher:
        made.append(Dispatcher(object(), "test", most))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.stop()
        join(dispatcher)


def join(dispatcher: Dispatcher) -> None:
    for thread in dispatcher.threads:
        thread.join(10)
        assert not thread.is_alive()


def test_there_is_no_worker_before_one_is_wanted(make: Callable[[int], Dispatcher]):
    dispatcher = make(8)
    done = Recorder()
    dispatcher.submit(lambda: done(1))
    assert dispatcher.has_waiting
    assert dispatcher.threads == []
    never(lambda: done.items, PAUSE)
    dispatcher.add(1)
    done.wait_for(1)
    eventually(lambda: not dispatcher.has_waiting)


@pytest.mark.parametrize(
    "most, steps, threads",
    [
        (8, [1], 1),
        (8, [1, 1, 4], 6),
        (8, [5, 5], 8),
        (1, [1, 1], 1),
        (2, [99], 2),
        (2, [0], 0),
    ],
)
def test_workers_are_added_up_to_the_limit(
    make: Callable[[int], Dispatcher], most: int, steps: list[int], threads: int
):
    dispatcher = make(most)
    for count in steps:
        dispatcher.add(count)
    assert [thread.name for thread in dispatcher.threads] == [
        f"natsync-test-worker-{number}" for number in range(1, threads + 1)
    ]
    assert all(thread.daemon and thread.is_alive() for thread in dispatcher.threads)


def test_subscriptions_made_at_once_each_bring_their_workers(make: Callable[[int], Dispatcher], switching: None):
    """Or one of them would wait for the callback of another."""
    for _ in range(30):
        dispatcher = make(8)
        barrier = threading.Barrier(4, timeout=10)

        def subscribe(dispatcher: Dispatcher = dispatcher, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            dispatcher.add(1)

        threads = [threading.Thread(target=subscribe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(dispatcher.threads) == 4
        dispatcher.stop()


def test_futures_bring_one_worker_of_their_own(make: Callable[[int], Dispatcher]):
    """Or a callback of a subscription that waits for a future would wait for itself."""
    dispatcher = make(8)
    dispatcher.add(1)
    dispatcher.add_for_futures()
    dispatcher.add_for_futures()
    assert len(dispatcher.threads) == 2


def test_one_worker_keeps_the_order(make: Callable[[int], Dispatcher]):
    dispatcher = make(1)
    done = Recorder()
    for number in range(100):
        dispatcher.submit(lambda number=number: done(number))  # type: ignore[misc]
    dispatcher.add(1)
    assert done.wait_for(100) == list(range(100))


def test_several_workers_run_at_once(make: Callable[[int], Dispatcher]):
    dispatcher = make(3)
    together = threading.Barrier(4, timeout=10)

    def meet() -> None:
        together.wait()

    for _ in range(3):
        dispatcher.submit(meet)
    dispatcher.add(3)
    together.wait()


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(1), KeyboardInterrupt()])
def test_a_job_that_fails_is_logged_and_costs_no_worker(
    make: Callable[[int], Dispatcher], caplog: pytest.LogCaptureFixture, error: BaseException
):
    dispatcher = make(1)
    done = Recorder()

    def fail() -> None:
        raise error

    dispatcher.submit(fail)
    dispatcher.submit(lambda: done(1))
    with caplog.at_level(logging.ERROR, "natsync.dispatcher"):
        dispatcher.add(1)
        done.wait_for(1)
    assert type(error).__name__ in caplog.text
    assert dispatcher.threads[0].is_alive()


def test_a_job_knows_whose_thread_it_is_on(make: Callable[[int], Dispatcher]):
    dispatcher = make(1)
    owner = dispatcher._owner
    answers = Recorder()

    def job() -> None:
        answers(
            on_thread_of(owner), on_thread_of(object()), on_thread_of(owner, "worker-1"), on_thread_of(owner, "reader")
        )

    dispatcher.submit(job)
    dispatcher.add(1)
    assert answers.wait_for(1) == [(True, False, True, False)]
    assert not on_thread_of(owner)


# The end.


def test_stop_ends_idle_workers(make: Callable[[int], Dispatcher]):
    dispatcher = make(4)
    dispatcher.add(4)
    dispatcher.stop()
    join(dispatcher)
    dispatcher.add(8)
    assert len(dispatcher.threads) == 4, "none is started after the end"
    dispatcher.stop()


def test_stop_does_not_wait_for_a_job_and_the_worker_ends_after_it(make: Callable[[int], Dispatcher]):
    dispatcher = make(1)
    inside, go_on = threading.Event(), threading.Event()

    def job() -> None:
        inside.set()
        assert go_on.wait(10)

    dispatcher.submit(job)
    dispatcher.add(1)
    assert inside.wait(10)
    dispatcher.stop()
    assert dispatcher.threads[0].is_alive()
    go_on.set()
    join(dispatcher)


def test_what_was_queued_before_the_end_is_done_and_nothing_is_taken_after_it(make: Callable[[int], Dispatcher]):
    dispatcher = make(2)
    done = Recorder()
    for number in range(10):
        assert dispatcher.submit_if_open(lambda number=number: done(number))  # type: ignore[misc]
    dispatcher.add(2)
    dispatcher.stop()
    assert not dispatcher.submit_if_open(lambda: done(99))
    join(dispatcher)
    assert sorted(done.items) == list(range(10))


def test_what_is_taken_while_the_end_comes_is_done(make: Callable[[int], Dispatcher], switching: None):
    for _ in range(15):
        dispatcher = make(2)
        dispatcher.add(2)
        done = Recorder()
        taken: list[int] = []

        def submit(dispatcher: Dispatcher = dispatcher, done: Recorder = done, taken: list[int] = taken) -> None:
            for number in range(500):
                if not dispatcher.submit_if_open(partial(done, number)):
                    return
                taken.append(number)

        submitting = threading.Thread(target=submit)
        submitting.start()
        eventually(lambda taken=taken: taken)  # type: ignore[misc]
        dispatcher.stop()
        submitting.join(10)
        join(dispatcher)
        assert sorted(done.items) == taken


def test_stop_while_workers_are_being_started(make: Callable[[int], Dispatcher], switching: None):
    for _ in range(30):
        dispatcher = make(8)
        growing = threading.Thread(target=dispatcher.add, args=(8,))
        growing.start()
        dispatcher.stop()
        growing.join(10)
        assert not growing.is_alive()
        join(dispatcher)


def test_a_forked_worker_ends_after_its_job(make: Callable[[int], Dispatcher]):
    dispatcher = make(1)
    done = Recorder()

    def job() -> None:
        dispatcher.abandon()
        done(1)

    dispatcher.submit(job)
    dispatcher.submit(lambda: done(2))
    dispatcher.add(1)
    join(dispatcher)
    assert done.items == [1]


# A thread of natsync's.


def test_a_thread_that_fails_says_so(caplog: pytest.LogCaptureFixture):
    def fail() -> None:
        raise ValueError("oops")

    with caplog.at_level(logging.ERROR, "natsync.threads"):
        thread = ClientThread(object(), "test", "role", fail)
        thread.start()
        thread.join(10)
    assert "natsync-test-role" in caplog.text
    assert "oops" in caplog.text


def test_a_thread_that_has_ended_keeps_nothing_alive():
    """Its loop is a method of what started it."""
    thread = ClientThread(object(), "test", "role", lambda: None)
    thread.start()
    thread.join(10)
    assert not hasattr(thread, "_loop")
