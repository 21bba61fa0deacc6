"""A subscription that is read: `next_msg` and iteration.

Knows the threads that wait for messages, and those that are in the middle of a loop over them.
"""

from __future__ import annotations

import threading
from copy import copy

from natsync.core.sink import Sink
from natsync.deadline import Deadline
from natsync.errors import NatsError, NatsTimeoutError
from natsync.locks import Latch
from natsync.protocol.operations import MsgOp

__all__ = ["ReadSink"]


class ReadSink(Sink):
    """See the module. Any number of threads may read at once; each message goes to one of them."""

    def __init__(
        self, sid: int, subject: str, queue: str | None, *, msgs_limit: int, bytes_limit: int, max_msgs: int | None
    ) -> None:
        super().__init__(sid, subject, queue, msgs_limit=msgs_limit, bytes_limit=bytes_limit, max_msgs=max_msgs)
        self._readers: list[Latch] = []
        self._loops: list[int] = []
        self._refusal: NatsError | None = None

    def next(self, timeout: float | None) -> MsgOp:
        """Return the next message, waiting for it at most `timeout` seconds; None for ever.

        Raises:
            NatsTimeoutError: None came in time.
            NatsError: The sink has ended, or the server refused the subscription.
        """
        with self._lock:
            if self._queue and self._last is None and self._end is None:
                return self._take_locked()
        return self._next_or_end(Deadline(timeout))

    def _next_or_end(self, deadline: Deadline) -> MsgOp:
        while True:
            latch = Latch()
            operation: MsgOp | None = None
            with self._lock:
                end = self._end or self._last
                refusal = self._refusal
                if self._queue:
                    operation = self._take_locked()
                elif end is None and refusal is None:
                    self._readers.append(latch)
            if end is not None:
                self._check_end()  # this may have been the last one
            if operation is not None:
                return operation
            if end is not None:
                raise end()
            if refusal is not None:
                raise copy(refusal)  # not the same one again and again: each raise adds to its traceback
            self._wait(latch, deadline)

    def _take_locked(self) -> MsgOp:
        operation = self._queue.popleft()
        self._settled += 1
        block = operation[3]
        self._queue_bytes -= len(operation[4]) if block is None else len(operation[4]) + len(block)
        return operation

    def _wait(self, latch: Latch, deadline: Deadline) -> None:
        came = False
        try:
            self.on_wait()
            came = latch.wait(deadline.remaining())
        finally:
            if not came:
                self._leave(latch)
        if not came:
            with self._lock:
                if self._queue:
                    return  # it came at the last moment
            raise NatsTimeoutError(f"no message came within {deadline.timeout} s", timeout=deadline.timeout)

    def _leave(self, latch: Latch) -> None:
        # Whoever leaves without taking passes on a wake-up that may have been meant for it.
        with self._lock:
            if latch in self._readers:
                self._readers.remove(latch)
                return
            heir = self._readers.pop(0) if self._queue and self._readers else None
        if heir is not None:
            heir.open()

    def _arrived_locked(self, *, last: bool) -> list[Latch]:
        if not self._readers:
            return self._readers
        if last:
            return self._ended_locked()
        count = min(len(self._queue), len(self._readers))
        woken, self._readers = self._readers[:count], self._readers[count:]
        return woken

    def _ended_locked(self) -> list[Latch]:
        woken, self._readers = self._readers, []
        return woken

    def _serve(self, wanted: list[Latch]) -> None:
        for latch in wanted:
            latch.open()

    def refuse(self, error: NatsError | None) -> None:
        """The server refused the subscription: readers are told, until None takes it back (after a reconnect)."""
        with self._lock:
            self._refusal = error
            woken = self._ended_locked() if error is not None else []
        self._serve(woken)

    # Loops, for draining: a thread inside `for msg in sub` is still at work on the message it was given.

    def enter_loop(self) -> None:
        self._loops.append(threading.get_ident())

    def leave_loop(self, thread: int) -> None:
        self._loops.remove(thread)
        self._tell_watchers()

    def is_quiet(self, thread: int) -> bool:
        return all(looping == thread for looping in self._loops)
