# Everything that this project does, by name: `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON3 ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
CLUSTER_NAME ?= avalanche
READY := $(VENV)/.ready

$(READY): requirements/test.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON3=…)" >&2; exit 1; }
	@$(PYTHON3) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked Python packages into $(VENV)"
	@$(PYTHON3) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/test.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: lint test-unit test-exhaustive test-integration test-e2e ## lint, types, and every kind of test

.PHONY: lint
lint: $(READY) ## ruff, mypy --strict and the arrows between packages
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(READY) ## format the code, and mend what ruff can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

.PHONY: test-unit
test-unit: $(READY) ## unit tests: no process, no network, under ten seconds
	@$(BIN)/pytest tests/unit --numprocesses=auto --dist=worksteal

.PHONY: test-exhaustive
test-exhaustive: $(READY) ## in memory as well: killed before every write, and properties against slow oracles
	@$(BIN)/pytest tests/exhaustive --numprocesses=auto --dist=worksteal

.PHONY: test-integration
test-integration: $(READY) ## the data plane against real PostgreSQL, object stores, disks
	@$(BIN)/pytest tests/integration --numprocesses=2 --dist=loadfile

.PHONY: test-e2e
test-e2e: $(READY) ## everything together on a real cluster
	@$(BIN)/pytest tests/e2e -m "not alone" --numprocesses=2 --dist=worksteal
	@$(BIN)/pytest tests/e2e -m alone

.PHONY: demo
demo: $(READY) ## the main job on a real cluster: back up, destroy, restore, compare
	@$(PYTHON) -m demo --name $(CLUSTER_NAME)

.PHONY: cluster-up
cluster-up: $(READY) ## find, build or start a Kubernetes node
	@$(PYTHON) -m tests.cluster up --name $(CLUSTER_NAME)

.PHONY: cluster-down
cluster-down: $(READY) ## stop it, and leave nothing but the cache
	@$(PYTHON) -m tests.cluster down --name $(CLUSTER_NAME)

.PHONY: cluster-status
cluster-status: $(READY) ## say what runs
	@$(PYTHON) -m tests.cluster status --name $(CLUSTER_NAME)

# Two environments: ours with the packages of the image alone, and the peers, of which one pins its own botocore.
build/bench/%/.ready: requirements/%.txt
	@echo "Installing the locked Python packages of requirements/$*.txt into $(@D)"
	@$(PYTHON3) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

.PHONY: bench
bench: $(READY) build/bench/backup/.ready build/bench/bench/.ready ## speed and memory beside peers: writes docs/benchmarks.md (BENCH='--quick')
	@$(PYTHON) -m tests.bench $(BENCH)

.PHONY: images
images: $(READY) ## build the three images
	@$(PYTHON) -m tests.cluster images

.PHONY: image-contexts
image-contexts: $(READY) ## lay what `docker build` needs into build/images/
	@$(PYTHON) -m tests.cluster image-contexts

.PHONY: crds
crds: $(READY) ## generate crds/, the chart's copy and docs/api.md from the models
	@$(PYTHON) -m avalanche_operator.api.generate crds charts/avalanche-backup/files/crds
	@$(PYTHON) -m avalanche_operator.api.reference docs/api.md

.PHONY: lock
lock: ## lock the requirements anew (needs uv)
	uv pip compile pyproject.toml --extra operator --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header -o requirements/operator.txt
	uv pip compile pyproject.toml --extra backup --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header -o requirements/backup.txt
	uv pip compile pyproject.toml --extra backup --extra operator --group test --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/test.txt
	uv pip compile --group bench --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements/bench.txt

.PHONY: clean
clean: ## remove what was built inside the checkout
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
