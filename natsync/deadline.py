"""One timeout, spent once over all the steps of a call.

Floor 0: knows the monotonic clock and nothing else.
"""

from __future__ import annotations

import math
import time

__all__ = ["Deadline"]


class Deadline:
    """A point on the monotonic clock by which a call must be over; immutable.

    Args:
        timeout: Seconds from now; None for no limit.
    """

    __slots__ = ("at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.at = math.inf if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float:
        """Return the seconds left, never negative; `math.inf` without a limit."""
        if self.at == math.inf:
            return math.inf
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.remaining() == 0.0
