"""Real servers of WSGI applications, and a real Celery worker, with a client that the application's module connects."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from natsync import Client, Msg
    from natsync.testing import NatsServer

pytestmark = [
    pytest.mark.fork,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="these servers fork"),
]

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"
PATIENCE = 40.0 * TIME_FACTOR


def program(name: str) -> str:
    """Return the path of a program that is installed beside this Python."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    assert path is not None, f"{name} is not installed"
    return path


class Process:
    """A server under test; its output is kept in a file, so that it never waits for us."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="natsync-"))  # a short path: it will hold a socket's name
        self._log = self.folder / "log"
        paths = os.pathsep.join([str(ROOT), str(APPS)])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [part.replace("{folder}", str(self.folder)) for part in command],
                env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if exc_info[0] is not None:
            print(self.log)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers too, if it could not end them
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self) -> int:
        """Ask it to end, as service managers do, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


class Site(Process):
    """A WSGI server, which listens on a socket in the file system: no port can be taken by somebody else."""

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.folder / "http"))
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, body
        return body

    def wait_until_it_listens(self) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
                sock.connect(str(self.folder / "http"))
                return True
            return False

        eventually(listens, PATIENCE)

    def where(self) -> Any:
        return json.loads(self.get("/where"))


@contextlib.contextmanager
def running(server: NatsServer, command: Sequence[str]) -> Iterator[Site]:
    with Site(command, NATS_URL=server.url) as site:
        site.wait_until_it_listens()
        yield site


def gunicorn(*options: str) -> list[str]:
    control = [] if not has_control_socket() else ["--no-control-socket"]
    return [program("gunicorn"), "--bind", "unix:{folder}/http", *control, *options, "wsgi_app:app"]


def has_control_socket() -> bool:
    done = subprocess.run([program("gunicorn"), "--help"], capture_output=True, text=True, check=True)
    return "--no-control-socket" in done.stdout


def uwsgi(*options: str) -> list[str]:
    python = ["--virtualenv", sys.prefix] if sys.prefix != sys.base_prefix else []
    usual = ["--http-socket", "{folder}/http", "--processes", "3", "--die-on-term", "--disable-logging", *python]
    return [program("uwsgi"), *usual, *options, "--wsgi", "wsgi_app:app"]


class Load:
    """Eight clients that ask a site as fast as they can, and what came of it by NATS."""

    def __init__(self, client: Client, site: Site, requests: int) -> None:
        self._site = site
        self._share = requests // 8
        self._seen: collections.Counter[bytes] = collections.Counter()
        self._failures: list[BaseException] = []
        self.wanted = {b"%d.%d" % (thread, number) for thread in range(8) for number in range(self._share)}
        client.subscribe("site.seen", cb=self._keep)
        client.subscribe("site.echo", cb=lambda msg: msg.respond(msg.data))
        client.flush()

    def _keep(self, msg: Msg) -> None:
        self._seen[msg.data] += 1

    def run(self) -> None:
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self._failures == []

    def _ask(self, thread: int) -> None:
        try:
            for number in range(self._share):
                self._site.get(f"/publish?{thread}.{number}")
                if number % 10 == 0:
                    assert self._site.get(f"/request?{thread}.{number}") == b"%d.%d" % (thread, number)
        except BaseException as exc:
            self._failures.append(exc)

    def check(self) -> None:
        """Every message exactly once."""
        with contextlib.suppress(AssertionError):  # the next line says what is missing
            eventually(lambda: self._seen.total() >= len(self.wanted))
        assert self.wanted - set(self._seen) == set()
        assert set(self._seen) == self.wanted
        assert self._seen.total() == len(self.wanted)


def ask_several_workers(site: Site) -> list[Any]:
    """Ask eight times at once, until more than one worker has answered: a busy one leaves it to the others."""
    answers: list[Any] = []

    def has_several() -> bool:
        answers.extend(pool.map(lambda _: site.where(), range(16)))
        return len({answer["pid"] for answer in answers}) > 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        eventually(has_several, PATIENCE)
    return answers


def check_site(
    server: NatsServer,
    client: Client,
    command: Sequence[str],
    *,
    preloaded: bool,
    load: int = 800,
    ends: bool = True,
) -> str:
    """Run a site under load, end it, and return its log.

    Without `ends` it is killed: workers of uWSGI 2.0.31 with threads sometimes do not end by SIGTERM, also those of an
    application that has three idle threads and no natsync.
    """
    loaded = Recorder()
    client.subscribe("site.loaded", cb=loaded)
    with running(server, command) as site:
        traffic = Load(client, site, load)
        traffic.run()
        answers = ask_several_workers(site)
        if ends:
            assert site.end() == 0
        else:
            traffic.check()
            site.process.kill()
        log = site.log
    traffic.check()
    workers = {answer["pid"]: answer["id"] for answer in answers}
    assert len(set(workers.values())) == len(workers)  # each has a connection of its own
    for answer in answers:
        assert (answer["pid"] != answer["loaded_in"]) == preloaded
    assert len(loaded.wait_for(1)) == (1 if preloaded else len({msg.data for msg in loaded.items}))
    assert "Traceback" not in log
    return log


def test_gunicorn_with_a_preloaded_application(nats_server: NatsServer, nats_client: Client) -> None:
    check_site(nats_server, nats_client, gunicorn("--preload", "--workers", "4"), preloaded=True, load=4000)


def test_gunicorn(nats_server: NatsServer, nats_client: Client) -> None:
    check_site(nats_server, nats_client, gunicorn("--workers", "4"), preloaded=False)


@pytest.mark.parametrize("preload", [["--preload"], []], ids=["preload", "no preload"])
def test_gunicorn_with_threads(nats_server: NatsServer, nats_client: Client, preload: list[str]) -> None:
    command = gunicorn("--workers", "2", "--threads", "4", *preload)
    check_site(nats_server, nats_client, command, preloaded=bool(preload))


@pytest.mark.parametrize("preload", [["--preload"], []], ids=["preload", "no preload"])
def test_gunicorn_with_gevent(
    nats_server: NatsServer, nats_client: Client, preload: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)  # it measures threads, and takes greenlets for one of them
    command = gunicorn("--worker-class", "gevent", "--workers", "2", *preload)
    check_site(nats_server, nats_client, command, preloaded=bool(preload))


def test_workers_that_are_replaced_under_load(nats_server: NatsServer, nats_client: Client) -> None:
    """Each ends after some fifty requests: what it published just before its end is not lost."""
    command = gunicorn("--preload", "--workers", "4", "--max-requests", "50", "--max-requests-jitter", "20")
    log = check_site(nats_server, nats_client, command, preloaded=True, load=1600)
    assert log.count("Booting worker") > 10


UWSGI = {"one thread": ["--enable-threads"], "threads": ["--threads", "4"]}
LAZY = ["--lazy-apps"]
PRELOAD = ["--py-call-uwsgi-fork-hooks"]


@pytest.mark.parametrize("how", [LAZY, PRELOAD], ids=["lazy apps", "preload"])
@pytest.mark.parametrize("options", UWSGI.values(), ids=UWSGI)
def test_uwsgi(nats_server: NatsServer, nats_client: Client, options: list[str], how: list[str]) -> None:
    command = uwsgi("--master", *options, *how)
    log = check_site(nats_server, nats_client, command, preloaded=how is PRELOAD, ends=False)
    assert "RuntimeWarning" not in log


def test_uwsgi_without_hooks(nats_server: NatsServer, nats_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker is forked without Python's knowledge: natsync notices it, and warns of what it cannot mend."""
    monkeypatch.setenv("SETTLE", "1")
    command = uwsgi("--master", "--enable-threads")
    log = check_site(nats_server, nats_client, command, preloaded=True, ends=False)
    assert "py-call-uwsgi-fork-hooks" in log


def test_a_prefork_worker_of_celery(nats_server: NatsServer, nats_client: Client, tmp_path: Path) -> None:
    seen, answered = Recorder(), Recorder()
    nats_client.subscribe("tasks.seen", cb=lambda msg: seen(msg.data.split()))
    nats_client.subscribe("tasks.answered", cb=lambda msg: answered(int(msg.data)))
    nats_client.subscribe("tasks.echo", cb=lambda msg: msg.respond(msg.data))
    nats_client.flush()
    options = ["--pool", "prefork", "--concurrency", "3", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = [program("celery"), "--app", "tasks", "worker", *options]
    with Process(command, NATS_URL=nats_server.url, QUEUE_FOLDER=str(tmp_path), C_FORCE_ROOT="1") as worker:
        send_tasks(nats_server, tmp_path, 60)
        got = seen.wait_for(60, PATIENCE)
        assert sorted(answered.wait_for(6, PATIENCE)) == list(range(0, 60, 10))
        assert worker.end() == 0
        log = worker.log
    assert sorted(int(number) for number, _ in got) == list(range(60))
    assert b"%d" % worker.process.pid not in {pid for _, pid in got}, "the forked processes do the work"
    assert "Traceback" not in log


def send_tasks(server: NatsServer, folder: Path, count: int) -> None:
    """From another process, as a web application would."""
    script = f"""
import tasks
for number in range({count}):
    tasks.publish.delay(number)
    if number % 10 == 0:
        tasks.request.delay(number)
"""
    paths = os.pathsep.join([str(ROOT), str(APPS)])
    environment = {**os.environ, "PYTHONPATH": paths, "NATS_URL": server.url, "QUEUE_FOLDER": str(folder)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=PATIENCE)
