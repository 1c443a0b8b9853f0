# SPDX-License-Identifier: Apache-2.0
"""A 3Dconnexion SpaceMouse without ROS nodes, through the library pyspacemouse."""

import threading
import time

from groot_ros.errors import GrootRosError
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.mapping import DIRECTIONS
from groot_ros.teleop.operator import OperatorContext

_HOW_TO_FIX = (
    'plug it in, install libhidapi-hidraw0 and pyspacemouse, '
    'and let your user read /dev/hidraw* (a udev rule with MODE="0666")'
)


class SpaceMouse:
    """Axes x y z roll pitch yaw, right-handed with z up; buttons are '0', '1', and so on."""

    @classmethod
    def open(cls, context: OperatorContext) -> 'SpaceMouse':
        """Opens the first SpaceMouse on USB."""
        return cls()

    def __init__(self) -> None:
        try:
            import pyspacemouse

            self._device = pyspacemouse.open(axis_convention=pyspacemouse.AxisConvention.HID_Z_UP)
        except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:
            raise GrootRosError(f'No SpaceMouse can be opened ({error}): {_HOW_TO_FIX}.') from error
        self._raw: DeviceState | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='spacemouse', daemon=True)
        self._thread.start()

    def read(self) -> DeviceState | None:
        """The newest report. One without motion is always fresh, since a SpaceMouse at rest sends nothing."""
        raw = self._raw
        if raw is not None and not any(raw.axes.values()) and self._thread.is_alive():
            return DeviceState(time.monotonic(), raw.axes, raw.buttons)
        return raw

    def close(self) -> None:
        """Ends the reading thread and closes the device."""
        self._closing.set()
        self._thread.join(1.0)
        self._device.close()

    def _work(self) -> None:
        last = None
        while not self._closing.wait(0.005):
            try:
                state = self._device.read()
            except (OSError, RuntimeError):
                return  # unplugged: the mapper ignores the last report once it is too old
            if state.t != last:
                last = state.t
                axes = {name: float(getattr(state, name)) for name in DIRECTIONS}
                pressed = frozenset(str(index) for index, down in enumerate(state.buttons) if down)
                self._raw = DeviceState(time.monotonic(), axes, pressed)
