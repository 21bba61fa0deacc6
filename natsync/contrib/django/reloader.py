"""Starting a worker again when code changes, by the parts of Django's reloader, with an end that lets it drain.

Django's own `run_with_reloader` kills the inner of its two processes when the outer one gets SIGTERM, and gives it a
quarter of a second after Ctrl-C: fine for a web server, but a worker would lose messages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from django.utils import autoreload

from natsync.contrib.worker import interrupt_once

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_with_reloader"]

_CHANGED = 3  # the status with which Django's reloader asks to be started again
_GRACE = 0.5  # seconds; a terminal sends Ctrl-C to both processes


def run_with_reloader(work: Callable[[], object], end: Callable[[], object]) -> None:
    """Run `work` on a thread of an inner process, which is started again whenever code changes; blocks until the end.

    Args:
        work: What to do; ends when `end` has been called.
        end: Called in the inner process's main thread at SIGTERM, Ctrl-C, or a change.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        sys.exit(_run_inner_processes())
    signal.signal(signal.SIGTERM, interrupt_once)
    try:
        autoreload.start_django(autoreload.get_reloader(), work)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end()


def _run_inner_processes() -> int:
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    while True:
        inner = subprocess.Popen(autoreload.get_child_arguments(), env=environment, close_fds=False)
        signal.signal(signal.SIGTERM, lambda *_, inner=inner: inner.terminate())
        status = _wait(inner)
        if status != _CHANGED:
            return status


def _wait(inner: subprocess.Popen[bytes]) -> int:
    try:
        return inner.wait()
    except KeyboardInterrupt:
        pass
    try:
        return inner.wait(_GRACE)
    except subprocess.TimeoutExpired:
        inner.terminate()  # it is at its end already, and ignores this; or only we have been interrupted
        return inner.wait()
