"""Slow consumers: what is pending, its limits, and what is dropped. The connection is never held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import ConfigError, NatsTimeoutError, SlowConsumerError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


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


@pytest.fixture
def errors() -> Recorder:
    return Recorder()


@pytest.fixture
def client(connect: Connect, nats_server: NatsServer, errors: Recorder) -> Client:
    return connect(nats_server.url, error_cb=errors)


def publish(client: Client, subject: str, count: int, data: bytes = b"") -> None:
    for _ in range(count):
        client.publish(subject, data)
    client.flush()


# What counts


def test_nothing_is_pending_when_idle(client: Client) -> None:
    seen = Recorder()
    called, read = client.subscribe("pending.idle", cb=seen), client.subscribe("pending.idle")
    publish(client, "pending.idle", 100, b"12345")
    for _ in range(100):
        read.next_msg(PATIENCE)
    seen.wait_for(100)
    eventually(lambda: (called.pending_msgs, called.pending_bytes) == (0, 0))
    assert (read.pending_msgs, read.pending_bytes) == (0, 0)
    for sub in (called, read):
        assert (sub.delivered, sub.dropped) == (100, 0)


def test_unread_messages_are_pending(client: Client) -> None:
    sub = client.subscribe("pending.unread")
    publish(client, "pending.unread", 3, b"12345")
    assert (sub.pending_msgs, sub.pending_bytes, sub.delivered) == (3, 15, 0)
    sub.next_msg(PATIENCE)
    assert (sub.pending_msgs, sub.pending_bytes, sub.delivered) == (2, 10, 1)
    sub.unsubscribe()
    assert (sub.pending_msgs, sub.pending_bytes, sub.delivered) == (0, 0, 1)


def test_the_message_whose_callback_runs_is_pending(client: Client, gate: Gate) -> None:
    sub = client.subscribe("pending.running", cb=gate)
    publish(client, "pending.running", 1, b"12345")
    gate.entered.wait_for(1)
    assert (sub.pending_msgs, sub.pending_bytes, sub.delivered) == (1, 5, 1)
    publish(client, "pending.running", 2, b"12345")
    assert (sub.pending_msgs, sub.pending_bytes, sub.delivered) == (3, 15, 1)
    gate.opened.set()
    eventually(lambda: sub.pending_msgs == 0)
    assert (sub.pending_bytes, sub.delivered) == (0, 3)


def test_headers_count_as_bytes(client: Client) -> None:
    sub = client.subscribe("pending.headers")
    client.publish("pending.headers", b"12345", headers={"a": "b"})
    client.flush()
    assert sub.pending_bytes == len(b"NATS/1.0\r\na: b\r\n\r\n12345")


# Limits


@pytest.mark.parametrize(
    "limits, data, kept",
    [
        ({"pending_msgs_limit": 4}, b"12345", 4),
        ({"pending_bytes_limit": 20}, b"12345", 4),
        ({"pending_bytes_limit": 19}, b"12345", 3),
        ({"pending_msgs_limit": 1}, b"12345", 1),
        ({"pending_msgs_limit": 4, "pending_bytes_limit": 10}, b"12345", 2),
        ({"pending_bytes_limit": 1}, b"12345", 0),
        ({"pending_bytes_limit": 1}, b"", 10),
        ({"pending_msgs_limit": -1, "pending_bytes_limit": -1}, b"12345", 10),
        ({}, b"12345", 10),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["read", "callback"])
def test_new_messages_over_a_limit_are_dropped_and_counted(
    client: Client, errors: Recorder, gate: Gate, kind: str, limits: dict[str, Any], data: bytes, kept: int
) -> None:
    sub = client.subscribe("pending.limit", cb=gate if kind == "callback" else None, **limits)
    publish(client, "pending.limit", 10, data)
    assert (sub.pending_msgs, sub.dropped) == (kept, 10 - kept)
    assert client.stats.dropped == 10 - kept
    assert sub.is_valid
    if kept < 10:
        (event,) = errors.wait_for(1)
        assert event.subscription is sub
        assert isinstance(event.error, SlowConsumerError)
        assert (event.error.subject, event.error.sid) == ("pending.limit", sub.sid)
        assert event.error.dropped >= 1
        assert isinstance(client.last_error, SlowConsumerError)
    else:
        never(lambda: errors.items, 0.02)
    if kind == "read":
        assert [sub.next_msg(PATIENCE).data for _ in range(kept)] == [data] * kept
        with pytest.raises(NatsTimeoutError):
            sub.next_msg(0.01)
    else:
        gate.opened.set()
        eventually(lambda: sub.pending_msgs == 0)
        assert len(gate.done) == kept
    assert sub.delivered == kept
    assert sub.dropped == 10 - kept


def test_the_options_are_the_defaults(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, pending_msgs_limit=3, pending_bytes_limit=10)
    few, small, own = (
        client.subscribe("pending.few"),
        client.subscribe("pending.small"),
        client.subscribe("pending.few", pending_msgs_limit=5, pending_bytes_limit=-1),
    )
    publish(client, "pending.few", 10)
    publish(client, "pending.small", 10, bytes(5))
    assert [sub.pending_msgs for sub in (few, small, own)] == [3, 2, 5]
    assert client.stats.dropped == 7 + 8 + 5


def test_the_oldest_messages_are_kept_in_order(client: Client) -> None:
    sub = client.subscribe("pending.order", pending_msgs_limit=3)
    for number in range(6):
        client.publish("pending.order", b"%d" % number)
    client.flush()
    sub.next_msg(PATIENCE)
    client.publish("pending.order", b"new")
    client.flush()
    assert [sub.next_msg(PATIENCE).data for _ in range(3)] == [b"1", b"2", b"new"]


def test_a_running_callback_counts_against_the_limit(client: Client, gate: Gate) -> None:
    sub = client.subscribe("pending.one", cb=gate, pending_msgs_limit=1)
    publish(client, "pending.one", 1)
    gate.entered.wait_for(1)
    publish(client, "pending.one", 2)
    assert sub.dropped == 2


def test_dropped_messages_of_ended_subscriptions_stay_in_the_statistics(client: Client) -> None:
    for _ in range(2):
        sub = client.subscribe("pending.ended", pending_msgs_limit=1)
        publish(client, "pending.ended", 3)
        sub.unsubscribe()
    assert client.stats.dropped == 4
    client.close()
    assert client.stats.dropped == 4


# Episodes


def test_a_slow_consumer_is_reported_once_an_episode(client: Client, errors: Recorder) -> None:
    sub = client.subscribe("pending.episode", pending_msgs_limit=2)
    for episode in range(1, 4):
        publish(client, "pending.episode", 10)
        errors.wait_for(episode)
        publish(client, "pending.episode", 10)
        assert sub.dropped == 18 * episode
        for _ in range(2):
            sub.next_msg(PATIENCE)
        publish(client, "pending.episode", 2)  # these are taken in, which ends the episode
        for _ in range(2):
            sub.next_msg(PATIENCE)
    client.drain()  # after which no event can be under way
    assert len(errors) == 3
    assert client.stats.errors == 3


def test_each_slow_subscription_is_reported(client: Client, errors: Recorder) -> None:
    subs = [client.subscribe("pending.each", pending_msgs_limit=1) for _ in range(3)]
    publish(client, "pending.each", 5)
    assert {event.error.sid for event in errors.wait_for(3)} == {sub.sid for sub in subs}


def test_without_an_error_callback_it_is_logged(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(nats_server.url)
    client.subscribe("pending.logged", pending_msgs_limit=1)
    publish(client, "pending.logged", 5)
    (record,) = eventually(lambda: [each for each in caplog.records if "pending.logged" in each.getMessage()])
    assert record.levelname == "WARNING"
    assert record.name.startswith("natsync.")


# The limits of a living subscription


def test_limits_can_be_changed(client: Client) -> None:
    sub = client.subscribe("pending.change", pending_msgs_limit=2)
    for msgs, size, pending in ((5, -1, 5), (-1, 8, 8), (3, -1, 8), (-1, -1, 18)):
        sub.set_pending_limits(msgs, size)
        publish(client, "pending.change", 10, b"1")
        assert sub.pending_msgs == pending


@pytest.mark.parametrize("limit", [0, -2, 1.5, True, None, "1"], ids=repr)
def test_impossible_limits_are_refused(client: Client, limit: Any) -> None:
    sub = client.subscribe("pending.bad")
    with pytest.raises(ConfigError):
        sub.set_pending_limits(limit, -1)
    with pytest.raises(ConfigError):
        sub.set_pending_limits(-1, limit)
    if limit is not None:
        for option in ("pending_msgs_limit", "pending_bytes_limit"):
            with pytest.raises(ConfigError):
                client.subscribe("pending.bad", **{option: limit})


# Others are not held up


@pytest.mark.parametrize("kind", ["read", "callback"])
def test_the_reader_is_never_held_up(client: Client, gate: Gate, kind: str) -> None:
    slow = client.subscribe("pending.slow", cb=gate if kind == "callback" else None, pending_msgs_limit=10)
    quick = client.subscribe("pending.quick")
    answering = client.subscribe("pending.ask", cb=lambda msg: msg.respond(b"here"))
    for _ in range(20):
        publish(client, "pending.slow", 100, bytes(1000))
        publish(client, "pending.quick", 1)
        began = time.monotonic()
        client.flush()
        quick.next_msg(PATIENCE)
        assert client.request("pending.ask").data == b"here"
        assert time.monotonic() - began < 1.0 * TIME_FACTOR
    assert (slow.pending_msgs, slow.dropped) == (10, 1990)
    assert answering.delivered == 20


def test_dropped_messages_count_for_max_msgs_as_the_server_counts_them(client: Client) -> None:
    sub = client.subscribe("pending.max", pending_msgs_limit=2, max_msgs=5)
    publish(client, "pending.max", 10)
    assert (sub.pending_msgs, sub.dropped) == (2, 3)
    assert len(list(sub)) == 2


def test_counts_are_exact_while_a_reader_is_at_work(client: Client) -> None:
    sub = client.subscribe("pending.exact", pending_msgs_limit=50)
    taken: list[Msg] = []

    def read() -> None:
        taken.extend(sub)

    reading = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in reading:
        thread.start()
    publish(client, "pending.exact", 20_000)
    sub.drain()
    for thread in reading:
        thread.join(PATIENCE)
    assert len(taken) == sub.delivered
    assert sub.delivered + sub.dropped == 20_000
    assert client.stats.dropped == sub.dropped
