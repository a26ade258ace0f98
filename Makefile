# Every target sets up what it needs first: a warm set-up costs nothing, a cold one a few minutes.
#   make run            build New Zealand if needed and simulate it (ARGS="--set run.steps=30 --overwrite")
#   make test           lint, types, and the quick tests      make test-slow   science at scale
#   make check          lint and types                        make format      put the code in shape
#   make bench          benchmarks/RESULTS.md but for the     make bench-ladder   that, 1 to 330 million agents
#                       ladder, memory and sensitivity        make bench-compare  this tree against REV (HEAD)
#   make wheel          dist/gnabm-*.whl
#   make clean          remove the environment and all that was built, but not runs/
# PYTHON=/path/to/python3.12 chooses the interpreter.

SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip -qq
WHEELS ?= .cache/wheels
ARGS   ?= --overwrite
REV    ?= HEAD

# The stamp carries the content of what it was made from, so a touched or restored file costs nothing.
STAMP := $(VENV)/setup-$(shell cat pyproject.toml constraints.txt | cksum | tr ' ' -)

.PHONY: run test test-slow check format bench bench-ladder bench-compare wheel setup clean
.DELETE_ON_ERROR:

run: $(STAMP)
	$(BIN)/gnabm run configs/new_zealand.yaml $(ARGS)

test: check
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# TOOLS=/path/to/python of an environment with starsim and covasim measures them too.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.sir --agents 1000000 5000000 --steps 100
	$(BIN)/python -m benchmarks.edges
	$(BIN)/python -m benchmarks.shards
	$(BIN)/python -m benchmarks.country
	$(BIN)/python -m benchmarks.profiling
	$(BIN)/python -m benchmarks.gradients --out benchmarks/RESULTS.md
	$(if $(TOOLS),$(BIN)/python -m benchmarks.tools --python $(TOOLS))

bench-ladder: $(STAMP)
	$(BIN)/python -m benchmarks.ladder $(LADDER)

bench-compare: $(STAMP)
	$(BIN)/python -m benchmarks.compare $(REV) $(COMPARE)

wheel: $(STAMP)
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

setup: $(STAMP)

# torch-scatter compiles against the torch that is installed, so its wheel is kept per torch build.
# pip's own wheel cache knows nothing of torch and is left out.
$(STAMP): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(STAMP): export PIP_CONSTRAINT := constraints.txt
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "gnabm needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	  "name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@rm -f $(VENV)/setup-*
	@echo "setting up $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install setuptools numpy torch
	@set -e; \
	wheels=$(abspath $(WHEELS))/torch-$$($(BIN)/python -c 'import torch; print(torch.__version__)'); \
	install="$(PIP) install --no-deps --no-index --find-links $$wheels torch-scatter"; \
	mkdir -p $$wheels; \
	$$install 2>/dev/null || { \
	  echo "building torch-scatter once for this torch, a few minutes"; \
	  printf '[build_ext]\nparallel = 2\n' > $$wheels/build.cfg; \
	  DIST_EXTRA_CONFIG=$$wheels/build.cfg $(PIP) wheel --no-cache-dir --no-deps \
	    --no-build-isolation --wheel-dir $$wheels torch-scatter; \
	  $$install; }
	$(PIP) install --no-build-isolation --editable '.[dev]'
	@$(BIN)/python -c 'import torch_scatter'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
