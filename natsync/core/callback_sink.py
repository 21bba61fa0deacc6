"""A subscription whose messages go to a callback.

Knows how messages become turns of work; the threads are the dispatcher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from natsync.core.dispatcher import Dispatcher
from natsync.core.sink import Sink, Turn, size_of
from natsync.protocol.operations import MsgOp

__all__ = ["CallbackSink"]

# A turn is the whole queue, as its bytes are known then without counting; but never so much that what is done and not
# yet released would weigh.
_TURN = 4096
# After so many messages a worker looks whether other subscriptions wait for one.
_SLICE = 128


class CallbackSink(Sink):
    """See the module.

    Args:
        dispatcher: Runs the turns.
        workers: Most messages handled at once; order is kept with 1.
    """

    def __init__(
        self,
        sid: int,
        subject: str,
        queue: str | None,
        *,
        dispatcher: Dispatcher,
        workers: int,
        msgs_limit: int,
        bytes_limit: int,
        max_msgs: int | None,
    ) -> None:
        super().__init__(sid, subject, queue, msgs_limit=msgs_limit, bytes_limit=bytes_limit, max_msgs=max_msgs)
        self.handle: Callable[[Iterable[MsgOp], Turn], None] = _unhandled
        """Handles messages of a turn, counts each when it is done, and never raises; set before the sink is entered."""
        self._dispatcher = dispatcher
        self._workers = workers
        self._active = 0

    def _arrived_locked(self, *, last: bool) -> int:
        jobs = min(self._workers - self._active, len(self._queue))
        self._active += jobs
        return jobs

    def _ended_locked(self) -> int:
        return 0

    def _serve(self, wanted: int) -> None:
        for _ in range(wanted):
            self._dispatcher.submit(self._begin)

    def _begin(self) -> None:
        self._work(self._next_turn(None))

    def _work(self, turn: Turn | None) -> None:
        # One of at most `workers` at a time: handle turns until there is none, then leave.
        while turn is not None:
            if self._advance(turn):
                turn = self._next_turn(turn)
            if turn is not None and self._dispatcher.has_waiting:
                self._dispatcher.submit(partial(self._work, turn))  # others go first
                return
        self._check_end()

    def _next_turn(self, settled: Turn | None) -> Turn | None:
        with self._lock:
            if settled is not None:
                self._settled += settled.done
                self._turns.remove(settled)
            turn = self._take_locked() if self._queue else None
            if turn is None:
                self._active -= 1
            else:
                self._turns.append(turn)
            return turn

    def _take_locked(self) -> Turn:
        most = _TURN if self._workers == 1 else 1
        if len(self._queue) <= most:
            turn = Turn(list(self._queue), self._queue_bytes)
            self._queue.clear()
            self._queue_bytes = 0
        else:
            operations = [self._queue.popleft() for _ in range(most)]
            size = sum(map(size_of, operations))
            turn = Turn(operations, size)
            self._queue_bytes -= size
        return turn

    def _advance(self, turn: Turn) -> bool:
        """Handle a turn's messages; False when others wait for a worker and should go first."""
        while turn.done < len(turn.operations):
            turn.running = 1
            self.handle(islice(turn.rest, _SLICE), turn)
            turn.running = 0
            if turn.done < len(turn.operations) and self._dispatcher.has_waiting:
                return False
        return True

    def is_quiet(self, thread: int) -> bool:
        with self._lock:
            return not self._queue and not self._turns


def _unhandled(_: Iterable[MsgOp], __: Turn) -> None:
    raise AssertionError("a sink was entered without its handler")
