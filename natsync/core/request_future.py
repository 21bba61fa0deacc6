"""`request_future`: a reply as a `concurrent.futures.Future`, and the thread that times such futures out.

Knows the mux and futures. The reader completes a future, but the user's callbacks on it run on the dispatcher.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from natsync.core.dispatcher import Dispatcher
from natsync.core.lean_future import LeanFuture
from natsync.core.message import Msg
from natsync.core.mux import Mux
from natsync.core.reply import read_reply
from natsync.core.threads import ClientThread
from natsync.errors import NatsError, NatsTimeoutError
from natsync.locks import Wakeup
from natsync.protocol.operations import MsgOp

__all__ = ["FutureTimer", "RequestFuture"]


class Asks(Protocol):
    """The parts that a future needs."""

    mux: Mux
    dispatcher: Dispatcher

    def push_and_read_for(self, waiter: Any, patience: float) -> None: ...


class RequestFuture(LeanFuture[Msg]):
    """The answer to one request, when it comes. `cancel()` works until then."""

    lasting = False
    answered = False
    token = ""

    def __init__(self, parts: Asks, subject: str, timeout: float, client: object) -> None:
        self._client = client  # which must not be forgotten before the answer is there
        self._parts = parts
        self._subject = subject
        self.timeout = timeout
        self.expires_at = time.monotonic() + timeout
        self.inbox = parts.mux.enter(self)

    def result(self, timeout: float | None = None) -> Msg:
        """Return the reply; blocks until it is there, at most `timeout` seconds; None: until the request has timed out.

        Raises:
            concurrent.futures.TimeoutError: Not within `timeout`.
            concurrent.futures.CancelledError: It was cancelled.
            NatsError: What `request` would raise.
        """
        if not self.answered:
            self._parts.push_and_read_for(self, math.inf if timeout is None else timeout)
        if self.answered and self._exception is None:
            return self._result  # type: ignore[return-value]
        return super().result(timeout)

    # Whoever takes the future out of the mux's table completes it, so none of these meets a future that is done.

    def is_awaited(self, thread: int) -> bool:
        return True

    def reply(self, operation: MsgOp) -> None:
        """The reader: the answer."""
        try:
            msg = read_reply(operation, self._subject)
        except NatsError as exc:
            self.fail(exc)
        else:
            self.set_result(msg)
            self.answered = True

    def fail(self, error: NatsError) -> None:
        """Nobody will answer."""
        if not self.done():  # as it may be after Ctrl-C in the middle of `reply`
            self.set_exception(error)
        self.answered = True

    def expire(self) -> None:
        """The timer: the time is over."""
        if self._parts.mux.leave(self.token):
            self.fail(
                NatsTimeoutError(f"no reply from {self._subject!r} within {self.timeout} s", timeout=self.timeout)
            )

    def cancel(self) -> bool:
        """Give the request up, if it is not answered yet; its reply is ignored."""
        if not self._parts.mux.leave(self.token):
            return self.cancelled()
        try:
            super().cancel()
        finally:
            super().cancel()  # again, if Ctrl-C struck: nobody else looks after it any more
            self.set_running_or_notify_cancel()  # tells concurrent.futures.wait
        return True

    def add_done_callback(self, fn: Callable[[Future[Msg]], Any]) -> None:
        """Call `fn(future)` when the future is done: on a callback worker of the client, never on the reader.

        Once the client is closed it is called at once, on the calling thread.
        """
        self._parts.dispatcher.add_for_futures()

        def call(future: Future[Msg]) -> None:
            if not self._parts.dispatcher.submit_if_open(partial(fn, future)):
                fn(future)

        super().add_done_callback(call)


class FutureTimer:
    """Expires futures. Looks at those in flight only, once for each time that the earliest may be due.

    Args:
        owner: The engine.
        client: The client's name, for the thread's.
        mux: Whose waiters to look at.
    """

    def __init__(self, owner: object, client: str, mux: Mux) -> None:
        self._mux = mux
        self._lock = threading.Lock()
        self._due_at = math.inf
        self._wakeup = Wakeup()
        self._stopped = False
        self._started = False
        self.thread = ClientThread(owner, client, "timer", self._run)

    def add(self, future: RequestFuture) -> None:
        """Take note of a future's time, which the mux knows already; starts the thread at the first one."""
        if self._started and future.expires_at >= self._due_at:
            return  # a sweep that begins meanwhile finds it in the mux
        first = False
        try:
            with self._lock:
                first, self._started = not self._started, True
                earlier = future.expires_at < self._due_at
                if earlier:
                    self._due_at = future.expires_at
            if first:
                self.thread.start()
            elif earlier:
                self._wakeup.set()
        except BaseException:  # no more threads, or Ctrl-C: the next future starts it
            if first and self.thread.ident is None:
                self._started = False
            raise

    def stop(self) -> None:
        self._stopped = True
        self._wakeup.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wakeup.wait(max(0.0, self._due_at - time.monotonic()))
            if time.monotonic() >= self._due_at:
                self._sweep()

    def _sweep(self) -> None:
        with self._lock:
            self._due_at = math.inf
        now = time.monotonic()
        earliest = math.inf
        for waiter in self._mux.waiters():
            if isinstance(waiter, RequestFuture):
                if waiter.expires_at <= now:
                    waiter.expire()
                else:
                    earliest = min(earliest, waiter.expires_at)
        with self._lock:
            self._due_at = min(self._due_at, earliest)
