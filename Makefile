# `make demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: help install demo docs test test-e2e test-all test-slow figures figures-check cards coverage calibration bench bench-scale bench-gpu gpu-wheels gpu-check gpu-rehearsal study study-2 study-pages paper-tables lint format schema constraints clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(VENV)/installed ## make .venv with proxyds and everything it is developed with

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "proxyds needs Python 3.11 or newer: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install ## build the digits proxy and check it, train twelve candidates on it and say which to take (two minutes)
	$(BIN)/proxyds build recipes/digits.yaml -o digits-proxy --force
	$(BIN)/proxyds verify digits-proxy
	$(BIN)/python docs/examples/candidates.py digits-proxy candidates.csv
	$(BIN)/proxyds rank digits-proxy candidates.csv

TEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15

test: install ## run the default tests, two files at a time (minutes)
	$(TEST)

test-e2e: install ## run what `make test` leaves out: whole builds, checks, pushes and kills, end to end (minutes)
	$(TEST) $(STOP) -m 'e2e and not slow and not gpu and not network'

test-all: test test-e2e ## run both

test-slow: install ## run the tests that take minutes to hours (set PROXYDS_DATA for the real data)
	$(BIN)/pytest -m slow --timeout 7200

figures: install ## write the figures of committed results into README, docs, cards and recipes (seconds)
	$(BIN)/python -m tests.docs.figures

figures-check: install ## say which figures are not current, and change nothing
	$(BIN)/python -m tests.docs.figures --check

cards: install ## build and check the recipes CARDS, and keep their cards and runs (the digits two minutes, each other one two hours)
	$(BIN)/python -m tests.docs.cards $(or $(CARDS),digits)
	$(BIN)/python -m tests.docs.figures

coverage: install ## simulate checks whose truth is known, and count how often intervals hold it (an hour; goes on where it was stopped)
	$(BIN)/python -m tests.studies.coverage

calibration: install ## rehearse the chances of `proxyds rank` on the rows of the first study (four minutes; docs/calibration.md)
	$(BIN)/python -m tests.studies.calibration

bench: install ## measure the speed beside what a user would write, and put the table into docs/speed.md (some 20 minutes; CIFAR-10 in PROXYDS_DATA)
	env -u OMP_WAIT_POLICY $(BIN)/python -m tests.benchmarks.cpu
	$(BIN)/python -m tests.docs.figures

bench-scale: install ## measure seconds and memory of more samples than are held, and put the tables into docs/scale.md (some 20 minutes, 3 GB of disk)
	$(BIN)/python -m tests.benchmarks.scale
	$(BIN)/python -m tests.docs.figures

bench-gpu: install ## measure a training on one GPU beside what a user would write
	$(BIN)/python -m tests.benchmarks.gpu

gpu-wheels: install ## fetch what a machine without a registry needs besides torch, into WHEELS (docs/gpu.md)
	$(BIN)/python -m tests.benchmarks.gpu_wheels $(or $(WHEELS),wheels)

gpu-check: ## on a machine with a GPU: show what works and how fast, from a folder WHEELS of wheels (8 minutes, docs/gpu.md)
	$(PYTHON) -m tests.benchmarks.gpu_check $(if $(WHEELS),--wheels $(WHEELS))

gpu-rehearsal: install ## run what `make gpu-check` runs on the CPU, in small (a minute and a half)
	$(BIN)/python -m tests.benchmarks.gpu_check --rehearse --out .gpu-rehearsal.md

study: install ## run what is missing of the comparison of selection methods, its plan first (hours; CIFAR-10 and CIFAR-100 in PROXYDS_DATA)
	$(BIN)/python -m tests.studies.fidelity
	$(BIN)/python -m tests.docs.figures

study-2: install ## run what is missing of the second study on DATA, or of its STAGES, the first DRAWS, for MINUTES (hours; cards/fidelity/protocol.md)
	$(BIN)/python -m tests.studies.second.run $(STAGES) $(if $(DATA),--data $(DATA)) $(if $(DRAWS),--draws $(DRAWS)) $(if $(MINUTES),--minutes $(MINUTES))

study-pages: install ## write the pages in cards/fidelity again from their rows, and the figures that are taken from them (minutes)
	$(BIN)/python -m tests.studies.results
	$(BIN)/python -m tests.docs.figures

paper-tables: install ## run the paper's three tables with several seeds, beside what it prints (one GPU; two cores take weeks)
	$(BIN)/python -m tests.studies.paper_tables

docs: install ## build the documentation site in build/docs (half a minute)
	$(BIN)/python -m sphinx --builder html --fresh-env --conf-dir docs --doctree-dir build/doctrees --nitpicky --fail-on-warning --keep-going --quiet . build/docs

lint: install ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install ## write the recipes' JSON Schema anew
	$(BIN)/python -c "from proxyds.recipe.models import recipe_json_schema as s; print(s(), end='')" > proxyds/recipe/recipe.schema.json

constraints: install ## pin the versions that are installed
	$(BIN)/pip freeze --exclude-editable > constraints.txt

clean: ## remove what was built here
	rm -rf $(VENV) digits-proxy candidates.csv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
