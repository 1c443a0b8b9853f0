# SPDX-License-Identifier: Apache-2.0
"""A model for the benchmarks of execution: it knows one path and answers with deltas along it.

It is as good as a policy can be: it knows the path exactly and leads back to it within half a chunk, as an
expert would. It knows nothing of time. Its server answers after a chosen latency, or never.
"""

import threading
import time
from collections.abc import Callable

import numpy as np
import zmq

from groot_ros.embodiment import Embodiment
from groot_ros.geometry import Array, angle_between, apply_delta, deltas_between
from groot_ros.inference.protocol import Modality
from groot_ros.inference.server import Server

HORIZON = 32
BACK_STEPS = 8
PERIOD_S = 8.0
RADIUS_M = 0.08
TURN_RAD = 0.3
_GRID_S = 0.005
_ARM_M = 0.2


def path_from(start: Array) -> Callable[[float], Array]:
    """Poses (7,) by time in s: a closed curve from a start pose, at 0.05 to 0.1 m/s, with a turning tool."""

    def pose(time_s: float) -> Array:
        angle = 2 * np.pi * time_s / PERIOD_S
        moved = RADIUS_M * np.array([np.sin(angle), 0.5 * (1 - np.cos(angle)), 0.3 * np.sin(2 * angle)])
        turned = TURN_RAD * np.array([0.3 * np.sin(2 * angle), 0.0, np.sin(angle)])
        return apply_delta(start, np.concatenate([moved, turned]))

    return pose


class PathModel:
    """Finds the place of the observed pose on the path, and answers with the deltas of the next steps."""

    name = 'path'

    def __init__(self, embodiment: Embodiment, start: Array) -> None:
        self._embodiment = embodiment
        self._row_s = 1.0 / embodiment.fps
        self._path = path_from(start)
        self._times_s = np.arange(0.0, PERIOD_S, _GRID_S)
        self._poses = np.array([self._path(time_s) for time_s in self._times_s])
        self._last = 0

    def modalities(self) -> dict[str, Modality]:
        """The pose is the only state; the actions are those of the embodiment."""
        return {
            'video': Modality([0], []),
            'state': Modality([0], ['tcp_pose']),
            'action': Modality(list(range(HORIZON)), list(self._embodiment.action_slices)),
            'language': Modality([0], [self._embodiment.language]),
        }

    def extra_info(self) -> dict:
        return {}

    def reset(self) -> None:
        self._last = 0

    def get_action(self, observation: dict, options: dict | None) -> tuple[dict, dict]:
        """The deltas along the path from its point nearest to the observed pose."""
        observed = np.asarray(observation['state']['tcp_pose'][0, 0], float)
        begin_s = self.phase_s(observed)
        poses = np.array([self._path(begin_s + k * self._row_s) for k in range(HORIZON + 1)])
        error = deltas_between(np.array([poses[0], observed]))[0]
        error_left = np.maximum(1 - np.arange(HORIZON + 1) / BACK_STEPS, 0.0)
        corrected = [apply_delta(pose, error * left) for pose, left in zip(poses, error_left, strict=True)]
        deltas = deltas_between(np.array(corrected))[None]
        action = {
            'delta_tcp_position': deltas[..., :3],
            'delta_tcp_orientation': deltas[..., 3:],
            'gripper_command': np.ones((1, HORIZON, 1)),
        }
        return action, {}

    def phase_s(self, pose: Array) -> float:
        """The time of the nearest pose of the path, near the last one, because the path crosses itself."""
        near = (self._last + np.arange(-100, 400)) % len(self._times_s)
        costs = np.linalg.norm(self._poses[near, :3] - pose[:3], axis=1)
        costs += [_ARM_M * angle_between(known, pose) for known in self._poses[near]]
        self._last = int(near[np.argmin(costs)])
        return float(self._times_s[self._last])


class LateServer:
    """Serves a model in its own thread with a latency, and loses a share of the replies, until `close`."""

    def __init__(
        self, model: PathModel, latency_s: float, jitter_s: float, lost: float, seed: int = 0
    ) -> None:
        self._server = Server(model, '127.0.0.1', 0)
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._lost = lost
        self._rng = np.random.default_rng(seed)
        self._closing = threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.port = self._socket.bind_to_random_port('tcp://127.0.0.1')
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close(0)

    def _run(self) -> None:
        while not self._closing.is_set():
            if not self._socket.poll(50):
                continue
            *address, request = self._socket.recv_multipart()
            began_s = time.monotonic()
            reply = self._server.answer(request)
            if b'get_action' in request:
                if self._rng.random() < self._lost:
                    continue
                due_s = began_s + self._latency_s + self._jitter_s * self._rng.uniform(-1, 1)
                time.sleep(max(due_s - time.monotonic(), 0))
            self._socket.send_multipart([*address, reply])
