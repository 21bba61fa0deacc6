"""The status of a client, and the events that its changes cause.

Owner: the supervisor and the opener change it, and `drain()`; any thread reads. Guarded by: `_lock`, the outermost
lock: the status changes, the outbound buffer's mode follows and the event is queued in one step, so that the order of
events is the order of states.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from natsync.core.event_lane import EventLane
from natsync.errors import NatsError
from natsync.events import AsyncError, Event, Reconnected
from natsync.policy.status import TRANSITIONS, Status

__all__ = ["Lifecycle"]


class Lifecycle:
    """See the module."""

    def __init__(self, lane: EventLane) -> None:
        self._lane = lane
        self._lock = threading.Lock()
        self._status = Status.DISCONNECTED
        self.cause: NatsError | None = None
        """What ended the client, when it was not the user's wish."""
        self.last_error: BaseException | None = None
        self._reconnects = 0
        self._errors = 0

    @property
    def status(self) -> Status:
        return self._status

    def move(
        self,
        to: Status,
        *events: Event,
        only_from: Status | None = None,
        also: Callable[[], object] | None = None,
    ) -> bool:
        """Change the status, if the table of transitions allows it, and queue the events; say whether it did.

        Args:
            to: The new status.
            events: What to report.
            only_from: Do nothing in any other status.
            also: A mode change of the outbound buffer, in the same step.
        """
        with self._lock:
            if to not in TRANSITIONS[self._status] or only_from not in (None, self._status):
                return False
            self._status = to
            if also is not None:
                also()
            for event in events:
                if event.error is not None:
                    self.last_error = event.error
                self._reconnects += isinstance(event, Reconnected)
                self._lane.emit(event)
            return True

    def report(self, event: Event) -> None:
        """Queue an event that changes no status; dropped once the client is closed. Never waits."""
        with self._lock:
            if self._status is Status.CLOSED:
                return
            if event.error is not None:
                self.last_error = event.error
            self._errors += isinstance(event, AsyncError)
            self._lane.emit(event)

    def counts(self) -> tuple[int, int]:
        """Return how often `Reconnected` and `AsyncError` were reported; never a reconnect without its status."""
        with self._lock:
            return self._reconnects, self._errors
