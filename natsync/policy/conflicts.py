"""Options that contradict each other, or need each other: found before any I/O.

Knows the options' names; reads no file, asks no callback.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from natsync.errors import ConfigError
from natsync.policy.files import check_path
from natsync.policy.keys import check_public_key

if TYPE_CHECKING:
    from natsync.policy.options import Options

__all__ = ["TLS_DETAILS", "check_conflicts"]

_WAYS = (
    "user",
    "token",
    "user_info_cb",
    "token_cb",
    "nkeys_seed",
    "nkeys_seed_str",
    "user_credentials",
    "user_credentials_str",
    "user_jwt_cb",
    "nkey",
)
"""The options of which each is a way to authenticate of its own."""

TLS_DETAILS = ("tls_ca", "tls_cert", "tls_key", "tls_key_password", "tls_hostname", "tls_handshake_first")
"""The options that say how, and so also that, TLS is to be used."""

_PATHS = ("nkeys_seed", "user_credentials", "tls_ca", "tls_cert", "tls_key")

_OF_OUR_CONTEXT = ("tls_ca", "tls_cert", "tls_key", "tls_key_password")


def check_conflicts(options: Options) -> None:
    """Check options against each other.

    Raises:
        ConfigError: Two of them cannot be had together, or one is missing.
    """
    for name in _PATHS:
        value = getattr(options, name)
        for path in value if isinstance(value, (tuple, list)) else (value,):
            if path is not None:
                check_path(path, name)
    _check_credentials(options)
    _check_tls(options)


def _check_credentials(options: Options) -> None:
    if options.password is not None and options.user is None:
        raise ConfigError("password is given without user; give both", option="password")
    if options.user is not None and options.password is None:
        raise ConfigError("user is given without password; give both, or token for a token", option="user")
    ways = [name for name in _WAYS if getattr(options, name) is not None]
    if len(ways) > 1:
        raise ConfigError(f"{ways[0]} and {ways[1]} are two ways to authenticate; give one", option=ways[1])
    signs = options.signature_cb is not None
    if options.nkey is not None and not signs:
        raise ConfigError("nkey is a public key and needs signature_cb, or give nkeys_seed instead", option="nkey")
    if options.nkey is not None:
        check_public_key(options.nkey, "nkey")
    if signs and options.nkey is None and options.user_jwt_cb is None:
        raise ConfigError("signature_cb needs nkey, or user_jwt_cb", option="signature_cb")


def _check_tls(options: Options) -> None:
    _check_certificate(options)
    if options.tls is False:
        for name in (*TLS_DETAILS, "tls_verify"):
            if getattr(options, name) not in (None, name == "tls_verify"):
                raise ConfigError(f"tls=False contradicts {name}; leave one of them out", option="tls")
        if any(url.scheme == "tls" for url in options.servers):
            raise ConfigError("tls=False contradicts a server URL with tls://", option="tls")
    if options.tls not in (None, True, False):
        _check_own_context(options)


def _check_certificate(options: Options) -> None:
    for name in ("tls_key", "tls_key_password"):
        if getattr(options, name) is not None and options.tls_cert is None:
            raise ConfigError(f"{name} is given without tls_cert, the certificate that it belongs to", option=name)


def _check_own_context(options: Options) -> None:
    for name in _OF_OUR_CONTEXT:
        if getattr(options, name) is not None:
            raise ConfigError(
                f"tls is a context of your own, so {name} has no effect; load it into that context", option=name
            )
    if not options.tls_verify:
        raise ConfigError(
            "tls is a context of your own, so tls_verify has no effect; set its verify_mode", option="tls_verify"
        )
    if isinstance(options.tls, ssl.SSLContext):
        check_context(options.tls)


def check_context(context: ssl.SSLContext) -> None:
    """Check that a context of the user's is one for clients."""
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ConfigError("tls is a context for servers; make one with ssl.create_default_context()", option="tls")
