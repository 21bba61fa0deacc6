"""The reader: bytes in, messages and signals out.

Knows operations and where each kind goes. Never runs user code, never waits for a consumer, and takes no lock that is
held across a wait: a server that is blocked in writing to us must always find us reading.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from natsync.core.link import Link
from natsync.core.outbound import Outbound
from natsync.core.registry import Registry
from natsync.errors import NatsConnectionError, NatsError
from natsync.protocol.commands import PONG_COMMAND
from natsync.protocol.info import ServerInfo, parse_info
from natsync.protocol.operations import ErrOp, InfoOp, MsgOp, Operation, PingOp, PongOp
from natsync.protocol.server_errors import parse_error

__all__ = ["Listener", "Reader", "Traffic"]

_log = logging.getLogger("natsync.reader")


class Listener(Protocol):
    """Who hears what the server says of itself; called on the reader, must not wait."""

    def heard_info(self, link: Link, info: ServerInfo) -> None: ...

    def heard_error(self, link: Link, error: NatsError) -> None: ...


class Traffic:
    """Received messages and bytes; only the present reader writes."""

    def __init__(self) -> None:
        self.msgs = 0
        self.bytes = 0


class Reader:
    """Reads one link until its stream ends.

    It reads to the very end also when the link is lost already: the server's last words may still be in the socket.
    """

    def __init__(
        self, link: Link, *, registry: Registry, outbound: Outbound, listener: Listener, traffic: Traffic
    ) -> None:
        self._link = link
        self._find = registry.find
        self._outbound = outbound
        self._listener = listener
        self._traffic = traffic

    def run(self) -> None:
        """The thread's loop; whatever ends it ends the link."""
        link = self._link
        try:
            self._route(link.early)
            self._read(link)
        except NatsError as exc:
            link.lose(exc)
        except Exception as exc:
            _log.exception("an error in natsync's reader; please report it")
            error = NatsConnectionError("the reader failed", server=link.url)
            error.__cause__ = exc
            link.lose(error)

    def _read(self, link: Link) -> None:
        recv = link.transport.recv
        feed = link.parser.feed
        route = self._route
        while True:
            data = recv()
            if not data:
                raise NatsConnectionError("the server closed the connection", server=link.url)
            route(feed(data))
            if link.parser.error is not None:
                raise link.parser.error

    def _route(self, operations: Iterable[Operation]) -> None:
        batch: list[MsgOp] = []
        sid = 0
        for operation in operations:
            if type(operation) is tuple:
                if operation[0] != sid:
                    if batch:
                        self._deliver(sid, batch)
                        batch = []
                    sid = operation[0]
                batch.append(operation)
            else:
                if batch:  # what came before a PONG must be in its sink when the flush returns
                    self._deliver(sid, batch)
                    batch = []
                self._signal(operation)
        if batch:
            self._deliver(sid, batch)

    def _deliver(self, sid: int, batch: list[MsgOp]) -> None:
        size = 0
        for operation in batch:
            size += len(operation[4])
            if operation[3] is not None:
                size += len(operation[3])
        self._traffic.msgs += len(batch)
        self._traffic.bytes += size
        sink = self._find(sid)
        if sink is not None:  # else it came after the unsubscribe
            sink.deliver(batch, size)

    def _signal(self, operation: object) -> None:
        link = self._link
        if isinstance(operation, PingOp):
            self._outbound.put_control(PONG_COMMAND, link.generation)
        elif isinstance(operation, PongOp):
            self._pong(link)
        elif isinstance(operation, InfoOp):
            self._listener.heard_info(link, parse_info(operation.payload))
        elif isinstance(operation, ErrOp):
            self._listener.heard_error(link, parse_error(operation.text, server=link.url))

    def _pong(self, link: Link) -> None:
        link.pings_out = 0
        waiter = link.pongs.popleft() if link.pongs else None
        if waiter is not None:
            waiter.pong()
