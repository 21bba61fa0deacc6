"""What else a client can do: subscribe, wait for the server, move to another one, end.

Checks what the user gives, and hands it to the part that does the work. What a client sends stands in `publisher`, what
it *is* in `facts`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import TypeVar

from natsync.core.callback_sink import CallbackSink
from natsync.core.drain import Drain
from natsync.core.engine import Engine
from natsync.core.handler import Handler, Wrapper, make_handler, wrapped
from natsync.core.link import PingWaiter
from natsync.core.outbound import Mode
from natsync.core.publisher import Publisher
from natsync.core.read_sink import ReadSink
from natsync.core.subscription import Subscription, check_count, check_limit
from natsync.core.threads import interrupts_natsync, on_thread_of
from natsync.deadline import Deadline
from natsync.errors import (
    ConfigError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsTimeoutError,
)
from natsync.policy.options import Options, make_options
from natsync.policy.status import Status
from natsync.subjects import check_queue, check_subscribe_subject

__all__ = ["Connection"]

_Self = TypeVar("_Self", bound="Connection")
# close() is bounded by the supervisor's goodbye (2 s) and the joining of threads.
_CLOSE_TIMEOUT = 5.0


class Connection(Publisher):
    """A client of core NATS; `natsync.connect` makes it. All methods are safe from any thread and from any callback."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._wrappers: list[Wrapper] = []

    # Subscribing.

    def subscribe(
        self,
        subject: str,
        *,
        queue: str | None = None,
        cb: Handler | None = None,
        max_msgs: int | None = None,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
        workers: int = 1,
    ) -> Subscription:
        """Subscribe; does not block. Without `cb` the subscription is read (`next_msg`, iteration).

        Messages published after a following `flush()` by anybody are certain to arrive. A callback runs on one of the
        client's threads (at most `callback_workers`), in order and one at a time per subscription; what it raises is
        logged and reported to `error_cb`, and the next message follows. It may block and use the client freely. It runs
        in a copy of the context variables captured at this call, a fresh one for each message [contextvars].

        Args:
            subject: With `*` for one token and a last `>` for one or more.
            queue: Share the messages with the other members of this group.
            cb: Called with each `Msg`.
            max_msgs: End after so many messages.
            pending_msgs_limit: Most messages pending; -1 for no limit, None for the option of the same name.
            pending_bytes_limit: Most bytes pending; likewise.
            workers: Run the callback for so many messages at once; order is given up then.

        Returns:
            The subscription. The server hears of it soon; `flush()` says when it has.

        Raises:
            BadSubjectError, BadQueueError, ConfigError, TypeError: An argument cannot be used.
            ConnectionClosedError, ConnectionDrainingError: The client takes no more subscriptions.
        """
        check_subscribe_subject(subject)
        if queue is not None:
            check_queue(queue)
        if cb is not None and not callable(cb):
            raise TypeError(f"cb takes a callable, not {type(cb).__name__}")
        if max_msgs is not None:
            check_count("max_msgs", max_msgs)
        check_count("workers", workers)
        if workers > 1 and cb is None:
            raise ConfigError("workers needs cb: a subscription that is read has as many workers as threads read it")
        msgs_limit = self._options.pending_msgs_limit if pending_msgs_limit is None else pending_msgs_limit
        bytes_limit = self._options.pending_bytes_limit if pending_bytes_limit is None else pending_bytes_limit
        check_limit("pending_msgs_limit", msgs_limit)
        check_limit("pending_bytes_limit", bytes_limit)
        engine = self._ready()
        if self.is_draining:
            raise ConnectionDrainingError("the client is draining and takes no more subscriptions")
        sid = engine.registry.next_sid()
        sink: CallbackSink | ReadSink
        if cb is None:
            sink = ReadSink(sid, subject, queue, msgs_limit=msgs_limit, bytes_limit=bytes_limit, max_msgs=max_msgs)
        else:
            sink = CallbackSink(
                sid,
                subject,
                queue,
                dispatcher=engine.dispatcher,
                workers=workers,
                msgs_limit=msgs_limit,
                bytes_limit=bytes_limit,
                max_msgs=max_msgs,
            )
        subscription = Subscription(self.publish, engine, sink)
        if isinstance(sink, CallbackSink) and cb is not None:
            sink.handle = make_handler(engine, subscription, wrapped(cb, self._wrappers))
            engine.dispatcher.add(workers)
        engine.enter(sink, subscription)
        return subscription

    def with_handler(self, wrap: Wrapper) -> None:
        """Have `wrap(msg, call)` run around the callback of every subscription made from now on; does not block.

        For what has to happen around each message: database connections, tracing, logging. `call(msg)` runs the next
        wrapper, or the callback itself; the first one added is outermost. It runs on the callback's thread and in its
        context variables, and whatever it raises is treated as if the callback had raised it. Wrappers are put around a
        callback once, by `subscribe`, so unused they cost nothing. A forked child's client has them too.

        Args:
            wrap: Called with each `Msg` and what to call with it.

        Raises:
            TypeError: `wrap` cannot be called.
        """
        if not callable(wrap):
            raise TypeError(f"with_handler takes a callable, not {type(wrap).__name__}")
        self._wrappers.append(wrap)

    # Waiting for the server.

    def flush(self, timeout: float | None = None) -> None:
        """Block until the server has processed everything that was sent before: publishes, subscribes, unsubscribes.

        Sends a PING, which the server answers in turn. It says nothing of subscribers.

        Args:
            timeout: Seconds; None for the option `flush_timeout` (10.0).

        Raises:
            NatsTimeoutError: The server did not answer in time.
            ConnectionReconnectingError: The connection was lost meanwhile. (A flush begun without one waits for it.)
            ConnectionClosedError: The client is, or was meanwhile, closed.
            ConfigError: `timeout` is no number above 0.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.flush_timeout)
        self._ping(engine, deadline, park=True)
        engine.outbound.settle()  # the answer may be faster than the sender's way back from the system call

    def rtt(self, timeout: float | None = None) -> float:
        """Return the seconds from sending a PING to the server's answer; blocks for that long.

        Args:
            timeout: Seconds; None for the option `flush_timeout` (10.0).

        Raises:
            ConnectionReconnectingError: There is no connection, or it was lost meanwhile.
            NatsTimeoutError, ConnectionClosedError, ConfigError: As `flush`.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.flush_timeout)
        waiter = self._ping(engine, deadline, park=False)
        return waiter.pong_at - waiter.sent_at

    def _ping(self, engine: Engine, deadline: Deadline, *, park: bool) -> PingWaiter:
        waiter = PingWaiter()
        engine.outbound.put_ping(waiter, park=park, wake=False)
        answered = False
        try:
            engine.push_and_read_for(waiter, deadline.remaining())
            answered = engine.wait_for(waiter, deadline)
        finally:
            if not answered and park:
                engine.outbound.unpark(waiter)
        if not answered:
            raise NatsTimeoutError(f"the server did not answer within {deadline.timeout} s", timeout=deadline.timeout)
        if waiter.error is not None:
            raise waiter.error
        return waiter

    def force_reconnect(self) -> None:
        """Drop the connection and make a new one, without the pause before the first attempt; does not block.

        Without a connection, the pause under way is cut short. Works also with `allow_reconnect=False`.

        Raises:
            ConnectionClosedError, ConnectionDrainingError: The client is at its end.
        """
        engine = self._ready()
        if self.is_draining:
            raise ConnectionDrainingError("the client is draining and does not connect again")
        engine.force_wanted = True
        link = engine.link
        if link is not None:
            engine.outbound.push()
            link.lose(None)
        engine.wakeup.set()

    def set_server_pool(self, servers: str | Iterable[str]) -> None:
        """Replace the servers that are tried from now on; does not block, and leaves the present connection alone.

        Servers that stay keep their count of attempts. What the cluster advertises later is added again, unless
        `ignore_discovered_servers` is set. Call `force_reconnect()` to move at once [ADR-40, nats.go SetServerPool].

        Args:
            servers: As in `connect`.

        Raises:
            ConfigError: A URL cannot be used; nothing is changed then.
            ConnectionClosedError: The client is closed.
        """
        engine = self._engine
        engine.check_open()
        urls = make_options(servers, {"tls": False} if engine.options.tls is False else {}).servers
        engine.connector.secure |= any(url.scheme == "tls" for url in urls)
        with engine.pool_lock:
            engine.pool.replace(urls)

    # Ending.

    def drain(self, timeout: float | None = None) -> None:
        """End the client without losing a message.

        Subscriptions stop and finish what they have, requests get their replies, what was published is confirmed by the
        server; then the client is closed, whatever happened.

        Blocks until all that is done. Callbacks are waited for, and other threads that loop over a subscription;
        messages of read subscriptions that nobody loops over stay readable afterwards. From inside a callback it starts
        draining and returns. While the client drains already, waits for that.

        Args:
            timeout: Seconds for all of it; None for the option `drain_timeout` (30.0).

        Raises:
            NatsTimeoutError: It was not over in time; the client has been closed all the same.
            ConfigError: `timeout` is no number above 0; the client is not drained.
            ConnectionReconnectingError: There was no connection; the client has been closed.
            ConnectionClosedError: The client is closed already, or the connection was lost while draining.
        """
        engine = self._engine
        engine.check_open()
        deadline = self._deadline(timeout, self._options.drain_timeout)
        if engine.outbound.mode is Mode.DORMANT:
            self._close()  # a forked child's, never used: there is nothing to drain
            return
        if engine.outbound.mode is Mode.FLUSHING:
            self._wait_restored(engine, deadline)
        drain = Drain(engine, deadline, threading.get_ident())
        if engine.lifecycle.move(Status.DRAINING_SUBS, only_from=Status.CONNECTED):
            engine.drain = drain
            engine.wakeup.set()
        elif not self.is_draining:
            self._close()
            raise ConnectionReconnectingError("there was no connection to drain; the client has been closed")
        if on_thread_of(engine):
            return
        if not engine.wait_ended(deadline.remaining() + _CLOSE_TIMEOUT):
            raise NatsTimeoutError(f"draining was not over after {deadline.timeout} s", timeout=deadline.timeout)
        ended = engine.drain
        if ended is not None and ended.error is not None:
            raise ended.error
        if engine.lifecycle.cause is not None:
            raise ConnectionClosedError("the connection was lost while draining") from engine.lifecycle.cause
        if ended is None or not ended.done:
            raise ConnectionClosedError("the client was closed before it was drained")

    def _wait_restored(self, engine: Engine, deadline: Deadline) -> None:
        """A new connection is there, and messages may have come by it, but the client is not yet called connected."""
        with contextlib.suppress(ConnectionReconnectingError, NatsTimeoutError):
            self._ping(engine, deadline, park=True)

    def close(self) -> None:
        """End the client at once.

        What was published is sent (for at most 2 s), the connection is closed, and every waiting call is woken with
        `ConnectionClosedError`. Messages pending in subscriptions are discarded; a callback that runs is not
        interrupted.

        Blocks until the connection and the threads are gone, at most some 5 s; from inside a callback it starts closing
        and returns. Never raises; a second call only waits. Safe in a signal handler: one that interrupts a call of
        natsync cannot wait for it, so there, too, it starts closing and returns.
        """
        if interrupts_natsync(sys._getframe(1)):
            self._engine.lane.muted |= self._options.no_callbacks_after_close
            self._engine.wish_end()
        else:
            self._close()

    def _close(self) -> None:
        engine = self._engine
        if not engine.closed.is_open:
            engine.request_close(muted=self._options.no_callbacks_after_close)
        engine.wait_ended(_CLOSE_TIMEOUT)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the client is closed, by whomever, and say whether it is.

        Args:
            timeout: Seconds; None, the default, waits for ever (Ctrl-C works).

        Returns:
            Whether the client is closed; False when time was over before.

        Raises:
            ConfigError: `timeout` is no number.
        """
        engine = self._engine
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise ConfigError(f"timeout takes seconds as a number, or None, not {timeout!r}", option="timeout")
        if on_thread_of(engine, "supervisor"):
            return engine.closed.is_open
        engine.about_to_wait()
        return engine.closed.wait(Deadline(timeout).remaining())

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain after success, close after an exception; nothing if the user has done either already.

        Raises:
            NatsError: What `drain()` raises; so a client that has come to its end by itself is no success.
        """
        if error is not None or self._engine.ended_by_wish:
            self._close()
        else:
            self.drain()

    def __del__(self) -> None:
        # On any thread, at any moment: no lock, no join. Subscriptions, requests and loops hold their client, so that
        # nobody can get at a connection that ends here.
        engine = getattr(self, "_engine", None)
        if engine is not None and engine.is_unattended:
            engine.wish_end()
            warnings.warn(
                f"unclosed {self!r}; call close() or drain(), or use it as a context manager",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a natsync.Client cannot be pickled; connect anew where it is needed")
