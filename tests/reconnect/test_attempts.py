"""How often a lost client tries, for each server, and what happens when all attempts are used up."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import (
    AuthorizationError,
    ConnectionClosedError,
    NatsConnectionError,
    NatsTimeoutError,
    NoServersError,
)
from natsync.events import Closed, Connected, Disconnected, Reconnected, ReconnectFailed
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

NAMES = ("connected_cb", "disconnected_cb", "reconnected_cb", "reconnect_error_cb", "closed_cb")
FAST: dict[str, Any] = {"reconnect_time_wait": 0.01, "reconnect_jitter": 0.0, "dont_randomize": True}


def watched(events: Recorder) -> dict[str, Any]:
    return dict.fromkeys(NAMES, events) | FAST


def kinds(events: Recorder) -> list[type]:
    return [type(event) for event in events.items]


def good(conn: Conn) -> None:
    conn.handshake()
    conn.serve()


def drops(conn: Conn) -> None:
    """A server that lets the client in and closes at once."""
    conn.handshake()


def shuts(conn: Conn) -> None:
    """A server that closes without a word."""


def ended(client: Client) -> None:
    assert client.wait_closed(10.0 * TIME_FACTOR)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_server_is_tried_so_often(limit: int, scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([drops, *[shuts] * 10])
    client = connect(server.url, max_reconnect_attempts=limit, **watched(events))
    ended(client)
    events.wait_for(limit + 3)
    assert kinds(events) == [Connected, Disconnected, *[ReconnectFailed] * limit, Closed]
    assert server.accepted == 1 + limit
    closed = events.items[-1].error
    assert isinstance(closed, NoServersError)
    assert set(closed.errors) == {server.url}
    assert isinstance(closed.errors[server.url], NoServersError)


def test_each_server_is_tried_so_often(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    servers = [scripted([drops, *[shuts] * 9]), scripted([shuts] * 9), scripted([])]
    client = connect([server.url for server in servers], max_reconnect_attempts=2, **watched(events))
    ended(client)
    closed = events.wait_for(9)[-1]
    tried = [event.server for event in events.items if type(event) is ReconnectFailed]
    assert [tried.count(server.url) for server in servers] == [2, 2, 2]
    assert [server.accepted for server in servers] == [3, 2, 0]
    assert set(closed.error.errors) == {server.url for server in servers}


def test_none_left_for_the_lost_one_and_one_for_the_others(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    servers = [scripted([drops, good]), scripted([shuts, good]), scripted([])]
    client = connect([server.url for server in servers], max_reconnect_attempts=0, **watched(events))
    ended(client)
    events.wait_for(5)
    assert [event.server for event in events.items if type(event) is ReconnectFailed] == [
        servers[1].url,
        servers[2].url,
    ]
    assert [server.accepted for server in servers] == [1, 1, 0]


def test_none_left_for_the_lost_one_and_the_other_is_found(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    servers = [scripted([drops, good]), scripted([good])]
    client = connect([server.url for server in servers], max_reconnect_attempts=0, **watched(events))
    eventually(lambda: client.stats.reconnects == 1)
    assert client.connected_url == servers[1].url
    client.flush()


def test_none_left_for_a_single_server_ends_at_once(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([drops, good])
    client = connect(server.url, max_reconnect_attempts=0, **watched(events))
    ended(client)
    events.wait_for(3)
    assert kinds(events) == [Connected, Disconnected, Closed]
    assert isinstance(events.items[-1].error, NoServersError)
    assert server.accepted == 1


@pytest.mark.parametrize("forever", [None, -1])
def test_for_ever(forever: int | None, scripted: Scripted, connect: Connect) -> None:
    server = scripted([drops, *[shuts] * 70, good])
    client = connect(server.url, max_reconnect_attempts=forever, **FAST | {"reconnect_time_wait": 0.0})
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()


def test_a_success_gives_all_attempts_back(scripted: Scripted, connect: Connect) -> None:
    server = scripted([drops, shuts, drops, shuts, drops, shuts, good])
    client = connect(server.url, max_reconnect_attempts=2, **FAST)
    eventually(lambda: client.stats.reconnects == 3)
    client.flush()


def test_refused_connections_count(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, max_reconnect_attempts=4, **watched(events))
    proxy.refuse()
    proxy.cut()
    ended(client)
    events.wait_for(7)
    assert kinds(events).count(ReconnectFailed) == 4


def test_silent_servers_count(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, max_reconnect_attempts=2, connect_timeout=0.5 * TIME_FACTOR, **watched(events))
    proxy.accept_silent()
    proxy.cut()
    ended(client)
    closed = events.wait_for(5)[-1]
    assert isinstance(closed.error.errors[proxy.url], NatsTimeoutError)
    assert proxy.accepted == 3


def test_the_last_answer_of_each_server_is_kept(scripted: Scripted, connect: Connect) -> None:
    def refuses(conn: Conn) -> None:
        conn.send_info()
        conn.expect(b"CONNECT ")
        conn.send(b"-ERR 'Authorization Violation'\r\n")

    events = Recorder()
    servers = [scripted([drops, refuses]), scripted([])]
    client = connect([server.url for server in servers], max_reconnect_attempts=1, **watched(events))
    ended(client)
    closed = eventually(lambda: [event.error for event in events.items if type(event) is Closed])[0]
    assert isinstance(closed, NoServersError)
    assert isinstance(closed.errors[servers[0].url], AuthorizationError)
    assert isinstance(closed.errors[servers[1].url], NoServersError)
    assert isinstance(client.last_error, NoServersError)


def test_used_up_attempts_wake_everybody(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, max_reconnect_attempts=3, **FAST | {"reconnect_time_wait": 0.2})
    sub = client.subscribe("used.up")
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)
    calls: list[Callable[[], object]] = [
        lambda: client.request("used.up.request", timeout=30.0),
        lambda: client.request_future("used.up.future", timeout=30.0).result(),
        lambda: list(client.request_many("used.up.many", timeout=30.0)),
        lambda: client.flush(30.0),
        sub.next_msg,
    ]
    with ThreadPoolExecutor(8) as pool:
        waiting: list[Future[object]] = [pool.submit(call) for call in calls]
        loop = pool.submit(lambda: list(sub))
        never(lambda: any(each.done() for each in waiting), 0.1)
        ended(client)
        for each in waiting:
            error = each.exception(5.0 * TIME_FACTOR)
            assert isinstance(error, ConnectionClosedError)
            assert isinstance(error.__cause__, NoServersError)
        assert loop.result(5.0 * TIME_FACTOR) == []
    with pytest.raises(ConnectionClosedError) as caught:
        client.publish("late")
    assert isinstance(caught.value.__cause__, NoServersError)


def test_without_reconnecting_a_loss_wakes_everybody_with_the_cause(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, allow_reconnect=False, **watched(events))
    sub = client.subscribe("no.reconnect")
    client.flush()
    proxy.black_hole()
    calls: dict[str, Callable[[], object]] = {
        "request": lambda: client.request("no.request", timeout=30.0),
        "request_future": lambda: client.request_future("no.future", timeout=30.0).result(),
        "request_many": lambda: list(client.request_many("no.many", timeout=30.0)),
        "next_msg": sub.next_msg,
        "flush": lambda: client.flush(30.0),
        "rtt": lambda: client.rtt(30.0),
    }
    with ThreadPoolExecutor(8) as pool:
        waiting: dict[str, Future[object]] = {name: pool.submit(call) for name, call in calls.items()}
        loop = pool.submit(lambda: list(sub))
        never(lambda: any(each.done() for each in waiting.values()), 0.1)
        proxy.cut()
        ended(client)
        errors = {name: each.exception(5.0 * TIME_FACTOR) for name, each in waiting.items()}
        assert loop.result(5.0 * TIME_FACTOR) == []
    events.wait_for(3)
    assert kinds(events) == [Connected, Disconnected, Closed]
    cause = events.items[-1].error
    assert isinstance(cause, NatsConnectionError)
    for name, error in errors.items():
        assert error is not None
        assert error.__cause__ is cause, name
        assert isinstance(error, ConnectionClosedError), f"{name}: there is no way back to wait for"
    assert proxy.accepted == 1


def test_whoever_is_woken_by_the_end_finds_the_client_closed(proxy: FaultProxy, connect: Connect) -> None:
    """A reader is woken a moment before the status changes; its next call must not tell another story."""

    def read(client: Client) -> list[BaseException]:
        errors: list[BaseException] = []
        sub = client.subscribe("woken")
        for call in (sub.next_msg, sub.unsubscribe, lambda: sub.auto_unsubscribe(1), sub.drain, client.flush):
            try:
                call()
            except Exception as exc:
                errors.append(exc)
        return errors

    for _ in range(10):
        client = connect(proxy.url, allow_reconnect=False)
        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read, client) for _ in range(4)]
            never(lambda: any(each.done() for each in readers), 0.02)  # noqa: B023
            proxy.cut()
            for reader in readers:
                assert {type(error) for error in reader.result(5.0 * TIME_FACTOR)} == {ConnectionClosedError}


def test_a_loss_without_reconnecting_counts_no_reconnect(scripted: Scripted, connect: Connect) -> None:
    server = scripted([drops, good])
    client = connect(server.url, allow_reconnect=False, **FAST)
    ended(client)
    assert client.stats.reconnects == 0
    never(lambda: server.accepted > 1, 0.1)


def test_a_first_connection_that_never_comes(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([shuts] * 20)
    client = connect(server.url, retry_on_failed_connect=True, max_reconnect_attempts=3, **watched(events))
    ended(client)
    closed = eventually(lambda: [event for event in events.items if type(event) is Closed])[0]
    assert isinstance(closed.error, NoServersError)
    assert Connected not in kinds(events)
    assert Disconnected not in kinds(events)
    assert Reconnected not in kinds(events)
    assert kinds(events).count(ReconnectFailed) == server.accepted == 4  # the first walk, and three more
