# SPDX-License-Identifier: Apache-2.0
"""The histogram of tick lateness compared with numpy's percentiles."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.sim.loop_timing import LatenessHistogram


@given(st.lists(st.floats(0.0, 49.0), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_ticks_to_a_bin(late_ms):
    lateness = LatenessHistogram()
    for value in late_ms:
        lateness.add(value)
    expected = np.percentile(late_ms, [50, 90, 100], method='inverted_cdf')
    np.testing.assert_allclose(lateness.percentiles_ms([50, 90, 100]), expected, atol=0.0101)


def test_a_tick_beyond_the_histogram_is_known_by_its_size():
    lateness = LatenessHistogram()
    lateness.add(750.0)
    assert lateness.max_ms == 750.0
    assert 50.0 <= lateness.percentiles_ms([100])[0] <= 750.0


def test_before_the_first_tick_nothing_is_late():
    assert LatenessHistogram().percentiles_ms([50, 100]).tolist() == [0.0, 0.0]
