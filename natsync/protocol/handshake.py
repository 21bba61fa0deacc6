"""The first exchange on every connection, first or later, as a state machine.

Sans-IO: it is told what the server said and whether TLS is up, and says what to send and when TLS is due. Who dials,
waits, encrypts and keeps the deadline is not its business, nor is where credentials come from: `connect_fields`
builds CONNECT's fields from the server's INFO.

::

    AWAIT_INFO --INFO--> AWAIT_PONG --PONG--> DONE
         `--INFO--> NEED_TLS --tls_started()--^

Use: pass every operation to `receive` until `state` is DONE; what the parser returned behind that one belongs to the
reader. After each operation send what `data_to_send` returns. At NEED_TLS the parser must be idle (a peer that sends
more before TLS is up tries to smuggle it in as if it had come encrypted); then start TLS, and say so with
`tls_started`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from natsync.errors import ProtocolError, TLSError
from natsync.protocol.commands import PING_COMMAND, PONG_COMMAND, encode_connect
from natsync.protocol.info import ServerInfo, parse_info
from natsync.protocol.operations import ErrOp, InfoOp, OkOp, Operation, PingOp, PongOp
from natsync.protocol.server_errors import parse_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Handshake", "HandshakeState"]


class HandshakeState(enum.Enum):
    """Who is to do something next."""

    AWAIT_INFO = "await INFO"
    NEED_TLS = "need TLS"
    AWAIT_PONG = "await PONG"
    DONE = "done"


class Handshake:
    """One handshake, for one connection.

    Args:
        connect_fields: Called once with the server's INFO, when CONNECT is due (so after TLS); returns CONNECT's
            fields. What it raises comes out of `receive` or `tls_started`.
        want_tls: The user asks for TLS; without it, TLS is used only if the server requires it.
        tls_done: TLS is up already (handshake first, or a wss URL).
        no_echo: CONNECT will ask for no echo, which servers of protocol 0 do not know.
        server: The server's redacted URL, for errors.

    Attributes:
        state: Where it is.
        info: The server's latest INFO, or None before the first.
    """

    __slots__ = ("_connect_fields", "_no_echo", "_outgoing", "_server", "_tls_done", "_want_tls", "info", "state")

    def __init__(
        self,
        *,
        connect_fields: Callable[[ServerInfo], Mapping[str, object]],
        want_tls: bool = False,
        tls_done: bool = False,
        no_echo: bool = False,
        server: str | None = None,
    ) -> None:
        self._connect_fields = connect_fields
        self._want_tls = want_tls
        self._tls_done = tls_done
        self._no_echo = no_echo
        self._server = server
        self._outgoing: list[bytes] = []
        self.state = HandshakeState.AWAIT_INFO
        self.info: ServerInfo | None = None

    def receive(self, operation: Operation) -> None:
        """Take the next operation of the server.

        Raises:
            ServerError, StaleConnectionError: The server said `-ERR`.
            ProtocolError: It said something out of order, sent a bad INFO, or is too old for what is asked.
            TLSError: TLS is asked for, and the server has none.
        """
        if isinstance(operation, ErrOp):
            raise parse_error(operation.text, server=self._server)
        if self.state is HandshakeState.AWAIT_INFO:
            self._receive_first(operation)
        elif self.state is HandshakeState.AWAIT_PONG:
            self._receive_answer(operation)
        else:
            raise self._unexpected(operation)

    def tls_started(self) -> None:
        """Say that TLS is up, in the state NEED_TLS; CONNECT is due then."""
        if self.state is not HandshakeState.NEED_TLS or self.info is None:
            raise ProtocolError(f"TLS was started in the state {self.state.value!r} of the handshake")
        self._tls_done = True
        self._connect(self.info)

    def data_to_send(self) -> bytes:
        """Return the bytes that are due, to be sent in one write; none is `b""`."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def _receive_first(self, operation: Operation) -> None:
        if not isinstance(operation, InfoOp):
            raise self._unexpected(operation)
        self.info = info = parse_info(operation.payload)
        if self._no_echo and info.proto < 1:
            raise ProtocolError(f"no_echo is asked for, but the server (version {info.version!r}) is too old for it")
        if self._needs_tls(info):
            self.state = HandshakeState.NEED_TLS
        else:
            self._connect(info)

    def _needs_tls(self, info: ServerInfo) -> bool:
        if self._tls_done:
            return False
        if self._want_tls and not (info.tls_required or info.tls_available):
            raise TLSError(
                f"TLS is asked for, and {self._server or 'the server'} offers none; configure it, or leave it out",
                server=self._server,
            )
        return self._want_tls or info.tls_required

    def _connect(self, info: ServerInfo) -> None:
        # The PING goes along: its PONG is the only sign that the server accepted CONNECT.
        self._outgoing += (encode_connect(self._connect_fields(info)), PING_COMMAND)
        self.state = HandshakeState.AWAIT_PONG

    def _receive_answer(self, operation: Operation) -> None:
        if isinstance(operation, PongOp):
            self.state = HandshakeState.DONE
        elif isinstance(operation, InfoOp):
            self.info = parse_info(operation.payload)
        elif isinstance(operation, PingOp):
            self._outgoing.append(PONG_COMMAND)
        elif not isinstance(operation, OkOp):
            raise self._unexpected(operation)

    def _unexpected(self, operation: Operation) -> ProtocolError:
        said = "a message" if isinstance(operation, tuple) else type(operation).__name__.removesuffix("Op").upper()
        return ProtocolError(f"the server sent {said} in the state {self.state.value!r} of the handshake")
