"""One publisher's account: what it published, what came of it, and why the rest did not come.

A message is *confirmed* by a flush that began after it and was answered on the same connection. A confirmed message
must come. One that is not may have been in flight when a connection broke: then, and only then, it may be written off.
Connections are told apart by the client's count of reconnects, the *epoch*. What was published while there was no
connection was *kept*, and must come over the next one.
"""

from __future__ import annotations

import threading
from collections import deque

from tests.faults.invariants import check_once_and_in_order

_SURE = -1  # in place of the epoch of a confirmed message
_ROUNDS_KEPT = 8  # so long a message that was written off may still come


class Ledger:
    """The account of one publisher; the publisher writes, whoever receives writes too."""

    def __init__(self, publisher: int) -> None:
        self.publisher = publisher
        self.published = self.received = self.refused = self.lost = self.late = 0
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._next = 0
        self._open: dict[int, int] = {}  # number to epoch, of what has not come yet
        self._kept: set[int] = set()
        self._came: list[int] = []
        self._written_off: deque[set[int]] = deque([set()], maxlen=_ROUNDS_KEPT)

    def take_number(self, epoch: int) -> int:
        """Open an entry, before the message is published."""
        with self._lock:
            number = self._next
            self._next += 1
            self._open[number] = epoch
            self.published += 1
            return number

    def keep(self, number: int) -> None:
        """It was published between two connections."""
        with self._lock:
            if number in self._open:
                self._kept.add(number)

    def refuse(self, number: int) -> None:
        """The publish raised an error."""
        with self._lock:
            self.refused += 1
            if self._open.pop(number, None) is None:
                self.wrong.append(f"{self.publisher}/{number} was refused, and came")

    def confirm(self, number: int, epoch: int) -> None:
        """A flush was answered, begun after `number` and ended in this epoch."""
        with self._lock:
            for each, sent in self._open.items():
                if each <= number and sent == epoch:
                    self._open[each] = _SURE

    @property
    def last(self) -> int:
        return self._next - 1

    def receive(self, number: int) -> None:
        """A message has come."""
        with self._lock:
            self.received += 1
            if self._open.pop(number, None) is not None:
                self._came.append(number)
                return
            for written_off in self._written_off:
                if number in written_off:
                    written_off.remove(number)
                    self.late += 1
                    return
            self.wrong.append(f"{self.publisher}/{number} came twice, or was never published")

    def settle(self, epoch: int, connections: int, *, restored: bool) -> None:
        """Close the round: all is quiet.

        Args:
            epoch: The present one.
            connections: How many the client has had in this round.
            restored: No connection broke while the client was restoring on it what it had kept.
        """
        with self._lock:
            lost = set(self._open)
            sure = [number for number, sent in self._open.items() if sent in (epoch, _SURE)]
            if sure:
                self.wrong.append(f"publisher {self.publisher}: {sure[:10]} were confirmed, and have not come")
            kept = [number for number in self._kept if self._open.get(number) == epoch - 1]
            if kept and restored:
                self.wrong.append(f"publisher {self.publisher}: {kept[:10]} were kept for a connection, and lost")
            self.lost += len(lost)
            self._written_off.append(lost)
            self._open.clear()
            self._kept.clear()
            came, self._came = self._came, []
        try:
            check_once_and_in_order(((self.publisher, number) for number in came), connections)
        except AssertionError as error:
            self.wrong.append(str(error))
