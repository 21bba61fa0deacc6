"""A client as a context manager: drained after success, closed after an exception."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import ConnectionClosedError, ConnectionReconnectingError, NatsTimeoutError
from natsync.events import Closed, Disconnected
from tests.support.leaks import natsync_threads
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


@pytest.fixture
def opened() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def other(connect: Connect, nats_server: NatsServer) -> Client:
    return connect(nats_server.url)


def test_the_block_gets_the_client(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url)
    with client as entered:
        assert entered is client
        assert client.is_connected
    assert client.status.name == "CLOSED"
    eventually(lambda: not natsync_threads())


def test_success_drains(connect: Connect, nats_server: NatsServer, other: Client) -> None:
    seen = Recorder()

    def slowly(msg: Msg) -> None:
        threading.Event().wait(0.01)
        seen(msg)

    theirs = other.subscribe("ctx.out")
    other.flush()
    with connect(nats_server.url) as client:
        unread = client.subscribe("ctx.in")
        client.subscribe("ctx.in", cb=slowly)
        client.flush()
        for _ in range(20):
            other.publish("ctx.in")
        other.flush()
        for _ in range(1000):
            client.publish("ctx.out")
    assert len(seen) == 20
    assert len(list(unread)) == 20
    other.flush()
    assert theirs.pending_msgs == 1000


def test_an_exception_closes(connect: Connect, nats_server: NatsServer, other: Client, opened: threading.Event) -> None:
    entered = Recorder()
    theirs = other.subscribe("ctx.out")
    other.flush()

    def block(msg: Msg) -> None:
        entered(msg)
        opened.wait(PATIENCE)

    client = connect(nats_server.url)
    with pytest.raises(KeyError, match="mine"), client:
        unread = client.subscribe("ctx.in")
        client.subscribe("ctx.in", cb=block)
        for _ in range(5):
            client.publish("ctx.in")
            client.publish("ctx.out")
        entered.wait_for(1)
        raise KeyError("mine")
    assert client.is_closed
    assert list(unread) == []
    opened.set()
    never(lambda: len(entered) > 1, 0.05)
    for _ in range(5):
        theirs.next_msg(PATIENCE)  # what was published before is sent all the same


@pytest.mark.parametrize("end", ["close", "drain"])
@pytest.mark.parametrize("how", ["success", "exception"])
def test_a_client_that_has_ended_in_the_block_is_left_alone(
    connect: Connect, nats_server: NatsServer, end: str, how: str
) -> None:
    events = Recorder()
    client = connect(nats_server.url, disconnected_cb=events, closed_cb=events)
    if how == "success":
        with client:
            getattr(client, end)()
    else:
        with pytest.raises(KeyError), client:
            getattr(client, end)()
            raise KeyError
    eventually(lambda: not natsync_threads())
    assert [type(event) for event in events.items] == [Disconnected, Closed]


@pytest.mark.parametrize("end", ["close", "drain"])
def test_leaving_waits_for_an_end_that_a_callback_began(connect: Connect, nats_server: NatsServer, end: str) -> None:
    seen = Recorder()

    def handle(msg: Msg) -> None:
        if not len(seen):
            getattr(client, end)()
        seen(msg)

    for _ in range(20):
        with connect(nats_server.url) as client:
            client.subscribe("ctx.inside", cb=handle)
            client.publish("ctx.inside")
            seen.wait_for(1)
        assert client.status.name == "CLOSED"
        seen = Recorder()


def test_a_drain_that_fails_is_told_and_the_client_is_closed(
    connect: Connect, nats_server: NatsServer, opened: threading.Event
) -> None:
    entered = Recorder()

    def block(msg: Msg) -> None:
        entered(msg)
        opened.wait(PATIENCE)

    client = connect(nats_server.url, drain_timeout=0.1)
    with pytest.raises(NatsTimeoutError), client:
        client.subscribe("ctx.block", cb=block)
        client.publish("ctx.block")
        entered.wait_for(1)
    assert client.is_closed


def test_leaving_without_a_connection(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    with pytest.raises(ConnectionReconnectingError), client:
        fresh_server.stop()
        eventually(lambda: client.is_reconnecting)
    assert client.is_closed


def test_the_exception_of_the_block_is_not_hidden(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    with pytest.raises(KeyError), client:
        fresh_server.kill()
        raise KeyError
    assert client.is_closed


def test_a_client_that_was_closed_for_good_by_the_server(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, allow_reconnect=False)
    outcome: Any = None
    try:
        with client:
            fresh_server.kill()
            assert client.wait_closed(PATIENCE)
    except ConnectionClosedError as exc:
        outcome = exc
    assert client.is_closed
    assert outcome is not None, "what was published may be lost, so success must not be pretended"
    assert outcome.__cause__ is not None
