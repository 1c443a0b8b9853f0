# SPDX-License-Identifier: Apache-2.0
"""Sampling at ticks, and ticks from frame stamps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groot_ros.sampling.stream import Stream
from groot_ros.sampling.ticks import ReferenceTicks

MS = 1_000_000


def stream(method, *stamps_ms, latency_ns=0):
    made = Stream(method, latency_ns=latency_ns)
    for stamp in stamps_ms:
        made.append(stamp * MS, np.array([float(stamp)]))
    return made


@pytest.mark.parametrize(
    ('method', 'tick_ms', 'value', 'age_ms'),
    [
        ('linear', 13, 13.0, 3),
        ('nearest', 13, 10.0, 3),
        ('nearest', 16, 20.0, 4),
        ('hold', 19, 10.0, 9),
        ('linear', 20, 20.0, 0),
        ('linear', 34, 30.0, 4),
    ],
)
def test_sample_between_known_values(method, tick_ms, value, age_ms):
    sample = stream(method, 10, 20, 30).sample(tick_ms * MS)
    assert sample.value[0] == pytest.approx(value)
    assert sample.age_ns == age_ms * MS


def test_nothing_before_the_first_measurement():
    assert stream('hold', 10).sample(9 * MS) is None


def test_a_stamp_that_goes_back_is_counted_and_left_out():
    late = stream('linear', 10, 20, 15, 20, 30)
    assert late.regressions == 2
    assert late.sample(25 * MS).value[0] == pytest.approx(25.0)


def test_latency_is_subtracted():
    assert stream('linear', 10, 20, latency_ns=5 * MS).sample(8 * MS).value[0] == pytest.approx(13.0)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=40), st.data())
def test_forgetting_the_past_changes_no_later_sample(gaps, data):
    stamps = np.cumsum(gaps).tolist()
    tick = data.draw(st.integers(stamps[0], stamps[-1])) * MS
    forgetful = stream('linear', *stamps)
    forgetful.drop_before(tick)
    np.testing.assert_array_equal(forgetful.sample(tick).value, stream('linear', *stamps).sample(tick).value)


@given(st.lists(st.integers(-4, 4), min_size=5, max_size=40), st.sets(st.integers(1, 30)))
def test_every_missing_frame_is_one_filled_tick(jitter_ms, missing):
    ticks = ReferenceTicks(20.0)
    kept = [index for index in range(len(jitter_ms)) if index not in missing or index == len(jitter_ms) - 1]
    made = [tick for index in kept for tick in ticks.add((index * 50 + jitter_ms[index]) * MS)]
    assert len(made) == len(jitter_ms) - kept[0]
    assert sum(tick.filled for tick in made) == len(jitter_ms) - kept[0] - len(kept)
    assert all(b.stamp_ns > a.stamp_ns for a, b in pairwise(made))


def test_a_frame_too_many_is_left_out_and_counted():
    ticks = ReferenceTicks(20.0)
    assert [len(ticks.add(stamp * MS)) for stamp in (0, 50, 60, 100)] == [1, 1, 0, 1]
    assert ticks.extra_frames == 1
    assert ticks.measured_fps == pytest.approx(20.0)


@pytest.mark.parametrize('method', ['linear', 'pose', 'nearest', 'hold'])
@given(data=st.data())
def test_many_ticks_at_once_give_the_same_bits_as_one_by_one(method, data):
    count = data.draw(st.integers(1, 12))
    stamps_ns = (
        np.cumsum(data.draw(st.lists(st.integers(1, 30_000_000), min_size=count, max_size=count)))
        + 1_700_000_000_000_000_000
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    stream = Stream(method)
    stream.extend(stamps_ns, rng.normal(size=(count, 7)))
    around = st.integers(int(stamps_ns[0]), int(stamps_ns[-1]) + 10_000_000)
    ticks_ns = sorted(
        data.draw(st.lists(st.one_of(around, st.sampled_from(stamps_ns.tolist())), min_size=1, max_size=20))
    )
    values, ages_ns = stream.sample_all(np.array(ticks_ns))
    single = [stream.sample(tick_ns) for tick_ns in ticks_ns]
    np.testing.assert_array_equal(values, [sample.value for sample in single])
    assert ages_ns.tolist() == [sample.age_ns for sample in single]
    assert stream.sample_all(np.array([stamps_ns[0] - 1])) is None
