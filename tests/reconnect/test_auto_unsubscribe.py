"""Subscriptions that end after so many messages, or are being drained, over a reconnect."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import BadSubscriptionError, MaxMessagesError, NatsError, NatsTimeoutError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client, Msg, Subscription
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}


def publish(client: Client, subject: str, numbers: range) -> None:
    for number in numbers:
        client.publish(subject, b"%d" % number)
    client.flush()


def reconnect(proxy: FaultProxy, client: Client) -> None:
    reconnects = client.stats.reconnects
    proxy.cut()
    eventually(lambda: client.stats.reconnects > reconnects)
    client.flush()


def go_down(proxy: FaultProxy, client: Client) -> None:
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)


def come_back(proxy: FaultProxy, client: Client) -> None:
    proxy.accept()
    eventually(lambda: client.is_connected)
    client.flush()


def subscriptions(server: NatsServer, client: Client) -> list[str]:
    client.flush()
    for connection in server.connz(subs=True)["connections"]:
        if connection["cid"] == client.client_id:
            return sorted(connection.get("subscriptions_list", []))
    return ["the server does not know the connection"]


def read_all(sub: Subscription) -> list[int]:
    """The numbers that came, up to the end of the subscription."""
    numbers = []
    with pytest.raises(MaxMessagesError):
        while True:
            numbers.append(int(sub.next_msg(timeout=5.0 * TIME_FACTOR).data))
    return numbers


# The count goes on


def test_five_before_and_thirty_after_are_ten(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.read", max_msgs=10)
    publish(client, "auto.read", range(5))
    reconnect(proxy, client)
    publish(client, "auto.read", range(5, 35))
    assert read_all(sub) == list(range(10))
    assert not sub.is_valid
    assert subscriptions(nats_server, client) == []


def test_the_same_with_a_callback(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    received = Recorder()
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.called", cb=received)
    sub.auto_unsubscribe(10)
    publish(client, "auto.called", range(5))
    reconnect(proxy, client)
    publish(client, "auto.called", range(5, 35))
    received.wait_for(10)
    assert [int(msg.data) for msg in received.items] == list(range(10))
    eventually(lambda: not sub.is_valid)
    never(lambda: len(received) > 10, 0.05)
    assert subscriptions(nats_server, client) == []


def test_the_same_in_a_queue_group(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.queue", queue="q", max_msgs=10)
    publish(client, "auto.queue", range(5))
    reconnect(proxy, client)
    publish(client, "auto.queue", range(5, 35))
    assert read_all(sub) == list(range(10))


def test_over_several_connections(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.many", max_msgs=20)
    for start in range(0, 32, 4):
        publish(client, "auto.many", range(start, start + 4))
        reconnect(proxy, client)
    assert read_all(sub) == list(range(20))
    assert subscriptions(nats_server, client) == []


def test_a_limit_set_after_a_reconnect_counts_what_came_before(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.later")
    publish(client, "auto.later", range(5))
    reconnect(proxy, client)
    sub.auto_unsubscribe(10)
    publish(client, "auto.later", range(5, 10))
    assert subscriptions(nats_server, client) == [], "the server counts the messages of its own connection only"
    assert read_all(sub) == list(range(10))


def test_a_limit_set_while_down(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.down")
    publish(client, "auto.down", range(5))
    go_down(proxy, client)
    sub.auto_unsubscribe(8)
    come_back(proxy, client)
    publish(client, "auto.down", range(5, 35))
    assert read_all(sub) == list(range(8))
    assert subscriptions(nats_server, client) == []


def test_a_limit_reached_while_down_is_not_revived(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.reached")
    publish(client, "auto.reached", range(5))
    go_down(proxy, client)
    sub.auto_unsubscribe(5)
    come_back(proxy, client)
    assert subscriptions(nats_server, client) == []
    assert read_all(sub) == list(range(5))


def test_a_full_subscription_with_messages_unread_is_not_revived(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.full", max_msgs=5)
    publish(client, "auto.full", range(5))
    reconnect(proxy, client)
    assert subscriptions(nats_server, client) == []
    publish(client, "auto.full", range(5, 10))
    assert read_all(sub) == list(range(5))


def test_a_limit_may_be_raised_after_a_reconnect(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.raised", max_msgs=6)
    publish(client, "auto.raised", range(5))
    reconnect(proxy, client)
    sub.auto_unsubscribe(12)
    publish(client, "auto.raised", range(5, 35))
    assert read_all(sub) == list(range(12))
    assert subscriptions(nats_server, client) == []


def test_dropped_messages_count(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("auto.dropped", max_msgs=10, pending_msgs_limit=3)
    publish(client, "auto.dropped", range(5))
    assert sub.dropped == 2
    reconnect(proxy, client)
    publish(client, "auto.dropped", range(5, 35))
    assert read_all(sub) == [0, 1, 2]
    assert subscriptions(nats_server, client) == []


def test_three_readers_share_exactly_so_many(fresh_server: NatsServer, connect: Connect) -> None:
    client = connect(fresh_server.url, **FAST)
    sub = client.subscribe("auto.shared", max_msgs=100)

    def read() -> tuple[list[int], NatsError]:
        numbers = []
        while True:
            try:
                numbers.append(int(sub.next_msg().data))
            except NatsError as error:
                return numbers, error

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        publish(client, "auto.shared", range(50))
        fresh_server.restart()
        eventually(lambda: client.stats.reconnects == 1)
        publish(client, "auto.shared", range(50, 200))
        results = [reader.result(5.0 * TIME_FACTOR) for reader in readers]
    assert sorted(number for numbers, _ in results for number in numbers) == list(range(100))
    assert {type(error) for _, error in results} == {MaxMessagesError}


def test_what_the_server_is_told(scripted: Scripted, connect: Connect) -> None:
    told: list[list[bytes]] = []

    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB a ").split()[-1].decode()
        lines = [conn.expect(b"UNSUB ")]
        told.append(lines)
        if conn.number == 0:
            for _ in range(3):
                conn.send_msg("a", sid, b"x")
            conn.expect(b"PUB done ")
        else:
            conn.serve()

    client = connect(scripted(script).url, **FAST)
    sub = client.subscribe("a", max_msgs=10)
    for _ in range(3):
        sub.next_msg(timeout=5.0 * TIME_FACTOR)
    client.publish("done")
    eventually(lambda: len(told) == 2)
    assert [int(lines[0].split()[-1]) for lines in told] == [10, 7]


# Draining


def test_a_draining_subscription_is_not_revived(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    go_on = threading.Event()
    received = Recorder()

    def slow(msg: Msg) -> None:
        go_on.wait(5.0 * TIME_FACTOR)
        received(msg)

    client = connect(proxy.url, **FAST)
    sub = client.subscribe("drain.sub", cb=slow)
    publish(client, "drain.sub", range(3))
    with ThreadPoolExecutor(1) as pool:
        drain = pool.submit(sub.drain)
        never(drain.done, 0.05)
        reconnect(proxy, client)
        assert subscriptions(nats_server, client) == []
        publish(client, "drain.sub", range(3, 6))
        go_on.set()
        drain.result(5.0 * TIME_FACTOR)
    assert [int(msg.data) for msg in received.items] == [0, 1, 2]
    assert not sub.is_valid


def test_a_drain_that_loses_its_connection_ends(scripted: Scripted, connect: Connect) -> None:
    lines: list[bytes] = []

    def first(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB ").split()[-1].decode()
        conn.send_msg("a", sid, b"came before")
        conn.expect(b"UNSUB ")
        conn.expect(b"PING")  # and no answer

    def second(conn: Conn) -> None:
        conn.handshake()
        lines.extend(conn.serve())

    client = connect(scripted([first, second]).url, **FAST)
    sub = client.subscribe("a")
    eventually(lambda: sub.pending_msgs == 1)
    sub.drain(timeout=5.0 * TIME_FACTOR)
    assert sub.next_msg(timeout=1.0).data == b"came before"
    with pytest.raises(BadSubscriptionError):
        sub.next_msg(timeout=1.0)
    client.flush()
    client.close()
    eventually(lambda: lines)
    assert not [line for line in lines if line.startswith((b"SUB ", b"UNSUB "))]


def test_a_drain_while_down_ends_at_once(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("drain.down")
    publish(client, "drain.down", range(2))
    go_down(proxy, client)
    sub.drain(timeout=1.0 * TIME_FACTOR)
    assert [int(sub.next_msg(timeout=1.0).data) for _ in range(2)] == [0, 1]
    with pytest.raises(BadSubscriptionError):
        sub.next_msg(timeout=1.0)
    come_back(proxy, client)


def test_an_unsubscribe_while_down_is_for_good(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("unsub.down")
    go_down(proxy, client)
    sub.unsubscribe()
    come_back(proxy, client)
    assert subscriptions(nats_server, client) == []


def test_a_subscription_that_times_out_survives(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("times.out", max_msgs=1)
    go_down(proxy, client)
    with pytest.raises(NatsTimeoutError):
        sub.next_msg(timeout=0.05)
    come_back(proxy, client)
    publish(client, "times.out", range(3))
    assert read_all(sub) == [0]
