# SPDX-License-Identifier: Apache-2.0
"""Verdicts: good episodes pass, each fault is found by its check, a bag gives its recorder's verdict."""

import json

import numpy as np
import pytest

from groot_ros.bags.message_types import serialized, time_message, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.writer import EpisodeWriter
from groot_ros.cli.main import main
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.message_fields import stamp_to_ns
from groot_ros.quality.checks import CHECKS
from groot_ros.quality.trace_from_bag import load_bag_embodiment, load_trace
from groot_ros.quality.verdict import judge, load_thresholds

SECONDS = 6.0
T0_NS = 1_700_000_000_000_000_000
STATUS = 'groot_ros/msg/RobotStatus'


@pytest.fixture(scope='module')
def embodiment():
    """Small images: the encoder is not what is tested here."""
    shipped = load_embodiment('ur5e_robotiq_zed')
    return shipped.model_copy(
        update={'cameras': (shipped.cameras[0].model_copy(update={'width': 160, 'height': 120}),)}
    )


def textured(entries):
    """Frames that are neither black nor the same."""
    rng = np.random.default_rng(0)
    for _, topic, message in entries:
        if topic == 'zed/image':
            message.data = rng.integers(60, 200, message.data.shape, dtype=np.uint8)
    return entries


def seconds(entry) -> float:
    return entry[0] / 1e9


def without(topic, begin_s, end_s, every=1):
    def change(entries):
        kept = [e for e in entries if e[1] != topic or not begin_s <= seconds(e) < end_s]
        removed = [e for e in entries if e[1] == topic and begin_s <= seconds(e) < end_s]
        return sorted([*kept, *(e for k, e in enumerate(removed) if k % every)], key=lambda e: e[0])

    return change


def changed(topic, begin_s, end_s, change_message):
    def change(entries):
        for entry in entries:
            if entry[1] == topic and begin_s <= seconds(entry) < end_s:
                change_message(entry[2], seconds(entry))
        return entries

    return change


def stamped(message, offset_s):
    stamp = message.header.stamp
    message.header.stamp = time_message(stamp_to_ns(stamp) + round(offset_s * 1e9))


def stamp_ahead(message, t):
    stamped(message, 0.05)


def dark(message, t):
    message.data = np.zeros_like(message.data)


def grey(message, t):
    message.data = np.full_like(message.data, 99)


def jump_joints(message, t):
    message.position = message.position + 1.0


def jump_tcp(message, t):
    message.pose.position.x += 0.3


def open_gripper(message, t):
    message.opening = message.target = 1.0


def late(topic, delay_s):
    def change(entries):
        for entry in entries:
            entry[0] += round(delay_s * 1e9) if entry[1] == topic else 0
        return sorted(entries, key=lambda e: e[0])

    return change


def swapped(entries):
    arm = [e for e in entries if e[1] == 'joint_states']
    for k in range(100, 600, 40):
        arm[k][2], arm[k + 1][2] = arm[k + 1][2], arm[k][2]
    return entries


def statuses(*values):
    """robot_status every second: (source, accepted, clipped, refused)."""

    def change(entries):
        types = typestore().types
        for k, (source, accepted, clipped, refused) in enumerate(values):
            header = types['std_msgs/msg/Header'](time_message(0), '')
            blank = {
                'connected': True,
                'robot_mode': 7,
                'robot_mode_text': '',
                'safety_mode': 1,
                'safety_mode_text': '',
                'runtime_state': 2,
            }
            more = {
                'program_running': True,
                'protective_stopped': False,
                'emergency_stopped': False,
                'speed_scaling': 1.0,
                'state': 1,
                'reason': '',
            }
            message = types[STATUS](
                header=header,
                source=source,
                accepted=accepted,
                clipped=clipped,
                refused=refused,
                **blank,
                **more,
            )
            entries.append([round((1 + k) * 1e9), 'robot_status', message])
        return sorted(entries, key=lambda e: e[0])

    return change


def resting_at_first(entries):
    """Nothing moves for 3 s."""
    first = {}
    for entry in entries:
        stamp = entry[2].header.stamp
        if seconds(entry) < 3.0 and entry[1] in ('joint_states', 'tcp_pose', 'gripper/state'):
            entry[2] = type(entry[2])(
                **{**vars(first.setdefault(entry[1], entry[2])), 'header': entry[2].header}
            )
            entry[2].header.stamp = stamp
    return entries


FAULTS = {
    'frames missing for half a second': (without('zed/image', 2.0, 2.5), 'max_filled_s', 'fail'),
    'frames missing here and there': (without('zed/image', 1.0, 5.0, every=12), 'filled_share', 'warn'),
    'half of the joint states': (without('joint_states', 0.0, 9.0, every=2), 'rate_deviation', 'fail'),
    'joint states absent for 0.4 s': (without('joint_states', 2.0, 2.4), 'gap_s', 'fail'),
    'state absent at rows': (without('tcp_pose', 2.0, 2.5), 'rows_without_state', 'fail'),
    'black frames': (changed('zed/image', 2.0, 4.0, dark), 'black_share', 'fail'),
    'frozen image': (changed('zed/image', 2.0, 4.0, grey), 'frozen_s', 'fail'),
    'joints jump': (changed('joint_states', 3.0, 9.0, jump_joints), 'joint_speed_rad_s', 'fail'),
    'TCP jumps': (changed('tcp_pose', 3.0, 9.0, jump_tcp), 'tcp_speed_m_s', 'fail'),
    'gripper never moves': (changed('gripper/state', 0.0, 9.0, open_gripper), 'gripper_still', 'warn'),
    'stamps in the future': (changed('gripper/state', 0.0, 9.0, stamp_ahead), 'future_stamp_s', 'fail'),
    'stamps out of order': (swapped, 'stamp_regressions', 'fail'),
    'messages come 0.3 s late': (late('gripper/state', 0.3), 'delay_s', 'warn'),
    'messages come 0.7 s late': (late('gripper/state', 0.7), 'late_share', 'fail'),
    'rests at first': (resting_at_first, 'idle_head_s', 'warn'),
    'teleop takes over': (statuses(('policy', 0, 0, 0), ('teleop', 9, 0, 0)), 'overrides', 'warn'),
    'commands clipped': (statuses(('t', 100, 0, 0), ('t', 200, 50, 0)), 'clipped_share', 'fail'),
    'commands refused': (statuses(('teleop', 100, 0, 0), ('teleop', 200, 0, 7)), 'refused_commands', 'warn'),
}  # fmt: skip


@pytest.fixture
def judged(tmp_path, synthetic):
    """Records entries as changed and returns the recorder's verdict."""

    def record(change=lambda entries: entries, length_s=SECONDS, name='bag', **options):
        source = synthetic(seconds=length_s)
        trace = source.record(
            tmp_path / name,
            entries=change(textured(source.entries())),
            more_types={'robot_status': STATUS},
            **options,
        )
        return judge(trace, load_thresholds(), {}, name), trace

    return record


def test_a_good_episode_passes_every_check(judged):
    verdict, _ = judged()
    assert verdict.verdict == 'pass', verdict.reasons
    assert {finding.check for finding in verdict.findings} >= set(CHECKS) - {
        'clipped_share',
        'refused_commands',
        'drift_ppm',
    }


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_is_found_by_its_check(judged, fault):
    change, check, level = FAULTS[fault]
    verdict, _ = judged(change)
    found = {finding.check: finding.level for finding in verdict.findings if finding.level != 'pass'}
    assert found.get(check) == level, (fault, verdict.reasons)


def test_a_clock_that_drifts_is_found_once_it_matters(judged):
    drift = changed('joint_states', 0.0, 99.0, lambda message, t: stamped(message, -2e-4 * t))
    verdict, _ = judged(drift, length_s=16.0)
    assert [f.level for f in verdict.findings if f.check == 'drift_ppm' and f.subject == 'joint_states'] == [
        'fail'
    ]


def test_a_camera_that_gets_slower_for_a_while_has_no_other_clock(judged):
    def slower(entries):
        for entry in entries:
            if entry[1] == 'zed/image':
                entry[0] += round(8e6 * max(seconds(entry) - 6.0, 0.0) / 6.0)
        return sorted(entries, key=lambda e: e[0])

    verdict, _ = judged(slower, length_s=12.0)
    assert not [f for f in verdict.findings if f.check == 'drift_ppm']


def test_lost_messages_fail(judged):
    def lose(entries):
        entries.insert(200, [0, '', lambda recording: recording.add_lost('tcp_pose', 2)])
        return entries

    verdict, trace = judged(lose)
    assert trace.lost == 2
    assert any(reason == 'tcp_pose lost 2 messages (limit: 1).' for reason in verdict.reasons)


@pytest.mark.parametrize(
    'fault', ['frames missing for half a second', 'commands clipped', 'state absent at rows']
)
def test_a_bag_gives_the_verdict_that_its_recorder_gave(judged, tmp_path, fault):
    live, _ = judged(FAULTS[fault][0])
    with EpisodeBag(tmp_path / 'bag') as bag:
        again = judge(load_trace(bag, load_bag_embodiment(bag)), load_thresholds(), {}, 'bag')

    def known(verdict):
        return sorted((f.check, f.subject, round(f.value, 9), f.level) for f in verdict.findings)

    assert known(again) == known(live)


def test_rows_of_another_recorders_bag_are_those_that_ours_would_have_made(judged, tmp_path, synthetic):
    _, ours = judged()
    source = synthetic(seconds=SECONDS)
    types = {'joint_states': 'sensor_msgs/msg/JointState', 'gripper/state': 'groot_ros/msg/GripperState'}
    types |= {'tcp_pose': 'geometry_msgs/msg/PoseStamped', 'zed/image': 'sensor_msgs/msg/Image'}
    writer = EpisodeWriter(tmp_path / 'other', {})
    for arrival_ns, topic, message in textured(source.entries()):
        writer.write(f'/{topic}', types[topic], T0_NS + arrival_ns, serialized(message, types[topic]))
    writer.close({})
    with EpisodeBag(tmp_path / 'other') as bag:
        theirs = load_trace(bag, source.embodiment)
        with pytest.raises(GrootRosError, match='--embodiment'):
            load_bag_embodiment(bag)
    np.testing.assert_array_equal(theirs.states, ours.states)
    np.testing.assert_array_equal(theirs.ticks_ns, ours.ticks_ns)
    np.testing.assert_array_equal(theirs.commands, ours.commands)
    np.testing.assert_array_equal(theirs.repeated, ours.repeated)


def test_a_pause_makes_no_gap_and_no_jump(judged):
    def paused(entries):
        begin = next(k for k, e in enumerate(entries) if seconds(e) > 2.0)
        end = next(k for k, e in enumerate(entries) if seconds(e) > 4.0)
        stop = [entries[begin][0], '', lambda recording: recording.pause(True, T0_NS + entries[begin][0])]
        go_on = [entries[end][0], '', lambda recording: recording.pause(False, T0_NS + entries[end][0])]
        return [*entries[:begin], stop, *entries[begin:end], go_on, *entries[end:]]

    verdict, trace = judged(paused)
    assert verdict.segments == 2
    assert 70 < trace.rows < 90
    assert verdict.verdict == 'pass', verdict.reasons


def test_inspect_prints_draws_and_returns_its_verdict(judged, tmp_path, capsys):
    judged()
    assert (
        main(
            [
                'inspect',
                str(tmp_path / 'bag'),
                '--json',
                str(tmp_path / 'v.json'),
                '--report',
                str(tmp_path / 'p.html'),
            ]
        )
        == 0
    )
    assert 'bag: pass' in capsys.readouterr().out
    assert json.loads((tmp_path / 'v.json').read_text())['verdict'] == 'pass'
    page = (tmp_path / 'p.html').read_text()
    assert page.count('data:image/') == 5
    assert 'All checks passed' in page
    strict = tmp_path / 'strict.yaml'
    strict.write_text('duration_s: {fail: 60}\n')
    assert main(['inspect', str(tmp_path / 'bag'), '--quality-thresholds', str(strict)]) == 1
    assert 'The episode lasts' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('nonsense: {warn: 1}', 'unknown checks: nonsense'),
        ('gap_s: {worn: 1}', 'gap_s'),
        ('a: [', 'not YAML'),
        ('- 3', 'is wrong'),
    ],
)
def test_thresholds_that_are_wrong_are_named(tmp_path, text, message):
    (tmp_path / 't.yaml').write_text(text)
    with pytest.raises(GrootRosError, match=message):
        load_thresholds(str(tmp_path / 't.yaml'))


def test_every_shipped_threshold_has_its_check():
    assert set(load_thresholds().root) == set(CHECKS)
