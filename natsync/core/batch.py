"""What the outbound buffer sends at one go, and what can be saved of it when the connection breaks.

Knows frames as bytes; knows no lock, thread or socket.
"""

from __future__ import annotations

from collections.abc import Iterable

from natsync.core.link import PingWaiter
from natsync.protocol.commands import PING_COMMAND

__all__ = ["Batch", "Dropped", "PingFrame", "keep_publishes", "keep_within_payload"]


class PingFrame(bytes):
    """A PING that brings its waiter along, so that frame and waiter cannot be parted before the PING is sent."""

    waiter: PingWaiter | None

    def __new__(cls, waiter: PingWaiter | None) -> PingFrame:
        self = super().__new__(cls, PING_COMMAND)
        self.waiter = waiter
        return self


class Dropped:
    """Publishes given up: how many, and their bytes as frames."""

    __slots__ = ("bytes", "msgs")

    def __init__(self) -> None:
        self.msgs = 0
        self.bytes = 0

    def add(self, frame: bytes) -> None:
        if is_publish(frame):
            self.msgs += 1
            self.bytes += len(frame)


class Batch:
    """Frames taken for sending, and how far they got."""

    __slots__ = ("_data", "accounted", "frames", "sent")

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = frames
        self._data: bytes | None = None
        self.sent = 0
        self.accounted = 0
        """How much of `sent` the buffer's size has taken note of."""

    @property
    def done(self) -> bool:
        return self._data is not None and self.sent >= len(self._data)

    def rest(self) -> bytes | memoryview:
        """Return what is still to be sent; joins the frames at the first call, which must not be under a lock."""
        if self._data is None:
            self._data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        return memoryview(self._data)[self.sent :] if self.sent else self._data

    def give_up(self) -> None:
        """Count everything as sent, as nobody knows what was."""
        self.sent = sum(map(len, self.frames))

    def untouched(self, dropped: Dropped) -> list[bytes]:
        """Return the frames of which no byte was sent; the one that was sent in part is dropped.

        The server throws a cut frame away with its connection, so sending it again would be right in most cases; but
        "in most cases" is not at-most-once.
        """
        start = 0
        for index, frame in enumerate(self.frames):
            if start >= self.sent:
                return self.frames[index:]
            start += len(frame)
            if start > self.sent:
                dropped.add(frame)
        return []


def is_publish(frame: bytes) -> bool:
    """Say whether a frame is a PUB or HPUB; all other commands belong to one connection and die with it."""
    return frame.startswith((b"PUB ", b"HPUB "))


def keep_publishes(frames: Iterable[bytes], limit: int, dropped: Dropped) -> tuple[list[bytes], int]:
    """Return the publishes that fit into `limit` bytes, oldest first, no gap, and their size; count the others."""
    kept: list[bytes] = []
    size = 0
    full = False
    for frame in frames:
        if not is_publish(frame):
            continue
        full = full or size + len(frame) > limit
        if full:
            dropped.add(frame)
        else:
            kept.append(frame)
            size += len(frame)
    return kept, size


def keep_within_payload(frames: Iterable[bytes], max_payload: int, dropped: Dropped) -> list[bytes]:
    """Return the publishes that a server with this limit takes, and count the others.

    They were published to a server that took more; this one would answer with an error that ends the client.
    """
    kept: list[bytes] = []
    for frame in frames:
        if len(frame) > max_payload and _payload_size(frame) > max_payload:
            dropped.add(frame)
        else:
            kept.append(frame)
    return kept


def _payload_size(frame: bytes) -> int:
    return int(frame[: frame.index(b"\r\n")].rsplit(b" ", 1)[1])
