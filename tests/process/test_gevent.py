"""natsync where gevent has replaced threads, locks and sockets; in processes of their own, since nothing undoes that.

The same under gunicorn's worker for gevent is among the tests of servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsServer
from tests.support.certificates import Authority, tls_config
from tests.support.waiting import TIME_FACTOR, Recorder

if TYPE_CHECKING:
    from natsync import Client
    from tests.support.proxy import FaultProxy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gevent is tested where its servers run")

ROOT = Path(__file__).resolve().parents[2]

EARLY = """
from gevent import monkey
monkey.patch_all()
"""
PROLOGUE = """
import gc, os, signal, sys, threading, time
import gevent
import natsync

url = sys.argv[1]
PATIENCE = float(sys.argv[2])

def greenlets():
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead]

def eventually(predicate):
    with gevent.Timeout(PATIENCE):
        while not predicate():
            gevent.sleep(0.002)

def check_nothing_is_left():
    eventually(lambda: not greenlets())
    assert [each for each in threading.enumerate() if each.name.startswith("natsync")] == []
"""


class Script:
    """A program in which gevent is at home."""

    def __init__(self, text: str, url: str, *more: str, prologue: str = EARLY + PROLOGUE) -> None:
        # Coverage measures threads, and takes greenlets for one of them.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", prologue + textwrap.dedent(text), url, str(5.0 * TIME_FACTOR), *more],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def say(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, *, quiet: bool = True) -> None:
        """Wait for its good end; `quiet` means that nothing may be complained of."""
        try:
            out, err = self._process.communicate(timeout=20.0 * TIME_FACTOR)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            pytest.fail(f"the script hangs; it said {out}{err}")
        assert self._process.returncode == 0, out + err
        assert err == "" or not quiet

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()


def test_importing_costs_nothing(nats_server: NatsServer) -> None:
    prologue = """
import os
import gevent
def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
before = descriptors()
"""
    script = """
    assert threading.active_count() == 1
    assert not greenlets()
    assert descriptors() == before
    """
    Script(script, nats_server.url, prologue=EARLY + prologue + PROLOGUE).end()


EVERYTHING = """
nc, other = natsync.connect(url), natsync.connect(url)
nc.subscribe("green.echo", cb=lambda msg: msg.respond(msg.data))
nc.subscribe("green.slow", workers=4, cb=lambda msg: (time.sleep(0.05), msg.respond(msg.data)))
sub = nc.subscribe("green.read")
nc.flush()

assert nc.rtt() > 0
assert other.request("green.echo", b"1").data == b"1"
assert other.request_future("green.echo", b"2").result(PATIENCE).data == b"2"
assert [msg.data for msg in other.request_many("green.echo", b"3", max_msgs=1)] == [b"3"]

asking = [gevent.spawn(other.request, "green.slow", b"%d" % number, timeout=PATIENCE) for number in range(40)]
large = [gevent.spawn(other.publish, "green.read", b"%d" % number + bytes(20_000)) for number in range(1000)]
got = [int(sub.next_msg(PATIENCE).data.rstrip(bytes(1))) for _ in range(1000)]
assert got == list(range(1000))
assert [each.get(PATIENCE).data for each in asking] == [b"%d" % number for number in range(40)]
try:
    sub.next_msg(0.01)
except natsync.NatsTimeoutError:
    pass
try:
    with gevent.Timeout(0.05):
        sub.next_msg()
except gevent.Timeout:
    pass
nc.subscribe("green.silent")
nc.flush()
given_up = [gevent.spawn(other.request, "green.silent"), gevent.spawn(sub.next_msg), gevent.spawn(nc.wait_closed)]
gevent.sleep(0.02)
gevent.killall(given_up)
other.force_reconnect()
assert other.request("green.echo", b"again", timeout=PATIENCE).data == b"again"
looping = gevent.spawn(list, sub)
gevent.sleep(0)
other.close()
nc.drain()
assert looping.get(PATIENCE) == []
check_nothing_is_left()
"""
LATE = "import threading, natsync, concurrent.futures, queue\n" + EARLY


@pytest.mark.parametrize("prologue", [EARLY, LATE], ids=["patched first", "patched after the import of natsync"])
def test_everything_works_and_ends(nats_server: NatsServer, prologue: str) -> None:
    Script(EVERYTHING, nats_server.url, prologue=prologue + PROLOGUE).end()


def test_a_greenlet_that_waits_lets_the_others_run(nats_server: NatsServer) -> None:
    script = """
    with natsync.connect(url) as nc:
        sub = nc.subscribe("green.other")
        silent = nc.subscribe("green.silent")
        waiting = [gevent.spawn(call) for call in (sub.next_msg, nc.wait_closed, lambda: nc.request("green.silent"))]
        beats = 0
        for _ in range(20):
            gevent.sleep(0.002)
            beats += 1
        assert beats == 20
        nc.publish("green.other")
        assert waiting[0].get(PATIENCE).subject == "green.other"
        silent.next_msg(PATIENCE).respond(b"late")
        assert waiting[2].get(PATIENCE).data == b"late"
    assert waiting[1].get(PATIENCE) is True
    check_nothing_is_left()
    """
    Script(script, nats_server.url).end()


@pytest.mark.parametrize("scheme", ["tcp", pytest.param("tls", marks=pytest.mark.tls)])
def test_a_server_that_takes_nothing(scheme: str, tmp_path: Path) -> None:
    """Sends never wait, though gevent's sockets do: deadlines, pings and closing go on with a full socket."""
    script = """
    nc = natsync.connect(url, tls_ca=sys.argv[3] or None, pending_size=1 << 20, write_timeout=0.5)
    nc.publish("green.full")
    nc.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with gevent.Timeout(PATIENCE):
            while True:
                nc.publish("green.full", bytes(100_000))
    except natsync.NatsTimeoutError as error:
        assert "no room" in str(error), error
    try:
        nc.request("green.full", timeout=0.1)
    except natsync.NatsTimeoutError:
        pass
    with gevent.Timeout(PATIENCE):
        nc.close()
    check_nothing_is_left()
    """
    authority = Authority(tmp_path)
    config = tls_config(authority.server()) if scheme == "tls" else None
    with NatsServer(config) as server, Script(script, server.url, str(authority.file) if config else "") as running:
        assert running.line() == "ready"
        server.pause()
        running.say("the server is frozen")
        running.end()
        server.resume()


@pytest.mark.tls
def test_traffic_over_tls_in_both_directions(tmp_path: Path) -> None:
    script = """
    with natsync.connect(url, tls_ca=sys.argv[3], pending_size=1 << 20) as nc:
        sub = nc.subscribe("green.tls")
        nc.subscribe("green.echo", cb=lambda msg: msg.respond(msg.data))
        nc.flush()
        def publish():
            for number in range(500):
                nc.publish("green.tls", b"%d " % number + os.urandom(50_000))
        publishing = gevent.spawn(publish)
        asking = [gevent.spawn(nc.request, "green.echo", os.urandom(100_000), timeout=PATIENCE) for _ in range(20)]
        assert [int(sub.next_msg(PATIENCE).data.split()[0]) for _ in range(500)] == list(range(500))
        assert [len(each.get(PATIENCE).data) for each in asking] == [100_000] * 20
        publishing.get()
    check_nothing_is_left()
    """
    authority = Authority(tmp_path)
    with NatsServer(tls_config(authority.server())) as server:
        Script(script, server.url, str(authority.file)).end()


def test_a_connection_that_is_lost_and_found(proxy: FaultProxy) -> None:
    script = """
    nc = natsync.connect(url, reconnect_time_wait=0.05, reconnect_jitter=0.0)
    sub = nc.subscribe("green.back")
    nc.flush()
    print("ready", flush=True)
    eventually(lambda: nc.stats.reconnects == 1)
    nc.publish("green.back", b"still subscribed")
    assert sub.next_msg(PATIENCE).data == b"still subscribed"
    nc.close()
    check_nothing_is_left()
    """
    with Script(script, proxy.url) as running:
        assert running.line() == "ready"
        proxy.cut()
        running.end()


# Signals, fork, exit


@pytest.mark.parametrize("call", ["nc.wait_closed()", "sub.next_msg()", "nc.request('green.silent', timeout=60.0)"])
def test_ctrl_c(nats_server: NatsServer, call: str) -> None:
    script = f"""
    nc = natsync.connect(url)
    sub = nc.subscribe("green.sub")
    nc.subscribe("green.silent")
    nc.flush()
    gevent.spawn_later(0.05, print, "ready", flush=True)
    try:
        {call}
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("nobody pressed Ctrl-C")
    nc.publish("green.sub", b"still usable")
    assert sub.next_msg(PATIENCE).data == b"still usable"
    nc.close()
    check_nothing_is_left()
    """
    with Script(script, nats_server.url) as running:
        assert running.line() == "ready"
        running.send_signal(signal.SIGINT)
        # gevent shows the interrupt of its loop before it raises it in the main greenlet.
        running.end(quiet=False)


@pytest.mark.parametrize("call", ["nc.wait_closed()", "list(sub)", "gevent.sleep(0.2)", "work()"])
def test_close_in_a_signal_handler(nats_server: NatsServer, call: str) -> None:
    script = f"""
    nc = natsync.connect(url)
    sub = nc.subscribe("green.sub")
    nc.flush()
    def work():
        try:
            while True:
                nc.publish("green.work", bytes(100))
                nc.flush()
        except natsync.ConnectionClosedError:
            pass
    signal.signal(signal.SIGTERM, lambda number, frame: nc.close())
    gevent.spawn_later(0.05, print, "ready", flush=True)
    {call}
    assert nc.wait_closed(PATIENCE)
    check_nothing_is_left()
    """
    with Script(script, nats_server.url) as running:
        assert running.line() == "ready"
        running.send_signal(signal.SIGTERM)
        running.end()


@pytest.mark.fork
def test_a_fork_before_gevent_is_patched_in(nats_server: NatsServer, nats_client: Client) -> None:
    """As gunicorn's worker for gevent has it, with an application that was loaded before the fork."""
    seen = Recorder()
    nats_client.subscribe("green.fork", cb=lambda msg: seen(msg.data))
    nats_client.flush()
    prologue = """
import os, sys, warnings
import natsync
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
nc = natsync.connect(sys.argv[1])
nc.subscribe("green.parent", cb=lambda msg: msg.respond(msg.data))
nc.flush()
pid = os.fork()
if pid != 0:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert nc.request("green.parent", b"1").data == b"1"
    nc.close()
    sys.exit(code)
from gevent import monkey
monkey.patch_all()
"""
    script = """
    together = [gevent.spawn(nc.publish, "green.fork", b"%d" % number) for number in range(10)]
    gevent.joinall(together, raise_error=True)
    assert nc.request("green.parent", b"2").data == b"2"
    begin = time.monotonic()
    nc.close()
    assert time.monotonic() - begin < 1.0 + PATIENCE / 5
    check_nothing_is_left()
    """
    Script(script, nats_server.url, prologue=prologue + PROLOGUE).end()
    assert sorted(seen.wait_for(10)) == [b"%d" % number for number in range(10)]


def test_a_script_that_just_ends(nats_server: NatsServer, nats_client: Client) -> None:
    sub = nats_client.subscribe("green.end")
    nats_client.flush()
    script = """
    nc = natsync.connect(url)
    nc.subscribe("green.other", cb=print)
    for number in range(1000):
        nc.publish("green.end", b"%d" % number)
    """
    Script(script, nats_server.url).end()
    assert [int(sub.next_msg(5.0 * TIME_FACTOR).data) for _ in range(1000)] == list(range(1000))
