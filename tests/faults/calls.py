"""Threads that call the client, and a protocol of their calls: how long each took, and what it raised."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from natsync import NatsError
from tests.support.waiting import TIME_FACTOR

if TYPE_CHECKING:
    from collections.abc import Callable

MARGIN = 1.0 * TIME_FACTOR
"""Seconds that a call may take beyond its deadline: two processors, and other tests beside this one."""


class Calls:
    """The protocol."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.made: Counter[str] = Counter()
        self.raised: Counter[tuple[str, type[NatsError]]] = Counter()
        self.late: list[str] = []

    def __call__(self, what: str, deadline: float, function: Callable[[], object]) -> NatsError | None:
        """Call, take note, and return what was raised; anything but a NatsError passes."""
        begin = time.monotonic()
        error: NatsError | None = None
        try:
            function()
        except NatsError as exc:
            error = exc
        took = time.monotonic() - begin
        with self._lock:
            self.made[what] += 1
            if error is not None:
                self.raised[what, type(error)] += 1
            if took > deadline + MARGIN:
                self.late.append(f"{what} took {took:.2f} s instead of {deadline:g}, and raised {error!r}")
        return error

    def check(self, right: dict[str, tuple[type[NatsError], ...]]) -> None:
        """No call was late, and each raised only what is right for it."""
        assert not self.late, self.late
        wrong = [
            f"{what}: {kind.__name__} x {count}"
            for (what, kind), count in self.raised.items()
            if not issubclass(kind, right.get(what, ()))
        ]
        assert not wrong, wrong


class Crew:
    """Threads that work until told to stop; what one of them raises fails the test."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._over = threading.Event()

    def loop(self, step: Callable[[], bool], pause: float) -> None:
        """Start a thread that calls `step` again and again, until it says no."""

        def work() -> None:
            while not self._over.wait(pause) and step():
                pass

        self.do(work)

    def do(self, work: Callable[[], object]) -> None:
        """Start a thread that does this once."""

        def safely() -> None:
            try:
                work()
            except BaseException as error:
                self._failures.append(error)

        thread = threading.Thread(target=safely, name=f"test-crew-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self, patience: float) -> None:
        """Have all threads end, within so many seconds, and raise what the first to fail raised."""
        self._over.set()
        end = time.monotonic() + patience + MARGIN
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        hanging = [thread.name for thread in self._threads if thread.is_alive()]
        if self._failures:
            raise self._failures[0]
        assert not hanging, f"still in a call: {hanging}"
