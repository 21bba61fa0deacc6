"""What the transport with TLS says that it has sent, while the socket below takes little, or breaks."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from natsync.core.tls_transport import start_tls
from natsync.core.transport import TcpTransport
from natsync.deadline import Deadline
from natsync.errors import NatsConnectionError
from tests.support.certificates import Authority, server_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    from natsync.core.tls_transport import TlsTransport

pytestmark = pytest.mark.tls

PATIENCE = 10.0


class RationedTransport(TcpTransport):
    """A TCP transport over a socket that takes so many bytes, and after so many more sends breaks."""

    room = 1 << 30
    sends_left = 1 << 30

    def send(self, data: bytes | memoryview) -> int:
        self.sends_left -= 1
        if self.sends_left < 0:
            self._sock.shutdown(socket.SHUT_RDWR)
        sent = super().send(memoryview(data)[: self.room]) if self.room else 0
        self.room -= sent
        return sent


@pytest.fixture
def line(authority: Authority, pool: ThreadPoolExecutor) -> Iterator[tuple[TlsTransport, RationedTransport]]:
    """A transport, and the one below it; the other end has shaken hands and reads nothing."""
    server_side = server_context(authority.server())
    client_side = ssl.create_default_context(cafile=str(authority.file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    shaking = pool.submit(server_side.wrap_socket, theirs, server_side=True)
    below = RationedTransport(ours)
    made = start_tls(below, client_side, name="127.0.0.1", server="tls://127.0.0.1", deadline=Deadline(PATIENCE))
    peer = shaking.result(PATIENCE)
    yield made, below
    made.close()
    with contextlib.suppress(OSError):
        peer.close()


def test_what_went_before_the_socket_broke_is_told_of(line: tuple[TlsTransport, RationedTransport]) -> None:
    """Otherwise it would be sent again on the next connection, which may be after it was delivered."""
    transport, below = line
    below.room = 10
    assert transport.send(b"a" * 40) == 0, "half a record is none"
    below.room = 1 << 30
    below.sends_left = 1
    assert transport.send(b"a" * 40 + b"b" * 100) == 40
    with pytest.raises(NatsConnectionError):
        transport.send(b"b" * 100)


def test_a_socket_that_takes_nothing_more_raises_at_once(line: tuple[TlsTransport, RationedTransport]) -> None:
    transport, below = line
    below.sends_left = 0
    with pytest.raises(NatsConnectionError):
        transport.send(b"a" * 40)
