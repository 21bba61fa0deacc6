"""The outbound buffer: frames encoded and not yet sent.

Knows modes, limits and order; the modes are a table in `docs/design.rst`. Knows nothing of subscriptions or servers;
sending is its base's. Owner: any thread puts; only the supervisor (or the opener) changes modes.
"""

from __future__ import annotations

from collections.abc import Callable

from natsync.core.batch import Dropped, PingFrame, keep_publishes, keep_within_payload
from natsync.core.link import Link, PingWaiter
from natsync.core.sending import NOTHING_FITS, Mode, Pumped, Sending
from natsync.deadline import Deadline
from natsync.errors import (
    ConnectionReconnectingError,
    NatsError,
    NatsTimeoutError,
    OutboundBufferLimitError,
)
from natsync.locks import Latch, Wakeup
from natsync.protocol.commands import PING_COMMAND

__all__ = ["Mode", "Outbound", "Pumped"]


class Outbound(Sending):
    """See the module.

    Args:
        live_limit: `pending_size`.
        buffer_limit: `reconnect_buffer_size`.
        write_timeout: The longest wait for room, in seconds.
        wakeup: The supervisor's.
    """

    def __init__(self, *, live_limit: int, buffer_limit: int, write_timeout: float, wakeup: Wakeup) -> None:
        super().__init__(live_limit, wakeup)
        self._buffer_limit = buffer_limit
        self._write_timeout = write_timeout
        self._refusal: Callable[[], NatsError] | None = None
        self._parked: list[PingWaiter] = []

    # Putting: any thread.

    # Not by name only: that costs a publish 25 ns.
    def put(self, frame: bytes, payload: int, wake: bool = True, deadline: Deadline | None = None) -> bool:
        """Take a whole publish; say False when the client is dormant, and must connect first.

        Args:
            frame: The encoded command.
            payload: Bytes of headers and data, for the statistics.
            wake: Have it sent soon. Without it the caller is about to wait for the answer, and calls `push` at once.
            deadline: The longest wait for room; None for `write_timeout`.

        Raises:
            OutboundBufferLimitError: No connection, and no room in the reconnect buffer.
            NatsTimeoutError: `pending_size` bytes waited for `write_timeout` seconds.
            ConnectionClosedError, ConnectionDrainingError: No more publishes are taken.
        """
        with self._lock:
            size = self._size + len(frame)
            if size <= self._limit:
                self._frames.append(frame)
                self._size = size
                self.out_msgs += 1
                self.out_bytes += payload
                if self._asleep and wake:
                    self._wake_locked()
                return True
        return self._put_when_fits(frame, payload, deadline)

    def put_soon(self, frame: bytes, payload: int) -> bool:
        """As `put`, for one who is about to wait for an answer, and sends it then; False when there is no room for it.

        The supervisor is told, but need not hurry.
        """
        size = len(frame)
        with self._lock:
            if self._size + size > self._limit:
                return False
            self._add_locked(frame, payload)
            if self._asleep and not self._is_soft:
                self._wakeup.set()
                self._is_soft = True
            return True

    def _add_locked(self, frame: bytes, payload: int) -> None:
        self._frames.append(frame)
        self._size += len(frame)
        self.out_msgs += 1
        self.out_bytes += payload

    def put_control(self, frame: bytes, generation: int) -> None:
        """Take a SUB, UNSUB or PONG of a link; dropped if that is not the present one. Never waits, never fails."""
        with self._lock:
            if self._link is not None and self._link.generation == generation:
                self._frames.append(frame)
                self._size += len(frame)
                self._wake_locked()

    def put_ping(self, waiter: PingWaiter | None, *, park: bool = False, wake: bool = True) -> None:
        """Take a PING; its waiter enters the queue of PONGs when it is sent.

        Args:
            waiter: Told of the PONG or the loss; None for a keep-alive.
            park: Without a connection, keep the waiter for the next one; else raise.
            wake: As in `put`.

        Raises:
            ConnectionReconnectingError: There is no connection, and `park` is false.
            ConnectionClosedError: There will be none.
        """
        with self._lock:
            # The supervisor may not yet have got round to a loss; who can wait for the next link does so at once.
            better_parked = park and self._link is not None and self._link.is_lost
            if self._mode is Mode.LIVE and not better_parked:
                self._has_pings = True
                self._frames.append(PingFrame(waiter))
                self._size += len(PING_COMMAND)
                if wake:
                    self._wake_locked()
            elif self._mode is Mode.SHUT and self._refusal is not None:
                raise self._refusal()
            elif park and waiter is not None:
                self._parked.append(waiter)
            else:
                raise ConnectionReconnectingError("there is no connection at present; natsync is on its way back")

    def unpark(self, waiter: PingWaiter) -> None:
        """Forget a waiter that gave up before there was a connection."""
        with self._lock:
            if waiter in self._parked:
                self._parked.remove(waiter)

    def _put_when_fits(self, frame: bytes, payload: int, deadline: Deadline | None) -> bool:
        size = len(frame)
        while True:
            room = Latch()
            with self._lock:
                # A frame larger than the whole limit goes alone.
                alone = self._mode is Mode.LIVE and self._refusal is None and self._size == 0
                if alone or self._size + size <= self._limit:
                    self._add_locked(frame, payload)
                    self._wake_locked()
                    return True
                if self._refusal is not None:
                    raise self._refusal()
                if self._mode is Mode.DORMANT:
                    return False
                if self._mode is not Mode.LIVE:
                    raise self._buffer_full(size)
                self._room.append(room)
                self._wake_locked()
            deadline = deadline or Deadline(self._write_timeout)
            if not self._wait_for_room(room, deadline):
                raise NatsTimeoutError(
                    f"{self._size} bytes wait to be sent, and there was no room for more within {deadline.timeout} s; "
                    "the server or the network is too slow for what is published",
                    timeout=deadline.timeout,
                )

    def _buffer_full(self, size: int) -> OutboundBufferLimitError:
        return OutboundBufferLimitError(
            f"there is no connection, and {size} bytes do not fit into the reconnect buffer ({self._size} of "
            f"{self._buffer_limit} bytes used); publish again when connected, or raise reconnect_buffer_size",
            size=size,
            limit=self._buffer_limit,
        )

    def _wait_for_room(self, room: Latch, deadline: Deadline) -> bool:
        try:
            return room.wait(deadline.remaining())
        finally:
            with self._lock:
                if room in self._room:
                    self._room.remove(room)

    # Changing modes: the supervisor, or whoever opens the client. SHUT is for good, and a refusal outlasts every mode.

    def rest(self) -> None:
        """Go back to DORMANT, when the first walk has failed."""
        with self._lock:
            self._enter_locked(Mode.DORMANT, NOTHING_FITS)

    def buffer(self) -> None:
        """Leave DORMANT for BUFFERING: publishes wait for the first connection."""
        with self._lock:
            self._enter_locked(Mode.BUFFERING, self._buffer_limit)

    def begin(self, link: Link) -> Dropped:
        """Enter FLUSHING: take commands for this link, while publishes are still buffered.

        Returns:
            The buffered publishes that this server does not take, now given up.
        """
        dropped = Dropped()
        with self._lock:
            if self._enter_locked(Mode.FLUSHING, self._buffer_limit):
                self._frames = keep_within_payload(self._frames, link.info.max_payload, dropped)
                self._size = sum(map(len, self._frames))
                self._link = link
        return dropped

    def live(self) -> None:
        """Enter LIVE: everybody may send; what is still queued goes first."""
        with self._lock:
            if not self._enter_locked(Mode.LIVE, self._live_limit):
                return
            parked, self._parked = self._parked, []
            if parked:
                self._has_pings = True
                self._frames += [PingFrame(waiter) for waiter in parked]
                self._size += len(PING_COMMAND) * len(parked)
            self._wake_locked()

    def refuse(self, refusal: Callable[[], NatsError]) -> None:
        """Take no more publishes, each gets this error; what was taken is still sent, and commands are still taken."""
        with self._lock:
            self._refusal = refusal
            self._limit = NOTHING_FITS
            self._make_room_locked()

    def down(self) -> Dropped:
        """Enter BUFFERING after a loss; wait for a send under way (sends do not wait, so this is short).

        Returns:
            The publishes given up: one sent in part, and the newest ones if the reconnect buffer is smaller than what
            waited.
        """
        with self._lock:
            if not self._enter_locked(Mode.BUFFERING, self._buffer_limit):
                return Dropped()
        self._await_token()
        link = self._link
        frames, waiters, dropped = self._take_back()
        with self._lock:
            # Publishers that came while we were at it are behind what we took back.
            self._frames, self._size = keep_publishes((*frames, *self._frames), self._buffer_limit, dropped)
            self._make_room_locked()
        if link is not None:
            link.pongs.extend(waiters)  # those whose PING was not sent hear of the loss as those whose PING was
        return dropped

    def shut(self, refusal: Callable[[], NatsError]) -> Dropped:
        """Enter SHUT; every later call gets this error.

        Returns:
            The publishes that were still waiting.
        """
        with self._lock:
            self._enter_locked(Mode.SHUT, NOTHING_FITS)
            self._refusal = refusal
        self._await_token()
        frames, waiters, dropped = self._take_back()
        with self._lock:
            parked, self._parked = self._parked, []
            self._size = 0
            self._make_room_locked()
        for frame in frames:
            dropped.add(frame)
        for waiter in (*waiters, *parked):
            waiter.lost(refusal())
        return dropped

    def _enter_locked(self, mode: Mode, limit: int) -> bool:
        if self._mode is Mode.SHUT:
            return False
        self._mode = mode
        self._limit = limit if self._refusal is None else NOTHING_FITS
        return True
