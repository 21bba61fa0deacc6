"""The process around the clients: what happens to them at a fork and at exit.

Knows which engines there are, weakly: a client that is forgotten is gone before its engine has come to its end. The
hooks are made at import and start no thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref

from natsync.core.engine import Engine
from natsync.deadline import Deadline
from natsync.nuid import reseed

__all__ = ["track"]

# By their ids, because the values of a dict can be listed at once while other threads go on adding.
_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
# A script that ends must end soon, whatever its server does.
_EXIT_TIMEOUT = 1.5
_EXIT_GOODBYE = 1.0


def track(engine: Engine) -> None:
    """Take care of a client's engine at forks and at exit."""
    _engines[id(engine)] = engine


def _tracked() -> list[Engine]:
    return [engine for engine in (ref() for ref in _engines.valuerefs()) if engine is not None]


def _after_fork_in_child() -> None:
    # No other thread exists here, and any lock may be held for ever: nothing is waited for, and no byte is sent.
    reseed()
    _exit_with_multiprocessing()
    inherited = _tracked()
    _engines.clear()
    for engine in inherited:
        client = engine.client
        if client is not None:
            client._engine = Engine(client, engine.options)
            track(client._engine)
            if engine.closed.is_open:
                client._engine.request_close()
        engine.abandon()


def _exit_with_multiprocessing() -> None:
    # Its forked children end by os._exit, which runs no exit handler, only finalizers; those made before its own
    # start-up code has run are forgotten, so this one is made by its after-fork registry.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(_engines, lambda _: util.Finalize(None, _at_exit, exitpriority=0))


def _at_exit() -> None:
    # Daemon threads still run here; they are stopped afterwards.
    open_engines = [engine for engine in _tracked() if not engine.closed.is_open]
    for engine in open_engines:
        engine.goodbye = min(engine.goodbye, _EXIT_GOODBYE)
        engine.request_close()
    deadline = Deadline(_EXIT_TIMEOUT)
    for engine in open_engines:
        engine.wait_ended(deadline.remaining())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
