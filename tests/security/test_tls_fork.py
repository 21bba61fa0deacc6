"""`os.fork()` over TLS: the child writes nothing to the parent's socket, not even a farewell, and both go on."""

from __future__ import annotations

import json
import os
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync.testing import NatsServer
from tests.support.certificates import Authority
from tests.support.proxy import FaultProxy
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client

    Connect = Callable[..., Client]

pytestmark = [
    pytest.mark.tls,
    pytest.mark.fork,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    # Newer Pythons warn of a fork in a process with threads, which is the very thing that is tested.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def options(authority: Authority) -> dict[str, Any]:
    """What every client here is connected with."""
    return {"tls_ca": authority.file, "reconnect_time_wait": 0.05, "reconnect_jitter_tls": 0.0}


def in_child(action: Callable[[], object]) -> Any:
    """Run it in a forked child, and return what it returns, by way of JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            try:
                said: object = action()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        assert select.select([read], [], [], 10.0 * TIME_FACTOR)[0], "the child hangs"
        with os.fdopen(read, "rb", closefd=False) as answer:
            return json.loads(answer.read())
    finally:
        os.close(read)
        eventually(lambda: os.waitpid(pid, os.WNOHANG)[0])


def test_a_child_writes_nothing_to_the_parents_socket(
    wire: FaultProxy, connect: Connect, options: dict[str, Any]
) -> None:
    events = Recorder()
    client = connect(wire.url, disconnected_cb=events, error_cb=events, **options)
    sub = client.subscribe("a")
    client.publish("a", b"before")
    client.flush()
    up = wire.bytes_up
    for _ in range(3):
        assert in_child(lambda: client.status.name) == "DISCONNECTED"
        assert in_child(client.close) is None
    assert wire.bytes_up == up
    assert (wire.accepted, wire.connections) == (1, 1)
    client.publish("a", b"after")
    client.flush()
    assert [sub.next_msg(timeout=1.0).data for _ in range(2)] == [b"before", b"after"]
    assert (client.stats.reconnects, events.items) == (0, [])


def test_both_work_after_a_fork(wire: FaultProxy, connect: Connect, options: dict[str, Any]) -> None:
    client = connect(wire.url, **options)
    received = Recorder()
    client.subscribe("a", cb=received)
    client.flush()
    first = client.client_id

    def use() -> object:
        client.subscribe("b", cb=lambda msg: msg.respond(msg.data))
        answer = client.request("b", bytes(100_000)).data == bytes(100_000)
        client.publish("a", b"from the child")
        client.close()
        return [answer, client.is_closed]

    for number in range(1, 4):
        assert in_child(use) == [True, True]
        client.publish("a", b"from the parent")
        client.flush()
        received.wait_for(2 * number)
    assert (client.client_id, client.stats.reconnects, wire.accepted) == (first, 0, 4)


def test_forks_while_threads_publish(
    tls_server: NatsServer, connect: Connect, options: dict[str, Any], pool: ThreadPoolExecutor
) -> None:
    """The child's copy of the TLS connection may be in the middle of anything, its lock held by nobody."""
    received: dict[str, list[int]] = {}
    witness = connect(tls_server.url, **options)
    witness.subscribe("busy.*", cb=lambda msg: received.setdefault(msg.subject, []).append(int(msg.data)))
    witness.flush()
    client = connect(tls_server.url, **options)
    client.subscribe("busy.>")
    over = threading.Event()

    def publish(name: int) -> int:
        number = 0
        while not over.is_set():
            client.publish(f"busy.{name}", b"%d" % number)
            number += 1
            if number % 100 == 0:
                client.flush()
        return number

    def use() -> object:
        client.publish("child", b"!")
        client.flush()
        client.close()
        return "fine"

    publishers = [pool.submit(publish, name) for name in range(4)]
    try:
        for _ in range(10):
            assert in_child(use) == "fine"
    finally:
        over.set()
    counts = [each.result(10.0 * TIME_FACTOR) for each in publishers]
    client.flush()
    witness.flush()
    for name, count in enumerate(counts):
        eventually(lambda name=name, count=count: len(received[f"busy.{name}"]) >= count)  # type: ignore[misc]
        assert received[f"busy.{name}"] == list(range(count))
    assert client.stats.reconnects == 0
