# SPDX-License-Identifier: Apache-2.0
"""What a person sees in the reports: names, units, gaps, and links that lead somewhere."""

import re

import numpy as np
import pytest

from groot_ros.cli.main import main
from groot_ros.dimensions import dimensions, three_digits, with_unit
from groot_ros.policies import evaluation_plot
from groot_ros.policies.evaluate import Evaluation
from groot_ros.policies.recorded_actions import RecordedActions
from groot_ros.quality import curves
from groot_ros.quality.trace import EpisodeTrace


@pytest.fixture(scope='module')
def page(bags, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'episode.html'
    main(['inspect', str(bags / 'episode_000000'), '--quiet', '--report', str(path)])
    return path.read_text()


def test_every_reason_leads_to_a_part_of_the_page(page):
    targets = set(re.findall(r'href="#(\w+)"', page))
    assert targets
    assert targets <= set(re.findall(r'id="(\w+)"', page))


def test_the_page_fits_a_phone(page):
    assert '<meta name="viewport" content="width=device-width' in page


@pytest.mark.parametrize(
    ('field', 'first', 'last'),
    [
        ('joint_positions', ('shoulder_pan', 'rad'), ('wrist_3', 'rad')),
        ('joint_velocities', ('shoulder_pan', 'rad/s'), ('wrist_3', 'rad/s')),
        ('gripper_state', ('', '0 closed, 1 open'), ('', '0 closed, 1 open')),
        ('tcp_pose', ('x', 'm'), ('qw', '')),
        ('delta_tcp_position', ('x', 'm'), ('z', 'm')),
        ('delta_tcp_orientation', ('x', 'rad'), ('z', 'rad')),
    ],
)
def test_every_number_of_our_robot_has_a_name_and_a_unit(embodiment, field, first, last):
    chosen = next(entry for entry in (*embodiment.state, *embodiment.action) if entry.name == field)
    found = dimensions(chosen)
    assert len(found) == chosen.size
    assert (found[0], found[-1]) == (first, last)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0.092341, '0.0923'),
        (12.3349, '12.3'),
        (1239.38, '1239'),
        (7.0, '7'),
        (2.2e-14, '0'),
        (-0.58, '-0.58'),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert three_digits(value) == text


def test_a_unit_stands_in_brackets():
    assert with_unit('TCP', 'm') == 'TCP [m]'
    assert with_unit('quaternion', '') == 'quaternion'


@pytest.fixture
def trace(embodiment):
    """Ten rows at the rate of the embodiment, whose pose changes the sign of its quaternion in the middle."""
    trace = EpisodeTrace(embodiment, ['tcp_pose'])
    period_ns = round(1e9 / embodiment.fps)
    state = np.zeros(embodiment.state_size)
    pose = embodiment.state_slices['tcp_pose']
    for row in range(10):
        state[pose] = [0.1, 0.2, 0.3, 0, 0, 0, 1 if row < 5 else -1]
        trace._ticks_ns.append(row * period_ns)
        trace._segments.append(0 if row < 8 else 1)
        trace._states.extend(state)
    return trace


def test_a_gap_is_marked_from_the_last_message_to_the_next(trace):
    for stamp_ms in (0, 8, 16, 24, 184, 192):
        trace.add_message('tcp_pose', stamp_ms * 1_000_000, 0)
    assert curves.gaps_s(trace, 'tcp_pose', 0.06) == [pytest.approx((0.024, 0.184))]
    assert curves.gaps_s(trace, 'tcp_pose', 0.2) == []
    assert curves.gaps_s(trace, 'zed/image', 0.06) == []


def test_a_quaternion_that_changes_its_sign_is_drawn_without_a_jump(trace):
    field = next(field for field in trace.embodiment.state if field.name == 'tcp_pose')
    groups = list(curves._groups(trace, field))
    assert [(label, names) for label, names, _ in groups] == [
        ('tcp_pose\n[m]', ['x', 'y', 'z']),
        ('tcp_pose\nquaternion', ['qx', 'qy', 'qz', 'qw']),
    ]
    assert np.all(groups[1][2][:, 3] == 1)


def test_a_curve_is_broken_at_a_pause(trace):
    _, axes = curves.plt.subplots()
    curves._draw(axes, trace, ['x'], np.zeros((10, 1)))
    drawn = axes.lines[0].get_xdata()
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [8]
    curves.plt.close('all')


def test_an_evaluation_is_drawn_with_units_every_policy_and_the_recorded_path(embodiment, tmp_path):
    path = tmp_path / 'errors.svg'
    rng = np.random.default_rng(0)
    actions = rng.normal(0, 0.01, (40, embodiment.action_size))
    recorded = RecordedActions(embodiment, actions, None)
    results = []
    for name, error in (('policy one', 0.001), ('policy two', 0.004)):
        result = Evaluation(name)
        for row in range(0, 33, 8):
            chunk = {
                key: actions[row : row + 8, part] + error for key, part in embodiment.action_slices.items()
            }
            result.add(chunk, recorded.since(row))
            result.keep(row, chunk, recorded)
        results.append(result)
    evaluation_plot.write_evaluation_plot(results, embodiment, path)
    drawn = path.read_text()
    for text in ('policy one', 'policy two', 'recorded', 'x, added up [m]', 'mean absolute error [rad]'):
        assert text in drawn


def test_the_same_policy_twice_has_two_names():
    named = evaluation_plot.names([Evaluation('same'), Evaluation('same'), Evaluation('other')])
    assert named == ['same (1)', 'same (2)', 'other']
