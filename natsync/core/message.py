"""The message, as users see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from natsync.errors import BadHeaderError, BadSubjectError, BadSubscriptionError
from natsync.headers import Headers
from natsync.protocol.header_block import parse_header_block
from natsync.protocol.operations import MsgOp

if TYPE_CHECKING:
    from natsync.core.subscription import Subscription

__all__ = ["DataLike", "HeadersLike", "Msg"]

DataLike = bytes | bytearray | memoryview
HeadersLike = Headers | Mapping[str, str | Sequence[str]]


class Msg:
    """A message, received or to be published.

    Args:
        subject: Where it was published, or is to be.
        data: The payload; any bytes-like object, which is copied.
        reply: The subject that an answer goes to, or None.
        headers: A `Headers`, or a mapping of `str` to `str` or to a sequence of `str`.

    Raises:
        TypeError: `data` is not bytes-like (encode text yourself: `text.encode()`).
        BadHeaderError: A header cannot be written.
    """

    __slots__ = ("_headers", "data", "reply", "subject", "subscription")

    subject: str
    """Where it was published, or is to be."""
    data: bytes
    """The payload."""
    reply: str | None
    """The subject that an answer goes to; None if no answer is wanted."""
    subscription: Subscription | None
    """The subscription it came by; None for one that was made, and for the answer to a request."""

    def __init__(
        self, subject: str, data: DataLike = b"", *, reply: str | None = None, headers: HeadersLike | None = None
    ) -> None:
        self.subject = subject
        self.data = as_bytes(data)
        self.reply = reply
        self.subscription = None
        self._headers: bytes | Headers | None
        """Those of a received message are the bytes of their block, until somebody asks for them."""
        self.headers = headers

    @property
    def headers(self) -> Headers | None:
        """The headers, or None. Those of a received message are read at the first access.

        A block that cannot be read gives None, and is reported to `error_cb` as `BadHeaderError`.
        """
        headers = self._headers
        if type(headers) is not bytes:
            return headers  # type: ignore[return-value]
        read = None  # several threads may look at once: then each reads the block, and all see the same
        try:
            read = parse_header_block(headers)
        except BadHeaderError as exc:
            if self.subscription is not None:
                self.subscription._report(exc)
        self._headers = read
        return read

    @headers.setter
    def headers(self, headers: HeadersLike | None) -> None:
        self._headers = None if headers is None else headers if isinstance(headers, Headers) else Headers(headers)

    def respond(self, data: DataLike = b"", *, headers: HeadersLike | None = None) -> None:
        """Publish an answer to the message's reply subject; blocks and raises as `Client.publish` does.

        Works from any thread, also after the subscription has ended.

        Args:
            data: The payload, bytes-like.
            headers: As in `Client.publish`. Those of the message asked are not repeated.

        Raises:
            BadSubscriptionError: The message was not received by a subscription.
            BadSubjectError: It asks for no answer.
        """
        if self.subscription is None:
            raise BadSubscriptionError("this message came by no subscription; publish the answer with the client")
        if not self.reply:
            raise BadSubjectError("this message asks for no answer: it has no reply subject", option="reply")
        self.subscription._publish(self.reply, data, headers=headers)

    def __reduce__(self) -> tuple[Any, ...]:
        # Into a task queue or another process go the words of a message, not the connection that it came by.
        return (_rebuild, (self.subject, self.data, self.reply, self.headers))

    def __repr__(self) -> str:
        shown = repr(self.data if len(self.data) <= 64 else self.data[:61] + b"...")
        reply = f", reply={self.reply!r}" if self.reply else ""
        headers = f", headers={self.headers!r}" if self.headers is not None else ""
        return f"Msg({self.subject!r}, {shown}{reply}{headers})"


def from_operation(operation: MsgOp, subscription: Subscription | None) -> Msg:
    """Make the user's message of the parser's tuple; on the consumer's thread, so that the reader has less to do."""
    msg = new_msg(Msg)
    _, msg.subject, msg.reply, msg._headers, msg.data = operation
    msg.subscription = subscription
    return msg


new_msg = cast("Callable[[type[Msg]], Msg]", object.__new__)
"""Makes an empty message, for those who fill it as `from_operation` does and cannot afford to call it."""


def _rebuild(subject: str, data: bytes, reply: str | None, headers: Headers | None) -> Msg:
    return Msg(subject, data, reply=reply, headers=headers)


def as_bytes(data: object) -> bytes:
    """Return the payload as bytes, copied unless it is bytes already."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise TypeError("data is bytes, not str; encode it: text.encode()")
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"data is bytes-like, not {type(data).__name__}") from None
