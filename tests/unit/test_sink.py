"""Where the reader puts messages: limits, counting and ending, the same for all kinds of subscriptions."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from natsync.core.read_sink import ReadSink
from natsync.core.sink import Sink, Turn, size_of
from natsync.errors import BadSubscriptionError, ConnectionClosedError, MaxMessagesError, NatsError, NatsTimeoutError
from natsync.locks import Wakeup
from natsync.protocol.operations import MsgOp
from tests.support.waiting import Recorder

NOW = 0.0


def op(number: int = 0, size: int = 10, block: bytes | None = None) -> MsgOp:
    """A message of `size` bytes of data that tells its number in its subject."""
    return (1, f"m.{number}", None, block, b"x" * size)


def ops(count: int, size: int = 10, start: int = 0) -> list[MsgOp]:
    return [op(number, size) for number in range(start, start + count)]


def deliver(sink: Sink, *batch: MsgOp) -> None:
    """Do as the reader does."""
    sink.deliver(list(batch), sum(map(size_of, batch)))


def make_sink(*, msgs: int = -1, size: int = -1, max_msgs: int | None = None) -> ReadSink:
    return ReadSink(1, "m.*", None, msgs_limit=msgs, bytes_limit=size, max_msgs=max_msgs)


def read_all(sink: ReadSink) -> list[str]:
    subjects = []
    while sink.pending_msgs:
        subjects.append(sink.next(NOW)[1])
    return subjects


def gone() -> NatsError:
    return BadSubscriptionError("gone")


class Calls:
    """Keeps what a sink calls."""

    def __init__(self, sink: Sink) -> None:
        self.slow = 0
        self.last: list[bool] = []
        """For the one time that it is told that nothing more is taken in: whether the server knows by itself."""
        sink.on_slow = self._slow
        sink.on_last = self.last.append

    def _slow(self) -> None:
        self.slow += 1


@pytest.mark.parametrize(
    "operation, size",
    [(op(size=0), 0), (op(size=5), 5), (op(size=5, block=b"NATS/1.0\r\n\r\n"), 17), (op(size=0, block=b""), 0)],
)
def test_headers_and_data_count(operation: MsgOp, size: int):
    assert size_of(operation) == size


def test_a_turn_knows_how_many_were_started_and_can_be_cut():
    turn = Turn(ops(4), 40)
    assert turn.started == 0
    turn.running = 1
    assert turn.started == 1
    turn.done = 4
    assert turn.started == 4, "the last one is done, and nothing runs, whatever the flag says yet"
    turn = Turn([op(number, size) for number, size in enumerate((1, 2, 4, 8))], 15)
    next(turn.rest)
    turn.cut_locked(2)
    assert [operation[1] for operation in turn.rest] == ["m.1"]
    assert turn.pending_size_locked() == 3


def test_a_turn_knows_the_size_of_what_is_not_done():
    turn = Turn([op(number, size) for number, size in enumerate((1, 2, 4, 8))], 15)
    for done, size in ((0, 15), (1, 14), (1, 14), (3, 8), (4, 0)):
        turn.done = done
        assert turn.pending_size_locked() == size


def test_a_turn_whose_worker_went_on_while_it_was_cut_counts_nothing_as_pending():
    """Between the look at how far the worker is and the cut, a callback may end and the next one begin."""
    turn = Turn([op(number, size) for number, size in enumerate((1, 2, 4, 8))], 15)
    assert turn.pending_size_locked() == 15
    turn.done = 3
    turn.cut_locked(2)
    assert turn.pending_size_locked() == 0
    turn = Turn([op(number, size) for number, size in enumerate((1, 2, 4, 8))], 15)
    turn.done = 3
    assert turn.pending_size_locked() == 8
    turn.cut_locked(2)
    assert turn.pending_size_locked() == 0


# Counting and limits.


def test_a_new_sink_is_empty_and_alive():
    sink = make_sink()
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered, sink.received, sink.dropped) == (0, 0, 0, 0, 0)
    assert (sink.max_msgs, sink.begin_anew()) == (None, None)
    assert (sink.has_ended, sink.is_finishing, sink.is_over, sink.draining) == (False, False, False, False)
    sink.on_slow()
    sink.on_last(False)


def test_pending_counts_messages_headers_and_data():
    sink = make_sink()
    deliver(sink, op(size=7), op(size=3, block=b"NATS/1.0\r\n\r\n"))
    assert (sink.pending_msgs, sink.pending_bytes) == (2, 22)
    sink.next(NOW)
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (1, 15, 1)
    sink.next(NOW)
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered, sink.received) == (0, 0, 2, 2)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "msgs, size, kept",
    [(-1, -1, 5), (5, 50, 5), (4, -1, 4), (-1, 49, 4), (-1, 40, 4), (-1, 39, 3), (2, 30, 2), (1, -1, 1), (-1, 9, 0)],
)
def test_limits_hold_to_the_message_and_to_the_byte(msgs: int, size: int, kept: int, one_by_one: bool):
    sink = make_sink(msgs=msgs, size=size)
    batch = ops(5)
    for each in [[operation] for operation in batch] if one_by_one else [batch]:
        deliver(sink, *each)
    assert (sink.pending_msgs, sink.pending_bytes) == (kept, kept * 10)
    assert (sink.received, sink.dropped) == (5, 5 - kept)
    assert read_all(sink) == [operation[1] for operation in batch[:kept]], "the newest are dropped, not the oldest"


def test_a_smaller_message_behind_a_large_one_may_still_fit():
    sink = make_sink(size=25)
    deliver(sink, op(1, 20), op(2, 10), op(3, 5))
    assert read_all(sink) == ["m.1", "m.3"]


def test_limits_can_be_changed():
    sink = make_sink(msgs=1)
    deliver(sink, *ops(3))
    sink.set_limits(2, -1)
    deliver(sink, *ops(3))
    assert (sink.pending_msgs, sink.dropped) == (2, 4)
    sink.set_limits(-1, 25)
    deliver(sink, *ops(3))
    assert (sink.pending_msgs, sink.dropped) == (2, 7)
    sink.set_limits(-1, -1)
    deliver(sink, *ops(3))
    assert (sink.pending_msgs, sink.dropped) == (5, 7)


def test_each_episode_of_dropping_is_told_once():
    sink = make_sink(msgs=2)
    calls = Calls(sink)
    deliver(sink, *ops(2))
    assert calls.slow == 0
    deliver(sink, *ops(3))
    deliver(sink, *ops(3))
    assert (calls.slow, sink.dropped) == (1, 6)
    sink.next(NOW)
    deliver(sink, op())  # fits: the episode is over
    assert calls.slow == 1
    deliver(sink, op())
    assert (calls.slow, sink.dropped) == (2, 7)
    read_all(sink)
    deliver(sink, *ops(3))  # the end of one and the beginning of the next in one batch
    assert (calls.slow, sink.dropped) == (3, 8)


def test_a_consumer_may_look_at_the_sink_when_it_is_told():
    """Events are made on the spot: nothing may be held then."""
    sink = make_sink(msgs=1)
    seen = Recorder()
    sink.on_slow = lambda: seen(sink.pending_msgs, sink.dropped)
    deliver(sink, *ops(3))
    assert seen.items == [(1, 2)]


# The end after so many messages.


@pytest.mark.parametrize("batches", [[5], [1] * 5, [3, 2], [2, 9], [20]])
def test_a_sink_ends_after_max_msgs(batches: list[int]):
    sink = make_sink(max_msgs=5)
    calls = Calls(sink)
    for number, count in enumerate(batches):
        deliver(sink, *ops(count, start=sum(batches[:number])))
    assert (sink.received, sink.pending_msgs, sink.pending_bytes) == (5, 5, 50)
    assert calls.last == [True]
    assert (sink.is_finishing, sink.is_over) == (True, False)
    deliver(sink, op(99))
    assert read_all(sink) == ["m.0", "m.1", "m.2", "m.3", "m.4"]
    assert sink.is_over
    with pytest.raises(MaxMessagesError) as caught:
        sink.next(NOW)
    assert caught.value.max_msgs == 5
    assert calls.last == [True]


def test_dropped_messages_count_for_max_msgs_as_the_server_counts_them():
    sink = make_sink(msgs=2, max_msgs=5)
    deliver(sink, *ops(5))
    assert (sink.pending_msgs, sink.dropped, sink.begin_anew()) == (2, 3, 0)
    assert read_all(sink) == ["m.0", "m.1"]
    with pytest.raises(MaxMessagesError):
        sink.next(NOW)


def test_a_sink_whose_last_messages_were_all_dropped_ends_at_once():
    sink = make_sink(size=5, max_msgs=2)
    calls = Calls(sink)
    deliver(sink, *ops(2))
    assert sink.has_ended
    assert calls.last == [True]


@pytest.mark.parametrize(
    "received, read, limit, left, over",
    [
        (10, 3, 12, 7, False),
        (10, 3, 10, 7, False),
        (10, 3, 5, 2, False),
        (10, 3, 4, 1, False),
        (10, 3, 3, 0, True),
        (10, 3, 1, 0, True),
        (0, 0, 1, 0, False),
        (4, 4, 4, 0, True),
    ],
)
def test_a_limit_set_later_counts_the_past(received: int, read: int, limit: int, left: int, over: bool):
    sink = make_sink()
    calls = Calls(sink)
    deliver(sink, *ops(received))
    for _ in range(read):
        sink.next(NOW)
    sink.limit(limit)
    assert sink.max_msgs == limit
    assert (sink.pending_msgs, sink.pending_bytes) == (left, left * 10)
    assert sink.begin_anew() == max(0, limit - received)
    assert sink.is_over is over
    assert calls.last == ([False] if limit <= received else [])
    assert read_all(sink) == [f"m.{number}" for number in range(read, read + left)]
    deliver(sink, *ops(limit - received if limit > received else 1, start=received))
    assert sink.delivered + sink.pending_msgs == max(limit, read)
    read_all(sink)
    with pytest.raises(MaxMessagesError):
        sink.next(NOW)
    assert len(calls.last) == 1


def test_a_new_server_counts_from_zero():
    sink = make_sink(max_msgs=10)
    deliver(sink, *ops(4))
    assert sink.received_before == 0
    assert (sink.begin_anew(), sink.received_before) == (6, 4)
    deliver(sink, *ops(3, start=4))
    assert (sink.begin_anew(), sink.received_before) == (3, 7)


def test_a_limit_may_be_raised_before_it_is_reached():
    sink = make_sink(max_msgs=3)
    deliver(sink, *ops(2))
    sink.limit(4)
    deliver(sink, *ops(4, start=2))
    assert read_all(sink) == ["m.0", "m.1", "m.2", "m.3"]
    assert sink.is_over


def test_a_limit_on_an_ended_sink_changes_nothing():
    sink = make_sink()
    calls = Calls(sink)
    sink.end(gone)
    sink.limit(5)
    with pytest.raises(BadSubscriptionError):
        sink.next(NOW)
    assert calls.last == [False]


# Ending by others.


def test_end_discards_what_is_pending_and_says_so_once():
    sink = make_sink()
    calls = Calls(sink)
    deliver(sink, *ops(3))
    sink.next(NOW)
    assert sink.end(gone)
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, 1)
    assert (sink.has_ended, sink.is_finishing, sink.is_over) == (True, True, True)
    assert sink.cut_short is gone
    assert not sink.end(lambda: ConnectionClosedError("later"))
    assert calls.last == [False]
    with pytest.raises(BadSubscriptionError, match="gone"):
        sink.next(NOW)
    deliver(sink, op())
    assert (sink.received, sink.pending_msgs) == (3, 0)


def test_finish_lets_what_is_pending_be_consumed():
    sink = make_sink()
    calls = Calls(sink)
    deliver(sink, *ops(2))
    sink.finish(gone)
    assert calls.last == [False]
    assert (sink.is_finishing, sink.is_over) == (True, False)
    deliver(sink, op(9))
    assert sink.received == 2
    assert read_all(sink) == ["m.0", "m.1"]
    assert sink.is_over
    assert sink.cut_short is None
    with pytest.raises(BadSubscriptionError):
        sink.next(NOW)
    assert calls.last == [False]


def test_finish_ends_an_empty_sink_at_once():
    sink = make_sink()
    calls = Calls(sink)
    sink.finish(gone)
    assert sink.has_ended
    sink.finish(gone)
    assert calls.last == [False]


def test_the_first_reason_is_the_one_that_is_told():
    sink = make_sink(max_msgs=1)
    deliver(sink, op())
    sink.finish(gone)
    sink.next(NOW)
    with pytest.raises(MaxMessagesError):
        sink.next(NOW)


def test_an_end_while_finishing_is_cut_short():
    sink = make_sink()
    calls = Calls(sink)
    deliver(sink, *ops(2))
    sink.finish(gone)
    assert sink.end(lambda: ConnectionClosedError("closed"))
    assert sink.cut_short is not None
    assert calls.last == [False], "it was told so already"
    with pytest.raises(ConnectionClosedError):
        sink.next(NOW)


def test_each_error_is_a_new_one():
    """An exception that is raised in several threads would mix their tracebacks."""
    sink = make_sink()
    sink.end(gone)
    errors = []
    for _ in range(2):
        with pytest.raises(BadSubscriptionError) as caught:
            sink.next(NOW)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_watchers_are_woken_by_an_end():
    sink = make_sink()
    wakeup, other = Wakeup(), Wakeup()
    sink.watch(wakeup)
    sink.watch(wakeup)
    sink.watch(other)
    sink.unwatch(other)
    sink.unwatch(other)
    sink.end(gone)
    assert wakeup.wait(0)
    assert not wakeup.wait(0)
    assert not other.wait(0)


def test_watchers_are_woken_when_the_last_message_was_consumed():
    sink = make_sink()
    wakeup = Wakeup()
    deliver(sink, op())
    sink.watch(wakeup)
    sink.finish(gone)
    wakeup.wait(0)
    sink.next(NOW)
    assert wakeup.wait(0)


def test_a_forked_child_finds_its_sinks_ended_whoever_held_the_lock():
    sink = make_sink()
    calls = Calls(sink)
    deliver(sink, op())
    sink._lock.acquire()
    sink.reset_after_fork(gone)
    assert (sink.has_ended, sink.pending_msgs) == (True, 0)
    assert calls.last == [], "its server is the parent's"
    with pytest.raises(BadSubscriptionError):
        sink.next(NOW)


# Against a model.


class SinkMachine(RuleBasedStateMachine):
    """One reader and one consumer in turns, against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.sink = make_sink(msgs=6, size=100)
        self.calls = Calls(self.sink)
        self.msgs_limit, self.bytes_limit = 6, 100
        self.max: int | None = None
        self.pending: list[MsgOp] = []
        self.received = self.dropped = self.delivered = self.slow_told = 0
        self.slow = False
        self.reason: type[NatsError] | None = None
        self.ended = False
        self.told: list[bool] = []

    @rule(sizes=st.lists(st.sampled_from([0, 1, 10, 25, 50]), min_size=1, max_size=6))
    def deliver(self, sizes: list[int]) -> None:
        batch = [op(self.received + index, size) for index, size in enumerate(sizes)]
        told = False
        for operation in batch:
            if self.reason is not None:
                break
            self.received += 1
            if (
                len(self.pending) + 1 <= self.msgs_limit
                and sum(map(size_of, self.pending)) + size_of(operation) <= self.bytes_limit
            ):
                self.pending.append(operation)
                self.slow = False
            else:
                self.dropped += 1
                told = told or not self.slow
                self.slow = True
            if self.received == self.max:
                self.reason = MaxMessagesError
                self.told.append(True)
        self.slow_told += told
        deliver(self.sink, *batch)
        self.settle()

    @rule()
    def read(self) -> None:
        if self.pending:
            assert self.sink.next(NOW) == self.pending.pop(0)
            self.delivered += 1
            self.settle()
        else:
            with pytest.raises(self.reason or NatsTimeoutError):
                self.sink.next(NOW)
            self.settle()

    @rule(max_msgs=st.integers(1, 30))
    def limit(self, max_msgs: int) -> None:
        if not self.ended:
            self.max = max_msgs
            del self.pending[max(0, max_msgs - self.delivered) :]
            if self.received >= max_msgs:
                self.told = self.told or [False]
                self.reason = MaxMessagesError
        self.sink.limit(max_msgs)
        self.settle()

    @rule(msgs=st.sampled_from([-1, 1, 6, 20]), size=st.sampled_from([-1, 10, 100]))
    def set_limits(self, msgs: int, size: int) -> None:
        self.msgs_limit = 1000 if msgs < 0 else msgs
        self.bytes_limit = 100_000 if size < 0 else size
        self.sink.set_limits(msgs, size)

    @rule()
    def finish(self) -> None:
        self.told = self.told or [False]
        self.reason = self.reason or BadSubscriptionError
        self.sink.finish(gone)
        self.settle()

    @rule(really=st.sampled_from([False, False, False, True]))
    def end(self, really: bool) -> None:
        if really:
            assert self.sink.end(lambda: ConnectionClosedError("closed")) is not self.ended
            self.told = self.told or [False]
            if not self.ended:
                self.reason = ConnectionClosedError
            self.pending = []
            self.settle()

    def settle(self) -> None:
        self.ended = self.ended or (self.reason is not None and not self.pending)

    @invariant()
    def facts_agree(self) -> None:
        sink = self.sink
        assert sink.pending_msgs == len(self.pending)
        assert sink.pending_bytes == sum(map(size_of, self.pending))
        assert (sink.received, sink.dropped, sink.delivered) == (self.received, self.dropped, self.delivered)
        assert sink.max_msgs == self.max
        assert sink.begin_anew() == (None if self.max is None else max(0, self.max - self.received))
        assert sink.has_ended is self.ended
        assert sink.is_finishing is (self.reason is not None)
        assert sink.is_over is (self.reason is not None and not self.pending)
        assert self.calls.slow == self.slow_told
        assert self.calls.last == self.told


TestSinkMachine = SinkMachine.TestCase
TestSinkMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
