"""Certificates of every kind, good and bad, the server's configuration that uses them, and TLS for scripted servers.

An `Authority` writes PEM files into a folder of the test's own. Keys are on an elliptic curve: one takes a tenth of a
millisecond, so every test makes its own authority.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import itertools
import json
import ssl
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.scripted import Conn

Days = tuple[float, float]
"""When a certificate begins and ends, in days from now."""

GOOD: Days = (-1, 30)
EXPIRED: Days = (-30, -1)
NOT_YET_VALID: Days = (1, 30)

_ATTRIBUTES = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its key, each in a PEM file; intermediate authorities follow the certificate in its file."""

    cert: Path
    key: Path
    private_key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    def encrypt_key(self, password: str) -> Path:
        """Write the key once more, encrypted."""
        path = self.key.with_suffix(".encrypted.pem")
        path.write_bytes(_key_pem(self.private_key, serialization.BestAvailableEncryption(password.encode())))
        return path

    def combined(self) -> Path:
        """Write certificate and key into one file."""
        path = self.cert.with_suffix(".both.pem")
        path.write_bytes(self.cert.read_bytes() + self.key.read_bytes())
        return path

    def replace_with(self, other: Certificate) -> None:
        """Put another certificate and its key into these files, as whoever renews them does."""
        self.cert.write_bytes(other.cert.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


class Authority:
    """A certificate authority, whose own certificate is in `file`.

    Args:
        folder: Where all files go.
        name: The authority's common name.
        parent: The authority that signs this one; None signs itself, as a root does.
    """

    def __init__(self, folder: Path, name: str = "the tests' authority", parent: Authority | None = None) -> None:
        self._folder = folder
        self._parent = parent
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name({"CN": f"{name} {next(_numbers)}"})
        builder = _builder(self._name, self._key, GOOD).add_extension(x509.BasicConstraints(True, None), True)
        builder = builder.add_extension(_usage(is_authority=True), True)
        self._certificate = (parent or self)._sign(builder)
        self.file = folder / f"authority-{next(_numbers)}.pem"
        self.file.write_bytes(_pem(self._certificate))

    def server(
        self, *names: str, days: Days = GOOD, purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    ) -> Certificate:
        """Make a server's certificate for host names and IP addresses; without any, for localhost and 127.0.0.1."""
        return self._issue({"CN": "server"}, _names(names or ("localhost", "127.0.0.1")), purpose, days)

    def client(self, *, email: str | None = None, days: Days = GOOD, **dn: str) -> Certificate:
        """Make a client's certificate with this e-mail address and this distinguished name (`CN=`, `O=`, `OU=`)."""
        names: list[x509.GeneralName] = [] if email is None else [x509.RFC822Name(email)]
        return self._issue(dn or {"CN": "client"}, names, ExtendedKeyUsageOID.CLIENT_AUTH, days)

    def renew(self, other: Authority) -> None:
        """Put another authority's certificate into this one's file."""
        self.file.write_bytes(other.file.read_bytes())

    def _issue(
        self,
        dn: dict[str, str],
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        days: Days,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        return _write(self._folder, self._sign(_leaf(dn, names, purpose, days, key)), key, self._chain())

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.issuer_name(self._name).add_extension(issuer, False).sign(self._key, hashes.SHA256())

    def _chain(self) -> bytes:
        return b"" if self._parent is None else _pem(self._certificate) + self._parent._chain()


def self_signed(folder: Path, *names: str, days: Days = GOOD) -> Certificate:
    """Make a server's certificate that no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    general = _names(names or ("localhost", "127.0.0.1"))
    builder = _leaf({"CN": "alone"}, general, ExtendedKeyUsageOID.SERVER_AUTH, days, key)
    certificate = builder.issuer_name(_name({"CN": "alone"})).sign(key, hashes.SHA256())
    return _write(folder, certificate, key, b"")


def tls_config(server: Certificate, *, ca: Path | None = None, top: str = "", **settings: Any) -> str:
    """The configuration of a server that requires TLS.

    Args:
        server: The server's certificate.
        ca: The file of the authority that signs clients' certificates.
        top: More lines, outside of the block.
        settings: More lines of the `tls` block; they have JSON's form.
    """
    lines = {"cert_file": str(server.cert), "key_file": str(server.key), "timeout": 5, **settings}
    if ca is not None:
        lines["ca_file"] = str(ca)
    block = "\n".join(f"  {name}: {json.dumps(value)}" for name, value in lines.items())
    return f"tls {{\n{block}\n}}\n{top}\n"


def server_context(server: Certificate, *, ca: Path | None = None) -> ssl.SSLContext:
    """A context for a server in Python; with `ca` clients must show a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def start_tls(conn: Conn, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Play the server's part of the TLS handshake in a script, and go on encrypted; raises what `ssl` raises."""
    plain = conn._socket
    plain.settimeout(conn.timeout)
    encrypted = context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=True)
    encrypted.settimeout(0.02)  # what `Conn` has
    conn._socket = encrypted
    return encrypted


def _name(dn: dict[str, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[key], value) for key, value in dn.items()])


def _names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _leaf(
    dn: dict[str, str],
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    days: Days,
    key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    builder = _builder(_name(dn), key, days).add_extension(x509.BasicConstraints(False, None), True)
    builder = builder.add_extension(_usage(is_authority=False), True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
    return builder.add_extension(x509.SubjectAlternativeName(names), False) if names else builder


def _builder(name: x509.Name, key: ec.EllipticCurvePrivateKey, days: Days) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    begin, end = (now + datetime.timedelta(days=each) for each in days)
    builder = x509.CertificateBuilder().subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, chain: bytes) -> Certificate:
    number = next(_numbers)
    made = Certificate(folder / f"cert-{number}.pem", folder / f"key-{number}.pem", key)
    made.cert.write_bytes(_pem(certificate) + chain)
    made.key.write_bytes(_key_pem(key, serialization.NoEncryption()))
    return made


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
