# The two commands of a newcomer are `make demo` and `make test`; both install into .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1  # two OpenMP threads collapse where anything else runs
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench proof

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## Install into .venv

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: install  ## Run the whole chain on a drawn pen (nine to fourteen minutes)
	$(BIN)/pl-distill demo --out runs/demo

lint: install  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## Lint, types and the whole test suite
	$(BIN)/pytest -n 2 -m "not slow" --durations=15

bench: install  ## Speed and memory goals, as JSON
	$(BIN)/python -m tests.benchmarks --out runs/bench.json

proof: install  ## Long proofs
	$(BIN)/pytest -m slow --durations=0
