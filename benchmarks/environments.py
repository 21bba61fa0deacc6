"""The virtual environments of the contenders, made once in `.venv-bench`, and what the machine is."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import THIS, Contender
from benchmarks.worker import ROOT
from natsync.testing.binary import find_server, server_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOME = ROOT / ".venv-bench"
NEWER_THAN = (3, 13)  # what natsio needs
_BIN, _PYTHON = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")


class NoEnvironmentError(Exception):
    """A contender cannot be measured here; the text says why."""


def python_of(contender: Contender) -> str:
    """Return the interpreter that has a contender's client, and make its environment if it is not there.

    Raises:
        NoEnvironmentError: There is no interpreter for it, or pip fails.
    """
    base = sys.executable if contender.python == THIS else newer_python()
    if base is None:
        raise NoEnvironmentError(f"needs Python {'.'.join(map(str, NEWER_THAN))}, which is not found")
    if not contender.requirements:
        return base
    home = HOME / "-".join([*contender.requirements, version_of(base)])
    python = home / _BIN / _PYTHON
    stamp = home / "made"
    if not stamp.exists():
        print(f"making {home.relative_to(ROOT)}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *contender.requirements]
        for command in ([base, "-m", "venv", str(home)], pip):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoEnvironmentError((done.stderr or done.stdout).strip().splitlines()[-1])
        stamp.touch()
    return str(python)


def compile_natsync(python: str) -> None:
    """Write natsync's bytecode, as pip does when it installs the others; here it runs from its source.

    Otherwise its import is measured with a compilation, where the environment forbids Python to keep what it compiled.
    """
    subprocess.run([python, "-m", "compileall", "-q", str(ROOT / "natsync")], check=True)


def newer_python() -> str | None:
    """Find an interpreter for the clients that need a newer one; this one if it is new enough."""
    if sys.version_info >= NEWER_THAN:
        return sys.executable
    for candidate in _candidates():
        try:
            done = subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None


def _candidates() -> Iterator[str]:
    named = os.environ.get("BENCH_PYTHON")
    if named:
        yield named
    for minor in (13, 14):
        found = shutil.which(f"python3.{minor}")
        if found:
            yield found
        # pyenv's shims answer for one version at a time; its interpreters are behind them.
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        yield from map(str, sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python3.{minor}"), reverse=True))


def version_of(python: str) -> str:
    """Ask an interpreter for its version."""
    return _ask(python, "import platform; print(platform.python_version())")


def versions_of(python: str, requirements: Iterable[str]) -> dict[str, str]:
    """Ask an interpreter for the versions of installed packages."""
    names = json.dumps(list(requirements))
    return dict(
        json.loads(
            _ask(
                python,
                "import json, importlib.metadata as m;"
                f"print(json.dumps({{name: m.version(name) for name in {names}}}))",
            )
        )
    )


def _ask(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, str]:
    """Describe where this runs."""
    server = ".".join(map(str, server_version(find_server())))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "nats-server": server,
        "commit": _commit(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
