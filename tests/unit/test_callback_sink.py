"""Subscriptions with a callback: order, concurrency, exact counting while callbacks run, ending in the middle.

Most tests have a dispatcher without threads, and run its jobs by hand, step by step.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from natsync.core.callback_sink import CallbackSink
from natsync.core.dispatcher import Dispatcher
from natsync.core.handler import make_handler
from natsync.core.sink import Turn, size_of
from natsync.errors import BadSubscriptionError, NatsError
from natsync.locks import Wakeup
from natsync.policy.options import make_options
from natsync.protocol.operations import MsgOp
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PAUSE = 0.05
TURN = 4096
SLICE = 128


def op(number: int = 0, size: int = 10) -> MsgOp:
    return (1, str(number), None, None, b"x" * size)


def ops(count: int, start: int = 0, size: int = 10) -> list[MsgOp]:
    return [op(number, size) for number in range(start, start + count)]


def deliver(sink: CallbackSink, *batch: MsgOp) -> None:
    sink.deliver(list(batch), sum(map(size_of, batch)))


def gone() -> NatsError:
    return BadSubscriptionError("gone")


def number_of(operation: MsgOp) -> int:
    return int(operation[1])


def note(handled: list[int], operation: MsgOp) -> None:
    handled.append(number_of(operation))


@pytest.fixture
def dispatcher() -> Dispatcher:
    """A dispatcher without threads."""
    return Dispatcher(object(), "test", 8)


@pytest.fixture
def running() -> Iterator[Callable[[int], Dispatcher]]:
    """Make dispatchers with running workers."""
    made: list[Dispatcher] = []

    def make(workers: int) -> Dispatcher:
        made.append(Dispatcher(object(), "test", workers))
        made[-1].add(workers)
        return made[-1]

    yield make
    for each in made:
        each.stop()
        for thread in each.threads:
            thread.join(10)
            assert not thread.is_alive()


def one_by_one(handle: Callable[[MsgOp], object]) -> Callable[[Iterable[MsgOp], Turn], None]:
    """Make of a function for one message what a worker calls with many."""

    def handle_all(operations: Iterable[MsgOp], turn: Turn) -> None:
        for operation in operations:
            handle(operation)
            turn.done += 1

    return handle_all


def make_sink(
    dispatcher: Dispatcher,
    handle: Callable[[MsgOp], object] | None = None,
    *,
    workers: int = 1,
    msgs: int = -1,
    size: int = -1,
    max_msgs: int | None = None,
) -> CallbackSink:
    sink = CallbackSink(
        1, "s", None, dispatcher=dispatcher, workers=workers, msgs_limit=msgs, bytes_limit=size, max_msgs=max_msgs
    )
    if handle is not None:
        sink.handle = one_by_one(handle)
    return sink


def has_ended(sink: CallbackSink) -> bool:
    """Look; through a call, because mypy takes an attribute for unchanged."""
    return sink.has_ended


def jobs(dispatcher: Dispatcher) -> int:
    return dispatcher._jobs.qsize()


def run_one(dispatcher: Dispatcher) -> None:
    """Do what a worker does with its next job."""
    job = dispatcher._jobs.get_nowait()
    assert job is not None
    job()


def run_all(dispatcher: Dispatcher) -> None:
    while jobs(dispatcher):
        run_one(dispatcher)


# Handing over.


def test_a_batch_is_one_job_and_further_ones_join_it(dispatcher: Dispatcher):
    handled = Recorder()
    sink = make_sink(dispatcher, lambda operation: handled(number_of(operation)))
    deliver(sink, *ops(3))
    deliver(sink, *ops(2, 3))
    assert jobs(dispatcher) == 1
    assert handled.items == [], "the reader runs no user code"
    run_one(dispatcher)
    assert handled.items == [0, 1, 2, 3, 4]
    assert jobs(dispatcher) == 0
    deliver(sink, op(5))
    run_one(dispatcher)
    assert handled.items[-1] == 5


def test_what_comes_during_a_callback_follows_it(dispatcher: Dispatcher):
    handled: list[int] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) < 4:
            deliver(sink, op(len(handled)))

    sink = make_sink(dispatcher, handle)
    deliver(sink, op(0))
    run_all(dispatcher)
    assert handled == [0, 1, 2, 3]
    assert (sink.pending_msgs, sink.delivered) == (0, 4)


@pytest.mark.parametrize("count", [1, SLICE - 1, SLICE, SLICE + 1, TURN - 1, TURN, TURN + 1, 2 * TURN + SLICE + 1])
def test_order_holds_over_slices_and_turns(dispatcher: Dispatcher, count: int):
    handled: list[int] = []
    pending: list[int] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) in (1, count // 2, count):
            pending.append(sink.pending_msgs)

    sink = make_sink(dispatcher, handle)
    deliver(sink, *ops(count))
    assert sink.pending_bytes == count * 10
    run_all(dispatcher)
    assert handled == list(range(count))
    assert pending[-1] == 1
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, count)


def test_a_long_turn_lets_others_go_first(dispatcher: Dispatcher):
    order: list[str] = []
    busy = make_sink(dispatcher, lambda operation: order.append("busy"))
    other = make_sink(dispatcher, lambda operation: order.append("other"))
    deliver(busy, *ops(1000))
    deliver(other, op())
    run_one(dispatcher)
    run_one(dispatcher)
    assert order.index("other") == SLICE
    run_all(dispatcher)
    assert order.count("busy") == 1000
    assert (busy.pending_msgs, busy.delivered) == (0, 1000)


def test_a_flood_of_short_turns_lets_others_go_first(dispatcher: Dispatcher):
    """A subscription that gets its next message during each callback never ends its turn of work by itself."""
    order: list[str] = []

    def handle(operation: MsgOp) -> None:
        order.append("flood")
        if len(order) < 1000:
            deliver(flood, op())

    flood = make_sink(dispatcher, handle)
    other = make_sink(dispatcher, lambda operation: order.append("other"))
    deliver(flood, op())
    deliver(other, op())
    run_one(dispatcher)
    run_one(dispatcher)
    assert order.index("other") <= SLICE


def test_a_sink_without_its_handler_is_a_bug(dispatcher: Dispatcher):
    deliver(make_sink(dispatcher), op())
    with pytest.raises(AssertionError, match="without its handler"):
        run_one(dispatcher)


# Exact counting.


def test_pending_includes_the_message_whose_callback_runs(dispatcher: Dispatcher):
    seen: list[tuple[int, int, int]] = []
    sink = make_sink(dispatcher, lambda operation: seen.append((sink.pending_msgs, sink.pending_bytes, sink.delivered)))
    deliver(sink, op(0, 1), op(1, 10), op(2, 100))
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (3, 111, 0)
    run_all(dispatcher)
    assert seen == [(3, 111, 1), (2, 110, 2), (1, 100, 3)]
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, 3)


@pytest.mark.parametrize("limits", [{"msgs": 2}, {"size": 20}])
def test_the_limit_counts_the_message_whose_callback_runs(dispatcher: Dispatcher, limits: dict[str, int]):
    dropped: list[int] = []

    def handle(operation: MsgOp) -> None:
        if number_of(operation) == 0:
            deliver(sink, op(2))
            dropped.append(sink.dropped)
        else:
            deliver(sink, op(3))  # the first has made room
            dropped.append(sink.dropped)
            sink.handle = one_by_one(lambda operation: None)

    sink = make_sink(dispatcher, handle, **limits)
    slow = Recorder()
    sink.on_slow = lambda: slow(sink.dropped)
    deliver(sink, *ops(2))
    run_all(dispatcher)
    assert dropped == [1, 1]
    assert slow.items == [1]
    assert sink.delivered == 3


def test_limits_are_exact_in_the_middle_of_a_turn(dispatcher: Dispatcher):
    """The cheap test counts a turn as a whole; the exact one must then admit what is really free."""
    admitted: list[int] = []

    def handle(operation: MsgOp) -> None:
        before = sink.dropped
        deliver(sink, *ops(3, 100))
        admitted.append(3 - (sink.dropped - before))
        if len(admitted) == 4:
            sink.end(gone)

    sink = make_sink(dispatcher, handle, msgs=5)
    deliver(sink, *ops(5))
    run_all(dispatcher)
    assert admitted == [0, 1, 1, 1]


def test_dropping_stays_cheap_while_many_messages_wait(dispatcher: Dispatcher):
    """The reader must not recount what waits for each message that it drops, or one slow callback slows everybody."""
    seconds: list[float] = []

    def handle(operation: MsgOp) -> None:
        start = time.perf_counter()
        for _ in range(10):
            deliver(sink, *ops(100))
        seconds.append(time.perf_counter() - start)
        sink.end(gone)

    sink = make_sink(dispatcher, handle, size=TURN * 10)
    deliver(sink, *ops(TURN))
    run_all(dispatcher)
    assert sink.dropped == 1000
    assert seconds[0] < 0.15 * TIME_FACTOR


# Ending.


def test_unsubscribing_inside_the_callback_stops_at_once(dispatcher: Dispatcher):
    handled: list[int] = []
    facts: list[tuple[int, int]] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) == 3:
            assert sink.end(gone)
            facts.append((sink.pending_msgs, sink.pending_bytes))

    sink = make_sink(dispatcher, handle)
    last = Recorder()
    sink.on_last = lambda told: last(told, sink.delivered)
    deliver(sink, *ops(200))
    run_all(dispatcher)
    assert handled == [0, 1, 2]
    assert facts == [(1, 10)], "the running one only"
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, 3)
    assert last.items == [(False, 3)]
    deliver(sink, op())
    assert jobs(dispatcher) == 0


@pytest.mark.parametrize("at", [1, SLICE, SLICE + 1])
def test_after_unsubscribing_elsewhere_no_callback_begins(running: Callable[[int], Dispatcher], at: int):
    handled: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) == at:
            inside.set()
            assert go_on.wait(10)

    sink = make_sink(running(1), handle)
    deliver(sink, *ops(1000))
    assert inside.wait(10)
    assert sink.end(gone)
    assert sink.pending_msgs == 1, "the one that runs"
    go_on.set()
    eventually(lambda: sink.pending_msgs == 0)
    never(lambda: len(handled) > at, PAUSE)
    assert sink.delivered == at


@pytest.mark.parametrize("way", ["end", "limit"])
def test_an_end_in_the_middle_of_a_run_costs_at_most_one_callback_and_counts_right(
    running: Callable[[int], Dispatcher], switching: None, way: str
):
    """The worker goes on while it is decided what to take back from it."""
    dispatcher = running(1)
    for _ in range(40):
        handled: list[int] = []
        sink = make_sink(dispatcher, partial(note, handled))
        deliver(sink, *ops(3000))
        while not handled:
            pass
        if way == "end":
            assert sink.end(gone)
        else:
            sink.limit(max(1, len(handled)))
        count = len(handled)
        for _ in range(20):
            assert sink.pending_msgs >= 0
            assert sink.pending_bytes >= 0
        eventually(lambda sink=sink: sink._active == 0)  # type: ignore[misc]
        assert len(handled) <= count + 1
        assert handled == list(range(len(handled)))
        assert (sink.delivered, sink.pending_msgs, sink.pending_bytes) == (len(handled), 0, 0)


def test_finish_lets_callbacks_run_and_then_ends(dispatcher: Dispatcher):
    handled = Recorder()
    last = Recorder()
    wakeup = Wakeup()
    sink = make_sink(dispatcher, lambda operation: handled(number_of(operation)))
    sink.on_last = lambda told: last(told, len(handled))
    deliver(sink, *ops(3))
    sink.watch(wakeup)
    sink.finish(gone)
    deliver(sink, op(99))
    assert not sink.is_quiet(0)
    assert not has_ended(sink)
    wakeup.wait(0)
    run_all(dispatcher)
    assert handled.items == [0, 1, 2]
    assert last.items == [(False, 0)]
    assert has_ended(sink)
    assert sink.is_quiet(0)
    assert wakeup.wait(0)


def test_a_sink_is_not_quiet_while_a_callback_runs(dispatcher: Dispatcher):
    quiet: list[bool] = []
    sink = make_sink(dispatcher, lambda operation: quiet.append(sink.is_quiet(threading.get_ident())))
    assert sink.is_quiet(0)
    deliver(sink, op())
    assert not sink.is_quiet(0)
    run_all(dispatcher)
    assert quiet == [False]
    assert sink.is_quiet(0)


@pytest.mark.parametrize("workers", [1, 3])
def test_max_msgs_ends_after_the_last_callback(dispatcher: Dispatcher, workers: int):
    handled: list[int] = []
    ended: list[bool] = []
    last = Recorder()

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        ended.append(sink.has_ended)

    sink = make_sink(dispatcher, handle, workers=workers, max_msgs=5)
    sink.on_last = lambda told: last(told, len(handled))
    deliver(sink, *ops(3))
    run_all(dispatcher)
    deliver(sink, *ops(4, 3))
    assert last.items == [(True, 3)], "the server sends no more, before the callbacks have run"
    assert not has_ended(sink)
    run_all(dispatcher)
    assert (handled if workers == 1 else sorted(handled)) == [0, 1, 2, 3, 4]
    assert not any(ended)
    assert has_ended(sink)
    assert len(last) == 1


@pytest.mark.parametrize("limit, handled_in_all", [(1, 3), (3, 3), (4, 4), (200, 200), (400, 300)])
def test_a_limit_set_inside_the_callback_takes_back_what_is_too_much(
    dispatcher: Dispatcher, limit: int, handled_in_all: int
):
    handled: list[int] = []
    last = Recorder()
    pending: list[int] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) == 3:
            deliver(sink, *ops(100, 200))
            sink.limit(limit)
            pending.append(sink.pending_msgs)

    sink = make_sink(dispatcher, handle)
    sink.on_last = lambda told: last(told, len(handled))
    deliver(sink, *ops(200))
    run_all(dispatcher)
    assert handled == list(range(handled_in_all))
    assert pending == [handled_in_all - 2]
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, handled_in_all)
    assert last.items == ([(False, 3)] if limit <= 300 else [])
    assert sink.has_ended is (limit <= 300)


def test_an_end_while_another_turn_waits_for_a_worker(dispatcher: Dispatcher):
    """The turn was put back so that others go first; it is cut before it goes on."""
    handled: list[int] = []
    sink = make_sink(dispatcher, lambda operation: handled.append(number_of(operation)))
    deliver(sink, *ops(1000))
    dispatcher.submit(lambda: None)
    run_one(dispatcher)
    assert len(handled) == SLICE
    sink.end(gone)
    assert sink.pending_msgs == 0
    run_all(dispatcher)
    assert len(handled) == SLICE == sink.delivered


def test_a_forked_child_calls_nobody(dispatcher: Dispatcher):
    handled = Recorder()
    sink = make_sink(dispatcher, lambda operation: handled(number_of(operation)))
    deliver(sink, *ops(3))
    sink.reset_after_fork(gone)
    run_all(dispatcher)
    assert handled.items == []
    assert sink.pending_msgs == 0


def test_a_callback_that_forks_is_the_last_one_in_the_child(dispatcher: Dispatcher):
    handled: list[int] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if len(handled) == 2:
            sink._lock.acquire()  # whoever held it is not in the child
            sink.reset_after_fork(gone)

    sink = make_sink(dispatcher, handle)
    deliver(sink, *ops(200))
    run_all(dispatcher)
    assert handled == [0, 1]
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, 2)


# Several workers.


def test_so_many_callbacks_run_at_once_as_there_are_workers_and_no_more(running: Callable[[int], Dispatcher]):
    together = threading.Barrier(4, timeout=10)
    lock = threading.Lock()
    at_once = most = 0

    def handle(operation: MsgOp) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait()
        with lock:
            at_once -= 1

    sink = make_sink(running(8), handle, workers=4)
    deliver(sink, *ops(40))
    eventually(lambda: sink.pending_msgs == 0)
    assert most == 4
    assert sink.delivered == 40


def test_each_worker_takes_one_message_at_a_time(dispatcher: Dispatcher):
    """Or a long callback would keep messages from workers that are free."""
    handled: list[int] = []

    def handle(operation: MsgOp) -> None:
        handled.append(number_of(operation))
        if number_of(operation) == 0:
            assert sink.pending_msgs == 4
            run_one(dispatcher)  # the second worker, while the first is busy
            assert sink.pending_msgs == 1

    sink = make_sink(dispatcher, handle, workers=2)
    deliver(sink, *ops(4))
    assert jobs(dispatcher) == 2
    run_all(dispatcher)
    assert sorted(handled) == [0, 1, 2, 3]
    assert (sink.pending_msgs, sink.delivered) == (0, 4)


def test_an_end_leaves_the_running_callbacks_of_all_workers(running: Callable[[int], Dispatcher]):
    inside = threading.Semaphore(0)
    go_on = threading.Event()
    handled = Recorder()

    def handle(operation: MsgOp) -> None:
        handled(number_of(operation))
        inside.release()
        assert go_on.wait(10)

    sink = make_sink(running(3), handle, workers=3)
    deliver(sink, *ops(10))
    for _ in range(3):
        assert inside.acquire(timeout=10)
    assert sink.end(gone)
    assert (sink.pending_msgs, sink.pending_bytes) == (3, 30)
    go_on.set()
    eventually(lambda: sink.pending_msgs == 0)
    assert sorted(handled.items) == [0, 1, 2]
    assert sink.delivered == 3


# Many threads.


@pytest.mark.parametrize("sub_workers, threads", [(1, 1), (1, 4), (4, 2), (4, 8)])
def test_no_message_is_lost_or_handled_twice(
    running: Callable[[int], Dispatcher], switching: None, sub_workers: int, threads: int
):
    """Batches of one message find the worker on its way out: that is where a wake-up could be lost."""
    dispatcher = running(threads)
    for attempt in range(5):
        handled: list[int] = []
        sink = make_sink(
            dispatcher,
            partial(note, handled),
            workers=sub_workers,
        )
        for number in range(300):
            deliver(sink, op(number))
            if number % 30 == attempt:
                eventually(lambda sink=sink: sink.pending_msgs == 0)  # type: ignore[misc]
        eventually(lambda sink=sink: sink.pending_msgs == 0)  # type: ignore[misc]
        assert (handled if sub_workers == 1 else sorted(handled)) == list(range(300))
        assert (sink.delivered, sink.received, sink.pending_bytes) == (300, 300, 0)
        eventually(lambda sink=sink: sink._active == 0)  # type: ignore[misc]


def test_with_one_worker_callbacks_never_overlap(running: Callable[[int], Dispatcher], switching: None):
    lock = threading.Lock()
    overlaps: list[int] = []
    handled: list[int] = []

    def handle(operation: MsgOp) -> None:
        if not lock.acquire(blocking=False):
            overlaps.append(number_of(operation))
            return
        handled.append(number_of(operation))
        lock.release()

    dispatcher = running(6)
    sink = make_sink(dispatcher, handle)
    noise = [make_sink(dispatcher, lambda operation: None) for _ in range(5)]
    for number in range(0, 3000, 30):
        deliver(sink, *ops(30, number))
        for other in noise:
            deliver(other, *ops(3))
    eventually(lambda: sink.pending_msgs == 0)
    assert not overlaps
    assert handled == list(range(3000))


def test_slow_callbacks_do_not_hold_up_other_subscriptions(running: Callable[[int], Dispatcher]):
    dispatcher = running(2)
    go_on = threading.Event()
    slow = make_sink(dispatcher, lambda operation: go_on.wait(10))
    handled = Recorder()
    quick = make_sink(dispatcher, lambda operation: handled(number_of(operation)))
    deliver(slow, *ops(100))
    deliver(quick, *ops(3))
    assert handled.wait_for(3) == [0, 1, 2]
    go_on.set()
    eventually(lambda: slow.pending_msgs == 0)


def test_counting_is_exact_while_reader_workers_and_others_are_at_it(
    running: Callable[[int], Dispatcher], switching: None
):
    """Received is, at any moment and for anybody who looks, at least delivered plus dropped; in the end exactly."""
    sink = make_sink(running(3), lambda operation: None, workers=3, msgs=40, size=400)
    stopped = threading.Event()
    wrong: list[tuple[int, int]] = []

    def look() -> None:
        while not stopped.is_set():
            pending, size = sink.pending_msgs, sink.pending_bytes
            if not (0 <= pending <= 40 and 0 <= size <= 400):
                wrong.append((pending, size))

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(0, 6000, 20):
        deliver(sink, *ops(20, number))
    eventually(lambda: sink.pending_msgs == 0)
    stopped.set()
    watcher.join(10)
    assert not wrong
    assert sink.delivered + sink.dropped == sink.received == 6000


# The guard around the user's callback.


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_callback_raises_is_logged_and_reported_and_the_next_message_follows(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture, error: BaseException
):
    reports = Recorder()
    parts: Any = SimpleNamespace(report=reports, options=make_options(None, {}))
    subscription: Any = SimpleNamespace(subject="foo")
    seen: list[Any] = []

    def callback(msg: Any) -> None:
        seen.append(msg)
        if len(seen) == 1:
            raise error

    sink = make_sink(dispatcher)
    sink.handle = make_handler(parts, subscription, callback)
    deliver(sink, (1, "a", "r", None, b"1"), (1, "b", None, None, b"2"))
    with caplog.at_level(logging.ERROR, "natsync.dispatcher"):
        run_all(dispatcher)
    assert [(msg.subject, msg.reply, msg.data, msg.subscription) for msg in seen] == [
        ("a", "r", b"1", subscription),
        ("b", None, b"2", subscription),
    ]
    assert reports.items == [(error, subscription)]
    assert "the callback of 'foo' raised an exception" in caplog.text
    assert "Traceback" in caplog.text
    assert (sink.pending_msgs, sink.delivered) == (0, 2)


# Against a model.


class CallbackSinkMachine(RuleBasedStateMachine):
    """The reader, one worker that is stopped in the middle of callbacks, and other threads, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(object(), "test", 1)
        self.sink = make_sink(self.dispatcher, self.handle, msgs=8, size=60)
        self.numbers = itertools.count()
        self.waiting: list[MsgOp] = []
        self.running: list[MsgOp] = []
        self.handled = self.received = self.dropped = self.delivered = 0
        self.max: int | None = None
        self.ended = self.finishing = False
        self.last_calls: list[bool] = []
        self.sink.on_last = self.last_calls.append
        self.script: list[tuple[str, int]] = []

    def handle(self, operation: MsgOp) -> None:
        """The callback: it is the next one in order; inside it others act, as the script says."""
        assert operation == self.waiting.pop(0)
        self.running = [operation]
        self.delivered += 1
        self.facts_agree()
        steps, self.script = self.script[:2], self.script[2:]
        for name, argument in steps:
            getattr(self, f"do_{name}")(argument)
            self.facts_agree()
        self.running = []

    actions = st.one_of(
        st.tuples(st.just("deliver"), st.integers(1, 25)),
        st.tuples(st.just("deliver"), st.integers(1, 25)),
        st.tuples(st.just("limit"), st.integers(5, 40)),
        st.tuples(st.just("finish"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
    )

    def do_deliver(self, size: int) -> None:
        batch = [op(next(self.numbers), size) for _ in range(3)]
        for operation in batch:
            if self.finishing:
                break
            self.received += 1
            pending = self.running + self.waiting
            if len(pending) < 8 and sum(map(size_of, pending)) + size <= 60:
                self.waiting.append(operation)
            else:
                self.dropped += 1
            self.finishing = self.received == self.max
        deliver(self.sink, *batch)
        self.settle()

    def do_limit(self, max_msgs: int) -> None:
        if not self.ended:
            self.max = max_msgs
            del self.waiting[max(0, max_msgs - self.delivered) :]
            self.finishing = self.finishing or self.received >= max_msgs
        self.sink.limit(max_msgs)
        self.settle()

    def do_finish(self, _: int) -> None:
        self.finishing = True
        self.sink.finish(gone)
        self.settle()

    def do_end(self, _: int) -> None:
        assert self.sink.end(gone) is not self.ended
        self.finishing = self.ended = True
        self.waiting = []

    def settle(self) -> None:
        self.ended = self.ended or (self.finishing and not self.waiting and not self.running)

    @rule(action=actions)
    def act(self, action: tuple[str, int]) -> None:
        if action[0] == "deliver" or self.received > 10:
            getattr(self, f"do_{action[0]}")(action[1])

    @rule(action=actions)
    def plan(self, action: tuple[str, int]) -> None:
        """Have it done inside a later callback."""
        if action[0] == "deliver" or self.received > 6:
            self.script.append(action)

    @precondition(lambda self: jobs(self.dispatcher) > 0)
    @rule(others_wait=st.booleans())
    def work(self, others_wait: bool) -> None:
        if others_wait:
            self.dispatcher.submit(lambda: None)
        run_one(self.dispatcher)
        self.settle()

    def teardown(self) -> None:
        self.script = []
        run_all(self.dispatcher)
        assert not self.waiting
        assert self.sink._active == 0
        assert self.sink.is_quiet(0)

    @invariant()
    def facts_agree(self) -> None:
        sink = self.sink
        pending = self.running + self.waiting
        assert sink.pending_msgs == len(pending)
        assert sink.pending_bytes == sum(map(size_of, pending))
        assert (sink.received, sink.dropped, sink.delivered) == (self.received, self.dropped, self.delivered)
        assert sink.is_finishing is self.finishing
        if pending:
            assert not sink.is_quiet(0)
        elif not jobs(self.dispatcher):
            assert sink.is_quiet(0)
        assert sink.has_ended is self.ended
        assert len(self.last_calls) == self.finishing


TestCallbackSinkMachine = CallbackSinkMachine.TestCase
TestCallbackSinkMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
