"""Over TLS too, a connection is lost and found again; a full wire is felt."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConnectionClosedError, NatsTimeoutError
from natsync.testing import NatsServer
from tests.support.certificates import Authority, server_context, start_tls
from tests.support.proxy import FaultProxy
from tests.support.scripted import ScriptError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

pytestmark = pytest.mark.tls

KIB = 1024


@pytest.fixture
def options(authority: Authority) -> dict[str, Any]:
    """What every client here is connected with."""
    return {
        "tls_ca": authority.file,
        "reconnect_time_wait": 0.05,
        "reconnect_jitter_tls": 0.0,
        "reconnect_jitter": 0.0,
    }


def numbers(recorder: Recorder) -> list[int]:
    return [int(msg.data.split(b" ", 1)[0]) for msg in recorder.items]


# Lost and found


def test_a_server_that_restarts(tls_server: NatsServer, connect: Connect, options: dict[str, Any]) -> None:
    received, lost, found = Recorder(), Recorder(), Recorder()
    client = connect(tls_server.url, disconnected_cb=lost, reconnected_cb=found, **options)
    client.subscribe("a", cb=received)
    for number in range(1, 4):
        client.publish("a", b"%d" % number)
        client.flush()
        received.wait_for(number)
        tls_server.restart()
        found.wait_for(number)
    assert len(lost) == 3
    assert all(event.error is not None for event in lost.items)
    assert numbers(received) == [1, 2, 3]


def test_messages_published_meanwhile_arrive_all_in_order(
    tls_server: NatsServer, connect: Connect, options: dict[str, Any]
) -> None:
    received = Recorder()
    client = connect(tls_server.url, **options)
    client.subscribe("a", cb=received)
    tls_server.kill()
    eventually(lambda: client.is_reconnecting)
    for number in range(5000):
        client.publish("a", b"%d " % number + bytes(100), headers={"n": str(number)} if number % 3 == 0 else None)
    tls_server.start()
    client.flush()
    received.wait_for(5000)
    assert numbers(received) == list(range(5000))
    assert client.stats.dropped == 0


@pytest.mark.parametrize("fault", ["cut", "reset", "half_close"])
def test_a_broken_wire(fault: str, wire: FaultProxy, connect: Connect, options: dict[str, Any]) -> None:
    received, lost, found = Recorder(), Recorder(), Recorder()
    client = connect(wire.url, disconnected_cb=lost, reconnected_cb=found, **options)
    client.subscribe("a", cb=received)
    client.flush()
    for number in range(1, 6):
        getattr(wire, fault)()
        found.wait_for(number)
        client.publish("a", b"%d" % number)
        client.flush()
        received.wait_for(number)
    assert numbers(received) == [1, 2, 3, 4, 5]
    assert (len(lost), client.stats.reconnects, wire.accepted) == (5, 5, 6)


def test_a_black_hole(wire: FaultProxy, connect: Connect, options: dict[str, Any]) -> None:
    lost = Recorder()
    client = connect(wire.url, disconnected_cb=lost, ping_interval=0.1, connect_timeout=0.5 * TIME_FACTOR, **options)
    sub = client.subscribe("a")
    client.flush()
    wire.black_hole()
    (event,) = lost.wait_for(1)
    assert type(event.error).__name__ == "StaleConnectionError"
    client.publish("a", b"kept")
    wire.heal()
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"kept"


@pytest.mark.parametrize("part", [0.02, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_cuts_in_the_handshake_of_a_reconnect(
    part: float, wire: FaultProxy, connect: Connect, options: dict[str, Any]
) -> None:
    failed = Recorder()
    client = connect(wire.url, reconnect_error_cb=failed, **options)
    client.flush()
    sub = client.subscribe("a")
    wire.cut_after(int(wire.bytes_down * part), "down")
    wire.refuse()
    wire.cut()
    eventually(lambda: client.is_reconnecting)
    wire.accept()
    failed.wait_for(1)
    eventually(lambda: client.is_connected)
    client.publish("a", b"found")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"found"
    assert client.stats.reconnects == 1


# Wires in odd pieces


@pytest.mark.parametrize("fragment", [1, 2, 7])
def test_byte_by_byte(fragment: int, wire: FaultProxy, connect: Connect, options: dict[str, Any]) -> None:
    wire.fragment = fragment
    received = Recorder()
    client = connect(wire.url, connect_timeout=10.0 * TIME_FACTOR, **options)
    client.subscribe("a", cb=received)
    for number in range(20):
        client.publish("a", b"%d " % number + bytes(100), headers={"h": "v"})
    client.flush()
    received.wait_for(20)
    assert numbers(received) == list(range(20))


def test_a_slow_wire(wire: FaultProxy, connect: Connect, options: dict[str, Any]) -> None:
    wire.rate = 400 * KIB
    wire.latency = 0.01
    received = Recorder()
    client = connect(wire.url, connect_timeout=10.0 * TIME_FACTOR, **options)
    client.subscribe("a", cb=received)
    for number in range(30):
        client.publish("a", b"%d " % number + bytes(5 * KIB))
    client.flush(20.0 * TIME_FACTOR)
    received.wait_for(30, 20.0)
    assert numbers(received) == list(range(30))
    assert client.stats.reconnects == 0


# Cut in the middle of a flush


@pytest.mark.parametrize("reset", [False, True], ids=["cut", "reset"])
@pytest.mark.parametrize("position", [1, 5_000, 20_000, 300_000, 1_000_000, 1_500_000])
def test_no_message_twice(
    position: int,
    reset: bool,
    tls_server: NatsServer,
    wire: FaultProxy,
    connect: Connect,
    options: dict[str, Any],
) -> None:
    received, lost = Recorder(), Recorder()
    witness = connect(tls_server.url, **options)
    witness.subscribe("a", cb=received)
    witness.flush()
    client = connect(wire.url, disconnected_cb=lost, **options)
    client.flush()
    wire.cut_after(position, "up", reset=reset)
    for number in range(2000):
        client.publish("a", b"%d " % number + bytes(1000))
    lost.wait_for(1)
    eventually(lambda: client.is_connected)
    client.publish("a", b"2000")
    client.flush()
    witness.flush()
    eventually(lambda: received.items and received.items[-1].data == b"2000")
    got = numbers(received)
    assert got == sorted(set(got)), "twice, or out of order"
    missing = sorted(set(range(2001)) - set(got))
    assert missing == list(range(missing[0], missing[0] + len(missing))) if missing else True, "more than one gap"
    assert client.stats.reconnects == 1


# Back-pressure


def narrow(host: str, port: int, timeout: float) -> socket.socket:
    """A dialer whose sockets hold little, so that a peer that does not read is felt soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)
    sock.settimeout(timeout)
    sock.connect((host, port))
    return sock


class Peer:
    """A script: greets over TLS, then reads nothing, or slowly, until it is told to read all."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.read = threading.Event()
        self.over = threading.Event()
        self.is_slow = False
        self.slowly = b""
        self.streams: list[bytes] = []
        self.conn: Conn | None = None
        self._context = context

    def __call__(self, conn: Conn) -> None:
        conn.timeout = 20.0
        with contextlib.suppress(ScriptError, OSError):  # the client may end at any moment
            conn.send_info(tls_required=True)
            start_tls(conn, self._context)
            conn.expect(b"CONNECT ")
            conn.expect(b"PING")
            conn.send(b"PONG\r\n")
            self.conn = conn
            while self.is_slow and not self.read.wait(0.02):
                self.slowly += conn.read_exactly(8 * KIB)
            self.read.wait(20.0 * TIME_FACTOR)
            while not self.over.is_set():
                self.streams.append(conn.read_until(b"PING\r\n"))
                conn.send(b"PONG\r\n")

    @property
    def received(self) -> bytes:
        return self.slowly + b"".join(self.streams)

    def numbers(self, subject: str) -> list[int]:
        parts = self.received.split(f"PUB {subject} ".encode())[1:]
        return [int(part.split(b"\r\n", 1)[1].split(b" ", 1)[0]) for part in parts]

    def end(self) -> None:
        self.over.set()
        self.read.set()


@pytest.fixture
def peer(authority: Authority) -> Iterator[Peer]:
    peer = Peer(server_context(authority.server()))
    yield peer
    peer.end()


def test_a_peer_that_does_not_read_stops_publishers(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor, options: dict[str, Any]
) -> None:
    client = connect(scripted(peer).url, pending_size=64 * KIB, dialer=narrow, **options)

    def publish(name: int) -> None:
        for number in range(1000):
            client.publish(f"p.{name}", b"%d " % number + bytes(1000))

    publishers = [pool.submit(publish, name) for name in range(4)]
    eventually(lambda: client.buffered > 62 * KIB)
    never(lambda: client.buffered > 64 * KIB or any(each.done() for each in publishers), 0.3)
    with pytest.raises(NatsTimeoutError):
        client.flush(0.2)
    with pytest.raises(NatsTimeoutError):
        client.request("x", bytes(64 * KIB), timeout=0.2)
    peer.read.set()
    for each in publishers:
        each.result(20.0 * TIME_FACTOR)
    client.flush(20.0 * TIME_FACTOR)
    for name in range(4):
        assert peer.numbers(f"p.{name}") == list(range(1000))
    assert client.stats.dropped == 0
    assert client.stats.reconnects == 0
    eventually(lambda: client.buffered == 0)


def test_a_publish_gives_up_and_what_was_taken_arrives(
    peer: Peer, scripted: Scripted, connect: Connect, options: dict[str, Any]
) -> None:
    peer.is_slow = True
    lost = Recorder()
    client = connect(
        scripted(peer).url, pending_size=2048 * KIB, write_timeout=1.0, dialer=narrow, disconnected_cb=lost, **options
    )
    taken = 0
    with pytest.raises(NatsTimeoutError):
        for number in range(2000):
            client.publish("a", b"%d " % number + bytes(10_000))
            taken += 1
    assert client.is_connected
    peer.read.set()
    client.flush(20.0 * TIME_FACTOR)
    assert peer.numbers("a") == list(range(taken))
    assert lost.items == []


def test_we_go_on_reading_while_we_cannot_write(
    peer: Peer, scripted: Scripted, connect: Connect, pool: ThreadPoolExecutor, options: dict[str, Any]
) -> None:
    client = connect(scripted(peer).url, pending_size=64 * KIB, dialer=narrow, **options)
    sub = client.subscribe("a")

    def publish() -> None:
        with contextlib.suppress(ConnectionClosedError):
            while not peer.over.is_set():
                client.publish("full", bytes(1000))

    publisher = pool.submit(publish)
    eventually(lambda: client.buffered > 62 * KIB)
    assert peer.conn is not None
    for _ in range(100):  # more than our socket takes, if nobody reads it
        peer.conn.send_msg("a", str(sub.sid), bytes(10 * KIB))
    eventually(lambda: sub.pending_msgs == 100)
    assert not publisher.done()
    peer.end()
    client.close()


def test_both_directions_are_full_at_once(
    scripted: Scripted, connect: Connect, options: dict[str, Any], authority: Authority, pool: ThreadPoolExecutor
) -> None:
    """The peer writes all it has before it reads anything, and so do we: a client that only writes would hang."""
    context = server_context(authority.server())
    received = Recorder()

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        sid = conn.expect(b"SUB a ").split()[-1]
        conn.send((b"MSG a %b 10000\r\n" % sid + bytes(10_000) + b"\r\n") * 1000)
        conn.read_until(b"the last one\r\n")
        conn.serve()

    client = connect(scripted(script).url, pending_size=64 * KIB, dialer=narrow, **options)
    client.subscribe("a", cb=lambda msg: received(len(msg.data)))

    def publish() -> None:
        for _ in range(1000):
            client.publish("b", bytes(10_000))

    published = pool.submit(publish)
    published.result(20.0 * TIME_FACTOR)
    client.publish("b", b"the last one")
    client.flush(20.0 * TIME_FACTOR)
    received.wait_for(1000, 20.0)
    assert client.stats.reconnects == 0


# Close


def test_close_sends_what_was_published(tls_server: NatsServer, connect: Connect, options: dict[str, Any]) -> None:
    received = Recorder()
    witness = connect(tls_server.url, **options)
    witness.subscribe("a", cb=received)
    witness.flush()
    for _ in range(5):
        client = connect(tls_server.url, **options)
        for number in range(200):
            client.publish("a", b"%d " % number + bytes(1000))
        client.close()
    received.wait_for(1000)
    assert numbers(received) == [*range(200)] * 5
