"""The user's handle of a subscription."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from natsync.core.callback_sink import CallbackSink
from natsync.core.drain import drained
from natsync.core.link import PongCallback
from natsync.core.message import Msg, from_operation
from natsync.core.parts import Parts
from natsync.core.read_sink import ReadSink
from natsync.core.threads import on_thread_of
from natsync.deadline import Deadline
from natsync.errors import (
    BadSubscriptionError,
    ConfigError,
    ConnectionClosedError,
    ForkedConnectionError,
    MaxMessagesError,
    NatsError,
    NatsTimeoutError,
)
from natsync.locks import Wakeup

__all__ = ["Subscription"]


class Subscription(AbstractContextManager["Subscription"]):
    """An interest in a subject, made by `Client.subscribe`; all methods are safe from any thread and from any callback.

    Read one without a callback by `next_msg()` or by iterating: the loop waits for messages and ends when the
    subscription ends. As a context manager it is unsubscribed at the end of the block. It survives reconnects.
    """

    def __init__(
        self,
        publish: Callable[..., None],
        parts: Parts,
        sink: CallbackSink | ReadSink,
    ) -> None:
        self._publish = publish
        self._parts = parts
        self._sink = sink

    # Facts.

    @property
    def sid(self) -> int:
        """The id that the server knows the subscription by, unique in its client."""
        return self._sink.sid

    @property
    def subject(self) -> str:
        """What was subscribed to, wildcards included."""
        return self._sink.subject

    @property
    def queue(self) -> str | None:
        """The queue group, or None."""
        return self._sink.queue

    @property
    def is_valid(self) -> bool:
        """Whether messages may still be had: not ended, or drained with some left."""
        return not self._sink.is_over

    @property
    def pending_msgs(self) -> int:
        """Messages received and not yet taken, or whose callback has not yet returned; 0 when idle."""
        return self._sink.pending_msgs

    @property
    def pending_bytes(self) -> int:
        """Bytes of headers and data of the pending messages."""
        return self._sink.pending_bytes

    @property
    def delivered(self) -> int:
        """Messages given to the callback or taken, so far."""
        return self._sink.delivered

    @property
    def dropped(self) -> int:
        """Messages dropped so far because a pending limit was reached."""
        return self._sink.dropped

    # Reading.

    def next_msg(self, timeout: float | None = None) -> Msg:
        """Return the next message; blocks until there is one. Any number of threads may wait, each message goes to one.

        Args:
            timeout: Seconds to wait at most; None, the default, waits for ever (Ctrl-C works). 0 or less only looks.

        Raises:
            NatsTimeoutError: No message came in time.
            MaxMessagesError: All of `max_msgs` messages have been taken.
            BadSubscriptionError: It has a callback, or has been unsubscribed or drained.
            ConfigError: `timeout` is no number.
            ConnectionClosedError: The client is closed.
            PermissionsError: The server refused the subscription; until the next reconnect.
            ForkedConnectionError: It belongs to the parent process.
        """
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise ConfigError(f"timeout takes seconds as a number, or None, not {timeout!r}", option="timeout")
        return from_operation(self._readable().next(timeout), self)

    def __iter__(self) -> Iterator[Msg]:
        """Iterate over the messages; each step blocks until there is one. Ends when the subscription ends.

        Raises:
            BadSubscriptionError: It has a callback.
            PermissionsError, ForkedConnectionError: As `next_msg`.
        """
        return self._loop(self._readable())

    def _loop(self, sink: ReadSink) -> Iterator[Msg]:
        thread = threading.get_ident()
        sink.enter_loop()
        try:
            while True:
                yield from_operation(sink.next(None), self)
        except (BadSubscriptionError, MaxMessagesError, ConnectionClosedError):
            return
        finally:
            sink.leave_loop(thread)

    def _readable(self) -> ReadSink:
        if isinstance(self._sink, ReadSink):
            return self._sink
        raise BadSubscriptionError(
            "this subscription has a callback; a subscription is read or has a callback, never both"
        )

    # Ending.

    def unsubscribe(self) -> None:
        """End the subscription at once; never blocks.

        Pending messages are discarded; a callback that runs is not interrupted, and none begins after this.

        Raises:
            BadSubscriptionError: It has ended already.
            ConnectionClosedError: The client is closed.
        """
        self._check_alive()
        if not self._sink.end(_unsubscribed):
            self._check_alive()

    def auto_unsubscribe(self, max_msgs: int) -> None:
        """End the subscription after `max_msgs` messages in all, those of the past included; never blocks.

        The count goes on over reconnects. If so many were delivered already it ends at once.

        Raises:
            ConfigError: `max_msgs` is no whole number above 0.
            BadSubscriptionError: It has ended already.
            ConnectionClosedError: The client is closed.
        """
        check_count("max_msgs", max_msgs)
        self._check_alive()
        self._sink.limit(max_msgs)
        self._parts.registry.limit(self._sink, max_msgs)

    def drain(self, timeout: float | None = None) -> None:
        """End the subscription without losing what the server has already sent.

        The server is told to stop; what is under way arrives. With a callback, blocks until it has run for every
        message; read ones stay readable (`next_msg` and loops end after the last), and only loops of other threads are
        waited for. From inside a callback it starts draining and returns.

        Args:
            timeout: Seconds; None for the option `drain_timeout` (30.0).

        Raises:
            ConfigError: `timeout` is no number above 0.
            NatsTimeoutError: Time is over; the subscription has been ended, and what was pending is discarded.
            BadSubscriptionError: It has ended already.
            ConnectionClosedError: The client is closed.
        """
        if timeout is not None:
            check_timeout("timeout", timeout)
        self._check_alive()
        parts = self._parts
        deadline = Deadline(parts.options.drain_timeout if timeout is None else timeout)
        done = Wakeup()
        self._sink.watch(done)
        try:
            if parts.registry.drain(self.sid):
                self._finish_after_pong()
            # else the server has sent all that it will, and the sink is at its last messages
            if not on_thread_of(parts):
                parts.about_to_wait()
                self._wait_finished(done, deadline)
        finally:
            self._sink.unwatch(done)

    def _finish_after_pong(self) -> None:
        def finish() -> None:
            self._sink.finish(drained)

        try:
            self._parts.outbound.put_ping(PongCallback(finish))
        except NatsError:
            finish()  # without a connection nothing more can come

    def _wait_finished(self, done: Wakeup, deadline: Deadline) -> None:
        me = threading.get_ident()
        while self._sink.cut_short is None and not (self._sink.is_finishing and self._sink.is_quiet(me)):
            if not done.wait(deadline.remaining()):
                self._sink.end(drained)
                raise NatsTimeoutError(
                    f"draining {self.subject!r} was not over after {deadline.timeout} s; it was ended",
                    timeout=deadline.timeout,
                )
        if self._sink.cut_short is not None:
            raise self._sink.cut_short()

    def set_pending_limits(self, msgs: int, bytes: int) -> None:
        """Set the limits of what may be pending; never blocks. Over them new messages are dropped and reported.

        Args:
            msgs: Messages; -1 for no limit.
            bytes: Bytes of headers and data; -1 for no limit.

        Raises:
            ConfigError: A limit is neither above 0 nor -1.
            ForkedConnectionError: It belongs to the parent process.
        """
        check_limit("msgs", msgs)
        check_limit("bytes", bytes)
        self._check_ours()
        self._sink.set_limits(msgs, bytes)

    def _check_ours(self) -> None:
        if self._parts.is_forked:
            raise ForkedConnectionError("this subscription belongs to the parent process; subscribe anew in the child")

    def _check_alive(self) -> None:
        self._check_ours()
        self._parts.check_open()
        if self._sink.has_ended:
            self._parts.check_open()  # it may have ended just now, by the client's end
            raise _unsubscribed()

    def _report(self, error: Exception) -> None:
        self._parts.report(error, self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sink.end(_unsubscribed)

    def __repr__(self) -> str:
        queue = f" queue={self.queue!r}" if self.queue else ""
        state = "" if self.is_valid else " ended"
        return f"<Subscription {self.sid} {self.subject!r}{queue}{state}>"


def check_count(option: str, value: object) -> None:
    """Raise ConfigError unless `value` is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{option} takes a whole number above 0, not {value!r}", option=option)


def check_limit(option: str, value: object) -> None:
    """Raise ConfigError unless `value` is a whole number above 0, or -1."""
    if not isinstance(value, int) or isinstance(value, bool) or not (value > 0 or value == -1):
        raise ConfigError(f"{option} takes a whole number above 0, or -1 for no limit, not {value!r}", option=option)


def check_timeout(option: str, value: object) -> None:
    """Raise ConfigError unless `value` is a finite number above 0."""
    if (type(value) is float or type(value) is int) and 0 < value < math.inf:
        return  # the usual case; it is looked at in every call that waits
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"{option} takes seconds as a number above 0, not {value!r}", option=option)


def _unsubscribed() -> NatsError:
    return BadSubscriptionError("the subscription has ended")
