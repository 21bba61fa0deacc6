"""Subscriptions: how messages reach a callback or a reader, and how a subscription ends."""

from __future__ import annotations

import collections
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import (
    BadQueueError,
    BadSubjectError,
    BadSubscriptionError,
    ConfigError,
    MaxMessagesError,
    NatsTimeoutError,
)
from tests.support.leaks import natsync_threads
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Run a blocking call on a thread of its own, which a test that fails may leave behind."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


def publish(client: Client, subject: str, count: int) -> list[bytes]:
    sent = [b"%d" % number for number in range(count)]
    for data in sent:
        client.publish(subject, data)
    client.flush()
    return sent


@pytest.fixture
def opened() -> Iterator[threading.Event]:
    """A gate for callbacks; open at the end in any case, so that a test that fails leaves none waiting."""
    event = threading.Event()
    yield event
    event.set()


# Callbacks


def test_a_callback_gets_every_message_in_order_one_at_a_time(nats_client: Client) -> None:
    seen, running = Recorder(), []

    def handle(msg: Msg) -> None:
        running.append(msg)
        seen((msg.data, len(running)))
        running.pop()

    sub = nats_client.subscribe("sub.order", cb=handle)
    sent = publish(nats_client, "sub.order", 5000)
    assert seen.wait_for(5000) == [(data, 1) for data in sent]
    assert sub.delivered == 5000


def test_what_a_callback_gets(nats_client: Client) -> None:
    seen, threads = Recorder(), Recorder()

    def handle(msg: Msg) -> None:
        threads(threading.current_thread().name)
        seen(msg)

    sub = nats_client.subscribe("sub.*.got", cb=handle)
    nats_client.publish("sub.what.got", b"data", reply="sub.reply", headers={"a": "b"})
    (msg,) = seen.wait_for(1)
    assert (msg.subject, msg.data, msg.reply) == ("sub.what.got", b"data", "sub.reply")
    assert msg.headers is not None
    assert msg.headers.items() == [("a", "b")]
    assert msg.subscription is sub
    assert threads.items[0].startswith("natsync-")
    assert "reader" not in threads.items[0]


def test_workers_run_at_once_and_each_message_once(nats_client: Client) -> None:
    barrier, seen = threading.Barrier(4), Recorder()

    def handle(msg: Msg) -> None:
        barrier.wait(PATIENCE)  # nobody passes unless four run at once
        seen(msg.data)

    nats_client.subscribe("sub.workers", cb=handle, workers=4)
    sent = publish(nats_client, "sub.workers", 40)
    assert sorted(seen.wait_for(40)) == sorted(sent)
    never(lambda: len(seen) > 40, 0.02)


@pytest.mark.parametrize("workers, callback_workers, most", [(3, 8, 3), (8, 2, 2), (1, 8, 1)])
def test_never_more_workers_than_asked_for(
    connect: Connect, nats_server: NatsServer, workers: int, callback_workers: int, most: int
) -> None:
    client = connect(nats_server.url, callback_workers=callback_workers)
    lock, running, peaks = threading.Lock(), collections.Counter[str](), Recorder()

    def handle(msg: Msg) -> None:
        with lock:
            running["now"] += 1
            peaks(running["now"])
        threading.Event().wait(0.001)
        with lock:
            running["now"] -= 1

    client.subscribe("sub.most", cb=handle, workers=workers)
    publish(client, "sub.most", 100)
    assert max(peaks.wait_for(100)) == most


def test_workers_are_started_on_demand(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, callback_workers=3)
    seen, idle = Recorder(), len(natsync_threads())
    client.subscribe("sub.demand")
    assert len(natsync_threads()) == idle
    for count in range(1, 10):
        client.subscribe("sub.demand", cb=seen)
        assert len(natsync_threads()) <= idle + min(count, 3)
    client.publish("sub.demand")
    seen.wait_for(9)
    assert idle < len(natsync_threads()) <= idle + 3


def test_a_blocked_subscription_does_not_hold_others_up(nats_client: Client, opened: threading.Event) -> None:
    entered = Recorder()

    def block(msg: Msg) -> None:
        entered(msg)
        opened.wait(PATIENCE)

    blocked = [nats_client.subscribe(f"sub.blocked.{number}", cb=block) for number in range(4)]
    free = Recorder()
    nats_client.subscribe("sub.free", cb=free)
    for number in range(4):
        publish(nats_client, f"sub.blocked.{number}", 3)
    entered.wait_for(4)
    publish(nats_client, "sub.free", 100)
    free.wait_for(100)
    assert [sub.pending_msgs for sub in blocked] == [3] * 4


def test_busy_subscriptions_share_one_worker(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, callback_workers=1)
    busy, stop, seen = Recorder(), threading.Event(), Recorder()

    def go_on(msg: Msg) -> None:
        if not stop.is_set():
            client.publish("sub.busy")
        busy(None)

    client.subscribe("sub.busy", cb=go_on)
    client.subscribe("sub.other", cb=seen)
    publish(client, "sub.busy", 200)
    busy.wait_for(200)
    publish(client, "sub.other", 10)
    seen.wait_for(10)
    stop.set()


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyError(1), SystemExit(3)], ids=lambda error: type(error).__name__
)
def test_a_callback_that_raises_is_logged_and_reported_and_the_next_message_follows(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    reported, seen = Recorder(), Recorder()
    client = connect(nats_server.url, error_cb=reported, callback_workers=1)

    def handle(msg: Msg) -> None:
        seen(msg.data)
        if msg.data == b"0":
            raise error

    sub = client.subscribe("sub.raises", cb=handle)
    sent = publish(client, "sub.raises", 3)
    assert seen.wait_for(3) == sent
    (event,) = reported.wait_for(1)
    assert event.error is error
    assert event.subscription is sub
    assert event.client is client
    assert client.last_error is error
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.levelno == logging.ERROR
    assert record.name.startswith("natsync")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    eventually(lambda: sub.pending_msgs == 0)


def test_a_callback_may_subscribe_and_wait_for_its_own_messages(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, callback_workers=1)
    got = Recorder()

    def handle(msg: Msg) -> None:
        with client.subscribe("sub.nested") as inner:
            client.publish("sub.nested", b"inside")
            got(inner.next_msg(PATIENCE).data)

    client.subscribe("sub.outer", cb=handle)
    client.publish("sub.outer")
    assert got.wait_for(1) == [b"inside"]


@pytest.mark.parametrize("name", ["next_msg", "__iter__"])
def test_a_subscription_with_a_callback_cannot_be_read(nats_client: Client, name: str) -> None:
    sub = nats_client.subscribe("sub.both", cb=print)
    with pytest.raises(BadSubscriptionError):
        getattr(sub, name)()
    with pytest.raises(BadSubscriptionError):
        for _ in sub:
            pass


# Reading


def test_next_msg_returns_messages_in_order(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.next")
    sent = publish(nats_client, "sub.next", 100)
    assert [sub.next_msg(PATIENCE).data for _ in range(100)] == sent


@pytest.mark.parametrize("timeout", [0.05, 0.2, 0])
def test_next_msg_waits_as_long_as_it_was_told(nats_client: Client, timeout: float) -> None:
    sub = nats_client.subscribe("sub.timeout")
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError) as caught:
        sub.next_msg(timeout)
    assert timeout <= time.monotonic() - began < timeout + 1.2 * TIME_FACTOR
    assert isinstance(caught.value, TimeoutError)
    publish(nats_client, "sub.timeout", 1)
    assert sub.next_msg(timeout).data == b"0"


def test_next_msg_without_a_timeout_waits_for_a_message(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.forever")
    waiting = in_background(sub.next_msg)
    never(waiting.done, 0.1)
    publish(nats_client, "sub.forever", 1)
    assert waiting.result(PATIENCE).data == b"0"


def test_each_message_goes_to_one_of_several_readers(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.readers")
    readers = [in_background(lambda: [msg.data for msg in sub]) for _ in range(4)]
    sent = publish(nats_client, "sub.readers", 2000)
    sub.drain()
    assert sorted(data for reader in readers for data in reader.result(PATIENCE)) == sorted(sent)


def test_a_loop_goes_on_until_the_subscription_ends(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.loop")
    looping = in_background(lambda: [msg.data for msg in sub])
    sent = publish(nats_client, "sub.loop", 10)
    eventually(lambda: sub.delivered == 10)
    assert not looping.done()
    sub.unsubscribe()
    assert looping.result(PATIENCE) == sent


def test_a_loop_can_be_left_and_entered_again(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.again")
    publish(nats_client, "sub.again", 4)
    seen = []
    for _ in range(2):
        for msg in sub:
            seen.append(msg.data)
            break
    assert [*seen, sub.next_msg(PATIENCE).data] == [b"0", b"1", b"2"]
    assert sub.is_valid


# Subjects and queue groups


@pytest.mark.parametrize(
    "pattern, subject, arrives",
    [
        ("sub.w.*", "sub.w.a", True),
        ("sub.w.*", "sub.w.a.b", False),
        ("sub.w.>", "sub.w.a.b", True),
        ("sub.w.>", "sub.w", False),
        ("sub.*.w", "sub.a.w", True),
        ("sub.w", "sub.W", False),
        ("sub.gr\u00fc\u00dfe.\u4e16", "sub.gr\u00fc\u00dfe.\u4e16", True),
        ("sub.a*b", "sub.a*b", True),
    ],
)
def test_wildcards(nats_client: Client, pattern: str, subject: str, arrives: bool) -> None:
    sub = nats_client.subscribe(pattern)
    nats_client.publish(subject, b"here")
    nats_client.flush()
    assert sub.pending_msgs == arrives
    if arrives:
        assert sub.next_msg(PATIENCE).subject == subject
    assert sub.subject == pattern


def test_members_of_a_queue_group_share_the_messages(connect: Connect, nats_server: NatsServer) -> None:
    seen = [Recorder() for _ in range(4)]
    clients = [connect(nats_server.url) for _ in range(2)]
    for number, recorder in enumerate(seen):
        clients[number % 2].subscribe("sub.queue", queue="group", cb=recorder)
    everything = clients[0].subscribe("sub.queue")
    for client in clients:
        client.flush()
    publish(clients[0], "sub.queue", 2000)
    eventually(lambda: sum(map(len, seen)) == 2000)
    assert all(len(recorder) > 100 for recorder in seen)
    assert everything.pending_msgs == 2000


@pytest.mark.parametrize("subject", ["", " ", "a b", "a\r\nb", "a\tb", ".a", "a.", "a..b", ">.a", "a.>.b", "\0"])
def test_bad_subjects_are_refused(nats_client: Client, subject: str) -> None:
    with pytest.raises(BadSubjectError):
        nats_client.subscribe(subject)


@pytest.mark.parametrize("queue", ["", " ", "a b", "a\r\nPUB x 0\r\n"])
def test_bad_queue_names_are_refused(nats_client: Client, queue: str) -> None:
    with pytest.raises(BadQueueError):
        nats_client.subscribe("sub.queue", queue=queue)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_msgs": 0}, ConfigError),
        ({"max_msgs": -1}, ConfigError),
        ({"max_msgs": 1.5}, ConfigError),
        ({"workers": 0, "cb": print}, ConfigError),
        ({"workers": 2}, ConfigError),
        ({"cb": "no callable"}, TypeError),
        ({"queue": 1}, TypeError),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(nats_client: Client, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        nats_client.subscribe("sub.bad", **options)


# Ending


def test_unsubscribe_ends_it_at_once(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.end")
    publish(nats_client, "sub.end", 3)
    sub.unsubscribe()
    assert not sub.is_valid
    assert list(sub) == []
    for call in (sub.next_msg, sub.unsubscribe, sub.drain, lambda: sub.auto_unsubscribe(1)):
        with pytest.raises(BadSubscriptionError):
            call()
    publish(nats_client, "sub.end", 3)
    assert (sub.pending_msgs, sub.delivered) == (0, 0)


def test_unsubscribe_wakes_whoever_waits(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.wake")
    waiting = [in_background(sub.next_msg) for _ in range(3)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    sub.unsubscribe()
    for each in waiting:
        with pytest.raises(BadSubscriptionError):
            each.result(PATIENCE)


@pytest.mark.parametrize("last", [1, 10, 128, 129, 500])
def test_unsubscribe_inside_the_callback_is_exact(nats_client: Client, last: int) -> None:
    seen = Recorder()

    def handle(msg: Msg) -> None:
        seen(msg.data)
        if len(seen) == last:
            assert msg.subscription is not None
            msg.subscription.unsubscribe()

    sub = nats_client.subscribe("sub.inside", cb=handle)
    sent = publish(nats_client, "sub.inside", 1000)
    eventually(lambda: not sub.is_valid and sub.pending_msgs == 0)
    never(lambda: len(seen) > last, 0.03)
    assert seen.items == sent[:last]
    assert sub.delivered == last


def test_at_most_the_callback_about_to_begin_runs_after_unsubscribe(nats_client: Client) -> None:
    for _ in range(50):
        begun: list[float] = []
        first = threading.Event()

        def handle(msg: Msg, begun: list[float] = begun, first: threading.Event = first) -> None:
            begun.append(time.monotonic())
            first.set()

        sub = nats_client.subscribe("sub.outside", cb=handle)
        publish(nats_client, "sub.outside", 200)
        assert first.wait(PATIENCE)
        sub.unsubscribe()
        ended = time.monotonic()
        eventually(lambda: sub.pending_msgs == 0)  # noqa: B023  (called at once)
        assert sum(at > ended for at in begun) <= 1
        assert sub.delivered == len(begun)


def test_as_a_context_manager_it_is_unsubscribed(nats_client: Client) -> None:
    with nats_client.subscribe("sub.with") as sub:
        publish(nats_client, "sub.with", 1)
        assert sub.next_msg(PATIENCE).data == b"0"
    assert not sub.is_valid
    with pytest.raises(KeyError), nats_client.subscribe("sub.with") as failing:
        raise KeyError
    assert not failing.is_valid
    with nats_client.subscribe("sub.with") as ended:
        ended.unsubscribe()


def at_the_start(client: Client, **options: Any) -> Any:
    return client.subscribe("sub.max", max_msgs=10, **options)


def afterwards(client: Client, **options: Any) -> Any:
    sub = client.subscribe("sub.max", **options)
    sub.auto_unsubscribe(10)
    return sub


@pytest.mark.parametrize("subscribe", [at_the_start, afterwards])
def test_a_limited_subscription_ends_after_its_messages(nats_client: Client, subscribe: Callable[..., Any]) -> None:
    seen = Recorder()
    called, read, loop = subscribe(nats_client, cb=seen), subscribe(nats_client), subscribe(nats_client)
    sent = publish(nats_client, "sub.max", 100)[:10]
    assert [msg.data for msg in seen.wait_for(10)] == sent
    assert read.is_valid
    assert [read.next_msg(PATIENCE).data for _ in range(10)] == sent
    assert [msg.data for msg in loop] == sent
    eventually(lambda: not called.is_valid)
    for sub in (called, read, loop):
        assert not sub.is_valid
        assert sub.delivered == 10
    with pytest.raises(MaxMessagesError) as caught:
        read.next_msg(PATIENCE)
    assert caught.value.max_msgs == 10
    never(lambda: len(seen) > 10, 0.02)


def test_the_server_forgets_a_limited_subscription(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    before = fresh_server.varz()["subscriptions"]
    at_the_start(client)
    afterwards(client)
    client.flush()
    assert fresh_server.varz()["subscriptions"] == before + 2
    publish(client, "sub.max", 10)
    assert fresh_server.varz()["subscriptions"] == before


def test_every_reader_is_released_when_the_last_message_is_taken(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.release", max_msgs=1)
    waiting = [in_background(lambda: sub.next_msg(PATIENCE).data) for _ in range(3)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    publish(nats_client, "sub.release", 1)
    eventually(lambda: all(each.done() for each in waiting), 1.0, "readers wait for messages that cannot come")
    outcomes = [each.exception() or each.result() for each in waiting]
    assert outcomes.count(b"0") == 1
    assert sum(isinstance(each, MaxMessagesError) for each in outcomes) == 2


def test_a_limit_below_what_was_delivered_ends_it_at_once(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.below")
    publish(nats_client, "sub.below", 10)
    for _ in range(5):
        sub.next_msg(PATIENCE)
    sub.auto_unsubscribe(3)
    assert (sub.is_valid, sub.pending_msgs, sub.delivered) == (False, 0, 5)
    assert list(sub) == []


def test_a_limit_below_what_is_pending_takes_the_surplus_back(nats_client: Client) -> None:
    sub = nats_client.subscribe("sub.surplus")
    sent = publish(nats_client, "sub.surplus", 10)
    sub.auto_unsubscribe(7)
    assert sub.pending_msgs == 7
    assert [msg.data for msg in sub] == sent[:7]


@pytest.mark.parametrize("limit, total", [(5, 10), (10, 10), (20, 20)])
def test_a_limit_may_be_changed_inside_the_callback(nats_client: Client, limit: int, total: int) -> None:
    seen = Recorder()

    def handle(msg: Msg) -> None:
        if len(seen) == 9:
            assert msg.subscription is not None
            msg.subscription.auto_unsubscribe(limit)
            nats_client.flush()
        seen(msg.data)

    sub = nats_client.subscribe("sub.change", cb=handle)
    sub.auto_unsubscribe(15)
    publish(nats_client, "sub.change", 10)
    eventually(lambda: len(seen) == 10)
    publish(nats_client, "sub.change", 30)
    eventually(lambda: not sub.is_valid)
    assert len(seen) == total
    assert sub.delivered == total


@pytest.mark.parametrize("end", ["max_msgs", "auto_unsubscribe", "drain", "unsubscribe"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_subscriptions_that_have_ended_leave_nothing_when_forgotten(nats_client: Client, end: str, read: bool) -> None:
    for _ in range(50):
        sub = nats_client.subscribe("sub.forgotten", max_msgs=1 if end == "max_msgs" else None)
        nats_client.publish("sub.forgotten")
        nats_client.flush()
        if read:
            sub.next_msg(PATIENCE)
        if end == "auto_unsubscribe":
            sub.auto_unsubscribe(1)
        elif end != "max_msgs":
            getattr(sub, end)()
        del sub
    gc.collect()
    assert nats_client._engine.registry.all() == []


# Facts


def test_properties(nats_client: Client) -> None:
    plain, member = nats_client.subscribe("sub.facts"), nats_client.subscribe("sub.*", queue="group")
    assert (plain.subject, plain.queue, member.subject, member.queue) == ("sub.facts", None, "sub.*", "group")
    assert isinstance(plain.sid, int)
    assert plain.sid != member.sid
    for sub in (plain, member):
        assert sub.is_valid
        assert (sub.pending_msgs, sub.pending_bytes, sub.delivered, sub.dropped) == (0, 0, 0, 0)
        assert str(sub.sid) in repr(sub)
        assert sub.subject in repr(sub)
    for name in ("sid", "subject", "queue", "is_valid", "pending_msgs", "pending_bytes", "delivered", "dropped"):
        with pytest.raises(AttributeError):
            setattr(plain, name, 1)
