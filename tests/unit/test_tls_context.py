"""From options to a context of ssl, and what is wrong with files."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from natsync.errors import ConfigError
from natsync.policy.options import make_options
from natsync.policy.tls_context import make_context

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tls


def context_of(**options: Any) -> ssl.SSLContext:
    return make_context(make_options(None, options))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an authority, two certificates with their keys, one key encrypted by "s3cr3t"."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("one", "two"):
        certificate = authority.issue_cert(f"{name}@example.org")
        (folder / f"{name}.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.both"))
    key = serialization.load_pem_private_key((folder / "one.key").read_bytes(), None)
    (folder / "locked.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cr3t"),
        )
    )
    (folder / "junk").write_text("junk")
    return folder


def test_without_options_all_is_verified():
    context = context_of()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_an_authority_of_our_own_replaces_those_of_the_system(files: Path):
    for path in (files / "ca.pem", str(files / "ca.pem")):
        context = context_of(tls_ca=path)
        assert context.cert_store_stats()["x509_ca"] == 1
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_authorities_may_be_in_a_folder(files: Path):
    assert context_of(tls_ca=files).cert_store_stats()["x509_ca"] == 0  # it is looked into when a certificate comes


def test_verification_can_be_switched_off():
    context = context_of(tls_verify=False)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_certificates_with_their_keys(files: Path):
    context_of(tls_cert=files / "one.pem", tls_key=files / "one.key")
    context_of(tls_cert=files / "one.both")
    context_of(tls_cert=files / "one.pem", tls_key=files / "locked.key", tls_key_password="s3cr3t")


@pytest.mark.parametrize(
    "names, option, says",
    [
        ({"tls_ca": "none"}, "tls_ca", "none of tls_ca cannot be read: No such file"),
        ({"tls_ca": "junk"}, "tls_ca", "junk of tls_ca holds no certificates"),
        ({"tls_cert": "none"}, "tls_cert", "none of tls_cert cannot be read"),
        ({"tls_cert": "."}, "tls_cert", "of tls_cert cannot be read"),
        ({"tls_cert": "one.pem", "tls_key": "none"}, "tls_key", "none of tls_key cannot be read"),
        ({"tls_cert": "junk", "tls_key": "one.key"}, "tls_cert", "junk of tls_cert holds no certificate"),
        ({"tls_cert": "one.pem", "tls_key": "junk"}, "tls_key", "junk of tls_key holds no private key"),
        ({"tls_cert": "one.pem"}, "tls_key", "holds no key beside the certificate; give tls_key"),
        ({"tls_cert": "one.pem", "tls_key": "two.key"}, "tls_key", "two.key does not belong to the certificate"),
        ({"tls_cert": "one.pem", "tls_key": "locked.key"}, "tls_key_password", "is encrypted; give tls_key_password"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(names: dict[str, str], option: str, says: str, files: Path):
    with pytest.raises(ConfigError, match=says) as caught:
        context_of(**{name: files / value for name, value in names.items()})
    assert caught.value.option == option


@pytest.mark.parametrize("password", ["wrong-s3cr3t", "x" * 2000])
def test_a_wrong_password_is_told_and_not_shown(password: str, files: Path):
    with pytest.raises(ConfigError, match="does not open the key in ") as caught:
        context_of(tls_cert=files / "one.pem", tls_key=files / "locked.key", tls_key_password=password)
    assert caught.value.option == "tls_key_password"
    assert caught.value.__cause__ is None


def test_a_context_of_the_users_own():
    own = ssl.create_default_context()
    assert context_of(tls=own) is own
    assert context_of(tls=lambda: own) is own


@pytest.mark.parametrize(
    "factory, says",
    [
        (lambda: None, "must return an ssl.SSLContext, not NoneType"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
        (lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "is a context for servers"),
    ],
)
def test_a_factory_that_fails(factory: Any, says: str):
    with pytest.raises(ConfigError, match=says) as caught:
        context_of(tls=factory)
    assert caught.value.option == "tls"
