"""A Django project under its real servers: `manage.py nats_worker`, runserver, gunicorn, and the reloader."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.frameworks.programs import ADDRESS, ROOT, Program, http
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from natsync import Client
    from natsync.testing import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DEADLINE = 20.0 * TIME_FACTOR

HANDLERS = """
import os, threading, time
from natsync.contrib.django import client, handler

@handler("django.slow", queue="workers")
def slow(msg):
    client.publish("django.begun", msg.data)
    time.sleep(0.3)
    msg.respond(msg.data)

@handler("django.broken")
def broken(msg):
    raise ValueError("broken by " + msg.data.decode())

@handler("django.version")
def version(msg):
    msg.respond(b"1")
"""


class Project:
    """A copy of the example project, with handlers of the test's."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        shutil.copytree(ROOT / "examples" / "django_project", folder)
        self.folder = folder
        self.handlers = folder / "orders" / "nats_handlers.py"
        self.handlers.write_text(self.handlers.read_text() + HANDLERS)
        self.environment = {
            "NATS_URL": server.url,
            "SHOP_DATABASE": str(folder / "db.sqlite3"),
            "SHOP_DEBUG": "0",
        }

    def manage(self, *arguments: str, **environment: str) -> Program:
        return self.start("manage.py", *arguments, **environment)

    def start(self, *command: str, **environment: str) -> Program:
        return Program(["-W", "default", *command], self.folder, {**self.environment, **environment})


@pytest.fixture
def project(tmp_path: Path, nats_server: NatsServer) -> Project:
    return Project(tmp_path / "project", nats_server)


# The worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_finishes_what_has_arrived(project: Project, nats_client: Client, number: signal.Signals) -> None:
    begun = nats_client.subscribe("django.begun")
    with project.manage("nats_worker") as worker:
        worker.wait_for("waiting for messages")
        futures = [nats_client.request_future("django.slow", b"%d" % each, timeout=DEADLINE) for each in range(5)]
        begun.next_msg(DEADLINE)
        assert worker.end(number) == 0
        assert [future.result(DEADLINE).data for future in futures] == [b"%d" % each for each in range(5)]
        assert "django.slow (queue workers): orders.nats_handlers.slow" in worker.output
        assert "Traceback" not in worker.output
        assert "Warning" not in worker.output


def test_several_workers_share_a_queue(project: Project, nats_client: Client) -> None:
    with project.manage("nats_worker") as one, project.manage("nats_worker") as two:
        for worker in (one, two):
            worker.wait_for("waiting for messages")
        begun = nats_client.subscribe("django.begun")
        futures = [nats_client.request_future("django.slow", b"%d" % each, timeout=DEADLINE) for each in range(10)]
        for future in futures:
            future.result(DEADLINE)
        assert sorted(int(begun.next_msg(DEADLINE).data) for _ in range(10)) == list(range(10))
        assert begun.pending_msgs == 0


def test_an_error_in_a_handler_is_logged_and_the_worker_goes_on(project: Project, nats_client: Client) -> None:
    with project.manage("nats_worker") as worker:
        worker.wait_for("waiting for messages")
        nats_client.publish("django.broken", b"me")
        worker.wait_for("ValueError: broken by me")
        assert nats_client.request("django.version", timeout=DEADLINE).data == b"1"
        assert worker.end() == 0


def test_bad_settings_are_found_before_anything_runs(project: Project) -> None:
    with project.manage("nats_worker", NATS_URL="http://x") as worker:
        assert worker.wait() == 1
        assert "(natsync.E001) NATS['URL']: " in worker.output
        assert "SystemCheckError" in worker.output


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_worker_without_a_server_says_so(project: Project, fresh_server: NatsServer, debug: str) -> None:
    fresh_server.stop()
    with project.manage("nats_worker", NATS_URL=fresh_server.url, SHOP_DEBUG=debug) as worker:
        assert worker.wait() == 1
        assert str(fresh_server.port) in worker.output
        assert "Traceback" not in worker.output


def test_a_worker_whose_client_gives_up_ends(project: Project, fresh_server: NatsServer) -> None:
    settings = project.folder / "shop" / "settings.py"
    settings.write_text(settings.read_text() + '\nNATS["ALLOW_RECONNECT"] = False\n')
    with project.manage("nats_worker", NATS_URL=fresh_server.url) as worker:
        worker.wait_for("waiting for messages")
        fresh_server.kill()
        assert worker.wait() == 1
        assert "CommandError: the connection is lost for good" in worker.output


def test_a_worker_needs_handlers(project: Project) -> None:
    project.handlers.unlink()
    with project.manage("nats_worker") as worker:
        assert worker.wait() == 1
        assert "CommandError: there are no handlers" in worker.output


# The reloader


def change(project: Project, worker: Program) -> None:
    """Change the handlers until the reloader notices: a file's first time, up to a second old, tells it nothing."""
    project.handlers.write_text(project.handlers.read_text().replace('b"1"', 'b"2"'))

    def noticed() -> bool:
        later = project.handlers.stat().st_mtime + 10
        os.utime(project.handlers, (later, later))
        return "nats_handlers.py changed, reloading." in worker.output

    eventually(noticed, 20.0)


@pytest.mark.parametrize("to", ["both", "outer"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_debug_a_worker_finishes_what_has_arrived(
    project: Project, nats_client: Client, number: signal.Signals, to: str
) -> None:
    begun = nats_client.subscribe("django.begun")
    with project.manage("nats_worker", SHOP_DEBUG="1") as worker:
        worker.wait_for("waiting for messages")
        futures = [nats_client.request_future("django.slow", b"%d" % each, timeout=DEADLINE) for each in range(5)]
        begun.next_msg(DEADLINE)
        # A terminal sends Ctrl-C to both processes, `kill` to the one that it knows of.
        os.killpg(worker.pid, number) if to == "both" else worker.send_signal(number)
        assert worker.wait() == 0
        assert [future.result(DEADLINE).data for future in futures] == [b"%d" % each for each in range(5)]
        assert "Traceback" not in worker.output


def test_with_debug_a_worker_starts_again_when_code_changes(project: Project, nats_client: Client) -> None:
    with project.manage("nats_worker", SHOP_DEBUG="1") as worker:
        worker.wait_for("waiting for messages")
        assert nats_client.request("django.version", timeout=DEADLINE).data == b"1"
        futures = [nats_client.request_future("django.slow", b"%d" % each, timeout=DEADLINE) for each in range(10)]
        change(project, worker)
        for future in futures:
            future.result(DEADLINE)
        worker.wait_for("(?s)waiting for messages.*waiting for messages")
        assert nats_client.request("django.version", timeout=DEADLINE).data == b"2"
        assert worker.end() == 0
        assert "Traceback" not in worker.output


def test_a_reload_while_the_server_is_away(project: Project, fresh_server: NatsServer) -> None:
    with project.manage("nats_worker", NATS_URL=fresh_server.url, SHOP_DEBUG="1") as worker:
        worker.wait_for("waiting for messages")
        fresh_server.stop()
        worker.wait_for("(?i)disconnected")
        change(project, worker)
        worker.wait_for("nats_worker: there was no connection to drain")
        assert worker.wait() == 1  # the new one finds no server
        assert "Traceback" not in worker.output


def test_noreload(project: Project, nats_client: Client) -> None:
    with project.manage("nats_worker", "--noreload", SHOP_DEBUG="1") as worker:
        worker.wait_for("waiting for messages")
        assert "Watching" not in worker.output
        assert worker.end() == 0


# Web servers

SERVERS = {
    "runserver": ["manage.py", "runserver", "127.0.0.1:0"],
    "gunicorn": ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "shop.wsgi"],
    "preload": [
        "-m",
        "gunicorn",
        "--bind",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--threads",
        "4",
        "--preload",
        "shop.wsgi",
    ],
}


@pytest.mark.skipif(os.name != "posix", reason="gunicorn needs POSIX")
@pytest.mark.parametrize("server", SERVERS)
def test_orders_are_stored_announced_and_packed(project: Project, server: str) -> None:
    requests = 40
    with project.manage("migrate") as migrate:
        assert migrate.wait(60.0) == 0, migrate.output
    debug = "1" if server == "runserver" else "0"
    with (
        project.manage("nats_worker") as worker,
        project.start(*SERVERS[server], SHOP_DEBUG=debug) as web,
        ThreadPoolExecutor(4) as pool,
    ):
        worker.wait_for("waiting for messages")
        address = web.wait_for(ADDRESS)[1]
        answers = list(pool.map(lambda number: http(f"{address}/orders", b"pizza %d" % number), range(requests)))
        assert {status for status, _ in answers} == {202}
        orders = [body["order"] for _, body in answers]
        assert len(set(orders)) == requests
        for order in orders:
            eventually(lambda order=order: http(f"{address}/orders/{order}")[1]["packed"], 20.0)  # type: ignore[misc]
        assert http(f"{address}/ready")[0] == 200
        worker.end()
        assert worker.output.count("packing pizza") == requests
        assert "Traceback" not in worker.output + web.output
