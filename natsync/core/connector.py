"""One attempt: from a server of the pool to a link that has passed its handshake, within `connect_timeout`.

Knows dialling, the transport and the sans-IO handshake, and puts them together; decides nothing about the next attempt.
Runs on the caller of `connect()` or on the supervisor, under no lock, as it asks the user's dialer and credential
callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from natsync.core.dialer import Abort, dial
from natsync.core.link import Link
from natsync.core.transport import TcpTransport, Transport
from natsync.deadline import Deadline
from natsync.errors import ConfigError, NatsError, NatsTimeoutError, NoServersError, TLSError
from natsync.policy.connect_fields import connect_fields
from natsync.policy.options import Options
from natsync.policy.pool import Server
from natsync.protocol.handshake import Handshake, HandshakeState
from natsync.protocol.info import ServerInfo
from natsync.protocol.operations import Operation
from natsync.protocol.parser import Parser

__all__ = ["Connector"]


class Connector:
    """Makes links.

    Args:
        options: The client's.
        wake: What a link calls when it is lost.
    """

    def __init__(self, options: Options, wake: Callable[[], None]) -> None:
        self._options = options
        self._wake = wake
        self._generation = 0
        self._closed = False
        self._attempt = Abort()

    def abort(self) -> None:
        """Make the attempt under way, and every later one, fail soon; from any thread."""
        self._closed = True
        self._attempt.fire()

    def abandon(self) -> None:
        """In a forked child: drop the socket of an attempt that the parent was making."""
        self._attempt.abandon()

    def connect(self, server: Server) -> Link:
        """Try one server.

        Raises:
            NatsError: The typed cause; whatever it is, nothing stays open.
        """
        self._generation += 1
        self._attempt = abort = Abort()
        if self._closed:
            abort.fire()
        options = self._options
        deadline = Deadline(options.connect_timeout)
        sock = dial(server.url, deadline, abort, dialer=options.dialer, randomize=not options.dont_randomize)
        transport: Transport = TcpTransport(sock)
        try:
            abort.guard(sock)
            link = self._shake_hands(transport, server, deadline)
        except BaseException:
            transport.close()
            raise
        finally:
            abort.guard(None)
        return link

    def _shake_hands(self, transport: Transport, server: Server, deadline: Deadline) -> Link:
        url = server.url
        handshake = Handshake(
            connect_fields=lambda info: self._connect_fields(server, info),
            no_echo=self._options.no_echo,
            server=url.redacted,
        )
        parser = Parser()
        early: list[Operation] = []
        while handshake.state is not HandshakeState.DONE:
            early = self._step(handshake, parser, transport, deadline, url.redacted)
        assert handshake.info is not None
        return Link(self._generation, transport, server, handshake.info, parser, early, self._wake)

    def _step(
        self, handshake: Handshake, parser: Parser, transport: Transport, deadline: Deadline, url: str
    ) -> list[Operation]:
        """Read once, answer, and return what came behind the end of the handshake."""
        operations = parser.feed(_receive(handshake, transport, deadline, url))
        while operations and handshake.state is not HandshakeState.DONE:
            handshake.receive(operations.pop(0))
            if handshake.state is HandshakeState.NEED_TLS:
                raise TLSError(f"{url} requires TLS, which is not in this version of natsync", server=url)
        if parser.error is not None:
            raise parser.error
        _send_all(transport, handshake.data_to_send(), deadline, url)
        return operations

    def _connect_fields(self, server: Server, info: ServerInfo) -> Mapping[str, object]:
        try:
            return connect_fields(self._options, server.url, info)
        except ConfigError:
            raise
        except Exception as exc:
            raise ConfigError(f"a credentials callback raised {type(exc).__name__}; see the cause") from exc


def _receive(handshake: Handshake, transport: Transport, deadline: Deadline, url: str) -> bytes:
    try:
        data = transport.recv(deadline.remaining())
    except NatsError as exc:
        raise NoServersError(f"{url} broke the connection off in the handshake ({exc})", server=url) from exc
    if data is None:
        at = "saying nothing" if handshake.info is None else "not answering CONNECT"
        raise NatsTimeoutError(
            f"{url} accepted the connection and has been {at} for {deadline.timeout} s; is it a NATS server?",
            timeout=deadline.timeout,
        )
    if not data:
        raise NoServersError(f"{url} closed the connection in the handshake; is it a NATS server?", server=url)
    return data


def _send_all(transport: Transport, data: bytes, deadline: Deadline, url: str) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[transport.send(view) :]
            ready = not view or transport.wait_writable(deadline.remaining())
        except NatsError as exc:
            raise NoServersError(f"{url} broke the connection off in the handshake ({exc})", server=url) from exc
        if not ready:
            raise NatsTimeoutError(f"{url} takes no bytes", timeout=deadline.timeout)
