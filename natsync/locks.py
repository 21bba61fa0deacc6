"""The ways in which a thread of natsync waits for another.

Floor 0: knows `threading` and nothing of NATS. All are made of plain locks, because a plain lock is the only primitive
that is at once the cheapest to wake, interruptible by Ctrl-C, and usable in a signal handler. A Condition, and so an
Event, is none of these: Ctrl-C on the way into its `with` leaves it locked for ever [cpython #74174].
"""

from __future__ import annotations

import math
import threading
import time

__all__ = ["Latch", "Milestone", "Wakeup", "acquire_within"]

# The main thread, which gets the signals, sleeps for so many seconds at a time. A signal that comes in the moment in
# which it falls asleep does not wake it, so that Ctrl-C would be lost in a wait for ever; and on Windows before Python
# 3.14 no signal wakes it [cpython #80116]. A tenth of a second is what a user takes for "at once".
_SLICE = 0.05


def acquire_within(lock: threading.Lock, timeout: float) -> bool:
    """Acquire a lock, waiting at most `timeout` seconds (`math.inf`: for ever); say whether it was got."""
    if timeout <= _SLICE:
        return lock.acquire(timeout=timeout)
    if threading.get_ident() != threading.main_thread().ident:
        return lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
    end = math.inf if timeout == math.inf else time.monotonic() + timeout
    while True:
        left = _SLICE if end == math.inf else min(_SLICE, end - time.monotonic())
        if left <= 0:
            return lock.acquire(blocking=False)
        if lock.acquire(timeout=left):
            return True


class Wakeup:
    """A one-bit signal: any thread sets it, one thread waits for it, and the wait consumes it.

    A signal that comes before the wait is kept, so it cannot be lost; two signals before a wait are one.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiter, now or at its next wait; safe from any thread and from signal handlers; never blocks."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is set already

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds (`math.inf`: for ever) and say whether the signal came."""
        return acquire_within(self._lock, timeout)


class Latch:
    """An answer that one thread waits for and another gives, once.

    The giver stores its facts first and calls `open()` last; whoever sees `wait()` return true may read them.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the waiter go; a second call changes nothing."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was open already: an answer and a loss may both arrive

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds and say whether the latch is open; it is for one waiter."""
        return acquire_within(self._lock, timeout)


class Milestone:
    """A fact that any number of threads wait for, and that stays once it is one."""

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open = False
        self._waiting: list[Latch] = []

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        """Let all go who wait, now and later."""
        self._open = True
        for latch in tuple(self._waiting):
            latch.open()

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds (`math.inf`: for ever) and say whether the milestone is reached."""
        latch = Latch()
        self._waiting.append(latch)
        try:
            # In this order: whoever opens it after the look finds the latch.
            return self._open or latch.wait(timeout)
        finally:
            self._waiting.remove(latch)
