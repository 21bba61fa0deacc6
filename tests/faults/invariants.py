"""What must hold in every cell, whatever happened."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from natsync.testing import NatsServer

INBOX = "_INBOX."
PADDING = b"." * 160


def seal(publisher: int, number: int) -> bytes:
    """Make a message that says who sent it, which one it is, and whether it is whole."""
    text = b"%d %d " % (publisher, number) + PADDING
    return b"%08x " % zlib.crc32(text) + text


def unseal(data: bytes) -> tuple[int, int]:
    """Read who sent a message, and which one it is; fail if it is not whole."""
    checksum, _, text = data.partition(b" ")
    assert int(checksum, 16) == zlib.crc32(text), f"a damaged message: {data!r}"
    publisher, number = text.split()[:2]
    return int(publisher), int(number)


def check_once_and_in_order(received: Iterable[tuple[int, int]], connections: int) -> None:
    """Nothing came twice, and every publisher's messages came in their order.

    Args:
        received: Who and which, as they came.
        connections: Over so many connections at once; messages of different ones may overtake each other.
    """
    numbers: dict[int, list[int]] = {}
    for publisher, number in received:
        numbers.setdefault(publisher, []).append(number)
    for publisher, came in numbers.items():
        twice = [number for number, count in Counter(came).items() if count > 1]
        assert not twice, f"publisher {publisher}: {twice[:10]} came twice"
        flows = count_flows(came)
        assert flows <= connections, f"publisher {publisher}: out of order, {falls(came)}"


def count_flows(numbers: Sequence[int]) -> int:
    """Return the least number of ascending sequences that these can be a mixture of."""
    tops: list[int] = []  # the last number of each sequence, negated, ascending
    for number in numbers:
        place = bisect_left(tops, -number + 1)  # the sequence with the greatest last number below this one
        tops[place : place + 1] = [-number]
    return len(tops)


def falls(numbers: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return where a number is followed by a lower one: position and both."""
    pairs = itertools.pairwise(numbers)
    return [(place, first, second) for place, (first, second) in enumerate(pairs) if second < first][:5]


def check_subscriptions(servers: Sequence[NatsServer], name: str, held: Iterable[str]) -> None:
    """The servers have one connection with this client's name, with just the subscriptions that the client holds."""
    wanted = [sorted(held)]
    with contextlib.suppress(AssertionError):
        eventually(lambda: _subscriptions(servers, name) == wanted, 2.0)
        return
    raise AssertionError(f"the servers have {_subscriptions(servers, name)}, the client {wanted}")


def _subscriptions(servers: Sequence[NatsServer], name: str) -> list[list[str]]:
    pages = [server.connz(subs=True)["connections"] for server in servers if server.is_running]
    return [
        sorted(INBOX if subject.startswith(INBOX) else subject for subject in each.get("subscriptions_list", []))
        for page in pages
        for each in page
        if each.get("name") == name
    ]
