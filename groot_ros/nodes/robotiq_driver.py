# SPDX-License-Identifier: Apache-2.0
"""robotiq_driver: publishes the gripper's state and follows the opening of the accepted commands."""

import math
import time
from dataclasses import replace

from std_srvs.srv import Trigger

from groot_ros.hardware.robotiq.gripper import FAULTS, GripperReading, GripperSettings, Robotiq
from groot_ros.msg import GripperState, TcpDelta
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.qos import COMMAND_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.sampling.stream_monitor import Health, StreamMeter

PARAMETERS = {
    'connect_timeout_s': ParameterSpec(
        15.0, 'end with an error if the gripper does not answer within this time, s', 1.0, 600.0
    ),
    **specs_from(GripperSettings),
}
_NOT_ACTIVE = 'the driver is not active'


class RobotiqDriver(GrootNode):
    """Topics and services around hardware/robotiq/gripper.py."""

    def __init__(self) -> None:
        super().__init__('robotiq_driver', PARAMETERS)
        self._settings: GripperSettings = self.settings(GripperSettings)
        self._publisher = self.create_publisher(GripperState, 'gripper/state', STREAM_QOS)
        self._meter = StreamMeter('gripper/state', self.parameter('rate_hz'))
        self._reading: GripperReading | None = None
        self._gripper: Robotiq | None = None
        self._began_s = time.monotonic()
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_command, COMMAND_QOS)
        self.create_service(Trigger, '~/activate', self._on_activate)
        self.create_service(Trigger, '~/calibrate', self._on_calibrate)

    def configure(self) -> None:
        """Starts the thread that connects, and activates the gripper if needed and wanted."""
        self._began_s = time.monotonic()
        self._gripper = Robotiq(replace(self._settings), self._on_reading, self._on_loss)

    def cleanup(self) -> None:
        """Closes the connection; the gripper keeps its last target."""
        if self._gripper is not None:
            self._gripper.close()

    def diagnose(self) -> list[Health]:
        """The stream of readings, and the gripper's fault register."""
        found = [self._meter.health(self.now_ns())]
        if self._reading is not None:
            text = _fault_text(self._reading.fault)
            level = 2 if text else 0
            values = {'opening': f'{self._reading.opening:.3f}'}
            found.append(Health('gripper', level, text or 'ready', values))
        return found

    def _on_command(self, message: TcpDelta) -> None:
        if self.active and self._gripper is not None and math.isfinite(message.opening):
            self._gripper.move(message.opening)

    def _on_activate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = _NOT_ACTIVE
        if self.active and self._gripper is not None:
            problem = self._gripper.activate()
        response.success = not problem
        response.message = problem or 'activated'
        return response

    def _on_calibrate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.active or self._gripper is None:
            response.success = False
            response.message = _NOT_ACTIVE
            return response
        problem = self._gripper.calibrate()
        found = self._gripper.settings
        counts = f'open_count: {found.open_count}, closed_count: {found.closed_count}'
        response.success = not problem
        response.message = (
            problem or f'in use until the driver ends; to keep it, write into the parameter file: {counts}'
        )
        return response

    def _on_reading(self, reading: GripperReading) -> None:
        if self._reading is not None and reading.fault != self._reading.fault and reading.fault:
            self.warn(f'The gripper reports: {_fault_text(reading.fault)}.')
        self._reading = reading
        self._meter.add(reading.stamp_ns, reading.stamp_ns)
        message = GripperState(
            opening=reading.opening,
            target=reading.target,
            moving=reading.moving,
            object_detected=reading.object_detected,
            current=reading.current_a,
            fault=reading.fault,
            fault_text=_fault_text(reading.fault),
        )
        message.header.stamp = to_time_msg(reading.stamp_ns)
        message.header.frame_id = 'gripper'
        self.publish(self._publisher, message)

    def _on_loss(self, reason: str) -> None:
        waited_s = time.monotonic() - self._began_s
        if self._reading is None and waited_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        self.warn(f'{reason} Connecting again.')


def _fault_text(fault: int) -> str:
    return FAULTS.get(fault, f'fault {fault}')


def main() -> int:
    """Entry of `ros2 run groot_ros robotiq_driver`."""
    return run_node(RobotiqDriver)


if __name__ == '__main__':
    raise SystemExit(main())
