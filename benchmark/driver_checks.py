# SPDX-License-Identifier: Apache-2.0
"""Processor time of what ur5e_driver does with each record and command, without ROS and without a robot.

States come 125 times a second and beats 25 times. On two cores that the cameras and the recorder share, time
that is spent here is missing there.
"""

import time
from collections.abc import Callable

import numpy as np

from benchmark.common import options, report
from benchmark.made_up_cell import Source, enabled, made_up_cell
from groot_ros.control.command_gate import TELEOP
from groot_ros.hardware.ur5e.record_check import read_beat, read_state

REPEATS = 400
COMMANDS = 200
ROUNDS = 5
VELOCITY = np.array([0.05, 0.02, 0.0, 0.0, 0.0, 0.1])


def best_us(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """The time of a call in us, in the best of some rounds: other programs only make a round longer."""
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        for _ in range(repeats):
            call()
        rounds.append((time.perf_counter() - began_s) / repeats)
    return 1e6 * min(rounds)


def main() -> None:
    """Entry."""
    chosen = options('Processor time of what the driver does with each record and command.')
    with made_up_cell() as cell:
        enabled(cell)
        source = Source(cell, TELEOP, 20.0)
        source.move(VELOCITY, 0.5)  # so that the path of the set-points is as long as in use
        state = cell.robot.state().tobytes()
        beat = cell.servo.beat(cell._cycles)
        figures = [
            ('the numbers of a state', best_us(lambda: read_state(state)), 'us'),
            ('a state of a moving arm', best_us(lambda: cell.session.take_state(read_state(state))), 'us'),
            ('a beat', best_us(lambda: cell.session.take_beat(read_beat(beat))), 'us'),
        ]

        def command() -> None:
            cell.now_s += source.period_s
            cell.session.take_state(read_state(state))
            direction = 1.0 if source.sequence // 2 % 2 else -1.0
            cell.session.submit(source.command(direction * VELOCITY * source.period_s))

        with_state = best_us(command, COMMANDS)
        figures.append(('a command', with_state - figures[1][1], 'us'))
    report('What the driver does with each record and command', figures, chosen.json)


if __name__ == '__main__':
    main()
