# SPDX-License-Identifier: Apache-2.0
"""The operator's page with the simulated cell: time to stop the arm, processor time, delay of the images.

The arm is moved by deltas of this process. All times are of one clock: cell, nodes and browser share a
computer. Needs a Chromium.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from groot_ros.msg import RobotStatus, TcpDelta
from sensor_msgs.msg import JointState

from benchmark.browser import Browser
from benchmark.common import options, report
from benchmark.page_round import PageRound, running_round
from groot_ros.message_fields import header_stamp_ns
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.time import to_time_msg

_HOST = '127.9.0.2'
_WATCH_S = 20.0
_TRIALS = 10
_PERIOD_S = 0.05
_STEP_M = 0.003
_SWING_STEPS = 60
_MOVES_RAD_S = 0.05
_STANDS_RAD_S = 0.005
# Notes when each image was exposed and shown: a frame is on the screen when the next one is prepared.
_HOOK = """
window.shownMs = [];
const stamps = {};
const Socket = WebSocket;
window.WebSocket = class extends Socket {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', (event) => {
      if (typeof event.data === 'string') return;
      const header = new DataView(event.data);
      stamps[header.getUint8(0)] = 1000 * header.getFloat64(8, true);
    });
  }
};
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...given) {
  draw.apply(this, given);
  const index = [...document.querySelectorAll('#cameras canvas')].indexOf(this.canvas);
  const stampMs = stamps[index];
  requestAnimationFrame(() => window.shownMs.push(Date.now() - stampMs));
};
"""


class Mover:
    """Moves the arm to and fro while `moving`, and notes speeds and states with their stamps."""

    def __init__(self) -> None:
        self.moving = False
        self.speeds: list[tuple[float, float]] = []
        self.states: list[tuple[float, int]] = []
        self._node = rclpy.create_node('mover')
        self._deltas = self._node.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self._node.create_subscription(JointState, 'joint_states', self._take_joints, STREAM_QOS)
        self._node.create_subscription(RobotStatus, 'robot_status', self._take_status, STATUS_QOS)
        self._node.create_timer(_PERIOD_S, self._send)
        self._sequence = 0
        self._thread = threading.Thread(target=rclpy.spin, args=(self._node,), daemon=True)
        self._thread.start()

    def move(self) -> bool:
        """Begins to move the arm; returns whether it moves, which a computer that stalls may prevent."""
        self.speeds.clear()
        self.states.clear()
        self.moving = True
        self._until(lambda: len(self.speeds) > 60 and (self.speeds[-1][1] > _MOVES_RAD_S or self._stopped))
        return not self._stopped

    @property
    def _stopped(self) -> bool:
        return bool(self.states) and self.states[-1][1] == RobotStatus.STOPPED

    def stop_time_s(self, click: Callable[[], float]) -> tuple[float, float]:
        """Times from a click to the state DISABLED, and to the standstill of the joints, s."""
        clicked_s = click()
        self._until(lambda: bool(self.states) and self.states[-1][1] == RobotStatus.DISABLED)
        disabled_s = self.states[-1][0]
        self._until(lambda: all(speed < _STANDS_RAD_S for _, speed in self.speeds[-40:]))
        self.moving = False
        moved = [stamp_s for stamp_s, speed in list(self.speeds) if speed >= _STANDS_RAD_S]
        return disabled_s - clicked_s, moved[-1] - clicked_s

    def _take_joints(self, message: JointState) -> None:
        self.speeds.append((header_stamp_ns(message) / 1e9, float(np.abs(message.velocity).max())))

    def _take_status(self, message: RobotStatus) -> None:
        if not self.states or self.states[-1][1] != message.state:
            self.states.append((header_stamp_ns(message) / 1e9, message.state))

    def _send(self) -> None:
        if not self.moving:
            return
        self._sequence += 1
        step_m = _STEP_M * np.sin(2 * np.pi * self._sequence / _SWING_STEPS)
        message = TcpDelta(source='teleop', sequence=self._sequence, opening=float('nan'), duration=_PERIOD_S)
        message.translation = np.array([0.0, step_m, 0.0])
        message.header.stamp = to_time_msg(time.time_ns())
        self._deltas.publish(message)

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError('The arm did not do what was waited for within 60 s.')
            time.sleep(0.002)


def processor_s() -> float:
    """Processor time of all nodes so far, s: of every process that this one started, but for the browser."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    ticks = os.sysconf('SC_CLK_TCK')
    for path in Path('/proc').glob('[0-9]*'):
        try:
            values = (path / 'stat').read_text().rsplit(')', 1)[1].split()
            is_browser = b'chrom' in (path / 'cmdline').read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if not is_browser:
            parents[int(path.name)] = int(values[1])
            used[int(path.name)] = (int(values[11]) + int(values[12])) / ticks
    return sum(used[pid] for pid in parents if _is_below(pid, parents))


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    """Whether a process was started by this one, or by one that this one started."""
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def watch(page: int) -> tuple[float, float]:
    """Cores that all nodes use over 20 s, and those that the process `page` uses of them."""
    before_s = processor_s()
    page_before_s = _used_s(page)
    began_s = time.monotonic()
    time.sleep(_WATCH_S)
    lasted_s = time.monotonic() - began_s
    return (processor_s() - before_s) / lasted_s, (_used_s(page) - page_before_s) / lasted_s


def _used_s(pid: int) -> float:
    """Processor time that a process has used, s."""
    values = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(values[11]) + int(values[12])) / os.sysconf('SC_CLK_TCK')


def click_stop(browser: Browser) -> float:
    """Presses the stop button; returns when its event began, s."""
    return (
        browser.evaluate(
            "(() => { const nowMs = Date.now(); document.getElementById('stop').click(); return nowMs; })()"
        )
        / 1e3
    )


def stop_times(steps: PageRound) -> list[tuple[float, float]]:
    """Times of the trials, see Mover.stop_time_s."""
    rclpy.init()
    mover = Mover()
    times = []
    for _ in range(3 * _TRIALS):
        if len(times) == _TRIALS:
            break
        try:
            steps.enable()
        except TimeoutError:  # a computer that stalls: the driver has said why in its log
            continue
        if mover.move():
            times.append(mover.stop_time_s(lambda: click_stop(steps.browser)))
        mover.moving = False
        steps.stop()
    rclpy.shutdown()
    return times


def main() -> int:
    """Prints the figures."""
    file = options(__doc__ or '').json
    with (
        tempfile.TemporaryDirectory() as folder,
        running_round(Path(folder), _HOST) as steps,
    ):
        steps.browser.run_before_scripts(_HOOK)
        steps.open_again()
        steps.browser.open('about:blank')
        time.sleep(1.0)
        without = watch(steps.group.pid('operator_page'))
        steps.open_again()
        steps.browser.evaluate('window.shownMs.length = 0')
        with_page = watch(steps.group.pid('operator_page'))
        shown_ms = steps.browser.evaluate('window.shownMs')
        times = stop_times(steps)
    disabled_ms, still_ms = 1e3 * np.array(times).T
    figures = [
        ('times that the stop button was pressed while the arm moved', len(times), ''),
        ('click to DISABLED in robot_status, median', float(np.median(disabled_ms)), 'ms'),
        ('click to DISABLED in robot_status, max', float(disabled_ms.max()), 'ms'),
        ('click to standstill of all joints, median', float(np.median(still_ms)), 'ms'),
        ('click to standstill of all joints, max', float(still_ms.max()), 'ms'),
        ('cores of all nodes, page served and not open', without[0], ''),
        ('cores of all nodes, page open with one camera of 640x480', with_page[0], ''),
        ("cores of the page's node, not open", without[1], ''),
        ("cores of the page's node, open with one camera of 640x480", with_page[1], ''),
        ('images shown a second', len(shown_ms) / _WATCH_S, '1/s'),
        ('exposure to display, median', float(np.median(shown_ms)), 'ms'),
        ('exposure to display, p95', float(np.percentile(shown_ms, 95)), 'ms'),
        ('load average of the computer, 1 min', os.getloadavg()[0], ''),
    ]
    report("The operator's page", figures, file)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
