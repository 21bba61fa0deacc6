"""The process around the clients: what happens to them at a fork and at exit.

Knows which clients there are, weakly. The hooks are made at import and start no thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Protocol

from natsync.core.engine import Engine
from natsync.deadline import Deadline
from natsync.nuid import reseed
from natsync.policy.options import Options

__all__ = ["track"]


class Client(Protocol):
    """A client, as far as the process cares."""

    _engine: Engine
    _options: Options


_clients: weakref.WeakSet[Client] = weakref.WeakSet()
# A script that ends must end soon, whatever its server does.
_EXIT_TIMEOUT = 1.5
_EXIT_GOODBYE = 1.0


def track(client: Client) -> None:
    """Take care of a client at forks and at exit."""
    _clients.add(client)


def _after_fork_in_child() -> None:
    # No other thread exists here, and any lock may be held for ever: nothing is waited for, and no byte is sent.
    reseed()
    _exit_with_multiprocessing()
    for client in list(_clients):
        inherited = client._engine
        client._engine = Engine(client, client._options)
        if inherited.closed.is_set():
            client._engine.request_close()
        inherited.abandon()


def _exit_with_multiprocessing() -> None:
    # Its forked children end by os._exit, which runs no exit handler, only finalizers; those made before its own
    # start-up code has run are forgotten, so this one is made by its after-fork registry.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(_clients, lambda _: util.Finalize(None, _at_exit, exitpriority=0))


def _at_exit() -> None:
    # Daemon threads still run here; they are stopped afterwards.
    open_engines = [client._engine for client in list(_clients) if not client._engine.closed.is_set()]
    for engine in open_engines:
        engine.goodbye = min(engine.goodbye, _EXIT_GOODBYE)
        engine.request_close()
    deadline = Deadline(_EXIT_TIMEOUT)
    for engine in open_engines:
        engine.wait_ended(deadline.remaining())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
