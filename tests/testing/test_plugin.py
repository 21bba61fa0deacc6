"""The fixtures as a user's own tests get them, and the search for leaks of natsync's own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Where natsync is installed, pytest has the plugin; in a bare tree it has not.
LOAD_PLUGIN = """
from natsync.testing import pytest_plugin

def pytest_configure(config):
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin)
"""

USERS_TEST = """
def test_the_client(nats_client, nats_server):
    subscription = nats_client.subscribe("greetings")
    nats_client.publish("greetings", b"hello")
    assert subscription.next_msg(timeout=5).data == b"hello"
    assert nats_server.connz()["num_connections"] == 1

def test_the_server_is_shared(nats_server):
    assert nats_server.is_running
"""

CLUSTER_TEST = """
import natsync

def test_three_servers(nats_cluster):
    assert len(nats_cluster.servers) == 3
    with natsync.connect(nats_cluster.urls[0]) as nc:
        assert len(nc.servers) == 3

def test_the_same_three(nats_cluster):
    assert all(server.is_running for server in nats_cluster.servers)
"""

UNITTEST_TEST = """
import unittest
import natsync
from natsync.testing import NatsServer

class GreetingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = NatsServer()
        cls.server.start()
        cls.addClassCleanup(cls.server.close)

    def setUp(self):
        self.nc = natsync.connect(self.server.url)
        self.addCleanup(self.nc.close)

    def test_a_reply(self):
        self.nc.subscribe("greet", cb=lambda msg: msg.respond(b"hello"))
        self.assertEqual(self.nc.request("greet", timeout=5).data, b"hello")

    def test_nobody_listens_in_the_next_test(self):
        with self.assertRaises(natsync.NoRespondersError):
            self.nc.request("greet", timeout=5)
"""

LEAKY_TEST = """
import socket, threading

kept = []

def test_socket():
    kept.append(socket.socket())

def test_failing():
    kept.append(socket.socket())
    assert False, "the only news"

def test_clean():
    assert kept is not None
"""


def run_pytest(folder: Path, *args: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "no:randomly", *args]
    answer = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(folder)],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return answer.stdout + answer.stderr


def test_a_user_gets_a_server_and_a_client(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TEST, "utf-8")
    (tmp_path / "conftest.py").write_text(LOAD_PLUGIN, "utf-8")
    assert "2 passed" in run_pytest(tmp_path)


@pytest.mark.cluster
def test_a_user_gets_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(CLUSTER_TEST, "utf-8")
    (tmp_path / "conftest.py").write_text(LOAD_PLUGIN, "utf-8")
    assert "2 passed" in run_pytest(tmp_path)


def test_a_server_in_unittest(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(UNITTEST_TEST, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest", "test_mine"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "Ran 2 tests" in done.stderr
    assert done.stderr.rstrip().endswith("OK")


def test_a_test_that_leaks_fails_and_one_that_failed_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "test_leaky.py").write_text(LEAKY_TEST, "utf-8")
    output = run_pytest(tmp_path, "-p", "tests.conftest")
    assert "1 failed, 2 passed, 1 error" in output
    assert "the test leaves something behind" in output
