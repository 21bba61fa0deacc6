"""A second client, past the wires, that sees all that reaches the servers, whoever is subscribed by then.

It may miss what passes while its own server is away; what it sees must have come once, and in order.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import natsync
from tests.faults.invariants import check_once_and_in_order, unseal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from natsync import Msg
    from tests.soak.stage import Stage

Seen = list[tuple[int, int]]


class Witness:
    """See the module.

    Args:
        stage: Whose servers to connect to.
        subjects: What the publishers publish to.
    """

    def __init__(self, stage: Stage, subjects: Sequence[str]) -> None:
        self.seen = 0
        self._lock = threading.Lock()
        self._now: Seen = []
        self._before: tuple[Seen, int] = ([], 0)
        self.client = natsync.connect([server.url for server in stage.servers], reconnect_time_wait=0.05)
        for subject in subjects:
            self.client.subscribe(subject, cb=self._see)
        self.client.flush()

    def _see(self, msg: Msg) -> None:
        with self._lock:
            self.seen += 1
            self._now.append(unseal(msg.data))

    def settle(self, connections: int) -> None:
        """Check this round together with the last one, as some of that may have come only now.

        Args:
            connections: How many the publishers' client has had in this round.
        """
        with self._lock:
            now, self._now = self._now, []
        before, earlier = self._before
        self._before = (now, connections)
        check_once_and_in_order(before + now, earlier + connections)
