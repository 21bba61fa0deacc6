"""The supervisor: the only one that opens and closes links, once the first is there.

Knows when to send, ping, lose, walk, pause, drain and end. Waits only on its wake-up and, in slices, on a full socket
(and in dialling, which `Connector.abort` cuts short). Runs no user code but the dialer, delay, server-choice and
credential callbacks.
"""

from __future__ import annotations

import logging
import time

from natsync.core.batch import Dropped
from natsync.core.link import Link, PongCallback
from natsync.core.outbound import Pumped
from natsync.core.parts import Draining, Parts
from natsync.core.restore import restore
from natsync.core.threads import ClientThread
from natsync.core.walk import Walk
from natsync.deadline import Deadline
from natsync.errors import (
    AuthorizationError,
    ConnectionReconnectingError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    StaleConnectionError,
)
from natsync.events import Closed, Connected, Disconnected, LameDuck, Reconnected, ReconnectFailed
from natsync.policy.pool import Server
from natsync.policy.status import Status

__all__ = ["Supervisor"]

_log = logging.getLogger("natsync.supervisor")

# Those who are about to wait for an answer send for themselves; the supervisor waits so many seconds for it.
_GRACE = 0.0005
_SLICE = 0.05
# What is granted to the last bytes after a drain that took all its time.
_LATE_GOODBYE = 0.25
# While another thread sends, or a drain waits for others, the supervisor looks after them in this interval.
_LOOK_AFTER = 0.2


class Supervisor:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._wakeup = parts.wakeup
        self._link: Link | None = None
        self._has_been_connected = False
        self.is_started = False
        self.thread = ClientThread(parts, parts.label, "supervisor", self._run)

    def start(self, link: Link | None) -> None:
        """Take over from the opener: a live link, or none yet (then walk)."""
        self._link = link
        self._has_been_connected = link is not None
        self.is_started = True
        self.thread.start()

    def _run(self) -> None:
        error: NatsError | None = None
        try:
            error = self._live()
        except Exception as exc:
            _log.exception("an error in natsync's supervisor; please report it")
            error = NatsConnectionError("the supervisor failed")
            error.__cause__ = exc
        finally:
            self._finish(error)

    def _live(self) -> NatsError | None:
        """Serve and restore links until the client is to end; returns why, None for the user's wish."""
        parts = self._parts
        walk: Walk | None = None
        while True:
            link = self._link
            if link is not None:
                since = time.monotonic()
                self._serve(link)
                if parts.close_wanted and not link.is_lost:
                    self._say_goodbye(link)
                if parts.close_wanted and not link.is_lost:
                    return None
                error, going_on = self._lose(link)
                if not going_on:
                    return None if parts.close_wanted else error
                if time.monotonic() - since > parts.options.reconnect_time_wait:
                    walk = None
            self._link = None
            walk = Walk(parts, link.server if link is not None else None, walk)
            link, error = self._find_link(walk)
            if link is None:
                return error
            self._link = link

    # A live link.

    def _serve(self, link: Link) -> None:
        parts = self._parts
        outbound = parts.outbound
        interval = parts.options.ping_interval
        now = time.monotonic()
        ping_at = now + interval
        progress_at = now
        sent_bytes = sent_at_ping = outbound.sent_bytes
        while not link.is_lost:
            self._read_news()
            if parts.drain is not None:
                self._step_drain(parts.drain)
            if parts.close_wanted:
                return
            now = time.monotonic()
            if now >= ping_at:
                moved, sent_at_ping = outbound.sent_bytes != sent_at_ping, outbound.sent_bytes
                self._keep_alive(link, backlog_moves=moved and outbound.size > 0)
                ping_at = now + interval
            pumped = outbound.pump()
            if outbound.sent_bytes != sent_bytes or pumped is Pumped.IDLE:
                sent_bytes, progress_at = outbound.sent_bytes, now
            if pumped is Pumped.FULL:
                self._wait_writable(link, now - progress_at)
            elif pumped is not Pumped.SENT:
                self._sleep(ping_at - now, looking_after=pumped is Pumped.BUSY)

    def _step_drain(self, drain: Draining) -> None:
        drain.step()
        if drain.done and not self._parts.close_wanted:
            if drain.error is not None:
                self._parts.report(drain.error)
            if self._parts.options.no_callbacks_after_close:
                self._parts.lane.muted = True
            self._parts.end_soon()

    def _sleep(self, timeout: float, *, looking_after: bool) -> None:
        parts = self._parts
        if parts.drain is not None:
            timeout = min(timeout, parts.drain.deadline.remaining(), _LOOK_AFTER)
        if looking_after:
            parts.outbound.check_token()
            timeout = min(timeout, _LOOK_AFTER)
        if parts.outbound.sleep():
            self._wakeup.wait(max(0.0, timeout))
            if parts.outbound.is_in_no_hurry():
                self._wakeup.wait(_GRACE)
            parts.outbound.awake()

    def _wait_writable(self, link: Link, stalled: float) -> None:
        timeout = self._parts.options.write_timeout
        if stalled > timeout:
            link.lose(NatsTimeoutError(f"{link.url} took no bytes for {timeout} s", timeout=timeout))
            return
        try:
            link.transport.wait_writable(_SLICE)
        except NatsError as exc:
            link.lose(exc)

    def _keep_alive(self, link: Link, *, backlog_moves: bool) -> None:
        unanswered = link.pings_out
        if link.reader is not None:
            link.reader.let_go()  # whoever reads for itself may be held up in a signal handler
        if backlog_moves:
            return  # a PING would wait in the queue; bytes that the server takes are a sign of life too
        if unanswered >= self._parts.options.max_outstanding_pings:
            link.lose(StaleConnectionError(f"{link.url} left {unanswered} PINGs unanswered", server=link.url))
            return
        link.pings_out = unanswered + 1
        self._parts.outbound.put_ping(None)

    def _read_news(self) -> None:
        parts = self._parts
        while parts.news:
            link, info = parts.news.popleft()
            parts.report_discovered(link, parts.take_info(link.server, info))
            if info.ldm:
                parts.lifecycle.report(LameDuck(parts.client, server=link.url))

    def _say_goodbye(self, link: Link) -> None:
        """Send what was published, and wait for the server's word that it has it.

        Closing a socket while bytes from the server are unread resets the connection, and that may cost what is under
        way.
        """
        outbound = self._parts.outbound
        outbound.refuse(self._parts.closed_error)  # unless whoever wished for the end has done it
        drain = self._parts.drain
        confirmed = outbound.out_msgs == 0 or (drain is not None and drain.error is None)
        answered: list[bool] = [confirmed]

        def pong() -> None:
            answered[0] = True
            self._wakeup.set()

        if not confirmed:
            outbound.put_ping(PongCallback(pong))
        deadline = Deadline(self._parts.goodbye if drain is None or drain.error is None else _LATE_GOODBYE)
        while not link.is_lost and not deadline.expired:
            pumped = outbound.pump()
            if pumped is Pumped.FULL:
                self._wait_writable(link, 0.0)
            elif pumped is Pumped.IDLE and answered[0]:
                return
            elif pumped is not Pumped.SENT and outbound.sleep():
                self._wakeup.wait(min(_SLICE, deadline.remaining()))
                outbound.awake()

    # A lost link.

    def _lose(self, link: Link) -> tuple[NatsError | None, bool]:
        """End a lost link; returns the cause, and whether the client goes on."""
        parts = self._parts
        dropped = parts.outbound.down()
        link.end()
        loss = link.loss
        parts.link = None
        parts.dropped_msgs += dropped.msgs
        event = Disconnected(parts.client, loss.error, link.url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes)
        forced = parts.force_wanted
        going_on = (
            (parts.options.allow_reconnect or forced)
            and not loss.final
            and not parts.close_wanted
            and not self._is_struck_out(link.server, loss.error)
            and parts.lifecycle.move(Status.RECONNECTING, event)
        )
        if not going_on:
            parts.lifecycle.cause = None if parts.close_wanted else loss.error
            parts.outbound.refuse(parts.closed_error)
            parts.lifecycle.report(event)
        link.fail_waiters(_gone(link, loss.error) if going_on else parts.closed_error())
        return loss.error, going_on

    def _is_struck_out(self, server: Server, error: NatsError | None) -> bool:
        """Say whether this is the same credentials error, from the same server, twice since it let us in."""
        if not isinstance(error, AuthorizationError):
            return False
        again = server.auth_error == error.text.lower()
        server.auth_error = error.text.lower()
        return again and not self._parts.options.ignore_auth_error_abort

    def _find_link(self, walk: Walk) -> tuple[Link | None, NatsError | None]:
        """Try servers until one is connected; returns the link, or None and why there will be none."""
        parts = self._parts
        while not parts.close_wanted:
            server, pause = walk.choose()
            if server is None:
                return None, walk.exhausted()
            if pause and not (self._pause(pause) and walk.is_still_wanted(server)):
                continue
            server.attempts += 1
            dropped = Dropped()
            try:
                return self._attempt(server, dropped), None
            except NatsError as exc:
                url = server.url.redacted
                walk.failures[url] = exc
                event = ReconnectFailed(parts.client, exc, url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes)
                if not parts.close_wanted:
                    parts.lifecycle.report(event)
                if self._is_struck_out(server, exc):
                    return None, exc
        return None, None

    def _attempt(self, server: Server, dropped: Dropped) -> Link:
        """Connect and restore; what is given up when that fails is added to `dropped`."""
        parts = self._parts
        link = parts.connector.connect(server)
        try:
            restore(parts, link, Reconnected if self._has_been_connected else Connected)
        except BaseException as exc:
            link.lose(exc if isinstance(exc, NatsError) else None)
            lost = parts.outbound.down()
            dropped.msgs += lost.msgs
            dropped.bytes += lost.bytes
            parts.dropped_msgs += lost.msgs
            link.end()
            link.fail_waiters(_gone(link, None))
            raise
        self._has_been_connected = True
        return link

    def _pause(self, seconds: float) -> bool:
        """Sleep; woken by close() and force_reconnect(). False when the client is to end."""
        parts = self._parts
        deadline = Deadline(seconds)
        while not parts.close_wanted and not parts.force_wanted and not deadline.expired:
            self._wakeup.wait(deadline.remaining())
        parts.force_wanted = False
        return not parts.close_wanted

    # The end.

    def finish_unstarted(self) -> None:
        """End a client that never connected; on the caller's thread."""
        self._finish(None)

    def _finish(self, error: NatsError | None) -> None:
        parts = self._parts
        parts.lifecycle.cause = error
        parts.close_wanted = True  # before anybody is woken, who may call at once
        self._end_sinks()
        dropped = parts.outbound.shut(parts.closed_error)
        parts.dropped_msgs += dropped.msgs
        link, self._link, parts.link = self._link, None, None
        url = link.url if link is not None else None
        events: list[Disconnected | Closed] = []
        if link is not None:
            if not link.is_lost:
                events.append(Disconnected(parts.client, error, url))
            link.lose(error)
            link.end()
            link.fail_waiters(parts.closed_error())
        events.append(Closed(parts.client, error, url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes))
        parts.mux.fail_all(parts.closed_error)
        parts.timer.stop()
        parts.dispatcher.stop()
        parts.lifecycle.move(Status.CLOSED, *events)
        parts.closed.open()

    def _end_sinks(self) -> None:
        parts = self._parts
        drain = parts.drain
        drained = drain is not None and drain.done and drain.error is None
        sinks = parts.registry.clear()
        for sink in (*sinks, *parts.registry.stopped()):
            if drained:  # what is unread stays readable
                sink.finish(parts.closed_error)
            else:
                sink.end(parts.closed_error)


def _gone(link: Link, cause: NatsError | None) -> NatsError:
    error = ConnectionReconnectingError("the connection was lost before the server answered", server=link.url)
    error.__cause__ = cause
    return error
