"""The process around the clients: what happens to them at a fork and at exit.

Knows which engines there are, weakly: a client that is forgotten is gone before its engine has come to its end. The
hooks are made at import and start no thread.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import warnings
import weakref
from functools import partial
from typing import Any

from natsync.core.engine import Engine
from natsync.deadline import Deadline
from natsync.nuid import reseed

__all__ = ["track"]

# By their ids, because the values of a dict can be listed at once while other threads go on adding.
_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
# A script that ends must end soon, whatever its server does.
_EXIT_TIMEOUT = 1.5
_EXIT_GOODBYE = 1.0
# Options of uWSGI: forks that take Python's lock first, or applications that are loaded after the fork.
_MAKE_FORKS_SAFE = {"py-call-uwsgi-fork-hooks", "python-call-uwsgi-fork-hooks", "lazy-apps", "lazy"}


def track(engine: Engine) -> None:
    """Take care of a client's engine at forks and at exit."""
    _engines[id(engine)] = engine
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None and uwsgi.worker_id() == 0 and not _MAKE_FORKS_SAFE & uwsgi.opt.keys():
        warnings.warn(
            "uWSGI forks workers from a process in which natsync has threads, and does not tell Python: now and then "
            "such a worker hangs; set py-call-uwsgi-fork-hooks = true, or lazy-apps = true",
            RuntimeWarning,
            stacklevel=5,
        )


def _tracked() -> list[Engine]:
    return [engine for engine in (ref() for ref in _engines.valuerefs()) if engine is not None]


def _after_fork_in_child() -> None:
    # No other thread exists here, and any lock may be held for ever: nothing is waited for, and no byte is sent.
    reseed()
    _exit_with_multiprocessing()
    inherited = [engine for engine in _tracked() if engine.pid != os.getpid()]  # called twice, it must harm nothing
    for engine in inherited:
        del _engines[id(engine)]
    for engine in inherited:
        client = engine.client
        if client is not None:
            client._engine = Engine(client, engine.options)
            track(client._engine)
            if engine.closed.is_open:
                client._engine.request_close()
        engine.abandon()


def _fork_with_uwsgi() -> None:
    # uWSGI forks its workers in C and does not call Python's hooks, unless it is told to; but it calls this one.
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return
    try:
        importlib.import_module("uwsgidecorators").postfork(_after_fork_in_child)  # which keeps a list of hooks
    except Exception:  # it is not installed, or refuses to work without a master process
        uwsgi.post_fork_hook = _after_fork_in_child


def _exit_with_multiprocessing() -> None:
    # Its forked children end by os._exit, which runs no exit handler, only finalizers; those made before its own
    # start-up code has run are forgotten, so this one is made by its after-fork registry. Celery has a copy of its own.
    for name in ("multiprocessing.util", "billiard.util"):
        util = sys.modules.get(name)
        if util is not None:
            util.register_after_fork(_engines, partial(_finalize_by, util))


def _finalize_by(util: Any, _: object) -> None:
    util.Finalize(None, _at_exit, exitpriority=0)


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
_fork_with_uwsgi()
atexit.register(_at_exit)
