"""Feed the protocol with bytes that no server would send, and look for anything but an operation or a NatsError.

What must hold for every input:

* The parser never raises, and any split of the bytes gives the same operations and the same verdict.
* A message whose line is known beforehand has the same payload when it is taken by that line.
* What was parsed and is written again as a server would is parsed to the same operations.
* Header blocks, INFO, -ERR and the handshake raise nothing but NatsError, and take no more than they allow.

See README.rst for how to run it.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["natsync.protocol", "natsync.headers", "natsync.subjects"]):
    from natsync.errors import NatsError
    from natsync.protocol.handshake import Handshake, HandshakeState
    from natsync.protocol.header_block import encode_header_block, is_no_responders, parse_header_block
    from natsync.protocol.info import parse_info
    from natsync.protocol.operations import OK, PING, PONG, ErrOp, InfoOp, MsgOp, Operation
    from natsync.protocol.parser import Parser
    from natsync.protocol.server_errors import parse_error, reaction

is_beginning = re.compile(rb"MSG ([!-~]+) ([1-9][0-9]{0,17}) ").match

HERE = Path(__file__).parent
SMALL_LIMITS = {"max_payload": 40, "max_control_line": 24, "max_info_line": 32}


def test_one_input(data: bytes) -> None:
    """Check everything for one input."""
    operations = check_splits(data)
    check_splits(data, **SMALL_LIMITS)
    check_expected(data)
    check_expected(data, **SMALL_LIMITS)
    check_round_trip(operations)
    for operation in operations:
        check_content(operation)
    check_header_block(data)
    check_info(data)
    check_error(data.decode("utf-8", "backslashreplace"))
    check_handshake(operations)


def parse(pieces: list[bytes], **limits: int) -> tuple[list[Operation], bool]:
    parser = Parser(**limits)
    operations = [operation for piece in pieces for operation in parser.feed(piece)]
    return operations, parser.error is not None


def check_splits(data: bytes, **limits: int) -> list[Operation]:
    whole = parse([data], **limits)
    assert parse([data[index : index + 1] for index in range(len(data))], **limits) == whole
    # Reproducible: the cuts depend on nothing but the input.
    chooser = random.Random(zlib.crc32(data))
    edges = [0, *sorted(chooser.choices(range(len(data) + 1), k=4)), len(data)]
    assert parse([data[start:end] for start, end in zip(edges, edges[1:])], **limits) == whole  # noqa: B905, RUF007
    return whole[0]


def check_expected(data: bytes, **limits: int) -> None:
    words = is_beginning(data)
    if words is None:
        return
    payload = Parser(**limits).payload_after(data, words[0])
    if payload is not None:
        assert parse([data], **limits) == ([(int(words[2]), words[1].decode(), None, None, payload)], False)


def check_round_trip(operations: list[Operation]) -> None:
    assert parse([b"".join(map(encode, operations))]) == (operations, False)


def encode(operation: Operation) -> bytes:
    if isinstance(operation, tuple):
        return encode_message(operation)
    if isinstance(operation, InfoOp):
        return b"INFO " + operation.payload + b"\r\n"
    if isinstance(operation, ErrOp):
        return b"-ERR " + operation.text.encode() + b"\r\n"
    return {PING: b"PING\r\n", PONG: b"PONG\r\n", OK: b"+OK\r\n"}[operation]


def encode_message(message: MsgOp) -> bytes:
    sid, subject, reply, block, data = message
    words = [b"MSG" if block is None else b"HMSG", subject.encode("utf-8", "surrogateescape"), b"%d" % sid]
    if reply is not None:
        words.append(reply.encode("utf-8", "surrogateescape"))
    if block is not None:
        words.append(b"%d" % len(block))
    words.append(b"%d" % (len(block or b"") + len(data)))
    return b" ".join(words) + b"\r\n" + (block or b"") + data + b"\r\n"


def check_content(operation: Operation) -> None:
    if isinstance(operation, InfoOp):
        check_info(operation.payload)
    elif isinstance(operation, ErrOp):
        check_error(operation.text)
    elif isinstance(operation, tuple):
        sid, subject, _, block, data = operation
        assert sid >= 1
        assert subject
        if block is not None:
            check_header_block(block)
            is_no_responders(block, data)


def check_header_block(block: bytes) -> None:
    with contextlib.suppress(NatsError):
        headers = parse_header_block(block)
        assert is_no_responders(block, b"") == (headers.status == 503)
        again = parse_header_block(encode_header_block(headers))
        assert again.keys() == headers.keys()
        assert (len(again), again.status) == (len(headers), headers.status)


def check_info(payload: bytes) -> None:
    with contextlib.suppress(NatsError):
        info = parse_info(payload)
        assert info.max_payload >= 0
        assert all(isinstance(url, str) for url in info.connect_urls)


def check_error(text: str) -> None:
    error = parse_error(text, server=None)
    assert isinstance(error, NatsError)
    assert len(str(error)) < 2048
    reaction(error)


def check_handshake(operations: list[Operation]) -> None:
    for tls_done in (False, True):
        handshake = Handshake(connect_fields=lambda info: {"sig": info.nonce}, want_tls=tls_done, tls_done=tls_done)
        with contextlib.suppress(NatsError):
            for operation in operations:
                handshake.receive(operation)
                if handshake.state is HandshakeState.NEED_TLS:
                    handshake.tls_started()
        assert not handshake.data_to_send().startswith(b"CONNECT") or handshake.info is not None


def main() -> None:
    """Run libFuzzer with its own options; what it finds goes to a directory of its own, never among the seeds."""
    given = sys.argv[1:]
    seeds = [argument for argument in given if not argument.startswith("-")]
    options = [argument for argument in given if argument.startswith("-")]
    if not any(option.startswith("-dict=") for option in options):
        options.append(f"-dict={HERE / 'nats.dict'}")
    # A file in place of a directory is an input to run once.
    if not any(Path(seed).is_file() for seed in seeds):
        # libFuzzer writes to the first directory and only reads the others.
        seeds = [tempfile.mkdtemp(prefix="natsync-fuzz-"), *(seeds or [str(HERE / "corpus")])]
        print(f"new inputs go to {seeds[0]}")
    atheris.Setup([sys.argv[0], *options, *seeds], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
