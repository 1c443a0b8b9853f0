# SPDX-License-Identifier: Apache-2.0
"""The chunk scheduler on motions with a known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from groot_ros.geometry import angle_between, apply_delta, deltas_between, integrate_deltas
from groot_ros.policies.chunk_scheduler import ChunkScheduler, ScheduleSettings
from groot_ros.policies.gripper_hysteresis import GripperHysteresis

PERIOD = 0.05
DOWN = np.array([0.1, -0.4, 0.3, 0.0, 1.0, 0.0, 0.0])


def truth(t):
    """A pose that moves on a circle of 10 cm and turns."""
    return apply_delta(
        DOWN, np.array([0.1 * np.sin(t), 0.1 * np.cos(t) - 0.1, 0.0, 0.0, 0.0, 0.4 * np.sin(t)])
    )


def chunk_of(time_s, count=16):
    """What a policy that knows the truth answers to an observation."""
    return np.array([truth(time_s + (k + 1) * PERIOD) for k in range(count)]), np.ones(count)


def run(scheduler, latency, seconds=6.0, tick_s=0.01, lost=lambda n: False, chunk=chunk_of):
    """Ticks of a policy with a latency; returns times and sampled poses."""
    scheduler.start(truth(0.0))
    rng = np.random.default_rng(0)
    replies = []
    times = []
    poses = []
    requests = 0
    for tick in range(round(seconds / tick_s)):
        now = tick * tick_s
        while replies and replies[0][0] <= now:
            _, observed, answer = replies.pop(0)
            if answer is None:
                scheduler.reply_lost(now)
            else:
                scheduler.add(*answer, observed, now)
        if scheduler.wants_request(now):
            scheduler.request_sent(now)
            gone = lost(requests)
            replies.append((now + (0.5 if gone else latency(rng)), now, None if gone else chunk(now)))
            requests += 1
        times.append(now)
        poses.append(scheduler.sample(now)[0])
    return np.array(times), np.array(poses)


def errors_m(times, poses, after=1.0):
    return np.array(
        [np.linalg.norm(pose[:3] - truth(t)[:3]) for t, pose in zip(times, poses, strict=True) if t > after]
    )


@pytest.mark.parametrize('latency', [0.0, 0.05, 0.1, 0.2, 0.4])
def test_a_policy_that_is_late_is_followed_in_time(latency):
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))
    times, poses = run(scheduler, lambda rng: latency)
    # Poses between two steps are on a straight line: 0.1 m * 0.05^2 / 8 from the circle. A latency of half a
    # chunk leaves no reserve: the next one arrives when the motion has begun to decelerate.
    assert errors_m(times, poses).max() < (5e-5 if latency < 0.4 else 2.5e-3)
    assert not scheduler.is_exhausted(times[-1])
    if latency:
        assert scheduler.stats.dropped_share == pytest.approx(latency / PERIOD / 16, abs=0.07)


def test_lost_replies_cost_no_motion_while_the_chunk_lasts():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, inference_interval_s=0.2))
    times, poses = run(scheduler, lambda rng: 0.05 + 0.02 * rng.random(), lost=lambda n: n > 0 and n % 7 == 0)
    assert errors_m(times, poses).max() < 1e-3
    assert scheduler.stats.late > 0


def test_deltas_that_are_integrated_from_the_target_lose_no_motion():
    """The steps that have passed are dropped, and the next is where it would have been."""
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))

    def deltas(now):
        steps = np.array([truth(now + k * PERIOD) for k in range(17)])
        return integrate_deltas(scheduler.target(now), deltas_between(steps))[1:], np.ones(16)

    times, poses = run(scheduler, lambda rng: 0.2, chunk=deltas)
    # The first chunk came late and began at the held pose; nothing may be lost or doubled afterwards.
    moved = [
        np.linalg.norm((b - a)[:3] - (truth(t + 0.5) - truth(t))[:3])
        for t, a, b in zip(times, poses, poses[50:], strict=False)
        if t > 1.0
    ]
    assert max(moved) < 1e-4


@given(offset=st.floats(-0.03, 0.03), turn=st.floats(-0.5, 0.5), blend=st.floats(0.05, 0.4))
@settings(max_examples=40)
def test_a_transition_has_no_jump_and_is_between_both_chunks(offset, turn, blend):
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, blend_s=blend))
    scheduler.start(truth(0.0))
    scheduler.add(*chunk_of(0.0), 0.0, 0.0)
    later, ones = chunk_of(0.2)
    moved = np.array([apply_delta(pose, np.array([offset, 0, 0, 0, 0, turn])) for pose in later])
    scheduler.add(moved, ones, 0.2, 0.3)
    times = np.arange(0.25, 0.3 + blend + 0.1, 0.002)
    poses = np.array([scheduler.sample(t)[0] for t in times])
    steps = np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1)
    assert steps.max() <= 0.002 * (0.12 + 1.5 * abs(offset) / blend) + 1e-9
    for t, pose in zip(times, poses, strict=True):
        along = pose[:3] - truth(t)[:3]
        assert min(0.0, offset) - 1e-4 <= along[0] <= max(0.0, offset) + 1e-4
        assert angle_between(truth(t), pose) <= abs(turn) + 1e-4
    np.testing.assert_allclose(
        poses[-1][:3], apply_delta(truth(times[-1]), np.array([offset, 0, 0, 0, 0, 0]))[:3], atol=1e-4
    )
    transition = scheduler.stats.transitions[-1]
    assert transition.jump_m == pytest.approx(abs(offset), abs=1e-4)
    assert transition.jump_rad == pytest.approx(abs(turn), abs=1e-4)


def test_starvation_runs_out_to_a_stop_within_its_distance():
    settings_ = ScheduleSettings(PERIOD, stop_distance_m=0.005)
    scheduler = ChunkScheduler(settings_)
    scheduler.start(truth(0.0))
    poses, openings = chunk_of(0.0)
    scheduler.add(poses, openings, 0.0, 0.0)
    times = np.arange(0.7, 1.2, 0.01)
    sampled = np.array([scheduler.sample(t)[0] for t in times])
    assert not scheduler.is_exhausted(0.85)
    assert scheduler.is_exhausted(0.91)
    np.testing.assert_array_equal(sampled[-1], sampled[-5])
    beyond = np.linalg.norm(sampled[-1][:3] - poses[-1][:3])
    assert 0 < beyond <= settings_.stop_distance_m + 1e-9
    speeds = np.linalg.norm(np.diff(sampled[:, :3], axis=0), axis=1) / 0.01
    assert np.all(np.diff(speeds[10:]) < 0.02)


def test_a_chunk_that_comes_too_late_is_counted_and_not_taken():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))
    scheduler.start(truth(0.0))
    assert scheduler.add(*chunk_of(0.0), 0.0, 0.0) == 0.0
    before = scheduler.sample(2.0)[0]
    assert scheduler.add(*chunk_of(0.5), 0.5, 2.0) is None
    assert scheduler.stats.late == 1
    np.testing.assert_array_equal(scheduler.sample(2.0)[0], before)


def test_the_first_chunk_begins_when_it_comes():
    """The arm has stood still while the model worked: nothing has passed, and nothing may jump."""
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))
    scheduler.start(truth(0.0))
    scheduler.add(*chunk_of(0.0), 0.0, 0.3)
    np.testing.assert_allclose(scheduler.sample(0.3)[0], truth(0.0), atol=1e-12)
    np.testing.assert_allclose(scheduler.sample(0.35)[0][:3], truth(0.05)[:3], atol=1e-9)
    assert scheduler.stats.dropped == 0


def test_the_target_stays_near_the_measured_pose():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, max_lead_m=0.02))
    scheduler.start(DOWN)
    scheduler.add(*chunk_of(0.0), 0.0, 0.0)
    pose, _ = scheduler.sample(0.6, measured=DOWN)
    assert np.linalg.norm(pose[:3] - DOWN[:3]) == pytest.approx(0.02)


def test_the_delay_of_the_robot_is_compensated():
    """From the second chunk on, since the first begins at rest: nothing may jump there."""
    plain, led = (
        ChunkScheduler(ScheduleSettings(PERIOD, robot_action_latency_s=lead)) for lead in (0.0, 0.1)
    )
    for scheduler in (plain, led):
        scheduler.start(truth(0.0))
        scheduler.add(*chunk_of(0.0), 0.0, 0.0)
        np.testing.assert_allclose(scheduler.sample(0.0)[0], truth(0.0), atol=1e-12)
        scheduler.add(*chunk_of(0.3), 0.3, 0.3)
    np.testing.assert_allclose(led.sample(0.5)[0], plain.sample(0.6)[0], atol=1e-12)


def test_the_delay_of_the_gripper_is_compensated():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, gripper_action_latency_s=0.2))
    scheduler.start(truth(0.0))
    poses, openings = chunk_of(0.0)
    openings[8:] = 0.0
    scheduler.add(poses, openings, 0.0, 0.0)
    assert [scheduler.sample(time_s)[1] for time_s in (0.15, 0.25)] == [1.0, 0.0]


def test_the_last_chunk_ends_where_it_ends():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))
    scheduler.start(truth(0.0))
    scheduler.add(*chunk_of(0.0), 0.0, 0.0, last=True)
    np.testing.assert_allclose(scheduler.sample(2.0)[0], truth(16 * PERIOD), atol=1e-12)


def test_temporal_ensembling_averages_the_overlapping_chunks():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, temporal_ensemble_coeff=0.1))
    scheduler.start(truth(0.0))
    for now, offset in ((0.0, 0.0), (0.2, 0.02), (0.4, -0.01)):
        poses, openings = chunk_of(now)
        moved = np.array([apply_delta(pose, np.array([offset, 0, 0, 0, 0, 0])) for pose in poses])
        scheduler.add(moved, openings, now, now)
    weights = np.exp(-0.1 * np.arange(3))
    wanted = truth(0.5)[0] + weights @ np.array([-0.01, 0.02, 0.0]) / weights.sum()
    assert scheduler.sample(0.5)[0][0] == pytest.approx(wanted, abs=1e-4)


def test_requests_go_out_early_enough_for_the_latency():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, inference_interval_s=10.0, margin_s=0.05))
    scheduler.start(truth(0.0))
    scheduler.request_sent(0.0)
    assert not scheduler.wants_request(0.1)
    scheduler.add(*chunk_of(0.0), 0.0, 0.3)
    assert not scheduler.wants_request(1.1 - 0.35 - 0.01)
    assert scheduler.wants_request(1.1 - 0.35 + 0.01)


def test_a_flush_forgets_the_plan():
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD))
    scheduler.start(truth(0.0))
    scheduler.add(*chunk_of(0.0), 0.0, 0.0)
    scheduler.flush(DOWN)
    np.testing.assert_array_equal(scheduler.sample(0.3)[0], DOWN)
    assert scheduler.wants_request(0.3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_gripper_changes_only_beyond_its_thresholds(values):
    decider = GripperHysteresis()
    before = np.nan
    for value in values:
        opening = decider.decide(value)
        if 0.4 <= value <= 0.6:
            assert opening == before or (np.isnan(opening) and np.isnan(before))
        else:
            assert opening == float(value > 0.5)
        before = opening


def test_rotations_are_blended_as_rotations():
    """Between rotations of 170 and -170 degrees about one axis is 180, not 0."""
    scheduler = ChunkScheduler(ScheduleSettings(PERIOD, blend_s=0.2))
    turned = [
        np.concatenate([DOWN[:3], Rotation.from_euler('z', angle, degrees=True).as_quat()])
        for angle in (170, -170)
    ]
    scheduler.start(turned[0])
    scheduler.add(np.array([turned[0]] * 16), np.ones(16), 0.0, 0.0)
    scheduler.add(np.array([turned[1]] * 16), np.ones(16), 0.0, 0.1)
    angle = Rotation.from_quat(scheduler.sample(0.2)[0][3:]).as_euler('xyz', degrees=True)[2]
    assert abs(angle) == pytest.approx(180.0, abs=1e-6)
