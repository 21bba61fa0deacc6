"""TLS over a TCP transport, for a thread that receives and another that sends.

OpenSSL forbids to read and to write one connection from two threads at once, and a blocking `ssl.SSLSocket` does just
that [openssl #20446, nats.c #913]. Here the TLS machine works in memory, under one lock that is never held across a
wait: ciphertext is received before the lock is taken, and sent, under it, without waiting.

Knows records and ciphertext; knows no NATS.
"""

from __future__ import annotations

import math
import ssl
import threading
from collections import deque

from natsync.core.transport import TcpTransport
from natsync.deadline import Deadline
from natsync.errors import NatsConnectionError, NatsError, NatsTimeoutError, TLSError
from natsync.policy.tls_errors import closed, explain

__all__ = ["TlsTransport", "start_tls"]

# The most plaintext that one record carries.
_RECORD = 16384
# The most plaintext that is encrypted at one go: many records for one system call, few to be kept if it takes none.
_BURST = 16 * _RECORD


class TlsTransport:
    """A transport whose bytes travel encrypted; made by `start_tls`.

    Guarded by `_lock`: the TLS machine, both of its memories, and the ciphertext that waits for the socket.

    Args:
        tcp: The stream below, which belongs to this object from now on.
        context: Whom to trust, and what to show.
        name: The name or address to verify and, if it is a name, to ask for.
        server: The server's redacted URL, for errors.
    """

    is_encrypted = True

    def __init__(self, tcp: TcpTransport, context: ssl.SSLContext, *, name: str, server: str) -> None:
        self._tcp = tcp
        self.gate = tcp.gate
        self._name = name
        self._server = server
        self._lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._begun = False
        self._ended: NatsError | bytes | None = None
        """What the stream ended with, once it has: an error or b""."""
        self._unsent: bytes | memoryview = b""
        """Ciphertext that the socket did not take yet."""
        self._made = 0
        """Bytes of ciphertext that were ever made."""
        self._records: deque[tuple[int, int]] = deque()
        """Records not wholly sent: the number of `_made` at their end, and their bytes of plaintext."""
        self._gone = 0
        """Bytes of plaintext of records that are sent and not yet reported by `send`."""

    # Receiving: one thread at a time.

    def recv(self, timeout: float = math.inf) -> bytes | None:
        plain = self._begin()
        if plain is not None:
            return plain
        deadline = None if timeout == math.inf else Deadline(timeout)
        plain = None
        while plain is None:
            data = self._tcp.recv(math.inf if deadline is None else deadline.remaining())
            if data is None:
                return None
            plain = self._decrypt(data)
        return plain

    def recv_now(self) -> bytes | None:
        plain = self._begin()
        if plain is None:
            data = self._tcp.recv_now()
            if data is not None:
                plain = self._decrypt(data)
        return plain

    def wait_readable(self, timeout: float) -> bool:
        return self._tcp.wait_readable(timeout)

    def _begin(self) -> bytes | None:
        if self._begun:
            return None
        self._begun = True
        return self._decrypt(None)  # what came along with the end of the handshake

    def _decrypt(self, data: bytes | None) -> bytes | None:
        """Take ciphertext in, and return the plaintext of all records that are complete, or None without any."""
        pieces: list[bytes] = []
        with self._lock:
            if data:
                self._incoming.write(data)
            elif data is not None:
                self._incoming.write_eof()
            if self._ended is None:
                self._read_records_locked(pieces)
            if self._outgoing.pending:  # TLS has something to say itself, an update of keys for example
                self._flush_locked()
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if isinstance(self._ended, NatsError):
            raise self._ended
        return self._ended

    def _read_records_locked(self, pieces: list[bytes]) -> None:
        read = self._tls.read
        try:
            while piece := read(_RECORD):
                pieces.append(piece)
            self._ended = b""
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._ended = b""  # without a farewell of TLS, which NATS servers do not send
        except ssl.SSLError as exc:
            self._ended = explain(exc, server=self._server, name=self._name)
            self._ended.__cause__ = exc

    # Sending: one thread at a time.

    def send(self, data: bytes | memoryview) -> int:
        """Send what fits now; as for every transport, but the next call must begin with what this one did not take.

        A record that the socket took in part is not reported as sent before the rest of it is gone: no server can read
        half a record, so nothing of it was delivered if the connection breaks then.
        """
        view = memoryview(data)
        with self._lock:
            try:
                self._flush_locked()
                if not self._unsent:
                    self._encrypt_locked(view[self._gone : self._gone + _BURST])
                    self._flush_locked()
            except NatsError:
                if not self._gone:
                    raise  # otherwise the next call does: what is gone must be known, or it would be sent again
            gone, self._gone = self._gone, 0
        return gone

    def _encrypt_locked(self, view: memoryview) -> None:
        try:
            for start in range(0, len(view), _RECORD):
                size = self._tls.write(view[start : start + _RECORD])
                self._records.append((self._made + self._outgoing.pending, size))
        except ssl.SSLWantReadError:
            pass  # the server wants to negotiate anew; the reader sees to it
        except ssl.SSLError as exc:
            raise explain(exc, server=self._server, name=self._name) from exc

    def _flush_locked(self) -> None:
        if self._outgoing.pending:
            fresh = self._outgoing.read()
            self._made += len(fresh)
            self._unsent = b"".join((self._unsent, fresh)) if self._unsent else fresh
        if self._unsent:
            sent = self._tcp.send(self._unsent)
            self._unsent = b"" if sent == len(self._unsent) else memoryview(self._unsent)[sent:]
        limit = self._made - len(self._unsent)
        while self._records and self._records[0][0] <= limit:
            self._gone += self._records.popleft()[1]

    def wait_writable(self, timeout: float) -> bool:
        return self._tcp.wait_writable(timeout)

    # The handshake: whoever opens the transport, before anybody else has it.

    def shake_hands(self, deadline: Deadline) -> None:
        """Negotiate keys, and verify the server.

        Raises:
            TLSError: It did not come about; the message says why and what to do.
            NatsTimeoutError: The server was silent for too long.
        """
        while not self._step(deadline):
            data = self._tcp.recv(deadline.remaining())
            if data is None:
                raise NatsTimeoutError(
                    f"{self._server} did not finish the TLS handshake within {deadline.timeout} s; does it speak TLS?",
                    timeout=deadline.timeout,
                )
            if not data:
                raise closed(self._server)
            self._incoming.write(data)

    def _step(self, deadline: Deadline) -> bool:
        with self._lock:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as exc:
                self._say_why_locked()
                raise explain(exc, server=self._server, name=self._name) from exc
            else:
                done = True
            self._flush_locked()
        while self._unsent and self._tcp.wait_writable(deadline.remaining()):
            with self._lock:
                self._flush_locked()
        return done

    def _say_why_locked(self) -> None:
        try:
            self._flush_locked()  # the alert, for the server's log
        except NatsConnectionError:
            pass

    # Ending. There is no farewell of TLS: nats-server does not look for one, and a half-sent record forbids it.

    def shutdown(self) -> None:
        self._tcp.shutdown()

    def close(self) -> None:
        self._tcp.close()

    def abandon(self) -> None:
        self._tcp.abandon()


def start_tls(
    tcp: TcpTransport, context: ssl.SSLContext, *, name: str, server: str, deadline: Deadline
) -> TlsTransport:
    """Put TLS on a connected stream; whoever calls closes that stream if this raises.

    Raises:
        TLSError, NatsTimeoutError: As `TlsTransport.shake_hands`.
    """
    try:
        transport = TlsTransport(tcp, context, name=name, server=server)
        transport.shake_hands(deadline)
    except ValueError as exc:
        raise TLSError(f"{name!r} is no name that a certificate can be for; give tls_hostname", server=server) from exc
    except NatsConnectionError as exc:
        if type(exc) is NatsConnectionError:  # reset, for example
            raise closed(server) from exc
        raise
    return transport
