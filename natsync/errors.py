"""Every error that natsync raises or reports, and nothing else.

Floor 0: imports the standard library only. Knows no socket, no thread, no option. An error carries its facts as
attributes, so that programs decide by type and attribute and never by text; texts are for people, say what to do, and
hold no secret.

The tree (a builtin in brackets is a second base)::

    NatsError
        ConfigError (ValueError)
            BadSubjectError   BadQueueError   BadHeaderError
        NatsTimeoutError (TimeoutError)
        NatsConnectionError (ConnectionError)
            NoServersError   ConnectionClosedError   ConnectionDrainingError   ConnectionReconnectingError
            StaleConnectionError   ForkedConnectionError   TLSError
        ProtocolError
        ServerError
            AuthorizationError
                AuthExpiredError   AuthRevokedError
            PermissionsError   MaxConnectionsError   MaxSubscriptionsError
        OutboundBufferLimitError   MaxPayloadError   NoRespondersError
        SlowConsumerError   BadSubscriptionError   MaxMessagesError
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AuthExpiredError",
    "AuthRevokedError",
    "AuthorizationError",
    "BadHeaderError",
    "BadQueueError",
    "BadSubjectError",
    "BadSubscriptionError",
    "ConfigError",
    "ConnectionClosedError",
    "ConnectionDrainingError",
    "ConnectionReconnectingError",
    "ForkedConnectionError",
    "MaxConnectionsError",
    "MaxMessagesError",
    "MaxPayloadError",
    "MaxSubscriptionsError",
    "NatsConnectionError",
    "NatsError",
    "NatsTimeoutError",
    "NoRespondersError",
    "NoServersError",
    "OutboundBufferLimitError",
    "PermissionsError",
    "ProtocolError",
    "ServerError",
    "SlowConsumerError",
    "StaleConnectionError",
    "TLSError",
]


class NatsError(Exception):
    """Base of all errors of natsync.

    Attributes:
        errors: What each server answered, by redacted URL, when the error stands for a walk over several servers; else
        empty.
    """

    errors: Mapping[str, Exception]

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.errors = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # The default of BaseException forgets the cause; a task queue's result backend would lose the reason with it.
        state = dict(self.__dict__)
        if self.__cause__ is not None and self._pickles(self.__cause__):
            state["__cause__"] = self.__cause__
        return (type(self), self.args, state)

    @staticmethod
    def _pickles(error: BaseException) -> bool:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - what we have just made ourselves
        except Exception:
            return False
        return True


class ConfigError(NatsError, ValueError):
    """An option, URL or argument cannot be used; raised before any I/O.

    Attributes:
        option: The option or argument at fault, or None.
    """

    def __init__(self, message: str = "", *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class BadSubjectError(ConfigError):
    """A subject is empty, has an empty token, white space or a control character, or a misplaced wildcard."""


class BadQueueError(ConfigError):
    """A queue group's name is empty or has white space or a control character."""


class BadHeaderError(ConfigError):
    """A header's name or value cannot be written, or a received header block cannot be read."""


class NatsTimeoutError(NatsError, TimeoutError):
    """The call's time was over before its answer came.

    Attributes:
        timeout: The limit that was given, in seconds, or None.
    """

    def __init__(self, message: str = "", *, timeout: float | None = None) -> None:
        super().__init__(message)
        self.timeout = timeout


class NatsConnectionError(NatsError, ConnectionError):
    """There is no usable connection.

    Attributes:
        server: The server concerned, as a redacted URL, or None.
    """

    def __init__(self, message: str = "", *, server: str | None = None) -> None:
        super().__init__(message)
        self.server = server


class NoServersError(NatsConnectionError):
    """No server could be reached, or every server's attempts are used up; `errors` has each one's answer."""


class ConnectionClosedError(NatsConnectionError):
    """The client is closed; its `__cause__` says why, when it was not the user's wish."""


class ConnectionDrainingError(NatsConnectionError):
    """The client is draining, and takes no new subscriptions or publishes."""


class ConnectionReconnectingError(NatsConnectionError):
    """The connection was lost while the call waited on it; natsync is on its way back."""


class StaleConnectionError(NatsConnectionError):
    """The server left too many PINGs unanswered, or says that we did."""


class ForkedConnectionError(NatsConnectionError):
    """An object of the parent process was used in a forked child; make a new one there."""


class TLSError(NatsConnectionError):
    """TLS was asked for and cannot be had, or the handshake failed."""


class ProtocolError(NatsError):
    """The peer sent bytes that are not the NATS protocol; the connection is given up."""


class ServerError(NatsError):
    """The server said `-ERR`.

    Attributes:
        text: The server's words, without quotes, in their own case.
        server: The server's redacted URL, or None.
    """

    def __init__(self, message: str = "", *, text: str | None = None, server: str | None = None) -> None:
        super().__init__(message)
        self.text = message if text is None else text
        self.server = server


class AuthorizationError(ServerError):
    """The server refused the credentials."""


class AuthExpiredError(AuthorizationError):
    """The user's or account's credentials have expired."""


class AuthRevokedError(AuthorizationError):
    """The user's credentials were revoked."""


class PermissionsError(ServerError):
    """The user may not publish or subscribe there; the connection stays.

    Attributes:
        operation: "publish" or "subscription", or None when the server's text names neither.
        subject: The subject refused, or None.
        queue: The queue group of a refused subscription, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        text: str | None = None,
        server: str | None = None,
        operation: str | None = None,
        subject: str | None = None,
        queue: str | None = None,
    ) -> None:
        super().__init__(message, text=text, server=server)
        self.operation = operation
        self.subject = subject
        self.queue = queue


class MaxConnectionsError(ServerError):
    """The server or the account has as many connections as it allows."""


class MaxSubscriptionsError(ServerError):
    """The connection has as many subscriptions as the server allows; the last one was refused."""


class OutboundBufferLimitError(NatsError):
    """The message does not fit into the reconnect buffer; nothing of it was kept.

    Attributes:
        size: Bytes of the message as it would be sent.
        limit: `reconnect_buffer_size`, in bytes.
    """

    def __init__(self, message: str = "", *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class MaxPayloadError(NatsError):
    """Headers and data together are larger than the server takes; nothing was sent.

    Attributes:
        size: Bytes of headers and data together.
        max_payload: The server's limit, in bytes.
    """

    def __init__(self, size: int, max_payload: int) -> None:
        super().__init__()
        self.args = (size, max_payload)
        self.size = size
        self.max_payload = max_payload

    def __str__(self) -> str:
        return (
            f"headers and data are {self.size} bytes, the server takes {self.max_payload}: "
            "send less, or raise max_payload in its configuration"
        )


class NoRespondersError(NatsError):
    """Nobody listens on the subject that was asked.

    Attributes:
        subject: The request's subject.
    """

    def __init__(self, message: str = "", *, subject: str | None = None) -> None:
        super().__init__(message)
        self.subject = subject


class SlowConsumerError(NatsError):
    """A subscription's pending limit is reached, and new messages are dropped until its reader catches up.

    Attributes:
        subject: The subscription's subject.
        sid: The subscription's id.
        dropped: Messages dropped by this subscription so far.
    """

    def __init__(
        self, message: str = "", *, subject: str | None = None, sid: int | None = None, dropped: int = 0
    ) -> None:
        super().__init__(message)
        self.subject = subject
        self.sid = sid
        self.dropped = dropped


class BadSubscriptionError(NatsError):
    """The subscription has ended, or is not of the kind that the call needs."""


class MaxMessagesError(NatsError):
    """The subscription has delivered as many messages as it was made for.

    Attributes:
        max_msgs: That number.
    """

    def __init__(self, message: str = "", *, max_msgs: int | None = None) -> None:
        super().__init__(message)
        self.max_msgs = max_msgs
