"""What tests share: threads that cannot hold up the run, an interpreter in a hurry, signals, patience."""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.support.waiting import TIME_FACTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

# How long an example takes says nothing on a machine that is busy with something else.
settings.register_profile("natsync", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("natsync")


class Pool:
    """A thread for each call. They are daemons: one that waits for ever fails its test, and not the whole run."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
        """Start a call; its result or exception is the future's."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call(*args, **kwargs))
            except BaseException as exc:
                future.set_exception(exc)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        return future

    def map(self, call: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """Call for each set of arguments, all at once, and return the results."""
        futures = [self.submit(call, *args) for args in zip(*iterables, strict=True)]
        return [future.result(30 * TIME_FACTOR) for future in futures]

    def join(self) -> None:
        """Wait for the threads, which should be at their ends."""
        deadline = time.monotonic() + 10 * TIME_FACTOR
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Threads that have all ended when the test ends."""
    made = Pool()
    yield made
    made.join()


@pytest.fixture(params=[None, 1e-6], ids=["", "hasty"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test of threads as usual, and with the interpreter switching threads as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(request.param or usual)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def strike() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have a function called on the main thread a little later, by a signal, in the middle of whatever it does then."""
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("this system cannot signal a thread")
    main = threading.main_thread().ident
    assert main is not None
    usual = signal.getsignal(signal.SIGUSR1)
    timers: list[threading.Timer] = []

    def strike(call: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: call())
        timers.append(threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)))
        timers[-1].start()

    yield strike
    for timer in timers:
        timer.cancel()
        timer.join(10)
    signal.signal(signal.SIGUSR1, usual)
