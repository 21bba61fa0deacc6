"""A wire that fails on demand: a TCP proxy between a client and a real server, whose faults a test can switch.

One thread (`test-proxy-PORT`) owns all sockets and moves all bytes in a selector loop. Switches that are plain
attributes (`latency`, `fragment`, `rate`) are read for every piece of data; those that are methods are carried out by
the loop's thread and have happened when they return. "up" is towards the server, "down" is towards the client.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

from tests.support.sockets import close_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

Direction = Literal["up", "down"]
_Ready = dict[object, int]  # what the selector says: events by socket

_HOST = "127.0.0.1"
_PIECE = 65536  # bytes of one read
_BURST = 16  # writes of one flow before the loop looks at the others
_QUEUED = 1 << 20  # bytes under way in one direction before the proxy stops reading, as a full wire does


class FaultProxy:
    """A TCP proxy on a free port of 127.0.0.1 in front of one target; a context manager. The port never changes."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.latency = 0.0
        """Seconds that every byte takes, each way."""
        self.fragment = 0
        """Most bytes of one send; 0 means as they come."""
        self.rate = 0.0
        """Most bytes a second and direction; 0 means no limit."""
        self.accepted = 0
        """Connections accepted so far."""
        self.stalled: frozenset[Direction] = frozenset()
        """The directions that are black holes now."""
        self._is_silent = False
        self._is_closing = False
        self._counting = threading.Lock()  # whoever has received a byte must find it counted
        self._forwarded: dict[Direction, int] = {"up": 0, "down": 0}
        self._links: list[_Link] = []
        self._unanswered: list[socket.socket] = []
        self._cuts: dict[Direction, _Cut] = {}
        self._orders: deque[tuple[Callable[[], object], concurrent.futures.Future[None]]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"test-proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"nats://{_HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """Live connections: accepted, and neither ended nor cut; unanswered ones count."""
        return sum(link.is_live for link in list(self._links)) + len(self._unanswered)

    @property
    def bytes_up(self) -> int:
        """Bytes forwarded to the server so far."""
        with self._counting:
            return self._forwarded["up"]

    @property
    def bytes_down(self) -> int:
        """Bytes forwarded to the client so far."""
        with self._counting:
            return self._forwarded["down"]

    # Faults

    def black_hole(self, direction: Literal["up", "down", "both"] = "both") -> None:
        """Keep all connections and forward nothing; bytes wait for `heal()`, as they would for TCP's retransmission."""
        directions: tuple[Direction, ...] = ("up", "down") if direction == "both" else (direction,)
        self._do(lambda: self._stall(self.stalled.union(directions)))

    def accept_silent(self) -> None:
        """Accept new connections and never answer them, not even after `heal()`."""
        self._do(lambda: self._be_silent(True))

    def heal(self) -> None:
        """End `black_hole()` and `accept_silent()`."""
        self._do(lambda: self._stall(frozenset()))
        self._do(lambda: self._be_silent(False))

    def cut(self) -> None:
        """End all live connections in good order: both sides get FIN."""
        self._do(lambda: self._end_all(reset=False))

    def reset(self) -> None:
        """Break all live connections: both sides get RST."""
        self._do(lambda: self._end_all(reset=True))

    def half_close(self) -> None:
        """Send FIN to the clients of all live connections, and go on forwarding what they say to the server."""
        self._do(self._end_down)

    def cut_after(self, n_bytes: int, direction: Direction = "down", *, reset: bool = False) -> None:
        """Cut the connection that forwards the `n_bytes`-th byte from now in that direction, and not a byte more; once.

        With `reset` the peer gets RST, which may overtake bytes that it has not read yet.
        """
        self._do(lambda: self._cuts.update({direction: _Cut(n_bytes, reset)}))

    def refuse(self) -> None:
        """Stop listening: new connections are refused, live ones stay."""
        self._do(self._stop_listening)

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._do(self._listen)

    def close(self) -> None:
        """End everything, and the thread."""
        if self._thread.is_alive():
            self._do(self._finish)
            self._thread.join()
            self._wake_reader.close()
            self._wake_writer.close()

    # Orders, carried out in the loop's thread

    def _do(self, order: Callable[[], object]) -> None:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._orders.append((order, done))
        self._wake_writer.send(b"!")
        done.result(timeout=10)

    def _stall(self, directions: frozenset[Direction]) -> None:
        self.stalled = directions

    def _be_silent(self, is_silent: bool) -> None:
        self._is_silent = is_silent

    def _end_all(self, reset: bool) -> None:
        for link in list(self._links):
            self._end(link, reset)
        while self._unanswered:
            close_socket(self._unanswered.pop(), reset=reset)

    def _end_down(self) -> None:
        for link in self._links:
            link.down.discard()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((_HOST, self.port))
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _finish(self) -> None:
        self._is_closing = True
        self._stop_listening()
        self._end_all(reset=False)
        for link in self._links:
            link.close()
        self._links.clear()

    # The loop

    def _run(self) -> None:
        while not self._is_closing:
            ready = self._select()
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
            while self._orders:
                _carry_out(*self._orders.popleft())
            if self._listener is not None and self._listener in ready:
                self._accept_one(self._listener)
            for link in list(self._links):
                self._serve(link, ready)

    def _select(self) -> _Ready:
        # A new selector for each turn costs little at a test's few connections, and leaves no state to keep in step.
        now = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ)
            for link in self._links:
                for each, events in link.wants(now):
                    selector.register(each, events)
            return {key.fileobj: events for key, events in selector.select(self._pause(now))}

    def _pause(self, now: float) -> float | None:
        dues = [flow.due() for link in self._links for flow in link.flows if flow.queue and not flow.is_stalled]
        later = [due for due in dues if due > now]
        return min(later) - now if later else None

    def _accept_one(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # the client has gone meanwhile
            client, _ = listener.accept()
            self.accepted += 1
            if self._is_silent:
                self._unanswered.append(client)
                return
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                close_socket(client, reset=True)
                return
            self._links.append(_Link(self, client, server))

    def _serve(self, link: _Link, ready: _Ready) -> None:
        now = time.monotonic()
        try:
            for flow in link.flows:
                if ready.get(flow.source, 0) & selectors.EVENT_READ and flow.wants_read():
                    flow.read(now)
                if ready.get(flow.sink, 0) & selectors.EVENT_WRITE:
                    self._write(link, flow, now)
        except OSError:
            self._end(link, reset=True)
        if link.is_over and link in self._links:
            link.close()
            self._links.remove(link)

    def _write(self, link: _Link, flow: _Flow, now: float) -> None:
        cut = self._cuts.get(flow.direction)
        for _ in range(_BURST):
            if not flow.wants_write(now):
                return
            with self._counting:
                sent = flow.write(now, most=None if cut is None else cut.left)
                self._forwarded[flow.direction] += sent
            if cut is not None:
                cut.left -= sent
                if cut.left <= 0:
                    del self._cuts[flow.direction]
                    self._end(link, cut.reset)
                    return

    def _end(self, link: _Link, reset: bool) -> None:
        if reset:
            with contextlib.suppress(ValueError):  # a fault in the middle of a turn meets a link just ended
                self._links.remove(link)
            link.close(reset=True)
        else:
            for flow in link.flows:
                flow.discard()


class _Cut:
    def __init__(self, left: int, reset: bool) -> None:
        self.left = left
        self.reset = reset


class _Link:
    """One client's connection: two sockets, two flows."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.sockets = (client, server)
        for each in self.sockets:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up = _Flow(proxy, "up", client, server)
        self.down = _Flow(proxy, "down", server, client)
        self.flows = (self.up, self.down)

    @property
    def is_live(self) -> bool:
        return not self.up.is_discarding

    @property
    def is_over(self) -> bool:
        return all(flow.is_ended and not flow.is_reading for flow in self.flows)

    def wants(self, now: float) -> Iterator[tuple[socket.socket, int]]:
        for each in self.sockets:
            events = 0
            for flow in self.flows:
                if flow.source is each and flow.wants_read():
                    events |= selectors.EVENT_READ
                if flow.sink is each and flow.wants_write(now):
                    events |= selectors.EVENT_WRITE
            if events:
                yield each, events

    def close(self, reset: bool = False) -> None:
        for each in self.sockets:
            close_socket(each, reset=reset)


class _Flow:
    """One direction of a connection: reads from `source`, keeps the bytes until they are due, writes to `sink`."""

    def __init__(self, proxy: FaultProxy, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self.proxy = proxy
        self.direction: Direction = direction
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, bytes]] = deque()  # (when due, bytes); no bytes stand for the end
        self.queued = 0
        self.next_write = 0.0  # the rate limit's
        self.is_reading = True
        self.is_ended = False  # the end has been passed on to the sink
        self.is_discarding = False  # what still comes is read all the same: closing with unread bytes would send RST

    @property
    def is_stalled(self) -> bool:
        return self.direction in self.proxy.stalled and not self.is_discarding

    def due(self) -> float:
        return max(self.queue[0][0], self.next_write)

    def wants_read(self) -> bool:
        return self.is_reading and not self.is_stalled and self.queued < _QUEUED

    def wants_write(self, now: float) -> bool:
        return bool(self.queue) and not self.is_stalled and self.due() <= now

    def read(self, now: float) -> None:
        data = self.source.recv(_PIECE)
        self.is_reading = bool(data)
        if not self.is_discarding:
            self.queue.append((now + self.proxy.latency, data))
            self.queued += len(data)

    def write(self, now: float, most: int | None) -> int:
        """Write a piece of at most `most` bytes, or pass the end on; return how many bytes went."""
        due, data = self.queue.popleft()
        if not data:
            self._pass_end_on()
            return 0
        try:
            sent = self.sink.send(data[: self._allowance(len(data), most)])
        except BlockingIOError:
            sent = 0
        self.queued -= sent
        if sent < len(data):
            self.queue.appendleft((due, data[sent:]))
        if self.proxy.rate:
            self.next_write = now + sent / self.proxy.rate
        return sent

    def discard(self) -> None:
        """Forget what is under way, pass the end on now, and only drain the source from here."""
        self.queue.clear()
        self.queued = 0
        self.is_discarding = True
        self._pass_end_on()

    def _pass_end_on(self) -> None:
        self.is_ended = True
        with contextlib.suppress(OSError):  # the sink may be gone already
            self.sink.shutdown(socket.SHUT_WR)

    def _allowance(self, size: int, most: int | None) -> int:
        limits = [size]
        if most is not None:
            limits.append(most)
        if self.proxy.fragment:
            limits.append(self.proxy.fragment)
        if self.proxy.rate:
            limits.append(max(1, int(self.proxy.rate / 100)))  # what passes in a hundredth of a second
        return min(limits)


def _carry_out(order: Callable[[], object], done: concurrent.futures.Future[None]) -> None:
    try:
        order()
    except Exception as error:
        done.set_exception(error)
    else:
        done.set_result(None)
