# SPDX-License-Identifier: Apache-2.0
# make demo and make test do all the set-up themselves.
PYTHON := .venv/bin/python

.PHONY: help setup demo test lint bench docs clean

help:
	@echo 'make demo    the whole loop in the simulated cell: record, convert, validate, replay, report'
	@echo 'make test    linters and tests'
	@echo 'make bench   benchmarks, results in benchmark/results'
	@echo 'make docs    reference pages from the code, and the site in build/site'
	@echo 'make setup   only the set-up, in .venv'
	@echo 'make clean   removes what was built and made'

setup:
	@scripts/setup.sh

demo: setup
	@$(PYTHON) -m groot_ros.cli demo --output demo_output

lint: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .

test: lint
	@$(PYTHON) -m pytest -q -n 2 -m 'not cell'
	@$(PYTHON) -m pytest -q -m cell

bench: setup
	@$(PYTHON) benchmark/run_all.py

docs: setup
	@$(PYTHON) scripts/make_reference.py
	@[ -x build/docs/bin/mkdocs ] || { python3 -m venv build/docs && build/docs/bin/pip install -qq -r requirements-docs.txt; }
	@NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict --quiet

clean:
	rm -rf .venv build demo_output benchmark/results
