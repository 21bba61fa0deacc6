"""The other side of a contender, from pre-encoded buffers: `python -m benchmarks.peers.feeder`.

One process is one role: it publishes for those who subscribe, answers those who request, or requests from those who
respond. It must never be the bottleneck, so it knows no client and parses as little as it can.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers import lines, wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

WINDOW = 32
"""How many requests of the raw requester are on the way at once."""

_REQUEST = re.compile(rb"MSG \S+ \S+ (\S+) \d+\r\n")


def publisher(sock: socket.socket, task: dict[str, Any]) -> Callable[[int], None]:
    """Publish to a contender's subjects, one after the other."""
    data = b"x" * task["size"]

    def go(count: int) -> None:
        names = wire.subjects(task["subject"], 1 if task["queue"] else task["subscriptions"])
        names = names[: task["busy"] or None]
        wire.send_many(sock, [wire.encode_pub(name, data, headers=task["headers"]) for name in names], count)
        wire.confirm(sock)

    return go


def requester(sock: socket.socket, task: dict[str, Any]) -> Callable[[int], None]:
    """Ask a contender, with `WINDOW` requests on the way, and wait for the last answer."""
    reply = wire.reply_of(task["subject"])
    frame = wire.encode_pub(task["subject"], b"x" * task["size"], reply=reply)
    answer = wire.msg_size(reply, 1, task["size"])
    sock.sendall(b"SUB " + reply.encode() + b" 1\r\n")
    wire.confirm(sock)

    def go(count: int) -> None:
        sent = answered = received = 0
        while answered < count:
            more = min(WINDOW - (sent - answered), count - sent)
            if more:
                sock.sendall(frame * more)
                sent += more
            received += len(sock.recv(wire.RECV_SIZE))
            answered = received // answer

    return go


def responder(sock: socket.socket, task: dict[str, Any]) -> Callable[[int], None]:
    """Answer every request with what a payload of the task looks like, for as long as the process lives."""
    data = b"x" * task["size"]
    tail = f" {len(data)}\r\n".encode() + data + b"\r\n"
    sock.sendall(f"SUB {task['service']} 1\r\n".encode())
    wire.confirm(sock)

    def answer() -> None:
        rest = b""
        while received := sock.recv(wire.RECV_SIZE):
            rest += received
            end = 0
            answers = []
            for request in _REQUEST.finditer(rest):
                if request.end() + len(data) + 2 > len(rest):
                    break
                answers.append(b"PUB " + request[1] + tail)
                end = request.end() + len(data) + 2
            if answers:
                sock.sendall(b"".join(answers))
                rest = rest[end:]

    threading.Thread(target=answer, daemon=True).start()
    return lambda _: None


ROLES = {"publisher": publisher, "requester": requester, "responder": responder}


class Feeder:
    """Does what the harness says, for one contender after the other."""

    def __init__(self) -> None:
        self._go: Callable[[int], None] = lambda _: None

    def open(self, role: str, task: dict[str, Any]) -> dict[str, Any]:
        """Connect in a role, for a task."""
        self._go = ROLES[role](wire.dial(task["url"], task["ca"]), task)
        return {}

    def run(self, count: int) -> dict[str, Any]:
        """Send `count` messages or requests; tell when that began and ended."""
        start = time.perf_counter()
        self._go(count)
        return {"start": start, "end": time.perf_counter()}


if __name__ == "__main__":
    lines.serve(Feeder())
