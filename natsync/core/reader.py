"""The reader: bytes in, messages and signals out.

Knows operations and where each kind goes. A caller that waits for an answer may do the reader's work until it has come,
on its own thread, which saves two switches of threads; the reading token says whose turn it is. Never runs user code,
never waits for a consumer, and takes no lock that is held across a wait: a server that is blocked in writing to us must
always find us reading.
"""

from __future__ import annotations

import logging
import operator
from typing import Protocol

from natsync.core.gate import Gate
from natsync.core.link import Link
from natsync.core.outbound import Outbound
from natsync.core.reading import ReadingToken, Turn
from natsync.core.registry import Registry
from natsync.deadline import Deadline
from natsync.errors import NatsConnectionError, NatsError, ProtocolError
from natsync.protocol.commands import PONG_COMMAND
from natsync.protocol.info import ServerInfo, parse_info
from natsync.protocol.operations import ErrOp, InfoOp, MsgOp, Operation, PingOp, PongOp
from natsync.protocol.server_errors import parse_error

__all__ = ["Expected", "Listener", "Reader", "Traffic"]

_log = logging.getLogger("natsync.reader")

# A caller reads for itself for so many seconds; what takes longer is not hurt by a switch of threads.
_MOMENT = 0.005
# The reader finds bytes and another thread at work on them: it looks again after so many seconds at the latest.
_LOOK_AGAIN = 0.05
# So often it looks when the link is lost, and ends then.
_LAST_LOOKS = 10

_sid_of = operator.itemgetter(0)
_block_of = operator.itemgetter(3)
_data_of = operator.itemgetter(4)


class Listener(Protocol):
    """Who hears what the server says of itself; called on the reader, must not wait."""

    def heard_info(self, link: Link, info: ServerInfo) -> None: ...

    def heard_error(self, link: Link, error: NatsError) -> None: ...


class Traffic:
    """Received messages and bytes; only the present reader writes."""

    def __init__(self) -> None:
        self.msgs = 0
        self.bytes = 0
        self.by_caller = False
        """The latest bytes were received by a caller that waited for an answer, not by the reader's thread."""


class Awaited(Protocol):
    """What a caller waits for."""

    answered: bool


class Expected(Protocol):
    """An answer of which only the payload is not known."""

    beginning: bytes
    """Its line, up to the size of the payload."""

    def take(self, payload: bytes) -> None:
        """It came."""


class Reader:
    """Reads one link until its stream ends.

    It reads to the very end also when the link is lost already: the server's last words may still be in the socket.
    """

    def __init__(
        self, link: Link, *, registry: Registry, outbound: Outbound, listener: Listener, traffic: Traffic
    ) -> None:
        self._link = link
        self._find = registry.find
        self._own = registry.own
        self._outbound = outbound
        self._listener = listener
        self._traffic = traffic
        self._turn = Turn()
        self._token = ReadingToken(self._turn)  # nobody reads before the early operations are routed

    # The reader's thread.

    def run(self) -> None:
        """The thread's loop; whatever ends it ends the link."""
        link = self._link
        try:
            self._route(list(link.early), only_messages=False)
            if link.transport.gate is None:
                self._read_alone()
            else:
                self._read_in_turn(link.transport.gate)
        except NatsError as exc:
            link.lose(exc)
        except Exception as exc:
            _log.exception("an error in natsync's reader; please report it")
            error = NatsConnectionError("the reader failed", server=link.url)
            error.__cause__ = exc
            link.lose(error)

    def _read_alone(self) -> None:
        recv = self._link.transport.recv
        while True:
            self._take_in(recv())

    def _read_in_turn(self, gate: Gate) -> None:
        token, turn = self._token, self._turn
        recv_now = self._link.transport.recv_now
        while True:
            data = recv_now()
            if data is not None:
                self._traffic.by_caller = False
                self._take_in(data)
            token.give_back(turn)
            gate.wait()
            if not self._take_turn():
                return

    def _take_turn(self) -> bool:
        """Wait until nobody else reads; False when the link is lost and whoever reads from it does not come back.

        Ctrl-C may strike the main thread just as it is about to give the token back; the next link has a new token.
        """
        token, turn = self._token, self._turn
        looks = 0
        while not (token.take(turn) and token.begin(turn)):
            looks += self._link.is_lost
            if looks > _LAST_LOOKS:
                return False
            token.wait_returned(_LOOK_AGAIN)
        return True

    def _take_in(self, data: bytes | None) -> None:
        link = self._link
        if not data:
            raise NatsConnectionError("the server closed the connection", server=link.url)
        parser = link.parser
        operations = parser.feed(data)
        if parser.stream is not None:
            self._deliver(parser.stream[0], operations, parser.stream[1])  # type: ignore[arg-type]
        else:
            self._route(operations, only_messages=parser.only_messages)
        if parser.error is not None:
            raise parser.error

    # A caller's thread.

    def push_and_read_for(self, waiter: Awaited, patience: float) -> None:
        """Send what waits to be sent, and then as `read_for`."""
        self._read_for(waiter, patience, None, push=True)

    def read_for(self, waiter: Awaited, patience: float, expected: Expected | None = None) -> None:
        """Do the reader's work on this thread until the answer has come.

        Only if nobody else is at work, and for a moment at most: the caller looks, and waits, for itself afterwards. A
        link that is lost here is only reported as lost.

        Args:
            waiter: Whose answer.
            patience: Seconds that the caller has; less than a moment or more.
            expected: How the answer begins, if that is known.
        """
        self._read_for(waiter, patience, expected, push=False)

    def _read_for(self, waiter: Awaited, patience: float, expected: Expected | None, *, push: bool) -> None:
        gate = self._link.transport.gate
        turn = Turn()
        try:
            if gate is None or not self._token.take(turn):
                if push:
                    self._outbound.push()
                self.let_go(turn.thread)
                return
            turn.shut_gate = True
            gate.shut()  # before anything is sent: the answer may be faster than the way back from the system call
            if push:
                self._outbound.push()
            if not waiter.answered:  # others may have sent the question, and the reader read the answer
                self._read_until(waiter, turn, max(0.0, min(patience, _MOMENT)), expected)
        except NatsError as exc:
            self._link.lose(exc)
        finally:
            if gate is not None and (turn.shut_gate or self._token.holder is turn):
                self._surely_give_back(turn, gate)

    def _read_until(self, waiter: Awaited, turn: Turn, patience: float, expected: Expected | None) -> None:
        token, transport = self._token, self._link.transport
        self._traffic.by_caller = True
        deadline: Deadline | None = None
        while transport.wait_readable(patience) and token.begin(turn):
            data = transport.recv_now()
            if data is not None and (expected is None or not self._take_expected(data, expected)):
                self._take_in(data)
            token.busy = False
            if waiter.answered:
                return
            deadline = deadline or Deadline(patience)  # others' messages came
            patience = deadline.remaining()
            if not patience:
                return  # also if there is always more to read

    def _take_expected(self, data: bytes, expected: Expected) -> bool:
        """Take in bytes that are the expected answer and nothing else, without looking further; else say False."""
        if not data.startswith(expected.beginning):
            return False
        payload = self._link.parser.payload_after(data, expected.beginning)
        if payload is None:
            return False
        self._traffic.msgs += 1
        self._traffic.bytes += len(payload)
        expected.take(payload)
        return True

    def _surely_give_back(self, turn: Turn, gate: Gate) -> None:
        """Leave the token free and the gate open, also if the token was taken away, perhaps before it was shut."""
        token = self._token
        interrupt: BaseException | None = None
        while True:
            try:
                if token.busy and token.holder is turn:
                    self._give_up()
                gate.open()
                token.give_back(turn)
                break
            except BaseException as exc:  # Ctrl-C, just here
                interrupt = exc
        if interrupt is not None:
            raise interrupt

    def _give_up(self) -> None:
        """Ctrl-C struck while bytes were being taken in: nobody knows what became of them."""
        error = NatsConnectionError("a thread was interrupted while it was reading", server=self._link.url)
        # What still comes must not be parsed: it may be the rest of somebody's payload.
        self._link.parser.error = self._link.parser.error or ProtocolError("a part of the stream is missing")
        if not self._link.is_lost:
            self._link.lose(error)

    def let_go(self, thread: int | None = None) -> None:
        """Have the reader's own thread read again, if the thread that reads for itself only waits for bytes.

        Args:
            thread: Only if it is this one, which is about to wait for something else: so it is in a signal handler, or
                Ctrl-C has kept it from ending its turn. None for any; that also opens a gate that Ctrl-C has left shut.
        """
        gate = self._link.transport.gate
        if gate is None:
            return
        if thread is None:
            self._token.revoke(None)
            gate.open()
        elif self._token.holder is not None and self._token.revoke(thread):
            gate.open()

    # Routing: whoever holds the token.

    def _route(self, operations: list[Operation], *, only_messages: bool) -> None:
        if len(operations) == 1 and only_messages:
            self._deliver_one(operations[0])  # type: ignore[arg-type]
        elif only_messages and len(set(map(_sid_of, operations))) == 1:  # type: ignore[arg-type]
            self._deliver(operations[0][0], operations, _size_of(operations))  # type: ignore[index,arg-type]
        else:
            self._route_mixed(operations)

    def _route_mixed(self, operations: list[Operation]) -> None:
        """Deliver messages of several subscriptions in one go for each.

        What came before a PONG must be in its sink when the flush returns, and what came before a reply when the
        request returns; other order there is none between subscriptions.
        """
        batches: dict[int, list[MsgOp]] = {}
        before = 0
        for operation in operations:
            if type(operation) is not tuple:
                self._deliver_all(batches)
                self._signal(operation)
                continue
            sid = operation[0]
            if sid != before and sid in self._own:
                self._deliver_all(batches)
            before = sid
            batch = batches.get(sid)
            if batch is None:
                batches[sid] = [operation]
            else:
                batch.append(operation)
        self._deliver_all(batches)

    def _deliver_all(self, batches: dict[int, list[MsgOp]]) -> None:
        for sid, batch in batches.items():
            if len(batch) == 1:
                self._deliver_one(batch[0])
            else:
                self._deliver(sid, batch, _size_of(batch))
        batches.clear()

    def _deliver_one(self, operation: MsgOp) -> None:
        # As `_deliver`, in fewer steps: it may be what a caller waits for.
        sid, _, _, block, data = operation
        size = len(data) if block is None else len(data) + len(block)
        self._traffic.msgs += 1
        self._traffic.bytes += size
        sink = self._find(sid)
        if sink is not None:
            sink.deliver([operation], size)

    def _deliver(self, sid: int, batch: list[MsgOp], size: int) -> None:
        self._traffic.msgs += len(batch)
        self._traffic.bytes += size
        sink = self._find(sid)
        if sink is not None:  # else it came after the unsubscribe
            sink.deliver(batch, size)

    def _signal(self, operation: object) -> None:
        link = self._link
        if isinstance(operation, PingOp):
            self._outbound.put_control(PONG_COMMAND, link.generation)
        elif isinstance(operation, PongOp):
            self._pong(link)
        elif isinstance(operation, InfoOp):
            self._listener.heard_info(link, parse_info(operation.payload))
        elif isinstance(operation, ErrOp):
            self._listener.heard_error(link, parse_error(operation.text, server=link.url))

    def _pong(self, link: Link) -> None:
        link.pings_out = 0
        waiter = link.pongs.popleft() if link.pongs else None
        if waiter is not None:
            waiter.pong()


def _size_of(batch: list[MsgOp]) -> int:
    return sum(map(len, map(_data_of, batch))) + sum(map(len, filter(None, map(_block_of, batch))))
