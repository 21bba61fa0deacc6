"""Bytes from a server in, operations out.

Sans-IO: knows no socket and no time. Owns the bytes of the operation that has not fully arrived, and nothing else; a
new connection gets a new parser. Not for two threads at once: it belongs to whoever reads the connection.

The result never depends on how the bytes were cut into pieces, and the work is linear in their number: a line that
comes byte by byte is never searched twice, and the pieces of a large payload are joined once. Nothing a peer sends
raises or makes the parser keep more than one message, one line, and the table of known lines.
"""

from __future__ import annotations

from itertools import islice, repeat

from natsync.errors import ProtocolError
from natsync.protocol.lines import Args, Rare, begins_plainly, excerpt, parse_line, unknown
from natsync.protocol.operations import MsgOp, Operation

__all__ = ["Parser"]

_CRLF = b"\r\n"

# What the first three bytes of a line may be, complete or not: garbage is told at once, not when its line ends.
_STARTS = frozenset(
    word[:length] for word in (b"MSG", b"HMSG", b"PING", b"PONG", b"+OK", b"-ERR", b"INFO") for length in (0, 1, 2, 3)
)

# Bytes up to so many are looked at as one whole message first, as a reply to a request mostly comes.
_LONGEST_SINGLE = 4096

# Lines whose fields are remembered. Streams of messages repeat theirs: same subject, sid and size. A line with a
# reply subject hardly ever comes twice, so it is left out.
_KNOWN_LINES = 256
_KNOWN_LINE_LENGTH = 256

# A run of messages that repeat one line is tried with so many at first, then with more; fewer are not worth the try.
_FIRST_RUN = 16
_SHORTEST_RUN = 4

# Smaller pieces of a payload are gathered in one bytearray: kept as objects, they would cost a multiple of their bytes.
_SMALL_PIECE = 512


class Parser:
    """A parser for one connection.

    Args:
        max_payload: The largest header block and data together, in bytes.
        max_control_line: The longest line without its LF, in bytes; `max_info_line` is the same for `INFO`.

    Attributes:
        error: Why the bytes cannot be understood, or None. From then on nothing is parsed any more.
        only_messages: What the latest `feed` returned are messages and nothing else.
        stream: If they all had the same line: their sid, and their bytes of headers and data together; else None.
    """

    __slots__ = (
        "_args",
        "_known",
        "_line",
        "_max_control_line",
        "_max_info_line",
        "_max_payload",
        "_missing",
        "_pieces",
        "_short_line",
        "error",
        "only_messages",
        "stream",
    )

    def __init__(
        self,
        *,
        max_payload: int = 64 * 1024 * 1024,
        max_control_line: int = 65536,
        max_info_line: int = 1024 * 1024,
    ) -> None:
        self._max_payload = max_payload
        self._max_control_line = max_control_line
        self._max_info_line = max_info_line
        # Only a longer line can be longer than its limit.
        self._short_line = min(max_control_line, max_info_line)
        self._known: dict[bytes, Args] = {}
        # The line under way, while its LF has not come.
        self._line = bytearray()
        # The message under way: what its line said, its bytes so far, and how many more it takes, the CRLF included.
        self._args: Args | None = None
        self._pieces: list[bytes | bytearray] = []
        self._missing = 0
        self.error: ProtocolError | None = None
        self.stream: tuple[int, int] | None = None
        self.only_messages = True

    @property
    def is_idle(self) -> bool:
        """Whether the bytes so far end with a whole operation."""
        return self.error is None and self._args is None and not self._line

    def feed(self, data: bytes) -> list[Operation]:
        """Return the operations that `data` completes, in order; check `error` afterwards. Never raises."""
        operations: list[Operation] = []
        self.only_messages = True
        self.stream = None
        if len(data) <= _LONGEST_SINGLE and self._args is None and not self._line and self.error is None:
            single = self._parse_single(data)
            if single is not None:
                operations.append(single)
                return operations
        if self.error is None and data:
            try:
                self._parse(data, operations)
            except ProtocolError as error:
                # Without its traceback, which would keep this frame and its bytes alive.
                self.error = error.with_traceback(None)
        return operations

    def payload_after(self, data: bytes, beginning: bytes) -> bytes | None:
        """Return the payload, if `data` is one whole `MSG` of which only the size is not known: the quickest way.

        Otherwise return None, and take nothing: `feed` takes it then.

        Args:
            data: As for `feed`; it begins with `beginning`.
            beginning: The message's line, up to the size.
        """
        line, _, rest = data.partition(_CRLF)
        digits = line[len(beginning) :]
        if not digits.isdigit() or len(data) > _LONGEST_SINGLE or len(line) >= self._short_line:
            return None
        size = int(digits)
        if len(rest) != size + 2 or not rest.endswith(_CRLF) or size > self._max_payload or not self.is_idle:
            return None
        return rest[:size]

    def _parse_single(self, data: bytes) -> MsgOp | None:
        """Read bytes that are one MSG as servers write it; None for whatever else, which is read with more care."""
        found = begins_plainly(data)
        if found is None:
            return None
        subject, sid, reply, digits = found.groups()
        start, size = found.end(), int(digits)
        stop = start + size
        if len(data) != stop + 2 or not data.endswith(_CRLF) or size > self._max_payload or start > self._short_line:
            return None
        return (int(sid), subject.decode(), None if reply is None else reply.decode(), None, data[start:stop])

    def _parse(self, data: bytes, operations: list[Operation]) -> None:  # noqa: C901, PLR0912 - calls cost more
        """Append what `data` completes, and keep what it begins; this loop is where a busy client spends its time."""
        last = self._args
        data, position = self._resume(data, operations)
        if not operations:
            last = None
        is_stream = True
        append, find, known = operations.append, data.find, self._known.get
        found: Args | Rare | None
        strangers = 0
        while (end := find(b"\n", position)) >= 0:
            line = data[position:end]
            found = known(line)
            if found is None:
                found = self._parse_line(line)
                if not isinstance(found, tuple):
                    self.only_messages = False
                    append(found)
                    position = end + 1
                    continue
                strangers += 1
            sid, subject, reply, header_size, size = found
            start = end + 1
            stop = start + size
            if data[stop : stop + 2] != _CRLF:
                if len(data) >= stop + 2:
                    raise _no_crlf(found, data[stop : stop + 2])
                self._begin_message(found, data[start:])
                break
            if header_size is None:
                append((sid, subject, reply, None, data[start:stop]))
            else:
                middle = start + header_size
                append((sid, subject, reply, data[start:middle], data[middle:stop]))
            position = stop + 2
            if found is last:
                position = _take_run(data, position, line, found, operations)
                continue
            is_stream = is_stream and last is None
            last = found
            if strangers > 1:
                position = self._take_strangers(data, position, operations)
                strangers, is_stream = 0, False
        else:
            if position < len(data):
                self._keep_line(data[position:])
        if is_stream and last is not None and self.only_messages:
            self.stream = (last[0], last[4] * len(operations))

    def _take_strangers(self, data: bytes, position: int, operations: list[Operation]) -> int:
        """Take messages whose lines do not repeat, as those of replies, and return the position after them.

        Whatever is not a plain line with its whole message after it is left to the loop, and so is a line that may be
        the beginning of a run.
        """
        append, longest = operations.append, self._short_line
        before = None
        while (found := begins_plainly(data, position)) is not None:
            subject, sid, reply, digits = found.groups()
            start, size = found.end(), int(digits)
            stop = start + size
            if data[stop : stop + 2] != _CRLF or size > self._max_payload or start - position > longest:
                break
            if reply is not None:
                append((int(sid), subject.decode(), reply.decode(), None, data[start:stop]))
            elif subject != before:
                append((int(sid), subject.decode(), None, None, data[start:stop]))
                before = subject
            else:
                break
            position = stop + 2
        return position

    def _resume(self, data: bytes, operations: list[Operation]) -> tuple[bytes, int]:
        """Go on with what is under way; return the bytes to parse next, and where."""
        if self._args is not None:
            return data, self._continue_message(self._args, data, operations)
        if not self._line:
            return data, 0
        if b"\n" not in data:
            self._keep_line(data)
            return b"", 0
        begun = bytes(self._line)
        self._line.clear()
        return begun + data, 0

    # A line

    def _keep_line(self, piece: bytes) -> None:
        line = self._line
        line += piece
        if bytes(line[:3]).upper() not in _STARTS:
            raise unknown(line)
        if len(line) > self._short_line:
            self._check_length(line)

    def _check_length(self, line: bytes | bytearray) -> None:
        limit = self._max_info_line if line[:1] in (b"I", b"i") else self._max_control_line
        if len(line) > limit:
            raise ProtocolError(f"a line of the server is longer than {limit} bytes: {excerpt(line)}")

    def _parse_line(self, line: bytes) -> Args | Rare:
        if len(line) > self._short_line:
            self._check_length(line)
        found = parse_line(line)
        return self._accept(line, found) if isinstance(found, tuple) else found

    def _accept(self, line: bytes, args: Args) -> Args:
        """Check what a message's line says, and remember it."""
        size = args[4]
        if size > self._max_payload:
            raise ProtocolError(f"the server announced {size} bytes of payload; at most {self._max_payload} are taken")
        if args[2] is None and len(line) <= _KNOWN_LINE_LENGTH:
            if len(self._known) >= _KNOWN_LINES:
                self._known.clear()
            self._known[line] = args
        return args

    # A message that comes in several pieces

    def _begin_message(self, args: Args, piece: bytes) -> None:
        self._args = args
        self._pieces = [piece]
        self._missing = args[-1] + 2 - len(piece)

    def _continue_message(self, args: Args, data: bytes, operations: list[Operation]) -> int:
        """Take from `data` what the message lacks, and return the position after it."""
        taken = min(self._missing, len(data))
        self._missing -= taken
        self._keep_piece(data[:taken])
        if not self._missing:
            self._args = None
            operations.append(self._finish_message(args))
        return taken

    def _keep_piece(self, piece: bytes) -> None:
        last = self._pieces[-1]
        if len(piece) >= _SMALL_PIECE:
            self._pieces.append(piece)
        elif isinstance(last, bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def _finish_message(self, args: Args) -> MsgOp:
        sid, subject, reply, header_size, _ = args
        pieces, self._pieces = self._pieces, []
        if len(pieces[-1]) < 2:
            pieces[-2:] = [pieces[-2] + pieces[-1]]
        # The CRLF is cut off before the join, so that a large payload is copied once, not twice.
        end = bytes(pieces[-1][-2:])
        if end != _CRLF:
            raise _no_crlf(args, end)
        pieces[-1] = pieces[-1][:-2]
        body = b"".join(pieces)
        if header_size is None:
            return (sid, subject, reply, None, body)
        return (sid, subject, reply, body[:header_size], body[header_size:])


def _take_run(data: bytes, position: int, line: bytes, args: Args, operations: list[Operation]) -> int:
    """Take messages that repeat a line, many at one go, and return the position after them.

    A stream on one subject with payloads of one size is the same bytes between any two payloads, so splitting there is
    parsing; whatever else comes gives pieces of other lengths, and is left to the loop.
    """
    sid, subject, reply, header_size, size = args
    between = b"".join((_CRLF, line, b"\n"))
    stride = len(between) + size
    start = position - len(_CRLF)
    count = _FIRST_RUN
    while True:
        count = min(count, (len(data) - start - len(_CRLF)) // stride)
        end = start + count * stride
        if count < _SHORTEST_RUN or not data.startswith(between, end - stride) or not data.startswith(_CRLF, end):
            break
        payloads = data[start:end].split(between)
        if len(payloads) != count + 1 or set(map(len, islice(payloads, 1, None))) != {size} or payloads[0]:
            break
        del payloads[0]
        if header_size is None:
            operations += zip(repeat(sid), repeat(subject), repeat(reply), repeat(None), payloads)
        else:
            operations += [(sid, subject, reply, body[:header_size], body[header_size:]) for body in payloads]
        start = end
        count *= 4
    return start + len(_CRLF)


def _no_crlf(args: Args, end: bytes) -> ProtocolError:
    return ProtocolError(f"a message of {args[-1]} bytes to {args[1]!r} is followed by {excerpt(end)}, not by CRLF")
