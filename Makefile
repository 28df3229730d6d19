# make figures [PROFILE=laptop|smoke] | make test | make reliability | make lab | make clean
PYTHON ?= python3
PROFILE ?= laptop
BIN := .venv/bin

.PHONY: figures test reliability lab strip clean

figures: .venv/ready
	$(BIN)/python -m clsp_utils run --profile $(PROFILE) $(ARGS)

test: .venv/ready
	$(BIN)/python -m pytest $(ARGS)

# The long version of what `make test` runs of it; counts go to tests/reliability/results.json.
reliability: .venv/ready
	$(BIN)/python -m pytest tests/reliability --rounds long --results tests/reliability/results.json $(ARGS)

lab: .venv/ready
	$(BIN)/jupyter lab --ip=127.0.0.1 notebooks

# Notebooks are stored without outputs.
STRIP := nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution"
strip: .venv/ready
	$(BIN)/$(STRIP) notebooks/*.ipynb

clean:
	rm -rf build artifacts

.venv/ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: '$(PYTHON)' is not there; install Python 3.11 or 3.12, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 13) else "error: this is Python %d.%d; use 3.11 or 3.12: make PYTHON=/path/to/python3.12" % v[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: Python's venv module is missing; install it (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@
