"""A Celery worker with forked processes, and a client that was made before they were: the broker is a folder."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from natsync import NoRespondersError
from tests.frameworks.programs import Program
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from natsync import Client, Msg
    from natsync.testing import NatsServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.name != "posix", reason="Celery's forked processes need POSIX"),
]

DEADLINE = 60.0 * TIME_FACTOR

TASKS = """
import os
from celery import Celery
import natsync

app = Celery("tasks")
app.config_from_object("celeryconfig")

nc = natsync.connect(os.environ["NATS_URL"], name="celery")
nc.publish("celery.loaded", str(os.getpid()).encode())

@app.task
def publish(number):
    nc.publish("celery.published", str(number).encode(), headers={"Pid": str(os.getpid())})

@app.task
def ask(word):
    return nc.request("celery.question", word.encode(), timeout=20).data.decode()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with tasks, and the folders of its broker and its results."""
    for name in ("broker", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "celeryconfig.py").write_text(
        f"broker_url = 'filesystem://'\nresult_backend = 'file://{tmp_path}/results'\n"
        f"broker_transport_options = {options(tmp_path)!r}\nbroker_connection_retry_on_startup = True\n"
    )
    return tmp_path


def options(folder: Path) -> dict[str, str]:
    broker = str(folder / "broker")
    return {"data_folder_in": broker, "data_folder_out": broker, "control_folder": str(folder / "control")}


@pytest.fixture
def app(folder: Path) -> Any:
    """What sends tasks; it does not import them, as its client would be this process's."""
    sender = Celery("sender", broker="filesystem://", backend=f"file://{folder}/results", set_as_current=False)
    sender.conf.broker_transport_options = options(folder)
    return sender


def worker(folder: Path, server: NatsServer, *arguments: str) -> Program:
    # A folder for a broker is asked once a second, and gives one message for each of the messages that may wait.
    command = ["-m", "celery", "--app", "tasks", "worker", "--loglevel", "INFO", "--without-mingle", "--without-gossip"]
    return Program([*command, *arguments], folder, {"NATS_URL": server.url})


@pytest.mark.parametrize(
    "arguments",
    [["--concurrency", "3"], ["--concurrency", "2", "--max-tasks-per-child", "2"], ["--pool", "threads"]],
    ids=["prefork", "short-lived", "threads"],
)
def test_every_message_arrives_once(
    folder: Path, app: Any, nats_server: NatsServer, nats_client: Client, arguments: list[str]
) -> None:
    tasks = 12
    received: list[Msg] = []
    loaded = nats_client.subscribe("celery.loaded")
    nats_client.subscribe("celery.published", cb=received.append)
    nats_client.flush()
    for number in range(tasks):
        app.send_task("tasks.publish", [number])
    with worker(folder, nats_server, *arguments) as program:
        parent = loaded.next_msg(DEADLINE).data.decode()
        eventually(lambda: len(received) >= tasks, 60.0)
        eventually(lambda: program.output.count("succeeded in") == tasks, 20.0)
        if "--max-tasks-per-child" in arguments:
            program.kill()  # Celery does not always end when it is told to while it replaces a process
        else:
            assert program.end() == 0
        assert "Traceback" not in program.output
    nats_client.flush()
    assert sorted(int(msg.data) for msg in received) == list(range(tasks))
    assert loaded.pending_msgs == 0
    pids = Counter(msg.headers["Pid"] for msg in received if msg.headers)
    if "--pool" in arguments:
        assert set(pids) == {parent}
    else:
        assert parent not in pids
    if "--max-tasks-per-child" in arguments:
        assert max(pids.values()) <= 2


def test_a_task_asks_and_its_error_comes_back(
    folder: Path, app: Any, nats_server: NatsServer, nats_client: Client
) -> None:
    with worker(folder, nats_server, "--concurrency", "2") as program:
        failed: AsyncResult = app.send_task("tasks.ask", ["why"])
        with pytest.raises(NoRespondersError, match=r"celery\.question"):
            failed.get(timeout=DEADLINE, interval=0.05)
        nats_client.subscribe("celery.question", cb=lambda msg: msg.respond(msg.data[::-1]))
        nats_client.flush()
        assert app.send_task("tasks.ask", ["why"]).get(timeout=DEADLINE, interval=0.05) == "yhw"
        assert program.end() == 0
