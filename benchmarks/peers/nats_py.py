"""nats-py as a contender; with `uvloop` as an argument on that loop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import nats

from benchmarks.peers import lines
from benchmarks.peers.asynchronous import AsyncioContender
from benchmarks.peers.contender import NO_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable


class NatsPy(AsyncioContender):
    """The client that the server's makers publish."""

    async def dial(self) -> Any:
        return await nats.connect(self.task.url, tls=self.tls_context())

    async def hang_up(self, client: Any) -> None:
        await client.close()

    async def subscribe_to(self, subject: str, queue: str, cb: Callable[[Any], Any] | None) -> Any:
        return await self.client.subscribe(
            subject, queue=queue, cb=cb, pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT
        )


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        lines.serve(NatsPy(uvloop.new_event_loop()))
    else:
        lines.serve(NatsPy())
