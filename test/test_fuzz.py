# SPDX-License-Identifier: Apache-2.0
"""A short run of `make fuzz`, and whether it counts what it says it counts."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest

from fuzz import cases
from fuzz.cases import run_cases
from fuzz.target import Target, WrongAcceptError
from fuzz.targets import TARGETS


class Ends(Target):
    """Ends each case in another way."""

    name = 'ends'
    time_limit_s = 8.0

    def prepare(self, seeds):
        (seeds / 'seed').write_text('x')

    def run_case(self, random, seeds, folder):
        assert (seeds / 'seed').read_text() == 'x'
        number = int(random.integers(1000))
        print(number)
        return ENDS[folder.name]()


def large():
    return int(np.ones((600 << 20) // 8)[0] < 0)


def resident_bytes():
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize()


def wrong():
    raise WrongAcceptError('other rows')


ENDS = {
    'case_0': lambda: 0,
    'case_1': lambda: 1,
    'case_2': lambda: [][0],
    'case_3': lambda: time.sleep(100),
    'case_4': large,
    'case_5': wrong,
}


@pytest.mark.parametrize('jobs', [1, 3])
def test_each_end_is_counted(monkeypatch, jobs):
    # Less than 1 GiB takes less time. A child begins with what this process has, after many other tests.
    monkeypatch.setattr(cases, '_MAX_RESIDENT_BYTES', resident_bytes() + (300 << 20))
    counts = run_cases(Ends(), list(range(6)), seed=1, jobs=jobs)
    assert dict(counts.outcomes) == {
        'accepted': 1,
        'refused': 1,
        'traceback': 1,
        'hang': 1,
        'memory': 1,
        'wrong accept': 1,
    }
    assert [finding.number for finding in counts.findings] == [2, 3, 4, 5]


def test_a_case_can_be_made_again():
    runs = [run_cases(Ends(), numbers, seed=7).findings[0].text for numbers in ([2], [2, 5])]
    assert runs[0].splitlines()[0] == runs[1].splitlines()[0]


@pytest.mark.parametrize(
    'name',
    ['hdf5-convert', 'lerobot', 'embodiment-yaml', 'small-yaml', 'checkpoint-json', 'protocol-server',
     'protocol-client', 'video', 'devices'],
)  # fmt: skip
def test_damaged_input_is_refused_in_a_sentence(name):
    counts = run_cases(TARGETS[name][0], list(range(8)), seed=3, jobs=2)
    assert [finding.text for finding in counts.findings] == []
    assert sum(counts.outcomes.values()) == 8


def test_the_page_names_every_target():
    page = (Path(__file__).parents[1] / 'docs/reliability.md').read_text()
    assert [name for name in TARGETS if f'`{name}`' not in page] == []
