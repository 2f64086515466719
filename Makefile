# Two commands matter: `make demo` and `make test`. Both work in a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# setuptools warns at length about every editable install.
PIP := PYTHONWARNINGS=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip

.DEFAULT_GOAL := help
.PHONY: help demo test check format typing docs clean

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

demo: $(VENV)/.installed  ## Install, launch the bundled model, let it tell a story.
	@BIN=$(BIN) sh tools/demo.sh

test: $(VENV)/.installed-dev  ## Run all tests.
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev typing  ## Format, lint, types, generated documents.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/docs.py --check

format: $(VENV)/.installed-dev  ## Format, and mend what ruff can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# mypy cannot follow the editable install's import hook: it gets the layout as links.
typing:
	@mkdir -p .typing/paddock
	@for folder in cli client engines launcher registry server specs; do \
	  ln -sfn ../../$$folder .typing/paddock/$$folder; done
	@mkdir -p .typing/paddock/web && ln -sf ../../../web/__init__.py .typing/paddock/web/__init__.py
	@for file in __init__.py __main__.py py.typed; do \
	  ln -sf ../../src/paddock/$$file .typing/paddock/$$file; done

docs: $(VENV)/.installed-dev  ## Write the generated documents anew.
	$(BIN)/python tools/docs.py

clean:  ## Remove what was built; models that run are not touched.
	rm -rf build dist .typing .mypy_cache .ruff_cache .pytest_cache *.egg-info src/*.egg-info
