"""Ending at once: `close()` wakes everybody, loses nothing that was published, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg, Status
from natsync.errors import BadSubscriptionError, ConnectionClosedError
from tests.support.leaks import describe_leaks, natsync_threads, open_sockets
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


def took(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


# Once, twice, from everywhere


def test_a_closed_client_says_so(nats_client: Client) -> None:
    nats_client.close()
    assert nats_client.status is Status.CLOSED
    assert (nats_client.is_closed, nats_client.is_connected, nats_client.is_draining) == (True, False, False)
    assert nats_client.connected_url is None
    assert nats_client.buffered == 0
    assert nats_client.wait_closed()
    nats_client.close()
    assert nats_client.wait_closed(0.01)


def test_many_threads_may_close_at_once(connect: Connect, nats_server: NatsServer) -> None:
    closed = Recorder()
    client = connect(nats_server.url, closed_cb=closed)
    barrier = threading.Barrier(8)

    def close() -> bool:
        barrier.wait(PATIENCE)
        client.close()
        return client.is_closed

    assert all(caller.result(PATIENCE) for caller in [in_background(close) for _ in range(8)])
    assert len(closed.wait_for(1)) == 1


def from_message_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    client = connect(url)
    client.subscribe("close.inside", cb=lambda msg: act(client))
    client.publish("close.inside")
    return client


def from_event_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    return connect(url, connected_cb=lambda event: act(event.client))


def from_future_callback(connect: Connect, url: str, act: Callable[[Client], None]) -> Client:
    client = connect(url)
    client.request_future("close.nobody").add_done_callback(lambda future: act(client))
    return client


@pytest.mark.parametrize("make", [from_message_callback, from_event_callback, from_future_callback])
def test_close_in_a_callback_starts_and_returns(connect: Connect, nats_server: NatsServer, make: Any) -> None:
    durations = Recorder()
    client = make(connect, nats_server.url, lambda client: durations(took(client.close)))
    assert client.wait_closed(PATIENCE)
    assert durations.wait_for(1)[0] < 1.5 * TIME_FACTOR
    eventually(lambda: not natsync_threads())


def test_wait_closed_says_no_while_the_client_is_open(nats_client: Client) -> None:
    assert 0.05 <= took(lambda: nats_client.wait_closed(0.05)) < 1.5 * TIME_FACTOR
    assert nats_client.wait_closed(0.01) is False


# Whoever waits is woken


def wait_for_a_message(client: Client) -> object:
    return client.subscribe("close.wait").next_msg()


def request(client: Client) -> object:
    return client.request("close.mute", timeout=60)


def request_future(client: Client) -> object:
    return client.request_future("close.mute", timeout=60).result()


def request_many(client: Client) -> object:
    return list(client.request_many("close.mute", timeout=60))


def flush(client: Client) -> None:
    client.flush(timeout=60)


def rtt(client: Client) -> object:
    return client.rtt(timeout=60)


def drain(client: Client) -> None:
    client.drain(timeout=60)


@pytest.mark.parametrize("wait", [wait_for_a_message, request, request_future, request_many])
def test_close_wakes_a_call_that_waits_for_a_message(
    nats_client: Client, connect: Connect, nats_server: NatsServer, wait: Callable[[Client], object]
) -> None:
    mute = connect(nats_server.url)
    asked = Recorder()
    mute.subscribe("close.mute", cb=asked)
    mute.flush()
    waiting = [in_background(lambda: wait(nats_client)) for _ in range(4)]
    if wait is wait_for_a_message:
        never(lambda: any(each.done() for each in waiting), 0.05)
    else:
        asked.wait_for(4)
    assert took(nats_client.close) < 1.5 * TIME_FACTOR
    for each in waiting:
        with pytest.raises(ConnectionClosedError):
            each.result(0.5 * TIME_FACTOR)


@pytest.mark.parametrize("wait", [flush, rtt, drain])
def test_close_wakes_a_call_that_waits_for_the_server(
    connect: Connect, fresh_server: NatsServer, wait: Callable[[Client], object]
) -> None:
    client = connect(fresh_server.url)
    fresh_server.pause()
    waiting = [in_background(lambda: wait(client)) for _ in range(4)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    client.close()
    for each in waiting:
        with pytest.raises(ConnectionClosedError):
            each.result(0.5 * TIME_FACTOR)


def test_close_wakes_a_publisher_that_waits_for_room(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, pending_size=65536)
    fresh_server.pause()

    def publish_for_ever() -> None:
        while True:
            client.publish("close.room", bytes(1000))

    publishing = in_background(publish_for_ever)
    counts: list[int] = []

    def stands_still() -> bool:
        counts.append(client.stats.out_msgs)
        return client.buffered > 0 and counts[-20:] == [counts[-1]] * 20

    eventually(stands_still)
    assert took(client.close) < 3.0 * TIME_FACTOR
    with pytest.raises(ConnectionClosedError):
        publishing.result(0.5 * TIME_FACTOR)


def test_close_ends_loops_and_waits(nats_client: Client) -> None:
    sub = nats_client.subscribe("close.loop")
    looping = in_background(lambda: list(sub))
    closed = [in_background(nats_client.wait_closed) for _ in range(3)]
    never(lambda: looping.done() or any(each.done() for each in closed), 0.05)
    nats_client.close()
    assert looping.result(PATIENCE) == []
    assert all(each.result(PATIENCE) is True for each in closed)
    assert list(sub) == []


def test_the_cause_is_told_when_it_was_not_the_users_wish(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, allow_reconnect=False)
    sub = client.subscribe("close.cause")
    client.subscribe("close.mute")
    client.flush()
    waiting = [in_background(call) for call in (lambda: request(client), lambda: request_future(client), sub.next_msg)]
    never(lambda: any(each.done() for each in waiting), 0.05)
    fresh_server.kill()
    for each in waiting:
        with pytest.raises(ConnectionClosedError) as caught:
            each.result(PATIENCE)
        assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(ConnectionClosedError) as caught:
        client.publish("close.cause")
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_there_is_no_cause_when_it_was_the_users_wish(nats_client: Client) -> None:
    nats_client.close()
    with pytest.raises(ConnectionClosedError) as caught:
        nats_client.publish("close.cause")
    assert caught.value.__cause__ is None


# Messages


def test_what_was_published_before_arrives(nats_client: Client, connect: Connect, nats_server: NatsServer) -> None:
    other = connect(nats_server.url)
    sub = other.subscribe("close.last")
    other.flush()
    for number in range(10_000):
        nats_client.publish("close.last", b"%d" % number)
    nats_client.close()
    assert [int(sub.next_msg(PATIENCE).data) for _ in range(10_000)] == list(range(10_000))


SCRIPT = """
import sys, natsync
client = natsync.connect(sys.argv[1])
client.subscribe("close.idle", cb=print)
for number in range(10_000):
    client.publish("close.script", b"%d" % number)
"""


def test_a_script_that_ends_without_close_loses_nothing(nats_client: Client, nats_server: NatsServer) -> None:
    sub = nats_client.subscribe("close.script")
    nats_client.flush()
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, nats_server.url], capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stderr == ""
    assert [int(sub.next_msg(PATIENCE).data) for _ in range(10_000)] == list(range(10_000))


@pytest.mark.parametrize(
    "options", [{}, {"workers": 2}, {"max_msgs": 5}], ids=["plain", "several workers", "has had all it may"]
)
def test_callbacks_that_have_not_begun_are_given_up(nats_client: Client, gate: Gate, options: dict[str, Any]) -> None:
    nats_client.subscribe("close.pending", cb=gate, **options)
    for _ in range(5):
        nats_client.publish("close.pending")
    nats_client.flush()
    begun = len(gate.entered.wait_for(options.get("workers", 1)))
    nats_client.close()
    gate.opened.set()
    gate.done.wait_for(begun)  # a callback that runs is not interrupted
    never(lambda: len(gate.entered) > begun, 0.1, "callbacks go on after the client was closed")


def test_pending_messages_of_a_draining_subscription_are_given_up(nats_client: Client, gate: Gate) -> None:
    sub = nats_client.subscribe("close.pending", cb=gate)
    for _ in range(5):
        nats_client.publish("close.pending")
    nats_client.flush()
    gate.entered.wait_for(1)
    draining = in_background(sub.drain)
    never(draining.done, 0.05)
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        draining.result(1.0 * TIME_FACTOR)
    gate.opened.set()
    gate.done.wait_for(1)
    never(lambda: len(gate.entered) > 1, 0.1, "callbacks go on after the client was closed")


@pytest.mark.parametrize("options", [{}, {"max_msgs": 3}], ids=["plain", "has had all it may"])
def test_unread_messages_are_given_up(nats_client: Client, options: dict[str, Any]) -> None:
    sub = nats_client.subscribe("close.unread", **options)
    for _ in range(3):
        nats_client.publish("close.unread")
    nats_client.flush()
    assert sub.pending_msgs == 3
    nats_client.close()
    assert not sub.is_valid
    assert sub.pending_msgs == 0
    assert list(sub) == []
    with pytest.raises(ConnectionClosedError):
        sub.next_msg()


# Afterwards


CLIENT_CALLS: dict[str, Callable[[Client], object]] = {
    "publish": lambda client: client.publish("x"),
    "publish too much": lambda client: client.publish("x", bytes(client.max_payload + 1)),
    "publish_msg": lambda client: client.publish_msg(Msg("x")),
    "subscribe": lambda client: client.subscribe("x"),
    "subscribe with a callback": lambda client: client.subscribe("x", cb=print),
    "request": lambda client: client.request("x"),
    "request_future": lambda client: client.request_future("x").result(1),
    "request_many": lambda client: next(client.request_many("x")),
    "flush": lambda client: client.flush(),
    "rtt": lambda client: client.rtt(),
    "drain": lambda client: client.drain(),
    "force_reconnect": lambda client: client.force_reconnect(),
    "new_inbox": lambda client: client.new_inbox(),
}


@pytest.mark.parametrize("name", CLIENT_CALLS)
def test_every_call_on_a_closed_client_is_refused(nats_client: Client, name: str) -> None:
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        CLIENT_CALLS[name](nats_client)


@pytest.mark.parametrize("name", ["next_msg", "unsubscribe", "auto_unsubscribe", "drain"])
def test_every_call_on_a_subscription_of_a_closed_client_is_refused(nats_client: Client, name: str) -> None:
    sub = nats_client.subscribe("x")
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        getattr(sub, name)(*([1] if name == "auto_unsubscribe" else []))


def test_reading_a_subscription_with_a_callback_stays_a_mistake(nats_client: Client) -> None:
    sub = nats_client.subscribe("x", cb=print)
    nats_client.close()
    with pytest.raises((BadSubscriptionError, ConnectionClosedError)):
        sub.next_msg()


def test_responding_to_a_message_of_a_closed_client_is_refused(nats_client: Client) -> None:
    sub = nats_client.subscribe("x")
    nats_client.publish("x", reply="y")
    msg = sub.next_msg(PATIENCE)
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        msg.respond(b"too late")


def test_no_thread_and_no_socket_is_left(connect: Connect, nats_server: NatsServer) -> None:
    threads, sockets = set(natsync_threads()), open_sockets()
    client = connect(nats_server.url)
    client.subscribe("close.leak", cb=lambda msg: msg.respond(b""), workers=4)
    assert client.request("close.leak").data == b""
    client.request_future("close.leak").add_done_callback(print)
    client.flush()
    client.close()
    assert describe_leaks(threads, sockets) == ""


# How long it takes


def test_closing_an_idle_client_is_fast(connect: Connect, nats_server: NatsServer) -> None:
    clients = [connect(nats_server.url) for _ in range(10)]
    for client in clients:
        client.subscribe("close.idle", cb=print)
        client.publish("close.busy")
    assert max(took(client.close) for client in clients) < 1.3 * TIME_FACTOR


@pytest.mark.parametrize("published, most", [(0, 0.5), (1, 3.0)])
def test_a_frozen_server_does_not_hold_close_up(
    connect: Connect, fresh_server: NatsServer, published: int, most: float
) -> None:
    client = connect(fresh_server.url)
    client.subscribe("close.frozen", cb=print)
    for _ in range(published):
        client.publish("close.frozen")
    client.flush()
    fresh_server.pause()
    assert took(client.close) < most * TIME_FACTOR


def test_a_callback_that_does_not_return_does_not_hold_close_up(nats_client: Client, gate: Gate) -> None:
    nats_client.subscribe("close.stuck", cb=gate)
    nats_client.publish("close.stuck")
    gate.entered.wait_for(1)
    assert took(nats_client.close) < 2.0 * TIME_FACTOR
    assert nats_client.is_closed
