"""Waiting for what other threads do; the only file of the tests that may sleep.

A test that sleeps for a fixed time is slow on a fast machine and fails on a slow one. Here the interval is short and
the deadline generous, so a test takes as long as its subject, and only a failing one takes the whole deadline.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TIME_FACTOR = float(os.environ.get("NATSYNC_TEST_TIME_FACTOR", "1"))
"""Multiplies every deadline; for slow machines, emulators and coverage runs."""

_INTERVAL = 0.005


def eventually(predicate: Callable[[], T], timeout: float = 5.0, message: str = "") -> T:
    """Call `predicate` until its result is true, and return that; fail after `timeout` seconds, times `TIME_FACTOR`."""
    limit = timeout * TIME_FACTOR
    deadline = time.monotonic() + limit
    while True:
        result = predicate()
        if result:
            return result
        if time.monotonic() > deadline:
            what = message or f"{getattr(predicate, '__name__', predicate)} stays false"
            raise AssertionError(f"{what}; the last result after {limit:g} s is {result!r}")
        time.sleep(_INTERVAL)


def never(predicate: Callable[[], object], duration: float = 0.2, message: str = "") -> None:
    """Watch for `duration` seconds that `predicate` stays false: the way to test that nothing happens."""
    deadline = time.monotonic() + duration
    while time.monotonic() < deadline:
        result = predicate()
        assert not result, f"{message or predicate}: {result!r}"
        time.sleep(_INTERVAL)


class Recorder:
    """A callback that keeps what it is called with; may be called from any thread.

    Called with one positional argument it keeps that, else the tuple of all of them.
    """

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, *args: Any) -> None:
        with self._changed:
            self._items.append(args[0] if len(args) == 1 else args)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True  # an empty recorder is still a callback: `cb or default` must take it

    @property
    def items(self) -> list[Any]:
        """What came so far, oldest first."""
        with self._changed:
            return list(self._items)

    def wait_for(self, n: int = 1, timeout: float = 5.0) -> list[Any]:
        """Wait until there are at least `n` items, and return all; fails like `eventually`."""
        limit = timeout * TIME_FACTOR
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._items) >= n, limit)
            items = list(self._items)
        assert enough, f"{len(items)} items of {n} after {limit:g} s: {items!r}"
        return items
