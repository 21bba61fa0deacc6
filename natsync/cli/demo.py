"""`natsync demo`: what natsync does, shown on a real server in about ten seconds.

Each act is a function that does something and checks that it happened; the first check that fails ends the demo with
status 1.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from typing import Any

import natsync
from natsync.testing import NatsServer

__all__ = ["add_to", "run"]

# So that a person can follow; nothing waits for it.
_BREATH = 0.9
_DOWN = 20


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser("demo", help="show publish, subscribe, request and reconnecting on a real server")
    parser.add_argument("--fast", action="store_true", help="do not pause between the acts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo on a server of its own; returns the exit status."""
    stage = _Stage(0.0 if args.fast else _BREATH)
    with NatsServer() as server:
        stage.say(f"A real NATS server ({_version(server)}) runs on {server.url}.")
        events: list[str] = []
        try:
            _play(stage, server, events)
        except _Failed as exc:
            print(f"\nThis did not happen: {exc}", file=sys.stderr)
            return 1
    stage.say("All of it happened.")
    return 0


def _play(stage: _Stage, server: NatsServer, events: list[str]) -> None:
    def note(event: natsync.events.Event) -> None:
        events.append(type(event).__name__)

    client = natsync.connect(
        server.url, name="demo", reconnect_time_wait=0.2, disconnected_cb=note, reconnected_cb=note, closed_cb=note
    )
    with client as nc:
        for act in (_callback, _iteration, _queue_group, _headers, _request, _no_responders):
            act(stage, nc)
        _outage(stage, nc, server)
        stats = nc.stats
    stage.check(events == ["Disconnected", "Reconnected", "Disconnected", "Closed"], f"events in order, not {events}")
    stage.title("Statistics")
    stage.say(
        f"{stats.out_msgs} messages out ({stats.out_bytes} bytes), {stats.in_msgs} in ({stats.in_bytes} bytes), "
        f"{stats.reconnects} reconnect, {stats.errors} errors, {stats.dropped} dropped."
    )
    stage.check(
        (stats.reconnects, stats.errors, stats.dropped) == (1, 0, 0), "one reconnect, no error, nothing dropped"
    )


def _callback(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("Publish and subscribe, with a callback")
    arrived = threading.Event()
    seen: list[natsync.Msg] = []

    def on_message(msg: natsync.Msg) -> None:
        seen.append(msg)
        arrived.set()

    with nc.subscribe("greet.*", cb=on_message):
        nc.publish("greet.joe", b"hello")
        stage.check(arrived.wait(5), "the callback ran")
    stage.say(f"The callback got {seen[0].data!r} on {seen[0].subject!r}, on a thread of the client.")


def _iteration(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("Iteration")
    with nc.subscribe("count", max_msgs=5) as sub:
        for number in range(5):
            nc.publish("count", str(number).encode())
        got = [int(msg.data) for msg in sub]
    stage.check(got == [0, 1, 2, 3, 4], f"five messages in order, not {got}")
    stage.say(f"A plain for loop read {got} and ended by itself after max_msgs=5.")


def _queue_group(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("A queue group shares the work")
    done: Counter[str] = Counter()
    lock = threading.Lock()
    finished = threading.Event()

    def member(name: str) -> natsync.Subscription:
        def work(_: natsync.Msg) -> None:
            with lock:
                done[name] += 1
                if done.total() == 300:
                    finished.set()

        return nc.subscribe("jobs", queue="workers", cb=work)

    with member("anna"), member("ben"), member("cleo"):
        for _ in range(300):
            nc.publish("jobs", b"a job")
        stage.check(finished.wait(5), "300 jobs done")
    stage.check(done.total() == 300 and len(done) == 3, f"each job done once, by three members, not {dict(done)}")
    stage.say(f"300 jobs, each done once: {', '.join(f'{name} {count}' for name, count in sorted(done.items()))}.")


def _headers(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("Headers")
    with nc.subscribe("news") as sub:
        nc.publish("news", b"rain", headers={"Language": "en", "Tag": ["weather", "today"]})
        headers = sub.next_msg(timeout=5).headers
    tags = headers.get_all("Tag") if headers is not None else []
    stage.check(tags == ["weather", "today"], f"both tags in order, not {tags}")
    stage.say(f"Language is {headers['Language'] if headers else None!r}, the tags are {tags}.")


def _request(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("Request and reply")
    with nc.subscribe("upper", cb=lambda msg: msg.respond(msg.data.upper())):
        began = time.perf_counter()
        reply = nc.request("upper", b"quiet", timeout=5)
        took = time.perf_counter() - began
    stage.check(reply.data == b"QUIET", f"the reply b'QUIET', not {reply.data!r}")
    stage.say(f"Asked {b'quiet'!r}, answered {reply.data!r}, in {took * 1000:.1f} ms.")


def _no_responders(stage: _Stage, nc: natsync.Client) -> None:
    stage.title("Nobody listens")
    began = time.perf_counter()
    try:
        nc.request("nobody.home", timeout=5)
    except natsync.NoRespondersError as exc:
        took = time.perf_counter() - began
        stage.check(took < 2.5, f"said at once, not after {took:.1f} s")
        stage.say(f"NoRespondersError after {took * 1000:.1f} ms instead of a time-out: {exc}.")
    else:
        stage.check(False, "NoRespondersError")


def _outage(stage: _Stage, nc: natsync.Client, server: NatsServer) -> None:
    stage.title("The server is killed, and comes back")
    sub = nc.subscribe("diary")
    nc.flush()
    server.kill()
    stage.check(_within(5, lambda: nc.is_reconnecting), "the client noticed")
    for number in range(_DOWN):
        nc.publish("diary", str(number).encode())
    stage.say(f"Killed. {_DOWN} messages published meanwhile: {nc.buffered} bytes wait in the buffer.")
    stage.breathe()
    server.start()
    got = [int(sub.next_msg(timeout=10).data) for _ in range(_DOWN)]
    stage.check(got == list(range(_DOWN)), f"each message once and in order, not {got}")
    sub.unsubscribe()
    stage.say(f"Started again. The subscription is back, and all {_DOWN} arrived, in order: {got[0]} ... {got[-1]}.")


class _Failed(Exception):
    pass


class _Stage:
    """Tells what happens, and checks it."""

    def __init__(self, breath: float) -> None:
        self._breath = breath
        self._act = 0

    def title(self, text: str) -> None:
        self.breathe()
        self._act += 1
        print(f"\n{self._act}. {text}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def breathe(self) -> None:
        time.sleep(self._breath)

    @staticmethod
    def check(happened: bool, what: str) -> None:
        if not happened:
            raise _Failed(what)


def _within(seconds: float, happened: Any) -> bool:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _version(server: NatsServer) -> str:
    with natsync.connect(server.url) as nc:
        return nc.server_info.version if nc.server_info is not None else "unknown"
