"""A connection is lost and found again: what the user keeps, and what waiting calls see."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import (
    ConnectionClosedError,
    ConnectionReconnectingError,
    NatsTimeoutError,
    NoRespondersError,
    StaleConnectionError,
    Status,
)
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg
    from natsync.events import Reconnected
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter": 0.0, "connect_timeout": 1.0 * TIME_FACTOR}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def restless() -> Iterator[None]:
    """Have the interpreter change threads as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def subscriptions(server: NatsServer, client: Client) -> list[str]:
    """The subjects that the server has for the client's present connection, one for each subscription."""
    for connection in server.connz(subs=True)["connections"]:
        if connection["cid"] == client.client_id:
            return sorted(connection.get("subscriptions_list", []))
    return ["the server does not know the connection"]


def go_down(proxy: FaultProxy, client: Client) -> None:
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)


def come_back(proxy: FaultProxy, client: Client) -> None:
    proxy.accept()
    eventually(lambda: client.is_connected)
    client.flush()


def payloads(recorder: Recorder) -> list[bytes]:
    return [msg.data for msg in recorder.items]


# A server that goes and comes back


def test_subscriptions_return_exactly_once(fresh_server: NatsServer, connect: Connect) -> None:
    reconnected = Recorder()
    client = connect(fresh_server.url, reconnected_cb=reconnected, **FAST)
    client.subscribe("plain")
    client.subscribe("wild.*.>")
    client.subscribe("called", cb=Recorder())
    client.subscribe("shared", queue="q")
    client.subscribe("shared", queue="q")
    gone = client.subscribe("gone")
    client.flush()
    gone.unsubscribe()
    before = client.client_id
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    client.subscribe("made.while.down")
    client.subscribe("ended.while.down").unsubscribe()
    fresh_server.start()
    reconnected.wait_for(1)
    client.subscribe("made.afterwards")
    client.flush()
    assert subscriptions(fresh_server, client) == sorted(
        ["called", "made.afterwards", "made.while.down", "plain", "shared", "shared", "wild.*.>"]
    )
    assert (client.stats.reconnects, len(reconnected)) == (1, 1)
    assert isinstance(before, int)


def test_reply_inbox_returns_exactly_once(fresh_server: NatsServer, connect: Connect) -> None:
    client = connect(fresh_server.url, **FAST)
    with pytest.raises(NoRespondersError):
        client.request("nobody")
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    fresh_server.start()
    client.subscribe("echo", cb=lambda msg: msg.respond(msg.data))
    assert client.request("echo", b"again").data == b"again"
    assert len(subscriptions(fresh_server, client)) == 2


def test_messages_published_meanwhile_arrive_all_in_order(fresh_server: NatsServer, connect: Connect) -> None:
    received = Recorder()
    client = connect(fresh_server.url, **FAST)
    client.subscribe("numbers", cb=received)
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    for number in range(5000):
        client.publish("numbers", b"%d" % number, headers={"n": str(number)} if number % 3 == 0 else None)
    fresh_server.start()
    client.flush()
    assert payloads(received) == [] or payloads(received)[0] == b"0"
    received.wait_for(5000)
    assert payloads(received) == [b"%d" % number for number in range(5000)]
    assert client.stats.dropped == 0


def test_subscribe_unsubscribe_publish_before_during_and_after(fresh_server: NatsServer, connect: Connect) -> None:
    kept, ended, during = Recorder(), Recorder(), Recorder()
    client = connect(fresh_server.url, **FAST)
    client.subscribe("kept", cb=kept)
    sub = client.subscribe("ended", cb=ended)
    client.publish("kept", b"before")
    client.publish("ended", b"before")
    client.flush()
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    sub.unsubscribe()
    client.subscribe("during", cb=during)
    for subject in ("kept", "ended", "during"):
        client.publish(subject, b"during")
    fresh_server.start()
    client.flush()
    for subject in ("kept", "ended", "during"):
        client.publish(subject, b"after")
    client.flush()
    eventually(lambda: len(kept) == 3 and len(during) == 2)
    assert payloads(kept) == [b"before", b"during", b"after"]
    assert payloads(during) == [b"during", b"after"]
    assert payloads(ended) == [b"before"]


def test_members_of_a_queue_group_get_each_message_once(fresh_server: NatsServer, connect: Connect) -> None:
    received = Recorder()
    client = connect(fresh_server.url, **FAST)
    for _ in range(3):
        client.subscribe("work", queue="workers", cb=received)
    for part in (1, 2):
        for number in range(100 * part - 100, 100 * part):
            client.publish("work", b"%d" % number)
        client.flush()
        eventually(lambda enough=100 * part: len(received) >= enough)  # type: ignore[misc]
        fresh_server.restart()
        eventually(lambda part=part: client.stats.reconnects == part)  # type: ignore[misc]
        client.flush()
    assert sorted(map(int, payloads(received))) == list(range(200))


def test_what_the_client_says_of_itself(fresh_server: NatsServer, connect: Connect) -> None:
    client = connect(fresh_server.url, **FAST)
    assert (client.status, client.is_connected, client.connected_url) == (Status.CONNECTED, True, fresh_server.url)
    server_id = client.server_info.server_id if client.server_info else ""
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    assert (client.status, client.is_connected, client.is_closed) == (Status.RECONNECTING, False, False)
    assert client.connected_url is None
    assert client.last_error is not None
    fresh_server.start()
    eventually(lambda: client.is_connected)
    assert not client.is_reconnecting
    eventually(lambda: client.connected_url == fresh_server.url)
    assert client.server_info is not None
    assert client.server_info.server_id != server_id
    assert client.stats.reconnects == 1


# Faults on the wire


@pytest.mark.parametrize("fault", ["cut", "reset", "half_close"])
def test_a_broken_connection_is_found_again(fault: str, proxy: FaultProxy, connect: Connect) -> None:
    received, lost, found = Recorder(), Recorder(), Recorder()
    client = connect(proxy.url, disconnected_cb=lost, reconnected_cb=found, **FAST)
    client.subscribe("broken", cb=received)
    client.flush()
    for number in range(1, 6):
        getattr(proxy, fault)()
        found.wait_for(number)
        client.publish("broken", b"%d" % number)
        client.flush()
        received.wait_for(number)
    assert payloads(received) == [b"1", b"2", b"3", b"4", b"5"]
    assert (len(lost), client.stats.reconnects, proxy.accepted) == (5, 5, 6)
    assert all(event.error is not None and event.server == proxy.url for event in lost.items)
    eventually(lambda: proxy.connections == 1)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_black_hole_is_noticed_by_unanswered_pings(direction: Any, proxy: FaultProxy, connect: Connect) -> None:
    lost = Recorder()
    client = connect(proxy.url, disconnected_cb=lost, ping_interval=0.05, max_outstanding_pings=2, **FAST)
    received = client.subscribe("hole")
    client.flush()
    proxy.black_hole(direction)
    (event,) = lost.wait_for(1)
    assert isinstance(event.error, StaleConnectionError)
    assert client.is_reconnecting
    client.publish("hole", b"kept")
    proxy.heal()
    assert received.next_msg(timeout=5.0 * TIME_FACTOR).data == b"kept"


def test_a_frozen_server_is_stale_after_the_ticks_promised(fresh_server: NatsServer, connect: Connect) -> None:
    lost, found = Recorder(), Recorder()
    client = connect(
        fresh_server.url,
        disconnected_cb=lost,
        reconnected_cb=found,
        ping_interval=0.1,
        max_outstanding_pings=2,
        **FAST,
    )
    sub = client.subscribe("frozen")
    client.flush()
    fresh_server.pause()
    frozen_at = time.monotonic()
    (event,) = lost.wait_for(1)
    took = time.monotonic() - frozen_at
    assert isinstance(event.error, StaleConnectionError)
    assert 0.2 <= took <= 0.3 + 1.2 * TIME_FACTOR  # the third tick after the freeze
    client.publish("frozen", b"patience")
    fresh_server.resume()
    found.wait_for(1)
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"patience"


def test_a_connection_that_answers_pings_is_never_stale(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, ping_interval=0.1 * TIME_FACTOR, max_outstanding_pings=2, **FAST)
    never(lambda: not client.is_connected, 0.6)
    assert client.stats.reconnects == 0


# Calls that wait


def test_a_waiting_request_is_answered_after_the_outage(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    asked = Recorder()
    service = connect(nats_server.url)
    service.subscribe("slow.service", cb=asked)
    service.flush()
    client = connect(proxy.url, **FAST)
    answer: Future[Msg] = pool.submit(client.request, "slow.service", b"?", timeout=10.0 * TIME_FACTOR)
    (question,) = asked.wait_for(1)
    go_down(proxy, client)
    never(answer.done, 0.1)
    come_back(proxy, client)
    question.respond(b"!")
    assert answer.result(5.0 * TIME_FACTOR).data == b"!"


def test_a_request_future_is_answered_after_the_outage(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    asked = Recorder()
    service = connect(nats_server.url)
    service.subscribe("slow.future", cb=asked)
    service.flush()
    client = connect(proxy.url, **FAST)
    answer = client.request_future("slow.future", timeout=10.0 * TIME_FACTOR)
    (question,) = asked.wait_for(1)
    go_down(proxy, client)
    come_back(proxy, client)
    question.respond(b"!")
    assert answer.result(5.0 * TIME_FACTOR).data == b"!"


def test_a_request_begun_while_down_is_answered(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    service = connect(nats_server.url)
    service.subscribe("down.service", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    answers = [pool.submit(client.request, "down.service", b"%d" % n, timeout=10.0 * TIME_FACTOR) for n in range(8)]
    never(lambda: any(answer.done() for answer in answers), 0.1)
    proxy.accept()
    assert [answer.result(5.0 * TIME_FACTOR).data for answer in answers] == [b"%d" % n for n in range(8)]


def test_a_waiting_request_times_out_in_an_outage(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        client.request("nobody", timeout=0.2)
    assert 0.2 <= time.monotonic() - begin <= 0.2 + 1.2 * TIME_FACTOR


@pytest.mark.parametrize("call", ["flush", "rtt"])
def test_a_waiting_ping_fails_with_its_connection(
    call: str, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    def silent(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"PING")

    def good(conn: Conn) -> None:
        conn.handshake()
        conn.serve()

    server = scripted([silent, good])
    client = connect(server.url, **FAST)
    waited = pool.submit(getattr(client, call))
    with pytest.raises(ConnectionReconnectingError) as caught:
        waited.result(5.0 * TIME_FACTOR)
    assert caught.value.__cause__ is not None
    eventually(lambda: client.is_connected)
    getattr(client, call)()


def test_a_flush_begun_while_down_waits_for_the_connection(
    proxy: FaultProxy, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    flushes = [pool.submit(client.flush) for _ in range(4)]
    never(lambda: any(flush.done() for flush in flushes), 0.1)
    proxy.accept()
    for flush in flushes:
        flush.result(5.0 * TIME_FACTOR)
    assert client.is_connected


def test_a_flush_begun_while_down_confirms_what_was_published_before(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    other = connect(nats_server.url)
    witness = other.subscribe("confirmed")
    other.flush()
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    client.publish("confirmed", b"1")
    proxy.accept()
    client.flush()
    other.flush()
    assert witness.pending_msgs == 1


def test_a_flush_begun_while_down_times_out(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        client.flush(timeout=0.1)
    assert 0.1 <= time.monotonic() - begin <= 0.1 + 1.2 * TIME_FACTOR
    come_back(proxy, client)
    assert client.rtt() < 5.0


def test_a_flush_that_gave_up_while_down_takes_nobodys_pong(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    for _ in range(5):
        with pytest.raises(NatsTimeoutError):
            client.flush(timeout=0.01)
    come_back(proxy, client)
    proxy.black_hole("down")
    with pytest.raises(NatsTimeoutError):
        client.flush(timeout=0.1)
    proxy.heal()
    client.flush()


def test_an_rtt_begun_while_down_raises_at_once(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    go_down(proxy, client)
    begin = time.monotonic()
    with pytest.raises(ConnectionReconnectingError):
        client.rtt(timeout=5.0)
    assert time.monotonic() - begin < 1.2 * TIME_FACTOR


def test_a_drain_while_down_closes_and_raises(proxy: FaultProxy, connect: Connect) -> None:
    closed = Recorder()
    client = connect(proxy.url, closed_cb=closed, **FAST)
    go_down(proxy, client)
    begin = time.monotonic()
    with pytest.raises(ConnectionReconnectingError):
        client.drain()
    assert time.monotonic() - begin < 1.0 * TIME_FACTOR
    assert client.is_closed
    closed.wait_for(1)
    with pytest.raises(ConnectionClosedError):
        client.publish("late")


def test_next_msg_and_a_loop_go_on_waiting(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    client = connect(proxy.url, **FAST)
    read, looped = client.subscribe("read"), client.subscribe("looped")
    client.flush()
    message = pool.submit(read.next_msg)
    loop = pool.submit(lambda: [msg.data for msg in looped])
    go_down(proxy, client)
    never(lambda: message.done() or loop.done(), 0.1)
    come_back(proxy, client)
    publisher = connect(nats_server.url)
    publisher.publish("read", b"one")
    publisher.publish("looped", b"two")
    assert message.result(5.0 * TIME_FACTOR).data == b"one"
    eventually(lambda: looped.delivered == 1)
    client.close()
    assert loop.result(5.0 * TIME_FACTOR) == [b"two"]


def test_next_msg_times_out_in_an_outage(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("quiet")
    go_down(proxy, client)
    with pytest.raises(NatsTimeoutError):
        sub.next_msg(timeout=0.05)


def test_messages_already_received_stay_readable_while_down(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("early")
    client.publish("early", b"1")
    client.publish("early", b"2")
    client.flush()
    go_down(proxy, client)
    assert [sub.next_msg(timeout=1.0).data for _ in range(2)] == [b"1", b"2"]


# force_reconnect


def test_force_reconnect_makes_a_new_connection(proxy: FaultProxy, connect: Connect) -> None:
    lost, found = Recorder(), Recorder()
    client = connect(proxy.url, disconnected_cb=lost, reconnected_cb=found, reconnect_time_wait=60.0)
    sub = client.subscribe("forced")
    client.flush()
    before = client.client_id
    client.force_reconnect()
    found.wait_for(1)
    assert client.client_id != before
    assert [event.error for event in lost.items] == [None]
    client.publish("forced", b"new")
    assert sub.next_msg(timeout=5.0).data == b"new"


def test_flush_right_after_force_reconnect_waits_for_the_new_connection(
    nats_server: NatsServer, connect: Connect
) -> None:
    """It begins when the old connection is given up, be the supervisor as late as it will."""
    client = connect(nats_server.url, reconnect_time_wait=0.01)
    for number in range(1, 21):
        client.force_reconnect()
        client.flush()
        assert client.stats.reconnects == number


def test_force_reconnect_works_with_reconnecting_switched_off(proxy: FaultProxy, connect: Connect) -> None:
    found, closed = Recorder(), Recorder()
    client = connect(proxy.url, allow_reconnect=False, reconnected_cb=found, closed_cb=closed)
    for number in range(1, 4):
        client.force_reconnect()
        found.wait_for(number)
        client.flush()
    proxy.cut()
    closed.wait_for(1)


def test_force_reconnect_right_after_connect_is_not_forgotten(proxy: FaultProxy, connect: Connect) -> None:
    for _ in range(20):
        found = Recorder()
        client = connect(proxy.url, allow_reconnect=False, reconnected_cb=found)
        client.force_reconnect()
        found.wait_for(1, timeout=2.0)
        client.close()


@pytest.mark.usefixtures("restless")
def test_force_reconnect_in_reconnected_cb_is_not_forgotten(proxy: FaultProxy, connect: Connect) -> None:
    def again(event: Reconnected) -> None:
        if event.client.stats.reconnects < 60:
            event.client.force_reconnect()

    client = connect(proxy.url, allow_reconnect=False, reconnected_cb=again)
    client.flush()
    client.force_reconnect()
    eventually(lambda: client.stats.reconnects >= 60)


@pytest.mark.usefixtures("restless")
def test_force_reconnect_in_many_threads_never_ends_the_client(
    proxy: FaultProxy, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    client = connect(proxy.url, allow_reconnect=False)

    def force() -> None:
        while client.stats.reconnects < 100:
            client.force_reconnect()

    for thread in [pool.submit(force) for _ in range(3)]:
        thread.result(20.0 * TIME_FACTOR)
    eventually(lambda: client.is_connected)
    assert not client.is_closed


def test_ten_calls_of_force_reconnect_in_a_row_are_one(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_time_wait=60.0)
    proxy.black_hole()  # the new connection cannot be there before the last call
    for _ in range(10):
        client.force_reconnect()
    proxy.heal()
    eventually(lambda: client.is_connected and client.stats.reconnects)
    client.flush()
    never(lambda: client.stats.reconnects > 1, 0.1)


def test_force_reconnect_loses_nothing_that_was_published(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    received = Recorder()
    witness = connect(nats_server.url)
    witness.subscribe("moved", cb=received)
    witness.flush()
    client = connect(proxy.url, **FAST)
    for turn in range(4):
        eventually(lambda expected=turn: client.is_connected and client.stats.reconnects == expected)  # type: ignore[misc]
        client.flush()  # nothing is under way now, and the next publishes meet a connection that has been given up
        client.force_reconnect()
        for number in range(turn * 500, turn * 500 + 500):
            client.publish("moved", b"%d" % number)
    received.wait_for(2000)
    assert payloads(received) == [b"%d" % number for number in range(2000)]
