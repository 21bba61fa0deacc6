"""How fast TLS is read, beside a plain blocking `SSLSocket.recv` loop: `python -m benchmarks.tls_read`.

Another process sends messages of 1 KiB as a server would, as fast as they are read. Both readers take the same bytes,
turn by turn. The third line is a whole client on a real server: parsed, routed and counted, sent by another client.
"""

from __future__ import annotations

import functools
import multiprocessing
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

import natsync
from natsync.core.tls_transport import TlsTransport, start_tls
from natsync.core.transport import TcpTransport
from natsync.deadline import Deadline
from natsync.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

TIMES = 9
SIZE = 256 * 1024 * 1024
MESSAGE = b"MSG prices.apples 1 1024\r\n" + bytes(1024) + b"\r\n"
PIECE = MESSAGE * 250
GOAL = 0.85
CLIENT_MSGS = 100_000


def send(pipe: Connection, folder: Path) -> None:
    """Serve bytes without end to one connection after the other; in a process of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        while True:
            plain, _ = listener.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as sock:
                    while True:
                        sock.sendall(PIECE)
            except OSError:
                pass  # the reader has had enough


def read_plainly(port: int, context: ssl.SSLContext) -> float:
    """Return the bytes a second of the loop that everybody writes first."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return rate(functools.partial(sock.recv, 65536))


def read_with_natsync(port: int, context: ssl.SSLContext) -> float:
    """Return the bytes a second of natsync's transport, which another thread may write to meanwhile."""
    tcp = TcpTransport(socket.create_connection(("127.0.0.1", port)))
    try:
        transport = start_tls(tcp, context, name="localhost", server="tls://localhost", deadline=Deadline(5.0))
        return rate(functools.partial(recv_as_the_reader_does, transport))
    finally:
        tcp.close()


def recv_as_the_reader_does(transport: TlsTransport) -> bytes:
    while True:
        if transport.gate is None:
            data = transport.recv()
        else:
            transport.gate.wait()
            data = transport.recv_now()
        if data is not None:
            return data


def rate(recv: Callable[[], bytes | None]) -> float:
    left, begin = SIZE, time.perf_counter()
    while left > 0:
        data = recv()
        if not data:
            raise ConnectionError("the sender has ended")
        left -= len(data)
    return (SIZE - left) / (time.perf_counter() - begin)


def read_with_a_client(server: NatsServer, ca: Path) -> float:
    """Return the bytes a second, payloads alone, of a subscription with a callback."""
    done = threading.Event()
    with natsync.connect(server.url, tls_ca=ca) as reader, natsync.connect(server.url, tls_ca=ca) as writer:
        reader.subscribe("prices.apples", cb=lambda msg: done.set() if msg.data == b"end" else None)
        reader.flush()
        begin = time.perf_counter()
        payload = bytes(1024)
        for _ in range(CLIENT_MSGS):
            writer.publish("prices.apples", payload)
        writer.publish("prices.apples", b"end")
        if not done.wait(60.0):
            raise TimeoutError("the client has not read everything")
        return CLIENT_MSGS * len(payload) / (time.perf_counter() - begin)


def make_certificates(folder: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    made.private_key_pem.write_to_path(str(folder / "server.key"))
    for number, pem in enumerate(made.cert_chain_pems):
        pem.write_to_path(str(folder / "server.pem"), append=number > 0)


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        sender = multiprocessing.get_context("spawn").Process(target=send, args=(theirs, folder), daemon=True)
        sender.start()
        try:
            port = pipe.recv()
            pairs = [(read_plainly(port, context), read_with_natsync(port, context)) for _ in range(TIMES)]
        finally:
            sender.kill()
            sender.join()
        config = f'tls {{ cert_file: "{folder / "server.pem"}", key_file: "{folder / "server.key"}" }}'
        with NatsServer(config) as server:
            client = [read_with_a_client(server, folder / "ca.pem") for _ in range(3)]
    report([plain for plain, _ in pairs], [ours for _, ours in pairs], client)


def report(plain: list[float], ours: list[float], client: list[float]) -> None:
    print(f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}; median, least, most of {TIMES} turns in MB/s")
    for title, rates in (("SSLSocket.recv", plain), ("natsync's transport", ours), ("a client, payloads", client)):
        print(f"{title:<24}{statistics.median(rates) / 1e6:9.0f}{min(rates) / 1e6:9.0f}{max(rates) / 1e6:9.0f}")
    ratio = statistics.median(ours) / statistics.median(plain)
    turns = statistics.median(mine / theirs for mine, theirs in zip(ours, plain, strict=True))
    verdict = "ok" if min(ratio, turns) >= GOAL else "MISSED"
    print(f"ratio of medians {ratio:.2f}, median of the ratios of each turn {turns:.2f}; the goal is {GOAL}: {verdict}")


if __name__ == "__main__":
    main()
