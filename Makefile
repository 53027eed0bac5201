# Two commands set everything up: `make demo` and `make test`. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-fast check format clean-env
help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(READY): constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)  ## the main job offline: handwritten digits, mini zoo, a real search
	$(BIN)/vlmsel-auto demo

test: $(READY) check  ## checks and all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(READY)  ## without the tests that train for minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

check: $(READY)  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean-env:  ## remove the virtual environment
	rm -rf $(VENV)
