"""A peer that stops reading: back-pressure, the deadlines of a publish and of the connection, and the way out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConnectionClosedError, NatsError, NatsTimeoutError, StaleConnectionError
from tests.support.scripted import ScriptError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

KIB = 1024
SLACK = 1.5 * TIME_FACTOR


def narrow(host: str, port: int, timeout: float) -> socket.socket:
    """A dialer whose sockets hold little, so that a peer that does not read is felt soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
    sock.settimeout(timeout)
    sock.connect((host, port))
    return sock


OPTIONS: dict[str, Any] = {"dialer": narrow, "reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}


class Peer:
    """A script: reads nothing until it is told to, and then all; the later connections are good ones."""

    def __init__(self) -> None:
        self.read = threading.Event()
        self.over = threading.Event()
        self.streams: list[bytes] = []
        self.first: Conn | None = None

    def __call__(self, conn: Conn) -> None:
        conn.timeout = 20.0
        with contextlib.suppress(ScriptError, OSError):  # the client may end at any moment
            conn.handshake(max_payload=64 << 20)
            if conn.number == 0:
                self.first = conn
                self.read.wait(20.0 * TIME_FACTOR)
            while not self.over.is_set():
                self.streams.append(conn.read_until(b"PING\r\n"))
                conn.send(b"PONG\r\n")

    def end(self) -> None:
        self.over.set()
        self.read.set()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.end()


@pytest.fixture
def pool(peer: Peer) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads
        peer.end()


def fill(client: Client, pool: ThreadPoolExecutor, peer: Peer) -> Future[BaseException | None]:
    """Publish in a thread, and wait until it and the socket are at a standstill; returns what the thread raises."""

    def publish() -> BaseException | None:
        try:
            while not peer.over.is_set():
                client.publish("full", bytes(1000))
        except NatsError as error:
            return error
        return None

    future = pool.submit(publish)
    outbound = client._engine.outbound
    last = [0, time.monotonic()]

    def is_stuck() -> bool:
        if outbound.sent_bytes != last[0] or client.buffered <= client._options.pending_size // 2:
            last[:] = outbound.sent_bytes, time.monotonic()
        return time.monotonic() - last[1] > 0.3

    eventually(is_stuck, 10.0)
    return future


# Back-pressure


def test_publishers_wait_and_the_bound_holds(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    client = connect(scripted(peer).url, pending_size=64 * KIB, **OPTIONS)

    def publish(name: int) -> None:
        for number in range(300):
            client.publish(f"p.{name}", b"%d" % number + bytes(1000))

    publishers = [pool.submit(publish, name) for name in range(8)]
    eventually(lambda: client.buffered > 62 * KIB)
    never(lambda: client.buffered > 64 * KIB or any(each.done() for each in publishers), 0.2)
    peer.read.set()
    for each in publishers:
        each.result(10.0 * TIME_FACTOR)
    client.flush()
    stream = peer.streams[0]
    for name in range(8):
        parts = stream.split(f"PUB p.{name} ".encode())[1:]
        numbers = [int(part.split(b"\r\n", 1)[1].split(b"\0", 1)[0]) for part in parts]
        assert numbers == list(range(300))
    assert client.stats.dropped == 0
    eventually(lambda: client.buffered == 0)


def test_a_message_larger_than_the_bound_goes_alone(peer: Peer, scripted: Scripted, connect: Connect) -> None:
    client = connect(scripted(peer).url, pending_size=1 * KIB, **OPTIONS)
    peer.read.set()
    for _ in range(3):
        client.publish("large", bytes(500 * KIB))
    client.flush()
    assert peer.streams[0].count(b"PUB large ") == 3


def test_we_go_on_reading(peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor) -> None:
    client = connect(scripted(peer).url, pending_size=64 * KIB, **OPTIONS)
    sub = client.subscribe("a")
    fill(client, pool, peer)
    assert peer.first is not None
    for _ in range(100):  # more than our socket takes, if nobody reads it
        peer.first.send_msg("a", str(sub.sid), bytes(10 * KIB))
    eventually(lambda: sub.pending_msgs == 100)
    peer.end()
    client.close()


# The deadline of a call


def slow(peer: Peer) -> Callable[[Conn], None]:
    """A script that reads slowly, but is never at a standstill for long."""

    def script(conn: Conn) -> None:
        conn.handshake()
        with contextlib.suppress(ScriptError):  # the client may end at any moment
            while not peer.over.wait(0.02):
                conn.read_exactly(8 * KIB)

    return script


def test_a_publish_gives_up_after_write_timeout(scripted: Scripted, connect: Connect, peer: Peer) -> None:
    client = connect(scripted(slow(peer)).url, pending_size=2048 * KIB, write_timeout=1.0, **OPTIONS)
    begins: list[float] = []
    with pytest.raises(NatsTimeoutError) as caught:
        for _ in range(1000):
            begins.append(time.monotonic())
            client.publish("slow", bytes(10_000))
    assert 1.0 <= time.monotonic() - begins[-1] <= 1.0 + SLACK
    assert caught.value.timeout == 1.0
    assert client.is_connected
    assert client.stats.reconnects == 0
    peer.over.set()
    client.close()


@pytest.mark.parametrize("call", ["request", "flush", "rtt", "request_many", "request_future"])
def test_a_call_gives_up_after_its_own_timeout(
    call: str, peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    client = connect(scripted(peer).url, pending_size=64 * KIB, **OPTIONS)
    fill(client, pool, peer)
    large = bytes(64 * KIB)
    calls: dict[str, Callable[[], object]] = {
        "request": lambda: client.request("x", large, timeout=0.2),
        "request_many": lambda: list(client.request_many("x", large, timeout=0.2)),
        "request_future": lambda: client.request_future("x", large, timeout=0.2),
        "flush": lambda: client.flush(0.2),
        "rtt": lambda: client.rtt(0.2),
    }
    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        calls[call]()
    assert 0.2 <= time.monotonic() - begin <= 0.2 + SLACK
    assert client.is_connected
    peer.end()
    client.close()


# The deadline of the connection


def test_a_standstill_is_a_lost_connection(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    lost = Recorder()
    client = connect(scripted(peer).url, pending_size=64 * KIB, write_timeout=0.5, disconnected_cb=lost, **OPTIONS)

    def publish() -> None:
        for number in range(300):
            client.publish("still", b"%d" % number + bytes(5000))

    begin = time.monotonic()
    published = pool.submit(publish)
    (event,) = lost.wait_for(1)
    took = time.monotonic() - begin
    assert isinstance(event.error, NatsTimeoutError)
    assert 0.5 <= took <= 0.5 + 2 * SLACK
    error = published.exception(5.0 * TIME_FACTOR)
    assert error is None or isinstance(error, NatsTimeoutError)  # its own time was over at the same moment
    client.flush()
    assert client.stats.reconnects == 1
    numbers = [int(part.split(b"\r\n", 1)[1].split(b"\0", 1)[0]) for part in peer.streams[-1].split(b"PUB still ")[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert event.dropped_msgs <= 1


def test_a_standstill_is_stale_when_pings_notice_it_first(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    lost = Recorder()
    client = connect(
        scripted(peer).url,
        pending_size=64 * KIB,
        ping_interval=0.1,
        max_outstanding_pings=2,
        disconnected_cb=lost,
        **OPTIONS,
    )

    def publish() -> None:
        for _ in range(300):
            client.publish("still", bytes(5000))

    pool.submit(publish)
    (event,) = lost.wait_for(1)
    assert isinstance(event.error, StaleConnectionError)
    eventually(lambda: client.stats.reconnects == 1)


def test_slow_is_not_lost(scripted: Scripted, connect: Connect, peer: Peer) -> None:
    deadlines = {"ping_interval": 0.6 * TIME_FACTOR, "max_outstanding_pings": 1, "write_timeout": 0.8 * TIME_FACTOR}
    client = connect(scripted(slow(peer)).url, **OPTIONS | deadlines)
    for _ in range(200):
        client.publish("slow", bytes(10_000))
    never(lambda: not client.is_connected, 2.0)
    assert client.buffered > 0
    assert client.stats.reconnects == 0
    peer.over.set()
    client.close()


def test_a_new_server_that_takes_nothing_is_a_failed_attempt(peer: Peer, scripted: Scripted, connect: Connect) -> None:
    failed, found = Recorder(), Recorder()

    def first(conn: Conn) -> None:
        conn.handshake()

    def second(conn: Conn) -> None:
        conn.handshake()
        peer.over.wait(10.0 * TIME_FACTOR)

    def third(conn: Conn) -> None:
        conn.handshake()
        found([line for line in conn.serve() if line.startswith(b"PUB ")])

    client = connect(
        scripted([first, second, third]).url,
        write_timeout=0.3,
        reconnect_error_cb=failed,
        **OPTIONS | {"reconnect_time_wait": 0.2},
    )
    eventually(lambda: client.is_reconnecting)
    for number in range(500):
        client.publish(f"restore.{number}", bytes(10_000))
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    client.close()
    peer.end()
    (event,) = failed.items
    assert isinstance(event.error, NatsTimeoutError)
    (lines,) = found.wait_for(1)
    numbers = [int(line.split()[1].split(b".")[1]) for line in lines]
    assert numbers == list(range(numbers[0], 500))


# The way out


def test_a_loss_releases_publishers(peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor) -> None:
    def resets(conn: Conn) -> None:
        conn.handshake()
        peer.read.wait(10.0 * TIME_FACTOR)
        conn.reset()

    client = connect(scripted([resets, peer]).url, pending_size=64 * KIB, **OPTIONS)

    def publish() -> None:
        for _ in range(500):
            client.publish("x", bytes(1000))

    publishers = [pool.submit(publish) for _ in range(4)]
    eventually(lambda: client.buffered > 62 * KIB)
    never(lambda: any(each.done() for each in publishers), 0.1)
    peer.read.set()
    for each in publishers:
        each.result(10.0 * TIME_FACTOR)
    client.flush()


def test_close_releases_publishers_at_once_and_ends_in_time(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor
) -> None:
    closed = Recorder()
    client = connect(scripted(peer).url, pending_size=64 * KIB, closed_cb=closed, **OPTIONS)
    publisher = fill(client, pool, peer)
    begin = time.monotonic()
    close = pool.submit(client.close)
    assert isinstance(publisher.result(SLACK), ConnectionClosedError)
    close.result(10.0 * TIME_FACTOR)
    assert time.monotonic() - begin < 2.0 + 2 * SLACK
    (event,) = closed.wait_for(1)
    assert event.dropped_msgs > 0
    assert client.stats.dropped >= event.dropped_msgs
