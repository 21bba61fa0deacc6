"""The Django app in one process: settings, checks, database connections, the helper for tests, the health view."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.conf import settings
from django.core import checks
from django.db import connection
from django.db.backends.signals import connection_created
from django.test import RequestFactory, SimpleTestCase, override_settings

import natsync
from natsync import ConfigError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from natsync import Msg
    from natsync.events import Event
    from natsync.testing import NatsServer

DEADLINE = 10.0 * TIME_FACTOR


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make this process one of a Django project."""
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": tmp_path_factory.mktemp("django") / "db.sqlite3",
            }
        },
        INSTALLED_APPS=["natsync.contrib.django"],
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()


@pytest.fixture
def nats(nats_server: NatsServer) -> Iterator[Any]:
    """The client of the process, set to the test's server."""
    from natsync.contrib.django import client

    with override_settings(NATS={"URL": nats_server.url, "REQUEST_TIMEOUT": DEADLINE}):
        yield client


def test_importing_needs_no_settings_and_connects_nothing() -> None:
    code = "import natsync.contrib.django as d; print(d.client)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "<LazyClient, not connected yet>\n"


# Settings

GOOD: list[Any] = [{}, {"URL": "nats://a:4222"}, {"servers": ["a", "b"], "Connect_Timeout": 1.5, "TLS": None}]
BAD = [
    ({"URL": "http://x"}, r"NATS\['URL'\]: .*http"),
    ({"CONECT_TIMEOUT": 1}, r"NATS\['CONECT_TIMEOUT'\]: .*did you mean 'connect_timeout'"),
    ({"connect_timeout": "1"}, r"NATS\['connect_timeout'\]: connect_timeout takes seconds"),
    ({"URL": "a", "SERVERS": "b"}, r"NATS\['URL'\] and NATS\['SERVERS'\] mean the same"),
    ({"NAME": "a", "name": "b"}, "differ only in case"),
    ({"ERROR_CB": "no.such.function"}, r"NATS\['ERROR_CB'\]: No module named 'no'"),
    ({"USER": "joe"}, r"NATS\['USER'\]: user is given without password"),
    ("nats://x", "takes a dict"),
    ({1: 2}, "takes a dict"),
]


@pytest.mark.parametrize("value", GOOD, ids=str)
def test_good_settings_pass_the_checks(value: Any) -> None:
    with override_settings(NATS=value):
        assert checks.run_checks() == []


@pytest.mark.parametrize("value, text", BAD, ids=str)
def test_bad_settings_fail_the_checks_and_the_first_use(value: Any, text: str) -> None:
    from natsync.contrib.django import client

    with override_settings(NATS=value):
        (error,) = checks.run_checks()
        assert (error.id, error.obj, error.level) == ("natsync.E001", "settings.NATS", checks.ERROR)
        with pytest.raises(ConfigError, match=text) as caught:
            client.publish("x")
        assert error.msg == str(caught.value)


def test_settings_of_their_own_name_for_functions(nats_server: NatsServer) -> None:
    from natsync.contrib.django import client

    connected.clear()
    with override_settings(NATS={"URL": nats_server.url, "CONNECTED_CB": f"{__name__}.note_connected"}):
        client.flush()
        eventually(lambda: connected)


connected: list[Event] = []


def note_connected(event: Event) -> None:
    connected.append(event)


def test_override_settings_takes_the_client_along(nats: Any, fresh_server: NatsServer) -> None:
    url = nats.connected_url
    before = nats.connect()
    with override_settings(NATS={"URL": fresh_server.url}):
        assert before.is_closed
        assert nats.connected_url == fresh_server.url
        inner = nats.connect()
    assert inner.is_closed
    assert nats.connected_url == url
    with override_settings(USE_TZ=False):
        assert not nats.connect().is_closed


# Database connections


def query() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.fixture
def opened() -> Iterator[Recorder]:
    """Notes every connection to the database that is opened."""
    recorder = Recorder()

    def note(**_: Any) -> None:
        recorder(1)

    connection_created.connect(note)
    yield recorder
    connection_created.disconnect(note)


def test_a_connection_is_opened_and_closed_for_every_message(nats: Any, opened: Recorder) -> None:
    done = Recorder()

    def handle(msg: Msg) -> None:
        query()
        done(connection.connection is not None)

    with nats.subscribe("django.db", cb=handle):
        for _ in range(3):
            nats.publish("django.db")
        assert done.wait_for(3) == [True] * 3
    assert len(opened) == 3


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to the database stay open for ever."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)


def test_a_connection_is_kept_as_long_as_the_settings_say(nats: Any, opened: Recorder, kept: None) -> None:
    done = Recorder()

    def handle(msg: Msg) -> None:
        query()
        if msg.data == b"last":
            connection.close()
        done(msg.data)

    nats.subscribe("django.db", cb=handle)
    for data in (b"first", b"second", b"last"):
        nats.publish("django.db", data)
    done.wait_for(3)
    assert len(opened) == 1


def test_a_handler_after_a_broken_connection_finds_a_new_one(nats: Any, opened: Recorder, kept: None) -> None:
    done = Recorder()

    def handle(msg: Msg) -> None:
        query()
        if msg.data == b"break":
            connection.connection.close()  # as a database does after an idle night
            connection.is_usable = lambda: False  # SQLite says yes in any case, as it has no server
            query()
        connection.close()
        done(msg.data)

    nats.subscribe("django.db", cb=handle)
    nats.publish("django.db", b"break")
    nats.publish("django.db", b"again")
    assert done.wait_for(1) == [b"again"]
    assert len(opened) == 2


# The health view


def test_the_health_view(nats: Any, fresh_server: NatsServer) -> None:
    from natsync.contrib.django.views import health

    answer = health(RequestFactory().get("/ready"))
    assert (answer.status_code, json.loads(answer.content)["status"]) == (200, "CONNECTED")
    fresh_server.stop()
    with override_settings(NATS={"URL": fresh_server.url}):
        answer = health(RequestFactory().get("/ready"))
    assert (answer.status_code, json.loads(answer.content)["status"]) == (503, "DISCONNECTED")


# The helper for tests


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_the_mixin_starts_a_server_for_the_class(nats_server: NatsServer) -> None:
    from natsync.contrib.django import client, handler
    from natsync.contrib.django.test import NatsTestMixin

    seen: list[Any] = []

    @handler("mixin.good", queue="q")
    def good(msg: Msg) -> None:
        seen.append(msg.data)

    @handler("mixin.bad")
    def bad(msg: Msg) -> None:
        raise ValueError(msg.data)

    class Case(NatsTestMixin, SimpleTestCase):
        nats_settings = {"NAME": "mixin"}  # noqa: RUF012

        def test_1_the_client_uses_it(self) -> None:
            seen.append(self.nats_server)
            assert client.connected_url == self.nats_server.url != nats_server.url
            assert settings.NATS["NAME"] == "mixin"

        def test_2_handlers_have_run_at_the_end_of_the_block(self) -> None:
            with self.nats_handlers():
                for number in range(100):
                    client.publish("mixin.good", b"%d" % number)
            assert seen[1:] == [b"%d" % number for number in range(100)]

        def test_3_what_a_handler_raises_is_raised(self) -> None:
            with pytest.raises(ValueError, match="oops"), self.nats_handlers():
                client.publish("mixin.bad", b"oops")

        def test_4_handlers_are_gone_after_the_block(self) -> None:
            with pytest.raises(natsync.NoRespondersError):
                client.request("mixin.good")

    with override_settings(NATS={"URL": nats_server.url, "USER": "joe", "PASSWORD": "x"}):
        result = run(Case)
        assert (result.testsRun, result.failures, result.errors) == (4, [], [])
        assert not seen[0].is_running
        assert settings.NATS["USER"] == "joe"
        assert good.__name__ == "good"


def test_the_decorator_gives_the_function_back() -> None:
    from natsync.contrib.django import handler

    def pack(msg: Msg) -> bytes:
        return msg.data

    assert handler("x", queue="q", workers=3)(pack) is pack
