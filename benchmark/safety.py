# SPDX-License-Identifier: Apache-2.0
"""What the arm does after each fault: time to standstill and distance, in made-up time.

The real session, command gate, servo loop, teleop map and policy runner drive the robot of made_up_robot.py.
It needs no ROS and no real time, so the figures are the same on every machine. Of each fault the worst of
some phases of the loops counts. docs/explanation/safety.md has the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.common import options, report
from benchmark.made_up_cell import TICK_S, MadeUpCell, Source, enabled, made_up_cell
from groot_ros.control.command_gate import POLICY, TELEOP, DeltaCommand, GateState
from groot_ros.control.limits import Limits
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

EMBODIMENT = load_embodiment('ur5e_robotiq_zed_9d')
SPEED_M_S = 0.25
FAST_M_S = 0.5
PHASES_S = (0.0, 0.012, 0.024, 0.036)
RUN_UP_S = 0.5
WATCHED_S = 1.2
STILL_M_S = 1e-3
# The aims of a stop at 0.25 m/s: after what the gate or the controller sees, and after silence.
SEEN_S = 0.1
SILENCE_S = 0.3
SILENCE_M = 0.03
TELEOP_HZ = 40.0
POLICY_HZ = 20.0
ANSWER_S = 0.06
ROBOT_LATENCY_S = 0.13
FORWARD = np.array([1.0, 0, 0, 0, 0, 0])


@dataclass
class Case:
    """How fast the arm moves when a fault happens, and where the loops then are."""

    speed_m_s: float = SPEED_M_S
    phase_s: float = 0.0

    @property
    def velocity(self) -> Array:
        """TCP velocity (6,)."""
        return self.speed_m_s * FORWARD

    @property
    def limits(self) -> Limits:
        """The defaults, except where the speed is above theirs."""
        return Limits(max_linear_speed_m_s=max(self.speed_m_s, Limits.max_linear_speed_m_s))


@dataclass
class Stop:
    """How the arm came to rest, from the instant of a fault.

    `noticed_s` is when commands no longer passed, NaN if they still did. `peak_m_s` is the largest TCP speed.
    """

    noticed_s: float
    still_s: float
    distance_m: float
    peak_m_s: float
    reason: str


class Trace:
    """Notes the motion of the arm from an instant on."""

    def __init__(self, cell: MadeUpCell) -> None:
        self._cell = cell
        self._from_s = cell.now_s
        self._times_s: list[float] = []
        self._positions_m = [cell.robot.pose[:3]]
        self._noticed_s = float('nan')
        cell.after_tick = self._note

    def _note(self) -> None:
        elapsed_s = self._cell.now_s - self._from_s
        self._times_s.append(elapsed_s)
        self._positions_m.append(self._cell.robot.pose[:3])
        if self._cell.gate.state is not GateState.ENABLED and np.isnan(self._noticed_s):
            self._noticed_s = elapsed_s

    def stop(self) -> Stop:
        """The stop that was noted. Raises RuntimeError if the arm still moves."""
        steps_m = np.linalg.norm(np.diff(self._positions_m, axis=0), axis=1)
        moving = np.flatnonzero(steps_m > STILL_M_S * TICK_S)
        if moving.size and moving[-1] == len(steps_m) - 1:
            raise RuntimeError(f'the arm still moves {self._times_s[-1]:.1f} s after the fault')
        still_s = self._times_s[moving[-1]] if moving.size else 0.0
        peak_m_s = float(steps_m.max()) / TICK_S
        return Stop(self._noticed_s, still_s, float(steps_m.sum()), peak_m_s, self._cell.gate.reason)


def operator_stop(case: Case, happens: Callable[[MadeUpCell, Source], Any], **cell_options: Any) -> Stop:
    """A fault while an operator commands, who goes on to do so."""
    with made_up_cell(limits=case.limits, **cell_options) as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(case.velocity, RUN_UP_S + case.phase_s)
        trace = Trace(cell)
        happens(cell, source)
        source.move(case.velocity, WATCHED_S, until=lambda: cell.gate.state is not GateState.ENABLED)
        cell.go_on(WATCHED_S)
        return trace.stop()


def deadman_opens(case: Case, **cell_options: Any) -> Stop:
    with made_up_cell(limits=case.limits, **cell_options) as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(case.velocity, RUN_UP_S + case.phase_s)
        trace = Trace(cell)
        source.release()
        cell.go_on(WATCHED_S)
        return trace.stop()


def silence_of(case: Case, name: str, rate_hz: float) -> Stop:
    """A source that dies without a word, from the instant at which its next command is due."""
    with made_up_cell(limits=case.limits) as cell:
        source = Source(enabled(cell), name, rate_hz)
        cell.go_on(case.phase_s)
        source.move(case.velocity, RUN_UP_S)
        trace = Trace(cell)
        cell.go_on(WATCHED_S)
        return trace.stop()


def driver_killed(case: Case) -> Stop:
    with made_up_cell(limits=case.limits) as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(case.velocity, RUN_UP_S + case.phase_s)
        trace = Trace(cell)
        cell.end_driver()
        cell.go_on(WATCHED_S)
        stop = trace.stop()
        stop.noticed_s = float('nan')
        return stop


def operator_dies_over_a_policy(case: Case) -> Stop:
    """The operator overrides a policy that goes on to command, and his node dies."""
    with made_up_cell(limits=case.limits) as cell:
        operator = Source(enabled(cell), TELEOP, TELEOP_HZ)
        policy = Source(cell, POLICY, POLICY_HZ)
        policy.move(-case.velocity, 0.2 + case.phase_s)
        operator.move(case.velocity, RUN_UP_S)
        trace = Trace(cell)
        policy.move(-case.velocity, WATCHED_S)
        cell.go_on(WATCHED_S)
        return trace.stop()


def device_lost(case: Case, map_name: str) -> Stop:
    """The device of the operator is unplugged: its last state becomes stale, and teleop releases."""
    mapper = TeleopMapper(load_map(map_name))
    with made_up_cell(limits=case.limits) as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        cell.go_on(case.phase_s)
        source.move(case.velocity, RUN_UP_S)
        state = DeviceState(cell.now_s, {}, frozenset({mapper.map.enable_button}))
        trace = Trace(cell)
        while mapper.update(state, cell.now_s).held:
            source.move(case.velocity, source.period_s)
        source.release()
        cell.go_on(WATCHED_S)
        return trace.stop()


def deaf(case: Case, seconds: float) -> Stop:
    """The robot stands still although it takes set-points, and then follows again."""
    with made_up_cell(limits=case.limits) as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        source.move(case.velocity, RUN_UP_S + case.phase_s)
        cell.robot.deaf = True
        source.move(case.velocity, seconds)
        cell.robot.deaf = False
        trace = Trace(cell)
        source.move(case.velocity, 0.3, until=lambda: cell.gate.state is not GateState.ENABLED)
        cell.go_on(WATCHED_S)
        return trace.stop()


class ForwardPolicy(HoldPolicy):
    """Answers absolute poses along x."""

    def __init__(self, start: Array, horizon: int, speed_m_s: float) -> None:
        super().__init__(EMBODIMENT, horizon)
        self._start = start
        self._speed_m_s = speed_m_s
        self._began_ns: int | None = None

    def infer(self, observation: Observation) -> dict[str, Array]:
        """Where the arm should be after this observation."""
        self._began_ns = self._began_ns or observation.tick_ns
        passed_s = (observation.tick_ns - self._began_ns) / 1e9
        poses = np.tile(self._start, (self.spec.horizon, 1))
        poses[:, 0] += self._speed_m_s * (passed_s + np.arange(1, self.spec.horizon + 1) / EMBODIMENT.fps)
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
        if self._asked is None or self.dead or self._cell.now_s - self._asked_s < ANSWER_S:
            return None
        asked = self._asked
        self._asked = None
        return InferenceResult(asked, self._asked_s, self._cell.now_s, self.policy.infer(asked))

    def discard(self) -> None:
        self._asked = None


def model_dies(case: Case, horizon: int) -> Stop:
    """The model of a policy gives no answer any more, while chunks of this many steps are executed."""
    with made_up_cell(limits=case.limits) as cell:
        enabled(cell)
        worker = MadeUpWorker(ForwardPolicy(cell.robot.pose, horizon, case.speed_m_s), cell)
        period_s = 1.0 / EMBODIMENT.fps
        schedule = ScheduleSettings(period_s, robot_action_latency_s=ROBOT_LATENCY_S)
        settings = RunnerSettings(round(period_s * 1e9))
        builder = ObservationBuilder(EMBODIMENT)
        runner = PolicyRunner(worker, builder, schedule, settings, lambda chunk: None)  # type: ignore[arg-type]
        runner.begin(cell.gate.target, round(cell.now_s * 1e9))
        _run(cell, runner, RUN_UP_S + 10 * case.phase_s)
        worker.dead = True
        trace = Trace(cell)
        _run(cell, runner, 2 * WATCHED_S)
        stop = trace.stop()
        stop.reason = runner.end_reason or ''
        return stop


def _run(cell: MadeUpCell, runner: PolicyRunner, seconds: float) -> None:
    """What policy_server does in its timer."""
    for _ in range(round(seconds / TICK_S)):
        now_ns = round(cell.now_s * 1e9)
        running = runner.end_reason is None
        for command in runner.tick(now_ns, None):
            numbers = (command.delta, command.opening)
            start_s = command.tick_ns / 1e9
            sent = DeltaCommand(POLICY, command.sequence, start_s, runner.period_s, *numbers)
            if (waypoint := cell.send(sent)) is not None:
                runner.apply_echo(command.sequence, waypoint.pose)
        if runner.end_reason is None:
            runner.poll(now_ns, '')
        elif running:
            cell.session.release(POLICY, runner.halt())
        cell.tick()


def late_burst(late_s: float) -> float:
    """The largest speed of the set-points over the commanded one, after a hold-up of the source."""
    with made_up_cell() as cell:
        source = Source(enabled(cell), TELEOP, TELEOP_HZ)
        slow = 0.02 * FORWARD
        source.move(slow, 0.3)
        cell.go_on(late_s)
        for number in range(round(late_s / source.period_s)):
            cell.send(source.command(slow * source.period_s, late_s - number * source.period_s))
        source.move(slow, 0.4)
        path = np.array(cell.robot.heard[-1])[:, :3]
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).max() / TICK_S / slow[0])


def _set_slider(cell: MadeUpCell, source: Source) -> None:
    cell.robot.speed_scaling = 0.5


def _drop(cell: MadeUpCell, source: Source) -> None:
    cell.robot.dropped = True


Fault = Callable[[Case], Stop]
SEEN: dict[str, Fault] = {
    'deadman opens': deadman_opens,
    '`~/enable` false': lambda case: operator_stop(case, lambda cell, source: cell.session.disable()),
    'protective stop': lambda case: operator_stop(
        case, lambda cell, source: cell.robot.stop(PROTECTIVE_STOP)
    ),
    'emergency stop': lambda case: operator_stop(case, lambda cell, source: cell.robot.stop(EMERGENCY_STOP)),
    'program paused on the pendant': lambda case: operator_stop(
        case, lambda cell, source: cell.robot.pause()
    ),
    'program stopped on the pendant': lambda case: operator_stop(
        case, lambda cell, source: cell.robot.stop_program()
    ),
    'speed slider at 50 %': lambda case: operator_stop(case, _set_slider),
    'NaN in the state': lambda case: operator_stop(
        case, lambda cell, source: cell.spoil_state.update(joint_positions=np.nan)
    ),
    'driver killed': driver_killed,
}
"""What the controller or the gate can see."""

SILENCE: dict[str, Fault] = {
    'teleop silent, 40 Hz': lambda case: silence_of(case, TELEOP, TELEOP_HZ),
    'policy silent, 20 Hz': lambda case: silence_of(case, POLICY, POLICY_HZ),
    "operator's node dies while it overrides a policy": operator_dies_over_a_policy,
    'gamepad unplugged': lambda case: device_lost(case, 'game_controller'),
    'state silent': lambda case: operator_stop(case, lambda cell, source: cell.silence_state(0.5)),
    'connection to the robot dropped': lambda case: operator_stop(case, _drop),
    'servo process killed': lambda case: operator_stop(case, lambda cell, source: cell.kill_servo()),
    'servo process stalls': lambda case: operator_stop(case, lambda cell, source: cell.stall_servo(1.0)),
}
"""What somebody has to conclude from silence."""

MODEL: dict[str, Fault] = {
    'model dies, chunks of 16 steps': lambda case: model_dies(case, 16),
    'model dies, chunks of 100 steps': lambda case: model_dies(case, 100),
}
FAULTS = {**SEEN, **SILENCE, **MODEL}


def worst(fault: Fault, speed_m_s: float, phases_s: tuple[float, ...] = PHASES_S) -> Stop:
    """The worst of each number over the phases; the reason is that of the first."""
    stops = [fault(Case(speed_m_s, phase_s)) for phase_s in phases_s]
    numbers = np.array([(s.noticed_s, s.still_s, s.distance_m, s.peak_m_s) for s in stops])
    return Stop(*numbers.max(axis=0).tolist(), stops[0].reason)


def meets_aim(name: str, stop: Stop) -> bool:
    """Whether a stop at 0.25 m/s is as quick and short as it should be."""
    if name in SEEN:
        return stop.still_s <= SEEN_S
    return stop.still_s <= SILENCE_S and stop.distance_m <= SILENCE_M


def _row(name: str, stop: Stop, fast_m: float) -> str:
    noticed = '' if np.isnan(stop.noticed_s) else f'{1e3 * stop.noticed_s:.0f} ms'
    far = '' if np.isnan(fast_m) else f'{1e3 * fast_m:.0f} mm'
    aim = '' if name in MODEL else 'met' if meets_aim(name, stop) else '**missed**'
    distance = f'{1e3 * stop.distance_m:.0f} mm'
    return f'| {name} | {noticed} | {1e3 * stop.still_s:.0f} ms | {distance} | {far} | {aim} |'


def main() -> None:
    chosen = options(__doc__)
    figures = []
    print('| fault | commands refused after | standstill after | distance | at 0.5 m/s | aim |')
    for name, fault in FAULTS.items():
        stop = worst(fault, SPEED_M_S)
        # At 0.5 m/s a policy comes to the wall of the workspace.
        fast_m = float('nan') if name in MODEL else worst(fault, FAST_M_S).distance_m
        print(_row(name, stop, fast_m), stop.reason, flush=True)
        figures += [
            (f'{name}: standstill after', stop.still_s * 1e3, 'ms'),
            (f'{name}: distance', stop.distance_m * 1e3, 'mm'),
        ]
    short = deadman_opens(Case(), lookahead_s=0.05)
    figures.append(('deadman opens, lookahead_s 0.05: standstill after', short.still_s * 1e3, 'ms'))
    figures.append(('deadman opens, lookahead_s 0.05: distance', short.distance_m * 1e3, 'mm'))
    for seconds in (0.05, 0.1, 0.15, 0.2, 0.3, 1.0):
        for speed_m_s in (SPEED_M_S, FAST_M_S):
            stop = deaf(Case(speed_m_s), seconds)
            name = f'robot deaf for {seconds:g} s at {speed_m_s:g} m/s: largest speed afterwards'
            figures.append((name, stop.peak_m_s, 'm/s'))
    for late_s in (0.06, 0.15, 0.19):
        name = f'commands {1e3 * late_s:.0f} ms late and together: speed over commanded'
        figures.append((name, late_burst(late_s), ''))
    report('Stops in made-up time, at 0.25 m/s', figures, chosen.json)


if __name__ == '__main__':
    main()
