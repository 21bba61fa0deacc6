"""Which of several settings counts: those of the command line, of the environment, and of contexts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from natsync.cli.arguments import Parser, add_connection_arguments
from natsync.cli.connection import settings_of

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = {"url": "nats://context", "user": "ann", "password": "c", "ca": "context.pem"}
FROM_CONTEXT = {"servers": "nats://context", "user": "ann", "password": "c", "tls_ca": "context.pem"}


def settings(words: str, home: Path, environ: dict[str, str], *, selected: bool = False) -> dict[str, Any]:
    folder = home / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "work.json").write_text(json.dumps(CONTEXT), "utf-8")
    if selected:
        (home / "nats" / "context.txt").write_text("work", "utf-8")
    parser = Parser()
    add_connection_arguments(parser)
    return settings_of(parser.parse_args(words.split()), {"XDG_CONFIG_HOME": str(home), **environ})


@pytest.mark.parametrize(
    "words, environ, expected",
    [
        ("", {}, {}),
        ("", {"NATS_URL": ""}, {}),
        ("-s nats://a --tls", {"NATS_URL": "nats://b"}, {"servers": "nats://a", "tls": True}),
        ("--timeout 1m", {"NATS_TIMEOUT": "5s"}, {"timeout": 60.0}),
        ("", {"NATS_TIMEOUT": "5s"}, {"timeout": 5.0}),
        # Half a login is completed, another way to log in is not mixed with it.
        ("--user joe", {"NATS_PASSWORD": "p"}, {"user": "joe", "password": "p"}),
        ("--user joe", {"NATS_PASSWORD": "p", "NATS_USER": "ann"}, {"user": "joe"}),
        ("--user joe", {"NATS_TOKEN": "t"}, {"user": "joe"}),
        ("--creds f", {"NATS_USER": "ann", "NATS_PASSWORD": "p"}, {"user_credentials": "f"}),
        # A context that is named.
        ("--context work", {}, FROM_CONTEXT),
        ("--context work", {"NATS_URL": "nats://b", "NATS_TOKEN": "t", "NATS_CA": "b.pem"}, FROM_CONTEXT),
        ("--context work -s nats://a", {}, {**FROM_CONTEXT, "servers": "nats://a"}),
        ("", {"NATS_CONTEXT": "work"}, FROM_CONTEXT),
        ("", {"NATS_CONTEXT": "work", "NATS_URL": "nats://b"}, {**FROM_CONTEXT, "servers": "nats://b"}),
        (
            "--token t",
            {"NATS_CONTEXT": "work"},
            {"servers": "nats://context", "token": "t", "tls_ca": "context.pem"},
        ),
        ("--no-context", {"NATS_CONTEXT": "work"}, {}),
    ],
)
def test_the_stronger_counts(tmp_path: Path, words: str, environ: dict[str, str], expected: dict[str, Any]) -> None:
    assert settings(words, tmp_path, environ) == expected


@pytest.mark.parametrize(
    "words, environ, expected",
    [
        ("", {}, FROM_CONTEXT),
        ("--user joe --password p", {}, {**FROM_CONTEXT, "user": "joe", "password": "p"}),
        ("-s nats://a", {}, {"servers": "nats://a"}),
        ("", {"NATS_URL": "nats://b"}, {"servers": "nats://b"}),
        ("--no-context", {}, {}),
    ],
)
def test_the_selected_context_counts_when_nobody_names_a_server(
    tmp_path: Path, words: str, environ: dict[str, str], expected: dict[str, Any]
) -> None:
    assert settings(words, tmp_path, environ, selected=True) == expected
