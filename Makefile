# Every target creates the virtual environment that it needs, and updates it when pyproject.toml has changed.

PYTHON ?= python3
# For `make test-all`; interpreters that are missing or do not run are skipped.
PYTHONS ?= python3.11 python3.12 python3.13 python3.14 python3.15

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint types test-all bench bench-quick docs clean faults faults-mutants soak

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-15s %s\n", $$1, $$2 }'

demo: $(VENV)/.has-http  ## a short tour of what the package does
	$(BIN)/parallelkit demo

# Two at a time, not as many as there are cores: the tests start processes of their own.
test: $(VENV)/.has-test  ## the tests, in less than four minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

check: lint types test  ## everything that a change must pass

lint: $(VENV)/.has-test  ## style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.has-test  ## mypy on the package, mypy and pyright on its use from outside
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typing

# A recursive make for each interpreter gives each its own virtual environment.
test-all: .cache/cpython-3.11  ## all tests, including slow ones, on each Python found
	@ran=; for python in $(PYTHONS); do \
		$$python -c '' 2>/dev/null || { echo "$$python: not found, skipped"; continue; }; \
		$(MAKE) --no-print-directory test-marked PYTHON=$$python VENV=.venv-$$(basename $$python) || exit; \
		ran="$$ran $$python"; \
	done; echo "tested on:$$ran"; test -n "$$ran"

.PHONY: test-marked
test-marked: $(VENV)/.has-test
	$(BIN)/python -m pytest -m ""

bench: $(VENV)/.has-bench  ## the benchmarks, side by side with peer libraries
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.has-bench  ## check the performance budget, in under two minutes; fails if a limit is exceeded
	$(BIN)/python -m benchmarks --quick

# How often each case of the fault catalogue runs, idle and busy; how long the soak test takes.
ROUNDS ?= 10
SOAK_SECONDS ?= 600

faults: $(VENV)/.has-test  ## the whole fault catalogue, ten times on an idle and ten on a busy machine
	$(BIN)/python tests/faults/rounds.py --rounds $(ROUNDS)

faults-mutants: $(VENV)/.has-test  ## plant bugs in a copy of the package, and check that the tests catch each
	$(BIN)/python tests/faults/mutants.py

soak: $(VENV)/.has-test  ## ten minutes of tasks that fail, crash and hang: no resource may grow, and throughput must not fall
	$(BIN)/python tests/faults/soak.py --seconds $(SOAK_SECONDS)

docs: $(VENV)/.has-docs  ## the documentation, into docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs docs/_build/html

clean:  ## remove everything that these targets create
	rm -rf .venv .venv-* .cache .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		build dist docs/_build htmlcov *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp file per installed extra; its time tells whether pyproject.toml has changed since.
$(VENV)/.has-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "parallelkit needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot create a virtual environment: on Debian and Ubuntu, install python3-venv first"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(if $(filter-out core,$*),[$*])'
	@touch $@

# CPython 3.11's tests of its executors, for tests/cpython, from a Debian package. If it cannot be had, pytest reports them as skipped.
.cache/cpython-3.11:
	@rm -rf $@.part && mkdir -p $@.part
	@cd $@.part && { $(DOWNLOAD) || { apt-get update -qq && $(DOWNLOAD); }; } && dpkg -x *.deb . && \
		mv usr/lib/python3.11/test/test_concurrent_futures.py . && rm -rf usr *.deb && mv ../$(@F).part ../$(@F) || true
DOWNLOAD = apt-get download -qq libpython3.11-testsuite
