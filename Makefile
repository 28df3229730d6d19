# The environment is made when it is missing. PIP_CONSTRAINT=constraints.txt before a command
# installs the versions that the committed figures were made with, instead of the newest.
PYTHON ?= python3
PROFILE ?= laptop
BIN := .venv/bin
NPM := play/node_modules/.package-lock.json
# Where results are, as for the commands (see clsp_utils/config/paths.py).
WHERE := $(or $(CLSP_HOME),.)

.DEFAULT_GOAL := help
.PHONY: help figures everything redraw numbers store test lint lab student play site strip reliability clean

help: ## this list
	@echo "make TARGET [PROFILE=laptop|smoke|gpu|paper] [ARGS=...] [PYTHON=python3]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

figures: .venv/ready ## the paper's story, notebooks 01 to 06; figures go to build/<profile>/figures
	$(BIN)/python -m clsp_utils run 01 02 03 04 05 06 --profile $(PROFILE) $(ARGS)

everything: .venv/ready ## all notebooks
	$(BIN)/python -m clsp_utils run --profile $(PROFILE) $(ARGS)

redraw: .venv/ready ## as everything, but into figures/, which git keeps (other processors round otherwise)
	$(BIN)/python -m clsp_utils run --redraw $(ARGS)

numbers: .venv/ready ## write the numbers of README and docs from the tables in figures/
	$(BIN)/python docs/write_numbers.py

store: .venv/ready ## pack what the laptop profile made, for a class that starts in the middle
	mkdir -p "$(WHERE)/build"
	tar czf "$(WHERE)/build/store.tar.gz" --exclude='*.work' --exclude='.*' -C "$(WHERE)" artifacts

# A test computes with one thread, so two of them fit two cores; those of one file, which share what
# they prepare, stay together.
test: lint ## lint, then all tests and every notebook at the smoke profile
	$(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

STRIP := nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution"
lint: .venv/ready ## style, types, spelling, and notebooks without outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/$(STRIP) --verify notebooks/*.ipynb

lab: .venv/ready ## open JupyterLab on copies of the notebooks, in lab/; the stored ones stay clean
	$(BIN)/python -m clsp_utils lab

student: .venv/ready ## copies for a class, without and with solutions, in build/course
	$(BIN)/python -m clsp_utils student

play: .venv/ready $(NPM) ## a page on which the reader's browser mixes the middles, in build/play; needs npm
	$(BIN)/python -m clsp_utils play --profile $(PROFILE)

# Where npm is missing the page that runs the UNet in the browser is left out, and the site says so.
site: .venv/ready ## a site of notebooks as they were run, docs and package, in build/site
	@if command -v npm >/dev/null; then $(MAKE) play; fi
	$(BIN)/python -m sphinx --quiet --nitpicky -c docs -d "$(WHERE)/build/doctrees" -D profile=$(PROFILE) . "$(WHERE)/build/site"
	@echo "$(WHERE)/build/site/index.html"

strip: .venv/ready ## take outputs out of the notebooks
	$(BIN)/$(STRIP) notebooks/*.ipynb

# One at a time: its counts go to one file, and it kills by the clock.
reliability: .venv/ready ## try to break it, longer than `make test` does
	$(BIN)/python -m pytest tests/reliability --rounds long --results tests/reliability/results.json $(ARGS)

clean: ## delete results; figures/ and lab/ stay
	rm -rf "$(WHERE)/build" "$(WHERE)/artifacts" .mypy_cache .pytest_cache .ruff_cache

.venv/ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: '$(PYTHON)' is not there; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "error: this is Python %d.%d; use 3.11 or newer: make PYTHON=/path/to/python3.12" % v[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: Python's venv module is missing; install it (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(NPM): play/package-lock.json
	@command -v npm >/dev/null || { echo "error: npm is not there; install Node.js, which brings it"; exit 1; }
	npm ci --prefix play --silent
