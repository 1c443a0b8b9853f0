# SPDX-License-Identifier: Apache-2.0
"""What a row is: joints by name, deltas between successive states, the command in force at the next tick."""

from types import SimpleNamespace

import numpy as np
import pytest

from groot_ros.embodiment import TopicField, load_embodiment, parse_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.sampling.rows import TickSample, build_rows, extract_field


def test_joints_are_found_by_name():
    message = SimpleNamespace(name=['b', 'a'], position=[2.0, 1.0])
    np.testing.assert_array_equal(
        extract_field(message, TopicField(topic='j', field='position', joints=('a', 'b'))), [1.0, 2.0]
    )


def test_a_missing_joint_is_named():
    message = SimpleNamespace(name=['b'], position=[2.0])
    with pytest.raises(GrootRosError, match='no position of a'):
        extract_field(message, TopicField(topic='j', field='position', joints=('a', 'b')))


def test_n_plus_one_samples_make_n_rows(embodiment):
    quarter = np.sqrt(0.5)
    poses = [
        [0, 0, 0, 0, 0, 0, 1],
        [0.1, 0, 0, 0, 0, quarter, quarter],
        [0.1, 0.2, 0, 0, 0, -quarter, -quarter],
    ]
    samples = [
        TickSample(
            tick_ns=k,
            state=np.concatenate([np.zeros(13), pose]),
            commands=np.array([command]),
            ages_s=np.zeros(4),
        )
        for k, (pose, command) in enumerate(zip(poses, [1.0, 0.5, 0.0], strict=True))
    ]
    rows = build_rows(embodiment, samples)
    np.testing.assert_allclose(
        rows.actions, [[0.1, 0, 0, 0, 0, np.pi / 2, 0.5], [0, 0.2, 0, 0, 0, 0, 0.0]], atol=1e-12
    )
    assert rows.states.shape == (2, 20)
    assert rows.states[1, 19] > 0


def test_one_sample_makes_no_row(embodiment):
    with pytest.raises(GrootRosError, match='at least two'):
        build_rows(embodiment, [TickSample(0, np.zeros(20), np.zeros(1), np.zeros(4))])


def test_the_shipped_embodiment_has_the_published_layout(embodiment):
    assert {name: (part.start, part.stop) for name, part in embodiment.state_slices.items()} == {
        'joint_positions': (0, 6), 'joint_velocities': (6, 12),
        'gripper_state': (12, 13), 'tcp_pose': (13, 20),
    }  # fmt: skip
    assert (embodiment.state_size, embodiment.action_size) == (20, 7)
    assert parse_embodiment(embodiment.text(), 'again') == embodiment


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (('pose: tcp_pose', 'pose: nothing'), 'must name a pose'),
        (('fps: 20', 'fps: -1'), 'fps'),
        (('sample: linear', 'sample: cubic'), 'sample'),
        (('name: ur5e', 'nam: ur5e'), 'nam'),
        (('state:', 'state: ['), 'not YAML'),
        (('name: ur5e_robotiq_zed', 'name: ../../etc'), 'wrong at name'),
        (('name: zed_camera', 'name: a/b'), 'cameras.0.name'),
        (('width: 640', 'width: 1000000'), 'cameras.0.width'),
        (('height: 480', 'height: 47'), 'cameras.0.height'),
        (('max_age_s: 0.1', 'max_age_s: .inf'), 'max_age_s'),
        (('scale: 1.0', 'scale: .nan'), 'scale'),
        (('robot_type: ur5e', 'base: so101_dualcam\nrobot_type: ur5e'), 'wrong at base'),
        (('robot_type: ur5e', 'robot_type: "a\\0b"'), 'robot_type'),
    ],
)
def test_a_wrong_embodiment_is_refused_by_name(change, match, embodiment):
    with pytest.raises(GrootRosError, match=match):
        parse_embodiment(embodiment.text().replace(*change, 1), 'mine.yaml')


def test_an_unknown_embodiment_lists_the_known_ones():
    with pytest.raises(GrootRosError, match='ur5e_robotiq_zed'):
        load_embodiment('../secret')
