# SPDX-License-Identifier: Apache-2.0
"""The operator's page with the simulated cell, by a headless Chromium and its keyboard."""

import json
import os
import signal
import time

import pytest

from benchmark.browser import find_chromium
from benchmark.page_round import play, running_round

pytestmark = [
    pytest.mark.cell,
    pytest.mark.long,
    pytest.mark.skipif(not find_chromium(), reason='no Chromium is installed: apt install chromium'),
]


def test_a_round_at_the_page(loopback, tmp_path, eventually):
    with running_round(tmp_path, loopback) as steps:
        play(steps)
        entries = json.loads((tmp_path / 'episodes.json').read_text())['episodes']
        assert [entry['outcome'] for entry in entries] == ['success', 'failure']
        assert steps.browser.problems() == []

        # The arm's driver is held: the page knows nothing of the arm, and says so within a second.
        os.kill(steps.group.pid('ur5e_driver'), signal.SIGSTOP)
        began_s = time.monotonic()
        steps.wait('arm-state', 'LOST')
        assert time.monotonic() - began_s < 1.5
        os.kill(steps.group.pid('ur5e_driver'), signal.SIGCONT)
        steps.wait('arm-state', 'DISABLED')

        # The page is killed while an episode is recorded: it comes again, and the episode went on.
        steps.browser.press('1')
        steps.start(5)
        os.kill(steps.group.pid('operator_page'), signal.SIGKILL)
        steps.wait('arm-state', 'LOST')
        deadline_s = time.monotonic() + 30
        while steps.browser.text('episode-state') != 'RECORDING':
            steps.group.check()  # starts the page again
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        steps.end('y')
    entries = json.loads((tmp_path / 'episodes.json').read_text())['episodes']
    assert [entry['outcome'] for entry in entries] == ['success', 'failure', 'success']
