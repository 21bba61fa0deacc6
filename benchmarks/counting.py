"""What natsync costs in things that can be counted, which no busy machine changes: `python -m benchmarks.counting`.

Bytecode instructions of natsync's own code in all threads, bytes of memory, calls of the socket, and switches between
threads (times that a thread gave up its core to wait), each for one message or request. `tests/guard` holds the limits.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import natsync
from benchmarks.peers import wire
from benchmarks.worker import Worker
from natsync.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    Message = Callable[[natsync.Client], None]

MESSAGES = 2000
REQUESTS = 300
WINDOW = 30
SUBSCRIPTIONS = 100
PENDING = 20_000
DATA = b"x" * 16
DEADLINE = 60.0

_OURS = str(Path(natsync.__file__).parent)
_NO_SWITCH = 1.0  # seconds: a thread that computes is not interrupted, so that batches do not depend on the machine


class Instructions:
    """Counts the bytecode instructions that natsync's code runs in any thread while `counting()` lasts.

    A context manager; threads are counted if they start in it, so a client must be made in it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._tick = itertools.count().__next__
        self._is_on = False
        self._elsewhere: object = None

    def __enter__(self) -> Instructions:
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            self._elsewhere = monitoring.DISABLE
            monitoring.use_tool_id(monitoring.PROFILER_ID, "natsync")
            monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, self._instruction)
        else:
            threading.settrace(self._call)
            sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)
        else:
            sys.settrace(None)
            threading.settrace(None)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens in here."""
        self._tick = itertools.count().__next__
        self._switch(True)
        try:
            yield
        finally:
            self._switch(False)
            self.count = self._tick()

    def _switch(self, is_on: bool) -> None:
        self._is_on = is_on
        if sys.version_info >= (3, 12):
            events = sys.monitoring.events.INSTRUCTION if is_on else 0
            sys.monitoring.set_events(sys.monitoring.PROFILER_ID, events)

    def _instruction(self, code: CodeType, _: int) -> object:
        if code.co_filename.startswith(_OURS):
            self._tick()
            return None
        return self._elsewhere

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, _: FrameType, event: str, __: Any) -> Any:
        if event == "opcode" and self._is_on:
            self._tick()
        return self._step


class CountedSocket(socket.socket):
    """A connected socket that counts how often it is called; for the option `dialer`."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.sends = 0
        self.receives = 0

    def send(self, *arguments: Any) -> int:
        self.sends += 1
        return super().send(*arguments)

    def recv(self, *arguments: Any) -> bytes:
        self.receives += 1
        return super().recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self.receives += 1
        return super().recv_into(*arguments)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let threads run until they wait."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_NO_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def publish_instructions(server: NatsServer, **more: Any) -> float:
    """Instructions to publish a message, sending included."""
    with Instructions() as instructions, natsync.connect(server.url) as client, uninterrupted():
        client.publish("guard", DATA, **more)
        client.flush(DEADLINE)
        with instructions.counting():
            for _ in range(MESSAGES):
                client.publish("guard", DATA, **more)
            client.flush(DEADLINE)
    return instructions.count / MESSAGES


def receive_instructions(server: NatsServer, via: str, *, subscriptions: int = 1) -> float:
    """Instructions to receive a message by "callback", "iteration" or "next_msg", or by many callbacks in turn."""
    done = threading.Event()
    received = itertools.count(1)

    def callback(_: natsync.Msg) -> None:
        if next(received) == MESSAGES:
            done.set()

    with (
        contextlib.closing(wire.dial(server.url)) as sock,
        Instructions() as instructions,
        natsync.connect(server.url) as client,
    ):
        subjects = wire.subjects("guard", subscriptions)
        subscription, *_ = [client.subscribe(name, cb=callback if via == "callback" else None) for name in subjects]
        client.flush(DEADLINE)
        with instructions.counting():
            wire.send_many(sock, [wire.encode_pub(name, DATA) for name in subjects], MESSAGES)
            if via == "callback":
                assert done.wait(DEADLINE)
            elif via == "iteration":
                for _ in itertools.islice(subscription, MESSAGES):
                    pass
            else:
                for _ in range(MESSAGES):
                    subscription.next_msg(DEADLINE)
    return instructions.count / MESSAGES


def request_instructions(server: NatsServer) -> float:
    """Instructions of a request, from the call to the answer."""
    with responder(server), Instructions() as instructions, natsync.connect(server.url) as client:
        client.request("guard", DATA, timeout=DEADLINE)
        with instructions.counting():
            for _ in range(REQUESTS):
                client.request("guard", DATA, timeout=DEADLINE)
    return instructions.count / REQUESTS


def future_instructions(server: NatsServer) -> float:
    """Instructions of a `request_future`, and of its result, with many under way at once."""
    with responder(server), Instructions() as instructions, natsync.connect(server.url) as client:
        client.request("guard", DATA, timeout=DEADLINE)
        with instructions.counting():
            for _ in range(REQUESTS // WINDOW):
                futures = [client.request_future("guard", DATA, timeout=DEADLINE) for _ in range(WINDOW)]
                for future in futures:
                    future.result()
    return instructions.count / (REQUESTS // WINDOW * WINDOW)


def pending_bytes(server: NatsServer) -> float:
    """Bytes of memory that Python gives to a message which waits to be taken."""
    with contextlib.closing(wire.dial(server.url)) as sock, natsync.connect(server.url) as client:
        subscription = client.subscribe("guard", pending_msgs_limit=-1, pending_bytes_limit=-1)
        client.flush(DEADLINE)
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            wire.send_many(sock, [wire.encode_pub("guard", DATA)], PENDING)
            wire.confirm(sock)
            while subscription.pending_msgs < PENDING:
                client.flush(DEADLINE)  # what came before the answer is routed before the answer
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return (after - before) / PENDING


def request_calls(server: NatsServer) -> dict[str, float]:
    """Calls of send() and recv(), and switches between threads (None of them on Windows), of a request."""
    sockets: list[CountedSocket] = []

    def dialer(host: str, port: int, timeout: float) -> socket.socket:
        sockets.append(CountedSocket(socket.create_connection((host, port), timeout)))
        return sockets[-1]

    with responder(server), natsync.connect(server.url, dialer=dialer) as client:
        client.request("guard", DATA, timeout=DEADLINE)
        counted = sockets[-1]
        sends, receives, switches = counted.sends, counted.receives, thread_switches()
        for _ in range(REQUESTS):
            client.request("guard", DATA, timeout=DEADLINE)
        return {
            "sends": (counted.sends - sends) / REQUESTS,
            "receives": (counted.receives - receives) / REQUESTS,
            "switches": (thread_switches() - switches) / REQUESTS,
        }


def publish_sends(server: NatsServer) -> float:
    """Calls of send() for a message, when many are published at once."""
    sockets: list[CountedSocket] = []

    def dialer(host: str, port: int, timeout: float) -> socket.socket:
        sockets.append(CountedSocket(socket.create_connection((host, port), timeout)))
        return sockets[-1]

    with natsync.connect(server.url, dialer=dialer) as client, uninterrupted():
        before = sockets[-1].sends
        for _ in range(MESSAGES):
            client.publish("guard", DATA)
        client.flush(DEADLINE)
        return (sockets[-1].sends - before) / MESSAGES


def thread_switches() -> int:
    """How often the threads of this process gave up their cores to wait; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


@contextlib.contextmanager
def responder(server: NatsServer) -> Iterator[None]:
    """Answer requests to "guard" in another process, which adds nothing to what is counted here."""
    with Worker(sys.executable, "benchmarks.peers.feeder") as worker:
        worker.ask("open", role="responder", task={"url": server.url, "ca": None, "size": 16, "service": "guard"})
        yield


def main() -> int:
    """Count and print."""
    with NatsServer() as server:
        print(f"publish, instructions               {publish_instructions(server):8.1f}")
        print(f"publish with headers, instructions  {publish_instructions(server, headers=wire.HEADERS):8.1f}")
        print(f"publish, calls of send()            {publish_sends(server):8.3f}")
        for via in ("callback", "iteration", "next_msg"):
            print(f"receive by {via + ', instructions':<25}{receive_instructions(server, via):8.1f}")
        many = receive_instructions(server, "callback", subscriptions=SUBSCRIPTIONS)
        print(f"receive by {f'{SUBSCRIPTIONS} callbacks, instructions':<25}{many:8.1f}")
        print(f"pending message, bytes              {pending_bytes(server):8.1f}")
        print(f"request, instructions               {request_instructions(server):8.1f}")
        print(f"request_future, instructions        {future_instructions(server):8.1f}")
        for what, count in request_calls(server).items():
            print(f"request, {what:<27}{count:8.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
