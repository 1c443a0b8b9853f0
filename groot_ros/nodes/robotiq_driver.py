# SPDX-License-Identifier: Apache-2.0
"""robotiq_driver: publishes the gripper's state and follows the opening of the accepted commands."""

import math
import time
from dataclasses import replace

from std_srvs.srv import Trigger

from groot_ros.hardware.loss_notice import LossNotice
from groot_ros.hardware.robotiq.gripper import FAULTS, GripperReading, GripperSettings, Robotiq
from groot_ros.msg import GripperState, RobotStatus, TcpDelta
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec, specs_from
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
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
_STATUS_TIMEOUT_S = 2.5  # ur5e_driver publishes its status four times a second
_ACTIVATION_S = 0.1
_IN_MOTION = (RobotStatus.ENABLED, RobotStatus.FREEDRIVE)


class RobotiqDriver(GrootNode):
    """Topics and services around hardware/robotiq/gripper.py.

    The gripper obeys commands only while `robot_status` says that the arm is enabled or guided by hand.
    """

    def __init__(self) -> None:
        super().__init__('robotiq_driver', PARAMETERS)
        self._settings: GripperSettings = self.settings(GripperSettings)
        self._publisher = self.create_publisher(GripperState, 'gripper/state', STREAM_QOS)
        self._meter = StreamMeter('gripper/state', self.parameter('rate_hz'))
        self._reading: GripperReading | None = None
        self._gripper: Robotiq | None = None
        self._began_s = time.monotonic()
        self._loss_notice = LossNotice()
        self._problem_text = ''
        self._arm_moves = False
        self._status_s = -math.inf
        self._activation_from_s = math.inf
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_command, COMMAND_QOS)
        self.create_timer(_ACTIVATION_S, self._activate_at_rest)
        self.create_service(Trigger, '~/activate', self._on_activate)
        self.create_service(Trigger, '~/calibrate', self._on_calibrate)

    def configure(self) -> None:
        """Starts the thread that connects. The fingers do not move."""
        self._began_s = time.monotonic()
        self._reading = None
        self._gripper = Robotiq(replace(self._settings), self._on_reading, self._on_loss)

    def activate(self) -> None:
        """Plans the activation of the gripper, which moves the fingers, if needed and wanted.

        A driver that was started again finds the arm as it was: while the arm is enabled, the fingers move by
        themselves as little as after a lost connection. Without a driver of the arm the wait is short.
        """
        self._activation_from_s = time.monotonic() + _STATUS_TIMEOUT_S

    def deactivate(self) -> None:
        """Sends no target any more; the fingers keep the last one."""
        self._activation_from_s = math.inf
        if self._gripper is not None:
            self._gripper.forget_target()

    def cleanup(self) -> None:
        """Closes the connection; the gripper keeps its last target."""
        if self._gripper is not None:
            self._gripper.close()
            self._gripper = None

    def on_fault(self, reason: str) -> None:
        """Sends no target any more, as `deactivate`."""
        self.deactivate()

    def diagnose(self) -> list[Health]:
        """The stream of readings, and the gripper's fault register."""
        health = self._meter.health(self.now_ns())
        found = [Health(health.part, health.level, self._problem_text or health.text, health.values)]
        if self._reading is not None:
            text = _fault_text(self._reading.fault)
            level = 2 if text else 0
            values = {'opening': f'{self._reading.opening:.3f}'}
            found.append(Health('gripper', level, text or 'ready', values))
        return found

    def _on_status(self, message: RobotStatus) -> None:
        self._status_s = time.monotonic()
        self._arm_moves = message.state in _IN_MOTION
        if not self._arm_moves and self._gripper is not None:
            self._gripper.forget_target()

    def _activate_at_rest(self) -> None:
        if not self.active or self._gripper is None or self._activation_from_s == math.inf:
            return
        now_s = time.monotonic()
        status_known = now_s - self._status_s < _STATUS_TIMEOUT_S
        no_driver = now_s > self._activation_from_s and not self.count_publishers('robot_status')
        if status_known and self._arm_moves:
            self._activation_from_s = math.inf
            self.warn('The arm is enabled: a gripper that is not active waits for ~/activate.')
        elif status_known or no_driver:
            self._activation_from_s = math.inf
            self._gripper.start()

    def _may_move(self) -> bool:
        return self._arm_moves and time.monotonic() - self._status_s < _STATUS_TIMEOUT_S

    def _on_command(self, message: TcpDelta) -> None:
        if not self.active or self._gripper is None or not math.isfinite(message.opening):
            return
        if self._may_move():
            self._gripper.move(message.opening)
        else:
            self.get_logger().warning(
                'Ignored a command: robot_status does not say that the arm is enabled.',
                throttle_duration_sec=5.0,
            )

    def _on_activate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = self._obstacle()
        if not problem and self._gripper is not None:
            problem = self._gripper.activate(self._settings.force_calibration)
        response.success = not problem
        response.message = problem or 'activated'
        return response

    def _obstacle(self) -> str:
        """Why the fingers may not be moved through their travel, apart from what they hold; or ''."""
        if not self.active or self._gripper is None:
            return _NOT_ACTIVE
        if self._may_move() and not self._settings.force_calibration:
            return 'the arm is enabled: disable it first, or start the driver with force_calibration'
        return ''

    def _on_calibrate(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        problem = self._obstacle()
        if problem or self._gripper is None:
            response.success = False
            response.message = problem
            return response
        problem = self._gripper.calibrate(self._settings.force_calibration)
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
        self._problem_text = ''
        self._loss_notice.works(time.monotonic())
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
        self.publish(self._publisher, message)

    def _on_loss(self, reason: str) -> None:
        self._problem_text = reason
        waited_s = time.monotonic() - self._began_s
        if self._reading is None and waited_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        if self._loss_notice.lost(time.monotonic()):
            self.warn(f'{reason.rstrip(".")}. Connecting again.')


def _fault_text(fault: int) -> str:
    return FAULTS.get(fault, f'fault {fault}')


def main() -> int:
    """Entry of `ros2 run groot_ros robotiq_driver`."""
    return run_node(RobotiqDriver)


if __name__ == '__main__':
    raise SystemExit(main())
