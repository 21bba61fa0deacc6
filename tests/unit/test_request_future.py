"""A reply as a future: completed by the reader, timed out by its own thread, watched by callbacks on workers."""

from __future__ import annotations

import concurrent.futures
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from natsync.core.dispatcher import Dispatcher
from natsync.core.mux import Mux, Waiter
from natsync.core.outbound import Outbound
from natsync.core.registry import Registry
from natsync.core.reply import ReplyWaiter
from natsync.core.request_future import FutureTimer, RequestFuture
from natsync.core.sink import size_of
from natsync.core.threads import ClientThread, on_thread_of
from natsync.errors import ConnectionClosedError, NatsError, NatsTimeoutError, NoRespondersError
from natsync.locks import Wakeup
from natsync.protocol.operations import MsgOp
from tests.support.waiting import Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.conftest import Pool

PAUSE = 0.05


def closed() -> NatsError:
    return ConnectionClosedError("closed")


def make_mux(kind: type[Mux] = Mux) -> Mux:
    outbound = Outbound(live_limit=1000, buffer_limit=1000, write_timeout=1, wakeup=Wakeup())
    return kind(Registry(outbound), "_INBOX")


class Bench:
    """A mux, a timer and workers, with threads where a test wants them."""

    def __init__(self, mux: Mux | None = None) -> None:
        self.owner = object()
        self.mux = mux or make_mux()
        self.dispatcher = Dispatcher(self.owner, "test", 4)
        self.timer = FutureTimer(self.owner, "test", self.mux)
        self.read_for = Recorder()

    def push_and_read_for(self, waiter: RequestFuture, patience: float) -> None:
        """Note who would read for itself; the replies of these tests come by no socket."""
        self.read_for(waiter, patience)

    def ask(self, timeout: float = 10.0, *, timed: bool = True) -> RequestFuture:
        future = RequestFuture(self, "foo", timeout, None)
        if timed:
            self.timer.add(future)
        return future

    def answer(self, future: RequestFuture, data: bytes = b"answer", block: bytes | None = None) -> None:
        """Do as the reader does."""
        operation: MsgOp = (1, future.inbox.decode(), None, block, data)
        self.mux.deliver([operation], size_of(operation))

    def close(self) -> None:
        self.timer.stop()
        self.dispatcher.stop()
        for thread in (self.timer.thread, *self.dispatcher.threads):
            if thread.ident is not None:
                thread.join(10)
                assert not thread.is_alive()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


# Completing.


def test_a_drain_waits_for_it(bench: Bench):
    future = bench.ask(timed=False)
    assert future.is_awaited(threading.get_ident())
    future.cancel()


def test_a_reply_is_the_result(bench: Bench):
    future = bench.ask(timed=False)
    assert not future.done()
    bench.answer(future)
    msg = future.result(0)
    assert (msg.data, msg.subscription) == (b"answer", None)
    assert not bench.mux.waiters()


def test_nobody_listens(bench: Bench):
    future = bench.ask(timed=False)
    bench.answer(future, b"", b"NATS/1.0 503\r\n\r\n")
    with pytest.raises(NoRespondersError) as caught:
        future.result(0)
    assert caught.value.subject == "foo"


def test_the_end_of_the_client_fails_it(bench: Bench):
    future = bench.ask(timed=False)
    bench.mux.fail_all(closed)
    assert isinstance(future.exception(0), ConnectionClosedError)


def test_only_the_first_reply_counts(bench: Bench, caplog: pytest.LogCaptureFixture):
    future = bench.ask(timed=False)
    bench.answer(future, b"1")
    bench.answer(future, b"2")
    future.expire()
    bench.mux.fail_all(closed)
    assert future.result(0).data == b"1"
    assert not caplog.records


# Time.


def test_without_a_reply_it_fails_in_time(bench: Bench):
    start = time.monotonic()
    future = bench.ask(0.05)
    error = future.exception(10)
    assert isinstance(error, NatsTimeoutError)
    assert "no reply from 'foo' within 0.05 s" in str(error)
    assert error.timeout == 0.05
    assert 0.05 <= time.monotonic() - start < 2
    bench.answer(future)
    assert future.exception(0) is error, "a late reply changes nothing"
    assert not bench.mux.waiters()


def test_an_earlier_one_that_comes_later_is_timed_out_first(bench: Bench):
    late = bench.ask(600)
    early = bench.ask(0.05)
    assert isinstance(early.exception(10), NatsTimeoutError)
    assert not late.done()
    another = bench.ask(0.05)
    assert isinstance(another.exception(10), NatsTimeoutError)
    assert not late.done()
    late.cancel()


def test_each_is_timed_out_at_its_own_time(bench: Bench):
    start = time.monotonic()
    futures = [bench.ask(timeout) for timeout in (0.15, 0.05, 0.1, 0.05)]
    completed = concurrent.futures.as_completed(futures, 10)
    order = [(futures.index(future), time.monotonic() - start) for future in completed]  # type: ignore[arg-type]
    assert [index for index, _ in order][2:] == [2, 0]
    assert all(at >= (futures[index].timeout or 0) for index, at in order)


def test_who_waits_for_replies_in_other_ways_is_no_business_of_the_timer(bench: Bench):
    waiter = ReplyWaiter()
    bench.mux.enter(waiter)
    assert isinstance(bench.ask(0.02).exception(10), NatsTimeoutError)
    assert bench.mux.waiters() == [waiter]


def test_a_future_without_a_limit_is_never_timed_out(bench: Bench):
    future = bench.ask(math.inf)
    assert isinstance(bench.ask(0.02).exception(10), NatsTimeoutError)
    assert not future.done()
    future.cancel()


def test_the_timer_has_no_thread_before_the_first_future_and_ends(bench: Bench):
    assert bench.timer.thread.ident is None
    future = bench.ask(600)
    assert bench.timer.thread.is_alive()
    bench.timer.stop()
    bench.timer.thread.join(10)
    assert not bench.timer.thread.is_alive()
    future.cancel()


class EagerMux(Mux):
    """A mux in which time passes while a future is being entered, and another thread looks just then."""

    look: Callable[[], None] | None = None

    def enter(self, waiter: Waiter) -> bytes:
        entered = super().enter(waiter)
        if self.look is not None:
            looking = ClientThread(object(), "test", "look", self.look)
            looking.start()
            looking.join(10)
        return entered


def test_the_timer_copes_with_a_future_that_is_just_being_made(caplog: pytest.LogCaptureFixture):
    """Its time may be over before its maker runs on; the timer must not die of it, nor leave it waiting for ever."""
    mux = make_mux(EagerMux)
    assert isinstance(mux, EagerMux)
    bench = Bench(mux)
    mux.look = bench.timer._sweep
    future = bench.ask(1e-9)
    mux.look = None
    assert isinstance(future.exception(5), NatsTimeoutError)
    assert not caplog.records
    bench.close()


# Giving up.


def test_a_cancelled_one_is_forgotten(bench: Bench):
    future = bench.ask(timed=False)
    assert future.cancel()
    assert future.cancel()
    assert not bench.mux.waiters()
    bench.answer(future)
    future.expire()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)


def test_a_cancelled_one_ends_a_wait_for_all(bench: Bench):
    answered, cancelled = bench.ask(), bench.ask()
    bench.answer(answered)
    cancelled.cancel()
    done, not_done = concurrent.futures.wait([answered, cancelled], 5)
    assert done == {answered, cancelled}
    assert not not_done


def test_a_wait_under_way_ends_with_the_cancelling(bench: Bench):
    future = bench.ask()
    waiting = threading.Thread(target=concurrent.futures.wait, args=([future],), daemon=True)
    waiting.start()
    eventually(lambda: future._waiters)
    future.cancel()
    waiting.join(5)
    assert not waiting.is_alive()


def test_what_is_done_cannot_be_cancelled(bench: Bench):
    future = bench.ask(timed=False)
    bench.answer(future)
    assert not future.cancel()
    assert future.result(0).data == b"answer"


def test_reply_timeout_cancel_and_close_exclude_each_other(
    pool: Pool, bench: Bench, switching: None, caplog: pytest.LogCaptureFixture
):
    for _ in range(300):
        future = bench.ask(timed=False)
        tasks: list[concurrent.futures.Future[Any]] = [
            pool.submit(bench.answer, future),
            pool.submit(future.expire),
            pool.submit(future.cancel),
            pool.submit(bench.mux.fail_all, closed),
        ]
        concurrent.futures.wait(tasks, 10)
        for task in tasks:
            task.result(0)
        assert concurrent.futures.wait([future], 10).done == {future}
        if tasks[2].result():
            assert future.cancelled()
    assert not caplog.records


# Callbacks.


def test_callbacks_run_on_a_worker_never_on_the_reader(bench: Bench):
    future = bench.ask()
    seen = Recorder()
    future.add_done_callback(lambda done: seen(done, on_thread_of(bench.owner), threading.current_thread().name))
    bench.answer(future)
    assert seen.wait_for(1) == [(future, True, "natsync-test-worker-1")]


def test_a_callback_that_blocks_does_not_block_the_reader(bench: Bench):
    future, other = bench.ask(), bench.ask()
    go_on = threading.Event()
    future.add_done_callback(lambda done: go_on.wait(10))
    bench.answer(future)
    bench.answer(other)
    assert other.result(0).data == b"answer"
    go_on.set()


@pytest.mark.parametrize("end", ["answer", "expire", "cancel", "fail_all"])
def test_every_end_calls_back_once(bench: Bench, end: str):
    future = bench.ask(timed=False)
    seen = Recorder()
    for _ in range(3):
        future.add_done_callback(seen)
    if end == "answer":
        bench.answer(future)
    elif end == "fail_all":
        bench.mux.fail_all(closed)
    else:
        getattr(future, end)()
    assert seen.wait_for(3) == [future] * 3
    never(lambda: len(seen) > 3, PAUSE)
    future.add_done_callback(seen)
    seen.wait_for(4)


def test_the_end_of_the_client_still_calls_back(bench: Bench):
    """All of them: something that waits for a callback would wait for ever."""
    futures = [bench.ask() for _ in range(20)]
    seen = Recorder()
    for future in futures:
        future.add_done_callback(seen)
    bench.mux.fail_all(closed)
    bench.close()
    assert set(seen.items) == set(futures)


def test_after_the_end_a_callback_is_called_at_once(bench: Bench):
    future, pending = bench.ask(), bench.ask()
    bench.answer(future)
    seen = Recorder()
    pending.add_done_callback(seen)
    bench.close()
    future.add_done_callback(seen)
    assert seen.items == [future]
    pending.cancel()
    assert seen.items == [future, pending]


def test_a_callback_that_raises_is_logged_and_the_next_one_called(bench: Bench, caplog: pytest.LogCaptureFixture):
    future = bench.ask()
    seen = Recorder()

    def fail(done: object) -> None:
        raise ValueError("oops")

    future.add_done_callback(fail)
    future.add_done_callback(seen)
    with caplog.at_level(logging.ERROR):
        bench.answer(future)
        seen.wait_for(1)
    assert "oops" in caplog.text
    assert "report it" not in caplog.text, "it is the user's, not natsync's"
