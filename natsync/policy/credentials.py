"""Who the client is: which of the ways to authenticate is used with a server, and what it puts into CONNECT.

Knows options, a server's URL and its nonce. Files are read when an attempt begins, before anything is dialled, so that
a missing one is known at once; callbacks are asked when CONNECT is due, so they must not be called under a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from natsync.errors import AuthorizationError, ConfigError
from natsync.policy.files import read_file
from natsync.policy.keys import Seed, encode_signature, find_jwt, find_seed, wipe

if TYPE_CHECKING:
    from natsync.policy.options import Options
    from natsync.policy.urls import ServerUrl
    from natsync.protocol.info import ServerInfo

__all__ = ["Credentials", "read_credentials"]

_Fields = Mapping[str, object]


class Credentials:
    """One attempt's credentials; secrets, never shown.

    Args:
        answer: Makes CONNECT's fields from the server's INFO.
        seed: Wiped at the end of the attempt.
    """

    def __init__(self, answer: Callable[[ServerInfo], _Fields], seed: Seed | None = None) -> None:
        self.answer = answer
        self._seed = seed

    def wipe(self) -> None:
        """Forget the seed, as far as Python allows."""
        if self._seed is not None:
            self._seed.wipe()


def read_credentials(options: Options, url: ServerUrl) -> Credentials:
    """Choose the way, and read its files.

    Raises:
        ConfigError: A file cannot be read, or a seed or JWT is none.
    """
    # A URL's own credentials win [nats.go connectProto].
    if url.token is not None:
        return _fixed({"auth_token": url.token})
    if url.user is not None:
        return _fixed({"user": url.user, "pass": url.password})
    if options.token is not None:
        return _fixed({"auth_token": options.token})
    if options.user is not None:
        return _fixed({"user": options.user, "pass": options.password})
    if options.token_cb is not None or options.user_info_cb is not None:
        return Credentials(lambda _: _asked(options))
    if options.nkey is not None or options.user_jwt_cb is not None:
        return Credentials(lambda info: _signed_by_callback(options, info))
    return _from_seed(options)


def _fixed(fields: _Fields) -> Credentials:
    return Credentials(lambda _: fields)


def _asked(options: Options) -> _Fields:
    if options.token_cb is not None:
        return {"auth_token": _text(_ask("token_cb", options.token_cb), "token_cb", "a token as str")}
    assert options.user_info_cb is not None
    answer: object = _ask("user_info_cb", options.user_info_cb)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ConfigError("user_info_cb must return (user, password)", option="user_info_cb")
    user, password = (_text(part, "user_info_cb", "(user, password) as two str") for part in answer)
    return {"user": user, "pass": password}


def _signed_by_callback(options: Options, info: ServerInfo) -> _Fields:
    fields: dict[str, object] = {}
    if options.user_jwt_cb is not None:
        fields["jwt"] = _text(_ask("user_jwt_cb", options.user_jwt_cb), "user_jwt_cb", "a JWT as str").strip()
    else:
        fields["nkey"] = options.nkey
    callback = options.signature_cb
    if callback is not None:  # a bearer's JWT needs none
        nonce = _nonce(info, "nkey" if options.user_jwt_cb is None else "user_jwt_cb")
        fields["sig"] = encode_signature(_ask("signature_cb", lambda: callback(nonce)), "signature_cb")
    return fields


def _from_seed(options: Options) -> Credentials:
    if options.nkeys_seed is not None:
        return _nkey(read_file(options.nkeys_seed, "nkeys_seed"), "nkeys_seed")
    if options.nkeys_seed_str is not None:
        return _nkey(_bytes(options.nkeys_seed_str), "nkeys_seed_str")
    if options.user_credentials_str is not None:
        text = _bytes(options.user_credentials_str)
        return _jwt(text, text, "user_credentials_str")
    paths = options.user_credentials
    if paths is None:
        return _fixed({})
    if isinstance(paths, (tuple, list)):
        jwt, seed = (read_file(path, "user_credentials") for path in paths)
        return _jwt(jwt, seed, "user_credentials")
    text = read_file(paths, "user_credentials")
    return _jwt(text, text, "user_credentials")


def _bytes(text: str) -> bytearray:
    # Nothing is refused here: the errors of encoding carry the whole text.
    return bytearray(text.encode("utf-8", "surrogatepass"))


def _nkey(text: bytearray, option: str) -> Credentials:
    seed = _seed(text, option)
    return Credentials(lambda info: {"nkey": seed.public_key, "sig": _sign(seed, info, option)}, seed)


def _jwt(jwt_text: bytearray, seed_text: bytearray, option: str) -> Credentials:
    try:
        jwt = find_jwt(jwt_text, option)
        seed = _seed(seed_text, option)
    finally:
        wipe(jwt_text)
        wipe(seed_text)
    return Credentials(lambda info: {"jwt": jwt, "sig": _sign(seed, info, option)}, seed)


def _seed(text: bytearray, option: str) -> Seed:
    try:
        return Seed(find_seed(text, option), option)
    finally:
        wipe(text)


def _sign(seed: Seed, info: ServerInfo, option: str) -> str:
    return encode_signature(seed.sign(_nonce(info, option)), option)


def _nonce(info: ServerInfo, option: str) -> bytes:
    if not info.nonce:
        raise AuthorizationError(
            f"{option} is given, but the server sent no nonce to sign: it is not configured for NKeys or JWTs; "
            f"configure it, or leave out {option}"
        )
    return info.nonce.encode()


def _ask(option: str, callback: Callable[[], object]) -> object:
    try:
        return callback()
    except Exception as exc:
        raise ConfigError(f"{option} raised {type(exc).__name__}; see the cause", option=option) from exc


def _text(answer: object, option: str, what: str) -> str:
    if not isinstance(answer, str):
        raise ConfigError(f"{option} must return {what}, not {type(answer).__name__}", option=option)
    return answer
