"""robotiq_driver: publishes the gripper's state and follows the opening of the commands that the arm's gate let through."""

import math
import time

from groot_ros.hardware.robotiq import FAULTS, GripperReading, GripperSettings, Robotiq
from groot_ros.msg import GripperState, TcpDelta
from groot_ros.nodes.common import COMMAND_QOS, STREAM_QOS, GrootNode, Parameter, run_node, time_of

PARAMETERS = {
    'robot_ip': Parameter('192.168.1.100', 'address of the robot whose Robotiq URCap serves port 63352'),
    'connect_timeout_s': Parameter(15.0, 'how long to wait for the gripper before giving up, s', 1.0, 600.0),
    'rate_hz': Parameter(50.0, 'rate of gripper/state, Hz', 5.0, 60.0),
    'open_count': Parameter(3, 'POS register of the open gripper'),
    'closed_count': Parameter(228, 'POS register of the closed gripper'),
    'speed': Parameter(1.0, 'finger speed, 0 slowest to 1 fastest', 0.0, 1.0),
    'force': Parameter(0.5, 'grip force, 0 softest to 1 hardest', 0.0, 1.0),
}


class RobotiqDriver(GrootNode):
    """Topics around hardware/robotiq.py."""

    def __init__(self) -> None:
        super().__init__('robotiq_driver', PARAMETERS)
        self._publisher = self.create_publisher(GripperState, 'gripper/state', STREAM_QOS)
        self._connected = False
        self._gripper: Robotiq | None = None
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_command, COMMAND_QOS)

    def open(self) -> None:
        """Connects, and activates the gripper where needed."""
        self._began_s = time.monotonic()
        keys = ('rate_hz', 'open_count', 'closed_count', 'speed', 'force')
        settings = GripperSettings(host=self.parameter('robot_ip'), **{key: self.parameter(key) for key in keys})
        self._gripper = Robotiq(settings, self._on_reading, self._on_loss)

    def close(self) -> None:
        """Lets go of the connection; the gripper holds what it holds."""
        if self._gripper is not None:
            self._gripper.close()

    def _on_command(self, message: TcpDelta) -> None:
        if self.active and self._gripper is not None and math.isfinite(message.opening):
            self._gripper.move(message.opening)

    def _on_reading(self, reading: GripperReading) -> None:
        self._connected = True
        message = GripperState(position=reading.position, target=reading.target, moving=reading.moving)
        message.object_detected, message.fault = reading.object_detected, reading.fault
        message.fault_text = FAULTS.get(reading.fault, f'fault {reading.fault}')
        message.header.stamp = time_of(reading.stamp_ns)
        self.publish(self._publisher, message)

    def _on_loss(self, reason: str) -> None:
        if not self._connected and time.monotonic() - self._began_s > self.parameter('connect_timeout_s'):
            self.fail(reason)
        self.warn(f'{reason} Connecting again.')


def main() -> int:
    """Entry of `ros2 run groot_ros robotiq_driver`."""
    return run_node(RobotiqDriver)


if __name__ == '__main__':
    raise SystemExit(main())
