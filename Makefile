# SPDX-License-Identifier: Apache-2.0
# make demo and make test do all the set-up themselves.
PYTHON := .venv/bin/python
# Where ROS 2 is sourced, the loader must find the libraries of the messages that the set-up builds into .venv.
ifdef ROS_DISTRO
export LD_LIBRARY_PATH := $(CURDIR)/.venv/lib:$(LD_LIBRARY_PATH)
export AMENT_PREFIX_PATH := $(CURDIR)/.venv:$(AMENT_PREFIX_PATH)
endif

.PHONY: help setup demo test test-long lint bench fuzz walk mutants docs test-robot-env clean

help:
	@echo 'make demo    the whole loop in the simulated cell: record, convert, validate, replay, report'
	@echo 'make test    linters and tests'
	@echo 'make test-long  tests of the simulated cell that take longer, before a release'
	@echo 'make bench   benchmarks, results in benchmark/results'
	@echo 'make fuzz    10,000 damaged inputs to all that reads files and messages, in half an hour'
	@echo 'make walk    ten random walks of 200 steps of each node through its states, calls and parameters'
	@echo 'make mutants breaks a line of the safety code at a time, and shows which tests notice it'
	@echo 'make docs    reference pages from the code, and the site in build/site'
	@echo 'make setup   only the set-up, in .venv; where ROS 2 is sourced, over its Python packages'
	@echo 'make test-robot-env   tries the set-up for a robot on a stand-in for Ubuntu 24.04; needs a Python 3.12'
	@echo 'make clean   removes what was built and made'

setup:
	@scripts/setup.sh

demo: setup
	@$(PYTHON) -m groot_ros.cli demo --output demo_output

lint: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .

test: lint
	@$(PYTHON) -m pytest -q -n 2 -m 'not cell and not long'
	@$(PYTHON) -m pytest -q -m 'cell and not long'

test-long: lint
	@$(PYTHON) -m pytest -q -m long

bench: setup
	@$(PYTHON) benchmark/run_all.py

fuzz: setup
	@$(PYTHON) -m fuzz --cases 10000 --seed 1 --jobs 2

walk: setup
	@$(PYTHON) -m pytest -q test/test_lifecycle.py -k every_order --walks 10 --walk-steps 200

mutants: setup
	@$(PYTHON) scripts/mutation_check.py

docs: setup build/docs/made
	@$(PYTHON) scripts/make_reference.py
	@NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --strict --quiet

build/docs/made: requirements-docs.txt
	@python3 -m venv --clear build/docs
	@build/docs/bin/python -m pip install -qq --disable-pip-version-check -r requirements-docs.txt
	@touch $@

test-robot-env:
	@scripts/test_robot_env.sh

clean:
	rm -rf .venv build demo_output benchmark/results
