"""Lifecycle callbacks: which events come, in which order, with what in them, and on which thread."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client
from natsync.errors import ConnectionClosedError, NatsTimeoutError, PermissionsError
from natsync.events import AsyncError, Closed, Connected, Disconnected, Event, Reconnected, ReconnectFailed
from natsync.testing import NatsServer
from tests.support.leaks import natsync_threads
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from tests.support.scripted import Conn

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR

CALLBACKS = (
    "connected_cb",
    "disconnected_cb",
    "reconnected_cb",
    "reconnect_error_cb",
    "closed_cb",
    "discovered_server_cb",
    "lame_duck_mode_cb",
    "error_cb",
)


def recorded(events: Recorder) -> dict[str, Any]:
    """Return the options that have every event recorded."""
    return dict.fromkeys(CALLBACKS, events)


def kinds(events: Recorder) -> list[type[Event]]:
    return [type(event) for event in events.items]


# Which, and in which order


@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_life_without_trouble(connect: Connect, nats_server: NatsServer, end: str) -> None:
    events = Recorder()
    client = connect(nats_server.url, **recorded(events))
    client.subscribe("event.x", cb=print)
    client.flush()
    getattr(client, end)()
    eventually(lambda: not natsync_threads())
    assert kinds(events) == [Connected, Disconnected, Closed]
    for event in events.items:
        assert event.client is client
        assert (event.error, event.subscription) == (None, None)
    connected, disconnected, closed = events.items
    assert connected.server == disconnected.server == nats_server.url
    assert closed.server in (nats_server.url, None)


def test_a_life_with_a_lost_connection(connect: Connect, fresh_server: NatsServer) -> None:
    events = Recorder()
    client = connect(fresh_server.url, reconnect_time_wait=0.02, reconnect_jitter=0, **recorded(events))
    fresh_server.stop()
    eventually(lambda: ReconnectFailed in kinds(events))
    fresh_server.start()
    eventually(lambda: client.is_connected)
    client.close()
    eventually(lambda: Closed in kinds(events))
    assert [kind for kind in kinds(events) if kind is not ReconnectFailed] == [
        *(Connected, Disconnected, Reconnected, Disconnected, Closed),
    ]
    lost, gone = (event for event in events.items if type(event) is Disconnected)
    assert isinstance(lost.error, ConnectionError)
    assert gone.error is None
    assert {event.server for event in events.items if type(event) is ReconnectFailed} == {fresh_server.url}
    assert all(event.error is not None for event in events.items if type(event) is ReconnectFailed)


def test_a_connection_lost_for_good(connect: Connect, fresh_server: NatsServer) -> None:
    events = Recorder()
    client = connect(fresh_server.url, allow_reconnect=False, **recorded(events))
    fresh_server.kill()
    assert client.wait_closed(PATIENCE)
    eventually(lambda: not natsync_threads())
    assert kinds(events) == [Connected, Disconnected, Closed]
    for event in events.items[1:]:
        assert isinstance(event.error, ConnectionError)


def test_closing_while_reconnecting_disconnects_no_second_time(connect: Connect, fresh_server: NatsServer) -> None:
    events = Recorder()
    client = connect(fresh_server.url, disconnected_cb=events, closed_cb=events)
    fresh_server.stop()
    eventually(lambda: client.is_reconnecting)
    client.close()
    assert [type(event) for event in events.wait_for(2)] == [Disconnected, Closed]
    assert events.items[1].error is None


def test_a_server_that_hangs_up_at_the_last_moment(connect: Connect, scripted: Any) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.expect_pub()
        conn.expect(b"PING")
        conn.close()

    events = Recorder()
    client = connect(scripted(script).url, disconnected_cb=events, closed_cb=events)
    client.publish("event.last")
    client.close()
    eventually(lambda: Closed in kinds(events))
    assert kinds(events) == [Disconnected, Closed]


def test_a_failing_connect_has_no_events(connect: Connect, fresh_server: NatsServer) -> None:
    events = Recorder()
    fresh_server.stop()
    with pytest.raises(ConnectionError):
        connect(fresh_server.url, **recorded(events))
    never(lambda: events.items, 0.05)


def test_closed_is_the_last_one_also_after_a_storm_of_errors(connect: Connect, nats_server: NatsServer) -> None:
    events = Recorder()
    client = connect(nats_server.url, **recorded(events))

    def fail(msg: Any) -> None:
        raise ValueError(msg.data)

    client.subscribe("event.storm", cb=fail, workers=4)
    for number in range(1000):
        client.publish("event.storm", b"%d" % number)
    client.flush()
    client.close()
    eventually(lambda: Closed in kinds(events))
    seen = kinds(events)
    never(lambda: len(events) > len(seen), 0.05)
    assert seen[-2:] == [Disconnected, Closed]
    assert seen[0] is Connected
    assert set(seen[1:-2]) <= {AsyncError}


@pytest.mark.parametrize("end", ["close", "drain"])
@pytest.mark.parametrize("muted", [False, True])
def test_callbacks_after_close_can_be_switched_off(
    connect: Connect, nats_server: NatsServer, muted: bool, end: str
) -> None:
    events = Recorder()
    client = connect(nats_server.url, no_callbacks_after_close=muted, **recorded(events))
    events.wait_for(1)
    getattr(client, end)()
    eventually(lambda: not natsync_threads())
    assert kinds(events) == ([Connected] if muted else [Connected, Disconnected, Closed])


# Errors that no call waits for


def test_a_violation_of_permissions_is_reported(connect: Connect) -> None:
    config = 'authorization { users = [{user: u, password: p, permissions: {publish: "free", subscribe: "free"}}] }'
    errors = Recorder()
    with NatsServer(config) as server:
        client = connect(server.url, user="u", password="p", error_cb=errors)
        sub = client.subscribe("event.Denied")
        client.publish("event.Forbidden")
        client.flush()
        denied, forbidden = sorted(errors.wait_for(2), key=lambda event: event.error.operation, reverse=True)
        for event in (denied, forbidden):
            assert type(event) is AsyncError
            assert isinstance(event.error, PermissionsError)
            assert event.server == server.url
        assert (denied.error.operation, denied.error.subject) == ("subscription", "event.Denied")
        assert denied.subscription is sub
        assert (forbidden.error.operation, forbidden.error.subject) == ("publish", "event.Forbidden")
        assert forbidden.subscription is None
        with pytest.raises(PermissionsError):
            sub.next_msg(PATIENCE)
        client.flush()
        assert client.is_connected
        assert isinstance(client.last_error, PermissionsError)
        assert client.stats.errors == 2
        client.close()


def test_without_an_error_callback_errors_are_logged(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(nats_server.url)
    client.subscribe("event.logged", cb=lambda msg: 1 // 0)
    client.publish("event.logged")
    record = eventually(lambda: next((each for each in caplog.records if each.exc_info), None))
    assert record is not None
    assert record.levelno >= logging.WARNING
    assert record.name.startswith("natsync")


# What callbacks may do


def test_events_come_one_at_a_time_on_one_thread_of_their_own(connect: Connect, nats_server: NatsServer) -> None:
    running, seen = [], Recorder()

    def handle(event: Event) -> None:
        running.append(event)
        seen((len(running), threading.current_thread().name))
        running.pop()

    client = connect(nats_server.url, **dict.fromkeys(CALLBACKS, handle))
    client.subscribe("event.one", cb=lambda msg: 1 // 0, workers=8)
    for _ in range(200):
        client.publish("event.one")
    client.drain()
    eventually(lambda: not natsync_threads())
    assert len(seen) == 203
    assert {count for count, _ in seen.items} == {1}
    (name,) = {name for _, name in seen.items}
    assert name.startswith("natsync-")
    assert "reader" not in name


def use(client: Client) -> None:
    client.publish("event.used")
    client.flush()
    with client.subscribe("event.own") as sub:
        client.publish("event.own", b"own")
        assert sub.next_msg(PATIENCE).data == b"own"
    assert client.stats.out_msgs


def end(client: Client) -> None:
    client.close()


def end_softly(client: Client) -> None:
    client.drain()


@pytest.mark.parametrize("act", [use, end, end_softly])
@pytest.mark.parametrize("callback", ["connected_cb", "error_cb"])
def test_callbacks_may_use_and_end_the_client(
    connect: Connect, nats_server: NatsServer, act: Callable[[Client], None], callback: str
) -> None:
    outcomes, closed = Recorder(), Recorder()

    def handle(event: Event) -> None:
        try:
            act(event.client)
        except BaseException as exc:
            outcomes(exc)
        else:
            outcomes(None)

    client = connect(nats_server.url, closed_cb=closed, **{callback: handle})
    if callback == "error_cb":
        client.subscribe("event.error", cb=lambda msg: 1 // 0)
        client.publish("event.error")
    assert outcomes.wait_for(1) == [None]
    if act is not use:
        assert client.wait_closed(PATIENCE)
        closed.wait_for(1)
    else:
        assert client.is_connected


def test_the_client_is_closed_when_closed_cb_runs(connect: Connect, nats_server: NatsServer) -> None:
    outcomes = Recorder()

    def handle(event: Event) -> None:
        outcomes(event.client.is_closed)
        event.client.close()
        with pytest.raises(ConnectionClosedError):
            event.client.publish("event.late")
        outcomes(event.client.wait_closed(0.1))

    client = connect(nats_server.url, closed_cb=handle)
    client.close()
    assert outcomes.wait_for(2) == [True, True]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_a_callback_that_raises_is_logged_and_the_next_event_follows(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    closed = Recorder()

    def fail(event: Event) -> None:
        raise error

    client = connect(nats_server.url, connected_cb=fail, disconnected_cb=fail, closed_cb=closed)
    client.close()
    closed.wait_for(1)
    records = [each for each in caplog.records if each.exc_info]
    assert len(records) == 2
    for record in records:
        assert record.levelno == logging.ERROR
        assert record.name.startswith("natsync")


@pytest.fixture
def opened() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_callback_that_blocks_holds_nothing_else_up(
    connect: Connect, nats_server: NatsServer, opened: threading.Event
) -> None:
    entered, closed = Recorder(), Recorder()

    def block(event: Event) -> None:
        entered(event)
        opened.wait(PATIENCE)

    client = connect(nats_server.url, connected_cb=block, closed_cb=closed)
    entered.wait_for(1)
    client.subscribe("event.echo", cb=lambda msg: msg.respond(msg.data))
    for number in range(100):
        assert client.request("event.echo", b"%d" % number).data == b"%d" % number
    client.flush()
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 2.0 * TIME_FACTOR
    assert client.is_closed
    assert not closed.items
    opened.set()
    closed.wait_for(1)


def test_a_callback_that_blocks_does_not_keep_drain_from_its_timeout(
    connect: Connect, nats_server: NatsServer, opened: threading.Event
) -> None:
    client = connect(nats_server.url, connected_cb=lambda event: opened.wait(PATIENCE) and None)
    began = time.monotonic()
    try:
        client.drain(timeout=0.5)
    except NatsTimeoutError:
        pass
    assert time.monotonic() - began < 2.0 * TIME_FACTOR
    assert client.is_closed


# The objects


@pytest.mark.parametrize("kind", list(Event.__subclasses__()), ids=lambda kind: kind.__name__)
def test_every_event_has_the_same_four_facts_and_cannot_be_changed(kind: type[Event]) -> None:
    event = kind(None)
    assert (event.client, event.error, event.server, event.subscription) == (None, None, None, None)
    for name in ("client", "error", "server", "subscription"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, 1)
