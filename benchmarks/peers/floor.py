"""The floor: a bare blocking socket that moves the same bytes without any client. It parses nothing."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

from benchmarks.peers import lines, wire
from benchmarks.peers.contender import Contender, Outcome, resident
from benchmarks.peers.threads import Computing, InThreads

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

WINDOW = 32


class Floor(Contender):
    """One socket, or one a thread."""

    def begin(self) -> None:
        task = self.task
        self._sockets = [self._dial() for _ in range(task.threads)]
        self._socket = self._sockets[0]
        if task.kind == "subscribe":
            self._names = [task.subject] if task.queue else wire.subjects(task.subject, task.subscriptions)
            for sid, name in enumerate(self._names, 1):
                self._socket.sendall(f"SUB {name} {sid}\r\n".encode())
            wire.confirm(self._socket)

    def end(self) -> None:
        for sock in self._sockets:
            sock.close()

    def measure(self, count: int) -> Outcome:
        for sock in self._sockets:
            wire.drain(sock)
        method: Callable[[int], Outcome] = getattr(self, self.task.kind)
        return method(count)

    def _dial(self) -> socket.socket:
        return wire.dial(self.task.url, self.task.ca)

    def publish(self, count: int) -> Outcome:
        frame = wire.encode_pub(self.task.subject, self.task.data, headers=self.task.headers)
        sockets = collections.deque(self._sockets)

        def some(times: int) -> None:
            sock = sockets.popleft()
            wire.send_many(sock, [frame], times)
            wire.confirm(sock)

        with InThreads(self.task.threads, count, some) as work, Outcome(count) as outcome:
            work()
        return outcome

    def subscribe(self, count: int) -> Outcome:
        size, sock = self.task.size + (len(wire.HEADER) if self.task.headers else 0), self._socket
        sizes = [wire.msg_size(name, sid, size) for sid, name in enumerate(self._names, 1)][: self.task.busy or None]
        if self.task.headers:
            sizes = [each + len(f"H {len(wire.HEADER)}") for each in sizes]
        times, rest = divmod(count, len(sizes))
        left = times * sum(sizes) + sum(sizes[:rest])
        with Outcome(count) as outcome:
            self.ready()
            while left > 0:  # it may be a PING more
                left -= len(sock.recv(wire.RECV_SIZE))
        return outcome

    def request(self, count: int) -> Outcome:
        latencies: list[float] = []
        sockets = collections.deque(enumerate(self._sockets))

        def some(times: int) -> None:
            number, sock = sockets.popleft()
            frame, size = self._asking(sock, number)
            clock, note = time.perf_counter, latencies.append
            for _ in range(times):
                begin = clock()
                sock.sendall(frame)
                left = size
                while left > 0:
                    left -= len(sock.recv(wire.RECV_SIZE))
                note(clock() - begin)

        with (
            Computing(self.task.computing),
            InThreads(self.task.threads, count, some) as work,
            Outcome(count) as outcome,
        ):
            work()
        outcome.latencies = latencies
        for number, sock in enumerate(self._sockets):
            sock.sendall(f"UNSUB {number}\r\n".encode())
        return outcome

    def inflight(self, count: int) -> Outcome:
        frame, size = self._asking(self._socket, 0)
        sent = answered = received = 0
        with Outcome(count) as outcome:
            while answered < count:
                more = min(WINDOW - (sent - answered), count - sent)
                if more:
                    self._socket.sendall(frame * more)
                    sent += more
                received += len(self._socket.recv(wire.RECV_SIZE))
                answered = received // size
        self._socket.sendall(b"UNSUB 0\r\n")
        return outcome

    def _asking(self, sock: socket.socket, number: int) -> tuple[bytes, int]:
        reply = f"_INBOX.floor.{number}"
        sock.sendall(f"SUB {reply} {number}\r\n".encode())
        frame = wire.encode_pub(self.task.service, self.task.data, reply=reply)
        return frame, wire.msg_size(reply, number, self.task.size)

    def respond(self, count: int) -> Outcome:
        """Answer without parsing: all requests are equally long and have the same reply."""
        self._socket.sendall(f"SUB {self.task.subject} 1\r\n".encode())
        wire.confirm(self._socket)
        reply = wire.reply_of(self.task.subject)
        answer = wire.encode_pub(reply, self.task.data)
        size = wire.msg_size(f"{self.task.subject} {reply}", 1, self.task.size)
        received = answered = 0
        with Outcome(count) as outcome:
            self.ready()
            while answered < count:
                received += len(self._socket.recv(wire.RECV_SIZE))
                self._socket.sendall(answer * (received // size - answered))
                answered = received // size
        self._socket.sendall(b"UNSUB 1\r\n")
        return outcome

    def connect(self, count: int) -> Outcome:
        with Outcome(count) as outcome:
            for _ in range(count):
                begin = time.perf_counter()
                sock = self._dial()
                outcome.latencies.append(time.perf_counter() - begin)
                sock.close()
        return outcome

    def memory_connection(self, count: int) -> Outcome:
        before = resident()
        self._sockets += [self._dial() for _ in range(count)]
        return Outcome(count, size=(resident() - before) / count)


if __name__ == "__main__":
    lines.serve(Floor())
