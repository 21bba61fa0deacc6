"""Contexts of the `nats` command line: named settings in files, one of which may be selected [ADR-21].

Reads `$XDG_CONFIG_HOME/nats/context/NAME.json`, and `context.txt` beside that folder, which names the selected one;
writes nothing. Knows what the keys of a file mean as options of `natsync.connect`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natsync.errors import ConfigError

__all__ = ["load_context", "selected_context"]

_TEXTS = {"url": "servers", "inbox_prefix": "inbox_prefix", "token": "token", "user": "user", "password": "password"}
_PATHS = {"ca": "tls_ca", "cert": "tls_cert", "key": "tls_key", "creds": "user_credentials", "nkey": "nkeys_seed"}
_LOGINS = ("user", "user_credentials", "nkeys_seed", "token")
"""Of several ways to log in, the one that `nats` prefers."""
_NOT_SUPPORTED = ("nsc", "socks_proxy", "windows_cert_store")
"""Keys that say how to connect, and that natsync cannot follow. All that is unknown here does not concern a client."""


def selected_context(environ: Mapping[str, str]) -> str | None:
    """Return the name of the selected context, or None."""
    try:
        return (_home(environ) / "context.txt").read_text("utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{_home(environ) / 'context.txt'} cannot be read; --no-context goes without") from None


def load_context(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `connect()` that a context stands for, `servers` among them.

    Raises:
        ConfigError: There is no such context, its file cannot be read, or it asks for what natsync cannot do.
    """
    settings = _read(name, _home(environ) / "context")
    for key in _NOT_SUPPORTED:
        if settings.get(key):
            raise ConfigError(f"the context {name!r} has {key!r}, which natsync does not know; use another context")

    options: dict[str, Any] = {}
    for key, option in {**_TEXTS, **_PATHS, "user_jwt": "user_jwt"}.items():
        value = settings.get(key) or ""
        if not isinstance(value, str):
            raise ConfigError(f"the context {name!r} has a {key!r} that is no text; correct its file")
        if value:
            options[option] = _expanded(value) if key in _PATHS else value
    if settings.get("tls_first") is True:
        options["tls_handshake_first"] = True
    return _with_one_login(options)


def _with_one_login(options: dict[str, Any]) -> dict[str, Any]:
    jwt = options.pop("user_jwt", None)
    first = next((option for option in _LOGINS if option in options), None)
    if first == "user":
        options.setdefault("password", "")
    elif first is None and jwt is not None:
        options["user_jwt_cb"] = lambda: jwt
    allowed = {first, "password"} if first == "user" else {first}
    return {option: value for option, value in options.items() if option not in {*_LOGINS, "password"} - allowed}


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111 - pathlib expands no variables


def _home(environ: Mapping[str, str]) -> Path:
    config = environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "nats"


def _read(name: str, folder: Path) -> dict[str, Any]:
    file = folder / f"{name}.json"
    if file.name != f"{name}.json" or not file.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.json"))) or "none"
        raise ConfigError(f"there is no context {name!r} in {folder}; known are: {known}")
    try:
        settings = json.loads(file.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"the file {file} of a context cannot be read: {exc.strerror}") from None
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ConfigError(f"the file {file} of a context holds no JSON object; correct it, or write it anew") from None
    return settings
