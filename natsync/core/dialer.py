"""From a host and a port to a connected socket, within a deadline.

Knows name resolution and connecting; nothing of NATS. Everything that fails here is a `NoServersError`: refused,
unreachable, name unknown, no answer in time.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from typing import Any

from natsync.deadline import Deadline
from natsync.errors import NoServersError
from natsync.locks import Latch
from natsync.policy.urls import ServerUrl

__all__ = ["Abort", "dial"]

_Address = tuple[Any, ...]
# More seconds than anybody waits, and few enough for every system's clock.
_LONGEST = 86400.0


class Abort:
    """The means to end a connection attempt from another thread: it wakes whatever the attempt waits on.

    Takes no lock, as a signal handler may fire it. Each side writes first and looks at the other's word afterwards, so
    that at least one of them sees the other.
    """

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._wake: Callable[[], None] | None = None
        self._fired = False

    def guard(self, sock: socket.socket | None) -> None:
        """Name the socket that the attempt now depends on (None: none any more)."""
        self._sock = sock
        self.guard_wait(None if sock is None else lambda: _shut(sock))

    def guard_wait(self, wake: Callable[[], None] | None) -> None:
        """Say how the attempt is woken from what it waits on now."""
        self._wake = wake
        if self._fired and wake is not None:
            wake()

    def fire(self) -> None:
        """End the attempt; it raises on its own thread."""
        self._fired = True
        wake = self._wake
        if wake is not None:
            wake()

    @property
    def fired(self) -> bool:
        return self._fired

    def abandon(self) -> None:
        """In a forked child, where no other thread exists: close the inherited descriptor, and nothing more."""
        if self._sock is not None:
            self._sock.close()


def dial(
    url: ServerUrl,
    deadline: Deadline,
    abort: Abort,
    *,
    dialer: Callable[[str, int, float], socket.socket] | None = None,
    randomize: bool = True,
) -> socket.socket:
    """Connect to one server: each of its addresses in turn, with an equal share of the time left [ADR-11].

    Raises:
        NoServersError: None of them could be reached; the cause is the last one's.
    """
    if dialer is not None:
        return _dial_custom(dialer, url, deadline)
    addresses = _resolve(url, deadline, abort)
    if randomize:
        random.shuffle(addresses)
    failure: OSError | None = None
    for index, (family, address) in enumerate(addresses):
        if abort.fired:
            break
        try:
            return _connect(family, address, deadline.remaining() / (len(addresses) - index), abort)
        except OSError as exc:
            failure = exc
    raise NoServersError(_why(url, failure), server=url.redacted) from failure


def _dial_custom(
    dialer: Callable[[str, int, float], socket.socket], url: ServerUrl, deadline: Deadline
) -> socket.socket:
    try:
        sock = dialer(url.host, url.port, deadline.remaining())
    except Exception as exc:
        raise NoServersError(f"the dialer could not reach {url.redacted}: {exc}", server=url.redacted) from exc
    if not hasattr(sock, "fileno"):
        raise NoServersError(
            f"the dialer returned {type(sock).__name__} for {url.redacted}, and not a connected socket",
            server=url.redacted,
        )
    return sock


def _connect(family: int, address: _Address, timeout: float, abort: Abort) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        abort.guard(sock)
        sock.settimeout(min(max(timeout, 0.001), _LONGEST))
        sock.connect(address)
    except BaseException:
        abort.guard(None)
        sock.close()
        raise
    return sock


def _resolve(url: ServerUrl, deadline: Deadline, abort: Abort) -> list[tuple[int, _Address]]:
    if url.is_ip:
        return _getaddrinfo(url.host, url.port)
    # getaddrinfo() has no timeout and cannot be interrupted; a name server that is away takes it many seconds.
    answer: list[list[tuple[int, _Address]] | OSError] = []
    done = Latch()

    def look_up() -> None:
        try:
            answer.append(_getaddrinfo(url.host, url.port))
        except OSError as exc:
            answer.append(exc)
        done.open()

    abort.guard_wait(done.open)
    try:
        threading.Thread(target=look_up, name="natsync-resolver", daemon=True).start()
    except RuntimeError as exc:  # the interpreter is at its end, or the system has no more threads
        raise NoServersError(f"the host of {url.redacted} cannot be looked up: {exc}", server=url.redacted) from exc
    in_time = done.wait(deadline.remaining())
    abort.guard_wait(None)
    if abort.fired:
        raise NoServersError(_why(url, None), server=url.redacted)
    if not in_time:
        raise NoServersError(
            f"the name {url.host} was not resolved within {deadline.timeout} s; check the name server",
            server=url.redacted,
        )
    found = answer[0]
    if isinstance(found, OSError):
        raise NoServersError(_why(url, found), server=url.redacted) from found
    return found


def _getaddrinfo(host: str, port: int) -> list[tuple[int, _Address]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:  # a label that IDNA refuses
        raise OSError(f"not a host name: {exc}") from exc
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _why(url: ServerUrl, failure: OSError | None) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return f"{url.redacted} refused the connection; is a server running there?"
    if isinstance(failure, socket.gaierror):
        return f"the host of {url.redacted} is unknown ({failure.strerror}); check the name"
    if isinstance(failure, TimeoutError):
        return f"{url.redacted} did not answer in time; check the address and firewalls"
    if failure is None:
        return f"connecting to {url.redacted} was given up"
    return f"{url.redacted} cannot be reached: {failure.strerror or failure}"


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
