# srbench: `make` lists what can be made. PYTHON chooses the interpreter that .venv is made with, JOBS the processes that test.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow test-docs fuzz campaign lint docs pocket pocket-results paper-tables bench clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
UV := $(or $(shell command -v uv 2>/dev/null),$(VENV)/bootstrap/bin/uv)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
JOBS ?= auto
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
PACKAGE := --editable '.[dev,pocket-build]'

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make .venv with .venv/bin/srbench (through uv where it can be had, else pip)
	@echo "ready: $(BIN)/srbench"

$(STAMP): pyproject.toml
	@'$(PYTHON)' -c '$(FITS)' 2>/dev/null || \
	    { echo "srbench needs Python 3.11 or 3.12; name one: make setup PYTHON=python3.12" >&2; exit 3; }
	@$(BIN)/python -c '$(FITS)' 2>/dev/null || '$(PYTHON)' -m venv --clear --without-pip $(VENV)
	@'$(UV)' --version >/dev/null 2>&1 || '$(PYTHON)' -m pip install --quiet --target $(VENV)/bootstrap uv || \
	    echo "no uv to be had: going on with pip" >&2
	@if '$(UV)' --version >/dev/null 2>&1 && '$(UV)' pip install --python $(BIN)/python $(PACKAGE); then :; else \
	    $(BIN)/python -m ensurepip && $(BIN)/python -m pip install $(PACKAGE); fi
	@touch $@

quickstart: $(STAMP) ## the main job: SafeRedir on the bundled model: plain prompts, adversarial ones, harmless ones near the concept
	$(BIN)/srbench run --method none,saferedir --suite igmu,mma,benign-near --concept hazard $(ARGS)

# Two processes with a thread each: on two cores that is twice as fast as one process with two. A file's tests stay together, and
# files come in the order of tests/conftest.py, the longest first; by itself xdist would leave those with few tests to the end.
test: $(STAMP) ## the tests (offline, a few minutes); ARGS goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow $(ARGS)

test-docs: $(STAMP) ## every command of README.md and docs/ that is not marked as needing more than this machine has
	$(BIN)/python -m pytest -m slow tests/test_pages.py $(ARGS)

FUZZ_SECONDS ?= 600
fuzz: $(STAMP) ## damaged files of every kind that is read, for FUZZ_SECONDS (600)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/fuzz --fuzz-seconds $(FUZZ_SECONDS) $(ARGS)

campaign: $(STAMP) ## kills, full and read-only disks, several processes, hostile files (an hour); figures: docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -s tests/campaign $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP) ## the site, into site/ (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo "site/index.html is the first page; its search needs a server: python3 -m http.server -d site"

# The build stops by itself with exit code 75 after 40 minutes of work and goes on where it stopped.
pocket: $(STAMP) ## rebuild the bundled model and all that depends on it, from nothing (hours; resumes)
	@while :; do $(BIN)/python -m srbench.pocket_build $(ARGS); code=$$?; [ $$code -eq 75 ] || exit $$code; done

pocket-results: $(STAMP) ## recompute results/pocket/ and its pictures: every method, ablation and seed (hours; resumes)
	$(BIN)/srbench run results/pocket/study.yaml --device cpu >/dev/null
	$(BIN)/python -m srbench.pocket_build.study.reference --whole $(ARGS)

paper-tables: $(STAMP) ## the papers' tables and their pocket editions into results/tables/; prints the pocket editions
	$(BIN)/srbench tables -o results/tables
	$(BIN)/srbench tables --pocket -o results/tables
	$(BIN)/srbench tables --pocket

bench: $(STAMP) ## start-up times and throughput on this machine
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/nudenet_speed.py
	$(BIN)/python benchmarks/scorer_speed.py --pictures 6 --repeats 2
	$(BIN)/python benchmarks/compare_speed.py

clean: ## remove .venv and the tools' caches; results stay
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
