# Everything starts here: `make demo`, `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
SOURCES := $(filter-out libs/contracts/src,$(wildcard libs/*/src services/*/src)) $(wildcard tools benchmarks)
IMAGE := proto/baseline.binpb
SCENARIO ?=
PEERS ?=
OPS ?=
ROUNDS ?=
SMOKE ?=
NATIVE ?=
REPORT ?=
MINUTES ?=
RATE ?=
FULL ?=
CURVE ?=
ARGS ?=
SEEDS ?= 1000
NAME ?=
SEED ?=
FROM ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- Setting up ---

define NO_VENV
echo "$(PYTHON) cannot make virtual environments (its ensurepip is missing)." >&2; \
echo "Debian and Ubuntu: apt install python3-venv. Or name another Python: make setup PYTHON=/path/to/python3.12" >&2
endef

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than 3.11. Name another: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(NO_VENV); exit 1; }

.venv/ready: requirements-dev.txt constraints.txt $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) | python
	@echo "Installing into .venv; the first time takes some seconds." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --constraint constraints.txt -r requirements-dev.txt
	@touch $@

.PHONY: setup
setup: .venv/ready ## Install everything into .venv

# The generator is older than the runtime on purpose: what it writes runs with every runtime that the packages allow.
.tools/protos/ready: tools/protos.txt | python
	@rm -rf .tools/protos
	@$(PYTHON) -m venv .tools/protos
	@.tools/protos/bin/python -m pip install -q --disable-pip-version-check -r tools/protos.txt
	@touch $@

# --- Working ---

.PHONY: fmt
fmt: setup ## Format Python and protos
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .
	@$(BIN)/buf format -w

.PHONY: contracts
contracts: .tools/protos/ready setup ## Generate libs/contracts and their reference from proto/
	@PATH=$(CURDIR)/.tools/protos/bin:$$PATH .tools/protos/bin/python tools/generate_contracts.py
	@$(BIN)/python tools/generate_docs.py

.PHONY: docs
docs: setup ## Generate the parts of docs/ that are drawn from the code
	@$(BIN)/python tools/generate_docs.py

.PHONY: capabilities
capabilities: setup ## Write into docs/capabilities.md what the tests show, and list what none shows yet
	@$(BIN)/python tools/capabilities.py --update

.PHONY: baseline
baseline: setup ## Accept the protos as they are as what later changes must not break (at a release)
	@$(BIN)/buf build --exclude-source-info -o $(IMAGE)

.PHONY: golden
golden: setup ## Keep what this version stores, for the tests of all later ones (at a release); NAME=version for another name
	@$(BIN)/python tools/golden.py $(NAME)

.PHONY: constraints
constraints: setup ## Find the newest versions of everything and pin them in constraints.txt
	@$(BIN)/python tools/generate_constraints.py

.PHONY: demo
demo: setup ## Start everything, run a real flow on real files; DIR=path for others, CHAOS=1 kills each service on the way
	@$(BIN)/tierflow demo $(if $(DIR),--dir "$(DIR)") $(if $(CHAOS),--chaos) $(ARGS)

.PHONY: dev
dev: setup ## Start everything for development and keep it running
	@$(BIN)/tierflow dev $(ARGS)

# --- Checking ---

.PHONY: check
check: check-style check-types check-imports check-protos check-contracts check-docs check-k8s ## Check everything that needs no server

.PHONY: check-style
check-style: setup ## Check format and lint of Python
	@$(BIN)/ruff format --check -q . || { echo "not formatted: make fmt" >&2; $(BIN)/ruff format --check . | head -20 >&2; exit 1; }
	@$(BIN)/ruff check -q .

.PHONY: check-types
check-types: setup ## Check types, strictly
	@$(BIN)/mypy --no-error-summary $(SOURCES)

.PHONY: check-imports
check-imports: setup ## Check who may import whom
	@$(BIN)/lint-imports --no-logo $(if $(CI),--no-cache) > .import-linter.out || { cat .import-linter.out; exit 1; }

.PHONY: check-protos
check-protos: setup ## Check style and compatibility of the protos
	@$(BIN)/buf lint
	@$(BIN)/buf format -d --exit-code || { echo "not formatted: make fmt" >&2; exit 1; }
	@$(BIN)/buf breaking --against $(IMAGE)

.PHONY: check-contracts
check-contracts: .tools/protos/ready ## Check that the generated contracts are what the protos give
	@PATH=$(CURDIR)/.tools/protos/bin:$$PATH .tools/protos/bin/python tools/generate_contracts.py --check

.PHONY: check-docs
check-docs: setup ## Check that the generated parts of docs/ are up to date
	@$(BIN)/python tools/generate_docs.py --check

.PHONY: check-k8s
check-k8s: setup ## Check the Kubernetes manifests against the schemas of the API
	@$(BIN)/python tools/check_kubernetes.py

.PHONY: test
test: setup ## Run the tests, with real Postgres, NATS and services
	@$(BIN)/pytest -q -n 2 -m "not chaos$(if $(NATIVE), and not interpreted)" $(ARGS) libs services tests

.PHONY: test-unit
test-unit: setup ## Run the tests of the pure cores only; a few seconds
	@$(BIN)/pytest -q $(ARGS) $(wildcard services/*/tests/core libs/expressions/tests libs/flow/tests libs/runtime/tests)

.PHONY: chaos
chaos: setup ## Kill, freeze and cut off real processes under load; about 35 minutes; ROUNDS=20 OUTAGE=20 FROM=commit; keeps what it saw for docs/reliability.md
	@CHAOS_REPORT=1 CHAOS_ROUNDS=$(or $(ROUNDS),20) CHAOS_OUTAGE=$(or $(OUTAGE),20) CHAOS_FROM=$(FROM) $(BIN)/pytest -q -m chaos $(ARGS) tests/chaos
	@$(BIN)/python tools/generate_docs.py

.PHONY: sim
sim: setup ## Simulate all tiers on a virtual clock; make sim SEEDS=n, or SEED=k to see one
	@PYTHONPATH=tests/sim $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

.PHONY: fuzz
fuzz: setup ## Send nonsense to every RPC and to the flow language; SECONDS=60 SEED=k, ONLY=rpc CASE=n for one case again
	@$(BIN)/python -m tierflow_testing.fuzzing --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(CASE),--case $(CASE))

.PHONY: conformance
conformance: setup ## Run the conformance kit of the CNCF Serverless Workflow specification; KIT=folder with ctk/features and examples
	@$(BIN)/python tools/serverless_conformance.py $(if $(KIT),"$(KIT)")

.PHONY: native
native: setup ## Compile the hot path to machine code, into .native; NATIVE=1 uses it for bench, thresholds and test
	@$(BIN)/python tools/native.py

# A compiled tree goes before the sources, for everything that is started.
ifneq ($(NATIVE),)
export PYTHONPATH := $(CURDIR)/.native
bench thresholds test: native
endif

.PHONY: bench
bench: setup ## Measure; make bench SCENARIO=name for one
	@$(BIN)/python -m benchmarks.run $(SCENARIO) $(ARGS)

.PHONY: thresholds
thresholds: setup ## Measure every figure that has a promised bound; SMOKE=1 shows that it works
	@SMOKE="$(SMOKE)" $(BIN)/python -m benchmarks.thresholds

.PHONY: performance
performance: setup ## Hold the benchmark and every promised figure against their bounds; REPORT=dir ROUNDS=3 SMOKE=1; about six minutes
	@SMOKE="$(SMOKE)" ROUNDS="$(ROUNDS)" REPORT="$(REPORT)" $(BIN)/python -m benchmarks.performance

.PHONY: load
load: setup ## Load all tiers with a mix of everything, watched, with a verdict at the end; MINUTES=10 RATE=40 REPORT=dir
	@MINUTES="$(MINUTES)" RATE="$(RATE)" REPORT="$(REPORT)" $(BIN)/python -m benchmarks.sustained

.PHONY: bench-peers
bench-peers: setup ## Measure Tierflow and its peers side by side; PEERS="restate dbos" OPS="w1 w2" ROUNDS=3 SMOKE=1
	@PEERS="$(PEERS)" OPS="$(OPS)" ROUNDS="$(ROUNDS)" SMOKE="$(SMOKE)" $(BIN)/python -m benchmarks.peers.bench


.PHONY: curves
curves: setup ## Measure how figures change with load, size and number; CURVE=name for one, SMOKE=1, FULL=1
	@SMOKE="$(SMOKE)" FULL="$(FULL)" $(BIN)/python -m benchmarks.curves $(CURVE)

.PHONY: clean
clean: ## Remove what was generated, cached or stored here; .venv stays
	@rm -rf .tierflow .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .import-linter.out dist build
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +
