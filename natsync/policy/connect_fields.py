"""What the client says of itself in CONNECT.

Knows options, the server's URL and its INFO; asks the user's credential callbacks, so it must not be called under a
lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from natsync._version import __version__
from natsync.errors import ConfigError

if TYPE_CHECKING:
    from natsync.policy.options import Options
    from natsync.policy.urls import ServerUrl
    from natsync.protocol.info import ServerInfo

__all__ = ["connect_fields"]


def connect_fields(options: Options, url: ServerUrl, info: ServerInfo) -> Mapping[str, object]:
    """Return the fields of CONNECT for one server; holds secrets, is never logged.

    Raises:
        ConfigError: A credentials callback returned something that is no credential.
    """
    return {
        "verbose": options.verbose,
        "pedantic": options.pedantic,
        "tls_required": False,
        "name": options.name or "",
        "lang": "python",
        "version": __version__,
        "protocol": 1,
        "echo": not options.no_echo,
        "headers": info.headers,
        "no_responders": info.headers,
        **_credentials(options, url),
    }


def _credentials(options: Options, url: ServerUrl) -> Mapping[str, object]:
    # A URL's own credentials win [nats.go connectProto].
    if url.token is not None:
        return {"auth_token": url.token}
    if url.user is not None:
        return {"user": url.user, "pass": url.password}
    if options.token is not None:
        return {"auth_token": options.token}
    if options.user is not None:
        return {"user": options.user, "pass": options.password}
    if options.token_cb is not None:
        return {"auth_token": _text(options.token_cb(), "token_cb", "a token as str")}
    if options.user_info_cb is not None:
        return _user_info(options.user_info_cb())
    return {}


def _user_info(answer: object) -> Mapping[str, object]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ConfigError("user_info_cb must return (user, password)", option="user_info_cb")
    user, password = (_text(part, "user_info_cb", "(user, password) as two str") for part in answer)
    return {"user": user, "pass": password}


def _text(answer: object, option: str, what: str) -> str:
    if not isinstance(answer, str):
        raise ConfigError(f"{option} must return {what}, not {type(answer).__name__}", option=option)
    return answer
