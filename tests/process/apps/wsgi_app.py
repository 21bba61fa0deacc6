"""A WSGI application with a client in a global variable, as many programs have it; no framework."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import natsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

nc = natsync.connect(os.environ["NATS_URL"])
LOADED_IN = os.getpid()
nc.publish("site.loaded", b"%d" % LOADED_IN)
if os.environ.get("SETTLE"):
    nc.flush()
    threading.Event().wait(0.5)  # until every thread is at rest: none has Python's lock at the fork then


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    body = VIEWS[environ["PATH_INFO"]](environ["QUERY_STRING"].encode())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def publish(data: bytes) -> bytes:
    nc.publish("site.seen", data)
    return b"published"


def request(data: bytes) -> bytes:
    return nc.request("site.echo", data).data


def where(_: bytes) -> bytes:
    nc.flush()
    threads = sorted(thread.name for thread in threading.enumerate())
    return json.dumps({"pid": os.getpid(), "loaded_in": LOADED_IN, "id": nc.client_id, "threads": threads}).encode()


VIEWS: dict[str, Callable[[bytes], bytes]] = {"/publish": publish, "/request": request, "/where": where}
