"""OpenSSL's numbers and names in words."""

from __future__ import annotations

import ssl

import pytest

from natsync.policy.tls_errors import explain


def said(exc: ssl.SSLError) -> str:
    error = explain(exc, server="tls://a:4222", name="a")
    assert error.server == "tls://a:4222"
    return str(error)


def refused(code: int, message: str = "") -> ssl.SSLCertVerificationError:
    exc = ssl.SSLCertVerificationError(1, "certificate verify failed")
    exc.verify_code, exc.verify_message = code, message
    return exc


def failed(reason: str | None, text: str = "") -> ssl.SSLError:
    exc = ssl.SSLError(1, text)
    exc.reason = reason  # type: ignore[assignment]
    return exc


@pytest.mark.parametrize(
    "code, words",
    [(10, "has expired"), (18, "is self-signed"), (20, "authority that is not trusted"), (62, "another name than a;")],
)
def test_a_certificate_that_is_not_accepted(code: int, words: str):
    assert said(refused(code)).startswith("the certificate of tls://a:4222 ")
    assert words in said(refused(code))


def test_a_rare_fault_of_a_certificate_is_told_in_openssls_words():
    assert "is not accepted (path length exceeded)" in said(refused(25, "path length exceeded"))


@pytest.mark.parametrize(
    "reason, words",
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "give tls_cert and tls_key"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "check tls_cert"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know the authority of our certificate"),
        ("WRONG_VERSION_NUMBER", "does not begin with TLS"),
        ("SOMETHING_NEW", r"(something new); see the server's log"),
    ],
)
def test_a_handshake_that_failed(reason: str, words: str):
    assert words in said(failed(reason))


def test_an_error_without_a_reason():
    assert "(no idea)" in said(failed(None, "no idea"))
    assert "(SSLError)" in said(ssl.SSLError())


def test_an_end_in_the_handshake():
    assert "closed the connection in the TLS handshake" in said(ssl.SSLEOFError())
