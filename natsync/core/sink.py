"""Where the reader puts the messages of one subscription: limits, counting, ending.

Knows messages as the parser's tuples; knows no connection, and no user code (that is `callback_sink` and `read_sink`).
Owner: the reader delivers, consumers take, any thread ends it. Guarded by: `_lock`, under which nothing is called or
waited for.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from natsync.errors import MaxMessagesError, NatsError
from natsync.locks import Wakeup
from natsync.protocol.operations import MsgOp

__all__ = ["Sink", "size_of"]


def size_of(operation: MsgOp) -> int:
    """Return the bytes that a message counts for: headers and data."""
    block = operation[3]
    return len(operation[4]) if block is None else len(operation[4]) + len(block)


class Turn:
    """Messages that a worker has taken and handles one after the other."""

    __slots__ = ("_counted", "_size", "done", "operations", "rest", "running")

    def __init__(self, operations: list[MsgOp], size: int) -> None:
        self.operations = operations
        self.rest = iter(operations)
        """A list's iterator sees when the list is cut short."""
        self.done = 0
        """Messages whose callback has returned. Only the worker writes it."""
        self.running = 0
        """1 while the worker is at it, else 0."""
        self._size = size
        self._counted = 0

    @property
    def started(self) -> int:
        # The worker goes on while we count, also past the place where the list is being cut.
        done = self.done
        return min(done + self.running, max(done, len(self.operations)))

    @property
    def pending(self) -> int:
        return max(0, len(self.operations) - self.done)

    def pending_size_locked(self) -> int:
        """Return the bytes of what is not done; counts each message once, however often it is called."""
        done = min(self.done, len(self.operations))
        while self._counted < done:
            self._size -= size_of(self.operations[self._counted])
            self._counted += 1
        return self._size

    def cut_locked(self, keep: int) -> None:
        """Take back what lies behind the first `keep` messages."""
        keep = max(keep, self._counted)
        self._size -= sum(map(size_of, self.operations[keep:]))
        del self.operations[keep:]


class Sink:
    """Pending messages of one subscription.

    Args:
        sid: The subscription's id.
        subject: Its subject.
        queue: Its queue group, or None.
        msgs_limit: Most messages pending; -1 for no limit.
        bytes_limit: Most bytes pending; -1 for no limit.
        max_msgs: Ends after so many messages; None for no end.
    """

    def __init__(
        self, sid: int, subject: str, queue: str | None, *, msgs_limit: int, bytes_limit: int, max_msgs: int | None
    ) -> None:
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.subscription: Any = None
        """The user's handle, for events; None for natsync's own."""
        self.draining = False
        """An UNSUB is sent; the sink is not revived by a reconnect. Set under the registry's lock."""
        self.on_slow: Callable[[], None] = _nothing
        """Called by the reader when an episode of dropping begins; must not wait."""
        self.on_wait: Callable[[], None] = _nothing
        """Called by whoever is about to wait for a message."""
        self.on_last: Callable[[bool], None] = _ignore
        """Called once, when nothing more is taken in; with whether the server knows by itself. Must not wait."""
        self._lock = threading.Lock()
        self._queue: deque[MsgOp] = deque()
        self._queue_bytes = 0
        self._turns: list[Turn] = []
        self._settled = 0
        self._max = max_msgs
        self._slow = False
        self._end: Callable[[], NatsError] | None = None
        self._last: Callable[[], NatsError] | None = None
        self.cut_short: Callable[[], NatsError] | None = None
        """Why it ended before everything pending had been consumed, if it did."""
        self._watchers: list[Wakeup] = []
        self.received = 0
        """Messages that came, dropped ones included: what the server counts too."""
        self.received_before = 0
        """How many of them came from servers before the present one."""
        self.dropped = 0
        self._set_limits_locked(msgs_limit, bytes_limit)

    # The reader.

    def deliver(self, batch: list[MsgOp], size: int) -> None:
        """Take messages from the reader, in order; never waits."""
        full = False
        slow = False
        with self._lock:
            if self._end is not None or self._last is not None:
                return
            if self._max is not None and self.received + len(batch) >= self._max:
                batch = batch[: self._max - self.received]
                size = sum(map(size_of, batch))
                self._last = _max_messages(self._max)
                full = True
            self.received += len(batch)
            if self._fits_locked(len(batch), size):
                self._queue.extend(batch)
                self._queue_bytes += size
                self._slow = False
            else:
                slow = self._admit_singly_locked(batch)
            wanted = self._arrived_locked(last=full)
        self._serve(wanted)
        if slow:
            self.on_slow()
        if full:
            self.on_last(True)
            self._check_end()

    def _fits_locked(self, msgs: int, size: int) -> bool:
        return (
            self._pending_msgs_locked() + msgs <= self._msgs_limit
            and self._pending_bytes_locked() + size <= self._bytes_limit
        )

    def _admit_singly_locked(self, batch: list[MsgOp]) -> bool:
        began = False
        for operation in batch:
            size = size_of(operation)
            if self._fits_locked(1, size):
                self._queue.append(operation)
                self._queue_bytes += size
                self._slow = False
            else:
                self.dropped += 1
                began = began or not self._slow
                self._slow = True
        return began

    def _arrived_locked(self, *, last: bool) -> Any:
        """Decide who is to be told of what came, or of the end after it; `_serve` tells them, outside the lock."""
        raise NotImplementedError

    def _serve(self, wanted: Any) -> None:
        raise NotImplementedError

    # Ending: any thread.

    @property
    def has_ended(self) -> bool:
        return self._end is not None

    def end(self, reason: Callable[[], NatsError]) -> bool:
        """End now: what is pending is discarded, a running callback is not interrupted; False if it had ended."""
        with self._lock:
            if self._end is not None:
                return False
            took = self._last is None
            self._end = self.cut_short = reason
            self._queue.clear()
            self._queue_bytes = 0
            for turn in self._turns:
                turn.cut_locked(turn.started)
            wanted = self._ended_locked()
        self._serve(wanted)
        self._tell_watchers()
        if took:
            self.on_last(False)
        return True

    def finish(self, reason: Callable[[], NatsError]) -> None:
        """Take nothing more, and end when what is pending has been consumed."""
        with self._lock:
            took = self._end is None and self._last is None
            if took:
                self._last = reason
            wanted = self._ended_locked()
        self._serve(wanted)
        if took:
            self.on_last(False)
        self._check_end()

    def limit(self, max_msgs: int) -> None:
        """End after `max_msgs` messages in all; at once when so many have been delivered already."""
        with self._lock:
            if self._end is not None:
                return
            self._max = max_msgs
            self._take_back_locked(self._delivered_locked() + self._waiting_locked() - max_msgs)
            reached = self.received >= max_msgs
            took = reached and self._last is None
            if reached:
                self._last = _max_messages(max_msgs)
            wanted = self._ended_locked() if reached else None
        if reached:
            self._serve(wanted)
            if took:
                self.on_last(False)
            self._check_end()

    def _take_back_locked(self, surplus: int) -> None:
        for _ in range(min(surplus, len(self._queue))):
            self._queue_bytes -= size_of(self._queue.pop())
            surplus -= 1
        for turn in self._turns:
            taken_back = max(0, min(surplus, len(turn.operations) - turn.started))
            turn.cut_locked(len(turn.operations) - taken_back)
            surplus -= taken_back

    def _ended_locked(self) -> Any:
        """As `_arrived_locked`, for the end."""
        raise NotImplementedError

    def _check_end(self) -> None:
        """To be called when messages have been consumed, and after `_last` was set: whoever is second sees both."""
        if self._last is None and not self._watchers:
            return
        with self._lock:
            ended = self._end is None and self._last is not None and not self._pending_msgs_locked()
            if ended:
                self._end = self._last
            wanted = self._ended_locked() if ended else None
        if ended:
            self._serve(wanted)
        self._tell_watchers()

    @property
    def is_finishing(self) -> bool:
        """Whether nothing more is taken in."""
        return self._last is not None or self._end is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be had any more."""
        return self._end is not None or (self._last is not None and self.pending_msgs == 0)

    # Watching: whoever drains.

    def is_quiet(self, thread: int) -> bool:
        """Say whether nothing that `thread` could wait for is still to be done."""
        raise NotImplementedError

    def watch(self, wakeup: Wakeup) -> None:
        """Have a wake-up given at each moment at which the sink may have become quiet."""
        with self._lock:
            if wakeup not in self._watchers:
                self._watchers.append(wakeup)

    def unwatch(self, wakeup: Wakeup) -> None:
        with self._lock:
            if wakeup in self._watchers:
                self._watchers.remove(wakeup)

    def _tell_watchers(self) -> None:
        for wakeup in tuple(self._watchers):
            wakeup.set()

    # Facts: any thread.

    @property
    def pending_msgs(self) -> int:
        with self._lock:
            return self._pending_msgs_locked()

    @property
    def pending_bytes(self) -> int:
        with self._lock:
            return self._pending_bytes_locked()

    @property
    def delivered(self) -> int:
        with self._lock:
            return self._delivered_locked()

    @property
    def max_msgs(self) -> int | None:
        return self._max

    def begin_anew(self) -> int | None:
        """Note that a new server counts from here; returns how many more it should send, None for no end."""
        with self._lock:
            self.received_before = self.received
            return None if self._max is None else max(0, self._max - self.received)

    def set_limits(self, msgs: int, size: int) -> None:
        with self._lock:
            self._set_limits_locked(msgs, size)

    def _set_limits_locked(self, msgs: int, size: int) -> None:
        self._msgs_limit = sys.maxsize if msgs < 0 else msgs
        self._bytes_limit = sys.maxsize if size < 0 else size

    def _pending_msgs_locked(self) -> int:
        if not self._turns:
            return len(self._queue)
        return len(self._queue) + sum(turn.pending for turn in self._turns)

    def _pending_bytes_locked(self) -> int:
        if not self._turns:
            return self._queue_bytes
        return self._queue_bytes + sum(turn.pending_size_locked() for turn in self._turns)

    def _waiting_locked(self) -> int:
        return len(self._queue) + sum(max(0, len(turn.operations) - turn.started) for turn in self._turns)

    def _delivered_locked(self) -> int:
        return self._settled + sum(turn.started for turn in self._turns)

    def reset_after_fork(self, reason: Callable[[], NatsError]) -> None:
        """In a forked child, where no other thread exists: end, whoever held the lock at the fork."""
        self._lock = threading.Lock()
        self._end = reason
        self._queue.clear()
        for turn in self._turns:  # the callback that forked, if it returns here, is the last one
            turn.cut_locked(turn.started)
        self.on_last = _ignore


def _max_messages(max_msgs: int) -> Callable[[], NatsError]:
    def make() -> NatsError:
        return MaxMessagesError(f"the subscription has had the {max_msgs} messages it was made for", max_msgs=max_msgs)

    return make


def _nothing() -> None:
    pass


def _ignore(_: bool) -> None:
    pass
