"""One socket's lifetime.

Everything here is made new for every connection and thrown away with it (parser, PONG queue, cause of loss), so nothing
of an old connection can leak into a new one. Knows no threads; anybody may call `lose`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from natsync.core.threads import ClientThread
from natsync.core.transport import Transport
from natsync.errors import NatsError
from natsync.locks import Latch
from natsync.policy.pool import Server
from natsync.protocol.info import ServerInfo
from natsync.protocol.operations import Operation
from natsync.protocol.parser import Parser

__all__ = ["Link", "Loss", "PingWaiter", "PongCallback", "ReadsFor"]

_READER_TIMEOUT = 5.0


class ReadsFor(Protocol):
    """The reader, as those see it who wait."""

    def push_and_read_for(self, waiter: Any, patience: float) -> None: ...

    def read_for(self, waiter: Any, patience: float, expected: Any) -> None: ...

    def let_go(self, thread: int | None = None) -> None: ...


class PingWaiter:
    """What `flush` and `rtt` wait on: the PONG to one PING, or the loss of its connection.

    A waiter that gave up stays in its place in the queue, so that the PONGs after it still meet their own waiters.
    """

    __slots__ = ("_latch", "answered", "error", "pong_at", "sent_at")

    def __init__(self) -> None:
        self._latch = Latch()
        self.answered = False
        self.error: NatsError | None = None
        self.sent_at = 0.0
        self.pong_at = 0.0

    def pong(self) -> None:
        """The reader: the answer is here."""
        self.pong_at = time.monotonic()
        self.answered = True
        self._latch.open()

    def lost(self, error: NatsError) -> None:
        """The supervisor: no answer will come."""
        self.error = error
        self.answered = True
        self._latch.open()

    def wait(self, timeout: float) -> bool:
        """Wait for either; say whether it came within `timeout` seconds."""
        return self._latch.wait(timeout)


class PongCallback(PingWaiter):
    """A waiter that nobody waits on: it calls a function of natsync's own, once, on the PONG or on the loss."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self._call = call

    def pong(self) -> None:
        self._call()

    def lost(self, error: NatsError) -> None:
        self._call()


class Loss:
    """Why a link ended, and whether that ends the client too."""

    __slots__ = ("error", "final")

    def __init__(self, error: NatsError | None, *, final: bool) -> None:
        self.error = error
        self.final = final


class Link:
    """A connection that has passed its handshake.

    Args:
        generation: Counts the connections of a client, from 1; whatever carries another number belongs to another link.
        transport: The stream; the link's opener closes it.
        server: The pool's entry.
        info: The last INFO of the handshake.
        parser: The one used in the handshake, with what it holds of the next operation.
        early: Operations that came right behind the handshake's PONG.
        wake: Called when the link is lost.
    """

    def __init__(
        self,
        generation: int,
        transport: Transport,
        server: Server,
        info: ServerInfo,
        parser: Parser,
        early: Sequence[Operation],
        wake: Callable[[], None],
    ) -> None:
        self.generation = generation
        self.transport = transport
        self.server = server
        self.info = info
        self.parser = parser
        self.early = early
        self.pongs: deque[PingWaiter | None] = deque()
        """Who waits for which PONG, in the order of the PINGs; None for a keep-alive. Filled by the holder of the
        sending token just before the PINGs go out; emptied by the reader."""
        self.pings_out = 0
        """Keep-alives since the last PONG. The supervisor counts up, the reader sets 0."""
        self.server_error: NatsError | None = None
        """What the server said before it ended the connection: a better cause than "end of stream"."""
        self.reader: ReadsFor | None = None
        """Lets a caller read for itself; None until the link comes to life."""
        self.thread: ClientThread | None = None
        """The reader's."""
        self._wake = wake
        self._losses: list[Loss] = []

    @property
    def url(self) -> str:
        return self.server.url.redacted

    @property
    def is_lost(self) -> bool:
        return bool(self._losses)

    @property
    def loss(self) -> Loss:
        """Why it was lost: the first cause, or what the server had said; to be read after the reader has ended.

        A send can fail on a connection that the server closed before our reader has read its last words.
        """
        first = self._losses[0]
        error = first.error if first.error is None or self.server_error is None else self.server_error
        return Loss(error, final=any(loss.final for loss in self._losses))

    def expect_pongs(self, waiters: Sequence[PingWaiter | None]) -> None:
        """The holder of the sending token: these PINGs go out now, in this order."""
        now = time.monotonic()
        for waiter in waiters:
            if waiter is not None:
                waiter.sent_at = now
        self.pongs.extend(waiters)

    def lose(self, error: NatsError | None, *, final: bool = False) -> None:
        """Give the link up: wake whoever uses its socket, and the supervisor, which does the rest; from any thread.

        Args:
            error: Why; None for the user's wish.
            final: The client ends with it.
        """
        self._losses.append(Loss(error, final=final))  # an append is atomic; the first one is the cause
        self.transport.shutdown()
        self._wake()

    def end(self) -> None:
        """Give the socket back, after the reader has read what the server still said; the link must be lost before.

        Blocks until the reader has ended: it never waits for anything but its socket, which is shut down.
        """
        if self.reader is not None:
            self.reader.let_go()
        if self.thread is not None:
            self.thread.wait_ended(_READER_TIMEOUT)
        self.transport.close()

    def fail_waiters(self, error: NatsError) -> None:
        """Tell whoever still waits for a PONG that none will come."""
        while self.pongs:
            waiter = self.pongs.popleft()
            if waiter is not None:
                waiter.lost(error)
