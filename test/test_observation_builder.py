# SPDX-License-Identifier: Apache-2.0
"""Observations of a running robot equal the converted rows, or are refused; shadow mode compares them."""

import numpy as np
import pytest

from groot_ros.geometry import apply_delta, pose_to_eef_9d
from groot_ros.message_fields import stamp_to_ns
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.policies.factory import PolicyChoice, make_policy
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.policy import PolicySpec
from groot_ros.policies.shadow import Shadow

from .test_policy_runner import MadeUpWorker


def fed(synthetic, embodiment, until_s=2.0, leave_out=(), **options):
    """A builder that has seen a synthetic episode up to a time, and that time."""
    episode = synthetic(seconds=until_s)
    builder = ObservationBuilder(embodiment, **options)
    for arrival_ns, topic, message in episode.entries():
        if arrival_ns <= until_s * 1e9 and topic not in leave_out:
            stamp = message.header.stamp
            builder.add(topic, stamp_to_ns(stamp), message)
    return builder, round(until_s * 1e9)


def test_the_newest_whole_tick_is_seen_as_it_was(synthetic, embodiment, known):
    builder, until_ns = fed(synthetic, embodiment, max_observation_age_s=0.2)
    seen = builder.observe(known.t0_ns + until_ns, 'go on')
    t = (seen.tick_ns - known.t0_ns) / 1e9
    assert 0 <= until_ns / 1e9 - t < 0.11
    np.testing.assert_allclose(seen.state[:6], known.motion.joints(t), atol=1e-5)
    np.testing.assert_allclose(seen.state[13:], known.motion.pose(t), atol=1e-5)
    assert seen.images['zed_camera'].shape == (480, 640, 3)
    assert seen.images['zed_camera'][0, 0, 0] == pytest.approx(round(t * 1e3) % 200, abs=2)
    assert (seen.task, seen.earlier) == ('go on', {})


def test_earlier_rows_are_seen_where_a_policy_wants_them(synthetic, embodiment, known):
    builder, until_ns = fed(
        synthetic, embodiment, max_observation_age_s=0.2, observation_indices=(-15, -1, 0)
    )
    seen = builder.observe(known.t0_ns + until_ns, '')
    row_s = 1 / embodiment.fps
    for step in (-15, -1):
        t = (seen.tick_ns - known.t0_ns) / 1e9 + step * row_s
        np.testing.assert_allclose(seen.at(step).state[:6], known.motion.joints(t), atol=1e-5)
        assert seen.at(step).images['zed_camera'][0, 0, 0] == pytest.approx(round(t * 1e3) % 200, abs=2)
    assert seen.at(0) is seen


@pytest.mark.parametrize('topic', ['joint_states', 'gripper/state', 'tcp_pose', 'zed/image'])
def test_nothing_is_made_up_for_a_stream_that_is_missing(synthetic, embodiment, known, topic):
    builder, until_ns = fed(synthetic, embodiment, leave_out=(topic,))
    missing = builder.observe(known.t0_ns + until_ns, '')
    assert isinstance(missing, ObservationUnavailable)
    assert f'nothing has come on {topic}' in missing.reason


def test_a_stream_that_falls_silent_is_named_with_its_silence(synthetic, embodiment, known):
    builder, until_ns = fed(synthetic, embodiment, max_observation_age_s=0.3)
    missing = builder.observe(known.t0_ns + until_ns + 700_000_000, '')
    assert isinstance(missing, ObservationUnavailable)
    assert missing.reason.startswith('zed/image has been silent for 0.7')


def test_a_builder_without_enough_earlier_rows_makes_no_observation(synthetic, embodiment, known):
    builder, until_ns = fed(synthetic, embodiment, until_s=0.4, observation_indices=(-15, 0))
    assert isinstance(builder.observe(known.t0_ns + until_ns, ''), ObservationUnavailable)


class Foreseeing(HoldPolicy):
    """Knows the motion, and is wrong by a tenth of a millimetre along x."""

    def __init__(self, embodiment, known) -> None:
        super().__init__(embodiment)
        self.spec = PolicySpec('foreseeing', 8)
        self._embodiment = embodiment
        self._known = known

    def infer(self, observation):
        row_s = 1 / self._embodiment.fps
        t = (observation.tick_ns - self._known.t0_ns) / 1e9 + row_s * np.arange(9)
        moved = np.diff([self._known.motion.pose(time_s)[:3] for time_s in t], axis=0) + np.array(
            [1e-4, 0, 0]
        )
        turned = np.tile([0, 0, 0.4 * row_s], (8, 1))
        return {'delta_tcp_position': moved, 'delta_tcp_orientation': turned}


def test_the_shadow_measures_how_far_a_policy_is_from_the_operator(synthetic, embodiment, known):
    builder = ObservationBuilder(embodiment, kept_s=4.0)
    worker = MadeUpWorker(Foreseeing(embodiment, known))
    shadow = Shadow(worker, builder, 1 / embodiment.fps, inference_interval_s=0.2)
    for arrival_ns, topic, message in synthetic(seconds=4.0).entries():
        stamp = message.header.stamp
        builder.add(topic, stamp_to_ns(stamp), message)
        worker.now_ns = known.t0_ns + arrival_ns
        shadow.tick(worker.now_ns, 'go on')
    found = shadow.evaluation.as_dict()
    assert 10 < found['chunks'] <= 20
    assert shadow.problem == ''
    assert found['keys']['delta_tcp_position']['mae'] == pytest.approx(1e-4 / 3, rel=0.02)
    assert found['keys']['delta_tcp_orientation']['mae'] < 1e-5
    assert len(found['keys']['delta_tcp_position']['mae_by_step']) == 8


class ForeseeingPoses(Foreseeing):
    """Answers poses, as GR00T does for actions relative to the state: 2 mm and 0.02 rad off."""

    def infer(self, observation):
        t = (observation.tick_ns - self._known.t0_ns) / 1e9 + np.arange(1, 9) / self._embodiment.fps
        off = np.array([2e-3, 0, 0, 0, 0, 0.02])
        poses = np.array([apply_delta(self._known.motion.pose(time_s), off) for time_s in t])
        return {'eef_9d': pose_to_eef_9d(poses), 'more': np.zeros((8, 1))}


def test_the_shadow_compares_poses(synthetic, embodiment, known):
    shadow, problems = shadowed(ForeseeingPoses(embodiment, known), synthetic, embodiment, known)
    found = shadow.evaluation.as_dict()
    assert not any('answer' in problem for problem in problems)
    assert found['uncompared'] == ['more']
    assert found['keys']['eef_9d position']['mae'] == pytest.approx(2e-3 / 3, rel=0.02)
    assert found['keys']['eef_9d rotation']['mae'] == pytest.approx(0.02, rel=0.02)


def shadowed(policy, synthetic, embodiment, known, seconds=2.0):
    """A shadow of the policy over a synthetic episode; keeps the problems that it named."""
    builder = ObservationBuilder(embodiment, kept_s=4.0)
    worker = MadeUpWorker(policy)
    shadow = Shadow(worker, builder, 1 / embodiment.fps, inference_interval_s=0.2)
    problems = set()
    for arrival_ns, topic, message in synthetic(seconds=seconds).entries():
        builder.add(topic, stamp_to_ns(message.header.stamp), message)
        worker.now_ns = known.t0_ns + arrival_ns
        shadow.tick(worker.now_ns, 'go on')
        problems.add(shadow.problem)
    return shadow, problems


def test_the_shadow_compares_chunks_of_different_lengths(synthetic, embodiment, known):
    """The last chunks of a replay are shorter, and so may be those of a model."""

    class Shrinking(Foreseeing):
        def infer(self, observation):
            self.spec.horizon = max(self.spec.horizon - 1, 0)
            return {name: values[: self.spec.horizon] for name, values in super().infer(observation).items()}

    policy = Shrinking(embodiment, known)
    shadow, _ = shadowed(policy, synthetic, embodiment, known)
    found = shadow.evaluation.as_dict()
    assert found['chunks'] == 7
    errors = found['keys']['delta_tcp_position']
    assert errors['mae'] == pytest.approx(1e-4 / 3, rel=0.02)
    assert len(errors['mae_by_step']) == 7
    assert shadow.mean_errors()
    assert shadow.evaluation.summary_lines()


@pytest.mark.parametrize(
    'answer',
    [
        {'delta_tcp_position': np.zeros((8, 7))},
        {'delta_tcp_position': np.zeros(8)},
        {'delta_tcp_position': np.full((8, 3), np.nan)},
        {'delta_tcp_position': np.array([['x'] * 3] * 8)},
        {'delta_tcp_position': 1.0},
        {'delta_tcp_position': np.zeros((8, 3)), 'delta_tcp_orientation': np.zeros((9, 3, 3))},
        {'delta_tcp_position': np.zeros((10_000_000, 3), np.int8)},
        {'delta_tcp_position': None},
        {'eef_9d': np.zeros((8, 7))},
        {'eef_9d': None},
        {'eef_6d': np.zeros((8, 9))},
    ],
)
def test_the_shadow_names_an_answer_that_cannot_be_compared(synthetic, embodiment, known, answer):
    policy = Foreseeing(embodiment, known)
    policy.infer = lambda observation: answer
    shadow, problems = shadowed(policy, synthetic, embodiment, known)
    assert any('The policy answer' in problem for problem in problems)
    assert shadow.evaluation.as_dict() == {
        'policy': 'foreseeing',
        'chunks': 0,
        'uncompared': [],
        'keys': {},
    }


@pytest.mark.parametrize('backend', ['hold', 'scripted', 'replay'])
def test_policies_that_see_nothing_run_in_the_shadow(synthetic, embodiment, known, converted, backend):
    choice = PolicyChoice(backend, str(converted) if backend == 'replay' else '')
    policy = make_policy(choice, embodiment, on_line=lambda line: None)
    shadow, problems = shadowed(policy, synthetic, embodiment, known, seconds=3.0)
    assert shadow.evaluation.chunks > 5
    assert not any('The policy answer' in problem for problem in problems)


def test_the_shadow_says_what_is_wrong_and_goes_on(synthetic, embodiment, known):
    builder = ObservationBuilder(embodiment)
    worker = MadeUpWorker(Foreseeing(embodiment, known))
    shadow = Shadow(worker, builder, 1 / embodiment.fps, inference_interval_s=0.2)
    shadow.tick(known.t0_ns, '')
    assert 'nothing has come on' in shadow.problem
