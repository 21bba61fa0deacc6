"""Ctrl-C in every call that waits: the call ends at once, and the client goes on. And `close()` in a signal handler."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync import BadSubscriptionError, ConnectionClosedError, NatsTimeoutError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

AT_ONCE = 1.0 * TIME_FACTOR


class Interrupt:
    """Presses Ctrl-C when the main thread has been waiting for a moment."""

    def __init__(self) -> None:
        self.at = 0.0
        self._thread: threading.Thread | None = None

    def soon(self, delay: float = 0.1) -> None:
        def press() -> None:
            self.at = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        self._thread = threading.Timer(delay, press)
        self._thread.start()

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        with pytest.raises(KeyboardInterrupt):
            self.soon()
            yield
        assert time.monotonic() - self.at < AT_ONCE

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    each = Interrupt()
    yield each
    each.join()
    signal.signal(signal.SIGINT, usual)


def check_usable(client: Client) -> None:
    sub = client.subscribe("signal.usable")
    client.publish("signal.usable", b"still")
    client.flush()
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"still"
    sub.unsubscribe()
    assert client.rtt() > 0
    assert client.stats.reconnects == 0


def test_next_msg(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("signal.next")
    with interrupt.expected():
        sub.next_msg()
    with interrupt.expected():
        sub.next_msg(timeout=60.0)
    client.publish("signal.next", b"later")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"later"
    check_usable(client)


def test_a_loop(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("signal.loop")
    with interrupt.expected():
        for _ in sub:
            raise AssertionError("nothing was published")
    client.publish("signal.loop", b"later")
    assert next(iter(sub)).data == b"later"
    check_usable(client)


def test_a_loop_left_by_ctrl_c_is_not_waited_for(
    nats_server: NatsServer, connect: Connect, interrupt: Interrupt
) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("signal.loop")
    with interrupt.expected():
        for _ in sub:
            raise AssertionError("nothing was published")
    client.drain(timeout=5.0)
    assert client.is_closed


@pytest.mark.parametrize("call", ["request", "request_many", "request_future"])
def test_a_request(call: str, nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    asked = Recorder()
    service = connect(nats_server.url)
    service.subscribe("signal.service", cb=asked)
    service.flush()
    client = connect(nats_server.url)
    calls: dict[str, Callable[[], Any]] = {
        "request": lambda: client.request("signal.service", timeout=60.0),
        "request_many": lambda: list(client.request_many("signal.service", timeout=60.0)),
        "request_future": lambda: client.request_future("signal.service", timeout=60.0).result(),
    }
    with interrupt.expected():
        calls[call]()
    asked.wait_for(1)[0].respond(b"too late")
    service.flush()
    check_usable(client)
    service.subscribe("signal.echo", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    assert client.request("signal.echo", b"mine").data == b"mine"


@pytest.mark.parametrize("call", ["flush", "rtt"])
def test_a_ping(call: str, proxy: FaultProxy, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(proxy.url)
    proxy.black_hole("down")
    with interrupt.expected():
        getattr(client, call)(60.0)
    with pytest.raises(NatsTimeoutError):
        client.flush(0.1)
    proxy.heal()
    check_usable(client)


def test_a_flush_while_down(proxy: FaultProxy, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(proxy.url, reconnect_time_wait=0.05)
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)
    with interrupt.expected():
        client.flush(60.0)
    proxy.accept()
    client.flush()
    assert client.rtt() > 0


def test_a_publish_that_waits_for_room(proxy: FaultProxy, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(proxy.url, pending_size=100_000)
    proxy.black_hole("up")
    with interrupt.expected():
        for _ in range(1_000_000):
            client.publish("signal.full", bytes(50_000))
    proxy.heal()
    check_usable(client)
    assert not client._engine.outbound._room


def test_wait_closed(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    client = connect(nats_server.url)
    with interrupt.expected():
        client.wait_closed()
    with interrupt.expected():
        client.wait_closed(60.0)
    check_usable(client)


def test_drain(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    go_on = threading.Event()
    done = Recorder()
    client = connect(nats_server.url)
    client.subscribe("signal.slow", cb=lambda msg: done(go_on.wait(10.0 * TIME_FACTOR)))
    client.publish("signal.slow")
    client.flush()
    with interrupt.expected():
        client.drain(60.0)
    assert client.is_draining
    client.publish("signal.still", b"publishing goes on")
    go_on.set()
    assert client.wait_closed(5.0 * TIME_FACTOR)
    assert done.items == [True]


def test_the_drain_of_a_subscription(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    go_on = threading.Event()
    client = connect(nats_server.url)
    sub = client.subscribe("signal.slow", cb=lambda msg: go_on.wait(10.0 * TIME_FACTOR))
    client.publish("signal.slow")
    client.flush()
    with interrupt.expected():
        sub.drain(60.0)
    go_on.set()
    check_usable(client)
    eventually(lambda: not sub.is_valid)


def test_close(scripted: Scripted, connect: Connect, interrupt: Interrupt) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.wait_eof()

    client = connect(scripted(script).url)
    client.publish("signal.close")
    with interrupt.expected():
        client.close()  # the server does not say that it has the last message
    with pytest.raises(ConnectionClosedError):
        client.publish("signal.close")
    client.close()
    assert client.is_closed


def test_the_end_of_a_context(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    with interrupt.expected(), connect(nats_server.url) as client:
        client.subscribe("signal.context").next_msg()
    assert client.is_closed


def test_connect(scripted: Scripted, connect: Connect, interrupt: Interrupt) -> None:
    server = scripted(lambda conn: conn.wait_eof())
    with interrupt.expected():
        connect(server.url, connect_timeout=60.0)


# close() in a signal handler

WAITS: dict[str, Callable[[Client], object]] = {
    "next_msg": lambda client: client.subscribe("signal.handler").next_msg(),
    "a loop": lambda client: (list(client.subscribe("signal.handler")), client.rtt()),
    "request": lambda client: client.request("signal.silent", timeout=60.0),
    "request_many": lambda client: list(client.request_many("signal.silent", timeout=60.0)),
    "flush": lambda client: client.flush(60.0),
    "rtt": lambda client: client.rtt(60.0),
    "drain": lambda client: client.drain(60.0),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_that_closes_ends_whatever_waits(
    wait: str, nats_server: NatsServer, proxy: FaultProxy, connect: Connect, interrupt: Interrupt
) -> None:
    service = connect(nats_server.url)
    service.subscribe("signal.silent")
    service.flush()
    client = connect(proxy.url)
    took: list[float] = []
    signal.signal(signal.SIGINT, lambda number, frame: close_in(client, took))
    proxy.black_hole("down")
    interrupt.soon()
    with pytest.raises(ConnectionClosedError):
        WAITS[wait](client)
    assert client.wait_closed(5.0 * TIME_FACTOR)
    assert took[0] < AT_ONCE


def close_in(client: Client, took: list[float]) -> None:
    begin = time.monotonic()
    client.close()
    took.append(time.monotonic() - begin)


@pytest.mark.parametrize("also", ["nothing", "a second signal"])
def test_a_handler_that_closes_a_client_that_is_waited_for(
    nats_server: NatsServer, connect: Connect, interrupt: Interrupt, also: str
) -> None:
    client = connect(nats_server.url)
    took: list[float] = []
    signal.signal(signal.SIGINT, lambda number, frame: close_in(client, took))
    interrupt.soon()
    assert client.wait_closed(5.0 * TIME_FACTOR)
    if also == "a second signal":
        os.kill(os.getpid(), signal.SIGINT)
    assert max(took) < AT_ONCE


def test_a_handler_that_closes_when_natsync_does_nothing(
    nats_server: NatsServer, connect: Connect, interrupt: Interrupt
) -> None:
    client = connect(nats_server.url)
    signal.signal(signal.SIGINT, lambda number, frame: client.close())
    client.publish("signal.last")
    os.kill(os.getpid(), signal.SIGINT)
    assert client.is_closed  # there it waits, as everywhere
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(f"natsync-{client._engine.label}")]


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.timeout(180)
def test_a_handler_that_closes_at_any_moment(nats_server: NatsServer, connect: Connect) -> None:
    """The signal strikes between any two steps of the main thread, also where it holds a lock."""
    service = connect(nats_server.url)
    service.subscribe("signal.echo", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    luck = random.Random(7)
    took: list[float] = []
    usual = signal.getsignal(signal.SIGALRM)
    try:
        for _ in range(200):
            client = connect(nats_server.url)
            signal.signal(signal.SIGALRM, lambda *_, client=client: close_in(client, took))
            signal.setitimer(signal.ITIMER_REAL, luck.uniform(0.0005, 0.02))
            with contextlib.suppress(ConnectionClosedError, BadSubscriptionError):
                while True:
                    sub = client.subscribe("signal.any")
                    for _ in range(20):
                        client.publish("signal.any", b"data")
                        sub.next_msg(timeout=5.0)
                    sub.unsubscribe()
                    client.request("signal.echo", b"data")
                    client.flush()
            assert client.wait_closed(5.0 * TIME_FACTOR)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, usual)
    assert len(took) == 200
    assert max(took) < AT_ONCE


def test_a_handler_that_uses_the_client(nats_server: NatsServer, connect: Connect, interrupt: Interrupt) -> None:
    """A handler runs between any two steps of the main thread, perhaps under a lock: it may only set a flag."""
    client = connect(nats_server.url)
    sub = client.subscribe("signal.flag")
    client.flush()
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    interrupt.soon(0.05)
    read = 0
    while not stop.is_set():
        client.publish("signal.flag")
        with contextlib.suppress(NatsTimeoutError):
            sub.next_msg(timeout=0.5)
            read += 1
    assert read > 0
    check_usable(client)
