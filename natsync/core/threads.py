"""How natsync starts, names and recognises its threads."""

from __future__ import annotations

import logging
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from natsync.errors import NatsConnectionError

__all__ = ["ClientThread", "interrupts_natsync", "on_thread_of"]

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
        self._has_ended = threading.Event()

    def start(self) -> None:
        """Start it.

        Raises:
            NatsConnectionError: The system has no more threads, or the interpreter is at its end [cpython #113964].
        """
        try:
            super().start()
        except RuntimeError as exc:
            raise NatsConnectionError(f"natsync cannot start its {self.role} thread: {exc}") from exc

    def run(self) -> None:
        try:
            self._loop()
        except Exception:
            _log.exception("thread %s ended by an error in natsync; please report it", self.name)
        finally:
            del self._loop  # breaks the cycle engine -> thread -> bound method -> engine
            self._has_ended.set()

    def wait_ended(self, timeout: float) -> None:
        """Wait until the thread has ended, if it was started; at most `timeout` seconds."""
        if self.ident is not None and self._has_ended.wait(timeout):
            # Before Python 3.13, join() never sees the end of a greenlet if gevent was patched in after the import of
            # threading. A greenlet that is at its last line is gone anyhow.
            is_native = type(self._has_ended).__module__ == threading.__name__
            self.join(timeout if is_native else 0.01)


def on_thread_of(owner: object, role: str | None = None) -> bool:
    """Say whether the calling thread is one of this engine's (and has this role): it cannot wait for itself."""
    thread: Any = threading.current_thread()
    if getattr(thread, "owner", None) is not owner:
        return False
    return role is None or thread.role == role


def interrupts_natsync(frame: types.FrameType | None) -> bool:
    """Say whether the main thread is in the middle of natsync's own code further up its stack, from `frame` on.

    Then a signal handler struck there (or natsync asks a hook of the user's), and it must take no lock and wait for
    nobody: the code it interrupted may hold what they need. On natsync's own threads no signal handler runs; but one of
    them is the main thread of a child that was forked in a callback. Under gevent most handlers run in its event loop,
    which may not wait either.
    """
    if _is_in_gevents_loop():
        return True
    thread = threading.current_thread()
    if thread is not threading.main_thread() or isinstance(thread, ClientThread):
        return False
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("natsync.core."):
            return True
        frame = frame.f_back
    return False


def _is_in_gevents_loop() -> bool:
    gevent: Any = sys.modules.get("gevent.hub")
    return gevent is not None and isinstance(gevent.getcurrent(), gevent.Hub)
