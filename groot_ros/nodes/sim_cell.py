# SPDX-License-Identifier: Apache-2.0
"""sim_cell: the simulated robot, gripper and camera behind their real protocols; its node, which only reports, is a process beside."""

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
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='sim_cell',
        description='A MuJoCo UR5e with a two-finger gripper and a camera behind RTDE (30004), dashboard (29999), scripts (30001-30003), '
        'the Robotiq URCap socket (63352), frames (40001) and test hooks (40000).',
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='loopback address to serve on; 127.0.0.2 runs a second cell beside the first',
    )
    parser.add_argument(
        '--fps', type=float, default=20.0, help='frames per second of the camera (default 20)'
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
        help='what the dashboard says, such as UR10 (default UR5, which a UR5e says too)',
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
    """Says on /diagnostics how late the ticks are. It ends with the cell, which hangs up."""

    def __init__(self, figures: Connection) -> None:
        super().__init__('sim_cell', {})
        self._figures = figures
        self._newest: list[float] = []

    def diagnose(self) -> list[Health]:
        """The lateness since the start; a warning once 1 of 100 ticks is later than half a period."""
        try:
            while self._figures.poll():
                self._newest = self._figures.recv()
        except (EOFError, OSError):
            self.finished = True
        if not self._newest:
            return []
        names = (
            'lateness p50 (ms)',
            'lateness p90 (ms)',
            'lateness p99 (ms)',
            'largest lateness (ms)',
            'times it gave up catching up',
        )
        late = self._newest[2] > _LATE_MS or self._newest[4] > 0
        values = {name: f'{value:g}' for name, value in zip(names, self._newest, strict=True)}
        return [
            Health(
                'ticks',
                int(late),
                'late: this machine is too busy, or real-time priority is missing' if late else 'on time',
                values,
            )
        ]


def report(figures: Connection) -> None:
    """The process of the node."""
    run_node(lambda: SimCellNode(figures))


def main() -> int:
    """Entry of `ros2 run groot_ros sim_cell`; arguments behind --ros-args are the node's."""
    arguments = sys.argv[1:]
    if '--ros-args' in arguments:
        arguments = arguments[: arguments.index('--ros-args')]
    options = parser().parse_args(arguments)
    from groot_ros.sim.cell import SimCell  # MuJoCo is slow to import: --help does not wait for it
    from groot_ros.sim.controller import Model

    try:
        model = Model(options.robot_model, _version(options.polyscope))
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
    # A process of its own: rclpy's threads would take the interpreter from the ticks.
    context = multiprocessing.get_context('spawn')
    theirs, ours = context.Pipe(duplex=False)
    context.Process(target=report, args=(theirs,), daemon=True, name='sim_cell node').start()
    theirs.close()

    def say(figures: list[float]) -> None:
        with contextlib.suppress(OSError):  # the cell works on without its node
            ours.send(figures)

    return say


def _version(text: str) -> tuple[int, int, int]:
    words = text.split('.')
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise GrootRosError(f'The version {text!r} is not like 5.13.1.')
    return int(words[0]), int(words[1]), int(words[2])


if __name__ == '__main__':
    raise SystemExit(main())
