# SPDX-License-Identifier: Apache-2.0
"""sim_cell: the simulated robot, gripper and camera with the protocols of the real devices.

Its node reports diagnostics only and runs in a process of its own.
"""

import argparse
import contextlib
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from groot_ros.errors import GrootRosError
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.run import run_node
from groot_ros.sampling.stream_monitor import Health

_LATE_MS = 1.0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='sim_cell',
        description='A UR5e with a two-finger gripper and two cameras, simulated with MuJoCo. '
        'It serves RTDE (30004), dashboard (29999), scripts (30001-30003), the Robotiq URCap socket (63352), '
        'frames of two cameras (40001, 40002) and a test interface (40000).',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='loopback address to serve on; with 127.0.0.2 a second cell runs next to the first',
    )
    parser.add_argument(
        '--fps', type=float, default=20.0, help='frames per second of the cameras (default 20)'
    )
    parser.add_argument('--no-camera', action='store_true', help='serve no camera, for machines without EGL')
    parser.add_argument(
        '--no-diagnostics',
        action='store_true',
        help='do not report the lateness of the ticks on /diagnostics',
    )
    parser.add_argument(
        '--robot-model',
        default='UR5',
        help='model that the dashboard reports, such as UR10 (default UR5, which a UR5e reports too)',
    )
    parser.add_argument(
        '--polyscope',
        default='5.13.1',
        metavar='VERSION',
        help='software version of the controller; 3.x is a CB3 (default 5.13.1)',
    )
    parser.add_argument(
        '--truth', type=Path, help='file for the true state at every tick (sim/ground_truth.py reads it)'
    )
    return parser


class SimCellNode(GrootNode):
    """Reports on /diagnostics how late the ticks are. It ends when the cell closes the connection."""

    def __init__(self, statistics: Connection) -> None:
        super().__init__('sim_cell', {})
        self._statistics = statistics
        self._newest: list[float] = []

    def diagnose(self) -> list[Health]:
        """The lateness since the start, with a warning when 1 of 100 ticks is later than half a period."""
        try:
            while self._statistics.poll():
                self._newest = self._statistics.recv()
        except (EOFError, OSError):
            self.finished = True
        if not self._newest:
            return []
        names = (
            'lateness p50 (ms)',
            'lateness p90 (ms)',
            'lateness p99 (ms)',
            'max lateness (ms)',
            'resynchronisations',
        )
        late = self._newest[2] > _LATE_MS or self._newest[4] > 0
        values = {name: f'{value:g}' for name, value in zip(names, self._newest, strict=True)}
        text = 'late: this machine is too busy, or real-time priority is missing' if late else 'on time'
        return [Health('ticks', int(late), text, values)]


def report(statistics: Connection) -> None:
    """Runs the node, in a process of its own."""
    run_node(lambda: SimCellNode(statistics))


def main() -> int:
    """Entry point of `ros2 run groot_ros sim_cell`. Arguments after --ros-args are those of the node."""
    arguments = sys.argv[1:]
    if '--ros-args' in arguments:
        arguments = arguments[: arguments.index('--ros-args')]
    options = parser().parse_args(arguments)
    # MuJoCo is slow to import: --help does not wait for it.
    from groot_ros.sim.cell import SimCell
    from groot_ros.sim.controller import ControllerModel

    try:
        model = ControllerModel(options.robot_model, _version(options.polyscope))
        reporter = None if options.no_diagnostics else _start_node()
        SimCell(
            options.host,
            options.fps,
            options.truth,
            camera=not options.no_camera,
            model=model,
            report=reporter,
        ).run()
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        return 1
    return 0


def _start_node() -> Callable[[list[float]], None]:
    # A process of its own, because the threads of rclpy would delay the ticks.
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=report, args=(receiver,), daemon=True, name='sim_cell node').start()
    receiver.close()

    def send(statistics: list[float]) -> None:
        with contextlib.suppress(OSError):  # the cell goes on without its node
            sender.send(statistics)

    return send


def _version(text: str) -> tuple[int, int, int]:
    words = text.split('.')
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise GrootRosError(f'--polyscope {text} is not a version: give three numbers, such as 5.13.1.')
    return int(words[0]), int(words[1]), int(words[2])


if __name__ == '__main__':
    raise SystemExit(main())
