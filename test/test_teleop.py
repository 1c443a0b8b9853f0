# SPDX-License-Identifier: Apache-2.0
"""From a device to a step: maps, deadman, stale input, edges; and the node on real rclpy."""

import itertools
import os
import pty
import sys
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from groot_ros.msg import RobotStatus, TcpDelta
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Joy

from groot_ros.control.limits import Limits
from groot_ros.errors import GrootRosError
from groot_ros.geometry import apply_delta
from groot_ros.nodes.teleop import Teleop
from groot_ros.resources import share_directory
from groot_ros.ros.qos import COMMAND_QOS
from groot_ros.teleop.device import TELEOP_DEVICES, DeviceState, import_device, needs_terminal
from groot_ros.teleop.key_timing import KeyTiming
from groot_ros.teleop.keyboard import Keyboard, split_keys
from groot_ros.teleop.mapping import EVENTS, TeleopMapper, load_map, response
from groot_ros.teleop.operator import ManualOperator
from groot_ros.teleop.ramp import VelocityRamp
from groot_ros.teleop.spacemouse import SpaceMouse
from groot_ros.teleop.status_line import CellState, key_table, status_line

MAPS = sorted(path.stem for path in (share_directory() / 'config/teleop').glob('*.yaml'))
HOME = np.array([-0.13, -0.49, 0.3, 0, 1, 0, 0.0])


def pad(axes=None, buttons=(), time_s=10.0):
    return DeviceState(time_s, axes or {}, frozenset(buttons))


@pytest.mark.parametrize('name', MAPS)
def test_every_map_is_good_and_explains_itself(name):
    loaded = load_map(name)
    assert loaded.name == name
    assert len(loaded.description) > 20
    assert TeleopMapper(loaded).update(pad(), 10.0).held is False


@pytest.mark.parametrize('name', MAPS)
def test_no_map_commands_faster_than_people_nearby_and_the_driver_allow(name):
    """Also with every axis at its end, of which the driver would clip the diagonal."""
    loaded = load_map(name)
    ends = {axis.axis: 1.0 if axis.scale > 0 else -1.0 for terms in loaded.axes.values() for axis in terms}
    velocity = TeleopMapper(loaded).update(pad(ends, {loaded.enable_button}), 10.0).velocity
    limits = Limits()
    assert np.linalg.norm(velocity[:3]) <= min(loaded.linear_speed_m_s, limits.max_linear_speed_m_s) + 1e-9
    assert (
        np.linalg.norm(velocity[3:]) <= min(loaded.angular_speed_rad_s, limits.max_angular_speed_rad_s) + 1e-9
    )
    assert limits.max_linear_speed_m_s <= 0.25


def test_a_diagonal_is_as_fast_as_one_axis_and_keeps_its_direction():
    mapper = TeleopMapper(load_map('joy'))
    velocity = mapper.update(pad({'0': -1.0, '1': 1.0}, '4'), 10.0).velocity
    np.testing.assert_allclose(velocity[:3], [0.2 / np.sqrt(2), 0.2 / np.sqrt(2), 0.0], atol=1e-12)


def test_a_map_that_is_not_good_names_the_key(tmp_path):
    for text, match in (
        ('name: x\ndescription: y\naxes: {up: [{axis: a}]}\nbuttons: {}', "'up'"),
        ('name: x\ndescription: y\naxes: {}\nbuttons: {jump: a}', "'jump'"),
        ('name: x\naxes: {}\nbuttons: {}', 'description'),
        ('name: [', 'not YAML at line 1'),
    ):  # fmt: skip
        (tmp_path / 'm.yaml').write_text(text)
        with pytest.raises(GrootRosError, match=match):
            load_map(str(tmp_path / 'm.yaml'))
    with pytest.raises(GrootRosError, match='keyboard'):
        load_map('nonsense')


@given(st.floats(allow_nan=True), st.floats(0, 0.9), st.floats(0, 1))
def test_the_response_is_odd_bounded_and_dead_in_the_middle(value, deadzone, expo):
    answer = response(value, deadzone, expo)
    assert abs(answer) <= 1.0
    assert answer == -response(-value, deadzone, expo)
    if abs(value) <= deadzone:
        assert answer == 0.0
    assert response(1.0, deadzone, expo) == pytest.approx(1.0)


def test_nothing_moves_without_the_deadman_or_with_a_stale_input():
    mapper = TeleopMapper(load_map('game_controller'))
    pushed = {'0': 1.0, '1': 1.0, '5': 1.0}
    assert not np.any(mapper.update(pad(pushed), 10.0).velocity)
    command = mapper.update(pad(pushed, ['9']), 10.1)
    np.testing.assert_allclose(np.sqrt(3) * command.velocity, [-0.2, 0.2, 0.2, 0, 0, 0])
    stale = mapper.update(pad(pushed, ['9']), 10.16)
    assert not stale.held
    assert not np.any(stale.velocity)


def test_triggers_that_rest_at_one_do_not_move_the_arm():
    command = TeleopMapper(load_map('joy')).update(pad({'2': 1.0, '5': 1.0}, ['4']), 10.0)
    assert not np.any(command.velocity)
    pulled = TeleopMapper(load_map('joy')).update(pad({'2': 1.0, '5': -1.0}, ['4']), 10.0)
    assert pulled.velocity[2] == pytest.approx(0.2)


def test_the_tool_frame_turns_with_the_tool():
    chosen = load_map('spacemouse').model_copy(update={'frame': 'tool'})
    turned = apply_delta(HOME, np.array([0, 0, 0, 0, 0, np.pi / 2]))
    velocity = TeleopMapper(chosen).update(pad({'z': 1.0, 'x': 1.0}, ['0']), 10.0, turned).velocity
    np.testing.assert_allclose(velocity[:3] * np.sqrt(2), [0, -0.15, -0.15], atol=1e-12)


class Device:
    def __init__(self):
        self.raw = None

    def read(self):
        return self.raw

    def close(self):
        pass


def test_the_gripper_is_left_alone_until_pressed_while_commanding_and_then_toggles_once_a_press():
    device = Device()
    operator = ManualOperator(device, TeleopMapper(load_map('game_controller')), 0.025, HOME)
    openings = []
    for k, buttons in enumerate([['10'], [], ['9'], ['9', '10'], ['9', '10'], ['9'], ['9', '10']]):
        device.raw = pad({}, buttons, 10.0 + k)
        openings.append(operator.step(HOME, 10.0 + k).opening)
    assert np.isnan(openings[:3]).all()
    assert openings[3:] == [0.0, 0.0, 0.0, 1.0]


def test_home_is_reached_while_its_button_and_the_deadman_are_held():
    device, pose = Device(), apply_delta(HOME, np.array([0.1, -0.05, -0.1, 0, 0, 0.4]))
    operator = ManualOperator(device, TeleopMapper(load_map('game_controller')), 0.025, HOME)
    for k in range(400):
        now_s = 10 + 0.025 * k
        device.raw = pad({}, ['9', '7'] if k != 20 else ['7'], now_s)
        step = operator.step(pose, now_s)
        assert step.held == (k != 20)
        assert k != 20 or not np.any(step.delta)
        pose = apply_delta(pose, step.delta)
    np.testing.assert_allclose(pose[:3], HOME[:3], atol=1e-6)


def test_a_terminal_is_an_input_device_and_is_given_back_as_it_was(eventually):
    ours, theirs = pty.openpty()
    import termios

    before = termios.tcgetattr(theirs)
    keyboard = Keyboard(load_map('keyboard'), theirs)
    os.write(ours, b' \x1b[Aw')
    assert eventually(lambda: keyboard.read().buttons == {'w', 'space', 'up'}, step=lambda: None)
    assert eventually(lambda: not keyboard.read().buttons)
    keyboard.close()
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
    assert split_keys('\x7fa\r') == ['backspace', 'a', 'enter']


def test_a_keyboard_without_a_terminal_says_how_to_get_one():
    read, write = os.pipe()
    with pytest.raises(GrootRosError, match='ros2 run groot_ros teleop'):
        Keyboard(load_map('keyboard'), read)
    os.close(read)
    os.close(write)


DIRECTIONS_OF_KEYS = {'w': 'y', 's': 'y', 'a': 'x', 'd': 'x', 'r': 'z'}


def typed(presses) -> KeyTiming:
    timing = KeyTiming(DIRECTIONS_OF_KEYS)
    for key, at_s in presses:
        timing.press(key, at_s)
    return timing


def repeats(key, from_s, until_s):
    """What a desktop sends for a held key: a press, a repeat after 0.5 s, then one each 33 ms."""
    presses = [(key, from_s)]
    at_s = from_s + 0.5
    while at_s <= until_s:
        presses.append((key, at_s))
        at_s += 0.033
    return presses


def test_a_tap_is_a_slow_motion_until_the_first_repeat_could_have_come():
    timing = typed([('w', 10.0)])
    assert timing.axes(10.54) == {'w': 0.3}
    assert timing.axes(10.56) == {}


def test_a_held_key_moves_without_a_gap_and_ends_soon_after_its_last_repeat():
    presses = repeats('w', 10.0, 12.0)
    timing = KeyTiming(DIRECTIONS_OF_KEYS)
    for (key, at_s), (_, next_s) in itertools.pairwise(presses):
        timing.press(key, at_s)
        assert 'w' in timing.axes(next_s - 1e-6)
    last_s = presses[-2][1]
    assert timing.axes(last_s + 0.11) == {'w': 1.0}
    assert timing.axes(last_s + 0.13) == {}


def test_two_keys_make_a_diagonal_until_the_newest_ends():
    timing = typed([*repeats('w', 10.0, 11.0), *repeats('d', 11.05, 12.0)])
    last_s = repeats('d', 11.05, 12.0)[-1][1]
    assert timing.axes(last_s + 0.1) == {'w': 1.0, 'd': 1.0}
    assert timing.axes(last_s + 0.13) == {}


def test_a_new_key_slows_the_motion_until_it_repeats():
    timing = typed([*repeats('w', 10.0, 11.0), ('d', 11.05)])
    assert timing.axes(11.1) == {'w': 0.3, 'd': 0.3}
    assert timing.axes(11.61) == {}


def test_the_opposite_key_replaces_and_any_other_key_ends_the_motion():
    presses = repeats('w', 10.0, 11.0)
    last_s = presses[-1][1]
    assert typed([*presses, ('s', last_s + 0.03)]).axes(last_s + 0.05) == {'s': 0.3}
    timing = typed([*presses, ('space', last_s + 0.03)])
    assert timing.axes(last_s + 0.05) == {}
    assert timing.down(last_s + 0.05) == {'space'}


@given(st.lists(st.tuples(st.sampled_from(['w', 's', 'a', 'd', 'r', 'space']), st.floats(0, 3)), max_size=40))
def test_whatever_is_typed_no_key_counts_as_held_for_longer_than_a_first_repeat(presses):
    presses = sorted(presses, key=lambda press: press[1])
    last_s = presses[-1][1] if presses else 0.0
    assert not typed(presses).down(last_s + 0.551)


def test_a_ramp_reaches_the_wanted_velocity_in_its_time_and_keeps_the_acceleration():
    steps = VelocityRamp(0.06, 0.3, ramp_s=0.2, period_s=0.025)
    wanted = np.array([0.06, 0, 0, 0, 0, 0.3])
    up = [steps.step(wanted) for _ in range(9)]
    np.testing.assert_allclose([v[0] for v in up], np.minimum(np.arange(1, 10) * 0.0075, 0.06), atol=1e-12)
    np.testing.assert_allclose(up[7], wanted, atol=1e-12)
    down = [steps.step(np.zeros(6)) for _ in range(8)]
    assert not np.any(down[-1])
    instant = VelocityRamp(0.06, 0.3, ramp_s=0.0, period_s=0.025)
    np.testing.assert_array_equal(instant.step(wanted), wanted)


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 6), min_size=1, max_size=30))
def test_no_step_of_a_ramp_is_larger_than_its_acceleration_allows(velocities):
    steps = VelocityRamp(1.0, 1.0, ramp_s=0.2, period_s=0.02)
    before = np.zeros(6)
    for wanted in velocities:
        after = steps.step(np.array(wanted))
        assert np.linalg.norm((after - before)[:3]) <= 0.1 + 1e-9
        assert np.linalg.norm((after - before)[3:]) <= 0.1 + 1e-9
        before = after


class Typist:
    """Keys with their timing in made-up time, as a device."""

    def __init__(self, presses) -> None:
        keys = load_map('keyboard')
        self._timing = KeyTiming({t.axis: name for name, terms in keys.axes.items() for t in terms})
        self._presses = list(presses)
        self.operator = ManualOperator(self, TeleopMapper(keys), 0.025, HOME)
        self.now_s = 10.0

    def read(self):
        while self._presses and self._presses[0][1] <= self.now_s:
            self._timing.press(*self._presses.pop(0))
        return DeviceState(self.now_s, self._timing.axes(self.now_s), self._timing.down(self.now_s))

    def steps(self, seconds, target=HOME):
        found = []
        for _ in range(round(seconds / 0.025)):
            found.append(self.operator.step(target, self.now_s))
            self.now_s += 0.025
        return found


def path_m(steps) -> float:
    return float(sum(np.linalg.norm(step.delta[:3]) for step in steps))


def test_the_longest_motion_after_a_key_is_released_is_bounded():
    tap = Typist([('w', 10.0)]).steps(3.0)
    assert path_m(tap) == pytest.approx(0.018 * 0.55, abs=0.001)
    presses = repeats('w', 10.0, 12.0)
    held = Typist(presses)
    held.steps(presses[-1][1] - 10.0)
    after = held.steps(2.0)
    assert path_m(after) < 0.016
    assert not any(step.held for step in after[14:])  # 0.35 s


def test_a_held_key_is_recorded_without_a_jerk():
    steps = Typist(repeats('w', 10.0, 12.0)).steps(3.0)
    speeds = np.array([step.delta[1] for step in steps]) / 0.025
    assert speeds.max() == pytest.approx(0.06)
    assert np.abs(np.diff(speeds)).max() <= 0.0075 + 1e-9
    moving = np.flatnonzero(speeds)
    assert (np.diff(moving) == 1).all()


def test_gripper_and_home_keys_need_no_deadman():
    steps = Typist([('space', 10.0)]).steps(1.0)
    assert steps[0].held
    assert {step.opening for step in steps} == {0.0}
    assert path_m(steps) == 0.0
    assert not steps[-1].held
    away = apply_delta(HOME, np.array([0.05, 0, 0, 0, 0, 0]))
    assert path_m(Typist([('h', 10.0)]).steps(0.5, away)) > 0.0


def test_recover_needs_a_hold_of_2_s_and_is_on_no_gamepad():
    mapper = TeleopMapper(load_map('keyboard'))
    events = [mapper.update(pad({}, ['p'], t), t).events for t in (10.0, 11.0, 11.9, 12.0, 12.1, 15.0)]
    assert [bool(found) for found in events] == [False, False, False, True, False, False]
    mapper.update(pad({}, [], 15.1), 15.1)
    assert not mapper.update(pad({}, ['p'], 15.2), 15.2).events
    assert not mapper.update(None, 16.0).events
    assert not mapper.update(
        pad({}, ['p'], 17.3), 17.3
    ).events  # the device was silent: the hold begins again
    with_recover = [name for name in MAPS if 'recover' in load_map(name).buttons]
    assert with_recover == ['hand_guiding', 'keyboard']


def test_the_status_line_fits_the_terminal_and_names_the_worst_stream():
    state = CellState('enabled', 'episode_000003', 'recording', 120, 'push', 'zed/image: silent for 1.0 s')
    line = 'arm enabled | episode_000003 recording, 120 rows | zed/image: silent for 1.0 s | task: push'
    assert status_line(state, 200) == line
    assert status_line(state, 40) == line[:37] + '...'
    assert (
        status_line(CellState(), 200) == 'arm not heard | no episode idle, 0 rows | streams flow | task: none'
    )


def test_the_table_of_keys_has_every_key_of_the_map():
    chosen = load_map('keyboard')
    text = '\n'.join(key_table(chosen))
    assert '           x  d +, a -' in text
    assert '     recover  p (hold for 2 s)' in text
    assert all(key in text for key in chosen.buttons.values())


def test_a_spacemouse_that_is_unplugged_goes_stale(monkeypatch, eventually):
    state = SimpleNamespace(t=0.0, x=0.5, y=0, z=0, roll=0, pitch=0, yaw=0, buttons=[1, 0])
    plugged = [True]

    class Mouse:
        def read(self):
            if not plugged[0]:
                raise OSError('unplugged')
            state.t += 1.0
            return state

        def close(self):
            pass

    fake = SimpleNamespace(open=lambda axis_convention: Mouse(), AxisConvention=SimpleNamespace(HID_Z_UP=1))
    monkeypatch.setitem(sys.modules, 'pyspacemouse', fake)
    mouse, mapper = SpaceMouse(), TeleopMapper(load_map('spacemouse'))
    assert eventually(lambda: mapper.update(mouse.read(), time.monotonic()).held)
    plugged[0] = False
    assert eventually(lambda: not mapper.update(mouse.read(), time.monotonic()).held)
    mouse.close()
    monkeypatch.setitem(sys.modules, 'pyspacemouse', None)
    with pytest.raises(GrootRosError, match='hidapi'):
        SpaceMouse()


class Gamepad:
    """Publishes what a person does with a gamepad, until something came true."""

    def __init__(self, operator) -> None:
        self._operator = operator
        operator.leave_commands_to_another()
        self._joy = operator.node.create_publisher(Joy, 'joy', 10)
        self.said = []
        operator.node.create_subscription(TcpDelta, 'teleop/tcp_delta', self.said.append, COMMAND_QOS)
        assert operator.until(lambda: self._joy.get_subscription_count() > 0)

    def publish(self, held: bool, down: float = 0.0, enable: bool = False) -> None:
        buttons = [0] * 16
        buttons[9], buttons[6] = int(held), int(enable)
        self._joy.publish(Joy(axes=[0.0, 0.0, 0.0, 0.0, down, 0.0], buttons=buttons))
        self._operator.spin(0.03)

    def until(self, condition, **pressed) -> bool:
        return self._operator.until(lambda: self.publish(**pressed) or condition())

    def enable(self) -> bool:
        """Presses the button repeatedly: the first press may come before the driver is found."""
        presses = itertools.count()

        def enabled() -> bool:
            self.publish(held=False, enable=next(presses) % 20 < 10)
            return self._operator.status.state == RobotStatus.ENABLED

        return self._operator.until(enabled)


def test_a_gamepad_moves_the_arm_while_held_and_lets_go_without_a_stop(driver, operator, start_node):
    start_node('teleop', source='joy', map='game_controller')
    pad = Gamepad(operator)
    assert pad.enable()
    before = operator.position
    assert pad.until(lambda: operator.position[2] < before[2] - 0.03, held=True, down=1.0)
    assert pad.until(lambda: pad.said and pad.said[-1].released, held=False, down=1.0)
    at = operator.position
    for _ in range(30):
        pad.publish(held=False, down=1.0)
    assert operator.status.state == RobotStatus.ENABLED
    assert operator.status.source == ''
    assert abs(operator.position[2] - at[2]) < 0.02
    assert np.isnan(pad.said[0].opening)


def test_a_gamepad_that_falls_silent_lets_go(driver, operator, start_node):
    start_node('teleop', source='joy', map='game_controller')
    pad = Gamepad(operator)
    assert operator.enable().success
    assert pad.until(lambda: bool(pad.said), held=True, down=1.0)
    assert operator.until(lambda: pad.said[-1].released)
    assert operator.status.state == RobotStatus.ENABLED


@pytest.mark.parametrize('event', sorted(set(EVENTS) - {'gripper', 'home'}))
def test_each_event_of_a_button_calls_one_service(event):
    node = mock.Mock()
    Teleop._call_service(node, event)
    assert len(node._service_clients.method_calls) == 1


@pytest.mark.parametrize('name', TELEOP_DEVICES)
def test_each_device_of_the_table_can_be_imported_and_opened_by_name(name):
    assert callable(import_device(name).open)


@pytest.mark.parametrize('name', sorted(set(TELEOP_DEVICES) - {'scripted'}))
def test_each_device_that_a_person_holds_has_a_map(name):
    assert name in MAPS


def test_only_devices_that_read_keys_need_a_terminal():
    assert [name for name in TELEOP_DEVICES if needs_terminal(name)] == ['keyboard', 'hand_guiding']


def test_an_unknown_device_names_the_known_ones():
    with pytest.raises(GrootRosError, match="no teleoperation device 'nonsense': choose one of joy, "):
        import_device('nonsense')
