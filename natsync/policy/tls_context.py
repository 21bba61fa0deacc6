"""From options to an `ssl.SSLContext`: which authorities are trusted, and which certificate is shown.

Made anew at each connect, so that renewed files are used. Knows no socket.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from natsync.errors import ConfigError
from natsync.policy.conflicts import check_context
from natsync.policy.files import expand, unreadable

if TYPE_CHECKING:
    from natsync.policy.options import Options

__all__ = ["make_context"]


def make_context(options: Options) -> ssl.SSLContext:
    """Return the context for one connection; asks the user's factory, so it must not be called under a lock.

    Without options: the system's trust store, names verified, TLS 1.2 and newer.

    Raises:
        ConfigError: A file is missing or is not what it should be, or the factory failed.
    """
    if isinstance(options.tls, ssl.SSLContext):
        return options.tls
    if callable(options.tls):
        return _from_factory(options.tls)
    context = ssl.create_default_context()
    if options.tls_ca is not None:
        context = _trusting(options.tls_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.tls_cert is not None:
        _load_certificate(context, options)
    return context


def _from_factory(factory: Callable[[], object]) -> ssl.SSLContext:
    try:
        context = factory()
    except Exception as exc:
        raise ConfigError(f"the tls callable raised {type(exc).__name__}; see the cause", option="tls") from exc
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(f"the tls callable must return an ssl.SSLContext, not {type(context).__name__}", option="tls")
    check_context(context)
    return context


def _trusting(path: str | os.PathLike[str]) -> ssl.SSLContext:
    place = expand(path)
    try:
        if place.is_dir():
            return ssl.create_default_context(capath=place)
        return ssl.create_default_context(cafile=place)
    except ssl.SSLError as exc:
        raise ConfigError(f"the file {path} of tls_ca holds no certificates in PEM format", option="tls_ca") from exc
    except (OSError, ValueError) as exc:  # ValueError: there is a NUL in it
        raise unreadable(path, "tls_ca", exc) from exc


def _load_certificate(context: ssl.SSLContext, options: Options) -> None:
    certificate, key = options.tls_cert, options.tls_key
    assert certificate is not None
    for path, option in ((certificate, "tls_cert"), (key, "tls_key")):
        if path is not None:
            _check_readable(path, option)
    asked: list[bool] = []

    def password() -> str:
        # Asked only if the key is encrypted; without this, OpenSSL would ask the terminal, and wait.
        asked.append(True)
        return options.tls_key_password or ""

    failure: Exception | None = None
    try:
        context.load_cert_chain(expand(certificate), None if key is None else expand(key), password)
    except (ssl.SSLError, ValueError) as exc:
        failure = exc
    if failure is not None:
        # When a password is about, it is neither cause nor context: nobody knows what a library puts into its errors.
        raise _bad_certificate(options, failure, asked=bool(asked)) from (None if asked else failure)


def _check_readable(path: str | os.PathLike[str], option: str) -> None:
    # load_cert_chain() does not say which of its files it could not read.
    try:
        with expand(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as exc:  # ValueError: there is a NUL in it
        raise unreadable(path, option, exc) from exc


def _bad_certificate(options: Options, exc: Exception, *, asked: bool) -> ConfigError:
    where = options.tls_cert if options.tls_key is None else options.tls_key
    if asked and options.tls_key_password is None:
        return ConfigError(f"the key in {where} is encrypted; give tls_key_password", option="tls_key_password")
    if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
        return ConfigError(
            f"the key in {where} does not belong to the certificate in {options.tls_cert}", option="tls_key"
        )
    if asked:
        return ConfigError(f"tls_key_password does not open the key in {where}", option="tls_key_password")
    if not _is_certificate(options.tls_cert):
        return ConfigError(
            f"the file {options.tls_cert} of tls_cert holds no certificate in PEM format", option="tls_cert"
        )
    if options.tls_key is None:
        return ConfigError(
            f"the file {where} of tls_cert holds no key beside the certificate; give tls_key", option="tls_key"
        )
    return ConfigError(f"the file {where} of tls_key holds no private key in PEM format", option="tls_key")


def _is_certificate(path: str | os.PathLike[str] | None) -> bool:
    assert path is not None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(expand(path))
    except (OSError, ValueError):
        return False
    return True
