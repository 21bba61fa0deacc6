"""Server URLs: what users write, as values.

Knows the grammar of `servers=`; knows nothing of the state of a server (that is `pool`) or of sockets. A URL holds the
user's secrets; `str()` and `repr()` never show them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit

from natsync.errors import ConfigError

__all__ = ["DEFAULT_URL", "ServerUrl", "parse_servers", "parse_url"]

DEFAULT_URL = "nats://127.0.0.1:4222"
_DEFAULT_PORTS = {"nats": 4222, "tls": 4222}
_PERCENT_ENCODE = "percent-encode special characters of user and password"
_TAKES = "nats://[user:password@|token@]host[:port]"


@dataclasses.dataclass(frozen=True, repr=False)
class ServerUrl:
    """One server's address and the credentials that its URL brought."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None
    token: str | None = None

    @property
    def redacted(self) -> str:
        """The URL without credentials: all that logs, errors and events may show."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return self.redacted

    def __repr__(self) -> str:
        return f"<ServerUrl {self.redacted}>"


def parse_url(text: str, *, default_scheme: str = "nats") -> ServerUrl:
    """Read one URL; scheme and port are optional, user info is percent-decoded, a user without password is a token.

    Raises:
        ConfigError: It cannot be read. The text itself is never quoted, since it may hold a password.
    """
    text = text.strip().removesuffix("/")
    if not text:
        raise _bad("a server URL is empty")
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in text):
        raise _bad("a server URL has white space or control characters in it")
    if "://" not in text:
        text = f"{default_scheme}://{text}"
    parts = _split(text)
    if isinstance(parts, ConfigError):
        raise parts
    if parts.scheme not in _DEFAULT_PORTS:
        # With an "@" somewhere, what looks like a scheme may be the beginning of a password.
        shown = "" if "@" in text else f" {parts.scheme!r}"
        raise _bad(f"the scheme of a server URL is{shown or ' unknown'}; natsync knows {' and '.join(_DEFAULT_PORTS)}")
    if parts.path or parts.query or parts.fragment:
        # ADR-18 decided against options in URLs.
        hint = _PERCENT_ENCODE if "@" in text else "options are arguments of connect()"
        raise _bad(f"a server URL goes on after the port ({hint})")
    if not parts.hostname:
        raise _bad("a server URL has no host")
    if parts.port == 0:
        raise _bad("the port of a server URL is 0; ports are 1 to 65535")
    user, password, token = _user_info(parts.username, parts.password)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return ServerUrl(parts.scheme, parts.hostname, port, user, password, token)


def parse_servers(servers: str | Iterable[str] | None) -> tuple[ServerUrl, ...]:
    """Read the `servers` argument of `connect()`; equal addresses are kept once.

    The first one of them wins; but if any of them asks for TLS, so does the one that is kept.
    """
    if servers is None:
        servers = DEFAULT_URL
    if isinstance(servers, str):
        servers = [part for part in servers.split(",") if part.strip()] or [servers]
    try:
        texts = list(servers)
    except TypeError:
        raise ConfigError(
            f"servers takes a URL, a comma-separated string or a sequence of URLs, not {type(servers).__name__}",
            option="servers",
        ) from None
    urls: dict[tuple[str, int], ServerUrl] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"servers holds URLs as str, not {type(text).__name__}", option="servers")
        for part in text.split(","):
            url = parse_url(part)
            first = urls.setdefault((url.host, url.port), url)
            if url.scheme == "tls" and first.scheme == "nats":
                urls[url.host, url.port] = dataclasses.replace(first, scheme="tls")
    if not urls:
        raise ConfigError("servers is empty; give at least one URL", option="servers")
    return tuple(urls.values())


def _split(text: str) -> SplitResult | ConfigError:
    # The error is returned, not raised: what urllib says, and quotes, would be its context.
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port
    except ValueError as exc:
        return _bad(f"a server URL cannot be read ({_harmless(exc)})")
    return parts


def _user_info(user: str | None, password: str | None) -> tuple[str | None, str | None, str | None]:
    if not user and not password:
        return None, None, None
    if password is None:
        return None, None, unquote(user or "")
    return unquote(user or ""), unquote(password), None


def _bad(what: str) -> ConfigError:
    return ConfigError(f"servers: {what}; write {_TAKES}", option="servers")


def _harmless(exc: ValueError) -> str:
    # urllib quotes what it could not read, which may be a password cut at an unescaped "#", "/" or "[".
    return _PERCENT_ENCODE if "'" in str(exc) else str(exc)[:60]
