# `make help` lists the targets. Set-up is part of each: a virtual environment in .venv unless one is active.
PYTHON ?= python3
ifdef VIRTUAL_ENV
ENVIRONMENT := $(VIRTUAL_ENV)
else
ENVIRONMENT := .venv
endif
BIN := $(ENVIRONMENT)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALLED := $(ENVIRONMENT)/.mwanda

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-slurm test-browser test-gpu benchmark check format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(INSTALLED)-dev ## install everything that the other targets need

run: $(INSTALLED)-gemma ## prune Gemma 3 270M to 50 % on the embedded corpus, and measure 30 languages before and after
	$(BIN)/python run.py method=recommended evaluation.sentences=6

test: $(INSTALLED)-dev ## all tests but the real-model ones (CPU, offline, minutes)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-slow: $(INSTALLED)-dev ## the tests on the real Gemma 3 270M
	$(BIN)/python -m pytest -q -m slow

test-slurm: $(INSTALLED)-dev ## sweeps on a SLURM that is installed (as root, by apt-get) and started for them
	$(BIN)/python -m pytest -q -m slurm tests/slurm

test-browser: $(INSTALLED)-dev ## report.html in a Chromium that is installed (as root, by apt-get) for them
	$(BIN)/python -m pytest -q -m browser tests/browser

test-gpu: ## checks and measurements on a GPU with the Python that has its torch (PYTHON=…), six minutes at most
	PYTHONPATH=$(CURDIR) $(PYTHON) benchmarks/gpu.py --out outputs/gpu.json

benchmark: $(INSTALLED)-gemma ## time and memory beside the published procedure, into outputs/benchmarks (an hour or more)
	$(BIN)/python benchmarks/pruning.py

check: $(INSTALLED)-dev ## lint, formatting and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(INSTALLED)-dev ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## remove the virtual environment
	rm -rf .venv

$(BIN)/python:
	$(PYTHON) -m venv $(ENVIRONMENT)

# torch first and by its exact version: an open range would bring gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	@touch $@

$(INSTALLED)-gemma: $(INSTALLED)
	$(PIP) --editable '.[gemma]'
	@touch $@

$(INSTALLED)-dev: $(INSTALLED)-gemma
	$(PIP) --editable '.[gemma,slurm,report,dashboard,trackio,dev]'
	@touch $@
