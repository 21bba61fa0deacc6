"""Where the reader takes what one receive brought: each subscription gets its messages at one go, in order."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natsync.core.link import Link, PingWaiter
from natsync.core.outbound import Outbound
from natsync.core.reader import Reader, Traffic
from natsync.core.registry import Registry
from natsync.core.sink import Sink
from natsync.core.transport import TcpTransport
from natsync.errors import NatsConnectionError
from natsync.locks import Wakeup
from natsync.policy.pool import Server
from natsync.policy.urls import parse_url
from natsync.protocol.info import ServerInfo
from natsync.protocol.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from natsync.protocol.operations import MsgOp

OWN = 1
"""The sid of the bench's sink that stands for natsync's own inbox; the others are a user's."""
SIDS = (1, 2, 3, 4)


class Log(Sink):
    """Notes what is delivered to it, and in which company, in a list that all sinks share."""

    def __init__(self, sid: int, log: list[tuple[int, list[int]]]) -> None:
        super().__init__(sid, "s", None, msgs_limit=-1, bytes_limit=-1, max_msgs=None)
        self.log = log
        self.size = 0

    def deliver(self, batch: list[MsgOp], size: int) -> None:
        self.log.append((self.sid, [int(operation[4]) for operation in batch]))
        self.size += size


class Note(PingWaiter):
    """Notes its PONG in the same list."""

    def __init__(self, log: list[tuple[int, list[int]]]) -> None:
        super().__init__()
        self.log = log

    def pong(self) -> None:
        self.log.append((0, []))


def route(pieces: Sequence[int]) -> tuple[list[tuple[int, list[int]]], Traffic, dict[int, Log]]:
    """Have a reader read a stream at one go: a sid stands for a message, 0 for a PONG; messages are numbered."""
    ours, peer = socket.socketpair()
    link = Link(1, TcpTransport(ours), Server(parse_url("127.0.0.1")), ServerInfo(), Parser(), [], lambda: None)
    outbound = Outbound(live_limit=1 << 20, buffer_limit=0, write_timeout=1.0, wakeup=Wakeup())
    registry = Registry(outbound)
    log: list[tuple[int, list[int]]] = []
    sinks = {sid: Log(sid, log) for sid in SIDS}
    for sink in sinks.values():
        if sink.sid != OWN:
            sink.subscription = "a user's"
        registry.add(sink)
    listener: Any = None
    traffic = Traffic()
    reader = Reader(link, registry=registry, outbound=outbound, listener=listener, traffic=traffic)
    link.pongs.extend(Note(log) for sid in pieces if sid == 0)
    stream = b"".join(
        b"MSG s %d %d\r\n%d\r\n" % (sid, len(str(number)), number) if sid else b"PONG\r\n"
        for number, sid in enumerate(pieces)
    )
    peer.sendall(stream)
    peer.close()
    reader.run()
    assert isinstance(link.loss.error, NatsConnectionError)
    link.transport.close()
    return log, traffic, sinks


@pytest.mark.parametrize(
    "pieces, log",
    [
        ([2], [(2, [0])]),
        ([2, 2, 2], [(2, [0, 1, 2])]),
        ([2, 3, 2, 3], [(2, [0, 2]), (3, [1, 3])]),
        ([2, 0, 2], [(2, [0]), (0, []), (2, [2])]),
        ([3, 2, 3, 0], [(3, [0, 2]), (2, [1]), (0, [])]),
        ([OWN, OWN], [(OWN, [0, 1])]),
        ([2, OWN, 2, OWN], [(2, [0]), (OWN, [1]), (2, [2]), (OWN, [3])]),
        ([OWN, OWN, 2, 3, 2, OWN], [(OWN, [0, 1]), (2, [2, 4]), (3, [3]), (OWN, [5])]),
        ([0, 0], [(0, []), (0, [])]),
        ([9, 2, 9], [(2, [1])]),
    ],
)
def test_messages_of_one_subscription_go_together(pieces: list[int], log: list[tuple[int, list[int]]]):
    assert route(pieces)[0] == log


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([0, *SIDS, 9]), max_size=40))
def test_nothing_is_lost_or_late(pieces: list[int]):
    """What came before a PONG or before a reply is delivered before it; what is of one subscription is in order."""
    log, traffic, sinks = route(pieces)
    delivered = [(sid, number) for sid, numbers in log for number in numbers]
    for sid in SIDS:
        assert [number for each, number in delivered if each == sid] == [
            number for number, each in enumerate(pieces) if each == sid
        ]
    pongs = iter([index for index, sid in enumerate(pieces) if sid == 0])
    seen: set[int] = set()
    for sid, numbers in log:
        for number in numbers:
            if sid == OWN:
                assert {index for index in range(number) if pieces[index] in SIDS} <= seen
            seen.add(number)
        if sid == 0:
            assert {index for index in range(next(pongs)) if pieces[index] in SIDS} <= seen
    assert traffic.msgs == sum(sid != 0 for sid in pieces)
    assert traffic.bytes == sum(len(str(number)) for number, sid in enumerate(pieces) if sid != 0)
    assert sum(sink.size for sink in sinks.values()) == sum(len(str(number)) for _, number in delivered)
