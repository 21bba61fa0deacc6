"""What a client sends: publishes and requests.

Checks what the user gives, encodes it, and hands it to the outbound buffer; who waits for a reply waits in the mux.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

from natsync.core.engine import Engine
from natsync.core.facts import Facts
from natsync.core.message import DataLike, HeadersLike, Msg, as_bytes
from natsync.core.mux import ReplyWaiter, read_reply
from natsync.core.request_future import RequestFuture
from natsync.core.request_many import Replies
from natsync.core.subscription import check_count, check_timeout
from natsync.core.threads import on_thread_of
from natsync.deadline import Deadline
from natsync.errors import (
    BadHeaderError,
    ConnectionReconnectingError,
    MaxPayloadError,
    NatsTimeoutError,
)
from natsync.nuid import next_nuid
from natsync.policy.options import Options
from natsync.protocol.commands import encode_hpub, encode_pub
from natsync.protocol.header_block import encode_header_block
from natsync.subjects import check_publish_subject, encode_subject

__all__ = ["Publisher"]

_MANY_SUBJECTS = 1024


class Publisher(Facts):
    """Base of `Connection`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engine = Engine(self, options)
        self._subjects: dict[str, bytes] = {}

    # Publishing.

    def publish(
        self, subject: str, data: DataLike = b"", *, reply: str | None = None, headers: HeadersLike | None = None
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
        """Publish a message object: its subject, data, reply and headers.

        Raises:
            Others: As `publish`.
        """
        self._send(msg.subject, msg.data, msg.reply, msg.headers)

    def _send(
        self,
        subject: str,
        data: DataLike,
        reply: str | None,
        headers: HeadersLike | None,
        *,
        wait: Deadline | None = None,
    ) -> None:
        """Encode and hand over; with `wait` the caller waits for the answer until then, so that it sends at once."""
        engine = self._engine
        payload = data if type(data) is bytes else as_bytes(data)
        to = self._subjects.get(subject) or self._learn(subject)
        reply_to = None if reply is None else self._subjects.get(reply) or _encode_reply(reply)
        size = len(payload)
        if headers is None:
            frame = encode_pub(to, reply_to, payload)
        else:
            block = self._encode_headers(headers)
            size += len(block)
            frame = encode_hpub(to, reply_to, block, payload)
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

    # Requests.

    def request(
        self, subject: str, data: DataLike = b"", *, timeout: float | None = None, headers: HeadersLike | None = None
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
        self, subject: str, data: DataLike = b"", *, timeout: float | None = None, headers: HeadersLike | None = None
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
        data: DataLike = b"",
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
            check_timeout("stall", stall)
        replies = Replies(engine.mux, subject, deadline=deadline, max_msgs=max_msgs, stall=stall, sentinel=sentinel)
        try:
            self._send(subject, data, replies.inbox, headers, wait=deadline)
        except BaseException:
            replies.close()
            raise
        return replies

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, for replies."""
        return f"{self._options.inbox_prefix}.{next_nuid()}"

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
        check_timeout("timeout", timeout)
        return Deadline(timeout)


def _encode_reply(reply: str) -> bytes:
    check_publish_subject(reply, "reply")
    return encode_subject(reply)
