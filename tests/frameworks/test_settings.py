"""Settings of frameworks: what is good becomes arguments of connect(), what is bad an error that names the key."""

from __future__ import annotations

from typing import Any

import pytest

from natsync import ConfigError
from natsync.contrib.settings import connect_arguments


def spelled(name: str) -> str:
    return f"NATS_{name.upper()}"


@pytest.mark.parametrize(
    "settings, servers, options",
    [
        ({}, None, {}),
        ({"url": None}, None, {}),
        ({"url": "nats://a:4222", "name": "x"}, "nats://a:4222", {"name": "x"}),
        ({"servers": ["a", "b"], "connect_timeout": 1}, ["a", "b"], {"connect_timeout": 1}),
    ],
)
def test_good_ones(settings: dict[str, Any], servers: Any, options: dict[str, Any]) -> None:
    assert connect_arguments(settings, spelled) == (servers, options)


@pytest.mark.parametrize(
    "settings, key, text",
    [
        ({"url": "http://a"}, "NATS_URL", "http"),
        ({"url": ""}, "NATS_URL", ""),
        ({"servers": []}, "NATS_SERVERS", "empty"),
        ({"servers": [1]}, "NATS_SERVERS", "URLs"),
        ({"conect_timeout": 1}, "NATS_CONECT_TIMEOUT", "did you mean 'connect_timeout'"),
        ({"connect_timeout": "1"}, "NATS_CONNECT_TIMEOUT", "seconds as a number above 0, not str"),
        ({"user": "joe"}, "NATS_USER", "without password"),
        ({"tls": False, "tls_ca": "ca.pem"}, "NATS_TLS", "contradicts tls_ca"),
        ({"url": "tls://a", "tls": False}, "NATS_TLS", "contradicts a server URL"),
    ],
)
def test_bad_ones(settings: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}\b.*{text}") as caught:
        connect_arguments(settings, spelled)
    assert caught.value.option == key


def test_two_names_for_the_servers() -> None:
    with pytest.raises(ConfigError, match=r"^NATS_URL and NATS_SERVERS mean the same") as caught:
        connect_arguments({"url": "a", "servers": "b"}, spelled)
    assert caught.value.option == "NATS_SERVERS"


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        connect_arguments({"url": "nats://joe:s3cret@a:b", "token": 1234567}, spelled)
    assert "s3cret" not in str(caught.value)
    assert "1234567" not in str(caught.value)
