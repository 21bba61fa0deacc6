"""Requests: many waiting callers behind one wildcard subscription.

Knows tokens and waiters. A reply goes straight from the reader to its waiter, so `request` works inside callbacks.
Whoever takes a waiter out of the table completes it, so that a reply and a time-out cannot both.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from natsync.core.registry import Registry
from natsync.core.reply import ReplyWaiter, Round
from natsync.core.sink import Sink
from natsync.errors import NatsError
from natsync.nuid import next_nuid
from natsync.protocol.operations import MsgOp
from natsync.subjects import encode_subject

__all__ = ["ExpectedReply", "Mux", "Waiter"]


class Waiter(Protocol):
    """Whoever waits for replies; both methods are called on the reader or the supervisor, and must not wait."""

    lasting: bool
    """Stays in the table after a reply."""
    answered: bool
    """There is a reply, or a failure."""
    token: str
    """The last part of its reply subject; "" before it is registered."""

    def is_awaited(self, thread: int) -> bool:
        """Whether somebody wants a reply, so that a drain waits too; not if it is `thread`, which drains."""

    def reply(self, operation: MsgOp) -> None:
        """A reply came."""

    def fail(self, error: NatsError) -> None:
        """No reply will come."""


class ExpectedReply:
    """The reply to one request, for a thread that receives for itself: known by how it begins, it needs no routing.

    Args:
        mux: Where the waiter is entered.
        waiter: Whose thread receives.
        inbox: Its reply subject.
    """

    __slots__ = ("_mux", "_subject", "_waiter", "beginning")

    def __init__(self, mux: Mux, waiter: ReplyWaiter, inbox: bytes) -> None:
        self._mux = mux
        self._waiter = waiter
        self._subject = inbox.decode()
        self.beginning = b"MSG %b %d " % (inbox, mux.sid)

    def take(self, payload: bytes) -> None:
        """The reply came, with this payload."""
        if self._mux.leave(self._waiter.token):
            self._waiter.answer((self._mux.sid, self._subject, None, None, payload))


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
        self._encoded_inbox = encode_subject(f"{inbox}.")
        self._skip = len(inbox) + 1
        self._tokens = itertools.count(1)
        self._waiters: dict[str, Waiter] = {}
        self._round: Round | None = None
        self._subscribed = False
        self._set_up = threading.Lock()
        self.on_leave: Callable[[], None] | None = None
        """Called when a waiter has gone; whoever drains looks then whether all have."""

    def enter(self, waiter: Waiter) -> bytes:
        """Register a waiter and give it its token; returns the reply subject, encoded. Publish only after this.

        The token comes first, so that a caller whom Ctrl-C strikes in between knows what to take out.
        """
        if not self._subscribed:
            with self._set_up:
                if not self._subscribed:
                    self._registry.add(self)
                    self._subscribed = True
        token = waiter.token = str(next(self._tokens))
        inbox = b"%b%b" % (self._encoded_inbox, token.encode())
        self._waiters[token] = waiter
        return inbox

    def is_alone(self) -> bool:
        """Say whether at most one waiter is registered."""
        return len(self._waiters) <= 1

    def leave(self, token: str) -> bool:
        """Take a waiter out; True for whoever did, who then completes it."""
        taken = self._waiters.pop(token, None) is not None
        if taken and self.on_leave is not None:
            self.on_leave()
        return taken

    def deliver(self, batch: list[MsgOp], size: int) -> None:
        waiters = self._waiters
        threads: list[ReplyWaiter] = []
        for operation in batch:
            token = operation[1][self._skip :]
            waiter = waiters.get(token)
            if waiter is None:
                continue
            try:
                if not (waiter.lasting or self.leave(token)):
                    continue
                if type(waiter) is ReplyWaiter:
                    waiter.answer(operation)
                    threads.append(waiter)
                else:
                    waiter.reply(operation)
            except BaseException:  # Ctrl-C, in the main thread, which reads for itself
                if not waiter.answered:
                    waiters[token] = waiter  # so that its time-out finds it: this reply is lost
                raise
        if len(threads) > 1:
            self._round = Round(threads)
        if threads:
            threads[0].wake()

    @property
    def has_round(self) -> bool:
        """Whether threads that wake one another are at it, the last of which sends what they ask."""
        return self._round is not None and self._round.is_under_way

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
