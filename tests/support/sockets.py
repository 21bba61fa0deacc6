"""Ends of sockets: in good order or with a bang. Every part of the bench that owns a socket can do both."""

from __future__ import annotations

import contextlib
import socket
import struct

_LINGER_ZERO = struct.pack("hh" if hasattr(socket, "SIO_RCVALL") else "ii", 1, 0)  # Windows has shorts here


def close_socket(each: socket.socket, *, reset: bool = False) -> None:
    """Close; with `reset` the peer gets RST, and what was under way is lost."""
    if reset:
        with contextlib.suppress(OSError):  # it may be closed already
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    each.close()
