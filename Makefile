# Two commands matter: `make demo` and `make test`. Both work in a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# setuptools warns at length about every editable install.
PIP := PYTHONWARNINGS=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip
WHEELS ?= dist
NPM := npm --prefix web --loglevel=error
# The folders too: their times tell of files that are gone. The types are written by the build.
WEB_SOURCES := $(shell find web/src web/public ! -name schema.d.ts) $(wildcard web/*.ts) \
  web/index.html web/postcss.config.js web/tsconfig.json web/openapi.json

.DEFAULT_GOAL := help
# A build that was called off shall not look like one.
.DELETE_ON_ERROR:
.PHONY: help demo web test test-fast soak truth check format docs screenshots wheel clean node

help:  ## Show this.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Paddock needs Python 3.11 or newer; name one: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# Only what the dashboard is made with needs it: the demo goes without, tests and checks do not.
node:
	@sh tools/node.sh || { echo "Paddock's dashboard, its tests and its checks need Node 20.19 or newer, \
	with npm, on the PATH: https://nodejs.org"; exit 1; }

web/node_modules/.installed: web/package.json web/package-lock.json | node
	$(NPM) ci --no-audit --no-fund
	@touch $@

web/dist/index.html: web/node_modules/.installed $(WEB_SOURCES) | node
	$(NPM) run --silent build -- --logLevel error

web: web/dist/index.html  ## Build the dashboard, where something has changed.

demo:  ## Install, launch the bundled model, let it tell a story; build the dashboard meanwhile.
	@MAKE='$(MAKE_COMMAND)' BIN=$(BIN) INSTALLED=$(VENV)/.installed bash tools/demo.sh

# The rest start a gateway and Ray for each process, and engines of some gigabytes: two at a time,
# files in their order, for the last ones need environments that are made meanwhile.
FAST := -n auto --dist worksteal
SLOW := -n 2 --dist loadfile --no-loadscope-reorder
test: web $(VENV)/.installed-dev  ## Run all tests.
	$(NPM) run --silent test
	$(BIN)/python -m pytest -m fast $(FAST)
	$(BIN)/python -m pytest -m "not fast" $(SLOW)

check: $(VENV)/.installed-dev web/node_modules/.installed  ## Format, lint, types, generated documents.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/docs.py --check
	$(NPM) run --silent check
	$(BIN)/mypy

format: $(VENV)/.installed-dev web/node_modules/.installed  ## Format, and mend what ruff and biome can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NPM) run --silent format

test-fast: $(VENV)/.installed-dev  ## Run the tests that start nothing: an answer within a minute.
	$(BIN)/python -m pytest -m fast $(FAST)

SECONDS_OF_SOAK ?= 1800
SEED ?= 1
soak: $(VENV)/.installed-dev  ## Random faults for half an hour: nothing may be lost, nothing left.
	$(BIN)/python -m bench.soak --seconds $(SECONDS_OF_SOAK) --seed $(SEED)

truth: $(VENV)/.installed-dev  ## Measure what models take beside what was planned: docs/memory.md.
	$(BIN)/python -m bench.truth --write $(addprefix --gguf ,$(GGUF))

docs: $(VENV)/.installed-dev  ## Write the generated documents anew.
	$(BIN)/python tools/docs.py

screenshots: web $(VENV)/.installed-dev  ## Take a picture of every page of the dashboard.
	$(BIN)/python tools/screenshots.py

# What setuptools has put together before would be carried too.
wheel: web $(VENV)/.installed-dev  ## Build a wheel that carries the dashboard, into WHEELS.
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --outdir $(WHEELS) .

clean:  ## Remove what was built; models that run are not touched.
	rm -rf build dist web/dist .mypy_cache .ruff_cache .pytest_cache *.egg-info src/*.egg-info
