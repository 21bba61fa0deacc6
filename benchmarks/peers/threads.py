"""Threads for contenders that have them: those that work, those that only compute."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING

from benchmarks.peers.contender import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class InThreads:
    """Divides a count between threads that stand ready when the clock starts; one thread is the caller itself."""

    def __init__(self, threads: int, count: int, some: Callable[[int], None]) -> None:
        self._some = some
        self._shares = [count // threads + (number < count % threads) for number in range(threads)]
        self._barrier = threading.Barrier(threads + 1)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Callable[[], None]:
        if len(self._shares) == 1:
            return functools.partial(self._some, self._shares[0])
        self._threads = [threading.Thread(target=self._run, args=(share,), daemon=True) for share in self._shares]
        for thread in self._threads:
            thread.start()
        return self._all

    def __exit__(self, *_: object) -> None:
        pass

    def _run(self, share: int) -> None:
        self._barrier.wait()
        self._some(share)

    def _all(self) -> None:
        self._barrier.wait()
        for thread in self._threads:
            thread.join()


class Computing:
    """Threads that compute while the context lasts."""

    def __init__(self, threads: int) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=compute, args=(self._stop.is_set,), daemon=True) for _ in range(threads)
        ]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def ticks() -> Iterator[None]:
    """Look every 10 ms, until the deadline."""
    give_up = time.monotonic() + DEADLINE
    while time.monotonic() < give_up:
        yield
        time.sleep(0.01)


def compute(until: Callable[[], bool]) -> None:
    """Keep the interpreter busy, as a thread that computes does."""
    while not until():
        sum(number * number for number in range(100))
