"""What the archives of a release must hold, and what they must not."""

from __future__ import annotations

import configparser
import email
import re
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPENDENCIES = {"nkeys", "pynacl"}
EXTRAS = {"server", "flask", "django", "otel", "bench", "test", "docs"}


def check_wheel(wheel: Path) -> None:
    """Check that a wheel has all files of the package, nothing else, and says what it needs."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        entry_points = configparser.ConfigParser()
        entry_points.read_string(archive.read(f"{folder}/entry_points.txt").decode())
    assert {name for name in names if not name.startswith(f"{folder}/")} == package_files()
    assert f"{folder}/licenses/LICENSE" in names or f"{folder}/LICENSE" in names
    assert wheel.name.endswith("-py3-none-any.whl")
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert {re.split(r"[^\w.-]", each)[0].lower() for each in needed} == DEPENDENCIES
    assert set(metadata.get_all("Provides-Extra", [])) >= EXTRAS
    assert metadata["Requires-Python"] == ">=3.10"
    assert dict(entry_points["console_scripts"]) == {"natsync": "natsync.__main__:main"}
    assert dict(entry_points["pytest11"]) == {"natsync": "natsync.testing.pytest_plugin"}


def check_source(archive: Path) -> None:
    """Check that a source archive has what it takes to build, to test and to read it."""
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = package_files() | {"LICENSE", "README.rst", "CHANGELOG.rst", "Makefile", "setup.cfg", "pyproject.toml"}
    wanted |= {"docs/index.rst", "examples/hello.py", "tests/conftest.py", "benchmarks/__main__.py"}
    assert wanted <= names
    assert [name for name in names if name.endswith((".pyc", "__pycache__")) or "_build" in name] == []


def package_files() -> set[str]:
    """The files of the package, as a checkout has them."""
    files = [path for path in (ROOT / "natsync").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(ROOT).as_posix() for path in files}
