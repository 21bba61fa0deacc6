"""Sending what the outbound buffer holds: whose turn it is, how far it got, and what is left when a link breaks.

Knows links and frames; what is taken in, and when, is `outbound`. Owner: whoever holds the sending token sends. Guarded
by: `_lock`, the innermost lock, never held across a send or a wait. Ctrl-C may strike between any two steps of a locked
section, so each section commits with one store, and everything else in it heals: sizes are measured anew at each take,
and a wake-up is given before it is noted as given.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque

from natsync.core.batch import Batch, Dropped, PingFrame
from natsync.core.link import Link, PingWaiter
from natsync.deadline import Deadline
from natsync.errors import NatsConnectionError, NatsError
from natsync.locks import Latch, Wakeup

__all__ = ["NOTHING_FITS", "Mode", "Pumped", "Sending"]

NOTHING_FITS = -1
# A sender holds the token for a few sends, which never wait. If an exception of a signal handler takes its thread away
# in between, nobody would ever return the token. After this many seconds, and looks of the supervisor (a process that
# was stopped for a while must not look guilty), the link is given up, and the token with it.
_TOKEN_LOST = 0.5
_LOOKS = 3
# Whoever sends does so for the others, too, who put something meanwhile; at most so many times in one go.
_MORE = 3


class Mode(enum.Enum):
    """What the buffer does with what it is given."""

    DORMANT = "dormant"
    BUFFERING = "buffering"
    FLUSHING = "flushing"
    LIVE = "live"
    SHUT = "shut"


_LIVE = Mode.LIVE  # Python 3.11 looks long for a member of an enumeration


class Pumped(enum.Enum):
    """What one attempt to send came to."""

    IDLE = "there is nothing to send"
    BUSY = "another thread is sending"
    SENT = "something was sent"
    FULL = "the socket takes nothing at present"


class Sending:
    """Base of `Outbound`.

    Args:
        live_limit: `pending_size`.
        wakeup: The supervisor's.
    """

    def __init__(self, live_limit: int, wakeup: Wakeup) -> None:
        self._live_limit = live_limit
        self._wakeup = wakeup
        self._lock = threading.Lock()
        self._mode = Mode.DORMANT
        self._limit = NOTHING_FITS
        self._link: Link | None = None
        self._frames: list[bytes] = []
        self._has_pings = False
        self._batch: Batch | None = None
        self._size = 0
        self._token: object | None = None
        self._suspect: object | None = None
        self._suspect_since = 0.0
        self._suspect_looks = 0
        self._asleep = False
        self._is_soft = False
        self._room: deque[Latch] = deque()
        self._settling: deque[Latch] = deque()
        self.out_msgs = 0
        self.out_bytes = 0
        self.sent_bytes = 0
        """Bytes that sockets took, ever; the supervisor sees progress by it."""

    @property
    def size(self) -> int:
        """Bytes not yet sent."""
        return self._size

    @property
    def mode(self) -> Mode:
        return self._mode

    # Whoever holds the token.

    def push(self) -> None:
        """Send what there is without waiting, and what others add meanwhile, if nobody else is sending.

        The rest is left to the supervisor.
        """
        self._pump(live_only=True)

    def send_alone(self, frame: bytes, payload: int) -> bool:
        """Take a publish and send it at once, if nothing waits before it and nobody is sending; else say False.

        What the socket does not take waits for the supervisor, as after a push. What comes before the system call is as
        short as can be: the caller waits for the answer to what this sends.
        """
        token = object()
        size = len(frame)
        link: Link | None = None
        is_settled = False
        try:
            with self._lock:
                link = self._link
                if self._token is not None or self._frames or self._batch is not None or link is None:
                    return False
                if self._mode is not _LIVE or size > self._limit:
                    return False
                self._token = token
                self.out_msgs += 1
                self.out_bytes += payload
            failure: NatsError | None = None
            try:
                sent = link.transport.send(frame)
            except NatsError as exc:
                sent, failure = 0, exc
            is_settled = sent == size  # no call between the two stores: until all of it is known, Ctrl-C costs the link
            self.sent_bytes += sent
            if not is_settled:
                self._keep_rest(token, frame, sent)
                is_settled = True
            elif self._frames:
                self._send_more(token, link)
            if failure is not None:
                link.lose(failure)
            return True
        finally:
            if self._token is token:
                if not is_settled and link is not None:
                    link.lose(_interrupted(link))
                self._end_turn(token)

    def _keep_rest(self, token: object, frame: bytes, sent: int) -> None:
        batch = Batch([frame])
        batch.sent = batch.accounted = sent
        with self._lock:
            if self._token is token:
                self._batch = batch
                self._size += len(frame) - sent

    def pump(self) -> Pumped:
        """For the supervisor: send once, without waiting."""
        return self._pump(live_only=False)

    def _pump(self, *, live_only: bool) -> Pumped:
        token = object()
        outcome: Pumped | None = None
        link: Link | None = None
        try:
            with self._lock:
                if self._token is not None:
                    return Pumped.BUSY
                link = self._link
                nothing = self._batch is None and not self._frames
                if link is None or nothing or (live_only and self._mode is not _LIVE):
                    return Pumped.IDLE
                self._token = token
                batch = self._batch or self._take_locked(link)
            outcome = self._send(batch, link)
            if live_only and outcome is Pumped.SENT and self._frames:
                self._send_more(token, link)
            return outcome
        finally:
            if self._token is token:
                if outcome is None and link is not None:
                    link.lose(_interrupted(link))
                self._end_turn(token)

    def _send_more(self, token: object, link: Link) -> None:
        """Send what others have added meanwhile, who would have to wait for the supervisor; but not for ever."""
        outcome: Pumped | None = Pumped.SENT
        try:
            for _ in range(_MORE):
                with self._lock:
                    self._account_locked()
                    # No more on a link that is being taken down: what waits goes to the next one.
                    mine = self._token is token and self._mode is _LIVE
                    if not mine or self._batch is not None or not self._frames:
                        return
                    outcome = None
                    batch = self._take_locked(link)
                outcome = self._send(batch, link)
                if outcome is not Pumped.SENT:
                    return
        finally:
            if outcome is None:
                link.lose(_interrupted(link))

    def _take_locked(self, link: Link) -> Batch:
        batch = Batch(self._frames)
        frames: list[bytes] = []
        self._batch, self._frames = batch, frames  # no call between the two stores: Ctrl-C cannot come between them
        if self._has_pings:
            self._has_pings = False
            link.expect_pongs([frame.waiter for frame in batch.frames if type(frame) is PingFrame])
        return batch

    def _send(self, batch: Batch, link: Link) -> Pumped:
        sent: int | None = None
        data = batch.rest()
        try:
            sent = link.transport.send(data)
        except NatsError as exc:
            sent = 0
            link.lose(exc)
        finally:
            if sent is None:
                batch.give_up()  # Ctrl-C: what the socket took is not known, so none of it may be sent again
        batch.sent += sent
        self.sent_bytes += sent
        return Pumped.SENT if sent else Pumped.FULL

    def settle(self) -> None:
        """Wait until a send under way is noted; for those who know from the server's answer that it was done.

        Sends do not wait, so this is short; a sender that does not come back is not waited for.
        """
        latch = Latch()
        with self._lock:
            if self._token is None:
                return
            self._settling.append(latch)
        latch.wait(_TOKEN_LOST)

    def _end_turn(self, token: object) -> None:
        """Give the token back, also if Ctrl-C strikes here."""
        interrupt: BaseException | None = None
        while self._token is token:
            try:
                self._give_back(token)
            except BaseException as exc:  # Ctrl-C, just here
                interrupt = exc
        if interrupt is not None:
            raise interrupt

    def _give_back(self, token: object) -> None:
        with self._lock:
            if self._token is not token:
                return  # it was declared lost meanwhile
            self._account_locked()
            if self._size <= self._live_limit // 2:
                self._make_room_locked()
            if self._batch is not None or self._frames:
                self._wake_locked()
            self._token = None
            self._settled_locked()

    def _settled_locked(self) -> None:
        while self._settling:
            self._settling.popleft().open()

    def _account_locked(self) -> None:
        batch = self._batch
        if batch is not None:
            self._size -= batch.sent - batch.accounted
            batch.accounted = batch.sent
            if batch.done:
                self._batch = None
        if self._batch is None and not self._frames:
            self._size = 0

    def _make_room_locked(self) -> None:
        while self._room:
            self._room.popleft().open()

    # The supervisor: waiting and watching.

    def sleep(self) -> bool:
        """Ask to be woken by the next put; says no when there is something to send already."""
        with self._lock:
            if self._token is None and self._link is not None and (self._frames or self._batch is not None):
                return False
            self._asleep = True
            self._is_soft = False  # one who was slow may have set it since `awake`
            return True

    def is_in_no_hurry(self) -> bool:
        """Whether the supervisor was woken only by those who will probably send for themselves; it may sleep on."""
        return self._is_soft

    def _wake_locked(self) -> None:
        if self._asleep:
            self._wakeup.set()
            self._asleep = self._is_soft = False

    def awake(self) -> None:
        """The supervisor runs, and looks by itself."""
        self._asleep = self._is_soft = False

    def check_token(self) -> None:
        """Give the link up when the sending token was lost with its holder; to be called while somebody else sends."""
        now = time.monotonic()
        with self._lock:
            if self._token is None or self._token is not self._suspect:
                self._suspect, self._suspect_since, self._suspect_looks = self._token, now, 0
            self._suspect_looks += 1
            lost = self._suspect_looks >= _LOOKS and now - self._suspect_since > _TOKEN_LOST
            suspect, link = self._suspect, self._link
        if not lost or suspect is None:
            return
        if link is not None:
            link.lose(_interrupted(link))  # before anybody can send after what was perhaps sent in part
        with self._lock:
            if self._token is suspect:
                self._token = None
                if self._batch is not None:
                    self._batch.give_up()

    # Taking a link down.

    def _take_back(self) -> tuple[list[bytes], list[PingWaiter], Dropped]:
        """Take the token away and return what was not sent: frames, the waiters of PINGs, and what is lost."""
        dropped = Dropped()
        with self._lock:
            if self._token is not None and self._batch is not None:
                self._batch.give_up()  # its sender did not come back in time: nobody knows what the socket took
            self._token = None
            self._settled_locked()
            self._link = None
            batch, self._batch = self._batch, None
            queued, self._frames = self._frames, []
            self._has_pings = False
        # A PING of the batch has its waiter in the link's queue of PONGs already.
        waiters = [frame.waiter for frame in queued if isinstance(frame, PingFrame) and frame.waiter is not None]
        untouched = [] if batch is None else batch.untouched(dropped)
        return untouched + queued, waiters, dropped

    def _await_token(self) -> None:
        deadline = Deadline(_TOKEN_LOST)
        while self._token is not None and not deadline.expired:
            with self._lock:
                self._asleep = self._token is not None
            if self._asleep:
                self._wakeup.wait(0.01)


def _interrupted(link: Link) -> NatsConnectionError:
    return NatsConnectionError("a thread was interrupted while it was sending", server=link.url)
