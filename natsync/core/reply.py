"""A thread that waits for the reply to its request, and how many such threads are woken at once: one after the other.

Threads that all are woken by one receive would fight for the interpreter, and each would send its next request with a
system call of its own. So replies that came together form a *round*: each thread wakes the next as soon as it runs, and
what is asked meanwhile is sent by the last one, in one go. [measured: half the switches of threads a request]

Knows no lock: every fact is stored once, before the latch is opened that its reader waits for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from natsync.core.message import Msg, from_operation
from natsync.errors import NatsError, NoRespondersError
from natsync.locks import Latch
from natsync.protocol.header_block import is_no_responders
from natsync.protocol.operations import MsgOp

__all__ = ["ReplyWaiter", "Round", "read_reply"]

# What is asked during a round is sent by the next request, not by the last thread, when the round is older than this:
# threads that compute between their requests would hold the others up.
_LONGEST_ROUND = 0.001


class ReplyWaiter:
    """A thread that waits for one reply."""

    # What most waiters never change stands in the class: one is made for every request.
    lasting = False
    token = ""
    answered = False
    error: NatsError | None = None
    is_last = False
    """Its thread is the last of a round, and sends what the others have asked."""
    left = False
    """Its thread does not wait any more."""
    _next: ReplyWaiter | None = None
    _operation: MsgOp | None = None
    _latch: Latch | None = None
    """What its thread sleeps at, if it has to."""

    def is_awaited(self, thread: int) -> bool:
        return True

    def answer(self, operation: MsgOp) -> None:
        """Store the reply; `wake` tells of it."""
        self._operation = operation
        self.answered = True

    def reply(self, operation: MsgOp) -> None:
        self.answer(operation)
        self._open()

    def fail(self, error: NatsError) -> None:
        self.error = error
        self.answered = True
        self._open()

    def _open(self) -> None:
        if self._latch is not None:
            self._latch.open()

    def wake(self) -> None:
        """Let the thread go on; if it has left, the next one of the round."""
        waiter: ReplyWaiter | None = self
        while waiter is not None:
            waiter._open()
            waiter = waiter._next if waiter.left else None

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, and say whether there is an answer."""
        if self._latch is None:
            self._latch = Latch()
        # In this order: whoever answers after the look finds the latch.
        return self.answered or self._latch.wait(timeout) or self.answered

    def leave(self) -> None:
        """The thread runs again, or gives up: it is the next one's turn."""
        self.left = True
        if self._next is not None:
            self._next.wake()

    def result(self) -> MsgOp | None:
        """Return the reply, or None if there is none; raise the failure."""
        if self.error is not None:
            raise self.error
        return self._operation


class Round:
    """Replies that came together, and whose threads wake one another."""

    __slots__ = ("_ends_at", "_last")

    def __init__(self, waiters: Sequence[ReplyWaiter]) -> None:
        """Chain the waiters, which must be answered; the caller wakes the first."""
        self._ends_at = time.monotonic() + _LONGEST_ROUND
        self._last = waiters[-1]
        self._last.is_last = True
        for waiter, following in itertools.pairwise(waiters):
            waiter._next = following

    @property
    def is_under_way(self) -> bool:
        """Whether the last thread has still to come, and will soon."""
        return not self._last.left and time.monotonic() < self._ends_at


def read_reply(operation: MsgOp, subject: str) -> Msg:
    """Make the reply's message.

    Raises:
        NoRespondersError: It is the server's word that nobody listens on the request's subject.
    """
    if is_no_responders(operation[3], operation[4]):
        raise NoRespondersError(f"nobody listens on {subject!r}", subject=subject)
    return from_operation(operation, None)
