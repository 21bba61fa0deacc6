"""The supervisor: the only one that opens and closes links, once the first is there.

Knows when to send, ping, lose, walk, pause, drain and end. Waits only on its wake-up and, in slices, on a full socket
(and in dialling, which `Connector.abort` cuts short). Runs no user code but the dialer, delay, server-choice and
credential callbacks.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from natsync.core.batch import Dropped
from natsync.core.link import Link, PongCallback
from natsync.core.outbound import Pumped
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
from natsync.events import Closed, Connected, Disconnected, DiscoveredServers, LameDuck, Reconnected, ReconnectFailed
from natsync.policy.pool import Server
from natsync.policy.status import Status

if TYPE_CHECKING:
    from natsync.core.drain import Drain
    from natsync.core.engine import Engine

__all__ = ["Supervisor"]

_log = logging.getLogger("natsync.supervisor")

_SLICE = 0.05
# What close() grants the last bytes: for being sent, and for the server's word that it has them.
_GOODBYE = 2.0
_LATE_GOODBYE = 0.25  # after a drain that took all its time
# While another thread sends, the supervisor looks after it in this interval.
_LOOK_AFTER = 0.2


class Supervisor:
    """See the module."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wakeup = engine.wakeup
        self._link: Link | None = None
        self._has_been_connected = False
        self.is_started = False
        self.thread = ClientThread(engine, engine.label, "supervisor", self._run)

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
        engine = self._engine
        while True:
            link = self._link
            lost: Server | None = None
            if link is not None:
                self._serve(link)
                if engine.close_wanted and not link.is_lost:
                    self._say_goodbye(link)
                if engine.close_wanted and not link.is_lost:
                    return None
                error, going_on = self._lose(link)
                if not going_on:
                    return None if engine.close_wanted else error
                lost = link.server
            self._link = None
            link, error = self._find_link(Walk(engine, lost))
            if link is None:
                return error
            self._link = link

    # A live link.

    def _serve(self, link: Link) -> None:
        engine = self._engine
        outbound = engine.outbound
        interval = engine.options.ping_interval
        now = time.monotonic()
        ping_at = now + interval
        progress_at = now
        sent_bytes = sent_at_ping = outbound.sent_bytes
        while not link.is_lost:
            self._read_news()
            if engine.drain is not None:
                self._step_drain(engine.drain)
            if engine.close_wanted:
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

    def _step_drain(self, drain: Drain) -> None:
        drain.step()
        if drain.done and not self._engine.close_wanted:
            if drain.error is not None:
                self._engine.report(drain.error)
            self._engine.request_close()

    def _sleep(self, timeout: float, *, looking_after: bool) -> None:
        engine = self._engine
        if engine.drain is not None:
            timeout = min(timeout, engine.drain.deadline.remaining())
        if looking_after:
            engine.outbound.check_token()
            timeout = min(timeout, _LOOK_AFTER)
        if engine.outbound.sleep():
            self._wakeup.wait(max(0.0, timeout))
            engine.outbound.awake()

    def _wait_writable(self, link: Link, stalled: float) -> None:
        timeout = self._engine.options.write_timeout
        if stalled > timeout:
            link.lose(NatsTimeoutError(f"{link.url} took no bytes for {timeout} s", timeout=timeout))
            return
        try:
            link.transport.wait_writable(_SLICE)
        except NatsError as exc:
            link.lose(exc)

    def _keep_alive(self, link: Link, *, backlog_moves: bool) -> None:
        unanswered = link.pings_out
        if backlog_moves:
            return  # a PING would wait in the queue; bytes that the server takes are a sign of life too
        if unanswered >= self._engine.options.max_outstanding_pings:
            link.lose(StaleConnectionError(f"{link.url} left {unanswered} PINGs unanswered", server=link.url))
            return
        link.pings_out = unanswered + 1
        self._engine.outbound.put_ping(None)

    def _read_news(self) -> None:
        engine = self._engine
        while engine.news:
            link, info = engine.news.popleft()
            fresh = engine.take_info(link.server, info)
            if fresh:
                urls = tuple(server.url.redacted for server in fresh)
                engine.lifecycle.report(DiscoveredServers(engine.client, server=link.url, urls=urls))
            if info.ldm:
                engine.lifecycle.report(LameDuck(engine.client, server=link.url))

    def _say_goodbye(self, link: Link) -> None:
        """Send what was published, and wait for the server's word that it has it.

        Closing a socket while bytes from the server are unread resets the connection, and that may cost what is under
        way.
        """
        outbound = self._engine.outbound
        drain = self._engine.drain
        confirmed = outbound.out_msgs == 0 or (drain is not None and drain.error is None)
        answered: list[bool] = [confirmed]

        def pong() -> None:
            answered[0] = True
            self._wakeup.set()

        if not confirmed:
            outbound.put_ping(PongCallback(pong))
        deadline = Deadline(_GOODBYE if drain is None or drain.error is None else _LATE_GOODBYE)
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
        engine = self._engine
        dropped = engine.outbound.down()
        link.end()
        loss = link.loss
        engine.link = None
        engine.dropped_msgs += dropped.msgs
        gone = ConnectionReconnectingError("the connection was lost before the server answered", server=link.url)
        gone.__cause__ = loss.error
        link.fail_waiters(gone)
        event = Disconnected(
            engine.client, loss.error, link.url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes
        )
        forced = engine.force_wanted
        going_on = (
            (engine.options.allow_reconnect or forced)
            and not loss.final
            and not engine.close_wanted
            and not self._is_struck_out(link.server, loss.error)
            and engine.lifecycle.move(Status.RECONNECTING, event)
        )
        if not going_on:
            engine.lifecycle.cause = None if engine.close_wanted else loss.error
            engine.outbound.refuse(engine.closed_error)
            engine.lifecycle.report(event)
        return loss.error, going_on

    def _is_struck_out(self, server: Server, error: NatsError | None) -> bool:
        """Say whether this is the same credentials error, from the same server, twice since it let us in."""
        if not isinstance(error, AuthorizationError):
            return False
        again = server.auth_error == error.text.lower()
        server.auth_error = error.text.lower()
        return again and not self._engine.options.ignore_auth_error_abort

    def _find_link(self, walk: Walk) -> tuple[Link | None, NatsError | None]:
        """Try servers until one is connected; returns the link, or None and why there will be none."""
        engine = self._engine
        while not engine.close_wanted:
            server, pause = walk.choose()
            if server is None:
                return None, walk.exhausted()
            if pause and not self._pause(pause):
                continue
            server.attempts += 1
            dropped = Dropped()
            try:
                return self._attempt(server, dropped), None
            except NatsError as exc:
                url = server.url.redacted
                walk.failures[url] = exc
                event = ReconnectFailed(engine.client, exc, url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes)
                if not engine.close_wanted:
                    engine.lifecycle.report(event)
                if self._is_struck_out(server, exc):
                    return None, exc
        return None, None

    def _attempt(self, server: Server, dropped: Dropped) -> Link:
        """Connect and restore; what is given up when that fails is added to `dropped`."""
        engine = self._engine
        link = engine.connector.connect(server)
        try:
            restore(engine, link, Reconnected if self._has_been_connected else Connected)
        except BaseException as exc:
            link.lose(exc if isinstance(exc, NatsError) else None)
            lost = engine.outbound.down()
            dropped.msgs += lost.msgs
            dropped.bytes += lost.bytes
            engine.dropped_msgs += lost.msgs
            link.end()
            raise
        self._has_been_connected = True
        return link

    def _pause(self, seconds: float) -> bool:
        """Sleep; woken by close() and force_reconnect(). False when the client is to end."""
        engine = self._engine
        deadline = Deadline(seconds)
        while not engine.close_wanted and not engine.force_wanted and not deadline.expired:
            self._wakeup.wait(deadline.remaining())
        engine.force_wanted = False
        return not engine.close_wanted

    # The end.

    def finish_unstarted(self) -> None:
        """End a client that never connected; on the caller's thread."""
        self._finish(None)

    def _finish(self, error: NatsError | None) -> None:
        engine = self._engine
        engine.lifecycle.cause = error
        self._end_sinks()
        dropped = engine.outbound.shut(engine.closed_error)
        engine.dropped_msgs += dropped.msgs
        link, self._link, engine.link = self._link, None, None
        url = link.url if link is not None else None
        events: list[Disconnected | Closed] = []
        if link is not None:
            if not link.is_lost:
                events.append(Disconnected(engine.client, error, url))
            link.lose(error)
            link.end()
            link.fail_waiters(engine.closed_error())
        events.append(Closed(engine.client, error, url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes))
        engine.mux.fail_all(engine.closed_error)
        engine.timer.stop()
        engine.dispatcher.stop()
        engine.lifecycle.move(Status.CLOSED, *events)
        engine.closed.set()

    def _end_sinks(self) -> None:
        engine = self._engine
        drain = engine.drain
        drained = drain is not None and drain.done and drain.error is None
        for sink in engine.registry.clear():
            engine.slow_drops += sink.dropped
            if drained:  # what is unread stays readable
                sink.finish(engine.closed_error)
            else:
                sink.end(engine.closed_error)
