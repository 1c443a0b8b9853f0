"""sim_cell: the simulated robot, gripper and camera behind their real protocols, for `ros2 run` and `groot-ros up`."""

import argparse
import sys
from pathlib import Path

from groot_ros.errors import GrootRosError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='sim_cell',
        description='A MuJoCo UR5e with a two-finger gripper and a camera behind RTDE (30004), dashboard (29999), scripts (30001-30003), '
        'the Robotiq URCap socket (63352), frames (40001) and test hooks (40000).',
    )
    parser.add_argument('--host', default='127.0.0.1', help='loopback address to serve on; 127.0.0.2 runs a second cell beside the first')
    parser.add_argument('--fps', type=float, default=20.0, help='frames per second of the camera (default 20)')
    parser.add_argument('--no-camera', action='store_true', help='serve no camera, for machines without EGL')
    parser.add_argument('--robot-model', default='UR5', help='what the dashboard says, such as UR10 (default UR5, which a UR5e says too)')
    parser.add_argument('--polyscope', default='5.13.1', metavar='VERSION', help='software version of the controller; 3.x is a CB3 (default 5.13.1)')
    parser.add_argument('--truth', type=Path, help='file for the true state at every tick (sim/truth.py reads it)')
    return parser


def main() -> int:
    """Entry of `ros2 run groot_ros sim_cell`; arguments behind --ros-args are not for it."""
    arguments = sys.argv[1:]
    if '--ros-args' in arguments:
        arguments = arguments[: arguments.index('--ros-args')]
    options = parser().parse_args(arguments)
    from groot_ros.sim.cell import SimCell  # MuJoCo is slow to import: --help does not wait for it
    from groot_ros.sim.controller import Model

    try:
        model = Model(options.robot_model, _version(options.polyscope))
        SimCell(options.host, options.fps, options.truth, camera=not options.no_camera, model=model).run()
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr, flush=True)
        return 1
    return 0


def _version(text: str) -> tuple[int, int, int]:
    words = text.split('.')
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise GrootRosError(f'The version {text!r} is not like 5.13.1.')
    return int(words[0]), int(words[1]), int(words[2])


if __name__ == '__main__':
    raise SystemExit(main())
