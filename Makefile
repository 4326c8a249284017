# Needs python3 (3.11 to 3.13), its venv and pip, and make. Everything else is installed into .venv from the hashed lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run test lint types locked bench peers ui clean lock help
.DEFAULT_GOAL := help

run: $(STAMP)  ## solve the shipped problem: collect, fit, validate, optimize, tune
	$(BIN)/surrogate run

test: $(STAMP)  ## run the whole test suite
	$(BIN)/python -m pytest -n auto

lint: $(STAMP)  ## style (ruff) and the direction of imports (import-linter)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(STAMP)  ## static types (mypy)
	$(BIN)/mypy

locked: $(STAMP)  ## is dvc.lock that of the code and params.yaml? if not: make run, and commit it
	@said=$$($(BIN)/dvc repro --dry --allow-missing) && ! echo "$$said" | grep "Running stage"

bench: $(STAMP)  ## run the benchmarks and print their tables
	$(BIN)/surrogate bench

peers: $(STAMP)  ## install the peers that benchmarks compare with into .venv (torch: up to gigabytes)
	$(BIN)/python -m pip freeze --exclude-editable > .venv/constraints  # the lock's hashes would be asked of the peers too
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --constraint .venv/constraints -e '.[bench]'

ui: $(STAMP)  ## serve the pages of MLflow and Prefect on loopback addresses
	$(BIN)/surrogate ui

clean:  ## remove what can be made again: the environment, caches and checkpoints (keeps data/, runs/, mlruns/)
	rm -rf .venv .surrogate .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache *.egg-info

lock:  ## resolve pyproject.toml again into requirements.lock (needs uv on the PATH)
	uv pip compile --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --extra dev --quiet pyproject.toml -o requirements.lock

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
