"""Subscriptions that are read, by one thread or by many: no message twice, no wake-up lost."""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest

from natsync.core.read_sink import ReadSink
from natsync.core.sink import size_of
from natsync.errors import (
    BadSubscriptionError,
    ConnectionClosedError,
    MaxMessagesError,
    NatsError,
    NatsTimeoutError,
    PermissionsError,
)
from natsync.locks import Latch, Wakeup
from natsync.protocol.operations import MsgOp
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from tests.unit.conftest import Pool

NOW = 0.0
FOREVER = None


def op(number: int = 0) -> MsgOp:
    return (1, str(number), None, None, b"0123456789")


def ops(count: int, start: int = 0) -> list[MsgOp]:
    return [op(number) for number in range(start, start + count)]


def deliver(sink: ReadSink, *batch: MsgOp) -> None:
    sink.deliver(list(batch), sum(map(size_of, batch)))


def make_sink(max_msgs: int | None = None) -> ReadSink:
    return ReadSink(1, "s", None, msgs_limit=-1, bytes_limit=-1, max_msgs=max_msgs)


def gone() -> NatsError:
    return BadSubscriptionError("gone")


def await_readers(sink: ReadSink, count: int) -> None:
    eventually(lambda: len(sink._readers) == count)


def read_to_the_end(sink: ReadSink) -> list[int]:
    numbers = []
    while True:
        try:
            numbers.append(int(sink.next(FOREVER)[1]))
        except (BadSubscriptionError, MaxMessagesError):
            return numbers


# One reader.


def test_what_is_there_is_returned_at_once_and_in_order():
    sink = make_sink()
    deliver(sink, *ops(3))
    assert [sink.next(NOW) for _ in range(3)] == ops(3)


def test_without_a_message_the_wait_is_over_in_time():
    sink = make_sink()
    start = time.monotonic()
    with pytest.raises(NatsTimeoutError, match=r"no message came within 0\.05 s") as caught:
        sink.next(0.05)
    assert caught.value.timeout == 0.05
    assert 0.05 <= time.monotonic() - start < 2
    assert not sink._readers, "it left a trace"


def test_a_message_wakes_a_waiting_reader(pool: Pool):
    sink = make_sink()
    reading = pool.submit(sink.next, FOREVER)
    await_readers(sink, 1)
    deliver(sink, op(7))
    assert reading.result(10) == op(7)
    assert not sink._readers
    assert (sink.pending_msgs, sink.pending_bytes, sink.delivered) == (0, 0, 1)


@pytest.mark.parametrize(
    "end, error",
    [
        (lambda sink: sink.end(gone), BadSubscriptionError),
        (lambda sink: sink.finish(gone), BadSubscriptionError),
        (lambda sink: sink.end(lambda: ConnectionClosedError("closed")), ConnectionClosedError),
        (lambda sink: sink.limit(1), MaxMessagesError),
        (lambda sink: sink.refuse(PermissionsError("no")), PermissionsError),
    ],
    ids=["end", "finish", "close", "limit", "refuse"],
)
@pytest.mark.parametrize("readers", [1, 8])
def test_the_end_wakes_all_readers(pool: Pool, end: Callable[[ReadSink], object], error: type[NatsError], readers: int):
    sink = make_sink()
    deliver(sink, op())
    sink.next(NOW)
    reading = [pool.submit(sink.next, FOREVER) for _ in range(readers)]
    await_readers(sink, readers)
    end(sink)
    for each in reading:
        assert isinstance(each.exception(10), error)


@pytest.mark.parametrize("readers", [1, 2, 8])
@pytest.mark.parametrize("max_msgs", [1, 3])
def test_the_last_of_max_msgs_wakes_all_readers(pool: Pool, readers: int, max_msgs: int):
    """Those who get a message, and those for whom there will be none any more."""
    sink = make_sink(max_msgs)
    reading = [pool.submit(read_to_the_end, sink) for _ in range(readers)]
    await_readers(sink, readers)
    deliver(sink, *ops(max_msgs + 2))
    assert sorted(number for each in reading for number in each.result(10)) == list(range(max_msgs))


def test_what_is_pending_can_be_read_while_finishing(pool: Pool):
    sink = make_sink()
    deliver(sink, *ops(3))
    sink.finish(gone)
    assert pool.submit(read_to_the_end, sink).result(10) == [0, 1, 2]


# A refused subscription.


def test_a_refusal_is_told_until_it_is_taken_back(pool: Pool):
    sink = make_sink()
    refusal = PermissionsError("not allowed")
    deliver(sink, op(1))
    sink.refuse(refusal)
    assert sink.next(NOW) == op(1), "what came before can be read"
    for _ in range(2):
        with pytest.raises(PermissionsError, match="not allowed"):
            sink.next(FOREVER)
    assert not sink.has_ended
    sink.refuse(None)
    reading = pool.submit(sink.next, FOREVER)
    await_readers(sink, 1)
    deliver(sink, op(2))
    assert reading.result(10) == op(2)


def test_a_refusal_told_again_and_again_does_not_pile_up_tracebacks():
    """A loop that polls would otherwise hold more and more frames."""
    sink = make_sink()
    sink.refuse(PermissionsError("not allowed"))
    depths = []
    for _ in range(20):
        with pytest.raises(PermissionsError) as caught:
            sink.next(NOW)
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert depths[-1] == depths[0]


# Several readers.


def test_one_message_wakes_one_reader(pool: Pool):
    sink = make_sink()
    reading = [pool.submit(sink.next, FOREVER) for _ in range(3)]
    await_readers(sink, 3)
    deliver(sink, op(1))
    eventually(lambda: sum(each.done() for each in reading) == 1)
    assert len(sink._readers) == 2
    deliver(sink, *ops(2, 2))
    assert sorted(int(each.result(10)[1]) for each in reading) == [1, 2, 3]


class GatedSink(ReadSink):
    """The first reader that gives up is held up on its way out."""

    def __init__(self) -> None:
        super().__init__(1, "s", None, msgs_limit=-1, bytes_limit=-1, max_msgs=None)
        self.leaving = threading.Event()
        self.gate = threading.Event()

    def _leave(self, latch: Latch) -> None:
        if not self.leaving.is_set():
            self.leaving.set()
            assert self.gate.wait(10)
        super()._leave(latch)


def test_a_reader_whose_time_is_over_when_it_is_chosen_takes_the_message_or_passes_it_on(pool: Pool):
    sink = GatedSink()
    early = pool.submit(sink.next, 0.01)
    assert sink.leaving.wait(10)
    late = pool.submit(sink.next, FOREVER)
    await_readers(sink, 2)
    deliver(sink, op(1))  # chooses the first, whose time is over
    assert len(sink._readers) == 1
    sink.gate.set()
    eventually(lambda: early.done() or late.done())
    if early.exception(10) is None:  # it saw the message at the last moment
        assert early.result() == op(1)
        deliver(sink, op(1))
    assert late.result(10) == op(1)


def test_a_reader_that_ctrl_c_takes_away_passes_its_message_on(
    pool: Pool, strike: Callable[[Callable[[], object]], None]
):
    """It was chosen for the message, and will not take it; the others sleep."""
    sink = make_sink()
    late: list[Future[MsgOp]] = []

    def interrupt() -> None:
        late.append(pool.submit(sink.next, FOREVER))
        await_readers(sink, 2)
        deliver(sink, op(1))  # chooses the first, which is interrupted
        raise KeyboardInterrupt

    strike(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sink.next(FOREVER)
    assert late[0].result(10) == op(1)


def test_a_reader_whose_time_is_over_takes_what_came_at_the_last_moment(pool: Pool):
    sink = GatedSink()
    early = pool.submit(sink.next, 0.01)
    assert sink.leaving.wait(10)
    deliver(sink, op(1))
    sink.gate.set()
    assert early.result(10) == op(1)


def test_no_wake_up_is_lost_among_many_readers(pool: Pool, switching: None):
    """Readers wait for ever, so a single lost wake-up leaves messages behind."""
    readers, count = 8, 4000
    sink = make_sink()
    reading = [pool.submit(read_to_the_end, sink) for _ in range(readers)]
    number = 0
    while number < count:
        size = 1 + number % 5
        deliver(sink, *ops(size, number))
        number += size
    eventually(lambda: sink.pending_msgs == 0)
    sink.finish(gone)
    got = [each.result(10) for each in reading]
    assert sorted(n for numbers in got for n in numbers) == list(range(number))
    assert all(numbers == sorted(numbers) for numbers in got), "each reader gets its messages in order"
    assert sink.delivered == number


def test_no_wake_up_is_lost_when_readers_give_up_all_the_time(pool: Pool, switching: None):
    """Some poll with tiny timeouts; the patient ones must still get everything that these leave."""
    count = 600
    sink = make_sink()
    stopped = threading.Event()

    def poll() -> list[int]:
        numbers = []
        while not stopped.is_set():
            try:
                numbers.append(int(sink.next(0.0002)[1]))
            except NatsTimeoutError:
                pass
            except BadSubscriptionError:
                break
        return numbers

    patient = [pool.submit(read_to_the_end, sink) for _ in range(2)]
    hasty = [pool.submit(poll) for _ in range(5)]
    for number in range(count):
        deliver(sink, op(number))
        if number % 3 == 0:
            eventually(lambda: sink.pending_msgs == 0)
    eventually(lambda: sink.pending_msgs == 0)
    sink.finish(gone)
    stopped.set()
    got = [number for each in (*patient, *hasty) for number in each.result(10)]
    assert sorted(got) == list(range(count))


def test_a_timeout_is_kept_while_others_take_every_message(pool: Pool):
    """A reader that is woken and finds nothing goes on waiting for what is left of its time, not anew."""
    sink = make_sink()
    start = time.monotonic()
    reading = pool.submit(sink.next, 0.2)
    while not reading.done() and time.monotonic() < start + 5:
        with sink._lock:
            woken = sink._ended_locked()
        sink._serve(woken)  # woken, and another was faster
    assert isinstance(reading.exception(10), NatsTimeoutError)
    assert 0.2 <= time.monotonic() - start < 2


# Loops, for draining.


def test_a_loop_of_another_thread_keeps_the_sink_from_being_quiet():
    sink = make_sink()
    me, other = threading.get_ident(), -1
    assert sink.is_quiet(me)
    sink.enter_loop()
    sink.enter_loop()
    assert sink.is_quiet(me), "nobody can wait for itself"
    assert not sink.is_quiet(other)
    wakeup = Wakeup()
    sink.watch(wakeup)
    sink.leave_loop(me)
    assert wakeup.wait(0)
    assert not sink.is_quiet(other)
    sink.leave_loop(me)
    assert sink.is_quiet(other)
