"""The process that owns ur_rtde: reads state, interpolates waypoints at 500 Hz into servoL. Started by hardware/ur5e.py.

ur_rtde can crash or hang (a reconnect ends in SIGSEGV, a call can wait for 300 s), so it never runs in the node.
"""

import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

import numpy as np
from dashboard_client import DashboardClient
from rtde_control import RTDEControlInterface
from rtde_receive import RTDEReceiveInterface

from groot_ros.control.interpolation import PoseTrajectory
from groot_ros.geometry import pose_from_rotvec, rotvec_from_pose
from groot_ros.hardware.ur5e_records import COMMAND, QUIT, START, STATE, STOP, WAYPOINT
from groot_ros.realtime import SERVO_PRIORITY, ask_for_realtime

_VARIABLES = [
    'timestamp', 'actual_q', 'actual_qd', 'actual_TCP_pose', 'target_TCP_pose', 'target_q', 'speed_scaling', 'robot_mode',
    'safety_mode', 'runtime_state', 'safety_status_bits', 'robot_status_bits',
]  # fmt: skip
_PLAYING, _RUNNING = 2, 7
_WATCHDOG_HZ = 4.0
_STOP_DECELERATION = 5.0
_REREADS = 3
_GOLDEN_RATIO = 0.6180339887  # its multiples fill a cycle evenly


class Arm:
    """One connection to the robot, from start to exit."""

    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.receive = RTDEReceiveInterface(settings['host'], settings['state_rate_hz'], _VARIABLES)
        self.control: RTDEControlInterface | None = None
        self.trajectory: PoseTrajectory | None = None
        self._record = np.zeros(1, STATE)
        self._last_time_s = -1.0

    def new_state(self) -> bytes | None:
        """A STATE record where the robot sent something since the last call.

        The getters are separate calls, so the time is read again behind them: one record comes from one package.
        """
        if self.receive.getTimestamp() == self._last_time_s:
            return None
        arrival_ns = time.time_ns()
        for _ in range(_REREADS):
            before_s = self.receive.getTimestamp()
            self._fill(before_s, arrival_ns)
            if self.receive.getTimestamp() == before_s:
                break
        self._last_time_s = before_s
        return self._record.tobytes()

    def note_cycle(self, longest_ms: float) -> None:
        """Records the longest servo cycle of late."""
        self._record['cycle_ms_max'] = longest_ms

    def start(self) -> None:
        """Uploads the control script where it does not run, and holds the robot's own target pose."""
        if self.control is None:
            self.control = RTDEControlInterface(self.settings['host'], self.settings['servo_rate_hz'])
            self.control.setTcp(self.settings['tcp_offset'])
            self.control.setPayload(self.settings['payload_kg'], self.settings['payload_centre_m'])
        elif not self.control.isProgramRunning() and not self.control.reuploadScript():
            raise RuntimeError('the control script could not be uploaded again')
        self.control.setWatchdog(_WATCHDOG_HZ)
        pose = pose_from_rotvec(np.array(self.receive.getTargetTCPPose()))
        self.trajectory = PoseTrajectory(time.monotonic(), pose)

    def stop(self) -> None:
        """Slows the arm down and lets the control script idle."""
        if self.trajectory is not None and self.control is not None and self.control.isProgramRunning():
            self.control.servoStop(_STOP_DECELERATION)
        self.trajectory = None

    def servo(self) -> None:
        """Sends the set-point of this instant; gives up where the program has stopped."""
        if self.trajectory is None or self.control is None:
            return
        if self.receive.getRuntimeState() != _PLAYING:
            self.trajectory = None
            return
        pose = rotvec_from_pose(self.trajectory.sample(time.monotonic())).tolist()
        period_s = 1.0 / self.settings['servo_rate_hz']
        if not self.control.servoL(pose, 0.0, 0.0, period_s, self.settings['lookahead_s'], self.settings['gain']):
            self.trajectory = None

    def keep_alive(self) -> None:
        """Feeds the watchdog while no set-points flow."""
        if self.trajectory is None and self.control is not None and self.receive.getRuntimeState() == _PLAYING:
            self.control.kickWatchdog()

    def close(self) -> None:
        """Stops the arm and the script, so that the robot is left holding."""
        self.stop()
        if self.control is not None:
            self.control.stopScript()
            self.control.disconnect()
        self.receive.disconnect()

    def _fill(self, robot_time_s: float, arrival_ns: int) -> None:
        receive = self.receive
        self._record[0] = (
            robot_time_s, arrival_ns, receive.getActualQ(), receive.getActualQd(), receive.getActualTCPPose(), receive.getTargetTCPPose(),
            receive.getTargetQ(), receive.getSpeedScaling(), receive.getRobotMode(), receive.getSafetyMode(), receive.getRuntimeState(),
            receive.getSafetyStatusBits(), self.trajectory is not None, self._record[0]['cycle_ms_max'],
        )  # fmt: skip


def check_ready(host: str) -> None:
    """Raises RuntimeError, with the mending, where the robot at `host` is not ready for ur_rtde."""
    dashboard = DashboardClient(host)
    dashboard.connect(2000)
    mode = dashboard.robotmode()
    dashboard.disconnect()
    if not mode.endswith('RUNNING'):
        raise RuntimeError(f'the robot says "{mode}": switch it on and release the brakes on the teach pendant')


def obey(arm: Arm, pipe: Connection) -> bool:
    """Carries out the commands that wait in the pipe; False after QUIT."""
    while pipe.poll():
        order = np.frombuffer(pipe.recv_bytes(), COMMAND)[0]
        kind = int(order['kind'])
        if kind == QUIT:
            return False
        if kind == START:
            arm.start()
        elif kind == STOP:
            arm.stop()
        elif kind == WAYPOINT and arm.trajectory is not None:
            # A segment that arrives after its own end is shortened, not dropped: the integrated target must be reached.
            earliest_s = max(time.monotonic(), arm.trajectory.end[0], float(order['start_s'])) + 0.004
            arm.trajectory.append(float(order['start_s']), max(float(order['end_s']), earliest_s), order['pose'])
    return True


def loop(arm: Arm, pipe: Connection, servo_rate_hz: float) -> None:
    """Runs until QUIT or until the driver is gone.

    The state is looked at once a cycle, each time at another phase of it: at a fixed phase every package would seem to
    arrive equally late, and the filter of control/clock.py could not find out how late.
    """
    period_s = 1.0 / servo_rate_hz
    due_s, last_s, longest_s, cycles = time.monotonic(), time.monotonic(), 0.0, 0
    while obey(arm, pipe):
        arm.servo()
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
        cycles += 1
        _sleep_until(due_s + period_s * (cycles * _GOLDEN_RATIO % 1.0))
        if (state := arm.new_state()) is not None:
            pipe.send_bytes(state)
        if cycles % round(servo_rate_hz / 20) == 0:
            arm.keep_alive()
        if cycles % round(servo_rate_hz) == 0:
            arm.note_cycle(longest_s * 1e3)
            longest_s = 0.0
        due_s = max(due_s + period_s, time.monotonic() - 5 * period_s)
        _sleep_until(due_s)


def _sleep_until(time_s: float) -> None:
    time.sleep(max(time_s - time.monotonic(), 0.0))


def main() -> int:
    """`python -m groot_ros.hardware.ur5e_child FD SETTINGS_JSON`; says why it ended in one line on stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which then ends this process in order
    pipe, settings = Connection(int(sys.argv[1])), json.loads(sys.argv[2])
    arm = None
    try:
        check_ready(settings['host'])
        ask_for_realtime(SERVO_PRIORITY)
        arm = Arm(settings)
        loop(arm, pipe, settings['servo_rate_hz'])
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:  # the one place where the library's many exceptions become one line for the driver
        print(f'{type(error).__name__}: {error}'.splitlines()[0], file=sys.stderr, flush=True)
        os._exit(1)  # destructors of a broken ur_rtde connection hang
    finally:
        if arm is not None and sys.exc_info()[0] is None:
            arm.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
