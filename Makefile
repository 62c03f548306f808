# make demo        set up .venv, run the first experiment, show its report
# make test        set up what tests need; linters, types, imports, and all tests but the slow ones
# make test-all    the same with the slow tests
# make test-browser  the page in a browser: needs Chromium and Node.js; pictures of it go to test-artifacts/
# make bench       speed against public peers, as ratios
# make docs        write the paper pages and the vectors of the cards anew and build the site
# make clean       remove .venv and everything built; runs and caches outside the checkout stay
#
# PYTHON=python3.12 make demo    another interpreter (3.11 or later)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEEDS := pyproject.toml constraints.txt
SLUG ?= rdpo
BROWSER := tests/browser

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-browser lint bench docs docs-serve clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(VENV)/.installed
	$(BIN)/paperworks run $(SLUG)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"

test-all: lint
	$(BIN)/python -m pytest -n 2 -m "not browser"

test-browser: $(VENV)/.installed-browser $(BROWSER)/node_modules/.installed
	$(BIN)/python -m pytest -n 0 -m browser $(BROWSER)

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-docs
	$(BIN)/python -m paperworks.catalog.pages docs/papers
	$(BIN)/python -m paperworks.catalog.card_vectors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) site dist build test-artifacts $(BROWSER)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks

# Each stamp stands for an installation that was finished; an interrupted one is taken up again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "paperworks needs Python 3.11 or later; name one: make PYTHON=python3.12 demo" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

# torch first and alone: its build then does not depend on what others ask for.
$(VENV)/.installed: $(VENV)/.made $(NEEDS)
	@echo "Installing paperworks and what it builds on into $(VENV); this takes a few minutes the first time."
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt --group test --group peers
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt --group docs
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(PIP) install --quiet -c constraints.txt -e ".[web]" --group browser
	@touch $@

$(BROWSER)/node_modules/.installed: $(BROWSER)/package.json $(BROWSER)/package-lock.json
	cd $(BROWSER) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@
