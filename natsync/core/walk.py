"""One outage: which server is tried next, and after which pause.

Knows the pool, the backoff and the user's callbacks for both; opens nothing.
"""

from __future__ import annotations

import logging
import math

from natsync.core.parts import Parts
from natsync.errors import ConfigError, NatsError, NoServersError
from natsync.events import ReconnectFailed
from natsync.policy.backoff import Backoff
from natsync.policy.pool import Server
from natsync.policy.urls import parse_url

__all__ = ["Walk"]

_log = logging.getLogger("natsync.supervisor")


class Walk:
    """The walk over the servers in one outage.

    Args:
        parts: The client's.
        lost: The server of the lost link; None when there was none yet.
        previous: The walk that found that link, if it did not last: its pauses are still to be kept.
    """

    def __init__(self, parts: Parts, lost: Server | None, previous: Walk | None = None) -> None:
        self._parts = parts
        options = parts.options
        jitter = options.reconnect_jitter_tls if parts.connector.secure else options.reconnect_jitter
        self._backoff = Backoff(options.reconnect_time_wait, jitter)
        if previous is not None:
            self._backoff.go_on_from(previous._backoff)
        elif lost is None:
            self._backoff.go_on_after_pass(len(parts.pool))  # the first walk, of connect()
        self._current = lost
        self._skip_pause = parts.force_wanted
        parts.force_wanted = False
        self.failures: dict[str, NatsError] = {}
        """What each server answered last, by redacted URL."""

    def choose(self) -> tuple[Server | None, float]:
        """Return the next server, and the seconds to wait before trying it; None when all are used up."""
        chosen = self._choose_by_callback()
        if chosen is not None:
            return chosen
        pool = self._parts.pool
        with self._parts.pool_lock:
            server = pool.next_server(self._current, self._parts.options.max_reconnect_attempts)
        self._current = server
        pause = self._backoff.pause_due(len(pool))
        skipped, self._skip_pause = self._skip_pause, False
        return server, self._length() if pause and not skipped else 0.0

    def is_still_wanted(self, server: Server) -> bool:
        """Say whether a server that was chosen before a pause is still in the pool; if not, the pause has been paid."""
        if server in self._parts.pool.snapshot():
            return True
        self._skip_pause = True
        return False

    def _length(self) -> float:
        callback = self._parts.options.reconnect_delay_cb
        if callback is None:
            return self._backoff.pause()
        try:
            return _seconds(callback(self._backoff.passes))
        except Exception:
            _log.exception("reconnect_delay_cb raised an exception; reconnect_time_wait is used")
            return self._backoff.pause()

    def _choose_by_callback(self) -> tuple[Server | None, float] | None:
        parts = self._parts
        callback = parts.options.reconnect_to_server_cb
        if callback is None:
            return None
        with parts.pool_lock:
            parts.pool.drop_exhausted(self._current, parts.options.max_reconnect_attempts)
        servers = parts.pool.snapshot()
        if not servers:
            return None, 0.0
        try:
            answer = callback(tuple(server.url.redacted for server in servers), parts.info)
            if answer is None:
                return None
            url, delay = answer
            wanted = parse_url(url)
            pause = _seconds(delay)
        except Exception:
            _log.exception("reconnect_to_server_cb failed; the next server of the list is tried")
            return None
        server = parts.pool.find(wanted)
        if server is None:
            self._report_stranger(wanted.redacted)
            return None
        self._current = server
        return server, pause

    def _report_stranger(self, url: str) -> None:
        error = ConfigError(
            f"reconnect_to_server_cb chose {url}, which is not in the pool; the next server of the list is tried",
            option="reconnect_to_server_cb",
        )
        self._parts.lifecycle.report(ReconnectFailed(self._parts.client, error, url))

    def exhausted(self) -> NatsError:
        """Make the error for a walk that has come to its end."""
        error = NoServersError("every server's attempts are used up (max_reconnect_attempts); the client is closed")
        error.errors = dict(self.failures)
        return error


def _seconds(answer: object) -> float:
    seconds = float(answer)  # type: ignore[arg-type]
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is no pause")
    return max(0.0, seconds)
