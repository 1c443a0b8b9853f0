"""teleop: turns an operator's input into teleop/tcp_delta and episode calls. Source here: the scripted operator of sim_cell."""

import time
from enum import Enum, auto

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.task import Future

from groot_ros.control.moves import Move, MoveFollower
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.nodes.common import COMMAND_QOS, STATUS_QOS, STREAM_QOS, GrootNode, Parameter, run_node, time_of
from groot_ros.sim.hooks import CellHooks
from groot_ros.srv import StartEpisode, StopEpisode
from groot_ros.teleop.scripted import TASK, cube_in_bin, pick_and_place, random_cube, random_start

PARAMETERS = {
    'source': Parameter('scripted', "'scripted': picks and places in sim_cell by itself"),
    'rate_hz': Parameter(40.0, 'rate of teleop/tcp_delta, Hz', 10.0, 125.0),
    'sim_host': Parameter('127.0.0.1', 'address of sim_cell, for source scripted'),
    'episodes': Parameter(3, 'how many demonstrations the scripted operator records before it rests'),
    'seed': Parameter(0, 'seed of cube places and starts, for source scripted'),
    'operator_name': Parameter('scripted', 'name written into each episode'),
}
_READY_HOLD_S = 0.6
_PATIENCE_S = 15.0


class Phase(Enum):
    """What the scripted operator is doing."""

    WAITING = auto()
    APPROACHING = auto()
    STARTING = auto()
    SHOWING = auto()
    SAVING = auto()
    RESTING = auto()


class Teleop(GrootNode):
    """Publishes a delta on every tick while the arm is enabled; zero deltas hold the arm, silence would stop it."""

    def __init__(self) -> None:
        super().__init__('teleop', PARAMETERS)
        if self.parameter('source') != 'scripted':
            raise GrootRosError(f"The teleop source {self.parameter('source')!r} is not known: use 'scripted'.")
        self._rng = np.random.default_rng(self.parameter('seed'))
        self._period_s = 1.0 / self.parameter('rate_hz')
        self._follower: MoveFollower | None = None
        self._phase, self._sequence, self._recorded = Phase.WAITING, 0, 0
        self._target: Array | None = None
        self._enabled = False
        self._answer: Future | None = None
        self._asked_s = self._ask_again_s = 0.0
        self._deltas = self.create_publisher(TcpDelta, 'teleop/tcp_delta', COMMAND_QOS)
        self._start = self.create_client(StartEpisode, 'recorder/start')
        self._stop = self.create_client(StopEpisode, 'recorder/stop')
        self._targets = None
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_timer(self._period_s, self._tick)

    def open(self) -> None:
        """Connects to the cell."""
        self._cell = CellHooks(self.parameter('sim_host'), _PATIENCE_S)

    def close(self) -> None:
        """Hangs up on the cell."""
        self._cell.close()

    def _on_target(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        self._target = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])

    def _on_status(self, message: RobotStatus) -> None:
        self._enabled = message.state == RobotStatus.ENABLED
        if not self._enabled:
            self._follower, self._phase, self._target = None, Phase.WAITING, None
        self._listen(self._enabled and self._target is None)

    def _listen(self, on: bool) -> None:
        """Subscribes to tcp_target only until a motion begins: 125 messages a second cost a Python node much."""
        if on and self._targets is None:
            self._targets = self.create_subscription(PoseStamped, 'tcp_target', self._on_target, STREAM_QOS)
        elif not on and self._targets is not None:
            self.destroy_subscription(self._targets)
            self._targets = None

    def _tick(self) -> None:
        if not self.active or not self._enabled or self._target is None:
            return
        if self._follower is None:
            self._follower = MoveFollower(self._target, self._period_s)
        self._decide(self._follower)
        self._publish(self._follower.step(), self._follower.opening)

    def _decide(self, follower: MoveFollower) -> None:
        """Moves on to the next phase where the present one has ended."""
        if self._phase is Phase.WAITING and self._recorded < self.parameter('episodes'):
            self._cell.place_cube(*random_cube(self._rng))
            follower.follow([Move(random_start(self._rng), 1.0, hold_s=_READY_HOLD_S)])
            self._phase = Phase.APPROACHING
        elif self._phase is Phase.APPROACHING and follower.done:
            self._asked_s, self._phase = time.monotonic(), Phase.STARTING
        elif self._phase is Phase.STARTING and self._started():
            follower.follow([Move(follower.pose, 1.0, hold_s=0.3), *pick_and_place(self._cell.cube_pose(), self._rng)])
            self._phase = Phase.SHOWING
        elif self._phase is Phase.SHOWING and follower.done:
            request = StopEpisode.Request(succeeded=cube_in_bin(self._cell.cube_pose()))
            self._answer, self._phase = self._stop.call_async(request), Phase.SAVING
        elif self._phase is Phase.SAVING and self._saved():
            self._recorded += 1
            self._phase = Phase.WAITING if self._recorded < self.parameter('episodes') else Phase.RESTING

    def _started(self) -> bool:
        """Asks the recorder to start, again each second until its streams flow; whether it records now."""
        now_s = time.monotonic()
        if self._answer is None and now_s >= self._ask_again_s:
            request = StartEpisode.Request(task=TASK, operator_name=self.parameter('operator_name'))
            self._answer, self._ask_again_s = self._start.call_async(request), now_s + 1.0
        if self._answer is None or not self._answer.done():
            return False
        answer, self._answer = self._answer.result(), None
        if not answer.success and now_s - self._asked_s > _PATIENCE_S:
            self.fail(f'The recorder did not start the episode: {answer.message}')
        return answer.success

    def _saved(self) -> bool:
        """Whether the recorder has saved the episode; where it could not, its own words end the node."""
        if self._answer is None or not self._answer.done():
            return False
        answer, self._answer = self._answer.result(), None
        if not answer.success:
            self.fail(f'The recorder did not save the episode: {answer.message}')
        return answer.success

    def _publish(self, delta: Array, opening: float) -> None:
        self._sequence += 1
        message = TcpDelta(source='teleop', sequence=self._sequence, opening=opening, duration=self._period_s)
        message.translation, message.rotation = delta[:3], delta[3:]
        message.header.stamp, message.header.frame_id = time_of(self.now_ns()), 'base'
        self._deltas.publish(message)


def main() -> int:
    """Entry of `ros2 run groot_ros teleop`."""
    return run_node(Teleop)


if __name__ == '__main__':
    raise SystemExit(main())
