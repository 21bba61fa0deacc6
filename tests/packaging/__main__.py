"""`make dist`: checks the archives in `dist`, and installs the wheel with every Python there is, as a user would.

Needs the package index. An interpreter counts when `python3.N` is on PATH, or pyenv has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.packaging.contents import DEPENDENCIES, ROOT, check_source, check_wheel

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# What the dependencies themselves need, and what a new environment has.
ALSO_THERE = {"natsync", "cffi", "pycparser", "pip", "setuptools"}


def main() -> int:
    dist = ROOT / "dist"
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check_wheel(wheel)
    check_source(source)
    print(f"{wheel.name} and {source.name} hold what they should")
    tried = 0
    for version in VERSIONS:
        python = find_python(version)
        if python is None:
            print(f"Python {version}: not found")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try_out(python, wheel, Path(folder))
        print(f"Python {version}: installs, needs {' and '.join(sorted(DEPENDENCIES))} only, and runs")
        tried += 1
    return 0 if tried else 1


def find_python(version: str) -> str | None:
    """Return an interpreter; pyenv's own are not on PATH, only its shims, which answer for one version at a time."""
    shims = "pyenv" + os.sep + "shims"
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if shims not in each)
    found = shutil.which(f"python{version}", path=path)
    if found is None and shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates = sorted(Path(root, "versions").glob(f"{version}*/bin/python"))
        found = str(candidates[-1]) if candidates else None
    return found


def try_out(python: str, wheel: Path, folder: Path) -> None:
    run([python, "-m", "venv", str(folder / "env")])
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", str(wheel)])
    installed = {each["name"].lower() for each in json.loads(run([*pip, "list", "--format=json"]))}
    assert installed - ALSO_THERE == DEPENDENCIES, installed
    assert run([str(programs / "natsync"), "--version"]).startswith("natsync ")
    run([*pip, "install", "--quiet", f"{wheel}[server]"])
    assert "All of it happened." in run([str(programs / "natsync"), "demo", "--fast"])


def run(command: list[str]) -> str:
    """Run a command away from the checkout, so that what is installed is what is used; fails with what it says."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tempfile.gettempdir(), env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
