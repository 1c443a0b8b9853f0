# SPDX-License-Identifier: Apache-2.0
"""The simulated cell seen by its clients: the released ur_rtde, the Robotiq socket, and raw RTDE bytes."""

import socket
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from groot_ros.hardware.robotiq.urcap import UrcapSocket
from groot_ros.sim.scene import HOME_JOINTS_RAD, TCP_OFFSET
from groot_ros.ur5e_kinematics import forward


def ur_rtde(host: str, script: str) -> str:
    """Runs a script with ur_rtde in its own process, since the library can crash. Returns the output."""
    prelude = f"""
        import numpy as np
        from rtde_receive import RTDEReceiveInterface
        from rtde_control import RTDEControlInterface
        from dashboard_client import DashboardClient
        host = {host!r}
    """
    text = textwrap.dedent(prelude) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, '-c', text], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_receive_gives_the_state_of_the_arm(cell):
    printed = ur_rtde(cell.host, '''
        r = RTDEReceiveInterface(host, 125.0)
        print(*r.getActualQ(), *r.getActualTCPPose())
        print(r.getRobotMode(), r.getSafetyMode(), r.getRuntimeState())
    ''')  # fmt: skip
    numbers = [float(word) for word in printed.split()]
    np.testing.assert_allclose(numbers[:6], HOME_JOINTS_RAD, atol=1e-3)
    np.testing.assert_allclose(numbers[6:9], forward(HOME_JOINTS_RAD, TCP_OFFSET)[:3], atol=1e-3)
    assert numbers[12:] == [7, 1, 1]


def test_control_moves_servos_and_answers_kinematics(cell):
    printed = ur_rtde(cell.host, '''
        c = RTDEControlInterface(host, 500.0)
        r = RTDEReceiveInterface(host, 125.0)
        assert c.setTcp([0, 0, 0.174, 0, 0, 0]) and c.setPayload(0.9, [0, 0, 0.05])
        lower = r.getTargetTCPPose(); lower[2] -= 0.1
        assert c.moveL(lower, 0.25, 1.2)
        print(np.linalg.norm(np.array(r.getActualTCPPose()[:3]) - lower[:3]))
        side = list(lower); side[0] += 0.03
        for _ in range(500):
            start = c.initPeriod(); assert c.servoL(side, 0, 0, 0.002, 0.05, 300); c.waitPeriod(start)
        print(np.linalg.norm(np.array(r.getActualTCPPose()[:3]) - side[:3]))
        c.servoStop()
        joints = c.getInverseKinematics(lower, r.getTargetQ())
        assert c.moveJ(joints, 1.05, 1.4)
        print(np.linalg.norm(np.array(r.getActualTCPPose()[:3]) - lower[:3]))
        print(c.isPoseWithinSafetyLimits([2, 0, 0, 0, 0, 0]), c.isSteady())
        c.stopScript(); c.disconnect()
    ''')  # fmt: skip
    moved, servoed, joint_moved, *answers = printed.split()
    assert max(float(moved), float(servoed), float(joint_moved)) < 1e-3
    assert answers == ['False', 'True']


def test_a_second_control_client_gets_the_error_that_registers_are_in_use(cell):
    printed = ur_rtde(cell.host, '''
        c = RTDEControlInterface(host)
        try:
            RTDEControlInterface(host)
        except RuntimeError as error:
            print(error)
        c.stopScript(); c.disconnect()
    ''')  # fmt: skip
    assert 'already in use' in printed


def test_protective_stop_pauses_and_is_not_unlocked_at_once(cell):
    printed = ur_rtde(cell.host, f'''
        from groot_ros.sim.test_interface import CellHooks
        import time
        c = RTDEControlInterface(host)
        r = RTDEReceiveInterface(host, 125.0)
        d = DashboardClient(host)
        d.connect()
        CellHooks({cell.host!r}).call('protective_stop')
        while r.getSafetyMode() != 3 or c.isProgramRunning(): time.sleep(0.01)
        print(d.safetymode(), r.getRuntimeState(), c.isProgramRunning())
        try:
            d.unlockProtectiveStop()
        except RuntimeError as error:
            print('refused')
    ''')  # fmt: skip
    assert 'Safetymode: PROTECTIVE_STOP 4 False' in printed
    assert 'refused' in printed


def test_the_gripper_activates_moves_and_reports_its_ends(cell, eventually):
    gripper = UrcapSocket(cell.host)
    gripper.activate()
    gripper.set(POS=255, SPE=255, FOR=100, GTO=1)
    assert eventually(lambda: gripper.get('OBJ', 'POS') == [3, 228])
    gripper.set(POS=0, GTO=1)
    assert eventually(lambda: gripper.get('OBJ', 'POS') == [3, 3])
    with pytest.raises(OSError, match='answered'):
        gripper.get('NONSENSE')
    gripper.close()


class RawRtde:
    """A client that sends and receives RTDE packages byte by byte."""

    def __init__(self, host: str) -> None:
        self.socket = socket.create_connection((host, 30004), timeout=10)

    def ask(self, package_type: str, payload: bytes = b'') -> bytes:
        self.socket.sendall(struct.pack('>HB', len(payload) + 3, ord(package_type)) + payload)
        return self.answer(package_type)

    def answer(self, package_type: str) -> bytes:
        size, received = struct.unpack('>HB', self._exactly(3))
        assert chr(received) == package_type
        return self._exactly(size - 3)

    def _exactly(self, count: int) -> bytes:
        data = b''
        while len(data) < count:
            data += self.socket.recv(count - len(data))
        return data


def test_rtde_handshake_byte_by_byte(cell):
    rtde = RawRtde(cell.host)
    assert rtde.ask('V', struct.pack('>H', 2)) == b'\x01'
    assert struct.unpack('>4I', rtde.ask('v'))[0] == 5
    assert rtde.ask('O', struct.pack('>d', 125.0) + b'timestamp,nonsense') == b'\x00DOUBLE,NOT_FOUND'
    assert rtde.ask('O', struct.pack('>d', 125.0) + b'timestamp,robot_mode,') == b'\x01DOUBLE,INT32'
    assert rtde.ask('I', b'input_int_register_0,input_double_register_0') == b'\x01INT32,DOUBLE'
    other = RawRtde(cell.host)
    assert other.ask('I', b'input_int_register_0') == b'\x00IN_USE'
    assert rtde.ask('S') == b'\x01'
    times = [struct.unpack('>Bdi', rtde.answer('U'))[1] for _ in range(20)]
    np.testing.assert_allclose(np.diff(times), 0.008, atol=1e-9)
    rtde.socket.close()
    other.socket.close()


def test_two_cells_run_in_parallel(cell, start_cell):
    second = start_cell()
    assert cell.host != second.host
    second.hooks.place_cube(-0.2, -0.5, 0.3)
    assert second.hooks.cube_pose()[0] == pytest.approx(-0.2, abs=1e-3)
    assert cell.hooks.cube_pose()[0] == pytest.approx(-0.15, abs=1e-3)


def test_outputs_set_one_after_the_other_both_arrive(cell):
    # Trap b: ur_rtde leaves Nagle's algorithm on, and its io interface never hears back.
    printed = ur_rtde(cell.host, '''
        from rtde_io import RTDEIOInterface
        import time
        io = RTDEIOInterface(host)
        r = RTDEReceiveInterface(host, 500.0)
        assert io.setStandardDigitalOut(0, True) and io.setStandardDigitalOut(3, True)
        deadline = time.monotonic() + 20
        while r.getActualDigitalOutputBits() != 0b1001 and time.monotonic() < deadline: time.sleep(0.005)
        print(r.getActualDigitalOutputBits())
    ''')  # fmt: skip
    assert int(printed) == 0b1001


def test_an_answer_that_the_library_does_not_wait_for_is_that_of_the_command_before(cell):
    # Trap c: getStepTime returns before the script answered.
    printed = ur_rtde(cell.host, '''
        c = RTDEControlInterface(host)
        c.setTcp([0.123, 0, 0.174, 0, 0, 0]); c.getTCPOffset()
        first = c.getStepTime()
        import time
        time.sleep(0.1)
        print(first, c.getStepTime())
        c.stopScript(); c.disconnect()
    ''')  # fmt: skip
    first, second = (float(word) for word in printed.split())
    assert first == pytest.approx(0.123)
    assert second == pytest.approx(0.002)
