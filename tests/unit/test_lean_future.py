"""A future whose condition is made when it is needed: to its users it is the standard one."""

from __future__ import annotations

import concurrent.futures
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, Future
from typing import TYPE_CHECKING

import pytest

from natsync.core.lean_future import LeanFuture

if TYPE_CHECKING:
    from tests.unit.conftest import Pool

KINDS = [Future, LeanFuture]
LONG = 10.0


def make(kind: type[Future[int]]) -> Future[int]:
    return kind()


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_there_before_anybody_waits(kind: type[Future[int]]):
    future = make(kind)
    future.set_result(7)
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()
    assert future.result() == future.result(0) == 7
    assert future.exception(0) is None
    assert "finished" in repr(future)


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_somebody_waits_for(kind: type[Future[int]], pool: Pool):
    future = make(kind)
    waiting = [pool.submit(future.result, LONG) for _ in range(3)]
    assert not future.done()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    future.set_result(7)
    assert [each.result(LONG) for each in waiting] == [7, 7, 7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("looked_at", [False, True])
def test_a_failure(kind: type[Future[int]], looked_at: bool):
    future = make(kind)
    if looked_at:
        assert not future.done()
    future.set_exception(KeyError("no"))
    assert future.done()
    assert isinstance(future.exception(0), KeyError)
    with pytest.raises(KeyError):
        future.result(0)


@pytest.mark.parametrize("kind", KINDS)
def test_cancelling(kind: type[Future[int]]):
    future = make(kind)
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    with pytest.raises(CancelledError):
        future.result(0)


@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_before_and_after(kind: type[Future[int]]):
    future = make(kind)
    called: list[tuple[str, int]] = []
    future.add_done_callback(lambda done: called.append(("before", done.result(0))))
    future.set_result(7)
    future.add_done_callback(lambda done: called.append(("after", done.result(0))))
    assert called == [("before", 7), ("after", 7)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_what_a_future_has(kind: type[Future[int]]):
    with pytest.raises(AttributeError, match="nothing"):
        getattr(make(kind), "nothing")  # noqa: B009


@pytest.mark.parametrize("when", [ALL_COMPLETED, FIRST_COMPLETED])
def test_waiting_for_many_of_which_some_are_done(pool: Pool, when: str):
    done: LeanFuture[int] = LeanFuture()
    done.set_result(1)
    pending: LeanFuture[int] = LeanFuture()
    waiting = pool.submit(concurrent.futures.wait, [done, pending], LONG, when)
    if when == ALL_COMPLETED:
        pending.set_result(2)
    assert done in waiting.result(LONG).done
    assert (pending in waiting.result(LONG).done) is (when == ALL_COMPLETED)


@pytest.mark.usefixtures("switching")
def test_whoever_comes_first_nobody_waits_for_ever_or_goes_too_early(pool: Pool):
    """One thread completes futures while others begin to wait, for each and for all, and add callbacks."""
    for _ in range(300):
        futures: list[LeanFuture[int]] = [LeanFuture() for _ in range(8)]
        start = threading.Barrier(4)
        called: list[int] = []

        def complete(futures: list[LeanFuture[int]] = futures, start: threading.Barrier = start) -> None:
            start.wait(LONG)
            for number, future in enumerate(futures):
                future.set_result(number)

        def wait_all(futures: list[LeanFuture[int]] = futures, start: threading.Barrier = start) -> bool:
            start.wait(LONG)
            return len(concurrent.futures.wait(futures, LONG).done) == 8 and all(future.done() for future in futures)

        def wait_each(futures: list[LeanFuture[int]] = futures, start: threading.Barrier = start) -> list[int]:
            start.wait(LONG)
            return [future.result(LONG) for future in reversed(futures)]

        def call(
            futures: list[LeanFuture[int]] = futures, start: threading.Barrier = start, called: list[int] = called
        ) -> None:
            start.wait(LONG)
            for future in futures:
                future.add_done_callback(lambda done: called.append(done.result(0)))

        working = [pool.submit(each) for each in (complete, wait_all, wait_each, call)]
        results = [each.result(2 * LONG) for each in working]
        assert results[1:3] == [True, list(range(7, -1, -1))]
        assert sorted(called) == list(range(8))
