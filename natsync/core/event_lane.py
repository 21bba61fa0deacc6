"""The one thread on which lifecycle callbacks run: in order, one at a time, under no lock.

Knows which option gets which event, and what is logged; decides nothing.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable

from natsync.core.crash import log_crash
from natsync.core.threads import ClientThread
from natsync.errors import NatsError
from natsync.events import (
    AsyncError,
    Closed,
    Connected,
    Disconnected,
    DiscoveredServers,
    Event,
    LameDuck,
    Reconnected,
    ReconnectFailed,
)
from natsync.policy.options import Options

__all__ = ["EventLane"]

_log = logging.getLogger("natsync.events")

_LEVELS: dict[type[Event], int] = {
    Connected: logging.DEBUG,
    Disconnected: logging.WARNING,
    Reconnected: logging.INFO,
    ReconnectFailed: logging.INFO,
    Closed: logging.INFO,
    DiscoveredServers: logging.INFO,
    LameDuck: logging.WARNING,
    AsyncError: logging.WARNING,
}


class EventLane:
    """A queue of events and its thread.

    Args:
        owner: The engine.
        client: The client's name, for the thread's.
        options: Whose callbacks to call.
    """

    def __init__(self, owner: object, client: str, options: Options) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._handlers: dict[type[Event], Callable[[Event], object] | None] = {
            Connected: options.connected_cb,
            Disconnected: options.disconnected_cb,
            Reconnected: options.reconnected_cb,
            ReconnectFailed: options.reconnect_error_cb,
            Closed: options.closed_cb,
            DiscoveredServers: options.discovered_server_cb,
            LameDuck: options.lame_duck_mode_cb,
            AsyncError: options.error_cb,
        }
        self.thread = ClientThread(owner, client, "events", self._run)
        self._abandoned = False
        self.muted = False
        """After the user's close(), with `no_callbacks_after_close`: events are logged only."""

    def emit(self, event: Event) -> None:
        """Queue an event; never waits, from any thread and under any lock. `Closed` is the last one delivered."""
        self._queue.put(event)

    def abandon(self) -> None:
        """In a forked child: the lane, if it was the thread that forked, ends after its callback."""
        self._abandoned = True

    def _run(self) -> None:
        while not self._abandoned:
            event = self._queue.get()
            _write_log(event)
            handler = None if self.muted else self._handlers[type(event)]
            if handler is not None:
                try:
                    handler(event)
                except BaseException:  # SystemExit too: it would end the lane in silence, and nothing else
                    log_crash(_log, "the callback for %s raised an exception", type(event).__name__)
            if isinstance(event, Closed):
                return
            del event


def _write_log(event: Event) -> None:
    level = _LEVELS[type(event)]
    if isinstance(event, (Disconnected, Closed)) and event.error is None:
        level = logging.DEBUG
    elif isinstance(event, Closed):
        level = logging.ERROR
    elif isinstance(event, AsyncError) and not isinstance(event.error, NatsError):
        return  # a handler's, which was logged with its traceback where it was caught
    if _log.isEnabledFor(level):
        where = f" {event.server}" if event.server else ""
        why = f": {event.error}" if event.error is not None else ""
        _log.log(level, "%s%s%s", type(event).__name__, where, why)
