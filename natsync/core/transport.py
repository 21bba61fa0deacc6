"""A connected byte stream, as the rest of core sees it: the seam where TCP, TLS and later WebSocket are plugged in.

Knows sockets; knows no NATS. This is the one place where the operating system's errors become natsync's.

Who may call what: one thread receives, one thread at a time sends (the holder of the outbound buffer's token), anybody
may call `shutdown()`, only the supervisor (or whoever opened the transport) calls `close()`, after the receiver has
ended: a file descriptor closed under a blocked `recv` does not wake it, and its number may be given to somebody else.
"""

from __future__ import annotations

import _socket
import math
import os
import select
import socket
from typing import Protocol

from natsync.core.gate import Gate, make_gate
from natsync.errors import NatsConnectionError

__all__ = ["TcpTransport", "Transport"]

# Bytes of one receive; more when so many are always there: a large payload then comes in few pieces.
_RECV_SIZE = 65536
_MOST_RECV_SIZE = 262144
# Longer waits than this many seconds are waits for ever; poll() counts milliseconds in 32 bits.
_LONGEST = 86400.0
# With MSG_DONTWAIT the socket stays blocking, so that a receive costs one system call, while sends never wait in the
# kernel. Windows has no such flag, and gevent's sockets, which are of a class of their own, wait in spite of it: there
# the socket does not block, and a receive asks poll() or select() first.
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)


class Transport(Protocol):
    """A connected byte stream."""

    is_encrypted: bool
    gate: Gate | None
    """Where the reader sleeps while another thread receives; None where only the reader can."""

    def recv(self, timeout: float = math.inf) -> bytes | None:
        """Return the next bytes, b"" at the end of the stream, or None when `timeout` seconds brought none."""

    def recv_now(self) -> bytes | None:
        """Return what is there, b"" at the end of the stream, or None when there is nothing; never waits."""

    def wait_readable(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until `recv_now` may return something."""

    def send(self, data: bytes | memoryview) -> int:
        """Send what fits now and return how many bytes that were, perhaps 0; never waits.

        The next call must begin with what this one did not take.
        """

    def wait_writable(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until `send` may take something."""

    def shutdown(self) -> None:
        """End the stream in both directions and wake whoever waits on it; from any thread, any number of times."""

    def close(self) -> None:
        """Give the file descriptor back."""

    def abandon(self) -> None:
        """In a forked child: drop the inherited descriptor, without a byte to the peer or the end of the stream."""


class TcpTransport:
    """A transport over a connected TCP socket, which it owns from now on."""

    is_encrypted = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._recv_size = _RECV_SIZE
        self._blocks = bool(_DONTWAIT) and isinstance(sock, _socket.socket)
        sock.setblocking(self._blocks)
        self.gate = make_gate(sock.fileno()) if self._blocks else None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # a custom dialer may bring a socket of another family

    def recv(self, timeout: float = math.inf) -> bytes | None:
        try:
            if (timeout != math.inf or not self._blocks) and not _ready(self._sock, timeout, write=False):
                return None
            data = self._sock.recv(self._recv_size)
        except (OSError, ValueError) as exc:  # ValueError: closed, and so without a descriptor
            raise _lost(exc) from exc
        if len(data) >= _RECV_SIZE or self._recv_size > _RECV_SIZE:
            self._adapt(len(data))
        return data

    def recv_now(self) -> bytes | None:
        try:
            data = self._sock.recv(self._recv_size, _DONTWAIT)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as exc:  # ValueError: closed, and so without a descriptor
            raise _lost(exc) from exc
        if len(data) >= _RECV_SIZE or self._recv_size > _RECV_SIZE:
            self._adapt(len(data))
        return data

    def _adapt(self, received: int) -> None:
        if received == self._recv_size:
            self._recv_size = min(2 * received, _MOST_RECV_SIZE)
        elif received < self._recv_size // 4:
            self._recv_size = _RECV_SIZE

    def wait_readable(self, timeout: float) -> bool:
        try:
            if self.gate is None:
                return _ready(self._sock, timeout, write=False)
            return self.gate.poll(timeout)
        except (OSError, ValueError) as exc:  # ValueError: closed, and so without a descriptor
            raise _lost(exc) from exc

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data, _DONTWAIT)
        except BlockingIOError:
            return 0
        except (OSError, ValueError) as exc:  # ValueError: closed, and so without a descriptor
            raise _lost(exc) from exc

    def wait_writable(self, timeout: float) -> bool:
        try:
            return _ready(self._sock, timeout, write=True)
        except (OSError, ValueError) as exc:  # ValueError: closed, and so without a descriptor
            raise _lost(exc) from exc

    def shutdown(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more

    def close(self) -> None:
        if self.gate is not None:
            self.gate.close()
        self._sock.close()

    def abandon(self) -> None:
        if self.gate is not None:
            self.gate.close()  # the parent's own goes on
        try:
            os.close(self._sock.detach())
        except OSError:
            pass


def _ready(sock: socket.socket, timeout: float, *, write: bool) -> bool:
    if hasattr(select, "poll"):  # looked up late: gevent replaces the module's functions
        poller = select.poll()
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(None if timeout > _LONGEST else math.ceil(timeout * 1000)))
    wait = None if timeout > _LONGEST else timeout
    if write:
        return bool(select.select([], [sock], [sock], wait)[1])
    return bool(select.select([sock], [], [], wait)[0])


def _lost(exc: OSError | ValueError) -> NatsConnectionError:
    return NatsConnectionError(f"the connection broke: {getattr(exc, 'strerror', None) or exc}")
