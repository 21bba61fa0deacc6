"""The NATS protocol by hand, over a plain socket: for tests of the bench, which must not depend on the client."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.support.sockets import close_socket
from tests.support.waiting import TIME_FACTOR


class Wire:
    """A plain socket to a server, with a reader of lines; a context manager."""

    def __init__(self, port: int, timeout: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout * TIME_FACTOR)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._file.close()  # the socket stays open as long as its file is
        close_socket(self.socket, reset=True)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Read a line; empty at the end of the connection."""
        return self._file.readline()

    def handshake(self, **fields: Any) -> dict[str, Any]:
        """Connect as a client does, with `fields` in CONNECT, and return the server's INFO."""
        info: dict[str, Any] = json.loads(self.line()[len(b"INFO ") :])
        self.send(b"CONNECT " + json.dumps({"verbose": False, **fields}).encode() + b"\r\n")
        self.ping()
        return info

    def ping(self) -> None:
        """Send PING and wait for its PONG; what the server asks or tells in between is passed over."""
        self.send(b"PING\r\n")
        assert self.line_after(b"PING", b"INFO") == b"PONG\r\n"

    def line_after(self, *passed_over: bytes) -> bytes:
        """Read the next line that begins with none of these."""
        line = self.line()
        while line.startswith(passed_over):
            line = self.line()
        return line


def is_refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5.0).close()
    except ConnectionRefusedError:
        return True
    return False
