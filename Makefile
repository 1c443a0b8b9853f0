# SPDX-License-Identifier: Apache-2.0
# make demo and make test do all the set-up themselves.
PYTHON := .venv/bin/python

.PHONY: help setup demo test lint bench clean

help:
	@echo 'make demo    the whole loop in the simulated cell: record, convert, validate, replay, report'
	@echo 'make test    linters and tests'
	@echo 'make bench   benchmarks, results in benchmark/results'
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

clean:
	rm -rf .venv build demo_output benchmark/results
