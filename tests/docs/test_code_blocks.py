"""What the documentation shows must run: each block of Python, against a real server, and each example.

What is typed at a terminal, and the files that are used there, run in `test_terminals.py`.

A block may have three hidden companions in the source of its page, as comments of reStructuredText::

    .. prelude:
        what runs before it: servers, and names that the text takes for granted

    .. code-block:: python

        the block

    .. afterwards:
        what runs after it: assertions; `out` is what the block printed, `printed()` what has been printed by now

A comment `.. own process` before a block has it run as a script of its own; then only `out` is there afterwards.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import natsync
import natsync.testing
from natsync.policy.connect_options import ConnectOptions
from natsync.policy.options import Options
from natsync.testing import NatsCluster, NatsServer
from tests.support.pages import PAGES, ROOT, Block, Part, blocks_of, code_in, rows_of, with_url
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Python 3.12 and newer warn of every fork of a process with threads; the guide says so.
FORK_WARNING = "ignore:This process:DeprecationWarning"
# A block with a caption is a file, which is used at a terminal: test_terminals.py.
BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language == "python" and not block.caption]


class Stage:
    """What a block finds: a server, a client, and what its companions need."""

    def __init__(self, server: NatsServer, stack: contextlib.ExitStack) -> None:
        self._output = io.StringIO()
        self._asked_to_end = threading.Event()
        self.names: dict[str, Any] = {
            "__name__": "__main__",
            "NatsServer": NatsServer,
            "ctrl_c_when_waiting": self.ctrl_c_when_waiting,
            "eventually": eventually,
            "natsync": natsync,
            "nc": natsync.connect(server.url),
            "printed": self._output.getvalue,
            "server": server,
            "stack": stack,
            "url": server.url,
        }
        stack.callback(self._asked_to_end.set)

    def play(self, block: Block) -> None:
        """Run a block and its companions in this process."""
        exec(block.prelude.compile(block.page), self.names)
        with contextlib.redirect_stdout(self._output):
            try:
                exec(block.code.compile(block.page, self.names["url"]), self.names)
            except KeyboardInterrupt:
                pytest.fail(f"{block} was interrupted while it did not wait")
            self.names["out"] = self._output.getvalue()
            exec(block.afterwards.compile(block.page), self.names)

    def ctrl_c_when_waiting(self, ready: Callable[[], object] = lambda: True) -> None:
        """Interrupt the main thread, once, as soon as `ready()` is true and it waits in `wait_closed`."""
        main = threading.get_ident()

        def is_waiting() -> bool:
            frame = sys._current_frames().get(main)
            while frame is not None and frame.f_code.co_name != "wait_closed":
                frame = frame.f_back
            return frame is not None

        def interrupt() -> None:
            eventually(lambda: self._asked_to_end.is_set() or (ready() and is_waiting()), 10.0)
            if not self._asked_to_end.is_set():
                signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt, name="ctrl-c")
        thread.start()
        self.names["stack"].callback(thread.join)


@pytest.fixture
def stage(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Give what a block needs, and close whatever it leaves open."""
    clients: list[natsync.Client] = []
    connect = natsync.connect

    def connect_and_remember(*args: Any, **options: Any) -> natsync.Client:
        clients.append(connect(*args, **options))
        return clients[-1]

    monkeypatch.setattr(natsync, "connect", connect_and_remember)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.ExitStack() as stack:
        try:
            yield Stage(nats_server, stack)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for client in clients:
                client.close()


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.own_process], ids=str)
def test_block(stage: Stage, block: Block) -> None:
    stage.play(block)


@pytest.mark.fork
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.own_process], ids=str)
def test_block_in_a_process_of_its_own(nats_server: NatsServer, block: Block, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(with_url(block.code.text, nats_server.url), "utf-8")
    names = {"out": run_python(script)}
    exec(block.afterwards.compile(block.page), names)


def test_the_pages_have_blocks() -> None:
    pages = {str(block.page.relative_to(ROOT).as_posix()) for block in BLOCKS}
    assert {"README.rst", "docs/guide.rst", "docs/reconnecting.rst", "docs/topics/delivery.rst"} <= pages


def test_companions_are_found_by_their_indentation(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(
        "* An item\n\n  .. prelude:\n      a = 1\n\n      b = 2\n\n  .. code-block:: python\n\n      c = a + b\n\n"
        "  Text.\n\n  .. afterwards:\n      assert c == 3\n\n.. own process\n\n.. code-block:: python\n\n  pass\n"
    )
    first, second = blocks_of(page)
    assert first.prelude == Part(4, "a = 1\n\nb = 2\n")
    assert first.code.text.strip() == "c = a + b"
    assert first.afterwards.text.strip() == "assert c == 3"
    assert (first.own_process, second.own_process) == (False, True)
    assert (second.code.line, second.code.text.strip()) == (20, "pass")


# The picture of the states.


def test_the_picture_of_the_states_is_up_to_date() -> None:
    run_python(ROOT / "docs" / "status_diagram.py", "--check")


# Examples.

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def run_python(script: Path, *args: str) -> str:
    """Run a script, which must end well and complain of nothing, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-W", FORK_WARNING, str(script), *args],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20 * TIME_FACTOR,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"hello.py", "reconnect.py", "fan_out.py", "worker.py"}


@pytest.mark.parametrize("with_url", [False, True], ids=["own-server", "url"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(nats_server: NatsServer, example: Path, with_url: bool) -> None:
    printed = run_python(example, *([nats_server.url] if with_url else []))
    assert printed.splitlines()[-1] == "the end"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_finishes_its_jobs(nats_server: NatsServer, number: signal.Signals) -> None:
    worker = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "worker.py"), nats_server.url, "60"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with worker, natsync.connect(nats_server.url) as nc:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            futures = [nc.request_future("examples.jobs", b"%d" % each, timeout=10) for each in range(10)]
            assert worker.stdout.readline().startswith("job ")
            worker.send_signal(number)
            assert [future.result().data for future in futures] == [b"%d" % each**2 for each in range(10)]
            assert worker.stdout.read().splitlines()[-1] == "the end"
            assert worker.wait(10) == 0
        finally:
            worker.kill()


# Tables and reference.


OPTIONS = {row[0].strip("`"): row for row in rows_of((ROOT / "docs" / "options.rst").read_text("utf-8"))}
FIELDS = {field.name: field for field in dataclasses.fields(Options) if field.name != "servers"}


def test_the_table_of_options_has_all_options_in_their_order() -> None:
    assert list(OPTIONS) == list(FIELDS)
    assert set(FIELDS) == set(ConnectOptions.__annotations__)


@pytest.mark.parametrize("name", FIELDS)
def test_the_table_of_options_has_the_type_and_the_default(name: str) -> None:
    _, kind, unit, default, _ = OPTIONS[name]
    field = FIELDS[name]
    value = ast.literal_eval(code_in(default)[0])
    assert (value, type(value)) == (field.default, type(field.default))
    if set(str(field.type).split(" | ")) <= {"bool", "float", "int", "str", "None"}:
        assert code_in(kind) == [field.type]
    if "float" in str(field.type) and "Callable" not in str(field.type):
        assert unit == "seconds"


ERRORS = (ROOT / "docs" / "errors.rst").read_text("utf-8")


def test_the_page_of_errors_has_all_errors_and_their_parents() -> None:
    described = {code_in(row[0])[0]: code_in(row[1]) for row in rows_of(ERRORS)}
    assert described == {
        name: [parent.__name__ for parent in getattr(natsync.errors, name).__bases__] for name in natsync.errors.__all__
    }
    assert all(all(row) and len(row) == 4 for row in rows_of(ERRORS))
    detailed = re.findall(r"^\.\. autoexception:: natsync\.errors\.(\w+)$", ERRORS, re.MULTILINE)
    assert sorted(detailed) == sorted(natsync.errors.__all__)


REFERENCE = (ROOT / "docs" / "reference.rst").read_text("utf-8")


def test_the_reference_has_all_public_names() -> None:
    named = set(re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)", REFERENCE, re.MULTILINE))
    wanted = set(natsync.__all__) - set(natsync.errors.__all__) - {"__version__", "errors", "events"}
    wanted |= {f"natsync.events.{name}" for name in natsync.events.__all__}
    wanted |= {f"natsync.testing.{name}" for name in natsync.testing.__all__}
    assert named - {"natsync.core.request_many.Replies"} == wanted


def test_the_reference_has_all_that_a_client_can_do() -> None:
    # They are named there one by one, because they stand in an order of their own.
    named = re.findall(r"^    \.\. auto(?:method|property):: (\w+)$", REFERENCE, re.MULTILINE)
    assert sorted(named) == [name for name in dir(natsync.Client) if not name.startswith("_")]


@pytest.mark.parametrize(
    "kind",
    [natsync.Client, natsync.Subscription, natsync.Msg, natsync.Headers, NatsServer, NatsCluster],
    ids=lambda kind: kind.__name__,
)
def test_every_public_method_says_what_it_does(kind: type) -> None:
    members = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    methods = [name for name, member in members.items() if callable(member) or isinstance(member, property)]
    assert [name for name in methods if not inspect.getdoc(members[name])] == []


@pytest.mark.parametrize("kind", [natsync.Client, natsync.Subscription, natsync.Msg], ids=lambda kind: kind.__name__)
def test_every_argument_of_a_method_is_described(kind: type) -> None:
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        arguments = list(inspect.signature(method).parameters)[1:]
        text = inspect.getdoc(method) or ""
        if not name.startswith("_"):
            described = re.findall(r"(?:^    |`)(\w+)(?:: |`)", text, re.MULTILINE)
            assert [each for each in arguments if each not in described] == [], name
            assert "timeout" not in arguments or re.search(r"^    timeout: Seconds", text, re.MULTILINE), name


README = (ROOT / "README.rst").read_text("utf-8")


def test_the_links_of_the_readme_lead_somewhere() -> None:
    paths = re.findall(r"`[^`]+ <([^>:]+)>`_", README) + re.findall(r"``((?:docs|examples)/[\w./-]+)``", README)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
