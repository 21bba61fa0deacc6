"""The gate: the thread behind it hears of bytes when it is open, and of nothing but the end when it is shut."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from natsync.core.gate import Gate, make_gate
from tests.support.waiting import never

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.conftest import Pool

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="a gate is made of epoll")

PAUSE = 0.05


class Bench:
    """A gate at one end of a socket pair, and the other end."""

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair()
        gate = make_gate(self.socket.fileno())
        assert gate is not None
        self.gate: Gate = gate

    def close(self) -> None:
        self.gate.close()
        self.socket.close()
        self.peer.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_an_open_gate_tells_of_bytes(bench: Bench, pool: Pool):
    waiting = pool.submit(bench.gate.wait)
    never(waiting.done, PAUSE)
    bench.peer.send(b"x")
    waiting.result(10)
    bench.gate.wait()  # and again, until they are read


def test_a_shut_gate_tells_of_no_bytes_but_of_those_too_when_it_opens(bench: Bench, pool: Pool):
    waiting = pool.submit(bench.gate.wait)
    bench.gate.shut()
    bench.peer.send(b"x")
    never(waiting.done, PAUSE)
    bench.gate.open()
    waiting.result(10)


def test_opening_wakes_nobody_without_bytes(bench: Bench, pool: Pool):
    bench.gate.shut()
    waiting = pool.submit(bench.gate.wait)
    bench.gate.open()
    bench.gate.open()
    never(waiting.done, PAUSE)
    bench.peer.send(b"x")
    waiting.result(10)


def test_the_end_of_the_stream_passes_a_shut_gate(bench: Bench, pool: Pool):
    """Nobody may be there to open it."""
    bench.gate.shut()
    waiting = pool.submit(bench.gate.wait)
    bench.socket.shutdown(socket.SHUT_RDWR)
    waiting.result(10)


@pytest.mark.parametrize("is_open", [True, False])
def test_beside_the_gate_bytes_are_seen_in_any_case(bench: Bench, is_open: bool):
    if not is_open:
        bench.gate.shut()
    assert not bench.gate.poll(0)
    bench.peer.send(b"x")
    assert bench.gate.poll(0)
    assert bench.gate.poll(600)
    assert bench.socket.recv(10) == b"x"
    assert not bench.gate.poll(0)
    bench.peer.close()
    assert bench.gate.poll(600)


def test_a_wait_beside_the_gate_ends_in_time_and_not_before(bench: Bench):
    start = time.monotonic()
    assert not bench.gate.poll(0.0101)
    assert 0.0101 <= time.monotonic() - start < 60


def test_several_wait_beside_the_gate(bench: Bench, pool: Pool):
    """A thread that was left behind in a signal handler, and the one that came after it."""
    waiting = [pool.submit(bench.gate.poll, 600) for _ in range(4)]
    bench.peer.send(b"x")
    assert [task.result(10) for task in waiting] == [True] * 4


def test_a_wait_struck_by_ctrl_c_leaves_the_gate_usable(bench: Bench, strike: object):
    def press() -> None:
        raise KeyboardInterrupt

    strike(press)  # type: ignore[operator]
    with pytest.raises(KeyboardInterrupt):
        bench.gate.poll(600)
    bench.peer.send(b"x")
    assert bench.gate.poll(600)


def test_a_closed_gate_is_left_alone(bench: Bench):
    bench.gate.close()
    bench.gate.open()
    bench.gate.shut()
    bench.gate.close()


def test_a_closed_gate_gives_its_descriptor_back(bench: Bench):
    fd = bench.gate._epoll.fileno()
    os.fstat(fd)
    bench.gate.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_gate_of_a_closed_socket_is_left_alone(bench: Bench):
    bench.socket.close()
    bench.gate.open()
    bench.gate.shut()


def test_there_is_none_where_the_system_has_nothing_to_make_it_of(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(select, "epoll")
    assert make_gate(bench.socket.fileno()) is None


def test_there_is_none_when_the_process_has_no_descriptor_left(bench: Bench):
    """Another descriptor is a convenience; a client that has its socket works without."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = bench.socket.dup()
    fd = limit.fileno()
    limit.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd, hard))
    try:
        gate = make_gate(bench.socket.fileno())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert gate is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("is_open", [True, False])
def test_a_child_that_lets_go_does_not_disturb_the_parent(bench: Bench, pool: Pool, is_open: bool):
    """The kernel's object is one for both."""
    if not is_open:
        bench.gate.shut()
    child = os.fork()
    if child == 0:
        bench.gate.close()
        bench.gate.open()
        bench.gate.shut()
        os.close(bench.socket.detach())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    waiting = pool.submit(bench.gate.wait)
    if not is_open:
        bench.peer.send(b"x")
        never(waiting.done, PAUSE)
        bench.gate.open()
    else:
        never(waiting.done, PAUSE)
        bench.peer.send(b"x")
    waiting.result(10)


class Taking:
    """Two threads that read bytes at a gate, as the reader and a caller do, each in its way."""

    def __init__(self, bench: Bench, total: int) -> None:
        self.bench = bench
        self.left = total
        self.done = threading.Event()
        self._lock = threading.Lock()

    def _read(self) -> None:
        with self._lock:
            try:
                self.left -= len(self.bench.socket.recv(64, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
        if self.left == 0:
            self.done.set()

    def behind(self) -> None:
        while not self.done.is_set():
            self.bench.gate.wait()
            self._read()

    def beside(self) -> None:
        while not self.done.is_set():
            self.bench.gate.shut()
            if self.bench.gate.poll(0.0005):
                self._read()
            self.bench.gate.open()


def test_opening_and_shutting_under_load_loses_nothing(bench: Bench, pool: Pool, switching: None):
    taking = Taking(bench, 3000)
    tasks = [pool.submit(taking.behind), pool.submit(taking.beside)]
    for _ in range(3000):
        bench.peer.send(b"x")
    assert taking.done.wait(30)
    bench.peer.close()
    for task in tasks:
        task.result(10)
