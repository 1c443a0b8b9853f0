# SPDX-License-Identifier: Apache-2.0
"""The cell's process: a 500 Hz loop of physics, controller and servers. Started by nodes/sim_cell.py and by tests."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.realtime import CONTROLLER_PRIORITY, set_realtime_priority
from groot_ros.sim.camera import run_camera
from groot_ros.sim.control_script import ForeignProgram
from groot_ros.sim.controller import Controller, Model
from groot_ros.sim.dashboard_server import DashboardServer
from groot_ros.sim.gripper_server import Gripper, GripperServer
from groot_ros.sim.ground_truth import TruthLog
from groot_ros.sim.loop_timing import Lateness
from groot_ros.sim.physics import Physics
from groot_ros.sim.rtde_server import RtdeServer
from groot_ros.sim.scene import STEP_S, STROKE_M
from groot_ros.sim.script_server import SCRIPT_PORTS, ScriptServer
from groot_ros.sim.sockets import TcpServer, serve_until
from groot_ros.sim.test_interface import HookServer
from groot_ros.sim.trajectories import CompliantMotion

_STEP_NS = round(STEP_S * 1e9)
_MAX_BACKLOG_NS = 500_000_000
_REPORT_TICKS = 500


class SimCell:
    """Everything behind one address. Tick k stands for the instant `epoch + k * 2 ms`, however late it is computed.

    `report` gets once a second the tick lateness in ms (50, 90, 99 %, largest) and how often the cell gave up catching up.
    """

    def __init__(
        self,
        host: str,
        camera_fps: float = 20.0,
        truth: Path | None = None,
        camera: bool = True,
        model: Model | None = None,
        report: Callable[[list[float]], None] | None = None,
    ) -> None:
        self.physics = Physics()
        self.controller = Controller(self.physics.joints.positions, model)
        self.gripper = Gripper()
        self.lateness = Lateness()
        self.resyncs = 0
        self._report = report
        self._truth = TruthLog(truth) if truth else None
        self._camera_period_ticks = 1 / (camera_fps * STEP_S)
        self._frames = 0
        self._running = True
        self._servers: list[TcpServer] = []
        if camera:
            self._start_camera(host)
        self._rtde = RtdeServer(host, self.controller)
        self._servers = [
            self._rtde,
            DashboardServer(host, self.controller),
            *(ScriptServer(host, self.controller, port) for port in SCRIPT_PORTS),
            GripperServer(host, self.gripper),
            HookServer(host, self._hooks()),
        ]

    def _start_camera(self, host: str) -> None:
        # MuJoCo reads this variable once, when the camera's process imports it.
        os.environ.setdefault('MUJOCO_GL', 'egl')
        context = multiprocessing.get_context('spawn')
        self._camera_pipe, theirs = context.Pipe()
        self._camera = context.Process(
            target=run_camera, args=(theirs, host, 640, 480), daemon=True, name='camera'
        )
        self._camera.start()
        theirs.close()
        try:
            problem = self._camera_pipe.recv_bytes().decode()
        except EOFError:
            problem = 'The simulated camera died while it started.'
        if problem:
            self.close()
            raise GrootRosError(problem)

    def run(self) -> None:
        """Runs until `stop`; SIGINT and SIGTERM stop it too."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        set_realtime_priority(CONTROLLER_PRIORITY)
        # The collector's full pass takes several ticks; nothing here makes cycles.
        gc.collect()
        gc.freeze()
        epoch_ns = time.time_ns() - time.monotonic_ns()
        due_ns = time.monotonic_ns()
        while self._running:
            self.advance()
            serve_until(self._servers, due_ns / 1e9, time.monotonic)
            late_ns = time.monotonic_ns() - due_ns
            self.lateness.note(late_ns / 1e6)
            self.publish(epoch_ns + due_ns)
            if self._report and self.controller.ticks % _REPORT_TICKS == 0:
                self._report(self._lateness())
            due_ns += _STEP_NS
            if late_ns > _MAX_BACKLOG_NS:
                due_ns, self.resyncs = time.monotonic_ns(), self.resyncs + 1
        self.close()

    def advance(self) -> None:
        """One step of 2 ms: computed ahead of its instant, so that the time this takes does not delay what is sent."""
        self.controller.tick()
        setpoint = self.controller.setpoint
        self.gripper.tick(self.physics.opening_m, self.physics.finger_speed_m_s)
        self.physics.step(setpoint, setpoint.accelerations, self.gripper.command_m, self.gripper.force_n)
        self.controller.actual = self.physics.joints
        self._rtde.prepare()

    def publish(self, stamp_ns: int) -> None:
        """Sends the state that `advance` computed, at its instant."""
        self._rtde.publish()
        for server in self._servers:
            server.flush()
        if self._truth:
            self._truth.write(stamp_ns, self.controller, self.physics.opening_m / STROKE_M, self._rtde)
        self._expose(stamp_ns)

    def stop(self) -> None:
        """Ends `run` after the present tick."""
        self._running = False

    def close(self) -> None:
        """Closes ports, the truth file and the camera."""
        for server in self._servers:
            server.close()
        if self._truth:
            self._truth.close()
        if hasattr(self, '_camera'):
            self._camera_pipe.close()
            self._camera.join(2.0)

    def _expose(self, stamp_ns: int) -> None:
        if not hasattr(self, '_camera') or self.controller.ticks < self._frames * self._camera_period_ticks:
            return
        self._frames += 1
        if not self._camera.is_alive():
            raise GrootRosError('The simulated camera died: see its message above.')
        self._camera_pipe.send_bytes(np.int64(stamp_ns).tobytes() + self.physics.data.qpos.tobytes())

    def _lateness(self) -> list[float]:
        return [
            *self.lateness.percentiles_ms([50, 90, 99]).round(3).tolist(),
            round(self.lateness.max_ms, 3),
            self.resyncs,
        ]

    def _hooks(self) -> dict:
        controller, rtde = self.controller, self._rtde
        return {
            'cube_pose': lambda: self.physics.cube_pose.tolist(),
            'place_cube': self.physics.place_cube,
            'opening': lambda: self.physics.opening_m / STROKE_M,
            'protective_stop': controller.protective_stop,
            'emergency_stop': controller.emergency_stop,
            'release_emergency_stop': controller.release_emergency_stop,
            'power_off': controller.power_off,
            'disconnect': rtde.disconnect,
            'silence': lambda on: setattr(rtde, 'silent', bool(on)),
            'latency': lambda ms: setattr(rtde, 'latency_ticks', round(ms / 1e3 / STEP_S)),
            'speed_slider': lambda share: setattr(controller, 'speed_slider', float(share)),
            'foreign_program': lambda speed_rad_s: controller.play(ForeignProgram(controller, speed_rad_s)),
            'push': self._push,
            'lateness_ms': self._lateness,
        }

    def _push(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        """A hand moves the TCP at a velocity in m/s; only a compliant arm gives way."""
        if isinstance(self.controller.motion, CompliantMotion):
            self.controller.motion.push = np.array([x, y, z, 0.0, 0.0, 0.0])
