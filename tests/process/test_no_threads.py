"""A system that has no more threads: a typed error, and the client works as soon as it has some again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import natsync
from natsync import NatsConnectionError
from tests.support.waiting import TIME_FACTOR, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.testing import NatsServer

PATIENCE = 5.0 * TIME_FACTOR


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


USES: dict[str, Callable[[Client], object]] = {
    "worker-1": lambda client: client.subscribe("threads.cb", cb=print, workers=8),
    "timer": lambda client: client.request_future("threads.echo"),
}


@pytest.mark.parametrize("role", USES)
def test_a_call_that_needs_a_thread(nats_client: Client, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(10):
            with pytest.raises(NatsConnectionError, match=f"cannot start its {role} thread: can't start new thread"):
                USES[role](nats_client)
    seen = Recorder()
    nats_client.subscribe("threads.cb", cb=seen)
    nats_client.subscribe("threads.echo", cb=lambda msg: msg.respond())
    nats_client.publish("threads.cb")
    seen.wait_for(1)
    assert nats_client.request_future("threads.echo").result(PATIENCE).data == b""
    with pytest.raises(natsync.NatsTimeoutError):
        nats_client.subscribe("threads.silent")
        nats_client.request_future("threads.silent", timeout=0.05).result(PATIENCE)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_connect(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NatsConnectionError, match="can't start new thread"):
            natsync.connect(nats_server.url.replace("127.0.0.1", host))
