"""When to pause between attempts, and for how long."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Counts the attempts of one outage: a pause comes only before the same server is tried again [nats.go].

    With one server every attempt is preceded by a pause. With three, the two others are tried at once; then comes a
    pause, the lost one, and again the others.

    Args:
        wait: Seconds of the pause.
        jitter: The most seconds added by chance.
        rng: Source of chance.
    """

    def __init__(self, wait: float, jitter: float, rng: random.Random | None = None) -> None:
        self._wait = wait
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._since_pause = 0
        self.passes = 0
        """Completed walks over the list, in this outage."""

    def go_on_from(self, previous: Backoff) -> None:
        """Count on where an earlier outage stopped: servers that let us in and drop us at once must not be hammered."""
        self._since_pause = previous._since_pause

    def go_on_after_pass(self, servers: int) -> None:
        """Count on behind a walk over all servers, which found none: the first of them is due again."""
        self._since_pause = servers - 1

    def pause_due(self, servers: int) -> bool:
        """Say whether a pause comes before the next attempt, with so many servers in the pool; counts that attempt."""
        if self._since_pause + 1 >= servers:
            self._since_pause = 0
            self.passes += 1
            return True
        self._since_pause += 1
        return False

    def pause(self) -> float:
        """Return the length of the next pause in seconds."""
        return self._wait + self._rng.uniform(0.0, self._jitter)
