# Every target sets up what it needs: python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
BIN := .venv/bin
# Whole files per worker (tests/conftest.py); each wants about 3 GiB.
WORKERS := -n auto --maxprocesses=4 --no-loadscope-reorder

OUT ?= build/gpu

.PHONY: demo test test-full lint notebooks docs figures campaign gpu

demo: .venv/core  ## detect on a sample picture, and check against the oracle where it is installed
	$(BIN)/rtdetr-lab demo

test: lint  ## the cut of the test matrix: at most 25 minutes on 2 cores, install included
	$(BIN)/pytest -q $(WORKERS)
	$(BIN)/pytest -q -o addopts=-ra tests/unhooked

test-full: lint  ## all sizes, all shapes, all seeds
	$(BIN)/pytest -q $(WORKERS) --full
	$(BIN)/pytest -q -o addopts=-ra tests/unhooked --full

lint: .venv/dev  ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: .venv/notebooks  ## notebooks/NN_name.py to an executed .ipynb, where stale; ONLY="09 10"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m rtdetr_lab.notebook_tools.build $(ONLY) $(if $(FORCE),--force)

# In CI the site must have the page in which the model runs; elsewhere a site without it is built.
docs: .venv/docs  ## the site, into site/
	RTDETR_LAB_LIVE=$(if $(CI),required) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

campaign: .venv/dev  ## damage, malice, kills and planted bugs, all of them (an hour); its page
	$(BIN)/python tests/programs/campaign/report.py

gpu:  ## what needs a GPU, row by row, for 8.5 minutes; the same command goes on (docs/deploy.md)
	$(PYTHON) -m rtdetr_lab.deployment.bench.gpu $(OUT)

figures: .venv/dev  ## the pictures of the README and the site
	$(BIN)/python docs/hooks/figures.py
	$(BIN)/python docs/hooks/model_map.py

# One environment, grown by what a target needs. A changed pin installs again.
.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/core
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,eval]'
	@touch $@

.venv/notebooks: .venv/core
	$(BIN)/pip install -q -c constraints.txt -e '.[notebooks]'
	@touch $@

.venv/docs: .venv/core
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@
