# SPDX-License-Identifier: Apache-2.0
"""A phone whose pose the TCP follows while its button is held, through the library teleop (WebXR)."""

import threading
import time

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, deltas_between, pose_from_matrix
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.mapping import DIRECTIONS
from groot_ros.teleop.operator import OperatorContext

_MIN_STEP_S = 0.004
_PRESS_S = 0.1


class Phone:
    """Axes are the phone's velocity as a share of the map's speeds; buttons are 'move' and 'gripper'."""

    @classmethod
    def open(cls, context: OperatorContext) -> 'Phone':
        """Serves the phone's page at the parameters `phone_host` and `phone_port`."""
        speeds = (context.map.linear_speed_m_s, context.map.angular_speed_rad_s)
        return cls(context.parameters['phone_host'], context.parameters['phone_port'], *speeds)

    def __init__(self, host: str, port: int, linear_speed_m_s: float, angular_speed_rad_s: float) -> None:
        try:
            from teleop import Teleop
        except ImportError as error:
            raise GrootRosError('The device phone needs a library: run pip install teleop.') from error
        self._speeds = np.repeat([linear_speed_m_s, angular_speed_rad_s], 3)
        self._last: tuple[float, Array] | None = None
        self._state: DeviceState | None = None
        self._gripper = 'open'
        self._pressed_s = 0.0
        server = Teleop(host=host, port=port)
        server.subscribe(self._on_pose)
        threading.Thread(target=server.run, name='phone', daemon=True).start()

    def read(self) -> DeviceState | None:
        """The velocity of the newest pose, and the buttons."""
        return self._state

    def close(self) -> None:
        """The server's thread ends with the process."""

    def _on_pose(self, pose: np.ndarray, message: dict) -> None:
        now_s = time.monotonic()
        buttons = {'move'} if message.get('move') else set()
        if message.get('gripper', 'open') != self._gripper:
            self._gripper, self._pressed_s = message['gripper'], now_s
        if now_s - self._pressed_s < _PRESS_S:
            buttons.add('gripper')  # the phone reports open or closed; a change of it is a press
        here = pose_from_matrix(np.asarray(pose, float))
        velocity = np.zeros(6)
        if 'move' in buttons and self._last is not None:
            last_s, last_pose = self._last
            delta = deltas_between(np.array([last_pose, here]))[0]
            velocity = delta / max(now_s - last_s, _MIN_STEP_S)
        self._last = (now_s, here) if 'move' in buttons else None
        axes = dict(zip(DIRECTIONS, (velocity / self._speeds).tolist(), strict=True))
        self._state = DeviceState(now_s, axes, frozenset(buttons))
