"""Ending without loss: `Client.drain` and `Subscription.drain`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Status, Subscription
from natsync.errors import (
    BadSubscriptionError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsTimeoutError,
)
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR
ONE_TIMEOUT = "a timeout is spent once over the whole call"


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


@pytest.fixture
def other(connect: Connect, nats_server: NatsServer) -> Client:
    """A second client, which publishes what the first one receives and is not drained."""
    return connect(nats_server.url, name="other")


class Gate:
    """A callback that waits in each call until it is opened, then keeps the message."""

    def __init__(self) -> None:
        self.entered = Recorder()
        self.done = Recorder()
        self.opened = threading.Event()

    def __call__(self, msg: Any) -> None:
        self.entered(msg)
        self.opened.wait(PATIENCE)
        self.done(msg)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def publish_all(client: Client, subject: str, count: int) -> None:
    for number in range(count):
        client.publish(subject, b"%d" % number)
    client.flush()


# The client: nothing is lost


def test_everything_that_the_server_sent_is_handled_in_order(nats_client: Client, other: Client) -> None:
    seen = Recorder()
    nats_client.subscribe("drain.all", cb=lambda msg: seen(msg.data))
    nats_client.flush()
    publish_all(other, "drain.all", 2000)
    nats_client.drain()
    assert seen.items == [b"%d" % number for number in range(2000)]
    assert nats_client.is_closed
    assert nats_client.status is Status.CLOSED


def test_everything_published_before_arrives(nats_client: Client, other: Client) -> None:
    sub = other.subscribe("drain.out")
    other.flush()
    for number in range(10_000):
        nats_client.publish("drain.out", b"%d" % number)
    nats_client.drain()
    assert [int(sub.next_msg(PATIENCE).data) for _ in range(10_000)] == list(range(10_000))


def test_slow_callbacks_are_waited_for(nats_client: Client, other: Client) -> None:
    seen = Recorder()

    def slowly(msg: Any) -> None:
        threading.Event().wait(0.02)
        seen(msg)

    nats_client.subscribe("drain.slow", cb=slowly)
    nats_client.flush()
    publish_all(other, "drain.slow", 10)
    nats_client.drain()
    assert len(seen) == 10


def as_it_is(sub: Subscription) -> None:
    pass


def limit(sub: Subscription) -> None:
    sub.auto_unsubscribe(3)


def drain_too(sub: Subscription) -> None:
    draining = in_background(lambda: sub.drain(PATIENCE))
    never(draining.done, 0.05)


@pytest.mark.parametrize(
    "options, then",
    [({}, as_it_is), ({"workers": 2}, as_it_is), ({"max_msgs": 3}, as_it_is), ({}, limit), ({}, drain_too)],
    ids=["plain", "workers", "max_msgs", "auto_unsubscribe", "draining"],
)
def test_drain_does_not_return_before_the_last_callback(
    nats_client: Client, options: dict[str, Any], then: Callable[[Subscription], None], gate: Gate
) -> None:
    sub = nats_client.subscribe("drain.held", cb=gate, **options)
    publish_all(nats_client, "drain.held", 3)
    gate.entered.wait_for(1)
    then(sub)
    draining = in_background(nats_client.drain)
    never(lambda: draining.done() or nats_client.is_closed, 0.1, "it ends while callbacks are to be run")
    gate.opened.set()
    draining.result(PATIENCE)
    assert len(gate.done) == 3


def test_handlers_respond_and_publish_while_draining(nats_client: Client, other: Client) -> None:
    gate = threading.Event()
    statuses = Recorder()

    def handle(msg: Any) -> None:
        assert gate.wait(PATIENCE)
        statuses((nats_client.status, nats_client.is_draining, nats_client.is_connected))
        msg.respond(msg.data)

    nats_client.subscribe("drain.svc", cb=handle)
    nats_client.flush()
    answers = [other.request_future("drain.svc", b"%d" % number, timeout=PATIENCE) for number in range(50)]
    other.flush()
    draining = in_background(nats_client.drain)
    eventually(lambda: nats_client.is_draining)
    gate.set()
    assert [answer.result().data for answer in answers] == [b"%d" % number for number in range(50)]
    draining.result(PATIENCE)
    assert set(statuses.items) == {(Status.DRAINING_SUBS, True, True)}
    assert not nats_client.is_draining


@pytest.mark.parametrize("callback_workers", [1, 8])
def test_requests_inside_handlers_are_answered_while_draining(
    connect: Connect, nats_server: NatsServer, other: Client, callback_workers: int
) -> None:
    other.subscribe("drain.price", cb=lambda msg: msg.respond(b"7"))
    other.flush()
    client = connect(nats_server.url, callback_workers=callback_workers)
    answers = Recorder()
    gate = threading.Event()

    def handle(msg: Any) -> None:
        assert gate.wait(PATIENCE)
        answers(client.request("drain.price", timeout=PATIENCE).data)

    client.subscribe("drain.order", cb=handle)
    client.flush()
    publish_all(other, "drain.order", 20)
    draining = in_background(client.drain)
    eventually(lambda: client.is_draining)
    gate.set()
    draining.result(PATIENCE)
    assert answers.items == [b"7"] * 20


@pytest.mark.parametrize("kind", ["request", "future"])
def test_a_request_under_way_gets_its_reply(nats_client: Client, other: Client, kind: str) -> None:
    asked, opened = Recorder(), threading.Event()

    def answer_late(msg: Any) -> None:
        asked(msg)
        opened.wait(PATIENCE)
        msg.respond(b"late")

    other.subscribe("drain.late", cb=answer_late)
    other.flush()
    if kind == "request":
        answer = in_background(lambda: nats_client.request("drain.late", timeout=PATIENCE))
    else:
        answer = nats_client.request_future("drain.late", timeout=PATIENCE)
    asked.wait_for(1)
    draining = in_background(nats_client.drain)
    never(draining.done, 0.05)
    opened.set()
    assert answer.result(PATIENCE).data == b"late"
    draining.result(PATIENCE)


def test_a_thread_that_goes_on_asking_does_not_hold_drain_up(nats_client: Client, other: Client) -> None:
    sub = other.subscribe("drain.busy")
    other.flush()

    def answer_the_last_but_one() -> None:
        held = sub.next_msg(PATIENCE)
        for msg in sub:
            held.respond()
            held = msg

    asked = Recorder()

    def ask_on_and_on() -> None:
        waiting = nats_client.request_future("drain.busy", timeout=PATIENCE)
        while True:
            following = nats_client.request_future("drain.busy", timeout=PATIENCE)
            asked(waiting.result(PATIENCE))  # there is no moment at which none is under way
            waiting = following

    in_background(answer_the_last_but_one)
    asking = in_background(ask_on_and_on)
    asked.wait_for(10)
    nats_client.drain(timeout=2.0)
    assert isinstance(asking.exception(PATIENCE), (ConnectionDrainingError, ConnectionClosedError))


def test_a_queue_group_loses_nothing_when_members_drain(
    connect: Connect, nats_server: NatsServer, other: Client
) -> None:
    seen = Recorder()
    members = [connect(nats_server.url) for _ in range(4)]
    for member in members:
        member.subscribe("drain.work", queue="workers", cb=lambda msg: seen(msg.data))
        member.flush()
    for number in range(1200):
        other.publish("drain.work", b"%d" % number)
        if number % 300 == 299 and number < 1199:
            other.flush()
            members.pop().drain()
    other.flush()
    seen.wait_for(1200)
    assert sorted(map(int, seen.items)) == list(range(1200))


# The client: reading


def test_unread_messages_stay_readable(nats_client: Client, other: Client) -> None:
    sub, loop = nats_client.subscribe("drain.read"), nats_client.subscribe("drain.read")
    nats_client.flush()
    publish_all(other, "drain.read", 3)
    nats_client.drain()
    assert nats_client.is_closed
    assert [sub.next_msg(1.0).data for _ in range(3)] == [b"0", b"1", b"2"]
    assert [msg.data for msg in loop] == [b"0", b"1", b"2"]
    assert not sub.is_valid
    with pytest.raises((BadSubscriptionError, ConnectionClosedError)):
        sub.next_msg(1.0)


def test_a_loop_of_another_thread_finishes_and_responds(nats_client: Client, other: Client) -> None:
    sub = nats_client.subscribe("drain.loop")
    nats_client.flush()
    asked = [other.request_future("drain.loop", timeout=PATIENCE) for _ in range(20)]
    other.flush()

    def serve() -> int:
        for count, msg in enumerate(sub):
            if not count:
                eventually(lambda: nats_client.is_draining)
            msg.respond(b"%d" % count)
        return count + 1

    serving = in_background(serve)
    eventually(lambda: sub.delivered)
    nats_client.drain()
    assert serving.result(PATIENCE) == 20
    assert [answer.result(PATIENCE).data for answer in asked] == [b"%d" % number for number in range(20)]


def test_a_loop_of_the_draining_thread_is_not_waited_for(nats_client: Client) -> None:
    sub = nats_client.subscribe("drain.own")
    publish_all(nats_client, "drain.own", 3)
    seen = []
    for msg in sub:
        seen.append(msg.data)
        if len(seen) == 1:
            nats_client.drain()
    assert seen == [b"0", b"1", b"2"]


def test_drain_releases_a_waiting_next_msg(nats_client: Client) -> None:
    sub = nats_client.subscribe("drain.wait")
    waiting = [in_background(sub.next_msg) for _ in range(3)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    nats_client.drain()
    for each in waiting:
        with pytest.raises((BadSubscriptionError, ConnectionClosedError)):
            each.result(PATIENCE)


# The client: what is refused, and when it is over


def test_subscribing_is_refused_while_draining(nats_client: Client, gate: Gate) -> None:
    nats_client.subscribe("drain.gate", cb=gate)
    nats_client.publish("drain.gate")
    gate.entered.wait_for(1)
    draining = in_background(nats_client.drain)
    eventually(lambda: nats_client.is_draining)
    with pytest.raises(ConnectionDrainingError):
        nats_client.subscribe("drain.new")
    gate.opened.set()
    draining.result(PATIENCE)
    with pytest.raises(ConnectionClosedError):
        nats_client.subscribe("drain.new")


def test_publishing_is_refused_in_the_last_phase(connect: Connect, scripted: Any) -> None:
    def script(conn: Any) -> None:
        conn.handshake()
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        conn.expect(b"PING")
        eventually(lambda: client.status is Status.DRAINING_PUBS)
        with pytest.raises(ConnectionDrainingError):
            client.publish("drain.late")
        with pytest.raises(ConnectionDrainingError):
            client.subscribe("drain.late")
        conn.send(b"PONG\r\n")
        conn.wait_eof()

    server = scripted(script)
    client = connect(server.url)
    client.drain()
    assert client.is_closed


def test_nothing_arrives_after_the_server_was_told(nats_client: Client, other: Client) -> None:
    seen = Recorder()
    nats_client.subscribe("drain.after", cb=seen)
    nats_client.drain()
    publish_all(other, "drain.after", 3)
    never(lambda: seen.items, 0.05)


@pytest.mark.parametrize("again", ["drain", "close", "leave the context"])
def test_ending_a_drained_client_again(nats_client: Client, again: str) -> None:
    nats_client.drain()
    if again == "drain":
        with pytest.raises(ConnectionClosedError):
            nats_client.drain()
    elif again == "close":
        nats_client.close()
    else:
        with nats_client:
            pass
    assert nats_client.is_closed


def test_several_threads_may_drain_at_once(connect: Connect, nats_server: NatsServer, other: Client) -> None:
    seen = Recorder()
    client = connect(nats_server.url)
    client.subscribe("drain.many-threads", cb=seen)
    client.flush()
    publish_all(other, "drain.many-threads", 100)
    barrier = threading.Barrier(4)

    def drain() -> None:
        barrier.wait(PATIENCE)
        client.drain()

    for caller in [in_background(drain) for _ in range(4)]:
        # One that comes when all is over already is told so; none is told anything else.
        assert isinstance(caller.exception(PATIENCE), (ConnectionClosedError, type(None)))
    assert len(seen) == 100
    assert client.is_closed


# The client: from inside a callback


def from_message_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    client = connect(url)
    client.subscribe("drain.inside", cb=lambda msg: act(client))
    client.publish("drain.inside")
    return client


def from_event_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    return connect(url, connected_cb=lambda event: act(event.client))


def from_future_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    client = connect(url)
    client.request_future("drain.nobody").add_done_callback(lambda future: act(client))
    return client


@pytest.mark.parametrize("make", [from_message_callback, from_event_callback, from_future_callback])
def test_drain_in_a_callback_starts_and_returns(connect: Connect, nats_server: NatsServer, make: Any) -> None:
    returned = Recorder()

    def act(client: Client) -> None:
        client.drain()
        returned(client.is_closed)

    client = make(connect, nats_server.url, act)
    assert client.wait_closed(PATIENCE)
    assert len(returned.wait_for(1)) == 1


# The client: when it cannot be


def test_a_callback_that_does_not_return_ends_in_a_timeout(
    connect: Connect, nats_server: NatsServer, gate: Gate
) -> None:
    client = connect(nats_server.url)
    client.subscribe("drain.stuck", cb=gate)
    publish_all(client, "drain.stuck", 5)
    gate.entered.wait_for(1)
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError) as caught:
        client.drain(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 1.0 * TIME_FACTOR, ONE_TIMEOUT
    assert caught.value.timeout == 0.2
    assert client.is_closed
    assert isinstance(client.last_error, NatsTimeoutError)
    gate.opened.set()
    gate.done.wait_for(1)
    never(lambda: len(gate.entered) > 1, 0.1, "callbacks go on after the client was closed")


def test_close_cuts_a_drain_short(nats_client: Client, gate: Gate) -> None:
    nats_client.subscribe("drain.cut", cb=gate)
    publish_all(nats_client, "drain.cut", 5)
    gate.entered.wait_for(1)
    draining = in_background(nats_client.drain)
    eventually(lambda: nats_client.is_draining)
    nats_client.close()
    assert nats_client.is_closed
    with pytest.raises(ConnectionClosedError):
        draining.result(PATIENCE)
    gate.opened.set()
    gate.done.wait_for(1)
    never(lambda: len(gate.entered) > 1, 0.1, "callbacks go on after the client was closed")


def test_a_frozen_server_ends_in_a_timeout(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    client.publish("drain.frozen")
    client.flush()
    fresh_server.pause()
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        client.drain(timeout=0.3)
    assert time.monotonic() - began < 1.1 * TIME_FACTOR, ONE_TIMEOUT
    assert client.is_closed


def test_a_connection_lost_while_draining_closes_the_client(
    connect: Connect, fresh_server: NatsServer, gate: Gate
) -> None:
    client = connect(fresh_server.url)
    client.subscribe("drain.lost", cb=gate)
    client.publish("drain.lost")
    gate.entered.wait_for(1)
    draining = in_background(client.drain)
    eventually(lambda: client.is_draining)
    fresh_server.kill()
    with pytest.raises(ConnectionClosedError) as caught:
        draining.result(PATIENCE)
    assert caught.value.__cause__ is not None
    assert client.is_closed
    gate.opened.set()


def test_without_a_connection_it_closes_and_raises(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    fresh_server.stop()
    eventually(lambda: client.is_reconnecting)
    with pytest.raises(ConnectionReconnectingError):
        client.drain()
    assert client.is_closed


# A subscription


def test_a_drained_subscription_has_had_everything_and_gets_no_more(nats_client: Client, other: Client) -> None:
    seen = Recorder()
    sub = nats_client.subscribe("drain.sub", cb=lambda msg: seen(msg.data))
    nats_client.flush()
    publish_all(other, "drain.sub", 1000)
    sub.drain()
    assert seen.items == [b"%d" % number for number in range(1000)]
    assert not sub.is_valid
    publish_all(other, "drain.sub", 3)
    nats_client.flush()
    assert len(seen) == 1000
    assert nats_client.is_connected
    with pytest.raises(BadSubscriptionError):
        sub.drain()


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"max_msgs": 3}], ids=["plain", "workers", "max_msgs"])
def test_subscription_drain_does_not_return_before_the_last_callback(
    nats_client: Client, other: Client, options: dict[str, Any], gate: Gate
) -> None:
    sub = nats_client.subscribe("drain.sub", cb=gate, **options)
    nats_client.flush()
    publish_all(other, "drain.sub", 3)
    nats_client.flush()
    draining = in_background(sub.drain)
    never(draining.done, 0.1, "drain returns while a callback runs")
    gate.opened.set()
    draining.result(PATIENCE)
    assert len(gate.done) == 3


def test_messages_of_a_drained_subscription_stay_readable(nats_client: Client) -> None:
    sub, loop, left = (nats_client.subscribe("drain.sub") for _ in range(3))
    publish_all(nats_client, "drain.sub", 3)
    for each in (sub, loop, left):
        each.drain()
        assert each.is_valid
        assert each.pending_msgs == 3
    assert [sub.next_msg(1.0).data for _ in range(3)] == [b"0", b"1", b"2"]
    assert not sub.is_valid
    with pytest.raises(BadSubscriptionError):
        sub.next_msg(1.0)
    assert [msg.data for msg in loop] == [b"0", b"1", b"2"]
    left.unsubscribe()
    assert left.pending_msgs == 0
    with pytest.raises(BadSubscriptionError):
        left.next_msg(1.0)


@pytest.mark.parametrize("callback_workers", [1, 8])
def test_a_subscription_may_be_drained_in_its_own_callback(
    connect: Connect, nats_server: NatsServer, callback_workers: int
) -> None:
    client = connect(nats_server.url, callback_workers=callback_workers)
    seen, published = Recorder(), threading.Event()

    def handle(msg: Any) -> None:
        published.wait(PATIENCE)
        if not len(seen):
            msg.subscription.drain()
        seen(msg.data)

    sub = client.subscribe("drain.self", cb=handle)
    publish_all(client, "drain.self", 100)
    published.set()
    assert seen.wait_for(100) == [b"%d" % number for number in range(100)]
    eventually(lambda: not sub.is_valid)
    publish_all(client, "drain.self", 3)
    never(lambda: len(seen) > 100, 0.05)


def test_a_subscription_drain_that_takes_too_long_ends_it(nats_client: Client, gate: Gate) -> None:
    sub = nats_client.subscribe("drain.stuck", cb=gate)
    publish_all(nats_client, "drain.stuck", 5)
    gate.entered.wait_for(1)
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        sub.drain(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 1.7 * TIME_FACTOR
    assert not sub.is_valid or sub.pending_msgs == 1
    gate.opened.set()
    gate.done.wait_for(1)
    never(lambda: len(gate.entered) > 1, 0.1, "what was pending is discarded")
    assert nats_client.is_connected


def test_subscription_drain_waits_for_a_loop_of_another_thread(nats_client: Client, gate: Gate) -> None:
    sub = nats_client.subscribe("drain.loop")
    publish_all(nats_client, "drain.loop", 5)

    def loop() -> None:
        for msg in sub:
            gate(msg)

    looping = in_background(loop)
    gate.entered.wait_for(1)
    draining = in_background(sub.drain)
    never(draining.done, 0.1)
    gate.opened.set()
    draining.result(PATIENCE)
    looping.result(PATIENCE)
    assert len(gate.done) == 5


def test_subscription_drain_releases_a_waiting_next_msg(nats_client: Client) -> None:
    sub = nats_client.subscribe("drain.wait")
    waiting = [in_background(sub.next_msg) for _ in range(3)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    sub.drain()
    for each in waiting:
        with pytest.raises(BadSubscriptionError):
            each.result(PATIENCE)


def test_close_ends_a_subscription_drain_with_an_error(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    sub = client.subscribe("drain.frozen", cb=Recorder())
    client.flush()
    fresh_server.pause()
    draining = in_background(lambda: sub.drain(PATIENCE))
    never(draining.done, 0.05)
    client.close()
    with pytest.raises(ConnectionClosedError):
        draining.result(PATIENCE)
    with pytest.raises(ConnectionClosedError):
        sub.drain()


def test_many_subscriptions_drained_leave_none_at_the_server(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    subs = [client.subscribe(f"drain.{number}", cb=Recorder()) for number in range(100)]
    client.flush()
    before = fresh_server.varz()["subscriptions"]
    for number, sub in enumerate(subs):
        if number % 2:
            sub.drain()
        else:
            sub.unsubscribe()
    client.flush()
    eventually(lambda: fresh_server.varz()["subscriptions"] == before - 100)
    assert not any(sub.is_valid for sub in subs)
