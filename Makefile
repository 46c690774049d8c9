# Two commands: `make demo` and `make test`. Each sets up .venv first, with everything pinned in constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One thread a process: these networks are too small to share between cores, and spinning threads slow each other down.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types test-mnist clean

help: ## show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready ## make .venv and install everything (about 6 GB, once)

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	touch $@

demo: setup ## run the sweep `quick` on scikit-learn's digits and write its report
	$(BIN)/lightning-sparse -cn quick

test: setup lint types ## lint, types and every test that needs no files and no network
	$(BIN)/python -m pytest -m "not mnist" -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test-mnist: setup ## the tests that need the MNIST files (in ../shared/data, or LIGHTNING_SPARSE_DATA)
	$(BIN)/python -m pytest -m mnist -q

clean: ## remove the environment, caches and builds; results in outputs/ stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
