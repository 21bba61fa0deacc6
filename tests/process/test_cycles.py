"""Connecting and closing over and over leaves threads, sockets and memory as they were.

`NATSYNC_CYCLES` (300) says how often; 10,000 take some minutes.
"""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from typing import TYPE_CHECKING

import pytest

import natsync
from tests.support.leaks import open_sockets
from tests.support.waiting import TIME_FACTOR

if TYPE_CHECKING:
    from natsync.testing import NatsServer

CYCLES = int(os.environ.get("NATSYNC_CYCLES", "300"))
PATIENCE = 5.0 * TIME_FACTOR


def cycle(url: str) -> None:
    """A short life with everything in it; half of them are closed and half drained, by the number of their sid."""
    with natsync.connect(url) as client:
        sub = client.subscribe("cycles.read", max_msgs=1)
        client.subscribe("cycles.echo", cb=lambda msg: msg.respond(msg.data))
        client.publish("cycles.read", b"data", headers={"a": "b"})
        assert sub.next_msg(PATIENCE).data == b"data"
        assert client.request("cycles.echo", b"1", timeout=PATIENCE).data == b"1"
        assert client.request_future("cycles.echo", b"2", timeout=PATIENCE).result(PATIENCE).data == b"2"
    natsync.connect(url).close()


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.timeout(60 + CYCLES)
def test_connecting_and_closing_leaves_nothing(nats_server: NatsServer) -> None:
    for _ in range(50):  # caches and pools fill
        cycle(nats_server.url)
    gc.collect()
    threads, sockets = threading.active_count(), open_sockets()
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(CYCLES):
            cycle(nats_server.url)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert threading.active_count() == threads
    assert open_sockets() == sockets
    assert after - before < 100_000
    print(f"{CYCLES} cycles: {threads} threads, {len(sockets)} sockets, {after - before:+} bytes")
