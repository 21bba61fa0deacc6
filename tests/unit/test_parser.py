"""The parser: every vector whole, byte by byte and with more behind it; limits; linear time; random bytes and cuts."""

from __future__ import annotations

import itertools
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natsync.errors import ProtocolError
from natsync.protocol.lines import parse_message_line, parse_plain_line
from natsync.protocol.operations import OK, PING, PONG, ErrOp, InfoOp, MsgOp, Operation
from natsync.protocol.parser import Parser

NEVER_SENT = (7, "never.sent", None, None, b"")


def parse(*pieces: bytes, **limits: int) -> tuple[list[Operation], bool]:
    """Feed the pieces to one parser; return all operations, and whether there was an error."""
    parser = Parser(**limits)
    operations = [operation for piece in pieces for operation in parser.feed(piece)]
    return operations, parser.error is not None


def single_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


GOOD = [
    (b"PING\r\n", PING),
    (b"ping\r\n", PING),
    (b"PING\n", PING),
    (b"PING  \r\n", PING),
    (b"PINGPONG\r\n", PING),
    (b"PONG\r\n", PONG),
    (b"Pong\t\r\n", PONG),
    (b"+OK\r\n", OK),
    (b"+Ok\r\n", OK),
    (b"+OKay\r\n", OK),
    (b"-ERR 'Stale Connection'\r\n", ErrOp("'Stale Connection'")),
    (b"-err \t 'x y' \r\n", ErrOp("'x y'")),
    (b"-ERR \r\n", ErrOp("")),
    (b"-ERR 'caf\xc3\xa9 \xff'\r\n", ErrOp("'caf\u00e9 \\xff'")),
    (b'INFO {"a":1}\r\n', InfoOp(b'{"a":1}')),
    (b'Info\t {"a":\t1} \n', InfoOp(b' {"a":\t1} ')),
    (b"INFO \r\n", InfoOp(b"")),
    (b"MSG foo 1 0\r\n\r\n", (1, "foo", None, None, b"")),
    (b"MSG foo 1 1\r\n\r\r\n", (1, "foo", None, None, b"\r")),
    (b"MSG foo 1 5\r\nhello\r\n", (1, "foo", None, None, b"hello")),
    (b"msg foo 1 5\r\nhello\r\n", (1, "foo", None, None, b"hello")),
    (b"MSG\tfoo\t 1 \t5 \r\nhello\r\n", (1, "foo", None, None, b"hello")),
    (b"MSG foo 1 5\nhello\r\n", (1, "foo", None, None, b"hello")),
    (b"MSG foo 0001 0005\r\nhello\r\n", (1, "foo", None, None, b"hello")),
    (b"MSG foo 1 bar 5\r\nhello\r\n", (1, "foo", "bar", None, b"hello")),
    (b"MSG foo 1 7\r\na\r\nPING\r\n", (1, "foo", None, None, b"a\r\nPING")),
    (b"MSG foo 999999999999999999 1\r\nx\r\n", (999999999999999999, "foo", None, None, b"x")),
    (b"MSG f\xc3\xa9 1 1\r\nx\r\n", (1, "f\u00e9", None, None, b"x")),
    (b"MSG f\xff 1 r\xfe 1\r\nx\r\n", (1, "f\udcff", "r\udcfe", None, b"x")),
    # White space that parts no fields on the wire: the sid is 3 and not 2.
    (b"MSG a\x0b2 3 1\r\nx\r\n", (3, "a\x0b2", None, None, b"x")),
    (b"MSG a\x0c2\xc2\xa0b 3 1\r\nx\r\n", (3, "a\x0c2\u00a0b", None, None, b"x")),
    (b"HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", (1, "foo", None, b"NATS/1.0\r\n\r\n", b"")),
    (b"hmsg foo 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", (1, "foo", None, b"NATS/1.0\r\n\r\n", b"hi")),
    (b"HMSG foo 1 bar 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", (1, "foo", "bar", b"NATS/1.0\r\n\r\n", b"hi")),
    (b"HMSG foo 1 0 2\r\nhi\r\n", (1, "foo", None, b"", b"hi")),
]


@pytest.mark.parametrize("data, expected", GOOD)
class TestGood:
    def test_whole(self, data: bytes, expected: Operation):
        assert parse(data) == ([expected], False)

    def test_byte_by_byte(self, data: bytes, expected: Operation):
        assert parse(*single_bytes(data)) == ([expected], False)

    def test_every_split(self, data: bytes, expected: Operation):
        for cut in range(len(data) + 1):
            assert parse(data[:cut], data[cut:]) == ([expected], False)

    @pytest.mark.parametrize("pieces", [list, single_bytes])
    def test_more_behind(self, data: bytes, expected: Operation, pieces):
        more = data + b"+OK\r\n" + data + b"MSG foo 1 3\r\nab"
        fed = single_bytes(more) if pieces is single_bytes else [more]
        assert parse(*fed) == ([expected, OK, expected], False)

    def test_nothing_before_it_is_whole(self, data: bytes, expected: Operation):
        assert parse(*single_bytes(data[:-1])) == ([], False)


BAD_LINES = [
    b"",
    b" PING",
    b"POO",
    b"Px",
    b"PIx",
    b"PINx",
    b"POx",
    b"PONx",
    b"ZOO",
    b"Mx",
    b"MSx",
    b"MSGx",
    b"MSGx foo 1 2",
    b"MSG",
    b"MSG ",
    b"MSG a",
    b"MSG  foo",
    b"MSG foo 1",
    b"MSG foo bar 1",
    b"MSG foo 1 bar baz",
    b"MSG a b c",
    b"MSG a b c d",
    b"MSG foo 1 2 3 4",
    b"MSG foo -1 5",
    b"MSG foo 1 -5",
    b"MSG foo +1 5",
    b"MSG foo 1 +5",
    b"MSG foo 1_0 5",
    b"MSG foo 1 1_0",
    b"MSG foo 0 5",
    b"MSG foo 1 5\r",
    b"MSG foo 1\x0b 5",
    b"MSG foo \xd9\xa1 5",
    b"MSG foo 1 " + b"9" * 19,
    b"MSG foo " + b"9" * 19 + b" 1",
    b"MSG foo 1 " + b"9" * 5000,
    b"MSG foo 1 67108865",
    b"Hx",
    b"HMx",
    b"HMSx",
    b"HMSG",
    b"HMSGx foo 1 2 3",
    b"HMSG foo 1 2",
    b"HMSG foo 1 2 3 4 5",
    b"HMSG foo 1 13 12",
    b"HMSG foo 1 x 12",
    b"HMSG foo 1 -1 12",
    b"HMSG foo x 1 12",
    b"HMSG foo 1 bar x 12",
    b"+x",
    b"+Ox",
    b"-x",
    b"-Ex",
    b"-ERx",
    b"-ERR",
    b"-ERRx",
    b"-ERR'text'",
    b"Ix",
    b"INx",
    b"INFx",
    b"INFO",
    b"INFO{}",
    b"HTTP/1.1 400 Bad Request",
    b"SSH-2.0-OpenSSH_9.6",
    b"\x15\x03\x01\x00\x02\x02F",
    b"\xff",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_line(line: bytes):
    """What stands before a bad line is returned, what stands behind it never is."""
    # The line alone is enough: what follows would fail as its payload, too.
    for data in (b"+OK\r\n" + line + b"\r\n", b"+OK\r\n" + line + b"\r\nMSG never.sent 7 0\r\n\r\n"):
        assert parse(data) == ([OK], True)
        assert parse(*single_bytes(data)) == ([OK], True)


@pytest.mark.parametrize(
    "data",
    [b"Z", b"Px", b"MSx", b" ", b"\r", b"\n", b"\x00", b"+x", b"INx", b"HTT", b"\x16\x03\x01"],
)
def test_garbage_is_told_before_its_line_ends(data: bytes):
    assert parse(data) == ([], True)
    assert parse(*single_bytes(data)) == ([], True)


@pytest.mark.parametrize(
    "data",
    [
        b"MSG foo 1 2\r\nabc\r\n",
        b"MSG foo 1 2\r\nab\n\r\n",
        b"MSG foo 1 2\r\nab\r\r\n",
        b"MSG foo 1 5\r\nabc\r\nPING\r\n",
        b"MSG foo 1 0\r\nPING\r\n",
        b"HMSG foo 1 12 12\r\nNATS/1.0\r\n\r\nx\r\n",
        b"MSG foo 1 600\r\n" + b"x" * 600 + b"\n\n",
    ],
)
def test_payload_must_end_with_crlf(data: bytes):
    for pieces in ([data], single_bytes(data), [data[:-2], data[-2:]]):
        assert parse(*pieces) == ([], True)


def test_after_an_error_nothing_is_parsed():
    parser = Parser()
    assert parser.feed(b"PING\r\nZOO\r\nPONG\r\n") == [PING]
    error = parser.error
    assert isinstance(error, ProtocolError)
    assert parser.feed(b"PING\r\n") == []
    assert parser.error is error
    assert not parser.is_idle


def test_error_shows_a_bounded_excerpt():
    parser = Parser()
    parser.feed(b"ZOO" + b"x" * 1000 + b"\r\n")
    assert "ZOOxxx" in str(parser.error)
    assert len(str(parser.error)) < 200


def test_error_keeps_no_frame():
    parser = Parser()
    parser.feed(b"ZOO\r\n")
    assert parser.error is not None
    assert parser.error.__traceback__ is None


def test_empty_piece_changes_nothing():
    assert parse(b"MSG foo", b"", b" 1 2\r\n", b"", b"ab", b"", b"\r\n", b"") == (
        [(1, "foo", None, None, b"ab")],
        False,
    )


def test_is_idle_between_operations_only():
    parser = Parser()
    idle = []
    for byte in single_bytes(b"PING\r\nMSG foo 1 1\r\nx\r\n"):
        parser.feed(byte)
        idle.append(parser.is_idle)
    assert [index for index, value in enumerate(idle) if value] == [5, 21]
    assert Parser().is_idle


def test_payload_is_bytes_however_it_came():
    data = b"MSG foo 1 2000\r\n" + b"x" * 2000 + b"\r\n"
    for size in (1, 7, 600, 1999, 5000):
        (operation,), _ = parse(*(data[start : start + size] for start in range(0, len(data), size)))
        assert isinstance(operation, tuple)
        assert type(operation[4]) is bytes
        assert operation[4] == b"x" * 2000


class TestLimits:
    def test_payload(self):
        assert parse(b"MSG foo 1 10\r\n" + b"x" * 10 + b"\r\n", max_payload=10) == (
            [(1, "foo", None, None, b"x" * 10)],
            False,
        )
        assert parse(b"MSG foo 1 11\r\n", max_payload=10) == ([], True)
        assert parse(b"HMSG foo 1 5 11\r\n", max_payload=10) == ([], True)

    @pytest.mark.parametrize(
        "word, limits",
        [
            (b"-ERR ", {"max_control_line": 50}),
            (b"-ERR ", {"max_control_line": 50, "max_info_line": 40}),
            (b"INFO ", {"max_info_line": 50}),
            (b"info ", {"max_info_line": 50, "max_control_line": 40}),
        ],
    )
    @pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
    def test_line(self, word: bytes, limits: dict[str, int], ending: bytes):
        """The limit counts all but the LF, and holds for a line that never ends as well."""
        line = word + b"x" * (50 - len(word))
        for pieces in (lambda data: [data], single_bytes):
            assert parse(*pieces(line + ending), **limits)[1] == (ending == b"\r\n")
            assert parse(*pieces(line[:-1] + ending), **limits)[1] is False
            assert parse(*pieces(line + b"x" + ending), **limits)[1] is True

    def test_info_line_has_its_own_limit(self):
        info = b"INFO " + b"x" * 100_000 + b"\r\n"
        assert parse(info) == ([InfoOp(b"x" * 100_000)], False)
        assert parse(b"-ERR " + b"x" * 100_000 + b"\r\n") == ([], True)

    def test_info_line_may_have_the_smaller_limit(self):
        assert parse(b"INFO " + b"x" * 20 + b"\r\n", max_info_line=10) == ([], True)
        assert parse(b"-ERR " + b"x" * 20 + b"\r\n", max_info_line=10) == ([ErrOp("x" * 20)], False)

    @pytest.mark.parametrize("size, reply, remembered", [(100, None, 1000 % 256), (1000, None, 0), (10, "r", 0)])
    def test_table_of_known_lines(self, size: int, reply: str | None, remembered: int):
        """It is emptied when it is full, and takes neither long lines nor those with a reply subject."""
        sent: list[Operation] = [(1, f"{'s' * size}.{index}", reply, None, b"x") for index in range(1000)]
        parser = Parser()
        for index in range(0, 1000, 2):  # of many together that do not repeat only the first two are remembered
            pair = sent[index : index + 2]
            assert parser.feed(b"".join(map(encode, pair))) == pair
        assert len(parser._known) == remembered
        parser = Parser()
        assert parser.feed(b"".join(map(encode, sent))) == sent
        assert len(parser._known) == min(remembered, 2)


PIECES = [
    b"MSG inbox.%d 1 3\r\nabc\r\n",
    b"MSG inbox.%d 1 re.1 3\r\nabc\r\n",
    b"MSG svc 2 re.%d 0\r\n\r\n",
    b"MSG stream 3 2\r\nxy\r\n" * 7,
    b"HMSG inbox.%d 1 12 15\r\nNATS/1.0\r\n\r\nabc\r\n",
    b"PING\r\n",
    b"msg  inbox.%d 1 3\r\nabc\r\n",
]


class TestLinesThatDoNotRepeat:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), min_size=2, max_size=12), st.integers(0, 40))
    def test_they_are_read_as_one_by_one(self, pieces: list[bytes], cut: int):
        data = b"".join(piece % index if b"%d" in piece else piece for index, piece in enumerate(pieces))
        together, begun = Parser(), Parser()
        one_by_one, _ = parse(*single_bytes(data))
        assert together.feed(data) == one_by_one
        assert together.is_idle
        assert begun.feed(data[: len(data) - cut]) + begun.feed(data[len(data) - cut :]) == one_by_one

    @pytest.mark.parametrize(
        "bad",
        [b"MSG inbox.9 1 4\r\nabc\r\n", b"MSG inbox.9 1 99\r\nabc\r\n", b"MSG inbox.9 0 3\r\nabc\r\n", b"ZOO\r\n"],
    )
    def test_what_is_wrong_is_told_after_them(self, bad: bytes):
        good = b"".join(b"MSG inbox.%d 1 3\r\nabc\r\n" % index for index in range(5))
        operations, failed = parse(good + bad + b"PONG\r\n", max_payload=50)
        assert failed
        assert len(operations) == 5

    def test_a_long_line_is_refused_among_them(self):
        data = b"".join(b"MSG %s.%d 1 3\r\nabc\r\n" % (b"s" * (index * 10), index) for index in range(1, 8))
        operations, failed = parse(data, max_control_line=60, max_info_line=60)
        assert failed
        assert [len(operation[1]) for operation in operations if isinstance(operation, tuple)] == [12, 22, 32, 42]


class TestStreams:
    """What the parser says of bytes that are messages of one line only, so that nobody has to look at each."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.sampled_from([*PIECES, b"MSG stream 3 2\r\nxy\r\n", b"MSG other 3 2\r\nxy\r\n"]), max_size=8),
        st.lists(st.integers(0, 300), max_size=3),
    )
    def test_it_is_true(self, pieces: list[bytes], cuts: list[int]):
        data = b"".join(piece % index if b"%d" in piece else piece for index, piece in enumerate(pieces))
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        parser = Parser()
        for start, end in itertools.pairwise(edges):
            operations = parser.feed(data[start:end])
            messages = [operation for operation in operations if isinstance(operation, tuple)]
            assert parser.only_messages is (len(messages) == len(operations))
            if parser.stream is not None:
                assert messages == operations
                assert {operation[0] for operation in messages} == {parser.stream[0]}
                assert sum(len(op[4]) + len(op[3] or b"") for op in messages) == parser.stream[1]

    def test_a_stream_is_told_of_also_when_it_comes_in_pieces(self):
        parser = Parser()
        data = b"MSG stream 3 5\r\nabcde\r\n" * 100
        parser.feed(data[:1000])
        assert parser.stream == (3, 43 * 5)
        parser.feed(data[1000:])
        assert parser.stream == (3, 57 * 5)
        parser.feed(b"PING\r\n")
        assert parser.stream is None


class TestAnExpectedMessage:
    BEGINNING = b"MSG inbox.7 12 "

    def test_its_payload_is_taken(self):
        parser = Parser()
        assert parser.payload_after(b"MSG inbox.7 12 3\r\nabc\r\n", self.BEGINNING) == b"abc"
        assert parser.payload_after(b"MSG inbox.7 12 0\r\n\r\n", self.BEGINNING) == b""
        assert parser.payload_after(b"MSG inbox.7 12 3\r\na\r\n\r\n", self.BEGINNING) == b"a\r\n"
        assert parser.is_idle

    @pytest.mark.parametrize(
        "data",
        [
            b"MSG inbox.7 12 3\r\nabc\r\nPING\r\n",
            b"MSG inbox.7 12 3\r\nabc\r\n" * 2,
            b"MSG inbox.7 12 3\r\nabc\r",
            b"MSG inbox.7 12 3\r\nabcd\n",
            b"MSG inbox.7 12 3\nabc\r\n",
            b"MSG inbox.7 12 30\r\nabc\r\n",
            b"MSG inbox.7 12 re 3\r\nabc\r\n",
            b"MSG inbox.7 12  3\r\nabc\r\n",
            b"MSG inbox.7 12 -3\r\nabc\r\n",
            b"MSG inbox.7 12 \r\nabc\r\n",
            b"MSG inbox.7 12 99\r\n" + b"x" * 99 + b"\r\n",
            b"MSG inbox.7 12 " + b"9" * 5000 + b"\r\n",
            b"MSG inbox.7 12 ",
        ],
    )
    def test_whatever_else_comes_is_left_as_it_is(self, data: bytes):
        parser = Parser(max_payload=50)
        assert parser.payload_after(data, self.BEGINNING) is None
        assert parser.is_idle
        operations, failed = parse(data, max_payload=50)
        assert (parser.feed(data), parser.error is not None) == (operations, failed)

    def test_a_line_that_is_too_long_is_left_to_be_refused(self):
        parser = Parser(max_control_line=15, max_info_line=15)
        assert parser.payload_after(b"MSG inbox.7 12 3\r\nabc\r\n", self.BEGINNING) is None

    @pytest.mark.parametrize("begun", [b"MSG ", b"MSG foo 1 100\r\nab", b"ZOO\r\n"])
    def test_in_the_middle_of_something_nothing_is_taken(self, begun: bytes):
        parser = Parser()
        parser.feed(begun)
        assert parser.payload_after(b"MSG inbox.7 12 3\r\nabc\r\n", self.BEGINNING) is None


class TestLinearTime:
    """The measure is coarse on purpose: ten times the bytes, at most about ten times the time."""

    @staticmethod
    def seconds(*pieces: bytes) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.thread_time()
            assert not parse(*pieces)[1]
            best = min(best, time.thread_time() - start)
        return best

    def test_line_byte_by_byte(self):
        short, long = (single_bytes(b"INFO " + b"x" * size + b"\r\n") for size in (10_000, 100_000))
        assert self.seconds(*long) < 40 * self.seconds(*short)

    def test_payload_byte_by_byte(self):
        short, long = (single_bytes(b"MSG a 1 %d\r\n%b\r\n" % (size, b"x" * size)) for size in (10_000, 100_000))
        assert self.seconds(*long) < 40 * self.seconds(*short)

    def test_large_payload(self):
        size = 60 * 1024 * 1024
        piece = b"x" * 65536
        pieces = [b"MSG a 1 %d\r\n" % size, *[piece] * (size // 65536), b"\r\n"]
        assert self.seconds(*pieces) < 5


tokens = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters=" \t\r\n\x00"), min_size=1, max_size=8
)
messages = st.tuples(
    st.integers(1, 10**18 - 1), tokens, st.none() | tokens, st.none() | st.binary(max_size=40), st.binary(max_size=1200)
)
operations = messages | st.sampled_from([PING, PONG, OK]) | st.builds(InfoOp, st.just(b"{}")) | st.just(ErrOp("'x'"))


def encode(operation: Operation) -> bytes:
    """What a server sends; written apart from the parser, by the protocol's description."""
    if isinstance(operation, tuple):
        return encode_message(operation)
    if isinstance(operation, InfoOp):
        return b"INFO " + operation.payload + b"\r\n"
    if isinstance(operation, ErrOp):
        return f"-ERR {operation.text}\r\n".encode()
    return {PING: b"PING\r\n", PONG: b"PONG\r\n", OK: b"+OK\r\n"}[operation]


def encode_message(message: MsgOp) -> bytes:
    sid, subject, reply, header_block, data = message
    words = ["MSG" if header_block is None else "HMSG", subject, str(sid)]
    if reply is not None:
        words.append(reply)
    if header_block is not None:
        words.append(str(len(header_block)))
    words.append(str(len(header_block or b"") + len(data)))
    return " ".join(words).encode() + b"\r\n" + (header_block or b"") + data + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(operations, max_size=8), st.lists(st.integers(0, 100_000), max_size=12))
def test_what_was_sent_is_parsed_for_any_split(sent: list[Operation], places: list[int]):
    assert parse(*cut(b"".join(map(encode, sent)), places)) == (sent, False)


WORDS = [
    b"MSG ",
    b"HMSG ",
    b"PING",
    b"PONG",
    b"+OK",
    b"-ERR ",
    b"INFO ",
    b"foo ",
    b"1 ",
    b"2",
    b"\r\n",
    b"\n",
    b" ",
    b"\r",
]


@given(
    st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=30), st.lists(st.integers(0, 1000), max_size=12)
)
def test_garbage_is_parsed_alike_for_any_split(words: list[bytes], places: list[int]):
    data = b"".join(words)
    whole = parse(data)
    assert parse(*cut(data, places)) == whole
    assert parse(*single_bytes(data)) == whole


@given(st.lists(operations, max_size=4), st.binary(min_size=1, max_size=40), st.integers(0, 100_000))
def test_nothing_comes_from_behind_garbage(sent: list[Operation], garbage: bytes, place: int):
    """Whatever a broken line does, the operations before it stay, and none is made of another's bytes."""
    before = b"".join(map(encode, sent))
    found, failed = parse(before + b"Z" + garbage, b"MSG never.sent 7 0\r\n\r\n")
    assert (found, failed) == (sent, True)
    assert NEVER_SENT not in found


# Runs: messages that repeat a line are taken many at one go.


def stream(line: bytes, payloads: list[bytes]) -> bytes:
    return b"".join(b"%b\n%b\r\n" % (line, payload) for payload in payloads)


def run_of(payloads: list[bytes], sid: int = 1, header: int | None = None) -> list[Operation]:
    if header is None:
        return [(sid, "foo", None, None, payload) for payload in payloads]
    return [(sid, "foo", None, payload[:header], payload[header:]) for payload in payloads]


def numbered(count: int, size: int = 4) -> list[bytes]:
    return [b"%0*d" % (size, number) for number in range(count)]


LINE = b"MSG foo 1 4\r"
RUN_LENGTHS = [1, 2, 3, 4, 5, 6, 7, 17, 18, 19, 20, 21, 22, 82, 83, 86, 87, 340, 1000]


@pytest.mark.parametrize("count", RUN_LENGTHS)
@pytest.mark.parametrize("line", [LINE, b"MSG foo 1 4"])
def test_a_run_of_any_length(count: int, line: bytes):
    payloads = numbered(count)
    assert parse(stream(line, payloads)) == (run_of(payloads), False)


@pytest.mark.parametrize("count", RUN_LENGTHS)
def test_a_run_without_payloads(count: int):
    assert parse(stream(b"MSG foo 1 0\r", [b""] * count)) == (run_of([b""] * count), False)


@pytest.mark.parametrize("count", RUN_LENGTHS)
@pytest.mark.parametrize("header", [0, 2, 4])
def test_a_run_with_headers(count: int, header: int):
    payloads = numbered(count)
    assert parse(stream(b"HMSG foo 1 %d 4\r" % header, payloads)) == (run_of(payloads, header=header), False)


@pytest.mark.parametrize("missing", range(1, 40))
@pytest.mark.parametrize("count", [5, 6, 18, 22, 100])
def test_a_run_whose_end_has_not_come(count: int, missing: int):
    payloads = numbered(count)
    data = stream(LINE, payloads)
    whole = (len(data) - missing) // (len(data) // count)
    parser = Parser()
    assert parser.feed(data[:-missing]) == run_of(payloads[:whole])
    assert parser.feed(data[-missing:]) == run_of(payloads[whole:])
    assert parser.is_idle


@pytest.mark.parametrize("place", [0, 1, 2, 3, 5, 10, 17, 18, 19, 40, 98, 99])
@pytest.mark.parametrize(
    "other",
    [
        b"PING\r\n",
        b"+OK\r\n",
        b"MSG foo 2 4\r\nelse\r\n",
        b"MSG bar 1 4\r\nelse\r\n",
        b"MSG foo 1 4\nbare\r\n",
        b"MSG foo 1 5\r\nlarge\r\n",
        b"MSG foo 1 3\r\nles\r\n",
        b"MSG foo 1 0\r\n\r\n",
        b"MSG foo 1 re 4\r\nasks\r\n",
        b"HMSG foo 1 1 4\r\nhead\r\n",
        b"MSG foo 1 04\r\nzero\r\n",
    ],
)
def test_a_run_that_something_else_breaks(place: int, other: bytes):
    payloads = numbered(100)
    expected = run_of(payloads)
    expected[place:place] = parse(other)[0]
    assert len(expected) == 101
    assert parse(stream(LINE, payloads[:place]) + other + stream(LINE, payloads[place:])) == (expected, False)


@pytest.mark.parametrize("place", [0, 2, 3, 10, 17, 18, 30, 49])
@pytest.mark.parametrize("wrong", [b"\r\r", b"\n\r", b"xx", b"\r\n\r\n", b""])
def test_a_run_with_a_message_of_another_size_than_its_line_says(place: int, wrong: bytes):
    """Where CRLF should be there is something else: what came before is parsed, and nothing behind."""
    payloads = numbered(50)
    data = stream(LINE, payloads[:place]) + LINE + b"\n" + b"0000" + wrong + stream(LINE, payloads[place:])
    whole = parse(data)
    assert whole == parse(*single_bytes(data))
    assert whole[1]
    kept = place + (wrong == b"\r\n\r\n")
    assert whole[0] == run_of([*payloads[:place], b"0000"][:kept])


@pytest.mark.parametrize("swapped", [0, 1, 2, 17, 18, 40, 48])
def test_payloads_that_hold_what_stands_between_payloads(swapped: int):
    """A payload may look like the end of one message and the beginning of the next."""
    between = b"\r\nMSG foo 1 20\r\n"
    payloads = numbered(50, 20)
    payloads[swapped] = b"ab" + between + b"cd"[: 20 - len(between) - 2]
    assert len(payloads[swapped]) == 20
    assert parse(stream(b"MSG foo 1 20\r", payloads)) == (run_of(payloads), False)
    same = [between + b"....."[: 20 - len(between)]] * 50
    assert parse(stream(b"MSG foo 1 20\r", same)) == (run_of(same), False)
    ends = [b"....."[: 20 - len(between)] + between] * 50
    assert parse(stream(b"MSG foo 1 20\r", ends)) == (run_of(ends), False)


def test_payloads_that_shift_what_stands_between_payloads():
    """Split there, as many pieces come out as there are messages; only their lengths tell that they are wrong."""
    between = b"\r\nMSG foo 1 32\r\n"
    size = 32
    early = between + b"x" * (size - len(between))
    late = b"x" * (size - len(between)) + between
    for payloads in ([early, late] * 20, [late, early] * 20, [early] * 21 + [late] * 21, [between * 2] * 30):
        assert parse(stream(b"MSG foo 1 32\r", payloads)) == (run_of(payloads), False)


def test_a_run_costs_what_its_bytes_cost():
    """Not more with every attempt: payloads that defeat the short cut must not make it quadratic."""
    between = b"\r\nMSG foo 1 20\r\n"
    payloads = [between.ljust(20, b".")] * 20_000
    data = stream(b"MSG foo 1 20\r", payloads)
    start = time.perf_counter()
    operations, failed = parse(data)
    assert not failed
    assert len(operations) == 20_000
    assert time.perf_counter() - start < 10


PAYLOAD = st.sampled_from([b"", b"a", b"\r", b"\r\n", b"\r\nMSG foo 1 4\r\n", b"PING\r\n", b"1234", b"5678", b"abc"])
HEAD = st.sampled_from(
    [b"MSG foo 1 %d\r", b"MSG foo 1 %d", b"MSG foo 2 %d\r", b"HMSG foo 1 0 %d\r", b"MSG foo 1 r %d\r"]
)


@given(
    st.lists(st.tuples(HEAD, PAYLOAD, st.integers(1, 40)), max_size=8),
    st.lists(st.integers(0, 3000), max_size=4),
)
def test_runs_cut_anywhere_are_what_they_are_byte_by_byte(runs: list[tuple[bytes, bytes, int]], cuts: list[int]):
    data = b"".join(stream(head % len(payload), [payload] * count) for head, payload, count in runs)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    whole = parse(*[data[start:end] for start, end in pairwise(places)])
    assert whole == parse(*single_bytes(data))
    assert not whole[1]
    assert len(whole[0]) == sum(count for _, _, count in runs)


# The plain line: what is read quickly is what is read with care.

SOME_WORDS = b"MSG msg HMSG foo a.b \xc3\xa9 \xff 1 0 00 007 4 -1 +1 1_0 \xb2 x\x0b \x00".split(b" ")
ANY_WORDS = st.sampled_from([*SOME_WORDS, b" ", b"\t", b"", b"9" * 18, b"9" * 19, b"0" * 19])


@given(st.lists(ANY_WORDS, max_size=6), st.lists(st.sampled_from([b" ", b"  ", b"\t", b" \t"]), min_size=6, max_size=6))
def test_a_line_is_read_alike_by_both_ways(words: list[bytes], blanks: list[bytes]):
    """A line that is taken as plain is read by the other way too; a header field more is only for the other way."""
    text = b"MSG" + b"".join(blank + word for word, blank in zip(words, blanks, strict=False))
    plain = parse_plain_line(text)
    if plain is not None:
        assert plain == parse_message_line(text, has_header=False)


@pytest.mark.parametrize(
    "line, plain",
    [
        (b"MSG foo 1 5", (1, "foo", None, None, 5)),
        (b"MSG foo 1 5\r", (1, "foo", None, None, 5)),
        (b"MSG foo 1 re 5\r", (1, "foo", "re", None, 5)),
        (b"MSG foo 1 2 3", (1, "foo", "2", None, 3)),
        (b"MSG foo 1 0", (1, "foo", None, None, 0)),
        (b"MSG foo 1 00", (1, "foo", None, None, 0)),
        (b"MSG foo 0 5", None),
        (b"MSG foo 00 5", None),
        (b"MSG foo  1 5", None),
        (b"MSG  foo 1 5", None),
        (b"MSG foo 1 5 ", None),
        (b"MSG foo 1\t5", None),
        (b"MSG a\tb 1 5", None),
        (b"MSG foo 007 5", None),
        (b"MSG a\x0b2 3 1", None),
        (b"MSG foo 1 re re 5", None),
        (b"MSG  1 5", None),
        (b"msg foo 1 5", None),
        (b"MSG f\xc3\xa9 1 5", None),
        (b"MSG foo \xc2\xb2 5", None),
        (b"MSG foo -1 5", None),
        (b"MSG foo 1_0 5", None),
        (b"MSG foo 1 " + b"0" * 19, None),
        (b"MSG foo " + b"0" * 18 + b"1 5", None),
    ],
)
def test_which_lines_are_plain(line: bytes, plain: tuple[object, ...] | None):
    assert parse_plain_line(line) == plain
