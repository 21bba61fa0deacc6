"""What happens to a client, as values that the lifecycle callbacks get.

A policy-floor file: holds no behaviour. Every event has `.client`, `.error` (the cause, or None), `.server` (redacted
URL, or None) and `.subscription` (or None).
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = [
    "AsyncError",
    "Closed",
    "Connected",
    "Disconnected",
    "DiscoveredServers",
    "Event",
    "LameDuck",
    "ReconnectFailed",
    "Reconnected",
]


@dataclasses.dataclass(frozen=True)
class Event:
    """Base of all events."""

    client: Any = dataclasses.field(repr=False)
    """The `natsync.Client` that it happened to; None if nobody holds it any more."""
    error: BaseException | None = None
    """Why, or None when it was the user's wish or no failure. Anything but an `Exception` comes from a handler only."""
    server: str | None = None
    """The server concerned, as a redacted URL."""
    subscription: Any = None
    """The `natsync.Subscription` concerned."""
    dropped_msgs: int = 0
    """Messages accepted for sending that were given up with this event: partly sent when the connection broke, over the
    reconnect buffer's limit, larger than the new server takes, or still waiting when the client was closed."""
    dropped_bytes: int = 0
    """The bytes of these messages, as they would have been sent."""


class Connected(Event):
    """The first connection is there."""


class Disconnected(Event):
    """A connection was lost, or closed by the user (then `error` is None)."""


class Reconnected(Event):
    """A lost connection is restored: subscriptions are back, and what was buffered is sent."""


class ReconnectFailed(Event):
    """One attempt failed, in dialling or in the handshake."""


class Closed(Event):
    """The client is closed for good; the last event."""


@dataclasses.dataclass(frozen=True)
class DiscoveredServers(Event):
    """The cluster named servers that were not known before."""

    urls: tuple[str, ...] = ()
    """The new ones, redacted."""


class LameDuck(Event):
    """The server will shut down soon [ADR-5]."""


class AsyncError(Event):
    """Something failed that no call was waiting for: a handler, a slow consumer, a permission, credentials."""
