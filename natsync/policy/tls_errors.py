"""What went wrong in TLS, in words: which of the many ways, and what to do about it.

Knows the numbers and names of OpenSSL, as Python's `ssl` passes them on.
"""

from __future__ import annotations

import ssl

from natsync.errors import TLSError

__all__ = ["explain"]

# X509_V_ERR_*: what our side found wrong with the server's certificate.
_VERIFICATION = {
    9: "is not yet valid; check the clocks",
    10: "has expired; renew it on the server",
    18: "is self-signed, and not trusted; give it as tls_ca",
    19: "comes from an authority that is not trusted; give that authority's certificate as tls_ca",
    20: "comes from an authority that is not trusted; give that authority's certificate as tls_ca",
    21: "cannot be verified: the server does not send the certificates between it and its authority",
    23: "has been revoked",
    62: "is for another name than {name}; use a name of the certificate in the URL, or give tls_hostname",
    64: "is not for the address {name}; use a name of the certificate in the URL, or give tls_hostname",
}

# Parts of OpenSSL's reasons: what the server's side, or the line between, has found.
_REASONS = (
    ("ALERT_CERTIFICATE_REQUIRED", "the server requires a client certificate; give tls_cert and tls_key"),
    ("ALERT_BAD_CERTIFICATE", "the server wants another client certificate, or one at all; check tls_cert and tls_key"),
    ("ALERT_CERTIFICATE_EXPIRED", "the server says that our certificate has expired; renew the one of tls_cert"),
    ("ALERT_CERTIFICATE_REVOKED", "the server says that our certificate is revoked; get another one for tls_cert"),
    ("ALERT_CERTIFICATE_UNKNOWN", "the server refuses our certificate; check tls_cert"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "the server refuses our certificate; is it one for clients? Check tls_cert"),
    ("ALERT_UNKNOWN_CA", "the server does not know the authority of our certificate; check tls_cert"),
    ("ALERT_PROTOCOL_VERSION", "the server has no version of TLS in common with us; 1.2 is the oldest that we use"),
    ("UNSUPPORTED_PROTOCOL", "the server has no version of TLS in common with us; 1.2 is the oldest that we use"),
    ("ALERT_HANDSHAKE_FAILURE", "the server refused the handshake: no cipher in common, or no certificate of ours"),
    ("ALERT_INTERNAL_ERROR", "the server failed in the handshake; see its log"),
    (
        "WRONG_VERSION_NUMBER",
        "the server does not begin with TLS; if it begins with INFO, leave tls_handshake_first out",
    ),
    (
        "RECORD_LAYER_FAILURE",
        "the server does not begin with TLS; if it begins with INFO, leave tls_handshake_first out",
    ),
)


def explain(exc: ssl.SSLError, *, server: str, name: str | None) -> TLSError:
    """Return the error for what `ssl` raised.

    Args:
        exc: What it raised.
        server: The server's redacted URL.
        name: The name or address that the certificate was checked against.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        said = _VERIFICATION.get(exc.verify_code)
        if said is None:
            said = f"is not accepted ({exc.verify_message})"
        return TLSError(f"the certificate of {server} {said.format(name=name)}", server=server)
    if isinstance(exc, ssl.SSLEOFError):
        return closed(server)
    reason = getattr(exc, "reason", None) or ""  # one that Python has made itself has none
    for part, said in _REASONS:
        if part in reason:
            return TLSError(f"TLS with {server} failed: {said}", server=server)
    what = reason.lower().replace("_", " ") or exc.strerror or type(exc).__name__
    return TLSError(f"TLS with {server} failed ({what}); see the server's log", server=server)


def closed(server: str) -> TLSError:
    """Return the error for a connection that ended in the handshake, or right behind it."""
    return TLSError(
        f"{server} closed the connection in the TLS handshake; does it want a client certificate (tls_cert)? Does it "
        "speak TLS there?",
        server=server,
    )
