# SPDX-License-Identifier: Apache-2.0
"""A gripper on its own USB adapter: Modbus RTU through the library pyrobotiqgripper."""

import contextlib

from groot_ros.errors import GrootRosError
from groot_ros.hardware.robotiq.registers import GripperRegisters


class ModbusGripper:
    """The gripper at the serial port `device`. Raises GrootRosError if nothing answers there."""

    def __init__(self, device: str) -> None:
        try:
            import pyrobotiqgripper
            from pymodbus.exceptions import ModbusException
        except ImportError as error:
            raise GrootRosError(
                'The connection modbus needs a Python package: pip install pyrobotiqgripper.'
            ) from error
        # What the library raises for noise on the line: it takes answers apart without a check.
        noise = (AttributeError, IndexError, KeyError, TypeError, ValueError)
        self._errors = (pyrobotiqgripper.RobotiqGripperError, ModbusException, *noise)
        try:
            self._gripper = pyrobotiqgripper.RobotiqGripper(com_port=device)
        except (*self._errors, OSError) as error:
            raise GrootRosError(
                f'No gripper answers on {device} ({error}): check the adapter, its power, and that you '
                'may use the port (group dialout).'
            ) from error

    def read(self) -> GripperRegisters:
        """Reads the registers. The gripper reports its current in steps of 10 mA."""
        with self._as_os_error():
            self._gripper.readStatus(raiseOnFault=False)
            status = {name: int(value) for name, value in self._gripper.status(refreshStatus=False).items()}
            return GripperRegisters(
                position=status['gPO'],
                requested=status['gPR'],
                object_status=status['gOBJ'],
                fault=status['gFLT'],
                activation=status['gSTA'],
                current_a=0.01 * status['gCU'],
            )

    def go_to(self, count: int, speed: int, force: int) -> None:
        """Moves toward a position, without waiting for it."""
        with self._as_os_error():
            self._gripper.move(count, speed, force, wait=False, readStatus=False, start=True)

    def activate(self) -> None:
        """Resets and activates the gripper."""
        with self._as_os_error():
            self._gripper.activate()

    def close(self) -> None:
        """Closes the serial port; the gripper keeps its last target."""
        self._gripper.disconnect()

    @contextlib.contextmanager
    def _as_os_error(self):
        try:
            yield
        except self._errors as error:
            raise OSError(str(error)) from error
