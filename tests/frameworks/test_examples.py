"""The example projects, each started with its one command and used over HTTP."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.frameworks.programs import ADDRESS, ROOT, Program, http
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.name != "posix", reason="gunicorn and Celery's processes need POSIX"),
]


def example(name: str, *arguments: str) -> Program:
    return Program([str(ROOT / "examples" / name / "run.py"), *arguments], Path.cwd())


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def started(request: pytest.FixtureRequest) -> Iterator[tuple[Program, str]]:
    """An example that serves, with its address; told to end as the parameter says it ends by itself."""
    name = request.node.get_closest_marker("example").args[0]
    with example(name, "0") as program:
        yield program, program.wait_for(ADDRESS, 40.0)[1]
        assert program.end(request.param) == 0, program.output
        assert "Traceback" not in program.output


def test_the_script() -> None:
    with example("script") as program:
        assert program.wait() == 0
        assert sorted(program.output.splitlines()) == ["Anna 300", "Ben 200", "reported 500", "total 500"]


@pytest.mark.example("flask_app")
def test_the_flask_app(started: tuple[Program, str]) -> None:
    program, address = started
    program.wait_for("waiting for messages")
    assert http(f"{address}/orders", b"pizza") == (202, {"accepted": True})
    program.wait_for("packing pizza")
    assert http(f"{address}/prices/pizza") == (200, {"item": "pizza", "price": "5.00 EUR"})
    status, body = http(f"{address}/ready")
    assert (status, body["status"]) == (200, "CONNECTED")


@pytest.mark.example("django_project")
def test_the_django_project(started: tuple[Program, str]) -> None:
    program, address = started
    program.wait_for("waiting for messages")
    status, body = http(f"{address}/orders", b"pizza")
    assert status == 202
    order: dict[str, Any] = eventually(
        lambda: (order := http(f"{address}/orders/{body['order']}")[1])["packed"] and order, 10.0
    )
    assert order["item"] == "pizza"
    assert http(f"{address}/ready")[0] == 200


def test_the_tests_of_the_django_project() -> None:
    with Program(["-W", "error", "manage.py", "test"], ROOT / "examples" / "django_project") as program:
        assert program.wait(60.0) == 0, program.output
        assert "Ran 3 tests" in program.output


@pytest.mark.example("celery_app")
def test_the_celery_app(started: tuple[Program, str]) -> None:
    _, address = started
    processes = set()

    def used_both() -> bool:
        status, body = http(f"{address}/sums", b"1 2 3 4")
        assert (status, body["sums"]) == (200, [1, 3, 6, 10])
        processes.add(body["process"])
        return len(processes) == 2

    eventually(used_both, 60.0)
