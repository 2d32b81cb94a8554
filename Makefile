# Everything runs in a virtual environment of its own; a fresh machine needs python3 (3.11 or newer), git and make.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types docs bench audit clean

demo: $(VENV)/.installed ## Make a clip on the spot and turn it into depth, offline
	$(BIN)/stf-depth demo

test: $(VENV)/.installed-dev ## The whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev ## Style and strict types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed-docs ## The documentation site, into site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev ## The figures in README and docs, from scratch
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/tables.py

# Strict, for a package that the service does not know counts as clean otherwise; it knows no local versions (+cpu).
audit: $(VENV)/.installed-dev ## Known vulnerabilities among the installed packages
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^ ;]*//' > $(VENV)/audited.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audited.txt

clean: ## Remove the virtual environment and the demo's output
	rm -rf $(VENV) demo_output site

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed (python3 here: $$(python3 --version 2>&1)). Install it, or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: no venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@
