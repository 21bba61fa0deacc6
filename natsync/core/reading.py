"""The reading token: who receives from a link at present, its reader thread or a caller that waits for an answer.

Knows nothing of sockets. Guarded by: `_lock`, under which nothing is called or waited for. Whoever holds the token may
be struck by an exception of a signal handler anywhere, so it is known by an object of the holder's own, which tells
after any step whether there is something to give back.
"""

from __future__ import annotations

import threading

from natsync.locks import Wakeup

__all__ = ["ReadingToken", "Turn"]


class Turn:
    """One holding of the token."""

    __slots__ = ("shut_gate", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.shut_gate = False
        """Its holder has shut the gate, or is about to, and opens it in any case."""


class ReadingToken:
    """See the module.

    Args:
        holder: Who has it at first, and has begun.
    """

    def __init__(self, holder: Turn | None) -> None:
        self._lock = threading.Lock()
        self.holder: Turn | None = holder
        self.busy = holder is not None
        """The holder has taken bytes from the socket that are not wholly routed. Only the holder sets it."""
        self._awaited = False
        self._returned = Wakeup()

    def take(self, turn: Turn) -> bool:
        """Take the token, if nobody has it; never waits."""
        with self._lock:
            if self.holder is not None:
                return False
            self.holder = turn
            return True

    def begin(self, turn: Turn) -> bool:
        """Begin to take bytes, which nobody may interrupt; False when the token was taken away while `turn` waited."""
        with self._lock:
            if self.holder is not turn:
                return False
            self.busy = True
            return True

    def give_back(self, turn: Turn) -> None:
        """Let others have it."""
        with self._lock:
            if self.holder is turn:
                self.busy = False
                self.holder = None
                if self._awaited:
                    self._returned.set()

    def revoke(self, thread: int | None) -> bool:
        """Take the token away from a holder that only waits for bytes, if it is of this thread (None: of any)."""
        with self._lock:
            holder = self.holder
            if holder is None or self.busy or thread not in (None, holder.thread):
                return False
            self.holder = None
            if self._awaited:
                self._returned.set()
            return True

    def wait_returned(self, timeout: float) -> None:
        """Wait until somebody gives it back, at most `timeout` seconds; for one thread."""
        with self._lock:
            self._awaited = self.holder is not None
        if self._awaited:
            self._returned.wait(timeout)
            self._awaited = False
