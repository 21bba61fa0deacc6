"""The states of a client, and the only ways between them."""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "Status"]


class Status(enum.Enum):
    """What a client is doing. The names are those of nats.go."""

    DISCONNECTED = "disconnected"
    """Not connected yet, or a forked child's client before its first use."""
    CONNECTING = "connecting"
    """The first walk over the servers."""
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    """The connection is lost, and natsync is on its way back; publishes are buffered."""
    DRAINING_SUBS = "draining_subs"
    """Subscriptions finish what they have; publishing still works."""
    DRAINING_PUBS = "draining_pubs"
    """The last publishes are on their way; no new ones are taken."""
    CLOSED = "closed"
    """For good."""


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.DISCONNECTED: frozenset({Status.CONNECTING, Status.CLOSED}),
    Status.CONNECTING: frozenset({Status.CONNECTED, Status.RECONNECTING, Status.DISCONNECTED, Status.CLOSED}),
    Status.CONNECTED: frozenset({Status.RECONNECTING, Status.DRAINING_SUBS, Status.CLOSED}),
    Status.RECONNECTING: frozenset({Status.CONNECTED, Status.CLOSED}),
    Status.DRAINING_SUBS: frozenset({Status.DRAINING_PUBS, Status.CLOSED}),
    Status.DRAINING_PUBS: frozenset({Status.CLOSED}),
    Status.CLOSED: frozenset(),
}
