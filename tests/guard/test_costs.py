"""What a message and a request may cost, counted instead of timed; `python -m benchmarks.counting` prints the figures.

A limit is a tenth above what is needed, or where that hangs on what else runs, above what a busy machine needs. Whoever
makes something cheaper lowers it; whoever must raise it says why in the commit.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import counting
from benchmarks.peers import wire

if TYPE_CHECKING:
    from natsync.testing import NatsServer

pytestmark = pytest.mark.untraced  # coverage and counting use the same hooks of the interpreter

PUBLISH = 128  # bytecode instructions of natsync's code, in all threads
PUBLISH_HEADERS = 370
# Where nothing else runs: 43, 94, 115; more where little comes at one go.
RECEIVE = {"callback": 80, "iteration": 120, "next_msg": 140}
RECEIVE_MANY = 300  # by a hundred callbacks in turn; 220
REQUEST = 1400  # 1,050
FUTURE = 850  # with thirty under way; 590
PENDING_BYTES = 158
PUBLISH_SENDS = 0.01
REQUEST_SENDS = 1.05
REQUEST_RECEIVES = 1.1  # a reply may come in two pieces
REQUEST_SWITCHES = 1.5  # the caller waits for the answer, and reads it itself


def test_instructions_to_publish(nats_server: NatsServer):
    assert counting.publish_instructions(nats_server) <= PUBLISH


def test_instructions_to_publish_with_headers(nats_server: NatsServer):
    assert counting.publish_instructions(nats_server, headers=wire.HEADERS) <= PUBLISH_HEADERS


@pytest.mark.parametrize("via", RECEIVE)
def test_instructions_to_receive(nats_server: NatsServer, via: str):
    assert counting.receive_instructions(nats_server, via) <= RECEIVE[via]


def test_instructions_to_receive_by_many_callbacks(nats_server: NatsServer):
    many = counting.receive_instructions(nats_server, "callback", subscriptions=counting.SUBSCRIPTIONS)
    assert many <= RECEIVE_MANY


def test_instructions_of_a_request_beside_others(nats_server: NatsServer):
    assert counting.future_instructions(nats_server) <= FUTURE


def test_instructions_of_a_request(nats_server: NatsServer):
    assert counting.request_instructions(nats_server) <= REQUEST


def test_memory_of_a_pending_message(nats_server: NatsServer):
    assert counting.pending_bytes(nats_server) <= PENDING_BYTES


def test_messages_go_out_together(nats_server: NatsServer):
    assert counting.publish_sends(nats_server) <= PUBLISH_SENDS


def test_system_calls_and_thread_switches_of_a_request(nats_server: NatsServer):
    calls = counting.request_calls(nats_server)
    assert calls["sends"] <= REQUEST_SENDS
    assert calls["receives"] <= REQUEST_RECEIVES
    assert calls["switches"] <= REQUEST_SWITCHES


def test_keys_and_cryptography_are_imported_when_they_are_used():
    code = "import sys, natsync; print(*sorted({'nkeys', 'nacl'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_modules_that_import_natsync_loads():
    # What an import costs depends on how much it loads; the time is in the benchmark.
    code = (
        "import sys, ssl, json, threading; before = set(sys.modules)\n"
        "import natsync; print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 125
