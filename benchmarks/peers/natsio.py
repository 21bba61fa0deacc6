"""natsio as a contender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import natsio

from benchmarks.peers import lines
from benchmarks.peers.asynchronous import AsyncioContender
from benchmarks.peers.contender import NO_LIMIT, Countdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable


class Natsio(AsyncioContender):
    """A subscription is its own iterator, and takes plain functions as callbacks."""

    async def dial(self) -> Any:
        context = self.tls_context()
        return await natsio.connect(self.task.url, tls=natsio.TLSConfig(context=context) if context else None)

    async def hang_up(self, client: Any) -> None:
        await client.close()

    async def subscribe_to(self, subject: str, queue: str, cb: Callable[[Any], Any] | None) -> Any:
        return self.client.subscribe(
            subject, queue=queue or None, cb=cb, pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT
        )

    async def flush(self) -> None:
        await self.client.flush()  # its PING stays in line

    def counting(self, countdown: Countdown) -> Callable[[Any], Any]:
        return countdown.callback

    def messages(self, subscription: Any) -> AsyncIterable[Any]:
        stream: AsyncIterable[Any] = subscription
        return stream


if __name__ == "__main__":
    lines.serve(Natsio())
