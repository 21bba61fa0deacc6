# The one door: the same commands by hand and in CI. Needs make and a Python >= 3.10 with venv, nothing else.
#
#     make test PYTHON=python3.13 VENV=.venv313      another interpreter beside the first
#     make test ARGS="tests/testing -x"              some tests only (then the limits of coverage do not count)

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
FUZZ_SECONDS ?= 60
MINUTES ?= 30
TLS_SECONDS ?= 60
TLS_CONNECTIONS ?= 500
SEED ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Floors 0 to 2 are pure, so there is no excuse for an untested branch.
PURE := natsync/errors.py,natsync/headers.py,natsync/subjects.py,natsync/nuid.py,natsync/deadline.py,natsync/locks.py
PURE := $(PURE),natsync/events.py,natsync/protocol/*,natsync/policy/*

.DEFAULT_GOAL := help
.PHONY: help venv demo test check format matrix fuzz soak tls-stress bench docs dist clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     a real server and two clients, at work"
	@echo "make test     all tests, with coverage"
	@echo "make check    format, lint, types, floors, spelling, dead code"
	@echo "make format   let ruff format and fix"
	@echo "make matrix   all tests with every Python that is installed"
	@echo "make fuzz     fuzz the parser for FUZZ_SECONDS (60)"
	@echo "make tls-stress  TLS at full rate for TLS_SECONDS (60), and TLS_CONNECTIONS (500) short connections"
	@echo "make soak     random faults for MINUTES (30), reproducible by SEED"
	@echo "make bench    every client side by side, and the figures of the documentation"
	@echo "make docs     the documentation, in docs/_build"
	@echo "make dist     the wheel and the source archive, in dist, tried with every Python that is installed"
	@echo "make clean    remove what make made"

# Stamps: what is installed already is not installed again until setup.cfg changes.

venv: $(VENV)/.made

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "natsync needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.server: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[server]"
	@touch $@

$(VENV)/.test: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[server,test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[server,test,dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[docs]"
	@touch $@

$(VENV)/.bench: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[server,bench]"
	@touch $@

$(VENV)/.fuzz: $(VENV)/.made setup.cfg
	$(PIP) --editable ".[fuzz]"
	@touch $@

demo: $(VENV)/.server
	$(BIN)/python -m natsync demo

test: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 -m "not untraced" $(ARGS)
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -m untraced
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include="$(PURE)"
endif

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/vulture natsync --min-confidence 80 --ignore-names exc_info,traceback

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# pyenv's own interpreters are not on PATH, only its shims, which answer for one version at a time.
matrix: $(VENV)/.dev
	PATH="$$PATH:$$(printf '%s:' "$$(pyenv root 2>/dev/null)"/versions/3.*/bin)" $(BIN)/tox run $(ARGS)

fuzz: $(VENV)/.fuzz
	$(BIN)/python fuzz/fuzz_parser.py -max_total_time=$(FUZZ_SECONDS) $(ARGS) fuzz/corpus

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

tls-stress: $(VENV)/.test
	NATSYNC_TLS_SECONDS=$(TLS_SECONDS) NATSYNC_TLS_CONNECTIONS=$(TLS_CONNECTIONS) \
	    $(BIN)/python -m pytest -q -p no:randomly -o faulthandler_timeout=900 tests/security/test_tls_traffic.py -k "full_rate or many_threads or many_short" $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going docs docs/_build

dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.packaging

clean:
	rm -rf $(VENV) .venv-bench .tox build dist docs/_build htmlcov *.egg-info .coverage .coverage.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
