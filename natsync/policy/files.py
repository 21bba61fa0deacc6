"""Files that options name: read anew at each connect, so that what was rotated is used.

Every failure is a `ConfigError` that names the option and the path; what stands in a file is never shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from natsync.errors import ConfigError

__all__ = ["check_path", "expand", "read_file", "unreadable"]

_MAX_SIZE = 1024 * 1024
# A line break, a seed, a JWT, an armour line: the content of a file rather than its name.
_looks_like_content = re.compile(r"[\r\n]|^S[A-Z2-7]{50,}$|^eyJ[\w-]+\.|-----BEGIN ").search


def check_path(path: str | os.PathLike[str], option: str) -> None:
    """Refuse what is no path but what should stand in the file: errors and `repr` show paths.

    Raises:
        ConfigError: It is; its text is not quoted.
    """
    if _looks_like_content(os.fsdecode(path)):
        raise ConfigError(
            f"{option} takes the path of a file, and was given what looks like its content", option=option
        )


def expand(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` and `$VARIABLES` replaced [nats.go expandPath]."""
    return Path(os.path.expandvars(path)).expanduser()


def read_file(path: str | os.PathLike[str], option: str) -> bytearray:
    """Return a file's content, for the caller to wipe.

    Raises:
        ConfigError: It is missing, unreadable, empty, or larger than any such file is.
    """
    try:
        with expand(path).open("rb") as file:
            content = bytearray(file.read(_MAX_SIZE + 1))
    except (OSError, ValueError) as exc:  # ValueError: there is a NUL in it
        raise unreadable(path, option, exc) from exc
    if not content.strip():
        raise ConfigError(f"the file {path} of {option} is empty", option=option)
    if len(content) > _MAX_SIZE:
        raise ConfigError(f"the file {path} of {option} has more than {_MAX_SIZE} bytes", option=option)
    return content


def unreadable(path: str | os.PathLike[str], option: str, exc: OSError | ValueError) -> ConfigError:
    """Make the error for a file that the system does not give us."""
    why = getattr(exc, "strerror", None) or exc
    return ConfigError(f"the file {path} of {option} cannot be read: {why}", option=option)
