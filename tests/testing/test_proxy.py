"""The faulty wire, between a plain socket and a peer that the test controls."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.leaks import open_sockets
from tests.support.proxy import FaultProxy
from tests.support.sockets import close_socket
from tests.support.waiting import TIME_FACTOR, eventually, never
from tests.support.wire import Wire, is_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from natsync.testing import NatsServer


class Ends:
    """A proxy with the test at both ends."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.proxy = FaultProxy("127.0.0.1", self.listener.getsockname()[1])
        self.open: list[socket.socket] = []

    def join(self) -> tuple[socket.socket, socket.socket]:
        """A client's and a server's end of a new connection."""
        client = socket.create_connection(("127.0.0.1", self.proxy.port), 5 * TIME_FACTOR)
        self.open.append(client)
        self.listener.settimeout(5 * TIME_FACTOR)
        server, _ = self.listener.accept()
        self.open.append(server)
        server.settimeout(5 * TIME_FACTOR)
        return client, server

    def close(self) -> None:
        for each in self.open:
            each.close()
        self.proxy.close()
        self.listener.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.close()


def read(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        assert piece, f"the end after {len(data)} bytes"
        data += piece
    return bytes(data)


def read_all(source: socket.socket) -> bytes:
    data = bytearray()
    while piece := source.recv(65536):
        data += piece
    return bytes(data)


def is_readable(source: socket.socket) -> bool:
    source.setblocking(False)
    try:
        source.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        source.settimeout(5 * TIME_FACTOR)
    return True


def swap(one: socket.socket, two: socket.socket) -> None:
    """Show that the wire works both ways."""
    one.sendall(b"up")
    assert read(two, 2) == b"up"
    two.sendall(b"down")
    assert read(one, 4) == b"down"


def test_a_real_server_behind_the_proxy(nats_server: NatsServer, proxy: FaultProxy) -> None:
    assert proxy.url == f"nats://127.0.0.1:{proxy.port}"
    with Wire(proxy.port) as wire:
        assert wire.handshake()["port"] == nats_server.port
        assert proxy.connections == 1


def test_bytes_are_forwarded_and_counted(ends: Ends) -> None:
    client, server = ends.join()
    swap(client, server)
    assert (ends.proxy.bytes_up, ends.proxy.bytes_down) == (2, 4)
    assert (ends.proxy.accepted, ends.proxy.connections) == (1, 1)


def test_much_data_goes_both_ways_at_once(ends: Ends) -> None:
    client, server = ends.join()
    data = bytes(range(256)) * 20_000
    senders = [threading.Thread(target=end.sendall, args=(data,)) for end in (client, server)]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(read(server, len(data))))
    for thread in [*senders, reader]:
        thread.start()
    assert read(client, len(data)) == data
    for thread in [*senders, reader]:
        thread.join()
    assert received == [data]


def test_the_end_of_one_side_is_passed_on_and_the_other_side_goes_on(ends: Ends) -> None:
    client, server = ends.join()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b"last words"
    server.sendall(b"answer")
    server.close()
    assert read_all(client) == b"answer"
    eventually(lambda: ends.proxy.connections == 0)


def test_a_reset_of_one_side_is_passed_on(ends: Ends) -> None:
    client, server = ends.join()
    swap(client, server)
    close_socket(server, reset=True)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    eventually(lambda: ends.proxy.connections == 0)


def test_a_server_that_refuses_shows_as_a_reset(ends: Ends) -> None:
    ends.listener.close()
    with pytest.raises(ConnectionResetError):
        connect_and_read(ends.proxy.port)


def connect_and_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as client:  # the reset may come before this returns
        client.recv(1)


def test_latency_delays_each_way_and_keeps_the_order(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.latency = 0.1
    begin = time.monotonic()
    for number in range(10):
        client.sendall(b"%d" % number)
    assert read(server, 10) == b"0123456789"
    server.sendall(b"x")
    assert read(client, 1) == b"x"
    assert 0.2 <= time.monotonic() - begin < 0.6 * TIME_FACTOR
    ends.proxy.latency = 0
    swap(client, server)


def test_fragments(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.fragment = 3
    client.sendall(b"0123456789" * 100)
    assert read(server, 1000) == b"0123456789" * 100
    ends.proxy.rate = 100  # a byte at a time, so that fragments cannot flow together again
    client.sendall(b"abc")
    assert [server.recv(100) for _ in range(3)] == [b"a", b"b", b"c"]


def test_rate(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.rate = 100_000
    begin = time.monotonic()
    client.sendall(bytes(30_000))
    read(server, 30_000)
    assert 0.25 <= time.monotonic() - begin < 1.5 * TIME_FACTOR


def test_a_black_hole_keeps_everything_until_it_is_healed(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.black_hole()
    client.sendall(b"up")
    server.sendall(b"down")
    never(lambda: is_readable(client) or is_readable(server))
    assert ends.proxy.connections == 1
    ends.proxy.heal()
    assert read(server, 2) == b"up"
    assert read(client, 4) == b"down"
    swap(client, server)


def test_a_black_hole_hides_the_end_of_the_other_side(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.black_hole()
    server.close()
    never(lambda: is_readable(client))
    ends.proxy.heal()
    assert client.recv(1) == b""


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_black_hole_in_one_direction(ends: Ends, direction: str) -> None:
    client, server = ends.join()
    ends.proxy.black_hole(direction)  # type: ignore[arg-type]
    client.sendall(b"up")
    server.sendall(b"down")
    open_end, shut_end = (client, server) if direction == "up" else (server, client)
    eventually(lambda: is_readable(open_end))
    never(lambda: is_readable(shut_end))


def test_a_black_hole_makes_the_writer_wait_in_the_end(ends: Ends) -> None:
    client, _ = ends.join()
    ends.proxy.black_hole("up")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 << 20))


def test_new_connections_into_a_black_hole_are_accepted(ends: Ends) -> None:
    ends.proxy.black_hole()
    client, server = ends.join()
    server.sendall(b"down")
    never(lambda: is_readable(client))
    ends.proxy.heal()
    assert read(client, 4) == b"down"


def test_accept_silent(ends: Ends) -> None:
    old_client, old_server = ends.join()
    ends.proxy.accept_silent()
    silent = socket.create_connection(("127.0.0.1", ends.proxy.port), 5)
    ends.open.append(silent)
    silent.sendall(b"hello?")
    never(lambda: is_readable(silent))
    swap(old_client, old_server)
    assert ends.proxy.connections == 2
    ends.proxy.heal()
    swap(*ends.join())
    assert not is_readable(silent)
    ends.proxy.reset()
    with pytest.raises(ConnectionResetError):
        silent.recv(1)
    assert ends.proxy.connections == 0


def test_cut_ends_both_sides_in_good_order(ends: Ends) -> None:
    pairs = [ends.join(), ends.join()]
    for client, server in pairs:
        swap(client, server)
        client.sendall(b"lost, or not")
    ends.proxy.cut()
    assert ends.proxy.connections == 0
    for client, server in pairs:
        read_all(server)
        assert client.recv(1) == b""
        client.sendall(b"too late")  # the first write after FIN is no error
    swap(*ends.join())


def test_cut_passes_through_a_black_hole(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.black_hole()
    client.sendall(b"lost")
    ends.proxy.cut()
    assert client.recv(1) == b""
    assert server.recv(1) == b""


def test_a_cut_connection_is_closed_when_both_sides_have_closed(ends: Ends) -> None:
    before = open_sockets()
    client, server = ends.join()
    ends.proxy.cut()
    client.close()
    server.close()
    eventually(lambda: open_sockets() <= before)


def test_reset_breaks_both_sides(ends: Ends) -> None:
    client, server = ends.join()
    swap(client, server)
    ends.proxy.reset()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    assert ends.proxy.connections == 0


def test_half_close_ends_the_way_to_the_client_only(ends: Ends) -> None:
    client, server = ends.join()
    swap(client, server)
    ends.proxy.half_close()
    assert client.recv(1) == b""
    client.sendall(b"still here")
    assert read(server, 10) == b"still here"
    server.sendall(b"nobody hears this")
    assert ends.proxy.connections == 1
    client.close()
    assert server.recv(1) == b""


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 99_999])
def test_cut_after_some_bytes(ends: Ends, n_bytes: int) -> None:
    client, server = ends.join()
    ends.proxy.cut_after(n_bytes)
    sender = threading.Thread(target=server.sendall, args=(bytes(100_000),))
    sender.start()
    assert len(read_all(client)) == n_bytes
    sender.join()
    assert ends.proxy.connections == 0
    assert ends.proxy.bytes_down == n_bytes
    swap(*ends.join())  # it happens once


def test_cut_after_some_bytes_upwards_with_a_reset(ends: Ends) -> None:
    client, server = ends.join()
    ends.proxy.cut_after(4, "up", reset=True)
    server.sendall(b"not counted")
    assert read(client, 11) == b"not counted"
    client.sendall(b"counted")
    with pytest.raises(ConnectionResetError):
        read_all(client)
    assert ends.proxy.bytes_up == 4


def test_refuse_and_accept_on_the_same_port(ends: Ends) -> None:
    client, server = ends.join()
    port = ends.proxy.port
    ends.proxy.refuse()
    ends.proxy.refuse()
    assert is_refused(port)
    swap(client, server)
    ends.proxy.accept()
    ends.proxy.accept()
    assert ends.proxy.port == port
    swap(*ends.join())


def test_switches_may_be_used_by_several_threads(ends: Ends) -> None:
    def switch() -> None:
        for _ in range(50):
            ends.proxy.black_hole()
            ends.proxy.heal()

    threads = [threading.Thread(target=switch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    swap(*ends.join())


def test_what_an_order_raises_is_raised_by_the_switch(ends: Ends) -> None:
    ends.proxy.refuse()
    with socket.create_server(("127.0.0.1", ends.proxy.port)), pytest.raises(OSError, match="in use"):
        ends.proxy.accept()
    ends.proxy.accept()
    swap(*ends.join())


def test_close_leaves_no_thread_and_no_socket() -> None:
    sockets = open_sockets()
    both = Ends()
    both.join()
    both.proxy.accept_silent()
    both.open.append(socket.create_connection(("127.0.0.1", both.proxy.port), 5))
    with both.proxy as entered:
        names = [thread.name for thread in threading.enumerate()]
        assert f"test-proxy-{entered.port}" in names
    both.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-proxy-")]
    assert open_sockets() == sockets
