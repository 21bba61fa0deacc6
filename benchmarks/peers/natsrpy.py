"""natsrpy, whose core is written in Rust, as a contender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from natsrpy import Nats

from benchmarks.peers import lines
from benchmarks.peers.asynchronous import AsyncioContender
from benchmarks.peers.contender import Countdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable


class Natsrpy(AsyncioContender):
    """Its pending limit cannot be set, so the harness sends no more in one run than it keeps."""

    async def dial(self) -> Any:
        # It has no option for TLS; the harness names the authority in SSL_CERT_FILE.
        url = self.task.url if self.task.ca is None else self.task.url.replace("nats://", "tls://")
        client = Nats(addrs=[url])
        await client.startup()
        return client

    async def hang_up(self, client: Any) -> None:
        await client.shutdown()

    async def subscribe_to(self, subject: str, queue: str, cb: Callable[[Any], Any] | None) -> Any:
        return await self.client.subscribe(subject, callback=cb, queue=queue or None).detatch()

    def responding(self, countdown: Countdown) -> Callable[[Any], Any]:
        data, count, client = self.task.data, countdown.callback, self.client

        async def respond(msg: Any) -> None:
            await client.publish(msg.reply, data)
            count(msg)

        return respond

    def messages(self, subscription: Any) -> AsyncIterable[Any]:
        stream: AsyncIterable[Any] = subscription
        return stream


if __name__ == "__main__":
    lines.serve(Natsrpy())
