"""The Flask extension: in views, outside of them, in several apps, in its worker, and under real servers."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import flask
import pytest

import natsync
from natsync import ConfigError
from natsync.contrib.flask import Nats
from tests.frameworks.programs import ADDRESS, Program, http
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from natsync import Client, Msg
    from natsync.testing import NatsServer

DEADLINE = 10.0 * TIME_FACTOR


@pytest.fixture
def make_app(nats_server: NatsServer) -> Iterator[Callable[..., flask.Flask]]:
    """Make apps with some configuration; their clients are closed at the end."""
    apps: list[flask.Flask] = []

    def make(name: str = "shop", **config: Any) -> flask.Flask:
        app = flask.Flask(name)
        app.config.update({"NATS_URL": nats_server.url, **config})
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["natsync"].close()


def test_a_view_publishes_and_asks(make_app: Callable[..., flask.Flask], nats_client: Client) -> None:
    app = make_app(NATS_NAME="flask shop")
    nats = Nats(app)

    @app.post("/orders")
    def order() -> tuple[str, int]:
        nats.publish("flask.orders", flask.request.get_data())
        return "", 202

    @app.get("/price")
    def price() -> str:
        return nats.request("flask.price", timeout=DEADLINE).data.decode()

    nats_client.subscribe("flask.price", cb=lambda msg: msg.respond(b"3 EUR"))
    with nats_client.subscribe("flask.orders") as orders:
        nats_client.flush()
        assert app.test_client().post("/orders", data=b"pizza").status_code == 202
        assert orders.next_msg(DEADLINE).data == b"pizza"
    assert app.test_client().get("/price").text == "3 EUR"
    assert "flask shop" in repr(nats.connect())


def test_nothing_connects_before_the_first_use(make_app: Callable[..., flask.Flask], nats_server: NatsServer) -> None:
    before = nats_server.varz()["total_connections"]
    app = make_app()
    nats = Nats()
    nats.init_app(app)
    app.test_client().get("/")
    with app.app_context():
        repr(nats)
        assert not hasattr(nats, "__wrapped__")
        with pytest.raises(AttributeError, match="publishh"):
            nats.publishh  # type: ignore[attr-defined]  # noqa: B018
    assert nats_server.varz()["total_connections"] == before


@pytest.mark.parametrize(
    "config, key",
    [
        ({"NATS_URL": "http://x"}, "NATS_URL"),
        ({"NATS_CONECT_TIMEOUT": 1.0}, "NATS_CONECT_TIMEOUT"),
        ({"NATS_CONNECT_TIMEOUT": "1.0"}, "NATS_CONNECT_TIMEOUT"),
        ({"NATS_SERVERS": "nats://x"}, "NATS_URL and NATS_SERVERS"),
    ],
)
def test_bad_settings_are_found_at_once(make_app: Callable[..., flask.Flask], config: dict[str, Any], key: str) -> None:
    app = make_app()
    Nats(app)
    app.config.update(config)
    with pytest.raises(ConfigError, match=f"^{key}"):
        Nats().init_app(app)
    with app.app_context(), pytest.raises(ConfigError, match=f"^{key}"):
        app.extensions["natsync"].publish("x")


def test_settings_may_come_after_init_app(make_app: Callable[..., flask.Flask], nats_server: NatsServer) -> None:
    app = make_app(NATS_URL=None)
    nats = Nats(app)
    app.config["NATS_URL"] = nats_server.url
    assert nats.connected_url == nats_server.url


def test_settings_from_the_environment(
    make_app: Callable[..., flask.Flask], nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_NATS_URL", nats_server.url)
    monkeypatch.setenv("FLASK_NATS_REQUEST_TIMEOUT", "0.25")
    app = make_app()
    app.config.from_prefixed_env()
    nats = Nats(app)
    with nats.subscribe("flask.silent"), pytest.raises(natsync.NatsTimeoutError) as caught:
        nats.request("flask.silent")
    assert caught.value.timeout == 0.25


def test_each_app_has_its_own_client(make_app: Callable[..., flask.Flask]) -> None:
    nats = Nats()
    apps = [make_app("one"), make_app("two")]
    for app in apps:
        nats.init_app(app)
    clients = []
    for app in apps:
        with app.app_context():
            clients.append(nats.connect())
            assert nats.client is app.extensions["natsync"]
    assert clients[0] is not clients[1]
    with pytest.raises(RuntimeError, match="outside of an app's context"):
        nats.publish("x")
    assert repr(nats) == "<Nats, one, two>"


def test_without_a_context_it_is_the_only_app(make_app: Callable[..., flask.Flask]) -> None:
    app = make_app()
    nats = Nats(app)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(nats.connect).result(DEADLINE) is app.extensions["natsync"].connect()


def test_an_app_that_was_not_prepared(make_app: Callable[..., flask.Flask]) -> None:
    nats = Nats(make_app())
    with flask.Flask("other").app_context(), pytest.raises(RuntimeError, match=r"'other'.*init_app"):
        nats.publish("x")
    assert repr(Nats()) == "<Nats, without an app>"
    with pytest.raises(RuntimeError, match="app_context"):
        Nats().publish("x")


def test_callbacks_run_in_a_context_of_their_own(make_app: Callable[..., flask.Flask]) -> None:
    app = make_app(COLOUR="red")
    nats = Nats(app)
    seen = Recorder()

    def see(msg: Msg) -> None:
        flask.g.count = flask.g.get("count", 0) + 1
        seen((flask.current_app.config["COLOUR"], flask.g.count))

    with app.app_context():
        nats.subscribe("flask.context", cb=see)
        nats.publish("flask.context")
        nats.publish("flask.context")
    assert seen.wait_for(2) == [("red", 1)] * 2


def test_health(make_app: Callable[..., flask.Flask], fresh_server: NatsServer) -> None:
    app = make_app(NATS_URL=fresh_server.url)
    nats = Nats(app)
    app.add_url_rule("/ready", view_func=nats.health)
    client = app.test_client()
    answer = client.get("/ready")
    assert (answer.status_code, answer.json["status"]) == (200, "CONNECTED")  # type: ignore[index]
    fresh_server.stop()
    eventually(lambda: nats.is_reconnecting)
    answer = client.get("/ready")
    assert (answer.status_code, answer.json["status"]) == (503, "RECONNECTING")  # type: ignore[index]


# Under real servers

APP = """
import os
from flask import Flask, request
from natsync.contrib.flask import Nats

app = Flask(__name__)
app.config.from_prefixed_env()
nats = Nats(app)
if "AT_LOAD" in os.environ:
    nats.publish("app.loaded")  # before gunicorn forks, if it does

@app.post("/publish")
def publish():
    nats.publish("app.published", request.get_data(), headers={"Pid": str(os.getpid())})
    return {"pid": os.getpid()}

@app.post("/ask")
def ask():
    return nats.request("app.question", request.get_data(), timeout=10).data

@nats.handler("app.question", queue="workers")
def answer(msg):
    msg.respond(b"{" + msg.data + b"}")

@nats.handler("app.slow", queue="workers")
def slow(msg):
    import time
    nats.publish("app.begun", msg.data)
    time.sleep(0.3)
    msg.respond(msg.data)

@nats.handler("app.broken")
def broken(msg):
    raise ValueError("broken by " + msg.data.decode())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


SERVERS = {
    "flask": ["-m", "flask", "--app", "shop", "run", "--port", "0"],
    "gunicorn": ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "shop:app"],
    "preload": ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "3", "--preload", "shop:app"],
    "gthread": ["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--threads", "4", "--preload", "shop:app"],
}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(os.name != "posix", reason="gunicorn needs POSIX")
@pytest.mark.parametrize("server", SERVERS)
def test_every_message_arrives_once(project: Path, nats_server: NatsServer, nats_client: Client, server: str) -> None:
    received: list[Msg] = []
    nats_client.subscribe("app.published", cb=received.append)
    nats_client.subscribe("app.question", cb=lambda msg: msg.respond(b'{"q": "' + msg.data + b'"}'))
    nats_client.flush()
    environment = {"FLASK_NATS_URL": nats_server.url, "AT_LOAD": "1"}
    with Program(SERVERS[server], project, environment) as program, ThreadPoolExecutor(8) as pool:
        address = program.wait_for(ADDRESS)[1]
        answers: list[tuple[int, Any]] = []

        def enough() -> bool:
            """Whether several processes have answered, if there are several; some start late."""
            numbers = range(len(answers), len(answers) + 200)
            answers.extend(pool.map(lambda number: http(f"{address}/publish", b"%d" % number), numbers))
            return server == "flask" or len({body["pid"] for _, body in answers}) > 1

        eventually(enough, 60.0)
        assert http(f"{address}/ask", b"why") == (200, {"q": "why"})
        assert program.end() in (0, -signal.SIGTERM)
        assert "Traceback" not in program.output
    eventually(lambda: len(received) >= len(answers))
    nats_client.flush()
    assert sorted(int(msg.data) for msg in received) == list(range(len(answers)))
    by_process = Counter(str(body["pid"]) for _, body in answers)
    assert Counter(msg.headers["Pid"] for msg in received if msg.headers) == by_process


# The worker


def worker(project: Path, server: NatsServer) -> Program:
    return Program(["-m", "flask", "--app", "shop", "nats-worker"], project, {"FLASK_NATS_URL": server.url})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_finishes_what_has_arrived(
    project: Path, nats_server: NatsServer, nats_client: Client, number: signal.Signals
) -> None:
    begun = nats_client.subscribe("app.begun")
    with worker(project, nats_server) as program:
        program.wait_for("waiting for messages")
        futures = [nats_client.request_future("app.slow", b"%d" % each, timeout=DEADLINE) for each in range(5)]
        begun.next_msg(DEADLINE)
        assert program.end(number) == 0
        assert [future.result(DEADLINE).data for future in futures] == [b"%d" % each for each in range(5)]
        assert "app.slow (queue workers): shop.slow" in program.output
        assert "Traceback" not in program.output


def test_a_worker_told_to_end_twice_finishes_all_the_same(
    project: Path, nats_server: NatsServer, nats_client: Client
) -> None:
    begun = nats_client.subscribe("app.begun")
    with worker(project, nats_server) as program:
        program.wait_for("waiting for messages")
        future = nats_client.request_future("app.slow", b"x", timeout=DEADLINE)
        begun.next_msg(DEADLINE)
        program.send_signal(signal.SIGINT)
        program.wait_for("Told to end")
        assert program.end(signal.SIGTERM) == 0
        assert future.result(DEADLINE).data == b"x"


def test_an_error_in_a_handler_is_shown_and_the_worker_goes_on(
    project: Path, nats_server: NatsServer, nats_client: Client
) -> None:
    with worker(project, nats_server) as program:
        program.wait_for("waiting for messages")
        nats_client.publish("app.broken", b"me")
        program.wait_for("ValueError: broken by me")
        assert nats_client.request("app.question", b"1", timeout=DEADLINE).data == b"{1}"
        assert program.end() == 0


def test_a_worker_without_a_server_says_so_in_one_line(project: Path, fresh_server: NatsServer) -> None:
    fresh_server.stop()
    with worker(project, fresh_server) as program:
        assert program.wait() == 1
        assert re.fullmatch(r"nats-worker: .*127\.0\.0\.1.*\n", program.output)


def test_a_worker_whose_client_gives_up_ends(project: Path, fresh_server: NatsServer) -> None:
    environment = {"FLASK_NATS_URL": fresh_server.url, "FLASK_NATS_ALLOW_RECONNECT": "false"}
    with Program(["-m", "flask", "--app", "shop", "nats-worker"], project, environment) as program:
        program.wait_for("waiting for messages")
        fresh_server.kill()
        assert program.wait() == 1
        assert "nats-worker: the connection is lost for good" in program.output
        assert "Traceback" not in program.output


def test_a_worker_needs_handlers(make_app: Callable[..., flask.Flask]) -> None:
    app = make_app()
    nats = Nats(app)
    result = app.test_cli_runner().invoke(args=["nats-worker"])
    assert result.exit_code == 1
    assert "there are no handlers" in result.output
    nats.handler("a..b", queue="q")(print)
    result = app.test_cli_runner().invoke(args=["nats-worker"])
    assert result.exit_code == 1
    assert "nats-worker: a..b (queue q): builtins.print: " in result.output


def test_a_worker_off_the_main_thread_is_ended_by_others(
    make_app: Callable[..., flask.Flask], nats_client: Client
) -> None:
    app = make_app()
    nats = Nats(app)
    ended: list[Any] = []

    @nats.handler("flask.thread")
    def answer(msg: Msg) -> None:
        msg.respond(b"here")

    thread = threading.Thread(target=lambda: ended.append(app.test_cli_runner().invoke(args=["nats-worker"])))
    thread.start()

    def answered() -> bool:
        try:
            return nats_client.request("flask.thread").data == b"here"
        except natsync.NoRespondersError:
            return False

    eventually(answered)
    nats.drain()
    thread.join(DEADLINE)
    assert ended[0].exit_code == 1
    assert "the client was closed" in ended[0].output
