# SPDX-License-Identifier: Apache-2.0
"""Tool and payload on the robot are compared with the parameters, before these replace them."""

import contextlib

import numpy as np
import pytest

from groot_ros.geometry import rotvec_from_pose
from groot_ros.hardware.ur5e import state_process
from groot_ros.hardware.ur5e.installation import UNKNOWN_PAYLOAD_KG, describe, differences, tool_offset
from groot_ros.hardware.ur5e.ipc import STATE
from groot_ros.ur5e_kinematics import forward

TCP = [0.0, 0.0, 0.174, 0.0, 0.0, 0.0]
JOINTS = np.deg2rad([-70, -80, -110, -60, 80, 30.0])


def reported(offset, payload_kg=0.94):
    state = np.zeros(1, STATE)[0]
    state['joint_positions'] = JOINTS
    state['tcp_pose'] = rotvec_from_pose(forward(JOINTS, np.array(offset)))
    state['payload_kg'] = payload_kg
    return state


@pytest.mark.parametrize('offset', [TCP, [0.01, -0.02, 0.1, 0.1, -0.2, 0.3], [0.0] * 6])
def test_the_offset_of_the_robot_follows_from_its_joints_and_its_tcp(offset):
    np.testing.assert_allclose(tool_offset(reported(offset)), offset, atol=1e-9)


def test_a_robot_with_our_tool_and_payload_is_not_mentioned():
    assert differences(reported(TCP), TCP, 0.94) == []
    assert differences(reported([0, 0, 0.178, 0, 0, 0], 1.03), TCP, 0.94) == []


def test_another_tool_is_named_with_both_offsets():
    (sentence,) = differences(reported([0.0] * 6), TCP, 0.94)
    assert '[0.000, 0.000, 0.000, 0.000, 0.000, 0.000]' in sentence
    assert 'tcp_offset is [0.000, 0.000, 0.174' in sentence
    (sentence,) = differences(reported([0, 0, 0.174, 0, 0, 0.1]), TCP, 0.94)
    assert '0.100]' in sentence


def test_another_payload_is_named_unless_the_robot_cannot_report_one():
    (sentence,) = differences(reported(TCP, 2.0), TCP, 0.94)
    assert '2.00 kg' in sentence
    assert 'payload_kg is 0.94 kg' in sentence
    assert differences(reported(TCP, UNKNOWN_PAYLOAD_KG), TCP, 0.94) == []


def test_the_diagnostics_show_what_the_robot_uses():
    assert describe(reported(TCP)) == {
        'TCP offset (m, rad)': '[0.000, 0.000, 0.174, 0.000, 0.000, 0.000]',
        'payload (kg)': '0.94',
    }
    assert describe(reported(TCP, UNKNOWN_PAYLOAD_KG))['payload (kg)'] == 'unknown'


class End:
    """What the state process sees of its parent."""

    settings = {'robot_ip': '127.0.0.1', 'state_rate_hz': 125.0}  # noqa: RUF012

    def deadline(self, call, timeout_s):
        return contextlib.nullcontext()


def receiver(unknown):
    """A made-up RTDEReceiveInterface of a controller that does not know one variable."""

    def connect(robot_ip, rate_hz, variables):
        if unknown in variables:
            raise RuntimeError(f'The following variables was not found by the controller: [{unknown}]')
        return variables

    return connect


def test_a_controller_that_is_too_old_to_report_the_payload_is_read_without_it(monkeypatch):
    monkeypatch.setattr(state_process, 'RTDEReceiveInterface', receiver('payload'))
    variables, has_payload = state_process.connect(End())
    assert 'actual_q' in variables
    assert not has_payload
    monkeypatch.setattr(state_process, 'RTDEReceiveInterface', receiver('nothing'))
    assert state_process.connect(End())[1]


def test_any_other_failure_to_connect_is_reported(monkeypatch):
    monkeypatch.setattr(state_process, 'RTDEReceiveInterface', receiver('target_q'))
    with pytest.raises(RuntimeError, match='target_q'):
        state_process.connect(End())
