"""The statistics snapshot."""

from __future__ import annotations

import dataclasses

__all__ = ["Stats"]


@dataclasses.dataclass(frozen=True)
class Stats:
    """What a client has done since it was made, over all its connections. Messages and bytes (headers and data)."""

    in_msgs: int = 0
    """Messages received, also those that were dropped."""
    out_msgs: int = 0
    """Messages accepted by publish and request, also those that wait in a buffer."""
    in_bytes: int = 0
    """Bytes of the messages received."""
    out_bytes: int = 0
    """Bytes of the messages accepted."""
    reconnects: int = 0
    """Times that a lost connection was restored."""
    errors: int = 0
    """Errors reported to `error_cb`."""
    dropped: int = 0
    """Messages given up: received over a subscription's pending limit, or accepted for sending and lost with a
    connection before the socket took them."""
