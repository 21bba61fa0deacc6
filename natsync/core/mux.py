"""Requests: many waiting callers behind one wildcard subscription.

Knows tokens and waiters. A reply goes straight from the reader to its waiter, so `request` works inside callbacks.
Whoever takes a waiter out of the table completes it, so that a reply and a time-out cannot both.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from natsync.core.message import Msg, from_operation
from natsync.core.registry import Registry
from natsync.core.sink import Sink
from natsync.errors import NatsError, NoRespondersError
from natsync.locks import Latch
from natsync.nuid import next_nuid
from natsync.protocol.header_block import is_no_responders
from natsync.protocol.operations import MsgOp

__all__ = ["Mux", "ReplyWaiter", "Waiter", "read_reply"]


class Waiter(Protocol):
    """Whoever waits for replies; both methods are called on the reader or the supervisor, and must not wait."""

    lasting: bool
    """Stays in the table after a reply."""

    def is_awaited(self, thread: int) -> bool:
        """Whether somebody wants a reply, so that a drain waits too; not if it is `thread`, which drains."""

    def reply(self, operation: MsgOp) -> None:
        """A reply came."""

    def fail(self, error: NatsError) -> None:
        """No reply will come."""


class ReplyWaiter:
    """A thread that waits for one reply."""

    __slots__ = ("_latch", "_operation", "error")
    lasting = False

    def __init__(self) -> None:
        self._latch = Latch()
        self._operation: MsgOp | None = None
        self.error: NatsError | None = None

    def is_awaited(self, thread: int) -> bool:
        return True

    def reply(self, operation: MsgOp) -> None:
        self._operation = operation
        self._latch.open()

    def fail(self, error: NatsError) -> None:
        self.error = error
        self._latch.open()

    def wait(self, timeout: float) -> MsgOp | None:
        """Return the reply, or None if none came within `timeout` seconds; raise the failure."""
        if not self._latch.wait(timeout) and self._operation is None:
            return None
        if self.error is not None:
            raise self.error
        return self._operation


def read_reply(operation: MsgOp, subject: str) -> Msg:
    """Make the reply's message.

    Raises:
        NoRespondersError: It is the server's word that nobody listens on the request's subject.
    """
    if is_no_responders(operation[3], operation[4]):
        raise NoRespondersError(f"nobody listens on {subject!r}", subject=subject)
    return from_operation(operation, None)


class Mux(Sink):
    """The reply inbox, a sink of its own kind: what is delivered goes to waiters at once, and nothing is ever pending.

    Args:
        registry: Where the inbox is entered at the first request.
        prefix: `inbox_prefix`.
    """

    def __init__(self, registry: Registry, prefix: str) -> None:
        inbox = f"{prefix}.{next_nuid()}"
        super().__init__(registry.next_sid(), f"{inbox}.*", None, msgs_limit=-1, bytes_limit=-1, max_msgs=None)
        self._registry = registry
        self._inbox = f"{inbox}."
        self._skip = len(self._inbox)
        self._tokens = itertools.count(1)
        self._waiters: dict[str, Waiter] = {}
        self._subscribed = False
        self._set_up = threading.Lock()
        self.on_leave: Callable[[], None] = _nothing
        """Called when a waiter has gone; whoever drains looks then whether all have."""

    def enter(self, waiter: Waiter) -> tuple[str, str]:
        """Register a waiter; returns its token and the reply subject. Publish only after this."""
        if not self._subscribed:
            with self._set_up:
                if not self._subscribed:
                    self._registry.add(self)
                    self._subscribed = True
        token = str(next(self._tokens))
        self._waiters[token] = waiter
        return token, self._inbox + token

    def leave(self, token: str) -> bool:
        """Take a waiter out; True for whoever did, who then completes it."""
        taken = self._waiters.pop(token, None) is not None
        if taken:
            self.on_leave()
        return taken

    def deliver(self, batch: list[MsgOp], size: int) -> None:
        waiters = self._waiters
        for operation in batch:
            token = operation[1][self._skip :]
            waiter = waiters.get(token)
            if waiter is not None and (waiter.lasting or self.leave(token)):
                waiter.reply(operation)

    def fail_all(self, make: Callable[[], NatsError]) -> None:
        """Fail every waiter; a request that registers later fails in publishing."""
        while self._waiters:
            try:
                _, waiter = self._waiters.popitem()
            except KeyError:
                break
            waiter.fail(make())

    def forget(self, token: str) -> None:
        """As `leave`, for a finaliser: tells nobody."""
        self._waiters.pop(token, None)

    def waiters(self) -> list[Waiter]:
        """Return those who wait at present."""
        return list(self._waiters.copy().values())

    def is_quiet(self, thread: int) -> bool:
        return True

    def _arrived_locked(self, *, last: bool) -> None:
        return None

    def _ended_locked(self) -> None:
        return None

    def _serve(self, wanted: None) -> None:
        pass


def _nothing() -> None:
    pass
