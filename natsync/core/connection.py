"""What a client can do: the verbs of core NATS.

Checks what the user gives, encodes it, and hands it to the part that does the work; holds no state of its own but the
engine of this process. What a client *is* stands in `facts`.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar

from natsync.core import process
from natsync.core.callback_sink import CallbackSink
from natsync.core.drain import Drain
from natsync.core.engine import Engine
from natsync.core.facts import Facts
from natsync.core.handler import make_handler
from natsync.core.link import PingWaiter
from natsync.core.message import HeadersLike, Msg, as_bytes
from natsync.core.mux import ReplyWaiter, read_reply
from natsync.core.read_sink import ReadSink
from natsync.core.request_future import RequestFuture
from natsync.core.request_many import Replies
from natsync.core.subscription import Subscription, check_count, check_limit
from natsync.core.threads import on_thread_of
from natsync.deadline import Deadline
from natsync.errors import (
    BadHeaderError,
    ConfigError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    MaxPayloadError,
    NatsTimeoutError,
)
from natsync.nuid import next_nuid
from natsync.policy.options import Options, make_options
from natsync.policy.status import Status
from natsync.protocol.commands import encode_hpub, encode_pub
from natsync.protocol.header_block import encode_header_block
from natsync.subjects import check_publish_subject, check_queue, check_subscribe_subject, encode_subject

__all__ = ["Connection"]

_Self = TypeVar("_Self", bound="Connection")
_MANY_SUBJECTS = 1024
# close() is bounded by the supervisor's goodbye (2 s) and the joining of threads.
_CLOSE_TIMEOUT = 5.0


class Connection(Facts):
    """A client of core NATS; `natsync.connect` makes it. All methods are safe from any thread and from any callback."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engine = Engine(self, options)
        self._subjects: dict[str, bytes] = {}
        process.track(self)

    # Publishing.

    def publish(
        self, subject: str, data: bytes = b"", *, reply: str | None = None, headers: HeadersLike | None = None
    ) -> None:
        """Publish a message; it is sent soon, and `flush()` says when the server has it.

        Does not block, unless `pending_size` bytes wait to be sent: then at most `write_timeout`. While the connection
        is lost the message waits in the reconnect buffer. Delivery is at most once: what a lost connection had taken is
        not sent again.

        Args:
            subject: Where to.
            data: The payload: any bytes-like object, copied.
            reply: The subject that answers should go to.
            headers: A `Headers`, or a mapping of `str` to `str` or to a sequence of `str`.

        Raises:
            BadSubjectError, BadHeaderError: `subject`, `reply` or a header cannot be written.
            TypeError: `data` is not bytes-like; text must be encoded.
            MaxPayloadError: Headers and data together are larger than the server takes.
            OutboundBufferLimitError: The connection is lost, and the reconnect buffer has no room.
            NatsTimeoutError: `pending_size` bytes have been waiting for `write_timeout` seconds.
            ConnectionClosedError, ConnectionDrainingError: The client takes no more.
        """
        self._send(subject, data, reply, headers)

    def publish_msg(self, msg: Msg) -> None:
        """Publish a message object: its subject, data, reply and headers; otherwise as `publish`."""
        self._send(msg.subject, msg.data, msg.reply, msg.headers)

    def _send(
        self,
        subject: str,
        data: bytes,
        reply: str | None,
        headers: HeadersLike | None,
        *,
        wait: Deadline | None = None,
    ) -> None:
        """Encode and hand over; with `wait` the caller waits for the answer until then, so that it sends at once."""
        engine = self._engine
        if type(data) is not bytes:
            data = as_bytes(data)
        to = self._subjects.get(subject) or self._learn(subject)
        reply_to = None if reply is None else self._subjects.get(reply) or _encode_reply(reply)
        size = len(data)
        if headers is None:
            frame = encode_pub(to, reply_to, data)
        else:
            block = self._encode_headers(headers)
            size += len(block)
            frame = encode_hpub(to, reply_to, block, data)
        while True:
            if size > engine.max_payload and engine.max_payload:
                engine.check_open()
                raise MaxPayloadError(size, engine.max_payload)
            if engine.outbound.put(frame, size, push=wait is not None, deadline=wait):
                return
            engine.awake()

    def _learn(self, subject: str) -> bytes:
        check_publish_subject(subject)
        if len(self._subjects) >= _MANY_SUBJECTS:
            self._subjects.clear()
        encoded = self._subjects[subject] = encode_subject(subject)
        return encoded

    def _encode_headers(self, headers: HeadersLike) -> bytes:
        info = self._engine.info
        if info is not None and not info.headers:
            raise BadHeaderError("the server does not support headers", option="headers")
        return encode_header_block(headers)

    # Subscribing.

    def subscribe(
        self,
        subject: str,
        *,
        queue: str | None = None,
        cb: Callable[[Msg], object] | None = None,
        max_msgs: int | None = None,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
        workers: int = 1,
    ) -> Subscription:
        """Subscribe; does not block. Without `cb` the subscription is read (`next_msg`, iteration).

        Messages published after a following `flush()` by anybody are certain to arrive. A callback runs on one of the
        client's threads (at most `callback_workers`), in order and one at a time per subscription; what it raises is
        logged and reported to `error_cb`, and the next message follows. It may block and use the client freely.

        Args:
            subject: With `*` for one token and a last `>` for one or more.
            queue: Share the messages with the other members of this group.
            cb: Called with each `Msg`.
            max_msgs: End after so many messages.
            pending_msgs_limit: Most messages pending; -1 for no limit, None for the option of the same name.
            pending_bytes_limit: Most bytes pending; likewise.
            workers: Run the callback for so many messages at once; order is given up then.

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
            sink.handle = make_handler(engine, subscription, cb)
            engine.dispatcher.add(workers)
        engine.enter(sink, subscription)
        return subscription

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, for replies."""
        return f"{self._options.inbox_prefix}.{next_nuid()}"

    # Requests.

    def request(
        self, subject: str, data: bytes = b"", *, timeout: float | None = None, headers: HeadersLike | None = None
    ) -> Msg:
        """Publish a request and return the first reply; blocks until it is there, at most `timeout` seconds.

        Works inside callbacks. While the connection is lost it goes on waiting.

        Args:
            subject: Where to.
            data: The payload, bytes-like.
            timeout: Seconds for everything; None for the option `request_timeout`.
            headers: As in `publish`.

        Raises:
            NoRespondersError: Nobody listens on the subject; at once.
            NatsTimeoutError: No reply came in time.
            ConnectionClosedError: The client is, or was meanwhile, closed.
            Others: As `publish`.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.request_timeout)
        waiter = ReplyWaiter()
        token, inbox = engine.mux.enter(waiter)
        try:
            self._send(subject, data, inbox, headers, wait=deadline)
            operation = waiter.wait(deadline.remaining())
        finally:
            engine.mux.leave(token)
        if operation is None:
            raise NatsTimeoutError(f"no reply from {subject!r} within {deadline.timeout} s", timeout=deadline.timeout)
        return read_reply(operation, subject)

    def request_future(
        self, subject: str, data: bytes = b"", *, timeout: float | None = None, headers: HeadersLike | None = None
    ) -> concurrent.futures.Future[Msg]:
        """Publish a request and return a future for its reply at once; for asking many services from one thread.

        The future fails with what `request` would raise; callbacks added to it run on a worker of the client. Blocks
        only as `publish` does, and raises what `publish` raises.

        Args:
            subject: Where to.
            data: The payload, bytes-like.
            headers: As in `publish`.
            timeout: Seconds until the future fails with NatsTimeoutError; None for the option `request_timeout`.
        """
        engine = self._ready()
        deadline = self._deadline(timeout, self._options.request_timeout)
        future = RequestFuture(engine.mux, engine.dispatcher, subject, deadline)
        try:
            self._send(subject, data, future.inbox, headers, wait=deadline)
            engine.timer.add(future)
        except BaseException:
            engine.mux.leave(future.token)
            raise
        return future

    def request_many(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        max_msgs: int | None = None,
        stall: float | None = None,
        sentinel: Callable[[Msg], bool] | None = None,
        headers: HeadersLike | None = None,
    ) -> Replies:
        """Publish a request and iterate over its replies; each step blocks until one comes [ADR-47].

        The request is published at once. The loop ends at `timeout`, after `max_msgs` replies, when nothing came for
        `stall` seconds after a reply, or at the first reply for which `sentinel(msg)` is true (it is not yielded).
        Leave a loop early with `close()`, or use the result as a context manager.

        Args:
            subject: Where to.
            data: The payload, bytes-like.
            headers: As in `publish`.
            timeout: Seconds for everything; None for the option `request_timeout`.
            max_msgs: Most replies; None for no limit.
            stall: Seconds; None for no limit.
            sentinel: Says of a reply that it is the end.

        Raises:
            NoRespondersError: Nobody listens on the subject; in the first step.
            ConnectionClosedError: The client was closed; in a step.
            Others: As `publish`, at once.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.request_timeout)
        if max_msgs is not None:
            check_count("max_msgs", max_msgs)
        if stall is not None:
            _check_timeout("stall", stall)
        replies = Replies(engine.mux, subject, deadline=deadline, max_msgs=max_msgs, stall=stall, sentinel=sentinel)
        try:
            self._send(subject, data, replies.inbox, headers, wait=deadline)
        except BaseException:
            replies.close()
            raise
        return replies

    # Waiting for the server.

    def flush(self, timeout: float | None = None) -> None:
        """Block until the server has processed everything that was sent before: publishes, subscribes, unsubscribes.

        Args:
            timeout: Seconds; None for the option `flush_timeout`.

        Raises:
            NatsTimeoutError: The server did not answer in time.
            ConnectionReconnectingError: The connection was lost meanwhile. (A flush begun without one waits for it.)
            ConnectionClosedError: The client is, or was meanwhile, closed.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.flush_timeout)
        self._ping(engine, deadline, park=True)

    def rtt(self, timeout: float | None = None) -> float:
        """Return the seconds from sending a PING to the server's answer; blocks for that long.

        Args:
            timeout: Seconds; None for the option `flush_timeout`.

        Raises:
            ConnectionReconnectingError: There is no connection, or it was lost meanwhile.
            NatsTimeoutError, ConnectionClosedError: As `flush`.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.flush_timeout)
        waiter = self._ping(engine, deadline, park=False)
        return waiter.pong_at - waiter.sent_at

    def _ping(self, engine: Engine, deadline: Deadline, *, park: bool) -> PingWaiter:
        waiter = PingWaiter()
        engine.outbound.put_ping(waiter, park=park, push=True)
        answered = False
        try:
            answered = waiter.wait(deadline.remaining())
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
        urls = make_options(servers, {}).servers
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
            timeout: Seconds for all of it; None for the option `drain_timeout`.

        Raises:
            NatsTimeoutError: It was not over in time; the client has been closed all the same.
            ConnectionReconnectingError: There was no connection; the client has been closed.
            ConnectionClosedError: The client is closed already, or the connection was lost while draining.
        """
        engine = self._engine
        engine.check_open()
        deadline = self._deadline(timeout, self._options.drain_timeout)
        drain = Drain(engine, deadline, threading.get_ident())
        if engine.lifecycle.move(Status.DRAINING_SUBS, only_from=Status.CONNECTED):
            engine.drain = drain
            engine.wakeup.set()
        elif not self.is_draining:
            self.close()
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

    def close(self) -> None:
        """End the client at once.

        What was published is sent (for at most 2 s), the connection is closed, and every waiting call is woken with
        `ConnectionClosedError`. Messages pending in subscriptions are discarded; a callback that runs is not
        interrupted.

        Blocks until the connection and the threads are gone, at most some 5 s; from inside a callback it starts closing
        and returns. Never raises; a second call only waits.
        """
        engine = self._engine
        if not engine.closed.is_set():
            engine.request_close(muted=self._options.no_callbacks_after_close)
        engine.wait_ended(_CLOSE_TIMEOUT)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block until the client is closed, by whomever, and say whether it is.

        Args:
            timeout: Seconds; None, the default, waits for ever (Ctrl-C works).
        """
        engine = self._engine
        if on_thread_of(engine, "supervisor"):
            return engine.closed.is_set()
        return engine.closed.wait(timeout)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drain after success, close after an exception; nothing if that has been done already."""
        if error is not None or self._engine.close_wanted:
            self.close()
        else:
            self.drain()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a natsync.Client cannot be pickled; connect anew where it is needed")

    # Helpers.

    def _ready(self) -> Engine:
        engine = self._engine
        engine.check_open()
        engine.awake()
        return engine

    def _ready_to_wait(self) -> Engine:
        engine = self._ready()
        if on_thread_of(engine, "supervisor"):
            raise ConnectionReconnectingError(
                "a callback that natsync asks while connecting cannot wait for the connection being made"
            )
        return engine

    def _deadline(self, timeout: float | None, default: float) -> Deadline:
        if timeout is None:
            return Deadline(default)
        _check_timeout("timeout", timeout)
        return Deadline(timeout)


def _check_timeout(option: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"{option} takes seconds as a number above 0, not {value!r}", option=option)


def _encode_reply(reply: str) -> bytes:
    check_publish_subject(reply, "reply")
    return encode_subject(reply)
