"""How natsync starts, names and recognises its threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["ClientThread", "on_thread_of"]

_log = logging.getLogger("natsync.threads")


class ClientThread(threading.Thread):
    """A daemon that belongs to one engine.

    Daemon, because a client that is forgotten must not keep the interpreter alive; clients still open are closed by an
    exit handler before daemons are stopped.

    Args:
        owner: The engine.
        client: The client's name, the middle of the thread's.
        role: What it does: reader, supervisor, events, worker-1.
        target: Its loop; whatever it raises is logged, since a thread must not die in silence.
    """

    def __init__(self, owner: object, client: str, role: str, target: Callable[[], None]) -> None:
        super().__init__(name=f"natsync-{client}-{role}", daemon=True)
        self.owner = owner
        self.role = role
        self._loop = target

    def run(self) -> None:
        try:
            self._loop()
        except Exception:
            _log.exception("thread %s ended by an error in natsync; please report it", self.name)
        finally:
            del self._loop  # breaks the cycle engine -> thread -> bound method -> engine


def on_thread_of(owner: object, role: str | None = None) -> bool:
    """Say whether the calling thread is one of this engine's (and has this role): it cannot wait for itself."""
    thread: Any = threading.current_thread()
    if getattr(thread, "owner", None) is not owner:
        return False
    return role is None or thread.role == role
