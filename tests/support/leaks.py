"""What this process holds: natsync's threads and open sockets. Compared before and after a test, they show leaks."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


def natsync_threads() -> list[threading.Thread]:
    """The living threads that natsync has started, by the beginning of their names."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("natsync-")]


def open_sockets() -> set[str]:
    """The open sockets of this process, each by the kernel's name for it; empty where the system has no /proc."""
    if not _DESCRIPTORS.is_dir():
        return set()
    names = set()
    for entry in _DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError):  # the descriptor that lists the directory is gone by now
            names.add(os.readlink(entry))  # noqa: PTH115  (a name such as "socket:[4711]" is no path)
    return {name for name in names if name.startswith("socket:")}


def describe_leaks(threads_before: set[threading.Thread], sockets_before: set[str]) -> str:
    """Say what is there now and was not there before; an empty text means nothing."""
    threads = [thread.name for thread in natsync_threads() if thread not in threads_before]
    sockets = open_sockets() - sockets_before
    return ", ".join([f"thread {name}" for name in sorted(threads)] + sorted(sockets))
