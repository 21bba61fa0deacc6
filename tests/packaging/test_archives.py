"""The archives of a release, made of a copy of this tree as `python -m build` makes them, but without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.packaging.contents import ROOT, check_source, check_wheel

if TYPE_CHECKING:
    from pathlib import Path

BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"
PARTS = ("natsync", "docs", "examples", "benchmarks", "fuzz", "tests")


def build(what: str, tree: Path, into: Path) -> Path:
    """Run the build backend in a tree, and return the archive that it makes."""
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(into)],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (archive,) = into.iterdir()
    return archive


@pytest.mark.slow
def test_the_archives(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
        elif path.name in PARTS:
            shutil.copytree(path, tree / path.name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    source = build("build_sdist", tree, tmp_path / "source")
    check_source(source)
    with tarfile.open(source) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    check_wheel(build("build_wheel", unpacked, tmp_path / "wheel"))
