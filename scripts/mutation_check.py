# SPDX-License-Identifier: Apache-2.0
"""Breaks one line of the arm's safety code at a time, and shows which tests notice it.

`make mutants` first runs the test of every order of events (test_arm_session_stateful.py), and where that
passes, the tests of single cases. A change that no test notices is printed as one, and the exit code is 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDERS = ('test/test_arm_session_stateful.py',)
CASES = (
    'test/test_command_gate.py',
    'test/test_motion.py',
    'test/test_setpoints.py',
    'test/test_arm_session.py',
    'test/test_servo_process.py',
    'test/test_arm_driver.py',
)
_COPIED = ('groot_ros', 'benchmark', 'test', 'config', 'launch', 'pyproject.toml')
_LONGEST_S = 300.0

_GATE = 'groot_ros/control/command_gate.py'
_LIMITS = 'groot_ros/control/limits.py'
_BINDING = 'groot_ros/control/publisher_binding.py'
_SETPOINTS = 'groot_ros/control/setpoints.py'
_SESSION = 'groot_ros/hardware/ur5e/session.py'
_SERVO = 'groot_ros/hardware/ur5e/servo_process.py'
_RECORDS = 'groot_ros/hardware/ur5e/record_check.py'


@dataclass(frozen=True)
class Mutant:
    """A text that is once in a file, and what replaces it."""

    what: str
    file: str
    text: str
    broken: str


MUTANTS = (
    Mutant(
        'commands pass though nothing is enabled',
        _GATE,
        'if self.state not in (GateState.ENABLED, GateState.FREEDRIVE):\n            raise',
        'if False:\n            raise',
    ),
    Mutant('commands pass while the arm brakes', _GATE, 'if self.braking:', 'if False:'),
    Mutant(
        'old commands pass',
        _GATE,
        'if not np.isfinite(age_s) or abs(age_s) > self.settings.max_command_age_s:',
        'if False:',
    ),
    Mutant(
        'the policy takes over from the operator',
        _GATE,
        'if command.source == POLICY and self.source == TELEOP:',
        'if False:',
    ),
    Mutant('silence does not stop', _GATE, 'if silent_s <= self.settings.command_timeout_s:', 'if True:'),
    Mutant('a release does not brake', _GATE, '        self.braking = True\n', ''),
    Mutant(
        'commands begin before the last one has ended',
        _GATE,
        'start_s = max(planned_s, self._end_s, now_s)',
        'start_s = max(planned_s, now_s)',
    ),
    Mutant(
        'a late command is compressed',
        _GATE,
        'return start_s, max(planned_s + command.duration_s, start_s + min_s)',
        'return start_s, max(planned_s + command.duration_s, start_s + 0.002)',
    ),
    Mutant(
        'the backlog of commands has no bound',
        _GATE,
        'if start_s - now_s > self.settings.max_command_age_s + self.settings.command_delay_s:',
        'if False:',
    ),
    Mutant(
        'changes of velocity have no bound',
        _GATE,
        'share = max_share(delta / duration_s, recent, self.limits)',
        'share = 1.0',
    ),
    Mutant(
        'velocities of catching up are forgotten',
        _GATE,
        'self._velocities_since(start_s - MAX_CATCH_UP * self.limits.smoothing_s)',
        'self._velocities_since(start_s)',
    ),
    Mutant(
        'the target stays after braking',
        _GATE,
        '        self.target = np.asarray(pose, float)\n',
        '',
    ),
    Mutant('enabling does not look at the workspace', _GATE, '        self._check_pose(target)\n', ''),
    Mutant(
        'enabling does not look at the joints',
        _GATE,
        '        self._check_joints(target, joints)\n',
        '',
    ),
    Mutant(
        'the speed of a command is not clipped',
        _LIMITS,
        'max_m = min(limits.max_step_m, limits.max_linear_speed_m_s * duration_s)',
        'max_m = limits.max_step_m',
    ),
    Mutant(
        'the rotation speed of a command is not clipped',
        _LIMITS,
        'max_rad = min(limits.max_step_rad, limits.max_angular_speed_rad_s * duration_s)',
        'max_rad = limits.max_step_rad',
    ),
    Mutant(
        'a clipped delta takes no longer',
        _LIMITS,
        'return max(linear_s, angular_s, _MIN_DURATION_S)',
        'return 0.0',
    ),
    Mutant(
        'the workspace does not hold',
        _LIMITS,
        'inside = np.clip(moved[:3], limits.workspace_min_m, limits.workspace_max_m)',
        'inside = moved[:3]',
    ),
    Mutant(
        'joint speeds have no bound',
        _LIMITS,
        'if not speeds.max() <= limits.max_joint_speed_rad_s:',
        'if False:',
    ),
    Mutant('links may touch', _LIMITS, '        check_clearance(joints, solution, limits)\n', ''),
    Mutant(
        'singularities pass',
        _LIMITS,
        'if manipulability < limits.min_manipulability and',
        'if False and',
    ),
    Mutant(
        'only the end of a line is checked',
        _LIMITS,
        'for index in range(1, count + 1):',
        'for index in (count,):',
    ),
    Mutant(
        'the smoothing forgets catching up',
        _LIMITS,
        'self._smoothing_s = MAX_CATCH_UP * max(',
        'self._smoothing_s = max(',
    ),
    Mutant(
        'a sequence number may come twice',
        _BINDING,
        'if 0 < ahead <= _MAX_GAP:',
        'if abs(ahead) <= _MAX_GAP:',
    ),
    Mutant(
        'a second publisher is obeyed',
        _BINDING,
        'if problem is not None and not (silent and not commands and (alone or self._loose)):',
        'if problem is not None and not isinstance(problem, RivalError):',
    ),
    Mutant(
        'set-points leap after a stall',
        _SETPOINTS,
        'gain_s = min(gain_s, self._max_gain_s())',
        'pass',
    ),
    Mutant(
        'catching up exceeds the speed limit',
        _SETPOINTS,
        'return self._period_s * min(MAX_CATCH_UP, max(1.0, 1.0 / max(share, 1e-9)))',
        'return self._period_s * MAX_CATCH_UP',
    ),
    Mutant(
        'braking keeps what is scheduled',
        _SETPOINTS,
        '        self._trajectory = PoseTrajectory(self._time_s, rest)\n',
        '',
    ),
    Mutant(
        'a late waypoint is not shifted',
        _SETPOINTS,
        'self._trajectory.append(start_s + late_s, end_s + late_s, pose)',
        'self._trajectory.append(start_s, max(end_s, earliest_s + 0.002), pose)',
    ),
    Mutant(
        'stops of the robot are not seen',
        _SESSION,
        'if fault := self._mode_fault() or self._speed_fault():',
        'if fault := self._speed_fault():',
    ),
    Mutant(
        'the speed slider is not seen',
        _SESSION,
        'if fault := self._mode_fault() or self._speed_fault():',
        'if fault := self._mode_fault():',
    ),
    Mutant(
        'a deaf robot is not seen',
        _SESSION,
        'elif self.gate.state is GateState.ENABLED and (fault := self._tracking_fault()):',
        'elif False:',
    ),
    Mutant(
        'an ended script is not seen',
        _SESSION,
        "if state is GateState.ENABLED and not beat['servoing']:",
        'if False:',
    ),
    Mutant(
        'what nobody wants goes on',
        _SESSION,
        'elif not self._switching.locked():\n                self._end_what_nobody_wants(beat)',
        'else:\n                pass',
    ),
    Mutant(
        'a silent state does not stop',
        _SESSION,
        'if self.gate.state in _IN_MOTION and self.state_age_s > self._settings.state_timeout_s:',
        'if False:',
    ),
    Mutant(
        'an idle arm stays enabled',
        _SESSION,
        'if self.gate.state is GateState.ENABLED and idle_s > self._settings.idle_timeout_s:',
        'if False:',
    ),
    Mutant(
        'a lost servo process does not stop the gate',
        _SESSION,
        "self._leave_motion(f'the servo loop was lost: {reason}')",
        'pass',
    ),
    Mutant(
        'disabling does not brake', _SESSION, '        self.arm.brake()\n        if free:', '        if free:'
    ),
    Mutant(
        'disabling does not end freedrive',
        _SESSION,
        'if free:\n            return self.arm.end_freedrive()\n        self.arm.request_end_of_freedrive()',
        'pass',
    ),
    Mutant(
        'disabling does not interrupt enabling',
        _SESSION,
        "            if problem := self._ready() or (_INTERRUPTED if self._interruptions != began else ''):",
        '            if problem := self._ready():',
    ),
    Mutant(
        'an arm away from its target may be enabled',
        _SESSION,
        'or self._ready() or self._at_rest():',
        'or self._ready():',
    ),
    Mutant(
        'an arm that moves may be enabled',
        _SESSION,
        "if not np.abs(self.state['joint_velocities']).max() <= STILL_RAD_S:",
        'if False:',
    ),
    Mutant(
        'the rest of an earlier release is taken',
        _SESSION,
        "if self.gate.braking and beat['holds'] == self._holds:",
        'if self.gate.braking:',
    ),
    Mutant(
        'a stop leaves the arm moving',
        _SESSION,
        '            self.gate.stop(reason)\n            self._stop_arm(reason, halt)',
        '            self.gate.stop(reason)',
    ),
    Mutant(
        'waypoints are taken while braking',
        _SERVO,
        'if self.servoing and self._setpoints is not None:\n            self._setpoints.append',
        'if self._setpoints is not None:\n            self._setpoints.append',
    ),
    Mutant(
        'braking is not obeyed',
        _SERVO,
        '            self._setpoints.brake()\n            self._braking = True\n',
        '            pass\n',
    ),
    Mutant(
        'a paused program is left to be played',
        _SERVO,
        '        if not obeyed:\n            self._end_program()',
        '        if not obeyed:\n            self._setpoints = None',
    ),
    Mutant(
        'taking control leaves freedrive on',
        _SERVO,
        '        self._stop_servo()\n        self._end_freedrive(order)\n        with',
        '        self._stop_servo()\n        with',
    ),
    Mutant(
        'servoing goes on over a lost connection',
        _SERVO,
        '        if self._watch.lost():\n',
        '        if False:\n',
    ),
    Mutant(
        'numbers that are not finite pass',
        _RECORDS,
        'if np.abs(values).max() <= _MAX_ABS',
        'if not np.abs(values).max() > _MAX_ABS',
    ),
    Mutant(
        'numbers that no robot has pass',
        _RECORDS,
        '_MAX_ABS.get(name, _MAX_FLOAT)',
        '_MAX_FLOAT',
    ),
)


def broken_text(mutant: Mutant, root: Path = ROOT) -> str:
    """The file of a mutant with its change. Raises ValueError if its text is not there exactly once."""
    text = (root / mutant.file).read_text()
    if text.count(mutant.text) != 1:
        raise ValueError(f'{mutant.what}: {mutant.file} has {text.count(mutant.text)} times {mutant.text!r}')
    return text.replace(mutant.text, mutant.broken)


def _notices(folder: Path, tests: tuple[str, ...]) -> bool:
    """Whether one of the tests fails on the package in this folder. One that does not end fails."""
    environment = {**os.environ, 'PYTHONPATH': str(folder), 'GROOT_ROS_NO_SHRINKING': '1'}
    command = [sys.executable, '-m', 'pytest', '-x', '-q', '-m', 'not cell', *tests]
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return True
    if ended.returncode not in (0, 1):
        raise RuntimeError(f'pytest ended with {ended.returncode}: {ended.stdout[-2000:]}')
    return ended.returncode == 1


def _try(mutant: Mutant, folder: Path) -> str:
    """Which tests notice the mutant: 'orders', 'cases' or 'none'."""
    file = folder / mutant.file
    kept = file.read_text()
    file.write_text(broken_text(mutant, folder))
    try:
        if _notices(folder, ORDERS):
            return 'orders'
        return 'cases' if _notices(folder, CASES) else 'none'
    finally:
        file.write_text(kept)


def main() -> int:
    """Tries every mutant in a copy of the package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', default='', help='only those with this text in what they break')
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.what]
    counts = {'orders': 0, 'cases': 0, 'none': 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in _COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        if _notices(folder, ORDERS + CASES):
            print('the tests fail without any change', file=sys.stderr)
            return 1
        for mutant in mutants:
            began_s = time.monotonic()
            result = _try(mutant, folder)
            counts[result] += 1
            print(f'{result:7} {time.monotonic() - began_s:5.1f} s  {mutant.what}', flush=True)
    print(
        f'{len(mutants)} changes: {counts["orders"]} noticed by the test of orders, '
        f'{counts["cases"]} by the tests of cases, {counts["none"]} by none'
    )
    return 1 if counts['none'] else 0


if __name__ == '__main__':
    sys.exit(main())
