# SPDX-License-Identifier: Apache-2.0
"""ur5e_driver on real rclpy and unmodified ur_rtde, against the simulated controller and its faults."""

import socket
import time

import numpy as np
import pytest
from groot_ros.msg import RobotStatus, TcpDelta
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from groot_ros.message_fields import header_stamp_ns
from groot_ros.ros.qos import COMMAND_QOS, STREAM_QOS


def test_the_arm_moves_only_after_enable_and_stops_on_silence(driver, operator):
    before = operator.position
    for _ in range(10):
        operator.send((0.0, 0.0, -0.005))
        operator.spin(0.05)
    assert operator.until(lambda: operator.status.refused >= 5)
    np.testing.assert_allclose(operator.position, before, atol=1e-4)

    assert operator.enable().success
    for _ in range(10):
        operator.send((0.0, 0.0, -0.005))
        operator.spin(0.05)
    assert operator.until(lambda: operator.position[2] < before[2] - 0.04)
    assert operator.until(lambda: operator.status.state == RobotStatus.STOPPED)
    assert 'silent' in operator.status.reason
    assert operator.position[2] == pytest.approx(before[2] - 0.05, abs=2e-3)


def test_commands_beyond_a_limit_are_clipped_or_refused_and_counted(driver, operator):
    assert operator.enable().success
    start = operator.position

    def counted(name, translation):
        """Sent until it is: on a busy machine a late command is refused, and a status comes once a second."""
        for _ in range(20):
            operator.send(translation)
            if operator.until(lambda: getattr(operator.status, name) > 0, 3.0):
                return True
        return False

    assert counted('refused', (float('nan'), 0.0, 0.0))
    assert counted('clipped', (0.3, 0.0, 0.0))
    assert operator.until(lambda: operator.status.state == RobotStatus.STOPPED)
    assert 0.01 < np.linalg.norm(operator.position - start) <= 0.25 * 0.05 * operator.status.accepted + 1e-3


def move(operator, steps=10, step=(0.0, 0.0, -0.005)):
    for _ in range(steps):
        operator.send(step)
        operator.spin(0.05)


def works_again(operator) -> bool:
    """Whether the arm can be enabled and moved."""
    answers = []

    def enabled() -> bool:
        answers.append(operator.enable())
        return answers[-1].success

    assert operator.until(enabled), answers[-1].message
    before = operator.position
    move(operator)
    moved = operator.until(lambda: operator.position[2] < before[2] - 0.04)
    operator.release()
    return moved and operator.until(lambda: not operator.status.source)


def test_an_open_deadman_holds_the_arm_without_stopping_it(driver, operator):
    assert works_again(operator)
    for _ in range(40):
        operator.spin(0.05)
    assert operator.status.state == RobotStatus.ENABLED
    move(operator)
    assert operator.until(lambda: operator.status.source == 'teleop')


def test_a_protective_stop_is_recovered_by_the_vendors_sequence_and_then_needs_enabling(driver, operator):
    assert operator.enable().success
    move(operator)
    driver.hooks.call('protective_stop')
    began_s = time.monotonic()
    assert operator.stopped()
    assert operator.until(lambda: operator.status.protective_stopped)
    assert 'PROTECTIVE_STOP' in operator.status.reason
    assert 'PROTECTIVE_STOP' in operator.enable().message
    at = operator.position
    answer = operator.recover()
    assert answer.success, answer.message
    assert time.monotonic() - began_s > 4.5
    assert operator.until(lambda: operator.status.state == RobotStatus.DISABLED)
    np.testing.assert_allclose(operator.position, at, atol=2e-3)
    assert works_again(operator)


def test_an_emergency_stop_is_not_recovered_before_its_button_is_released(driver, operator):
    assert operator.enable().success
    driver.hooks.call('emergency_stop')
    assert operator.stopped()
    assert operator.until(lambda: operator.status.emergency_stopped)
    answer = operator.recover()
    assert not answer.success
    assert 'release the button' in answer.message
    driver.hooks.call('release_emergency_stop')
    assert operator.until(lambda: not operator.status.emergency_stopped)
    answer = operator.recover()
    assert answer.success, answer.message
    assert works_again(operator)


def test_an_arm_that_loses_its_power_is_recovered(driver, operator):
    assert operator.enable().success
    driver.hooks.call('power_off')
    assert operator.stopped()
    assert 'POWER_OFF' in operator.status.reason
    assert operator.recover().success
    assert works_again(operator)


def test_nothing_is_recovered_while_the_arm_is_enabled(driver, operator):
    assert operator.enable().success
    answer = operator.recover()
    assert not answer.success
    assert 'nothing to recover' in answer.message
    assert operator.status.state == RobotStatus.ENABLED


def test_a_dropped_connection_ends_the_process_that_owns_the_library_and_not_the_driver(driver, operator):
    # Trap a of ur_rtde 1.6.5: its reconnect after a drop ends in SIGSEGV.
    assert operator.enable().success
    before = operator.position
    driver.hooks.call('disconnect')
    assert operator.stopped()
    assert 'the robot closed the' in operator.status.reason
    assert operator.until(lambda: operator.status.connected)
    np.testing.assert_allclose(operator.position, before, atol=1e-3)
    assert works_again(operator)


def test_a_driver_that_is_killed_leaves_the_arm_holding_and_the_script_stopped(cell, operator, start_node):
    process = start_node('ur5e_driver', robot_ip=cell.host, command_timeout_s=2.0, max_command_age_s=2.0)
    assert operator.until(lambda: operator.status.connected)
    assert operator.enable().success
    process.kill()
    with socket.create_connection((cell.host, 29999), timeout=5) as pendant:
        answers = pendant.makefile('r')
        answers.readline()

        def running() -> bool:
            pendant.sendall(b'running\n')
            return answers.readline().strip() == 'Program running: true'

        assert operator.until(lambda: not running())


@pytest.mark.long
def test_a_controller_silent_for_longer_than_the_library_waits_is_found_again(driver, operator):
    # Trap a again: more than 2.5 s without data.
    assert operator.enable().success
    driver.hooks.call('silence', on=True)
    assert operator.stopped()
    assert operator.until(lambda: not operator.status.connected)
    assert not operator.enable().success
    silent_until_s = time.monotonic() + 3.0
    operator.until(lambda: time.monotonic() > silent_until_s)
    driver.hooks.call('silence', on=False)
    assert operator.until(lambda: operator.status.connected)
    assert works_again(operator)


@pytest.mark.long
@pytest.mark.parametrize(
    ('speed_rad_s', 'answer'), [(0.0, 'another program runs'), (0.1, 'the arm still moves')]
)
def test_a_foreign_program_on_the_controller_is_noticed(driver, operator, speed_rad_s, answer):
    # Trap g: the library sees a program play and goes on talking to it.
    assert operator.enable().success
    move(operator, 3)
    driver.hooks.call('foreign_program', speed_rad_s=speed_rad_s)

    def noticed() -> bool:
        operator.send((0.0, 0.0, -0.003))
        operator.spin(0.05)
        return operator.status.state == RobotStatus.STOPPED

    assert operator.until(noticed)
    words = ('does not follow', 'behind its set-point', 'stopped', 'lost')
    assert any(word in operator.status.reason for word in words), operator.status.reason
    assert operator.until(lambda: answer in operator.enable().message)
    press(driver, b'stop')
    assert works_again(operator)


def press(cell, command: bytes) -> None:
    """A person at the teach pendant."""
    with socket.create_connection((cell.host, 29999), timeout=5) as pendant:
        pendant.sendall(command + b'\n')
        pendant.makefile('r').readline()


def test_a_paused_program_stops_the_commands(driver, operator):
    # Trap h: servoL must neither spin nor continue while the arm does not follow.
    assert operator.enable().success
    move(operator)
    press(driver, b'pause')
    assert operator.stopped()
    at = operator.position
    for _ in range(20):
        press(driver, b'play')
        operator.spin(0.02)
    np.testing.assert_allclose(operator.position, at, atol=2e-3)


def test_the_first_enable_after_the_end_of_the_script_works(driver, operator):
    assert operator.enable().success
    assert operator.enable(False).success
    press(driver, b'stop')
    assert operator.until(lambda: not operator.status.program_running)
    answer = operator.enable()
    assert answer.success, answer.message


@pytest.mark.long
def test_disabling_is_handled_while_the_arm_recovers(driver, operator):
    assert operator.enable().success
    driver.hooks.call('protective_stop')
    assert operator.stopped()
    recovery = operator.node.create_client(Trigger, 'ur5e_driver/recover')
    assert operator.until(recovery.service_is_ready)
    future = recovery.call_async(Trigger.Request())
    assert operator.until(lambda: 'recovering' in operator.status.reason)
    assert operator.enable(False).success
    assert not future.done()
    assert operator.until(future.done)
    assert future.result().success


def test_registers_that_another_client_owns_are_an_answer(driver, operator):
    # Trap g: a second control client.
    names = b'input_int_register_0'
    with socket.create_connection((driver.host, 30004), timeout=5) as other:
        other.sendall(len(names + b'xxx').to_bytes(2, 'big') + b'I' + names)
        other.recv(100)
        answer = operator.enable()
        assert not answer.success
        assert 'already in use' in answer.message
    assert works_again(operator)


@pytest.mark.long
def test_a_controller_that_never_answers_does_not_block_the_driver(operator, start_node, loopback):
    # Trap f: the library's constructors hold the interpreter's lock.
    with socket.create_server((loopback, 30004)):
        process = start_node('ur5e_driver', robot_ip=loopback, connect_timeout_s=1.0)
        answer = operator.enable()
        assert not answer.success
        assert 'no fresh data' in answer.message
        _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'No UR5e answers' in text


def test_another_robot_is_refused(start_cell, operator, start_node):
    cell = start_cell('--robot-model', 'UR10')
    start_node('ur5e_driver', robot_ip=cell.host)
    assert operator.until(lambda: operator.status.connected)
    answer = operator.enable()
    assert not answer.success
    assert 'UR10' in answer.message


@pytest.mark.long
def test_a_cb3_asks_for_its_rate_and_then_works(start_cell, operator, start_node):
    cell = start_cell('--polyscope', '3.15.4')
    first = start_node('ur5e_driver', robot_ip=cell.host)
    assert operator.until(lambda: operator.status.connected)
    assert '125' in operator.enable().message
    first.terminate()
    first.wait(20)
    start_node(
        'ur5e_driver',
        robot_ip=cell.host,
        servo_rate_hz=125.0,
        state_rate_hz=125.0,
        command_timeout_s=2.0,
        max_command_age_s=2.0,
    )
    assert operator.until(lambda: operator.status.connected)
    assert works_again(operator)


def test_a_hand_guides_the_arm_and_only_the_gripper_is_commanded(driver, operator):
    passed = []
    operator.node.create_subscription(TcpDelta, 'command/tcp_delta', passed.append, COMMAND_QOS)
    answer = operator.call(SetBool, 'ur5e_driver/freedrive', SetBool.Request(data=True))
    assert answer.success, answer.message
    assert operator.until(lambda: operator.status.state == RobotStatus.FREEDRIVE)
    assert 'end ~/freedrive' in operator.enable().message
    before = operator.position
    driver.hooks.call('push', x=0.05)
    assert operator.until(lambda: operator.position[0] > before[0] + 0.02)
    driver.hooks.call('push')
    operator.send((0.01, 0.0, 0.0), opening=0.25)
    assert operator.until(lambda: bool(passed))
    assert passed[0].opening == 0.25
    assert not np.any(passed[0].translation)
    assert operator.call(SetBool, 'ur5e_driver/freedrive', SetBool.Request(data=False)).success
    assert works_again(operator)


def test_two_sources_at_once_move_the_arm_as_teleop_says(driver, operator):
    policy = operator.node.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
    assert operator.enable().success
    before = operator.position
    for sequence in range(1, 11):
        operator.send((0.0, 0.0, -0.004))
        message = TcpDelta(source='policy', sequence=sequence, duration=0.05, opening=float('nan'))
        message.translation = np.array([0.004, 0, 0])
        message.header.stamp = operator.node.get_clock().now().to_msg()
        policy.publish(message)
        operator.spin(0.05)
    assert operator.until(lambda: operator.position[2] < before[2] - 0.03)
    assert operator.status.source == 'teleop'
    assert operator.until(lambda: operator.status.refused >= 8)
    assert abs(operator.position[0] - before[0]) < 0.01


def test_the_tool_offset_of_the_robot_does_not_shift_the_first_motion(start_cell, operator, start_node):
    # The robot holds its own offset until the driver sets another one: the target must be read after that.
    cell = start_cell()
    start_node(
        'ur5e_driver',
        robot_ip=cell.host,
        command_timeout_s=2.0,
        max_command_age_s=2.0,
        tcp_offset='[0.0, 0.0, 0.10, 0.0, 0.0, 0.0]',
    )
    assert operator.until(lambda: operator.status.connected and 'joint_states' in operator.newest)
    before = np.array(operator.newest['joint_states'].position)
    assert operator.enable().success
    operator.send((0.001, 0.0, 0.0))
    assert operator.stopped()
    assert np.abs(np.array(operator.newest['joint_states'].position) - before).max() < 0.01


def test_the_life_cycle_is_that_of_a_managed_node(cell, operator, start_node):
    start_node('ur5e_driver', robot_ip=cell.host, autostart='false')

    def change(transition: int) -> bool:
        return operator.call(
            ChangeState, 'ur5e_driver/change_state', ChangeState.Request(transition=Transition(id=transition))
        ).success

    assert change(Transition.TRANSITION_CONFIGURE)
    assert not operator.enable().success
    assert 'joint_states' not in operator.newest
    assert change(Transition.TRANSITION_ACTIVATE)
    assert operator.until(lambda: operator.status.connected)
    assert operator.enable().success
    assert change(Transition.TRANSITION_DEACTIVATE)
    assert change(Transition.TRANSITION_ACTIVATE)
    assert operator.stopped()
    assert 'deactivated' in operator.status.reason


@pytest.mark.long
def test_state_stamps_rise_evenly_by_robot_time(driver, operator):
    stamps = []
    operator.node.create_subscription(
        JointState,
        'joint_states',
        lambda m: stamps.append(header_stamp_ns(m)),
        STREAM_QOS,
    )
    assert operator.until(lambda: len(stamps) > 250)
    steps_ms = np.diff(stamps[50:]) / 1e6
    # A step is a multiple of 8 ms, whatever the scheduler did to the arrival.
    assert np.abs(steps_ms - 8 * np.round(steps_ms / 8)).max() < 1.0
    assert steps_ms.min() > 0


def test_an_unreachable_robot_ends_in_one_sentence(start_node, loopback):
    process = start_node('ur5e_driver', robot_ip=loopback, connect_timeout_s=1.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f'error: No UR5e answers at {loopback}' in text
    assert 'Traceback' not in text
