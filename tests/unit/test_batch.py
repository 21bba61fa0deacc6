"""What is sent at one go, and what can be saved of it when the connection breaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.core.batch import Batch, Dropped, PingFrame, is_publish, keep_publishes, keep_within_payload
from natsync.core.link import PingWaiter
from natsync.protocol.commands import PING_COMMAND, PONG_COMMAND, encode_hpub, encode_pub, encode_sub, encode_unsub

PUB = encode_pub(b"foo", None, b"hello")
HPUB = encode_hpub(b"foo", b"bar", b"NATS/1.0\r\nA: b\r\n\r\n", b"hello")
SUB = encode_sub("foo", None, 1)
CONTROLS = [SUB, encode_unsub(1), encode_unsub(1, 5), PONG_COMMAND, PingFrame(None)]

frames_of_both_kinds = st.lists(
    st.one_of(st.binary(max_size=30).map(lambda data: encode_pub(b"s", None, data)), st.sampled_from(CONTROLS)),
    max_size=8,
)


def sent_of(batch: Batch, count: int) -> Batch:
    """Let the socket take `count` bytes."""
    assert batch.rest() is not None
    batch.sent = count
    return batch


@pytest.mark.parametrize("frame", [PUB, HPUB])
def test_publishes_are_told_from_commands(frame: bytes):
    assert is_publish(frame)


@pytest.mark.parametrize("frame", CONTROLS)
def test_commands_are_no_publishes(frame: bytes):
    assert not is_publish(frame)


def test_a_ping_frame_is_a_ping_and_brings_its_waiter():
    waiter = PingWaiter()
    assert PingFrame(waiter) == PING_COMMAND
    assert PingFrame(waiter).waiter is waiter


def test_the_rest_follows_what_was_sent():
    batch = Batch([PUB, SUB])
    assert bytes(batch.rest()) == PUB + SUB
    assert not batch.done
    batch.sent = 5
    assert bytes(batch.rest()) == (PUB + SUB)[5:]
    batch.sent = len(PUB + SUB)
    assert bytes(batch.rest()) == b""
    assert batch.done


def test_a_single_frame_is_not_copied():
    assert Batch([PUB]).rest() is PUB


def test_a_batch_is_not_done_before_its_bytes_were_asked_for():
    """Accounting may run when the sender was interrupted before it joined the frames."""
    assert not Batch([]).done


def test_given_up_counts_as_sent():
    batch = Batch([PUB, SUB])
    batch.give_up()
    assert batch.sent == len(PUB + SUB)
    assert batch.untouched(Dropped()) == []


@pytest.mark.parametrize(
    "sent, untouched, dropped_msgs",
    [
        (0, [PUB, SUB, HPUB], 0),
        (1, [SUB, HPUB], 1),
        (len(PUB) - 1, [SUB, HPUB], 1),
        (len(PUB), [SUB, HPUB], 0),
        (len(PUB) + 1, [HPUB], 0),
        (len(PUB + SUB), [HPUB], 0),
        (len(PUB + SUB) + 1, [], 1),
        (len(PUB + SUB + HPUB), [], 0),
    ],
)
def test_a_frame_of_which_a_byte_was_sent_is_given_up(sent: int, untouched: list[bytes], dropped_msgs: int):
    dropped = Dropped()
    assert sent_of(Batch([PUB, SUB, HPUB]), sent).untouched(dropped) == untouched
    assert dropped.msgs == dropped_msgs


@given(frames_of_both_kinds.filter(bool), st.data())
def test_untouched_is_what_lies_behind_the_cut(frames: list[bytes], data: st.DataObject):
    whole = b"".join(frames)
    sent = data.draw(st.integers(0, len(whole)))
    dropped = Dropped()
    untouched = sent_of(Batch(frames), sent).untouched(dropped)
    begun = frames[: len(frames) - len(untouched)]
    size_begun = sum(map(len, begun))
    assert untouched == frames[len(begun) :]
    assert sent <= size_begun
    cut_frame = begun[-1] if size_begun > sent else None
    assert cut_frame is None or size_begun - len(cut_frame) < sent
    assert (dropped.msgs, dropped.bytes) == (
        (1, len(cut_frame)) if cut_frame is not None and is_publish(cut_frame) else (0, 0)
    )


def test_only_publishes_are_counted_as_dropped():
    dropped = Dropped()
    for frame in (PUB, *CONTROLS, HPUB):
        dropped.add(frame)
    assert (dropped.msgs, dropped.bytes) == (2, len(PUB) + len(HPUB))


@pytest.mark.parametrize(
    "limit, kept",
    [
        (0, 0),
        (len(PUB) - 1, 0),
        (len(PUB), 1),
        (2 * len(PUB) - 1, 1),
        (2 * len(PUB), 2),
        (3 * len(PUB), 3),
    ],
)
def test_publishes_are_kept_up_to_the_limit_to_the_byte(limit: int, kept: int):
    dropped = Dropped()
    assert keep_publishes([PUB, SUB, PUB, PUB], limit, dropped) == ([PUB] * kept, kept * len(PUB))
    assert dropped.msgs == 3 - kept


def test_publishes_are_kept_without_a_gap():
    """A small one behind a large one that does not fit is dropped too, or subscribers would see a hole."""
    small, large = encode_pub(b"s", None, b""), encode_pub(b"s", None, b"x" * 100)
    dropped = Dropped()
    assert keep_publishes([small, large, small], 50, dropped) == ([small], len(small))
    assert (dropped.msgs, dropped.bytes) == (2, len(large) + len(small))


@given(frames_of_both_kinds, st.integers(0, 300))
def test_every_publish_is_either_kept_or_counted(frames: list[bytes], limit: int):
    dropped = Dropped()
    kept, size = keep_publishes(frames, limit, dropped)
    publishes = [frame for frame in frames if is_publish(frame)]
    assert kept == publishes[: len(kept)]
    assert size == sum(map(len, kept)) <= limit
    assert (dropped.msgs, dropped.bytes) == (len(publishes) - len(kept), sum(map(len, publishes)) - size)


@pytest.mark.parametrize(
    "frame, payload",
    [
        (encode_pub(b"foo", None, b"12345"), 5),
        (encode_pub(b"foo", b"bar", b"12345"), 5),
        (encode_pub(b"foo", None, b""), 0),
        (encode_pub(b"foo", None, b"\r\nPUB 99\r\n"), 10),
        (encode_hpub(b"foo", None, b"NATS/1.0\r\n\r\n", b"12345"), 17),
        (encode_hpub(b"foo", b"bar", b"NATS/1.0\r\n\r\n", b"12345"), 17),
        (encode_pub(b"a.long.subject" * 10, b"and.reply", b"1"), 1),
    ],
)
def test_the_limit_of_another_server_counts_headers_and_data_only(frame: bytes, payload: int):
    dropped = Dropped()
    assert keep_within_payload([frame], payload, dropped) == [frame]
    assert dropped.msgs == 0
    if payload:
        assert keep_within_payload([frame], payload - 1, dropped) == []
        assert (dropped.msgs, dropped.bytes) == (1, len(frame))
