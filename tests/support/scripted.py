"""A server that follows a script: the test says, line by line, what it reads and sends on a real loopback socket.

For what a real server never does, or only at moments that nobody can choose: a wrong INFO, a silent handshake, half a
message. A script is a function that gets a `Conn` for each accepted connection and runs in a thread of its own
(`test-scripted-PORT-N`). What it raises, a wrong expectation above all, is raised again when the test leaves the
context.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.support.sockets import close_socket
from tests.support.waiting import TIME_FACTOR

if TYPE_CHECKING:
    from typing_extensions import Self

_HOST = "127.0.0.1"
_PARTING = 0.5  # seconds that a server which has closed gives its client to close too
_SLICE = 0.02  # seconds between two looks at whether the test is over

INFO: dict[str, Any] = {
    "server_id": "SCRIPTED",
    "server_name": "scripted",
    "version": "2.11.0",
    "proto": 1,
    "headers": True,
    "max_payload": 1048576,
    "client_id": 7,
    "client_ip": _HOST,
    "host": _HOST,
    "port": 4222,
}
"""What `send_info()` sends unless told otherwise."""


class ScriptError(AssertionError):
    """The client did not do what the script expects."""


class Conn:
    """The server's end of one connection, for a script. Every wait has a deadline: `timeout` seconds."""

    def __init__(self, server: ScriptedServer, raw: socket.socket, number: int) -> None:
        self.server = server
        self.number = number
        """0 for the first connection, 1 for the second, ..."""
        self.timeout = 5.0
        self._socket = raw
        self._socket.settimeout(_SLICE)
        self._buffer = bytearray()

    # Talk

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.settimeout(self.timeout * TIME_FACTOR)
        try:
            self._socket.sendall(data)
        finally:
            self._socket.settimeout(_SLICE)

    def send_info(self, **fields: Any) -> None:
        """Send INFO: the usual fields and `fields` over them; None as a value leaves a field out."""
        info = {"port": self.server.port, **fields}
        merged = {name: value for name, value in {**INFO, **info}.items() if value is not None}
        self.send(b"INFO " + json.dumps(merged).encode() + b"\r\n")

    def send_msg(self, subject: str, sid: str, data: bytes = b"", reply: str = "") -> None:
        """Send MSG."""
        self.send(f"MSG {subject} {sid} {reply + ' ' if reply else ''}{len(data)}\r\n".encode() + data + b"\r\n")

    def handshake(self, **fields: Any) -> dict[str, Any]:
        """Play the server's part of a good handshake, with `fields` in INFO; return the client's CONNECT."""
        self.send_info(**fields)
        self.expect(b"CONNECT ")
        self.expect(b"PING")
        self.send(b"PONG\r\n")
        return self.server.connects[-1]

    # Listen

    def read_line(self) -> bytes:
        """Read a line and return it without its CR LF; a CONNECT is kept in the server's `connects`."""
        line = self.read_until(b"\r\n")[:-2]
        self._note(line)
        return line

    def read_until(self, marker: bytes) -> bytes:
        """Read up to and including `marker`."""
        self._fill(lambda: marker in self._buffer, repr(marker))
        return self._take(self._buffer.index(marker) + len(marker))

    def read_exactly(self, size: int) -> bytes:
        """Read `size` bytes."""
        self._fill(lambda: len(self._buffer) >= size, f"{size} bytes")
        return self._take(size)

    def expect(self, beginning: bytes) -> bytes:
        """Read a line that begins so, and return it without its CR LF."""
        line = self.read_line()
        if not line.startswith(beginning):
            raise ScriptError(f"expected {beginning!r}, got {line!r}")
        return line

    def expect_pub(self) -> tuple[str, bytes]:
        """Read a PUB or HPUB and return its subject and its payload, that of HPUB with the headers before it."""
        words = self.read_line().split()
        if words[0] not in (b"PUB", b"HPUB"):
            raise ScriptError(f"expected PUB or HPUB, got {b' '.join(words)!r}")
        return words[1].decode(), self.read_exactly(int(words[-1]) + 2)[:-2]

    def wait_eof(self) -> bytes:
        """Wait until the client ends the connection, or the test is over; return what it sent until then."""
        with contextlib.suppress(_Ended):
            self._fill(lambda: False, "the end of the connection", until_end_of_test=True)
        return self._take(len(self._buffer))

    def serve(self) -> list[bytes]:
        """Answer every PING, until the client ends the connection or the test is over; return all lines it sent."""
        lines = []
        with contextlib.suppress(_Ended, OSError):
            while True:
                self._fill(lambda: b"\r\n" in self._buffer, "a line", until_end_of_test=True)
                lines.append(self.read_line())
                if lines[-1] == b"PING":
                    self.send(b"PONG\r\n")
        return lines

    # End

    def close(self) -> None:
        """End the connection in good order (FIN), and wait a moment for the client to do the same."""
        with contextlib.suppress(OSError, ScriptError):
            self._socket.shutdown(socket.SHUT_WR)
            # Closing with the client's last bytes unread would send RST, which destroys what the client has not read.
            self.timeout = _PARTING
            self._fill(lambda: self.server.is_over, "the end of the connection")
        self._socket.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        close_socket(self._socket, reset=True)

    # Inside

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _note(self, line: bytes) -> None:
        if line.startswith(b"CONNECT "):
            self.server.connects.append(json.loads(line[len(b"CONNECT ") :]))

    def _fill(self, is_enough: Callable[[], bool], what: str, until_end_of_test: bool = False) -> None:
        deadline = time.monotonic() + self.timeout * TIME_FACTOR
        while not is_enough():
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                if until_end_of_test and self.server.is_over:
                    raise _Ended("the test is over") from None
                if not until_end_of_test and time.monotonic() > deadline:
                    raise ScriptError(f"waited for {what}, got {bytes(self._buffer)!r}") from None
                continue
            except OSError as error:
                raise _Ended(f"waited for {what}, got {error} after {bytes(self._buffer)!r}") from error
            if not data:
                raise _Ended(f"waited for {what}, got the end after {bytes(self._buffer)!r}")
            self._buffer += data


class _Ended(ScriptError):
    """There is no more to read."""


Script = Callable[[Conn], object]


class ScriptedServer:
    """A listening socket on a free port of 127.0.0.1 and a thread for each connection.

    Args:
        script: One script that serves every connection, or one for each connection in their order; after the last of
        several,
            connections are refused.
    """

    def __init__(self, script: Script | Sequence[Script]) -> None:
        self.connects: list[dict[str, Any]] = []
        """The fields of every CONNECT that was read, oldest first."""
        self.errors: list[BaseException] = []
        """What the scripts have raised."""
        self.accepted = 0
        """Connections accepted so far."""
        self.is_over = False
        self._scripts = script if callable(script) else list(script)
        self._listener = socket.create_server((_HOST, 0))
        self._listener.settimeout(_SLICE)
        self.port: int = self._listener.getsockname()[1]
        self._conn_threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name=f"test-scripted-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"nats://{_HOST}:{self.port}"

    def close(self) -> None:
        """Let the scripts finish, each within its own deadlines, and raise what the first of them to fail raised."""
        self.is_over = True
        self._thread.join()
        for thread in self._conn_threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _accept(self) -> None:
        with self._listener:
            while not self.is_over and (callable(self._scripts) or self.accepted < len(self._scripts)):
                with contextlib.suppress(TimeoutError):
                    raw, _ = self._listener.accept()
                    self._start(raw)

    def _start(self, raw: socket.socket) -> None:
        number = self.accepted
        self.accepted += 1
        script = self._scripts if callable(self._scripts) else self._scripts[number]
        name = f"{self._thread.name}-{number}"
        thread = threading.Thread(target=self._play, args=(script, Conn(self, raw, number)), name=name, daemon=True)
        self._conn_threads.append(thread)
        thread.start()

    def _play(self, script: Script, conn: Conn) -> None:
        try:
            script(conn)
        except BaseException as error:
            self.errors.append(error)
        finally:
            conn.close()
