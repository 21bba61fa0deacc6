"""Where a thread sleeps until a socket can be read, and where another thread can have it sleep on.

Two threads that wait for one socket are both woken by its bytes, and the one that comes too late costs a switch of
threads for nothing. A shut gate lets nobody know of any bytes. Linux only (epoll); elsewhere, and under gevent, which
takes epoll away, there is none.
"""

from __future__ import annotations

import math
import select
from typing import Any

__all__ = ["Gate", "make_gate"]


class Gate:
    """A gate at one file descriptor, open at first; it does not own the descriptor.

    One thread waits; any thread opens and shuts.
    """

    def __init__(self, epoll: Any, fd: int) -> None:
        self._epoll = epoll
        self._pollers: list[Any] = []
        self._fd = fd
        self._modify = epoll.modify
        epoll.register(fd, select.EPOLLIN)

    def wait(self) -> None:
        """Block until the gate is open and there are bytes, or until the stream is shut down."""
        self._epoll.poll()

    def poll(self, timeout: float) -> bool:
        """Wait beside a shut gate, at most `timeout` seconds; say whether there are bytes, or the end of the stream."""
        # Made once, mostly; one that is in use by a thread that was left behind in a signal handler is not used again.
        try:
            poller = self._pollers.pop()
        except IndexError:
            poller = self._make_poller()
        ready = poller.poll(math.ceil(timeout * 1000))
        self._pollers.append(poller)
        return bool(ready)

    def _make_poller(self) -> Any:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return poller

    def open(self) -> None:
        """Let the waiting thread know of bytes; of those, too, that came while the gate was shut."""
        try:
            self._modify(self._fd, select.EPOLLIN)
        except (OSError, ValueError):
            pass  # it was closed meanwhile

    def shut(self) -> None:
        """Have the waiting thread sleep on, whatever comes."""
        try:
            self._modify(self._fd, 0)
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Give the kernel's object back; nobody may be waiting."""
        self._epoll.close()


def make_gate(fd: int) -> Gate | None:
    """Return a gate, or None where the system has nothing to make it of."""
    epoll = getattr(select, "epoll", None)  # looked up late: gevent takes it away
    try:
        return None if epoll is None else Gate(epoll(), fd)
    except OSError:
        return None  # no descriptor is left, for example: a gate saves time, and nothing else
