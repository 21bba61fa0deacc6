"""Which of the ways to authenticate is used, and what it says."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from natsync.errors import AuthorizationError, ConfigError, ProtocolError
from natsync.policy.credentials import read_credentials
from natsync.policy.keys import Seed, find_jwt, find_seed
from natsync.policy.options import make_options
from natsync.policy.urls import parse_url
from natsync.protocol.info import ServerInfo, parse_info

if TYPE_CHECKING:
    from pathlib import Path

NONCE = "a nonce"
JWT = "eyJ0eXAiOiJKV1QifQ.eyJqdGkiOiJ4In0.c2ln-_x"


def make_seed(number: int = 7, kind: int = nkeys.PREFIX_BYTE_USER) -> str:
    seed: bytes = nkeys.encode_seed(bytes([number]) * 32, kind)
    return seed.decode()


SEED = make_seed()
CREDS = f"""-----BEGIN NATS USER JWT-----
{JWT}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


def credentials(url: Any = "a", **options: Any) -> dict[str, Any]:
    asked = read_credentials(make_options(None, options), parse_url(url))
    try:
        return dict(asked.answer(ServerInfo(nonce=NONCE)))
    finally:
        asked.wipe()


def public_key(seed: str = SEED) -> str:
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode()


def mistyped(key: str) -> str:
    return key[:20] + ("A" if key[20] != "A" else "B") + key[21:]


def is_signed(sig: str, seed: str = SEED) -> bool:
    raw = base64.urlsafe_b64decode(sig + "==")
    VerifyKey(base64.b32decode(public_key(seed))[1:33]).verify(NONCE.encode(), raw)
    return True


@pytest.mark.parametrize(
    "url, options, said",
    [
        ("a", {}, {}),
        ("joe:pw@a", {}, {"user": "joe", "pass": "pw"}),
        ("joe:@a", {}, {"user": "joe", "pass": ""}),
        ("tok@a", {}, {"auth_token": "tok"}),
        ("a", {"user": "joe", "password": "pw"}, {"user": "joe", "pass": "pw"}),
        ("a", {"token": "tok"}, {"auth_token": "tok"}),
        ("a", {"token_cb": lambda: "tok"}, {"auth_token": "tok"}),
        ("a", {"user_info_cb": lambda: ("joe", "pw")}, {"user": "joe", "pass": "pw"}),
        ("joe:pw@a", {"token": "tok"}, {"user": "joe", "pass": "pw"}),
        ("tok@a", {"user": "joe", "password": "pw"}, {"auth_token": "tok"}),
    ],
)
def test_one_kind_of_credentials_is_said_and_the_urls_own_win(url: str, options: dict[str, Any], said: dict[str, str]):
    assert credentials(url, **options) == said


@pytest.mark.parametrize("option", ["token_cb", "user_info_cb"])
def test_a_callback_is_not_asked_when_the_url_has_credentials(option: str):
    def fail() -> None:
        raise AssertionError("it might ask a password store")

    assert credentials("joe:pw@a", **{option: fail}) == {"user": "joe", "pass": "pw"}


def test_callbacks_are_asked_at_every_connect():
    answers = iter(["first", "second"])
    options = make_options(None, {"token_cb": lambda: next(answers)})
    for token in ("first", "second"):
        assert read_credentials(options, parse_url("a")).answer(ServerInfo()) == {"auth_token": token}


@pytest.mark.parametrize(
    "option, answer, takes",
    [
        ("token_cb", None, "a token as str, not NoneType"),
        ("token_cb", b"s3cr3t", "a token as str, not bytes"),
        ("user_info_cb", None, r"\(user, password\)"),
        ("user_info_cb", "s3cr3t", r"\(user, password\)"),
        ("user_info_cb", ("joe",), r"\(user, password\)"),
        ("user_info_cb", ("joe", "s3cr3t", "x"), r"\(user, password\)"),
        ("user_info_cb", ["joe", "s3cr3t"], r"\(user, password\)"),
        ("user_info_cb", ("joe", b"s3cr3t"), r"\(user, password\) as two str, not bytes"),
        ("user_info_cb", (None, "s3cr3t"), r"\(user, password\) as two str, not NoneType"),
    ],
)
def test_an_answer_that_is_no_credential_is_told_without_quoting_it(option: str, answer: Any, takes: str):
    with pytest.raises(ConfigError, match=f"{option} must return {takes}") as caught:
        credentials("a", **{option: lambda: answer})
    assert caught.value.option == option
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("option", ["token_cb", "user_info_cb", "user_jwt_cb"])
def test_what_a_callback_raises_is_the_cause(option: str):
    class VaultError(Exception):
        pass

    def fail() -> str:
        raise VaultError("s3cr3t")

    with pytest.raises(ConfigError, match=f"^{option} raised VaultError") as caught:
        credentials(**{option: fail})
    assert caught.value.option == option
    assert isinstance(caught.value.__cause__, VaultError)


# Seeds, JWTs and signatures.


@pytest.mark.parametrize(
    "text",
    [
        SEED,
        f"{SEED}\r\n",
        f"# ours\n\n  {SEED}  \n",
        f"-----BEGIN USER NKEY SEED-----\n{SEED}\n------END-------\n",
        CREDS,
    ],
)
def test_an_nkey_signs_the_nonce(text: str, tmp_path: Path):
    file = tmp_path / "user.nk"
    file.write_text(text)
    for options in ({"nkeys_seed": file}, {"nkeys_seed": str(file)}, {"nkeys_seed_str": text}):
        said = credentials(**options)
        assert said.keys() == {"nkey", "sig"}
        assert said["nkey"] == public_key()
        assert is_signed(said["sig"])


@pytest.mark.parametrize("text", [CREDS, CREDS.replace("\n", "\r\n"), CREDS.replace("---", "-----"), f"{JWT}\n{SEED}"])
def test_a_credentials_file_says_its_jwt_and_signs(text: str, tmp_path: Path):
    file, jwt, seed = (tmp_path / name for name in ("user.creds", "user.jwt", "user.nk"))
    file.write_bytes(text.encode())
    jwt.write_text(f"{JWT}\n")
    seed.write_text(SEED)
    for options in ({"user_credentials": file}, {"user_credentials": (jwt, seed)}, {"user_credentials_str": text}):
        said = credentials(**options)
        assert said.keys() == {"jwt", "sig"}
        assert said["jwt"] == JWT
        assert is_signed(said["sig"])


def test_home_and_variables_are_known_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "user.nk").write_text(SEED)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    for path in ("~/user.nk", "$PLACE/user.nk"):
        assert credentials(nkeys_seed=path)["nkey"] == public_key()


def test_files_are_read_anew_at_each_connect(tmp_path: Path):
    file = tmp_path / "user.nk"
    options = make_options(None, {"nkeys_seed": file})
    for seed in (make_seed(1), make_seed(2)):
        file.write_text(seed)
        said = read_credentials(options, parse_url("a")).answer(ServerInfo(nonce=NONCE))
        assert said["nkey"] == public_key(seed)


def test_signing_may_be_left_to_a_callback():
    keys = nkeys.from_seed(bytearray(SEED.encode()))
    said = credentials(nkey=public_key(), signature_cb=keys.sign)
    assert said["nkey"] == public_key()
    assert is_signed(said["sig"])
    said = credentials(user_jwt_cb=lambda: f"{JWT}\n", signature_cb=keys.sign)
    assert said["jwt"] == JWT
    assert is_signed(said["sig"])


def test_a_bearer_signs_nothing():
    assert credentials(user_jwt_cb=lambda: JWT) == {"jwt": JWT}


@pytest.mark.parametrize("answer", ["text", b"x" * 63, b"x" * 88, None, 5])
def test_a_signature_that_is_none_is_told(answer: Any):
    with pytest.raises(ConfigError, match="signature_cb must return the 64 raw bytes") as caught:
        credentials(nkey=public_key(), signature_cb=lambda _: answer)
    assert caught.value.option == "signature_cb"


@pytest.mark.parametrize(
    "nkey",
    [
        "U",
        "x",
        SEED,
        mistyped(public_key()),
        public_key()[:-1],
        public_key() + "A",
        public_key().lower(),
        public_key(make_seed(kind=nkeys.PREFIX_BYTE_ACCOUNT)),
        "Ü" * 56,
    ],
)
def test_a_public_key_that_is_none_is_told(nkey: str):
    with pytest.raises(ConfigError, match="nkey takes a user's public key") as caught:
        make_options(None, {"nkey": nkey, "signature_cb": bytes})
    assert caught.value.option == "nkey"
    assert len(nkey) < 50 or nkey not in str(caught.value)


@pytest.mark.parametrize("option", ["nkeys_seed", "user_credentials", "tls_ca", "tls_cert", "tls_key"])
@pytest.mark.parametrize("content", [SEED, JWT, CREDS, "a\nb", "-----BEGIN CERTIFICATE-----"])
def test_the_content_in_place_of_the_path_is_told_and_not_shown(content: str, option: str):
    for value in (content, [content, "x"]) if option == "user_credentials" else (content,):
        with pytest.raises(ConfigError, match="path of a file") as caught:
            make_options(None, {"tls_cert": "x", option: value})
        assert caught.value.option == option
        assert content not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"nkeys_seed_str": SEED}, {"user_credentials_str": CREDS}, {"nkey": public_key(), "signature_cb": bytes}],
)
def test_a_server_without_a_nonce_is_told(options: dict[str, Any]):
    asked = read_credentials(make_options(None, options), parse_url("a"))
    with pytest.raises(AuthorizationError, match="sent no nonce"):
        asked.answer(ServerInfo())


@pytest.mark.parametrize(
    "text, says",
    [
        ("s3cr3t", "holds no seed"),
        (mistyped(SEED), "holds no valid seed"),
        (SEED[:-4], "holds no valid seed"),
        (SEED[:-1] + "=", "holds no seed"),
        (SEED + "A", "holds no valid seed"),
        (make_seed(kind=nkeys.PREFIX_BYTE_ACCOUNT), "holds the seed of something else than a user"),
    ],
)
def test_a_seed_that_is_none_is_told_by_its_option(text: str, says: str, tmp_path: Path):
    file = tmp_path / "user.nk"
    file.write_text(text)
    for option, value in (("nkeys_seed", file), ("nkeys_seed_str", text)):
        with pytest.raises(ConfigError, match=f"^{option} {says}") as caught:
            credentials(**{option: value})
        assert caught.value.option == option
        assert text not in repr(caught.value)


@pytest.mark.parametrize("text, says", [(SEED, "no JWT"), (JWT, "no seed")])
def test_half_of_a_credentials_file_is_none(text: str, says: str):
    with pytest.raises(ConfigError, match=says) as caught:
        credentials(user_credentials_str=text)
    assert caught.value.option == "user_credentials_str"


@pytest.mark.parametrize("option", ["nkeys_seed", "user_credentials"])
def test_a_file_that_cannot_be_used_is_named(option: str, tmp_path: Path):
    empty, huge = tmp_path / "empty", tmp_path / "huge"
    empty.write_text("\n")
    huge.write_bytes(b"x" * (1024 * 1024 + 1))
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path, ""), (empty, "is empty"), (huge, "more than")):
        with pytest.raises(ConfigError, match=f"{path.name} of {option}.*{says}") as caught:
            credentials(**{option: path})
        assert caught.value.option == option


@given(st.text(max_size=300) | st.integers() | st.lists(st.text()) | st.none())
def test_any_nonce_is_signed_or_refused(nonce: object):
    asked = read_credentials(make_options(None, {"nkeys_seed_str": SEED}), parse_url("a"))
    try:
        info = parse_info(json.dumps({"nonce": nonce}).encode())
        signature = base64.urlsafe_b64decode(f"{asked.answer(info)['sig']}==")
    except (AuthorizationError, ProtocolError):
        return
    finally:
        asked.wipe()
    assert isinstance(nonce, str)
    VerifyKey(base64.b32decode(public_key())[1:33]).verify(nonce.encode(), signature)


@pytest.mark.parametrize("text", [SEED[:20] + "\ud800" + SEED[20:], CREDS.replace(SEED, "\ud800" + SEED)])
@pytest.mark.parametrize("option", ["nkeys_seed_str", "user_credentials_str"])
def test_half_a_character_in_a_secret_is_not_shown_with_it(text: str, option: str):
    with pytest.raises(ConfigError) as caught:
        credentials(**{option: text})
    assert caught.value.option == option
    assert caught.value.__context__ is None


def test_half_a_character_in_a_comment_of_creds_does_no_harm():
    assert credentials(user_credentials_str=f"# \ud800\n{CREDS}")["jwt"] == JWT


def test_seeds_are_wiped():
    text = bytearray(CREDS.encode())
    seed = Seed(find_seed(text, "x"), "x")
    assert find_jwt(text, "x") == JWT
    assert is_signed(base64.urlsafe_b64encode(seed.sign(NONCE.encode())).decode().rstrip("="))
    seed.wipe()
    assert not any(seed._text)
    asked = read_credentials(make_options(None, {"nkeys_seed_str": SEED}), parse_url("a"))
    asked.wipe()
    with pytest.raises(Exception):  # noqa: B017 - whatever nkeys says to zeroes
        asked.answer(ServerInfo(nonce=NONCE))
