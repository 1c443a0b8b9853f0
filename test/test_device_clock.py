# SPDX-License-Identifier: Apache-2.0
"""Stamps of a device clock: neither jitter nor a stepped clock may show in them for long."""

import numpy as np

from groot_ros.control.device_clock import DeviceClock

OFFSET_S = 1e9


def stamps(delays_s, drift=0.0, start_s=0.0):
    clock = DeviceClock()
    times = start_s + np.arange(len(delays_s)) * 0.008
    made = [
        clock.stamp_ns(t, round((OFFSET_S + t * (1 + drift) + d) * 1e9))
        for t, d in zip(times, delays_s, strict=True)
    ]
    return (np.array(made) / 1e9 - OFFSET_S - times * (1 + drift)) * 1e3  # error in ms


def test_arrival_jitter_of_milliseconds_leaves_microseconds():
    rng = np.random.default_rng(0)
    errors = stamps(1e-4 + rng.exponential(2e-3, 4000))
    assert np.abs(errors[500:] - 0.1).max() < 0.15
    assert np.std(np.diff(errors[500:])) < 0.02


def test_a_clock_that_drifts_by_100_ppm_is_followed():
    rng = np.random.default_rng(1)
    for drift in (1e-4, -1e-4):
        errors = stamps(1e-4 + rng.exponential(1e-3, 8000), drift=drift)
        assert np.abs(errors[1000:]).max() < 0.4


def test_a_clock_set_back_is_found_within_seconds():
    delays = np.full(3000, 1e-4)
    delays[1000:] += 0.3  # robot time lost 0.3 s
    errors = stamps(delays)
    assert abs(errors[900] - 0.1) < 0.1
    assert abs(errors[-1] - 300.1) < 0.2


def test_a_restarted_device_starts_again():
    clock = DeviceClock()
    clock.stamp_ns(100.0, 5_000_000_000)
    assert clock.stamp_ns(0.5, 9_000_000_000) == 9_000_000_000
