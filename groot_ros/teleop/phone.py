# SPDX-License-Identifier: Apache-2.0
"""A phone's pose in space through the library teleop (WebXR): while its button is held the TCP follows it."""

import threading
import time

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, deltas_between, pose_from_matrix
from groot_ros.teleop.mapping import DIRECTIONS, DeviceState

_FASTEST_S = 0.004
_PRESS_S = 0.1


class Phone:
    """Axes are the phone's velocity, in shares of the map's speeds; its button is 'move', and 'gripper' when its gripper button was pressed."""

    def __init__(self, host: str, port: int, linear_speed_m_s: float, angular_speed_rad_s: float) -> None:
        try:
            from teleop import Teleop
        except ImportError as error:
            raise GrootRosError('The source phone needs the library teleop: pip install teleop.') from error
        self._speeds = np.repeat([linear_speed_m_s, angular_speed_rad_s], 3)
        self._last: tuple[float, Array] | None = None
        self._raw: DeviceState | None = None
        self._gripper, self._pressed_s = 'open', 0.0
        server = Teleop(host=host, port=port)
        server.subscribe(self._on_pose)
        threading.Thread(target=server.run, name='phone', daemon=True).start()

    def read(self) -> DeviceState | None:
        """The newest pose's velocity."""
        return self._raw

    def close(self) -> None:
        """The server's thread ends with the process."""

    def _on_pose(self, pose: np.ndarray, message: dict) -> None:
        now_s = time.monotonic()
        buttons = {'move'} if message.get('move') else set()
        if message.get('gripper', 'open') != self._gripper:
            self._gripper, self._pressed_s = message['gripper'], now_s
        if now_s - self._pressed_s < _PRESS_S:
            buttons.add('gripper')  # the phone tells a state; a change of it is a press
        here = pose_from_matrix(np.asarray(pose, float))
        velocity = np.zeros(6)
        if 'move' in buttons and self._last is not None:
            velocity = deltas_between(np.array([self._last[1], here]))[0] / max(
                now_s - self._last[0], _FASTEST_S
            )
        self._last = (now_s, here) if 'move' in buttons else None
        self._raw = DeviceState(
            now_s, dict(zip(DIRECTIONS, (velocity / self._speeds).tolist(), strict=True)), frozenset(buttons)
        )
