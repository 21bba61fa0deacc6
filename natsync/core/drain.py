"""Draining a client: a small state machine that the supervisor steps.

Knows the order: subscriptions end at the server, what is under way arrives, handlers and requests finish, then
publishing ends, then the last bytes are confirmed. Never waits; `done` says that the client may be closed.
"""

from __future__ import annotations

import enum

from natsync.core.link import PongCallback
from natsync.core.mux import Waiter
from natsync.core.parts import Parts
from natsync.core.sink import Sink
from natsync.deadline import Deadline
from natsync.errors import BadSubscriptionError, ConnectionDrainingError, NatsError, NatsTimeoutError
from natsync.policy.status import Status

__all__ = ["Drain", "drained"]


class _Phase(enum.Enum):
    WANTED = "wanted"
    ARRIVING = "messages under way arrive"
    HANDLING = "handlers, readers and requests finish"
    CONFIRMING = "the last publishes are confirmed"
    DONE = "done"


class Drain:
    """One drain of one client.

    Args:
        parts: The client's.
        deadline: For all of it.
        thread: The caller's; a loop over messages that this very thread is in is not waited for.
    """

    def __init__(self, parts: Parts, deadline: Deadline, thread: int) -> None:
        self._parts = parts
        self.deadline = deadline
        self._thread = thread
        self._phase = _Phase.WANTED
        self._ponged = False
        self._sinks: list[Sink] = []
        self._waiters: list[Waiter] | None = None
        self.error: NatsError | None = None

    @property
    def done(self) -> bool:
        return self._phase is _Phase.DONE

    def step(self) -> None:
        """Go as far as is possible now; the supervisor calls it whenever it is woken."""
        if self.deadline.expired and not self.done:
            self._give_up()
        if self._phase is _Phase.WANTED:
            self._begin()
        if self._phase is _Phase.ARRIVING and self._ponged:
            for sink in self._sinks:
                sink.finish(drained)
            self._phase = _Phase.HANDLING
        if self._phase is _Phase.HANDLING and self._is_quiet():
            self._stop_publishing()
        if self._phase is _Phase.CONFIRMING and self._ponged:
            self._phase = _Phase.DONE

    def _begin(self) -> None:
        parts = self._parts
        self._sinks = [sink for sink in parts.registry.all() if sink is not parts.mux] + parts.registry.stopped()
        parts.mux.on_leave = parts.wakeup.set
        for sink in self._sinks:
            sink.watch(parts.wakeup)
            parts.registry.drain(sink.sid)
        self._ping()
        self._phase = _Phase.ARRIVING

    def _is_quiet(self) -> bool:
        # The inbox of requests ends last: handlers may be waiting for replies. Then those requests are waited for that
        # are under way at that moment; a thread that goes on asking must not hold us up.
        if not all(sink.is_quiet(self._thread) for sink in self._sinks):
            return False
        waiters = self._parts.mux.waiters()
        if self._waiters is None:
            self._waiters = waiters
        return not any(waiter.is_awaited(self._thread) for waiter in self._waiters if waiter in waiters)

    def _stop_publishing(self) -> None:
        self._parts.lifecycle.move(
            Status.DRAINING_PUBS, also=lambda: self._parts.outbound.refuse(_draining), only_from=Status.DRAINING_SUBS
        )
        self._ping()
        self._phase = _Phase.CONFIRMING

    def _ping(self) -> None:
        self._ponged = False
        self._parts.outbound.put_ping(PongCallback(self._pong))

    def _pong(self) -> None:
        self._ponged = True
        self._parts.wakeup.set()

    def _give_up(self) -> None:
        self.error = NatsTimeoutError(
            f"draining was not over after {self.deadline.timeout} s ({self._phase.value}); the client was closed",
            timeout=self.deadline.timeout,
        )
        self._phase = _Phase.DONE


def drained() -> NatsError:
    """Make the error that a drained subscription gives."""
    return BadSubscriptionError("the subscription has been drained")


def _draining() -> NatsError:
    return ConnectionDrainingError("the client is draining and takes no more publishes")
