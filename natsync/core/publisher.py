"""What a client sends: publishes and requests.

Checks what the user gives, encodes it, and hands it to the outbound buffer; who waits for a reply waits in the mux.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

from natsync.core import process
from natsync.core.engine import Engine
from natsync.core.facts import Facts
from natsync.core.message import DataLike, HeadersLike, Msg, as_bytes
from natsync.core.mux import ExpectedReply
from natsync.core.outbound import Mode
from natsync.core.reply import ReplyWaiter, read_reply
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
from natsync.headers import Headers
from natsync.nuid import next_nuid
from natsync.policy.options import Options
from natsync.protocol.commands import PUB_FORMAT, PUB_REPLY_FORMAT, encode_hpub, encode_pub
from natsync.protocol.header_block import encode_header_block
from natsync.subjects import check_publish_subject, encode_subject

__all__ = ["Publisher"]

PublishHook = Callable[[Msg], "Msg | None"]

_MANY_SUBJECTS = 1024


class Publisher(Facts):
    """Base of `Connection`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._engine = Engine(self, options)
        process.track(self._engine)
        self._subjects: dict[str, bytes] = {}
        self._hooks: list[PublishHook] = []

    # Publishing.

    def with_publish(self, hook: PublishHook) -> None:
        """Have `hook(msg)` look at every message before it is published; does not block.

        For trace headers, logging, metrics: `publish`, `publish_msg`, `respond` and all kinds of requests ask it, on
        the thread that calls them, before the message is checked and encoded. It returns a message to send in place of
        the one it got, or None; it may also change the one it got, which is a copy. The reply subject of a request
        stays. Hooks are asked in the order in which they were added, each with what the one before made of the message.
        What one raises goes to the caller, and nothing is sent. A hook that publishes is asked about that, too. Unused
        it costs a test of one attribute. A forked child's client has the same hooks.

        Args:
            hook: `(msg: Msg) -> Msg | None`, called from any thread that publishes.

        Raises:
            TypeError: `hook` cannot be called. In a publish: it returned something else than a `Msg` or None.
        """
        if not callable(hook):
            raise TypeError(f"with_publish takes a callable, not {type(hook).__name__}")
        self._hooks.append(hook)

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
            reply: The subject that answers should go to; None, the default, asks for none.
            headers: A `Headers`, or a mapping of `str` to `str` or to a sequence of `str`.

        Raises:
            BadSubjectError, BadHeaderError: `subject`, `reply` or a header cannot be written.
            TypeError: `data` is not bytes-like; text must be encoded.
            MaxPayloadError: Headers and data together are larger than the server takes.
            OutboundBufferLimitError: The connection is lost, and the reconnect buffer has no room.
            NatsTimeoutError: `pending_size` bytes have been waiting for `write_timeout` seconds.
            ConnectionClosedError, ConnectionDrainingError: The client takes no more.
        """
        if reply is not None or headers is not None or self._hooks:
            self._publish_in_full(subject, data, reply, headers)
            return
        # The plain case: as in full, without its calls.
        payload = data if type(data) is bytes else as_bytes(data)
        size = len(payload)
        frame = PUB_FORMAT % (self._subjects.get(subject) or self._learn(subject), size, payload)
        engine = self._engine
        if size > engine.max_payload or not engine.outbound.put(frame, size):
            self._put(frame, size)

    def _publish_in_full(self, subject: str, data: DataLike, reply: str | None, headers: HeadersLike | None) -> None:
        if self._hooks:
            msg = self._ask_hooks(subject, data, reply, headers)
            subject, data, reply, headers = msg.subject, msg.data, msg.reply, msg.headers
        frame, size = self._encode(subject, data, None if reply is None else self._encode_reply(reply), headers)
        self._put(frame, size)

    def publish_msg(self, msg: Msg) -> None:
        """Publish a message object: its subject, data, reply and headers. Blocks and raises as `publish` does.

        Args:
            msg: Made by you, or received; it is not changed.

        Raises:
            Others: As `publish`.
        """
        self.publish(msg.subject, msg.data, reply=msg.reply, headers=msg.headers)

    def _encode(
        self, subject: str, data: DataLike, reply: bytes | None, headers: HeadersLike | None
    ) -> tuple[bytes, int]:
        """Return the frame, and its bytes of headers and data."""
        payload = data if type(data) is bytes else as_bytes(data)
        to = self._subjects.get(subject) or self._learn(subject)
        if headers is None:
            return encode_pub(to, reply, payload), len(payload)
        block = self._encode_headers(headers)
        return encode_hpub(to, reply, block, payload), len(block) + len(payload)

    def _encode_request(
        self, subject: str, data: DataLike, inbox: bytes, headers: HeadersLike | None
    ) -> tuple[bytes, int]:
        """As `_encode`, after the hooks, which cannot change the reply subject."""
        if headers is None and not self._hooks:
            # The plain case: as in full, without its calls.
            payload = data if type(data) is bytes else as_bytes(data)
            size = len(payload)
            to = self._subjects.get(subject) or self._learn(subject)
            return PUB_REPLY_FORMAT % (to, inbox, size, payload), size
        if self._hooks:
            msg = self._ask_hooks(subject, data, inbox.decode(), headers)
            subject, data, headers = msg.subject, msg.data, msg.headers
        return self._encode(subject, data, inbox, headers)

    def _put(self, frame: bytes, size: int, *, deadline: Deadline | None = None, wake: bool = True) -> None:
        """Hand a frame over, checked and with all patience; without `wake` the caller pushes the buffer itself."""
        engine = self._engine
        while True:
            if size > engine.max_payload and engine.max_payload:
                engine.check_open()
                raise MaxPayloadError(size, engine.max_payload)
            if engine.outbound.put(frame, size, wake=wake, deadline=deadline):
                return
            engine = self._awake()

    def _ask_hooks(self, subject: str, data: DataLike, reply: str | None, headers: HeadersLike | None) -> Msg:
        own = headers.copy() if isinstance(headers, Headers) else headers
        msg = Msg(subject, data, reply=reply, headers=own)
        for hook in tuple(self._hooks):
            changed = hook(msg)
            if changed is not None:
                if not isinstance(changed, Msg):
                    raise TypeError(f"a hook of with_publish returns a Msg or None, not {type(changed).__name__}")
                msg = changed
        return msg

    def _learn(self, subject: str) -> bytes:
        check_publish_subject(subject)
        if len(self._subjects) >= _MANY_SUBJECTS:
            self._subjects.clear()
        encoded = self._subjects[subject] = encode_subject(subject)
        return encoded

    def _encode_reply(self, reply: str) -> bytes:
        known = self._subjects.get(reply)
        if known is not None:
            return known
        check_publish_subject(reply, "reply")
        return encode_subject(reply)

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

        Works inside callbacks. While the connection is lost it goes on waiting. The reply's `subscription` is None.

        Args:
            subject: Where to.
            data: The payload, bytes-like.
            timeout: Seconds for everything; None for the option `request_timeout` (5.0).
            headers: As in `publish`.

        Raises:
            NoRespondersError: Nobody listens on the subject; at once, as the server says so [nats-server 2.2].
            NatsTimeoutError: No reply came in time.
            ConnectionClosedError: The client is, or was meanwhile, closed.
            ConnectionReconnectingError: In a callback that is asked while connecting.
            ConfigError: `timeout` is no number above 0.
            Others: As `publish`.
        """
        engine = self._ready_to_wait()
        timeout = self._seconds(timeout, self._options.request_timeout)
        waiter = ReplyWaiter()
        mux = engine.mux
        try:
            inbox = mux.enter(waiter)
            frame, size = self._encode_request(subject, data, inbox, headers)
            sent = not mux.has_round and size <= engine.max_payload and engine.outbound.send_alone(frame, size)
            deadline = Deadline(timeout)  # what can wait is done while the server is at work
            if sent:
                engine.read_for(waiter, timeout, ExpectedReply(mux, waiter, inbox))
            else:
                self._put(frame, size, deadline=deadline, wake=False)
                if not mux.has_round:
                    engine.push_and_read_for(waiter, deadline.remaining())
            if not waiter.answered:
                engine.wait_for(waiter, deadline)
        finally:
            if not waiter.answered:
                mux.leave(waiter.token)
            waiter.leave()
            if waiter.is_last:
                engine.outbound.push()
        operation = waiter.result()
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
            timeout: Seconds until the future fails with NatsTimeoutError; None for the option `request_timeout` (5.0).

        Raises:
            ConfigError: `timeout` is no number above 0.
            Others: As `publish`, at once.
        """
        engine = self._ready()
        timeout = self._seconds(timeout, self._options.request_timeout)
        future = RequestFuture(engine, subject, timeout, self)
        outbound = engine.outbound
        try:
            frame, size = self._encode_request(subject, data, future.inbox, headers)
            small = size <= engine.max_payload
            if engine.mux.is_alone():
                if not (small and outbound.send_alone(frame, size)):
                    self._put(frame, size, deadline=Deadline(timeout), wake=False)
                    outbound.push()
            # Others are under way: if somebody waits for one of them, he sends all, or else the supervisor does.
            elif not (small and engine.traffic.by_caller and outbound.put_soon(frame, size)):
                self._put(frame, size, deadline=Deadline(timeout))
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
            timeout: Seconds for everything; None for the option `request_timeout` (5.0).
            max_msgs: Most replies; None for no limit.
            stall: Seconds; None for no limit.
            sentinel: Says of a reply that it is the end.

        Raises:
            NoRespondersError: Nobody listens on the subject; in the first step.
            ConnectionClosedError: The client was closed; in a step.
            ConnectionReconnectingError: In a callback that is asked while connecting.
            ConfigError: `timeout`, `stall` or `max_msgs` is no number above 0.
            Others: As `publish`, at once.
        """
        engine = self._ready_to_wait()
        deadline = self._deadline(timeout, self._options.request_timeout)
        if max_msgs is not None:
            check_count("max_msgs", max_msgs)
        if stall is not None:
            check_timeout("stall", stall)
        engine.about_to_wait()
        replies = Replies(
            engine.mux, subject, deadline=deadline, max_msgs=max_msgs, stall=stall, sentinel=sentinel, client=self
        )
        try:
            frame, size = self._encode_request(subject, data, replies.inbox, headers)
            self._put(frame, size, deadline=deadline, wake=False)
            engine.outbound.push()
        except BaseException:
            replies.close()
            raise
        return replies

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, for replies.

        Raises:
            ConnectionClosedError: The client is closed.
        """
        self._engine.check_open()
        return f"{self._options.inbox_prefix}.{next_nuid()}"

    # Helpers.

    def _ready(self) -> Engine:
        engine = self._engine
        if engine.link is not None and not engine.close_wanted:
            return engine
        engine.check_open()
        return self._awake()

    def _awake(self) -> Engine:
        """Connect a forked child's client at its first use."""
        engine = self._engine
        if engine.outbound.mode is Mode.DORMANT:
            if engine.is_outdated:
                engine = self._engine = Engine(self, self._options)  # nobody has used the other one
                process.track(engine)
            engine.awake()
        return engine

    def _ready_to_wait(self) -> Engine:
        engine = self._ready()
        if engine.link is None and on_thread_of(engine, "supervisor"):
            raise ConnectionReconnectingError(
                "a callback that natsync asks while connecting cannot wait for the connection being made"
            )
        return engine

    def _deadline(self, timeout: float | None, default: float) -> Deadline:
        return Deadline(self._seconds(timeout, default))

    def _seconds(self, timeout: float | None, default: float) -> float:
        if timeout is None:
            return default
        check_timeout("timeout", timeout)
        return timeout
