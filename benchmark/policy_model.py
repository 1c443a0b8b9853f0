# SPDX-License-Identifier: Apache-2.0
"""A model for the benchmarks of execution: it knows one path, sees where the arm is on it, and answers with the deltas that lead on.

It is as good as a policy can be: it never errs about the path, leads back to it within half a chunk as an expert would, knows nothing
of time, and answers after a chosen latency, or never.
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

HORIZON, BACK_STEPS = 32, 8
PERIOD_S, RADIUS_M, TURN_RAD = 8.0, 0.08, 0.3
_GRID_S, _ARM_M = 0.005, 0.2


def path_from(start: Array) -> Callable[[float], Array]:
    """Poses (7,) over time in s: a closed curve in three dimensions at 0.05 to 0.1 m/s with the tool turning, from a start pose."""

    def pose(time_s: float) -> Array:
        a = 2 * np.pi * time_s / PERIOD_S
        moved = RADIUS_M * np.array([np.sin(a), 0.5 * (1 - np.cos(a)), 0.3 * np.sin(2 * a)])
        turned = TURN_RAD * np.array([0.3 * np.sin(2 * a), 0.0, np.sin(a)])
        return apply_delta(start, np.concatenate([moved, turned]))

    return pose


class PathModel:
    """Finds where on the path the pose is that it is shown, and answers with the deltas of the next steps."""

    name = 'path'

    def __init__(self, embodiment: Embodiment, start: Array) -> None:
        self._embodiment, self._row_s = embodiment, 1.0 / embodiment.fps
        path = path_from(start)
        self._times_s = np.arange(0.0, PERIOD_S, _GRID_S)
        self._poses = np.array([path(time_s) for time_s in self._times_s])
        self._path, self._last = path, 0

    def modalities(self) -> dict[str, Modality]:
        """Pose in, deltas out."""
        names = list(self._embodiment.action_slices)
        return {'video': Modality([0], []), 'state': Modality([0], ['tcp_pose']), 'action': Modality(list(range(HORIZON)), names),
                'language': Modality([0], [self._embodiment.language])}  # fmt: skip

    def extra_info(self) -> dict:
        """Nothing."""
        return {}

    def reset(self) -> None:
        """At the start of the path."""
        self._last = 0

    def get_action(self, observation: dict, options: dict | None) -> tuple[dict, dict]:
        """The deltas from the nearest point of the path on."""
        seen = np.asarray(observation['state']['tcp_pose'][0, 0], float)
        begin_s = self.phase_s(seen)
        steps = np.array([self._path(begin_s + k * self._row_s) for k in range(HORIZON + 1)])
        off = deltas_between(np.array([steps[0], seen]))[0]
        back = np.array(
            [apply_delta(step, off * max(1 - k / BACK_STEPS, 0.0)) for k, step in enumerate(steps)]
        )
        deltas = deltas_between(back)[None]
        return {
            'delta_tcp_position': deltas[..., :3],
            'delta_tcp_orientation': deltas[..., 3:],
            'gripper_command': np.ones((1, HORIZON, 1)),
        }, {}

    def phase_s(self, pose: Array) -> float:
        """The time on the path of the pose nearest to one, not far from the last, since the path crosses itself."""
        near = (self._last + np.arange(-100, 400)) % len(self._times_s)
        costs = np.linalg.norm(self._poses[near, :3] - pose[:3], axis=1)
        costs += [_ARM_M * angle_between(known, pose) for known in self._poses[near]]
        self._last = int(near[np.argmin(costs)])
        return float(self._times_s[self._last])


class LateServer:
    """Serves a model with a latency, and loses some replies. Threads of its own; `close` ends it."""

    def __init__(
        self, model: PathModel, latency_s: float, jitter_s: float, lost: float, seed: int = 0
    ) -> None:
        self._server = Server(model, '127.0.0.1', 0)
        self._latency_s, self._jitter_s, self._lost = latency_s, jitter_s, lost
        self._rng, self._closing = np.random.default_rng(seed), threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self.port = self._socket.bind_to_random_port('tcp://127.0.0.1')
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
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
