"""Waiting for the server: `flush`, `rtt`, and whose PONG is whose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import ConfigError, ConnectionClosedError, NatsTimeoutError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn

Connect = Callable[..., Client]
Scripted = Callable[..., Any]

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


# What a flush says


def test_what_was_published_before_is_at_the_server(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    for _ in range(10_000):
        client.publish("flush.count", b"12345")
    client.flush()
    assert client.buffered == 0
    # The server answers a PING a moment before it adds up what it has read with it.
    eventually(lambda: fresh_server.varz()["in_msgs"] == 10_000)
    assert fresh_server.varz()["in_bytes"] == 50_000


def test_what_was_published_before_has_arrived_here(nats_client: Client) -> None:
    sub = nats_client.subscribe("flush.here")
    for count in range(1, 200):
        nats_client.publish("flush.here")
        nats_client.flush()
        assert sub.pending_msgs == count


def test_subscribing_and_unsubscribing_have_happened(connect: Connect, nats_server: NatsServer) -> None:
    one, other = connect(nats_server.url), connect(nats_server.url)
    sub = one.subscribe("flush.sub")
    one.flush()
    other.publish("flush.sub")
    other.flush()
    one.flush()
    assert sub.pending_msgs == 1
    assert sub.next_msg(PATIENCE).data == b""


def test_many_threads_may_flush_at_once(nats_client: Client) -> None:
    sub = nats_client.subscribe("flush.threads.*")
    counts = [0] * 16

    def work(thread: int) -> None:
        for _ in range(50):
            nats_client.publish(f"flush.threads.{thread}")
            counts[thread] += 1
            nats_client.flush()
            assert sub.pending_msgs >= counts[thread]

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(work, thread) for thread in range(16)]:
            future.result(PATIENCE)
    assert sub.pending_msgs == 16 * 50


@pytest.mark.parametrize("callback_workers", [1, 8])
def test_flush_and_rtt_inside_callbacks(connect: Connect, nats_server: NatsServer, callback_workers: int) -> None:
    done = Recorder()

    def both(client: Client) -> None:
        client.flush()
        done(client.rtt())

    client = connect(nats_server.url, callback_workers=callback_workers, connected_cb=lambda event: both(event.client))
    client.subscribe("flush.inside", cb=lambda msg: both(client))
    for _ in range(20):
        client.publish("flush.inside")
    client.request_future("flush.nobody").add_done_callback(lambda future: both(client))
    assert all(0 < rtt < PATIENCE for rtt in done.wait_for(22))


def test_flush_goes_on_while_a_callback_is_slow(nats_client: Client) -> None:
    opened, entered = threading.Event(), Recorder()

    def handle(msg: Msg) -> None:
        entered(msg)
        opened.wait(PATIENCE)

    nats_client.subscribe("flush.slow", cb=handle)
    nats_client.publish("flush.slow")
    entered.wait_for(1)
    nats_client.flush(timeout=1.0)
    opened.set()


# The time it takes


def test_rtt_measures_the_way_there_and_back(connect: Connect, proxy: FaultProxy) -> None:
    client = connect(proxy.url)
    assert 0 < client.rtt() < 1.1 * TIME_FACTOR
    proxy.latency = 0.05
    assert 0.1 <= client.rtt() < 0.1 + 1.2 * TIME_FACTOR


@pytest.mark.parametrize("name", ["flush", "rtt"])
def test_a_timeout_is_kept(connect: Connect, fresh_server: NatsServer, name: str) -> None:
    client = connect(fresh_server.url)
    fresh_server.pause()
    for timeout in (0.05, 0.3):
        began = time.monotonic()
        with pytest.raises(NatsTimeoutError) as caught:
            getattr(client, name)(timeout=timeout)
        assert timeout <= time.monotonic() - began < timeout + 1.15 * TIME_FACTOR
        assert caught.value.timeout == timeout
    fresh_server.resume()
    getattr(client, name)()
    assert client.is_connected


def test_the_option_is_the_default_timeout(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, flush_timeout=0.1)
    fresh_server.pause()
    for call in (client.flush, client.rtt):
        began = time.monotonic()
        with pytest.raises(NatsTimeoutError):
            call()
        assert 0.1 <= time.monotonic() - began < 1.3 * TIME_FACTOR


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "1", True], ids=repr)
def test_impossible_timeouts_are_refused(nats_client: Client, timeout: Any) -> None:
    for call in (nats_client.flush, nats_client.rtt, nats_client.drain):
        with pytest.raises(ConfigError):
            call(timeout)
    assert nats_client.is_connected


def test_a_closed_client_has_nothing_to_wait_for(nats_client: Client) -> None:
    nats_client.close()
    for call in (nats_client.flush, nats_client.rtt):
        with pytest.raises(ConnectionClosedError):
            call()


# Whose PONG is whose


def test_a_waiter_that_gave_up_leaves_its_place_empty(connect: Connect, scripted: Scripted) -> None:
    answer = threading.Event()

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"PING")  # of the one that gives up
        conn.expect(b"PING")  # of the one that waits
        conn.send(b"PONG\r\n")
        answer.wait(PATIENCE)
        conn.send(b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url)
    with pytest.raises(NatsTimeoutError):
        client.flush(timeout=0.05)
    waiting = in_background(client.flush)
    never(waiting.done, 0.15, "the PONG of another PING is taken for its own")
    answer.set()
    waiting.result(PATIENCE)
    client.flush()


def test_each_waiter_gets_the_pong_of_its_own_ping(connect: Connect, scripted: Scripted) -> None:
    arrived, go_on = Recorder(), threading.Semaphore(0)

    def script(conn: Conn) -> None:
        conn.handshake()
        for _ in range(5):
            arrived(conn.expect(b"PING"))
        for _ in range(5):
            go_on.acquire(timeout=PATIENCE)
            conn.send(b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url)
    waiting = []
    for number in range(5):
        waiting.append(in_background(client.flush))
        arrived.wait_for(number + 1)
    for number in range(5):
        go_on.release()
        waiting[number].result(PATIENCE)
        assert [each.done() for each in waiting] == [True] * (number + 1) + [False] * (4 - number)


def test_a_pong_that_nobody_waits_for_is_passed_over(connect: Connect, scripted: Scripted) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.send(b"PONG\r\nPONG\r\n")
        sid = conn.expect(b"SUB").split()[-1].decode()
        conn.send_msg("flush.unasked", sid, b"here")
        conn.serve()

    client = connect(scripted(script).url)
    sub = client.subscribe("flush.unasked")
    assert sub.next_msg(PATIENCE).data == b"here"
    client.flush()
    assert client.is_connected


def test_messages_before_a_pong_are_pending_when_flush_returns(connect: Connect, scripted: Scripted) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB").split()[-1]
        conn.expect(b"PING")
        burst = b"".join(b"MSG flush.burst %s 1\r\n%d\r\n" % (sid, number % 10) for number in range(1000))
        conn.send(burst + b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url)
    sub = client.subscribe("flush.burst")
    client.flush()
    assert sub.pending_msgs == 1000


def test_keep_alives_and_flushes_share_the_queue_of_pongs(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, ping_interval=0.001, max_outstanding_pings=1000)
    sub = client.subscribe("flush.alive")
    for count in range(1, 500):
        client.publish("flush.alive")
        client.flush()
        assert sub.pending_msgs == count
    assert client.is_connected
    assert client.stats.reconnects == 0
