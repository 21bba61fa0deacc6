"""The protocol on a bare blocking socket: what the floor and the raw feeders are made of. It knows no client."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.parse
from typing import Any

RECV_SIZE = 256 * 1024
CHUNK = 32 * 1024  # bytes that go into one sendall(), if a frame is not larger
HEADER = b"NATS/1.0\r\nTrace-Id: 0123456789abcdef\r\nContent-Type: text/plain\r\n\r\n"
HEADERS = {"Trace-Id": "0123456789abcdef", "Content-Type": "text/plain"}


def dial(url: str, ca: str | None = None) -> socket.socket:
    """Connect as a client does: INFO, TLS with the authority `ca`, CONNECT, PING, PONG."""
    address = urllib.parse.urlsplit(url)
    assert address.hostname is not None
    sock = socket.create_connection((address.hostname, address.port or 4222))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    info = b""
    while not info.endswith(b"\r\n"):
        info += sock.recv(1 if ca else RECV_SIZE)  # nothing of the TLS handshake may be taken
    if ca is not None:
        sock = ssl.create_default_context(cafile=ca).wrap_socket(sock, server_hostname=address.hostname)
    options: dict[str, Any] = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
    sock.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
    confirm(sock)
    return sock


def confirm(sock: socket.socket) -> None:
    """Wait until the server has worked off all that was sent."""
    sock.sendall(b"PING\r\n")
    answer = b""
    while b"PONG\r\n" not in answer:
        data = sock.recv(RECV_SIZE)
        if not data:
            raise ConnectionError(f"the server closed the connection: {answer[-200:]!r}")
        answer = answer[-8:] + data


def drain(sock: socket.socket) -> None:
    """Throw away what has come unasked: the server's PING, which it sends once, two seconds after the connect."""
    sock.setblocking(False)
    try:
        while sock.recv(RECV_SIZE):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        pass
    finally:
        sock.setblocking(True)


def subjects(subject: str, count: int) -> list[str]:
    """The subjects of `count` subscriptions: `subject` itself for one of them."""
    return [subject] if count == 1 else [f"{subject}.{number}" for number in range(count)]


def reply_of(subject: str) -> str:
    """Where the raw requester of a subject wants its answers."""
    return f"_INBOX.{subject}"


def encode_pub(subject: str, data: bytes, *, reply: str = "", headers: bool = False) -> bytes:
    """A whole PUB, or an HPUB with `HEADER`."""
    words = f"{subject} {reply} " if reply else f"{subject} "
    if headers:
        return f"HPUB {words}{len(HEADER)} {len(HEADER) + len(data)}\r\n".encode() + HEADER + data + b"\r\n"
    return f"PUB {words}{len(data)}\r\n".encode() + data + b"\r\n"


def msg_size(subject: str, sid: int, size: int) -> int:
    """How many bytes the server sends for such a message, without reply and headers."""
    return len(f"MSG {subject} {sid} {size}\r\n") + size + 2


def send_many(sock: socket.socket, frames: list[bytes], count: int) -> None:
    """Send `count` frames, taken from the list over and over, in chunks that are made beforehand."""
    whole = frames * max(1, CHUNK // sum(map(len, frames)))
    chunk = b"".join(whole)
    times, rest = divmod(count, len(whole))
    for _ in range(times):
        sock.sendall(chunk)
    sock.sendall(b"".join(whole[:rest]))
