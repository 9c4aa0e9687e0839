# Two commands matter: `make demo` and `make test`. Both make their own environment in .venv.

PYTHON ?= python3
# Waiting threads soon sleep instead of spinning; see leamfast/__init__.py.
export GOMP_SPINCOUNT ?= 1000
BIN := .venv/bin
RESULTS ?= out/maps.json
RUNS ?= 50
SEED ?= 0
CHAOS ?= out/chaos.json
THREADS ?= $(shell nproc)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint fast gpu chaos bench clean system

help: ## Show what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed ## Install, then compute maps of synthetic faces and draw them, in leamfast-demo/.
	rm -rf leamfast-demo
	$(BIN)/leamfast demo --out leamfast-demo

# Files with slow tests begin, by tests/conftest.py; xdist's own order would end with them.
test: .venv/tested lint ## Install, then run every check and every test.
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/tested ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: .venv/tested ## The tests that take less than ten seconds each.
	$(BIN)/python -m pytest -m "not slow and not gpu" -x

gpu: ## The checks that need a CUDA device, with the packages of the current Python.
	PYTHONPATH=.:kernels:bench $(PYTHON) -m pytest -m gpu

chaos: .venv/tested ## Fifty runs that are killed, filled up and corrupted, and must lose nothing: half an hour.
	@mkdir -p $(dir $(CHAOS))
	PYTHONPATH=.:kernels:bench $(BIN)/python -m tests.chaos --runs $(RUNS) --seed $(SEED) --report $(CHAOS)

bench: .venv/tested ## How fast maps are, beside other packages, in half an hour; results in RESULTS=FILE.
	@mkdir -p $(dir $(RESULTS))
	$(BIN)/leamfast bench maps --threads $(THREADS) --out $(RESULTS)

clean: ## Remove the environment and everything made.
	rm -rf .venv leamfast-demo build dist .pytest_cache .mypy_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt | system
	$(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

# grad-cam asks for opencv-python-headless, which would overwrite the cv2 of opencv-python.
.venv/tested: .venv/installed
	$(PIP) install -q -c constraints.txt -e '.[test]'
	$(PIP) install -q -c constraints.txt --no-deps grad-cam
	@touch $@

system:
	@$(PYTHON) tools/check_system.py
