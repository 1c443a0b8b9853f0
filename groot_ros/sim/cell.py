# SPDX-License-Identifier: Apache-2.0
"""The process of the simulated cell: a 500 Hz loop of physics, controller and protocol servers."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from groot_ros.errors import GrootRosError
from groot_ros.hardware.realtime import CONTROLLER_PRIORITY, set_realtime_priority
from groot_ros.sim.camera import run_camera
from groot_ros.sim.control_script import ForeignProgram
from groot_ros.sim.controller import Controller, ControllerModel
from groot_ros.sim.dashboard_server import DashboardServer
from groot_ros.sim.gripper_server import Gripper, GripperServer
from groot_ros.sim.ground_truth import TruthLog
from groot_ros.sim.loop_timing import LatenessHistogram
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
    """The robot, gripper and cameras on one address.

    Tick k has the time `epoch + k * 2 ms`, even if it is late. Once a second `report` gets the lateness of
    ticks in ms (50th, 90th and 99th percentile, maximum) and the number of resynchronisations.
    """

    def __init__(
        self,
        host: str,
        camera_fps: float = 20.0,
        truth: Path | None = None,
        camera: bool = True,
        model: ControllerModel | None = None,
        report: Callable[[list[float]], None] | None = None,
    ) -> None:
        self.physics = Physics()
        self.controller = Controller(self.physics.joints.positions, model)
        self.gripper = Gripper()
        self.lateness = LatenessHistogram()
        self.resyncs = 0
        self._report = report
        self._truth = TruthLog(truth) if truth else None
        self._camera: BaseProcess | None = None
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
        self._camera_pipe, child_end = context.Pipe()
        self._camera = context.Process(target=run_camera, args=(child_end, host), daemon=True, name='camera')
        self._camera.start()
        child_end.close()
        try:
            problem = self._camera_pipe.recv_bytes().decode()
        except EOFError:
            problem = 'The simulated camera died while it started: see its output above.'
        if problem:
            self.close()
            raise GrootRosError(problem)

    def run(self) -> None:
        """Runs until `stop`, SIGINT or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        set_realtime_priority(CONTROLLER_PRIORITY)
        # A full garbage collection takes several ticks, and nothing here makes reference cycles.
        gc.collect()
        gc.freeze()
        epoch_ns = time.time_ns() - time.monotonic_ns()
        due_ns = time.monotonic_ns()
        while self._running:
            self.advance()
            serve_until(self._servers, due_ns / 1e9, time.monotonic)
            late_ns = time.monotonic_ns() - due_ns
            self.lateness.add(late_ns / 1e6)
            self.publish(epoch_ns + due_ns)
            if self._report and self.controller.ticks % _REPORT_TICKS == 0:
                self._report(self._lateness())
            due_ns += _STEP_NS
            if late_ns > _MAX_BACKLOG_NS:
                due_ns = time.monotonic_ns()
                self.resyncs += 1
        self.close()

    def advance(self) -> None:
        """Computes one step of 2 ms before it is due, so that the computation does not delay what is sent."""
        self.controller.tick()
        setpoint = self.controller.setpoint
        self.gripper.tick(self.physics.opening_m, self.physics.finger_speed_m_s)
        self.physics.step(setpoint, setpoint.accelerations, self.gripper.command_m, self.gripper.force_n)
        self.controller.actual = self.physics.joints
        self._rtde.prepare()

    def publish(self, stamp_ns: int) -> None:
        """Sends the state that `advance` computed, when it is due."""
        self._rtde.publish()
        for server in self._servers:
            server.flush()
        if self._truth:
            self._truth.write(stamp_ns, self.controller, self.physics.opening_m / STROKE_M, self._rtde)
        self._trigger_camera(stamp_ns)

    def stop(self) -> None:
        """Makes `run` return after the present tick."""
        self._running = False

    def close(self) -> None:
        """Closes the ports, the truth file and the camera process."""
        for server in self._servers:
            server.close()
        if self._truth:
            self._truth.close()
        if self._camera is not None:
            self._camera_pipe.close()
            self._camera.join(2.0)

    def _trigger_camera(self, stamp_ns: int) -> None:
        if self._camera is None or self.controller.ticks < self._frames * self._camera_period_ticks:
            return
        self._frames += 1
        if not self._camera.is_alive():
            raise GrootRosError('The simulated camera died: see its output above.')
        self._camera_pipe.send_bytes(np.int64(stamp_ns).tobytes() + self.physics.data.qpos.tobytes())

    def _lateness(self) -> list[float]:
        return [
            *self.lateness.percentiles_ms([50, 90, 99]).round(3).tolist(),
            round(self.lateness.max_ms, 3),
            self.resyncs,
        ]

    def _hooks(self) -> dict:
        controller = self.controller
        return {
            'cube_pose': lambda: self.physics.cube_pose.tolist(),
            'place_cube': self.physics.place_cube,
            'opening': lambda: self.physics.opening_m / STROKE_M,
            'protective_stop': controller.protective_stop,
            'emergency_stop': controller.emergency_stop,
            'release_emergency_stop': controller.release_emergency_stop,
            'power_off': controller.power_off,
            'disconnect': self._rtde.disconnect,
            'silence': self._set_silent,
            'latency': self._set_latency,
            'speed_slider': self._set_speed_slider,
            'foreign_program': lambda speed_rad_s: controller.play(ForeignProgram(controller, speed_rad_s)),
            'push': self._push,
            'lateness_ms': self._lateness,
        }

    def _set_silent(self, on: bool) -> None:
        self._rtde.silent = bool(on)

    def _set_latency(self, ms: float) -> None:
        self._rtde.latency_ticks = round(ms / 1e3 / STEP_S)

    def _set_speed_slider(self, share: float) -> None:
        self.controller.speed_slider = float(share)

    def _push(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        """Moves the TCP at a velocity in m/s, as a hand does. Only a compliant arm follows."""
        if isinstance(self.controller.motion, CompliantMotion):
            self.controller.motion.push = np.array([x, y, z, 0.0, 0.0, 0.0])
