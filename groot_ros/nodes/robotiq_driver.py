# SPDX-License-Identifier: Apache-2.0
"""robotiq_driver: publishes the gripper's state and follows the opening of the commands that the arm's gate let through."""

import math
import time

from std_srvs.srv import Trigger

from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.gripper import FAULTS, GripperReading, GripperSettings, Robotiq
from groot_ros.msg import GripperState, TcpDelta
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import COMMAND_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.sampling.stream_monitor import Health, StreamMeter

PARAMETERS = {
    'connection': ParameterSpec(
        'urcap', "'urcap': the robot's port 63352; 'modbus': a USB adapter of the gripper's own"
    ),
    'robot_ip': ParameterSpec('192.168.1.100', 'address of the robot whose Robotiq URCap serves port 63352'),
    'device': ParameterSpec('/dev/ttyUSB0', 'serial port, for connection modbus'),
    'connect_timeout_s': ParameterSpec(
        15.0, 'how long to wait for the gripper before giving up, s', 1.0, 600.0
    ),
    'activate_on_start': ParameterSpec(
        True, 'activate a gripper that is not: the fingers then move through their travel'
    ),
    'rate_hz': ParameterSpec(50.0, 'rate of gripper/state, Hz', 5.0, 60.0),
    'open_count': ParameterSpec(3, 'POS register of the open gripper, as ~/calibrate says'),
    'closed_count': ParameterSpec(228, 'POS register of the closed gripper, as ~/calibrate says'),
    'speed': ParameterSpec(1.0, 'finger speed, 0 slowest to 1 fastest', 0.0, 1.0),
    'force': ParameterSpec(0.5, 'grip force, 0 softest to 1 hardest', 0.0, 1.0),
}


class RobotiqDriver(GrootNode):
    """Topics and services around hardware/robotiq/gripper.py."""

    def __init__(self) -> None:
        super().__init__('robotiq_driver', PARAMETERS)
        if self.parameter('connection') not in ('urcap', 'modbus'):
            raise GrootRosError(
                f"The connection {self.parameter('connection')!r} is not known: use 'urcap' or 'modbus'."
            )
        if self.parameter('open_count') == self.parameter('closed_count'):
            raise GrootRosError(
                'open_count and closed_count are the same: call ~/calibrate with the defaults and write down what it says.'
            )
        self._publisher = self.create_publisher(GripperState, 'gripper/state', STREAM_QOS)
        self._meter = StreamMeter('gripper/state', self.parameter('rate_hz'))
        self._reading: GripperReading | None = None
        self._gripper: Robotiq | None = None
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_command, COMMAND_QOS)
        self.create_service(Trigger, '~/activate', self._on_activate)
        self.create_service(Trigger, '~/calibrate', self._on_calibrate)

    def configure(self) -> None:
        """Connects, and activates the gripper where needed and wanted."""
        self._began_s = time.monotonic()
        keys = (
            'connection',
            'device',
            'rate_hz',
            'open_count',
            'closed_count',
            'speed',
            'force',
            'activate_on_start',
        )
        settings = GripperSettings(
            host=self.parameter('robot_ip'), **{key: self.parameter(key) for key in keys}
        )
        self._gripper = Robotiq(settings, self._on_reading, self._on_loss)

    def cleanup(self) -> None:
        """Lets go of the connection; the gripper holds what it holds."""
        if self._gripper is not None:
            self._gripper.close()

    def diagnose(self) -> list[Health]:
        """The stream of readings, and the gripper's fault register."""
        found = [self._meter.health(self.now_ns())]
        if self._reading is not None:
            text = _fault_text(self._reading.fault)
            found.append(
                Health(
                    'gripper',
                    2 if text else 0,
                    text or 'ready',
                    {'position': f'{self._reading.position:.3f}'},
                )
            )
        return found

    def _on_command(self, message: TcpDelta) -> None:
        if self.active and self._gripper is not None and math.isfinite(message.opening):
            self._gripper.move(message.opening)

    def _on_activate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = (
            self._gripper.activate()
            if self.active and self._gripper is not None
            else 'the driver is not active'
        )
        response.success, response.message = not problem, problem or 'activated'
        return response

    def _on_calibrate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active or self._gripper is None:
            response.success, response.message = False, 'the driver is not active'
            return response
        problem, found = self._gripper.calibrate(), self._gripper.settings
        counts = f'open_count: {found.open_count}, closed_count: {found.closed_count}'
        response.success, response.message = (
            not problem,
            problem or f'in force now; to keep it write into the parameter file: {counts}',
        )
        return response

    def _on_reading(self, reading: GripperReading) -> None:
        if self._reading is not None and reading.fault != self._reading.fault and reading.fault:
            self.warn(f'The gripper reports: {_fault_text(reading.fault)}.')
        self._reading = reading
        self._meter.add(reading.stamp_ns, reading.stamp_ns)
        message = GripperState(
            opening=reading.position, target=reading.target, moving=reading.moving, current=reading.current_a
        )
        message.object_detected, message.fault = reading.object_detected, reading.fault
        message.fault_text = _fault_text(reading.fault)
        message.header.stamp, message.header.frame_id = to_time_msg(reading.stamp_ns), 'gripper'
        self.publish(self._publisher, message)

    def _on_loss(self, reason: str) -> None:
        if self._reading is None and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        self.warn(f'{reason} Connecting again.')


def _fault_text(fault: int) -> str:
    return FAULTS.get(fault, f'fault {fault}')


def main() -> int:
    """Entry of `ros2 run groot_ros robotiq_driver`."""
    return run_node(RobotiqDriver)


if __name__ == '__main__':
    raise SystemExit(main())
