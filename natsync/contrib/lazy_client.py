"""A client that is made when it is first used: the shared client of a process under a web server.

Importing a project, running its management commands and forking its workers connects nothing; the first `publish` does.
Owns at most one client at a time. Its one lock protects who makes it; nothing is waited for under it.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from natsync import Client, Msg, NatsConnectionError, NatsError

if TYPE_CHECKING:
    from collections.abc import Callable

    # All that a client has is found by `__getattr__`; type checkers read it here.
    _Base = Client
else:
    _Base = object

__all__ = ["LazyClient"]


class LazyClient(_Base):
    """Has all methods and properties of a `natsync.Client`, and connects at the first use of one of them.

    Safe to share among all threads, and across forks: a forked child connects anew by itself. Threads that come while
    another one is connecting wait for that attempt, and get its result or its error; an attempt that failed is followed
    by a new one at the next use. So is the end of the client, be it `close()` or that natsync has given up.

    Args:
        make: Returns a new client; called on the thread that uses it first, never by two at a time.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._made: Client | None = None
        self._setups: list[Callable[[Client], None]] = []
        self.forget_threads()
        _lazy_clients.add(self)

    def forget_threads(self) -> None:
        """In a forked child: those that may hold the lock or be connecting are not there."""
        self._lock = threading.Lock()
        self._attempt: Future[Client] | None = None

    def connect(self) -> Client:
        """Return the client itself, connecting now unless it is connected.

        Blocks as `natsync.connect` does, and raises what that raises. From any thread.
        """
        made = self._made
        if made is not None and not made.is_closed:
            return made
        with self._lock:
            made = self._made
            if made is not None and not made.is_closed:
                return made
            attempt, is_first = self._attempt, self._attempt is None
            if attempt is None:
                attempt = self._attempt = Future()
        if is_first:
            self._try(attempt)
        return attempt.result()

    def _try(self, attempt: Future[Client]) -> None:
        try:
            client = self._make()
        except BaseException as error:
            with self._lock:
                self._attempt = None
            if not isinstance(error, Exception):  # Ctrl-C is for this thread alone
                attempt.set_exception(NatsConnectionError("the thread that was connecting was interrupted; try again"))
                raise
            attempt.set_exception(error)
        else:
            with self._lock:
                for setup in self._setups:
                    setup(client)
                self._made, self._attempt = client, None
            attempt.set_result(client)

    if not TYPE_CHECKING:  # it would have them take any name for a good one

        def __getattr__(self, name: str) -> Any:
            # Tools ask objects for all kinds of names; only those of a client are worth a connection.
            if name.startswith("_") or not hasattr(Client, name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.connect(), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(Client) if not name.startswith("_"))})

    def __repr__(self) -> str:
        made = self._made
        return f"<LazyClient, {'not connected yet' if made is None else made.status.name}>"

    # What must not connect first

    def close(self) -> None:
        """Close the client, if there is one; see `Client.close`. The next use makes a new one."""
        made = self._made
        if made is not None:
            made.close()

    def drain(self, timeout: float | None = None) -> None:
        """Drain and close the client, if there is one; see `Client.drain`. The next use makes a new one."""
        made = self._made
        if made is not None and not made.is_closed:
            made.drain(timeout)

    def with_handler(self, wrap: Callable[[Msg, Callable[[Msg], object]], object]) -> None:
        """As `Client.with_handler`, for every client that is made; connects nothing."""
        _check_callable("with_handler", wrap)
        self._set_up(lambda client: client.with_handler(wrap))

    def with_publish(self, hook: Callable[[Msg], Msg | None]) -> None:
        """As `Client.with_publish`, for every client that is made; connects nothing."""
        _check_callable("with_publish", hook)
        self._set_up(lambda client: client.with_publish(hook))

    def _set_up(self, setup: Callable[[Client], None]) -> None:
        with self._lock:
            self._setups.append(setup)
            if self._made is not None:
                setup(self._made)

    # For load balancers

    def health(self, timeout: float = 1.0) -> tuple[dict[str, Any], int]:
        """Ask the server for a sign of life, and return what to answer to a health check: a body, and a HTTP status.

        The status is 200, or 503 when there is no connection or no answer. Never raises `NatsError`. It tells whether
        NATS can be used (readiness); it is no reason to restart a process that finds its way back by itself (liveness).

        Args:
            timeout: Seconds to wait for the server's answer; the first use connects, too.
        """
        try:
            client = self.connect()
            seconds = client.rtt(timeout)
        except NatsError as error:
            made = self._made
            status = "DISCONNECTED" if made is None or made.is_closed else made.status.name
            return {"status": status, "error": str(error)}, 503
        return {"status": client.status.name, "server": client.connected_url, "rtt": seconds}, 200


def _check_callable(method: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{method} takes a callable, not {type(value).__name__}")


_lazy_clients: weakref.WeakSet[LazyClient] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in list(_lazy_clients):
        each.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
