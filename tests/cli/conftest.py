"""The command, run as a user runs it: in a process of its own, whose environment the test knows."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import Natsync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def natsync_command(tmp_path: Path) -> Iterator[Natsync]:
    """The command, without settings of this machine's user; what still runs at the test's end is killed."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("NATS_") or name == "NATS_SERVER_BIN"
    }
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    with contextlib.ExitStack() as stack:
        # A run in the background ignores Ctrl-C, and all its children with it.
        usual = signal.signal(signal.SIGINT, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGINT, usual)
        yield Natsync(environ, stack)
