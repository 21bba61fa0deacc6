"""What this process holds: memory, threads, sockets; they must stay flat."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import threading
from pathlib import Path

from tests.support.leaks import open_sockets

GROWTH = 24.0  # MiB that the memory may grow after the first rounds
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass(frozen=True)
class Vitals:
    """One look."""

    mib: float
    objects: int
    threads: int
    sockets: int

    def __str__(self) -> str:
        return f"{self.mib:g} MiB, {self.objects} objects, {self.threads} threads, {self.sockets} sockets"


def look() -> Vitals:
    """Measure, after a collection of garbage, and when the C library has given back what it keeps for later."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # there is another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    mib = round(pages * _PAGE / 2**20, 1)
    return Vitals(mib, len(gc.get_objects()), threading.active_count(), len(open_sockets()))


def wrong(first: Vitals, last: Vitals) -> list[str]:
    """Say what has grown."""
    lines = []
    if last.mib > first.mib + GROWTH:
        lines.append(f"memory grew from {first.mib} to {last.mib} MiB")
    if last.objects > 1.25 * first.objects:
        lines.append(f"objects grew from {first.objects} to {last.objects}")
    if last.threads > first.threads:
        lines.append(f"threads grew from {first.threads} to {last.threads}")
    if last.sockets > first.sockets:
        lines.append(f"sockets grew from {first.sockets} to {last.sockets}")
    return lines
