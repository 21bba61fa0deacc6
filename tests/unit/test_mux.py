"""Requests behind one wildcard subscription: who gets which reply, once."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import pytest

from natsync.core.mux import ExpectedReply, Mux, Waiter
from natsync.core.outbound import Outbound
from natsync.core.registry import Registry
from natsync.core.reply import ReplyWaiter, read_reply
from natsync.core.sink import size_of
from natsync.errors import ConnectionClosedError, NatsError, NoRespondersError
from natsync.locks import Wakeup
from natsync.protocol.operations import MsgOp
from tests.support.waiting import Recorder

if TYPE_CHECKING:
    from tests.unit.conftest import Pool

NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


def closed() -> NatsError:
    return ConnectionClosedError("closed")


def make_mux(prefix: str = "_INBOX") -> Mux:
    outbound = Outbound(live_limit=1000, buffer_limit=1000, write_timeout=1, wakeup=Wakeup())
    return Mux(Registry(outbound), prefix)


def enter(mux: Mux, waiter: Waiter) -> tuple[str, str]:
    """Enter a waiter; returns its token, and its reply subject as text."""
    inbox = mux.enter(waiter)
    return waiter.token, inbox.decode()


def received(waiter: ReplyWaiter, timeout: float = 0) -> MsgOp | None:
    """Wait as a request does, and return the reply, None without one."""
    came = waiter.wait(timeout)
    operation = waiter.result()
    assert came is (operation is not None)
    return operation


def reply_to(inbox: str, data: bytes = b"answer", block: bytes | None = None) -> MsgOp:
    return (1, inbox, None, block, data)


def deliver(mux: Mux, *batch: MsgOp) -> None:
    mux.deliver(list(batch), sum(map(size_of, batch)))


class Lasting:
    """A waiter for several replies."""

    lasting = True
    answered = False
    token = ""

    def __init__(self) -> None:
        self.replies = Recorder()
        self.failures = Recorder()

    def is_awaited(self, thread: int) -> bool:
        return thread == 0

    def reply(self, operation: MsgOp) -> None:
        self.replies(operation[4])

    def fail(self, error: NatsError) -> None:
        self.failures(error)


# The inbox.


def test_the_inbox_is_entered_at_the_first_request_and_once():
    mux = make_mux("my.prefix")
    assert mux._registry.all() == []
    token, inbox = enter(mux, ReplyWaiter())
    assert mux._registry.all() == [mux]
    _, other = enter(mux, ReplyWaiter())
    assert mux._registry.all() == [mux]
    assert mux.subject.startswith("my.prefix.")
    assert mux.subject.endswith(".*")
    assert inbox == mux.subject[:-1] + token
    assert other != inbox
    assert inbox.count(".") == mux.subject.count(".")


def test_two_clients_have_two_inboxes():
    assert make_mux().subject != make_mux().subject


def test_the_inbox_is_entered_once_by_many_threads(pool: Pool, switching: None):
    for _ in range(20):
        mux = make_mux()
        barrier = threading.Barrier(8, timeout=10)

        def enter_at_once(mux: Mux = mux, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            token, _ = enter(mux, ReplyWaiter())
            # Whoever publishes now must find the inbox entered.
            assert mux._registry.all() == [mux]
            return token

        tokens = [task.result(10) for task in [pool.submit(enter_at_once) for _ in range(8)]]
        assert len(set(tokens)) == 8


def test_the_inbox_holds_nothing_and_drains_last():
    mux = make_mux()
    _, inbox = enter(mux, ReplyWaiter())
    deliver(mux, reply_to(inbox))
    assert (mux.pending_msgs, mux.pending_bytes) == (0, 0)
    assert mux.is_quiet(0)
    mux.end(closed)
    assert mux.has_ended


# Replies.


def test_a_reply_reaches_its_waiter_and_no_other():
    mux = make_mux()
    waiters = [ReplyWaiter() for _ in range(3)]
    inboxes = [enter(mux, waiter)[1] for waiter in waiters]
    deliver(mux, reply_to(inboxes[2], b"2"), reply_to(inboxes[0], b"0"))
    assert received(waiters[0]) == reply_to(inboxes[0], b"0")
    assert received(waiters[2]) == reply_to(inboxes[2], b"2")
    assert received(waiters[1]) is None
    assert mux.waiters()


def test_only_the_first_reply_counts():
    mux = make_mux()
    waiter = ReplyWaiter()
    _, inbox = enter(mux, waiter)
    deliver(mux, reply_to(inbox, b"first"), reply_to(inbox, b"second"))
    answer = received(waiter)
    assert answer is not None
    assert answer[4] == b"first"
    assert not mux.waiters()


@pytest.mark.parametrize("subject", ["_INBOX.other.1", "", "_INBOX", "99999999"])
def test_replies_to_nobody_are_ignored(subject: str):
    mux = make_mux()
    enter(mux, ReplyWaiter())
    deliver(mux, reply_to(mux.subject[:-1] + "77"), reply_to(subject))
    assert mux.waiters()


def test_a_late_reply_is_ignored():
    mux = make_mux()
    waiter = ReplyWaiter()
    token, inbox = enter(mux, waiter)
    assert received(waiter, 0.01) is None
    assert mux.leave(token)
    assert not mux.leave(token)
    deliver(mux, reply_to(inbox))
    assert received(waiter) is None


def test_a_lasting_waiter_gets_every_reply_until_it_leaves():
    mux = make_mux()
    waiter = Lasting()
    token, inbox = enter(mux, waiter)
    deliver(mux, reply_to(inbox, b"1"), reply_to(inbox, b"2"))
    deliver(mux, reply_to(inbox, b"3"))
    assert waiter.replies.items == [b"1", b"2", b"3"]
    assert [each is waiter for each in mux.waiters()] == [True]
    mux.forget(token)
    mux.forget(token)
    deliver(mux, reply_to(inbox, b"4"))
    assert len(waiter.replies) == 3
    assert mux.waiters() == []


def test_waiting_sees_a_reply_that_comes_at_the_last_moment():
    """The time is over, but the answer is there before anybody was told so."""
    waiter = ReplyWaiter()
    waiter.answer(reply_to("x"))
    assert received(waiter) == reply_to("x")


def test_whoever_drains_is_told_of_each_waiter_that_goes():
    mux = make_mux()
    left = Recorder()
    mux.on_leave = lambda: left(len(mux.waiters()))
    first, _ = enter(mux, ReplyWaiter())
    second, inbox = enter(mux, ReplyWaiter())
    mux.leave(first)
    assert left.items == [1]
    deliver(mux, reply_to(inbox))
    assert left.items == [1, 0]
    mux.leave(second)
    assert left.items == [1, 0]


def test_who_waits_for_its_one_reply_is_waited_for():
    assert ReplyWaiter().is_awaited(threading.get_ident())


def test_the_end_fails_everybody_who_waits():
    mux = make_mux()
    waiter, lasting = ReplyWaiter(), Lasting()
    _, inbox = enter(mux, waiter)
    enter(mux, lasting)
    mux.fail_all(closed)
    error = waiter.error
    with pytest.raises(ConnectionClosedError):
        received(waiter)
    assert [type(error) for error in lasting.failures.items] == [ConnectionClosedError]
    assert mux.waiters() == []
    deliver(mux, reply_to(inbox))
    mux.fail_all(closed)
    assert waiter.error is error, "it is told once"
    assert waiter._operation is None


def test_each_waiter_gets_an_error_of_its_own():
    """One exception raised in several threads would mix their tracebacks."""
    mux = make_mux()
    waiters = [ReplyWaiter(), ReplyWaiter()]
    for waiter in waiters:
        enter(mux, waiter)
    mux.fail_all(closed)
    assert waiters[0].error is not waiters[1].error


class OneReply:
    """A waiter for one reply that keeps by what it was completed."""

    lasting = False
    answered = False
    token = ""

    def __init__(self) -> None:
        self.completed = Recorder()

    def is_awaited(self, thread: int) -> bool:
        return True

    def reply(self, operation: MsgOp) -> None:
        self.completed("reply")

    def fail(self, error: NatsError) -> None:
        self.completed("loss")


def test_reply_and_leaving_exclude_each_other(pool: Pool, switching: None):
    """Whoever takes a waiter out of the table completes it: of a reply, a loss and a time-out exactly one does."""
    for _ in range(300):
        mux = make_mux()
        waiter = OneReply()
        token, inbox = enter(mux, waiter)
        delivered = pool.submit(deliver, mux, reply_to(inbox))
        lost = pool.submit(mux.fail_all, closed)
        timed_out = pool.submit(mux.leave, token)
        delivered.result(10)
        lost.result(10)
        assert len(waiter.completed) + timed_out.result(10) == 1
        assert not mux.waiters()


def test_many_requests_at_once_all_get_their_own_reply(pool: Pool, switching: None):
    mux = make_mux()
    inboxes: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def answer() -> None:
        batch: list[str] = []
        while (inbox := inboxes.get()) is not None:
            batch.append(inbox)
            if inboxes.empty() or len(batch) == 5:
                deliver(mux, *[reply_to(inbox, inbox.encode()) for inbox in batch])
                batch = []

    def ask() -> int:
        good = 0
        for _ in range(200):
            waiter = ReplyWaiter()
            token, inbox = enter(mux, waiter)
            inboxes.put(inbox)
            operation = received(waiter, 10)
            mux.leave(token)
            waiter.leave()
            good += operation is not None and operation[4] == inbox.encode()
        return good

    answering = pool.submit(answer)
    asking = [pool.submit(ask) for _ in range(6)]
    assert [task.result(30) for task in asking] == [200] * 6
    inboxes.put(None)
    answering.result(10)
    assert mux.waiters() == []


# Reading.


@pytest.mark.parametrize(
    "block, data",
    [(None, b""), (None, b"x"), (b"NATS/1.0\r\n\r\n", b""), (b"NATS/1.0 404\r\n\r\n", b""), (NO_RESPONDERS, b"x")],
)
def test_a_reply_is_read_as_a_message_of_no_subscription(block: bytes | None, data: bytes):
    msg = read_reply((1, "inbox", "r", block, data), "foo")
    assert (msg.subject, msg.reply, msg.data, msg.subscription) == ("inbox", "r", data, None)


def test_nobody_listens():
    with pytest.raises(NoRespondersError, match="nobody listens on 'foo'") as caught:
        read_reply(reply_to("inbox", b"", NO_RESPONDERS), "foo")
    assert caught.value.subject == "foo"


# A thread that receives its reply itself.


def test_an_expected_reply_is_known_by_its_line_and_answers_its_waiter():
    mux = make_mux()
    waiter = ReplyWaiter()
    inbox = mux.enter(waiter)
    expected = ExpectedReply(mux, waiter, inbox)
    assert expected.beginning == b"MSG %b %d " % (inbox, mux.sid)
    expected.take(b"answer")
    assert waiter.answered
    assert waiter.result() == (mux.sid, inbox.decode(), None, None, b"answer")
    assert not mux.waiters()


def test_an_expected_reply_is_ignored_when_the_waiter_was_failed():
    mux = make_mux()
    waiter = ReplyWaiter()
    expected = ExpectedReply(mux, waiter, mux.enter(waiter))
    mux.fail_all(closed)
    expected.take(b"answer")
    with pytest.raises(ConnectionClosedError):
        waiter.result()


def test_a_drain_hears_of_an_expected_reply():
    mux = make_mux()
    left = Recorder()
    mux.on_leave = lambda: left(len(mux.waiters()))
    waiter = ReplyWaiter()
    expected = ExpectedReply(mux, waiter, mux.enter(waiter))
    expected.take(b"answer")
    assert left.items == [0]
