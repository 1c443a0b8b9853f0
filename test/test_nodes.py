# SPDX-License-Identifier: Apache-2.0
"""The nodes on real rclpy, against a simulated cell."""

import signal

from diagnostic_msgs.msg import DiagnosticArray
from groot_ros.msg import RobotStatus
from groot_ros.srv import StartEpisode


def test_the_gripper_follows_accepted_commands_only(driver, operator, start_node):
    start_node('robotiq_driver', robot_ip=driver.host)
    assert operator.until(lambda: 'gripper/state' in operator.newest)
    operator.send(opening=0.0)
    assert operator.until(lambda: operator.status.refused == 1)
    assert operator.newest['gripper/state'].target > 0.98
    assert operator.enable().success

    def closed():
        if operator.status.state == RobotStatus.STOPPED:  # by a machine that was held up
            operator.enable()
        operator.send(opening=0.0)
        operator.spin(0.05)
        return operator.newest['gripper/state'].opening < 0.02

    assert operator.until(closed)
    assert operator.newest['gripper/state'].target == 0.0


def test_a_camera_without_the_zed_sdk_says_what_to_install(start_node):
    process = start_node('camera_driver', source='sdk', connect_timeout_s=1.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'get_python_api.py' in text


def test_a_parameter_out_of_its_range_is_refused(start_node, loopback):
    process = start_node('ur5e_driver', robot_ip=loopback, lookahead_s=5.0)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'lookahead_s' in text
    assert 'Traceback' not in text


def test_the_recorder_says_which_stream_is_missing(start_node, operator, tmp_path):
    start_node('recorder', output_dir=tmp_path / 'episodes')
    answer = operator.call(StartEpisode, 'recorder/start', StartEpisode.Request(task='x'))
    assert not answer.success
    assert 'nothing publishes joint_states' in answer.message
    assert not operator.call(StartEpisode, 'recorder/start', StartEpisode.Request(task=' ')).success


def test_a_second_recorder_on_the_same_folder_is_refused(start_node, operator, tmp_path):
    start_node('recorder', output_dir=tmp_path)
    assert operator.until(lambda: (tmp_path / '.recorder.lock').exists())
    second = start_node('recorder', output_dir=tmp_path)
    _, text = second.communicate(timeout=60)
    assert second.returncode == 1
    assert 'Another recorder' in text


def test_a_node_ends_cleanly_on_ctrl_c(start_node, operator, tmp_path):
    process = start_node('recorder', output_dir=tmp_path)
    assert operator.until(lambda: (tmp_path / '.recorder.lock').exists())
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 0
    assert 'Traceback' not in text


def test_the_simulated_cell_says_how_late_its_ticks_are(start_node, operator, loopback):
    start_node('sim_cell', '--host', loopback, '--no-camera')
    found = {}

    def note(message):
        found.update({status.name: status for status in message.status})

    operator.node.create_subscription(DiagnosticArray, '/diagnostics', note, 10)
    assert operator.until(lambda: '/sim_cell: ticks' in found)
    values = {entry.key: float(entry.value) for entry in found['/sim_cell: ticks'].values}
    assert 0 < values['lateness p50 (ms)'] <= values['lateness p99 (ms)'] <= values['max lateness (ms)']
