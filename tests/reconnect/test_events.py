"""Lifecycle events over losses and returns: their order, what they carry, and where they run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from natsync import NatsConnectionError, NoServersError, ProtocolError, StaleConnectionError, Status
from natsync.events import (
    Closed,
    Connected,
    Disconnected,
    DiscoveredServers,
    Event,
    LameDuck,
    Reconnected,
    ReconnectFailed,
)
from natsync.testing import NatsCluster, NatsServer
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

NAMES = (
    "connected_cb",
    "disconnected_cb",
    "reconnected_cb",
    "reconnect_error_cb",
    "closed_cb",
    "discovered_server_cb",
    "lame_duck_mode_cb",
    "error_cb",
)
FAST: dict[str, Any] = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}


def watched(events: Callable[[Event], object]) -> dict[str, Any]:
    return dict.fromkeys(NAMES, events) | FAST


def kinds(events: Recorder) -> list[type]:
    return [type(event) for event in events.items]


def good(conn: Conn) -> None:
    conn.handshake()
    conn.serve()


def drops(conn: Conn) -> None:
    conn.handshake()


# Order


def test_lose_find_lose_find_close(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, **watched(events))
    for number in (3, 5):
        proxy.cut()
        events.wait_for(number)
    client.close()
    events.wait_for(7)
    assert kinds(events) == [Connected, Disconnected, Reconnected, Disconnected, Reconnected, Disconnected, Closed]
    assert all(event.client is client for event in events.items)
    assert all(event.server == proxy.url for event in events.items)
    errors = [event.error for event in events.items]
    assert [error is None for error in errors] == [True, False, True, False, True, True, True]


def test_the_status_in_a_callback_is_the_events(proxy: FaultProxy, connect: Connect) -> None:
    seen = Recorder()
    go_on = threading.Event()

    def note(event: Event) -> None:
        if isinstance(event, Disconnected) and event.error is not None:
            go_on.wait(5.0 * TIME_FACTOR)
        seen((type(event), event.client.status))

    client = connect(proxy.url, **watched(note) | {"reconnect_time_wait": 60.0})
    seen.wait_for(1)
    proxy.cut()
    eventually(lambda: client.is_reconnecting)
    go_on.set()
    seen.wait_for(2)
    client.force_reconnect()
    seen.wait_for(3)
    client.close()
    assert seen.wait_for(5) == [
        (Connected, Status.CONNECTED),
        (Disconnected, Status.RECONNECTING),
        (Reconnected, Status.CONNECTED),
        (Disconnected, Status.CLOSED),
        (Closed, Status.CLOSED),
    ]


def test_closing_while_down_reports_no_second_disconnect(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, **watched(events) | {"reconnect_time_wait": 60.0})
    proxy.cut()
    events.wait_for(2)
    client.close()
    events.wait_for(3)
    assert kinds(events) == [Connected, Disconnected, Closed]
    assert events.items[-1].error is None


def test_a_loss_in_the_middle_of_close_is_reported(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.expect_pub()
        conn.expect(b"PING")  # the closing client asks whether all has arrived, and gets no answer

    client = connect(scripted(script).url, **watched(events))
    client.publish("last")
    client.close()
    events.wait_for(3)
    assert kinds(events) == [Connected, Disconnected, Closed]
    assert events.items[-1].error is None


def test_nothing_comes_after_closed(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, **watched(events))
    client.close()
    events.wait_for(3)
    proxy.cut()
    client.close()
    never(lambda: len(events) > 3, 0.1)


def test_no_callbacks_after_close(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, no_callbacks_after_close=True, **watched(events))
    proxy.cut()
    events.wait_for(3)
    client.close()
    never(lambda: len(events) > 3, 0.1)


def test_a_failed_first_connect_reports_nothing(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    with pytest.raises(NoServersError):
        connect(scripted([lambda conn: None]).url, **watched(events))
    never(lambda: events.items, 0.1)


def test_events_of_a_client_that_is_lost_all_the_time(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, **watched(events) | {"reconnect_time_wait": 0.0})
    for _ in range(60):
        proxy.cut()
        never(lambda: False, 0.01)
    eventually(lambda: client.is_connected)
    client.close()
    eventually(lambda: events.items[-1:] and type(events.items[-1]) is Closed)
    # Failures aside, the two kinds take turns.
    turns = [kind for kind in kinds(events)[1:-1] if kind is not ReconnectFailed]
    assert turns[::2] == [Disconnected] * len(turns[::2])
    assert turns[1::2] == [Reconnected] * len(turns[1::2])
    assert len(turns) % 2 == 1


# Where they run


def test_events_run_one_at_a_time_on_one_thread_and_hold_nothing_up(proxy: FaultProxy, connect: Connect) -> None:
    threads: set[str] = set()
    running = threading.Semaphore(1)
    overlaps = Recorder()
    go_on = threading.Event()
    events = Recorder()

    def slow(event: Event) -> None:
        threads.add(threading.current_thread().name)
        if not running.acquire(blocking=False):
            overlaps(event)
        if isinstance(event, Disconnected):
            go_on.wait(5.0 * TIME_FACTOR)
        events(event)
        running.release()

    client = connect(proxy.url, name="slow", **watched(slow))
    sub = client.subscribe("events.slow")
    client.flush()
    proxy.cut()
    eventually(lambda: client.stats.reconnects == 1)  # although the first callback still runs
    client.publish("events.slow")
    sub.next_msg(timeout=5.0 * TIME_FACTOR)
    eventually(lambda: kinds(events) == [Connected])
    go_on.set()
    events.wait_for(3)
    assert not overlaps.items
    assert threads == {"natsync-slow-events"}


def test_a_callback_that_raises_stops_nothing(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()

    def fail(event: Event) -> None:
        events(event)
        raise RuntimeError("in a callback")

    client = connect(proxy.url, **watched(fail))
    proxy.cut()
    events.wait_for(3)
    client.close()
    events.wait_for(5)
    assert kinds(events) == [Connected, Disconnected, Reconnected, Disconnected, Closed]


@pytest.mark.parametrize("call", ["flush", "rtt", "publish", "subscribe", "request"])
def test_a_callback_may_use_the_client(call: str, nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    service = connect(nats_server.url)
    service.subscribe("events.echo", cb=lambda msg: msg.respond(b""))
    service.flush()
    done = Recorder()
    uses: dict[str, Callable[[Client], object]] = {
        "flush": lambda client: client.flush(),
        "rtt": lambda client: client.rtt(),
        "publish": lambda client: client.publish("events.use"),
        "subscribe": lambda client: client.subscribe("events.use").unsubscribe(),
        "request": lambda client: client.request("events.echo"),
    }

    def use(event: Event) -> None:
        if not isinstance(event, Disconnected):
            uses[call](event.client)
        done(event)

    connect(proxy.url, connected_cb=use, disconnected_cb=use, reconnected_cb=use, **FAST)
    done.wait_for(1)
    proxy.cut()
    done.wait_for(3)


# What they carry


def test_the_cause_of_a_loss(fresh_server: NatsServer, connect: Connect, proxy: FaultProxy) -> None:
    events = Recorder()
    client = connect(proxy.url, ping_interval=0.05, max_outstanding_pings=1, disconnected_cb=events, **FAST)
    proxy.cut()
    events.wait_for(1)
    eventually(lambda: client.is_connected)
    proxy.reset()
    events.wait_for(2)
    eventually(lambda: client.is_connected)
    proxy.black_hole()
    events.wait_for(3)
    ended, reset, stale = (event.error for event in events.items[:3])
    assert type(ended) is NatsConnectionError
    assert type(reset) is NatsConnectionError
    assert isinstance(reset.__cause__, OSError)
    assert isinstance(stale, StaleConnectionError)
    assert client.last_error is not None
    proxy.heal()


def test_the_cause_of_each_failed_attempt(scripted: Scripted, connect: Connect) -> None:
    def garbage(conn: Conn) -> None:
        conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def refuses(conn: Conn) -> None:
        conn.send_info()
        conn.expect(b"CONNECT ")
        conn.send(b"-ERR 'maximum connections exceeded'\r\n")

    events = Recorder()
    server = scripted([drops, lambda conn: None, garbage, refuses, good])
    client = connect(server.url, **watched(events))
    eventually(lambda: client.stats.reconnects == 1)
    events.wait_for(6)
    assert kinds(events) == [Connected, Disconnected, *[ReconnectFailed] * 3, Reconnected]
    closed, wrong, full = (event.error for event in events.items[2:5])
    assert isinstance(closed, NoServersError)
    assert isinstance(wrong, ProtocolError)
    assert "maximum connections exceeded" in str(full)
    assert all(event.server == server.url for event in events.items)


def test_a_refused_dial_is_a_failed_attempt(fresh_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    client = connect(fresh_server.url, **watched(events))
    fresh_server.kill()
    events.wait_for(4)
    fresh_server.start()
    eventually(lambda: client.is_connected)
    failed = [event for event in events.items if type(event) is ReconnectFailed]
    for event in failed:
        assert isinstance(event.error, NoServersError)
        assert isinstance(event.error.__cause__, ConnectionRefusedError)
        assert event.server == fresh_server.url


def test_events_name_the_server_concerned(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    one, two = scripted([drops]), scripted([good])
    client = connect([one.url, two.url], dont_randomize=True, **watched(events))
    events.wait_for(3)
    client.close()
    events.wait_for(5)
    assert [event.server for event in events.items] == [one.url, one.url, two.url, two.url, two.url]


def test_events_hold_no_secret(connect: Connect) -> None:
    events = Recorder()
    with NatsServer("authorization { user: u, password: s3cret }\n") as server:
        client = connect(f"nats://u:s3cret@127.0.0.1:{server.port}", **watched(events))
        server.kill()
        events.wait_for(4)
        client.close()
    eventually(lambda: type(events.items[-1]) is Closed)
    assert {event.server for event in events.items} <= {server.url, None}
    assert not [event for event in events.items if "s3cret" in f"{event!r} {event.error} {event.error!r}"]


# retry_on_failed_connect


def test_the_first_success_is_connected_and_the_next_reconnected(fresh_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    fresh_server.kill()
    client = connect(fresh_server.url, retry_on_failed_connect=True, **watched(events))
    assert client.status is Status.RECONNECTING
    assert (client.max_payload, client.server_info, client.client_id) == (0, None, None)
    sub = client.subscribe("retry")
    for number in range(3):
        client.publish("retry", b"%d" % number, headers={"n": "1"})
    events.wait_for(2)
    assert set(kinds(events)) == {ReconnectFailed}
    fresh_server.start()
    assert [sub.next_msg(timeout=5.0 * TIME_FACTOR).data for _ in range(3)] == [b"0", b"1", b"2"]
    eventually(lambda: kinds(events)[-1] is Connected)
    assert (Disconnected in kinds(events), client.stats.reconnects) == (False, 0)
    fresh_server.restart()
    eventually(lambda: kinds(events)[-1] is Reconnected)
    assert [kind for kind in kinds(events) if kind is not ReconnectFailed] == [Connected, Disconnected, Reconnected]
    assert client.stats.reconnects == 1


def test_retry_on_failed_connect_with_a_server_that_is_there(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, retry_on_failed_connect=True, **watched(events))
    assert client.is_connected
    events.wait_for(1)
    proxy.cut()
    events.wait_for(3)
    assert kinds(events) == [Connected, Disconnected, Reconnected]


def test_closing_before_the_first_connection_reports_closed_only(fresh_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    fresh_server.kill()
    client = connect(fresh_server.url, retry_on_failed_connect=True, **watched(events) | {"reconnect_time_wait": 60.0})
    client.publish("kept", b"")
    client.close()
    events.wait_for(2)
    assert kinds(events) == [ReconnectFailed, Closed]
    assert events.items[-1].dropped_msgs == 1


# Clusters


@pytest.mark.cluster
def test_a_server_that_joins_is_discovered_and_used(connect: Connect) -> None:
    events = Recorder()
    cluster = NatsCluster(2)
    first, second = cluster.servers
    try:
        first.start()
        client = connect(first.url, **watched(events))
        client.flush()
        assert not client.discovered_servers
        second.start()
        event = eventually(lambda: [each for each in events.items if type(each) is DiscoveredServers], 10.0)[0]
        assert event.urls == (second.url,)
        assert event.server == first.url
        assert second.url in client.discovered_servers
        first.kill()
        eventually(lambda: client.connected_url == second.url)
        client.flush()
        assert kinds(events).count(DiscoveredServers) == 1
        client.close()
    finally:
        cluster.close()


@pytest.mark.cluster
def test_lame_duck_mode_of_a_real_server(connect: Connect) -> None:
    events = Recorder()
    with NatsCluster(2, config="lame_duck_grace_period: 1s\nlame_duck_duration: 31s\n") as cluster:
        client = connect(cluster.urls, dont_randomize=True, **watched(events))
        client.flush()
        cluster.servers[0].lame_duck()
        duck = eventually(lambda: [each for each in events.items if type(each) is LameDuck])[0]
        assert duck.server == cluster.urls[0]
        assert duck.error is None
        client.force_reconnect()
        eventually(lambda: client.connected_url == cluster.urls[1])
        client.close()


def test_lame_duck_mode_is_reported_and_changes_nothing(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.send_info(ldm=True)
        conn.serve()

    server = scripted(script)
    client = connect(server.url, **watched(events))
    events.wait_for(2)
    assert kinds(events) == [Connected, LameDuck]
    client.flush()
    assert (client.is_connected, server.accepted) == (True, 1)
    assert client.server_info is not None
    assert client.server_info.ldm
