"""A line on the terminal that says how far a long work is."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

__all__ = ["Progress"]

_INTERVAL = 0.1  # seconds between two drawings
_WIDEST = 40


class Progress:
    """Draws a bar on stderr while its block runs, and removes it afterwards; does nothing where there is no terminal.

    Args:
        title: What is going on.
        total: How much there is to do.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._began = time.monotonic()
        self._drawn = 0.0
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._visible:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def show(self, done: int) -> None:
        """Draw the bar, unless that has just been done."""
        now = time.monotonic()
        if not self._visible or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        share = min(done / self._total, 1.0)
        rate = done / max(now - self._began, 1e-9)
        words = f" {share:4.0%} {rate:,.0f}/s"
        room = shutil.get_terminal_size().columns - len(self._title) - len(words) - 4
        width = max(min(room, _WIDEST), 0)
        bar = "#" * round(share * width)
        print(f"\r{self._title} [{bar:<{width}}]{words}\033[K", end="", file=sys.stderr, flush=True)
