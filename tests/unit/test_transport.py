"""A byte stream over a connected socket: what each call does, and who may wake whom."""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from natsync.core.transport import TcpTransport
from natsync.errors import NatsConnectionError
from tests.support.sockets import close_socket
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.conftest import Pool

AT_ONCE = 0.1 * TIME_FACTOR


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()  # it has no TCP_NODELAY, as the sockets of some dialers


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


class Wire:
    def __init__(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self.socket, self.peer = pair
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.transport = TcpTransport(self.socket)

    def fill(self) -> int:
        """Send until no more is taken, neither by our socket nor by the peer's; returns how much was."""
        total = 0
        while self.transport.wait_writable(0.05):
            total += self.transport.send(b"x" * 65536)
        return total

    def read_some(self) -> int:
        """Let the peer read what is there."""
        try:
            return len(self.peer.recv(65536, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0


@pytest.fixture(params=["", "select", "no MSG_DONTWAIT"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems differ in what they offer: Windows has neither poll() nor MSG_DONTWAIT, and gevent takes poll() away."""
    if request.param:
        monkeypatch.delattr(select, "poll", raising=False)
    if request.param == "no MSG_DONTWAIT":
        monkeypatch.setattr("natsync.core.transport._DONTWAIT", 0)


@pytest.fixture(params=[unix_pair, tcp_pair])
def wire(request: pytest.FixtureRequest, system: None) -> Iterator[Wire]:
    made = Wire(request.param())
    yield made
    made.transport.close()
    made.peer.close()


def seconds(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


# Receiving.


@pytest.mark.parametrize("timeout", [math.inf, 5.0, 0.0])
def test_recv_returns_what_is_there(wire: Wire, timeout: float):
    wire.peer.sendall(b"hello")
    eventually(lambda: wire.socket.recv(1, socket.MSG_PEEK))
    assert wire.transport.recv(timeout) == b"hello"


def test_recv_waits_for_bytes(wire: Wire, pool: Pool):
    receiving = pool.submit(wire.transport.recv)
    wire.peer.sendall(b"hello")
    assert receiving.result(10) == b"hello"


@pytest.mark.parametrize("timeout", [0.0, 0.0001, 0.05])
def test_recv_returns_none_in_time(wire: Wire, timeout: float):
    start = time.monotonic()
    assert wire.transport.recv(timeout) is None
    assert timeout <= time.monotonic() - start < timeout + 1


@pytest.mark.parametrize("timeout", [3e6, 1e10])
def test_a_timeout_of_months_is_no_error(wire: Wire, timeout: float):
    """`connect_timeout` may be any number of seconds; some write a huge one for "never"."""
    wire.peer.sendall(b"hello")
    assert wire.transport.recv(timeout) == b"hello"
    assert wire.transport.wait_writable(timeout)


@pytest.mark.parametrize("timeout", [math.inf, 5.0])
def test_recv_returns_nothing_at_the_end_again_and_again(wire: Wire, timeout: float):
    wire.peer.sendall(b"last words")
    wire.peer.close()
    assert wire.transport.recv(timeout) == b"last words"
    assert wire.transport.recv(timeout) == b""
    assert wire.transport.recv(timeout) == b""


@pytest.mark.parametrize("recv", [TcpTransport.recv, TcpTransport.recv_now])
def test_much_is_received_in_large_pieces_and_little_afterwards_in_usual_ones(
    recv: Callable[[TcpTransport], bytes | None],
):
    ours, peer = tcp_pair()
    transport = TcpTransport(ours)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    pieces: list[int] = []

    def receive(size: int) -> int:
        """Have so many bytes in the socket, and receive them all."""
        peer.sendall(b"x" * size)
        while size:
            assert transport.wait_readable(5)
            if size > 200_000:
                eventually(lambda: len(ours.recv(200_000, socket.MSG_PEEK)) == 200_000)
            pieces.append(len(recv(transport) or b""))
            size -= pieces[-1]
        return max(pieces)

    assert receive(300_000) > 65536
    assert max(pieces) <= 262144
    pieces.clear()
    assert receive(100) == 100
    assert receive(200_000) <= 131072, "it begins anew with the usual size"
    transport.close()
    peer.close()


def test_a_broken_connection_is_a_natsync_error_with_its_cause():
    wire = Wire(tcp_pair())
    close_socket(wire.peer, reset=True)
    with pytest.raises(NatsConnectionError, match="the connection broke: Connection reset") as caught:
        wire.transport.recv()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    wire.transport.close()


# Sending.


def test_send_returns_how_much_fitted(wire: Wire):
    assert wire.transport.send(b"hello") == 5
    assert wire.transport.send(memoryview(b"xhello")[1:]) == 5
    assert wire.peer.recv(10, socket.MSG_WAITALL) == b"hellohello"


def test_send_on_a_full_socket_takes_nothing_and_never_waits(wire: Wire):
    assert wire.fill() > 0
    assert seconds(lambda: wire.transport.send(b"x")) < AT_ONCE
    assert wire.transport.send(b"x" * 100_000) == 0


def test_send_goes_on_when_the_peer_has_read(wire: Wire):
    left = wire.fill()
    assert not wire.transport.wait_writable(0)
    while left:
        left -= wire.read_some()
    assert wire.transport.wait_writable(5)
    assert wire.transport.send(b"x") == 1


def test_wait_writable_is_over_in_time(wire: Wire):
    wire.fill()
    start = time.monotonic()
    assert not wire.transport.wait_writable(0.05)
    assert 0.05 <= time.monotonic() - start < 1


def test_wait_writable_ends_when_the_peer_reads(wire: Wire, pool: Pool):
    wire.fill()
    waiting = pool.submit(wire.transport.wait_writable, 30)
    eventually(lambda: (wire.read_some(), waiting.done())[1])
    assert waiting.result(10)


def test_sending_to_nobody_is_a_natsync_error(wire: Wire):
    wire.peer.close()
    with pytest.raises(NatsConnectionError) as caught:
        for _ in range(100):  # TCP needs the peer's word before it knows
            wire.transport.send(b"x" * 100)
            wire.transport.recv(0.01)
    assert isinstance(caught.value.__cause__, OSError)


def test_sending_and_receiving_at_once_is_safe(wire: Wire, pool: Pool):
    """One thread receives while another sends more than fits."""
    size = 300_000
    receiving = pool.submit(wire.transport.recv)
    peer_reads = pool.submit(lambda: len(read_exactly(wire.peer, size)))
    left = size
    while left:
        left -= wire.transport.send(b"x" * min(left, 65536))
        wire.transport.wait_writable(1)
    assert peer_reads.result(10) == size
    assert not receiving.done()
    wire.peer.sendall(b"pong")
    assert receiving.result(10) == b"pong"


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(65536)
    return data


# Ending.


@pytest.mark.parametrize("timeout", [math.inf, 30.0])
def test_shutdown_wakes_a_receiver_at_once(wire: Wire, pool: Pool, timeout: float):
    begun = threading.Event()

    def receive() -> tuple[bytes | None, float]:
        begun.set()
        return wire.transport.recv(timeout), time.monotonic()

    receiving = pool.submit(receive)
    assert begun.wait(10)
    start = time.monotonic()
    wire.transport.shutdown()
    data, ended = receiving.result(10)
    assert data == b""
    assert ended - start < AT_ONCE


def test_shutdown_wakes_who_waits_for_writability(wire: Wire, pool: Pool):
    if wire.socket.family != socket.AF_INET and not hasattr(select, "poll"):
        pytest.skip("select() is not told; who waits with it does so in slices")
    wire.fill()
    waiting = pool.submit(lambda: (wire.transport.wait_writable(30), time.monotonic()))
    start = time.monotonic()
    wire.transport.shutdown()
    _, ended = waiting.result(10)
    assert ended - start < AT_ONCE
    with pytest.raises(NatsConnectionError):
        wire.transport.send(b"x")


def test_after_shutdown_what_the_server_had_said_can_be_read():
    """Its last words tell why it closed; on Linux a shutdown leaves them in the socket."""
    wire = Wire(tcp_pair())
    wire.peer.sendall(b"-ERR 'why'\r\n")
    eventually(lambda: wire.socket.recv(1, socket.MSG_PEEK))
    wire.transport.shutdown()
    assert wire.transport.recv() == b"-ERR 'why'\r\n"
    assert wire.transport.recv() == b""
    wire.transport.close()
    wire.peer.close()


def test_shutdown_tells_the_peer_and_may_come_twice_and_after_close(wire: Wire):
    wire.transport.shutdown()
    assert wire.peer.recv(10) == b""
    wire.transport.shutdown()
    wire.transport.close()
    wire.transport.shutdown()
    wire.transport.close()


@pytest.mark.parametrize("call", [lambda t: t.recv(), lambda t: t.recv(1.0), lambda t: t.send(b"x")])
def test_a_closed_transport_is_a_natsync_error(wire: Wire, call: Callable[[TcpTransport], object]):
    wire.transport.close()
    with pytest.raises(NatsConnectionError):
        call(wire.transport)


def test_waiting_on_a_closed_transport_is_a_natsync_error(wire: Wire):
    wire.transport.close()
    with pytest.raises(NatsConnectionError):
        wire.transport.wait_writable(0)


def test_abandoning_closes_this_descriptor_only(wire: Wire):
    """A forked child lets go of its copy, and the parent's connection goes on."""
    other_copy = socket.socket(fileno=os.dup(wire.socket.fileno()))
    descriptor = wire.socket.fileno()
    wire.transport.abandon()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    other_copy.sendall(b"still here")
    assert wire.peer.recv(100) == b"still here"
    other_copy.close()
    wire.transport.abandon()
    wire.transport.close()
