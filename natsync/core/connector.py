"""One attempt: from a server of the pool to a link that has passed its handshake, within `connect_timeout`.

Knows dialling, the transports and the sans-IO handshake, and puts them together; decides nothing about the next
attempt. Runs on the caller of `connect()` or on the supervisor, under no lock, as it asks the user's dialer and
credential callbacks.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping

from natsync.core.dialer import Abort, dial
from natsync.core.link import Link
from natsync.core.tls_transport import TlsTransport, start_tls
from natsync.core.transport import TcpTransport, Transport
from natsync.deadline import Deadline
from natsync.errors import AuthorizationError, NatsError, NatsTimeoutError, NoServersError, ProtocolError, TLSError
from natsync.policy.connect_fields import connect_fields
from natsync.policy.credentials import Credentials, read_credentials
from natsync.policy.options import Options
from natsync.policy.pool import Server
from natsync.policy.tls_context import make_context
from natsync.policy.tls_errors import closed
from natsync.policy.urls import ServerUrl
from natsync.protocol.handshake import Handshake, HandshakeState
from natsync.protocol.info import ServerInfo
from natsync.protocol.operations import Operation
from natsync.protocol.parser import Parser

__all__ = ["Connector"]

_log = logging.getLogger("natsync.connector")
_NO_CREDENTIALS = ServerUrl("nats", "localhost", 4222)


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
        self.secure = options.wants_tls
        """Every connection is encrypted, or is not made."""

    def abort(self) -> None:
        """Make the attempt under way, and every later one, fail soon; from any thread."""
        self._closed = True
        self._attempt.fire()

    def abandon(self) -> None:
        """In a forked child: drop the socket of an attempt that the parent was making."""
        self._attempt.abandon()

    def check_files(self) -> None:
        """Read what the options name, so that a missing file is known before anything is dialled.

        Raises:
            ConfigError: A file of credentials or certificates cannot be used.
        """
        read_credentials(self._options, _NO_CREDENTIALS).wipe()
        if self.secure and not callable(self._options.tls):
            make_context(self._options)
        if not self._options.tls_verify:
            _log.warning("tls_verify=False: any server's certificate is accepted, also that of somebody in between")

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
        credentials = read_credentials(options, server.url)
        tcp: TcpTransport | None = None
        try:
            context = make_context(options) if self.secure else None
            sock = dial(server.url, deadline, abort, dialer=options.dialer, randomize=not options.dont_randomize)
            tcp = TcpTransport(sock)
            abort.guard(sock)
            return _Attempt(options, server, credentials, context, deadline).run(tcp, self._generation, self._wake)
        except BaseException:
            if tcp is not None:
                tcp.close()
            raise
        finally:
            abort.guard(None)
            credentials.wipe()


class _Attempt:
    """One handshake over one socket.

    Args:
        options: The client's.
        server: The pool's entry.
        credentials: Who the client is.
        context: TLS is asked for, with this; None to use it only if the server requires it.
        deadline: For all of it.
    """

    def __init__(
        self,
        options: Options,
        server: Server,
        credentials: Credentials,
        context: ssl.SSLContext | None,
        deadline: Deadline,
    ) -> None:
        self._options = options
        self._server = server
        self._url = server.url.redacted
        self._credentials = credentials
        self._context = context
        self._deadline = deadline
        self._parser = Parser()
        self._handshake = Handshake(
            connect_fields=self._connect_fields,
            want_tls=context is not None,
            tls_done=options.tls_handshake_first,
            no_echo=options.no_echo,
            server=self._url,
        )

    def run(self, tcp: TcpTransport, generation: int, wake: Callable[[], None]) -> Link:
        """Shake hands, and return the link."""
        handshake = self._handshake
        transport: Transport = self._start_tls(tcp) if self._options.tls_handshake_first else tcp
        early: list[Operation] = []
        while handshake.state is not HandshakeState.DONE:
            early = self._step(transport)
            if handshake.state is HandshakeState.NEED_TLS:
                if early or not self._parser.is_idle:
                    raise ProtocolError(f"{self._url} sent more than INFO before TLS; somebody may be in between")
                transport = self._start_tls(tcp)
                handshake.tls_started()
            self._send(transport, handshake.data_to_send())
        assert handshake.info is not None
        return Link(generation, transport, self._server, handshake.info, self._parser, early, wake)

    def _step(self, transport: Transport) -> list[Operation]:
        """Read once, and return what came behind the end of the handshake, or behind the INFO that asks for TLS."""
        handshake = self._handshake
        operations = self._parser.feed(self._receive(transport))
        while operations and handshake.state in (HandshakeState.AWAIT_INFO, HandshakeState.AWAIT_PONG):
            handshake.receive(operations.pop(0))
        if self._parser.error is not None:
            raise self._parser.error
        return operations

    def _receive(self, transport: Transport) -> bytes:
        try:
            data = transport.recv(self._deadline.remaining())
        except TLSError:
            raise
        except NatsError as exc:
            raise self._broken_off(transport, f"broke the connection off in the handshake ({exc})") from exc
        if data is None:
            raise self._silent()
        if not data:
            raise self._broken_off(transport, "closed the connection in the handshake; is it a NATS server?")
        return data

    def _send(self, transport: Transport, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[transport.send(view) :]
                ready = not view or transport.wait_writable(self._deadline.remaining())
            except NatsError as exc:
                raise self._last_words(transport) from exc
            if not ready:
                raise NatsTimeoutError(f"{self._url} takes no bytes", timeout=self._deadline.timeout)

    def _last_words(self, transport: Transport) -> NatsError:
        """Return why a send failed: what the server said before it went tells more than a broken pipe."""
        try:
            while True:
                for operation in self._parser.feed(self._receive(transport)):
                    self._handshake.receive(operation)
        except NatsError as exc:
            return exc

    def _silent(self) -> NatsTimeoutError:
        at = "not answering CONNECT"
        if self._handshake.info is None:
            at = "saying nothing"
        return NatsTimeoutError(
            f"{self._url} accepted the connection and has been {at} for {self._deadline.timeout} s; is it a NATS "
            "server, and does it begin with INFO or with TLS (tls_handshake_first)?",
            timeout=self._deadline.timeout,
        )

    def _broken_off(self, transport: Transport, how: str) -> NatsError:
        if transport.is_encrypted and self._handshake.state is HandshakeState.AWAIT_PONG:
            # With TLS 1.3 the server looks at our certificate after our side of the handshake is over [nats.go ErrTLS].
            return closed(self._url)
        return NoServersError(f"{self._url} {how}", server=self._url)

    def _start_tls(self, tcp: TcpTransport) -> TlsTransport:
        context = self._context if self._context is not None else make_context(self._options)
        url = self._server.url
        name = self._options.tls_hostname or self._server.tls_name or url.host.partition("%")[0]
        return start_tls(tcp, context, name=name, server=self._url, deadline=self._deadline)

    def _connect_fields(self, info: ServerInfo) -> Mapping[str, object]:
        try:
            fields = self._credentials.answer(info)
        except AuthorizationError as exc:
            exc.server = self._url
            raise
        return connect_fields(self._options, info, fields, tls=self._context is not None)
