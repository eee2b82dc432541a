# Everything starts here: `make demo`, `make test`. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/ready: requirements-dev.txt constraints.txt $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --constraint constraints.txt -r requirements-dev.txt
	@touch $@

.PHONY: setup
setup: .venv/ready ## Install everything into .venv

.tools/protos/ready: Makefile
	@$(PYTHON) -m venv .tools/protos
	@.tools/protos/bin/pip install -q --disable-pip-version-check grpcio-tools==1.76.0 mypy-protobuf==5.1.0 setuptools
	@touch $@

.PHONY: contracts
contracts: .tools/protos/ready ## Generate libs/contracts from proto/
	@PATH=$(CURDIR)/.tools/protos/bin:$$PATH .tools/protos/bin/python tools/generate_contracts.py 2>/dev/null
