# focal-lab. The environment in .venv is made when a target needs it, and reused until pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OUT ?= runs
# where the words of .codespell-words are not used
PROSE := README.md CONTRIBUTING.md CHANGELOG.md Makefile focal_lab benchmarks experiments sweeps docs .ci

.DEFAULT_GOAL := help
.PHONY: help install sweep test test-slow stress lint format bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## make .venv and install focal-lab with its development tools into it

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

sweep: $(INSTALLED)  ## the window-size ablation on embedded digits, and its table (the main job)
	$(BIN)/focal-lab sweep sweeps/window_size.yaml --out $(OUT)

# worksteal: tests of one file mostly stay in one process, which then makes what they share once
test: $(INSTALLED)  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(INSTALLED)  ## tests that are slow by nature: databases, browsers, compilers, several processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

stress: $(INSTALLED)  ## kill, interrupt and share sweeps, and compare with undisturbed ones (half an hour; needs PostgreSQL)
	OMP_NUM_THREADS=1 $(BIN)/python tests/stress $(STRESS)

lint: $(INSTALLED)  ## ruff, mypy --strict, and the spelling with the project's words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell -D - -D .codespell-words $(PROSE)
	$(BIN)/codespell tests

format: $(INSTALLED)  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## time and memory of backbones as ratios to Swin, and where the time of fit goes
	$(BIN)/python benchmarks/backbones.py
	$(BIN)/python benchmarks/fit_loop.py
	$(BIN)/python benchmarks/bare_loop.py

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
