"""How fast a lost connection is restored, and how fast a sleeping supervisor wakes: `python -m benchmarks.restore`.

Restoring is measured from the moment at which a server accepts again and the pause is over (a pause of 60 s, cut short
by `force_reconnect()`), with 1,000 subscriptions and a full reconnect buffer of 8 MiB.
"""

from __future__ import annotations

import dataclasses
import functools
import queue
import socket
import statistics
import time
from typing import TYPE_CHECKING, Any

import natsync
from natsync.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 7
SUBSCRIPTIONS = 1000
BUFFER = 8 * 1024 * 1024
PAYLOAD = bytes(1024)
PAUSE = 60.0
DEADLINE = 10.0
ASLEEP = 0.05  # after so long the supervisor sleeps

Clock = queue.SimpleQueue[float]


@dataclasses.dataclass
class Figure:
    """One line of the table: seconds, and the goal for their median."""

    title: str
    goal: float
    seconds: list[float] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        median, least, most = (1000 * each for each in (self.median, min(self.seconds), max(self.seconds)))
        verdict = "ok" if self.median <= self.goal else "MISSED"
        return f"{self.title:<44}{median:9.1f}{least:9.1f}{most:9.1f}{1000 * self.goal:9.0f}  {verdict}"

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def connect_to(server: NatsServer, **options: Any) -> natsync.Client:
    """Connect a client that would sleep a minute after a loss."""
    return natsync.connect(
        server.url, reconnect_time_wait=PAUSE, reconnect_jitter=0.0, reconnect_buffer_size=BUFFER, **options
    )


def ring(clock: Clock, *_: object) -> None:
    """Note the time, on whatever thread this is."""
    clock.put(time.perf_counter())


def lose(server: NatsServer, disconnected: Clock) -> None:
    """Kill the server and wait until the client knows."""
    server.kill()
    disconnected.get(timeout=DEADLINE)


def fill(client: natsync.Client) -> int:
    """Publish until the reconnect buffer is full; return how many messages it took."""
    count = 0
    try:
        while True:
            client.publish("bench", PAYLOAD)
            count += 1
    except natsync.OutboundBufferLimitError:
        return count


def restore(connected: Figure, confirmed: Figure) -> None:
    """Lose a client with much to restore, and bring it back."""
    lost: Clock = queue.SimpleQueue()
    back: Clock = queue.SimpleQueue()
    listeners = {"disconnected_cb": functools.partial(ring, lost), "reconnected_cb": functools.partial(ring, back)}
    with NatsServer() as server:
        client = connect_to(server, **listeners)
        try:
            for number in range(SUBSCRIPTIONS):
                client.subscribe(f"bench.subject.{number}")
            client.flush()
            lose(server, lost)
            count = fill(client)
            server.start()
            begin = time.perf_counter()
            client.force_reconnect()
            connected.seconds.append(back.get(timeout=DEADLINE) - begin)
            client.flush()
            confirmed.seconds.append(time.perf_counter() - begin)
            check_restored(server, count)
        finally:
            client.close()


def check_restored(server: NatsServer, messages: int) -> None:
    """Ask the server whether it has all subscriptions and all messages."""
    page = server.connz(subs=True)["connections"][0]
    assert page["subscriptions"] == SUBSCRIPTIONS, page["subscriptions"]
    assert page["in_msgs"] == messages, page["in_msgs"]


def wake(act: Callable[[natsync.Client, Clock], float], figure: Figure) -> None:
    """Have a supervisor sleep, and measure how long `act` takes to wake it."""
    lost: Clock = queue.SimpleQueue()
    dialled: Clock = queue.SimpleQueue()

    def dialer(host: str, port: int, timeout: float) -> socket.socket:
        ring(dialled)
        return socket.create_connection((host, port), timeout)

    with NatsServer() as server:
        client = connect_to(server, dialer=dialer, disconnected_cb=functools.partial(ring, lost))
        try:
            dialled.get()
            lose(server, lost)
            time.sleep(ASLEEP)
            figure.seconds.append(act(client, dialled))
        finally:
            client.close()


def by_close(client: natsync.Client, _: Clock) -> float:
    """Close, which returns when the supervisor has ended."""
    begin = time.perf_counter()
    client.close()
    return time.perf_counter() - begin


def by_force(client: natsync.Client, dialled: Clock) -> float:
    """Wish for a new connection, and wait until it is dialled."""
    begin = time.perf_counter()
    client.force_reconnect()
    return dialled.get(timeout=DEADLINE) - begin


def main() -> int:
    """Measure and print; 1 if a goal is missed."""
    connected = Figure("accepted again -> CONNECTED, 8 MiB sent", 0.150)
    confirmed = Figure("accepted again -> confirmed by flush()", 0.150)
    closing = Figure("close() of a sleeping client", 0.020)
    forcing = Figure("force_reconnect() -> a new attempt", 0.020)
    for _ in range(TIMES):
        restore(connected, confirmed)
        wake(by_close, closing)
        wake(by_force, forcing)
    print(f"{SUBSCRIPTIONS} subscriptions, {BUFFER >> 20} MiB in messages of {len(PAYLOAD)} bytes; {TIMES} runs, in ms")
    print(f"{'':<44}{'median':>9}{'min':>9}{'max':>9}{'goal':>9}")
    figures = (connected, confirmed, closing, forcing)
    print(*figures, sep="\n")
    return int(any(figure.median > figure.goal for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
