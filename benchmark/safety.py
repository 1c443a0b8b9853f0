# SPDX-License-Identifier: Apache-2.0
"""What the arm does after each fault: time to standstill and distance, in made-up time, at 0.25 m/s.

The real session, command gate, servo loop, teleop map and policy runner drive the robot of made_up_robot.py.
It needs no ROS and no real time, so the figures are the same on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.common import options, report
from benchmark.made_up_cell import TICK_S, MadeUpCell, Source, enabled, made_up_cell
from groot_ros.control.command_gate import POLICY, TELEOP, DeltaCommand, GateState
from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import Array, pose_to_eef_9d
from groot_ros.hardware.ur5e.modes import EMERGENCY_STOP, PROTECTIVE_STOP
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.policies.chunk_scheduler import ScheduleSettings
from groot_ros.policies.inference_worker import InferenceResult
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.policy import Observation
from groot_ros.policies.policy_runner import PolicyRunner
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.teleop.device import DeviceState
from groot_ros.teleop.mapping import TeleopMapper, load_map

SPEED_M_S = 0.25
RUN_UP_S = 0.6
WATCHED_S = 4.0
STILL_M_S = 1e-3
STEP_M = 1e-9
SEEN_S = 0.1
SILENCE_S = 0.3
SILENCE_M = 0.03
TELEOP_HZ = 40.0
POLICY_HZ = 20.0
LATENCY_S = 0.06
ROBOT_LATENCY_S = 0.13
FORWARD = np.array([SPEED_M_S, 0, 0, 0, 0, 0])


@dataclass
class Stop:
    """How the arm came to rest, from the instant of a fault. A time is NaN if that did not happen."""

    noticed_s: float
    set_points_rest_s: float
    still_s: float
    distance_m: float
    reason: str


class Trace:
    """Notes the motion of the arm from an instant on."""

    def __init__(self, cell: MadeUpCell) -> None:
        self._cell = cell
        self._from_s = cell.now_s
        self._times_s: list[float] = []
        self._positions_m = [cell.robot.pose[:3]]
        self._goals_m = [self._goal_m()]
        self._noticed_s = float('nan')
        cell.after_tick = self._note

    def _goal_m(self) -> Array:
        heard = self._cell.robot.heard
        return heard[-1][-1][:3] if heard else self._cell.robot.pose[:3]

    def _note(self) -> None:
        elapsed_s = self._cell.now_s - self._from_s
        self._times_s.append(elapsed_s)
        self._positions_m.append(self._cell.robot.pose[:3])
        self._goals_m.append(self._goal_m())
        if self._cell.gate.state is not GateState.ENABLED and np.isnan(self._noticed_s):
            self._noticed_s = elapsed_s

    def stop(self) -> Stop:
        """The stop that was noted."""
        steps_m = np.linalg.norm(np.diff(self._positions_m, axis=0), axis=1)
        goal_steps_m = np.linalg.norm(np.diff(self._goals_m, axis=0), axis=1)
        still_s = self._last_s(steps_m > STILL_M_S * TICK_S)
        rest_s = self._last_s(goal_steps_m > STEP_M)
        return Stop(self._noticed_s, rest_s, still_s, float(steps_m.sum()), self._cell.gate.reason)

    def _last_s(self, moving: Array) -> float:
        indices = np.flatnonzero(moving)
        return self._times_s[indices[-1]] if indices.size else 0.0


def operator_stop(happens: Callable[[MadeUpCell, Source], Any], goes_on: bool = True) -> Stop:
    """A fault while an operator commands; without `goes_on` nothing is commanded after it."""
    with made_up_cell() as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(FORWARD, RUN_UP_S)
        trace = Trace(cell)
        happens(cell, source)
        if goes_on:
            source.move(FORWARD, WATCHED_S, until=lambda: cell.gate.state is not GateState.ENABLED)
        cell.go_on(WATCHED_S)
        return trace.stop()


def silence_of(name: str, rate_hz: float) -> Stop:
    """A source that dies without a word."""
    with made_up_cell() as cell:
        Source(enabled(cell), name, rate_hz).move(FORWARD, RUN_UP_S)
        trace = Trace(cell)
        cell.go_on(WATCHED_S)
        return trace.stop()


def operator_dies_over_a_policy() -> Stop:
    """The operator overrides a policy that goes on to command, and his node dies."""
    with made_up_cell() as cell:
        operator = Source(enabled(cell), TELEOP, TELEOP_HZ)
        policy = Source(cell, POLICY, POLICY_HZ)
        policy.move(-FORWARD, 0.2)
        operator.move(FORWARD, RUN_UP_S)
        trace = Trace(cell)
        policy.move(-FORWARD, 1.0)
        cell.go_on(WATCHED_S)
        return trace.stop()


def device_lost(map_name: str) -> Stop:
    """The device of the operator is unplugged: its last state becomes stale, and teleop releases."""
    mapper = TeleopMapper(load_map(map_name))
    with made_up_cell() as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(FORWARD, RUN_UP_S)
        buttons = frozenset({mapper.map.enable_button})
        state = DeviceState(cell.now_s, {'1': 1.0}, buttons)
        trace = Trace(cell)
        while mapper.update(state, cell.now_s).held:
            source.move(FORWARD, source.period_s)
        source.release()
        cell.go_on(WATCHED_S)
        return trace.stop()


class ForwardPolicy(HoldPolicy):
    """Answers absolute poses along x at 0.25 m/s."""

    def __init__(self, start: Array, horizon: int) -> None:
        super().__init__(EMBODIMENT, horizon)
        self._start = start
        self._began_ns: int | None = None

    def infer(self, observation: Observation) -> dict[str, Array]:
        self._began_ns = self._began_ns or observation.tick_ns
        passed_s = (observation.tick_ns - self._began_ns) / 1e9
        poses = np.tile(self._start, (self.spec.horizon, 1))
        poses[:, 0] += SPEED_M_S * (passed_s + np.arange(1, self.spec.horizon + 1) / EMBODIMENT.fps)
        return {'eef_9d': pose_to_eef_9d(poses)}


class MadeUpWorker:
    """An InferenceWorker in made-up time; a `dead` one gives no answer."""

    def __init__(self, policy: ForwardPolicy, cell: MadeUpCell) -> None:
        self.policy = policy
        self.dead = False
        self._cell = cell
        self._asked: Observation | None = None
        self._asked_s = 0.0

    @property
    def busy(self) -> bool:
        return self._asked is not None

    def submit(self, observation: Observation, reset: bool = False) -> None:
        self._asked = observation
        self._asked_s = self._cell.now_s

    def poll(self) -> InferenceResult | None:
        if self._asked is None or self.dead or self._cell.now_s - self._asked_s < LATENCY_S:
            return None
        asked = self._asked
        self._asked = None
        return InferenceResult(asked, self._asked_s, self._cell.now_s, self.policy.infer(asked))

    def discard(self) -> None:
        self._asked = None


def model_dies(horizon: int) -> Stop:
    """The model of a policy gives no answer any more, while chunks of this many steps are executed."""
    with made_up_cell() as cell:
        enabled(cell)
        start = cell.robot.pose + np.array([-0.15, 0, 0, 0, 0, 0, 0])
        start[0] += 0.15
        worker = MadeUpWorker(ForwardPolicy(start, horizon), cell)
        period_s = 1.0 / EMBODIMENT.fps
        schedule = ScheduleSettings(period_s, robot_action_latency_s=ROBOT_LATENCY_S)
        settings = RunnerSettings(round(period_s * 1e9))
        builder = ObservationBuilder(EMBODIMENT)
        runner = PolicyRunner(worker, builder, schedule, settings, lambda chunk: None)  # type: ignore[arg-type]
        runner.begin(cell.gate.target, round(cell.now_s * 1e9))
        _run(cell, runner, RUN_UP_S)
        worker.dead = True
        trace = Trace(cell)
        _run(cell, runner, WATCHED_S)
        cell.session.release(POLICY)
        stop = trace.stop()
        stop.reason = runner.end_reason or ''
        return stop


def _run(cell: MadeUpCell, runner: PolicyRunner, seconds: float) -> None:
    """What policy_server does in its timer."""
    for _ in range(round(seconds / TICK_S)):
        now_ns = round(cell.now_s * 1e9)
        for command in runner.tick(now_ns, None):
            delta_command = DeltaCommand(
                POLICY,
                command.sequence,
                command.tick_ns / 1e9,
                runner.period_s,
                command.delta,
                command.opening,
            )
            if (waypoint := cell.send(delta_command)) is not None:
                runner.apply_echo(command.sequence, waypoint.pose)
        if runner.end_reason is None:
            runner.poll(now_ns, '')
        cell.tick()


def dead_then_hears(cell: MadeUpCell, source: Source) -> None:
    """The robot stands still for 0.3 s although it takes set-points, and then follows again."""
    cell.robot.deaf = True
    source.move(FORWARD, 0.3)
    cell.robot.deaf = False


def late_burst(late_s: float) -> float:
    """The largest speed of the set-points over the commanded one, after a hold-up of the source."""
    with made_up_cell() as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        slow = FORWARD * 0.1
        source.move(slow, 0.3)
        cell.go_on(late_s)
        for number in range(round(late_s / source.period_s)):
            cell.send(source.command(slow * source.period_s, late_s - number * source.period_s))
        source.move(slow, 0.4)
        path = np.array(cell.robot.heard[-1])[:, :3]
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).max() / TICK_S / slow[0])


EMBODIMENT = load_embodiment('ur5e_robotiq_zed_9d')
# What the controller or the gate can see, and what it has to conclude from silence.
SEEN: dict[str, Callable[[], Stop]] = {
    'deadman opens': lambda: operator_stop(lambda cell, source: source.release(), goes_on=False),
    '~/enable false': lambda: operator_stop(lambda cell, source: cell.session.disable()),
    'protective stop': lambda: operator_stop(lambda cell, source: cell.robot.stop(PROTECTIVE_STOP)),
    'emergency stop': lambda: operator_stop(lambda cell, source: cell.robot.stop(EMERGENCY_STOP)),
    'program paused on the pendant': lambda: operator_stop(lambda cell, source: cell.robot.pause()),
    'program stopped on the pendant': lambda: operator_stop(lambda cell, source: cell.robot.stop_program()),
    'speed slider at 50 %': lambda: operator_stop(
        lambda cell, source: setattr(cell.robot, 'speed_scaling', 0.5)
    ),
    'NaN in the state': lambda: operator_stop(
        lambda cell, source: cell.spoil_state.update(joint_positions=np.nan)
    ),
    'connection dropped': lambda: operator_stop(lambda cell, source: setattr(cell.robot, 'dropped', True)),
    'driver killed': lambda: operator_stop(lambda cell, source: cell.end_driver(), goes_on=False),
}
SILENCE: dict[str, Callable[[], Stop]] = {
    'teleop silent, 40 Hz': lambda: silence_of(TELEOP, TELEOP_HZ),
    'policy silent, 20 Hz': lambda: silence_of(POLICY, POLICY_HZ),
    'policy silent, 10 Hz': lambda: silence_of(POLICY, 10.0),
    'operator dies while he overrides a policy': operator_dies_over_a_policy,
    'gamepad unplugged': lambda: device_lost('game_controller'),
    'state silent': lambda: operator_stop(lambda cell, source: cell.silence_state(0.5)),
    'servo process killed': lambda: operator_stop(lambda cell, source: cell.kill_servo()),
    'servo process stalls for 1 s': lambda: operator_stop(lambda cell, source: cell.stall_servo(1.0)),
    'robot deaf for 0.3 s': lambda: operator_stop(dead_then_hears),
}
MODEL: dict[str, Callable[[], Stop]] = {
    f'model dies, chunks of {horizon} steps': lambda horizon=horizon: model_dies(horizon)
    for horizon in (16, 50, 100)
}


def figures_of(name: str, stop: Stop) -> list[tuple[str, float, str]]:
    return [
        (f'{name}: noticed after', stop.noticed_s * 1e3, 'ms'),
        (f'{name}: set-points at rest after', stop.set_points_rest_s * 1e3, 'ms'),
        (f'{name}: standstill after', stop.still_s * 1e3, 'ms'),
        (f'{name}: distance', stop.distance_m * 1e3, 'mm'),
    ]


def row(name: str, stop: Stop, aim: str) -> str:
    noticed = '' if np.isnan(stop.noticed_s) else f'{1e3 * stop.noticed_s:.0f}'
    return (
        f'| {name} | {noticed} | {1e3 * stop.set_points_rest_s:.0f} | {1e3 * stop.still_s:.0f} ms '
        f'| {1e3 * stop.distance_m:.0f} mm | {aim} |'
    )


def aim_of(name: str, stop: Stop) -> str:
    if name in MODEL:
        return ''
    if name in SEEN:
        return 'met' if stop.still_s <= SEEN_S else 'missed'
    return 'met' if stop.still_s <= SILENCE_S and stop.distance_m <= SILENCE_M else 'missed'


def main() -> None:
    chosen = options(__doc__)
    figures = []
    print('| fault | noticed, ms | set-points at rest, ms | standstill | distance | aim |')
    for name, happens in {**SEEN, **SILENCE, **MODEL}.items():
        stop = happens()
        print(row(name, stop, aim_of(name, stop)), '   ', stop.reason)
        figures += figures_of(name, stop)
    for late_s in (0.06, 0.15, 0.19):
        share = late_burst(late_s)
        figures.append((f'commands {1e3 * late_s:.0f} ms late and together: speed over commanded', share, ''))
    report('Stops in made-up time', figures, chosen.json)


if __name__ == '__main__':
    main()
