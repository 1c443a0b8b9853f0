# SPDX-License-Identifier: Apache-2.0
"""The changes that `make mutants` makes to the safety code still fit the code."""

import ast

import pytest

from scripts.mutation_check import CASES, MUTANTS, ORDERS, ROOT, broken_text


@pytest.mark.parametrize('mutant', MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_changes_one_place_and_is_python(mutant):
    broken = broken_text(mutant)
    assert broken != (ROOT / mutant.file).read_text()
    ast.parse(broken)


def test_the_tests_that_look_for_them_exist():
    assert all((ROOT / file).is_file() for file in ORDERS + CASES)
