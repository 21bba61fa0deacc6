"""What goes over TLS arrives as it was, at any rate and in both directions at once, and nobody on the way can read it.

OpenSSL's connection objects bear one thread at a time, and natsync has many. The last tests hunt for what that may
break; `make tls-stress` makes them long enough (`NATSYNC_TLS_SECONDS`, 3, and `NATSYNC_TLS_CONNECTIONS`, 40), and
prints their figures.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync.testing import NatsServer
from tests.support.certificates import Authority, tls_config
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg

    Connect = Callable[..., Client]

pytestmark = pytest.mark.tls

KIB = 1024
SECONDS = float(os.environ.get("NATSYNC_TLS_SECONDS", "3"))
CONNECTIONS = int(os.environ.get("NATSYNC_TLS_CONNECTIONS", "40"))
PUBLISHERS = 4
SHORT = 30  # messages of a publisher over a short connection
AT_ONCE = 2  # short connections
WINDOW = 200  # messages of a publisher that are under way

NOISE = random.Random(4222).randbytes(2048 * KIB)


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[NatsServer]:
    with NatsServer(tls_config(authority.server(), top="max_payload: 2MB")) as server:
        yield server


def sealed(number: int, size: int) -> bytes:
    """A payload of that size, at least 8: a checksum of the rest, a number, noise."""
    begin = number * 7919 % (1024 * KIB)
    rest = struct.pack(">I", number) + NOISE[begin : begin + size - 8]
    return struct.pack(">I", zlib.crc32(rest)) + rest


def opened(data: bytes) -> int:
    """The number in a payload that has arrived whole."""
    checksum, number = struct.unpack_from(">II", data)
    assert zlib.crc32(memoryview(data)[4:]) == checksum, f"{len(data)} bytes have changed on the way"
    return int(number)


# Whole


def test_large_messages(tls_server: NatsServer, authority: Authority, connect: Connect) -> None:
    received = Recorder()
    client = connect(tls_server.url, tls_ca=authority.file)
    client.subscribe("a", cb=received)
    sizes = [1024 * KIB, 1024 * KIB - 1, 2_000_000, 16 * KIB, 16 * KIB + 1, 64 * KIB, 8]
    for number, size in enumerate(sizes):
        client.publish("a", sealed(number, size))
    received.wait_for(len(sizes), 10.0)
    assert [len(msg.data) for msg in received.items] == sizes
    assert [opened(msg.data) for msg in received.items] == list(range(len(sizes)))


def test_headers(tls_server: NatsServer, authority: Authority, connect: Connect) -> None:
    received = Recorder()
    client = connect(tls_server.url, tls_ca=authority.file)
    client.subscribe("a", cb=received)
    values = {f"Name-{number}": [f"välue {number}", "x" * number * 10] for number in range(100)}
    for number in range(50):
        client.publish("a", sealed(number, 10 * KIB), headers=values)
    received.wait_for(50)
    for number, msg in enumerate(received.items):
        assert opened(msg.data) == number
        assert {name: msg.headers.get_all(name) for name in values} == values


def test_requests(tls_server: NatsServer, authority: Authority, connect: Connect) -> None:
    service, client = (connect(tls_server.url, tls_ca=authority.file) for _ in range(2))
    service.subscribe("echo", cb=lambda msg: msg.respond(msg.data, headers=msg.headers))
    service.flush()
    for number, size in enumerate([8, 1000, 64 * KIB, 1024 * KIB]):
        answer = client.request("echo", sealed(number, size), headers={"n": str(number)})
        assert opened(answer.data) == number
        assert answer.headers is not None
        assert answer.headers["n"] == str(number)


def test_bursts_both_ways(tls_server: NatsServer, authority: Authority, connect: Connect) -> None:
    one, two = (connect(tls_server.url, tls_ca=authority.file) for _ in range(2))
    to_one, to_two = Recorder(), Recorder()
    one.subscribe("one", cb=to_one)
    two.subscribe("two", cb=to_two)
    one.flush()
    two.flush()

    def burst(client: Client, subject: str) -> None:
        for number in range(200):
            client.publish(subject, sealed(number, 64 * KIB))

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(burst, one, "two"), pool.submit(burst, two, "one")]:
            each.result(20.0 * TIME_FACTOR)
    for received in (to_one, to_two):
        received.wait_for(200, 20.0)
        assert [opened(msg.data) for msg in received.items] == list(range(200))


# Unseen


class Sniffer:
    """A wire to a server that keeps all it carries: one list of bytes up, one down, for each connection."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[bytearray, bytearray]] = []
        self._target = port
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="test-sniffer", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            up, down = bytearray(), bytearray()
            self.heard.append((up, down))
            self._start(self._pump, client, server, up)
            self._start(self._pump, server, client, down)

    def _pump(self, source: socket.socket, sink: socket.socket, heard: bytearray) -> None:
        try:
            while data := source.recv(65536):
                heard += data
                sink.sendall(data)
        except OSError:
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def types_of_records(stream: bytes) -> set[int]:
    """The types of the TLS records of which a stream consists, and of nothing else."""
    types, at = set(), 0
    while at < len(stream):
        kind, version, length = struct.unpack_from(">BHH", stream, at)
        assert kind in {20, 21, 22, 23}, f"no TLS record but {stream[at : at + 40]!r}"
        assert version in {0x0301, 0x0303}
        assert length <= 16 * KIB + 2048
        types.add(kind)
        at += 5 + length
    assert at == len(stream)
    return types


WORDS = ["secret-subject", "secret-payload", "secret-user", "secret-password", "secret-header", "secret-name"]


@pytest.mark.parametrize("first", [False, True], ids=["after INFO", "handshake first"])
def test_nothing_can_be_read_on_the_wire(first: bool, authority: Authority, connect: Connect) -> None:
    top = 'authorization { user: "secret-user", password: "secret-password" }'
    config = tls_config(authority.server(), top=top, handshake_first=first)
    with NatsServer(config) as server, contextlib.closing(Sniffer(server.port)) as sniffer:
        client = connect(
            sniffer.url,
            user="secret-user",
            password="secret-password",
            name="secret-name",
            tls_ca=authority.file,
            tls_handshake_first=first,
            reconnect_time_wait=0.05,
            reconnect_jitter_tls=0.0,
        )
        talk_of_secrets(client)
        client.force_reconnect()
        eventually(lambda: client.stats.reconnects == 1)
        talk_of_secrets(client)
        client.close()
    assert len(sniffer.heard) == 2
    for up, down in sniffer.heard:
        info, encrypted = (b"", bytes(down)) if first else down.split(b"\r\n", 1)
        assert first or info.startswith(b"INFO {")
        assert types_of_records(bytes(up)) >= {22, 23}
        assert types_of_records(bytes(encrypted)) >= {22, 23}
        assert [word for word in WORDS if word.encode() in up + down] == []


def talk_of_secrets(client: Client) -> None:
    with client.subscribe("secret-subject.*") as sub:
        client.publish("secret-subject.a", b"secret-payload", headers={"secret-header": "v"})
        assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"secret-payload"


# Many threads


def publish_sealed(client: Client, subject: str, free: threading.Semaphore, until: float, seed: int) -> int:
    """Publish sealed messages of all sizes as fast as they are received; return how many."""
    dice = random.Random(seed)
    for number in itertools.count():
        if time.monotonic() > until:
            return number
        assert free.acquire(timeout=20.0 * TIME_FACTOR), f"{subject} stands still after {number} messages"
        size = dice.choice((8, 30, 200, 1000, 1000, 5000, 20 * KIB, 64 * KIB))
        client.publish(subject, sealed(number, size), headers={"n": str(number)} if number % 5 == 0 else None)
    raise AssertionError


def tell(capfd: pytest.CaptureFixture[str], figures: str) -> None:
    """Print figures in a run that is about them."""
    if "NATSYNC_TLS_SECONDS" in os.environ:
        with capfd.disabled():
            print(f"{sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: {figures}")


class Checker:
    """A callback for the messages of one publisher: they are whole, and come once and in order."""

    def __init__(self) -> None:
        self.free = threading.Semaphore(WINDOW)
        self.count = 0
        self.faults: list[str] = []

    def __call__(self, msg: Msg) -> None:
        try:
            number = opened(msg.data)
        except AssertionError as error:
            self.faults.append(str(error))
        else:
            if number != self.count:
                self.faults.append(f"number {number} came in place of {self.count}")
        self.count += 1
        self.free.release()


@pytest.mark.slow
@pytest.mark.timeout(60 + SECONDS * 2)
def test_both_directions_at_full_rate(
    tls_server: NatsServer, authority: Authority, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    trouble = Recorder()
    client = connect(
        tls_server.url, tls_ca=authority.file, disconnected_cb=trouble, error_cb=trouble, closed_cb=trouble
    )
    checkers = [Checker() for _ in range(PUBLISHERS)]
    for number, checker in enumerate(checkers):
        client.subscribe(f"full.{number}", cb=checker)
    client.flush()
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        publishers = [
            pool.submit(publish_sealed, client, f"full.{number}", checker.free, until, number)
            for number, checker in enumerate(checkers)
        ]
        counts = [each.result() for each in publishers]
    client.flush(20.0 * TIME_FACTOR)
    eventually(lambda: [checker.count for checker in checkers] == counts, 20.0)
    assert [checker.faults for checker in checkers] == [[]] * PUBLISHERS
    assert trouble.items == []
    assert client.stats.reconnects == 0
    assert min(counts) > 0
    tell(capfd, f"{sum(counts)} messages, {client.stats.in_bytes / 1e6:.0f} MB each way, in {SECONDS:.0f} s")


def ask_sealed(client: Client, until: float, seed: int) -> int:
    """Send requests of all sizes, each after the answer to the one before; return how many."""
    dice = random.Random(seed)
    for number in itertools.count():
        if time.monotonic() > until:
            return number
        size = dice.choice((8, 30, 200, 1000, 5000, 20 * KIB, 64 * KIB))
        answer = client.request("echo", sealed(number, size), timeout=20.0 * TIME_FACTOR)
        assert (opened(answer.data), len(answer.data)) == (number, size)
    raise AssertionError


@pytest.mark.slow
@pytest.mark.timeout(60 + SECONDS * 2)
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "beside a stream"])
def test_requests_from_many_threads(
    busy: bool, tls_server: NatsServer, authority: Authority, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who waits for an answer reads it, so here the connection is read and written by whatever thread comes."""
    trouble = Recorder()
    service, client = (
        connect(tls_server.url, tls_ca=authority.file, disconnected_cb=trouble, error_cb=trouble, closed_cb=trouble)
        for _ in range(2)
    )
    service.subscribe("echo", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    checker = Checker()
    client.subscribe("full", cb=checker)
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(PUBLISHERS + 1) as pool:
        askers = [pool.submit(ask_sealed, client, until, number) for number in range(PUBLISHERS)]
        stream = pool.submit(publish_sealed, client, "full", checker.free, until if busy else 0.0, 7)
        counts = [each.result() for each in askers]
        published = stream.result()
    eventually(lambda: checker.count == published, 20.0)
    assert checker.faults == []
    assert trouble.items == []
    assert client.stats.reconnects == service.stats.reconnects == 0
    assert min(counts) > 0
    tell(capfd, f"{sum(counts)} requests, beside {published} messages, in {SECONDS:.0f} s")


def short_connection(url: str, authority: Authority, connect: Connect, name: int) -> list[str]:
    """Connect, send and receive from four threads for a moment, close; return what went wrong."""
    trouble: list[str] = []

    def complain(event: Any) -> None:
        if event.error is not None:
            trouble.append(repr(event))

    client = connect(url, tls_ca=authority.file, disconnected_cb=complain, error_cb=complain)
    checkers = [Checker() for _ in range(PUBLISHERS)]
    threads = []
    until = time.monotonic() + 60.0

    def publish(subject: str, seed: int) -> None:
        dice = random.Random(seed)
        for number in range(SHORT):
            client.publish(subject, sealed(number, dice.choice((8, 1000, 20 * KIB, 64 * KIB))))

    for number, checker in enumerate(checkers):
        subject = f"short.{name}.{number}"
        client.subscribe(subject, cb=checker)
        threads.append(threading.Thread(target=publish, args=(subject, name * PUBLISHERS + number)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    client.flush(20.0 * TIME_FACTOR)
    eventually(lambda: [checker.count for checker in checkers] == [SHORT] * PUBLISHERS, 20.0)
    if client.stats.reconnects:
        trouble.append(f"{client.stats.reconnects} reconnects")
    client.close()
    return trouble + [fault for checker in checkers for fault in checker.faults]


@pytest.mark.slow
@pytest.mark.timeout(60 + CONNECTIONS * 2)
def test_many_short_connections(
    tls_server: NatsServer, authority: Authority, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = range(CONNECTIONS)
        troubles = list(pool.map(lambda name: short_connection(tls_server.url, authority, connect, name), names))
    assert [trouble for trouble in troubles if trouble] == []
    tell(capfd, f"{CONNECTIONS} connections, each with {PUBLISHERS} x {SHORT} messages both ways")
