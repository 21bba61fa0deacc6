"""NKeys and JWTs as users keep them: seeds, `.creds` files, and signing with them.

Knows texts and the package `nkeys`, which is imported at the first use. Seeds are kept in bytearrays and wiped after
use, as far as Python allows: copies that libraries make in immutable objects go with these.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

from natsync.errors import ConfigError

if TYPE_CHECKING:
    from nkeys import KeyPair

__all__ = ["Seed", "check_public_key", "encode_signature", "find_jwt", "find_seed", "wipe"]

# A JWT begins with the base64 of `{"`. Seeds begin with S and the letter of their kind; U is a user's.
_search_jwt = re.compile(rb"^[ \t]*(eyJ[\w-]+\.[\w-]+\.[\w-]+)[ \t]*\r?$", re.MULTILINE).search
_search_seed = re.compile(rb"^[ \t]*(S[A-Z2-7]{20,})[ \t]*\r?$", re.MULTILINE).search
_SIGNATURE_SIZE = 64
# Two bytes of kind (a public key has one), 32 of key, two of checksum.
_SEED_SIZE = 36
_PUBLIC_SIZE = 35


def find_jwt(text: bytearray, option: str) -> str:
    """Return the JWT in the text of a file: the first line that is one, armour lines and comments around it or not.

    Raises:
        ConfigError: There is none.
    """
    found = _search_jwt(text)
    if found is None:
        raise ConfigError(f"{option} holds no JWT (a line that begins with eyJ)", option=option)
    return found[1].decode("ascii")


def find_seed(text: bytearray, option: str) -> bytearray:
    """Return the seed in the text of a file: the first line that is one; the caller wipes it.

    Raises:
        ConfigError: There is none.
    """
    found = _search_seed(text)
    if found is None:
        raise ConfigError(f"{option} holds no seed (a line of capitals and digits that begins with SU)", option=option)
    return text[found.start(1) : found.end(1)]


class Seed:
    """A user's seed, which signs; a secret, never shown.

    Args:
        text: What `find_seed` returned; it belongs to this object from now on.
        option: The option that it came from, for errors.

    Raises:
        ConfigError: It is not a user's seed, or has been mistyped.
    """

    def __init__(self, text: bytearray, option: str) -> None:
        self._text = text
        self._option = option
        try:
            self._check()
            self.public_key: str = self._keys().public_key.decode("ascii")
        except BaseException:
            self.wipe()
            raise

    def sign(self, nonce: bytes) -> bytes:
        """Return the signature of a server's nonce."""
        return bytes(self._keys().sign(nonce))

    def wipe(self) -> None:
        """Overwrite it; it cannot sign any more."""
        wipe(self._text)

    def _check(self) -> None:
        if not _is_whole(self._text, _SEED_SIZE):
            raise ConfigError(f"{self._option} holds no valid seed; was it copied whole?", option=self._option)
        if not self._text.startswith(b"SU"):
            raise ConfigError(
                f"{self._option} holds the seed of something else than a user; a user's begins with SU",
                option=self._option,
            )

    def _keys(self) -> KeyPair:
        return nkeys().from_seed(self._text)


def check_public_key(text: str, option: str) -> None:
    """Check a user's public key; what is none may be a seed, and is not quoted.

    Raises:
        ConfigError: It is another kind of key, or has been mistyped.
    """
    if not (text.startswith("U") and text.isascii() and _is_whole(text.encode(), _PUBLIC_SIZE)):
        raise ConfigError(
            f"{option} takes a user's public key, which begins with U; was it copied whole?", option=option
        )


def _is_whole(key: bytes | bytearray, size: int) -> bool:
    try:
        raw = base64.b32decode(key + b"=" * (-len(key) % 8))
    except ValueError:
        return False
    # CRC-16 in the manner of XMODEM, the lower byte first [nkeys crc16].
    return len(raw) == size and binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]


def nkeys() -> Any:
    """Return the package: pynacl behind it takes long to import, which only those pay who sign."""
    import nkeys as package

    return package


def encode_signature(signature: object, option: str) -> str:
    """Return a signature as CONNECT carries it.

    Raises:
        ConfigError: It is not the 64 bytes of an ed25519 signature.
    """
    if not isinstance(signature, (bytes, bytearray)) or len(signature) != _SIGNATURE_SIZE:
        size = f" of {len(signature)}" if isinstance(signature, (bytes, bytearray, str)) else ""
        got = f"{type(signature).__name__}{size}"
        raise ConfigError(
            f"{option} must return the {_SIGNATURE_SIZE} raw bytes of the signature, not {got}", option=option
        )
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")


def wipe(secret: bytearray) -> None:
    """Overwrite a secret."""
    secret[:] = b"\0" * len(secret)
