"""The end of a script that never calls `close()`: nothing published is lost, it ends soon, and it ends quietly."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.testing import NatsServer

    Connect = Callable[..., Client]

STRICT = ["-X", "dev", "-W", "error"]
SOON = 2.0 + 2.0 * TIME_FACTOR

PROLOGUE = """
import atexit, os, signal, sys, threading, time
import natsync

def say(*words):
    print(*words, flush=True)

nc = natsync.connect(sys.argv[1])
"""
MANY = """
for number in range(5000):
    nc.publish("exit.many", b"%d" % number)
"""


class Ended:
    """A script that has run to its end."""

    def __init__(self, script: str, url: str, *flags: str, prologue: str = PROLOGUE) -> None:
        source = prologue + textwrap.dedent(script) + "\nsay('end', time.monotonic())\n"
        self.process = start(source, url, *flags)
        self.out, self.err = self.process.communicate(timeout=20.0 * TIME_FACTOR)
        self.at = time.monotonic()
        self.code = self.process.returncode

    @property
    def took(self) -> float:
        """Seconds from the script's last line to the end of its process; the clock is the system's."""
        *_, last = [line for line in self.out.splitlines() if line.startswith("end ")]
        return self.at - float(last.split()[1])


def start(source: str, url: str, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *flags, "-c", source, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture
def received(nats_server: NatsServer, connect: Connect) -> Recorder:
    """What scripts publish on `exit.many`."""
    recorder = Recorder()
    client = connect(nats_server.url)
    client.subscribe("exit.many", cb=recorder)
    client.flush()
    return recorder


def numbers(recorder: Recorder, count: int = 5000) -> list[int]:
    return [int(msg.data) for msg in recorder.wait_for(count)]


# Nothing is lost


def test_falling_off_the_end(nats_server: NatsServer, received: Recorder) -> None:
    script = Ended(MANY, nats_server.url, *STRICT)
    assert (script.code, script.err) == (0, "")
    assert numbers(received) == list(range(5000))
    assert script.took < SOON


def test_sys_exit(nats_server: NatsServer, received: Recorder) -> None:
    script = Ended(MANY + "say('end', time.monotonic())\nsys.exit(3)", nats_server.url, *STRICT)
    assert (script.code, script.err) == (3, "")
    assert numbers(received) == list(range(5000))
    assert script.took < SOON


def test_an_unhandled_exception(nats_server: NatsServer, received: Recorder) -> None:
    script = Ended(MANY + "say('end', time.monotonic())\nraise RuntimeError('mine')", nats_server.url, *STRICT)
    assert script.code == 1
    assert script.err.count("Traceback") == 1
    assert script.err.rstrip().endswith("RuntimeError: mine")
    assert "natsync" not in script.err
    assert numbers(received) == list(range(5000))
    assert script.took < SOON


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c(nats_server: NatsServer, received: Recorder) -> None:
    # A run in the background may ignore the signal, and hand that on.
    source = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + PROLOGUE + MANY
    process = start(source + "say('ready')\nnatsync.Client.wait_closed(nc)", nats_server.url, *STRICT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20.0 * TIME_FACTOR)
    assert time.monotonic() - begin < SOON
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert numbers(received) == list(range(5000))


def test_several_clients_and_large_messages(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    subs = [client.subscribe(f"exit.large.{number}") for number in range(4)]
    client.flush()
    script = """
    clients = [nc] + [natsync.connect(sys.argv[1]) for _ in range(3)]
    for number, each in enumerate(clients):
        for _ in range(20):
            each.publish(f"exit.large.{number}", bytes(500_000))
    del nc, clients, each
    """
    ended = Ended(script, nats_server.url)  # where the warnings of forgotten clients are not shown
    assert (ended.code, ended.err) == (0, "")
    eventually(lambda: [sub.pending_msgs for sub in subs] == [20] * 4)


def test_what_an_exit_handler_publishes(nats_server: NatsServer, received: Recorder) -> None:
    ended = Ended("atexit.register(lambda: nc.publish('exit.many', b'7'))", nats_server.url, *STRICT)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(received, 1) == [7]


def test_what_a_thread_publishes_after_the_main_thread(nats_server: NatsServer, received: Recorder) -> None:
    script = """
    def late():
        threading.main_thread().join()
        for number in range(5000):
            nc.publish("exit.many", b"%d" % number)
    threading.Thread(target=late).start()
    """
    ended = Ended(script, nats_server.url, *STRICT)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(received) == list(range(5000))


LATE = """
def late():
    for use in (
        lambda: natsync.connect(sys.argv[1]).close(),
        lambda: natsync.connect(sys.argv[1].replace("127.0.0.1", "localhost")).close(),
        lambda: nc.subscribe("exit.late", cb=print),
        lambda: nc.request_future("exit.echo").result(),
        lambda: nc.publish("exit.many", b"7"),
    ):
        try:
            use()
        except natsync.NatsError as error:
            say("refused:", error)
        else:
            say("done")
"""
WHEN = {"an exit handler": "atexit.register(late)", "a thread": "threading.Thread(target=after_main).start()"}


@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN)
def test_what_needs_a_new_thread_when_the_interpreter_ends(
    nats_server: NatsServer, received: Recorder, connect: Connect, when: str
) -> None:
    """Python 3.12 starts none any more by then, other versions do until later: a typed error, or it works."""
    service = connect(nats_server.url)
    service.subscribe("exit.echo", cb=lambda msg: msg.respond())
    service.flush()
    after_main = "\ndef after_main():\n    threading.main_thread().join()\n    late()\n"
    ended = Ended(LATE + after_main + when, nats_server.url, *STRICT)
    assert (ended.code, ended.err) == (0, "")
    said = [line for line in ended.out.splitlines() if not line.startswith("end")]
    assert len(said) == 5
    assert said[-1] == "done"
    for line in said[:-1]:
        assert line == "done" or re.match("refused: .*(thread|looked up)", line)
    if sys.version_info[:2] != (3, 12):
        assert said == ["done"] * 5
    assert numbers(received, 1) == [7]


@pytest.mark.fork
@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this system")
def test_a_forked_child_that_ends_like_a_script(nats_server: NatsServer, received: Recorder) -> None:
    script = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
    nc.flush()
    if os.fork() == 0:
        nc.publish("exit.many", b"1")
        sys.exit()
    os.wait()
    nc.publish("exit.many", b"2")
    """
    ended = Ended(script, nats_server.url, *STRICT)
    assert (ended.code, ended.err) == (0, "")
    assert numbers(received, 2) == [1, 2]
    assert ended.took < SOON


# It ends, whatever is going on

BUSY = {
    "a subscription that nobody reads": "nc.subscribe('exit.many'); nc.publish('exit.many', b'0'); nc.flush()",
    "a callback that takes its time": """
        begun = threading.Event()
        nc.subscribe('exit.slow', cb=lambda msg: (begun.set(), time.sleep(60)))
        nc.publish('exit.slow')
        begun.wait()
    """,
    "an event callback that takes its time": """
        other = natsync.connect(sys.argv[1], connected_cb=lambda event: time.sleep(60))
    """,
    "a daemon that reads": """
        sub = nc.subscribe('exit.quiet')
        threading.Thread(target=sub.next_msg, daemon=True).start()
        threading.Thread(target=lambda: list(sub), daemon=True).start()
    """,
    "a daemon that requests": """
        nc.subscribe('exit.silent')
        threading.Thread(target=lambda: nc.request('exit.silent', timeout=60.0), daemon=True).start()
        futures = [nc.request_future('exit.silent', timeout=60.0) for _ in range(3)]
    """,
    "daemons that publish": """
        def publish():
            while True:
                try:
                    nc.publish('exit.busy', bytes(100))
                except natsync.ConnectionClosedError:
                    return
        for _ in range(4):
            threading.Thread(target=publish, daemon=True).start()
        time.sleep(0.1)
    """,
    "a client that was closed": "nc.close()",
    "a client that was drained": "nc.drain()",
    "a client that drains": """
        nc.subscribe('exit.slow', cb=lambda msg: time.sleep(60))
        nc.publish('exit.slow')
        nc.flush()
        threading.Thread(target=nc.drain, daemon=True).start()
        time.sleep(0.05)
    """,
}


@pytest.mark.parametrize("script", BUSY.values(), ids=BUSY)
def test_it_ends_soon_and_quietly(script: str, nats_server: NatsServer) -> None:
    # A daemon's waiting call ends by an exception of its own, which threading would print.
    prologue = PROLOGUE + "threading.excepthook = lambda args: None\n"
    ended = Ended(script, nats_server.url, *STRICT, prologue=prologue)
    assert (ended.code, ended.err) == (0, "")
    assert ended.took < SOON


def test_a_frozen_server(fresh_server: NatsServer) -> None:
    script = """
    nc.publish("exit.frozen", bytes(100))
    nc.flush()
    os.kill({pid}, signal.SIGSTOP)
    for _ in range(15):
        nc.publish("exit.frozen", bytes(100_000))
    """
    assert fresh_server._process is not None
    ended = Ended(script.format(pid=fresh_server._process.pid), fresh_server.url, "-X", "dev")
    fresh_server.resume()
    assert ended.code == 0
    assert "Traceback" not in ended.err
    assert ended.took < SOON


def test_a_server_that_is_gone(fresh_server: NatsServer) -> None:
    script = """
    os.kill({pid}, signal.SIGKILL)
    while nc.is_connected:
        time.sleep(0.01)
    for _ in range(100):
        nc.publish("exit.gone", bytes(100))
    """
    assert fresh_server._process is not None
    ended = Ended(script.format(pid=fresh_server._process.pid), fresh_server.url, *STRICT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.took < SOON


def test_a_server_that_never_was(fresh_server: NatsServer) -> None:
    fresh_server.kill()
    prologue = PROLOGUE.replace("connect(sys.argv[1])", "connect(sys.argv[1], retry_on_failed_connect=True)")
    ended = Ended("nc.publish('exit.never', b'')", fresh_server.url, *STRICT, prologue=prologue)
    assert (ended.code, ended.err) == (0, "")
    assert ended.took < SOON


def test_a_refused_first_connect_is_one_traceback(fresh_server: NatsServer) -> None:
    fresh_server.kill()
    ended = Ended("", fresh_server.url, *STRICT)
    assert ended.code == 1
    assert "NoServersError" in ended.err
    assert "Exception ignored" not in ended.err
