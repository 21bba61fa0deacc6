"""The package's surface: what can be imported, and that importing it does nothing else."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import natsync
from natsync import errors, events, testing

ROOT = Path(__file__).parents[1]

NAMES = {
    *("Client", "Headers", "Msg", "ServerInfo", "Stats", "Status", "Subscription", "connect", "errors", "events"),
    "__version__",
}

IMPORT = """
import sys, threading, socket

opened = []
sys.addaudithook(lambda event, args: opened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
started = []
threading.Thread.start = lambda self: started.append(self)

import natsync
import natsync.policy.options

natsync.policy.options.make_options("nats://127.0.0.1:4222", {"name": "x"})
heavy = {"nkeys", "nacl", "asyncio", "hypothesis", "pytest", "cryptography"} & set(sys.modules)
print(opened, started, threading.active_count(), sorted(heavy))
"""


def test_the_package_offers_these_names_and_the_errors() -> None:
    assert set(natsync.__all__) == NAMES | set(errors.__all__)
    assert len(natsync.__all__) == len(set(natsync.__all__))


@pytest.mark.parametrize("name", natsync.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(natsync, name) is not None


def test_a_star_import_brings_exactly_these_names() -> None:
    namespace: dict[str, object] = {}
    exec("from natsync import *", namespace)
    del namespace["__builtins__"]
    assert set(namespace) == set(natsync.__all__)


@pytest.mark.parametrize("module", [errors, events, testing], ids=lambda module: module.__name__)
def test_a_module_lists_all_that_it_defines(module: object) -> None:
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isclass(value) and value.__module__.startswith(module.__name__)  # type: ignore[attr-defined]
    }
    assert defined <= set(module.__all__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "natsync").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_list_of_names_is_true(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] == "__main__":
        pytest.skip("a program")
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert list(names) == sorted(set(names), key=list(names).index)
    for name in names:
        assert hasattr(module, name), name


def test_importing_starts_no_thread_opens_no_socket_and_loads_no_cryptography() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "[] [] 1 []\n"
    assert ended.stderr == ""


def test_the_version_is_one() -> None:
    assert natsync.__version__.split(".")[0].isdigit()
    assert natsync.__version__ == importlib.import_module("natsync._version").__version__
